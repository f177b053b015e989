"""A cell that is killed, stopped or finds a damaged point ends as if nothing had happened."""

import io
import logging
import math
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from training_case import MUON, RICH, case, comparable, register

from equiscape.errors import ConfigError
from equiscape.training import resume as resume_module
from equiscape.training.cell import train_cell
from equiscape.training.resume import NEWEST, PREVIOUS, ResumePoints
from equiscape.training.signals import Interrupted, SignalWatcher

PROGRAM = Path(__file__).with_name("training_case.py")
SCRIPTS = Path(__file__).parents[2] / "workflow/scripts"


def assert_same(a, b):
    """Equal to the last bit; NaN equals NaN."""
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b):
            assert_same(x, y)
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, float) and math.isnan(a):
        assert math.isnan(b)
    else:
        assert a == b


def train(folder=None, **changes):
    task = case(**changes)
    return train_cell(task, MUON, "1e-2", "1e-2", 5, task.training, folder, keep_weights=True)


@pytest.mark.parametrize(("at", "split"), [(9, "train"), (5, "validation"), (12, "train")])
def test_snapshots_recorders_constraints_and_plateau_survive(tmp_path, at, split):
    register()
    undisturbed = comparable(train(**RICH))
    run, _, folder = program(tmp_path, "SIGKILL", at, split, "rich")
    assert run.returncode == -signal.SIGKILL, run.stderr
    assert (folder / "snapshot1.pt").exists()
    found = train(folder, **RICH)
    assert sorted(found.snapshots) == [0, 1, 3, 4]
    assert_same(comparable(found), undisturbed)
    found.discard_resume()
    assert not folder.exists()


def test_a_damaged_snapshot_takes_its_points_with_it(tmp_path, caplog, often):
    register()
    _, _, folder = program(tmp_path, "SIGKILL", 9, "train", "rich")
    flip(folder / "snapshot1.pt", 500)
    found = train(folder, **RICH)
    assert caplog.text.count("snapshot1.pt is damaged") == 2
    assert_same(comparable(found), comparable(train(**RICH)))


@pytest.fixture(scope="module")
def undisturbed():
    return comparable(train())


@pytest.fixture
def often(monkeypatch):
    """Resume points after every step."""
    monkeypatch.setattr(resume_module, "SHARE", float("inf"))


def program(tmp_path, name, at, split, *changes):
    result, folder = tmp_path / "result.pt", tmp_path / "points"
    command = [sys.executable, str(PROGRAM), str(result), str(folder), name, str(at), split]
    command += changes
    environment = {**os.environ, "PYTHONPATH": str(SCRIPTS)}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    return run, result, folder


@pytest.mark.parametrize(("at", "split"), [(9, "train"), (5, "validation")])
def test_killed_outright_and_run_again(tmp_path, undisturbed, at, split):
    run, result, folder = program(tmp_path, "SIGKILL", at, split)
    assert run.returncode == -signal.SIGKILL
    assert not result.exists()
    assert (folder / NEWEST).exists()
    assert_same(comparable(train(folder)), undisturbed)


@pytest.mark.parametrize(
    ("name", "at", "split", "where"),
    [("SIGTERM", 9, "train", "epoch 2, step 3"), ("SIGINT", 3, "test", "epoch 2, step 5")],
)
def test_stops_on_a_signal_and_goes_on(tmp_path, undisturbed, name, at, split, where):
    run, result, folder = program(tmp_path, name, at, split)
    assert run.returncode == 75
    assert name in run.stdout
    assert where in run.stdout
    assert not result.exists()
    found = train(folder)
    assert_same(comparable(found), undisturbed)
    found.discard_resume()
    assert not folder.exists()


class Killed(BaseException):
    """Stands for a death that nothing can catch."""


def die_at(task, at):
    def on_gather(split, count):
        if split == "train" and count == at:
            raise Killed

    task.dataset.on_gather = on_gather


def interrupted(folder, at=15):
    """Resume points of a training that died in its third epoch.

    The first of its batches is not trained on: a look at what the batch statistics are over.
    """
    task = case()
    die_at(task, at)
    with pytest.raises(Killed):
        train_cell(task, MUON, "1e-2", "1e-2", 5, task.training, folder, keep_weights=True)


def test_survives_dying_again_and_again(tmp_path, undisturbed, often):
    for _ in range(5):
        interrupted(tmp_path / "points", at=4)
    assert_same(comparable(train(tmp_path / "points")), undisturbed)


def flip(path, position):
    content = bytearray(path.read_bytes())
    content[position] ^= 16
    path.write_bytes(bytes(content))


def change_header(path, index, word):
    head, _, content = path.read_bytes().partition(b"\n")
    words = head.split()
    words[index] = word
    path.write_bytes(b" ".join(words) + b"\n" + content)


