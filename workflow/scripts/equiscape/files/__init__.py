"""Readers that trust no byte: every format that comes from outside is opened here, and only here.

Each reader knows the length of what it reads and compares every length in a file with it, builds
plain numeric arrays and nothing else, reads compressed streams to their end, and raises a
:class:`~equiscape.errors.DataError` that names the file. See ``docs/security.md``.
"""
