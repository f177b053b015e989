"""Muon against its mathematics, a plain float32 form, and torch.optim.Muon."""

import copy

import pytest
import torch
from torch import nn

from equiscape.optim import matrices
from equiscape.optim.muon import Muon
from equiscape.optim.newton_schulz import COEFFICIENTS, orthogonalize


def matrix_with_spectrum(values, rows, columns, seed=0):
    """A float64 matrix with the given singular values; also its polar factor."""
    generator = torch.Generator().manual_seed(seed)
    n = len(values)
    u = torch.linalg.qr(torch.randn(rows, n, generator=generator, dtype=torch.float64)).Q
    v = torch.linalg.qr(torch.randn(columns, n, generator=generator, dtype=torch.float64)).Q
    return u @ torch.diag(torch.as_tensor(values, dtype=torch.float64)) @ v.T, u @ v.T


def polynomial(values, steps):
    """What Newton-Schulz makes of singular values, as scalars."""
    a, b, c = COEFFICIENTS
    for _ in range(steps):
        values = a * values + b * values**3 + c * values**5
    return values


@pytest.mark.parametrize("shape", [(12, 12), (8, 20), (20, 8)])
@pytest.mark.parametrize("steps", [1, 5])
def test_singular_values_follow_the_polynomial(shape, steps):
    values = torch.logspace(-2, 1, 8, dtype=torch.float64)
    matrix, _ = matrix_with_spectrum(values, *shape)
    result = orthogonalize(matrix[None], steps, dtype=torch.float64)[0]
    found = torch.linalg.svdvals(result)[:8]
    expected = polynomial(values / values.norm(), steps).sort(descending=True).values
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_five_steps_reach_the_band_around_the_polar_factor():
    values = torch.logspace(-1.5, 0, 16, dtype=torch.float64)
    matrix, polar = matrix_with_spectrum(values, 16, 40)
    result = orthogonalize(matrix[None], dtype=torch.float64)[0]
    singular = torch.linalg.svdvals(result)
    assert singular.min() > 0.68
    assert singular.max() < 1.21
    # same singular vectors: the distance to U V^T is that of the singular values to one
    gap = torch.linalg.matrix_norm(result - polar, 2)
    torch.testing.assert_close(gap, (singular - 1).abs().max(), rtol=1e-9, atol=1e-9)


def test_commutes_with_rotations():
    generator = torch.Generator().manual_seed(1)
    matrix = torch.randn(3, 9, 14, generator=generator, dtype=torch.float64)
    left = torch.linalg.qr(torch.randn(9, 9, generator=generator, dtype=torch.float64)).Q
    right = torch.linalg.qr(torch.randn(14, 14, generator=generator, dtype=torch.float64)).Q
    rotated = orthogonalize(left @ matrix @ right, dtype=torch.float64)
    expected = left @ orthogonalize(matrix, dtype=torch.float64) @ right
    torch.testing.assert_close(rotated, expected, rtol=0, atol=1e-12)


def test_a_batch_is_its_matrices_one_by_one_whatever_their_scale():
    matrices = torch.randn(4, 10, 6) * torch.tensor([1e-6, 1.0, 1e6, 0.0]).view(4, 1, 1)
    together = orthogonalize(matrices)
    for one, result in zip(matrices, together):
        torch.testing.assert_close(orthogonalize(one[None])[0], result, rtol=1e-5, atol=1e-6)
    assert (together[3] == 0).all()


SHAPES = [(16, 16), (16, 16), (32, 16), (16, 32), (8, 24), (64, 64)]


def parameters(shapes=SHAPES):
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator) / 4) for shape in shapes]


def run(optimizer, params, steps=4):
    """Steps with gradients that do not depend on the parameters; the distance each one moved."""
    generator = torch.Generator().manual_seed(7)
    before = [p.detach().clone() for p in params]
    for _ in range(steps):
        for p in params:
            p.grad = torch.randn(p.shape, generator=generator)
        optimizer.step()
    return [p.detach() - old for p, old in zip(params, before)]


