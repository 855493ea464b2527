"""Which initialisation keeps a 5-, 20- or 50-layer network alive, per activation: one batch, no training.

    python scripts/init_depth.py [--depths 5 20 50] [--width 256] [--examples 256] [--seeds 1] [--picture FILE.png]

Each cell: std of the last activation over the first's | std of the gradient at the first over that at the last, and the
verdict. Alive: all activations within 0.5 .. 2 of the first, the gradients within a factor of 1,000 (uneven: over 10).
Of several seeds the worst is shown.
"""

import argparse
import math
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from bnlm.init import Preview, preview_depth
from bnlm.init.depth import STARTS
from bnlm.init.preview import save_previews

ACTIVATIONS = {"tanh": nn.Tanh, "relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU, "selu": nn.SELU}


def distance(found: Preview) -> float:
    """Return how far the activations' ratio is from 1, in powers of e."""
    ratio = found.activation_ratio
    return abs(math.log(ratio)) if 0 < ratio < math.inf else math.inf


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depths", type=int, nargs="+", default=[5, 20, 50])
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--examples", type=int, default=256)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--picture", type=Path, help="curves over depth, of the largest depth")
    options = parser.parse_args()
    torch.set_num_threads(1)
    table = Table("activation", "init", *(f"{depth} layers" for depth in options.depths))
    deepest: dict[str, dict[str, Preview]] = {}
    for name, activation in ACTIVATIONS.items():
        for start in STARTS:
            cells = []
            for depth in options.depths:
                runs = [
                    preview_depth(activation, start, depth, width=options.width, examples=options.examples, seed=seed)
                    for seed in range(options.seeds)
                ]
                worst = max(runs, key=distance)
                cells.append(f"{worst.activation_ratio:8.2g} | {worst.gradient_ratio:8.2g}  {worst.verdict}")
                if depth == max(options.depths):
                    deepest.setdefault(name, {})[start] = worst
            table.add_row(name, start, *cells)
    Console(width=40 + 42 * len(options.depths)).print(table)
    print(f"width {options.width}, {options.examples} examples, {options.seeds} seed(s), torch {torch.__version__}")
    if options.picture is not None:
        save_previews(deepest, options.picture)
        print(options.picture)


if __name__ == "__main__":
    main()
