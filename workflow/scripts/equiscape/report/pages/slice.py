"""The loss on filter-normalized planes and lines through the representatives."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from equiscape.errors import DataError
from equiscape.report import statistics, style, surface
from equiscape.report.comparisons import Comparison, measured_once, of_ratios
from equiscape.report.load import check, plain, reading, unchanged
from equiscape.report.manifest import Manifest, Product
from equiscape.report.numbers import interval, plus_minus, significant
from equiscape.report.page import Page
from equiscape.report.statistics import Estimate
from equiscape.report.tables import with_task
from equiscape.report.text import join, markdown, task_title
from equiscape.report.titles import optimizer_title, task_titles

PAGE = Page(
    title="The loss around the solutions",
    category="Landscape",
    reads=("slice",),
    tables={
        "slice": (
            "Roughness of the loss along random filter-normalized lines through the solutions, and "
            "its ratio to the baseline."
        ),
    },
    figures={
        "cuts": (
            "Training loss along random filter-normalized directions through the representative "
            "checkpoint: median over directions, and the band from the lowest to the highest. "
            "The dotted line is the loss of chance, where a network has learned nothing."
        ),
        "slice_{task}": (
            "Training loss on a plane through the representative checkpoint (cross) along two "
            "random filter-normalized directions, all optimizers at the same range and levels. "
            "Upper row: the loss, up to the loss of chance; beyond it, gray. Lower row: the "
            "height above the checkpoint's own loss, so that basins of different depth compare."
        ),
    },
)


@dataclass(frozen=True)
class Slice:
    """The loss on a plane through a checkpoint.

    Attributes:
        x, y: ``[r]`` coordinates along the two directions, in filter-normalized units.
        loss: ``[r, r]``, ``loss[j, i]`` at ``(x[i], y[j])``.
        band: ``[directions, r]``, the loss at ``x`` along random directions.
        attributes: of the file: chance_loss, cosine, range, split, samples, ...
    """

    x: np.ndarray
    y: np.ndarray
    loss: np.ndarray
    band: np.ndarray
    attributes: dict[str, Any]

    @property
    def center(self) -> float:
        """The loss at the checkpoint."""
        return float(self.loss[len(self.y) // 2, len(self.x) // 2])

    @property
    def chance(self) -> float:
        """The loss of the best constant prediction; NaN where the file does not say it."""
        return float(self.attributes.get("chance_loss", np.nan))


def load(manifest: Manifest) -> dict[tuple[str, str], Slice]:
    """The slice of every (task, optimizer) at its representative; none where all diverged."""
    return {key[:2]: plane for key, plane in _read(manifest.representatives("slice"))}


def every(manifest: Manifest) -> dict[tuple[str, str, int | None], Slice]:
    """The slices of all measured checkpoints by task, optimizer, seed (None: representative)."""
    return dict(_read(manifest.analysis("slice")))


def _read(products: list[Product]) -> Iterator[tuple[tuple[str, str, int | None], Slice]]:
    import h5py

    for product in products:
        task, optimizer, path = str(product.task), str(product.optimizer), product.path
        if not path.exists():
            raise DataError(f"{path} does not exist; run the rule that writes it first.")
        try:
            unchanged(path)
            with h5py.File(path, locking=False) as file, reading(path):
                check(path, file.attrs, task, optimizer)
                if not len(file):  # every cell diverged
                    continue
                loss = file["loss"][:]
                cuts = [loss[len(loss) // 2], loss[:, len(loss) // 2]]
                yield (
                    (task, optimizer, product.seed),
                    Slice(
                        x=file["axis_x"][:],
                        y=file["axis_y"][:],
                        loss=loss,
                        band=file["band_loss"][:] if "band_loss" in file else np.stack(cuts),
                        attributes={key: plain(value) for key, value in file.attrs.items()},
                    ),
                )
        except OSError as error:
            raise DataError(f"{path} is not HDF5 ({error}); rerun its rule.") from None


def roughness(plane: Slice) -> float:
    """How much the slope of the loss changes along the lines through a checkpoint.

    Total variation of the slope, mean over lines, by the depth of the basin: the loss of chance
    (the highest on the lines where it is not known) less the checkpoint's own. The loss is cut off
    at chance, as in the figures. Per filter norm: 4 / w for straight walls that reach chance at a
    distance of w, more for a narrower basin and for each further bend. NaN where there is no depth.
    """
    lines = np.where(np.isfinite(plane.band), plane.band, np.inf)
    cap = plane.chance if plane.chance > plane.center else np.max(lines, initial=plane.center)
    depth = cap - plane.center
    if not (np.isfinite(depth) and depth > 0):
        return float("nan")
    bends = np.abs(np.diff(np.minimum(lines, cap), n=2, axis=1)).sum(axis=1).mean()
    return float(bends / depth / (plane.x[1] - plane.x[0]))


def table(manifest: Manifest) -> pd.DataFrame:
    """One row per task and optimizer: seeds, roughness (mean, std over seeds), ratio, its interval.

    The ratio is of geometric means to the baseline's, its 95 % interval Welch's on logarithms.
    """
    rows, measured = [], _roughness(manifest)
    for (task, optimizer), values in measured.items():
        base = measured.get((task, manifest.baseline), [])
        own = optimizer == manifest.baseline
        found = statistics.ratio([] if own else base, values)
        rows.append(
            {
                "task": task,
                "optimizer": optimizer,
                "seeds": len(values),
                "roughness": np.mean(values),
                "roughness_std": np.std(values, ddof=1) if len(values) > 1 else np.nan,
                "ratio": found.value,
                "ratio_low": found.low,
                "ratio_high": found.high,
            }
        )
    columns = ["task", "optimizer", "seeds", "roughness", "roughness_std", "ratio", "ratio_low",
               "ratio_high"]  # fmt: skip
    return with_task(manifest, pd.DataFrame(rows, columns=columns))


def points(manifest: Manifest) -> pd.DataFrame:
    """Roughness at every measured checkpoint: task, optimizer, seed (-1: representative)."""
    rows = [
        (task, optimizer, -1 if seed is None else seed, roughness(plane))
        for (task, optimizer, seed), plane in every(manifest).items()
    ]
    return pd.DataFrame(rows, columns=["task", "optimizer", "seed", "roughness"])


def _roughness(manifest: Manifest) -> dict[tuple[str, str], list[float]]:
    groups = points(manifest).groupby(["task", "optimizer"], sort=False)["roughness"]
    return {(str(task), str(optimizer)): list(values) for (task, optimizer), values in groups}


def comparisons(manifest: Manifest) -> list[Comparison]:
    """Roughness against the baseline's, over seeds where several were measured."""
    measured = _roughness(manifest)
    found = []
    for task in manifest.tasks:
        for optimizer in manifest.rivals:
            if not measured.keys() >= {(task, manifest.baseline), (task, optimizer)}:
                continue
            base, other = measured[task, manifest.baseline], measured[task, optimizer]
            claim = "roughness of the loss"
            if min(len(base), len(other)) > 1:
                found.append(of_ratios(claim, task, optimizer, base, other))
            else:
                once = Estimate(other[0] / base[0], np.nan, np.nan)
                found.append(measured_once(claim, task, optimizer, once, ""))
    return found


