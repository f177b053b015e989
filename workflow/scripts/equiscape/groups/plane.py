"""The equivariant plane: the linear subspace of a network's parameters that commutes with G.

For representations ``rho_0 ... rho_L`` of the layers it is ``W_l rho_(l-1)(g) = rho_l(g) W_l`` and
``rho_l(g) b_l = b_l`` for every g, so each parameter is constant on the orbits of G on its entries.
Equivariant networks of a given width are the union of these planes over all choices of the hidden
representations, within the space of the multilayer perceptron (Xie & Smidt 2025, arXiv 2506.02269).
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from equiscape.groups.representation import Representation, orbits


class Plane:
    """An equivariant plane in the space of named parameters.

    Args:
        labels: for each parameter the orbit numbers of its entries, ``[rows, columns]`` or
            ``[rows]``, from 0 without gaps.
        counts: for each parameter the sizes of its orbits, where they are known.
    """

    def __init__(self, labels: Mapping[str, Tensor], counts: Mapping[str, Tensor] | None = None):
        self.labels = {name: label.long() for name, label in labels.items()}
        self._flat = {name: label.flatten() for name, label in self.labels.items()}
        self._counts = counts or {name: label.bincount() for name, label in self._flat.items()}

    @classmethod
    def of_layers(cls, representations: Sequence[Representation], biases: Sequence[bool]):
        """The plane of ``layers.l.weight`` and ``layers.l.bias`` between given representations.

        Args:
            representations: of the input, of each hidden layer and of the output.
            biases: whether each layer has one.
        """
        labels = {}
        for layer, (before, after) in enumerate(pairwise(representations)):
            labels[f"layers.{layer}.weight"] = orbits(after.action, before.action)
            if biases[layer]:
                fixed = after.action[:, :1] * 0  # the trivial representation
                labels[f"layers.{layer}.bias"] = orbits(after.action, fixed)[:, 0]
        return cls({name: torch.as_tensor(label) for name, label in labels.items()})

    def to(self, device: torch.device | str) -> "Plane":
        """The plane for parameters on a device."""
        labels = {name: label.to(device) for name, label in self.labels.items()}
        return Plane(labels, {name: counts.to(device) for name, counts in self._counts.items()})

    @property
    def dimension(self) -> int:
        """The number of orbits."""
        return sum(len(counts) for counts in self._counts.values())

    def project_one(self, name: str, parameter: Tensor) -> Tensor:
        """``parameter [..., *shape]`` with each entry replaced by the mean over its orbit.

        It is the nearest point of the plane. Equal entries come out equal to the last bit.
        """
        flat, counts = self._flat[name], self._counts[name]
        entries = parameter.flatten(parameter.dim() - self.labels[name].dim())
        sums = entries.new_zeros(*entries.shape[:-1], len(counts)).index_add_(-1, flat, entries)
        means = sums / counts.to(sums.dtype)
        return means.index_select(-1, flat).view(parameter.shape)

    def project(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The nearest point of the plane."""
        return {name: self.project_one(name, parameters[name]) for name in self.labels}

    def distance(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """``|theta - P theta| / |theta|``, a scalar for each leading index of the parameters."""
        away: Any = 0
        whole: Any = 0
        for name, label in self.labels.items():
            value = parameters[name]
            dims = tuple(range(-label.dim(), 0))
            away = away + (value - self.project_one(name, value)).square().sum(dims)
            whole = whole + value.square().sum(dims)
        return (away / whole).sqrt()

    def basis(self, names: Sequence[str] | None = None) -> Tensor:
        """``[n, dimension]`` orthonormal columns over the flat parameters, by ``names``."""
        blocks = []
        for name in names or list(self.labels):
            indicator = torch.nn.functional.one_hot(self._flat[name]).double()
            blocks.append(indicator / indicator.sum(0).sqrt())
        return torch.block_diag(*blocks)

    def draw(self, name: str, generator: torch.Generator | None = None) -> Tensor:
        """A point of the plane whose orbit parameters are standard normal, for one parameter."""
        values = torch.randn(len(self._counts[name]), generator=generator, dtype=torch.float64)
        return values[self.labels[name]]
