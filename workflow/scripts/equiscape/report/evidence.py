"""What the products of a study hold on each claim: values by task, optimizer and seed.

Each product is read once, by the reader of its own page.
"""

from collections.abc import Iterable
from functools import cached_property

import pandas as pd

from equiscape.report import budget, curvature, load
from equiscape.report.claims import Sample
from equiscape.report.manifest import Manifest
from equiscape.report.pages import connectivity, rank, robustness, sharpness
from equiscape.report.pages import slice as slices

KEYS = ["task", "optimizer", "seed"]
GRAPH_NETWORKS = ("gine",)


class Evidence:
    """The values of a study, read when they are asked for.

    Attributes:
        manifest: the study.
        base: its baseline.
    """

    def __init__(self, manifest: Manifest) -> None:
        self.manifest, self.base = manifest, manifest.baseline

    def samples(
        self,
        values: pd.Series,
        optimizer: str,
        tasks: Iterable[str] | None = None,
        base: str | None = None,
    ) -> list[Sample]:
        """The values of each task under the baseline and ``optimizer``.

        Args:
            values: indexed by task, optimizer, seed.
            optimizer: of the configuration.
            tasks: None for all.
            base: an optimizer in the place of the baseline.
        """
        found, base = [], base or self.base
        values = values.sort_index()
        known = set(values.index.droplevel("seed")) if len(values) else set()
        for task in self.manifest.tasks if tasks is None else tasks:
            if known >= {(task, base), (task, optimizer)}:
                pair = (values[task, name].to_numpy(float) for name in (base, optimizer))
                found.append(Sample(task, *pair))
        return found

    def is_graph(self, task: str) -> bool:
        """Whether a task is one on abstract graphs, without positions."""
        entry = self.manifest.tasks[task]
        return entry.get("samples") == "graphs" or entry["architecture"] in GRAPH_NETWORKS

    @cached_property
    def finals(self) -> pd.DataFrame:
        """Test scores at the honest protocol."""
        finals = load.finals(self.manifest)
        return finals[finals["protocol"] == "best_validation"]

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """Metric, unit and direction of each task, indexed by it."""
        columns = ["task", "metric", "unit", "direction"]
        return self.finals[columns].drop_duplicates("task").set_index("task")

    @cached_property
    def histories(self) -> pd.DataFrame:
        """The learning curves of the final cells."""
        return load.histories(self.manifest)

    def scores(self, frame: pd.DataFrame, column: str = "score") -> pd.Series:
        """A column of a table with a row a seed, indexed by task, optimizer, seed."""
        return frame.set_index(KEYS)[column].dropna()

    @cached_property
    def curvature(self) -> dict[str, pd.Series]:
        """``largest`` and ``trace`` of the Hessian at the seeds that the analysis measured."""
        frame = curvature.points(self.manifest)
        return {name: self.scores(frame, name) for name in ("largest", "trace")}

    @cached_property
    def ranks(self) -> pd.Series:
        """Means over layers by kind, measure, task, optimizer, seed."""
        return rank.layer_means(self.manifest)

    @cached_property
    def last_layer(self) -> pd.Series:
        """Effective rank of the representation nearest the output."""
        each = rank.load(self.manifest)
        each = each[each["kind"] == "representation"].sort_values("position")
        return self.scores(each.drop_duplicates(KEYS, keep="last"), "effective_rank")

    @cached_property
    def sharpness(self) -> pd.DataFrame:
        """Whole-network measures of sharpness, a row a seed, form and measure."""
        measured = sharpness.load(self.manifest)
        return measured[measured["layer"] == "all"]

    def sharp(self, measure: str, folded: bool) -> pd.Series:
        """One measure of sharpness of the folded network, or of the network as it is."""
        cells = self.sharpness
        return self.scores(cells[(cells["measure"] == measure) & (cells["folded"] == folded)],
                           "value")  # fmt: skip

    @cached_property
    def roughness(self) -> pd.Series:
        """Roughness of the loss around the measured solutions."""
        return self.scores(slices.points(self.manifest), "roughness")

    @cached_property
    def corrupted(self) -> pd.Series:
        """Mean accuracy on corrupted clouds."""
        return robustness.load(self.manifest).groupby(KEYS)["accuracy"].mean()

    @cached_property
    def budgets(self) -> pd.DataFrame:
        """Test scores within the budgets that every optimizer used up."""
        return budget.within(self.manifest, self.finals)

    def at_budget(self, cost: str) -> pd.Series:
        """Test scores within one kind of budget."""
        return self.scores(self.budgets[self.budgets["cost"] == cost])

    @cached_property
    def at_equal_loss(self) -> pd.Series:
        """Test scores at the lowest training loss that every cell of a task came to."""
        frame = budget.at_equal_loss(self.histories, self.finals)
        return self.scores(frame, "equal_loss_score")

    def barriers(self, optimizer: str) -> list[Sample]:
        """Barriers of the test loss on aligned lines: two seeds of one, and unlike optimizers."""
        rows = connectivity.heights(self.manifest)
        rows = rows[(rows["split"] == "test") & (rows["alignment"] == "weights")]
        rows = rows[(rows["curve"] == "line") & (rows["pair"] == "other seed")]
        found = []
        for task, cells in rows.groupby("task", sort=False):
            cells = cells[cells["reset"] == cells["reset"].any()]
            names = (self.base, optimizer)
            cells = cells[cells["first"].isin(names) & cells["second"].isin(names)]
            same = cells["first"] == cells["second"]
            values = (cells.loc[chosen, "barrier"].to_numpy(float) for chosen in (same, ~same))
            found.append(Sample(str(task), *values))
        return [sample for sample in found if len(sample.base) and len(sample.other)]

    def folding(self, measure: str) -> pd.Series:
        """Folded value over the value as it is, seed by seed; tasks with batch norms to fold."""
        folded, raw = self.sharp(measure, True), self.sharp(measure, False)
        quotient = (folded / raw).dropna()
        tasks = sharpness.with_norms(self.sharpness)
        return quotient[quotient.index.get_level_values("task").isin(tasks)]
