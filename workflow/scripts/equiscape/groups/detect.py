"""Which permutation representation the hidden layers of a perceptron carry.

A perceptron computes an equivariant function if for each g some permutation ``rho(g)`` of hidden
units has ``W_1 rho_in(g) = rho(g) W_1``, and so on up to the output; for networks that are
identifiable, "if" is "if and only if" (Shahverdi et al. 2026, arXiv 2601.21645). So ``rho(g)`` is
found by matching, once units that do nothing or the same are gone and signs are fixed; its orbits
and their stabilizers name the representation.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from equiscape.groups.group import Group
from equiscape.groups.plane import Plane
from equiscape.groups.representation import Representation, identify, representations_of_width

ACCEPT = 1e-3  # largest residual of a representation
Parameters = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Detected:
    """What was found in one hidden layer.

    Attributes:
        action: ``[order, units]``, the best permutation of the remaining units for each g.
        residual: the largest over g of the squared mismatch over the squared norm.
        homomorphism: whether the permutations multiply as the group does.
        representation: what they are, where they do; else None.
        units: which units remain, in the layer's own numbers.
        dead, merged: how many units did nothing, or the same as another.
    """

    action: np.ndarray
    residual: float
    homomorphism: bool
    representation: Representation | None
    units: np.ndarray
    dead: int
    merged: int

    @property
    def accepted(self) -> bool:
        """Whether the layer carries a representation, to within the tolerance."""
        return self.homomorphism and self.residual < ACCEPT

    @property
    def text(self) -> str:
        """The representation's name, or ``none``."""
        return self.representation.text if self.accepted and self.representation else "none"


def detect(
    group: Group,
    parameters: Parameters,
    inputs: np.ndarray,
    outputs: np.ndarray,
    activation: str,
    tolerance: float = 1e-2,
) -> list[Detected]:
    """The representation of each hidden layer, from the first.

    Args:
        group: G.
        parameters: ``layers.l.weight [m, n]`` and ``layers.l.bias [m]``.
        inputs, outputs: actions ``[order, width]`` on the input and the output.
        activation: ``tanh``, whose units may be flipped, ``relu``, whose units may be rescaled, or
            another, whose units may only be permuted.
        tolerance: below this share of the largest unit's size a unit is dead; below this relative
            difference of their inputs two units are the same.
    """
    last = max(int(name.split(".")[1]) for name in parameters)
    weights = [np.asarray(parameters[f"layers.{i}.weight"], dtype=float) for i in range(last + 1)]
    biases = [
        np.asarray(parameters.get(f"layers.{i}.bias", np.zeros(len(w))), dtype=float)
        for i, w in enumerate(weights)
    ]
    found, before = [], inputs
    for layer in range(last):
        into, out = np.column_stack([weights[layer], biases[layer]]), weights[layer + 1]
        into, out, units, dead, merged = simplify(into, out, activation, tolerance)
        after = outputs if layer == last - 1 else None
        detected = match(group, into, out, before, after)
        found.append(Detected(*detected, units, dead, merged))
        before, weights[layer + 1] = found[-1].action, out
    return found


def detect_model(model: Any, tolerance: float = 1e-2) -> list[Detected]:
    """As :func:`detect`, of a network with ``layer_representations``, ``group`` and its names."""
    inputs, *_, outputs = model.layer_representations
    return detect(
        model.group,
        arrays(model),
        inputs.action,
        outputs.action,
        model.activation_name,
        tolerance,
    )


def arrays(model: Any) -> dict[str, np.ndarray]:
    """The parameters of a network in double precision."""
    return {name: p.detach().double().cpu().numpy() for name, p in model.named_parameters()}


def simplify(
    into: np.ndarray, out: np.ndarray, activation: str, tolerance: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int, int]:
    """An equal network of fewer units in a standard form.

    Args:
        into: ``[units, n + 1]``, weights and bias of each unit.
        out: ``[m, units]``, the next layer's columns.

    Returns:
        ``into``, ``out`` of the remaining units, their numbers, and how many were dead and merged.
    """
    into, out = into.copy(), out.copy()
    if activation == "relu":  # each unit's scale is shared evenly between its two sides
        one, two = np.linalg.norm(into, axis=1), np.linalg.norm(out, axis=0)
        factor = np.sqrt(np.divide(two, one, out=np.ones_like(one), where=(one > 0) & (two > 0)))
        into, out = into * factor[:, None], out / factor
    alive = living(into, out, tolerance)
    dead, merged = int((~alive).sum()), 0
    units: list[int] = []
    for i in np.flatnonzero(alive).tolist():
        for j in units:
            size = max(np.linalg.norm(into[i]), np.linalg.norm(into[j]))
            factors = (1, -1) if activation == "tanh" else (1,)
            same = [s for s in factors if np.linalg.norm(into[i] - s * into[j]) < tolerance * size]
            if same:
                out[:, j] += same[0] * out[:, i]
                merged += 1
                break
        else:
            units.append(i)
    kept = np.array(units, dtype=int)
    into, out = into[kept], out[:, kept]
    alive = living(into, out, tolerance)  # merged units may cancel
    into, out, kept, dead = into[alive], out[:, alive], kept[alive], dead + int((~alive).sum())
    if activation == "tanh":
        signs = orientation(into, out)
        into, out = into * signs[:, None], out * signs
    return into, out, kept, dead, merged


