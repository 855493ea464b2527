"""Networks stacked in one module compute what each computes by itself. Stated tolerances are for float64."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from bnlm.clipping import clipped
from bnlm.models import MLP, Bigram, Replicas, WaveNet
from bnlm.normalization import BatchNorm, GroupNorm, RMSNorm

R, N, CONTEXT, VOCAB = 3, 16, 4, 7
NORMS = {
    "none": None,
    "batch": lambda n: BatchNorm(n),
    "unbiased": lambda n: BatchNorm(n, unbiased=True),
    "torch": lambda n: nn.BatchNorm1d(n),
    "layer": lambda n: nn.LayerNorm(n),
    "rms": lambda n: RMSNorm(n),
    "group": lambda n: GroupNorm(n, max_groups=4),
}


def networks(norm: str = "batch", kind: str = "mlp") -> list[nn.Module]:
    made: list[nn.Module] = []
    for seed in range(R):
        torch.manual_seed(seed)
        layers: list[nn.Module] = [nn.Embedding(VOCAB, 4), nn.Flatten(), nn.Linear(4 * CONTEXT, 8)]
        make = NORMS[norm]
        layers += [] if make is None else [make(8)]
        made.append(nn.Sequential(*layers, nn.Tanh(), nn.Linear(8, VOCAB)).double())
    return made


def batch() -> tuple[Tensor, Tensor]:
    torch.manual_seed(9)
    return torch.randint(VOCAB, (R, N, CONTEXT)), torch.randint(VOCAB, (R, N))


@pytest.mark.parametrize("norm", NORMS)
def test_training_is_that_of_each_network_alone(norm: str) -> None:
    """Logits, losses, weights and running statistics over 5 steps of SGD with momentum, to 1e-12."""
    alone = networks(norm)
    stacked = Replicas(copy.deepcopy(alone))
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9) for m in [*alone, stacked]]
    for _ in range(5):
        x, y = batch()
        losses = stacked.loss_of(stacked(x), y)
        assert losses.shape == (R,)
        optimizers[-1].zero_grad()
        losses.sum().backward()
        optimizers[-1].step()
        for i, (model, optimizer) in enumerate(zip(alone, optimizers[:-1], strict=True)):
            loss = nn.functional.cross_entropy(model(x[i]), y[i])
            assert_close(losses[i], loss, rtol=1e-12, atol=1e-12)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    for i, model in enumerate(alone):
        assert_close(stacked.replica(i).state_dict(), model.state_dict(), rtol=1e-12, atol=1e-12)
    stacked.eval()
    x = batch()[0][0]  # all see the same
    expected = torch.stack([model.eval()(x) for model in alone])
    assert_close(stacked(x), expected, rtol=1e-12, atol=1e-12)


def test_a_replica_is_a_copy_in_the_same_mode() -> None:
    stacked = Replicas(networks()).eval()
    one = stacked.replica(1)
    assert not one.training
    before = stacked.network[2].weight[1].clone()  # type: ignore[index]
    with torch.no_grad():
        one[2].weight.zero_()  # type: ignore[index]
    assert torch.equal(stacked.network[2].weight[1], before)  # type: ignore[index]


def test_tied_weights_stay_tied() -> None:
    made = networks("none")
    for model in made:
        first = nn.Linear(8, 8, dtype=torch.float64)
        second = nn.Linear(8, 8, dtype=torch.float64)
        second.weight = first.weight
        model.insert(4, nn.Sequential(first, nn.Tanh(), second))  # type: ignore[operator]
    alone = copy.deepcopy(made)
    stacked = Replicas(made)
    tied = stacked.network[4]  # type: ignore[index]
    assert tied[0].weight is tied[2].weight
    assert tied[0].weight.shape == (R, 8, 8)
    one = stacked.replica(2)[4]  # type: ignore[index]
    assert one[0].weight is one[2].weight
    x = batch()[0]
    assert_close(stacked(x), torch.stack([m(x[i]) for i, m in enumerate(alone)]), rtol=1e-12, atol=1e-12)


def test_networks_of_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="differ"):
        Replicas([nn.Linear(2, 3), nn.Linear(2, 4)])


@pytest.mark.parametrize("algorithm", ["norm", "value"])
@pytest.mark.parametrize("limit", [0.01, 100.0])
def test_clipping_is_torchs_for_each_network(algorithm: str, limit: float) -> None:
    torch.manual_seed(0)
    stacked = [torch.randn(R, 4, 5, dtype=torch.float64), torch.randn(R, 5, dtype=torch.float64)]
    stacked.append(torch.randn(R, dtype=torch.float64))  # of a scalar parameter
    found = clipped(stacked, limit, algorithm, R)
    for i in range(R):
        parameters = [nn.Parameter(torch.zeros_like(g[i])) for g in stacked]
        for parameter, gradient in zip(parameters, stacked, strict=True):
            parameter.grad = gradient[i].clone()
        if algorithm == "norm":
            nn.utils.clip_grad_norm_(parameters, limit)
        else:
            nn.utils.clip_grad_value_(parameters, limit)
        assert_close([g[i] for g in found], [p.grad for p in parameters], rtol=1e-12, atol=1e-12)
        alone = clipped([g[i] for g in stacked], limit, algorithm)
        assert_close(alone, [p.grad for p in parameters], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("model", [MLP, WaveNet, Bigram])
def test_every_window_model_can_be_stacked(model: type[nn.Module]) -> None:
    made = []
    for seed in range(R):
        torch.manual_seed(seed)
        made.append(model(vocab_size=VOCAB, context=CONTEXT, normalization=BatchNorm).double().eval())
    alone = copy.deepcopy(made)
    x = batch()[0]
    expected = torch.stack([m(x[i]) for i, m in enumerate(alone)])
    assert_close(Replicas(made).eval()(x), expected, rtol=1e-12, atol=1e-12)
