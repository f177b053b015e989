"""Single declarations: elements, generators, blocks, and controls that are no symmetry."""

import pytest
import torch
from test_symmetries import distance, network, output, state_of

from equiscape import symmetries as sym


def test_a_neuron_whose_activation_is_not_homogeneous_has_no_scale():
    model, inputs = network("egnn")
    state = state_of(model)
    wrong = sym.scale(
        "wrong",
        "neuron scale",
        3,
        sym.rows("layers.1.phi_h.0"),
        sym.columns("layers.1.phi_h.2", 0),
    )
    after = output(model, wrong.act(state, torch.full((3,), 0.5).double()), inputs)
    assert distance(wrong, output(model, state, inputs), after) > 1e-3


def test_one_channel_of_an_edge_convolution_changes_the_graph_but_not_the_derivative():
    model, inputs = network("dgcnn")
    state = state_of(model)
    (found,) = [s for s in model.symmetries() if s.name == "edges.0.linear neuron scale"]
    assert found.uniform
    one = torch.tensor([3.0, 0.0, 0.0], dtype=torch.float64)
    after = output(model, found.act(state, one), inputs)
    assert distance(found, output(model, state, inputs), after) > 1e-3
    after = output(model, found.act(state, 1e-8 * one), inputs)
    assert distance(found, output(model, state, inputs), after) < 1e-12


def test_the_generator_is_the_derivative_of_the_element_and_can_be_differentiated():
    model, _ = network("egnn")
    state, generator = state_of(model), torch.Generator().manual_seed(3)
    for symmetry in model.symmetries():
        if not isinstance(symmetry, sym.Continuous):
            continue
        coefficients = symmetry.draw(generator)
        X = symmetry.generator(state, coefficients)
        step = 1e-6
        after, before = (symmetry.act(state, s * step * coefficients) for s in (1, -1))
        for name, value in X.items():
            torch.testing.assert_close(
                value, (after[name] - before[name]) / (2 * step), rtol=1e-6, atol=1e-7
            )
        # (DX)^T g against a difference of X along a random direction
        theta = {n: t.clone().requires_grad_() for n, t in state.items()}
        g = {n: torch.randn(t.shape, generator=generator).double() for n, t in X.items()}
        inner = sum((symmetry.generator(theta, coefficients)[n] * g[n]).sum() for n in g)
        v = {n: torch.randn(t.shape, generator=generator).double() for n, t in state.items()}
        pulled = (
            torch.autograd.grad(inner, list(theta.values()), allow_unused=True)
            if (inner.requires_grad)
            else [None] * len(theta)
        )
        along = sum((p * v[n]).sum() for n, p in zip(theta, pulled) if p is not None)
        ends = [
            symmetry.generator({n: t + s * step * v[n] for n, t in state.items()}, coefficients)
            for s in (1, -1)
        ]
        truth = sum(((ends[0][n] - ends[1][n]) * g[n]).sum() for n in g) / (2 * step)
        assert float(along) == pytest.approx(float(truth), rel=1e-6, abs=1e-6), symmetry.name


def test_permutations_keep_their_blocks_and_move_whole_widths():
    state = {"w": torch.arange(8.0), "m": torch.arange(16.0).view(2, 8)}
    ties = (sym.Tie("w"), sym.Tie("m", 1))
    blocks = sym.permutation("p", 8, ties, blocks=(4, 4))
    orders = {tuple(blocks.draw(torch.Generator().manual_seed(i)).tolist()) for i in range(20)}
    assert len(orders) > 1
    assert all(sorted(order[:4]) == [0, 1, 2, 3] for order in orders)
    wide = sym.permutation("q", 2, [sym.Tie("w", 0, 2, width=3), sym.Tie("m", 1, 0, width=2)])
    after = wide.act(state, torch.tensor([1, 0]))
    assert after["w"].tolist() == [0, 1, 5, 6, 7, 2, 3, 4]
    assert after["m"][0].tolist() == [2, 3, 0, 1, 4, 5, 6, 7]
    order = torch.tensor([3, 1, 0, 2, 7, 6, 5, 4])
    assert torch.equal(blocks.act(state, order)["w"], state["w"][order])
