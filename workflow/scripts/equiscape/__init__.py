"""Equiscape: does the choice of optimizer change which solution a geometric network learns?

Floors, from the ground up (an import only ever goes down): ``errors``, ``io``, ``registry`` and
``runtime``; ``objectives`` and ``data``; ``models`` and ``optim``; ``task``; ``training``;
``landscape`` and ``spectra``; ``report``.
"""

__version__ = "0.1.0"
