"""Made-up results of the analysis representation."""

import numpy as np
import pandas as pd

from equiscape.io import write_csv
from equiscape.report.manifest import Manifest


def permutation_rows(manifest: Manifest) -> list[dict]:
    """A row a network, of a constrained student in every other task and of a relaxed one else."""
    rng = np.random.default_rng(7)
    return [
        {
            "task": task, "optimizer": optimizer, "seed": seed, "group": "S3", "inputs": "natural",
            "teacher": "natural", "student": "sign + trivial",
            "mode": "relaxed" if index % 2 else "constrained",
            "release": 0.5 if index % 2 else np.nan, "layer": 0, "loss": loss, "test_loss": loss,
            "representation": "natural" if loss < 1e-5 else "none", "residual": 1e-9,
            "homomorphism": True, "dead": 0, "merged": 0, "distance": 0.1, "nearest": "natural",
            "nearest_distance": 0.01, "equivariance_error": 1e-9,
        }
        for index, task in enumerate(manifest.tasks)
        for optimizer in manifest.optimizers
        for seed in manifest.seeds
        for loss in [10.0 ** -rng.uniform(1, 12) if index % 2 else 0.4]
    ]  # fmt: skip


def write(product, manifest: Manifest) -> None:
    write_csv(product.path, pd.DataFrame(permutation_rows(manifest)))
