"""Recurrent cells with torch.nn's weights and a normalization of what comes in from below."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import has_torch_function

from bnlm.models.block import NormalizationFactory, make_normalization
from bnlm.models.recurrences import gru, lstm
from bnlm.models.steps import PackedSteps, PaddedSteps
from bnlm.normalization import makes_bias_redundant

# Each cell is torch.nn's by its parameters: what knows how to treat those (an initialisation gate by gate, a state
# dict) knows how to treat these. It is called with all steps at once, so that the part of them that needs no memory,
# the product with the inputs and its normalization, is done in one go.


class RNNCell(nn.RNNCell):
    """``h' = tanh(norm(W_ih x + b_ih) + W_hh h + b_hh)``; the state begins with zeros.

    Source: Elman 1990; the normalization as in Laurent et al. 2015, "Batch Normalized Recurrent Neural Networks", arXiv
    1510.01378, section 3 (of the inputs only, over all positions of all words together).

    Args:
        input_size, hidden_size: Features of an input and of the state.
        normalization: Makes the layer from its number of features (gates * hidden_size); None for none.
    """

    def __init__(self, input_size: int, hidden_size: int, normalization: NormalizationFactory | None = None) -> None:
        super().__init__(input_size, hidden_size)
        _add_normalization(self, normalization)

    def forward(self, x: Tensor, steps: PackedSteps | PaddedSteps) -> Tensor:  # type: ignore[override]
        """Return the state after each step, ``(M, hidden_size)``.

        Args:
            x: ``(M, input_size)``, in the order of ``steps``.
            steps: How they are cut into the inputs of each step.
        """
        states, inputs = [], steps.split(_inputs(self, x) + self.bias_hh)
        h = x.new_zeros(len(inputs[0]), self.hidden_size)
        weight = self.weight_hh.t()
        for z in inputs:
            h = torch.tanh(torch.addmm(z, _first(h, len(z)), weight))
            states.append(h)
        return steps.join(states)


class GRUCell(nn.GRUCell):
    """The gated recurrent unit: ``h' = (1 - u) * n + u * h``; the state begins with zeros.

        r, u = sigmoid(z_r + W_hr h + b_hr), sigmoid(z_u + W_hu h + b_hu)
        n = tanh(z_n + r * (W_hn h + b_hn))              z = norm(W_ih x + b_ih)

    Source: Cho et al. 2014, arXiv 1406.1078, in torch.nn's form. Arguments and normalization as in `RNNCell`.
    """

    def __init__(self, input_size: int, hidden_size: int, normalization: NormalizationFactory | None = None) -> None:
        super().__init__(input_size, hidden_size)
        _add_normalization(self, normalization)

    def forward(self, x: Tensor, steps: PackedSteps | PaddedSteps) -> Tensor:  # type: ignore[override]
        """Return the state after each step; see `RNNCell.forward`."""
        z = _inputs(self, x)
        if isinstance(steps, PackedSteps) and not _is_seen(z):
            return gru(z, self.weight_hh, self.bias_hh, steps.sizes)
        states, inputs, size = [], steps.split(z), self.hidden_size
        h = x.new_zeros(len(inputs[0]), size)
        for z in inputs:
            h = _first(h, len(z))
            from_state = F.linear(h, self.weight_hh, self.bias_hh)
            z_gates, z_new = z.split((2 * size, size), dim=1)
            state_gates, state_new = from_state.split((2 * size, size), dim=1)
            reset, update = torch.sigmoid(z_gates + state_gates).chunk(2, dim=1)
            new = torch.tanh(torch.addcmul(z_new, reset, state_new))
            h = new + update * (h - new)  # not lerp: under autocast they are of two types
            states.append(h)
        return steps.join(states)


class LSTMCell(nn.LSTMCell):
    """Long short-term memory: ``c' = f * c + i * g``, ``h' = o * tanh(c')``; both begin with zeros.

        i, f, o = sigmoid(z + W_h h + b_h) each, g = tanh(z_g + W_hg h + b_hg)       z = norm(W_ih x + b_ih)

    Source: Hochreiter & Schmidhuber 1997, in torch.nn's form. Arguments and normalization as in `RNNCell`.
    """

    def __init__(self, input_size: int, hidden_size: int, normalization: NormalizationFactory | None = None) -> None:
        super().__init__(input_size, hidden_size)
        _add_normalization(self, normalization)

    def forward(self, x: Tensor, steps: PackedSteps | PaddedSteps) -> Tensor:  # type: ignore[override]
        """Return the state h after each step; see `RNNCell.forward`."""
        z = _inputs(self, x) + self.bias_hh
        if isinstance(steps, PackedSteps) and not _is_seen(z):
            return lstm(z, self.weight_hh, steps.sizes)
        states, inputs, size = [], steps.split(z), self.hidden_size
        h = c = x.new_zeros(len(inputs[0]), size)
        weight = self.weight_hh.t()
        for z in inputs:
            gates = torch.addmm(z, _first(h, len(z)), weight)
            z_in_forget, z_new, z_out = gates.split((2 * size, size, size), dim=1)
            into, keep = torch.sigmoid(z_in_forget).chunk(2, dim=1)
            c = torch.addcmul(keep * _first(c, len(z)), into, torch.tanh(z_new))
            h = torch.sigmoid(z_out) * torch.tanh(c)
            states.append(h)
        return steps.join(states)


def _add_normalization(cell: nn.RNNCellBase, normalization: NormalizationFactory | None) -> None:
    layer = make_normalization(normalization, len(cell.weight_ih))
    cell.register_module("normalization", layer)
    if layer is not None and makes_bias_redundant(layer):
        cell.bias_ih = None  # type: ignore[assignment]


def _is_seen(z: Tensor) -> bool:
    """Return whether somebody wants to see each call, so that the steps cannot be one autograd node.

    A monitor does, which sees activations by a `TorchFunctionMode`; a tensor of a class that overrides functions; and
    autocast, which chooses the precision of each.
    """
    return has_torch_function((z,)) or torch.is_autocast_enabled(z.device.type)


def _first(state: Tensor, n: int) -> Tensor:
    """Return the state of those words that take a further step; mostly all do, and a slice has its backward too."""
    return state if len(state) == n else state[:n]


def _inputs(cell: nn.RNNCellBase, x: Tensor) -> Tensor:
    """Return what comes into the gates from below, at all steps: ``(M, gates * hidden_size)``."""
    z = F.linear(x, cell.weight_ih, cell.bias_ih)
    return z if cell.normalization is None else cell.normalization(z)  # type: ignore[operator]
