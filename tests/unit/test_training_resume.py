"""A cell that is killed, stopped or finds a damaged point ends as if nothing had happened."""

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
from training_case import MUON, case, comparable

from equiscape.training import resume as resume_module
from equiscape.training.cell import train_cell
from equiscape.training.resume import NEWEST, PREVIOUS, ResumePoints
from equiscape.training.signals import Announcement, Interrupted

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


@pytest.fixture(scope="module")
def undisturbed():
    return comparable(train())


@pytest.fixture
def often(monkeypatch):
    """Resume points after every step."""
    monkeypatch.setattr(resume_module, "SHARE", float("inf"))


def program(tmp_path, name, at, split):
    result, folder = tmp_path / "result.pt", tmp_path / "points"
    command = [sys.executable, str(PROGRAM), str(result), str(folder), name, str(at), split]
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
    [("SIGTERM", 8, "train", "epoch 2, step 3"), ("SIGINT", 3, "test", "epoch 2, step 5")],
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


def interrupted(folder, at=14):
    """Resume points of a training that died in its third epoch."""
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
    assert "going on at epoch 3, step 3" in caplog.text  # the newest point says step 4
    assert_same(comparable(found), undisturbed)


def test_without_a_good_point_it_starts_again(tmp_path, undisturbed, often, caplog):
    folder = tmp_path / "points"
    interrupted(folder)
    for name in (NEWEST, PREVIOUS):
        DAMAGES["truncated"](folder / name)
    with caplog.at_level(logging.INFO, "equiscape.training"):
        found = train(folder)
    assert [r.levelname for r in caplog.records].count("WARNING") == 2
    assert "going on" not in caplog.text
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
    die_at(task, 14)
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
    assert points.load(torch.device("cpu"))["x"].shape == (3,)


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
    assert points.load(torch.device("cpu")) is None
    points.discard()
    assert list(tmp_path.iterdir()) == []


def test_handlers_are_restored():
    before = signal.getsignal(signal.SIGTERM)
    with Announcement() as announcement:
        assert signal.getsignal(signal.SIGTERM) != before
        announcement.check()
        os.kill(os.getpid(), signal.SIGUSR1)
        with pytest.raises(Interrupted, match="SIGUSR1"):
            announcement.check()
    assert signal.getsignal(signal.SIGTERM) == before
    assert Interrupted.status == 75


def test_training_outside_the_main_thread(undisturbed):
    found = []
    thread = threading.Thread(target=lambda: found.append(comparable(train())))
    thread.start()
    thread.join()
    assert_same(found[0], undisturbed)
