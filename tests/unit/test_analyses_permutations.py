"""What the analyses of permutation representations say of networks that are known."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from permutation_case import arrays, shuffle_units, teacher_task

from equiscape.analyses import constrained_landscape, representation
from equiscape.analyses.subject import Subject
from equiscape.errors import DataError


def checkpoint(model, seed=1):
    return SimpleNamespace(optimizer="adam", seed=seed, model=lambda: model)


def load(model, parameters):
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.as_tensor(parameters[name]))
    return model


def test_representations_of_known_networks(tmp_path):
    model = {"hidden": ["natural + trivial"]}
    task = teacher_task(tmp_path, model, hidden=["natural"], outputs="natural")
    held, moved, free = task.build(3), task.build(3), task.build(3)
    load(moved, shuffle_units(arrays(moved), np.random.default_rng(0)))
    torch.nn.init.normal_(free.layers[0].weight)
    networks = tuple(checkpoint(m, seed) for seed, m in enumerate((held, moved, free)))
    plain = checkpoint(torch.nn.Linear(3, 1), 9)  # without a plane: passed over
    frame = representation.measure(
        [Subject(task, (*networks, plain))], representation.Settings()
    ).data
    assert list(frame.columns) == list(representation.COLUMNS)
    assert list(frame["seed"]) == [0, 1, 2]
    assert list(frame["representation"]) == ["natural + trivial", "natural + trivial", "none"]
    assert list(frame["nearest"][:2]) == ["natural + trivial"] * 2
    assert (frame["nearest_distance"] < [1e-15, 1e-15, 1]).all()
    assert (frame["distance"] > [-1, 0.1, 0.1]).all()
    assert frame["distance"][0] < 1e-15
    assert (frame["equivariance_error"][:2] < 1e-28).all()
    assert frame["equivariance_error"][2] > 1e-2
    assert set(frame["teacher"]) == {"natural"}
    assert frame["loss"][0] == pytest.approx(frame["loss"][1], rel=1e-12)
    assert frame["loss"][0] == pytest.approx(task.evaluate(held, "train")["loss"])


@pytest.mark.parametrize(
    ("settings", "mode"),
    [
        ({"mode": "constrained"}, "constrained"),
        ({"mode": "free", "noise": 0.1}, "free"),
        ({"mode": "relaxed", "noise": 0.1}, "relaxed"),
        ({"mode": "relaxed"}, "released"),
        ({"mode": "relaxed", "release": 0.0}, "unprojected"),
        ({"mode": "relaxed", "noise": 0.1, "penalty": 1.0}, "penalized"),
    ],
)
def test_modes_are_told_apart(tmp_path, settings, mode):
    task = teacher_task(tmp_path, {"hidden": ["natural"], **settings})
    (row,) = representation.describe(task, task.build(0), representation.Settings())
    assert row["mode"] == mode


def test_a_deeper_network_has_a_row_a_layer(tmp_path):
    task = teacher_task(tmp_path, {"hidden": ["natural + trivial", "regular"]}, inputs="regular")
    rows = representation.describe(task, task.build(1), representation.Settings(tolerance=1e-6))
    assert [row["representation"] for row in rows] == ["natural + trivial", "regular"]
    assert [row["layer"] for row in rows] == [0, 1]
    assert rows[0]["nearest"] == ""


def test_curvature_of_networks_on_and_off_their_plane(tmp_path):
    task = teacher_task(tmp_path, {"hidden": ["natural + trivial"]}, hidden=["natural"])
    held, free = task.build(3), task.build(4)
    torch.nn.init.normal_(free.layers[0].weight)
    subject = Subject(task, (checkpoint(held), checkpoint(free, 2)))
    frame = constrained_landscape.measure([subject], constrained_landscape.Settings()).data
    assert list(frame.columns) == list(constrained_landscape.COLUMNS)
    (row,) = frame.to_dict("records")
    assert row["seed"] == 1
    assert (row["parameters"], row["dimension"]) == (20, 7)
    assert row["gradient_across"] < 1e-14
    assert row["coupling"] < 1e-13
    # against the whole spectrum, by another way
    flat = torch.nn.utils.parameters_to_vector(held.parameters()).detach()
    names = [name for name, _ in held.named_parameters()]
    shapes = [p.shape for p in held.parameters()]
    batch = next(task.batches("train", 10**6))

    def loss(vector):
        parts = vector.split([shape.numel() for shape in shapes])
        state = {n: p.view(s) for n, p, s in zip(names, parts, shapes)}
        return task.loss(lambda x: torch.func.functional_call(held, state, (x,)), batch)

    spectrum = torch.linalg.eigvalsh(torch.func.hessian(loss)(flat))
    ends = [row[f"{end}_{side}"] for end in ("lowest", "highest") for side in ("inside", "across")]
    assert min(ends) == pytest.approx(spectrum[0].item(), abs=1e-12)
    assert max(ends) == pytest.approx(spectrum[-1].item(), abs=1e-12)
    limit = 1e-6 * spectrum.abs().max()
    negative = row["negative_inside"] + row["negative_across"]
    assert negative == (spectrum < -limit).sum()
    assert row["loss"] == pytest.approx(loss(flat).item(), rel=1e-12)


def test_a_network_that_is_too_large_is_refused(tmp_path):
    task = teacher_task(tmp_path, {"hidden": ["natural"]})
    settings = constrained_landscape.Settings(largest=10)
    with pytest.raises(DataError, match="largest"):
        constrained_landscape.describe(task, task.build(0), settings)
