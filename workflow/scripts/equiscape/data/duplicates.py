"""Exact copies of samples: found by content, counted, and kept out of more than one split."""

import hashlib
import logging
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from equiscape.errors import ConfigError, DataError
from equiscape.registry import unknown

log = logging.getLogger(__name__)

POLICIES = ("refuse", "group", "keep")
SPLITS = ("train", "validation", "test")


def fingerprint(*arrays: np.ndarray) -> bytes:
    """A digest of one sample's arrays, shapes and types included."""
    digest = hashlib.blake2b(digest_size=16)
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.digest()


def numbered(digests: Iterable[bytes]) -> np.ndarray:
    """``[n]``: the same number for the same digest, counted in the order in which they come."""
    known: dict[bytes, int] = {}
    return np.array([known.setdefault(digest, len(known)) for digest in digests], dtype=np.int64)


def joined(groups: np.ndarray | None, copies: np.ndarray) -> np.ndarray | None:
    """Groups in which copies, and what shares a group with one, are together: ``[n]``, or None.

    None where there were no groups and there are no copies.
    """
    if len(np.unique(copies)) == len(copies):
        return groups
    if groups is None:
        return copies
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    _, left = np.unique(groups, return_inverse=True)
    _, right = np.unique(copies, return_inverse=True)
    n = left.max() + 1
    graph = coo_array((np.ones(len(left)), (left, right + n)), shape=(n + right.max() + 1,) * 2)
    return connected_components(graph, directed=False)[1][left]


def policy(entry: dict[str, Any], default: str = "refuse") -> str:
    """The entry's ``duplicates``.

    Raises:
        ConfigError: it is none of :data:`POLICIES`.
    """
    chosen = entry.get("duplicates") or default
    if chosen not in POLICIES:
        raise unknown(chosen, POLICIES, "duplicates")
    return chosen


def without_copies(splits: dict[str, np.ndarray], copies: np.ndarray) -> dict[str, np.ndarray]:
    """The splits less those samples of train and validation that a later split has as well.

    Raises:
        ConfigError: nothing is left of a split.
    """
    kept, later = {}, np.empty(0, np.int64)
    for split in reversed(SPLITS):
        samples = splits[split]
        kept[split] = samples[~np.isin(copies[samples], later)]
        later = np.concatenate([later, copies[samples]])
        if len(samples) and not len(kept[split]):
            raise ConfigError(
                f"duplicates: nothing of the {split} split is left without its copies in others; "
                "give other data."
            )
    return {split: kept[split] for split in SPLITS}


def check(
    splits: dict[str, np.ndarray],
    copies: np.ndarray,
    chosen: str,
    where: Any,
    name: Callable[[int], str],
    labels: np.ndarray | None = None,
) -> dict[str, int]:
    """Count copies, and refuse those in two splits unless they are to be kept.

    Args:
        splits: indices of each split.
        copies: ``[n]``, the same number for copies.
        chosen: one of :data:`POLICIES`.
        where: the source, for messages.
        name: what a sample is called, for messages.
        labels: ``[n]`` classes, to count copies that differ in theirs.

    Returns:
        ``copies`` (samples that are copies of an earlier one), ``across_splits`` (samples of train
        and validation that a later split has too) and ``other_label``.

    Raises:
        DataError: ``refuse``, and a sample is in two splits.
    """
    used = np.concatenate([splits[split] for split in SPLITS])
    counts = {"copies": len(used) - len(np.unique(copies[used])), "across_splits": 0}
    for i, split in enumerate(SPLITS):
        later = np.concatenate([splits[other] for other in SPLITS[i + 1 :]] or [used[:0]])
        shared = splits[split][np.isin(copies[splits[split]], copies[later])]
        counts["across_splits"] += len(shared)
        if len(shared) and chosen == "refuse":
            first = int(shared[0])
            other = int(later[copies[later] == copies[first]][0])
            into = next(s for s in SPLITS[i + 1 :] if other in splits[s])
            raise DataError(
                f"{where}: {name(first)} ({split}) is a copy of {name(other)} ({into}), as are "
                f"{len(shared) - 1} more of the {split} split of samples elsewhere; "
                "give `duplicates: group` to keep copies on one side, or `keep` to leave them."
            )
    if labels is not None:
        pairs = np.stack([copies[used], labels[used]], axis=1)
        counts["other_label"] = len(np.unique(pairs, axis=0)) - len(np.unique(copies[used]))
    if counts["copies"]:
        log.warning(
            "%s: %d of %d samples are exact copies of others, %d of them in two splits%s",
            *(where, counts["copies"], len(used), counts["across_splits"]),
            f", {counts['other_label']} with another label" if counts.get("other_label") else "",
        )
    return counts
