"""The recorder of steps, by hand."""

import numpy as np
import pytest
import torch
from training_case import Plain, case

from equiscape.spectra.ranks import effective_rank, stable_rank
from equiscape.training.loop import Trainer
from equiscape.training.settings import Settings

SGD = {"name": "sgd", "class": "sgd", "settings": {}}


def trainer(optimizer=SGD, lr=0.1, **training):
    plain = {"schedule": None, "clip_norm": None, "augmentation": None, "label_smoothing": 0.0}
    task = case(network=Plain, train=16, **{"recorders": ["steps"], **plain, **training})
    return Trainer(task, optimizer, lr, 0, 5, Settings.read(task.training))


def test_the_last_step_of_an_epoch_by_hand():
    own = trainer(epochs=2)
    initial = [p.detach().clone() for p in own.model.parameters()]
    own.run_epoch()
    row = own.rows[0]
    # plain gradient descent: the update is lr times the gradient, which the network still holds
    gradients = [p.grad for p in own.model.parameters()]
    size = torch.cat([g.flatten() for g in gradients]).norm().item()
    assert row["update_norm"] == pytest.approx(0.1 * size, rel=1e-4)
    assert row["update_angle"] == pytest.approx(0, abs=0.05)
    moved = [p.detach() - start for p, start in zip(own.model.parameters(), initial)]
    way = torch.cat([m.flatten() for m in moved]).norm().item()
    start = torch.cat([s.flatten() for s in initial]).norm().item()
    assert row["distance_initial"] == pytest.approx(way, rel=1e-6)
    assert row["distance_initial_relative"] == pytest.approx(way / start, rel=1e-6)
    hidden = own.model.hidden.weight
    assert row["gradient_norm:hidden"] == pytest.approx(hidden.grad.norm().item(), rel=1e-6)
    values = np.linalg.svd(hidden.grad.double().numpy(), compute_uv=False)
    assert row["gradient_stable_rank:hidden"] == pytest.approx(stable_rank(values), rel=1e-9)
    assert row["gradient_effective_rank:hidden"] == pytest.approx(effective_rank(values), rel=1e-9)
    place = [name for name, _ in own.model.named_parameters()].index("hidden.weight")
    assert row["distance_initial:hidden"] == pytest.approx(moved[place].norm().item(), rel=1e-6)


def test_orthogonal_steps_have_full_rank_and_their_own_length():
    own = trainer({"name": "muon", "class": "muon", "settings": {"polar": "exact"}}, epochs=1)
    own.run_epoch()
    row = own.rows[0]
    assert row["update_stable_rank:hidden"] == pytest.approx(16, rel=1e-3)
    assert row["update_effective_rank:hidden"] == pytest.approx(16, rel=1e-3)
    assert row["update_norm:hidden"] == pytest.approx(0.1 * 0.2 * 16**0.5 * 16**0.5, rel=1e-3)
    assert row["gradient_stable_rank:hidden"] < 4


def test_the_largest_matrices_alone_have_columns_where_asked_for():
    own = trainer(epochs=1, recorders=[{"name": "steps", "layers": 1}])
    own.run_epoch()
    layers = {key.partition(":")[2] for key in own.rows[0] if ":" in key}
    assert layers == {"hidden"}
