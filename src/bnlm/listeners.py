"""Who listens to the optimizer steps of a batch, and so has to be called in each."""

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.plugins import Precision
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch.optim import Optimizer


def is_watched(optimizer: Optimizer) -> bool:
    """Return whether somebody, such as a monitor, listens to the steps of an optimizer.

    Monitors do so at the first step of a batch, which then is an eager one; who always does must have eager steps.
    """
    return bool(optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks)


def steps_can_be_direct(trainer: Trainer) -> bool:
    """Return whether backward and optimizer step can be called without Lightning's hooks around them.

    The hooks cost a fifth of a step. They do nothing on a single device in plain precision, unless a callback listens;
    ours look at the first step of a batch alone, and say so by `needs_every_step = False`.
    """
    hooks = ("on_before_backward", "on_after_backward", "on_before_optimizer_step")
    listening = (callback for callback in trainer.callbacks if getattr(callback, "needs_every_step", True))  # type: ignore[attr-defined]
    heard = any(getattr(type(c), hook) is not getattr(Callback, hook) for c in listening for hook in hooks)
    return type(trainer.strategy) is SingleDeviceStrategy and type(trainer.precision_plugin) is Precision and not heard
