"""Which dimension of an activation holds its units: the channels."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor

from bnlm.stats import channel_dim_of


class ChannelDims:
    """Follows where the layers of a forward put the channels.

    Dimension 1 after a convolution, BatchNorm or GroupNorm, the last one after a Linear, LayerNorm or an embedding:
    the last of these counts that returned a tensor of the activation's shape, or of another one that was pooled, cut
    or padded since. Of what none has returned it is the last one, or dimension 1 of four and more.

    Args:
        told: By shell patterns of layers, what is known better.
    """

    def __init__(self, told: Mapping[str, int]) -> None:
        self._told = told
        self._of_shape: dict[torch.Size, int] = {}

    def returned(self, output: Any, channel_dim: int) -> None:
        """A layer has returned `output`."""
        if isinstance(output, Tensor) and not output.is_nested:  # of which some have no shape
            self._of_shape[output.shape] = channel_dim

    def kept(self, given: Any, returned: Any) -> None:
        """What leaves dimensions in their places was called with `given`: a tensor, or several of one kind."""
        x = given[0] if isinstance(given, list | tuple) and given else given
        if not isinstance(x, Tensor) or x.is_nested or x.ndim != 3:  # else it is known without
            return
        channel_dim = self._of_shape.get(x.shape)
        for output in returned if isinstance(returned, list | tuple) else [returned]:
            if channel_dim is not None and isinstance(output, Tensor) and output.ndim == x.ndim:
                self._of_shape[output.shape] = channel_dim

    def of(self, x: Tensor, layer: str) -> int:
        """Return where the channels of `x`, with which `layer` is called, are.

        Raises:
            ValueError: If a dimension is told that `x` does not have.
        """
        for pattern, told in self._told.items():
            if fnmatchcase(layer, pattern):
                if not -x.ndim <= told < x.ndim:
                    raise ValueError(
                        f"channel_dims={{{pattern!r}: {told}}}: the activation {layer} has {x.ndim} dimensions, "
                        f"{tuple(x.shape)}."
                    )
                return told
        return self.within(x, self._of_shape.get(x.shape))

    def within(self, x: Tensor, channel_dim: int | None) -> int:
        """Return `channel_dim`, or what holds for any tensor where it is not known, or `x` has no such dimension."""
        return channel_dim_of(x) if channel_dim is None or channel_dim >= x.ndim else channel_dim
