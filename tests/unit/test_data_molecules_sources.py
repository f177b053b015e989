"""QM9, ZINC and Peptides-func: units, references, features, splits, pickles, bad sources."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from small_graphs import write_zinc

from equiscape.data import peptides, qm9, zinc
from equiscape.data.molecule_files import check
from equiscape.data.molecules import read_molecules
from equiscape.errors import ConfigError, DataError
from equiscape.files.pickles import load_pickle

SHARED = Path(__file__).parents[3] / "shared" / "data"
NAMES = ["mu", "alpha", "homo", "lumo", "gap", "zpve", "r2"]
NAMES += ["u0_atom", "u298_atom", "h298_atom", "g298_atom", "cv"]
SMILES = ["CC(=O)O", "C1=CC=CN1", "N[C@@H](C)C(=O)O", "[NH3+]CC(=O)[O-]", "F/C=C/F", "CS(C)(=O)=O"]


def shared(name):
    if not (SHARED / name).exists():
        pytest.skip(f"../shared/data/{name} is not here")
    return SHARED / name


@pytest.fixture
def small_qm9(tmp_path):
    """60 molecules of three elements whose u0 is composition plus a known remainder."""
    generator = np.random.default_rng(0)
    counts = generator.integers(3, 9, 60)
    offset = np.concatenate([[0], counts.cumsum()])
    z = generator.choice([1, 6, 8], offset[-1]).astype(np.int8)
    pos = generator.normal(size=(offset[-1], 3)).astype(np.float32)
    targets = generator.normal(size=(60, 12))
    energy = {1: -13.6, 6: -38.0, 8: -75.0}
    remainder = generator.normal(size=60)
    for g in range(60):
        atoms = z[offset[g] : offset[g + 1]]
        targets[g, NAMES.index("u0_atom")] = sum(energy[int(a)] for a in atoms) + remainder[g]
    path = tmp_path / "qm9_3d.npz"
    arrays = {"gdb_id": np.arange(60), "z": z, "pos": pos, "offset": offset}
    np.savez(path, **arrays, target_names=np.array(NAMES), targets=targets)
    return path, arrays | {"targets": targets, "remainder": remainder}


def test_qm9_units_splits_and_atom_references(small_qm9, tmp_path):
    path, arrays = small_qm9
    entry = {"kind": "qm9", "cutoff": 3.0, "seed": 4, "splits": {"train": 40, "validation": 10}}
    output = tmp_path / "qm9.h5"
    qm9.prepare(entry, path, output)
    molecules = read_molecules(output)
    assert [len(molecules.splits[s]) for s in ("train", "validation", "test")] == [40, 10, 10]
    assert molecules.target_names == list(qm9.UNITS)
    found = dict(zip(molecules.target_names, molecules.targets.T))
    given = dict(zip(NAMES, arrays["targets"].T))
    np.testing.assert_allclose(found["mu"], given["mu"])
    np.testing.assert_allclose(found["homo"], given["homo"] * 27211.386246)
    np.testing.assert_allclose(found["u0"], given["u0_atom"] * 43.36410424)

    data = qm9.load(output, torch.device("cpu"), {**entry, "target": "u0"})
    assert data.objective.metric.unit == "meV"
    # what is left of u0 is the least-squares residual of the remainder: less than 1 kcal/mol wide
    assert data.objective.std < 1.2 * 43.36
    train = molecules.splits["train"]
    elements = np.array([1, 6, 8])
    composition = np.stack(
        [
            (arrays["z"][a:b][:, None] == elements).sum(0)
            for a, b in zip(arrays["offset"], arrays["offset"][1:])
        ]
    )[train]
    residual = (found["u0"] - molecules.baseline[:, list(qm9.UNITS).index("u0")])[train]
    np.testing.assert_allclose(composition.T @ residual, 0, atol=1e-6)  # the normal equations

    mu = qm9.load(output, torch.device("cpu"), {**entry, "target": "mu"})
    assert (mu.model_arguments()["head"], mu.objective.mean) == ("dipole", 0)
    r2 = qm9.load(output, torch.device("cpu"), {**entry, "target": "r2"})
    assert r2.model_arguments()["head"] == "spatial-extent"


def test_qm9_references_do_not_matter_to_what_is_learned(small_qm9, tmp_path):
    """Total and atomization energies differ by a sum over atoms: the same residual is learned."""
    path, arrays = small_qm9
    shifted = arrays["targets"].copy()
    for g in range(60):
        atoms = arrays["z"][arrays["offset"][g] : arrays["offset"][g + 1]]
        shifted[g, NAMES.index("u0_atom")] += 7.0 * len(atoms) + 500.0 * (atoms == 8).sum()
    other = tmp_path / "other.npz"
    np.savez(
        other,
        **{k: arrays[k] for k in ("gdb_id", "z", "pos", "offset")},
        target_names=np.array(NAMES),
        targets=shifted,
    )
    learned = []
    for source in (path, other):
        qm9.prepare({"seed": 0}, source, tmp_path / "out.h5")
        data = qm9.load(tmp_path / "out.h5", torch.device("cpu"), {"target": "u0"})
        learned.append(data.gather("train", torch.arange(data.size("train"))).target)
    torch.testing.assert_close(learned[0], learned[1], rtol=1e-4, atol=1e-2)


def test_qm9_from_pygs_raw_files(tmp_path):
    """Four molecules in the raw files' own forms, the second listed as uncharacterized."""
    pytest.importorskip("torch_geometric")
    Chem = pytest.importorskip("rdkit.Chem")
    from rdkit.Chem import AllChem

    raw = tmp_path / "raw"
    raw.mkdir()
    rows = [
        "mol_id,A,B,C,mu,alpha,homo,lumo,gap,r2,zpve,u0,u298,h298,g298,cv,u0a,u298a,h298a,g298a"
    ]
    with Chem.SDWriter(str(raw / "gdb9.sdf")) as writer:
        for i, smiles in enumerate(["C", "N", "O", "CO"]):
            molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
            AllChem.EmbedMolecule(molecule, randomSeed=1)
            molecule.SetProp("_Name", f"gdb_{i + 1}")
            writer.write(molecule)
            rows.append(",".join([f"gdb_{i + 1}", *(f"{10 * i + k}.5" for k in range(19))]))
    (raw / "gdb9.sdf.csv").write_text("\n".join(rows) + "\n")
    header = "\n".join(f"line {k}" for k in range(9))
    (raw / "uncharacterized.txt").write_text(f"{header}\n    2 gdb_2\nend\n")

    with pytest.raises(DataError, match="130831"):
        qm9.prepare({}, tmp_path, tmp_path / "out.h5")
    entry = {"expect": {"molecules": 3}, "splits": {"train": 1, "validation": 1}}
    qm9.prepare(entry, tmp_path, tmp_path / "out.h5")
    molecules = read_molecules(tmp_path / "out.h5")
    assert np.diff(molecules.node_ptr).tolist() == [5, 3, 6]
    values = dict(zip(molecules.target_names, molecules.targets.T))
    np.testing.assert_allclose(values["mu"], [3.5, 23.5, 33.5])  # columns follow mol_id, A, B, C
    np.testing.assert_allclose(values["gap"], np.array([7.5, 27.5, 37.5]) * 27211.386, rtol=1e-6)
    np.testing.assert_allclose(values["u0"], np.array([15.5, 35.5, 45.5]) * 43.364, rtol=1e-4)
    np.testing.assert_allclose(values["cv"], [14.5, 34.5, 44.5])
    assert not (tmp_path / "processed").exists()


