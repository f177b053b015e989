"""A result's bytes are those that its envelope names."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fake_envelope import envelope

from equiscape.analyses.result import Result, companion, write
from equiscape.errors import DataError
from equiscape.io import read_json, sha256
from equiscape.report.load import read_csv, unchanged
from equiscape.report.manifest import Product

HEAD = {
    **envelope(Product(Path(), "egnn", "adam"), "toy"), "task": "egnn", "optimizer": "adam",
}  # fmt: skip


@pytest.mark.parametrize("suffix", [".csv", ".h5"])
def test_one_changed_byte_is_named(tmp_path, suffix):
    path = tmp_path / f"egnn_adam{suffix}"
    data = pd.DataFrame({"x": [1.5, 2.5]}) if suffix == ".csv" else {"x": np.arange(4.0)}
    write(path, Result(data, units={"x": "m"}), HEAD)
    head = read_json(companion(path), "analysis")
    assert head["sha256"] == sha256(path)
    assert head["units"] == {"x": "m"}
    unchanged(path)
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"egnn_adam.* is not the file .* --forcerun"):
        unchanged(path)


def test_a_table_names_its_task_and_optimizer_first(tmp_path):
    path = tmp_path / "egnn_adam.csv"
    write(path, Result(pd.DataFrame({"x": [1]})), HEAD)
    assert list(read_csv(path, ["x"]).columns) == ["task", "optimizer", "x"]


def test_where_every_cell_diverged_the_files_are_there_and_say_so(tmp_path):
    for suffix in (".csv", ".h5", ".json"):
        path = tmp_path / f"diverged{suffix}"
        write(path, None, {**HEAD, "status": "diverged"})
        assert path.is_file()
        assert read_json(companion(path), "analysis")["status"] == "diverged"
