"""The molecular container: ranges, neighbor lists, walks, packing, gathering, damaged files."""

import h5py
import numpy as np
import pytest
import torch

from equiscape.data import generated_molecules as generated
from equiscape.data.molecular_graphs import pointer, radius_edges, random_walks, ranges
from equiscape.data.molecular_splits import random_split, shrink
from equiscape.data.molecules import pack, read_molecules
from equiscape.errors import ConfigError, DataError
from equiscape.files import products
from equiscape.models import build
from equiscape.task import load_task

ENTRY = {"kind": "molecules-generated", "molecules": 120, "max_atoms": 7, "seed": 1}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "molecules.h5"
    generated.prepare(ENTRY, None, path)
    return path


def test_ranges_are_concatenated_aranges():
    assert ranges(np.array([5, 0, 9]), np.array([2, 0, 3])).tolist() == [5, 6, 9, 10, 11]


def test_neighbor_lists_are_all_pairs_within_the_cutoff():
    generator = np.random.default_rng(0)
    counts = np.array([6, 1, 4, 6, 9])
    ptr, x = pointer(counts), generator.normal(size=(26, 3)) * 2
    edges, edge_ptr = radius_edges(x, ptr, 3.0)
    assert edges.dtype == np.uint8
    for g in range(5):
        part = x[ptr[g] : ptr[g + 1]]
        found = edges[:, edge_ptr[g] : edge_ptr[g + 1]].astype(int)
        distance = np.linalg.norm(part[:, None] - part[None], axis=-1)
        target, source = np.nonzero(distance < 3.0)
        assert found.tolist() == [source.tolist(), target.tolist()]
        assert (found[0] == found[1]).sum() == counts[g]


def test_random_walks_are_return_probabilities():
    # a ring of five, a path of three, a lone node, a star: powers of the transition matrix
    graphs = [
        (5, [(i, (i + 1) % 5) for i in range(5)]),
        (3, [(0, 1), (1, 2)]),
        (1, []),
        (4, [(0, 1), (0, 2), (0, 3)]),
    ]
    both = [[*pairs, *((j, i) for i, j in pairs)] for _, pairs in graphs]
    edge_index = np.array([pair for pairs in both for pair in pairs], dtype=np.uint8).T
    node_ptr, edge_ptr = pointer([n for n, _ in graphs]), pointer([len(p) for p in both])
    walks = random_walks(edge_index, node_ptr, edge_ptr, 7)
    for g, (n, _) in enumerate(graphs):
        adjacency = np.zeros((n, n))
        for i, j in both[g]:
            adjacency[i, j] = 1
        transition = adjacency / np.maximum(adjacency.sum(1, keepdims=True), 1)
        expected = [np.diag(np.linalg.matrix_power(transition, k)) for k in range(1, 8)]
        np.testing.assert_allclose(
            walks[node_ptr[g] : node_ptr[g + 1]], np.stack(expected, axis=1), atol=1e-6
        )
    assert walks[5, 1] == pytest.approx(0.5)  # an end of the path comes back in two steps


@pytest.mark.parametrize("by_size", [True, False])
def test_packing_covers_everything_within_the_budget(by_size):
    generator = torch.Generator().manual_seed(0)
    counts = torch.randint(5, 30, (5000,), generator=generator)
    order = torch.randperm(5000, generator=generator)
    batches = pack(order, counts[order], 400, generator if by_size else None)
    assert torch.cat(batches).sort().values.tolist() == list(range(5000))
    sums = [int(counts[batch].sum()) for batch in batches]
    assert max(sums) <= 400
    assert sum(sums) / (400 * len(sums)) > 0.95
    padded = sum(int(counts[batch].max()) ** 2 * len(batch) for batch in batches)
    waste = padded / int(counts.square().sum())
    if by_size:
        assert waste < 1.2
    else:
        assert waste > 1.5
        assert torch.equal(torch.cat(batches), order)


def test_a_graph_beyond_the_budget_is_a_batch_of_its_own():
    counts = torch.tensor([3, 50, 4])
    assert [b.tolist() for b in pack(torch.arange(3), counts, 10)] == [[0], [1], [2]]
    by_size = pack(torch.arange(3), counts, 10, torch.Generator().manual_seed(0))
    assert sorted(b.tolist() for b in by_size) == [[0, 2], [1]]
    assert pack(torch.arange(0), torch.arange(0), 10) == []


