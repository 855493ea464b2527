"""The recurrences of our GRU and LSTM over all steps of packed words, each one autograd node with its backward by hand.

Autograd would keep a node for every operation of every step, and a product for the weights at each. Here the backward
pass goes back through the steps for what passes from one to the one before, and does all else for all steps at once.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

sigmoid_backward = torch.ops.aten.sigmoid_backward  # (g, y): g y (1 - y)
tanh_backward = torch.ops.aten.tanh_backward  # (g, y): g (1 - y^2)

# The states of all steps are parts of one tensor, in front of which stand those that the words begin with: zeros.


def gru(z: Tensor, weight: Tensor, bias: Tensor, sizes: list[int]) -> Tensor:
    """Return ``h' = (1 - u) n + u h`` after each step, ``(M, H)``.

        r, u = sigmoid(z_r + s_r), sigmoid(z_u + s_u)        n = tanh(z_n + r s_n)        s = W h + b

    With g = ∂loss/∂h' all is g times what the forward pass has left:

        ∂loss/∂z_n = g (1 - u) (1 - n²)        ∂loss/∂z_u = g (h - n) u (1 - u)
        ∂loss/∂z_r = ∂loss/∂z_n s_n r (1 - r)

    ∂loss/∂s is the same but for ∂loss/∂s_n = r ∂loss/∂z_n; the step before is given g u + W^T ∂loss/∂s.

    Args:
        z: ``(M, 3 H)``: reset, update and new, in the order of time.
        weight: ``(3 H, H)``.
        bias: ``(3 H,)``.
        sizes: How many words take each step.
    """
    return _GRU.apply(z, weight, bias, sizes)


def lstm(z: Tensor, weight: Tensor, sizes: list[int]) -> Tensor:
    """Return ``h' = o tanh(c')`` with ``c' = f c + i n`` after each step, ``(M, H)``.

        i, f, o = sigmoid of their parts of a, n = tanh of its        a = z + W h

    With g = ∂loss/∂h' and e = ∂loss/∂c', which is g o (1 - tanh²c') and what the step after adds, f e:

        ∂loss/∂a_i = e n i (1 - i)        ∂loss/∂a_f = e c f (1 - f)        ∂loss/∂a_n = e i (1 - n²)
        ∂loss/∂a_o = g tanh(c') o (1 - o)        ∂loss/∂z = ∂loss/∂a; the step before is given W^T ∂loss/∂a

    Args:
        z: ``(M, 4 H)``: input, forget, new and output, in the order of time.
        weight: ``(4 H, H)``.
        sizes: How many words take each step.
    """
    return _LSTM.apply(z, weight, sizes)


class _GRU(Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, weight: Tensor, bias: Tensor, sizes: list[int]) -> Tensor:
        size = weight.shape[1]
        h = z.new_zeros(sizes[0] + len(z), size)
        s, gates, new = z.new_empty(z.shape), z.new_empty(len(z), 2 * size), z.new_empty(len(z), size)
        transposed = weight.t()
        states = h.split([sizes[0], *sizes])
        parts = (*z.split((2 * size, size), 1), s, *s.split((2 * size, size), 1), gates, *gates.split(size, 1), new)
        of_each_step = (part.split(sizes) for part in parts)
        for h_, after, z_ru, z_n, s_, s_ru, s_n, ru, r, u, n in zip(states, states[1:], *of_each_step, strict=False):
            before = _first(h_, len(after))
            torch.addmm(bias, before, transposed, out=s_)
            torch.add(z_ru, s_ru, out=ru).sigmoid_()
            torch.addcmul(z_n, r, s_n, out=n).tanh_()
            torch.lerp(n, before, u, out=after)
        ctx.sizes = sizes
        ctx.save_for_backward(weight, s, gates, new, h)
        return h[sizes[0] :]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        weight, s, gates, new, h = ctx.saved_tensors
        sizes, size = ctx.sizes, weight.shape[1]
        before = _before_each(h, sizes)
        r, u = gates.split(size, 1)
        to_z_n = tanh_backward(1 - u, new)  # what g is multiplied by
        to_z_u = sigmoid_backward(before - new, u)
        to_z_r = sigmoid_backward(to_z_n * s[:, 2 * size :], r)
        to_s = torch.stack([to_z_r, to_z_u, to_z_n * r], dim=1)
        grad_s = torch.empty_like(to_s)
        g = _behind_zeros(grad, sizes)
        g_steps = g.split([sizes[0], *sizes])
        parts = (to_s, grad_s, grad_s.flatten(1), u)
        of_each_step = list(zip(*(part.split(sizes) for part in parts), strict=True))
        for t in range(len(sizes), 0, -1):
            to_s_, apart, joined, u_ = of_each_step[t - 1]
            torch.mul(to_s_, g_steps[t].unsqueeze(1), out=apart)
            _first(g_steps[t - 1], len(u_)).addcmul_(g_steps[t], u_).addmm_(joined, weight)
        grad_s = grad_s.flatten(1)
        grad_z = torch.cat([grad_s[:, : 2 * size], g[sizes[0] :] * to_z_n], dim=1)
        return grad_z, grad_s.t() @ before, grad_s.sum(0), None


class _LSTM(Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, weight: Tensor, sizes: list[int]) -> Tensor:
        size = weight.shape[1]
        h, c = z.new_zeros(2, sizes[0] + len(z), size).unbind()
        gates, tanh_c = z.new_empty(z.shape), z.new_empty(len(z), size)
        transposed = weight.t()
        h_steps, c_steps = h.split([sizes[0], *sizes]), c.split([sizes[0], *sizes])
        parts = (z, gates, *gates.split(size, 1), gates[:, : 2 * size], tanh_c)
        of_each_step = (part.split(sizes) for part in parts)
        chain = (h_steps, h_steps[1:], c_steps, c_steps[1:])
        for h_, h_after, c_, c_after, z_, a, i, f, n, o, i_f, tanh_c_ in zip(*chain, *of_each_step, strict=False):
            torch.addmm(z_, _first(h_, len(z_)), transposed, out=a)
            i_f.sigmoid_()
            n.tanh_()
            o.sigmoid_()
            torch.mul(i, n, out=c_after).addcmul_(f, _first(c_, len(z_)))
            torch.tanh(c_after, out=tanh_c_)
            torch.mul(o, tanh_c_, out=h_after)
        ctx.sizes = sizes
        ctx.save_for_backward(weight, gates, tanh_c, c, h)
        return h[sizes[0] :]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        weight, gates, tanh_c, c, h = ctx.saved_tensors
        sizes, size = ctx.sizes, weight.shape[1]
        i, f, n, o = gates.split(size, 1)
        to_c = tanh_backward(o, tanh_c)  # what g is multiplied by, as is `to_o`
        to_o = sigmoid_backward(tanh_c, o)
        to_rest = torch.stack(  # what e is multiplied by
            [sigmoid_backward(n, i), sigmoid_backward(_before_each(c, sizes), f), tanh_backward(i, n)], dim=1
        )
        grad_a = to_rest.new_empty(len(f), 4, size)
        g = _behind_zeros(grad, sizes)
        g_steps = g.split([sizes[0], *sizes])
        e_steps = torch.zeros_like(g).split([sizes[0], *sizes])
        parts = (to_c, to_rest, to_o, grad_a[:, :3], grad_a[:, 3], grad_a.flatten(1), f)
        of_each_step = list(zip(*(part.split(sizes) for part in parts), strict=True))
        for t in range(len(sizes), 0, -1):
            to_c_, to_rest_, to_o_, rest, last, joined, f_ = of_each_step[t - 1]
            e = e_steps[t].addcmul_(g_steps[t], to_c_)
            torch.mul(to_rest_, e.unsqueeze(1), out=rest)
            torch.mul(to_o_, g_steps[t], out=last)
            _first(g_steps[t - 1], len(e)).addmm_(joined, weight)
            torch.mul(e, f_, out=_first(e_steps[t - 1], len(e)))
        grad_z = grad_a.flatten(1)
        return grad_z, grad_z.t() @ _before_each(h, sizes), None


def _first(rows: Tensor, n: int) -> Tensor:
    """Return the rows of those words that take a further step; mostly all do, and a slice is a call too."""
    return rows if len(rows) == n else rows[:n]


def _behind_zeros(rows: Tensor, sizes: list[int]) -> Tensor:
    """Return a copy of ``rows`` ``(M, H)`` with a row of zeros for each word in front."""
    return torch.cat([rows.new_zeros(sizes[0], rows.shape[1]), rows])


def _before_each(states: Tensor, sizes: list[int]) -> Tensor:
    """Return for each step's words the states before it, ``(M, H)``."""
    steps = states.split([sizes[0], *sizes])
    return torch.cat([_first(before, n) for before, n in zip(steps, sizes, strict=False)])
