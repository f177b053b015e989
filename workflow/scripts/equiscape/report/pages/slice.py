"""The loss on filter-normalized planes and lines through the representatives."""

from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import BoundaryNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from equiscape.errors import DataError
from equiscape.report import style
from equiscape.report.load import check, plain, reading
from equiscape.report.manifest import Manifest
from equiscape.report.numbers import significant
from equiscape.report.page import Page
from equiscape.report.titles import optimizer_title, task_titles

PAGE = Page(
    title="The loss around the solutions",
    category="Landscape",
    reads=("slice",),
    figures={
        "cuts": (
            "Training loss along each of the two random filter-normalized directions through "
            "the representative checkpoint."
        ),
        "slice_{task}": (
            "Training loss on a plane through the representative checkpoint along two random "
            "filter-normalized directions, all optimizers at the same range and contour "
            "levels. The cross is the checkpoint."
        ),
    },
)


@dataclass(frozen=True)
class Slice:
    """The loss on a plane through a checkpoint.

    Attributes:
        x, y: ``[r]`` coordinates along the two directions, in filter-normalized units.
        loss: ``[r, r]``, ``loss[j, i]`` at ``(x[i], y[j])``.
        attributes: of the file: center_loss, cosine, split, samples, ...
    """

    x: np.ndarray
    y: np.ndarray
    loss: np.ndarray
    attributes: dict[str, Any]

    @property
    def center(self) -> float:
        """The loss at the checkpoint."""
        return float(self.loss[len(self.y) // 2, len(self.x) // 2])


def load(manifest: Manifest) -> dict[tuple[str, str], Slice]:
    """The slice of every (task, optimizer)."""
    import h5py

    measured = {}
    for product in manifest.analysis("slice"):
        task, optimizer, path = product.task, product.optimizer, product.path
        if not path.exists():
            raise DataError(f"{path} does not exist; run the rule that writes it first.")
        try:
            with h5py.File(path) as file, reading(path):
                check(path, file.attrs, task, optimizer)
                measured[task, optimizer] = Slice(
                    x=file["axis_x"][:],
                    y=file["axis_y"][:],
                    loss=file["loss"][:],
                    attributes={key: plain(value) for key, value in file.attrs.items()},
                )
        except OSError as error:
            raise DataError(f"{path} is not HDF5 ({error}); delete it and rerun.") from None
    return measured


LEVELS = 14


def levels(planes: list[Slice], count: int = LEVELS) -> np.ndarray:
    """Contour levels shared by all planes: geometric where the losses span a decade, else linear.

    They run from the smallest loss of any plane to the 98th percentile of all, so that one
    explosion in a corner does not take all the levels.
    """
    values = np.concatenate([plane.loss[np.isfinite(plane.loss)] for plane in planes])
    low, high = values.min(), np.quantile(values, 0.98)
    if high <= low:
        high = low + max(abs(low), 1e-6) * 1e-3
    if low > 0 and high / low > 10:
        return np.geomspace(low, high, count)
    return np.linspace(low, high, count)


def contours(manifest: Manifest, task: str, measured: dict[tuple[str, str], Slice]) -> Figure:
    """The planes of a task's optimizers side by side: same range, same levels, one color bar.

    The checkpoint is the cross at the center. Non-finite losses are white.

    Args:
        measured: from :func:`load`.
    """
    names = list(manifest.optimizers)
    planes = [measured[task, name] for name in names]
    shared = levels(planes)
    norm = BoundaryNorm(shared, ncolors=256, extend="max")
    columns = 2 if len(names) == 4 else min(len(names), 3)
    rows = -(-len(names) // columns)
    size = 2.35
    figure, axes = plt.subplots(
        rows, columns, figsize=(columns * size + 1.0, rows * (size + 0.05) + 0.65),
        sharex=True, sharey=True, squeeze=False,
    )  # fmt: skip
    flat = list(axes.flat)
    for axis, name, plane in zip(flat, names, planes):
        loss = np.ma.masked_invalid(plane.loss)
        filled = axis.contourf(
            plane.x, plane.y, loss, levels=shared, norm=norm, cmap="viridis", extend="max"
        )
        axis.contour(plane.x, plane.y, loss, levels=shared, colors="white", linewidths=0.35)
        filled.set_rasterized(True)
        axis.plot(0, 0, "+", color="white", markersize=9, markeredgewidth=2.6)
        axis.plot(0, 0, "+", color="black", markersize=8, markeredgewidth=1.1)
        axis.set_title(
            f"{optimizer_title(name)}, loss {significant(plane.center, 3)} at +",
            color=style.colors(manifest)[name],
        )
        axis.set_aspect("equal")
        axis.set_xlabel("direction 1")
        axis.label_outer()
        axis.set_xticks(plane.x[0] * np.linspace(1, -1, 5))
        axis.set_yticks(plane.y[0] * np.linspace(1, -1, 5))
    for axis in flat[len(names) :]:
        axis.remove()
    for row in axes:
        row[0].set_ylabel("direction 2")
    bar = figure.colorbar(filled, ax=flat[: len(names)], ticks=shared[::2], shrink=0.9, pad=0.02)
    bar.ax.set_yticks(shared[::2], _labels(shared[::2]))
    bar.ax.minorticks_off()
    bar.set_label("training loss")
    figure.suptitle(task_titles(manifest)[task], fontsize=9)
    return figure


def _labels(values: np.ndarray) -> list[str]:
    """Numbers with as many digits as tell them apart, three at least."""
    for digits in range(3, 7):
        labels = [significant(value, digits) for value in values]
        if len(set(labels)) == len(labels):
            break
    return labels


def cuts(manifest: Manifest, measured: dict[tuple[str, str], Slice]) -> Figure:
    """The loss along each of the two directions through the checkpoint."""
    color, marker = style.colors(manifest), style.markers(manifest)
    titles = task_titles(manifest)
    figure, axes = style.panels(len(manifest.tasks))
    directions = {"direction 1": "-", "direction 2": style.DASHES[1]}
    for axis, task in zip(axes, manifest.tasks):
        extremes = []
        for optimizer in manifest.optimizers:
            plane = measured[task, optimizer]
            middle = len(plane.x) // 2
            lines = (plane.x, plane.loss[middle]), (plane.y, plane.loss[:, middle])
            for (distance, loss), dash in zip(lines, directions.values()):
                loss = np.where(np.isfinite(loss), loss, np.nan)
                axis.plot(
                    distance, loss, color=color[optimizer], linestyle=dash,
                    marker=marker[optimizer], markersize=3.2, markevery=(0, max(1, middle // 2)),
                )  # fmt: skip
                extremes += [np.nanmin(loss), np.nanmax(loss)]
        axis.axvline(0, color="#BBBBBB", linewidth=0.7, zorder=0)
        axis.set_title(titles[task], loc="left")
        axis.set_xlabel("distance, filter-normalized")
        axis.grid(axis="y")
        axis.margins(x=0.02)
        if min(extremes) > 0 and max(extremes) / min(extremes) > 10:
            style.plain_log(axis)
    for axis in style.leftmost(axes):
        axis.set_ylabel("training loss")
    handles = style.optimizer_handles(manifest)
    handles += [
        Line2D([], [], color=style.GREY, linestyle=dash, label=name)
        for name, dash in directions.items()
    ]
    style.legend(figure, handles)
    return figure
