"""Small images as squares: with their numbers in them, or with a window that slides over them."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike

_BLUE, _GREY, _VERMILION, _LINE = "#9CC9E8", "#DDDDDD", "#F0A878", "#555555"
_TINTS = LinearSegmentedColormap.from_list("tints", ["#FFFFFF", _BLUE])
_COLUMNS = 5  # at most; rows are of equal length where they can be


def numbers(images: Mapping[str, ArrayLike]) -> Figure:
    """Images side by side, in rows of five at most; the larger a number, the darker its square.

    Args:
        images: by title, numbers `[height, width]`.
    """
    arrays = {title: np.asarray(image, float) for title, image in images.items()}
    side = max(max(array.shape) for array in arrays.values())
    figure, panels = _panels(len(arrays), 0.42 * side)
    for axes, (title, array) in zip(panels, arrays.items(), strict=True):
        height, width = array.shape
        _grid(axes, height, width, side)
        axes.set_title(title, loc="left", fontsize=10)
        least, most = array.min(), array.max()
        tints = (array - least) / (most - least) if most > least else np.zeros_like(array)
        for (row, column), value in np.ndenumerate(array):
            _fill(axes, column, row, 1, 1, to_hex(_TINTS(tints[row, column])))
            axes.text(column + 0.5, row + 0.5, f"{value:.4g}", ha="center", va="center")
    return figure


def windows(side: int, window: int, stride: int = 1, padding: int = 0) -> Figure:
    """The places of a window on the first rows of a square image, a panel for each.

    Padding is grey; where the last place leaves pixels over, the last panel shows them in red.

    Raises:
        ValueError: the window does not fit into the padded image.
    """
    padded = side + 2 * padding
    if window > padded:
        raise ValueError(f"A window of {window} pixels does not fit into {padded}.")
    places = range(0, padded - window + 1, stride)
    figure, panels = _panels(len(places), 0.21 * padded)
    for number, (axes, left) in enumerate(zip(panels, places, strict=True), start=1):
        _grid(axes, padded, padded, padded)
        axes.set_title(f"place {number}", loc="left", fontsize=10)
        if padding:
            _fill(axes, 0, 0, padded, padded, _GREY)
            _fill(axes, padding, padding, side, side, "white")
        _fill(axes, left, 0, window, window, _BLUE)
    seen = places[-1] + window
    if seen < padded:
        _fill(axes, seen, 0, padded - seen, window, _VERMILION)
    return figure


def _panels(count: int, inches: float) -> tuple[Figure, list[Axes]]:
    """Panels of so many inches a side."""
    rows = -(-count // _COLUMNS)
    columns = -(-count // rows)
    figure = Figure((columns * (inches + 0.3), rows * (inches + 0.5)), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in panels:
        axes.set_axis_off()
    return figure, panels[:count]


def _grid(axes: Axes, height: int, width: int, side: int) -> None:
    """Lines between the squares, above what fills them, in a panel of `side` x `side` squares."""
    axes.set_aspect("equal")
    axes.set_xlim(-0.05, side + 0.05)
    axes.set_ylim(side + 0.05, -0.05)
    axes.hlines(range(height + 1), 0, width, color=_LINE, linewidth=0.7, zorder=3)
    axes.vlines(range(width + 1), 0, height, color=_LINE, linewidth=0.7, zorder=3)


def _fill(axes: Axes, left: int, top: int, width: int, height: int, color: str) -> None:
    axes.add_patch(Rectangle((left, top), width, height, facecolor=color, linewidth=0))
