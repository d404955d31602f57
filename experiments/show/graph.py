"""A network as a graph: layers from top to bottom, branches side by side, skips around them."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from math import prod
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from experiments.show.inspector import Layer

_ROW, _COLUMN = 0.5, 1.9  # inches between the middles of boxes
_BOX = (1.75, 0.34)  # inches
_HALF_BOX, _HALF_LINE = 0.5, 0.1  # of a column, with the room around them
_COLORS = {"weights": "#CFE3F3", "join": "#FFFFFF", "other": "#FBE9D3"}
_LINE = "#555555"
_TITLE_HEIGHT, _LINE_HEIGHT = 0.3, 0.15  # inches, of its first line and of each further one
_LETTERS = 30  # that a box holds


class Box(NamedTuple):
    """A layer, and those behind it that only change its values."""

    name: str
    label: str
    shape: tuple[int, ...]
    color: str
    inputs: tuple[str, ...]


def draw(
    title: str, image_shape: Sequence[int], layers: Sequence[Layer], given: str = "images"
) -> Figure:
    """The graph of a network; a box says what it is and which shape it gives.

    The title's first line is the largest. Boxes with weights are blue. What only changes a layer's
    values, as a normalisation or dropout, is in the box of the layer before it.

    Args:
        given: what the network's input is called.
    """
    first = Box(given, given, tuple(image_shape), _COLORS["join"], ())
    boxes = [first, *_fold(layers, given)]
    places = arrange([(box.name, box.inputs) for box in boxes])
    points = {spot: (c * _COLUMN, -r * _ROW) for spot, (c, r) in places.items()}
    across, down = zip(*points.values(), strict=True)
    width = max(across) - min(across) + _BOX[0] + 0.3
    height = max(down) - min(down) + _BOX[1] + 0.3
    name, *more = title.splitlines()
    whole = height + _TITLE_HEIGHT + _LINE_HEIGHT * len(more)
    figure = Figure(figsize=(width, whole))
    figure.text(0.5, 1 - 0.08 / whole, name, ha="center", va="top", fontsize=11)
    below = 1 - _TITLE_HEIGHT / whole
    figure.text(0.5, below, "\n".join(more), ha="center", va="top", fontsize=8)
    axes = figure.add_axes((0, 0, 1, height / whole))
    axes.set_xlim(min(across) - _BOX[0] / 2 - 0.15, max(across) + _BOX[0] / 2 + 0.15)
    axes.set_ylim(min(down) - _BOX[1] / 2 - 0.15, max(down) + _BOX[1] / 2 + 0.15)
    axes.set_axis_off()
    for box in boxes:
        for source in box.inputs:
            passed = [spot for spot in points if spot[:2] == (source, box.name)]
            _connect(axes, [points[source], *(points[spot] for spot in passed), points[box.name]])
        _draw_box(axes, points[box.name], box)
    return figure


def _fold(layers: Sequence[Layer], given: str) -> list[Box]:
    """Boxes of layers."""
    takers = Counter(source for layer in layers for source in layer.inputs)
    boxes: dict[str, Box] = {}
    box_of = {given: given}
    for layer in layers:
        inputs = tuple(box_of[source] for source in layer.inputs)
        before = boxes.get(inputs[0]) if len(inputs) == 1 else None
        if (
            before is not None
            and takers[layer.inputs[0]] == 1
            and not layer.multiply_adds
            and prod(before.shape) == prod(layer.output_shape)
        ):
            label = f"{before.label} + {layer.name.rpartition('/')[2]}"
            boxes[before.name] = before._replace(label=label, shape=layer.output_shape)
            box_of[layer.name] = before.name
            continue
        color = "join" if len(inputs) > 1 else "weights" if layer.parameters else "other"
        boxes[layer.name] = Box(layer.name, layer.name, layer.output_shape, _COLORS[color], inputs)
        box_of[layer.name] = layer.name
    return list(boxes.values())


def _draw_box(axes: Axes, middle: tuple[float, float], box: Box) -> None:
    x, y = middle
    corner = x - _BOX[0] / 2, y - _BOX[1] / 2
    style = "round,pad=0,rounding_size=0.05"
    axes.add_patch(
        FancyBboxPatch(corner, *_BOX, style, facecolor=box.color, edgecolor=_LINE, linewidth=0.6)
    )
    text = f"{box.label}\n{' x '.join(map(str, box.shape))}"
    size = min(6, 6 * _LETTERS / len(box.label))
    axes.text(x, y, text, ha="center", va="center", fontsize=size, linespacing=1.1)


def _connect(axes: Axes, points: Sequence[tuple[float, float]]) -> None:
    """A line from box to box by way of the points between, with an arrow's head."""
    (x, y), *between, (end_x, end_y) = points
    path = [(x, y - _BOX[1] / 2)]
    for next_x, next_y in [*between, (end_x, end_y)]:
        gap = next_y + _ROW / 2  # sideways between the rows, where no boxes are
        path += [(path[-1][0], gap), (next_x, gap)]
    across, down = zip(*path, strict=True)
    axes.plot(across, down, color=_LINE, linewidth=0.8, zorder=0)
    arrow = {"arrowstyle": "-|>", "color": _LINE, "linewidth": 0.8, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", (end_x, end_y + _BOX[1] / 2), path[-1], arrowprops=arrow, zorder=0)


# A node by its name; where a line passes a row, by its ends and the row.
Spot = str | tuple[str, str, int]


def arrange(nodes: Sequence[tuple[str, Sequence[str]]]) -> dict[Spot, tuple[float, int]]:
    """Column and row of each node of a graph, and of where lines pass the rows between their ends.

    A node's row is below those of all that it takes. Its column is that of the first one of them,
    or the next that is free to the right; what leads to the last node comes first.

    Args:
        nodes: names, and the names of the nodes that each takes, which come before it.
    """
    takes = dict(nodes)
    row: dict[str, int] = {}
    for name, inputs in nodes:
        row[name] = 1 + max((row[source] for source in inputs), default=-1)
    leading = {nodes[-1][0]}
    for name, inputs in reversed(nodes):
        leading |= set(inputs) if name in leading else set()
    spots: dict[int, list[Spot]] = defaultdict(list)
    above: dict[Spot, Spot | None] = {}
    for name, inputs in nodes:
        spots[row[name]].append(name)
        ends = []
        for source in inputs:
            last: Spot = source
            for number in range(row[source] + 1, row[name]):
                passing = (source, name, number)
                spots[number].append(passing)
                above[passing] = last
                last = passing
            ends.append(last)
        above[name] = ends[0] if takes[name] else None
    column: dict[Spot, float] = {}
    for number in sorted(spots):

        def order(spot: Spot) -> tuple[float, bool, bool]:
            up = above[spot]
            is_line = not isinstance(spot, str)
            goes_to = spot[1] if is_line else spot
            return (column[up] if up else 0.0), goes_to not in leading, is_line

        free = float("-inf")
        for spot in sorted(spots[number], key=order):
            half = _HALF_BOX if isinstance(spot, str) else _HALF_LINE
            column[spot] = max(order(spot)[0], free + half)
            free = column[spot] + half
    return {spot: (column[spot], number) for number in sorted(spots) for spot in spots[number]}
