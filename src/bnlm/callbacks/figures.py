"""The lecture's pictures, drawn from what the monitors measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from bnlm.callbacks.line_chart import WIDTH, Axis, Curve, by_depth, font, line_chart
from bnlm.stats import bin_edges

if TYPE_CHECKING:
    from PIL.Image import Image


def distributions(histograms: Mapping[str, np.ndarray], title: str) -> Image:
    """Draw one density curve a layer; colours go from the first layer (dark) to the last (bright).

    The limits suit the typical layer, so one that is far wider or more peaked leaves the picture instead of squeezing
    the others into a line. A layer without spread has no density: its value is marked, and said in the legend.
    """
    densities, values = {}, {}
    for label, counted in histograms.items():
        low, high, counts = float(counted[0]), float(counted[1]), counted[2:]
        if np.isfinite([low, high]).all() and counts.sum() > 0:
            if high > low:
                densities[label] = _density(low, high, counts)
            else:
                values[label] = low
    left, right, top, left_out = _limits(list(densities.values()), list(values.values()))
    curves = []
    for label, color in zip(histograms, by_depth(len(histograms)), strict=True):
        if label in densities:
            edges, density = densities[label]
            curves.append(Curve(label, np.stack([(edges[:-1] + edges[1:]) / 2, density], axis=1), color))
        elif label in values:
            mark = np.array([(values[label], 0), (values[label], top)])
            curves.append(Curve(f"{label}: all {values[label]:.3g}", mark, color, dashes=(2, 2)))
        else:
            curves.append(Curve(f"{label}: nothing finite", np.empty((0, 2)), color, dashes=(2, 2)))
    note = " (curves far wider or higher than the rest leave the picture)" if left_out else ""
    return line_chart(title, curves, Axis(f"value{note}", left, right), Axis("density", 0, top))


def updates(history: Mapping[str, Sequence[tuple[int, float]]]) -> Image:
    """Draw log10 update:data of each parameter over the steps, with a line at -3."""
    curves = [
        Curve(name, np.array(points, dtype=float), color)
        for (name, points), color in zip(history.items(), by_depth(len(history)), strict=True)
    ]
    steps, ratios = np.concatenate([curve.points for curve in curves]).T
    first, last = _widened(steps.min(), steps.max())
    rule = np.array([(first, -3), (last, -3)])
    curves.append(Curve("rule of thumb: -3", rule, dashes=(6, 3)))
    low, high = _widened(min(ratios.min(), -3), max(ratios.max(), -3))
    return line_chart(
        "Update : data ratio",
        curves,
        Axis("optimizer step", first, last, whole=True),
        Axis("log10( std(update) / std(parameter) )", low, high),
    )


def saturation_map(flat: np.ndarray, title: str) -> Image:
    """Draw which outputs are flat, `(examples, units)`: white where flat, so an all-white column is a dead unit.

    Whole pixels per output and no axes: every layer has such a picture.
    """
    from PIL import Image, ImageDraw

    examples, units = flat.shape
    wide, high = units * max(1, 760 // units), examples * max(1, 190 // examples)
    # The grey margin shows where the picture ends: white columns at its edge would melt into a white one.
    # As wide as the other figures, whatever the picture: the heading has to fit.
    picture = Image.new("L", (WIDTH, high + 56), 204)
    picture.paste(Image.fromarray(flat.astype(np.uint8) * 255).resize((wide, high), 0), ((WIDTH - wide) // 2, 28))
    write = ImageDraw.Draw(picture).text
    heading = f"{title}: {flat.mean():.1%}, all-white columns: {flat.all(axis=0).sum()}"
    write((WIDTH // 2, 14), heading, 0, font(12), "mm")
    write((WIDTH // 2, high + 42), f"{units} units (columns), {examples} examples (rows)", 0, font(12), "mm")
    return picture


def _density(low: float, high: float, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return bin edges and densities, in bins twice as wide if even the fullest has so few values that noise shows."""
    edges = np.array(bin_edges(low, high))
    if counts.max() < 150:
        edges, counts = edges[::2], counts.reshape(-1, 2).sum(axis=1)
    return edges, counts / counts.sum() / (edges[1] - edges[0])


def _limits(
    curves: Sequence[tuple[np.ndarray, np.ndarray]], values: Sequence[float]
) -> tuple[float, float, float, bool]:
    """Show the central 99 % of every curve, up to 3 times the median width and 4 times the median height.

    Returns:
        Left, right and upper end of the axes, and whether a curve is wider or higher than that.
    """
    if not curves:
        return *_widened(min(values, default=0.0), max(values, default=0.0)), 1.0, False
    ends, tops = [], []
    for edges, density in curves:
        below = np.cumsum(density) / density.sum()
        ends.append((edges[np.searchsorted(below, 0.005)], edges[np.searchsorted(below, 0.995) + 1]))
        tops.append(density.max())
    lows, highs = np.array(ends).T
    center, reach = np.median((lows + highs) / 2), 1.5 * np.median(highs - lows)
    left, right = max(lows.min(), center - reach), min(highs.max(), center + reach)
    top = min(max(tops), 4 * np.median(tops))
    left_out = left > lows.min() or right < highs.max() or top < max(tops)
    return left - 0.03 * (right - left), right + 0.03 * (right - left), 1.05 * top, bool(left_out)


def _widened(low: float, high: float) -> tuple[float, float]:
    """Return ends with some room at both sides."""
    room = 0.05 * (high - low) or max(0.5, 0.05 * abs(low))
    return low - room, high + room
