"""SOAP, Shampoo, PolarAdamW, SOAP-Muon, schedule-free AdamW, Switch: hand-computed steps."""

import copy

import pytest
import torch
from test_optim_muon_variants import SHAPES, polar, problem, run
from torch import nn

from equiscape.errors import ConfigError
from equiscape.optim import build_optimizer
from equiscape.optim.adamw import AdamW
from equiscape.optim.muon import Muon
from equiscape.optim.polar_adamw import PolarAdamW
from equiscape.optim.schedule_free import ScheduleFreeAdamW
from equiscape.optim.shampoo import Shampoo
from equiscape.optim.soap import SOAP
from equiscape.optim.soap_muon import SOAPMuon

LR, WD = 0.02, 0.1
# The first gradient of a matrix that is not square leaves a factor with a null space, whose basis
# is LAPACK's choice: other processors choose another, and Adam in that basis takes other steps.
# Rows or columns of zeros leave it no choice: the basis of that space is then those places.
SQUARE = [(10, 10), (5, 5)]
OBLONG = [(9, 14), (14, 9)]


def agree(
    optimizer_class, step, factor=lambda w: 1.0, steps=5, atol=1e-9, shapes=SHAPES, **settings
):
    """``step(state, gradient)`` by hand against the class."""
    params, gradients = problem(shapes, steps)
    for g in gradients[0] if shapes is OBLONG else ():
        g[min(g.shape) :], g[:, min(g.shape) :] = 0, 0
    expected = []
    for i, p in enumerate(params):
        w, state = p.detach().clone(), {"t": 0}
        for grads in gradients:
            state["t"] += 1
            w = w * (1 - LR * WD) - LR * factor(w) * step(state, grads[i])
        expected.append(w)
    run(optimizer_class(params, lr=LR, weight_decay=WD, **settings), params, gradients)
    for p, w in zip(params, expected):
        torch.testing.assert_close(p.detach(), w, rtol=0, atol=atol)


def muon_scale(w):
    return 0.2 * max(w.shape) ** 0.5


def average(state, name, value, beta):
    state[name] = beta * state.get(name, 0 * value) + (1 - beta) * value
    return state[name], state[name] / (1 - beta ** state["t"])


def adam_direction(state, g, betas=(0.9, 0.999), eps=1e-8):
    _, m = average(state, "m", g, betas[0])
    _, v = average(state, "v", g.square(), betas[1])
    return m / (v.sqrt() + eps)


def test_polar_adamw():
    def step(state, g):
        return polar(adam_direction(state, g))

    agree(PolarAdamW, step, muon_scale, polar="exact")


def test_polar_adamw_depends_on_the_basis_and_muon_does_not():
    generator = torch.Generator().manual_seed(0)
    grads = [torch.randn(10, 10, generator=generator, dtype=torch.float64) for _ in range(3)]
    q = torch.linalg.qr(torch.randn(10, 10, generator=generator, dtype=torch.float64)).Q

    def moved(cls, turn):
        p = nn.Parameter(torch.zeros(10, 10, dtype=torch.float64))
        run(cls([p], lr=LR, polar="exact"), [p], [[turn @ g] for g in grads])
        return p.detach()

    identity = torch.eye(10, dtype=torch.float64)
    torch.testing.assert_close(moved(Muon, q), q @ moved(Muon, identity), rtol=0, atol=1e-10)
    gap = moved(PolarAdamW, q) - q @ moved(PolarAdamW, identity)
    assert gap.norm() > 0.1 * moved(PolarAdamW, q).norm()


def bases(state, g, beta, every):
    """Factors and their bases as algorithm 3 and 4 of SOAP say."""
    for name, x in (("left", g), ("right", g.T)):
        average(state, name, x @ x.T, beta)
        if state["t"] == 1:
            state[f"{name}_q"] = torch.linalg.eigh(state[name]).eigenvectors.flip(1)
        elif (state["t"] - 1) % every == 0:
            state[f"{name}_q"] = torch.linalg.qr(state[name] @ state[f"{name}_q"]).Q
    return state["left_q"], state["right_q"]


def soap_step(state, g, every=2):
    left, right = bases(state, g, 0.8, every)
    _, m = average(state, "m", g, 0.9)
    _, v = average(state, "v", (left.T @ g @ right).square(), 0.95)
    return left @ ((left.T @ m @ right) / (v.sqrt() + 1e-8)) @ right.T


SOAP_SETTINGS = {"matrix_betas": (0.9, 0.95), "factor_beta": 0.8, "every": 2}


@pytest.mark.parametrize("shapes", [SQUARE, OBLONG], ids=["square", "oblong"])
def test_soap(shapes):
    agree(SOAP, soap_step, atol=1e-7, shapes=shapes, **SOAP_SETTINGS)


@pytest.mark.parametrize("shapes", [SQUARE, OBLONG], ids=["square", "oblong"])
def test_soap_muon(shapes):
    agree(
        SOAPMuon,
        lambda s, g: polar(soap_step(s, g)),
        muon_scale,
        5,
        1e-7,
        polar="exact",
        shapes=shapes,
        **SOAP_SETTINGS,
    )


