"""Bringing two networks of one architecture as near as their permutation symmetries allow.

Two solutions that differ by an order of their channels are the same function, but far apart in
parameter space. Which orders are free is declared by ``model.symmetries()``; matching chooses one
(Ainsworth et al. 2023, "Git Re-Basin": weights or activations). Scales and shifts that a network's
function does not see are fixed first, since an inner product of weights does see them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from equiscape.data.base import Batch
from equiscape.orders import composed
from equiscape.symmetries import Continuous, Permutation, Symmetry, Tie
from equiscape.task import Task

State = dict[str, Tensor]
Orders = dict[str, Tensor]
SWEEPS = 100


def permutations_of(symmetries: Sequence[Symmetry]) -> list[Permutation]:
    """The declared permutations."""
    return [symmetry for symmetry in symmetries if isinstance(symmetry, Permutation)]


def gauge_fixed(
    state: Mapping[str, Tensor],
    symmetries: Sequence[Symmetry],
    parameters: Sequence[str],
    steps: int = 60,
) -> State:
    """The state of smallest parameter norm that continuous symmetries reach from ``state``.

    Along scales ``exp(c)`` the squared norm is convex, so the result is the same wherever on its
    orbit the network was: producers and consumers of a channel are balanced, biases that only shift
    are zero. It serves to compare networks; where a finite element changes the function (nearest
    neighbors in feature space), the result is not a network to evaluate.

    Args:
        state: parameters and buffers.
        symmetries: of the network; those that hold in eval mode are used.
        parameters: names whose squared norm is made small.
        steps: of L-BFGS.
    """
    used = [s for s in symmetries if isinstance(s, Continuous) and s.holds(training=False)]
    base = {name: t.double() if t.is_floating_point() else t for name, t in state.items()}
    if not used:
        return base
    coefficients = [
        torch.zeros(s.shape, dtype=torch.float64, device=base[parameters[0]].device) for s in used
    ]
    for c in coefficients:
        c.requires_grad_()

    def moved() -> State:
        current = dict(base)
        for symmetry, c in zip(used, coefficients, strict=True):
            current |= symmetry.element(current, c)
        return current

    optimizer = torch.optim.LBFGS(
        coefficients,
        max_iter=steps,
        tolerance_grad=1e-12,
        tolerance_change=1e-15,
        history_size=20,
        line_search_fn="strong_wolfe",
    )
    scale = sum(base[name].square().sum() for name in parameters)

    def closure() -> Tensor:
        optimizer.zero_grad()
        current = moved()
        loss: Any = sum(current[name].square().sum() for name in parameters) / scale
        loss.backward()
        return loss

    optimizer.step(closure)
    with torch.no_grad():
        return {name: tensor.detach() for name, tensor in moved().items()}


def match_weights(
    target: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    permutations: Sequence[Permutation],
    seed: int = 0,
    restarts: int = 3,
) -> Orders:
    """Orders of the channels of ``state`` that bring it nearest to ``target``.

    Maximizes ``sum <target, P state>`` over the tied parameters by linear assignments, one
    permutation after the other until none changes anything (Ainsworth et al. 2023, algorithm 1);
    that is a local optimum, so the best of several orders of going round is kept.

    Args:
        target, state: parameters and buffers of two networks, best gauge-fixed.
        permutations: of the network.
        seed: of the order of the permutations.
        restarts: number of those orders.

    Returns:
        Name of a permutation -> ``[size]`` order, as :meth:`Permutation.act` takes it.
    """
    generator = torch.Generator().manual_seed(seed)
    best: tuple[float, Orders] | None = None
    for _ in range(max(1, restarts)):
        orders = {p.name: torch.arange(p.size) for p in permutations}
        current = dict(state)
        for _sweep in range(SWEEPS):
            changed = False
            for index in torch.randperm(len(permutations), generator=generator).tolist():
                p = permutations[index]
                order = p.best(_inner(target, current, p))
                if not torch.equal(order, torch.arange(p.size)):
                    current = p.act(current, order)
                    orders[p.name] = composed(orders[p.name], order)
                    changed = True
            if not changed:
                break
        value = _overlap(target, current, permutations)
        if best is None or value > best[0]:
            best = value, orders
    assert best is not None
    return best[1]


@torch.no_grad()
def match_activations(
    task: Task,
    target: nn.Module,
    model: nn.Module,
    batches: Sequence[Batch],
    permutations: Sequence[Permutation],
) -> Orders:
    """Orders of the channels of ``model`` by the correlation of their values with ``target``'s.

    A channel's values are the outputs of the linear layers whose rows it is. A permutation none of
    whose layers runs as a module of its own is matched by weights instead.

    Returns:
        As :func:`match_weights`.
    """
    ours, theirs = (_activations(task, network, batches) for network in (target, model))
    orders: Orders = {}
    left = []
    for p in permutations:
        producers = [t for t in p.ties if t.axis == 0 and _layer(t) in ours]
        if not producers:
            left.append(p)
            continue
        total: Any = sum(
            _correlation(ours[_layer(t)], theirs[_layer(t)], t, p.size)
            for t in unique_layers(producers)
        )
        orders[p.name] = p.best(total.cpu().numpy())
    if left:
        moved = apply(dict(model.state_dict()), permutations, orders)
        orders |= match_weights(dict(target.state_dict()), moved, left)
    return {p.name: orders[p.name] for p in permutations}


def unique_layers(ties: Sequence[Tie]) -> list[Tie]:
    """One tie for each layer."""
    return list({_layer(tie): tie for tie in ties}.values())


def apply(
    state: Mapping[str, Tensor], permutations: Sequence[Permutation], orders: Orders
) -> State:
    """``state`` with its channels in the given orders; those without an order stay."""
    moved = dict(state)
    for p in permutations:
        if p.name in orders:
            moved = p.act(moved, orders[p.name])
    return moved


def _layer(tie: Tie) -> str:
    return tie.parameter.rpartition(".")[0]


def _rows(state: Mapping[str, Tensor], tie: Tie, size: int) -> Tensor:
    """``[size, rest]``: the entries of each channel."""
    part = tie.take(state[tie.parameter], size).movedim(tie.axis, 0)
    return part.reshape(size, -1).double()


def _inner(target: Mapping[str, Tensor], state: Mapping[str, Tensor], p: Permutation) -> np.ndarray:
    """``[size, size]`` inner products of the channels' parameters."""
    known = set(p.parameters)
    total: Any = sum(
        (_rows(target, tie, p.size) @ _rows(state, tie, p.size).T).cpu().numpy()
        for tie in p.ties
        if tie.parameter in known
    )
    return total


