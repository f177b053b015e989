"""Equiscape: does the choice of optimizer change which solution a geometric network learns?

``equiscape.Study.open(folder)`` opens the results of a study.

Floors, from the ground up (an import only ever goes down): ``errors``, ``io``, ``registry`` and
``runtime``; ``objectives`` and ``data``; ``models`` and ``optim``; ``task`` and ``checkpoint``;
``training``; ``landscape`` and ``spectra``; ``report``; ``results``.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from equiscape.results import Study

__version__ = "0.1.0"
__all__ = ["Study", "__version__"]


def __getattr__(name: str) -> Any:
    """Import ``Study`` when it is asked for: jobs import this package and do not need it."""
    if name == "Study":
        from equiscape.results import Study

        return Study
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
