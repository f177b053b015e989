"""A table of xyz files through the workflow: from the files to the table of scores."""

import os

import numpy as np
import pandas as pd
import pytest
from workspace import TINY, Workspace

PREPARED = "resources/prepared/small.h5"


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """24 molecules of four atoms, whose gap is the length of their first bond in eV."""
    folder = tmp_path_factory.mktemp("tables")
    (folder / "mine").mkdir()
    rng = np.random.default_rng(0)
    rows = ["path,gap,split"]
    for i in range(24):
        x = np.arange(4)[:, None] * [1.2, 0, 0] + rng.normal(0, 0.15, (4, 3))
        lines = [f"{element} {a} {b} {c}" for element, (a, b, c) in zip("CHOH", x)]
        (folder / f"mine/{i}.xyz").write_text("\n".join(["4", "", *lines, ""]))
        side = ("train", "train", "train", "test")[i % 4]
        rows.append(f"{i}.xyz,{np.linalg.norm(x[1] - x[0])},{side}")
    (folder / "mine/table.csv").write_text("\n".join(rows) + "\n")
    config = {
        **TINY,
        "datasets": {
            "small": {
                "kind": "molecules",
                "source": "mine/table.csv",
                "targets": {"gap": "eV"},
                "validation": 0.2,
            }
        },
        "tasks": {
            "gotennet-gap": {
                "architecture": "gotennet",
                "dataset": "small",
                "target": "gap",
                "model": {"hidden": 8, "layers": 1, "heads": 2, "radial": 4, "dropout": 0},
            }
        },
        "training": {**TINY["training"], "label_smoothing": 0, "augmentation": None},
        "optimizers": {"adam": {"class": "adamw", "grid": {"lr": ["1e-3"], "wd": [0]}}},
        "analyses": {},
        "final": {"seeds": [1]},
    }
    return Workspace(folder, config)


@pytest.mark.slow
def test_from_the_files_to_the_table_of_scores(study):
    study.run("results/tables/molecules.csv")
    table = pd.read_csv(study / "results/tables/molecules.csv")
    (row,) = table.to_dict("records")
    assert (row["task"], row["metric"], row["unit"]) == ("gotennet-gap", "MAE", "eV")
    assert 0 < row["mean"] < 1


@pytest.mark.slow
def test_a_file_that_the_table_names_is_an_input(study):
    study.run(PREPARED)
    assert "prepare" not in study.planned(PREPARED)
    path = study / "mine/3.xyz"
    os.utime(path)
    assert "prepare" not in study.planned(PREPARED)  # touched, with the bytes that it had
    whole = path.read_text()
    path.write_text(whole.replace("C ", "Qq "))
    assert study.planned(PREPARED)["prepare"] == 1
    output = study.run(PREPARED, ok=False)
    assert "3.xyz in mine/table.csv cannot be used (it has an unknown element or key: Qq)" in output
    path.write_text(whole)
