"""Dead units over a window, where layers come and go and change their width, against a plain count."""

import random

import numpy as np
import pytest

from bnlm.callbacks.dead_units import DEAD_WINDOW, DeadUnits


class Plain:
    """For each unit, whether it was silent in all of the last steps its layer was seen in, at most `DEAD_WINDOW`."""

    def __init__(self) -> None:
        self.seen: dict[str, list[np.ndarray]] = {}

    def shares(self, responded: dict[str, np.ndarray]) -> dict[str, float]:
        found = {}
        for layer, alive in responded.items():
            steps = self.seen.setdefault(layer, [])
            if steps and len(steps[-1]) != len(alive):
                steps.clear()
            steps.append(alive)
            found[layer] = float((~np.any(steps[-DEAD_WINDOW:], axis=0)).mean())
        return found


@pytest.mark.parametrize("seed", range(5))
def test_layers_that_come_and_go(seed: int) -> None:
    random.seed(seed)
    generator = np.random.default_rng(seed)
    units, plain, widths = DeadUnits(), Plain(), {"a": 7, "b": 3, "c": 1}
    layers = list(widths)
    for step in range(100):
        if random.random() < 0.1:
            layers = random.sample(list(widths), random.randint(0, 3))
        if random.random() < 0.03:
            widths["b"] = random.choice((2, 3, 5))
        if step == 50:  # a checkpoint, and a new process
            state = units.state_dict()
            units = DeadUnits()
            units.load_state_dict(state)
        responded = {layer: generator.random(widths[layer]) < 0.08 for layer in layers}
        assert units.shares(responded) == pytest.approx(plain.shares(responded), abs=1e-15)
