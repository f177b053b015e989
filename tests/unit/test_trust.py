"""Nothing from outside is trusted: crafted pickles, arrays, archives and HDF5 files."""

import io
import os
import pickle
import stat
import struct
import tarfile
import zipfile

import h5py
import numpy as np
import pytest
import torch

from equiscape import io as files
from equiscape.data import modelnet_layout
from equiscape.data.pointcloud import prepare
from equiscape.errors import DataError
from equiscape.files import products
from equiscape.files.archives import FREE, open_source
from equiscape.files.arrays import Malformed, npy, whole
from equiscape.files.hdf5 import ForeignFiles, put, reading, writing
from equiscape.files.pickles import Refused, load_pickle, parse


def text(value):
    return b"\x8c" + bytes([len(value)]) + value.encode()


def number(value):
    return b"J" + struct.pack("<i", value)


DTYPE = b"cnumpy\ndtype\n"
ARRAY = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nJ\0\0\0\0\x85C\x01b\x87R"
I8 = DTYPE + text("i8") + b"\x89\x88\x87R"


def state(dtype, shape=b"J\1\0\0\0\x85", data=b"C\x08" + bytes(8)):
    return b"(J\1\0\0\0" + shape + dtype + b"\x89" + data + b"tb."


def dtype_state(*items):
    return b"(" + b"".join(items) + b"tb"


def plain_state(order="<", names=b"N", size=-1, flags=0):
    order = text(order)
    return dtype_state(
        *(number(3), order, b"N", names, b"N", number(size), number(size), number(flags))
    )


def fields_of_objects():
    """A type that says it holds plain bytes, with a field of objects and flags 0."""
    inner = DTYPE + text("O8") + b"\x89\x88\x87R"
    fields = b"(" + text("f") + b"(" + inner + number(0) + b"td"
    items = (number(3), text("|"), b"N", text("f") + b"\x85", fields)
    return dtype_state(*items, number(8), number(1), number(0))


def collide(i):
    """A key whose hash is 0, and None."""
    return b"\x8a\x09" + (i * (2**61 - 1)).to_bytes(9, "little") + b"N"


CRAFTED = {
    "a field of objects, flags 0": ARRAY + state(DTYPE + text("V8") + b"\x89\x88\x87R"),
    "fields in the state of a plain type": ARRAY + state(I8 + fields_of_objects()),
    "objects": ARRAY + state(DTYPE + text("O") + b"\x89\x88\x87R"),
    "more bytes than there are": ARRAY + state(I8 + plain_state(), b"J\xff\xff\xff\x7f\x85"),
    "a negative length": ARRAY + state(I8 + plain_state(), b"J\xff\xff\xff\xff\x85"),
    "flags of references": ARRAY + state(I8 + plain_state(flags=63)),
    "a size that is not its own": ARRAY + state(I8 + plain_state(size=1)),
    "a state of a state": I8 + plain_state() + b"}b.",
    "a state of a list": b"]}b.",
    "an array that never gets its state": b"]" + ARRAY + b"a.",
    "a memo far away": b"Nr\xff\xff\xff\x7fj\xff\xff\xff\x00.",
    "a string longer than the file": b"X\xff\xff\xff\x7fabc.",
    "bytes longer than the file": b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7fabc.",
    "one list in itself": b"]q\0h\0a.",
    "lists that unfold": b"]q\0" + b"(h\0h\0lq\0" * 40 + b".",
    "keys that collide": b"}(" + b"".join(collide(i) for i in range(9)) + b"u.",
    "an endless number": b"\x8b\xff\xff\xff\x7f1.",
    "a class": b"cbuiltins\neval\n(X\1\0\0\0" + b"1tR.",
    "an instance": b"(ios\nsystem\n.",
    "an extension": b"\x82\1.",
    "a call of an array": ARRAY + b")R.",
    "a storage outside": text("storage") + b"N" + text("0") + b"\x87Q.",
}  # fmt: skip


@pytest.mark.parametrize("name", CRAFTED)
def test_a_crafted_pickle_is_refused(tmp_path, name):
    path = tmp_path / "x.pickle"
    path.write_bytes(CRAFTED[name])
    if name == "an array that never gets its state":
        assert not isinstance(load_pickle(path)[0], np.ndarray)
        return
    with pytest.raises(DataError, match=r"x\.pickle is not a pickle of plain arrays"):
        load_pickle(path)


