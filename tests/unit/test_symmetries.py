"""Declared symmetries: the function stays, and on tiny networks no other flat direction is left."""

import pytest
import torch
from test_models_pointclouds import clouds
from torch import nn
from torch.func import functional_call, jacrev, vmap

from equiscape import symmetries as sym
from equiscape.models import build, gotennet, molecular_heads
from equiscape.models.pointnet import PooledLayer

CLOUDS = {
    "pointnet": {"channels": [4, 6, 5], "head": [5], "dropout": 0.0},
    "dgcnn": {"channels": [3, 4], "k": 4, "embedding": 5, "head": [4, 3], "dropout": 0.0},
    "egnn": {"hidden": 3, "layers": 3, "k": 4, "head": [4]},
}
SHALLOW = {
    "pointnet": {"channels": [4], "head": []},
    "dgcnn": {"channels": [3], "k": 3, "embedding": 4, "head": [], "dropout": 0.0},
    "egnn": {"hidden": 4, "layers": 1, "k": 3, "head": []},
}
GRAPHS = {
    "gine": {},
    "gine-norm": {"norm": True, "readout": "sum"},
    "gine-relu": {"activation": "relu"},
    "gine-relu-norm": {"activation": "relu", "norm": True},
    "gine-relu-plain": {"activation": "relu", "norm": True, "residual": False, "head": [3]},
    "gine-one": {"layers": 1, "residual": False, "head": [4]},
}
SMALL_GRAPHS = {"hidden": 4, "walk_channels": 2, "layers": 2, "head": [5], "dropout": 0.0}
TINY_GOTENNET = {"hidden": 3, "layers": 2, "heads": 1, "degrees": 1, "radial": 3, "dropout": 0.0}
MOLECULES = {
    "gotennet": {},
    "gotennet-dipole": {"head": "dipole", "layers": 1},
    "gotennet-extent": {"head": "spatial-extent", "layers": 1, "degrees": 2},
    "gotennet-heads": {"hidden": 6, "heads": 3, "degrees": 2},
    "gotennet-released": {"hidden": 8, "heads": 2, "degrees": 2, "value_heads": "concatenated"},
}
PERCEPTRONS = {
    "perceptron-tanh": {"activation": "tanh"},
    "perceptron-relu": {"activation": "relu"},
    "perceptron-silu": {"activation": "silu"},
}
DEEP = {"hidden": ["natural + 2 trivial", "2 natural"], "output_bias": True, "mode": "free"}
CASES = {
    **{name: (name, settings) for name, settings in CLOUDS.items()},
    **{name: ("permutation-mlp", DEEP | settings) for name, settings in PERCEPTRONS.items()},
    **{f"{name}-shallow": (name, settings) for name, settings in SHALLOW.items()},
    **{name: ("gotennet", TINY_GOTENNET | settings) for name, settings in MOLECULES.items()},
    **{name: ("gine", SMALL_GRAPHS | settings) for name, settings in GRAPHS.items()},
}
cases = pytest.mark.parametrize("case", CASES)
modes = pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])


SEEDS = {
    "pointnet": 2,
    "egnn": 1,
    "egnn-shallow": 2,
    "gine": 1,
    "gine-relu": 24,
    "gine-relu-norm": 5,
    "gine-relu-plain": 10,
    "gine-one": 1,
    "perceptron-relu": 15,
}  # no unit is always off: ReLUs are few


def graphs(count, seed=1):
    """Random directed graphs of 4 nodes with two features a node and an edge, and walks."""
    generator = torch.Generator().manual_seed(seed)
    nodes = 4 * count
    features, bonds = (torch.randint(0, 2, (n, 2), generator=generator) for n in (nodes, 3 * nodes))
    features[:, 0] = torch.randint(0, 3, (nodes,), generator=generator)
    targets = torch.randint(0, nodes, (3 * nodes,), generator=generator)  # of any in-degree
    sources = targets // 4 * 4 + torch.randint(0, 4, (3 * nodes,), generator=generator)
    walks = torch.rand(nodes, 3, generator=generator, dtype=torch.float64)
    graph = torch.arange(count).repeat_interleave(4)
    graph[-5:] = count - 1  # of two sizes
    return features, torch.stack([sources, targets]), bonds, walks, graph, count


