"""No step of an epoch makes the host wait for the device, whatever the network and optimizer.

The device is torch's ``meta``, whose tensors have no values: what would have to read one (``item``,
``nonzero``, a boolean index, a copy to the host) raises, as it would stall a GPU. What only costs
time there (a blocking copy from the host, a host tensor among the arguments) is counted.
"""

import math
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from permutation_case import teacher_task
from test_optim_build import entry_of
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from equiscape.data import generated_molecules, procedural
from equiscape.data.molecules import MoleculeDataset, Molecules
from equiscape.objectives import MultiLabel
from equiscape.optim import OPTIMIZERS
from equiscape.task import Task
from equiscape.training.loop import Trainer
from equiscape.training.settings import Settings

DEVICE = torch.device("meta")
CLOUDS = {"scale": [0.8, 1.25], "shift": 0.1, "rotate": "so3", "jitter": {}, "dropout": 0.5}


class Made(TorchFunctionMode):
    """Notes tensors that are made of the host's numbers on the device, which are copied there."""

    def __init__(self, found):
        super().__init__()
        self.found = found

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        device = torch.device(kwargs.get("device") or "cpu")
        if func in (torch.tensor, torch.as_tensor) and device.type != "cpu":
            self.found.append(f"{func.__name__} on the device")
        return func(*args, **kwargs)


class Waits(TorchDispatchMode):
    """Notes what makes the host wait for the device though no value is read."""

    def __init__(self):
        super().__init__()
        self.found: list[str] = []
        self.made = Made(self.found)

    def __enter__(self):
        self.made.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self.made.__exit__(*error)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        devices = {x.device.type for x in tensors if x.dim() or len(tensors) == 1}
        out = func(*args, **kwargs)
        outputs = {x.device.type for x in tree_leaves(out) if isinstance(x, torch.Tensor)}
        name = func.overloadpacket.__name__
        free = kwargs.get("non_blocking") or (name == "copy_" and args[2:] == (True,))
        if len(devices | outputs) > 1 and not free:
            self.found.append(f"{name} between {' and '.join(sorted(devices | outputs))}")
        boolean = any(x.dtype == torch.bool for x in tensors)
        if name.startswith(("index_put", "_index_put")) and boolean and args[2].dim():
            self.found.append(f"{name} at the places of a mask")
        return out


class HostGenerator(torch.Generator):
    """A generator of the host, whatever device is asked for."""

    def __new__(cls, device=None):
        return super().__new__(cls)


class Steps(Trainer):
    """A trainer whose epochs end with their last step: nothing is fetched."""

    def check(self):
        self.losses = [(math.nan, size) for _, size in self._pending]
        self._pending = []

    def close_epoch(self, train_loss, pause=lambda: None):
        self.epoch += 1
        self.step = 0
        self.epoch_order = self.order.get_state()


def clouds(folder):
    """Generated shapes, of which every step sees other points."""
    entry = {
        "points": 16,
        "classes": 4,
        "train_per_class": 5,
        "test_per_class": 1,
        "sample_points": True,
    }
    procedural.prepare(entry, None, folder / "shapes.h5")
    return procedural.load(folder / "shapes.h5", DEVICE, entry)


def still_clouds(folder):
    """The same, not transformed, so that their neighbors are kept."""
    found = clouds(folder)
    found.sample_points = False
    return found


def molecules(folder):
    """Generated molecules."""
    entry = {"molecules": 12, "max_atoms": 6, "target": "energy"}
    generated_molecules.prepare(entry, None, folder / "molecules.h5")
    return generated_molecules.load(folder / "molecules.h5", DEVICE, entry)


