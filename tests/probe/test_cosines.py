"""Logits that are cosines: their spread is their author's scale, and nothing to be judged."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnlm.doctor import check

WITH_COSINES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "linear": lambda z, w: 30 * F.linear(F.normalize(z), F.normalize(w)),
    "by hand": lambda z, w: 30 * (z / z.norm(dim=1, keepdim=True)) @ (w / w.norm(dim=1, keepdim=True)).t(),
    "cosine_similarity": lambda z, w: 30 * F.cosine_similarity(z[:, None], w[None], dim=-1),
    "einsum": lambda z, w: torch.einsum("bd,kd->bk", 30 * F.normalize(z), F.normalize(w)),
    "half precision": lambda z, w: 30 * F.linear(F.normalize(z).bfloat16(), F.normalize(w).bfloat16()).float(),
    "margin": lambda z, w: 30 * F.linear(F.normalize(z), F.normalize(w)).clamp(-0.99, 0.99).acos().add(0.1).cos(),
}
WITHOUT: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "neither": lambda z, w: 10 * F.linear(z, w),
    "one": lambda z, w: 10 * F.linear(F.normalize(z), w),
    "before another layer": lambda z, w: 30 * F.linear(F.linear(F.normalize(z), F.normalize(w)), w.T @ w @ w.T),
}


class Net(nn.Module):
    def __init__(self, head: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 16))
        self.classes = nn.Parameter(torch.randn(10, 16))
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x), self.classes)


@pytest.mark.parametrize(
    ("head", "expected"),
    [pytest.param(head, False, id=name) for name, head in WITH_COSINES.items()]
    + [pytest.param(head, True, id=name) for name, head in WITHOUT.items()],
)
def test_the_scale_of_cosines_is_not_judged(head: Callable[[Tensor, Tensor], Tensor], expected: bool) -> None:
    torch.manual_seed(1)
    batch = torch.randn(64, 20), torch.randint(10, (64,))
    findings = check(Net(head), batch, F.cross_entropy, table=False)
    assert bool({"R01", "R02"} & {f.rule for f in findings if f.severity != "note"}) == expected


def mapped(z: Tensor, w: Tensor) -> Tensor:
    return 30 * torch.vmap(lambda row: F.linear(F.normalize(row, dim=0), F.normalize(w)))(z)


def nested(z: Tensor, w: Tensor) -> Tensor:
    parts = torch.nested.as_nested_tensor(list(z.split(32)), layout=torch.jagged)
    return 30 * F.linear(parts, w).values()


@pytest.mark.parametrize("head", [mapped, nested])
def test_products_of_which_nothing_is_to_be_seen_are_left_alone(head: Callable[[Tensor, Tensor], Tensor]) -> None:
    torch.manual_seed(1)
    batch = torch.randn(64, 20), torch.randint(10, (64,))
    assert "R02" in [f.rule for f in check(Net(head), batch, F.cross_entropy, table=False)]
