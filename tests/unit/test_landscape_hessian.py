"""The whole measurement against the dense Hessian of a tiny network."""

import json

import numpy as np
import pytest
import torch
from test_landscape_objective import exact
from tiny_task import TinyNetwork, tiny_network, tiny_task

from equiscape.analyses import hessian
from equiscape.errors import ConfigError
from equiscape.registry import call

SETTINGS = {
    "samples": None,
    "batch_size": 5,
    "seed": 3,
    "dtype": "float64",
    "tolerance": 1e-10,
    "max_iterations": 150,
    "probes": 16,
}


def measure_hessian(task, model, settings, *progress):
    checked = call(hessian.Settings, "analyses.hessian", settings)
    return hessian.measure_hessian(task, model, checked, *progress)


def eigenvalues():
    return torch.linalg.eigvalsh(exact(tiny_task(), tiny_network())[2]).numpy()[::-1]


def test_lanczos_matches_the_dense_hessian():
    result = measure_hessian(tiny_task(), tiny_network(), SETTINGS)
    truth = eigenvalues()
    ours = [pair["value"] for pair in result["eigenvalues"]]
    np.testing.assert_allclose(ours, truth[:10], rtol=1e-8, atol=1e-10)
    assert result["largest"]["value"] == pytest.approx(truth[0], rel=1e-10)
    assert result["smallest"]["value"] == pytest.approx(truth[-1], rel=1e-8)
    assert truth[-1] < 0  # the network is not at a minimum: the negative end is tested
    assert all(pair["residual"] < 1e-9 for pair in result["eigenvalues"])
    assert result["lanczos"]["converged"]
    spread = 4 * result["trace"]["standard_error"]
    assert result["trace"]["value"] == pytest.approx(truth.sum(), abs=spread)
    assert result["loss_value"] == pytest.approx(exact(tiny_task(), tiny_network())[0].item())


def test_the_density_matches_the_dense_hessian():
    settings = {**SETTINGS, "density_probes": 24, "density_steps": 30}
    density = measure_hessian(tiny_task(), tiny_network(), settings)["density"]
    truth = eigenvalues()
    for points, share, error in zip(
        density["thresholds"], density["share"], density["share_standard_error"], strict=True
    ):
        near = np.abs(truth - points).min() < 1e-6  # where rounding decides the side
        exact_share = (truth <= points).mean()
        assert near or abs(share - exact_share) <= 5 * error + 1e-12
    area = np.trapezoid(density["density"], density["points"])
    assert area == pytest.approx(1, abs=0.01)
    assert len(density["exact"]) == 11
    assert measure_hessian(tiny_task(), tiny_network(), {**SETTINGS, "density_probes": 0}).get(
        "density"
    ) is None  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_intervals_hold_the_truth_and_say_whether_the_sign_is_known(dtype):
    settings = {**SETTINGS, "tolerance": 1e-3, "dtype": dtype}
    result = measure_hessian(tiny_task(), tiny_network(), settings)
    for pair in [*result["eigenvalues"], result["smallest"], result["power_iteration"]]:
        assert pair["low"] <= pair["value"] - pair["residual"]
        assert pair["high"] >= pair["value"] + pair["residual"]
        assert pair["sign_known"] == (pair["low"] > 0 or pair["high"] < 0)
    truth = eigenvalues()
    for pair, value in zip(result["eigenvalues"], truth, strict=False):
        assert pair["low"] <= value <= pair["high"]
    assert result["smallest"]["low"] <= truth[-1] <= result["smallest"]["high"]
    assert result["lanczos"]["copies"] == "one a start vector"


def test_power_iteration_agrees_with_lanczos():
    # Power iteration gains a factor |second / first eigenvalue| a step, Lanczos far more.
    settings = {**SETTINGS, "tolerance": 1e-5, "max_iterations": 3000}
    power = measure_hessian(tiny_task(), tiny_network(), {**settings, "method": "power"})
    lanczos = measure_hessian(tiny_task(), tiny_network(), settings)
    assert power["power_iteration"]["converged"]
    assert lanczos["power_iteration"] == power["power_iteration"]
    for end in ("largest", "smallest"):
        assert power[end]["converged"]
        assert power[end]["value"] == pytest.approx(lanczos[end]["value"], rel=1e-5)
    spread = 4 * power["trace"]["standard_error"]
    assert power["trace"]["value"] == pytest.approx(lanczos["trace"]["value"], abs=spread)


