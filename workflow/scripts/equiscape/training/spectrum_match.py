"""A constraint that holds the stable ranks of hidden matrices to given values."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

from equiscape.errors import ConfigError
from equiscape.optim.groups import split_parameters
from equiscape.settings import Names, Positive, Side
from equiscape.spectra.matching import match_stable_rank

if TYPE_CHECKING:
    from equiscape.training.loop import Trainer


class SpectrumMatch:
    """After each epoch, every hidden matrix gets the stable rank that its layer has in ``ranks``.

    Its largest singular value and its singular vectors stay; see
    :func:`equiscape.spectra.matching.match_stable_rank`. Held to the ranks of another optimizer it
    is an intervention; held to those that its own optimizer ends with, the placebo of it: weights
    are moved as often, but not to where the other one goes.

    Args:
        ranks: stable rank by layer, as the analysis ``rank`` names layers; others stay as they are.
        ranks_of: in a study, the optimizer whose representative's ranks of weights are taken.
        min_side: a matrix with a shorter side stays, as for Muon.

    Raises:
        ConfigError: no ranks are given.
    """

    def __init__(
        self,
        ranks: Annotated[Mapping[str, Positive], Names("layers")] | None = None,
        ranks_of: str | None = None,
        min_side: Side = 8,
    ):
        if not ranks:
            raise ConfigError(
                "training.constraints (spectrum-match): there are no ranks; give ranks, or in a "
                "study that lists the analysis `rank` the optimizer to take them from as ranks_of."
            )
        self.ranks, self.min_side = dict(ranks), min_side

    def apply(self, trainer: "Trainer") -> None:
        """Match the stable ranks of ``trainer.model``."""
        for name in split_parameters(trainer.model, self.min_side)["muon"]:
            rank = self.ranks.get(name.removesuffix(".weight"))
            if rank is not None:
                p = trainer.model.get_parameter(name)
                p.copy_(match_stable_rank(p, max(1.0, rank)))
