"""Lightning callbacks that watch a training step; they work on anybody's LightningModule."""

from bnlm.callbacks.activation_monitor import ActivationMonitor
from bnlm.callbacks.doctor import CriticalFindingError, Doctor
from bnlm.callbacks.gradient_monitor import GradientMonitor
from bnlm.callbacks.progress import StepProgress
from bnlm.callbacks.update_monitor import UpdateMonitor

__all__ = ["ActivationMonitor", "CriticalFindingError", "Doctor", "GradientMonitor", "StepProgress", "UpdateMonitor"]
