"""Splits of molecular data sets: sizes, limits, and the graphs that are left."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from equiscape.data.molecules import SPLITS, Molecules
from equiscape.errors import ConfigError
from equiscape.registry import unknown
from equiscape.settings import PositiveInt


@dataclass(frozen=True)
class SizedSplits:
    """Settings of the kinds of data whose splits the configuration may size.

    Attributes:
        splits: samples of each split; what is not given is left to the kind.
        limit: take only this many samples, a fixed random subset.
        node_budget: most nodes in a batch; None packs by the batch size alone.
    """

    splits: Mapping[Literal["train", "validation", "test"], PositiveInt] | None = None
    limit: PositiveInt | None = None
    node_budget: PositiveInt | None = None
    CONSTRAINTS: ClassVar[tuple[tuple[str, str], ...]] = (
        (
            "'train' not in (splits or []) or splits['train'] >= 2",
            "splits.train must be at least 2, of which a spread can be taken",
        ),
        (
            "limit is None or len(splits or []) < 3 or limit * min(splits) >= sum(splits)",
            "limit must leave a sample for each of the splits",
        ),
    )


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


def grouped_split(
    graphs: np.ndarray, groups: np.ndarray, shares: dict[str, float], seed: int
) -> dict[str, np.ndarray]:
    """A random split of ``graphs`` into ``train`` and the splits of ``shares``, group by group.

    A group goes where its first graph falls, so a share is met to within the largest group.

    Args:
        graphs: to be split.
        groups: a group's number for every graph there is; a group stays on one side.
        shares: of the graphs, for each split beside ``train``.
        seed: of the order in which groups are dealt out.

    Raises:
        ConfigError: a split is left without graphs.
    """
    _, own = np.unique(groups[graphs], return_inverse=True)
    place = np.random.default_rng(seed).permutation(own.max() + 1)[own]  # of each graph's group
    order = np.argsort(place, kind="stable")
    sizes = np.bincount(place)
    first = (np.cumsum(sizes) - sizes)[place[order]]  # graphs before the group of each
    ends = np.cumsum([round(share * len(graphs)) for share in shares.values()])
    which = np.searchsorted(ends, first, side="right")
    names = [*shares, "train"]
    splits = {name: graphs[order[which == i]] for i, name in enumerate(names)}
    for name, split in splits.items():
        if not len(split):
            raise ConfigError(
                f"{name}: {len(graphs)} molecules in {len(sizes)} groups leave none for this "
                "split; give other shares, or more data."
            )
    return splits
