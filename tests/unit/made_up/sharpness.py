"""Made-up results of the analysis ``sharpness``: raw measures grow with the gain, folded hardly."""

import numpy as np
import pandas as pd

from equiscape.io import write_csv

NO_NORMS = ("egnn", "gotennet")


def write(product, manifest, gain, rng) -> None:
    """A table of every measure at every seed, raw and folded."""
    raw = ("hessian_largest", "hessian_trace", "adaptive_largest", "adaptive_trace")
    whole = (*raw, "log_hessian_largest", "log_hessian_trace", "fisher_rao", "rest_smallest",
             "gauss_newton_largest", "spectral_step", "spectral_relative")  # fmt: skip
    rows = [
        (product.task, product.optimizer, seed, folded, measure, "all",
         (-1 if measure == "rest_smallest" else 1) * 8 * 3.0 ** (gain * (0.2 if folded else 1))
         * np.exp(rng.normal(0, 0.1)), 0.01, measure != "spectral_step", 16)
        for seed in manifest.seeds
        for folded in (True, False)
        for measure in (whole if folded else raw)
    ]  # fmt: skip
    norms = 0 if manifest.tasks[product.task]["architecture"] in NO_NORMS else 3
    rows += [
        (product.task, product.optimizer, seed, folded, measure, "all", count, 0.0, True, 0)
        for seed in manifest.seeds
        for folded, measure, count in (
            (False, "parameters", 12345),
            (False, "flat_directions", 290),
            (True, "parameters", 12000 + 100 * (norms == 0)),
            (True, "flat_directions", 120),
            (True, "folded_norms", norms),
        )
    ]
    rows += [
        (
            product.task,
            product.optimizer,
            seed,
            True,
            "relative_flatness",
            layer,
            2.0,
            0.3,
            True,
            16,
        )
        for seed in manifest.seeds
        for layer in ("first", "head.output")
    ]
    columns = ["task", "optimizer", "seed", "folded", "measure", "layer", "value", "residual",
               "converged", "products"]  # fmt: skip
    write_csv(product.path, pd.DataFrame(rows, columns=columns))
