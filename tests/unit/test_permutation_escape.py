"""How optimizers leave a saddle that symmetry makes, and how rounding leads off the plane."""

from itertools import permutations

import numpy as np
import pytest
import torch
from permutation_case import natural_parameters, network, teacher_task, trapped

from equiscape.groups.detect import detect
from equiscape.optim import build_optimizer
from equiscape.optim.matrices import scale
from equiscape.optim.newton_schulz import COEFFICIENTS, orthogonalize
from equiscape.training.together import _Stack, train_together

MUON = {"min_side": 1, "ns_dtype": "float32"}
OPTIMIZERS = {"adamw": (3e-2, {}), "muon": (3e-2, MUON), "sgd": (1e-1, {"momentum": 0.9})}


def descend(trap, start, name, lr, settings, steps, decay):
    """Stacked perceptrons after ``steps``, and their losses ``[steps, networks]`` before each."""
    values = {n: p.clone() for n, p in start.items()}
    gradients = {n: torch.zeros_like(p) for n, p in start.items()}
    stack = _Stack(torch.nn.Module(), values, gradients, name)
    optimizer, _ = build_optimizer(stack, {"class": name, "settings": settings}, lr, 0)
    losses = []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * (0.5 + 0.5 * np.cos(np.pi * step / steps) if decay else 1.0)
        parameters = {n: p.clone().requires_grad_() for n, p in values.items()}
        loss = trap.loss(parameters)
        found = torch.autograd.grad(loss.sum(), list(parameters.values()))
        torch._foreach_copy_(list(gradients.values()), found)
        optimizer.step()
        losses.append(loss.detach())
    return values, torch.stack(losses)


def disturbed(trap, noises, directions):
    """The trap's network with noise of given sizes in given directions, one seed each."""
    base = natural_parameters(torch.tensor(trap.found.x), 4)
    stacks = {n: [] for n in base}
    for noise, seed in zip(noises, directions):
        generator = torch.Generator().manual_seed(seed)
        for name, p in base.items():
            drawn = torch.randn(p.shape, generator=generator, dtype=torch.float64)
            stacks[name].append(p + noise * drawn)
    return {name: torch.stack(members) for name, members in stacks.items()}


# F4: relaxed networks leave the trap of tanh, and end at another order of the units


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_relaxed_networks_end_at_a_conjugate_of_their_representation(name):
    trap = trapped()
    lr, settings = OPTIMIZERS[name]
    start = disturbed(trap, [1e-3] * 5, range(5))
    found, losses = descend(trap, start, name, lr, settings, 1000, decay=True)
    assert (losses[0] - trap.found.fun).abs().max() < 1e-4
    assert (losses[-1] < 1e-9).all()
    held = network("S4", hidden=["natural"])
    inputs, hidden, outputs = (r.action for r in held.layer_representations)
    for i in range(5):
        parameters = {n: p[i].numpy() for n, p in found.items()}
        (detected,) = detect(held.group, parameters, inputs, outputs, "tanh")
        assert detected.text == "natural"
        assert detected.residual < 1e-8
        # rho'(g) sigma = sigma rho(g) for one sigma only, since the natural action has no other
        # map to itself than the identity; and that is not sigma
        conjugating = [
            sigma
            for sigma in map(np.array, permutations(range(4)))
            if (detected.action[:, sigma] == sigma[hidden]).all()
        ]
        assert len(conjugating) == 1
        assert (conjugating[0] != np.arange(4)).any()


def test_with_relu_the_trap_holds_the_perceptron_too():
    trap = trapped(torch.relu)
    assert trap.found.x[0] < -1
    start = disturbed(trap, [1e-3] * 5, range(5))
    for name, (lr, settings) in OPTIMIZERS.items():
        _, losses = descend(trap, start, name, lr, settings, 500, decay=True)
        assert (losses[-1] > 0.95 * trap.found.fun).all()  # none of fifteen


# F5: how long that takes, by the size of the noise


def steps_to_escape(name, lr, settings, steps, noises):
    trap = trapped()
    start = disturbed(trap, noises, [0] * len(noises))
    _, losses = descend(trap, start, name, lr, settings, steps, decay=False)
    below = losses < 0.9 * trap.found.fun
    assert below.any(0).all()
    return below.int().argmax(0).tolist()


def test_adam_and_muon_hardly_depend_on_the_noise_that_gradient_descent_waits_for():
    noises = [1e-2, 1e-4, 1e-6, 1e-8]
    descent = steps_to_escape("sgd", 0.5, {}, 800, noises)
    predicted = np.log(100) / np.log1p(0.5 * 0.0487)  # more steps for each factor of 100
    assert predicted == pytest.approx(191.4, abs=0.1)
    assert np.abs(np.diff(descent) - predicted).max() <= 3
    for name, settings in (("adamw", {}), ("muon", MUON)):
        steps = steps_to_escape(name, 1e-2, settings, 160, noises)
        assert max(steps) < 1.7 * min(steps)
        assert max(steps) < min(descent)


