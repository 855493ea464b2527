"""What people do to a network or a run: by mistake, or rightly though it looks like one."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from doctor_zoo.case import Run
from doctor_zoo.second import data as d
from doctor_zoo.second import networks as n
from doctor_zoo.second import recipe as r

Pair = tuple[Tensor, Tensor]


def _weighted(net: nn.Module) -> list[Any]:
    return [m for m in net.modules() if isinstance(m, nn.Linear | nn.Conv2d | nn.Conv1d)]


def _initialised(net: nn.Module, init: Callable[[Tensor], Any]) -> nn.Module:
    for layer in _weighted(net):
        init(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    return net


def xavier(net: nn.Module) -> nn.Module:
    """Every matrix by Glorot's rule, the output too."""
    return _initialised(net, nn.init.xavier_uniform_)


def kaiming(net: nn.Module) -> nn.Module:
    """Every matrix by He's rule, the output too, which makes it large."""
    return _initialised(net, nn.init.kaiming_normal_)


def orthogonal(net: nn.Module) -> nn.Module:
    """Every matrix orthogonal."""
    return _initialised(net, nn.init.orthogonal_)


def gpt(net: nn.Module) -> nn.Module:
    """Matrices and embeddings from N(0, 0.02²), as GPT-2's."""
    for layer in net.modules():
        if isinstance(layer, nn.Linear | nn.Embedding):
            nn.init.normal_(layer.weight, std=0.02)
    return net


def std_one(net: nn.Module) -> nn.Module:
    """Everything from N(0, 1)."""
    for parameter in net.parameters():
        nn.init.normal_(parameter)
    return net


def std_one_tied() -> nn.Module:
    """A tied embedding as torch makes it, which is far too large for an output layer."""
    net = n.Encoder(d.LETTERS, causal=True, tied=True)
    nn.init.normal_(net.tok.weight)
    return net


def with_bias(net: Any, layer: int, bias: float) -> nn.Module:
    """One layer's bias at a constant."""
    nn.init.constant_(net[layer].bias, bias)
    return net  # type: ignore[no-any-return]


def with_prior(net: Any) -> nn.Module:
    """The output's bias at the log odds of a rare class, rightly."""
    return with_bias(net, -1, -2.94)


def with_state_gain(net: Any, gain: float) -> nn.Module:
    """A recurrent network whose state is multiplied each step."""
    nn.init.orthogonal_(net.rnn.weight_hh_l0, gain)
    return net  # type: ignore[no-any-return]


def with_rare(data: Pair, x: float = 1.0, y: float = 1.0) -> Pair:
    """One example in 400 with its input or target scaled."""
    inputs, targets = data[0].clone(), data[1].clone()
    inputs[::400] *= x
    targets[::400] *= y
    return inputs, targets


def with_one(data: Pair, value: float) -> Pair:
    """One input nan, or one target infinite."""
    inputs, targets = data[0].clone(), data[1].clone()
    if value != value:
        inputs[100, 0] = value
    else:
        targets[100] = value
    return inputs, targets


