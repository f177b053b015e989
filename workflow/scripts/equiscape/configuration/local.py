"""Local sources, looked into before the first job: every file that will be read can be."""

import os
from pathlib import Path

from equiscape.errors import ConfigError, DataError, listed
from equiscape.study import Plan


def check_local_files(study: Plan) -> None:
    """Refuse a local source of a task's data that holds nothing to read, or what cannot be read.

    It lists folders of any size, so the process that plans does this once, and no job.

    Raises:
        ConfigError: naming the key and the file.
    """
    for dataset in sorted({study.dataset_of(task) for task in study.tasks}):
        for corrupted, key in ((False, "source"), (True, "corruptions.source")):
            source = study.local_source(dataset, corrupted)
            if source is not None:
                _check(study, dataset, corrupted, source, f"datasets.{dataset}.{key}")


def _check(study: Plan, dataset: str, corrupted: bool, source: Path, key: str) -> None:
    try:
        files = study.local_files(dataset, corrupted)
    except DataError as error:
        raise ConfigError(f"{key}: {str(error).rstrip('.')}; make it readable.") from None
    if not files:
        patterns = study.patterns(dataset, corrupted)
        names = listed(pattern.removeprefix("**/") for pattern in patterns)
        raise ConfigError(
            f"{key}: {source} holds no file that data of kind {study.kind(dataset).name!r} are "
            f"read from ({names}); give another source, or another kind."
        )
    for path in files:
        if not os.path.exists(path):
            raise ConfigError(
                f"{key}: {path} is a link to what is not there; get the file, or remove the link."
            )
        if not os.access(path, os.R_OK):
            raise ConfigError(f"{key}: {path} may not be read; change its permissions.")
