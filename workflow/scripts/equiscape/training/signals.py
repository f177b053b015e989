"""Graceful shutdown on signals: training stops between two steps."""

import signal
import threading
from typing import Any

from equiscape.errors import EquiscapeError

# SIGINT is a person's Ctrl-C. SIGURG does nothing to a process that does not ask for it, so SLURM
# can send it to every process of a job step, and the shells and Snakemakes around it live on.
SIGNALS = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGURG")


class Interrupted(EquiscapeError):
    """Training stopped on a signal; the same command resumes from the resume point.

    The process ends with ``status`` 75, the system's code for "try again" (EX_TEMPFAIL).
    """

    status = 75


class SignalWatcher:
    """Within its ``with`` block, the SIGNALS are remembered instead of ending the process.

    SLURM sends SIGTERM ahead of the end of a job, or the signal that ``--signal`` asks for. Python
    allows handlers in the main thread only; in any other the block changes nothing.
    """

    def __init__(self) -> None:
        self.received: str | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "SignalWatcher":
        if threading.current_thread() is threading.main_thread():
            for name in SIGNALS:
                number = getattr(signal, name)
                self._before[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _remember(self, number: int, frame: object) -> None:
        self.received = signal.Signals(number).name

    def check(self) -> None:
        """Raise :class:`Interrupted` if a signal has come."""
        if self.received is not None:
            raise Interrupted(f"training stopped on {self.received}.")
