"""Made-up results of the analysis representation-connectivity."""

import pandas as pd

from equiscape.io import write_csv
from equiscape.report.manifest import Manifest

BARRIERS = {("none", "line"): 0.5, ("weights", "line"): 0.02, ("weights", "bezier"): 0.0}
"""Of pairs of one representation; those of two are three times as high."""


def write(product, manifest: Manifest) -> None:
    """Two pairs of natural networks, and two that lead to one of another representation."""
    task, optimizer = next(manifest.pairs)
    rows = [
        {
            "dataset": manifest.tasks[task]["dataset"], "group": "S3", "inputs": "natural",
            "teacher": "natural", "width": 3, "kind": "other" if other else "same",
            **{f"{side}_{key}": value for side in ("first", "second")
               for key, value in (("task", task), ("optimizer", optimizer), ("seed", pair))},
            "first": "natural", "first_solved": True,
            "second": "2 trivial" if other else "natural", "second_solved": not other,
            "alignment": alignment, "curve": curve, "split": split,
            "loss_first": 1e-12, "loss_second": 0.4 * other,
            "peak": 0.6, "barrier": height * (3 if other else 1) * (1 + pair),
        }
        for other in (False, True)
        for pair in (0, 1)
        for (alignment, curve), height in BARRIERS.items()
        for split in ("train", "test")
    ]  # fmt: skip
    write_csv(product.path, pd.DataFrame(rows))
