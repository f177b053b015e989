"""Data sets: one file a kind, each with ``prepare`` and ``load`` (see :mod:`equiscape.data.base`).

``prepare(entry, source, output)`` writes one prepared HDF5 file from the ``datasets`` entry of the
configuration and its source; ``load(path, device, entry)`` reads that file into a
:class:`~equiscape.data.base.Dataset` that is resident on a device.
"""

KINDS = {
    "pointcloud": "equiscape.data.pointcloud",
    "procedural": "equiscape.data.procedural",
    "qm9": "equiscape.data.qm9",
    "zinc": "equiscape.data.zinc",
    "peptides-func": "equiscape.data.peptides",
    "molecules-generated": "equiscape.data.generated_molecules",
    "teacher": "equiscape.data.teacher",
}

# Raised where the meaning of a kind's prepared file changes: it is prepared anew, and nothing else.
VERSIONS = dict.fromkeys(KINDS, 1)
CORRUPTED_VERSION = 1
