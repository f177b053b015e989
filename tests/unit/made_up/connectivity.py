"""Made-up results of the analysis connectivity."""

import itertools

import numpy as np
import pandas as pd
from fake_envelope import envelope

from equiscape.io import write_csv, write_json


def write(product, manifest, *_) -> None:
    first, second = product.optimizer, product.second
    kinds = ["other seed"] if first == second else ["same seed", "other seed"]
    t = np.linspace(0, 1, 5)
    frames = []
    seeds = manifest.seeds
    for kind in kinds:
        pair = seeds[0], seeds[0 if kind == "same seed" else -1]
        paths = ("none", "line", 3.0), ("weights", "line", 1.0), ("weights", "bezier", 0.1)
        for (alignment, curve, height), reset, split in itertools.product(
            paths, (False, True), ("train", "test")
        ):
            head = {
                "task": product.task, "pair": kind, "first": first, "first_seed": pair[0],
                "second": second, "second_seed": pair[1], "alignment": alignment, "reset": reset,
                "curve": curve, "t": t, "split": split,
            }  # fmt: skip
            loss = 0.5 + 0.1 * t + 4 * height * (2 - reset) * t * (1 - t)
            frames.append(pd.DataFrame({**head, "loss": loss, "score": 50 - loss}))
        for alignment in ("none", "weights"):
            frames.append(_plane({**head, "t": np.nan, "alignment": alignment, "split": "train"}))
    paths = pd.concat(frames)
    write_csv(product.path, paths)
    paths = paths[~paths["curve"].isin(["plane", "corner"])]
    keys = [name for name in paths if name not in ("t", "loss", "score", "x", "y")]
    heights = (paths["loss"] - 0.5 - 0.1 * paths["t"]).groupby([paths[key] for key in keys],
                                                               sort=False).max()  # fmt: skip
    barriers = [dict(zip(keys, key)) | {"loss": height} for key, height in heights.items()]
    write_json(
        product.path.with_suffix(".json"),
        {**envelope(product, "connectivity"), "barriers": barriers},
    )


def _plane(head) -> pd.DataFrame:
    """A bowl over the plane of three corners."""
    x, y = (axis.ravel() for axis in np.meshgrid(np.linspace(-1, 5, 4), np.linspace(-1, 3, 4)))
    x, y = np.append([0.0, 4.0, 2.0], x), np.append([0.0, 0.0, 2.0], y)
    curve = ["corner"] * 3 + ["plane"] * 16
    loss = 0.5 + 0.1 * (x - 2) ** 2 + 0.2 * y**2
    more = {"curve": curve, "x": x, "y": y, "loss": loss, "score": 50 - loss}
    return pd.DataFrame({**head, "reset": True, **more})
