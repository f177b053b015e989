"""Checkpoints: read with checks, and enough to predict without the study."""

import json

import numpy as np
import pytest
import torch
from training_case import MUON, case

from equiscape import checkpoint, io
from equiscape.data import generated_molecules
from equiscape.data.molecular_graphs import atom_references
from equiscape.errors import CheckpointError
from equiscape.task import load_task
from equiscape.training.cell import train_cell


@pytest.fixture
def trained(tmp_path):
    """A task and the path of its checkpoint."""
    task = case(epochs=1)
    result = train_cell(task, MUON, "1e-2", "0", 5, task.training, keep_weights=True)
    io.save_checkpoint(tmp_path / "checkpoint.pt", result.checkpoint)
    return task, tmp_path / "checkpoint.pt"


def changed(path, change):
    state = torch.load(path, weights_only=True)
    change(state)
    io.save_checkpoint(path, state)


def test_a_checkpoint_predicts_alone(trained):
    task, path = trained
    loaded = checkpoint.load(path)
    batch = next(task.batches("test"))
    expected = task.restore(path)(*batch.inputs).argmax(-1)
    assert torch.equal(loaded.predict(*batch.inputs), expected)
    assert loaded.state["outputs"] == {"kind": "classification"}
    assert loaded.state["cell"] == {"optimizer": "muon", "lr": "1e-2", "wd": "0", "seed": 5}
    assert "model" not in loaded.state
    assert loaded.state["format"] == checkpoint.CHECKPOINT_FORMAT


def test_a_molecular_checkpoint_predicts_in_the_targets_unit(tmp_path):
    dataset = {"kind": "molecules-generated", "molecules": 40, "max_atoms": 5, "seed": 0,
               "cutoff": 5.0, "validation": 0.2}  # fmt: skip
    generated_molecules.prepare(dataset, None, tmp_path / "m.h5")
    entry = {"architecture": "gotennet", "target": "energy", "training": {"batch_size": 8},
             "model": {"hidden": 8, "layers": 1, "heads": 2, "radial": 8}}  # fmt: skip
    device = torch.device("cpu")
    task = load_task("energy", entry, "molecules", dataset, tmp_path / "m.h5", device)
    training = {"epochs": 1, "batch_size": 8}
    result = train_cell(task, MUON, "1e-3", "0", 0, training, keep_weights=True)
    io.save_checkpoint(tmp_path / "checkpoint.pt", result.checkpoint)
    batches = list(task.batches("test"))
    loaded = checkpoint.load(tmp_path / "checkpoint.pt")
    error = torch.cat([loaded.predict(*b.inputs) - b.target for b in batches]).abs().mean()
    best = result.metrics["at"]["best_validation"]["test"]["score"]
    assert error.item() == pytest.approx(best, rel=1e-5)
    assert loaded.state["outputs"]["target"] == "energy"
    assert loaded.state["outputs"]["unit"] == "eV"

    loaded.state["outputs"]["atom_references"] = {"6": 100.0}  # as for QM9's energies
    z, graph, size = (batches[0].inputs[i] for i in (0, 3, 4))
    carbons = torch.bincount(graph[z == 6], minlength=size)
    added = loaded.predict(*batches[0].inputs)
    del loaded.state["outputs"]["atom_references"]
    torch.testing.assert_close(added - loaded.predict(*batches[0].inputs), 100.0 * carbons)


def test_atom_references_are_found_from_the_sums():
    z = np.array([1, 1, 8, 6, 1, 1, 1, 1, 6, 8, 8])
    node_ptr = np.array([0, 3, 8, 11])
    value = {1: -0.5, 6: -37.8, 8: -75.0}
    sums = np.add.reduceat(np.array([value[i] for i in z]), node_ptr[:-1])
    assert atom_references(z, node_ptr, sums) == pytest.approx(
        {str(k): v for k, v in value.items()}
    )


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_is_refused_by_name(trained, bad):
    task, path = trained
    state = torch.load(path, weights_only=True)
    name = next(n for n in state["model"] if n.startswith("head") and n.endswith("weight"))
    changed(path, lambda s: s["model"][name].view(-1)[3:4].fill_(bad))
    for load in (task.restore, checkpoint.load):
        with pytest.raises(CheckpointError, match=rf"checkpoint\.pt: the tensor {name} holds NaN"):
            load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.update(format=99), r"format 99.*reads 1 and 2"),
        (lambda s: s.pop("format"), r"format None"),
        (lambda s: s.pop("model"), r"holds no model"),
        (lambda s: s.update(model=None, status="diverged"), r"diverged before epoch 1"),
        (lambda s: s.update(task="other"), r"belongs to task 'other', not 'case'"),
        (lambda s: s["model"].popitem(), r"does not fit tasks\.case\.model"),
    ],
)
def test_what_is_no_checkpoint_of_the_task_is_refused(trained, change, message):
    task, path = trained
    changed(path, change)
    with pytest.raises(CheckpointError, match=message):
        task.restore(path)


def test_a_checkpoint_of_another_optimizer_or_seed_is_refused_where_one_is_asked_for(trained):
    task, path = trained
    task.restore(path, "muon", 5)
    with pytest.raises(CheckpointError, match=r"belongs to optimizer 'muon', not 'adam'"):
        task.restore(path, "adam", 5)
    with pytest.raises(CheckpointError, match=r"belongs to seed 5, not 6"):
        task.restore(path, "muon", 6)


def test_the_first_format_is_read_through_its_task(trained):
    task, path = trained
    expected = task.restore(path).state_dict()

    def as_before(state):
        for key in ("status", "model_arguments", "outputs", "cell", "library"):
            del state[key]
        state["format"] = 1

    changed(path, as_before)
    found = task.restore(path).state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    with pytest.raises(CheckpointError, match=r"format 1.*through its task"):
        checkpoint.load(path)


@pytest.mark.parametrize("place", ["checkpoint.pt", "snapshots/epoch1.pt"])
def test_a_flipped_bit_is_found_by_the_recorded_sum(trained, place):
    task, path = trained
    file = path.parent / place
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(path.read_bytes())
    (path.parent / "metrics.json").write_text(json.dumps({"sha256": {place: io.sha256(file)}}))
    task.restore(file)
    content = bytearray(file.read_bytes())
    # a mantissa bit of a stored weight, which torch.load does not notice
    weights = torch.load(file, weights_only=True)["model"]
    largest = max(weights.values(), key=torch.numel)
    content[content.find(largest.numpy().tobytes())] ^= 1
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"is not the file that its cell wrote \(SHA-256"):
        task.restore(file)
    (path.parent / "metrics.json").unlink()
    task.restore(file)  # nothing to check against
