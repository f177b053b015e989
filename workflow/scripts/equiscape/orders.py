"""Where a set of channels lies in a network, and the orders and signs it may take.

An *order* is a tensor ``[n]`` of integers: entry i says which channel comes to place i, and ``~c``
(that is, -1 - c) stands for channel c with its sign changed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

Action = Sequence[Sequence[int]]  # for each group element, where it sends each channel


@dataclass(frozen=True)
class Tie:
    """One axis of one tensor of a state, where a set of n channels lies.

    Attributes:
        parameter: name of the parameter or buffer.
        axis: of the tensor.
        start: place of the first channel on the axis.
        width: consecutive entries a channel takes, 1 but for channels of blocks (heads).
    """

    parameter: str
    axis: int = 0
    start: int = 0
    width: int = 1

    def take(self, tensor: Tensor, size: int) -> Tensor:
        """The part of ``tensor`` that ``size`` channels take, a view."""
        return tensor.narrow(self.axis, self.start, size * self.width)

    def put(self, tensor: Tensor, part: Tensor) -> Tensor:
        """A copy of ``tensor`` with ``part`` from :attr:`start` on."""
        after = self.start + part.shape[self.axis]
        rest = tensor.narrow(self.axis, after, tensor.shape[self.axis] - after)
        return torch.cat([tensor.narrow(self.axis, 0, self.start), part, rest], self.axis)

    def reorder(self, tensor: Tensor, order: Tensor) -> Tensor:
        """A copy of ``tensor`` whose channels are in another order, or of another sign."""
        order = order.to(tensor.device)
        within = torch.arange(self.width, device=tensor.device)
        places = (channels(order).unsqueeze(1) * self.width + within).flatten()
        part = self.take(tensor, len(order)).index_select(self.axis, places)
        if (order < 0).any():
            shape = [-1 if axis == self.axis else 1 for axis in range(tensor.dim())]
            part = part * signs(order).to(tensor).repeat_interleave(self.width).view(shape)
        return self.put(tensor, part)


def channels(order: Tensor) -> Tensor:
    """``[n]``: the channels of an order, without their signs."""
    return torch.where(order < 0, ~order, order)


def signs(order: Tensor) -> Tensor:
    """``[n]``: 1, or -1 where the channel's sign changes."""
    return torch.where(order < 0, -1, 1)


def composed(first: Tensor, second: Tensor) -> Tensor:
    """The order that is ``first`` and then ``second``."""
    moved = first[channels(second)]
    return torch.where(second < 0, ~moved, moved)


def draw(
    size: int, blocks: Sequence[int], signed: bool, action: Action, generator: torch.Generator
) -> Tensor:
    """A random order of ``size`` channels; arguments as of :func:`best`.

    Where the order is to commute with an action, every one is equally likely.
    """
    if action:
        values = torch.randn(size, size, generator=generator, dtype=torch.float64)
        return _best_commuting(values.numpy(), signed, np.asarray(action))
    parts, first = [], 0
    for block in blocks or (size,):
        parts.append(first + torch.randperm(block, generator=generator))
        first += block
    order = torch.cat(parts)
    if signed:
        flipped = torch.randint(0, 2, (size,), generator=generator).bool()
        order = torch.where(flipped, ~order, order)
    return order


def best(values: np.ndarray, blocks: Sequence[int], signed: bool, action: Action) -> Tensor:
    """The allowed order of largest total value.

    Args:
        values: ``[n, n]``, of channel j at place i; its negative with the other sign.
        blocks: sizes of consecutive blocks within which channels stay; none: one block.
        signed: whether signs may change too.
        action: with which the order is to commute; none: any order.
    """
    if action:
        return _best_commuting(values, signed, np.asarray(action))
    parts, first = [], 0
    for size in blocks or (len(values),):
        block = values[first : first + size, first : first + size]
        weight = np.abs(block) if signed else block
        parts.append(first + _assigned(weight)[1])
        first += size
    order = np.concatenate(parts)
    if signed:
        order = np.where(values[np.arange(len(order)), order] < 0, ~order, order)
    return torch.from_numpy(order)


def _assigned(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the assignment of largest total value."""
    from scipy.optimize import linear_sum_assignment  # slow to import, and trainings need none

    return linear_sum_assignment(values, maximize=True)


def _best_commuting(values: np.ndarray, signed: bool, action: np.ndarray) -> Tensor:
    """As :func:`best`, of the orders that commute with ``action [elements, n]``.

    Such an order maps orbits to orbits, each by one of the few maps that commute; so the best map
    is found for each pair of orbits, then the best pairs by linear assignment.
    """
    orbits = orbits_of(action)
    weight = np.full((len(orbits), len(orbits)), -np.inf)
    chosen: dict[tuple[int, int], tuple[np.ndarray, np.ndarray, bool]] = {}
    for a, b in np.ndindex(weight.shape):
        for places, images in commuting_maps(action, orbits[a][0], orbits[b]):
            total = float(values[places, images].sum())
            flipped = signed and total < 0
            if (value := abs(total) if signed else total) > weight[a, b]:
                weight[a, b] = value
                chosen[a, b] = places, images, flipped
    low = -1.0 - 2 * len(orbits) * np.abs(weight[np.isfinite(weight)]).max()
    rows, columns = _assigned(np.where(np.isfinite(weight), weight, low))
    order = np.empty(len(values), dtype=np.int64)
    for pair in zip(rows.tolist(), columns.tolist()):
        places, images, flipped = chosen[pair]
        order[places] = ~images if flipped else images
    return torch.from_numpy(order)


def orbits_of(action: np.ndarray) -> list[np.ndarray]:
    """The orbits of ``action [elements, n]``, by their first member."""
    found = {tuple(sorted(set(action[:, i].tolist()))) for i in range(action.shape[1])}
    return [np.array(orbit) for orbit in sorted(found)]


def commuting_maps(
    action: np.ndarray, base: int, orbit: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The maps from the orbit of ``base`` to ``orbit`` that commute, as places and their images.

    ``g base -> g image`` is one where the same elements leave ``base`` and ``image`` in place.
    """
    places, first = np.unique(action[:, base], return_index=True)
    still = action[:, base] == base
    for image in orbit:
        if np.array_equal(still, action[:, image] == image):
            yield places, action[first, image]