def _overlap(
    target: Mapping[str, Tensor], state: Mapping[str, Tensor], permutations: Sequence[Permutation]
) -> float:
    names = {name for p in permutations for name in p.parameters}
    return sum((target[n].double() * state[n].double()).sum().item() for n in sorted(names))


def _activations(task: Task, model: nn.Module, batches: Sequence[Batch]) -> dict[str, Tensor]:
    """``[values, width]`` outputs of every linear layer that runs, by name."""
    seen: dict[str, list[Tensor]] = {}
    hooks = [
        module.register_forward_hook(
            lambda _m, _i, out, n=name: seen.setdefault(n, []).append(out.flatten(0, -2).double())
        )
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
    ]
    try:
        for batch in batches:
            task.output(model, batch)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: torch.cat(parts) for name, parts in seen.items()}


def _correlation(ours: Tensor, theirs: Tensor, tie: Tie, size: int) -> Tensor:
    """``[size, size]`` correlations of channels; a dead channel correlates with none."""
    columns = [x.narrow(1, tie.start, size * tie.width) for x in (ours, theirs)]
    centered = [x - x.mean(0) for x in columns]
    unit = [x / x.norm(dim=0).clamp_min(1e-30) for x in centered]
    blocks = [x.T.reshape(size, -1) for x in unit]
    return blocks[0] @ blocks[1].T
