"""What was done to a weight."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LayerReport:
    """What was done to one weight.

    ``layer`` is the layer's name; with the parameter's, where a layer has several weights. ``gain`` is None where the
    scheme has none, ``std_wanted`` is None where the data decided. An embedding's fan_in is 1 (one row).
    """

    layer: str
    shape: tuple[int, ...]
    fan_in: float
    gain: float | None
    std_wanted: float | None
    std_drawn: float
