"""Checkpoints that describe themselves: weights, and all that is needed to predict with them.

A checkpoint is a ``torch.save`` of tensors and plain values, read with ``weights_only=True``:

=====================  =============================================================================
``format``             :data:`CHECKPOINT_FORMAT`
``status``             ``finished``; ``diverged`` or ``stopped`` (early) where the epoch was not
                       reached, and then ``model`` may be None
``model``              name -> tensor, the weights and buffers
``epoch``              after how many epochs
``task``               name of the task
``architecture``       registered name or import path
``model_settings``     of the task's ``model``
``model_arguments``    what the data dictated, e.g. ``{"num_outputs": 40}``
``outputs``            meaning of the outputs, see :meth:`equiscape.data.base.Dataset.outputs`
``optimizer``          name of the optimizer
``seed``               of the cell
``cell``               ``{"optimizer", "lr", "wd", "seed"}`` as the study spells them
``library``            version of Equiscape
=====================  =============================================================================

A snapshot has ``optimizer_state``, ``optimizer_entry`` (``{"class", "settings"}``), ``lr`` (of the
last step) and ``training`` (some of its settings) besides.
"""

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from equiscape.errors import CheckpointError, DataError, first_line
from equiscape.io import read_json

if TYPE_CHECKING:
    from torch import Tensor, nn

    from equiscape.task import Task

CHECKPOINT_FORMAT = 2
READ = (1, 2)  # the first one did not describe its data


def contents(
    task: "Task",
    weights: "Mapping[str, Tensor] | None",
    epoch: int,
    cell: Mapping[str, Any],
    status: str = "finished",
) -> dict[str, Any]:
    """A checkpoint's content with ``weights``; see the module for its keys."""
    return {
        "format": CHECKPOINT_FORMAT,
        "status": status,
        "model": None if weights is None else dict(weights),
        "epoch": epoch,
        "task": task.name,
        "architecture": task.architecture,
        "model_settings": plain(task.model_settings),
        "model_arguments": plain(task.dataset.model_arguments()),
        "outputs": plain(task.dataset.outputs()),
        "optimizer": cell["optimizer"],
        "seed": cell["seed"],
        "cell": dict(cell),
        "library": library_version(),
    }


def read(path: str | Path, map_location: Any = "cpu") -> dict[str, Any]:
    """The content of a checkpoint or a snapshot, checked against its cell's ``metrics.json``.

    Raises:
        CheckpointError: the file is absent, damaged, of an unknown format, or not the one whose
            SHA-256 its cell recorded.
    """
    import torch

    path = Path(path)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist; run the training cell first.") from None
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read ({error.strerror}); check the file system and run again."
        ) from None
    expected = recorded_sha256(path)
    if expected is not None and hashlib.sha256(content).hexdigest() != expected:
        raise CheckpointError(
            f"{path} is not the file that its cell wrote (SHA-256 in metrics.json); restore it "
            "from a copy, or rerun its cell with --forcerun."
        )
    try:
        state = torch.load(io.BytesIO(content), map_location=map_location, weights_only=True)
    except Exception as error:
        reason = first_line(error)
        if "weights_only" in reason.lower() or "weights only" in reason.lower():
            reason = "it holds more than tensors and plain values"
        raise CheckpointError(
            f"{path} cannot be read as a checkpoint ({reason}); rerun its cell with --forcerun."
        ) from None
    if not isinstance(state, dict) or "model" not in state:
        raise CheckpointError(f"{path} holds no model; rerun its cell with --forcerun.")
    if state.get("format") not in READ:
        raise CheckpointError(
            f"{path} has checkpoint format {state.get('format')!r}, and this version of Equiscape "
            f"reads {' and '.join(map(str, READ))}; use the version that wrote it."
        )
    return state


def recorded_sha256(path: Path) -> str | None:
    """The SHA-256 of a cell's file in the ``metrics.json`` beside it; None where there is none."""
    for folder in path.parents[:2]:
        try:
            metrics = read_json(folder / "metrics.json", "sums")
            return metrics["sha256"][path.relative_to(folder).as_posix()]
        except (DataError, KeyError):  # none, or a file of something else
            continue
    return None


def fill(model: "nn.Module", state: Mapping[str, Any], path: str | Path) -> "nn.Module":
    """Put a checkpoint's weights into ``model`` and set it to eval mode.

    Raises:
        CheckpointError: the epoch was not reached, a weight is not finite, or the network is
            another one; the message names ``path`` and the tensor.
    """
    import torch

    if state["model"] is None:
        raise CheckpointError(
            f"{path} holds no weights, since its cell {state.get('status')} before epoch "
            f"{state['epoch']} was done; take another checkpoint."
        )
    for name, tensor in state["model"].items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise CheckpointError(
                f"{path}: the tensor {name} holds NaN or infinity, so nothing can be measured on "
                "it; its cell diverged or the file is damaged: choose a smaller learning rate, or "
                "rerun its cell."
            )
    try:
        model.load_state_dict(state["model"])
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise CheckpointError(
            f"{path} does not fit tasks.{state['task']}.model ({reason}); give the task the model "
            "it was trained with, or rerun its cell."
        ) from None
    return model.eval()


@dataclass
class Loaded:
    """A network that stands alone.

    Attributes:
        model: in eval mode.
        state: the checkpoint's content without the weights.
    """

    model: "nn.Module"
    state: dict[str, Any]

    def predict(self, *inputs: Any) -> "Tensor":
        """What the network says of its inputs, in the data set's own terms.

        Classes ``[size]`` (indices into ``state["outputs"]["class_names"]``), values ``[size]`` in
        the target's unit, or probabilities ``[size, labels]``.
        The atom references of a molecule, where the target has them, are added.

        Args:
            inputs: of the network's ``forward``.
        """
        import torch

        outputs = self.state["outputs"]
        with torch.no_grad():
            found = self.model(*inputs)
        if outputs["kind"] == "classification":
            return found.argmax(-1)
        if outputs["kind"] != "regression":
            return found.sigmoid()
        values = found.flatten() * outputs["std"] + outputs["mean"]
        for element, reference in outputs.get("atom_references", {}).items():
            numbers, graph = inputs[0], inputs[3]
            atoms = torch.bincount(graph[numbers == int(element)], minlength=len(values))
            values = values + reference * atoms
        return values


def load(path: str | Path, device: Any = "cpu") -> Loaded:
    """The network of a ``checkpoint.pt`` or a snapshot, without its study or its data.

    Raises:
        CheckpointError: as :func:`read` and :func:`fill`; or the file is of the first format.
    """
    import torch

    from equiscape import models

    state = read(path, map_location=device)
    if state["format"] == 1:
        raise CheckpointError(
            f"{path} has format 1, which does not describe its data; load it through its task."
        )
    with torch.random.fork_rng(devices=[]):
        model = models.build(
            state["architecture"], state["model_arguments"], state["model_settings"]
        )
    fill(model.to(device), state, path)
    return Loaded(model, {key: value for key, value in state.items() if key != "model"})


def library_version() -> str:
    """The installed version of Equiscape, or that of a checkout."""
    try:
        return version("equiscape")
    except PackageNotFoundError:
        return "checkout"


def plain(value: Any) -> Any:
    """``value`` in types that ``weights_only=True`` reads: numpy's scalars and arrays are not."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value.tolist() if hasattr(value, "tolist") else value
