"""Gradients between two observed steps, of parameters that had none at these: tasks and blocks may take turns."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from bnlm.probe.names import plain

#: Gradients of a parameter that are looked at: after so many of nothing but zeros no other is expected.
MOST_LOOKS = 20


class GradientWatch:
    """Hears when a gradient comes to one of the parameters that it follows; one to which none comes costs nothing."""

    def __init__(self) -> None:
        self._handles: dict[str, RemovableHandle] = {}
        self._looks: dict[str, int] = {}
        self._heard: set[str] = set()

    def follow(self, root: nn.Module, names: Collection[str]) -> list[str]:
        """Follow these parameters of `root` and no others; return which of them were not followed before."""
        for name in self._handles.keys() - names:
            self._handles.pop(name).remove()
        for name, handle in self._handles.items():
            if self._looks[name] >= MOST_LOOKS:
                handle.remove()  # else it would be called at every step
        fresh = [name for name in names if name not in self._handles]
        if fresh:
            parameters = {plain(name): p for name, p in root.named_parameters()}
            for name in fresh:
                parameter = parameters.get(name)
                if parameter is not None and parameter.requires_grad:  # either may have changed since training started
                    self._looks[name] = 0
                    hook = partial(self._gradient_came, name)
                    self._handles[name] = parameter.register_post_accumulate_grad_hook(hook)
        return fresh

    def take(self) -> set[str]:
        """Return the names of those to which a gradient has come, and forget them."""
        heard, self._heard = self._heard, set()
        return heard

    @torch.no_grad()
    def _gradient_came(self, name: str, parameter: Tensor) -> None:
        if name in self._heard or self._looks[name] >= MOST_LOOKS:
            return
        self._looks[name] += 1
        gradient = parameter.grad
        if gradient is not None and (gradient.is_sparse or bool(gradient.any())):
            self._heard.add(name)
