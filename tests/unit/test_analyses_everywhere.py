"""Every analysis on permutation representations, with cells trained together and alone.

Cells that are trained together end where each ends by itself, so every analysis must find the same
in both; and each number that a full Hessian or the weights give is compared with them.
"""

from importlib import import_module

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from fake_results import REFERENCE

from equiscape.analyses import ANALYSES
from equiscape.analyses.subject import load_subject
from equiscape.data import teacher
from equiscape.registry import call
from equiscape.task import load_task
from equiscape.training.cell import train_cell
from equiscape.training.together import train_together

STUDY = yaml.safe_load((REFERENCE.parents[1] / "config/permutations.yaml").read_text())
DATA = {"kind": "teacher", "group": "S3", "hidden": ["natural"], "samples": 5, "held": 4}
TRAINING = {**STUDY["training"], "epochs": 6, "evaluate_every": 3}
MODES = {"held": {"mode": "constrained"}, "let-go": {"mode": "relaxed", "noise": 0.1}}
SEEDS = [1, 2]
OVER = [name for name, line in ANALYSES.items() if line.over != "snapshots" and not line.inputs]


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    """For each way of training, the arguments of ``load_subject`` of both tasks."""
    root = tmp_path_factory.mktemp("cells")
    teacher.prepare(DATA, None, root / "data.h5")
    made = {}
    for way in ("together", "alone"):
        for task, mode in MODES.items():
            entry = {
                "architecture": "permutation-mlp",
                "model": {"hidden": ["sign + trivial"], **mode},
                "training": {"batch_size": TRAINING["batch_size"]},
            }
            loading = {
                "name": task, "entry": entry, "dataset_name": "s3", "dataset_entry": DATA,
            }  # fmt: skip
            loaded = load_task(prepared=root / "data.h5", device=torch.device("cpu"), **loading)
            paths = []
            for name, optimizer in (("adam", "adamw"), ("momentum", "sgd")):
                chosen = {"name": name, "class": optimizer}, "1e-2", 0
                settings = {k: v for k, v in TRAINING.items() if k != "together"}
                if way == "together":
                    results = train_together(loaded, *chosen, SEEDS, settings, keep_weights=True)
                else:
                    results = [
                        train_cell(loaded, *chosen, seed, settings, keep_weights=True)
                        for seed in SEEDS
                    ]
                for seed, result in zip(SEEDS, results):
                    folder = root / way / f"final/{task}_{name}/seed{seed}"
                    files = {"metrics": "metrics.json", "history": "history.csv"}
                    files |= {"checkpoint": "checkpoint.pt", "predictions": "predictions.npz"}
                    result.write(provenance={}, **{k: folder / f for k, f in files.items()})
                    paths.append(str(folder / "checkpoint.pt"))
            made[way, task] = {"entry": loading, "data": root / "data.h5", "checkpoints": paths}
    return made


def subjects(cells, way, task, *optimizers):
    """A task with the final cells of some optimizers."""
    given = cells[way, task]
    paths = [p for p in given["checkpoints"] if any(f"_{o}/" in p for o in optimizers)]
    return load_subject(**{**given, "checkpoints": paths}, device=torch.device("cpu"))


def measured(cells, name, way):
    """Results of an analysis by what each is about."""
    module = import_module(ANALYSES[name].module)
    entry = {k: v for k, v in (STUDY["analyses"].get(name) or {}).items() if k != "tasks"}
    settings = call(module.Settings, f"analyses.{name}", entry)
    over = ANALYSES[name].over
    if over == "study":
        every = [subjects(cells, way, task, "adam", "momentum") for task in MODES]
        return {"study": module.measure(every, settings)}
    found = {}
    for task in MODES:
        both = subjects(cells, way, task, "adam", "momentum")
        if over == "pair":
            found[task] = module.measure(both, settings)
        elif over == "final":
            found[task] = module.measure(subjects(cells, way, task, "adam"), settings)
        else:
            one = type(both)(both.task, both.checkpoints[:1])
            found[task] = module.measure(one, settings)
    return found


