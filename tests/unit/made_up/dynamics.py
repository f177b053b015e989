"""Made-up results of the analysis dynamics."""

import numpy as np
import pandas as pd
from fake_envelope import envelope

from equiscape.io import write_csv, write_json

EPOCHS = (0, 1, 2, 4, 8, 16)
LAYERS = ("first", "hidden.0", "hidden.1", "head")


def write(product, manifest, gain, rng) -> None:
    kind = manifest.optimizers[product.optimizer]["class"]
    regression = manifest.tasks[product.task]["kind"] == "qm9"
    rows = []
    for place, epoch in enumerate(EPOCHS):
        done = place / (len(EPOCHS) - 1)
        lr = 0.01 * (0.1 if epoch == 0 else 1 - 0.9 * done)
        head = {"epoch": epoch, "lr": lr, "loss": 2.5 * np.exp(-2 * done) * (1 - 0.1 * gain)}

        def add(quantity, value, layer="all", head=head, **more):
            rows.append({**head, "quantity": quantity, "layer": layer, "value": value, **more})

        noise = np.exp(rng.normal(0, 0.05))
        add("eigenvalue_1", 20 * 2.0 ** (4 * done * (1 + gain)) * noise, error=0.1, products=20)
        add("eigenvalue_2", 9 * 2.0 ** (4 * done) * noise, error=0.1, converged=epoch != 1)
        add("trace", 300 * 2.0 ** (2 * done), error=20.0, products=8)
        if epoch:
            layer = "part" if kind == "muon" else "all"
            add("edge", (0.05 if kind == "muon" else 0.2) * 5.0 ** min(1, 2 * done) * noise, layer)
            add("threshold", 38 / lr, layer)
        if kind == "muon":
            add("spectral", 900.0, error=3.0)
            add("spectral_edge", 0.1 + 0.3 * done, error=0.01)
        add("step_gain", 0.05 * np.exp(-3 * done))
        add("step_penalty", 0.01 * np.exp(-2 * done))
        add("step_change", -0.04 * np.exp(-3 * done))
        add("rho", 0.2 * np.exp(done))
        add("update_angle", 55 - 10 * gain)
        add("update_share", 0.2 / (1 + 3 * gain) * np.exp(-done))
        add("random_share", 1e-3)
        add("distance_initial_relative", 0.3 * done * (1 + gain))
        if not regression:
            add("margin_train_median", 3 * done - 0.2)
            add("margin_train_tenth", 2 * done - 0.9)
        for i, layer in enumerate(LAYERS):
            for what, base in (("weight", 6), ("gradient", 2), ("update", 3)):
                add(
                    f"{what}_stable_rank", base * (1 + 0.5 * i + gain * (what != "gradient")), layer
                )
            add("update_angle", 60 - 5 * i, layer)
            add("probe", 20 + 10 * i + 20 * done + gain, layer)
    frame = pd.DataFrame(rows)
    frame = frame.fillna({"error": 0.0, "converged": True, "products": 0})
    seed = manifest.seeds[0] if product.seed is None else product.seed
    frame = frame.assign(task=product.task, optimizer=product.optimizer, seed=seed)
    write_csv(product.path, frame)
    absent = [{"quantity": "edge", "reason": "the optimizer has no state ahead of its first step",
               "epochs": [0]}]  # fmt: skip
    if regression:
        absent += [{"quantity": "margin", "reason": "a regression has no margins",
                    "epochs": list(EPOCHS)}]  # fmt: skip
    costs = {"seconds": 4.5, "peak_memory_mb": 410.0, "products": 300}
    head = envelope(product, "dynamics", seed)
    snapshots = [{**head["checkpoints"][0], "epoch": epoch} for epoch in EPOCHS]
    write_json(
        product.path.with_suffix(".json"),
        {**head, "checkpoints": snapshots, "absent": absent, "costs": costs},
    )
