"""Names the layers of one forward after the modules that call them."""

from __future__ import annotations

from torch import nn

from bnlm.probe.names import Names, calling_modules


class CallNames:
    """Gives each call of an activation in a forward a name of its own: of a second `act` that is `act_1`.

    Args:
        names: Of the network.
    """

    def __init__(self, names: Names) -> None:
        self._names = names
        self._calls: dict[str, int] = {}
        self._used: set[str] = set()

    def next_forward(self) -> None:
        """A new forward begins: its first tanh is the layer `tanh` again."""
        self._calls.clear()
        self._used.clear()

    def of_next_call(self, layer: str) -> str:
        """Return the name of a further call of a layer in this forward."""
        while True:
            call = self._calls.get(layer, 0)
            self._calls[layer] = call + 1
            name = f"{layer}_{call}" if call else layer
            if name not in self._used:  # `act_1` may be a module of its own, beside `act` called twice
                self._used.add(name)
                return name

    def caller(self) -> tuple[str, nn.Module | None]:
        """Return the path of the innermost module of the root that is being called, and it, if it is an activation.

        What a module calls that is not a part of root, a part of root calls through it.
        """
        for depth, module in enumerate(calling_modules()):
            path = self._names.path_of(module)
            if path is not None:
                return path, module if depth == 0 and type(module).__module__ == nn.Tanh.__module__ else None
        return "", None
