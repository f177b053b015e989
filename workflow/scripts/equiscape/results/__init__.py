"""The results of a study that has run, opened from their folder, wherever that lies now.

``equiscape.Study`` is :class:`equiscape.results.study.Study`. What a study is to do, its checked
configuration, is an :class:`equiscape.study.Plan`. Heavy packages are imported once they are used.
"""

from equiscape.results.study import Study

__all__ = ["Study"]
