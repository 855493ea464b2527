"""How much memory the default run takes, and whether it grows.

    python scripts/memory.py [override ...]

Prints the resident memory every 1,000 steps, and at the end the peak of the process and the growth from step 1,000 on.
"""

import resource
import sys
import tempfile
from pathlib import Path
from typing import Any

import psutil
from hydra import compose, initialize_config_dir
from lightning.pytorch import Callback, LightningModule, Trainer
from omegaconf import open_dict

from bnlm.config import CONF
from bnlm.run import train

MIB = 2**20
EVERY = 1000


class Memory(Callback):
    """Notes the resident memory every `EVERY` optimizer steps."""

    resident: dict[int, float] = {}  # noqa: RUF012  (one process, one run)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if trainer.global_step % EVERY == 0:
            self.resident[trainer.global_step] = psutil.Process().memory_info().rss / MIB


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = compose("train", [f"logger.save_dir={folder}", *sys.argv[1:]])
        with open_dict(cfg):
            cfg.callbacks.memory = {"_target_": f"{__name__}.Memory"}
        train(cfg, Path(folder))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    for step, mib in Memory.resident.items():
        print(f"step {step:>6,}: {mib:6.1f} MiB")
    steps = sorted(Memory.resident)
    growth = Memory.resident[steps[-1]] - Memory.resident[steps[0]]
    print(f"peak {peak:.1f} MiB; from step {steps[0]:,} to {steps[-1]:,}: {growth:+.1f} MiB")


if __name__ == "__main__":
    main()
