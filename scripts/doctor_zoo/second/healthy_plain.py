"""Networks that train well as torch initialises them: four to six plain layers, single logits, batches of a few."""

from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from doctor_zoo.case import Case, Run
from doctor_zoo.second import data as d
from doctor_zoo.second import networks as n
from doctor_zoo.second import recipe as r


def _convolutions(layers: int, act: type[nn.Module] = nn.ReLU, pool: bool = False) -> nn.Module:
    parts: list[nn.Module] = []
    for i in range(layers):
        parts += [nn.Conv2d(32 if i else 1, 32, 3, padding=1), act()]
        if pool and i % 2:
            parts.append(nn.AvgPool2d(2))
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 4))


def _images_again() -> nn.Module:
    """Down and up again, by the deconvolutions whose init torch draws by their number of outputs."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, 1, 1), nn.ReLU(),
        nn.ConvTranspose2d(16, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 1, 3, 1, 1),
    )  # fmt: skip


def _perceptron(layers: int, act: type[nn.Module], width: int) -> Run:
    return r.fit(n.stack([16, *[width] * layers, 6], act), d.tabular(), r.opt("Adam", 0.001), steps=500)


def _few(batch: int) -> Run:
    return r.fit(n.stack([16, 32, 32, 6]), d.tabular(), r.opt("SGD", 0.01), steps=1000, batch=batch)


def _first_of_six(out: Tensor, y: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(out[:, 0], (y == 0).float())


def _masks() -> tuple[Tensor, Tensor]:
    x, mask = d.masks()
    return x, (mask > 0).float().reshape(len(x), 1, *x.shape[2:])


def healthy_plain() -> list[Case]:
    """Return the runs."""
    h = r.Cases()
    for layers in (4, 5, 6):
        h(f"healthy/default-relu-{layers}", partial(_perceptron, layers, nn.ReLU, 256))
    for act in (nn.GELU, nn.SiLU, nn.ELU, nn.Tanh):
        h(f"healthy/default-{act.__name__.lower()}-6", partial(_perceptron, 6, act, 128))
    for layers in (4, 6):
        h(
            f"healthy/default-conv-{layers}",
            lambda layers=layers: r.fit(_convolutions(layers), d.images(), r.opt("Adam", 0.002), steps=300),
        )
        for act in (nn.ReLU, nn.GELU):
            h(
                f"healthy/default-conv-pooled-{act.__name__.lower()}-{layers}",
                lambda layers=layers, act=act: r.fit(
                    _convolutions(layers, act, True), d.images(), r.opt("Adam", 0.002), steps=400
                ),
            )
    x = d.images()[0]
    h(
        "healthy/default-deconv",
        lambda: r.fit(_images_again(), (x, x), r.opt("Adam", 0.002), F.mse_loss, steps=400),
    )
    h(
        "healthy/rare-class-deep",
        lambda: r.fit(n.stack([16, *[64] * 5, 1]), d.tabular(), r.opt("Adam", 0.002), _first_of_six, steps=500),
    )
    h(
        "healthy/pixels-groupnorm",
        lambda: r.fit(
            nn.Sequential(
                nn.Conv2d(1, 16, 3, 1, 1), r.GROUPS(16), nn.GELU(), nn.Conv2d(16, 16, 3, 1, 1), r.GROUPS(16), nn.GELU(),
                nn.Conv2d(16, 1, 1),
            ),
            _masks(), r.opt("Adam", 0.002), F.binary_cross_entropy_with_logits, steps=300,
        ),
    )  # fmt: skip
    for batch in (1, 3):
        h(f"healthy/batches-of-{batch}", partial(_few, batch))
    return h.cases