def text(manifest: Manifest, frame: pd.DataFrame) -> str:
    """The table as Markdown."""
    rows = [
        {
            "task": task_title(manifest, row),
            "optimizer": optimizer_title(row["optimizer"]),
            "seeds": row["seeds"],
            "roughness": plus_minus(row["roughness"], row["roughness_std"]),
            "ratio": interval(row["ratio"], row["ratio_low"], row["ratio_high"], "ratio"),
        }
        for _, row in frame.iterrows()
    ]
    parts = [
        "# Roughness of the loss around the solutions",
        "How much the slope of the training loss changes along random filter-normalized lines: its "
        "total variation, mean over lines, by the depth of the basin (loss of chance less that of "
        "the solution; the loss is cut off at chance). 4 / w for straight walls that reach chance "
        "at a distance of w filter norms, more for a narrower basin and for each further bend. It "
        "depends on range and resolution, so compare only within a study.",
    ]
    if rows:
        shown = pd.DataFrame(rows)
        parts.append(markdown(shown, {c: c for c in shown}))
    return join(parts)


TABLES = {"slice": (table, text)}


def levels(planes: list[Slice], count: int = surface.LEVELS) -> np.ndarray:
    """Contour levels shared by all planes, even in the logarithm of the loss.

    From the smallest loss of any plane to the loss of chance; where that is not known, or no higher
    than the smallest, to the 60th percentile.
    """
    values = np.concatenate([plane.loss[np.isfinite(plane.loss)] for plane in planes])
    low, high = values.min(), max(plane.chance for plane in planes)
    if not high > low:
        high = np.quantile(values, 0.6)
    return surface.even(low, high, count)


def heights(planes: list[Slice], count: int = surface.LEVELS) -> np.ndarray:
    """Levels of the loss above each checkpoint's own: two decades up to the highest cap."""
    cap = levels(planes)[-1]
    high = max(cap - plane.center for plane in planes)
    if not high > 0:
        high = max(float(np.nanmax(plane.loss) - plane.center) for plane in planes)
    high = high if high > 0 else 1.0
    return surface.even(high / 100, high, count)


