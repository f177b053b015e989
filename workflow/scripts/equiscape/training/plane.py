"""Holding a network on its equivariant plane, letting it go, and how far from it it is."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from equiscape.seeds import subseed

Tensors = Mapping[str, Tensor]


class PlaneKeeper:
    """What a network with a ``plane`` asks of its training; see the architecture's ``mode``.

    A held network trains its full matrices and is put back on the plane after every step. In exact
    arithmetic the projection would do nothing where each batch holds whole orbits: gradients, and
    the steps of SGD, Adam and Muon, lie in the plane. In floating point Muon amplifies what
    rounding leaves beside it; ``distance`` records that.

    It serves one network or several of one shape at once, whose parameters then have a leading
    axis, one entry per seed.

    Args:
        model: with the attributes ``plane``, ``mode``, ``release``, ``noise`` and ``penalty``.
        seeds: of the networks; they fix the noise.
        steps: of the whole training.
        device: of the parameters.
    """

    def __init__(self, model: Any, seeds: Sequence[int], steps: int, device: torch.device):
        self.plane: Any = model.plane.to(device)
        self.seeds, self.noise, self.penalty = list(seeds), model.noise, model.penalty
        share = {"constrained": 1.0, "free": 0.0, "relaxed": model.release}[model.mode]
        self.end = round(share * steps)  # held, or pulled back, before this many steps are done
        self.relaxed = model.mode == "relaxed"
        # on the device, so that no step waits for it
        self.worst = torch.zeros(len(self.seeds), dtype=torch.float64, device=device)

    @classmethod
    def of(
        cls, model: nn.Module, seeds: Sequence[int], steps: int, device: torch.device
    ) -> "PlaneKeeper | None":
        """The keeper of a network; None for one that has no plane."""
        return cls(model, seeds, steps, device) if hasattr(model, "plane") else None

    @staticmethod
    def own(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """A network's parameters, and the gradients of those that have one."""
        named = dict(model.named_parameters())
        gradients = {name: p.grad for name, p in named.items() if p.grad is not None}
        return {name: p.detach() for name, p in named.items()}, gradients

    @torch.no_grad()
    def start(self, parameters: Tensors) -> None:
        """Ahead of the first step: a network that is not held has its noise already."""
        if self.relaxed and (self.penalty or self.end == 0):
            self._disturb(parameters)

    @torch.no_grad()
    def after_backward(self, parameters: Tensors, gradients: Tensors, step: int) -> None:
        """Add the gradient of the penalty; ``step`` counts the finished steps."""
        if not (self.relaxed and self.penalty and step < self.end):
            return
        weight = self.penalty * (1 - step / self.end)
        for name, gradient in gradients.items():
            value = parameters[name]
            gradient.add_(value - self.plane.project_one(name, value), alpha=weight)

    @torch.no_grad()
    def after_update(self, parameters: Tensors, step: int, optimizer: Optimizer) -> None:
        """Project, or release with fresh optimizer state; ``step`` counts the finished steps."""
        if self.penalty or step > self.end or self.end == 0:
            return
        away = self.distance(parameters)
        torch.maximum(self.worst, away, out=self.worst)
        for name, value in parameters.items():
            value.copy_(self.plane.project_one(name, value))
        if self.relaxed and step == self.end:
            self._disturb(parameters)
            optimizer.state.clear()

    def distance(self, parameters: Tensors) -> Tensor:
        """``|theta - P theta| / |theta|`` of each network."""
        return self.plane.distance(parameters).reshape(-1).double()

    def row(self, parameters: Tensors) -> list[float]:
        """The distance of each network at the end of an epoch.

        Of a held one, the largest that the projections of the epoch removed.
        """
        held, self.worst = self.worst, torch.zeros_like(self.worst)
        distance = self.distance(parameters)
        return torch.where(held > 0, torch.maximum(held, distance), distance).tolist()

    @torch.no_grad()
    def _disturb(self, parameters: Tensors) -> None:
        """Add noise, in proportion to the root mean square of each network's parameters."""
        if not self.noise:
            return
        name = next(iter(parameters))
        stacked = parameters[name].dim() > self.plane.labels[name].dim()
        for i, seed in enumerate(self.seeds):
            own = [p[i] if stacked else p for p in parameters.values()]
            size = sum(p.numel() for p in own)
            squares: Any = sum(p.square().sum() for p in own)
            rms = (squares / size).sqrt()
            generator = torch.Generator().manual_seed(subseed(seed, "noise"))
            for p in own:
                drawn = torch.randn(p.shape, generator=generator, dtype=torch.float64)
                p.add_(self.noise * rms * drawn.to(p))
