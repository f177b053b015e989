"""Nearest neighbors against all pairwise distances in float64 and a k-d tree."""

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from equiscape.errors import ConfigError
from equiscape.ops import neighbors as module
from equiscape.ops.neighbors import knn, smallest


def cloud(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("channels", [1, 2, 3, 5, 64])
@pytest.mark.parametrize("include_self", [False, True])
def test_equals_brute_force(channels, include_self):
    x = cloud(3, 40, channels)
    distance = (x.unsqueeze(2) - x.unsqueeze(1)).square().sum(-1)
    order = distance.argsort(dim=2)  # every point is its own nearest
    expected = order[:, :, :6] if include_self else order[:, :, 1:7]
    assert torch.equal(knn(x, 6, include_self), expected)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_float32_equals_a_tree_in_three_dimensions(scale):
    x = cloud(2, 500, 3, dtype=torch.float32) * scale
    found = knn(x, 8, include_self=False)
    for points, indices in zip(x.numpy().astype(np.float64), found.numpy()):
        expected = cKDTree(points).query(points, 9)[0][:, 1:]
        chosen = np.linalg.norm(points[indices] - points[:, None], axis=-1)
        np.testing.assert_allclose(chosen, expected, rtol=1e-5)


def test_float32_features_err_only_within_the_documented_rounding():
    x = cloud(2, 300, 64, dtype=torch.float32) + 5.0  # an offset that products would lose
    found = knn(x, 10, include_self=True)
    exact = (x.double().unsqueeze(2) - x.double().unsqueeze(1)).square().sum(-1)
    chosen = exact.gather(2, found)
    best = exact.topk(10, dim=2, largest=False).values
    radius = (x - x.mean(1, keepdim=True)).double().square().sum(-1).max()
    assert (chosen - best).abs().max() < 2e-6 * radius


@pytest.mark.parametrize(("n", "k"), [(512, 9), (512, 64), (520, 20), (1000, 16), (1023, 20)])
def test_the_smallest_of_a_long_row_are_those_of_a_sorted_one(n, k):
    generator = torch.Generator().manual_seed(n)
    values = torch.randn(3, 7, n, generator=generator, dtype=torch.float64)
    values[0, :, ::5] = torch.inf
    values[1, :, 3] = -torch.inf
    values[2] = values[2].sort(descending=True).values  # all of them in the same parts
    assert torch.equal(smallest(values, k), values.argsort(dim=-1)[..., :k])


def test_of_equal_values_any_are_the_smallest():
    values = torch.randint(4, (2, 50, 512), generator=torch.Generator().manual_seed(0)).float()
    found = smallest(values, 20)
    assert (found.sort().values.diff() > 0).all()  # no place twice
    assert torch.equal(values.gather(-1, found), values.sort().values[..., :20])


def test_chunks_change_nothing(monkeypatch):
    x = cloud(5, 30, 3)
    whole = knn(x, 4, include_self=True)
    monkeypatch.setattr(module, "chunk_size", lambda device: 2 * 30 * 30)
    assert torch.equal(knn(x, 4, include_self=True), whole)


def test_self_comes_first_or_never_even_among_duplicates():
    x = cloud(1, 10, 3).repeat(1, 3, 1)  # every point three times
    own = torch.arange(30).view(1, 30, 1)
    with_self = knn(x, 5, include_self=True)
    assert torch.equal(with_self[..., :1], own)
    without = knn(x, 5, include_self=False)
    assert not (without == own).any()
    assert torch.equal(without[..., :2].sort(-1).values % 10, (own % 10).expand(-1, -1, 2))


def test_too_few_points_is_one_clear_sentence():
    x = cloud(1, 5, 3)
    assert knn(x, 5, include_self=True).shape == (1, 5, 5)
    with pytest.raises(ConfigError, match=r"model\.k: 5 neighbors .* offers 4"):
        knn(x, 5, include_self=False)