ARGUMENTS = {
    "permutation-mlp": {"group": "S3", "inputs": "natural", "outputs": "2 trivial"},
    "gotennet": {"cutoff": 6.0, "elements": 4},
    "gine": {"node_categories": [3, 2], "edge_categories": [2, 2], "walk_steps": 3},
}


def molecules(count, atoms=4):
    """Molecules of 4 atoms of 3 elements, numbered from 1, all of them neighbors."""
    generator = torch.Generator().manual_seed(1)
    z = torch.randint(1, 4, (count * atoms,), generator=generator)
    positions = torch.randn(count * atoms, 3, generator=generator, dtype=torch.float64)
    pair = torch.cartesian_prod(torch.arange(atoms), torch.arange(atoms)).T
    edges = (pair.unsqueeze(1) + atoms * torch.arange(count).view(1, -1, 1)).flatten(1)
    graph = torch.arange(count).repeat_interleave(atoms)
    return z, positions, edges, graph, count, atoms


def samples(architecture, count):
    if architecture == "gotennet":
        return molecules(count)
    if architecture == "permutation-mlp":
        generator = torch.Generator().manual_seed(1)
        return (torch.randn(count, 3, generator=generator, dtype=torch.float64),)
    return graphs(count) if architecture == "gine" else (clouds(count, 10),)


def network(case, count=200):
    """A tiny network in float64 with generic weights and calibrated norms, and its inputs."""
    architecture, settings = CASES[case]
    torch.manual_seed(SEEDS.get(case, 0))
    inputs = samples(architecture, count)
    outputs = 1 if architecture == "gotennet" else 3
    known = {} if architecture == "permutation-mlp" else {"num_outputs": outputs}
    arguments = {**known, **ARGUMENTS.get(architecture, {})}
    model = build(architecture, arguments, settings).double()
    randomize(model)
    return calibrated(model, inputs), inputs


def randomize(model):
    """Away from initial values that are special: zero biases, unit scales, a tiny gate."""
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1 and name.endswith("bias"):
            nn.init.normal_(parameter, std=0.3)
        elif parameter.dim() == 1:
            nn.init.uniform_(parameter, 0.5, 1.5)
            parameter.data *= torch.randint(0, 2, parameter.shape) * 2 - 1
        elif "phi_x.2" in name or "table" in name:
            nn.init.normal_(parameter)
    for module in model.modules():
        if isinstance(module, PooledLayer):  # its maximum is below zero about as often as above
            module.norm.bias.data -= 1.5 * module.norm.weight.abs()


def calibrated(model, inputs):
    """Running statistics near the data's, so that no unit is always on or always off."""
    if any("running_mean" in name for name in model.state_dict()):
        model.train()
        with torch.no_grad():
            for _ in range(100):
                model(*inputs)
    return model.eval()


def without_eps(model, monkeypatch):
    """Norms whose eps is too small to matter, for what is exact only up to eps."""
    for module in model.modules():
        if hasattr(module, "eps") and isinstance(module.eps, float):
            module.eps = 1e-30
    for module in (gotennet, molecular_heads):
        monkeypatch.setattr(module, "STABLE", 0.0)
    return model


def state_of(model):
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def output(model, state, inputs):
    with torch.no_grad():
        return functional_call(model, {k: v.clone() for k, v in state.items()}, inputs)


def distance(symmetry, before, after):
    """How far the output moved; of the softmax shift, the probabilities."""
    if symmetry.invariant == "cross entropy":
        before, after = before.softmax(-1), after.softmax(-1)
    return ((after - before).abs().max() / before.abs().max().clamp_min(1.0)).item()


