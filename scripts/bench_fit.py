"""A training run as `bnlm.train` makes it, timed: what the benchmarks compare with their loops."""

import contextlib
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import open_dict

from bnlm.assembly import build_data, build_language_model, build_trainer, fit_batches_to_cadences
from bnlm.config import CONF, check
from bnlm.interruption import StopOnSignal


def timed_fit(steps: int, overrides: Sequence[str]) -> tuple[float, float, int]:
    """Return the seconds of `Trainer.fit` without validation, those spent on compiling, and how many parameters."""
    with tempfile.TemporaryDirectory() as folder:
        given = [f"trainer.max_steps={steps}", "trainer.limit_val_batches=0", f"logger.save_dir={folder}"]
        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = compose("train", [*overrides, *given])
        with open_dict(cfg):
            check(cfg)
        fit_batches_to_cadences(cfg)
        data = build_data(cfg)
        for split in ("train", "val"):
            data.examples(split)
        model = build_language_model(cfg, data)
        trainer = build_trainer(cfg, Path(folder) / "checkpoints", StopOnSignal())
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            started = time.perf_counter()
            trainer.fit(model, data)
            seconds = time.perf_counter() - started
        assert trainer.global_step == steps
        compiled = model._compiled
        parameters = sum(p.numel() for p in model.parameters())
        return seconds, 0.0 if compiled is None else compiled.seconds, parameters
