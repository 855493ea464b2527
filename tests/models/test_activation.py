"""Activations by name."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bnlm.models import activation
from bnlm.models.activation import ACTIVATIONS


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("tanh", nn.Tanh),
        ("leaky_relu", nn.LeakyReLU),
        ("LeakyReLU", nn.LeakyReLU),
        ("leakyrelu", nn.LeakyReLU),
        ("SiLU", nn.SiLU),
        ("GELU", nn.GELU),
        ("logsigmoid", nn.LogSigmoid),
        ("identity", nn.Identity),
    ],
)
def test_names_are_read_loosely(name: str, expected: type[nn.Module]) -> None:
    assert type(activation(name)) is expected


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_one_is_elementwise_and_found_by_its_class_name(name: str) -> None:
    module = activation(name).eval()  # RReLU draws its slope in training
    x = torch.linspace(-7, 7, 29)
    torch.testing.assert_close(module(x), torch.stack([module(value[None])[0] for value in x]))
    assert type(activation(type(module).__name__)) is type(module)


def test_each_call_makes_a_new_module() -> None:
    assert activation("prelu") is not activation("prelu")


def test_an_unknown_name_is_explained() -> None:
    with pytest.raises(
        ValueError, match=r"model\.activation='tanhh': .*choose one of .*relu.*tanh.*Did you mean tanh\?"
    ):
        activation("tanhh")
    with pytest.raises(ValueError, match=r"model\.activation='softmax'"):
        activation("softmax")
    with pytest.raises(ValueError, match=r"model\.activation=None"):
        activation(None)
