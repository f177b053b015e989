"""The count of flat directions against singular values of Jacobians of tiny networks."""

import pytest
import test_symmetries as networks
import torch
from test_symmetries import COUNTS, jacobian, network, null_space, rank, span, state_of
from torch import nn

from equiscape import symmetries as sym
from equiscape.landscape import flat
from equiscape.landscape.flat import flat_directions
from equiscape.models import gotennet, molecular_heads


def declared(model):
    """What keeps the output of a network in eval mode exactly."""
    return [
        s
        for s in model.symmetries()
        if isinstance(s, sym.Continuous) and s.holds(False) and s.exact and s.invariant == "output"
    ]


@pytest.mark.parametrize("case", COUNTS)
def test_it_is_the_rank_of_all_generators(case):
    model, _ = network(case, 20)
    state = state_of(model)
    found = flat_directions(state, declared(model))
    generators = span(model, state)
    unused = [n for n in ("start.atom.weight", "start.neighbor.weight") if n in state]
    rows = len(generators) - sum(state[n].shape[1] for n in unused)  # of an element without data
    assert found == flat.Flat(rank(generators[:rows]), exact=True)


@pytest.mark.parametrize("case", ["pointnet", "dgcnn", "egnn", "gine-relu-norm", "gine-norm"])
@pytest.mark.parametrize("frozen", [False, True], ids=["all", "frozen"])
def test_it_is_the_null_space_of_the_jacobian_of_the_free_parameters(case, frozen, monkeypatch):
    for module in (gotennet, molecular_heads):
        monkeypatch.setattr(module, "STABLE", 0.1)
    model, inputs = network(case)
    state = state_of(model)
    norms = [
        name for name, m in model.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)
    ]
    held = [f"{name}.weight" for name in norms] + ["embedding.bias"]
    held = [name for name in held if name in dict(model.named_parameters())] if frozen else []
    free = torch.cat(
        [torch.full((p.numel(),), name not in held) for name, p in model.named_parameters()]
    )
    matrix = jacobian(model, state, inputs)[:, free]
    assert flat_directions(state, declared(model), held).count == null_space(matrix)


def test_the_softmax_adds_a_direction_for_every_input_of_the_head():
    model, inputs = network("pointnet")
    state = state_of(model)
    all_of_them = [s for s in model.symmetries() if isinstance(s, sym.Continuous)]
    held = [s for s in all_of_them if s.holds(False) and s.exact]
    matrix = jacobian(model, state, inputs).view(200, 3, -1)
    matrix = (matrix - matrix.mean(1, keepdim=True)).flatten(0, 1)
    assert flat_directions(state, held).count == null_space(matrix) == COUNTS["pointnet"] + 5 + 1


def test_directions_that_two_symmetries_share_count_once():
    state = {"a.weight": torch.randn(4, 3), "b.weight": torch.randn(2, 4)}
    up, down = sym.rows("a", biased=False), sym.columns("b", 0)
    one = sym.scale("one", "neuron scale", 4, up, down)
    same = sym.scale("same", "neuron scale", 4, down, up)  # the inverse elements
    assert flat_directions(state, [one]).count == 4
    assert flat_directions(state, [one, same]).count == 4
    assert flat_directions(state, [one], frozen=["b.weight"]).count == 0
    assert flat_directions(state, []).count == 0
    state["a.weight"][1], state["b.weight"][:, 1] = 0, 0  # a dead neuron has no scale
    assert flat_directions(state, [one]).count == 3


def test_a_symmetry_too_large_for_a_matrix_is_taken_as_declared(monkeypatch):
    monkeypatch.setattr(flat, "LARGEST", 10)
    model, _ = network("gotennet", 20)
    state = state_of(model)
    found = flat_directions(state, declared(model))
    assert not found.exact
    assert found.count >= networks.rank(span(model, state)) - 6
