"""What a run says while it goes on: one line a finished job, and on a terminal one bar.

It stands in the place of Snakemake's own handler of the terminal, which prints some six lines a job
and names neither its cell nor its result. A logger plug-in would have to be installed wherever a
profile names it, or the run ends before it begins; this needs nothing. Whatever is not about the
course of the jobs (warnings, errors, what the user asked for) goes to Snakemake's handler as
before, and so does everything if showing it here fails.
"""

import logging
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SNAKEMAKES = "DefaultStreamHandler"
BAR = "{percentage:3.0f}%|{bar:12}| {n_fmt}/{total_fmt}{desc}"
SECONDS = 1.0  # between two looks at the running jobs
TAIL = 4096  # bytes of a log that are looked at
LINES = 20  # of a failed job's log that are shown
PLAIN = ("task", "optimizer", "first", "second", "dataset")  # wildcards that need no name
OWN = {"job_info", "job_finished", "progress", "job_started", "shellcmd", "run_info", "job_error"}
CHATTER = ("Select jobs to execute...", "Building DAG of jobs...")


def attach(logger: logging.Logger, settings: Any) -> bool:
    """Take the place of Snakemake's handler of the terminal; whether that was wanted and possible.

    A run with ``--dry-run``, ``--verbose``, ``--printshellcmds``, ``--debug-dag`` or
    ``--quiet progress``, or with a logger plug-in that writes to the terminal, is left as it is.

    Args:
        logger: Snakemake's.
        settings: its output settings.
    """
    own = ("dryrun", "verbose", "printshellcmds", "debug_dag")
    quiet = getattr(settings, "quiet", None) or ()
    silent = {str(item).lower().rpartition(".")[2] for item in quiet}
    if any(getattr(settings, name, False) for name in own) or silent & {"progress", "all"}:
        return False
    handlers = [handler for handler in logger.handlers if handler.name == SNAKEMAKES]
    if len(handlers) != 1 or not hasattr(handlers[0], "stream"):
        return False
    shown = Progress(handlers[0], bool(getattr(settings, "show_failed_logs", False)))
    logger.removeHandler(handlers[0])
    logger.addHandler(shown)
    return True


@dataclass
class Job:
    """A job that has started: its rule, what it is about, its log and when it started."""

    rule: str
    label: str
    log: str | None
    started: float


class Progress(logging.Handler):
    """A handler that shows the course of a run in the place of ``inner``.

    Args:
        inner: Snakemake's handler of the terminal, which gets everything else.
        show_failed_logs: whether the end of a failed job's log is shown.
        clock: seconds that only go up.
    """

    def __init__(self, inner: Any, show_failed_logs: bool = False, clock: Any = time.monotonic):
        super().__init__()
        self.inner, self.show_failed_logs, self.clock = inner, show_failed_logs, clock
        self.running: dict[int, Job] = {}
        self.left = Left()
        self.total = self.done = 0
        self.broken = False
        self._last: str | None = None  # what Snakemake's handler was given last
        self._bar: Any = None
        self._ended = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        """Show a record here, or have Snakemake's handler show it."""
        mine = False
        if not self.broken:
            try:
                mine = self._show(record)
            except Exception:  # a run goes on, whatever the terminal is
                self._give_up()
        if not mine:
            self._clear()
            self.inner.handle(record)
            self._refresh()

    def close(self) -> None:
        """Take the bar away; Snakemake calls this when the run ends."""
        self._ended.set()
        with self.lock or threading.RLock():
            self._stop_bar()
        self.inner.close()
        super().close()

    def flush(self) -> None:
        """Flush the terminal."""
        self.inner.flush()

    def _show(self, record: logging.LogRecord) -> bool:
        event = str(getattr(record, "event", None) or "")
        if event not in OWN:
            message, last = record.getMessage(), self._last
            self._last = message
            return not event and (message in CHATTER or message == last)
        self._last = None
        fields = record.__dict__
        if event == "run_info":
            self._begin(fields["stats"])
        elif event == "job_info":
            logs = list(fields["log"])
            label = describe(fields["rule_name"], fields["wildcards"])
            self.running[fields["jobid"]] = Job(
                fields["rule_name"], label, logs[0] if logs else None, self.clock()
            )
            self._refresh()
        elif event == "job_finished":
            self._finished(fields["job_id"])
        elif event == "job_error":
            self._failed(fields)
        elif event == "progress":
            self.done, self.total = fields["done"], max(fields["total"], fields["done"])
            self._refresh()
        return True

    def _begin(self, stats: Mapping[str, int]) -> None:
        counts = {rule: count for rule, count in stats.items() if rule != "total"}
        self.total = sum(counts.values())
        self.left.expect(counts)
        self._print(f"{self.total} jobs of {len(counts)} rules")
        if self.inner.stream.isatty() and os.environ.get("TERM") != "dumb":
            self._start_bar()

    def _finished(self, number: int) -> None:
        job = self.running.pop(number, None)
        self.done += 1
        self.total = max(self.total, self.done)
        if job is None:
            return
        self.left.finished(job.rule, job.started, self.clock())
        said = read_log(job.log)
        seconds = said.seconds if said.seconds is not None else self.clock() - job.started
        result = f": {said.result}" if said.result else ""
        width = len(str(self.total))
        count = f"[{self.done:{width}}/{self.total}]"
        self._print(f"{count} {job.label}{result} ({duration(seconds)})")

    def _failed(self, fields: Mapping[str, Any]) -> None:
        job = self.running.pop(fields["jobid"], None)
        logs = [str(log) for log in fields["log"]]
        label = job.label if job else fields["rule_name"]
        where = f"; its log is {logs[0]}" if logs else ""
        self._print(f"failed: {label}{where}")
        if self.show_failed_logs:
            for log in logs:
                for line in tail(log).splitlines()[-LINES:]:
                    self._print(f"    {line}")

    def _print(self, line: str) -> None:
        """One line above the bar, in what letters the terminal has."""
        stream = self.inner.stream
        encoding = getattr(stream, "encoding", None) or "utf-8"
        self._clear()
        stream.write(line.encode(encoding, "replace").decode(encoding) + "\n")
        stream.flush()
        self._refresh()

    def _start_bar(self) -> None:
        try:
            from tqdm import tqdm
        except ImportError:  # lines alone, then
            return
        self._bar = tqdm(
            total=self.total,
            file=self.inner.stream,
            bar_format=BAR,
            dynamic_ncols=True,
            leave=False,
        )
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        """Bring the bar up to date as long as there is one."""
        while not self._ended.wait(SECONDS):
            self.acquire()
            try:
                self._refresh()
            except Exception:
                self._give_up()
            finally:
                self.release()

    def _clear(self) -> None:
        if self._bar is not None:
            self._bar.clear()

    def _refresh(self) -> None:
        if self._bar is None:
            return
        self._bar.total, self._bar.n = self.total, self.done
        self._bar.set_description_str(self._state(), refresh=True)

    def _state(self) -> str:
        """What the bar says: the time left and the job that runs longest, with its last epoch."""
        now = self.clock()
        left = self.left.seconds(now, [(job.rule, job.started) for job in self.running.values()])
        said = "" if left is None else f", {duration(left)} left"
        if self.running:
            job = min(self.running.values(), key=lambda job: job.started)
            more = f" and {len(self.running) - 1} more" if len(self.running) > 1 else ""
            at = read_log(job.log).epoch
            said += f": {job.label}{f', {at}' if at else ''}{more}"
        return said

    def _stop_bar(self) -> None:
        bar, self._bar = self._bar, None
        if bar is not None:
            bar.close()

    def _give_up(self) -> None:
        """From here on Snakemake's own handler shows everything."""
        self.broken = True
        self._ended.set()
        try:
            self._stop_bar()
        except Exception:
            self._bar = None


