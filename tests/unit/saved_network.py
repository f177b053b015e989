"""Checkpoints of a small PointNet for studies of made-up results."""

import torch

from equiscape import checkpoint, io, models

SETTINGS = {"channels": [8, 8], "head": [8]}


def save_network(path, seed, weights=True):
    """A checkpoint of a small PointNet whose weights follow from a seed; returns the network."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = models.build("pointnet", {"num_outputs": 3}, SETTINGS).eval()
    state = {
        "format": checkpoint.CHECKPOINT_FORMAT,
        "status": "finished" if weights else "diverged",
        "model": model.state_dict() if weights else None,
        "epoch": 1,
        "task": "pointnet",
        "architecture": "pointnet",
        "model_settings": SETTINGS,
        "model_arguments": {"num_outputs": 3},
        "outputs": {"kind": "classification"},
    }
    io.save_checkpoint(path, state)
    return model
