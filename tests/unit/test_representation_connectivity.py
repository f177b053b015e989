"""Paths between representations: what planted networks must give, in closed form."""

import h5py
import numpy as np
import pytest
import torch
from permutation_case import arrays, shuffle_units, teacher_task
from test_analyses_permutations import checkpoint, load

from equiscape.analyses import representation_connectivity as between
from equiscape.analyses.subject import Subject

SETTINGS = between.Settings(points=11, bend_steps=0)


def measured(task, *networks, settings=SETTINGS):
    """The table of some networks of one task, of seeds 0, 1, ..."""
    found = tuple(checkpoint(model, seed) for seed, model in enumerate(networks))
    return between.measure([Subject(task, found)], settings).data


def heights(frame, value="barrier"):
    return frame[frame["split"] == "train"].set_index(["alignment", "curve"])[value].to_dict()


def solved(folder, model, **entry):
    """A task, and its teacher as a network of ``model``: the loss is zero."""
    task = teacher_task(folder, model, **entry)
    with h5py.File(folder / "case.h5") as file:
        parameters = {name: file[f"teacher/{name}"][()] for name in file["teacher"]}
    last = f"layers.{len(task.dataset.settings.hidden)}.weight"
    parameters[last] = parameters[last] / task.dataset.objective.std
    return task, load(task.build(0), parameters)


@pytest.mark.parametrize("mode", ["constrained", "free"])
@pytest.mark.parametrize("activation", ["tanh", "silu", "relu"])
def test_a_network_and_its_permuted_copy(tmp_path, mode, activation):
    """No barrier once units are in the same order and of the same sign; else there is one."""
    model = {"hidden": ["regular"], "mode": mode, "activation": activation}
    data = {"hidden": ["regular"], "inputs": "2 natural", "activation": activation}
    task, network = solved(tmp_path, model, **data)
    moved = shuffle_units(arrays(network), np.random.default_rng(1), flip=activation == "tanh")
    frame = measured(task, network, load(task.build(0), moved))
    assert list(frame.columns) == list(between.COLUMNS)
    assert set(frame["kind"]) == {"same"}
    assert set(frame["first"]) == {"regular"}
    assert set(frame["width"]) == {"6"}
    assert frame["first_solved"].all()
    found = heights(frame)
    assert found["none", "line"] > 1e-2
    assert found["weights", "line"] < 1e-12
    assert (frame[["loss_first", "loss_second"]] < 1e-28).all(axis=None)


def test_a_planted_pair_in_closed_form(tmp_path):
    """The teacher f, and its copies with the last layer, or both layers, negated.

    With the last layer negated alone, half-way between the output is (1 - 2 t) f: the loss is
    4 t^2 E f^2, convex, so there is no barrier, and the peak is the worse end. With both negated
    the ends are one function, tanh being odd; the output is (1 - 2 t) v tanh((1 - 2 t) W x), zero
    at t = 1/2 and of the sign of f with less size elsewhere where each unit's share has, so the
    barrier is E f^2 where units are flipped along the path, and none once signs are aligned.
    """
    task, network = solved(tmp_path, {"hidden": ["natural"]}, hidden=["natural"])
    own = arrays(network)
    batch = next(task.batches("train", 10**6))
    square = (batch.target / task.dataset.objective.std).square().mean().item()

    negated = {**own, "layers.1.weight": -own["layers.1.weight"]}
    frame = measured(task, network, load(task.build(0), negated))
    found = heights(frame, "loss_first"), heights(frame, "loss_second")
    assert sorted(f["none", "line"] for f in found) == pytest.approx([0, 4 * square])
    assert heights(frame)["none", "line"] == pytest.approx(0, abs=1e-14)
    assert heights(frame, "peak")["none", "line"] == pytest.approx(4 * square)

    flipped = {name: -value for name, value in own.items()}
    frame = measured(task, network, load(task.build(0), flipped))
    with torch.no_grad():
        before = network.layers[0](batch.inputs[0])
        share = [1 - 2 * t for t in np.linspace(0, 1, 11)]
        path = [s * torch.tanh(s * before) @ network.layers[1].weight.T for s in share]
    exact = batch.target / task.dataset.objective.std
    losses = [(output - exact).square().mean().item() for output in path]
    assert losses[5] == pytest.approx(square, rel=1e-14)
    assert heights(frame)["none", "line"] == pytest.approx(max(losses), rel=1e-12)
    assert heights(frame)["weights", "line"] < 1e-12