def test_soap_is_adam_where_no_side_is_rotated():
    agree(SOAP, adam_direction, max_side=4, matrix_betas=(0.9, 0.999))


def test_shampoo_as_its_first_paper_has_it():
    def root(factor):
        values, vectors = torch.linalg.eigh(factor)
        return vectors @ torch.diag((values.clamp(min=0) + 1e-3) ** -0.25) @ vectors.T

    def step(state, g):
        state["l"] = state.get("l", 0) + g @ g.T
        state["r"] = state.get("r", 0) + g.T @ g
        return root(state["l"]) @ g @ root(state["r"])

    settings = {"matrix_betas": (0.0, 0.0), "factors": "sum", "graft": "none", "every": 1}
    agree(Shampoo, step, matrix_eps=1e-3, **settings)


def test_shampoo_with_averages_has_the_length_of_adam():
    def step(state, g):
        _, m = average(state, "m", g, 0.9)
        _, v = average(state, "v", g.square(), 0.999)
        _, left = average(state, "l", g @ g.T, 0.7)
        _, right = average(state, "r", g.T @ g, 0.7)
        if state["t"] % 3 == 1:
            for name, factor in (("pl", left), ("pr", right)):
                values, vectors = torch.linalg.eigh(factor)
                powers = (values.clamp(min=0) + 1e-3) ** -0.5
                state[name] = vectors @ torch.diag(powers) @ vectors.T
        d = state["pl"] @ m @ state["pr"]
        return d * ((m / (v.sqrt() + 1e-3)).norm() / d.norm())

    agree(Shampoo, step, steps=7, factor_beta=0.7, every=3, root=2.0, matrix_eps=1e-3)


def test_one_step_of_shampoo_is_the_polar_factor():
    # without an average, (G G^T)^(-1/4) G (G^T G)^(-1/4) = U V^T
    params, gradients = problem([(9, 14)], steps=1)
    before = params[0].detach().clone()
    settings = {"matrix_betas": (0.0, 0.0), "graft": "none", "matrix_eps": 0.0}
    gradients[0][0] = gradients[0][0][:, :9].T.contiguous()  # square: no zero eigenvalue
    params = [nn.Parameter(before[:, :9].clone())]
    run(Shampoo(params, lr=1.0, **settings), params, gradients)
    moved = before[:, :9] - params[0].detach()
    torch.testing.assert_close(moved, polar(gradients[0][0]), rtol=0, atol=1e-6)


def test_every_side_of_a_matrix_of_blocks_has_its_own_factors():
    params, gradients = problem([(20, 8)])
    pieces = [nn.Parameter(p.detach().clone()) for p in params[0].split(10)]
    apart = [list(grads[0].split(10)) for grads in gradients]
    for cls in (SOAP, Shampoo, SOAPMuon, PolarAdamW):
        whole = nn.Parameter(params[0].detach().clone())
        parts = [nn.Parameter(p.detach().clone()) for p in pieces]
        run(cls([{"params": [whole], "blocks": [2]}], lr=LR), [whole], gradients)
        run(cls(parts, lr=LR), parts, apart)
        together = torch.cat([p.detach() for p in parts])
        torch.testing.assert_close(whole.detach(), together, rtol=0, atol=1e-5)


def test_schedule_free_adamw():
    params, gradients = problem([(4, 3)], steps=6)
    lrs = [0.1, 0.2, 0.3, 0.3, 0.3, 0.3]  # a warm-up
    x = z = y = params[0].detach().clone()
    v, weights = torch.zeros_like(x), 0.0
    optimizer = ScheduleFreeAdamW(params, lr=0.3, betas=(0.9, 0.99), weight_decay=0.05)
    for t, (lr, (g,)) in enumerate(zip(lrs, gradients), 1):
        v = 0.99 * v + 0.01 * g.square()
        size = lr * (1 - 0.99**t) ** 0.5
        z = z - size * (g / (v.sqrt() + 1e-8) + 0.05 * y)
        weights += size**2
        c = size**2 / weights
        x = (1 - c) * x + c * z
        y = 0.1 * z + 0.9 * x
        optimizer.param_groups[0]["lr"] = lr
        run(optimizer, params, [[g]])
        torch.testing.assert_close(params[0].detach(), y, rtol=0, atol=1e-12)
    kept = params[0].detach().clone()
    optimizer.eval()
    torch.testing.assert_close(params[0].detach(), x, rtol=0, atol=1e-12)
    with pytest.raises(RuntimeError, match=r"train\(\)"):
        optimizer.step()
    optimizer.train()
    assert torch.equal(params[0].detach(), kept)