def test_qm9_of_the_project(tmp_path):
    source = shared("qm9/qm9_3d.npz")
    qm9.prepare({"limit": 600}, source, tmp_path / "qm9.h5")
    molecules = read_molecules(tmp_path / "qm9.h5")
    values = dict(zip(molecules.target_names, molecules.targets.T))
    np.testing.assert_allclose(values["gap"], values["lumo"] - values["homo"], atol=5)
    assert 5000 < values["gap"].mean() < 8000  # meV; organic molecules
    # enthalpy is energy plus kT a particle, and atomization turns one particle into n
    kT, n = 25.6926, np.diff(molecules.node_ptr)  # meV at 298.15 K
    np.testing.assert_allclose(values["h298"] - values["u298"], kT * (1 - n), atol=0.5)
    assert len(molecules) == pytest.approx(600, abs=3)


def test_zinc_takes_the_official_splits_or_divides_the_validation(tmp_path):
    write_zinc(tmp_path, ("train", "val", "test"))
    zinc.prepare({"walk_steps": 4}, tmp_path, tmp_path / "out.h5")
    molecules = read_molecules(tmp_path / "out.h5")
    assert {s: len(g) for s, g in molecules.splits.items()} == {
        "train": 6,
        "validation": 6,
        "test": 6,
    }
    assert molecules.walks.shape == (int(molecules.node_ptr[-1]), 4)
    data = zinc.load(tmp_path / "out.h5", torch.device("cpu"), {})
    assert data.objective.loss_name == "mean absolute error"
    assert data.model_arguments()["node_categories"] == [28]

    (tmp_path / "zinc12k_official_train.npz").unlink()
    write_zinc(tmp_path, ("val",), size=30)
    zinc.prepare({"walk_steps": 0, "splits": {"test": 4}}, tmp_path, tmp_path / "out.h5")
    molecules = read_molecules(tmp_path / "out.h5")
    assert [len(molecules.splits[s]) for s in ("train", "validation", "test")] == [27, 3, 4]
    assert molecules.walks is None


