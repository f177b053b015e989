"""A training in one line of its log: what it is when it begins, what came of it when it ends."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from equiscape.training.loop import Trainer


def described(trainer: Trainer) -> str:
    """What is trained, for how long and on what: network, epochs, batch size, device, threads."""
    task, settings = trainer.task, trainer.settings
    parameters = sum(p.numel() for p in trainer.model.parameters())
    where = str(task.device)
    if task.device.type == "cuda":
        where += f" ({torch.cuda.get_device_name(task.device)})"
    threads = torch.get_num_threads()
    return (
        f"{task.architecture} with {parameters:,} parameters, {settings.epochs} epochs of "
        f"{trainer.steps_per_epoch} steps, batch size {settings.batch_size}, "
        f"{settings.precision} on {where}, {threads} thread{'s' if threads > 1 else ''}"
    )


def summary(cells: Sequence[Mapping[str, Any]]) -> str:
    """What came of one training, or of several.

    Args:
        cells: contents of ``metrics.json``, at least one.

    Returns:
        Of one cell its scores at the best validation epoch; of several the range of their
        validation scores there; in both cases what diverged.
    """
    diverged = [cell["diverged_at"] for cell in cells if cell["diverged_at"]]
    best = [cell["at"]["best_validation"] for cell in cells if not cell["diverged_at"]]
    best = [at for at in best if at is not None]
    name, unit = cells[0]["metric"]["name"], cells[0]["metric"]["unit"]
    if len(cells) == 1:
        if diverged:
            return f"diverged at epoch {diverged[0]['epoch']}, step {diverged[0]['step']}"
        if not best:
            return f"{cells[0]['epochs']} epochs, not evaluated"
        validation, test = (
            f"{best[0][split]['score']:.4g} {unit}".strip() for split in ("validation", "test")
        )
        return f"{name} {validation} on validation at epoch {best[0]['epoch']}, {test} on test"
    said = f"{len(cells)} cells"
    if best:
        scores = [at["validation"]["score"] for at in best]
        said += (
            f": {name} {min(scores):.4g} to {max(scores):.4g} {unit}".rstrip() + " on validation"
        )
    return said + (f", {len(diverged)} diverged" if diverged else "")
