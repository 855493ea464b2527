"""The hierarchical model: the lecture's size, its forward pass by hand, and whose statistics its BatchNorm takes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from bnlm.models import WaveNet
from bnlm.normalization import BatchNorm


def batch_norm(num_features: int) -> BatchNorm:
    return BatchNorm(num_features, channel_dim=-1)


def test_parameters_of_the_lecture() -> None:
    assert sum(p.numel() for p in WaveNet(27, 8, normalization=batch_norm).parameters()) == 76_579
    assert sum(p.numel() for p in WaveNet(27, 8, 10, 68, normalization=batch_norm).parameters()) == 22_397


def test_forward_matches_the_formula_and_the_statistics_are_over_batch_and_position() -> None:
    torch.manual_seed(0)
    model = WaveNet(11, 8, 3, 5, "relu", batch_norm).double()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    idx = torch.randint(11, (4, 8))
    x = state["embedding.weight"][idx]  # (N, 8, 3)
    for level in range(3):
        pairs = torch.cat([x[:, 0::2], x[:, 1::2]], dim=2)  # (N, T / 2, 2 * C), by picking every second position
        z = pairs @ state[f"levels.{level}.linear.weight"].T
        mean, var = z.mean(dim=(0, 1)), z.var(dim=(0, 1), correction=0)
        x = ((z - mean) / (var + 1e-5).sqrt()).clamp(min=0)
        if level == 0:
            first_mean = mean
    expected = x[:, 0] @ state["output.linear.weight"].T + state["output.linear.bias"]
    logits = model(idx)
    assert logits.shape == (4, 11)
    assert_close(logits, expected, rtol=1e-10, atol=1e-10)
    assert_close(model.levels[0].normalization.running_mean, 0.1 * first_mean, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("context", "levels"), [(1, 1), (2, 1), (3, 2), (5, 3), (8, 3), (9, 4)])
def test_any_context_is_filled_up_on_the_left(context: int, levels: int) -> None:
    model = WaveNet(11, context, 3, 5)
    assert len(model.levels) == levels
    idx = torch.randint(11, (4, context))
    whole = WaveNet(11, 2**levels, 3, 5)
    whole.load_state_dict(model.state_dict())
    assert_close(model(idx), whole(F.pad(idx, (2**levels - context, 0))), rtol=0, atol=0)


def test_sizes_are_checked() -> None:
    with pytest.raises(ValueError, match=r"model\.n_hidden=0: expected a whole number of at least 1"):
        WaveNet(11, 8, n_hidden=0)
    with pytest.raises(ValueError, match=r"data\.context=0"):
        WaveNet(11, 0)
