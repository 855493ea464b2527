"""R01, R02: output layers that no usual init draws, and the limit that a finding names."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bnlm.doctor import check


@pytest.mark.parametrize(
    ("scale", "bias", "severity"),
    [
        (2.4, 0.005, "warning"),  # a bias that is kept small is not of an earlier training
        (2.4, 0.3, "note"),  # this one may be
        (1.2, 0.02, "note"),  # as Glorot's or Kaiming's init draws it
    ],
)
def test_an_output_layer_that_is_too_large(scale: float, bias: float, severity: str) -> None:
    torch.manual_seed(0)
    head = nn.Linear(256, 10)
    with torch.no_grad():
        nn.init.normal_(head.weight, std=scale / 16)
        nn.init.normal_(head.bias, std=bias)
    # Features that make logits of std 1.3, whatever the layer's own scale.
    inputs = torch.randn(4096, 256) * 1.3 / scale
    targets = torch.randint(10, (4096,))
    findings = {f.rule: f for f in check(nn.Sequential(head), (inputs, targets), F.cross_entropy, table=False)}
    assert findings["R02"].severity == severity
    assert findings["R02"].threshold == 1.0 < findings["R02"].value < 1.5


@pytest.mark.parametrize(("spread", "threshold"), [(2.0, 1.5), (4.0, 3.0)])
def test_the_limit_that_is_named_is_the_one_that_was_passed(spread: float, threshold: float) -> None:
    torch.manual_seed(0)
    head = nn.Linear(256, 10, bias=False)
    nn.init.normal_(head.weight, std=spread / math.sqrt(256))
    batch = torch.randn(512, 256), torch.randint(10, (512,))
    findings = {f.rule: f for f in check(nn.Sequential(head), batch, F.cross_entropy, table=False)}
    assert findings["R02"].threshold == threshold < findings["R02"].value


@pytest.mark.parametrize(("bias", "expected"), [(4.0, True), (0.5, False)])
def test_a_bias_that_makes_the_logits(bias: float, expected: bool) -> None:
    torch.manual_seed(0)
    head = nn.Linear(256, 10)
    with torch.no_grad():
        nn.init.zeros_(head.bias)
        head.bias[3] = bias
    batch = torch.randn(512, 256), torch.randint(10, (512,))
    findings = {f.rule: f for f in check(nn.Sequential(head), batch, F.cross_entropy, table=False)}
    assert ("R02" in findings and findings["R02"].severity == "warning") == expected
    if expected:
        assert findings["R01"].severity == "warning"
        assert findings["R02"].suggestion.startswith("Zero the output layer's bias")
