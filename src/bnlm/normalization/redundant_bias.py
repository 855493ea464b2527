"""Which layers undo the bias of the layer before them."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm


def makes_bias_redundant(layer: nn.Module) -> bool:
    """Return whether ``layer`` removes any constant shift of a channel, so that a bias before it has no effect.

    Ours say so by their class attribute ``makes_bias_redundant``; of torch.nn's, every BatchNorm and InstanceNorm does
    (they subtract each channel's mean). LayerNorm and GroupNorm subtract the mean over several channels, so a bias that
    differs between channels survives them; of an unknown layer nothing is assumed.
    """
    own = getattr(layer, "makes_bias_redundant", None)
    if own is not None:
        return bool(own)
    return isinstance(layer, (_BatchNorm, _InstanceNorm))
