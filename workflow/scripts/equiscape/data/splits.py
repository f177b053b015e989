"""Validation splits: stratified by label, groups of near-duplicates kept on one side."""

import logging
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from equiscape.errors import ConfigError, listed

log = logging.getLogger(__name__)


def hold_out(
    labels: np.ndarray,
    groups: np.ndarray | None,
    share: float,
    seed: int,
    minimum: int = 0,
    names: Sequence[str] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Split training samples into (train, validation), both as sorted indices.

    Each class gives about ``share`` of its samples to the validation split. With ``groups``, the
    samples of one group stay on one side; the share is then the nearest fraction with a
    denominator of at most 20 (as many folds are dealt out). A class that is too small to give any
    stays in the training split, and the log names it.

    Args:
        labels: ``[n]`` classes.
        groups: ``[n]`` ids, or None where every sample is its own group.
        share: of the samples that are held out, between 0 and 1.
        seed: of the draw.
        minimum: validation samples that every class must have at least.
        names: of the classes, for messages.

    Raises:
        ConfigError: the share leaves nothing, or a class has not enough samples (or groups) for
            ``minimum`` of them to be held out while one stays.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedShuffleSplit

    everything = np.arange(len(labels))
    single = groups is None or len(np.unique(groups)) == len(groups)
    try:
        if single:
            counted = np.bincount(labels)
            split = np.flatnonzero(counted[labels] > 1)  # a class of one cannot be divided
            splitter = StratifiedShuffleSplit(1, test_size=share, random_state=seed)
            _, held = next(splitter.split(split, labels[split]))
            validation = split[held]
        else:
            part = Fraction(share).limit_denominator(20)
            folds = StratifiedGroupKFold(part.denominator, shuffle=True, random_state=seed)
            dealt = [fold for _, fold in folds.split(everything, labels, groups)]
            validation = np.concatenate(dealt[: part.numerator])
    except ValueError as error:
        raise ConfigError(
            f"validation: {share} of {len(labels)} samples cannot be held out ({error}); "
            "give another share."
        ) from None
    together = everything if single or groups is None else groups
    validation = _at_least(minimum, validation, labels, together, seed, names)
    train = np.setdiff1d(everything, validation)
    if not len(train) or not len(validation):
        raise ConfigError(
            f"validation: {share} of {len(labels)} samples leaves nothing for "
            f"{'training' if len(validation) else 'validation'}; give another share."
        )
    without = np.setdiff1d(np.unique(labels), labels[validation])
    if len(without):
        log.warning(
            "no validation sample of %d classes, which are too small for a share of %g: %s; "
            "`validation_minimum` gives each class some",
            *(len(without), share, _named(without, names)),
        )
    return train, np.sort(validation)


def _named(classes: np.ndarray, names: Sequence[str] | None) -> str:
    """Up to eight of the classes."""
    return listed((c if names is None else names[c] for c in classes), 8)


def _at_least(
    minimum: int,
    validation: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    seed: int,
    names: Sequence[str] | None,
) -> np.ndarray:
    """``validation`` and, of classes that have less than ``minimum`` in it, further groups."""
    generator = np.random.default_rng([seed, minimum])
    held = np.zeros(len(labels), bool)
    held[validation] = True
    for label in np.unique(labels):
        mine = labels == label
        for group in generator.permutation(np.unique(groups[mine & ~held])):
            if np.sum(mine & held) >= minimum:
                break
            moved = groups == group
            if np.any(mine & ~held & ~moved):
                held[moved] = True
        if np.sum(mine & held) < minimum:
            raise ConfigError(
                f"validation_minimum: of the {np.sum(mine)} training samples of class "
                f"{_named(np.array([label]), names)}, {minimum} cannot be held out so that others "
                "stay; give a smaller number, or data without this class."
            )
    return np.flatnonzero(held)
