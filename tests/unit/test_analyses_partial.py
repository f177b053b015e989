"""An analysis that was interrupted goes on behind its finished stages, to the same bits."""

import json
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from test_landscape_architectures import SMALL, Clouds
from tiny_task import tiny_network, tiny_task

from equiscape import models
from equiscape.analyses import connectivity, hessian, sharpness, symmetry
from equiscape.analyses.partial import Partial
from equiscape.landscape import slices
from equiscape.landscape.objective import TrainingLoss
from equiscape.task import Task


class Killed(BaseException):
    """As a signal would end it: no handler of exceptions sees it."""


@dataclass
class Stored:
    """A checkpoint without a file."""

    seed: int
    optimizer: str = "adam"

    def model(self):
        return tiny_network(self.seed).eval()


@dataclass
class Subject:
    """Without its files."""

    checkpoints: tuple
    partial: Partial
    task: object = None


class Dying(Partial):
    """Ends the process when the stage number ``last`` was kept."""

    def __init__(self, folder, last):
        super().__init__(folder, "x", least=0)
        self.left = last

    def stage(self, name, compute, kinds=(), keep=True):
        if self.left == 0:
            raise Killed
        self.left -= 1
        return super().stage(name, compute, kinds, keep)


def interrupted(measure, folder, stages):
    """The result of attempts that die after 1, 2, ... stages, and then one that does not."""
    for last in range(1, stages):
        with pytest.raises(Killed):
            measure(Dying(folder, last))
    assert list(folder.rglob("*.stage"))
    partial = Partial(folder, "x", least=0)
    result = measure(partial)
    partial.discard()
    assert list(folder.rglob("*")) == []
    return result


@pytest.mark.parametrize(
    ("settings", "stages"),
    [({}, 5), ({"method": "power"}, 3), ({"trace_tolerance": 1e-3, "probes": 60}, 5)],
)
def test_a_hessian_killed_between_its_stages_is_the_same(tmp_path, settings, stages):
    s = hessian.Settings(
        **{"samples": None, "eigenvalues": 3, "probes": 6, "density_steps": 5, **settings}
    )

    def measure(partial):
        found = hessian.measure_hessian(tiny_task(), tiny_network(), s, None, partial)
        return json.dumps({**found, "seconds": None})

    assert interrupted(measure, tmp_path, stages) == measure(Partial(None))


def test_a_finished_stage_is_not_computed_again(tmp_path, monkeypatch):
    s = hessian.Settings(samples=None, eigenvalues=2, probes=4, density_probes=0, adaptive=False)
    hessian.measure_hessian(tiny_task(), tiny_network(), s, None, Partial(tmp_path, 1, least=0))

    def product(self, vectors):
        raise AssertionError("a product")

    monkeypatch.setattr(TrainingLoss, "_products", product)
    again = Partial(tmp_path, 1, least=0)
    found = hessian.measure_hessian(tiny_task(), tiny_network(), s, None, again)
    assert found["products_total"] > 6
    with pytest.raises(AssertionError, match="a product"):  # of other settings
        hessian.measure_hessian(tiny_task(), tiny_network(), s, None, Partial(tmp_path, 2, least=0))


def test_a_plane_killed_between_its_blocks_is_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(slices, "BLOCK", 10)
    settings = {"samples": None, "batch_size": 5, "resolution": 5, "range": 0.8, "seed": 2}

    def measure(partial):
        plane = slices.measure_slice(
            tiny_task(), tiny_network(), **settings, bands=2, stage=partial.stage
        )
        return {name: array.tobytes() for name, array in plane.arrays().items()}

    cut = interrupted(measure, tmp_path, 5)
    assert cut == measure(Partial(None))
    monkeypatch.setattr(slices, "BLOCK", 1000)  # how it is cut changes nothing either
    assert cut == measure(Partial(None))


