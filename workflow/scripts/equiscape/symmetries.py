"""Transformations of a network's parameters that leave its function unchanged, as declarations.

``model.symmetries()`` returns a tuple of them. A state is a ``{name: tensor}`` of the network's
parameters and buffers (its ``state_dict``); an element of a group maps it to the entries that it
changes. What an analysis needs follows from that alone: :meth:`Continuous.generator` is the
derivative of :meth:`Continuous.act` and can be differentiated itself, for first- and second-order
identities; permutations are lists of tied axes, for alignment.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from equiscape import orders
from equiscape.orders import Action, Tie

State = Mapping[str, Tensor]
Mode = Literal["any", "train", "eval"]
Invariant = Literal["output", "cross entropy"]


@dataclass(frozen=True)
class Symmetry:
    """What every declaration says.

    Attributes:
        name: unique within the network, e.g. ``"layers.0 scale"``.
        family: the kind, the same in every network, e.g. ``"softmax shift"``.
        parameters: names of the parameters (not buffers) that it changes.
        mode: in which it holds: ``"train"`` (batch statistics), ``"eval"`` (running statistics) or
            ``"any"``. Dropout is off.
        exact: whether it holds exactly; else only up to the ``eps`` of a norm or a square root.
        invariant: what it leaves unchanged: the network's ``"output"``, or only the
            ``"cross entropy"`` of it.
    """

    name: str
    family: str
    parameters: tuple[str, ...]
    mode: Mode = "any"
    exact: bool = True
    invariant: Invariant = "output"

    @property
    def modules(self) -> tuple[str, ...]:
        """Names of the modules whose parameters it changes."""
        return tuple(dict.fromkeys(name.rpartition(".")[0] for name in self.parameters))

    def holds(self, training: bool) -> bool:
        """Whether it holds in train mode (or in eval mode)."""
        return self.mode in ("any", "train" if training else "eval")


@dataclass(frozen=True)
class Continuous(Symmetry):
    """A Lie group: real coefficients give an element, zeros the identity.

    Attributes:
        shape: of the coefficients.
        dimension: of the span of the generators at a generic state; at most the number of
            coefficients, fewer where those are redundant.
        element: ``(state, coefficients) -> {name: tensor}``, what it changes, smooth in both.
        uniform: finite elements are exact only where all coefficients are equal, because nearest
            neighbors in feature space change; their derivative is exact almost everywhere.
    """

    shape: tuple[int, ...] = ()
    dimension: int = 0
    element: Callable[[State, Tensor], dict[str, Tensor]] = lambda state, coefficients: {}
    uniform: bool = False

    def act(self, state: State, coefficients: Tensor) -> dict[str, Tensor]:
        """The whole state after the element with ``coefficients [*shape]``."""
        return {**state, **self.element(state, coefficients)}

    def generator(self, state: State, coefficients: Tensor) -> dict[str, Tensor]:
        """X(theta): the derivative of :meth:`act` at the identity along ``coefficients``.

        One tensor for each of :attr:`parameters`; differentiable with respect to the state.
        """
        zero = coefficients.new_zeros(())
        one = torch.ones_like(zero)
        tangent = torch.func.jvp(
            lambda size: self.element(state, size * coefficients), (zero,), (one,)
        )[1]
        return {name: tangent[name] for name in self.parameters}

    def tied(self, labels: Tensor) -> "Continuous":
        """Of coefficients ``[n]``, those that are equal where ``labels [n]`` (0, 1, ...) are."""
        count = int(labels.max()) + 1

        def element(state: State, coefficients: Tensor) -> dict[str, Tensor]:
            return self.element(state, coefficients[labels.to(coefficients.device)])

        return replace(self, shape=(count,), dimension=count, element=element)

    def draw(
        self, generator: torch.Generator, size: float = 1.0, dtype: torch.dtype = torch.float64
    ) -> Tensor:
        """Gaussian coefficients of standard deviation ``size``; all equal where ``uniform``."""
        if self.uniform:
            one = torch.randn((), generator=generator, dtype=dtype)
            return size * one * torch.ones(self.shape, dtype=dtype)
        return size * torch.randn(self.shape, generator=generator, dtype=dtype)


@dataclass(frozen=True)
class Permutation(Symmetry):
    """All orders of n channels, or those that keep blocks in place or commute with a group.

    Elements are orders ``[size]`` as in :mod:`equiscape.orders`.

    Attributes:
        size: n.
        ties: every axis where the channels lie, buffers included.
        blocks: sizes of consecutive blocks, summing to n, of which each is permuted within itself.
        signed: whether the sign of each channel is free as well, before an odd activation.
        action: where each element of a group sends each channel; orders commute with that.
    """

    size: int = 0
    ties: tuple[Tie, ...] = ()
    blocks: tuple[int, ...] = ()
    signed: bool = False
    action: Action = ()

    def act(self, state: State, order: Tensor) -> dict[str, Tensor]:
        """The whole state with channel ``order[i]`` moved to place i."""
        changed = dict(state)
        for tie in self.ties:
            changed[tie.parameter] = tie.reorder(changed[tie.parameter], order)
        return changed

    def draw(self, generator: torch.Generator) -> Tensor:
        """A random order that is allowed."""
        return orders.draw(self.size, self.blocks, self.signed, self.action, generator)

    def best(self, values: np.ndarray) -> Tensor:
        """The allowed order of largest total value, see :func:`equiscape.orders.best`."""
        return orders.best(values, self.blocks, self.signed, self.action)


def declared(model: Any) -> tuple["Symmetry", ...]:
    """What ``model.symmetries()`` declares; none for a plug-in that declares none."""
    return tuple(getattr(model, "symmetries", tuple)())


def unique(names: Iterable[str]) -> tuple[str, ...]:
    """The names without repetitions, in order."""
    return tuple(dict.fromkeys(names))


def scale(
    name: str,
    family: str,
    size: int,
    up: Iterable[Tie],
    down: Iterable[Tie],
    **attributes,
) -> Continuous:
    """``size`` channels times ``exp(c)`` in every tie of ``up``, times ``exp(-c)`` in ``down``."""
    signed = [(tie, 1.0) for tie in up] + [(tie, -1.0) for tie in down]

    def element(state: State, coefficients: Tensor) -> dict[str, Tensor]:
        changed: dict[str, Tensor] = {}
        for tie, sign in signed:
            tensor = changed.get(tie.parameter, state[tie.parameter])
            factor = (sign * coefficients).exp().repeat_interleave(tie.width)
            part = tie.take(tensor, size) * _along(factor, tie.axis, tensor.dim())
            changed[tie.parameter] = tie.put(tensor, part)
        return changed

    names = unique(tie.parameter for tie, _ in signed)
    return Continuous(
        name, family, names, shape=(size,), dimension=size, element=element, **attributes
    )


def _along(values: Tensor, axis: int, dimensions: int) -> Tensor:
    """``values [n]`` as a tensor of so many dimensions, n on one axis and 1 on the others."""
    return values.view([len(values) if i == axis else 1 for i in range(dimensions)])


def shift(
    name: str,
    family: str,
    size: int,
    raised: Iterable[tuple[Tie, float]],
    readers: Iterable[tuple[Tie, str]],
    **attributes,
) -> Continuous:
    """Channels plus ``c``, which the biases of their readers take back.

    Args:
        raised: ties of what is raised by a factor times c, along all other axes.
        readers: matrices ``[out, in]``, tied at their columns, with the name of the bias ``[out]``
            that is lowered by ``columns @ c``.
    """
    raised, readers = tuple(raised), tuple(readers)

    def element(state: State, coefficients: Tensor) -> dict[str, Tensor]:
        changed: dict[str, Tensor] = {}
        for tie, factor in raised:
            tensor = changed.get(tie.parameter, state[tie.parameter])
            amount = _along(factor * coefficients, tie.axis, tensor.dim())
            changed[tie.parameter] = tie.put(tensor, tie.take(tensor, size) + amount)
        for tie, bias in readers:
            columns = tie.take(changed.get(tie.parameter, state[tie.parameter]), size)
            changed[bias] = changed.get(bias, state[bias]) - columns @ coefficients
        return changed

    names = unique([tie.parameter for tie, _ in raised] + [bias for _, bias in readers])
    return Continuous(
        name, family, names, shape=(size,), dimension=size, element=element, **attributes
    )


def permutation(
    name: str, size: int, ties: Iterable[Tie], buffers: Iterable[Tie] = (), **attributes
) -> Permutation:
    """The permutations of ``size`` channels; ``buffers`` move along but are no parameters."""
    ties, buffers = tuple(ties), tuple(buffers)
    names = unique(tie.parameter for tie in ties)
    return Permutation(name, "permutation", names, size=size, ties=ties + buffers, **attributes)


def common_shift(name: str, family: str, layer: str, inputs: int, **attributes) -> Continuous:
    """All outputs of a linear layer plus one function of its input: ``W + 1 c^T``, ``b + s``.

    The generator is constant, so its product with a Hessian is zero.

    Args:
        layer: name of the linear layer.
        inputs: width of its input; coefficients are ``(c, s)``, ``[inputs + 1]``.
    """
    weight, bias = f"{layer}.weight", f"{layer}.bias"

    def element(state: State, coefficients: Tensor) -> dict[str, Tensor]:
        return {
            weight: state[weight] + coefficients[:-1],
            bias: state[bias] + coefficients[-1],
        }

    free: dict[str, Any] = {"shape": (inputs + 1,), "dimension": inputs + 1}
    return Continuous(name, family, (weight, bias), element=element, **free, **attributes)


def softmax_shift(layer: str, inputs: int) -> Continuous:
    """Of the last linear layer ``layer``: cross entropy depends on differences of logits alone."""
    name = f"{layer} softmax shift"
    return common_shift(name, "softmax shift", layer, inputs, invariant="cross entropy")


def dead(
    name: str, parts: Iterable[Tie], sizes: Iterable[int], counts: Iterable[int], **attributes
) -> Continuous:
    """Parameters that the function does not depend on.

    Args:
        parts: where they lie: rows ``start .. start + size`` of each tensor.
        sizes: rows of each part.
        counts: entries of a row of each part.
    """
    pieces = [(tie, size, count) for tie, size, count in zip(parts, sizes, counts, strict=True)]
    total = sum(size * count for _, size, count in pieces)

    def element(state: State, coefficients: Tensor) -> dict[str, Tensor]:
        changed: dict[str, Tensor] = {}
        amounts = coefficients.split([size * count for _, size, count in pieces])
        for (tie, size, _), amount in zip(pieces, amounts):
            tensor = changed.get(tie.parameter, state[tie.parameter])
            part = tie.take(tensor, size)
            changed[tie.parameter] = tie.put(tensor, part + amount.view_as(part))
        return changed

    names = unique(tie.parameter for tie, _, _ in pieces)
    return Continuous(
        name, "dead", names, shape=(total,), dimension=total, element=element, **attributes
    )


def basis_change(name: str, left: Tie, right: Tie, size: int) -> Continuous:
    """``GL(size)``: ``A exp(M)`` and ``C exp(-M)^T``, where only the product ``A C^T`` counts.

    Args:
        left, right: the columns of A and of C, both on axis 1.
        size: number of columns; coefficients M are ``[size, size]``.
    """

    def element(state: State, coefficients: Tensor) -> dict[str, Tensor]:
        changed = {}
        for tie, matrix in ((left, coefficients), (right, -coefficients.mT)):
            tensor = state[tie.parameter]
            part = tie.take(tensor, size) @ torch.matrix_exp(matrix)
            changed[tie.parameter] = tie.put(tensor, part)
        return changed

    return Continuous(
        name,
        "basis change",
        (left.parameter, right.parameter),
        shape=(size, size),
        dimension=size * size,
        element=element,
    )


def norm_gauges(
    linear: str, norm: str, size: int, biased: bool, eps: float
) -> tuple[Continuous, ...]:
    """What batch norm after a linear layer leaves free.

    In eval mode ``gamma (w x + b - mu) / sigma + beta`` is one affine map of ``w x``: the scale of
    w (against gamma and beta) and the bias b (against beta) are free. In train mode the scale of w
    is free up to eps, and b is dead.

    Args:
        linear, norm: names of the two modules.
        size: channels.
        biased: whether the linear layer has a bias.
        eps: of the norm.
    """
    weight, bias = f"{linear}.weight", f"{linear}.bias"
    gamma, beta, mean, variance = (
        f"{norm}.{part}" for part in ("weight", "bias", "running_mean", "running_var")
    )

    def slope(state: State) -> Tensor:
        return state[gamma] * torch.rsqrt(state[variance] + eps)

    def scaled(state: State, coefficients: Tensor) -> dict[str, Tensor]:
        center = (state[bias] if biased else 0.0) - state[mean]
        return {
            weight: state[weight] * coefficients.exp().unsqueeze(1),
            gamma: state[gamma] * (-coefficients).exp(),
            beta: state[beta] - slope(state) * center * torch.expm1(-coefficients),
        }

    def shifted(state: State, coefficients: Tensor) -> dict[str, Tensor]:
        return {
            bias: state[bias] + coefficients,
            beta: state[beta] - slope(state) * coefficients,
        }

    free: dict[str, Any] = {"shape": (size,), "dimension": size}
    found = [
        Continuous(
            f"{norm} gauge", "norm gauge", (weight, gamma, beta), "eval", element=scaled, **free
        ),
        scale(
            f"{linear} scale",
            "norm scale",
            size,
            [Tie(weight)],
            [],
            mode="train",
            exact=False,
        ),
    ]
    if biased:
        found.append(
            Continuous(f"{norm} bias", "norm bias", (bias, beta), "eval", element=shifted, **free)
        )
        found.append(dead(f"{linear} bias", [Tie(bias)], [size], [1], mode="train"))
    return tuple(found)


def rows(module: str, start: int = 0, biased: bool = True) -> list[Tie]:
    """The output channels of a linear layer, from row ``start`` on, with their biases."""
    return [Tie(f"{module}.weight", 0, start)] + [Tie(f"{module}.bias", 0, start)] * biased


def columns(module: str, *starts: int) -> list[Tie]:
    """The input channels of a linear layer, once from each column in ``starts``."""
    return [Tie(f"{module}.weight", 1, start) for start in starts]


def affine(norm: str, start: int = 0) -> list[Tie]:
    """The channels of a norm's learned scale and shift, from ``start`` on."""
    return [Tie(f"{norm}.weight", 0, start), Tie(f"{norm}.bias", 0, start)]


def running(norm: str, start: int = 0) -> list[Tie]:
    """The channels of a batch norm's running statistics, from ``start`` on."""
    return [Tie(f"{norm}.running_mean", 0, start), Tie(f"{norm}.running_var", 0, start)]
