"""A generator of damage: seeded bit flips, truncations, forged lengths and foreign bytes."""

import struct
from collections.abc import Iterator

import numpy as np

HUGE = (0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 0x7FFFFFFFFFFFFFFF, 0xFFFFFFFFFFFFFFFF, 1 << 40, 0)
FOREIGN = (
    b"",
    b"\0" * 64,
    b"<!DOCTYPE html><html></html>",
    b"PK\x03\x04" + b"\0" * 40,
    b"\x1f\x8b\x08\0\0\0\0\0\0\x03",
    b"\x89HDF\r\n\x1a\n" + b"\0" * 100,
    b"\x93NUMPY\x01\x00\x76\x00{'descr': '|O', 'fortran_order': False, 'shape': (3,), }\n",
    b"\x80\x04cos\nsystem\n(S'true'\ntR.",
    b"[" * 100_000,
    b'{"sha256": NaN}',
)


def damaged(data: bytes, count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """``count`` ways to damage ``data``, each with a name; the same for the same ``seed``."""
    rng = np.random.default_rng([seed, len(data)])
    for case in range(count):
        kind = ("flip", "flip", "cut", "forge", "forge", "swap", "foreign")[case % 7]
        at = int(rng.integers(len(data)))
        bad = bytearray(data)
        if kind == "flip":
            bad[at] ^= 1 << int(rng.integers(8))
        elif kind == "cut":
            del bad[at:]
        elif kind == "forge":
            size = int(rng.choice([2, 4, 8]))
            at = min(at, max(0, len(bad) - size))
            value = HUGE[int(rng.integers(len(HUGE)))] & ((1 << 8 * size) - 1)
            bad[at : at + size] = struct.pack("<Q", value)[:size]
        elif kind == "swap":
            length = int(rng.integers(1, 1 + len(data) // 4))
            bad[at : at + length] = rng.bytes(length)
        else:
            bad = bytearray(FOREIGN[case % len(FOREIGN)])
            if case % 2:
                bad += data[at:]
        yield f"{kind} at {at} (case {case})", bytes(bad)
