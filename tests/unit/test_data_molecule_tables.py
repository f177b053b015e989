"""Molecules as people have them: every format against the molecules that were written into it."""

import csv
import zipfile

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from ase.io import write
from rdkit import Chem
from rdkit.Geometry import Point3D

from equiscape.configuration.entries import check_target_of
from equiscape.configuration.kinds import kind_of
from equiscape.configuration.parameters import arguments_of
from equiscape.data.molecular_splits import grouped_split
from equiscape.data.molecule_files import read_molecules
from equiscape.data.molecule_tables import Settings, load, prepare
from equiscape.data.structures import structures
from equiscape.errors import ConfigError, DataError
from equiscape.files.arrays import Malformed
from equiscape.files.tables import files_named
from equiscape.settings import check

SIZES = {"train": 12, "validation": 4, "test": 4}
ENTRY = {"targets": {"gap": "eV"}, "cutoff": 4.0, "validation": 0.2, "test": 0.2, "seed": 3}
REFERENCES = {1: -0.5, 6: -37.8, 7: -54.6, 8: -75.1}


def molecules(number=20, seed=0):
    """``(z, positions)`` of molecules of 3 to 6 atoms, none like another."""
    rng = np.random.default_rng(seed)
    for i in range(number):
        z = rng.choice([1, 6, 7, 8], 3 + i % 4)
        yield z, np.arange(len(z))[:, None] * [1.1, 0, 0] + rng.normal(0, 0.1, (len(z), 3))


def gap(i):
    return 1.5 + 0.25 * i


def atoms(number=20, **more):
    found = []
    for i, (z, x) in enumerate(molecules(number)):
        found.append(Atoms(z, x, info={"gap": gap(i), **{k: f(i) for k, f in more.items()}}))
    return found


def write_xyz(path, z, x):
    lines = [f"{Chem.GetPeriodicTable().GetElementSymbol(int(a))} {p[0]} {p[1]} {p[2]}"
             for a, p in zip(z, x)]  # fmt: skip
    path.write_text(f"{len(z)}\na comment\n" + "\n".join(lines) + "\n")


def write_sdf(path, number=20):
    writer = Chem.SDWriter(str(path))
    for i, (z, x) in enumerate(molecules(number)):
        molecule = Chem.RWMol()
        conformer = Chem.Conformer(len(z))
        conformer.Set3D(True)
        for atom, place in zip(z, x):
            conformer.SetAtomPosition(molecule.AddAtom(Chem.Atom(int(atom))), Point3D(*place))
        molecule.AddConformer(conformer)
        molecule.SetProp("gap", str(gap(i)))
        writer.write(molecule)
    writer.close()


def write_db(path, number=20):
    with connect(path) as database:
        for i, (z, x) in enumerate(molecules(number)):
            database.write(Atoms(z, x), gap=gap(i))


FILES = {
    "all.xyz": lambda path: write(path, atoms(), format="extxyz"),
    "all.extxyz": lambda path: write(path, atoms(), format="extxyz"),
    "all.traj": lambda path: write(path, atoms()),
    "all.sdf": write_sdf,
    "all.db": write_db,
}


@pytest.mark.parametrize("name", [*FILES, "table.csv", "folder", "archive.zip"])
def test_every_format_gives_the_molecules_that_are_in_it(tmp_path, name):
    source = tmp_path / name
    if name in FILES:
        FILES[name](source)
    else:
        folder = source if name == "folder" else tmp_path / "files"
        folder.mkdir()
        for i, (z, x) in enumerate(molecules()):
            write_xyz(folder / f"{i:02}.xyz", z, x)
            if name != "table.csv":
                write(folder / f"{i:02}.xyz", atoms()[i], format="extxyz")
        if name == "table.csv":
            lines = [f"files/{i:02}.xyz,{gap(i)}" for i in range(20)]
            source.write_text("path,gap\n" + "\n".join(lines) + "\n")
            assert len(files_named(source, "path")) == 20
        if name == "archive.zip":
            with zipfile.ZipFile(source, "w") as archive:
                for path in sorted(folder.iterdir()):
                    archive.write(path, f"in/{path.name}")
    prepare(ENTRY, source, tmp_path / "m.h5")
    found = read_molecules(tmp_path / "m.h5")
    np.testing.assert_allclose(found.targets[:, 0], [gap(i) for i in range(20)])
    ptr = found.node_ptr
    atol = 1e-4 if name == "all.sdf" else 1e-6
    for i, (z, x) in enumerate(molecules()):
        assert found.node_features[ptr[i] : ptr[i + 1], 0].tolist() == z.tolist()
        np.testing.assert_allclose(found.positions[ptr[i] : ptr[i + 1]], x, atol=atol)
    assert {k: len(v) for k, v in found.splits.items()} == SIZES
    assert (found.target_names, found.units, found.cutoff) == (["gap"], ["eV"], 4.0)


