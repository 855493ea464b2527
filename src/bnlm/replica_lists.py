"""Options that may be lists: a value for each of the networks that are trained at once."""

import copy
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

#: What may differ between replicas: it changes no shape, and a step can be computed for all at once.
LISTABLE = (
    "seed",
    "optimizer.lr",
    "init.gain",
    "init.output_scale",
    "init.bias",
    "init.output_bias",
    "init.scheme.factor",
)
#: These and what follows from them.
LISTED = (*LISTABLE, "data.seed")


def lists_in(cfg: DictConfig) -> dict[str, list[Any]]:
    """Return the lists among the options that may be lists."""
    found = {key: OmegaConf.select(cfg, key) for key in LISTED}
    return {key: list(values) for key, values in found.items() if isinstance(values, ListConfig)}


def settle_replicas(cfg: DictConfig) -> None:
    """Make `replicas` follow from the lists, and of several replicas `seed` a list, in place.

    To be called before interpolations are resolved: what is `${seed}` then follows, and what is not stays.

    Raises:
        ValueError: If a list has no value, or another number of them than another list or than `replicas` says.
    """
    lists = lists_in(cfg)
    replicas = cfg.replicas
    for key, values in lists.items():
        if not values:
            raise ValueError(f"{key}=[]: expected a value, or a list with one for each replica.")
        other, theirs = next(iter(lists.items()))
        if replicas > 1 and len(values) != replicas:
            raise ValueError(
                f"{key}={values}: {len(values)} values for replicas={replicas}; expected one for each, or a single "
                "one for all."
            )
        if len(values) != len(theirs):
            raise ValueError(
                f"{key}={values}: {len(values)} values, where {other}={theirs} has {len(theirs)}; expected lists of "
                "one length, with a value for each replica."
            )
        cfg.replicas = len(values)
    if cfg.replicas > 1 and "seed" not in lists:
        cfg.seed = list(range(cfg.seed, cfg.seed + cfg.replicas))
    if cfg.replicas == 1:
        for key, values in lists.items():
            OmegaConf.update(cfg, key, values[0])


def of_each(cfg: DictConfig) -> list[DictConfig]:
    """Return the configuration of the run that each replica is, with a single value in place of each list."""
    if cfg.get("replicas", 1) == 1:
        return [cfg]
    each = []
    for index in range(cfg.replicas):
        each.append(copy.deepcopy(cfg))
        each[-1].replicas = 1
        for key, values in lists_in(cfg).items():
            OmegaConf.update(each[-1], key, values[index])
    return each


def values_of_each(cfg: DictConfig) -> list[dict[str, Any]]:
    """Return the values in which the replicas differ, of each."""
    keys = [key for key in lists_in(cfg) if key in LISTABLE]
    return [{key: OmegaConf.select(one, key) for key in keys} for one in of_each(cfg)]
