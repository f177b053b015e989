"""What a run says on a terminal and in a log, from the records that Snakemake writes."""

import io
import logging
import os
import pty
import struct
import termios
import time
from fcntl import ioctl
from types import SimpleNamespace

import pytest
from snakemake.logging import ColorizingTextHandler, DefaultFilter, DefaultFormatter
from snakemake.settings.enums import Quietness
from snakemake_interface_logger_plugins.common import LogEvent

from equiscape.configuration.progress import Left, Progress, attach, describe, duration, read_log

SETTINGS = {
    "quiet": [Quietness.HOST],
    "dryrun": False,
    "verbose": False,
    "printshellcmds": False,
    "debug_dag": False,
    "show_failed_logs": True,
}


class Run:
    """Snakemake's logger with its own handler on ``stream``, which ours may replace."""

    def __init__(self, stream, **settings):
        self.logger = logging.Logger("run", logging.INFO)
        self.settings = SimpleNamespace(**{**SETTINGS, **settings})
        handler = ColorizingTextHandler(nocolor=True, stream=stream)
        handler.addFilter(
            DefaultFilter(self.settings.quiet, False, False, self.settings.dryrun, False)
        )
        handler.setFormatter(DefaultFormatter(self.settings.quiet, True))
        handler.name = "DefaultStreamHandler"
        self.logger.addHandler(handler)
        self.attached = attach(self.logger, self.settings)

    def event(self, event, message=None, level=logging.INFO, **fields):
        self.logger.log(level, message, extra={"event": event, **fields})

    def begin(self, **counts):
        stats = {**counts, "total": sum(counts.values())}
        self.event(LogEvent.RUN_INFO, "Job stats: a table", stats=stats)

    def start(self, number, rule, log=None, **wildcards):
        self.event(
            LogEvent.JOB_INFO,
            f"Rule: {rule}",
            jobid=number,
            rule_name=rule,
            wildcards=wildcards,
            rule_msg=None,
            log=[str(log)] if log else [],
            input=[],
            output=[],
            reason="new",
            local=False,
            is_checkpoint=False,
            benchmark=None,
            priority=0,
            threads=1,
            resources={},
            indent=False,
        )

    def finish(self, number, rule, done, total):
        message = f"Finished jobid: {number} (Rule: {rule})"
        self.event(LogEvent.JOB_FINISHED, message, job_id=number)
        self.event(LogEvent.PROGRESS, done=done, total=total)

    def close(self):
        for handler in self.logger.handlers:
            handler.close()


def lines(stream):
    return stream.getvalue().splitlines()


def test_a_log_has_one_line_a_job_with_its_result(tmp_path):
    log, stream = tmp_path / "cell.log", io.StringIO()
    log.write_text(
        "10:00:00 rule train_grid_cell\n10:00:01 epoch 1 of 2: loss 1\n"
        "10:00:04 result: accuracy 81 % on validation\n10:00:04 finished in 4.2 s (CPU 3 s)\n"
    )
    run = Run(stream)
    assert run.attached
    run.begin(train_grid_cell=1, select=1)
    run.logger.info("Select jobs to execute...")
    run.event(LogEvent.JOB_STARTED, "Execute 1 jobs...", jobs=[7])
    run.start(7, "train_grid_cell", log, task="egnn", optimizer="muon", lr="1e-2", seed="0")
    run.event(LogEvent.SHELLCMD, "Shell command: None", shellcmd=None)
    run.finish(7, "train_grid_cell", 1, 2)
    run.start(8, "select", tmp_path / "absent.log", task="egnn", optimizer="muon")
    run.finish(8, "select", 2, 2)
    run.logger.warning("Choices at an edge of their grid, 1:")
    run.logger.warning("Choices at an edge of their grid, 1:")  # again and again, once is enough
    run.close()
    first, second, third, last = lines(stream)
    assert first == "2 jobs of 2 rules"
    assert second == (
        "[1/2] train_grid_cell egnn muon lr 1e-2 seed 0: accuracy 81 % on validation (4.2 s)"
    )
    assert third == "[2/2] select egnn muon (0.0 s)"
    assert last == "Choices at an edge of their grid, 1:"


def test_a_failed_job_is_named_with_the_end_of_its_log(tmp_path):
    log, stream = tmp_path / "cell.log", io.StringIO()
    log.write_text("".join(f"10:00:00 line {i}\n" for i in range(50)))
    run = Run(stream)
    run.begin(hessian=1)
    run.start(3, "hessian", log, task="egnn", optimizer="adam")
    fields = {"jobid": 3, "rule_name": "hessian", "log": [str(log)]}
    run.event(LogEvent.JOB_ERROR, "Error in rule hessian", logging.ERROR, **fields)
    run.event(LogEvent.ERROR, "Exiting because a job execution failed.", logging.ERROR)
    run.close()
    said = lines(stream)
    assert said[1] == f"failed: hessian egnn adam; its log is {log}"
    assert said[2:22] == [f"    10:00:00 line {i}" for i in range(30, 50)]
    assert said[-1] == "Exiting because a job execution failed."


@pytest.mark.parametrize(
    "changes",
    [
        {"dryrun": True},
        {"verbose": True},
        {"printshellcmds": True},
        {"quiet": [Quietness.PROGRESS]},
        {"quiet": [Quietness.ALL]},
    ],
)
def test_who_asks_for_snakemakes_own_words_gets_them(changes):
    assert not Run(io.StringIO(), **changes).attached