def test_a_table_names_records_and_goes_before_what_they_say(tmp_path):
    write_sdf(tmp_path / "all.sdf", 6)
    rows = [("all.sdf", 3, -1.0), ("all.sdf", 0, ""), ("all.sdf", 5, -2.0), ("all.sdf", 1, "")]
    with open(tmp_path / "t.csv", "w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file).writerows([("path", "record", "gap"), *rows])
    entry = {**ENTRY, "validation": 0.25, "test": 0.25}
    prepare(entry, tmp_path / "t.csv", tmp_path / "m.h5")
    found = read_molecules(tmp_path / "m.h5")
    assert found.targets[:, 0].tolist() == [-1.0, gap(0), -2.0, gap(1)]
    kinds = list(molecules(6))
    assert np.diff(found.node_ptr).tolist() == [len(kinds[i][0]) for i in (3, 0, 5, 1)]


def test_splits_by_column_and_the_validation_split_that_none_names(tmp_path):
    sides = ["train", "Training", "test", "val"] * 5
    write(tmp_path / "a.xyz", atoms(split=lambda i: sides[i]), format="extxyz")
    prepare(ENTRY, tmp_path / "a.xyz", tmp_path / "m.h5")
    splits = read_molecules(tmp_path / "m.h5").splits
    assert sorted(splits["test"]) == [2, 6, 10, 14, 18]
    assert sorted(splits["validation"]) == [3, 7, 11, 15, 19]
    sides = ["train", "train", "train", "test"] * 5
    write(tmp_path / "b.xyz", atoms(split=lambda i: sides[i]), format="extxyz")
    prepare(ENTRY, tmp_path / "b.xyz", tmp_path / "n.h5")
    splits = read_molecules(tmp_path / "n.h5").splits
    assert sorted(splits["test"]) == [3, 7, 11, 15, 19]
    assert (len(splits["train"]), len(splits["validation"])) == (12, 3)


def test_copies_and_groups_stay_on_one_side(tmp_path):
    made = atoms(20, group=lambda i: f"g{i // 4}")
    for i in range(0, 20, 5):  # copies of molecules of other groups join these
        made.append(Atoms(made[i].numbers, made[i].positions, info={"gap": 0.0}))
    write(tmp_path / "a.traj", made)
    for seed in range(4):
        prepare({**ENTRY, "seed": seed}, tmp_path / "a.traj", tmp_path / "m.h5")
        splits = read_molecules(tmp_path / "m.h5").splits
        side = {int(i): name for name, split in splits.items() for i in split}
        assert sorted(side) == list(range(24))
        assert all(side[i] == side[4 * (i // 4)] for i in range(20))
        assert all(side[20 + i // 5] == side[i] for i in range(0, 20, 5))


def test_a_grouped_split_meets_its_shares_and_follows_its_seed():
    groups = np.arange(1000) // 2
    shares = {"validation": 0.1, "test": 0.3}
    splits = grouped_split(np.arange(1000), groups, shares, 0)
    assert {name: len(split) for name, split in splits.items()} == {
        "train": 600,
        "validation": 100,
        "test": 300,
    }
    everything = np.concatenate(list(splits.values()))
    assert sorted(everything) == list(range(1000))
    again, other = (grouped_split(np.arange(1000), groups, shares, seed) for seed in (0, 1))
    assert all(np.array_equal(splits[name], again[name]) for name in splits)
    assert not np.array_equal(splits["test"], other["test"])


def test_copies_in_two_named_splits_are_refused_by_file_and_record(tmp_path):
    made = atoms(12, split=lambda i: "test" if i % 3 == 0 else "train")
    made.append(Atoms(made[0].numbers, made[0].positions, info={"gap": 0.0, "split": "train"}))
    write(tmp_path / "a.xyz", made, format="extxyz")
    with pytest.raises(DataError, match=r"record 12 of a.xyz \(train\) is a copy of record 0 of"):
        prepare(ENTRY, tmp_path / "a.xyz", tmp_path / "m.h5")
    prepare({**ENTRY, "duplicates": "group"}, tmp_path / "a.xyz", tmp_path / "m.h5")
    assert 12 not in read_molecules(tmp_path / "m.h5").splits["train"]


def test_atom_references_take_a_sum_over_atoms_off_and_energies_come_from_calculators(tmp_path):
    made = atoms(40)
    for one in made:
        energy = sum(REFERENCES[z] for z in one.numbers)
        one.calc = SinglePointCalculator(one, energy=energy)
    write(tmp_path / "a.traj", made)
    targets = {"energy": "eV", "gap": "eV"}
    entry = {**ENTRY, "targets": targets, "atom_references": ["energy"]}
    prepare(entry, tmp_path / "a.traj", tmp_path / "m.h5")
    found = read_molecules(tmp_path / "m.h5")
    np.testing.assert_allclose(found.baseline[:, 0], found.targets[:, 0], rtol=1e-10)
    assert not found.baseline[:, 1].any()
    data = load(tmp_path / "m.h5", torch.device("cpu"), {**entry, "target": "energy"})
    assert data.outputs()["atom_references"] == {
        str(z): pytest.approx(value) for z, value in REFERENCES.items()
    }
    assert (data.outputs()["unit"], data.model_arguments()["head"]) == ("eV", "scalar")
    entry["heads"] = {"gap": "dipole"}
    data = load(tmp_path / "m.h5", torch.device("cpu"), {**entry, "target": "gap", "loss": "l1"})
    assert data.model_arguments()["head"] == "dipole"


def test_limit_takes_a_subset_of_every_split(tmp_path):
    write(tmp_path / "a.xyz", atoms(40), format="extxyz")
    prepare({**ENTRY, "limit": 20}, tmp_path / "a.xyz", tmp_path / "m.h5")
    found = read_molecules(tmp_path / "m.h5")
    assert {k: len(v) for k, v in found.splits.items()} == SIZES
    assert len(found) == 20


XYZ = "2\ngap={} Properties=species:S:1:pos:R:3\nC 0 0 0\n{}\n"
WHOLE = "O 0 0 1.1"
DAMAGE = {  # of record 1 of 3, and what is said of it
    "a": (XYZ.format("1.5", "O 0 0"), "could not assign"),
    "number": (XYZ.format("1.5", "O 0 0 x"), "x"),
    "element": (XYZ.format("1.5", "Qq 0 0 1"), "unknown element or key: Qq"),
    "dummy": (XYZ.format("1.5", "X 0 0 1"), "atomic number 0"),
    "nan": (XYZ.format("1.5", "O 0 0 nan"), "not finite"),
    "coincide": (XYZ.format("1.5", "O 0 0 0"), "two atoms at the same place"),
    "none": (XYZ.format("1.5", WHOLE).replace("gap", "gop"), "it has no gap, neither"),
    "flag": (XYZ.format("1.5", WHOLE).replace("gap=1.5", "gap"), "its gap is 'True'"),
    "word": (XYZ.format("high", WHOLE), "its gap is 'high', no finite number"),
    "infinite": (XYZ.format("inf", WHOLE), "its gap is 'inf'"),
    "split": (XYZ.format("1.5 split=left", WHOLE), "its split is 'left'"),
    "cell": (XYZ.format('1.5 Lattice="9 0 0 0 9 0 0 0 9"', WHOLE), "periodic; `ignore_cell"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_record_is_named_and_skipped_only_by_a_key(tmp_path, caplog, name):
    damaged, says = DAMAGE[name]
    good = [XYZ.format(i, f"O 0 0 {1 + i / 10}") for i in range(6)]
    (tmp_path / "a.xyz").write_text("".join([good[0], damaged, *good[1:]]))
    with pytest.raises(DataError, match=r"record 1 of a.xyz.*skip_damaged") as error:
        prepare(ENTRY, tmp_path / "a.xyz", tmp_path / "m.h5")
    assert says in str(error.value)
    prepare({**ENTRY, "skip_damaged": True}, tmp_path / "a.xyz", tmp_path / "m.h5")
    assert "left out: record 1 of a.xyz" in caplog.text
    assert read_molecules(tmp_path / "m.h5").targets[:, 0].tolist() == [0, 1, 2, 3, 4, 5]


def test_a_periodic_structure_is_read_where_the_key_says_so(tmp_path):
    cell = 'Lattice="9 0 0 0 9 0 0 0 9"'
    frames = [XYZ.format(f"{i} {cell}", f"O 0 0 {1 + i / 10}") for i in range(6)]
    (tmp_path / "a.xyz").write_text("".join(frames))
    prepare({**ENTRY, "ignore_cell": True}, tmp_path / "a.xyz", tmp_path / "m.h5")
    assert len(read_molecules(tmp_path / "m.h5")) == 6


def records(path):
    return [str(r) if isinstance(r, Malformed) else "" for r in structures(path)]


def test_damaged_files_say_what_they_are(tmp_path):
    frame = XYZ.format("1", WHOLE)
    path = tmp_path / "a.xyz"
    for text, says in (
        (frame + frame[:-12], ["", "line 5 has too many atoms"]),
        (frame + "hello\n", ["", "line 5 has 'hello' instead of a number of atoms"]),
        (frame + "\n\n", [""]),
        ("", []),
        ("0\n\n", ["it has no atoms"]),
    ):
        path.write_text(text)
        assert records(path) == says
    path.write_bytes(b"2\n\xff\n")
    with pytest.raises(Malformed, match="not UTF-8"):
        records(path)
    write_sdf(tmp_path / "a.sdf", 3)
    text = (tmp_path / "a.sdf").read_text()
    for changed, says in (
        (text[:-9], ["", "", "it ends before $$$$ or M  END"]),  # in the digits of a target
        (text[: len(text) // 2], ["", "it ends before $$$$ or M  END"]),
        (text.replace("V2000", "V2009", 1), ["RDKit cannot read it", "", ""]),
        (text.replace("M  END", "M  EMD", 1), ["RDKit cannot read it", "", ""]),
    ):
        (tmp_path / "a.sdf").write_text(changed)
        assert records(tmp_path / "a.sdf") == says
    flat = "\n     program        2D\n\n  1  0  0  0  0  0            999 V2000\n"
    flat += "    0.0000    0.0000    0.0000 C   0  0\nM  END\n"
    (tmp_path / "flat.mol").write_text(flat)
    assert records(tmp_path / "flat.mol") == ["it is a drawing in two dimensions"]
    (tmp_path / "flat.mol").write_text(flat.replace("2D", "3D"))
    assert records(tmp_path / "flat.mol") == [""]
    for name in ("a.traj", "a.db"):
        (tmp_path / name).write_bytes(b"garbage" * 400)
        with pytest.raises(Malformed, match=r"no trajectory|not a database"):
            records(tmp_path / name)
        with pytest.raises(Malformed, match="no such file"):
            records(tmp_path / f"gone{name}")
    write(tmp_path / "b.traj", atoms(3))
    whole = (tmp_path / "b.traj").read_bytes()
    (tmp_path / "b.traj").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(Malformed):
        records(tmp_path / "b.traj")


def test_a_damaged_file_of_a_table_is_left_out_by_the_key(tmp_path, caplog):
    for i, (z, x) in enumerate(molecules(10)):
        write_xyz(tmp_path / f"{i}.xyz", z, x)
    lines = [f"{i}.xyz,{gap(i)}\n" for i in range(10)]
    for name, says in (("gone.xyz", "there is no such file"), ("0.cif", "ends in none of .xyz")):
        (tmp_path / "t.csv").write_text("".join(["path,gap\n", f"{name},1\n", *lines]))
        with pytest.raises(DataError, match=f"{name} in .*t.csv cannot be used .*{says}"):
            prepare(ENTRY, tmp_path / "t.csv", tmp_path / "m.h5")
        prepare({**ENTRY, "skip_damaged": True}, tmp_path / "t.csv", tmp_path / "m.h5")
        assert f"left out: {name}" in caplog.text
        assert len(read_molecules(tmp_path / "m.h5")) == 10


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("file,gap\na.sdf,1\n", "lacks the columns path"),
        ("path,gap\n,1\n", "line 2 of .* needs a path"),
        ("path,record,gap\na.sdf,-1,1\n", "a record from 0"),
        ("path,record,gap\na.sdf,1,1\na.sdf,1,2\n", "line 3 of .* lists a.sdf twice"),
        ("path,record,gap\na.sdf,9,1\n", "asks for record 9 of a.sdf, which holds 4"),
        ("path,gap\na.sdf,1\n", "has targets for a.sdf, which holds 4 molecules"),
        ("path,split\na.sdf,train\n", "4 molecules to train, 0 to validate, 0 to test and 0 in"),
        ("path,record,split\na.sdf,0,train\na.sdf,1,test\na.sdf,2,\n", "and 1 in no split"),
    ],
)
def test_faults_of_a_table(tmp_path, table, says):
    write_sdf(tmp_path / "a.sdf", 4)
    (tmp_path / "t.csv").write_text(table)
    with pytest.raises(DataError, match=says):
        prepare(ENTRY, tmp_path / "t.csv", tmp_path / "m.h5")


def test_faults_of_sources_and_settings(tmp_path):
    output = tmp_path / "m.h5"
    write(tmp_path / "a.xyz", atoms(3), format="extxyz")
    (tmp_path / "empty").mkdir()
    for entry, source, kind, says in (
        (ENTRY, None, ConfigError, "source is missing"),
        (ENTRY, tmp_path / "gone.csv", DataError, "does not exist"),
        (ENTRY, tmp_path / "empty", DataError, "holds 0 molecules"),
        (
            {**ENTRY, "expect": {"molecules": 4}},
            tmp_path / "a.xyz",
            DataError,
            "3 molecules, not",
        ),
        ({**ENTRY, "test": 0.01}, tmp_path / "a.xyz", ConfigError, "test: 3 molecules in 3 groups"),
        ({**ENTRY, "atom_references": ["gop"]}, tmp_path / "a.xyz", ConfigError, "did you mean"),
    ):
        with pytest.raises(kind, match=says):
            prepare(entry, source, output)
    prepare({**ENTRY, "validation": 0.34, "test": 0.34}, tmp_path / "a.xyz", output)
    with pytest.raises(ConfigError, match="heads: 'gop' is unknown"):
        load(output, torch.device("cpu"), {**ENTRY, "heads": {"gop": "dipole"}})
    where = f"{Settings.__module__}:Settings"
    for settings, says in (
        ({}, "d.targets is missing"),
        ({"targets": {}}, "targets.* must name one or more columns"),
        ({"targets": {"gap": 1}}, "d.targets.gap"),
        ({"targets": {"gap": "eV"}, "validation": 0.5, "test": 0.5}, "must leave molecules"),
    ):
        with pytest.raises(ConfigError, match=says):
            check(settings, where, "d")


def test_a_task_chooses_one_of_the_targets_that_the_entry_names():
    kind = kind_of("molecules", "")
    own = {"targets": {"gap": "eV", "mu": "D"}}
    check_target_of({"target": "mu"}, kind, own, "tasks.t")
    settings = {**own, "cutoff": 5.0, "heads": {"mu": "dipole"}}
    heads = [arguments_of(kind, settings, name)["head"] for name in ("gap", "mu", None)]
    assert heads == ["scalar", "dipole", "scalar"]
    with pytest.raises(ConfigError, match=r"tasks.t.target is missing; give one of: gap, mu"):
        check_target_of({}, kind, own, "tasks.t")
    with pytest.raises(ConfigError, match=r"tasks.t.target: 'gop' is unknown; did you mean 'gap'"):
        check_target_of({"target": "gop"}, kind, own, "tasks.t")


def test_a_damaged_record_of_an_sdf_shifts_no_other(tmp_path):
    """An unknown version of the block: RDKit's own reading of the file loses the record after."""
    write_sdf(tmp_path / "a.sdf", 5)
    text = (tmp_path / "a.sdf").read_text().replace("V2000", "V2009", 1)
    (tmp_path / "a.sdf").write_text(text)
    found = list(structures(tmp_path / "a.sdf"))
    assert isinstance(found[0], Malformed)
    assert [float(one.values["gap"]) for one in found[1:]] == [gap(i) for i in range(1, 5)]
