"""GotenNet's symmetries, its published size, and its behavior at the cutoff, in float64."""

import plain_gotennet
import pytest
import torch
from molecule_batches import assemble, orthogonal, random_molecules

from equiscape.errors import ConfigError
from equiscape.models import build
from equiscape.models.gotennet import GotenNet
from equiscape.models.gotennet_attention import weighted_softmax
from equiscape.models.molecular_pairs import degree_rows, harmonics

HEADS = ("scalar", "dipole", "spatial-extent")
COUNTS = (5, 3, 7)


def network(head="scalar", seed=0, **settings):
    torch.manual_seed(seed)
    settings = {"hidden": 16, "layers": 3, "heads": 4, "radial": 8} | settings
    return GotenNet(head=head, **settings).double().eval()


def wigner(rotation, degree):
    """The matrix D with Y(R u) = D Y(u), by least squares from the harmonics themselves."""
    generator = torch.Generator().manual_seed(1)
    u = torch.nn.functional.normalize(
        torch.randn(50, 3, dtype=torch.float64, generator=generator), dim=1
    )
    rows = degree_rows(2)[degree - 1]
    before, after = harmonics(u, 2)[:, rows], harmonics(u @ rotation.T, 2)[:, rows]
    solution = torch.linalg.lstsq(before, after)
    torch.testing.assert_close(before @ solution.solution, after, rtol=0, atol=1e-12)
    return solution.solution.T


def test_harmonics_have_unit_norm_and_are_orthogonal():
    generator = torch.Generator().manual_seed(0)
    u = torch.randn(20_000, 3, dtype=torch.float64, generator=generator)
    u = u / u.norm(dim=1, keepdim=True)
    y = harmonics(u, 2)
    for rows in degree_rows(2):
        torch.testing.assert_close(y[:, rows].square().sum(1), torch.ones(len(u)).double())
    overlap = y.T @ y / len(u)  # 1 / (2 l + 1) on the diagonal, by the addition theorem
    expected = torch.diag(torch.tensor([1 / 3] * 3 + [1 / 5] * 5, dtype=torch.float64))
    torch.testing.assert_close(overlap, expected, rtol=0, atol=0.01)


