"""The unit that every model here is made of: Linear, normalization, activation."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from bnlm.normalization import makes_bias_redundant

NormalizationFactory = Callable[[int], nn.Module]
"""Makes a normalization layer for a given number of features."""


def make_normalization(factory: NormalizationFactory | None, num_features: int) -> nn.Module | None:
    """Return a new layer of the factory's; None where there is no factory, or it makes an `nn.Identity`."""
    layer = None if factory is None else factory(num_features)
    return None if isinstance(layer, nn.Identity) else layer  # no call is paid for nothing


class Block(nn.Module):
    """Linear, then a normalization, then an activation; each of the last two may be absent.

    The Linear has no bias when the normalization would remove it. Models of ours give it rows ``(M, in_features)``, one
    for each example or position that exists: every normalization works on those, and none sees a padding.

    Args:
        in_features, out_features: Size of the last dimension before and after.
        normalization: Called with out_features. None, or a factory of `nn.Identity`, for none.
        activation: None for an output layer.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        normalization: NormalizationFactory | None = None,
        activation: nn.Module | None = None,
    ) -> None:
        super().__init__()
        norm = make_normalization(normalization, out_features)
        has_bias = norm is None or not makes_bias_redundant(norm)
        self.linear = nn.Linear(in_features, out_features, bias=has_bias)
        self.register_module("normalization", norm)  # also where it is None: the order of the modules is the forward
        self.register_module("activation", activation)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, in_features)`` to ``(N, out_features)``; leading dimensions are free."""
        for module in self._modules.values():  # by attribute, each look-up would cost as much as a small operation
            if module is not None:
                x = module(x)
        return x