def numbers(data, prefix="") -> dict[str, float]:
    """Every number of a result, by its place."""
    if isinstance(data, pd.DataFrame):
        data = {c: data[c].to_numpy() for c in data.select_dtypes("number")}
    items = data.items() if isinstance(data, dict) else enumerate(data)
    found = {}
    for key, value in items:
        if isinstance(value, dict | list | tuple | np.ndarray):
            found |= numbers(value, f"{prefix}{key}.")
        elif isinstance(value, int | float | np.number) and not isinstance(value, bool):
            found[f"{prefix}{key}"] = float(value)
    return found


ROUNDING = ("seconds", "residual", "products", "iterations", "coupling", "distance", "error")
RANDOM = ("density",)  # nodes of the Krylov spaces of a degenerate spectrum


def estimates(frame):
    """Rows of a table that have a standard error."""
    return frame["measure"].str.endswith("_trace") | (frame["measure"] == "relative_flatness")


@pytest.mark.parametrize("name", OVER)
def test_cells_that_were_trained_together_are_measured_as_those_trained_alone(cells, name):
    one, two = (measured(cells, name, way) for way in ("together", "alone"))
    assert one.keys() == two.keys()
    for key in one:
        data = [found[key].frame for found in (one, two)]
        if name == "sharpness":
            kept = [frame[estimates(frame)] for frame in data]
            away = (kept[0]["value"] - kept[1]["value"]).abs()
            assert (away <= 4 * kept[0]["residual"] + 1e-6).all()
            data = [frame[~estimates(frame)] for frame in data]
        ours, theirs = map(numbers, data)
        assert ours.keys() == theirs.keys()
        assert len(ours) > 3
        places = [p for p in ours if not any(word in p for word in ROUNDING + RANDOM)]
        assert not {
            p: (ours[p], theirs[p])
            for p in places
            if ours[p] != pytest.approx(theirs[p], rel=1e-5, abs=1e-9, nan_ok=True)
        }


def test_what_they_find_is_what_weights_and_the_whole_hessian_say(cells):
    found = {name: measured(cells, name, "together") for name in OVER}
    curved = found["constrained-landscape"]["study"].frame
    (row,) = curved[(curved["optimizer"] == "adam") & (curved["seed"] == 1)].to_dict("records")
    ends = [
        end(row[f"{side}_{part}"] for part in ("inside", "across"))
        for end, side in ((max, "highest"), (min, "lowest"))
    ]
    hessian = found["hessian"]["held"].data
    assert hessian["largest"]["value"] == pytest.approx(ends[0], rel=1e-6)
    assert hessian["smallest"]["value"] == pytest.approx(ends[1], rel=1e-3)
    table = found["sharpness"]["held"].frame
    largest = table[(table["measure"] == "hessian_largest") & (table["seed"] == 1)]
    assert largest["value"].to_list() == pytest.approx([ends[0]] * 2, rel=1e-2)
    assert {"spectral_step", "spectral_relative"} <= set(table["measure"])  # min_side: 1
    for task in MODES:
        subject = subjects(cells, "together", task, "adam")
        model, data = subject.checkpoints[0].model(), subject.task
        plane = found["slice"][task].data
        middle = plane["loss"][len(plane["axis_y"]) // 2, len(plane["axis_x"]) // 2]
        assert middle == pytest.approx(data.evaluate(model, "train")["loss"], rel=1e-12)
        ranks = found["rank"][task].frame
        values = torch.linalg.svdvals(model.layers[0].weight.detach())
        stable = (values.square().sum() / values[0].square()).item()
        assert ranks["stable_rank"].iloc[0] == pytest.approx(stable, rel=1e-9)
        symmetric = found["symmetry"][task].frame
        assert symmetric["level"].to_list() == ["permutation"]  # orders and signs of the units
        assert (symmetric[["first", "second"]].to_numpy() < 1e-12).all()
        lines = found["connectivity"][task].frame
        start = lines[(lines["t"] == 0) & (lines["split"] == "train")]["loss"]
        assert start.iloc[0] == pytest.approx(data.evaluate(model, "train")["loss"], rel=1e-12)
