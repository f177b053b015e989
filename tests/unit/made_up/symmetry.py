"""Made-up results of the analysis symmetry."""

import pandas as pd

from equiscape.io import write_csv


def write(product, manifest, gain, rng) -> None:
    rows = []
    head = {"task": product.task, "optimizer": product.optimizer, "seed": 1}
    for family in ("softmax shift", "norm scale", "neuron scale"):
        values = {"first": 1e-16, "second": 1e-14, "rayleigh": 0.1, "predicted": 0.1}
        rows.append({"level": "family", "family": family, "dimension": 9, **values})
        for layer in range(4):
            one = {"level": "symmetry", "family": family, "name": f"layers.{layer} {family}"}
            rows.append({**one, "dimension": 3, "relative_imbalance": rng.uniform(0, 0.5)})
    for name in ("gradient", "eigenvector 1", "eigenvector 2"):
        share = 1e-12 if name == "gradient" else 0.02 * (1 + gain)
        rows.append({"level": "direction", "name": name, "share": share, "random_share": 0.05})
    rows.append({"level": "permutation", "family": "permutation", "dimension": 0, "first": 1e-15,
                 "second": 1e-13})  # fmt: skip
    columns = ["name", "imbalance", "mode", "eigenvalue"]
    frame = pd.DataFrame([{**head, "mode": "eval", **row} for row in rows])
    write_csv(product.path, frame.reindex(columns=list(dict.fromkeys([*frame, *columns]))))