@pytest.mark.parametrize("determinant", [1, -1])
def test_wigner_matrices_are_orthogonal(determinant):
    rotation = orthogonal(2, determinant)
    for degree in (1, 2):
        d = wigner(rotation, degree)
        torch.testing.assert_close(d @ d.T, torch.eye(2 * degree + 1).double(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("smooth", [True, False])
@pytest.mark.parametrize("degrees", [1, 2])
@pytest.mark.parametrize("value_heads", ["parts", "concatenated"])
def test_features_are_those_of_the_equations(smooth, degrees, value_heads):
    model = network(smooth=smooth, degrees=degrees, value_heads=value_heads)
    batch = random_molecules((6, 2, 4), cutoff=3.0)  # not all pairs are neighbors
    assert batch[2].shape[1] < 6**2 + 2**2 + 4**2
    h, X = model.embed(*batch)
    with torch.no_grad():
        plain_h, plain_X = plain_gotennet.embed(model, *batch[:3])
    torch.testing.assert_close(h, plain_h, rtol=0, atol=1e-9)
    torch.testing.assert_close(X, plain_X, rtol=0, atol=1e-9)


def test_the_two_ways_to_cut_values_into_heads_differ_with_several_heads_only():
    batch = random_molecules(COUNTS)
    for heads, same in ((1, True), (4, False)):
        ours, theirs = (
            network(heads=heads, value_heads=name)(*batch) for name in ("parts", "concatenated")
        )
        assert torch.equal(ours, theirs) == same
    assert (ours - theirs).abs().max() > 1e-3 * ours.abs().max()


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("determinant", [1, -1])
def test_predictions_are_invariant(head, determinant):
    model = network(head)
    z, positions, *rest = random_molecules(COUNTS)
    before = model(z, positions, *rest)
    assert before.shape == (3, 1)
    assert before.std() > 1e-3
    for seed in range(3):
        moved = positions @ orthogonal(seed, determinant).T + torch.tensor([0.3, -2.0, 5.0])
        after = model(z, moved, *rest)
        torch.testing.assert_close(after, before, rtol=0, atol=1e-8)


@pytest.mark.parametrize("determinant", [1, -1])
def test_steerable_features_turn_with_the_molecule(determinant):
    model, rotation = network(), orthogonal(3, determinant)
    z, positions, *rest = random_molecules(COUNTS)
    h, X = model.embed(z, positions, *rest)
    turned_h, turned_X = model.embed(z, positions @ rotation.T, *rest)
    torch.testing.assert_close(turned_h, h, rtol=0, atol=1e-8)
    for degree, rows in enumerate(degree_rows(2), start=1):
        expected = torch.einsum("ab,nbc->nac", wigner(rotation, degree), X[:, rows])
        assert X[:, rows].abs().mean() > 1e-3
        torch.testing.assert_close(turned_X[:, rows], expected, rtol=0, atol=1e-8)


def test_dipole_vector_turns_with_the_molecule():
    model, rotation = network("dipole"), orthogonal(4, -1)
    z, positions, edges, graph, size, largest = random_molecules(COUNTS)

    def vector(x):
        h, X = model.embed(z, x, edges, graph, size, largest)
        return model.head.vector(h, X, z, x, graph, size)

    assert vector(positions).norm(dim=1).min() > 1e-3
    torch.testing.assert_close(
        vector(positions @ rotation.T), vector(positions) @ rotation.T, rtol=0, atol=1e-8
    )


@pytest.mark.parametrize("head", HEADS)
def test_permuting_atoms_changes_nothing(head):
    model = network(head)
    z, positions, *_ = random_molecules((8,))
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    before = model(*assemble(z, positions, (8,)))
    after = model(*assemble(z[order], positions[order], (8,)))
    torch.testing.assert_close(after, before, rtol=0, atol=1e-10)


@pytest.mark.parametrize("head", HEADS)
def test_a_batch_equals_its_molecules_one_by_one(head):
    model = network(head)
    z, positions, *rest = random_molecules(COUNTS)
    together = model(z, positions, *rest)
    parts = zip(z.split(COUNTS), positions.split(COUNTS), COUNTS)
    alone = torch.cat([model(*assemble(a, x, (n,))) for a, x, n in parts])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-10)


def jump(model, gap):
    """The change of the prediction as one of six atoms crosses the cutoff by +- ``gap``."""
    z, positions, *_ = random_molecules((6,), seed=3, scale=0.8)

    def prediction(distance):
        x = positions.clone()
        center = x[:5].mean(0)
        x[5] = x[0] + (x[0] - center) / (x[0] - center).norm() * distance
        return model(*assemble(z, x, (6,))).item()

    return abs(prediction(5 + gap) - prediction(5 - gap))


def test_the_prediction_is_smooth_at_the_cutoff():
    model = network()
    # The envelope has zero value and slope at the cutoff: the change shrinks with gap squared.
    assert 1e-12 < jump(model, 1e-2) < 1e-4
    assert jump(model, 1e-3) < 0.02 * jump(model, 1e-2) + 1e-13


def test_the_published_softmax_jumps_at_the_cutoff():
    assert jump(network(smooth=False), 1e-6) > 1e-6


def test_weighted_softmax_is_a_softmax_with_logarithmic_weights():
    torch.manual_seed(0)
    scores = torch.randn(2, 4, 6, 3, dtype=torch.float64)
    weights = torch.rand(2, 4, 6, 1, dtype=torch.float64)
    weights[0, 1, 2:] = 0
    expected = torch.softmax(scores + weights.log(), dim=2)
    torch.testing.assert_close(weighted_softmax(scores, weights), expected, rtol=0, atol=1e-14)
    assert torch.isfinite(weighted_softmax(scores * 1e4, weights)).all()
    assert (weighted_softmax(scores, torch.zeros_like(weights)) == 0).all()


def test_released_configuration_has_the_published_size():
    model = GotenNet()
    total = sum(p.numel() for p in model.parameters())
    body = total - sum(p.numel() for p in model.head.parameters())
    assert body == 7_646_464
    assert abs(body / 7.6e6 - 1) < 0.01
    assert total == 7_712_513


def test_every_learned_matrix_is_a_linear_weight():
    model = network()
    linear = {id(m.weight) for m in model.modules() if isinstance(m, torch.nn.Linear)}
    tables = {id(m.weight) for m in model.modules() if isinstance(m, torch.nn.Embedding)}
    for parameter in model.parameters():
        assert parameter.dim() == 1 or id(parameter) in linear | tables
    for name in model.non_hidden:
        model.get_submodule(name)


@pytest.mark.parametrize("head", HEADS)
def test_representations_are_invariant_features(head):
    model, seen = network(head), {}
    for name, module in model.representations().items():
        module.register_forward_hook(lambda m, i, o, name=name: seen.update({name: o}))
    model(*random_molecules(COUNTS))
    shapes = [(o[0] if isinstance(o, tuple) else o).shape for o in seen.values()]
    assert shapes[:3] == [(15, 16)] * 3
    assert shapes[3] in {(3, 16), (15, 16)}


def test_first_and_second_derivatives():
    """Positions and parameters: finite differences against autograd."""
    model = network(hidden=2, layers=2, heads=1, radial=2)
    z, positions, *rest = random_molecules((3,), seed=5)

    def energy(x):
        return model(z, x, *rest).sum()

    x = positions.requires_grad_()
    assert torch.autograd.gradcheck(energy, x, eps=1e-6, atol=1e-6)
    assert torch.autograd.gradgradcheck(energy, x, eps=1e-6, atol=1e-4, fast_mode=True)


@pytest.mark.parametrize("head", HEADS)
def test_hessian_vector_product_is_the_exact_hessian(head):
    model = network(head, hidden=2, layers=2, heads=1, radial=2, elements=9)
    inputs = random_molecules((3, 2), seed=6)
    parameters = {k: v.detach() for k, v in model.named_parameters()}
    names, sizes = list(parameters), [p.numel() for p in parameters.values()]
    target = torch.tensor([[0.5], [-1.0]], dtype=torch.float64)

    def loss(flat):
        parts = {n: part.view_as(parameters[n]) for n, part in zip(names, flat.split(sizes))}
        return (torch.func.functional_call(model, parts, inputs) - target).square().mean()

    flat = torch.cat([p.flatten() for p in parameters.values()])
    # Not torch.func.hessian, which differentiates layer norm wrongly (torch 2.13: its inner jacrev
    # disagrees with finite differences); forward over reverse, column by column, does not.
    gradient_of = torch.func.grad(loss)
    columns = torch.eye(len(flat), dtype=torch.float64)
    exact = torch.vmap(lambda v: torch.func.jvp(gradient_of, (flat,), (v,))[1])(columns)
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(len(flat), dtype=torch.float64, generator=generator)
    w = flat.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(w), w, create_graph=True)
    (product,) = torch.autograd.grad(gradient @ v, w)
    assert exact.abs().max() > 1e-3
    torch.testing.assert_close(product, exact @ v, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(exact, exact.T, rtol=1e-9, atol=1e-10)


def test_a_molecule_without_dipole_has_finite_derivatives():
    """Two equal atoms: the dipole is exactly zero, where a norm has no derivative."""
    model = network("dipole")
    z = torch.tensor([6, 6])
    positions = torch.tensor([[0.0, 0, -0.6], [0, 0, 0.6]], dtype=torch.float64)
    output = model(*assemble(z, positions, (2,)))
    assert output.item() == pytest.approx(0, abs=1e-8)
    parameters = list(model.parameters())
    gradients = torch.autograd.grad(output.sum(), parameters, create_graph=True, allow_unused=True)
    total = sum(g.square().sum() for g in gradients if g is not None)
    second = torch.autograd.grad(total, parameters, allow_unused=True)
    assert all(torch.isfinite(g).all() for g in second if g is not None)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"heads": 3}, "model.heads: 3 must divide hidden, 256"),
        ({"degrees": 3}, "model.degrees: 3 must be one of: 1, 2"),
        ({"layers": 0}, "model.layers"),
        ({"hiden": 8}, "hidden"),
    ],
)
def test_bad_settings_are_named(settings, words):
    with pytest.raises(ConfigError, match=words):
        build("gotennet", {"num_outputs": 1, "head": "scalar", "cutoff": 5.0}, settings)