def test_everything_is_stated():
    result = measure_hessian(tiny_task(), tiny_network(), {**SETTINGS, "samples": 8})
    assert result["data"] == {
        "split": "train",
        "samples": 8,
        "batch_size": 5,
        "seed": 3,
        "classes": len(tiny_task().dataset.y[result_indices()].unique()),
    }
    assert result["batch_norm"] == "eval"
    assert result["loss"] == "mean cross entropy without label smoothing"
    assert result["dtype"] == "float64"
    assert result["parameters"] == sum(p.numel() for p in tiny_network().parameters())
    assert result["parameters_without_gradient"] == ["unused.weight", "unused.bias"]
    counted = (
        result["lanczos"]["iterations"]
        + result["power_iteration"]["iterations"]
        + result["trace"]["products"]
        + result["density"]["products"]
        + result["adaptive"]["products"]
    )
    assert result["products_total"] == counted
    json.dumps(result, allow_nan=False)


def result_indices():
    return torch.cat(tiny_task().subset("train", 8, 3, 5))


def test_what_has_not_converged_says_so():
    result = measure_hessian(
        tiny_task(), tiny_network(), {**SETTINGS, "eigenvalues": 3, "max_iterations": 3}
    )
    assert not result["lanczos"]["converged"]
    assert not result["power_iteration"]["converged"]
    assert not all(pair["converged"] for pair in result["eigenvalues"])


def test_the_same_seed_gives_the_same_numbers():
    settings = {**SETTINGS, "dtype": "float32", "tolerance": 1e-3}
    first, again = (measure_hessian(tiny_task(), tiny_network(), settings) for _ in range(2))
    first.pop("seconds"), again.pop("seconds")
    assert first == again


def test_the_adaptive_eigenvalue_matches_the_dense_one():
    result = measure_hessian(tiny_task(), tiny_network(), SETTINGS)
    matrix = exact(tiny_task(), tiny_network())[2]
    t = torch.cat([p.detach().flatten() for p in tiny_network().parameters()]).double().abs()
    truth = torch.linalg.eigvalsh(t[:, None] * matrix * t)[-1].item()
    assert result["adaptive"]["largest"]["value"] == pytest.approx(truth, rel=1e-8)


class Rectified(TinyNetwork):
    def forward(self, x):
        return self.head(torch.relu(self.first(x)))


def test_adaptive_sharpness_is_invariant_under_rescaling_and_the_plain_one_is_not():
    """A unit's incoming weights times a, outgoing over a: the same function (Dinh et al. 2017)."""
    torch.manual_seed(1)
    model, rescaled = Rectified(), Rectified()
    rescaled.load_state_dict(model.state_dict())
    a = torch.tensor([0.1, 0.5, 2.0, 4.0, 10.0])
    with torch.no_grad():
        rescaled.first.weight *= a[:, None]
        rescaled.first.bias *= a
        rescaled.head.weight /= a
    first, second = (measure_hessian(tiny_task(), m, SETTINGS) for m in (model, rescaled))
    assert first["loss_value"] == pytest.approx(second["loss_value"], rel=1e-6)
    adaptive = [r["adaptive"]["largest"]["value"] for r in (first, second)]
    assert adaptive[0] == pytest.approx(adaptive[1], rel=1e-5)
    assert second["largest"]["value"] > 3 * first["largest"]["value"]


def test_progress_is_reported():
    lines = []
    measure_hessian(tiny_task(), tiny_network(), SETTINGS, lines.append)
    assert any("trace" in line for line in lines)


@pytest.mark.parametrize(
    ("key", "value"),
    [("method", "newton"), ("eigenvalues", 0), ("probes", 1), ("dtype", "half"), ("sampels", 3)],
)
def test_bad_settings_name_their_key(key, value):
    with pytest.raises(ConfigError, match=f"hessian.*{key}"):
        measure_hessian(tiny_task(), tiny_network(), {**SETTINGS, key: value})
