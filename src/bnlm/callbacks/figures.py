"""The lecture's pictures, drawn from what the monitors measured. Each returns `(height, width, 3)` bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from bnlm.stats import bin_edges

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Of every figure, in inches of 80 pixels.
WIDTH = 10.0
#: From this many curves on, only some are named in the legend.
MAX_LEGEND = 14
#: Longest name in the legend, in characters; of a longer one the middle is left out.
MAX_LABEL = 64


def distributions(histograms: Mapping[str, np.ndarray], title: str) -> np.ndarray:
    """Draw one density curve a layer; colours go from the first layer (dark) to the last (bright).

    The limits suit the typical layer, so one that is far wider or more peaked leaves the picture instead of squeezing
    the others into a line. A layer without spread has no density: its value is marked, and said in the legend.
    """
    figure, axes = _new(4)
    curves = []
    for (label, counted), color in zip(histograms.items(), _by_depth(len(histograms)), strict=True):
        low, high, counts = float(counted[0]), float(counted[1]), counted[2:]
        if not (np.isfinite([low, high]).all() and counts.sum() > 0):
            axes.plot([], [], color=color, linestyle=":", label=f"{label}: nothing finite")
        elif not high > low:
            axes.axvline(low, color=color, linestyle=":", label=f"{label}: all {low:.3g}")
        else:
            edges, density = _density(low, high, counts)
            axes.plot((edges[:-1] + edges[1:]) / 2, density, color=color, linewidth=1.4, label=label)
            curves.append((edges, density))
    left_out = _limit(axes, curves) if curves else False
    axes.set_xlabel("value (curves far wider or higher than the rest leave the picture)" if left_out else "value")
    axes.set_ylabel("density")
    _finish(axes, title)
    return _pixels(figure)


def updates(history: Mapping[str, Sequence[tuple[int, float]]]) -> np.ndarray:
    """Draw log10 update:data of each parameter over the steps, with a line at -3."""
    figure, axes = _new(4)
    for (name, points), color in zip(history.items(), _by_depth(len(history)), strict=True):
        steps, values = zip(*points, strict=True)
        marker = "o" if len(points) == 1 else None
        axes.plot(steps, values, color=color, linewidth=1.2, marker=marker, markersize=4, label=name)
    axes.axhline(-3, color="black", linewidth=1.2, linestyle="--", label="rule of thumb: -3")
    observed = {step for points in history.values() for step, _ in points}
    if len(observed) == 1:  # there are no fractions of a step
        axes.set_xticks(list(observed))
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("log10( std(update) / std(parameter) )")
    _finish(axes, "Update : data ratio")
    return _pixels(figure)


def saturation_map(flat: np.ndarray, title: str) -> np.ndarray:
    """Draw which outputs are flat, `(examples, units)`: white where flat, so an all-white column is a dead unit.

    Whole pixels per output and no axes: every layer has such a picture, and axes would take ten times as long to draw.
    """
    from PIL import Image, ImageDraw, ImageFont

    examples, units = flat.shape
    wide, high = max(1, 760 // units), max(1, 190 // examples)
    pixels = np.kron(flat.astype(np.uint8) * 255, np.ones((high, wide), dtype=np.uint8))
    # The grey margin shows where the picture ends: white columns at its edge would melt into a white one.
    # As wide as the other figures, whatever the picture: the heading has to fit.
    width, height = int(80 * WIDTH), high * examples
    picture = Image.new("L", (width, height + 56), 204)
    picture.paste(Image.fromarray(pixels), ((width - wide * units) // 2, 28))
    write = partial(ImageDraw.Draw(picture).text, fill=0, anchor="mm", font=ImageFont.load_default(13))
    white = int(flat.all(axis=0).sum())
    write((width // 2, 14), f"{title}: {flat.mean():.1%}, all-white columns: {white}")
    write((width // 2, height + 42), f"{units} units (columns), {examples} examples (rows)")
    return np.repeat(np.asarray(picture)[..., None], 3, axis=2)


def _new(height: float) -> tuple[Figure, Axes]:
    # No pyplot: a Figure of our own needs no display, is nobody else's current figure, and is freed with its last use.
    # Fixed margins: a tight layout lays out every text twice, half of the time of drawing.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), dpi=80)
    figure.subplots_adjust(left=0.75 / WIDTH, right=0.98, bottom=0.5 / height, top=1 - 0.35 / height)
    return figure, figure.subplots()


def _by_depth(count: int) -> np.ndarray:
    from matplotlib import colormaps

    return colormaps["viridis"](np.linspace(0, 0.92, max(count, 1)))[:count]


def _density(low: float, high: float, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return bin edges and densities, in bins twice as wide if even the fullest has so few values that noise shows."""
    edges = np.array(bin_edges(low, high))
    if counts.max() < 150:
        edges, counts = edges[::2], counts.reshape(-1, 2).sum(axis=1)
    return edges, counts / counts.sum() / (edges[1] - edges[0])


def _limit(axes: Axes, curves: Sequence[tuple[np.ndarray, np.ndarray]]) -> bool:
    """Show the central 99 % of every curve, up to 3 times the median width and 4 times the median height.

    Returns:
        Whether a curve is wider or higher than that.
    """
    ends, tops = [], []
    for edges, density in curves:
        below = np.cumsum(density) / density.sum()
        ends.append((edges[np.searchsorted(below, 0.005)], edges[np.searchsorted(below, 0.995) + 1]))
        tops.append(density.max())
    lows, highs = np.array(ends).T
    center, reach = np.median((lows + highs) / 2), 1.5 * np.median(highs - lows)
    left, right = max(lows.min(), center - reach), min(highs.max(), center + reach)
    top = min(max(tops), 4 * np.median(tops))
    axes.set_xlim(left - 0.03 * (right - left), right + 0.03 * (right - left))
    axes.set_ylim(0, 1.05 * top)
    return bool(left > lows.min() or right < highs.max() or top < max(tops))


def _entitle(axes: Axes, title: str) -> None:
    # Without y, matplotlib measures the ticks' labels to find the place: 4 ms of 100.
    axes.set_title(title, fontsize=11, y=1.0)


def _finish(axes: Axes, title: str) -> None:
    _entitle(axes, title)
    axes.grid(alpha=0.25)
    axes.locator_params(nbins=6)  # a tick takes 1 ms
    handles, labels = axes.get_legend_handles_labels()
    heading = None
    if len(handles) > MAX_LEGEND:
        heading = f"{MAX_LEGEND} of {len(handles)}:"
        chosen = np.unique(np.linspace(0, len(handles) - 1, MAX_LEGEND).round().astype(int))
        handles, labels = [handles[i] for i in chosen], [labels[i] for i in chosen]
    if handles:
        labels = [_shortened(label) for label in labels]
        # The legend stands beside the axes. Measuring it would draw it twice: 0.056 inches a character are enough.
        legend_width = 0.5 + 0.056 * max(map(len, labels))
        axes.figure.subplots_adjust(right=1 - max(legend_width, 2.0) / WIDTH)
        axes.legend(
            handles,
            labels,
            title=heading,
            title_fontsize=7.5,
            fontsize=7.5,
            loc="upper left",
            bbox_to_anchor=(1.0, 1.02),
            frameon=False,
            handlelength=1.5,
        )


def _shortened(label: str) -> str:
    half = (MAX_LABEL - 1) // 2
    return label if len(label) <= MAX_LABEL else f"{label[:half]}…{label[-half:]}"


def _pixels(figure: Figure) -> np.ndarray:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