def test_ends_at_two_representations(tmp_path):
    """The line between the planes of natural and of three trivial units, against a plain forward
    pass with W_t = (1 - t) W_0 + t W_1."""
    natural = teacher_task(tmp_path, {"hidden": ["natural"]}, "a", hidden=["natural"])
    trivial = teacher_task(tmp_path, {"hidden": ["3 trivial"]}, "b", hidden=["natural"])
    for task in (natural, trivial):
        task.dataset.name = "s3"
    one, other = natural.build(1), trivial.build(2)
    subjects = [
        Subject(task, (checkpoint(model, 1),)) for task, model in ((natural, one), (trivial, other))
    ]
    frame = between.measure(subjects, between.Settings(points=7, bend_steps=150)).data
    assert set(frame["kind"]) == {"other"}
    assert {frame["first"][0], frame["second"][0]} == {"natural", "3 trivial"}
    batch = next(natural.batches("train", 10**6))
    first, second = (one, other) if frame["first"][0] == "natural" else (other, one)
    target, losses = batch.target / natural.dataset.objective.std, []
    with torch.no_grad():
        for t in np.linspace(0, 1, 7):
            w, b, v = ((1 - t) * p + t * q for p, q in zip(first.parameters(), second.parameters()))
            output = torch.tanh(batch.inputs[0] @ w.T + b) @ v.T
            losses.append((output - target).square().mean().item())
    losses = np.array(losses)
    chord = np.linspace(losses[0], losses[-1], 7)
    found, peaks = heights(frame), heights(frame, "peak")
    assert found["none", "line"] == pytest.approx(max(0, (losses - chord).max()), abs=1e-14)
    assert peaks["none", "line"] == pytest.approx(losses.max(), rel=1e-12)
    # the bend is learned: a curve is no worse than the line that it starts from
    assert found["weights", "bezier"] <= found["weights", "line"] + 1e-9


def test_pairs_are_of_classes_and_use_no_network_twice(tmp_path):
    task = teacher_task(tmp_path, {"hidden": ["natural"]}, hidden=["natural"])
    ends = [
        between.End(task, checkpoint(None, seed), None, name, solved)
        for seed, (name, solved) in enumerate(
            [("natural", True)] * 5 + [("3 trivial", False)] * 2 + [("natural", False)]
        )
    ]
    pairs = list(between.pairs_of(ends, 3))
    named = [(a.representation, a.solved, b.representation, b.solved) for a, b in pairs]
    same = ("natural", True, "natural", True)
    assert named.count(same) == 2  # of five networks
    assert named.count(("natural", True, "3 trivial", False)) == 2
    assert named.count(("natural", True, "natural", False)) == 1
    assert named.count(("3 trivial", False, "3 trivial", False)) == 1
    assert len(pairs) == 7
    for a, b in pairs:
        assert a is not b
    seeds = [e.checkpoint.seed for pair in pairs[:2] for e in pair]
    assert len(set(seeds)) == 4


def test_networks_without_a_representation_are_passed_over(tmp_path):
    task = teacher_task(tmp_path, {"hidden": ["natural"], "mode": "free"}, hidden=["natural"])
    frame = measured(task, task.build(1), task.build(2))
    assert len(frame) == 0
    assert list(frame.columns) == list(between.COLUMNS)
