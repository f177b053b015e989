"""Errors a person can act on: one sentence that names the key or file and the remedy."""


class EquiscapeError(Exception):
    """Base of every error this project raises on purpose; its message is one sentence.

    Names from files may hold line feeds and the escape codes of terminals: they are spelled out.
    """

    def __str__(self) -> str:
        text = super().__str__()
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


def first_line(error: BaseException) -> str:
    """What ``error`` says, in one line without its last period; its type where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].strip("'\"").rstrip(".")