# F6: optimizers stay on the plane but for rounding, which Muon amplifies


def test_newton_schulz_commutes_with_orthogonal_maps():
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    left, right = (torch.linalg.qr(drawn(n, n)).Q for n in (5, 8))
    for by_gram in (False, True):
        matrix = drawn(1, 5, 8)
        one, other = (
            orthogonalize(m, dtype=torch.float64, by_gram=by_gram)
            for m in (left @ matrix @ right, matrix)
        )
        torch.testing.assert_close(one, left @ other @ right, rtol=0, atol=1e-12)


def test_newton_schulz_amplifies_what_is_small_beside_the_plane():
    """A small singular value of D / |D| grows by a^5 = 485; gradient descent leaves it."""
    plane = network("S3", hidden=["2 natural"], inputs="2 natural").plane
    name = "layers.0.weight"
    inside = plane.project_one(name, torch.ones(6, 6, dtype=torch.float64))  # of rank 1
    across = torch.zeros(6, 6, dtype=torch.float64)
    across[0, 0], across[0, 1], across[1, 0], across[1, 1] = 1, -1, -1, 1
    across -= plane.project_one(name, across)
    assert (inside @ across.mT).abs().max() < 1e-15
    assert across.norm() > 1
    epsilon = 1e-9
    factor = orthogonalize((inside + epsilon * across)[None], dtype=torch.float64)[0]
    away = factor - plane.project_one(name, factor)
    gain = COEFFICIENTS[0] ** 5 / inside.norm()
    torch.testing.assert_close(away, epsilon * gain * across, rtol=1e-6, atol=1e-15)
    assert COEFFICIENTS[0] ** 5 == pytest.approx(485, abs=0.5)


def test_rounding_takes_muon_off_the_plane_within_500_steps(tmp_path):
    """From 1e-16 with products in float64, in four of four runs."""
    task = teacher_task(
        tmp_path, {"hidden": ["2 natural"]}, inputs="2 natural", hidden=["2 natural"], samples=10
    )
    batch = next(task.batches("train"))
    for seed in range(4):
        model = task.build(seed)
        matrices = {n: p for n, p in model.named_parameters() if p.dim() == 2}
        momenta = {n: torch.zeros_like(p) for n, p in matrices.items()}
        distances = []
        for _ in range(500):
            model.zero_grad()
            task.loss(model, batch).backward()
            with torch.no_grad():
                for n, p in matrices.items():
                    direction = p.grad.lerp(momenta[n].lerp_(p.grad, 0.05), 0.95)
                    step = orthogonalize(direction[None], dtype=torch.float64)[0]
                    p.sub_(step, alpha=0.1 * scale(*p.shape, "match_rms_adamw"))
            distances.append(model.plane.distance(dict(model.named_parameters())).item())
        assert distances[0] < 1e-15
        assert max(distances) > 1e-2


DRIFT = {
    "epochs": 8,
    "batch_size": 10**6,
    "evaluate_every": 8,
    "schedule": {"name": "constant"},
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_drift_is_recorded_with_and_without_projection(tmp_path, name):
    """400 steps of what the study trains: never projected, and projected after every step."""
    lr, settings = OPTIMIZERS[name]
    entry = {"name": name, "class": name, "settings": settings}
    data = {"inputs": "2 natural", "hidden": ["regular"], "samples": 10, "passes": 50}
    drift = {}
    for mode in ({"mode": "relaxed", "release": 0.0}, {"mode": "constrained"}):
        task = teacher_task(tmp_path, {"hidden": ["2 natural"], **mode}, **data)
        cells = train_together(task, entry, lr, 0, range(4), DRIFT, keep_weights=True)
        drift[mode["mode"]] = np.array([cell.history["distance"] for cell in cells])
        for seed, cell in enumerate(cells):
            away = task.build(seed).plane.distance(cell.checkpoint["model"]).item()
            if mode["mode"] == "constrained":
                assert away < 2e-16
            else:
                assert away == pytest.approx(cell.history["distance"].iloc[-1], rel=1e-6)
    rounding = 1e-6 if name == "muon" else 1e-15  # its products are in float32
    assert (drift["constrained"] < rounding).all()
    if name == "muon":
        assert (drift["relaxed"][:, -1] > 1e4 * drift["relaxed"][:, 0]).all()
        assert (drift["relaxed"][:, -1] > 1e-3).all()
    else:
        assert (drift["relaxed"] < 1e-9).all()