class Left:
    """The time that a run still takes, from the jobs that have finished.

    A job to come takes as long as the finished ones of its rule did on average; one of a rule of
    which none has finished, as long as all of them on average. So many run side by side as did up
    to now.
    """

    def __init__(self) -> None:
        self.waiting: Counter[str] = Counter()  # jobs of a rule that have not finished
        self.count: Counter[str] = Counter()
        self.spent: Counter[str] = Counter()
        self.begun: float | None = None  # the earliest start and the latest end
        self.ended = 0.0

    def expect(self, counts: Mapping[str, int]) -> None:
        """The jobs of every rule that the run has before it."""
        self.waiting = Counter(counts)

    def finished(self, rule: str, started: float, ended: float) -> None:
        """A job has finished."""
        self.waiting[rule] = max(self.waiting[rule] - 1, 0)
        self.count[rule] += 1
        self.spent[rule] += ended - started  # type: ignore[assignment]
        self.begun = started if self.begun is None else min(self.begun, started)
        self.ended = ended

    def seconds(self, now: float, running: Iterable[tuple[str, float]]) -> float | None:
        """Seconds to the end, given (rule, start) of what runs; None before a job has finished."""
        if self.begun is None:
            return None
        overall = self.spent.total() / self.count.total()

        def mean(rule: str) -> float:
            return self.spent[rule] / self.count[rule] if self.count[rule] else overall

        work = sum(count * mean(rule) for rule, count in self.waiting.items())
        work -= sum(min(now - started, mean(rule)) for rule, started in running)
        side_by_side = max(self.spent.total() / max(self.ended - self.begun, 1e-9), 1.0)
        return max(work, 0.0) / side_by_side


@dataclass
class Said:
    """What the end of a job's log says: its result, its seconds, the epoch that it is at."""

    result: str | None = None
    seconds: float | None = None
    epoch: str | None = None


def read_log(path: str | None) -> Said:
    """What a job's log says so far; nothing where there is none."""
    said = Said()
    for line in tail(path).splitlines() if path else ():
        text = line.partition(" ")[2]  # behind the time of day
        if text.startswith("result: "):
            said.result = text.removeprefix("result: ")
        elif found := re.match(r"finished in ([0-9.]+) s", text):
            said.seconds = float(found[1])
        elif found := re.match(r"epoch \d+ of \d+", text):
            said.epoch = found[0]
    return said


def tail(path: str) -> str:
    """The end of a text file; empty where it cannot be read."""
    try:
        with Path(path).open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - TAIL, 0))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""


def describe(rule: str, wildcards: Mapping[str, Any] | None) -> str:
    """A job in a few words: its rule, and its wildcards in the order of their paths."""
    words = [
        str(value) if name in PLAIN else f"{name} {value}"
        for name, value in dict(wildcards or {}).items()
    ]
    return " ".join([rule, *words])


def duration(seconds: float) -> str:
    """Seconds as a person says them: ``6.1 s``, ``4 min``, ``2 h 05 min``."""
    if seconds < 99.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02} min"
