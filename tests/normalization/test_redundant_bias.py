"""Which layers undo a bias before them: told, and shown by shifting their input."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bnlm.normalization import (
    BatchNorm,
    BatchRenorm,
    DynamicTanh,
    GhostBatchNorm,
    GroupNorm,
    LayerNorm,
    RMSNorm,
    makes_bias_redundant,
)


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (BatchNorm(6), True),
        (GhostBatchNorm(6, ghost_size=2), True),
        (BatchRenorm(6), True),
        (LayerNorm(6), False),
        (RMSNorm(6), False),
        (GroupNorm(6, max_groups=3), False),
        (DynamicTanh(6), False),
        (nn.BatchNorm1d(6), True),
        (nn.InstanceNorm1d(6), True),
        (nn.GroupNorm(2, 6), False),
        (nn.Identity(), False),
        (nn.Linear(6, 6), False),
    ],
)
def test_told_and_shown(layer: nn.Module, expected: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    is_instance = isinstance(layer, nn.InstanceNorm1d)
    x = torch.randn(*((4, 6, 3) if is_instance else (4, 6)), generator=generator)
    shift = torch.randn(*((6, 1) if is_instance else (6,)), generator=generator)
    assert makes_bias_redundant(layer) is expected
    assert torch.allclose(layer(x), layer(x + shift), atol=1e-5) is expected


@pytest.mark.parametrize("layer", [nn.BatchNorm2d(6), nn.BatchNorm3d(6), nn.SyncBatchNorm(6), nn.InstanceNorm2d(6)])
def test_all_of_torchs_batch_and_instance_norms_are_known(layer: nn.Module) -> None:
    assert makes_bias_redundant(layer)
