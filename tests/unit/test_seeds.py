"""Seeds stay what they were: results of finished studies depend on them."""

import hashlib

import numpy as np

from equiscape.errors import first_line
from equiscape.seeds import sequence_seed, subseed


def test_seeds_are_fixed():
    digest = hashlib.sha256(b"dropout 3").hexdigest()
    assert subseed(3, "dropout") == int(digest[:14], 16)
    assert subseed(3, "order") == 14330454764590567
    assert subseed(0, "augmentation") == 23870977356713564
    assert len({subseed(s, p) for s in range(50) for p in ("order", "dropout")}) == 100


def test_sequence_seeds_are_numpys():
    expected = np.random.SeedSequence([7, 112, 114]).generate_state(1)[0]
    assert sequence_seed(7, "pr") == sequence_seed(7, 112, 114) == expected
    assert sequence_seed(0, "start") == 1901401351
    assert sequence_seed(0, np.int64(4)) == np.random.SeedSequence([0, 4]).generate_state(1)[0]


def test_the_first_line_of_an_error():
    assert first_line(ValueError("one.\ntwo")) == "one"
    assert first_line(MemoryError()) == "MemoryError"
    assert first_line(OSError("\n a ")) == "a"
