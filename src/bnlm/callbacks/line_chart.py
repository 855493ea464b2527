"""A chart of curves with axes and a legend: matplotlib's renderer draws the lines, Pillow writes the text.

The axes of matplotlib look the same and take several times as long, most of it for the text.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont

#: Of a chart, in pixels.
WIDTH, HEIGHT = 800, 320
#: From this many curves on, only some are named in the legend.
MAX_LEGEND = 14
#: Longest name in the legend, in characters; of a longer one the middle is left out.
MAX_LABEL = 64


class Curve(NamedTuple):
    """A line through `points` `(n, 2)`, or a dot if there is one, and its name in the legend."""

    label: str
    points: np.ndarray
    color: Sequence[float] = (0, 0, 0)
    dashes: tuple[float, float] | None = None  # pixels of a stroke and of a gap


class Axis(NamedTuple):
    """What is written at an axis, and from where to where it goes; `whole` if there are no fractions."""

    label: str
    low: float
    high: float
    whole: bool = False

    def ticks(self) -> np.ndarray:
        """Return about six round numbers between the ends."""
        from matplotlib.ticker import MaxNLocator

        locator = MaxNLocator(6, steps=[1, 2, 2.5, 5, 10], integer=self.whole, min_n_ticks=1)
        found = np.asarray(locator.tick_values(self.low, self.high))
        return found[(self.low <= found) & (found <= self.high)]

    def place(self, value: Any, start: float, end: float) -> Any:
        """Return where `value` lies on an axis that goes from pixel `start` to pixel `end`."""
        return start + (value - self.low) / (self.high - self.low) * (end - start)


def line_chart(title: str, curves: Sequence[Curve], x: Axis, y: Axis) -> Image:
    """Draw the curves as far as they lie between the ends of the axes."""
    from matplotlib.backends.backend_agg import RendererAgg
    from PIL import Image, ImageDraw

    small, normal, large = font(9), font(11), font(12)
    named = _named(curves)
    # Pixels from the left and from the top.
    left, right = 60, WIDTH - 45 - int(max([120, *(small.getlength(label) for label, _ in named)]))
    top, bottom = 28, HEIGHT - 40
    x_ticks = [(x.place(tick, left, right), f"{tick:g}") for tick in x.ticks()]
    y_ticks = [(y.place(tick, bottom, top), f"{tick:g}") for tick in y.ticks()]

    renderer = RendererAgg(WIDTH, HEIGHT, 80)
    _line(renderer, [(0, HEIGHT / 2), (WIDTH, HEIGHT / 2)], "white", HEIGHT)
    for at, _ in x_ticks:
        _line(renderer, [(at, top), (at, bottom)], "0.93")
        _line(renderer, [(at, bottom), (at, bottom + 4)], "black")
    for at, _ in y_ticks:
        _line(renderer, [(left, at), (right, at)], "0.93")
        _line(renderer, [(left - 4, at), (left, at)], "black")
    for curve in curves:
        points = np.stack([x.place(curve.points[:, 0], left, right), y.place(curve.points[:, 1], bottom, top)], axis=1)
        _line(renderer, points, curve.color, 1.5, curve.dashes, (left, top, right, bottom))
    corners = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top), (right, top)]
    _line(renderer, corners, "black")
    for row, (_, of) in enumerate(named):
        if of is not None:
            at = top + 6 + 13 * row
            _line(renderer, [(right + 8, at), (right + 22, at)], of.color, 1.5, of.dashes)

    picture = Image.frombuffer("RGBA", (WIDTH, HEIGHT), renderer.buffer_rgba()).convert("RGB")
    write = ImageDraw.Draw(picture).text
    for at, label in x_ticks:
        write((at, bottom + 7), label, 0, normal, "mt")
    for at, label in y_ticks:
        write((left - 7, at), label, 0, normal, "rm")
    for row, (label, _) in enumerate(named):
        write((right + 28, top + 6 + 13 * row), label, 0, small, "lm")
    write(((left + right) / 2, 14), title, 0, large, "mm")
    write(((left + right) / 2, HEIGHT - 12), x.label, 0, normal, "mm")
    upright = Image.new("L", (bottom - top, 16))
    ImageDraw.Draw(upright).text((upright.width / 2, 8), y.label, 255, normal, "mm")
    picture.paste("black", (6, top), upright.transpose(Image.Transpose.ROTATE_90))
    return picture


@cache
def font(size: int) -> FreeTypeFont:
    """Return the font that comes with matplotlib; Pillow's own has no letters beyond ASCII."""
    from matplotlib.font_manager import findfont
    from PIL import ImageFont

    return ImageFont.truetype(findfont("DejaVu Sans"), size)


def by_depth(count: int) -> np.ndarray:
    """Return `(count, 4)` colours, from dark to bright."""
    from matplotlib import colormaps

    return colormaps["viridis"](np.linspace(0, 0.92, max(count, 1)))[:count]


def _line(
    renderer: Any,
    points: Any,
    color: Any,
    width: float = 1,
    dashes: tuple[float, float] | None = None,
    inside: tuple[float, float, float, float] | None = None,
) -> None:
    from matplotlib.path import Path
    from matplotlib.transforms import Affine2D, Bbox

    look = renderer.new_gc()
    look.set_foreground(color)
    look.set_linewidth(width)
    if dashes is not None:
        look.set_dashes(0, dashes)
    if inside is not None:
        left, top, right, bottom = inside
        look.set_clip_rectangle(Bbox.from_extents(left, HEIGHT - bottom, right, HEIGHT - top))
    to_canvas = Affine2D().scale(1, -1).translate(0, HEIGHT)  # which counts from the bottom
    if len(points) == 1:
        renderer.draw_path(look, Path.circle(points[0], 2), to_canvas, look.get_rgb())
    else:
        renderer.draw_path(look, Path(points), to_canvas)


def _named(curves: Sequence[Curve]) -> list[tuple[str, Curve | None]]:
    """Return the rows of the legend: a name, and the curve it belongs to."""
    rows: list[tuple[str, Curve | None]] = []
    chosen = list(range(len(curves)))
    if len(curves) > MAX_LEGEND:
        chosen = np.linspace(0, len(curves) - 1, MAX_LEGEND).round().astype(int).tolist()
        rows.append((f"{MAX_LEGEND} of {len(curves)}:", None))
    return rows + [(_shortened(curves[index].label), curves[index]) for index in chosen]


def _shortened(label: str) -> str:
    half = (MAX_LABEL - 1) // 2
    return label if len(label) <= MAX_LABEL else f"{label[:half]}…{label[-half:]}"
