"""python -m bnlm.train [group=option] [key=value] [-m]: train, validate, test, and say how it went.

What trains is imported when there is something to train: `--help` and a mistyped option are answered at once.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from bnlm.config import CONF, ConfigError
from bnlm.config_errors import explain, is_mistake

log = logging.getLogger("bnlm")


def _run_name(number: Any, overrides: str) -> str:
    """Name a job's folder by the overrides that are its own, without characters that mean something in a path."""
    for common in sorted(sys.argv[1:], key=len, reverse=True):  # what all jobs of a sweep have says nothing of this one
        overrides = re.sub(rf"(^|,){re.escape(common)}(?=,|$)", "", overrides, flags=re.IGNORECASE)
    name = re.sub(r"[^\w=.,+\-\[\]]+", "_", overrides).strip("_,")
    return name if 0 < len(name) <= 150 else f"{number}_{name[:140]}".rstrip("_")


OmegaConf.register_new_resolver("run_name", _run_name, replace=True)


@hydra.main(config_path=str(CONF), config_name="train", version_base="1.3")
def _main(cfg: DictConfig) -> float:
    from bnlm.run import Interrupted, train

    job = HydraConfig.get()
    try:
        summary = train(cfg, Path(job.runtime.output_dir), list(job.overrides.task))
    except Interrupted as interrupted:  # an exit ends a sweep too, which an exception would not
        sys.exit(interrupted.exit_code)
    except Exception as error:
        if job.mode == RunMode.MULTIRUN:
            log.error("This job failed, the sweep goes on: %s", error)
        elif isinstance(error, ConfigError) and not _TOLD_IN_FULL:
            _fail(str(error))
        raise
    return float(summary["val/loss"])


#: Whether the user asked Hydra for tracebacks.
_TOLD_IN_FULL = os.environ.get("HYDRA_FULL_ERROR") == "1"


def _fail(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


def main() -> None:
    """Run the command line; configuration mistakes are one message and exit code 2."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # lets errors come through to where they are put into words
    try:
        if any(argument.startswith("checkpoint=") for argument in sys.argv[1:]):
            from bnlm.resume import with_checkpoint_overrides

            sys.argv[1:] = with_checkpoint_overrides(sys.argv[1:])
        _main()
    except KeyboardInterrupt:
        print("\nInterrupted before there was anything to save.", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if _TOLD_IN_FULL or not is_mistake(error):
            raise
        _fail(str(error) if isinstance(error, ConfigError) else explain(error, sys.argv[1:]))


if __name__ == "__main__":
    main()