@pytest.mark.parametrize("protocol", range(6))
def test_honest_pickles_of_arrays_and_tensors_are_read(protocol):
    base = torch.arange(24.0).reshape(4, 6)
    values = {
        "empty": np.zeros((2, 0)),
        "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "big": np.array([1, -2], ">i2"),
        "flags": np.array([True, False]),
        "scalar": np.float32(2.5),
        "view": base.t()[1:, ::2],
        "long": torch.tensor([[5]]),
        "half": torch.ones(3, dtype=torch.float16),
    }
    plain = {"list": [1, "x", 2.5, None, True, -(2**40)], "tuple": (1, (b"y" * 300,))}
    found = parse(pickle.dumps({**values, **plain}, protocol))
    for name, value in values.items():
        value = value.numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
        np.testing.assert_array_equal(found[name], value)
        assert np.asarray(found[name]).dtype.kind == value.dtype.kind
    assert {name: found[name] for name in plain} == plain


def test_a_tensor_stays_within_its_storage():
    good = pickle.dumps(torch.arange(5.0), 2)
    at = good.index(b"K\x05\x85q")  # the size (5,)
    with pytest.raises(Refused, match="beyond its storage"):
        parse(good[: at + 1] + b"\x06" + good[at + 2 :])


def header(descr, shape, data=b""):
    memory = io.BytesIO()
    spelled = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(memory, spelled)
    return memory.getvalue() + data


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (header("|O", (1,), bytes(8)), "plain numbers"),
        (header("|V8", (1,), bytes(8)), "plain numbers"),
        (header([("a", "<f4")], (1,), bytes(4)), "plain numbers"),
        (header("<f4", (2**62,), bytes(4)), "4 bytes instead of"),
        (header("<f4", (-1,), bytes(4)), "header cannot be read"),
        (header("<f4", (2,), bytes(4)), "4 bytes instead of"),
        (header("<f4", (1,), bytes(8)), "8 bytes instead of"),
        (header("<U1", (1,), b"\xff\xff\xff\x7f"), "not Unicode"),
        (b"\x93NUMPY\x01\0\xff\xff{}", "wrong length"),
    ],
)
def test_a_forged_array_is_refused(data, says):
    with pytest.raises(Malformed, match=says):
        npy(data)


def test_whole_numbers_are_whole():
    np.testing.assert_array_equal(whole(np.array([1.0, 2.0]), "labels", 0, 2), [1, 2])
    for bad, says in (
        (np.array([1.7, 2.0]), r"whole numbers \(1\.7 at 0\)"),
        (np.array([0, -1]), r"from 0 to 2 \(-1 at 1\)"),
        (np.array([3], np.uint8), "from 0 to 2"),
        (np.array([2**64 - 1], np.uint64), "whole numbers"),
        (np.array([np.inf]), "whole numbers"),
        (np.array(["1"]), "type"),
    ):
        with pytest.raises(Malformed, match=says):
            whole(bad, "labels", 0, 2)