def contours(manifest: Manifest, task: str, measured: dict[tuple[str, str], Slice]) -> Figure:
    """A task's planes side by side, the loss above and its height over the checkpoint below.

    Args:
        measured: from :func:`load`.
    """
    names = [name for name in manifest.optimizers if (task, name) in measured]
    planes = [measured[task, name] for name in names]
    size = min(2.0, (style.WIDTH - 0.9) / max(len(names), 1))
    width = max(style.COLUMN, len(names) * size + 1.05)
    figure, axes = plt.subplots(
        2, len(names), figsize=(width, 2 * size + 0.85), sharex=True, sharey=True, squeeze=False
    )
    views = (
        (axes[0], [p.loss for p in planes], levels(planes), "training loss"),
        (axes[1], [p.loss - p.center for p in planes], heights(planes), "above the checkpoint"),
    )
    for row, values, shared, label in views:
        for axis, plane, loss in zip(row, planes, values):
            filled = _plane(axis, plane, loss, shared)
        surface.color_bar(figure, filled, row, shared, label)
        row[0].set_ylabel("direction 2")
    for axis, name, plane in zip(axes[0], names, planes):
        axis.set_title(
            f"{optimizer_title(name)}\n{significant(plane.center, 3)} at +", fontsize=8,
            color=style.colors(manifest)[name],
        )  # fmt: skip
    for axis in axes[1]:
        axis.set_xlabel("direction 1")
    first = planes[0].attributes
    cosines = ", ".join(f"{p.attributes['cosine']:.3f}".replace("-", "−") for p in planes)
    where = f"{task_titles(manifest)[task]}: {first['samples']} samples of {first['split']},"
    extent = f"range ±{significant(float(planes[0].x[-1]), 2)}, cosine {cosines}"
    figure.suptitle(f"{where}{' ' if len(names) > 1 else chr(10)}{extent}", fontsize=7.5)
    return figure


def _plane(axis: Axes, plane: Slice, loss: np.ndarray, shared: np.ndarray) -> Any:
    """Draw one plane with the checkpoint in its middle."""
    filled = surface.contours(axis, plane.x, plane.y, loss, shared)
    axis.plot(0, 0, "+", color="white", markersize=8, markeredgewidth=2.4)
    axis.plot(0, 0, "+", color="black", markersize=7, markeredgewidth=1.0)
    axis.set_aspect("equal")
    axis.set_xticks([plane.x[0], 0, plane.x[-1]])
    axis.set_yticks([plane.y[0], 0, plane.y[-1]])
    return filled


def cuts(manifest: Manifest, measured: dict[tuple[str, str], Slice]) -> Figure:
    """The loss along random directions: median and range over them, up to a little over chance.

    Args:
        measured: from :func:`load`.
    """
    manifest = manifest.only("slice")
    color, marker = style.colors(manifest), style.markers(manifest)
    titles = task_titles(manifest)
    figure, axes = style.panels(len(manifest.tasks))
    for axis, task in zip(axes, manifest.tasks):
        planes = {o: measured[task, o] for o in manifest.optimizers if (task, o) in measured}
        for optimizer, plane in planes.items():
            band = np.where(np.isfinite(plane.band), plane.band, np.inf)
            middle = np.median(band, axis=0)
            ends = band.min(0), np.where(np.isfinite(band.max(0)), band.max(0), 1e300)
            axis.fill_between(plane.x, *ends, color=color[optimizer], alpha=0.2, linewidth=0)
            axis.plot(
                plane.x, np.where(np.isfinite(middle), middle, np.nan), color=color[optimizer],
                marker=marker[optimizer], markersize=3, markevery=(0, max(1, len(middle) // 4)),
            )  # fmt: skip
        axis.set_title(titles[task], loc="left")
        axis.axvline(0, color="#BBBBBB", linewidth=0.7, zorder=0)
        axis.grid(axis="y")
        axis.margins(x=0.02)
        if planes:
            shared = levels(list(planes.values()))
            chance = max(plane.chance for plane in planes.values())
            if np.isfinite(chance):
                axis.axhline(chance, color=style.GRAY, linewidth=0.9, linestyle=":")
            low = min(plane.band[np.isfinite(plane.band)].min() for plane in planes.values())
            axis.set_ylim(low * 0.85 if low > 0 else low, shared[-1] * 2)
            if low > 0:
                style.log_axis(axis)
    style.label_outer(axes, "distance, filter norms", "training loss")
    handles = style.optimizer_handles(manifest)
    if any(np.isfinite(plane.chance) for plane in measured.values()):
        handles.append(style.handle("chance", dash=":"))
    style.legend(figure, handles)
    return figure
