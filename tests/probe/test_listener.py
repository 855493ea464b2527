"""A hook that a module takes along when it is copied or saved hears nothing there."""

import copy
import io

import pytest
import torch
from torch import nn

from bnlm.probe.listener import Listener


@pytest.mark.parametrize("how", ["copied", "saved"])
def test_a_copy_of_a_module_that_is_listened_to(how: str) -> None:
    heard: list[str] = []
    linear = nn.Linear(2, 3)
    linear.register_forward_hook(Listener(lambda what, *given: heard.append(what), "this"))
    if how == "copied":
        other = copy.deepcopy(linear)
    else:
        file = io.BytesIO()
        torch.save(linear, file)
        file.seek(0)
        other = torch.load(file, weights_only=False)
    x = torch.randn(4, 2)
    assert other(x).equal(linear(x))
    assert heard == ["this"]
