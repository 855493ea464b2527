"""How one optimizer step of any `nn.Module` is observed."""

from bnlm.probe.activation_modules import ActivationModules
from bnlm.probe.activation_tap import ActivationTap, leave_what_is_over
from bnlm.probe.loss_record import LOSS_FUNCTIONS, LossRecord, family_of
from bnlm.probe.moment_table import Sums, in_order
from bnlm.probe.names import Names
from bnlm.probe.plain_values import real
from bnlm.probe.records import ActivationRecord, Heard, ParameterRecord, StepRecord
from bnlm.probe.step_probe import StepProbe, Wanted, heard_optimizers, records_of

__all__ = [
    "LOSS_FUNCTIONS",
    "ActivationModules",
    "ActivationRecord",
    "ActivationTap",
    "Heard",
    "LossRecord",
    "Names",
    "ParameterRecord",
    "StepProbe",
    "StepRecord",
    "Sums",
    "Wanted",
    "family_of",
    "heard_optimizers",
    "in_order",
    "leave_what_is_over",
    "real",
    "records_of",
]
