"""One look for every figure: colors, markers, sizes, legends and files.

An optimizer keeps its color and marker in every figure of a study: they follow the order of the
configuration, from the palette of Okabe and Ito, which color-blind readers tell apart, and which
stays apart in gray print because of the markers.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter

from equiscape.io import atomic_path
from equiscape.report.manifest import Manifest
from equiscape.report.titles import optimizer_title

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#4D4D4D")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (5, 1.5, 1, 1.5)))
GREY = "#6E6E6E"
WIDTH = 7.0
"""Width of a figure across both columns of a page, inches."""
DPI = 300


def use() -> None:
    """Set seaborn's theme and the sizes: text of 7 to 9 points at print size, editable in PDF.

    A matplotlibrc of the user or the site is set aside first (``text.usetex`` needs a LaTeX).
    In a notebook, figures are shown at twice the resolution, for screens that have it.
    """
    mpl.rcdefaults()
    if "IPython" in sys.modules and sys.modules["IPython"].get_ipython() is not None:
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        set_matplotlib_formats("retina")
    sns.set_theme(
        context="paper",
        style="ticks",
        font="DejaVu Sans",
        rc={
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
        },
    )


def colors(manifest: Manifest) -> dict[str, str]:
    """Optimizer -> color, in the order of the configuration."""
    return {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(manifest.optimizers)}


def markers(manifest: Manifest) -> dict[str, str]:
    """Optimizer -> marker, in the order of the configuration."""
    return {name: MARKERS[i % len(MARKERS)] for i, name in enumerate(manifest.optimizers)}


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
    """One legend above all panels, in as few rows as fit; ``title`` stands over it."""
    columns = next(
        (
            n
            for n in range(len(handles), 1, -1)
            if _legend_width(handles, n) < figure.get_figwidth()
        ),
        1,
    )
    columns = -(-len(handles) // -(-len(handles) // columns))  # as many rows, evenly filled
    figure.legend(
        handles=handles,
        loc="outside upper center",
        ncols=columns,
        title=title,
        handlelength=2.2,
        columnspacing=1.6,
    )


def _legend_width(handles: list, columns: int) -> float:
    """Estimated width of a legend in inches; entries fill it column by column."""
    rows = -(-len(handles) // columns)
    longest = [
        max(len(handle.get_label()) for handle in handles[i : i + rows])
        for i in range(0, len(handles), rows)
    ]
    em = mpl.rcParams["legend.fontsize"] / 72
    return em * (sum(0.57 * letters + 2.2 + 0.8 + 1.6 for letters in longest) - 0.6)


def panels(
    count: int, columns: int = 3, height: float = 2.1, width: float | None = None, **kwargs
) -> tuple[Figure, list[Axes]]:
    """``count`` axes, ``columns`` a row, each ``height`` inches high; spare axes are removed.

    One panel alone is not stretched over the page.
    """
    columns = min(columns, count)
    rows = -(-count // columns)
    width = width or (WIDTH if columns > 2 else {1: 3.6, 2: 5.6}[columns])
    figure, axes = plt.subplots(
        rows, columns, figsize=(width, 0.35 + height * rows), squeeze=False, **kwargs
    )
    flat = list(axes.flat)
    for axis in flat[count:]:
        axis.remove()
    return figure, flat[:count]


def leftmost(axes: list[Axes], columns: int = 3) -> Iterator[Axes]:
    """The first axes of every row of :func:`panels`."""
    return iter(axes[:: min(columns, len(axes))])


def plain_log(axis: Axes, which: str = "y") -> None:
    """A log axis with labels such as 0.5, 1, 2 where there is room, at the limits it has now.

    Call it last, when the data are drawn. Beyond six decades the labels are powers of ten.
    """
    set_scale, limits = getattr(axis, f"set_{which}scale"), getattr(axis, f"get_{which}lim")
    set_scale("log")
    low, high = limits()
    decades = np.log10(high / low)
    if not 0 < decades <= 6:
        return
    mantissas = (1,) if decades > 3 else (1, 2, 5) if decades > 0.8 else (1, 1.5, 2, 3, 4, 5, 7)
    powers = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    ticks = np.outer(powers, mantissas).ravel()
    if ((ticks >= low) & (ticks <= high)).sum() < 3:
        ticks = MaxNLocator(4).tick_values(low, high)
    scale = getattr(axis, f"{which}axis")
    scale.set_major_locator(FixedLocator(ticks[(ticks >= low) & (ticks <= high)]))
    scale.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}".replace("-", "−")))
    scale.set_minor_formatter(NullFormatter())
    getattr(axis, f"set_{which}lim")(low, high)


def save(figure: Figure, folder: str | Path, name: str) -> list[Path]:
    """Write ``name.pdf`` and ``name.png`` (300 dpi), atomically and without a time stamp.

    The same figure gives the same bytes, so that a rerun changes nothing.
    """
    folder = Path(folder)
    written = []
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # laid out once, not for every file
    metadata = {"pdf": {"CreationDate": None, "Title": name}, "png": {"Title": name}}
    for suffix, entries in metadata.items():
        path = folder / f"{name}.{suffix}"
        with atomic_path(path) as temporary, mpl.rc_context({"svg.hashsalt": name}):
            figure.savefig(temporary, format=suffix, metadata=entries, dpi=DPI)
        written.append(path)
    return written