def log_of_softmax(out: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy by hand, infinite where a probability underflows."""
    return -torch.log(torch.softmax(out, 1)[torch.arange(len(y)), y]).mean()


def without_zero_grad(run: Run) -> Run:
    """Gradients add up for ever."""
    run.module.optimizer_zero_grad = lambda *_: None  # type: ignore[method-assign]
    return run


def with_own_lr(net: Any, layer: int, factor: float, data: Pair, lr: float) -> Run:
    """One layer with a learning rate of its own."""
    own = list(net[layer].parameters())
    rest = [p for p in net.parameters() if all(p is not each for each in own)]
    groups = [{"params": own, "lr": lr * factor}, {"params": rest, "lr": lr}]
    return r.fit(net, data, lambda _: torch.optim.Adam(groups), steps=400)


class Cut(nn.Module):
    """A decoder that is given detached codes."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(x).detach())  # type: ignore[no-any-return]


class Extra(nn.Module):
    """A head that nothing calls."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.aux = net, nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)  # type: ignore[no-any-return]


class NoGradEncoder(n.Encoder):
    """A transformer whose body runs under no_grad."""

    def __init__(self) -> None:
        super().__init__(8)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            h = self.body(self.tok(x) + self.pos(torch.arange(x.shape[1])))
        return self.head(self.norm(h))  # type: ignore[no-any-return]


class CutEmbedding(n.Encoder):
    """A transformer whose embeddings are detached."""

    def __init__(self) -> None:
        super().__init__(d.LETTERS, causal=True)

    def forward(self, x: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        start = (self.tok(x) + self.pos(torch.arange(x.shape[1]))).detach()
        return self.head(self.norm(self.body(start, mask=mask, is_causal=True)))  # type: ignore[no-any-return]


class CutUNet(n.UNet):
    """A U-net whose lower level is detached."""

    def forward(self, x: Tensor) -> Tensor:
        a = self.down(x)
        return self.out(torch.cat([a, self.up(self.low(a).detach())], 1))  # type: ignore[no-any-return]


def flat_convolutions() -> nn.Module:
    """Six tanh convolutions and an output for each pixel."""
    layers: list[nn.Module] = [nn.Conv2d(1, 12, 3, padding=1), nn.Tanh()]
    for _ in range(5):
        layers += [nn.Conv2d(12, 12, 3, padding=1), nn.Tanh()]
    return nn.Sequential(*layers, nn.Conv2d(12, 3, 1))


def forgetting(net: nn.Module, part: str, data: Pair, loss: r.Loss = F.cross_entropy) -> Run:
    """An optimizer that was not given one part."""
    own = {id(p) for p in net.get_submodule(part).parameters()}
    return r.fit(
        net, data, lambda of: torch.optim.Adam([p for p in of.parameters() if id(p) not in own], lr=2e-3), loss
    )


def hidden_list() -> Run:
    """An optimizer that was given the first and the last layer."""
    net = n.stack([16, 64, 64, 6])
    own = [*net[0].parameters(), *net[4].parameters()]
    return r.fit(net, d.tabular(), lambda _: torch.optim.Adam(own, lr=1e-3))


def few(
    net: nn.Module, data: Pair, k: int, opt: r.MakeOptimizer, loss: r.Loss = F.cross_entropy, steps: int = 300
) -> Run:
    """The first `k` examples to learn, the last 600 to validate on about every 25 steps."""
    x, y = data
    run = r.fit(net, (x[:k], y[:k]), opt, loss, steps=steps, batch=20)
    run.val = d.loader(x[-600:], y[-600:], batch=300, shuffle=False)
    run.trainer = {"check_val_every_n_epoch": max(1, round(25 / (k / 20)))}
    return run


def sixty_examples() -> Run:
    """Few examples of a rule that a transformer finds in them: validation is as good as training."""
    return few(n.Encoder(8), d.reverse(), 60, r.opt("Adam", 3e-3), r.sequence_loss, steps=400)


def constant(net: nn.Module, value: float, only: int | None = None) -> nn.Module:
    """All matrices, or one, at a constant."""
    for index, layer in enumerate(_weighted(net)):
        if only is None or index == only:
            nn.init.constant_(layer.weight, value)
        if only is None:
            nn.init.zeros_(layer.bias)
    return net


def constant_feed_forward() -> nn.Module:
    """A transformer whose feed-forward units start alike."""
    net = n.Encoder(8)
    for layer in net.body.layers:
        nn.init.constant_(layer.linear1.weight, 0.05)
    return net


def _trained(net: nn.Module, data: Pair) -> nn.Module:
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(300):
        pick = torch.randint(len(data[0]), (64,))
        optimizer.zero_grad()
        F.cross_entropy(net(data[0][pick]), data[1][pick]).backward()
        optimizer.step()
    return net


def pretrained() -> Run:
    """Goes on with what it has learned."""
    data = d.tabular()
    return r.fit(_trained(n.stack([16, 64, 64, 6]), data), data, r.opt("Adam", 3e-4), steps=400, val=0.1)


def head_only() -> Run:
    """A new output layer on a trained network that is frozen."""
    data = d.tabular()
    net: Any = _trained(n.stack([16, 64, 64, 6]), data)
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    net[4] = nn.Linear(64, 4)
    return r.fit(net, (data[0], data[1] % 4), r.opt("Adam", 3e-3), steps=300, val=0.1)
