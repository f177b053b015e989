"""Damage to every format that is read: one sentence or the same values; no crash, no hang."""

import bz2
import gzip
import io
import json
import lzma
import pickle
import signal
import tarfile
import zipfile
from contextlib import contextmanager

import h5py
import numpy as np
import pytest
import torch
from damage import FOREIGN, damaged
from small_graphs import write_zinc

from equiscape import io as files
from equiscape.data import corrupted, generated_molecules, peptides, procedural, zinc
from equiscape.data.molecules import read_molecules
from equiscape.data.pointcloud import load
from equiscape.errors import EquiscapeError
from equiscape.files import products
from equiscape.files.archives import open_source
from equiscape.files.arrays import Malformed, npy
from equiscape.files.hdf5 import ForeignFiles
from equiscape.files.pickles import Refused, load_pickle, parse

PATIENCE = 20  # seconds for a case before it counts as a hang
REFUSALS = (EquiscapeError, Malformed, Refused)


@contextmanager
def no_hang():
    """Fail where the block takes too long."""

    def ring(*_):
        raise AssertionError("it hangs")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(PATIENCE)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def plain(value):
    """``value`` as something that ``==`` compares to the last bit."""
    if isinstance(value, torch.Tensor):
        value = value.numpy()
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float | str | bytes | int | type(None)):
        return repr(value)
    return plain(vars(value))


def members(path):
    with open_source(path) as source:
        return {name: source.read(name) for name in source.names}


CONTENT = {f"folder/{n}.bin": np.random.default_rng(n).bytes(700) + bytes(800) for n in range(3)}


def zipped():
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in CONTENT.items():
            archive.writestr(name, data)
    return memory.getvalue()


def tarred():
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode="w") as archive:
        for name, data in CONTENT.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return memory.getvalue()


def array_file():
    memory = io.BytesIO()
    np.save(memory, np.arange(60.0).reshape(5, 4, 3))
    return memory.getvalue()


def hdf5_file():
    memory = io.BytesIO()
    with h5py.File(memory, "w") as file:
        file["data"] = np.random.default_rng(0).random((4, 8, 3)).astype("f4")
        file.create_dataset("label", data=np.arange(4)[:, None], compression="gzip")
    return memory.getvalue()


def pickled():
    values = {"a": np.arange(9.0), "b": torch.ones(2, 3), "c": ["x", 1, (2.5, None)]}
    return pickle.dumps(values, 2)


@pytest.fixture(scope="module")
def foreign():
    with ForeignFiles(patience=3) as reader:
        yield reader


def outcome(read, data):
    """What is said against ``data``, and None; or None, and what is read."""
    try:
        return None, plain(read(data))
    except REFUSALS as error:
        return str(error), None


def check(make, read, count, seed, checksummed):
    """Damage ``make()`` in ``count`` ways; count what is read as if nothing were wrong."""
    data = make()
    right = plain(read(data))
    refused = 0
    for name, bad in damaged(data, count, seed):
        with no_hang():
            said, found = outcome(read, bad)
        if said is None:
            assert found == right or not checksummed, f"{name}: read with other values"
        else:
            assert len(said.splitlines()) == 1, name
            refused += 1
    assert refused > count / (3 if checksummed else 10), "damage is noticed"


@pytest.mark.parametrize(
    ("suffix", "make"),
    [
        ("zip", zipped),
        ("tar.gz", lambda: gzip.compress(tarred())),
        ("tar.bz2", lambda: bz2.compress(tarred())),
        ("tar.xz", lambda: lzma.compress(tarred())),
    ],
)
def test_archives(tmp_path, suffix, make):
    path = tmp_path / f"a.{suffix}"

    def read(data):
        path.write_bytes(data)
        return members(path)

    check(make, read, 120, 1, checksummed=True)


def test_plain_tars_have_no_checksum_of_contents(tmp_path):
    path = tmp_path / "a.tar"

    def read(data):
        path.write_bytes(data)
        found = members(path)
        assert all(len(content) <= 20_000 for content in found.values())
        return found

    check(tarred, read, 90, 2, checksummed=False)


def test_arrays_and_pickles(tmp_path):
    check(array_file, npy, 100, 3, checksummed=False)
    check(pickled, parse, 200, 4, checksummed=False)


def test_foreign_hdf5(foreign):
    def read(data):
        return foreign.read(data, ("data", "label"))

    check(hdf5_file, read, 120, 5, checksummed=False)
    assert plain(read(hdf5_file())) == plain(read(hdf5_file())), "the reader is still alive"


def prepared(tmp_path):
    """Our own files, each with what reads it."""
    entry = {"classes": 2, "train_per_class": 4, "test_per_class": 2, "points": 8}
    procedural.prepare(entry, None, tmp_path / "clouds.h5")
    generated_molecules.prepare({"molecules": 12, "max_atoms": 5}, None, tmp_path / "graphs.h5")
    settings = {"names": ["uniform"], "severities": [1], "points": 8}
    corrupted.write_corrupted(tmp_path / "clouds.h5", tmp_path / "bad.h5", settings)
    return {
        "clouds.h5": lambda path: load(path, "cpu", {}),
        "graphs.h5": read_molecules,
        "bad.h5": lambda path: list(corrupted.read_corrupted(path)),
    }


@pytest.mark.parametrize("part", ["the file", "its record"])
def test_our_own_files(tmp_path, part):
    for name, reader in prepared(tmp_path).items():
        path = tmp_path / name if part == "the file" else products.record_of(tmp_path / name)

        def read(data, path=path, name=name, reader=reader):
            path.write_bytes(data)
            return reader(tmp_path / name)

        check(lambda path=path: path.read_bytes(), read, 50, 6, checksummed=True)


def test_arrays_with_checksums_and_tables(tmp_path):
    write_zinc(tmp_path, ("val", "test"))
    path = tmp_path / "zinc12k_official_val.npz"

    def read(data):
        path.write_bytes(data)
        return zinc.read_npz(tmp_path)[0]

    check(path.read_bytes, read, 80, 7, checksummed=True)
    table = tmp_path / "t.csv.gz"
    rows = [f'C{"C" * i},"{[i % 2] * 10}"' for i in range(40)]

    def read_table(data):
        table.write_bytes(data)
        return peptides.read_table(table)

    text = ("smiles,labels\n" + "\n".join(rows) + "\n").encode()
    check(lambda: gzip.compress(text), read_table, 80, 8, checksummed=True)


def test_records_fit_their_schema(tmp_path):
    path = tmp_path / "raw.json"
    record = {"path": "a/b.zip", "sha256": "0" * 64, "bytes": 12}

    def read(data):
        path.write_bytes(data)
        found = files.read_json(path, "download")
        assert isinstance(found["path"], str)
        return found

    check(lambda: json.dumps(record).encode(), read, 120, 9, checksummed=False)


def test_foreign_bytes_in_place_of_every_file(tmp_path, foreign):
    path = tmp_path / "x"
    for data in FOREIGN:
        path.write_bytes(data)
        for read in (
            lambda: members(path),
            lambda: load_pickle(path),
            lambda data=data: npy(data),
            lambda data=data: foreign.read(data, ["data"]),
            lambda: files.read_json(path, "download"),
        ):
            with no_hang(), pytest.raises(REFUSALS):
                read()
