"""Snakemake's own lines about jobs, kept to a length that a person reads."""

import logging
from typing import Any

FILES = 20  # of a job's inputs or outputs
LETTERS = 2000  # of the reason why a job runs


class Shortened(logging.Filter):
    """Shorten the lists of files in what Snakemake says of a job; the job has them all.

    A folder of 7,102 clouds is 7,102 inputs of one job, which made a line of 156 kB.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Shorten ``record`` in place; nothing is left out."""
        for key in ("input", "output"):
            files = getattr(record, key, None)
            if isinstance(files, list) and len(files) > FILES:
                setattr(record, key, [*files[:FILES], f"and {len(files) - FILES} more"])
        for key in ("reason", "msg"):
            text: Any = getattr(record, key, None)
            if isinstance(text, str) and len(text) > LETTERS and _is_list(text):
                setattr(record, key, f"{text[:LETTERS].rsplit(', ', 1)[0]}, and more")
        return True


def _is_list(text: str) -> bool:
    """Whether a text is so long because it lists files, not because it is a log or a traceback."""
    return text.count(", ") > FILES and text.count("\n") < 5
