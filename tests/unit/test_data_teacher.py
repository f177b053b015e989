"""Data of a known teacher: its splits, noise and passes, and what is refused."""

import numpy as np
import pytest
import torch
from permutation_case import action, arrays, network, shuffle_units, teacher_task

from equiscape.data import teacher
from equiscape.errors import ConfigError
from equiscape.groups import (
    representations_of_width,
)


@pytest.mark.parametrize("closed", [True, False])
def test_a_split_is_closed_under_the_group_where_asked(tmp_path, closed):
    task = teacher_task(tmp_path, group="C4", hidden=["regular"], closed=closed)
    x, y = task.dataset._tensors["train"]
    rows = {tuple(row): value for row, value in zip(x.tolist(), y[:, 0].tolist())}
    assert len(rows) == 4 * 6
    for element in action("C4", "natural"):
        moved = torch.empty_like(x)
        moved[:, element] = x
        inside = [tuple(row) in rows for row in moved.tolist()]
        assert all(inside) or not closed
        if closed:
            values = [rows[tuple(row)] for row in moved.tolist()]
            np.testing.assert_allclose(values, y[:, 0], rtol=1e-12)
    assert closed or not all(inside)


def test_a_student_that_is_the_teacher_has_no_loss(tmp_path):
    import h5py

    task = teacher_task(tmp_path, {"hidden": ["regular"]}, hidden=["regular"], outputs="natural")
    model = task.build(0)
    with h5py.File(tmp_path / "case.h5") as file:
        state = {name: torch.as_tensor(file[f"teacher/{name}"][()]) for name in state_names(model)}
    state["layers.1.weight"] = state["layers.1.weight"] / task.dataset.objective.std
    model.load_state_dict(state)
    assert task.evaluate(model, "test")["loss"] < 1e-25
    # the loss is relative to the variance
    targets = task.dataset._tensors["train"][1]
    mean = targets.mean().item() / task.dataset.objective.std
    zero = task.loss(lambda x: torch.full_like(targets, mean), next(task.batches("train")))
    assert zero.item() == pytest.approx(1, rel=1e-12)


def state_names(model):
    return [name for name, _ in model.named_parameters()]


def test_an_epoch_makes_as_many_passes_as_asked(tmp_path):
    task = teacher_task(tmp_path, passes=3)
    assert len(task.plan("train", 10**6, torch.Generator().manual_seed(0))) == 3
    assert len(task.plan("train", 10**6)) == 1
    assert sum(map(len, task.plan("train", 5, torch.Generator()))) == 3 * 36


def test_noise_is_on_the_training_targets_only(tmp_path):
    clean = teacher_task(tmp_path, name="clean", samples=200).dataset._tensors
    noisy = teacher_task(tmp_path, name="noisy", samples=200, noise=0.1).dataset._tensors
    # the held-out inputs differ, since the noise is drawn between; their targets are exact
    difference = noisy["train"][1] - clean["train"][1]
    relative = (difference.std() / clean["train"][1].std()).item()
    assert 0.08 < relative < 0.12


@pytest.mark.parametrize(
    "entry", [{"samples": 0}, {"hidden": "natural"}, {"activation": "x"}, {"group": "Q8"}]
)
def test_a_wrong_data_set_is_refused(tmp_path, entry):
    with pytest.raises(ConfigError):
        teacher_task(tmp_path, **entry)


def test_shuffled_units_compute_the_same(tmp_path):
    rng = np.random.default_rng(2)
    model = network("C4", outputs="natural", hidden=["regular", "2 trivial + regular"])
    x = rng.normal(size=(6, 4))
    expected = teacher.apply(arrays(model), x, 3, "tanh")
    np.testing.assert_allclose(model(torch.as_tensor(x)).detach(), expected, rtol=1e-12)
    found = teacher.apply(shuffle_units(arrays(model), rng, flip=True), x, 3, "tanh")
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-13)
    assert len(list(representations_of_width(model.group, 4))) == 4