def test_zinc_from_the_benchmarks_pickles(tmp_path):
    for name in ("train", "val", "test"):
        graphs = []
        for n in (2, 3, 4):
            bonds = torch.zeros(n, n, dtype=torch.long)
            for i in range(n - 1):
                bonds[i, i + 1] = bonds[i + 1, i] = 2
            graphs.append(
                {
                    "num_atom": n,
                    "atom_type": torch.arange(n),
                    "bond_type": bonds,
                    "logP_SA_cycle_normalized": torch.tensor([float(n)]),
                }
            )
        (tmp_path / f"{name}.pickle").write_bytes(pickle.dumps(graphs))
        (tmp_path / f"{name}.index").write_text("2,0\n")
    zinc.prepare({"walk_steps": 2}, tmp_path, tmp_path / "out.h5")
    molecules = read_molecules(tmp_path / "out.h5")
    assert molecules.targets[:, 0].tolist() == [4, 2] * 3
    assert np.diff(molecules.node_ptr).tolist() == [4, 2] * 3
    assert molecules.edge_index[:, :6].T.tolist() == [
        [0, 1],
        [1, 0],
        [1, 2],
        [2, 1],
        [2, 3],
        [3, 2],
    ]
    assert set(molecules.edge_features.ravel()) == {2}


def test_zinc_of_the_project(tmp_path):
    source = shared("zinc")
    zinc.prepare({"seed": 0}, source, tmp_path / "zinc.h5")
    molecules = read_molecules(tmp_path / "zinc.h5")
    assert [len(molecules.splits[s]) for s in ("train", "validation", "test")] == [900, 100, 1000]
    assert molecules.edge_features.min() >= 1
    assert molecules.edge_features.max() <= 3
    assert molecules.walks[:, 0].max() == 0  # no atom is bonded to itself
    assert 0 < molecules.walks[:, 1].min() <= molecules.walks[:, 1].max() <= 1


def write_peptides(folder, splits, smiles=SMILES):
    labels = [[int(i == k) for k in range(10)] for i in range(len(smiles))]
    rows = [f'{i},{s},X,"{json.dumps(y)}",{i}' for i, (s, y) in enumerate(zip(smiles, labels))]
    text = "\n".join([",smiles,peptide_seq,labels,identifier", *rows]) + "\n"
    import gzip

    table, split = (folder / name for name in peptides.PUBLISHED)
    table.write_bytes(gzip.compress(text.encode()))
    split.write_bytes(pickle.dumps(splits))


