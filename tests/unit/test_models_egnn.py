"""EGNN: the group E(3), and the equations of the paper one edge at a time."""

import pytest
import torch
from test_models_pointclouds import clouds, tiny

from equiscape.models.egnn import EGNNLayer
from equiscape.ops.neighbors import Graph, knn


def orthogonal(determinant, seed=5):
    """A random orthogonal 3 x 3 matrix with the given determinant."""
    generator = torch.Generator().manual_seed(seed)
    q, r = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))
    q = q * r.diagonal().sign()
    q[:, 0] *= torch.linalg.det(q) * determinant
    return q


SHIFT = torch.tensor([3.0, -7.0, 2.0], dtype=torch.float64)


@pytest.mark.parametrize("determinant", [1.0, -1.0])
@pytest.mark.parametrize("shift", [torch.zeros_like(SHIFT), SHIFT])
def test_invariant_logits_and_equivariant_coordinates(determinant, shift):
    model, points = tiny("egnn"), clouds()
    rotation = orthogonal(determinant)
    with torch.no_grad():
        torch.testing.assert_close(
            model(points @ rotation.T + shift), model(points), rtol=0, atol=1e-8
        )
        h, trajectory = model.embed(points)
        moved_h, moved = model.embed(points @ rotation.T + shift)
        torch.testing.assert_close(moved_h, h, rtol=0, atol=1e-8)
        assert len(trajectory) == 3
        for before, after in zip(trajectory, moved):
            torch.testing.assert_close(after, before @ rotation.T + shift, rtol=0, atol=1e-8)


def test_coordinates_move_in_all_layers_but_the_last():
    model, points = tiny("egnn"), clouds()
    with torch.no_grad():
        _, (first, second, last) = model.embed(points)
    assert (first - points).abs().max() > 1e-3
    assert (second - first).abs().max() > 1e-3
    assert torch.equal(last, second)


def test_a_layer_equals_its_equations_edge_by_edge():
    torch.manual_seed(0)
    layer = EGNNLayer(5).double()
    h, x = torch.randn(2, 7, 5, dtype=torch.float64), clouds(2, 7)
    neighbors = knn(x, 3, include_self=False)
    new_h, new_x = layer(h, x, Graph(neighbors))
    for b in range(2):
        for i in range(7):
            messages, update = torch.zeros(5), torch.zeros(3)
            for j in neighbors[b, i]:
                r = x[b, i] - x[b, j]
                m = layer.phi_e(torch.cat([h[b, i], h[b, j], (r @ r).view(1)]))
                messages = messages + m
                update = update + r * layer.phi_x(m) / 3
            torch.testing.assert_close(new_x[b, i], x[b, i] + update, rtol=1e-9, atol=1e-9)
            update = layer.phi_h(torch.cat([h[b, i], messages]))
            torch.testing.assert_close(new_h[b, i], h[b, i] + update, rtol=1e-9, atol=1e-9)
