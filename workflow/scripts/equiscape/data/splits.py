"""Validation splits: stratified by label, groups of near-duplicates kept on one side."""

from fractions import Fraction

import numpy as np

from equiscape.errors import ConfigError


def hold_out(
    labels: np.ndarray, groups: np.ndarray | None, share: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Split training samples into (train, validation), both as sorted indices.

    Each class gives about ``share`` of its samples to the validation split. With ``groups``, the
    samples of one group stay on one side; the share is then the nearest fraction with a
    denominator of at most 20 (as many folds are dealt out).

    Args:
        labels: ``[n]`` classes.
        groups: ``[n]`` ids, or None where every sample is its own group.
        share: of the samples that are held out, between 0 and 1.
        seed: of the draw.

    Raises:
        ConfigError: a class is too small to be in both splits.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedShuffleSplit

    everything = np.arange(len(labels))
    try:
        if groups is None or len(np.unique(groups)) == len(groups):
            splitter = StratifiedShuffleSplit(1, test_size=share, random_state=seed)
            train, validation = next(splitter.split(everything, labels))
        else:
            part = Fraction(share).limit_denominator(20)
            folds = StratifiedGroupKFold(part.denominator, shuffle=True, random_state=seed)
            dealt = [fold for _, fold in folds.split(everything, labels, groups)]
            validation = np.concatenate(dealt[: part.numerator])
            train = np.setdiff1d(everything, validation)
    except ValueError as error:
        raise ConfigError(
            f"validation: {share} of {len(labels)} samples cannot be held out ({error}); "
            "give another share."
        ) from None
    return np.sort(train), np.sort(validation)
