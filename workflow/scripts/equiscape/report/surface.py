"""Contours of a loss on a plane, even in its logarithm, and their color bar."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from equiscape.report.numbers import significant

LEVELS = 13
BEYOND = "#D9D9D9"


def even(low: float, high: float, count: int = LEVELS) -> np.ndarray:
    """Levels from ``low`` to ``high``, even in the logarithm where the loss allows it."""
    if low > 0 and high / low > 1.02:  # see logarithmic
        return np.geomspace(low, high, count)
    return np.linspace(low, high if high > low else low + max(abs(low), 1e-6) * 1e-3, count)


def logarithmic(levels: np.ndarray) -> bool:
    """Whether levels are even in the logarithm."""
    return bool(levels[0] > 0 and levels[-1] / levels[0] > 1.02)


def contours(axis: Axes, x: ArrayLike, y: ArrayLike, loss: np.ndarray, levels: np.ndarray) -> Any:
    """Fill ``loss [y, x]``; values that are not finite are white, those beyond the levels gray."""
    colors = plt.get_cmap("viridis").with_extremes(over=BEYOND, under=plt.get_cmap("viridis")(0))
    scaled = np.ma.masked_invalid(loss)
    if logarithmic(levels):  # contours are interpolated in the logarithm, which is drawn
        scaled = np.ma.log(np.ma.maximum(scaled, levels[0] / 30))
        levels = np.log(levels)
    filled = axis.contourf(x, y, scaled, levels=levels, cmap=colors, extend="both")
    axis.contour(x, y, scaled, levels=levels, colors="white", linewidths=0.3,
                 linestyles="solid")  # fmt: skip
    filled.set_rasterized(True)
    return filled


def color_bar(
    figure: Figure, filled: Any, axes: Sequence[Axes], levels: np.ndarray, label: str
) -> None:
    """The color bar of :func:`contours` beside ``axes``, labeled with losses."""
    bar = figure.colorbar(filled, ax=list(axes), shrink=0.92, pad=0.02, aspect=16)
    ticks: Any = np.log(levels[::3]) if logarithmic(levels) else levels[::3]
    bar.set_ticks(ticks, labels=[significant(float(x), 2) for x in levels[::3]])
    bar.ax.minorticks_off()
    bar.set_label(label)
