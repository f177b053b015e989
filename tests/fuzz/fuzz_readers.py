"""Fuzzing of the readers of foreign bytes, for as long as one likes:

    PYTHONPATH=workflow/scripts:tests/unit python tests/fuzz/fuzz_readers.py [minutes]

Hypothesis makes programs of the pickle machine, headers of arrays, archives and damaged copies of
good files. Anything but a value or a refusal in one sentence ends it with the bytes that did it.
"""

import bz2
import gzip
import io
import pickle
import struct
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from test_damage import array_file, hdf5_file, members, no_hang, pickled, tarred, zipped

from equiscape.errors import EquiscapeError
from equiscape.files.arrays import Malformed, npy, whole
from equiscape.files.hdf5 import ForeignFiles
from equiscape.files.pickles import STEPS, Refused, parse

REFUSALS = (EquiscapeError, Malformed, Refused)
NAMES = [b"numpy\nndarray\n", b"numpy\ndtype\n", b"numpy.core.multiarray\n_reconstruct\n"]
NAMES += [b"numpy.core.multiarray\nscalar\n", b"torch._utils\n_rebuild_tensor_v2\n"]
NAMES += [b"torch.storage\n_load_from_bytes\n", b"os\nsystem\n", b"torch\nFloatStorage\n"]
small = st.integers(-3, 300)
instruction = st.one_of(
    st.sampled_from(sorted(STEPS)).flatmap(lambda c: st.binary(max_size=9).map(lambda b: c + b)),
    st.sampled_from([b"N", b"\x88", b"\x89", b"]", b"}", b")", b"(", b"t", b"l", b"d", b"0"]),
    st.sampled_from([b"\x85", b"\x86", b"\x87", b"a", b"e", b"s", b"u", b"R", b"b", b"Q", b"."]),
    st.sampled_from(NAMES).map(lambda name: b"c" + name),
    small.map(lambda n: b"J" + struct.pack("<i", n)),
    st.integers(0, 5).flatmap(
        lambda n: st.sampled_from([b"q", b"h"]).map(lambda c: c + bytes([n]))
    ),
    st.sampled_from(["i8", "f4", "O", "V8", "<", "|", "b", "storage", "0", "cpu"]).map(
        lambda text: b"\x8c" + bytes([len(text)]) + text.encode()
    ),
    st.binary(max_size=40).map(lambda data: b"C" + bytes([len(data)]) + data),
)
programs = st.lists(instruction, max_size=60).map(lambda parts: b"".join(parts) + b".")
GOOD = [pickled(), pickle.dumps({"t": torch.arange(6).reshape(2, 3), "n": np.arange(4)}, 4)]
GOOD += [array_file(), hdf5_file(), zipped(), tarred(), gzip.compress(tarred())]
GOOD += [bz2.compress(tarred())]


@st.composite
def changed(draw, good):
    """A copy with pieces cut, repeated, moved or replaced."""
    data = bytearray(draw(st.sampled_from(good)))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        piece = draw(st.binary(max_size=16))
        data[at : at + draw(st.integers(0, 24))] = piece
    return bytes(data)


headers = st.builds(
    lambda descr, order, shape: str({"descr": descr, "fortran_order": order, "shape": shape}),
    st.sampled_from(["<f4", ">i8", "|O", "<U3", "|V8", [("a", "<f4")], "<f16", "|b1"]) | st.text(),
    st.booleans() | st.none(),
    st.lists(st.integers(-1, 2**70), max_size=9).map(tuple) | st.none(),
).map(lambda h: b"\x93NUMPY\x01\0" + struct.pack("<H", len(h.encode()) % 2**16) + h.encode())


def zip_of(entries):
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        for name, data in entries:
            archive.writestr(name.replace("\0", "") or "x", data)
    return memory.getvalue()


archives = st.lists(st.tuples(st.text(max_size=20), st.binary(max_size=50)), max_size=4).map(zip_of)
arrays = st.one_of(
    st.lists(st.floats(allow_nan=True) | st.integers(-(2**62), 2**62), max_size=5).map(np.array),
    st.lists(st.integers(0, 2**64 - 1), max_size=5).map(lambda v: np.array(v, np.uint64)),
)


def main(minutes: float) -> None:
    """Run every target in turn until the time is over."""
    until = time.monotonic() + 60 * minutes
    counts: dict[str, int] = {}
    with ForeignFiles(patience=5) as foreign, tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "archive"

        def archive(data: bytes) -> None:
            path.write_bytes(data)
            members(path)

        targets = {
            "pickle programs": (programs, parse),
            "damaged pickles": (changed(GOOD[:2]), parse),
            "npy headers": (headers.flatmap(lambda h: st.binary().map(lambda b: h + b)), npy),
            "damaged npy": (changed(GOOD[2:3]), npy),
            "damaged HDF5": (changed(GOOD[3:4]), lambda d: foreign.read(d, ("data", "label"))),
            "damaged archives": (changed(GOOD[4:]), archive),
            "zip archives": (archives, archive),
            "whole numbers": (arrays, lambda a: whole(a, "labels", 0, 9)),
        }

        def attempt(name, read, value):
            counts[name] = counts.get(name, 0) + 1
            with no_hang():
                try:
                    read(value)
                except REFUSALS as error:
                    if len(str(error).splitlines()) > 1:
                        raise AssertionError(f"{name}: more than one line") from error

        def target(name, read):
            return lambda value: attempt(name, read, value)

        while time.monotonic() < until:
            for name, (strategy, read) in targets.items():
                run = given(strategy)(target(name, read))
                settings(
                    max_examples=300,
                    deadline=None,
                    database=None,
                    phases=(Phase.generate,),
                    suppress_health_check=list(HealthCheck),
                )(run)()
    print("\n".join(f"{name}: {count} cases" for name, count in counts.items()), "no crash")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 10)