def test_plans_are_deterministic_and_by_size_without_a_generator(prepared):
    data = generated.load(prepared, "cpu", {**ENTRY, "target": "energy", "node_budget": 40})
    first, second = (data.plan("train", 8, torch.Generator().manual_seed(3)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second))
    plan = torch.cat(data.plan("train", 8))
    assert plan.sort().values.tolist() == list(range(data.size("train")))
    sizes = [torch.bincount(data.gather("train", i.view(1)).graph).item() for i in plan]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) > 1
    data.node_budget = None
    assert [len(batch) for batch in data.plan("test", 8)] == [8, 8, 2]


def test_gathering_picks_the_molecules_that_were_prepared(prepared):
    molecules = read_molecules(prepared)
    data = generated.load(prepared, "cpu", {**ENTRY, "target": "energy"})
    indices = torch.tensor([4, 0, 9])
    batch = data.gather("validation", indices)
    z, positions, edge_index, graph, size, largest = batch.inputs
    graphs = molecules.splits["validation"][[4, 0, 9]]
    counts = np.diff(molecules.node_ptr)[graphs]
    assert (size, batch.size, largest) == (3, 3, counts.max())
    assert torch.bincount(graph).tolist() == counts.tolist()
    assert torch.equal(graph, batch.graph)
    starts, first = pointer(counts), 0
    for place, g in enumerate(graphs):
        nodes = slice(molecules.node_ptr[g], molecules.node_ptr[g + 1])
        mine = slice(starts[place], starts[place + 1])
        assert z[mine].tolist() == molecules.node_features[nodes, 0].tolist()
        np.testing.assert_array_equal(positions[mine].numpy(), molecules.positions[nodes])
        edges = molecules.edge_index[:, molecules.edge_ptr[g] : molecules.edge_ptr[g + 1]]
        got = edge_index[:, first : first + edges.shape[1]] - starts[place]
        assert got.tolist() == edges.tolist()
        first += edges.shape[1]
    assert first == edge_index.shape[1]
    np.testing.assert_allclose(batch.target.numpy(), molecules.targets[graphs, 0], rtol=1e-6)


def test_generated_targets_are_their_closed_forms():
    # two atoms at rest have the energy -D; a hydrogen and an oxygen, the dipole q r
    x = np.array([[[0.0, 0, 0], [0, 0, 1.6]], [[0, 0, 0], [0, 0, 1.15]]])
    kinds = np.array([[1, 1], [0, 3]])
    present = np.ones((2, 2), dtype=bool)
    energy, dipole = generated.energy(x, kinds, present), generated.dipole(x, kinds, present)
    np.testing.assert_allclose(energy, [-1.6, -np.sqrt(0.6 * 1.0)], rtol=1e-12)
    charge = 0.3 * (3.44 - 2.2) * np.exp(-(1.15**2) / (2 * 1.2**2))
    np.testing.assert_allclose(dipole, [0, 4.80320 * charge * 1.15], atol=1e-12)


def test_generation_is_reproducible_and_physical(prepared, tmp_path):
    generated.prepare(ENTRY, None, tmp_path / "again.h5")
    first, second = read_molecules(prepared), read_molecules(tmp_path / "again.h5")
    np.testing.assert_array_equal(first.positions, second.positions)
    np.testing.assert_array_equal(first.targets, second.targets)
    for g in range(len(first)):
        x = first.positions[first.node_ptr[g] : first.node_ptr[g + 1]]
        distance = np.linalg.norm(x[:, None] - x[None], axis=-1) + 9 * np.eye(len(x))
        assert distance.min() > 0.5
    assert np.isfinite(first.targets).all()
    assert first.targets.std(0).min() > 0.3


def test_targets_are_standardized_by_the_training_split(prepared):
    data = generated.load(prepared, "cpu", {**ENTRY, "target": "energy"})
    targets = data.gather("train", torch.arange(data.size("train"))).target
    assert data.objective.mean == pytest.approx(targets.mean().item(), rel=1e-5)
    assert data.objective.metric.unit == "eV"
    mean = torch.zeros_like(targets)
    assert data.objective.loss(mean, targets).item() == pytest.approx(1, rel=1e-4)
    dipole = generated.load(prepared, "cpu", {**ENTRY, "target": "dipole"})
    assert dipole.objective.mean == 0
    assert dipole.model_arguments()["head"] == "dipole"


