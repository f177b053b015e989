"""The metrics beside the score, such as mean class accuracy, at the best validation epoch."""

import pandas as pd

from equiscape.io import read_json
from equiscape.report.load import number, reading
from equiscape.report.manifest import Manifest
from equiscape.report.numbers import plus_minus
from equiscape.report.tables import over_seeds
from equiscape.report.text import join, markdown, task_title
from equiscape.report.titles import metric_title, optimizer_title

KEYS = ["task", "optimizer", "metric", "unit"]
UNITLESS = ("AP", "ROC AUC")


def table(manifest: Manifest) -> pd.DataFrame:
    """One row per task, optimizer and metric: seeds, diverged, mean and std over seeds.

    Metrics are those that ``metrics.json`` lists under ``test``; the unit is the score's, which
    errors and accuracies share. Empty where cells were made before metrics were kept.
    """
    rows = []
    for task, optimizer in manifest.pairs:
        for seed in manifest.seeds:
            path = manifest.final(task, optimizer, seed)
            data = read_json(path, "metrics")
            with reading(path):
                for name, value in ((data.get("test") or {}).get("metrics") or {}).items():
                    unit = "" if name in UNITLESS else data["metric"]["unit"]
                    rows.append((task, optimizer, name, unit, number(value)))
    frame = pd.DataFrame(rows, columns=[*KEYS, "value"])
    return over_seeds(frame, KEYS, "value")


def text(manifest: Manifest, frame: pd.DataFrame) -> str:
    """The table as Markdown, the metrics of a task below each other."""
    rows = [
        {
            "task": task_title(manifest, row),
            "optimizer": optimizer_title(row["optimizer"]),
            "metric": metric_title(row["metric"], row["unit"]),
            "seeds": row["seeds"] - row["diverged"],
            "test": plus_minus(row["mean"], row["std"], row["unit"]),
        }
        for _, row in frame.sort_values(["task", "metric"], kind="stable").iterrows()
    ]
    heading = "# More metrics of the test split"
    if not rows:
        return join([heading, "The cells of this study hold none beside the score."])
    shown = pd.DataFrame(rows)
    note = (
        "At the best validation epoch, mean ± sample standard deviation over final seeds. *Mean "
        "class accuracy* weighs every class alike, however many samples it has."
    )
    return join([heading, note, markdown(shown, {c: c for c in shown})])
