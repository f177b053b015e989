"""Muon's variants by hand-computed steps: spectra, row scaling, order, ratio, patterns, blocks."""

import copy

import pytest
import torch
from torch import nn

from equiscape import models
from equiscape.errors import ConfigError
from equiscape.optim import build_optimizer
from equiscape.optim.groups import split_parameters
from equiscape.optim.muon import Muon

SHAPES = [(9, 14), (14, 9), (10, 10)]


def problem(shapes=SHAPES, steps=3, dtype=torch.float64):
    """Parameters, and a list of gradients a step."""
    generator = torch.Generator().manual_seed(1)

    def draw(shape):
        return torch.randn(shape, generator=generator, dtype=dtype)

    return [nn.Parameter(draw(s)) for s in shapes], [
        [draw(s) for s in shapes] for _ in range(steps)
    ]


def polar(matrix):
    u, _, vt = torch.linalg.svd(matrix, full_matrices=False)
    return u @ vt


def run(optimizer, params, gradients):
    for grads in gradients:
        for p, g in zip(params, grads):
            p.grad = g.clone()
        optimizer.step()


def by_hand(step, lr=0.02, wd=0.1):
    """Each parameter after the gradients, by ``step(state, gradient)`` before lr and scale."""
    params, gradients = problem()
    results = []
    for i, p in enumerate(params):
        w, state = p.detach().clone(), {}
        for grads in gradients:
            w = w * (1 - lr * wd) - lr * 0.2 * max(w.shape) ** 0.5 * step(state, grads[i])
        results.append(w)
    return results


def check(step, **settings):
    expected = by_hand(step)
    params, gradients = problem()
    run(Muon(params, lr=0.02, weight_decay=0.1, **settings), params, gradients)
    for p, w in zip(params, expected):
        torch.testing.assert_close(p.detach(), w, rtol=0, atol=1e-9)


def averaged(state, g, momentum=0.95):
    """The nesterov direction."""
    m = state["m"] = momentum * state.get("m", 0 * g) + (1 - momentum) * g
    return momentum * m + (1 - momentum) * g


def test_exact_polar_factor():
    check(lambda state, g: polar(averaged(state, g)), polar="exact")


@pytest.mark.parametrize("power", [1.0, 0.5, 0.0, -0.25])
def test_spectrum(power):
    def step(state, g):
        u, s, vt = torch.linalg.svd(averaged(state, g), full_matrices=False)
        d = u @ torch.diag(s**power) @ vt
        return d * (len(s) ** 0.5 / d.norm())

    check(step, spectrum=power)


def test_polar_first():
    check(lambda state, g: averaged(state, polar(g)), polar="exact", order="polar-first")


def test_normuon():
    def step(state, g):
        o = polar(averaged(state, g))
        v = state["v"] = 0.9 * state.get("v", 0) + 0.1 * o.square().mean(1, keepdim=True)
        o = o / (v.sqrt() + 1e-8)
        return o * (min(o.shape) ** 0.5 / o.norm())

    check(step, polar="exact", variant="normuon", variant_beta=0.9)


def test_adamuon():
    def step(state, g):
        o = polar(averaged(state, g).sign())
        v = state["v"] = 0.9 * state.get("v", 0 * o) + 0.1 * o.square()
        o = o / (v.sqrt() + 1e-8)
        return o * (min(o.shape) ** 0.5 / o.norm())

    check(step, polar="exact", variant="adamuon", variant_beta=0.9)


def test_row_scaling_has_the_published_size():
    # NorMuon, algorithm 1: the step has norm 0.2 lr sqrt(rows columns), whatever the rows were
    params, gradients = problem(steps=1)
    before = [p.detach().clone() for p in params]
    run(Muon(params, lr=0.5, variant="normuon"), params, gradients)
    for p, old in zip(params, before):
        assert (p - old).norm().item() == pytest.approx(0.1 * p.numel() ** 0.5, rel=1e-6)


@pytest.mark.parametrize("name", ["polar-express", "convergent"])
def test_other_polynomials_approach_the_polar_factor(name):
    # a quadratic of one step: W = 0, G = A: the step is -lr scale polar(A)
    params, gradients = problem([(12, 20)], steps=1)
    old = params[0].detach().clone()
    settings = {"ns_steps": 25 if name == "convergent" else 7, "ns_dtype": "float32"}
    run(Muon(params, lr=1.0, polar=name, **settings), params, gradients)
    moved = (old - params[0].detach()) / (0.2 * 20**0.5)
    torch.testing.assert_close(moved, polar(gradients[0][0]), rtol=0, atol=2e-3)


def test_blocks_are_orthogonalized_one_by_one():
    params, gradients = problem([(30, 14)])
    pieces = [nn.Parameter(p.detach().clone()) for p in params[0].split(10)]
    groups = [{"params": params, "blocks": [3]}]
    run(Muon(groups, lr=0.02, weight_decay=0.1, variant="normuon"), params, gradients)
    apart = [list(grads[0].split(10)) for grads in gradients]
    run(Muon(pieces, lr=0.02, weight_decay=0.1, variant="normuon"), pieces, apart)
    torch.testing.assert_close(params[0].detach(), torch.cat([p.detach() for p in pieces]))


