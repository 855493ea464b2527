"""The lecture's pictures, drawn from what the monitors measured. Each returns `(height, width, 3)` bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from bnlm.stats import bin_edges

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: From this many curves on, only some are named in the legend.
MAX_LEGEND = 14


def distributions(histograms: Mapping[str, np.ndarray], title: str) -> np.ndarray:
    """Draw one density curve a layer; colours go from the first layer (dark) to the last (bright)."""
    figure, axes = _new(10, 4, right=0.66)
    for (label, counted), color in zip(histograms.items(), _by_depth(len(histograms)), strict=True):
        low, high, counts = float(counted[0]), float(counted[1]), counted[2:]
        if not (np.isfinite([low, high]).all() and high > low and counts.sum() > 0):
            continue
        edges = np.array(bin_edges(low, high))
        density = counts / counts.sum() / (edges[1] - edges[0])
        axes.plot((edges[:-1] + edges[1:]) / 2, density, color=color, linewidth=1.4, label=label)
    axes.set_xlabel("value")
    axes.set_ylabel("density")
    axes.set_ylim(bottom=0)
    _finish(axes, title)
    return _pixels(figure)


def updates(history: Mapping[str, Sequence[tuple[int, float]]]) -> np.ndarray:
    """Draw log10 update:data of each parameter over the steps, with a line at -3."""
    figure, axes = _new(10, 4, right=0.66)
    for (name, points), color in zip(history.items(), _by_depth(len(history)), strict=True):
        steps, values = zip(*points, strict=True)
        marker = "o" if len(points) == 1 else None
        axes.plot(steps, values, color=color, linewidth=1.2, marker=marker, markersize=4, label=name)
    axes.axhline(-3, color="black", linewidth=1.2, linestyle="--", label="rule of thumb: -3")
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("log10( std(update) / std(parameter) )")
    _finish(axes, "Update : data ratio")
    return _pixels(figure)


def saturation_map(flat: np.ndarray, title: str) -> np.ndarray:
    """Draw which outputs are flat, `(examples, units)`: white where flat, so an all-white column is a dead unit."""
    figure, axes = _new(10, 2.8, right=0.98)
    axes.imshow(flat, cmap="gray", vmin=0, vmax=1, interpolation="nearest", aspect="auto")
    axes.set_xlabel(f"unit ({flat.shape[1]})")
    axes.set_ylabel(f"example ({flat.shape[0]})")
    axes.set_title(f"{title}: {flat.mean():.1%}", fontsize=10)
    return _pixels(figure)


def _new(width: float, height: float, right: float) -> tuple[Figure, Axes]:
    # No pyplot: a Figure of our own needs no display, is nobody else's current figure, and is freed with its last use.
    # Fixed margins: a tight layout lays out every text twice, half of the time of drawing.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=80)
    margins = {"left": 0.65 / width, "right": right, "bottom": 0.5 / height, "top": 1 - 0.35 / height}
    return figure, figure.subplots(gridspec_kw=margins)


def _by_depth(count: int) -> np.ndarray:
    from matplotlib import colormaps

    return colormaps["viridis"](np.linspace(0, 0.92, max(count, 1)))[:count]


def _finish(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.25)
    handles, labels = axes.get_legend_handles_labels()
    if len(handles) > MAX_LEGEND:
        chosen = np.unique(np.linspace(0, len(handles) - 1, MAX_LEGEND).round().astype(int))
        handles, labels = [handles[i] for i in chosen], [labels[i] for i in chosen]
    if handles:
        axes.legend(handles, labels, fontsize=7.5, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)


def _pixels(figure: Figure) -> np.ndarray:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
