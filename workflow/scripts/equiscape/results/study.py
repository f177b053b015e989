"""A study opened from the folder of its results."""

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from equiscape.errors import DataError, listed
from equiscape.registry import unknown
from equiscape.report.manifest import Manifest
from equiscape.results.files import Cell, Measured, absent, frame_of, read_product

if TYPE_CHECKING:
    import pandas as pd

    from equiscape.checkpoint import Loaded

MANIFEST = "report.json"


class Study:
    """The results of a study: tables, measurements, training cells and their checkpoints.

        study = Study.open("results/demo")
        study.table("accuracy")
        study.model("egnn", "muon").predict(clouds)

    Attributes:
        folder: where the results lie; every path is taken from it, so they may have been moved.
        manifest: tasks, optimizers, seeds and analyses of the study.
    """

    def __init__(self, manifest: Manifest):
        self.manifest = manifest
        self.folder = manifest.results

    @classmethod
    def open(cls, folder: str | Path) -> "Study":
        """Open a study.

        Args:
            folder: of the results, such as ``results/demo``; or its ``report.json``.

        Raises:
            DataError: there is no such folder, or it holds no ``report.json``; the message names
                a folder near it that does.
        """
        given = Path(folder).expanduser()
        folder = given.parent if given.name == MANIFEST else given
        if not folder.is_dir():
            raise DataError(f"{folder} is no folder; give the folder of a study's results.")
        if not (folder / MANIFEST).is_file():
            raise DataError(
                f"{folder} is not the folder of a study's results, since it holds no {MANIFEST}; "
                f"{_near(folder)}."
            )
        return cls(Manifest.read(folder / MANIFEST))

    def __repr__(self) -> str:
        return (
            f"Study({str(self.folder)!r}: {listed(self.tasks)}; {listed(self.optimizers)}; "
            f"seeds {listed(self.seeds)})"
        )

    @property
    def tasks(self) -> list[str]:
        """Names of the tasks."""
        return list(self.manifest.tasks)

    @property
    def optimizers(self) -> list[str]:
        """Names of the optimizers; gains are taken against :attr:`baseline`."""
        return list(self.manifest.optimizers)

    @property
    def baseline(self) -> str:
        """The optimizer that gains and ratios are taken against."""
        return self.manifest.baseline

    @property
    def seeds(self) -> list[int]:
        """Seeds of the final cells."""
        return list(self.manifest.seeds)

    @property
    def analyses(self) -> list[str]:
        """Names of the analyses that the study lists."""
        return list(self.manifest.analyses)

    @property
    def tables(self) -> dict[str, str]:
        """Every table of the study that lies in the folder -> its caption."""
        made = {path.stem for path in (self.folder / "tables").glob("*.csv")}
        captions = self._captions
        return {
            **{name: text for name, text in captions.items() if name in made},
            **dict.fromkeys(sorted(made - set(captions)), ""),
        }

    @cached_property
    def _captions(self) -> dict[str, str]:
        from equiscape.report import pages

        return pages.tables(self.manifest)

    def table(self, name: str) -> "pd.DataFrame":
        """A table of the study with all digits; ``tables`` has the names.

        Raises:
            DataError: it has not been made, or is no table.
            ConfigError: the study has no table of that name.
        """
        path = self.folder / "tables" / f"{name}.csv"
        if name not in self.tables:
            self._known(name, [*self._captions, *self.tables], "tables")
            raise absent(path, self.folder)
        return frame_of(path)

    def products(
        self, analysis: str, task: str | None = None, optimizer: str | None = None
    ) -> list["Measured"]:
        """What an analysis measured, one for each of its files; the whole study's, or a part's.

        Args:
            analysis: one of :attr:`analyses`.
            task: only what was measured on it.
            optimizer: only what was measured at its checkpoints; of pairs, either of the two.

        Raises:
            ConfigError: the study has no analysis, task or optimizer of that name.
        """
        self._known(analysis, self.analyses, "analyses")
        if task is not None:
            self._known(task, self.tasks, "tasks")
        if optimizer is not None:
            self._known(optimizer, self.optimizers, "optimizers")
        return [
            Measured(self, analysis, product)
            for product in self.manifest.analysis(analysis)
            if task in (None, product.task)
            and optimizer in (None, product.optimizer, product.second)
        ]

    def product(
        self,
        analysis: str,
        task: str | None = None,
        optimizer: str | None = None,
        *,
        seed: int | None = None,
        second: str | None = None,
    ) -> "Measured":
        """One of :meth:`products`.

        Args:
            analysis: one of :attr:`analyses`.
            task, optimizer: what it was measured on; left out for an analysis of the whole study.
            seed: where it was measured at every final seed.
            second: the other optimizer of a pair.

        Raises:
            ConfigError: the study has no analysis, task or optimizer of that name.
            DataError: more than one file fits, or none.
        """
        found = self.products(analysis, task, optimizer)
        if seed is not None:
            found = [one for one in found if one.seed == seed]
        if second is not None:
            self._known(second, self.optimizers, "optimizers")
            found = [one for one in found if {one.optimizer, one.second} == {optimizer, second}]
        elif len(found) > 1 and found[0].second is not None:
            found = [one for one in found if one.optimizer == one.second] or found
        if len(found) == 1:
            return found[0]
        given = {"task": task, "optimizer": optimizer, "second": second, "seed": seed}
        asked = ", ".join([analysis, *(f"{k} {v}" for k, v in given.items() if v is not None)])
        if not found:
            known = [str(one.path.relative_to(self.folder)) for one in self.products(analysis)]
            raise DataError(
                f"{self.folder} has no result of {asked}; those of {analysis} are {listed(known)}."
            )
        names = [str(one.path.relative_to(self.folder)) for one in found]
        raise DataError(
            f"{self.folder} has {len(found)} results of {asked} ({listed(names)}); say which by "
            "task, optimizer, seed or second."
        )

    def frame(self, analysis: str) -> "pd.DataFrame":
        """All that an analysis measured, as one table; task, optimizers and seed stand first.

        Raises:
            ConfigError: the study has no such analysis.
            DataError: a file is missing, or the analysis writes no tables.
        """
        import pandas as pd

        frames = []
        for measured in self.products(analysis):
            if measured.path.suffix != ".csv":
                raise DataError(
                    f"{analysis} writes {measured.path.suffix} files and no tables; "
                    f"use Study.products({analysis!r}), or one of the tables of the study."
                )
            frame: Any = measured.data
            part: dict[str, Any] = {"task": measured.task, "optimizer": measured.optimizer}
            part |= {"second": measured.second, "seed": measured.seed}
            missing = {k: v for k, v in part.items() if v is not None and k not in frame}
            for place, (key, value) in enumerate(missing.items()):
                frame.insert(place, key, value)
            frames.append(frame)
        filled = [frame for frame in frames if len(frame)]  # none where every cell diverged
        return pd.concat(filled or frames[:1], ignore_index=True)

    def cell(
        self,
        task: str,
        optimizer: str,
        seed: int | None = None,
        *,
        lr: str | float | None = None,
        wd: str | float | None = None,
    ) -> "Cell":
        """A training: a final cell, or with ``lr`` and ``wd`` a cell of the grid.

        Args:
            task, optimizer: names in the study.
            seed: of the cell; None for the representative.
            lr, wd: of a grid cell; a string as the study spells it, or a number.

        Raises:
            ConfigError: the study has no task or optimizer of that name.
            DataError: the study has no such cell.
        """
        self._known(task, self.tasks, "tasks")
        self._known(optimizer, self.optimizers, "optimizers")
        if lr is not None or wd is not None:
            return self._grid_cell(task, optimizer, seed, lr, wd)
        if seed is None:
            seed = self.representative(task, optimizer)["seed"]
            if seed is None:
                raise DataError(
                    f"{task} {optimizer} in {self.folder} has no representative, since every final "
                    "cell diverged; give a seed, or choose another optimizer."
                )
        if seed not in self.seeds:
            raise DataError(
                f"{self.folder} has no final cell of seed {seed}; its seeds are "
                f"{listed(self.seeds)}, and grid cells need lr and wd."
            )
        return Cell(self, task, optimizer, seed, self.manifest.final(task, optimizer, seed).parent)

    def _grid_cell(self, task: str, optimizer: str, seed: int | None, lr: Any, wd: Any) -> "Cell":
        cells = self.selection(task, optimizer)["grid"]
        for cell in cells:
            if (
                seed in (None, cell["seed"])
                and (lr is None or _same(cell["lr"], lr))
                and (wd is None or _same(cell["wd"], wd))
            ):
                folder = f"lr{cell['lr']}_wd{cell['wd']}_seed{cell['seed']}"
                path = self.folder / "grid" / f"{task}_{optimizer}" / folder
                return Cell(self, task, optimizer, cell["seed"], path)
        if not cells:
            raise DataError(
                f"the grid of {task} {optimizer} in {self.folder} is one setting, which was taken "
                "without training; leave lr and wd out for a final cell."
            )
        known = [f"lr {c['lr']}, wd {c['wd']}, seed {c['seed']}" for c in cells]
        raise DataError(
            f"the grid of {task} {optimizer} in {self.folder} has no cell of lr {lr}, wd {wd}, "
            f"seed {seed}; its cells are: {'; '.join(known)}."
        )

    def selection(self, task: str, optimizer: str) -> dict[str, Any]:
        """The chosen learning rate and weight decay, with every cell of the grid."""
        return read_product(self.manifest.selection(task, optimizer), self.folder, "selection")

    def representative(self, task: str, optimizer: str) -> dict[str, Any]:
        """The final seed whose test score is nearest the mean, with all scores."""
        path = self.manifest.representative(task, optimizer)
        return read_product(path, self.folder, "representative")

    def histories(self) -> "pd.DataFrame":
        """Learning curves of all final cells: task, optimizer, seed, epoch and what was measured.

        Raises:
            DataError: a file is missing, or is no learning curve.
        """
        from equiscape.report import load

        return load.histories(self.manifest)

    def model(
        self, task: str, optimizer: str, seed: int | None = None, epoch: int | None = None
    ) -> "Loaded":
        """A trained network that predicts; see :class:`equiscape.checkpoint.Loaded`.

        Args:
            task, optimizer: names in the study.
            seed: of the final cell; None for the representative.
            epoch: of a snapshot; None for the checkpoint.

        Raises:
            CheckpointError: the file is absent, damaged, or holds no weights.
        """
        return self.cell(task, optimizer, seed).model(epoch)

    def _known(self, name: str, known: Iterable[str], what: str) -> None:
        known = list(dict.fromkeys(known))
        if name not in known:
            raise unknown(str(name), known, f"{what} of {self.folder}")


def _same(spelled: str, given: str | float) -> bool:
    """Whether a spelled learning rate or weight decay is the given one."""
    try:
        return float(spelled) == float(given)
    except ValueError:
        return False


def _near(folder: Path) -> str:
    """What to give instead of a folder without a manifest."""
    for parent in folder.resolve().parents:
        if (parent / MANIFEST).is_file():
            return f"did you mean {parent}"
    below = sorted(path.parent for path in folder.glob(f"*/{MANIFEST}"))
    below += sorted(path.parent for path in folder.glob(f"results/{MANIFEST}"))
    below += sorted(path.parent for path in folder.glob(f"results/*/{MANIFEST}"))
    if below:
        return f"did you mean {listed(dict.fromkeys(map(str, below)), 3)}"
    return "the rule manifest writes it at the start of a study"