def living(into: np.ndarray, out: np.ndarray, tolerance: float) -> np.ndarray:
    """Which units hear the input and are heard: ``[units]`` booleans.

    A unit without incoming weights is a constant, and says nothing of the representation.
    """
    size = np.linalg.norm(into[:, :-1], axis=1) * np.linalg.norm(out, axis=0)
    return size > tolerance * size.max(initial=0.0)


def orientation(into: np.ndarray, out: np.ndarray) -> np.ndarray:
    """``[units]`` signs that make units of one orbit point the same way.

    A permutation of outputs or inputs changes none of the sums used: of the outgoing weights, of
    the incoming ones, the bias, and of the cubes of the outgoing ones. The first that is not small
    beside the unit's own size decides.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        keys = [
            out.sum(0) / np.abs(out).sum(0),
            into[:, :-1].sum(1) / np.abs(into[:, :-1]).sum(1),
            into[:, -1] / np.linalg.norm(into, axis=1),
            (out**3).sum(0) / (np.abs(out) ** 3).sum(0),
        ]
    signs = np.ones(len(into))
    undecided = np.ones(len(into), dtype=bool)
    for key in keys:
        clear = undecided & (np.abs(key) > 1e-2)
        signs[clear] = np.sign(key[clear])
        undecided &= ~clear
    return signs


def match(
    group: Group,
    into: np.ndarray,
    out: np.ndarray,
    before: np.ndarray,
    after: np.ndarray | None,
) -> tuple[np.ndarray, float, bool, Representation | None]:
    """For each g the permutation of units that undoes its action on both sides.

    Args:
        into: ``[units, n + 1]``, weights and bias.
        out: ``[m, units]``.
        before: ``[order, n]``, the action on what comes in.
        after: ``[order, m]``, the action on what goes out; None where it is not known.

    Returns:
        ``action [order, units]``, residual, whether it is a homomorphism, the representation.
    """
    plain = np.column_stack([into, out.T]) if after is not None else into
    size, units = float((plain**2).sum()), len(into)
    action = np.empty((group.order, units), dtype=int)
    residual = 0.0
    for g in range(group.order):
        # (W rho(g))[:, j] = W[:, g j]; rho_out(g)^T W2 has the rows W2[g i]
        columns_of = [into[:, :-1][:, before[g]], into[:, -1:]]
        if after is not None:
            columns_of.append(out[after[g]].T)
        moved = np.column_stack(columns_of)
        cost = ((plain[:, None, :] - moved[None, :, :]) ** 2).sum(-1)  # unit i goes to unit j
        rows, columns = linear_sum_assignment(cost)
        action[g, rows] = columns
        residual = max(residual, float(cost[rows, columns].sum()))
    products = action[np.arange(group.order)[:, None, None], action[None]]  # [g, h, i]
    homomorphism = bool((action[group.table] == products).all())
    representation = identify(group, action) if homomorphism else None
    return action, residual / size if size else 0.0, homomorphism, representation


def nearest_planes(
    group: Group,
    parameters: Parameters,
    inputs: Representation,
    outputs: Representation,
    activation: str,
) -> dict[str, float]:
    """The distance from a network of one hidden layer to the planes of each representation.

    Args:
        parameters: ``layers.0`` and ``layers.1``, at most seven hidden units.

    Returns:
        For the name of each representation of the hidden width: the smallest
        ``|theta - P theta| / |theta|`` over all orders of the units, whose signs are fixed first
        where the activation is odd.
    """
    names = list(parameters)
    weight, out = (np.asarray(parameters[f"layers.{i}.weight"], dtype=float) for i in (0, 1))
    into = np.column_stack([weight, np.asarray(parameters["layers.0.bias"], dtype=float)])
    if activation == "tanh":
        signs = orientation(into, out)
        into, out = into * signs[:, None], out * signs
    orders = np.array(list(permutations(range(len(into)))))
    arranged = {
        "layers.0.weight": torch.as_tensor(into[orders][:, :, :-1]),
        "layers.0.bias": torch.as_tensor(into[orders][:, :, -1]),
        "layers.1.weight": torch.as_tensor(out[:, orders].swapaxes(0, 1)),
    }
    if "layers.1.bias" in names:
        bias = torch.as_tensor(np.asarray(parameters["layers.1.bias"], dtype=float))
        arranged["layers.1.bias"] = bias.expand(len(orders), -1)
    distances = {}
    for candidate in representations_of_width(group, len(into)):
        plane = Plane.of_layers([inputs, candidate, outputs], [True, "layers.1.bias" in names])
        distances[candidate.text] = plane.distance(arranged).min().item()
    return distances