def test_blocks_keep_each_part_its_own_basis():
    # gauge equivariance of a stack of maps: rotating one part's output rotates its step alone
    def moved(gradient, blocks):
        p = nn.Parameter(torch.zeros(24, 9, dtype=torch.float64))
        p.grad = gradient
        Muon([{"params": [p], "blocks": blocks}], lr=1.0, polar="exact").step()
        return p.detach()

    generator = torch.Generator().manual_seed(0)
    g = torch.randn(24, 9, generator=generator, dtype=torch.float64)
    q = torch.linalg.qr(torch.randn(12, 12, generator=generator, dtype=torch.float64)).Q
    turned = torch.cat([3 * q @ g[:12], g[12:]])  # another basis and scale for the first part
    plain, rotated = moved(g, [2]), moved(turned, [2])
    torch.testing.assert_close(rotated[:12], q @ plain[:12], rtol=0, atol=1e-9)
    torch.testing.assert_close(rotated[12:], plain[12:], rtol=0, atol=1e-9)
    assert (moved(turned, [1])[12:] - moved(g, [1])[12:]).norm() > 0.1  # one matrix mixes them


def test_lr_ratio_is_of_the_rest_alone():
    def groups():
        generator = torch.Generator().manual_seed(0)
        shapes = {"muon": (8, 8), "adamw": (5,)}
        return [
            {"params": [nn.Parameter(torch.randn(shape, generator=generator))], "algorithm": name}
            for name, shape in shapes.items()
        ]

    both, slower = groups(), groups()
    for chosen, ratio in ((both, 1.0), (slower, 0.25)):
        optimizer = Muon(chosen, lr=0.1, lr_ratio=ratio)
        assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.1 * ratio]
        before = chosen[1]["params"][0].detach().clone()
        for group in chosen:
            group["params"][0].grad = torch.ones_like(group["params"][0])
        optimizer.step()
        step = chosen[1]["params"][0].detach() - before
        torch.testing.assert_close(step, torch.full((5,), -0.1 * ratio), rtol=1e-4, atol=0)
    assert torch.equal(both[0]["params"][0], slower[0]["params"][0])


def network():
    net = nn.ModuleDict({name: nn.Linear(8, 8) for name in ("first", "a", "b", "last")})
    net["table"] = nn.Embedding(10, 8)
    net["thin"] = nn.Linear(8, 1)
    net.non_hidden = ("first", "last")
    return net


@pytest.mark.parametrize(
    ("patterns", "chosen"),
    [
        (None, "a b"),
        (["hidden"], "a b"),
        (["hidden", "!a.*"], "b"),
        (["hidden", "last.weight"], "a b last"),
        (["[ab].weight"], "a b"),
        (["*"], "first a b last table thin"),
        ([], ""),
    ],
)
def test_patterns_choose_matrices(patterns, chosen):
    split = split_parameters(network(), 8, patterns)
    assert split["muon"] == [f"{name}.weight" for name in chosen.split()]
    names = [name for name, _ in network().named_parameters()]
    assert sorted(split["muon"] + split["adamw"]) == sorted(names)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"orthogonalize": ["c.*"]}, ["orthogonalize", "c.*", "a.weight"]),
        ({"orthogonalize": "a.*"}, ["orthogonalize", "list"]),
        ({"orthogonalize": ["a.bias"]}, ["a.bias", "no matrix"]),
        ({"blocks": {"a.weight": 3}}, ["blocks.a.weight", "8 rows"]),
        ({"blocks": {"x": 2}}, ["blocks", "'x'"]),
        ({"blocks": {"a.weight": 0}}, ["blocks.a.weight"]),
        ({"adjust_lr": "original"}, ["adjust_lr", "did you mean 'adjust_lr_fn'"]),
        ({"spectrum": 50}, ["spectrum"]),
        ({"variant": "normoun"}, ["variant"]),
        ({"order": "last"}, ["order"]),
        ({"polar": "svd"}, ["polar"]),
        ({"lr_ratio": -1}, ["lr_ratio"]),
    ],
)
def test_a_bad_setting_is_named(settings, words):
    with pytest.raises(ConfigError) as caught:
        build_optimizer(network(), {"class": "muon", "settings": settings}, 0.01, 0)
    for word in words:
        assert word in str(caught.value)


def test_the_degrees_of_gotennet_are_blocks_of_equal_height():
    model = models.build("gotennet", {"num_outputs": 1}, {"hidden": 16, "layers": 2, "heads": 2})
    blocks = {"*attention.value.2.weight": 5}
    optimizer, split = build_optimizer(
        model, {"class": "muon", "settings": {"blocks": blocks}}, 0.01, 0
    )
    counts = dict(zip(split["muon"], optimizer.param_groups[0]["blocks"]))
    assert {n for n, k in counts.items() if k == 5} == {
        n for n in counts if n.endswith("attention.value.2.weight")
    }


SETTINGS = [
    {"spectrum": 0.5},
    {"polar": "exact"},
    {"polar": "polar-express", "ns_steps": 4},
    {"variant": "normuon"},
    {"variant": "adamuon", "order": "polar-first"},
    {"order": "polar-first", "nesterov": False},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_state_dict_round_trip_goes_on_bit_for_bit(settings):
    params, gradients = problem([(8, 12), (24, 12)], steps=6, dtype=torch.float32)
    groups = [{"params": params, "blocks": [1, 2]}]
    optimizer = Muon(groups, lr=0.02, **settings)
    run(optimizer, params, gradients[:3])
    state = copy.deepcopy(optimizer.state_dict())
    copies = [nn.Parameter(p.detach().clone()) for p in params]
    again = Muon([{"params": copies, "blocks": [1, 2]}], lr=0.5, **settings)
    again.load_state_dict(state)
    run(optimizer, params, gradients[3:])
    run(again, copies, gradients[3:])
    assert all(torch.equal(a, b) for a, b in zip(params, copies))
