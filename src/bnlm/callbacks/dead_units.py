"""Units that are silent for so long that they count as dead."""

from collections.abc import Mapping
from itertools import accumulate
from typing import Any

import numpy as np
import torch

#: Observed steps over which a unit has to stay silent to count as dead.
DEAD_WINDOW = 20


class DeadUnits:
    """Counts for how many observed steps in a row each unit has been silent."""

    def __init__(self) -> None:
        # By layer: steps of silence of each unit `(units,)`, and over how many it was watched.
        self._silent: dict[str, tuple[np.ndarray, int]] = {}
        # The layers of the last step together, as most steps have the same: a call for all takes as long as for one.
        self._layers: list[str] = []
        self._sizes: list[int] = []
        self._starts: list[int] = []
        self._together, self._watched = np.zeros((2, 0), dtype=np.int32)

    def shares(self, responded: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Take in which units responded, `(units,)` by layer; return what share of each layer's are dead."""
        if not responded:
            return {}
        layers, alive = list(responded), list(responded.values())
        sizes = [len(of_layer) for of_layer in alive]
        if layers != self._layers or sizes != self._sizes:
            self._join(layers, sizes)
        self._together += 1
        self._together *= ~np.concatenate(alive)
        self._watched += 1
        np.minimum(self._watched, DEAD_WINDOW, out=self._watched)
        counted = np.add.reduceat(self._together >= self._watched, self._starts, dtype=np.int64).tolist()
        return {layer: dead / size for layer, dead, size in zip(layers, counted, sizes, strict=True)}

    def _join(self, layers: list[str], sizes: list[int]) -> None:
        self._part()
        none = (np.zeros(0, dtype=np.int32), 0)
        known = [self._silent.get(layer, none) for layer in layers]
        same = [
            (silent, watched) if len(silent) == size else (np.zeros(size, dtype=np.int32), 0)
            for (silent, watched), size in zip(known, sizes, strict=True)
        ]
        self._layers, self._sizes = layers, sizes
        self._starts = list(accumulate(sizes[:-1], initial=0))
        self._together = np.concatenate([silent for silent, _ in same])
        self._watched = np.repeat(np.array([watched for _, watched in same], dtype=np.int32), sizes)

    def _part(self) -> None:
        for layer, size, start in zip(self._layers, self._sizes, self._starts, strict=True):
            self._silent[layer] = self._together[start : start + size].copy(), int(self._watched[start])

    def state_dict(self) -> dict[str, Any]:
        self._part()
        # Tensors, which checkpoints that are loaded safely may hold.
        return {layer: (torch.from_numpy(silent), watched) for layer, (silent, watched) in self._silent.items()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        self._layers, self._sizes, self._starts = [], [], []
        self._silent = {
            layer: (silent.cpu().numpy().astype(np.int32), watched) for layer, (silent, watched) in state_dict.items()
        }
