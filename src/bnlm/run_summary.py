"""What a finished run says of itself: `summary.json` and the last lines on the screen."""

import math
import shlex
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from omegaconf import DictConfig

from bnlm.data import CharacterDataModule
from bnlm.evaluate import evaluate
from bnlm.language_model import LanguageModel
from bnlm.metrics import over_replicas
from bnlm.models import networks_of
from bnlm.replica_lists import of_each, values_of_each


def summarize(
    cfg: DictConfig, model: LanguageModel, data: CharacterDataModule, trainer: Trainer, seconds: float, first_step: int
) -> dict[str, Any]:
    """Evaluate the trained model on all splits, log what is new, and return what goes into `summary.json`."""
    model.to(trainer.strategy.root_device)  # Lightning leaves it on the processor
    results = {}
    networks = networks_of(model.model)
    for split in ("train", "val", "test"):
        batches = data.evaluation_dataloader(split)
        metrics = over_replicas([evaluate(network, data.vocab_size, batches) for network in networks])
        results.update({f"{split}/{name}": value for name, value in metrics.items()})
    model.log_metrics({tag: value for tag, value in results.items() if tag.startswith("test/")}, trainer.global_step)
    if model.last_validation != trainer.global_step:
        model.log_metrics({tag: value for tag, value in results.items() if tag.startswith("val/")}, trainer.global_step)
    for logger in trainer.loggers:
        logger.finalize("success")
    steps = trainer.global_step - first_step
    return {
        **results,
        "first_loss": model.first_loss,
        **_best(model, data, trainer, results),
        "steps": trainer.global_step,
        "parameters": sum(p.numel() for p in networks[0].parameters()),
        "replicas": len(networks),
        "examples": {split: data.n_characters(split) for split in ("train", "val", "test")},
        "seconds": round(seconds, 3),
        "steps_per_second": round(steps / seconds, 1),
        "seed": of_each(cfg)[0].seed,
        **({"replica_values": values_of_each(cfg)} if len(networks) > 1 else {}),
        "versions": {
            "python": sys.version.split()[0],
            **{name: version(name) for name in ("bnlm", "torch", "lightning", "hydra-core")},
        },
    }


def _best(
    model: LanguageModel, data: CharacterDataModule, trainer: Trainer, results: dict[str, float]
) -> dict[str, float | int]:
    """Return what the lowest validation loss was, at which step, and the test loss of the model of that step.

    The last step counts with the validations, between two of which it may lie.
    """
    callback = trainer.checkpoint_callback
    assert isinstance(callback, ModelCheckpoint)
    score = math.inf if callback.best_model_score is None else float(callback.best_model_score)
    if results["val/loss"] < score or not Path(callback.best_model_path).is_file():
        return {
            "best_val_loss": results["val/loss"],
            "best_step": trainer.global_step,
            "best_test_loss": results["test/loss"],
        }
    saved = torch.load(callback.best_model_path, map_location="cpu", weights_only=True)
    last = {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(saved["state_dict"])
    batches = data.evaluation_dataloader("test")
    metrics = over_replicas([evaluate(network, data.vocab_size, batches) for network in networks_of(model.model)])
    model.load_state_dict(last)
    return {"best_val_loss": score, "best_step": saved["global_step"], "best_test_loss": metrics["loss"]}


def finite(value: Any) -> Any:
    """Return `value` with null for each number that JSON does not know: nan and the infinities."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_summary(summary: dict[str, Any], words: list[str], run_folder: Path, trainer: Trainer) -> None:
    """Print losses, speed, some words and where everything is."""
    from rich.table import Table

    several = summary["replicas"] > 1
    title = f"After training: mean of {summary['replicas']} networks" if several else "After training"
    table = Table("split", "loss (nats/char)", "perplexity", "bits/char", "accuracy", title=title)
    for split in ("train", "val", "test"):
        loss, perplexity, bits, accuracy = (
            summary[f"{split}/{name}"] for name in ("loss", "perplexity", "bits_per_char", "accuracy")
        )
        spread = f" ± {summary[f'{split}/loss_std']:.4f}" if several else ""
        table.add_row(split, f"{loss:.4f}{spread}", f"{perplexity:.3f}", f"{bits:.4f}", f"{accuracy:.3f}")
    show(table)
    each = " each" if several else ""
    first = "" if summary["first_loss"] is None else f"first loss {summary['first_loss']:.4f}, "
    print(
        f"{summary['parameters']:,} parameters{each}, {first}{summary['steps']:,} steps, {summary['seconds']:.1f} s "
        f"({summary['steps_per_second']:,.0f} steps/s)"
    )
    if summary["best_step"] != summary["steps"]:
        print(
            f"Lowest validation loss {summary['best_val_loss']:.4f} at step {summary['best_step']:,}, "
            f"with test loss {summary['best_test_loss']:.4f} (checkpoints/best.ckpt)"
        )
    if words:
        print(f"It spells: {', '.join(words[:10])}")
    print(f"Run folder: {run_folder}")
    if any("TensorBoard" in type(logger).__name__ for logger in trainer.loggers):
        print(f"tensorboard --logdir {shlex.quote(str(run_folder))}", flush=True)


def show(renderable: Any) -> None:
    """Print one of rich's tables."""
    from rich.console import Console

    Console().print(renderable)
