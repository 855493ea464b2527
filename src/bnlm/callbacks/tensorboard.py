"""Writes to Lightning's loggers: all values of a step as one TensorBoard event, scalars alone to any other logger."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import lru_cache
from io import BytesIO
from time import time
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from bnlm.callbacks.event_checksum import add_events, speed_up_checksums
from bnlm.stats import bin_edges

if TYPE_CHECKING:
    from PIL.Image import Image

#: Regular expression of a weight matrix's name. The biases, and what normalization learns, move by other ratios: in one
#: chart with them, the weights' curves cannot be told apart.
WEIGHTS = "(?!.*norm).*weight"


def has_tensorboard(loggers: Sequence[Any]) -> bool:
    """Return whether any of the loggers can show histograms and figures."""
    return any(isinstance(logger, TensorBoardLogger) for logger in loggers)


class Values(NamedTuple):
    """What is written of a step: scalars, and histograms (as `stats.histogram` gives them), by tag."""

    step: int
    scalars: Mapping[str, float]
    histograms: Mapping[str, np.ndarray]


@rank_zero_only
def write_step(loggers: Sequence[Any], step: int, scalars: Mapping[str, float]) -> None:
    """Write the scalars at `step`."""
    write_steps(loggers, [Values(step, scalars, {})])


@rank_zero_only
def write_steps(loggers: Sequence[Any], steps: Sequence[Values]) -> None:
    """Write the scalars of steps, and to TensorBoard the histograms."""
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            events = [_event(values) for values in steps if values.scalars or values.histograms]
            if events:
                add_events(logger.experiment._get_file_writer(), events)
        else:
            for values in steps:
                if values.scalars:
                    logger.log_metrics(dict(values.scalars), step=values.step)


def _event(values: Values) -> bytes:
    # One event for all: `add_scalar` eighty times would cost more than measuring did.
    event, written = _event_of(tuple(values.scalars))
    for each, value in zip(written, values.scalars.values(), strict=True):
        each.simple_value = value
    if values.histograms:
        event = deepcopy(event)
        for tag, counted in values.histograms.items():
            if np.isfinite(counted[:2]).all():
                event.summary.value.add(tag=tag, histo=_histogram_proto(counted))
    event.wall_time, event.step = time(), values.step
    return bytes(event.SerializeToString())


@lru_cache(maxsize=16)
def _event_of(tags: tuple[str, ...]) -> tuple[Any, list[Any]]:
    """Return an event with these scalars and what their values are to be set in.

    To be used again: most steps write the same, and events are made bytes at once.
    """
    from tensorboard.compat.proto.event_pb2 import Event

    event = Event()
    for tag in tags:
        event.summary.value.add(tag=tag)
    return event, list(event.summary.value)


def write_image(loggers: Sequence[Any], tag: str, image: Image, step: int) -> None:
    """Write a picture to TensorBoard."""
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            from tensorboard.compat.proto.summary_pb2 import Summary

            encoded = Summary.Image(height=image.height, width=image.width, encoded_image_string=_png(image))
            writer = logger.experiment._get_file_writer()
            speed_up_checksums(writer)
            writer.add_summary(Summary(value=[Summary.Value(tag=tag, image=encoded)]), step)


def write_layout(loggers: Sequence[Any], charts: Mapping[str, list[str]]) -> None:
    """Write the layout of TensorBoard's "custom scalars": one chart a statistic, with all its layers.

    Args:
        charts: Title -> regular expressions of the tags it shows.
    """
    layout = {"bnlm": {title: ["Multiline", tags] for title, tags in {"loss": _LOSSES, **charts}.items()}}
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_custom_scalars(layout)


_LOSSES = ["(train|val)[/_]loss$"]


def _png(image: Image) -> bytes:
    # Colours from a palette, and zlib's shortest search: a third of the bytes in a tenth of the time, and no difference
    # that one could see in drawings.
    encoded = BytesIO()
    if image.mode == "RGB":
        image = image.quantize(256, method=2)  # an octree
    image.save(encoded, "PNG", compress_type=zlib.Z_RLE)
    return encoded.getvalue()


def _histogram_proto(counted: np.ndarray) -> Any:
    from tensorboard.compat.proto.summary_pb2 import HistogramProto

    low, high, counts = float(counted[0]), float(counted[1]), counted[2:]
    edges = np.array(bin_edges(low, high))
    middles = (edges[:-1] + edges[1:]) / 2
    return HistogramProto(
        min=low,
        max=high,
        num=float(counts.sum()),
        sum=float((counts * middles).sum()),
        sum_squares=float((counts * middles**2).sum()),
        bucket_limit=edges[1:].tolist(),
        bucket=counts.tolist(),
    )
