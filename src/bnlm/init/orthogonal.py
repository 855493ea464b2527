"""Orthogonal initialisation: every singular value is the gain."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor


@torch.no_grad()
def orthogonal(weight: Tensor, *, gain: float = 1.0, generator: Generator | None = None) -> float:
    """Draw ``weight`` in place as ``gain`` times a random matrix with orthonormal rows or columns (the fewer of them).

    A convolution's ``(out, in, *kernel)`` is the matrix ``(out, in · kernel)``. A square layer keeps the length of
    every input, and so does any product of such layers. A layer that widens keeps the length too, so each of its more
    outputs is smaller: a standard deviation of sqrt(in / out), where Kaiming's rule keeps 1.

    Source: Saxe, McClelland & Ganguli 2013, arXiv 1312.6120. The QR factorisation of a normal matrix is made unique by
    the signs of R's diagonal, so that Q is uniform (Mezzadri 2007, arXiv math-ph/0609050).

    Returns:
        ``gain / sqrt(max(rows, columns))``, the root mean square of the elements, exactly.
    Raises:
        ValueError: If the weight has fewer than 2 dimensions.
    """
    if weight.ndim < 2:
        raise ValueError(f"weight of shape {tuple(weight.shape)}: an orthogonal matrix needs at least 2 dimensions.")
    rows, columns = weight.shape[0], math.prod(weight.shape[1:])
    if rows == 0 or columns == 0:
        return 0.0
    wide = torch.float64 if weight.dtype == torch.float64 else torch.float32  # there is no QR in half precision
    drawn = torch.empty(rows, columns, dtype=wide, device=weight.device).normal_(generator=generator)
    q, r = torch.linalg.qr(drawn if rows >= columns else drawn.T)
    q = q * r.diagonal().sign()
    weight.copy_(gain * (q if rows >= columns else q.T).reshape(weight.shape))
    return gain / math.sqrt(max(rows, columns))