def graphs(folder):
    """Chains of atoms of two features, with labels."""
    counts = np.arange(3, 11)
    node_ptr, edge_ptr = (np.concatenate([[0], c.cumsum()]) for c in (counts, 2 * (counts - 1)))
    left = np.concatenate([np.arange(n - 1) for n in counts]).astype(np.uint8)
    chains = Molecules(
        node_ptr=node_ptr,
        edge_ptr=edge_ptr,
        node_features=np.zeros((node_ptr[-1], 2), np.uint8),
        edge_index=np.stack([left, left + 1]).repeat(2, axis=1).astype(np.uint8),
        edge_features=np.zeros((edge_ptr[-1], 1), np.uint8),
        walks=np.zeros((node_ptr[-1], 3), np.float32),
        targets=np.zeros((8, 2), np.float32),
        splits={"train": np.arange(8)},
        target_names=["a", "b"],
        units=["", ""],
        node_categories=[4, 4],
        edge_categories=[3],
    )
    return MoleculeDataset(chains, DEVICE, chains.targets, MultiLabel())


def teacher(folder):
    """Orbits of a group."""
    found = teacher_task(folder).dataset
    found._tensors = {s: (x.to(DEVICE), y.to(DEVICE)) for s, (x, y) in found._tensors.items()}
    return found


CASES = {
    "pointnet": (clouds, {"channels": [8, 16], "head": [8]}),
    "dgcnn": (clouds, {"channels": [8, 8], "k": 4, "embedding": 16, "head": [8]}),
    "egnn": (still_clouds, {"hidden": 8, "layers": 2, "k": 4, "head": [8]}),
    "gotennet": (molecules, {"hidden": 8, "layers": 1, "heads": 2, "radial": 6}),
    "gine": (graphs, {"hidden": 8, "layers": 2, "walk_channels": 2, "head": [8]}),
    "permutation-mlp": (teacher, {"hidden": ["regular"]}),
}


@pytest.fixture(scope="module", params=CASES)
def task(request, tmp_path_factory):
    """A network's task, its data on the device that has no values."""
    data, settings = CASES[request.param]
    dataset = data(tmp_path_factory.mktemp("data"))
    training = {"augmentation": CLOUDS} if data is clouds else {}
    entry = {"architecture": request.param, "model": settings, "training": training}
    return Task("case", entry, dataset, DEVICE)


@pytest.mark.parametrize("optimizer", sorted(OPTIMIZERS))
def test_no_step_of_an_epoch_waits_for_the_device(task, optimizer, monkeypatch):
    monkeypatch.setattr(torch, "Generator", HostGenerator)  # the device has none,
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # nor this
    settings = Settings.read(
        {"epochs": 2, "batch_size": 8, "clip_norm": 1.0, "recorders": ["gradient_norm"]}
    )
    trainer = Steps(task, entry_of(optimizer), 1e-3, 1e-2, 0, settings)
    with Waits() as waits:
        for _ in range(settings.epochs):
            trainer.run_epoch()
    assert trainer.steps == 2 * trainer.steps_per_epoch
    assert trainer.steps_per_epoch >= 1
    assert waits.found == []


def test_a_wait_would_be_seen():
    value, mask, host = torch.ones(4, device=DEVICE), None, torch.arange(2)
    mask = value > 0
    for reads in (
        lambda: value.sum().item(),
        lambda: bool(mask.any()),
        lambda: value.nonzero(),
        lambda: value[mask],
        lambda: value.cpu(),
        lambda: value.tolist(),
        lambda: torch.bincount(mask.long()),
        lambda: value.repeat_interleave(mask.long()),
        lambda: torch.equal(value, value),
    ):
        with pytest.raises((RuntimeError, NotImplementedError)):
            reads()
    for waits in (
        lambda: host.to(DEVICE),
        lambda: torch.tensor([1.0, 2.0], device=DEVICE),
        lambda: value[host],
        lambda: value.index_put_((mask,), value[:1]),
        lambda: value.copy_(torch.ones(4)),
    ):
        with Waits() as found:
            waits()
        assert found.found, waits
    with Waits() as found:
        host.to(DEVICE, non_blocking=True)
        value.mul_(torch.tensor(2.0))
        value.masked_fill_(mask, 0.0)
        torch.arange(3, device=DEVICE)
    assert found.found == []