def test_sharpness_killed_between_two_seeds_is_the_same(tmp_path):
    s = sharpness.Settings(
        samples=8, max_iterations=4, probes=2, flatness_probes=2, starts=1, folded=False
    )

    def measure(partial):
        subject = Subject((Stored(1), Stored(2)), partial, tiny_task())
        return sharpness.measure(subject, s).frame.to_csv()

    assert interrupted(measure, tmp_path, 2) == measure(Partial(None))


@pytest.fixture
def solutions():
    """Task and two small networks that declare symmetries and have batch norms."""
    task = Task("clouds", {"architecture": "pointnet"}, Clouds(), torch.device("cpu"))
    return task, [pointnet(seed) for seed in (1, 2)]


def pointnet(seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = models.build("pointnet", {"num_outputs": 3}, SMALL["pointnet"])
        for module in model.modules():
            if hasattr(module, "running_mean"):
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.5, 2)
    return model.eval()


def test_symmetry_killed_between_its_stages_is_the_same(tmp_path, solutions):
    task, (model, _) = solutions
    s = symmetry.Settings(samples=4, batch_size=4, eigenvectors=1, max_iterations=4)

    def measure(partial):
        return json.dumps(list(symmetry.rows_of(task, model, s, partial)))

    # the eigenvectors of a mode within its stage, the other mode's, then the permutations
    assert interrupted(measure, tmp_path, 4) == measure(Partial(None))


def test_connectivity_killed_between_its_stages_is_the_same(tmp_path, solutions):
    task, networks = solutions
    s = connectivity.Settings(
        samples=None, batch_size=4, points=3, restarts=1, bend_steps=3, plane=2
    )
    setup = connectivity.Setup.of(task, s)
    before = [{k: v.clone() for k, v in n.state_dict().items()} for n in networks]

    def measure(partial):
        rows = list(connectivity.compare(setup, *networks, partial.stage))
        return json.dumps(rows)

    # alignment, three ends with and without reset, bend, its two paths, two planes
    cut = interrupted(measure, tmp_path, 12)
    assert cut == measure(Partial(None))
    for network, state in zip(networks, before, strict=True):
        assert all(torch.equal(v, state[k]) for k, v in network.state_dict().items())


@pytest.mark.parametrize(
    "value",
    [
        {"a": [1, 2.5, None, True, "x"], "b": (1.0, float("inf"))},
        np.array([[1.0, np.nan], [np.inf, -0.0]]),
        np.array([True, False]),
        np.float64(0.1),
        [np.arange(3), {"t": np.zeros((0, 2))}],
    ],
)
def test_values_come_back_with_their_bits(tmp_path, value):
    partial = Partial(tmp_path, least=0)
    partial.stage("v", lambda: value)
    found = partial.stage("v", lambda: pytest.fail("computed again"))
    np.testing.assert_equal(found, value)


def test_tensors_come_back_and_views_are_cut_out(tmp_path):
    whole = torch.arange(100_000.0)
    partial = Partial(tmp_path, least=0)
    partial.stage("v", lambda: whole[:3])
    assert torch.equal(partial.stage("v", lambda: None), whole[:3])
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.stage")) < 5000


def test_a_damaged_file_or_a_folder_that_refuses_costs_time_only(tmp_path):
    partial = Partial(tmp_path, least=0)
    partial.stage("v", lambda: 1)
    (path,) = tmp_path.rglob("*.stage")
    for damaged in (b"", path.read_bytes()[:-1], b"x" * 100):
        path.write_bytes(damaged)
        assert partial.stage("v", lambda: 2) == 2
        assert partial.stage("v", lambda: 3) == 2
    (tmp_path / "file").touch()
    assert Partial(tmp_path / "file", least=0).stage("v", lambda: 4) == 4


def test_a_short_stage_is_not_kept(tmp_path):
    partial = Partial(tmp_path, least=1.0)
    assert partial.stage("v", lambda: 1) == 1
    assert partial.stage("v", lambda: 2) == 2
