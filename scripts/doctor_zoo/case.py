"""What one labelled run is: how it is made, and what a doctor should say about it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from lightning import LightningModule
from torch import Tensor
from torch.utils.data import DataLoader


@dataclass
class Run:
    """One training run, ready for a Trainer.

    Attributes:
        module: The LightningModule.
        train: Batches to train on.
        val: Batches to validate on at the end of each epoch, or None for no validation loop.
        steps: Optimizer steps to take.
        trainer: Further arguments of ``lightning.Trainer``.
    """

    module: LightningModule
    train: "DataLoader[tuple[Tensor, ...]]"
    val: "DataLoader[tuple[Tensor, ...]] | None"
    steps: int
    trainer: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """A run with its label.

    Attributes:
        name: Unique, ``healthy/...`` or ``{rule}/...``.
        make: Makes the run from torch's global generator: the same seed gives the same run.
        causes: Rules that name the true cause, the primary one first; empty for a healthy run.
        critical: Whether the network learns nothing, or nothing lasting, because of it.
        seed: For torch's global generator, before ``make`` is called.
        every_n_steps: How often the doctor looks.
    """

    name: str
    make: Callable[[], Run]
    causes: tuple[str, ...] = ()
    critical: bool = False
    seed: int = 0
    every_n_steps: int = 10
