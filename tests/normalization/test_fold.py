"""Folded models give the outputs of the originals in eval, and what cannot be folded stays."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.parametrizations import weight_norm
from torch.testing import assert_close

from bnlm.models import MLP
from bnlm.normalization import BatchNorm, fold


def draw(*shape: int, seed: int = 0) -> Tensor:
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) + 2


def trained(model: nn.Module, x: Tensor) -> nn.Module:
    """Give every normalization parameters and running statistics of its own."""
    for seed, layer in enumerate(m for m in model.modules() if isinstance(m, _BatchNorm)):
        for i, parameter in enumerate(layer.parameters()):
            parameter.data = 1 + 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed + i))
    for _ in range(3):
        model(x)
    return model


def norms(model: nn.Module) -> list[nn.Module]:
    return [m for m in model.modules() if isinstance(m, _BatchNorm)]


PAIRS: dict[str, tuple[Callable[[], nn.Module], Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(4, 6), lambda: BatchNorm(6), (5, 4)),
    "linear without bias": (lambda: nn.Linear(4, 6, bias=False), lambda: BatchNorm(6, unbiased=True), (5, 4)),
    "linear, channel last": (lambda: nn.Linear(4, 6), lambda: BatchNorm(6, channel_dim=-1), (5, 3, 4)),
    "torch.nn's": (lambda: nn.Linear(4, 6), lambda: nn.BatchNorm1d(6, eps=1e-2), (5, 4)),
    "not affine": (lambda: nn.Linear(4, 6), lambda: BatchNorm(6, affine=False), (5, 4)),
    "no bias": (lambda: nn.Linear(4, 6), lambda: BatchNorm(6, bias=False), (5, 4)),
    "conv1d": (lambda: nn.Conv1d(4, 6, 2, groups=2), lambda: BatchNorm(6), (5, 4, 7)),
    "conv2d": (lambda: nn.Conv2d(4, 6, 2, padding=1), lambda: BatchNorm(6), (5, 4, 5, 3)),
    "conv2d, cyclic": (lambda: nn.Conv2d(4, 6, 3, 1, 1, padding_mode="circular"), lambda: BatchNorm(6), (5, 4, 5, 3)),
    "conv3d": (lambda: nn.Conv3d(4, 6, 2, bias=False), lambda: nn.BatchNorm3d(6), (5, 4, 3, 4, 2)),
    "transposed": (lambda: nn.ConvTranspose1d(4, 6, 3, stride=2), lambda: BatchNorm(6), (5, 4, 7)),
    "transposed, groups": (lambda: nn.ConvTranspose2d(4, 6, 3, groups=2), lambda: BatchNorm(6), (5, 4, 3, 2)),
}  # fmt: skip


@pytest.mark.parametrize("name", PAIRS)
def test_a_pair_becomes_one_layer_with_equal_outputs(name: str) -> None:
    make_linear, make_norm, shape = PAIRS[name]
    torch.manual_seed(0)
    model = trained(nn.Sequential(make_linear(), make_norm(), nn.Tanh()), draw(*shape))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    folded = fold(model)
    x = draw(*shape, seed=1)
    assert_close(folded(x), model.eval()(x), rtol=1e-5, atol=1e-5)
    assert norms(folded) == []
    assert not folded.training
    assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert type(folded[0]) is type(model[0])


@pytest.mark.parametrize("normalize_output", [True, False])
def test_the_projects_model_has_no_normalization_left(normalize_output: bool) -> None:
    torch.manual_seed(0)
    model = MLP(11, 3, 4, [8, 6], "tanh", partial(BatchNorm, channel_dim=-1), normalize_output)
    idx = torch.randint(11, (32, 3), generator=torch.Generator().manual_seed(0))
    trained(model, idx)
    folded = fold(model)
    assert norms(folded) == []
    assert len(norms(model)) == 2 + normalize_output
    assert_close(folded(idx), model.eval()(idx), rtol=1e-5, atol=1e-5)


class Residual(nn.Module):
    """One pair that can be merged (stem), and every reason why another can not."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_norm = nn.Linear(4, 4), BatchNorm(4)
        self.used, self.used_norm = nn.Linear(4, 4), BatchNorm(4)  # something else uses its output
        self.twice, self.twice_norm = nn.Linear(4, 4), BatchNorm(4)  # called twice
        self.tied, self.tied_norm = nn.Linear(4, 4), BatchNorm(4)  # its weight is also an output layer's
        self.read, self.read_norm = nn.Linear(4, 4), BatchNorm(4)  # its weight is read directly
        self.after_norm = BatchNorm(4)  # after an activation
        self.batch, self.batch_norm = nn.Linear(4, 4), BatchNorm(4, track_running_stats=False)
        self.hooked, self.hooked_norm = nn.Linear(4, 4), BatchNorm(4)
        self.parametrized, self.parametrized_norm = weight_norm(nn.Linear(4, 4)), BatchNorm(4)
        self.output = nn.Linear(4, 4)
        self.output.weight = self.tied.weight
        self.hooked.register_forward_hook(lambda module, args, output: output + 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem_norm(self.stem(x)).tanh()
        used = self.used(x)
        x = used + self.used_norm(used)
        x = self.twice_norm(self.twice(x)).tanh()
        x = self.twice_norm(self.twice(x)).tanh()
        x = self.tied_norm(self.tied(x)).tanh()
        x = F.linear(self.read_norm(self.read(x)).tanh(), self.read.weight)
        x = self.after_norm(x.tanh())
        x = self.batch_norm(self.batch(x)).tanh()
        x = self.hooked_norm(self.hooked(x)).tanh()
        return self.output(self.parametrized_norm(self.parametrized(x)))


def test_what_cannot_be_merged_stays() -> None:
    torch.manual_seed(0)
    model = trained(Residual(), draw(16, 4))
    folded = fold(model)
    gone = {name for name, m in model.named_modules() if isinstance(m, _BatchNorm)} - {
        name for name, m in folded.named_modules() if isinstance(m, _BatchNorm)
    }
    assert gone == {"stem_norm"}
    x = draw(7, 4, seed=1)
    assert_close(folded(x), model.eval()(x), rtol=1e-5, atol=1e-5)


def test_a_channel_last_norm_after_a_convolution_is_not_its_channels() -> None:
    model = nn.Sequential(nn.Conv1d(4, 6, 1), BatchNorm(6, channel_dim=-1))
    with pytest.raises(ValueError, match=r"model=Sequential: no BatchNorm .* directly follows a Linear"):
        fold(trained(model, draw(5, 4, 6)))


def test_a_forward_that_cannot_be_traced_is_refused() -> None:
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.norm = nn.Linear(4, 6), BatchNorm(6)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(self.linear(x)) if x.sum() > 0 else x

    with pytest.raises(ValueError, match=r"model=Branching: its forward cannot be traced by torch\.fx"):
        fold(Branching())