def test_a_task_pools_nodes_and_scores_in_the_target_unit(prepared):
    entry = {
        "architecture": "gotennet",
        "dataset": "m",
        "target": "energy",
        "model": {"hidden": 8, "layers": 1, "heads": 2, "radial": 4},
    }
    task = load_task("gotennet-energy", entry, "m", ENTRY, prepared, torch.device("cpu"))
    model = task.build(0)
    batch = task.batch("train", torch.arange(6))
    seen = {}
    for name, module in model.representations().items():
        module.register_forward_hook(lambda m, i, o, name=name: seen.update({name: o}))
    model(*batch.inputs)
    for output in seen.values():
        output = output[0] if isinstance(output, tuple) else output
        assert task.pool(output, batch).shape == (6, 8)
    assert task.metric.direction == "min"
    scores = task.evaluate(model, "validation")
    assert np.isfinite(scores["loss"])
    assert scores["score"] > 0


def test_splits_are_disjoint_and_sized():
    entry = {"splits": {"train": 50, "validation": 20}, "seed": 2}
    splits = random_split(100, entry, {})
    assert [len(part) for part in splits.values()] == [50, 20, 30]
    assert len(np.unique(np.concatenate(list(splits.values())))) == 100
    half = random_split(100, {**entry, "limit": 50}, {})
    assert [len(part) for part in half.values()] == [25, 10, 15]
    assert np.array_equal(half["train"], splits["train"][:25])
    with pytest.raises(ConfigError, match="splits"):
        random_split(60, {"splits": {"train": 50, "validation": 20}}, {})
    with pytest.raises(ConfigError, match=r"splits\.test"):
        shrink(splits, {"splits": {"test": 31}})
    with pytest.raises(ConfigError, match="validation"):
        shrink(splits, {"splits": {"valid": 3}})


def test_bad_requests_are_named(prepared):
    with pytest.raises(ConfigError, match="did you mean 'energy'"):
        generated.load(prepared, "cpu", {"target": "enrgy"})
    with pytest.raises(ConfigError, match="target"):
        generated.load(prepared, "cpu", {})
    with pytest.raises(ConfigError, match="cutoff"):
        generated.load(prepared, "cpu", {"target": "energy", "cutoff": 4.0})
    with pytest.raises(ConfigError, match="loss"):
        generated.load(prepared, "cpu", {"target": "energy", "loss": "huber"})
    data = generated.load(prepared, "cpu", {"target": "energy"})
    with pytest.raises(ConfigError, match="gine"):
        build("gine", data.model_arguments(), {})


def test_damaged_prepared_files_are_refused_by_name(prepared, tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        read_molecules(tmp_path / "absent.h5")
    whole = prepared.read_bytes()
    path = tmp_path / "cut.h5"
    path.write_bytes(whole)
    with pytest.raises(DataError, match=r"cut\.h5 has no record cut\.json"):
        read_molecules(path)
    products.sign(path)
    read_molecules(path)
    for damage in (whole[: len(whole) // 2], whole[:-9] + b"x" + whole[-8:], b"<html></html>"):
        path.write_bytes(damage)
        with pytest.raises(DataError, match=r"cut\.h5 is damaged"):
            read_molecules(path)

    def altered(change):
        path.write_bytes(whole)
        with h5py.File(path, "r+") as file:
            change(file)
        products.sign(path)
        return path

    def drop(file):
        del file["targets"]

    def shorten(file):
        node_ptr = file["node_ptr"][()]
        node_ptr[-1] -= 1
        file["node_ptr"][...] = node_ptr

    def spoil(file):
        targets = file["targets"][()]
        targets[0, 0] = np.nan
        file["targets"][...] = targets

    with pytest.raises(DataError, match="not what its format says"):
        read_molecules(altered(drop))
    with pytest.raises(DataError, match="pointers"):
        read_molecules(altered(shorten))
    with pytest.raises(DataError, match="not finite"):
        read_molecules(altered(spoil))
    with pytest.raises(DataError, match="format"):
        read_molecules(altered(lambda file: file.attrs.update(format="other")))
