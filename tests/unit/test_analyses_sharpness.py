"""The analysis of sharpness against dense matrices of a tiny network."""

import json
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
import torch
from fake_envelope import envelope
from test_landscape_invariance import case, moved
from test_landscape_objective import dense, exact
from tiny_task import TinyNetwork, tiny_network, tiny_task

from equiscape.analyses import sharpness
from equiscape.analyses.partial import NOTHING, Partial
from equiscape.analyses.result import write
from equiscape.landscape.objective import TrainingLoss
from equiscape.report.load import read_csv
from equiscape.report.manifest import Product
from equiscape.report.pages import sharpness as page

SETTINGS = sharpness.Settings(
    samples=None,
    batch_size=5,
    tolerance=1e-9,
    max_iterations=150,
    probes=200,
    flatness_probes=200,
    starts=3,
    dtype="float64",
)


@dataclass
class Stored:
    """A checkpoint without a file."""

    seed: int
    optimizer: str
    network: TinyNetwork

    def model(self):
        return self.network.eval()


@dataclass
class Subject:
    task: object
    checkpoints: tuple
    partial: Partial = NOTHING


def table(seeds=(3,), settings=SETTINGS):
    checkpoints = tuple(Stored(seed, "adam", tiny_network(seed).double()) for seed in seeds)
    return sharpness.measure(Subject(tiny_task(), checkpoints), settings)


@pytest.fixture(scope="module")
def result():
    return table()


def value(frame, measure, folded=True, layer="all"):
    chosen = (frame.measure == measure) & (frame.folded == folded) & (frame.layer == layer)
    (row,) = frame[chosen].itertuples()
    return row


def test_the_raw_kinds_match_the_dense_hessian(result):
    frame = result.frame
    h = exact(tiny_task(), tiny_network(3))[2]
    theta = torch.cat([p.detach().flatten() for p in tiny_network(3).parameters()]).double()
    scaled = theta.abs()[:, None] * h * theta.abs()
    for name, matrix in (("hessian", h), ("adaptive", scaled)):
        found = value(frame, f"{name}_largest", folded=False)
        assert found.value == pytest.approx(torch.linalg.eigvalsh(matrix)[-1].item(), rel=1e-8)
        assert found.converged
        trace = value(frame, f"{name}_trace", folded=False)
        assert abs(trace.value - matrix.trace().item()) < 5 * trace.residual + 1e-9


def test_the_folded_kinds_match_dense_matrices(result):
    frame, task = result.frame, tiny_task()
    model, frozen = sharpness.folded(
        task, tiny_network(3).double(), next(loss_of(task, tiny_network(3)).batches())
    )
    objective = loss_of(task, model, frozen)
    _, gradient = objective.value_and_gradient()
    theta, h = objective.vector(), dense(objective)
    log = theta[:, None] * h * theta + torch.diag(theta * gradient)
    found = value(frame, "log_hessian_largest")
    assert found.value == pytest.approx(torch.linalg.eigvalsh(log)[-1].item(), rel=1e-8)
    sizes = [p.numel() for p in objective.parameters]
    start = sum(sizes[: objective.names.index("head.weight")])
    w, block = model.head.weight.detach(), h[start : start + 15, start : start + 15]
    kappa = torch.einsum("aj,bj,aibi->", w, w, block.view(3, 5, 3, 5)).item()
    flat = value(frame, "relative_flatness", layer="head")
    assert abs(flat.value - kappa) < 5 * flat.residual
    along = value(frame, "directional_gradient", layer="whole")
    assert along.value == pytest.approx(
        (gradient @ h @ gradient / (gradient @ gradient)).item(), rel=1e-8
    )


def loss_of(task, model, frozen=()):
    return TrainingLoss(
        task, model, samples=None, batch_size=5, seed=0, dtype="float64", frozen=frozen
    )


def test_hessian_is_gauss_newton_and_rest(result):
    """Traces add up; the largest eigenvalues are bounded by the sum (Weyl)."""
    frame = result.frame
    names = ("hessian_largest", "gauss_newton_largest", "rest_largest")
    hessian, gauss_newton, rest = (value(frame, name).value for name in names)
    assert hessian <= gauss_newton + rest + 1e-9
    assert value(frame, "gauss_newton_trace").value > 0
    assert value(frame, "rest_smallest").value < 0


