"""One look for every figure: colors, markers, sizes, legends and files.

An optimizer keeps its color and marker in every figure of a study: they follow the order of the
configuration, from the palette of Okabe and Ito, which color-blind readers tell apart, and which
stays apart in gray print because of the markers.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from equiscape.io import atomic_path
from equiscape.report.manifest import Manifest
from equiscape.report.numbers import MINUS
from equiscape.report.titles import optimizer_title

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#4D4D4D")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (5, 1.5, 1, 1.5)))
GRAY = "#6E6E6E"
WIDTH = 6.75
"""Width of a figure across both columns of a page, inches."""
COLUMN = 3.25
"""Width of a figure in one column of a page, inches."""
DPI = 300


def use() -> None:
    """Set the colors and the sizes: text of 7 to 9 points at print size, editable in PDF.

    A matplotlibrc of the user or the site is set aside first (``text.usetex`` needs a LaTeX).
    In a notebook, figures are shown at twice the resolution, for screens that have it.
    """
    mpl.rcdefaults()
    if _in_notebook():
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        set_matplotlib_formats("retina")
    mpl.rcParams.update(
        {
            "font.family": ["DejaVu Sans"],
            "text.color": ".15",
            "axes.labelcolor": ".15",
            "axes.edgecolor": ".15",
            "xtick.color": ".15",
            "ytick.color": ".15",
            "axes.axisbelow": True,
            "legend.title_fontsize": 8,
            "lines.solid_capstyle": "round",
            "patch.edgecolor": "w",
            "patch.force_edgecolor": True,
            "patch.linewidth": 0.8,
            "font.size": 8,
            "axes.titlesize": 8.5,
            "axes.labelsize": 8,
            "xtick.labelsize": 7.5,
            "ytick.labelsize": 7.5,
            "legend.fontsize": 8,
            "legend.frameon": False,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.linewidth": 0.7,
            "xtick.major.width": 0.7,
            "ytick.major.width": 0.7,
            "xtick.minor.width": 0.5,
            "ytick.minor.width": 0.5,
            "xtick.major.size": 3,
            "ytick.major.size": 3,
            "xtick.minor.size": 1.8,
            "ytick.minor.size": 1.8,
            "axes.grid": False,
            "grid.color": "#E4E4E4",
            "grid.linewidth": 0.6,
            "lines.linewidth": 1.4,
            "lines.markersize": 4.5,
            "figure.dpi": 110,
            "figure.constrained_layout.use": True,
            "figure.constrained_layout.h_pad": 0.04,
            "figure.constrained_layout.w_pad": 0.05,
            "savefig.dpi": DPI,
            "pdf.fonttype": 42,
            "svg.hashsalt": "equiscape",
        }
    )


def colors(manifest: Manifest) -> dict[str, str]:
    """Optimizer -> color, in the order of the configuration."""
    return {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(manifest.optimizers)}


def markers(manifest: Manifest) -> dict[str, str]:
    """Optimizer -> marker, in the order of the configuration.

    Where colors repeat, the markers are shifted, so that up to 49 pairs differ.
    """
    count = len(MARKERS)
    return {n: MARKERS[(i + i // count) % count] for i, n in enumerate(manifest.optimizers)}


def optimizer_handles(
    manifest: Manifest, names: list[str] | None = None, line: bool = True
) -> list[Line2D]:
    """Legend entries of the optimizers, with line and marker or the marker alone."""
    color, marker = colors(manifest), markers(manifest)
    return [
        Line2D(
            [], [], color=color[name], marker=marker[name],
            linestyle="-" if line else "none", label=optimizer_title(name),
        )
        for name in (names or manifest.optimizers)
    ]  # fmt: skip


def legend(figure: Figure, handles: list, title: str | None = None) -> None:
    """One legend above all panels, in as few rows as fit; ``title`` stands over it.

    A figure whose legend has more than two rows is widened to the page and grows by the others, so
    that its panels keep their height.
    """
    rows = _legend_rows(figure, handles)
    if rows > 2:
        figure.set_figwidth(max(figure.get_figwidth(), WIDTH))
        rows = _legend_rows(figure, handles)
        line = 1.5 * mpl.rcParams["legend.fontsize"] / 72  # labelspacing is half of the size
        figure.set_figheight(figure.get_figheight() + line * max(rows - 2, 0))
    side = -(-len(handles) // rows)  # evenly filled
    figure.legend(
        handles=handles,
        loc="outside upper center",
        ncols=side,
        title=title,
        handlelength=2.2,
        columnspacing=1.6,
    )


def _legend_rows(figure: Figure, handles: list) -> int:
    """The fewest rows in which the legend is no wider than the figure."""
    room = figure.get_figwidth() - 0.3
    wide = (n for n in range(len(handles), 1, -1) if _legend_width(handles, n) < room)
    return -(-len(handles) // next(wide, 1)) if handles else 1


def _legend_width(handles: list, columns: int) -> float:
    """Estimated width of a legend in inches; entries fill it column by column."""
    rows = -(-len(handles) // columns)
    longest = [
        max(len(handle.get_label()) for handle in handles[i : i + rows])
        for i in range(0, len(handles), rows)
    ]
    em = mpl.rcParams["legend.fontsize"] / 72
    return em * (sum(0.57 * letters + 2.2 + 0.8 + 1.6 for letters in longest) - 0.6)


def side_by_side(count: int) -> int:
    """How many of ``count`` panels stand side by side across a page."""
    return min(count, 4 if count <= 12 else 5)


def panels(
    count: int,
    height: float = 1.65,
    first: float = 0.0,
    columns: int | None = None,
    width: float | None = None,
    **kwargs,
) -> tuple[Figure, list[Axes]]:
    """``count`` axes in rows of :func:`side_by_side`, each ``height`` inches high.

    One panel is as wide as a column of a page, more are as wide as the page.

    Args:
        first: inches that long tick labels of the first panel of a row take.
        columns: panels a row, where :func:`side_by_side` does not decide.
        width: of the figure in inches, where the number of panels does not decide.
    """
    side = min(count, columns or side_by_side(count))
    rows = -(-count // side)
    width = width or {1: COLUMN, 2: 4.4}.get(side, WIDTH)
    figure, axes = plt.subplots(
        rows, side, figsize=(min(WIDTH, width + first), 0.5 + height * rows), squeeze=False,
        **kwargs,
    )  # fmt: skip
    flat = list(axes.flat)
    for axis in flat[count:]:
        axis.remove()
    return figure, flat[:count]


def single(height: float, wide: bool = False) -> tuple[Figure, Axes]:
    """One axes, a column wide or across both columns."""
    return plt.subplots(figsize=(WIDTH if wide else COLUMN, height))


def leftmost(axes: list[Axes], columns: int | None = None) -> Iterator[Axes]:
    """The first axes of every row of :func:`panels`."""
    return iter(axes[:: min(columns or side_by_side(len(axes)), len(axes))])


def log_axis(axis: Axes, which: str = "y") -> None:
    """A log axis with matplotlib's own locators, as many labels as its present span asks for.

    Call it last, when the data are drawn. Labels are plain numbers within six
    decades, powers of ten over more and below 0.0001.
    """
    getattr(axis, f"set_{which}scale")("log")
    low, high = getattr(axis, f"get_{which}lim")()
    decades = np.log10(high / low)
    scale = getattr(axis, f"{which}axis")
    if decades > 6 or low < 1e-4:
        scale.set_major_locator(LogLocator(numticks=6))
        scale.set_minor_formatter(NullFormatter())
        return
    if decades < 0.5:
        scale.set_major_locator(MaxNLocator(4))
    else:
        scale.set_major_locator(
            LogLocator(subs=(1, 2, 5) if decades < 1.6 else (1, 3) if decades < 2.6 else (1,))
        )
    scale.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}".replace("-", MINUS)))
    scale.set_minor_formatter(NullFormatter())


def symlog_ticks(axis: Axes) -> None:
    """Few labels on a horizontal symmetric log axis: zero, and at most two a side.

    Powers of ten, or 1, 2 and 5 of each where a side spans less than two of them.
    """
    low, high = axis.get_xlim()
    transform: Any = axis.xaxis.get_transform()  # that of a symmetric log axis
    threshold = transform.linthresh
    kept = [0.0]
    for sign, end in ((1, high), (-1, -low)):
        if end < threshold:
            continue
        decades = range(int(np.floor(np.log10(threshold))), int(np.floor(np.log10(end))) + 1)
        values = [step * 10.0**decade for decade in decades for step in (1, 2, 5)]
        values = [value for value in values if threshold <= value <= end]
        powers = [value for value in values if np.log10(value) % 1 == 0]
        values = powers if len(powers) > 1 else values
        kept += [sign * value for value in values[-1:]]
        kept += [sign * value for value in values[:1] if values[-1] / value >= 4]
    axis.set_xticks(sorted(kept))
    axis.minorticks_off()
    axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}".replace("-", MINUS)))


def handle(
    label: str, marker: str | None = None, face: str | None = None, color: str = GRAY,
    dash: Any = "none",
) -> Line2D:  # fmt: skip
    """A legend entry that belongs to no optimizer."""
    return Line2D(
        [], [], color=color, marker=marker, markerfacecolor=face or color, markersize=4.2,
        linestyle=dash, label=label,
    )  # fmt: skip


def dodge(manifest: Manifest, optimizer: str, room: float = 0.56) -> float:
    """The offset of an optimizer from the row of its task."""
    names = list(manifest.optimizers)
    return (names.index(optimizer) - (len(names) - 1) / 2) * room / max(len(names), 1)


def rows_of_tasks(tasks: int, columns: int, optimizers: int = 2) -> tuple[Figure, list[Axes]]:
    """``columns`` axes side by side with a row per task, as high as the tasks need."""
    row = max(0.22, 0.11 * optimizers)
    figure, axes = plt.subplots(
        1, columns, figsize=(WIDTH, 0.85 + row * max(tasks, 3)), sharey=True, squeeze=False
    )
    return figure, list(axes[0])


def task_axis(axis: Axes, names: dict[str, str]) -> None:
    """The tasks on the vertical axis, the first on top, with a line between two."""
    axis.set_yticks(range(len(names)), list(names.values()))
    axis.set_ylim(len(names) - 0.5, -0.5)
    for shared in axis.get_shared_y_axes().get_siblings(axis):
        shared.tick_params(axis="y", length=0)
        for y in range(1, len(names)):
            shared.axhline(y - 0.5, color="#EFEFEF", linewidth=0.6, zorder=0)


def label_outer(axes: list[Axes], x: str, y: str) -> None:
    """Labels at the lowest axes of each column and the first of each row of :func:`panels`."""
    side = side_by_side(len(axes))
    for place, axis in enumerate(axes):
        if place + side >= len(axes):
            axis.set_xlabel(x)
        if place % side == 0:
            axis.set_ylabel(y)


def save(figure: Figure, folder: str | Path, name: str) -> list[Path]:
    """Write ``name.pdf`` and ``name.png`` (300 dpi), atomically and without a time stamp.

    The same figure gives the same bytes, so that a rerun changes nothing.
    """
    folder = Path(folder)
    written = []
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # laid out once, not for every file
    fit_titles(figure)
    metadata = {"pdf": {"CreationDate": None, "Title": name}, "png": {"Title": name}}
    for suffix, entries in metadata.items():
        path = folder / f"{name}.{suffix}"
        with atomic_path(path) as temporary, mpl.rc_context({"svg.hashsalt": name}):
            figure.savefig(temporary, format=suffix, metadata=entries, dpi=DPI)
        written.append(path)
    if _in_notebook():
        from IPython.display import display

        display(figure, metadata={"image/png": {"alt": alternative(name)}})
        plt.close(figure)
    return written


def fit_titles(figure: Figure) -> None:
    """Shrink panel titles that run into the next panel's or off the page, once laid out.

    A title may reach to where the next panel's title begins; none gets smaller than 5.5 points.
    """
    gap = 0.08 * figure.dpi
    titles = [
        (axis, text)
        for axis in figure.axes
        for text in axis.get_children()
        if isinstance(text, Text) and text.get_text() and text.get_text() == axis.get_title("left")
    ]
    boxes = {axis: text.get_window_extent() for axis, text in titles}
    for axis, text in titles:
        box = boxes[axis]
        ends = [
            other.x0
            for other in boxes.values()
            if other.x0 > box.x0 + 1 and other.y0 < box.y1 and other.y1 > box.y0
        ]
        room = min([*ends, figure.bbox.x1]) - gap - box.x0
        if box.width > room > 0:
            size = text.get_fontsize()
            text.set_fontsize(max(5.5, np.floor(10 * size * room / box.width) / 10))


def alternative(name: str) -> str:
    """The text that stands for the figure ``name`` where it cannot be seen: its caption."""
    from equiscape.report.pages import PAGES, declaration

    for module in PAGES.values():
        for stem, caption in declaration(module).figures.items():
            if name == stem or ("{task}" in stem and name.startswith(stem.split("{")[0])):
                return caption
    return name


def _in_notebook() -> bool:
    return "IPython" in sys.modules and sys.modules["IPython"].get_ipython() is not None
