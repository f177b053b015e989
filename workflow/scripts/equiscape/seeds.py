"""The one place where seeds are derived from seeds, so that no two random streams are the same."""

import hashlib


def subseed(seed: int, purpose: str) -> int:
    """A seed of 56 bits for one purpose of a cell, e.g. ``subseed(3, "dropout")``."""
    return int.from_bytes(hashlib.sha256(f"{purpose} {seed}".encode()).digest()[:7], "big")


def sequence_seed(seed: int, *key: int | str) -> int:
    """A seed of 32 bits from numpy's ``SeedSequence`` of ``seed`` and a key.

    A string stands for its bytes. For numbers that must be well mixed, such as one seed for each
    of many samples.
    """
    import numpy as np

    entropy = [seed]
    for part in key:
        entropy += part.encode() if isinstance(part, str) else [part]
    return int(np.random.SeedSequence(entropy).generate_state(1)[0])