def bomb(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("shape_names.txt", bytes(FREE + 1))


def encrypted(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("shape_names.txt", b"ball\n")
    data = bytearray(path.read_bytes())
    for magic, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(magic) + offset] |= 1
    path.write_bytes(data)


def unsupported(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("shape_names.txt", b"ball\n")
    data = bytearray(path.read_bytes())
    for magic, offset in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        data[data.index(magic) + offset] = 99
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("make", "says"),
    [(bomb, "would unpack"), (encrypted, "encrypted"), (unsupported, "method 99")],
)
def test_a_zip_that_cannot_be_trusted_is_one_sentence(tmp_path, make, says):
    make(tmp_path / "a.zip")
    with open_source(tmp_path / "a.zip") as source, pytest.raises(DataError, match=says):
        source.read("shape_names.txt")


def test_a_tar_that_unpacks_to_far_more_is_refused(tmp_path):
    member = tarfile.TarInfo("x")
    member.size = FREE + 2**20
    with tarfile.open(tmp_path / "a.tar.bz2", "w:bz2") as archive:
        archive.addfile(member, io.BytesIO(bytes(member.size)))
    with pytest.raises(DataError, match="would unpack"), open_source(tmp_path / "a.tar.bz2"):
        pass


@pytest.mark.parametrize("name", ["", ".", "/", "a/../../b", "C:\\x", "/etc/passwd"])
def test_members_without_a_place_inside_are_refused(tmp_path, name):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        member = tarfile.TarInfo("x")
        member.name = name
        archive.addfile(member)
    with pytest.raises(DataError, match="member"), open_source(tmp_path / "a.tar"):
        pass


def test_names_may_be_there_twice_until_they_are_read(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("README.md", "deep/x.txt", "other/x.txt", "deep/README.md", "inner.zip"):
            archive.writestr(name, name)
    with open_source(tmp_path / "a.zip") as source:
        assert source.read("README.md") == b"README.md", "the one nearest to the top"
        with pytest.raises(DataError, match=r"x\.txt twice \(deep/x\.txt and other/x\.txt\)"):
            source.read("x.txt")
        with pytest.raises(DataError, match=r"shape_names\.txt is missing.*unpack inner\.zip"):
            source.read("shape_names.txt")


def hdf5(make):
    memory = io.BytesIO()
    with h5py.File(memory, "w") as file:
        make(file)
    return memory.getvalue()


def external(file):
    space = h5py.h5s.create_simple((4,))
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_external(b"/etc/hostname", 0, 4)
    h5py.h5d.create(file.id, b"data", h5py.h5t.NATIVE_UINT8, space, plist)


def virtual(file):
    layout = h5py.VirtualLayout((4,), "u1")
    layout[:] = h5py.VirtualSource("/etc/hostname", "x", (4,))
    file.create_virtual_dataset("data", layout)


HOSTILE = {
    "another file": external,
    "lies in another": virtual,
    "is a link": lambda file: file.__setitem__("data", h5py.ExternalLink("/etc/x.h5", "data")),
    "its data is a link": lambda file: file.__setitem__("data", h5py.SoftLink("/other")),
    "not an array": lambda file: file.create_group("data"),
    "plain numbers": lambda file: file.__setitem__("data", "text"),
    "instead of plain": lambda file: file.__setitem__("data", np.zeros(2, [("a", "f4")])),
    "would unpack": lambda file: file.create_dataset("data", (2**40,), "u1", chunks=(2**20,)),
    "holds no data": lambda file: file.__setitem__("other", [1]),
}


def test_hdf5_that_reaches_outside_is_refused():
    with ForeignFiles() as foreign:
        for says, make in HOSTILE.items():
            with pytest.raises(Malformed, match=says):
                foreign.read(hdf5(make), ["data"])
        np.testing.assert_array_equal(
            foreign.read(hdf5(lambda file: file.__setitem__("data", [1, 2])), ["data"])["data"],
            [1, 2],
        )


def test_a_reader_that_dies_is_one_sentence(monkeypatch):
    good = hdf5(lambda file: file.__setitem__("data", [1, 2]))
    with ForeignFiles() as foreign:
        foreign.read(good, ["data"])
        foreign._child.kill()
        with pytest.raises(Malformed, match="does not survive"):
            foreign.read(good, ["data"])
        assert len(foreign.read(good, ["data"])["data"]) == 2, "another takes its place"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_a_full_disk_is_its_own_error_and_nothing_else(tmp_path, monkeypatch, capfd):
    from contextlib import contextmanager

    @contextmanager
    def full(path):
        yield "/dev/full"

    monkeypatch.setattr("equiscape.files.hdf5.atomic_path", full)
    with pytest.raises(OSError, match="No space left"), writing(tmp_path / "x.h5") as file:
        for i in range(50):
            put(file, f"points{i}", np.random.default_rng(0).random(10**4))
    assert capfd.readouterr().err == ""


def test_a_lock_of_somebody_else_is_no_damage(tmp_path):
    import fcntl

    with writing(tmp_path / "x.h5") as file:
        file.attrs["format"] = "f"
    products.sign(tmp_path / "x.h5")
    with open(tmp_path / "x.h5", "rb+") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with reading(tmp_path / "x.h5", "f") as file:
            assert file.attrs["format"] == "f"


def test_what_a_killed_writer_left_is_swept(tmp_path):
    left = tmp_path / ".x.json.abc.part"
    left.write_text("half")
    other = tmp_path / ".y.json.abc.part"
    other.write_text("half")
    with files.atomic_path(tmp_path / "x.json") as mine, files.atomic_path(tmp_path / "x.json"):
        assert not left.exists()
        assert mine.exists(), "a living writer's file stays"
    assert other.exists()
    assert stat.S_IMODE((tmp_path / "x.json").stat().st_mode) & 0o400


def test_source_hdf5_is_read_by_the_child(tmp_path):
    points = np.random.default_rng(0).random((8, 4, 3))
    side = (points, np.arange(8) % 2)
    modelnet_layout.write(
        tmp_path / "s", ["a", "b"], {"train": side, "test": (points + 1, side[1])}
    )
    (tmp_path / "s/ply_data_test0.h5").write_bytes(hdf5(external))
    with pytest.raises(DataError, match=r"ply_data_test0\.h5.*another file"):
        prepare({"validation": 0.25}, tmp_path / "s", tmp_path / "x.h5")