def test_smiles_become_graphs_with_ogbs_features():
    """Against PyG's own reading of SMILES, feature by feature, through the names of the values."""
    pytest.importorskip("rdkit")
    smiles_module = pytest.importorskip("torch_geometric.utils.smiles")
    arrays = peptides.from_smiles(SMILES)
    names = smiles_module.x_map
    for g, text in enumerate(SMILES):
        graph = smiles_module.from_smiles(text)
        nodes = slice(arrays["node_ptr"][g], arrays["node_ptr"][g + 1])
        edges = slice(arrays["edge_ptr"][g], arrays["edge_ptr"][g + 1])
        mine, theirs = arrays["node_features"][nodes].astype(int), graph.x.numpy()
        assert (mine[:, 0] + 1).tolist() == theirs[:, 0].tolist()
        for column in (1, 2, 3, 4, 5, 7, 8):
            assert mine[:, column].tolist() == theirs[:, column].tolist(), names
        hybrid = [names["hybridization"][k] for k in theirs[:, 6]]
        assert [("SP", "SP2", "SP3", "SP3D", "SP3D2", "misc")[k] for k in mine[:, 6]] == hybrid
        order = np.lexsort(arrays["edge_index"][::-1, edges])
        assert arrays["edge_index"][:, edges][:, order].tolist() == graph.edge_index.tolist()
        bonds = [smiles_module.e_map["bond_type"][k] for k in graph.edge_attr[:, 0]]
        coded = arrays["edge_features"][edges][order]
        assert [("SINGLE", "DOUBLE", "TRIPLE", "AROMATIC", "misc")[k] for k in coded[:, 0]] == bonds
        assert coded[:, 2].tolist() == graph.edge_attr[:, 2].tolist()
    stereo = arrays["edge_features"][arrays["edge_ptr"][4] : arrays["edge_ptr"][5], 1]
    assert set(stereo) == {0, peptides.STEREO.index("STEREOE")}


def test_peptides_splits_labels_and_objective(tmp_path):
    splits = {k: np.array(v) for k, v in (("train", [5, 0, 2]), ("val", [1, 3]), ("test", [4]))}
    write_peptides(tmp_path, splits)
    entry = {"expect": {"train": 3, "validation": 2, "test": 1}, "walk_steps": 3}
    peptides.prepare(entry, tmp_path, tmp_path / "out.h5")
    molecules = read_molecules(tmp_path / "out.h5")
    assert {k: v.tolist() for k, v in molecules.splits.items()} == {
        "train": [5, 0, 2],
        "validation": [1, 3],
        "test": [4],
    }
    np.testing.assert_array_equal(molecules.targets, np.eye(6, 10))
    data = peptides.load(tmp_path / "out.h5", torch.device("cpu"), entry)
    assert data.objective.metric.direction == "max"
    assert data.model_arguments() == {
        "num_outputs": 10,
        "node_categories": [119, 5, 12, 12, 10, 6, 6, 2, 2],
        "edge_categories": [5, 6, 2],
        "walk_steps": 3,
    }


def test_peptides_refuses_what_is_not_official(tmp_path):
    splits = {"train": [0, 1], "val": [2], "test": [3]}
    with pytest.raises(DataError, match="lacks"):
        peptides.prepare({}, tmp_path, tmp_path / "out.h5")
    write_peptides(tmp_path, splits)
    with pytest.raises(DataError, match="MD5"):
        peptides.prepare({}, tmp_path, tmp_path / "out.h5")
    entry = {"expect": {"train": 3}}
    with pytest.raises(DataError, match="2 train graphs, not 3"):
        peptides.prepare(entry, tmp_path, tmp_path / "out.h5")
    write_peptides(tmp_path, {"train": [0, 1], "val": [1], "test": [9]})
    with pytest.raises(DataError, match=r"split test .*9 at 0"):
        peptides.prepare({"expect": {"test": 1}}, tmp_path, tmp_path / "out.h5")
    write_peptides(tmp_path, splits, ["CC", "C", "N", "not a molecule"])
    with pytest.raises(DataError, match="row 3"):
        peptides.prepare({"expect": {"test": 1}}, tmp_path, tmp_path / "out.h5")
    assert not (tmp_path / "out.h5").exists()


@pytest.mark.parametrize(
    ("train", "says"),
    [
        ([[0, 1], [4, 5]], r"split train of shape \[2, 2\]"),
        ([], r"split train of shape \[0\]"),
        ([0, 1.5], "split train"),
        ([0, 0], "names 0 twice in the split train"),
        ([0, 3], "some are in two splits"),
    ],
)
def test_a_peptides_split_that_is_no_list_of_rows_is_refused(tmp_path, train, says):
    write_peptides(tmp_path, {"train": np.array(train), "val": [2], "test": [3]})
    with pytest.raises(DataError, match=says):
        peptides.prepare({"expect": {"test": 1}}, tmp_path, tmp_path / "out.h5")