def test_a_logger_without_snakemakes_handler_is_left_alone():
    logger = logging.Logger("plugins")
    logger.addHandler(logging.NullHandler())
    assert not attach(logger, SimpleNamespace(**SETTINGS))
    assert [type(handler) for handler in logger.handlers] == [logging.NullHandler]


def test_what_cannot_be_shown_here_is_shown_by_snakemake():
    stream = io.StringIO()
    run = Run(stream)
    run.event(LogEvent.RUN_INFO, "Job stats: a table")  # without its numbers
    run.start(1, "select", task="egnn")
    run.finish(1, "select", 1, 1)
    run.close()
    said = stream.getvalue()
    assert "Job stats: a table" in said
    assert "rule select:" in said
    assert "1 of 1 steps (100%) done" in said


def test_letters_that_a_terminal_lacks_are_replaced(tmp_path):
    log = tmp_path / "cell.log"
    log.write_text("10:00:00 result: 3 ± 1 Å\n")
    raw = io.BytesIO()
    run = Run(io.TextIOWrapper(raw, encoding="ascii", errors="strict", write_through=True))
    run.begin(rank=1)
    run.start(1, "rank", log, task="egnn")
    run.finish(1, "rank", 1, 1)
    assert b"[1/1] rank egnn: 3 ? 1 ? (0.0 s)" in raw.getvalue()


def on_a_terminal(monkeypatch, columns, encoding, term="xterm"):
    """What a terminal of so many columns gets from a run of two jobs, one of them slow."""
    monkeypatch.setenv("TERM", term)
    monkeypatch.delenv("COLUMNS", raising=False)
    master, slave = pty.openpty()
    ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 25, columns, 0, 0))
    with os.fdopen(slave, "w", encoding=encoding, errors="replace") as stream:
        run = Run(stream)
        run.begin(train_final_cell=2)
        run.start(1, "train_final_cell", task="pointnet", optimizer="muon", seed="1")
        run.finish(1, "train_final_cell", 1, 2)
        run.start(2, "train_final_cell", task="pointnet", optimizer="muon", seed="2")
        run.logger.warning("a warning")
        time.sleep(0.05)
        run.close()
    os.set_blocking(master, False)
    said = b""
    try:
        while part := os.read(master, 65536):
            said += part
    except OSError:  # the end, or nothing for now
        pass
    os.close(master)
    return said.decode(encoding)


@pytest.mark.parametrize(("columns", "encoding"), [(80, "utf-8"), (100, "ascii"), (30, "utf-8")])
def test_a_terminal_has_one_bar_below_the_lines(monkeypatch, columns, encoding):
    said = on_a_terminal(monkeypatch, columns, encoding)
    shown = [part.rstrip() for part in said.replace("\n", "\r").split("\r") if part.strip()]
    bars = [part for part in shown if "%|" in part]
    assert [part for part in shown if part not in bars] == [
        "2 jobs of 1 rules",
        "[1/2] train_final_cell pointnet muon seed 1 (0.0 s)",
        "a warning",
    ]
    assert max(map(len, bars)) <= columns
    assert bars[-1].startswith(" 50%|")
    if columns >= 80:
        assert "1/2, 0.0 s left: train_final_cell pointnet muon seed 2" in bars[-1]
    assert said.endswith("\r")  # nothing of the bar stays


def test_a_dumb_terminal_has_no_bar(monkeypatch):
    assert "%|" not in on_a_terminal(monkeypatch, 80, "utf-8", term="dumb")


def test_the_time_left_follows_from_the_finished_jobs():
    left = Left()
    left.expect({"train": 4, "select": 2})
    assert left.seconds(0.0, []) is None
    left.finished("train", 0.0, 10.0)
    left.finished("train", 0.0, 10.0)  # two side by side
    # 2 trainings of 10 s and 2 jobs unseen so far, taken for 10 s: 40 s of work, two at once
    assert left.seconds(10.0, []) == pytest.approx(20.0)
    left.finished("select", 10.0, 12.0)
    # 20 s of trainings less 4 s and 4 s done, 2 s of select; 22 s of work were done in 12 s
    running = [("train", 8.0), ("train", 8.0)]
    assert left.seconds(12.0, running) == pytest.approx((20 - 8 + 2) / (22 / 12))
    # a job beyond its mean adds nothing below zero
    assert left.seconds(100.0, running) == pytest.approx(2 / (22 / 12))


def test_the_bar_says_at_which_epoch_the_oldest_job_is(tmp_path):
    log = tmp_path / "cell.log"
    log.write_text("10:00:00 epoch 2 of 9: loss 1\n10:00:01 epoch 3 of 9: loss 1\n")
    run = Run(io.StringIO())
    run.begin(train=2)
    run.start(1, "train", log, task="egnn")
    run.start(2, "train", None, task="dgcnn")
    [handler] = run.logger.handlers
    assert isinstance(handler, Progress)
    assert handler._state() == ": train egnn, epoch 3 of 9 and 1 more"


def test_words_for_jobs_and_durations(tmp_path):
    assert describe("prepare", {"dataset": "shapes"}) == "prepare shapes"
    assert describe("connectivity", {"task": "a", "first": "b", "second": "c"}) == (
        "connectivity a b c"
    )
    assert describe("tables", None) == "tables"
    said = [duration(s) for s in (0.04, 9.94, 9.96, 99.4, 100, 5940, 5999, 7200 + 300)]
    assert said == ["0.0 s", "9.9 s", "10 s", "99 s", "2 min", "99 min", "1 h 40 min", "2 h 05 min"]
    assert read_log(None) == read_log(str(tmp_path / "absent"))
