"""Single networks out of the checkpoint of a run with replicas."""

import os
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor

from bnlm.checkpoint import read_checkpoint
from bnlm.replica_lists import LISTABLE, lists_in, of_each
from bnlm.resume import key_of

PREFIX = "model.network."


def write_replicas(last: Path) -> list[Path]:
    """Write `replica_0.ckpt`, ... beside `last`: each as a run with that network's values would have saved it.

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
    together = OmegaConf.create(ours["configuration"]["config"])
    one = of_each(together)[index]
    config: Any = OmegaConf.to_container(one)
    given = ours["configuration"]["overrides"]
    own = [key for key in lists_in(together) if key in LISTABLE or key in map(key_of, given)]
    overrides = [o for o in given if key_of(o) not in (*own, "replicas")]
    for key in own:
        value = OmegaConf.select(one, key)
        overrides.append(f"{key}={'null' if value is None else value}")
    single: dict[str, Any] = {
        **stacked,
        "state_dict": {
            key.replace(PREFIX, "model.", 1): value[index].clone() if key.startswith(PREFIX) else value
            for key, value in stacked["state_dict"].items()
        },
        "optimizer_states": [_optimizer_of(state, index) for state in stacked["optimizer_states"]],
        "lr_schedulers": [_scheduler_of(state, index) for state in stacked["lr_schedulers"]],
        "callbacks": {},
        "bnlm": {
            **ours,
            "configuration": {
                **ours["configuration"],
                "config": config,
                "overrides": overrides,
            },
            "first_loss": None,
            "unlogged_losses": unlogged[:, index].clone() if unlogged.dim() == 2 else unlogged,  # else: there are none
        },
    }
    for key, value in stacked.items():
        if isinstance(value, dict) and "train_sha256" in value:  # the data's
            single[key] = {**value, "seed": config["data"]["seed"]}
    return single


def _optimizer_of(state: dict[str, Any], index: int) -> dict[str, Any]:
    """Return the state of one network: of each parameter's tensors its part, but for counts of steps, `()`."""
    each = {
        parameter: {
            name: value[index].clone() if isinstance(value, Tensor) and value.dim() else value
            for name, value in held.items()
        }
        for parameter, held in state["state"].items()
    }
    groups = state["param_groups"]
    if len(groups) > 1:  # one for each network's rate; the first holds the parameters of all
        groups = [{**groups[index], "params": groups[0]["params"]}]
    return {**state, "state": each, "param_groups": groups}


def _scheduler_of(state: dict[str, Any], index: int) -> dict[str, Any]:
    """Return the state of one network's schedule: of rates of several networks, its own."""
    several = {key for key, value in state.items() if key.endswith(("lr", "lrs")) and isinstance(value, list)}
    return {key: [value[index]] if key in several and len(value) > 1 else value for key, value in state.items()}