@cases
@modes
def test_random_elements_leave_the_function_unchanged(case, training, monkeypatch):
    model, inputs = network(case, 24)
    without_eps(model, monkeypatch).train(training)
    state, generator = state_of(model), torch.Generator().manual_seed(1)
    before = output(model, state, inputs)
    assert before.std(0).min() > 1e-3
    held = [s for s in model.symmetries() if s.holds(training)]
    assert held
    for symmetry in held:
        for size in (0.1, 1.0) if isinstance(symmetry, sym.Continuous) else (None,):
            element = symmetry.draw(generator, *([] if size is None else [size]))
            after = output(model, symmetry.act(state, element), inputs)
            assert distance(symmetry, before, after) < 1e-10, (symmetry.name, size)


@cases
def test_elements_change_the_parameters_they_name_and_no_others(case):
    model, _ = network(case)
    state, generator = state_of(model), torch.Generator().manual_seed(1)
    parameters = dict(model.named_parameters())
    modules = dict(model.named_modules())
    names = [symmetry.name for symmetry in model.symmetries()]
    assert len(set(names)) == len(names)
    for symmetry in model.symmetries():
        element = symmetry.draw(generator)
        trivial = isinstance(symmetry, sym.Permutation) and torch.equal(
            element, torch.arange(symmetry.size)
        )
        after = symmetry.act(state, element)
        assert after.keys() == state.keys()
        changed = {n for n in parameters if not torch.equal(after[n], state[n])}
        assert changed <= set(symmetry.parameters), symmetry.name
        if not trivial and getattr(symmetry, "dimension", 1):
            assert changed, symmetry.name
        assert set(symmetry.modules) <= set(modules), symmetry.name


def flat(named, state, parameters):
    return torch.cat(
        [named.get(name, torch.zeros_like(state[name])).flatten() for name in parameters]
    )


def span(model, state, training=False, exact=True):
    """Generators of all that holds, a row for every coefficient."""
    parameters = [name for name, _ in model.named_parameters()]
    rows = []
    for symmetry in model.symmetries():
        if not isinstance(symmetry, sym.Continuous) or symmetry.invariant != "output":
            continue
        if not symmetry.holds(training) or (exact and not symmetry.exact):
            continue
        count = torch.Size(symmetry.shape).numel()
        own = torch.stack(
            [
                flat(symmetry.generator(state, unit.view(symmetry.shape)), state, parameters)
                for unit in torch.eye(count, dtype=torch.float64)
            ]
        )
        assert rank(own) == symmetry.dimension, symmetry.name
        rows.append(own)
    for name in ("start.atom.weight", "start.neighbor.weight"):
        if name in state:  # the row of an element that no molecule has
            unused = torch.eye(state[name].numel(), dtype=torch.float64)[: state[name].shape[1]]
            places = [{name: row.view_as(state[name])} for row in unused]
            rows.append(torch.stack([flat(place, state, parameters) for place in places]))
    size = sum(p.numel() for p in model.parameters())
    return torch.cat(rows) if rows else torch.zeros(0, size, dtype=torch.float64)


def rank(matrix, tolerance=1e-9):
    if not len(matrix):
        return 0
    values = torch.linalg.svdvals(matrix)
    return int((values > tolerance * values[0]).sum())


def jacobian(model, state, inputs):
    """Of all outputs with respect to all parameters, ``[outputs, parameters]``."""
    parameters = {name: state[name] for name, _ in model.named_parameters()}
    buffers = {name: state.get(name, buffer) for name, buffer in model.named_buffers()}

    if "start.atom.weight" in parameters:
        z, positions, edges, graph, count, atoms = inputs
        inputs = z.view(count, atoms), positions.view(count, atoms, 3)
        rest = edges[:, : atoms**2], graph[:atoms], 1, atoms

        def molecule(parameters, z, positions):
            return functional_call(
                model, {**parameters, **buffers}, (z, positions, *rest)
            ).flatten()

        parts = vmap(jacrev(molecule), in_dims=(None, 0, 0))(parameters, *inputs)
        return torch.cat([part.flatten(2) for part in parts.values()], dim=2).flatten(0, 1)
    clouds = len(inputs) == 1

    def function(parameters, *inputs):
        copies = {name: buffer.clone() for name, buffer in buffers.items()}
        return functional_call(model, {**parameters, **copies}, inputs).flatten()

    def one(parameters, *sample):
        return function(parameters, *(x.unsqueeze(0) for x in sample))

    if model.training or not clouds:
        parts = jacrev(function)(parameters, *inputs)
        return torch.cat([part.flatten(1) for part in parts.values()], dim=1)
    parts = vmap(jacrev(one), in_dims=(None, 0))(parameters, *inputs)
    return torch.cat([part.flatten(2) for part in parts.values()], dim=2).flatten(0, 1)


