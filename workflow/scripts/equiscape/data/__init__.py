"""Data sets: one file a kind, each with ``prepare`` and ``load`` (see :mod:`equiscape.data.base`).

``prepare(entry, source, output)`` writes one prepared HDF5 file from the ``datasets`` entry of the
configuration and its source, and its record beside it; ``load(path, device, entry)`` reads that
file into a :class:`~equiscape.data.base.Dataset` that is resident on a device.

A kind's module also declares, read from its source so that nothing heavy is imported:

``VERSION``   raised where the meaning of its prepared file changes: it is prepared again, and
              nothing else
``EMBEDDED``  whether it needs no source
``LOADER``    settings that only loading depends on
``FILES``     patterns of the files that it reads, relative to a source folder (``**`` for any
              folders): what else lies there changes nothing
``Settings``  a frozen dataclass: the settings of its entry beyond ``kind``, ``source``,
              ``mirrors``, ``sha256``, ``expect`` and ``corruptions``, which every kind has
``OVERRIDES`` settings that a task may override under ``data``; those of ``LOADER`` by default
``ARGUMENTS`` names of what ``Dataset.model_arguments()`` dictates to a network
              (one that is a setting, or a constant such as ``NODE_CATEGORIES``, is known before
              there are data, and the ``head`` where ``HEADS`` maps targets to theirs)
``INPUTS``    names of a batch's inputs, which are those of a network's ``forward``
``TARGETS``   what a task chooses its ``target`` from, or the setting whose keys these are; empty
              where there is nothing to choose
``SAMPLES``   what a sample is: ``clouds``, ``molecules``, ``graphs`` or ``vectors``
``LEARNS``    what is learned of it: ``classes``, ``numbers`` or ``labels`` (several at once)
``EXAMPLE``   settings of a small data set to try a network on, of kinds that need no source
``TABLE``     the column that names files in a CSV, where such a table may be a source
``EXPECT``    what ``expect`` may count
``CORRUPTIBLE``, ``AUGMENTATION``  whether ``corruptions`` apply, and the class of the settings of
              ``training.augmentation``
"""

from collections.abc import Iterable
from pathlib import PurePath

KINDS = {
    "pointcloud": "equiscape.data.pointcloud",
    "procedural": "equiscape.data.procedural",
    "qm9": "equiscape.data.qm9",
    "zinc": "equiscape.data.zinc",
    "peptides-func": "equiscape.data.peptides",
    "molecules": "equiscape.data.molecule_tables",
    "molecules-generated": "equiscape.data.generated_molecules",
    "teacher": "equiscape.data.teacher",
    "files": "equiscape.data.files",
}
CORRUPTED_VERSION = 3
CORRUPTED_FILES = ("**/data_*_[1-5].npy", "**/label.npy")


def reads(patterns: Iterable[str], file: PurePath) -> bool:
    """Whether a ``file``, relative to its source, is one that a kind with ``FILES`` reads."""
    return any(file.match(pattern.removeprefix("**/")) for pattern in patterns)