def plain_muon(params, steps, lr, wd, momentum, nesterov, adjust_lr_fn):
    """Muon matrix by matrix in float32, straight from its definition."""
    a, b, c = COEFFICIENTS
    generator = torch.Generator().manual_seed(7)
    values = [p.detach().clone() for p in params]
    buffers = [torch.zeros_like(p) for p in values]
    for _ in range(steps):
        for w, m in zip(values, buffers):
            g = torch.randn(w.shape, generator=generator)
            m.copy_(momentum * m + (1 - momentum) * g)
            x = momentum * m + (1 - momentum) * g if nesterov else m
            x = x / x.norm()
            x = x.T if w.shape[0] > w.shape[1] else x
            for _ in range(5):
                gram = x @ x.T
                x = a * x + (b * gram + c * gram @ gram) @ x
            x = x.T if w.shape[0] > w.shape[1] else x
            rows, columns = w.shape
            if adjust_lr_fn == "original":
                factor = max(1, rows / columns) ** 0.5
            else:
                factor = 0.2 * max(rows, columns) ** 0.5
            w.copy_(w * (1 - lr * wd) - lr * factor * x)
    return [w - p.detach() for w, p in zip(values, params)]


@pytest.mark.parametrize("adjust_lr_fn", ["original", "match_rms_adamw"])
@pytest.mark.parametrize("nesterov", [True, False])
def test_float32_mode_equals_the_definition(adjust_lr_fn, nesterov):
    expected = plain_muon(parameters(), 4, 0.02, 0.1, 0.95, nesterov, adjust_lr_fn)
    params = parameters()
    optimizer = Muon(
        params,
        lr=0.02,
        weight_decay=0.1,
        nesterov=nesterov,
        adjust_lr_fn=adjust_lr_fn,
        ns_dtype="float32",
    )
    for moved, reference in zip(run(optimizer, params), expected):
        tolerance = 1e-5 * reference.abs().max().item()
        torch.testing.assert_close(moved, reference, rtol=0, atol=tolerance)


@pytest.mark.parametrize("adjust_lr_fn", ["original", "match_rms_adamw"])
@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("dtype", ["auto", "float32", "bfloat16"])
def test_equals_torch_muon_to_the_rounding_of_bfloat16(adjust_lr_fn, nesterov, dtype):
    settings = {"lr": 0.02, "weight_decay": 0.1, "momentum": 0.9, "nesterov": nesterov}
    theirs, ours = parameters(), parameters()
    reference = run(torch.optim.Muon(theirs, adjust_lr_fn=adjust_lr_fn, **settings), theirs)
    found = run(Muon(ours, adjust_lr_fn=adjust_lr_fn, ns_dtype=dtype, **settings), ours)
    for a, b in zip(found, reference):
        # 2^-8 a product, some fifteen products deep, averaged over the entries
        assert (a - b).norm() < 0.03 * b.norm()


@pytest.mark.parametrize("at_once", [1, 2, 3, 5])
def test_matrices_in_tiles_are_the_same_to_rounding(at_once, monkeypatch):
    shapes = [(16, 24)] * 3 + [(24, 16)] * 4
    whole, tiled = parameters(shapes), parameters(shapes)
    expected = run(Muon(whole, lr=0.02, ns_dtype="float32"), whole)
    monkeypatch.setattr(matrices, "TILE", at_once * 16 * 24)
    found = run(Muon(tiled, lr=0.02, ns_dtype="float32"), tiled)
    for a, b in zip(found, expected):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


def test_weight_decay_is_decoupled():
    params = parameters([(9, 12), (12, 9)])
    before = [p.detach().clone() for p in params]
    optimizer = Muon(params, lr=0.1, weight_decay=0.5)
    for _ in range(3):
        for p in params:
            p.grad = torch.zeros_like(p)
        optimizer.step()
    for p, old in zip(params, before):
        torch.testing.assert_close(p.detach(), old * (1 - 0.1 * 0.5) ** 3)


