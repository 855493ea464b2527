"""Single networks out of the checkpoint of a run with replicas."""

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bnlm.checkpoint import read_checkpoint

PREFIX = "model.network."


def write_replicas(last: Path) -> list[Path]:
    """Write `replica_0.ckpt`, ... beside `last`: each as a run with that network's seed would have saved it.

    `bnlm.sample` and `bnlm.evaluate` take them, and a run that goes on with one alone.
    """
    stacked = read_checkpoint(last)
    paths = []
    for index in range(stacked["bnlm"]["configuration"]["config"]["replicas"]):
        paths.append(last.with_name(f"replica_{index}.ckpt"))
        unfinished = paths[-1].with_suffix(".new")
        torch.save(replica_of(stacked, index), unfinished)
        os.replace(unfinished, paths[-1])
    return paths


def replica_of(stacked: dict[str, Any], index: int) -> dict[str, Any]:
    """Return the checkpoint of network `index` alone; what monitors counted over all of them is left out."""
    ours = stacked["bnlm"]
    unlogged = ours["unlogged_losses"]
    config = {**ours["configuration"]["config"], "replicas": 1}
    config["seed"] += index
    config["data"] = {**config["data"], "seed": config["seed"]}
    overrides = [o for o in ours["configuration"]["overrides"] if o.partition("=")[0] not in ("seed", "replicas")]
    own: dict[str, Any] = {
        **stacked,
        "state_dict": {
            key.replace(PREFIX, "model.", 1): value[index].clone() if key.startswith(PREFIX) else value
            for key, value in stacked["state_dict"].items()
        },
        "optimizer_states": [_optimizer_of(state, index) for state in stacked["optimizer_states"]],
        "callbacks": {},
        "bnlm": {
            **ours,
            "configuration": {
                **ours["configuration"],
                "config": config,
                "overrides": [*overrides, f"seed={config['seed']}"],
            },
            "first_loss": None,
            "unlogged_losses": unlogged[:, index].clone() if unlogged.dim() == 2 else unlogged,  # else: there are none
        },
    }
    for key, value in stacked.items():
        if isinstance(value, dict) and "train_sha256" in value:  # the data's
            own[key] = {**value, "seed": config["seed"]}
    return own


def _optimizer_of(state: dict[str, Any], index: int) -> dict[str, Any]:
    """Return the state of one network: of each parameter's tensors its part, but for counts of steps, `()`."""
    each = {
        parameter: {
            name: value[index].clone() if isinstance(value, Tensor) and value.dim() else value
            for name, value in held.items()
        }
        for parameter, held in state["state"].items()
    }
    return {**state, "state": each}
