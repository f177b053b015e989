"""Made-up results of the analysis constrained-landscape."""

import pandas as pd
from made_up.representation import permutation_rows

from equiscape.io import write_csv
from equiscape.report.manifest import Manifest


def write(product, manifest: Manifest) -> None:
    rows = [
        {
            **{key: row[key] for key in ("task", "optimizer", "seed", "loss")},
            "kind": "saddle across", "lowest_across": -0.05, "negative_across": 3,
            "coupling": 1e-16,
        }
        for row in permutation_rows(manifest)
        if row["mode"] == "constrained"
    ]  # fmt: skip
    write_csv(product.path, pd.DataFrame(rows))