def test_a_row_for_each_seed_and_form(result):
    frame = result.frame
    assert list(frame.columns) == list(sharpness.COLUMNS)
    assert not frame.duplicated(["seed", "folded", "measure", "layer"]).any()
    assert np.isfinite(frame.value).all()
    counted = frame["measure"].isin(sharpness.FACTS)
    assert (frame[~counted]["products"] > 0).all()
    assert set(frame[~frame["folded"] & ~counted]["measure"]) == set(sharpness.RAW)
    two = table(seeds=(3, 4), settings=sharpness.Settings(samples=6, batch_size=3, probes=2)).frame
    assert set(two.seed) == {3, 4}
    json.dumps(dict(result.units))


def test_the_report_reads_what_is_written(result, tmp_path):
    path = tmp_path / "sharpness" / "tiny_adam.csv"
    write(path, result, envelope(Product(path, "tiny", "adam"), "sharpness"))
    frame = read_csv(path, page.COLUMNS)
    assert len(frame) == len(result.frame)
    assert set(frame.optimizer) == {"adam"}
    known = {row.measure for row in result.frame.itertuples() if row.layer == "all"}
    assert set(page.MEASURES) - {"spectral_step", "spectral_relative"} <= known


def test_facts_count_parameters_norms_and_directions():
    """PointNet by hand: two directions a channel, of which folding takes the norm's, and 8 logits'.

    The softmax adds one direction for each of the 5 inputs of the head and one for its bias.
    """
    task, model = case("pointnet")
    small = sharpness.Settings(
        samples=None, batch_size=12, dtype="float64", probes=2, flatness_probes=2, starts=1,
        directions=0, max_iterations=2,
    )  # fmt: skip
    frame = pd.DataFrame(sharpness.measure_sharpness(task, model, small))
    channels, size = 4 + 6 + 5 + 5, sum(p.numel() for p in model.parameters())
    norms = sum("running_mean" in name for name in model.state_dict())
    assert value(frame, "flat_directions", folded=False).value == 2 * channels + 6
    assert value(frame, "flat_directions").value == channels + 6
    assert value(frame, "parameters", folded=False).value == size
    assert value(frame, "parameters").value == size - channels
    assert value(frame, "folded_norms").value == norms
    plain = table(settings=sharpness.Settings(samples=6, batch_size=3, probes=2)).frame
    assert (plain[plain["measure"] == "flat_directions"]["value"] == 0).all()  # declares nothing
    assert value(plain, "folded_norms").value == 1


def test_one_form_alone():
    small = {"samples": 6, "batch_size": 3, "probes": 2}
    raw = table(settings=sharpness.Settings(**small, folded=False)).frame
    assert not raw.folded.any()
    assert "fisher_rao" in set(raw.measure)
    assert table(settings=sharpness.Settings(**small, raw=False)).frame.folded.all()


INVARIANT = ("adaptive_largest", "adaptive_trace", "log_hessian_largest", "fisher_rao")


def test_the_same_function_has_the_same_folded_sharpness_and_another_raw_one():
    """PointNet under every declared symmetry at once, in the rows that claim not to see it."""
    task, model = case("pointnet")
    other = moved(task, model, lambda family: True)
    settings = sharpness.Settings(samples=None, batch_size=12, dtype="float64", probes=4)
    frames = [pd.DataFrame(sharpness.measure_sharpness(task, m, settings)) for m in (model, other)]
    for name in INVARIANT:
        before, after = (value(frame, name).value for frame in frames)
        assert after == pytest.approx(before, rel=1e-6), name
    for name in ("hessian_largest", "filterwise_largest"):
        before, after = (value(frame, name).value for frame in frames)
        assert abs(np.log(after / before)) > 0.01, name
    before, after = (value(frame, "adaptive_largest", folded=False).value for frame in frames)
    assert abs(np.log(after / before)) > 0.01


@pytest.mark.parametrize("name", ["egnn", "gotennet", "gine-relu-norm"])
def test_it_runs_on_every_kind_of_network(name):
    task, model = case(name)
    small = sharpness.Settings(
        samples=None, batch_size=12, dtype="float64", probes=2, flatness_probes=2, starts=1,
        directions=1, max_iterations=5,
    )  # fmt: skip
    rows = sharpness.measure_sharpness(task, model, small)
    assert {row["folded"] for row in rows} == {True, False}
    assert all(np.isfinite(row["value"]) for row in rows)
    layers = {row["layer"] for row in rows if row["measure"] == "relative_flatness"}
    assert layers
    assert not any("table" in layer or layer == "start.atom" for layer in layers)