def test_a_peptide_without_smiles_is_named_by_its_row(tmp_path):
    write_peptides(tmp_path, {"train": [0], "val": [1], "test": [2]}, ["CC", "", "N"])
    with pytest.raises(DataError, match="no SMILES in row 1"):
        peptides.prepare({"expect": {"test": 1}}, tmp_path, tmp_path / "out.h5")


@pytest.mark.parametrize(
    ("feature", "row", "value", "says"),
    [
        ("node_features", 2, 28, r"value 28 in row 2, column 0 of its node features \(graph 0\)"),
        ("node_features", 0, -1, r"value -1 in row 0, column 0 of its node features \(graph 0\)"),
        ("edge_features", 1, 9, r"value 9 in row 1, column 0 of its edge features \(graph 0\)"),
    ],
)
def test_a_category_beyond_its_vocabulary_is_named(tmp_path, feature, row, value, says):
    write_zinc(tmp_path, ["val", "test"], size=20)
    zinc.prepare({"walk_steps": 2, "seed": 0}, tmp_path, tmp_path / "out.h5")
    molecules = read_molecules(tmp_path / "out.h5")
    check(molecules, "zinc.h5")
    values = getattr(molecules, feature).astype(np.int64)
    values[row, 0] = value
    setattr(molecules, feature, values)
    with pytest.raises(DataError, match=says):
        check(molecules, "zinc.h5")


def test_official_split_of_the_project_is_read_without_code():
    path = shared("peptides-func") / "splits_random_stratified_peptide.pickle"
    splits = load_pickle(path)
    assert {k: len(v) for k, v in splits.items()} == {"train": 10873, "val": 2331, "test": 2331}
    assert sorted(np.concatenate(list(splits.values()))) == list(range(15535))


def test_pickles_that_name_anything_else_are_refused(tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path(tmp_path / "sprung").touch, ())

    path = tmp_path / "trap.pickle"
    for dangerous in (Trap(), {"train": [Trap()]}, np.array([Trap()], dtype=object)):
        path.write_bytes(pickle.dumps(dangerous))
        with pytest.raises(DataError, match="plain arrays"):
            load_pickle(path)
    path.write_bytes(b"cos\nsystem\n(S'touch sprung'\ntR.")
    with pytest.raises(DataError, match=r"it names os\.system"):
        load_pickle(path)
    path.write_bytes(pickle.dumps(list(range(1000)))[:500])
    with pytest.raises(DataError, match="plain arrays"):
        load_pickle(path)
    assert not (tmp_path / "sprung").exists()
    good = {"a": np.arange(3), "b": torch.ones(2, 2), "c": [1, "x"]}
    path.write_bytes(pickle.dumps(good))
    loaded = load_pickle(path)
    np.testing.assert_array_equal(loaded["a"], good["a"])
    np.testing.assert_array_equal(loaded["b"], good["b"].numpy())


def test_bad_qm9_and_zinc_sources_are_named(small_qm9, tmp_path):
    path, arrays = small_qm9
    output = tmp_path / "out.h5"
    with pytest.raises(DataError, match="has no source"):
        qm9.prepare({}, None, output)
    with pytest.raises(DataError, match="does not exist"):
        qm9.prepare({}, tmp_path / "absent.npz", output)
    empty = tmp_path / "empty"
    empty.mkdir()
    for kind in (qm9, zinc, peptides):
        with pytest.raises(DataError, match="lacks"):
            kind.prepare({}, empty, output)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="cut short"):
        qm9.prepare({}, path, output)
    np.savez(path, z=arrays["z"])
    with pytest.raises(DataError, match="no array"):
        qm9.prepare({}, path, output)
    path.write_bytes(whole)
    with pytest.raises(DataError, match="not 70"):
        qm9.prepare({"expect": {"molecules": 70}}, path, output)
    with pytest.raises(ConfigError, match="splits"):
        qm9.prepare({"splits": {"train": 55, "validation": 5}}, path, output)
    write_zinc(tmp_path, ("val",))
    with pytest.raises(DataError, match="zinc12k_official_test"):
        zinc.prepare({}, tmp_path, output)
    assert not output.exists()
