"""The study that tests of tables read, and how they pick a row."""

import numpy as np
import pandas as pd
from fake_results import CLOUDS, MOLECULES, task, write_study

from equiscape.report.manifest import Manifest

MODELNET = {
    "egnn": task("egnn", "modelnet40", "pointcloud", corruptions="published"),
    "pointnet": CLOUDS["pointnet"],
}


def report_study(root) -> Manifest:
    """Two clouds (one of them ModelNet40), molecules, three optimizers, two diverged seeds."""
    return write_study(
        root,
        {**MODELNET, **MOLECULES},
        optimizers=("adam", "muon", "muon-ns3"),
        diverged=(("pointnet", "adam", 0), ("gotennet-mu", "muon", 1)),
    )


def row(frame: pd.DataFrame, **values) -> pd.Series:
    """The one row with these values."""
    rows = frame[np.logical_and.reduce([frame[key] == value for key, value in values.items()])]
    assert len(rows) == 1
    return rows.iloc[0]
