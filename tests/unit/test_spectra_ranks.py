"""Stable and effective rank against closed forms."""

import numpy as np
import pytest
import torch
from tiny_task import tiny_network, tiny_task

from equiscape.analyses.rank import Settings
from equiscape.data.base import Batch
from equiscape.errors import ConfigError
from equiscape.registry import call
from equiscape.spectra.activations import collect_representations
from equiscape.spectra.ranks import (
    effective_rank,
    measure_ranks,
    singular_values,
    stable_rank,
    weight_matrices,
)

SETTINGS = {"samples": None, "batch_size": 5, "seed": 0}


def both(matrix):
    values = singular_values(torch.as_tensor(matrix))
    return stable_rank(values), effective_rank(values)


@pytest.mark.parametrize("n", [1, 3, 40])
def test_the_identity_has_full_rank(n):
    assert both(torch.eye(n)) == pytest.approx((n, n), rel=1e-12)


def test_rank_one():
    assert both(torch.outer(torch.arange(1.0, 9), torch.ones(5))) == pytest.approx((1, 1), abs=1e-6)
    assert stable_rank([3.0, 0, 0]) == effective_rank([3.0, 0, 0]) == 1.0


def test_the_zero_matrix_has_rank_zero():
    assert both(torch.zeros(4, 3)) == (0.0, 0.0)


def test_two_values_by_hand():
    assert stable_rank([2.0, 1.0]) == pytest.approx(1.25)
    entropy = -(2 / 3) * np.log(2 / 3) - (1 / 3) * np.log(1 / 3)
    assert effective_rank([2.0, 1.0]) == pytest.approx(np.exp(entropy))


@pytest.mark.parametrize("ratio", [0.3, 0.9])
def test_geometric_decay(ratio):
    """s_i = q^i: geometric series, and the entropy of a geometric law, up to a tail below 1e-12."""
    s = ratio ** np.arange(400)
    assert stable_rank(s) == pytest.approx(1 / (1 - ratio**2), rel=1e-12)
    entropy = -(ratio * np.log(ratio) + (1 - ratio) * np.log(1 - ratio)) / (1 - ratio)
    assert effective_rank(s) == pytest.approx(np.exp(entropy), rel=1e-12)


def test_orthogonal_transforms_and_scale_change_nothing():
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(12, 7, generator=generator, dtype=torch.float64)
    left = torch.linalg.qr(torch.randn(12, 12, generator=generator, dtype=torch.float64))[0]
    right = torch.linalg.qr(torch.randn(7, 7, generator=generator, dtype=torch.float64))[0]
    expected = both(matrix)
    assert both(left @ matrix @ right) == pytest.approx(expected, rel=1e-12)
    assert both(1e-6 * matrix) == pytest.approx(expected, rel=1e-12)
    assert both(matrix.T) == pytest.approx(expected, rel=1e-12)


def test_extreme_scales_do_not_overflow():
    assert stable_rank([1e300, 1e300]) == effective_rank([1e300, 1e300]) == pytest.approx(2.0)
    assert stable_rank([1e-300, 1e-300]) == pytest.approx(2.0)


def test_bounds_hold_on_random_matrices():
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        stable, effective = both(torch.randn(9, 6, generator=generator))
        assert 1 <= stable <= effective <= 6


def test_what_is_not_finite_has_no_rank():
    matrix = torch.eye(3)
    matrix[0, 1] = float("nan")
    assert np.isnan(both(matrix)).all()


def test_the_table_has_every_matrix_and_every_layer():
    table = measure_ranks(tiny_task(), tiny_network(), **SETTINGS).frame()
    assert list(table.columns) == [
        "layer",
        "kind",
        "rows",
        "columns",
        "stable_rank",
        "effective_rank",
    ]
    assert list(table.iloc[:, :4].itertuples(index=False, name=None)) == [
        ("first", "weight", 5, 4),
        ("unused", "weight", 2, 2),
        ("head", "weight", 3, 5),
        ("first", "representation", 13, 5),
        ("head", "representation", 13, 3),
    ]
    model = tiny_network()
    expected = both(model.first.weight.detach())
    assert tuple(table.iloc[0][["stable_rank", "effective_rank"]]) == pytest.approx(expected)


def test_representations_are_what_the_layers_put_out():
    task, model = tiny_task(), tiny_network().train()
    found = collect_representations(task, model, None, 5, 0)
    assert model.training
    torch.testing.assert_close(found["first"], model.first(task.dataset.x).detach())
    torch.testing.assert_close(found["head"], model.eval()(task.dataset.x).detach())
    assert not model.first._forward_hooks


def test_points_and_nodes_are_averaged():
    task = tiny_task()
    points = torch.randn(2, 7, 3)
    dense = Batch((points,), torch.zeros(2), 2)
    torch.testing.assert_close(task.pool(points, dense), points.mean(1))
    graph = torch.tensor([0, 0, 1, 1, 1])
    nodes = torch.randn(5, 3)
    sparse = Batch((nodes,), torch.zeros(2), 2, graph)
    expected = torch.stack([nodes[:2].mean(0), nodes[2:].mean(0)])
    torch.testing.assert_close(task.pool(nodes, sparse), expected)


def test_kernels_are_flattened_to_rows_of_filters():
    matrices = weight_matrices(torch.nn.Conv1d(3, 8, 5))
    assert [tuple(m.shape) for m in matrices.values()] == [(8, 15)]


def test_bad_settings_name_their_key():
    with pytest.raises(ConfigError, match=r"rank.*sampels"):
        call(Settings, "analyses.rank", {"sampels": 3})