def null_space(matrix):
    """The dimension of the null space, where the singular values leave no doubt."""
    assert len(matrix) >= matrix.shape[1]
    scaled = matrix / matrix.norm(dim=0).clamp_min(1e-300)
    values = torch.linalg.svdvals(scaled)
    values = values / values[0]
    zero = values < 1e-14
    assert not zero.any() or values[zero].max() < 1e-3 * values[~zero].min()
    return int(zero.sum())


COUNTS = {  # as counted by hand from the declarations' docstrings
    "pointnet": 2 * (4 + 6 + 5 + 5),
    "pointnet-shallow": 2 * 4,
    "dgcnn": 2 * (3 + 4 + 5 + 4 + 3) + 3,
    "dgcnn-shallow": 2 * (3 + 4),
    "egnn": 3 + 4 * 3 + 3 * 3 * 2,
    "egnn-shallow": 4 + 2 * 4 + 3 * 4 * 3,
    # tables' sums and walks: 2 + 4 + 2 * 3; then stream shifts, scales, neurons, norms, head
    # start: norm shift, basis, atom shift, of which one is in the two before it, two neighbor
    # scales; h, t, X; two layers; refinement; dead: what multiplies X = 0, the last update of X; an
    # element that no molecule has
    "gotennet": 7 + 9 + 2 + 6 + 9 + (3 + 6 + 3 + 3) + (3 + 9 + 3 + 3) + 3 + 36 + 12 + 6,
    # one layer has no refinement; the dipole reads X: a stream and gates of its two blocks
    "gotennet-dipole": 7 + 9 + 2 + 6 + 9 + (3 + 6 + 3 + 3) + 36 + 6 + (3 + 3 + 1),
    "gotennet-extent": 7 + 9 + 2 + 6 + 9 + (3 + 9 + 3 + 3) + 72 + 12 + 6,
    "gine": 12 + 4,
    "gine-norm": 12 + 2 * 8,
    "gine-relu": 12 + 4 + 4 + 2 * 4 + 5,
    "gine-relu-norm": 12 + 4 + 4 + 2 * 4 + 2 * 8 + 5,
    "gine-relu-plain": 12 + 4 + 4 + 2 * 4 + 2 * 8 + 3,
    "gine-one": 12 + 4 + 4,
    "perceptron-tanh": 0,
    "perceptron-relu": 5 + 6,
    "perceptron-silu": 0,
}


@pytest.mark.parametrize("case", COUNTS)
def test_no_flat_direction_is_left(case, monkeypatch):
    """Parameters minus the rank of the Jacobian is what the declarations span, in eval mode.

    With an eps in square roots that is large, so that what is exact up to it is not counted.
    """
    for module in (gotennet, molecular_heads):
        monkeypatch.setattr(module, "STABLE", 0.1)
    model, inputs = network(case, 640 if case.startswith("gotennet") else 200)
    state = state_of(model)
    matrix, generators = jacobian(model, state, inputs), span(model, state)
    worst = (matrix @ generators.mT).abs() / (matrix.abs() @ generators.abs().mT + 1e-300)
    assert not worst.numel() or worst.max() < 1e-10
    assert null_space(matrix) == rank(generators) == COUNTS[case]


@pytest.mark.parametrize("case", ["pointnet-shallow", "dgcnn-shallow"])
def test_no_flat_direction_is_left_in_train_mode(case, monkeypatch):
    """Batch statistics: the scale before a norm is free up to eps, a bias before it is dead."""
    model, _ = network(case)
    without_eps(model, monkeypatch).train()
    state = state_of(model)
    matrix = jacobian(model, state, samples(CASES[case][0], 40))
    assert null_space(matrix) == rank(span(model, state, training=True, exact=False))
