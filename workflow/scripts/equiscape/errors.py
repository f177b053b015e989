"""Errors a person can act on: one sentence that names the key or file and the remedy."""

from collections.abc import Iterable

LISTED = 12  # names in a sentence
LETTERS = 2000  # of a sentence, whatever a foreign library or a name in a file adds to it


class EquiscapeError(Exception):
    """Base of every error this project raises on purpose; its message is one sentence.

    Names from files may hold line feeds and the escape codes of terminals: they are spelled out.
    A sentence of more than 2,000 letters loses its middle.
    """

    def __str__(self) -> str:
        text = super().__str__()
        if len(text) > LETTERS:
            text = f"{text[: LETTERS // 2]} ... {text[-LETTERS // 2 :]}"
        if text.isprintable():
            return text
        return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


class ConfigError(EquiscapeError):
    """A configuration key is missing, unknown or out of range."""


class DataError(EquiscapeError):
    """A data file is missing, damaged, or not what it says it is."""


class CheckpointError(EquiscapeError):
    """A checkpoint or resume file cannot be read, or belongs to something else."""


class DeviceError(EquiscapeError):
    """The requested device is absent, or has not enough memory."""


def listed(names: Iterable[object], limit: int = LISTED) -> str:
    """``a, b, c``, of more than ``limit`` names the first and how many more there are."""
    shown = [str(name) for name in names]
    more = len(shown) - limit
    return ", ".join(shown[:limit]) + (f" and {more} more" if more > 0 else "")


def first_line(error: BaseException) -> str:
    """What ``error`` says, in one line without its last period; its type where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].strip("'\"").rstrip(".")
