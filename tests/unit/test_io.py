"""Files are whole or absent, and damaged ones say so in one sentence."""

import json
import math
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from equiscape import checkpoint, io
from equiscape.errors import CheckpointError, DataError
from equiscape.table import Table


def test_a_failing_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "result.json"
    io.write_json(path, {"a": 1})
    with pytest.raises(RuntimeError, match="halfway"), io.atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError("halfway")
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_results_are_readable_by_the_group(tmp_path):
    path = tmp_path / "result.json"
    io.write_json(path, {})
    plain = tmp_path / "plain"
    plain.touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_json_is_strict_and_holds_null_for_non_finite_numbers(tmp_path):
    path = tmp_path / "result.json"
    io.write_json(path, {"loss": math.inf, "x": [torch.tensor(1.5), float("nan")], 3: tmp_path})
    text = path.read_text()
    assert "Infinity" not in text
    assert "NaN" not in text
    assert json.loads(text) == {"loss": None, "x": [1.5, None], "3": str(tmp_path)}


def test_csv_keeps_every_digit(tmp_path):
    value = 0.1 + 0.2
    io.write_csv(tmp_path / "t.csv", pd.DataFrame({"x": [value]}))
    assert pd.read_csv(tmp_path / "t.csv", float_precision="round_trip").x[0] == value


def test_a_table_is_written_byte_for_byte_as_pandas_writes_it(tmp_path):
    rows = [
        {"name": 'a "b", c', "x": 0.1 + 0.2, "n": 1, "yes": True},
        {"name": None, "x": math.nan, "n": 2, "yes": False, "one": np.float64(1e-300)},
        {"name": "", "x": -math.inf, "n": np.int64(3), "yes": np.bool_(True)},
        {"name": "two\nlines", "x": 1e16, "n": 2**40, "yes": True},
    ]
    table = Table.of(rows, ("name", "x", "n", "yes", "one")).after(task="ü", x="not again")
    assert table.columns == ("task", "name", "x", "n", "yes", "one")
    io.write_csv(tmp_path / "ours.csv", table)
    io.write_csv(tmp_path / "pandas.csv", table.frame())
    assert (tmp_path / "ours.csv").read_bytes() == (tmp_path / "pandas.csv").read_bytes()
    empty = Table((), ()).after(task="egnn")
    io.write_csv(tmp_path / "ours.csv", empty)
    io.write_csv(tmp_path / "pandas.csv", empty.frame())
    assert (tmp_path / "ours.csv").read_bytes() == (tmp_path / "pandas.csv").read_bytes()


def test_settings_hash_ignores_the_order_of_keys_only():
    assert io.settings_hash({"a": 1, "b": [1, 2]}) == io.settings_hash({"b": [1, 2], "a": 1})
    assert io.settings_hash({"a": [1, 2]}) != io.settings_hash({"a": [2, 1]})


@pytest.mark.parametrize("damage", ["absent", "truncated", "text", "object"])
def test_a_bad_checkpoint_is_named(tmp_path, damage):
    path = tmp_path / "checkpoint.pt"
    if damage == "truncated":
        io.save_checkpoint(path, {"model": {"w": torch.ones(100)}})
        path.write_bytes(path.read_bytes()[:200])
    elif damage == "text":
        path.write_text("no checkpoint")
    elif damage == "object":
        torch.save(CheckpointError("not a tensor"), path)
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt"):
        checkpoint.read(path)


def test_checkpoint_round_trip(tmp_path):
    state = {"format": 2, "model": {"w": torch.randn(3, 4)}, "epoch": 3, "task": "t"}
    io.save_checkpoint(tmp_path / "c.pt", state)
    loaded = checkpoint.read(tmp_path / "c.pt")
    assert torch.equal(loaded["model"]["w"], state["model"]["w"])
    assert loaded["epoch"] == 3


def test_read_json_names_the_file(tmp_path):
    with pytest.raises(DataError, match=r"none\.json does not exist"):
        io.read_json(tmp_path / "none.json", "choice")
    (tmp_path / "half.json").write_text('{"a": ')
    with pytest.raises(DataError, match=r"half\.json is not valid JSON"):
        io.read_json(tmp_path / "half.json", "choice")


def test_equal_checkpoints_are_equal_bytes(tmp_path):
    """Whatever the file's name, shared strings and shared storages."""
    base = torch.arange(6.0)
    one = {"model": {"a": base[:3], "b": base[3:]}, "task": "egnn", "again": "egnn"}
    two = {
        "model": {"a": torch.arange(3.0), "b": torch.arange(3.0, 6.0)},
        "task": "".join(["eg", "nn"]),
        "again": "".join(["e", "gnn"]),
    }
    paths = [tmp_path / "one.pt", tmp_path / "another.pt"]
    for path, state in zip(paths, (one, two)):
        io.save_checkpoint(path, state)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_only_the_workflows_own_repository_gives_a_revision(tmp_path):
    """A copy of the library inside somebody else's repository is not theirs."""
    library = tmp_path / "elsewhere/workflow/scripts/equiscape"
    library.mkdir(parents=True)
    for name in ("__init__.py", "errors.py", "io.py", "table.py"):
        shutil.copy(Path(io.__file__).with_name(name), library)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for arguments in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "theirs"]):
        subprocess.run([*git, *arguments], cwd=tmp_path, check=True)
    code = "from equiscape.io import _revision; print(_revision())"

    def revision() -> str:
        run = subprocess.run(
            [sys.executable, "-c", code], cwd=library.parent, capture_output=True, text=True
        )
        return run.stdout.strip()

    assert revision() == "unknown"
    for arguments in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "ours"]):
        subprocess.run([*git, *arguments], cwd=tmp_path / "elsewhere", check=True)
    assert len(revision().removesuffix("+dirty")) == 40
