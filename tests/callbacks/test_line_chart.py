"""Charts: every curve is where its values say, and nowhere else."""

import numpy as np
import pytest

from bnlm.callbacks.line_chart import HEIGHT, MAX_LEGEND, WIDTH, Axis, Curve, line_chart

RED, BLUE = (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)


def columns_and_rows(picture: object, color: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Where the picture has red or blue, or a shade of it: edges are smoothed."""
    pixels = np.asarray(picture).astype(int)
    difference = pixels[..., 0] - pixels[..., 2]
    rows, columns = np.nonzero((difference if color == RED else -difference)[:, :580] > 100)
    return columns, rows


@pytest.mark.parametrize(
    ("axis", "ticks"),
    [
        (Axis("", 0, 1.05), [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (Axis("", -0.0012, 0.0011), [-0.001, -0.0005, 0, 0.0005, 0.001]),
        (Axis("", -0.5, 0.5, whole=True), [0]),
        (Axis("", -300, 6200, whole=True), [0, 2000, 4000, 6000]),
    ],
)
def test_ticks_are_round_numbers_inside(axis: Axis, ticks: list[float]) -> None:
    np.testing.assert_allclose(axis.ticks(), ticks, atol=1e-12)


def test_curves_lie_where_the_axes_say() -> None:
    """A level line at 3 of 0..4, and a vertical at -1 of -3..1: the frame is from row 28 to 280, from column 60 on."""
    level, vertical = np.array([(-2.0, 3.0), (0.0, 3.0)]), np.array([(-1.0, 1.0), (-1.0, 2.0)])
    curves = [Curve("level", level, RED), Curve("vertical", vertical, BLUE)]
    picture = line_chart("title", curves, Axis("across", -3, 1), Axis("up", 0, 4))
    assert picture.size == (WIDTH, HEIGHT)
    right = WIDTH - 45 - 120  # short names leave this much
    columns, rows = columns_and_rows(picture, RED)
    assert set(rows) <= {90, 91, 92}
    assert abs(columns.min() - (60 + (right - 60) / 4)) <= 2
    assert abs(columns.max() - (60 + (right - 60) * 3 / 4)) <= 2
    columns, rows = columns_and_rows(picture, BLUE)
    assert np.abs(columns - (60 + (right - 60) / 2)).max() <= 1.5
    assert abs(rows.min() - 154) <= 2
    assert abs(rows.max() - 217) <= 2


def test_what_lies_outside_is_cut_off_and_a_point_is_a_dot() -> None:
    far = np.array([(-5.0, 5.5), (0.5, 0.0), (5.0, -4.5)])
    curves = [Curve("far", far, RED), Curve("point", np.array([(0.8, 0.8)]), BLUE), Curve("none", np.empty((0, 2)))]
    picture = line_chart("title", curves, Axis("", 0, 1), Axis("", 0, 1))
    columns, rows = columns_and_rows(picture, RED)
    assert (rows >= 27).all()
    assert (rows <= 280).all()
    assert (columns >= 60).all()
    assert len(set(rows)) > 100  # and inside it is drawn
    columns, rows = columns_and_rows(picture, BLUE)
    assert 3 <= len(set(columns)) <= 6
    assert 3 <= len(set(rows)) <= 6


@pytest.mark.parametrize("count", [1, 40])
def test_the_legend_has_room_and_no_more_rows_than_fit(count: int) -> None:
    """Nothing touches the right edge, however long the names; of many curves the first and the last are named."""
    curves = [Curve(f"{i} {'W' * 70}", np.empty((0, 2)), RED) for i in range(count)]
    curves[-1] = curves[-1]._replace(color=BLUE)
    pixels = np.asarray(line_chart("title", curves, Axis("", 0, 1), Axis("", 0, 1))).astype(int)
    assert (pixels[:, -8:] == 255).all()
    rows = np.nonzero(pixels[..., 2] - pixels[..., 0] > 200)[0]  # only the last curve's name has a blue line beside it
    assert len(rows)
    assert np.abs(rows - (34 + 13 * (MAX_LEGEND if count > MAX_LEGEND else 0))).max() <= 2
