"""Splits of molecular data sets: sizes, limits, and the graphs that are left."""

from typing import Any

import numpy as np

from equiscape.data.molecules import SPLITS, Molecules
from equiscape.errors import ConfigError
from equiscape.registry import unknown


def shrink(splits: dict[str, np.ndarray], entry: dict[str, Any]) -> dict[str, np.ndarray]:
    """Cut random splits to the entry's ``splits`` sizes, then to ``limit`` graphs in all.

    Raises:
        ConfigError: a split is unknown, or asked for more graphs than it has.
    """
    sizes = entry.get("splits") or {}
    for split, size in sizes.items():
        if split not in SPLITS:
            raise unknown(split, SPLITS, "splits")
        if size > len(splits[split]):
            raise ConfigError(
                f"splits.{split}: {size} graphs are more than the {len(splits[split])} there are."
            )
    splits = {split: graphs[: sizes.get(split)] for split, graphs in splits.items()}
    total = sum(map(len, splits.values()))
    limit = entry.get("limit") or total
    return {
        split: graphs[: max(1, len(graphs) * limit // total)] if limit < total else graphs
        for split, graphs in splits.items()
    }


def random_split(n: int, entry: dict[str, Any], default: dict[str, int]) -> dict[str, np.ndarray]:
    """A random split of ``n`` graphs by the entry's ``seed``, ``splits`` and ``limit``.

    ``splits`` gives the sizes of ``train`` and ``validation``, and of ``test`` where that is not
    to be all the rest.

    Raises:
        ConfigError: the sizes do not leave a graph for each split.
    """
    sizes = {**default, **(entry.get("splits") or {})}
    train, validation = sizes.get("train", 0), sizes.get("validation", 0)
    if min(train, validation) < 1 or train + validation + sizes.get("test", 1) > n:
        raise ConfigError(f"splits: {sizes} does not leave graphs for each split out of {n}.")
    order = np.random.default_rng(entry.get("seed", 0)).permutation(n)
    parts = dict(zip(SPLITS, np.split(order, [train, train + validation])))
    return shrink(parts, {**entry, "splits": sizes})


def keep_used(molecules: Molecules, splits: dict[str, np.ndarray]) -> Molecules:
    """Only the graphs that ``splits`` names, with the splits renumbered."""
    used = np.unique(np.concatenate(list(splits.values())))
    kept = molecules if len(used) == len(molecules) else molecules.select(used)
    kept.splits = {split: np.searchsorted(used, graphs) for split, graphs in splits.items()}
    return kept
