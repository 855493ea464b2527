"""Makes the pictures of docs/diagnostics.md from four real runs of the lecture's deep network.

    python scripts/diagnostics_pictures.py [--folder docs] [--steps 1000]

`statistics.png`: every statistic by step, a row each; with BatchNorm, without it at gains that are too small and too
large, and with ReLU at a learning rate that kills its units. `figures.png`: the figures that TensorBoard shows of the
first of these runs, at its last observed step.
"""

import argparse
import io
import tempfile
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from hydra import compose, initialize_config_dir
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bnlm.config import CONF
from bnlm.run import train

RUNS = {
    "lecture_deep": ["experiment=lecture_deep"],
    "lecture_deep_plain init.gain=0.5": ["experiment=lecture_deep_plain", "init.gain=0.5"],
    "lecture_deep_plain init.gain=3": ["experiment=lecture_deep_plain", "init.gain=3"],
    "... model.activation=relu optimizer.lr=1": [
        "experiment=lecture_deep_plain",
        "model.activation=relu",
        "init.gain=1.41",
        "optimizer.lr=1",
    ],
}
#: Start of the tags, and whether the axis is logarithmic.
STATISTICS = [
    ("activation_mean", False), ("activation_std", False), ("preactivation_std", False), ("saturation", False),
    ("dead_units", False), ("activation_gradient_std", True), ("gradient_std", True), ("grad_to_data", True),
    ("update_to_data", False), ("gradient_norm", True),
]  # fmt: skip
FIGURES = ["activations", "activation_gradients", "weight_gradients", "update_to_data"]


def run(overrides: Sequence[str], steps: int) -> EventAccumulator:
    """Train, and return what TensorBoard would show."""
    with tempfile.TemporaryDirectory() as folder:
        given = [*overrides, "data=names", f"trainer.max_steps={steps + 1}", f"logger.save_dir={folder}"]
        quiet = ["trainer.limit_val_batches=0", "trainer.enable_progress_bar=false", "diagnostics.every_n_steps=20"]
        with initialize_config_dir(str(CONF), version_base="1.3"):
            train(compose("train", [*given, *quiet]), Path(folder))
        events = EventAccumulator(f"{folder}/tensorboard", size_guidance={"images": 0, "scalars": 0})
        return events.Reload()


def statistics(runs: dict[str, EventAccumulator], path: Path) -> None:
    """Draw every statistic of every run: a line a layer or hidden weight, dark is near the input."""
    fig, axes = plt.subplots(len(STATISTICS), len(runs), figsize=(13.5, 1.75 * len(STATISTICS)))
    for row, (statistic, logarithmic) in zip(axes, STATISTICS, strict=True):
        for axis, (name, events) in zip(row, runs.items(), strict=True):
            tags = [tag for tag in events.Tags()["scalars"] if tag.startswith(f"{statistic}/")]
            weights = [tag for tag in tags if "blocks" in tag and "linear.weight" in tag]
            shown = weights or tags
            for index, tag in enumerate(shown):
                found = events.Scalars(tag)
                color = plt.get_cmap("viridis")(0.9 * index / max(1, len(shown) - 1))
                axis.plot([e.step for e in found], [e.value for e in found], color=color, linewidth=1)
            if logarithmic:
                axis.set_yscale("log")
            if statistic == "update_to_data":
                axis.axhline(-3, color="black", linewidth=0.8, linestyle=":")
            axis.tick_params(labelsize=7)
            if axis.get_subplotspec().is_first_row():
                axis.set_title(name, fontsize=9)
        row[0].set_ylabel(statistic, fontsize=8)
    for axis in axes[-1]:
        axis.set_xlabel("optimizer step", fontsize=8)
    fig.tight_layout()
    fig.savefig(path, dpi=72)
    plt.close(fig)


def figures(events: EventAccumulator, path: Path) -> None:
    """Put the figures of the last observed step under each other."""
    pictures = [
        Image.open(io.BytesIO(events.Images(f"figures/{name}")[-1].encoded_image_string)).convert("RGB")
        for name in FIGURES
    ]
    joined = Image.new("RGB", (max(p.width for p in pictures), sum(p.height for p in pictures)), "white")
    top = 0
    for picture in pictures:
        joined.paste(picture, (0, top))
        top += picture.height
    joined.quantize(64).save(path, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("docs"))
    parser.add_argument("--steps", type=int, default=1000)
    options = parser.parse_args()
    runs = {name: run(overrides, options.steps) for name, overrides in RUNS.items()}
    statistics(runs, options.folder / "statistics.png")
    figures(runs["lecture_deep"], options.folder / "figures.png")
    print(f"{options.folder}/statistics.png, {options.folder}/figures.png")


if __name__ == "__main__":
    main()
