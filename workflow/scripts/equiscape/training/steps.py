"""A recorder of the steps themselves: gradients, updates, their ranks and angles, the distance."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from equiscape.landscape.step import angle
from equiscape.settings import NonNegativeInt
from equiscape.spectra.ranks import ranks_of

if TYPE_CHECKING:
    from equiscape.training.loop import Trainer


class Steps:
    """Of the last step of each epoch, as it was taken; of one step, so batches add noise.

    ``update_norm``: length of the update. ``update_angle``: degrees between the update and the
    negative gradient of the batch. ``distance_initial``: from the weights ahead of the first
    step; ``distance_initial_relative``: by their norm. For each of the ``layers`` matrices with the
    most entries (all at 0), with the name of its layer behind a colon: ``gradient_norm``,
    ``update_norm``, ``update_angle``, ``gradient_stable_rank``, ``gradient_effective_rank``,
    ``update_stable_rank``, ``update_effective_rank`` and ``distance_initial``.

    The update is what the optimizer changed, weight decay included.

    Args:
        layers: how many matrices get columns of their own; 0 for all.
    """

    def __init__(self, layers: NonNegativeInt = 0):
        self.layers = layers
        self.initial: dict[str, Tensor] | None = None
        self.found: dict[str, float] = {}
        self._before: dict[str, Tensor] = {}  # within a step

    def after_backward(self, trainer: "Trainer") -> None:
        """Keep the weights ahead of the first step, and of the last one of an epoch."""
        if self.initial is None:
            self.initial = _copy(trainer)
        if trainer.step == trainer.steps_per_epoch - 1:
            self._before = _copy(trainer)

    def after_update(self, trainer: "Trainer") -> None:
        """Measure the last step of an epoch."""
        if not self._before:
            return
        assert self.initial is not None
        named = dict(trainer.model.named_parameters())
        gradients = {
            name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in named.items()
        }
        updates = {name: self._before[name] - p for name, p in named.items()}
        moved = {name: p - self.initial[name] for name, p in named.items()}
        way, start = _norm(moved.values()), _norm(self.initial.values())
        found = {
            "update_norm": _norm(updates.values()),
            "update_angle": angle(_flat(updates), _flat(gradients)),
            "distance_initial": way,
            "distance_initial_relative": way / start if start else float("nan"),
        }
        matrices = [name for name, p in named.items() if p.dim() == 2]
        largest = sorted(matrices, key=lambda name: -named[name].numel())
        chosen = set(largest[: self.layers] if self.layers else largest)
        for name in (name for name in matrices if name in chosen):
            layer = name.removesuffix(".weight")
            found[f"gradient_norm:{layer}"] = gradients[name].norm().item()
            found[f"update_norm:{layer}"] = updates[name].norm().item()
            found[f"update_angle:{layer}"] = angle(updates[name], gradients[name])
            found[f"distance_initial:{layer}"] = moved[name].norm().item()
            for what, matrix in (("gradient", gradients[name]), ("update", updates[name])):
                for rank, value in ranks_of(matrix).items():
                    found[f"{what}_{rank}:{layer}"] = value
        self.found, self._before = found, {}

    def row(self) -> dict[str, float]:
        """What the last step of the epoch was."""
        return dict(self.found)

    def state(self) -> dict[str, Any]:
        """The first weights, and the last step that was measured."""
        return {"initial": self.initial, "found": self.found}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state` returned."""
        self.initial, self.found = state["initial"], dict(state["found"])


def _copy(trainer: "Trainer") -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in trainer.model.named_parameters()}


def _norm(tensors: Any) -> float:
    return torch.nn.utils.get_total_norm(list(tensors)).item()


def _flat(tensors: Mapping[str, Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors.values()])