DAMAGES = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-1000]),
    "empty": lambda path: path.write_bytes(b""),
    "bit flipped": lambda path: flip(path, path.stat().st_size // 2),
    "bit flipped in the header": lambda path: flip(path, 30),
    "another version": lambda path: change_header(path, 1, b"999"),
    "another cell": lambda path: change_header(path, 2, b"0123456789abcdef"),
    "not a point": lambda path: path.write_bytes(os.urandom(5000)),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_point_falls_back_to_the_one_before(tmp_path, undisturbed, often, caplog, damage):
    folder = tmp_path / "points"
    interrupted(folder)
    DAMAGES[damage](folder / NEWEST)
    with caplog.at_level(logging.INFO, "equiscape.training"):
        found = train(folder)
    assert [r.levelname for r in caplog.records].count("WARNING") == 1
    assert str(folder / NEWEST) in caplog.text
    assert "resuming at epoch 3, step 3" in caplog.text  # the newest point says step 4
    assert_same(comparable(found), undisturbed)


def test_without_a_good_point_it_starts_again(tmp_path, undisturbed, often, caplog):
    folder = tmp_path / "points"
    interrupted(folder)
    for name in (NEWEST, PREVIOUS):
        DAMAGES["truncated"](folder / name)
    with caplog.at_level(logging.INFO, "equiscape.training"):
        found = train(folder)
    assert [r.levelname for r in caplog.records].count("WARNING") == 2
    assert "resuming at" not in caplog.text
    assert_same(comparable(found), undisturbed)


def test_a_point_of_other_settings_is_not_used(tmp_path, often, caplog):
    folder = tmp_path / "points"
    interrupted(folder)
    found = train(folder, label_smoothing=0.0)
    assert "another cell" in caplog.text
    assert_same(comparable(found), comparable(train(label_smoothing=0.0)))


def test_a_crash_while_writing_leaves_the_point_before(tmp_path, undisturbed, often, monkeypatch):
    folder = tmp_path / "points"
    task = case()
    die_at(task, 15)
    monkeypatch.setattr(resume_module.os, "fsync", lambda _: None)
    with pytest.raises(Killed):
        train_cell(task, MUON, "1e-2", "1e-2", 5, task.training, folder, keep_weights=True)
    # the moment between the two renames: the newest is the previous one, the next not yet there
    os.replace(folder / NEWEST, folder / PREVIOUS)
    assert_same(comparable(train(folder)), undisturbed)


def test_points_never_take_more_than_a_percent(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(resume_module.time, "monotonic", lambda: now[0])
    points = ResumePoints(tmp_path / "points", "cell", seconds=10)
    assert not points.due()
    now[0] = 10
    assert points.due()
    real = resume_module.torch.save

    def slow(*arguments):
        now[0] += 3
        real(*arguments)

    monkeypatch.setattr(resume_module.torch, "save", slow)
    points.save({"x": torch.zeros(3)})
    now[0] = 13 + 299
    assert not points.due()
    now[0] = 13 + 300
    assert points.due()
    assert points.resume(torch.device("cpu"), Kept).state["x"].shape == (3,)


class Kept:
    """Takes over whatever a point holds."""

    def restore(self, state):
        self.state = state


def other_code(state):
    """A point as another version of the code, or another optimizer, would have written it."""
    state["model"]["renamed"] = state["model"].pop(next(iter(state["model"])))
    return state


def other_shape(state):
    state["optimizer"]["state"] = {0: {"momentum": torch.zeros(7, 7)}}
    state["optimizer"]["param_groups"] = state["optimizer"]["param_groups"][:1]
    return state


@pytest.mark.parametrize("change", [other_code, other_shape, lambda state: {"odd": 1}])
def test_a_point_of_other_code_is_set_aside(tmp_path, undisturbed, often, caplog, change):
    folder = tmp_path / "points"
    interrupted(folder)
    _, _, content = (folder / NEWEST).read_bytes().partition(b"\n")
    state = change(torch.load(io.BytesIO(content), weights_only=True))
    points = ResumePoints(folder, (folder / NEWEST).read_text("latin-1").split()[2], 0)
    for _ in range(2):  # both of them
        points.save(state)
    with caplog.at_level(logging.INFO, "equiscape.training"):
        found = train(folder)
    warnings = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert len(warnings) == 2
    assert all("does not fit this version" in w and "\n" not in w for w in warnings)
    assert "resuming at" not in caplog.text
    assert (folder / f"{NEWEST}.aside").exists()
    assert_same(comparable(found), undisturbed)
    found.discard_resume()
    assert not folder.exists()


def test_a_new_version_of_the_training_code_starts_anew(tmp_path, often, caplog, monkeypatch):
    folder = tmp_path / "points"
    interrupted(folder)
    monkeypatch.setattr("equiscape.training.cell.VERSION", 999)
    train(folder)
    assert "another cell" in caplog.text


@pytest.mark.parametrize("fault", ["file", "below a file", "long"])
def test_a_resume_folder_that_cannot_be_written_is_named_at_once(tmp_path, fault):
    (tmp_path / "file").write_text("")
    folder = {
        "file": tmp_path / "file",
        "below a file": tmp_path / "file" / "points",
        "long": tmp_path / ("x" * 300),
    }[fault]
    with pytest.raises(ConfigError, match=r"^resume: .* cannot be written \(.*\); give a folder"):
        train(folder)


def test_nothing_is_left_of_a_point_whose_writing_was_killed(tmp_path):
    points = ResumePoints(tmp_path / "cell", "cell", seconds=0)
    points.save({"x": torch.zeros(3)})
    (tmp_path / "cell" / f".{resume_module.NEWEST}.abc.part").write_bytes(b"half")
    points.discard()
    assert list(tmp_path.iterdir()) == []


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    points = ResumePoints(None, "cell", seconds=0)
    assert not points.due()
    points.save({})
    points.check_writable()
    assert points.resume(torch.device("cpu"), lambda: "fresh") == "fresh"
    points.discard()
    assert list(tmp_path.iterdir()) == []


def test_handlers_are_restored():
    before = signal.getsignal(signal.SIGTERM)
    with SignalWatcher() as signals:
        assert signal.getsignal(signal.SIGTERM) != before
        signals.check()
        os.kill(os.getpid(), signal.SIGUSR1)
        with pytest.raises(Interrupted, match="SIGUSR1"):
            signals.check()
    assert signal.getsignal(signal.SIGTERM) == before
    assert Interrupted.status == 75


def test_training_outside_the_main_thread(undisturbed):
    found = []
    thread = threading.Thread(target=lambda: found.append(comparable(train())))
    thread.start()
    thread.join()
    assert_same(found[0], undisturbed)