def test_schedule_free_average_is_the_mean_of_the_steps_at_a_constant_rate():
    # quadratic with a known path: beta1 = 1 - 1e-12 keeps y at x, beta2 = 0 gives sign steps
    p = nn.Parameter(torch.tensor([4.0], dtype=torch.float64))
    optimizer = ScheduleFreeAdamW([p], lr=0.5, betas=(0.0, 0.0), eps=0.0)
    path = []
    for _ in range(5):
        p.grad = p.detach().clone()  # of p^2 / 2, positive: z falls by 0.5 a step
        optimizer.step()
        path.append(optimizer.state[p]["z"].item())
    assert path == pytest.approx([3.5, 3.0, 2.5, 2.0, 1.5])
    optimizer.eval()
    assert p.item() == pytest.approx(sum(path) / 5)


def switch(net, at, total, **settings):
    entry = {
        "name": "mine",
        "class": "switch",
        "settings": {
            "first": {"class": "adamw"},
            "second": {"class": "muon"},
            "at": at,
            **settings,
        },
    }
    optimizer, split = build_optimizer(net, entry, LR, WD)
    optimizer.plan(total)
    return optimizer, split


def linear():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(9, 9), nn.Linear(9, 9))


def train(net, optimizer, seeds):
    for seed in seeds:
        x = torch.randn(16, 9, generator=torch.Generator().manual_seed(seed))
        optimizer.zero_grad()
        net(x).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("at", [0.0, 0.25, 0.5, 1.0])
def test_switch_is_one_and_then_the_other_with_fresh_state(at):
    net, plain = linear(), linear()
    optimizer, split = switch(net, at, 8)
    assert sorted(split) == ["first: adamw", "second: adamw", "second: muon"]
    train(net, optimizer, range(8))
    before = round(8 * at)
    train(plain, AdamW(plain.parameters(), lr=LR, weight_decay=WD), range(before))
    second, _ = build_optimizer(plain, {"class": "muon"}, LR, WD)
    train(plain, second, range(before, 8))
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), plain.parameters()))


def test_a_schedule_runs_through_the_switch():
    net = linear()
    optimizer, _ = switch(net, 0.5, 4, lr_ratio=0.5)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    rates = []
    for seed in range(4):
        train(net, optimizer, [seed])
        rates.append(optimizer.parts[seed >= 2].param_groups[0]["lr"])
        scheduler.step()
    assert rates == pytest.approx([LR, LR / 2, LR / 2 / 3, LR / 2 / 4])


def test_a_switch_resumes_bit_for_bit_on_either_side():
    for done in (2, 6):
        net, again = linear(), linear()
        optimizer, _ = switch(net, 0.5, 8)
        train(net, optimizer, range(done))
        state, weights = copy.deepcopy(optimizer.state_dict()), copy.deepcopy(net.state_dict())
        other, _ = switch(again, 0.5, 8)
        other.load_state_dict(state)
        again.load_state_dict(weights)
        train(net, optimizer, range(done, 8))
        train(again, other, range(done, 8))
        assert all(torch.equal(a, b) for a, b in zip(net.parameters(), again.parameters()))


CLASSES = [SOAP, Shampoo, PolarAdamW, SOAPMuon, ScheduleFreeAdamW]


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_state_dict_round_trip_goes_on_bit_for_bit(cls):
    params, gradients = problem(SHAPES, steps=24, dtype=torch.float32)
    optimizer = cls(params, lr=LR, weight_decay=WD)
    run(optimizer, params, gradients[:12])
    state = copy.deepcopy(optimizer.state_dict())
    copies = [nn.Parameter(p.detach().clone()) for p in params]
    again = cls(copies, lr=0.5)
    again.load_state_dict(state)
    run(optimizer, params, gradients[12:])
    run(again, copies, gradients[12:])
    assert all(torch.equal(a, b) for a, b in zip(params, copies))


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("soap", {"every": 0}, ["every"]),
        ("soap", {"factor_beta": 1.0}, ["factor_beta"]),
        ("shampoo", {"factors": "mean"}, ["factors", "mean"]),
        ("shampoo", {"graft": "sgd"}, ["graft"]),
        ("polar-adamw", {"matrix_betas": [0.9, 1.0]}, ["betas"]),
        ("soap-muon", {"polar": "none"}, ["polar"]),
        ("schedule-free-adamw", {"betas": [1.0, 0.9]}, ["betas"]),
        (
            "switch",
            {"at": 2, "first": {"class": "sgd"}, "second": {"class": "sgd"}},
            ["settings.at", "2"],
        ),
        (
            "switch",
            {"first": {"class": "adamw"}, "second": {"class": "muom"}},
            ["optimizers.mine.settings.second.class", "'muon'"],
        ),
        (
            "switch",
            {"first": {"class": "adamw", "settings": {"beta": 1}}, "second": {"class": "sgd"}},
            ["optimizers.mine.settings.first.settings", "beta"],
        ),
    ],
)
def test_a_bad_setting_is_named(name, settings, words):
    with pytest.raises(ConfigError) as caught:
        build_optimizer(linear(), {"name": "mine", "class": name, "settings": settings}, 0.01, 0)
    for word in words:
        assert word in str(caught.value)
