"""Units that are silent for so long that they count as dead."""

from collections.abc import Mapping
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

    def shares(self, responded: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Take in which units responded, `(units,)` by layer; return what share of each layer's are dead."""
        found = {}
        for layer, alive in responded.items():
            silent, watched = self._silent.get(layer, (alive, 0))
            if not watched or silent.shape != alive.shape:
                silent, watched = np.zeros(alive.shape, dtype=np.int32), 0
            silent += 1
            silent *= ~alive
            watched = min(watched + 1, DEAD_WINDOW)
            self._silent[layer] = silent, watched
            found[layer] = int(np.count_nonzero(silent >= watched)) / len(silent)
        return found

    def state_dict(self) -> dict[str, Any]:
        # Tensors, which checkpoints that are loaded safely may hold.
        return {layer: (torch.from_numpy(silent), watched) for layer, (silent, watched) in self._silent.items()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        self._silent = {
            layer: (silent.cpu().numpy().astype(np.int32), watched) for layer, (silent, watched) in state_dict.items()
        }