def test_a_parameter_without_gradient_stays():
    params = parameters([(8, 8), (8, 8)])
    kept = params[1].detach().clone()
    optimizer = Muon(params, lr=0.1, weight_decay=0.5)
    params[0].grad = torch.ones_like(params[0])
    optimizer.step()
    assert torch.equal(params[1].detach(), kept)
    assert params[1] not in optimizer.state


def test_rms_of_a_step_is_a_fifth_of_the_learning_rate():
    # match_rms_adamw: entries of an orthogonal step have RMS 1/sqrt(max side), times .2 sqrt(same)
    for shape in [(64, 64), (32, 96), (96, 32)]:
        params = parameters([shape])
        (moved,) = run(Muon(params, lr=1.0), params, steps=1)
        rms = moved.square().mean().sqrt().item()
        assert 0.2 * 0.68 < rms < 0.2 * 1.21


def groups(shapes_muon, shapes_adamw):
    generator = torch.Generator().manual_seed(3)

    def draw(shape):
        return nn.Parameter(torch.randn(shape, generator=generator))

    return [
        {"params": [draw(s) for s in shapes_muon], "algorithm": "muon"},
        {"params": [draw(s) for s in shapes_adamw], "algorithm": "adamw"},
    ]


def test_the_rest_moves_as_torch_adamw():
    ours = groups([(8, 8)], [(5,), (3, 7), (4, 2, 3)])
    theirs = [nn.Parameter(p.detach().clone()) for p in ours[1]["params"]]
    found = Muon(ours, lr=0.01, weight_decay=0.1, betas=(0.8, 0.99), adamw_eps=1e-6)
    settings = {"lr": 0.01, "weight_decay": 0.1, "betas": (0.8, 0.99), "eps": 1e-6}
    reference = torch.optim.AdamW(theirs, **settings)
    for a, b in zip(run(found, ours[1]["params"]), run(reference, theirs)):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_state_dict_round_trip_goes_on_bit_for_bit():
    first = groups([(8, 8), (8, 16), (16, 8)], [(5,), (3, 7)])
    params = [p for group in first for p in group["params"]]
    optimizer = Muon(first, lr=0.01, weight_decay=0.1)
    run(optimizer, params)
    state = copy.deepcopy(optimizer.state_dict())
    second = [
        {**g, "params": [nn.Parameter(p.detach().clone()) for p in g["params"]]} for g in first
    ]
    again = Muon(second, lr=0.5)
    again.load_state_dict(state)
    copies = [p for group in second for p in group["params"]]
    run(optimizer, params)
    run(again, copies)
    for a, b in zip(params, copies):
        assert torch.equal(a, b)


def test_closure_runs_with_gradients():
    (p,) = parameters([(8, 8)])
    optimizer = Muon([p], lr=0.1)

    def closure():
        loss = p.square().sum()
        loss.backward()
        return loss

    before = p.square().sum().item()
    assert optimizer.step(closure).item() == pytest.approx(before)
    assert p.square().sum().item() < before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"momentum": 1.0}, "momentum"),
        ({"ns_steps": 0}, "ns_steps"),
        ({"adjust_lr_fn": "none"}, "adjust_lr_fn"),
        ({"ns_dtype": "float16"}, "ns_dtype"),
        ({"ns_coefficients": (1, 2)}, "ns_coefficients"),
        ({"betas": (0.9, 1.0)}, "betas"),
        ({"lr": -1.0}, "negative"),
    ],
)
def test_values_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Muon(parameters(), **settings)


def test_only_matrices_are_orthogonalized():
    with pytest.raises(ValueError, match="no matrix"):
        Muon([nn.Parameter(torch.zeros(3))])
