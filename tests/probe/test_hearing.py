"""Which layers a normalization takes the output of, as it is."""

import pytest
import torch
from torch import Tensor, nn

from bnlm.probe.activation_tap import ActivationTap


class Block(nn.Module):
    """A layer whose output is normalized as it is, after an addition, or after another layer."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.norm, self.first, self.second = nn.LayerNorm(8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        if self.how == "added":
            y = x + y
        return self.norm(self.second(y) if self.how == "later" else y)


@pytest.mark.parametrize(
    ("how", "expected"), [("at once", {"first": "layer_norm"}), ("added", {}), ("later", {"second": "layer_norm"})]
)
def test_what_is_normalized(how: str, expected: dict[str, str]) -> None:
    model = Block(how)
    tap = ActivationTap(model, losses=True)
    tap.attach()
    model(torch.randn(4, 8))
    tap.detach()
    assert tap.record().heard.normalized == expected
