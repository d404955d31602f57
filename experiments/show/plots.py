"""The pictures of a report: results in, a matplotlib Figure out.

Dictionaries are parts of `evaluation.json` and `metrics.jsonl`; logits are `[members, n, classes]`.
Each run has a colour. An unbroken line of it is the run's prediction as it is (the ensemble's mean
probability, or the one network's), a dashed one that prediction after temperature scaling; pale
lines are its members. Black lines are other rules of combining, grey ones what to compare with;
vermilion is for mistakes. The colours are Okabe and Ito's, which colour-blind readers tell apart;
lines differ in style too.
"""

import textwrap
from collections import Counter
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from mnist_jax import ensemble, shifts
from mnist_jax.words import counted

BLACK, GREY = "#000000", "#767676"
VERMILION = "#D55E00"
RUN_COLORS = ("#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # then they begin anew
FEW = 10  # images in a bin
MOST_MAPS = 32  # of a layer
MOST_CLASSES, SHOWN_CLASSES = 30, 20  # in a confusion matrix: of more, so many are shown
_LINES = ("-", "--", ":", "-.")  # of runs that have the same colour
_MARKERS = "osD^v"
_OTHER_RULES = {"sum_logits": (BLACK, "--", "s"), "majority_vote": (BLACK, ":", "^")}
_ERRORS = LinearSegmentedColormap.from_list("errors", ["#FFFFFF", "#F6C9A0", VERMILION])
_SIGNED = LinearSegmentedColormap.from_list("signed", ["#542788", "#FFFFFF", "#8C510A"])
_NARROW = (4.8, 3.6)  # inches; two side by side on a page
_WIDE = 8.0
_LONGEST_NAME = 48  # of a run in a legend
_LONGEST_CLASS = 24  # its name beside a confusion matrix
_MNIST = (28, 28, 1)
_DIGIT, _PHOTO = 0.9, 1.3  # inches: the longer side of a picture in a gallery


def run_color(number: int) -> str:
    """The colour of the run of that number, from 0."""
    return RUN_COLORS[number % len(RUN_COLORS)]


def to_png(figure: Figure) -> bytes:
    """A figure's file."""
    file = BytesIO()
    figure.savefig(file, format="png", dpi=160)
    return file.getvalue()


def compare(curves: Sequence[tuple[str, int, Sequence[dict[str, Any]]]], metric: str) -> Figure:
    """Curves of several runs by epoch: their training cost, or their validation accuracy or NLL.

    Args:
        curves: of each run its name, its number and its history.
        metric: `"cost"`, `"accuracy"` or `"nll"`.
    """
    title, label = {
        "cost": ("Training cost", "mean cross-entropy, nats"),
        "accuracy": ("Validation accuracy", "accuracy, %"),
        "nll": ("Validation NLL", "negative log-likelihood, nats"),
    }[metric]
    width, height = _NARROW
    figure, axes = _plot(title, "epoch", label, (width, height + 0.2 * len(curves)))
    for name, number, history in curves:
        if metric == "cost":
            values = [row["cost"] for row in history]
        else:
            scale = 100 if metric == "accuracy" else 1
            values = [scale * row["ensemble"][f"validation_{metric}"] for row in history]
        round_, place = divmod(number, len(RUN_COLORS))
        style = _line(RUN_COLORS[place], _LINES[round_ % len(_LINES)], _MARKERS[place])
        short = name if len(name) <= _LONGEST_NAME else f"…{name[1 - _LONGEST_NAME :]}"
        axes.plot([row["epoch"] for row in history], values, **style, label=short)
    _legend(figure, axes, columns=1)
    if metric != "accuracy":
        _log_scale(axes)
    _count_axis(axes)
    return figure


def cost(history: Sequence[dict[str, Any]], color: str = RUN_COLORS[0]) -> Figure:
    """The members' training cost by epoch."""
    title = f"Training cost: {history[-1]['cost']:.4f} at the end"
    figure, axes = _plot(title, "epoch", "mean cross-entropy, nats")
    epochs = [row["epoch"] for row in history]
    members = np.array([row["member_costs"] for row in history]).T
    if len(members) > 1:
        _draw_members(axes, epochs, members, color)
    axes.plot(epochs, [row["cost"] for row in history], **_line(color, "-", "o"), label="mean")
    if len(members) > 1:
        _legend(figure, axes)
    _log_scale(axes)
    _count_axis(axes)
    return figure


def validation(
    history: Sequence[dict[str, Any]], metric: str, color: str = RUN_COLORS[0]
) -> Figure:
    """Accuracy or NLL of members and ensemble on the validation images by epoch.

    Args:
        metric: `"accuracy"` or `"nll"`.
    """
    share = metric == "accuracy"
    scale = 100 if share else 1
    key = f"validation_{metric}"
    label = "accuracy, %" if share else "negative log-likelihood, nats"
    epochs = [row["epoch"] for row in history]
    members = scale * np.array([[m[key] for m in row["members"]] for row in history]).T
    together = [scale * row["ensemble"][key] for row in history]
    last = f"accuracy: {together[-1]:.2f} %" if share else f"NLL: {together[-1]:.4f}"
    figure, axes = _plot(f"Validation {last} at the end", "epoch", label)
    if len(members) > 1:
        _draw_members(axes, epochs, members, color)
        axes.plot(epochs, together, **_line(color, "-", "o"), label="ensemble")
        _legend(figure, axes)
    else:
        axes.plot(epochs, together, **_line(color, "-", "o"))
    if not share:
        _log_scale(axes)
    _count_axis(axes)
    return figure


def sizes(rows: Sequence[dict[str, Any]], metric: str, color: str = RUN_COLORS[0]) -> Figure:
    """Accuracy or NLL of ensembles of 1, 2, ... of the members, with the spread over subsets.

    Args:
        rows: `sizes` of an evaluation.
        metric: `"accuracy"` or `"nll"`.
    """
    share = metric == "accuracy"
    scale = 100 if share else 1
    ends = [scale * rows[i]["mean_probability"][metric]["mean"] for i in (0, -1)]
    one, everyone = (f"{end:.2f} %" if share else f"{end:.4f}" for end in ends)
    title = f"One member: {'' if share else 'NLL '}{one}; all {len(rows)}: {everyone}"
    label = "test accuracy, %" if share else "test negative log-likelihood, nats"
    figure, axes = _plot(title, "members that take part", label)
    rules = _rules(color)
    if not share:
        del rules["majority_vote"]
    for i, (rule, style) in enumerate(rules.items()):
        x = np.array([row["size"] for row in rows]) + 0.08 * (i - (len(rules) - 1) / 2)
        mean, std = (
            scale * np.array([row[rule][metric][part] for row in rows]) for part in ("mean", "std")
        )
        axes.errorbar(x, mean, std, **_line(*style), elinewidth=1, capsize=3, label=_words(rule))
    _legend(figure, axes)
    _count_axis(axes)
    return figure


def reliability(curves: dict[str, Any], color: str = RUN_COLORS[0], what: str = "image") -> Figure:
    """Accuracy by confidence, and how many inputs there are of each, before and after scaling.

    Args:
        curves: of one rule, of an evaluation's `curves`.
        what: an input is.
    """
    figure = Figure((4.8, 5.0), layout="constrained")
    axes, counts = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    _style(axes, "Is it right as often as it says?", "", "accuracy, %")
    _style(counts, "", "confidence: probability of the answer, %", f"{what}s")
    axes.plot([0, 100], [0, 100], color=GREY, lw=1, label="perfect")
    kinds = {
        "before": (_line(color, "-", "o"), {"color": color}, -1.2),
        "after": (_scaled(color), {"color": "white", "edgecolor": color}, 1.2),
    }
    for kind, (style, bars, shift) in kinds.items():
        if curves[kind] is None:
            continue
        bins = curves[kind]["reliability"]
        confidence, accuracy = (
            100 * np.array(bins[name], float) for name in ("confidence", "accuracy")
        )
        inputs = np.array(bins["images"])
        many, few = inputs >= FEW, (inputs > 0) & (inputs < FEW)
        label = "as it is" if kind == "before" else "after temperature scaling"
        pale = style | {"ls": "", "alpha": 0.3}
        for chosen, drawn in ((many, style | {"label": label}), (few, pale)):
            # The layout makes room for all that is not clipped, and an empty line is far away.
            clip = not chosen.any()
            axes.plot(confidence[chosen], accuracy[chosen], **drawn, clip_on=clip)
        centres = 100 * (np.arange(len(inputs)) + 0.5) / len(inputs)
        counts.bar(centres + shift, inputs, width=2.4, **bars)
    axes.set(xlim=(0, 100), ylim=(0, 101))
    _legend(figure, axes)
    counts.set_yscale("log")
    counts.set_ylim(bottom=0.7)
    _plain_log_ticks(counts, (1,))
    return figure


def risk_coverage(
    curves: dict[str, Any], single: bool, color: str = RUN_COLORS[0], what: str = "image"
) -> Figure:
    """The errors that remain when the least certain inputs are refused.

    Args:
        curves: of an evaluation.
        single: draw one curve, since there is one member and no rule to tell apart.
        what: an input is.
    """
    figure, axes = _plot(
        "Errors left when it may refuse", f"{what}s it answers, the surest first, %", "errors, %"
    )
    styles = _rules(color)
    rules = ["mean_probability"] if single else list(styles)
    coverage = np.arange(1, 101)
    risks = {rule: 100 * np.array(curves[rule]["before"]["risk_coverage"]) for rule in rules}
    for rule, risk in risks.items():
        line_color, line, _ = styles[rule]
        label = "the network" if single else _words(rule)
        axes.plot(coverage, risk, color=line_color, ls=line, lw=2, label=label)
    everything = risks[rules[0]][-1]
    axes.axhline(everything, color=GREY, lw=1, ls="-.", label="refusing at random")
    # From where there is something to see: further left the risk is a tenth or less.
    highest = np.max(list(risks.values()), axis=0)
    starts = [start for start in (50, 80, 90) if highest[start - 1] <= everything / 10]
    axes.set_xlim(max(starts, default=0), 100)
    axes.set_ylim(bottom=0)
    _legend(figure, axes)
    return figure


def confusion(counts: np.ndarray, names: Sequence[str], what: str = "image") -> Figure:
    """A confusion matrix, int `[classes, classes]`, a row a true class; errors are coloured.

    Of more than 30 classes those 20 with the most mistakes are shown, and the others as one.
    """
    mistakes = int(counts.sum() - np.trace(counts))
    get = "gets" if mistakes == 1 else "get"
    title = f"{mistakes:,} of {counted(int(counts.sum()), what)} {get} a wrong answer"
    counts, names = most_mistaken(counts, [_short(name, _LONGEST_CLASS) for name in names])
    errors = counts * (1 - np.eye(len(counts), dtype=int))
    long, many = max(map(len, names)) > 3, len(names) > 12
    figure, axes = _plot(title, "answer", "true class", (6.4, 6.2) if long or many else (4.8, 4.8))
    axes.grid(False)
    axes.imshow(errors, cmap=_ERRORS, vmin=0, vmax=max(errors.max(), 1))
    largest = 6.5 if many else 8
    for (row, column), count in np.ndenumerate(counts):
        if count:
            color = GREY if row == column else BLACK
            size = largest if count < 1000 else largest - 1
            axes.text(column, row, f"{count}", ha="center", va="center", color=color, fontsize=size)
    axes.set_xticks(range(len(names)), names)
    if long:
        axes.tick_params("x", rotation=90)
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(length=0, labelsize="small" if many else "medium")
    axes.spines[:].set_visible(False)
    return figure


def most_mistaken(counts: np.ndarray, names: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """A confusion matrix and its classes, with those of few mistakes taken together.

    Up to 30 classes stay as they are; of more, those 20 that most mistakes begin or end in.
    """
    if len(counts) <= MOST_CLASSES:
        return counts, list(names)
    errors = counts * (1 - np.eye(len(counts), dtype=int))
    by_mistakes = np.argsort(-(errors.sum(axis=0) + errors.sum(axis=1)), kind="stable")
    kept = np.sort(by_mistakes[:SHOWN_CLASSES])
    place = np.full(len(counts), len(kept))
    place[kept] = range(len(kept))
    together = np.zeros((len(kept) + 1, len(kept) + 1), int)
    np.add.at(together, (place[:, None], place[None, :]), counts)
    return together, [*(names[i] for i in kept), f"{len(counts) - len(kept)} others"]


def wrong(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Which images the mean probability gets wrong, the most surely wrong first; int `[wrong]`."""
    probabilities = np.exp(ensemble.mean_probability(logits))
    (chosen,) = np.nonzero(probabilities.argmax(axis=1) != labels)
    return chosen[np.argsort(-probabilities[chosen].max(axis=1), kind="stable")]


def least_sure(logits: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """The `count` right answers of the least probability, the least first; int `[count]`."""
    probabilities = np.exp(ensemble.mean_probability(logits))
    (chosen,) = np.nonzero(probabilities.argmax(axis=1) == labels)
    return chosen[np.argsort(probabilities[chosen].max(axis=1), kind="stable")][:count]


def describe(
    logits: np.ndarray, labels: np.ndarray, chosen: np.ndarray, names: Sequence[str]
) -> list[list[str]]:
    """Lines of text of each chosen image: number and label, answer, and the members' votes."""
    logits, labels = logits[:, chosen], labels[chosen]
    probabilities = np.exp(ensemble.mean_probability(logits))
    votes = logits.argmax(axis=2).T
    lines = [
        [
            f"no. {number} is {names[label]}",
            f"said {names[row.argmax()]} ({100 * row.max():.1f} %)",
        ]
        for number, label, row in zip(chosen, labels, probabilities, strict=True)
    ]
    if len(logits) > 1:
        for text, of_members in zip(lines, votes, strict=True):
            text += _votes([names[vote] for vote in of_members])
    return lines


def _votes(votes: Sequence[str]) -> list[str]:
    """In the members' order where that is short, else how often each; lines of at most 28."""
    if len(votes) <= 10 and max(map(len, votes)) == 1:
        return [" ".join(votes)]
    counted = [f"{count} x {vote}" for vote, count in Counter(votes).most_common()]
    unbroken = ", ".join(item.replace(" ", "\u00a0") for item in counted)
    return [line.replace("\u00a0", " ") for line in textwrap.wrap(unbroken, 28)]


def gallery(
    images: np.ndarray, texts: Sequence[Sequence[str]], title: str, narrow: bool = False
) -> Figure:
    """Pictures in a grid, each with its lines of text below.

    Args:
        images: uint8 `[n, height, width, channels]` of any size, n > 0.
        texts: each image's lines; longer ones than there is room for are broken.
        narrow: half as many side by side.
    """
    longest = max(len(line) for lines in texts for line in lines)
    columns, room = (6, 19) if longest <= 19 else (4, 30)
    broken = [[part for line in lines for part in textwrap.wrap(line, room)] for lines in texts]
    columns, total_width = (columns // 2, _WIDE / 2) if narrow else (columns, _WIDE)
    cell_width = total_width / columns  # inches, as all lengths here
    side = _DIGIT if images.shape[1:] == _MNIST else min(_PHOTO, cell_width - 0.1)
    picture_height, picture_width = (side * n / max(images.shape[1:3]) for n in images.shape[1:3])
    title = "\n".join(textwrap.wrap(title, 48 if narrow else 96))
    line_height = 0.155
    cell_height = picture_height + line_height * max(map(len, broken)) + 0.15
    rows = -(-len(images) // columns)
    top = 0.22 + 0.18 * len(title.splitlines())
    figure = Figure((total_width, rows * cell_height + top))
    axes = figure.add_axes((0, 0, 1, rows * cell_height / (rows * cell_height + top)))
    for i, (image, lines) in enumerate(zip(as_seen(images), broken, strict=True)):
        y, middle = i // columns * cell_height, (i % columns + 0.5) * cell_width
        sides = (middle - picture_width / 2, middle + picture_width / 2, y + picture_height, y)
        axes.imshow(image, extent=sides)
        below = y + picture_height + 0.03
        axes.text(middle, below, "\n".join(lines), ha="center", va="top", fontsize=8.5)
    axes.set(xlim=(0, total_width), ylim=(rows * cell_height, 0), aspect="auto")
    axes.axis("off")
    figure.text(0.01, 1 - 0.1 / (rows * cell_height + top), title, va="top", weight="bold")
    return figure


def as_seen(images: np.ndarray) -> np.ndarray:
    """Images as they are drawn: uint8 `[n, height, width, 3]`.

    Args:
        images: uint8 `[n, height, width, channels]`. Those of MNIST's form, which are light on
            black, become dark on white.
    """
    if images.shape[1:] == _MNIST:
        images = 255 - images
    return np.broadcast_to(images, (*images.shape[:3], 3))


def filters(kernels: np.ndarray, name: str) -> Figure:
    """The first convolution's kernels, float `[height, width, channels, features]`.

    Those of three channels are drawn in these colours, each scaled to its own largest weight: grey
    is 0.
    """
    rows, columns, channels, count = kernels.shape
    side_by_side = 8 if count <= 64 else 12
    if channels == 3:
        canvas = tile(_in_colours(kernels), side_by_side, gap=1)
    else:
        canvas = tile(kernels[:, :, 0], side_by_side, gap=1)
    height = 0.5 + 4.4 * canvas.shape[0] / canvas.shape[1]
    figure = Figure((4.8, height + 0.3), layout="constrained")
    figure.suptitle(f"What {name} looks for first", x=0.01, ha="left", weight="bold", fontsize=11)
    by = f"{rows} x {columns}" + (f" x {channels}" if channels > 1 else "")
    axes = figure.subplots()
    _maps(axes, canvas, f"{counted(count, 'filter')} of {by} weights")
    _white_after(axes, canvas, count, side_by_side)
    return figure


def _in_colours(kernels: np.ndarray) -> np.ndarray:
    """`[height, width, features, 3]` in [0, 1]: 0.5 where a weight is 0."""
    largest = np.abs(kernels).max(axis=(0, 1, 2), keepdims=True)
    return np.moveaxis(0.5 + kernels / np.maximum(2 * largest, 1e-30), 2, -1)


def features(
    image: np.ndarray, maps: dict[str, np.ndarray], title: str, narrow: bool = False
) -> Figure:
    """What each layer makes of one image.

    Args:
        image: uint8 `[height, width, channels]`, of 1 or 3 channels.
        maps: layer's name to float `[height, width, channels]`; of more than 32 channels those
            are shown that lie evenly among them.
        narrow: half as many side by side.
    """
    columns, total_width = (8, _WIDE / 2) if narrow else (16, _WIDE)
    canvases = {
        name: tile(values[..., evenly(values.shape[2], MOST_MAPS)], columns, _gap(values))
        for name, values in maps.items()
    }
    # The image, and as much white beside it as makes it 1 of 6 or 3.
    seen = tile(as_seen(image[None]).transpose(1, 2, 0, 3) / 255, 3 if narrow else 6, gap=1)
    ratios = [canvas.shape[0] / canvas.shape[1] for canvas in (seen, *canvases.values())]
    height = total_width * sum(ratios) + 0.3 * len(ratios) + 0.4
    figure = Figure((total_width, height), layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", weight="bold", fontsize=11)
    first, *others = figure.subplots(len(ratios), 1, height_ratios=ratios, squeeze=False)[:, 0]
    _maps(first, seen, f"the image: {image.shape[0]} x {image.shape[1]}")
    first.set_facecolor("white")
    for axes, (name, canvas) in zip(others, canvases.items(), strict=True):
        height, width, channels = maps[name].shape
        some = f"{MOST_MAPS} of " if channels > MOST_MAPS else ""
        _maps(axes, canvas, f"{name}: {height} x {width}, {some}{counted(channels, 'channel')}")
        _white_after(axes, canvas, min(channels, MOST_MAPS), columns)
    return figure


def _gap(values: np.ndarray) -> int:
    return max(1, values.shape[0] // 14)


def evenly(count: int, most: int) -> list[int]:
    """At most `most`, 2 or more, of `count` places, with the first and the last one."""
    return np.round(np.linspace(0, count - 1, min(count, most))).astype(int).tolist()


def tile(maps: np.ndarray, columns: int, gap: int) -> np.ndarray:
    """Maps `[height, width, n]` in a grid, row by row, with NaN between and after them.

    Maps in colours, `[height, width, n, 3]`, likewise.
    """
    height, width, n, *colours = maps.shape
    rows = -(-n // columns)
    cells = np.full((rows * columns, height + gap, width + gap, *colours), np.nan, np.float32)
    cells[:n, :height, :width] = np.moveaxis(maps, 2, 0)
    grid = cells.reshape(rows, columns, height + gap, width + gap, *colours).swapaxes(1, 2)
    whole = grid.reshape(rows * (height + gap), columns * (width + gap), *colours)
    return whole[:-gap, :-gap]


def shift_curves(
    by_shift: dict[str, Any], metric: str, color: str = RUN_COLORS[0], narrow: bool = False
) -> Figure:
    """Accuracy or ECE on shifted images by strength, of the members and of the ensemble.

    Args:
        by_shift: `shifts` of an evaluation.
        metric: `"accuracy"` or `"ece"`.
        narrow: one below the other.
    """
    columns = 1 if narrow else min(2, len(by_shift))
    rows = -(-len(by_shift) // columns)
    figure = Figure((4 * columns, 2.6 * rows + 0.5), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    lines = _shift_accuracy if metric == "accuracy" else _shift_ece
    label = "accuracy, %" if metric == "accuracy" else "ECE, %"
    for axes, (name, strengths) in zip(panels, by_shift.items(), strict=False):
        _style(axes, name, shifts.UNITS[name], label if axes in panels[::columns] else "")
        x = range(len(strengths))
        for text, (values, style) in lines(strengths, color).items():
            axes.plot(x, 100 * np.array(values), **style, label=text)
        axes.set_xticks(x, [f"{row['amount']:g}" for row in strengths])
    for axes in panels[len(by_shift) :]:
        axes.axis("off")
    panels[0].set_ylim(0, 102 if metric == "accuracy" else None)  # of all, with sharey
    _legend(figure, panels[0])
    return figure


_Lines = dict[str, tuple[list[float], dict[str, Any]]]


def _shift_accuracy(strengths: Sequence[dict[str, Any]], color: str) -> _Lines:
    together = [row["rules"]["mean_probability"]["before"]["accuracy"] for row in strengths]
    members = [[m["before"]["accuracy"] for m in row["members"]] for row in strengths]
    if len(members[0]) == 1:
        return {"the network": (together, _line(color, "-", "o"))}
    mean = [float(np.mean(row)) for row in members]
    return {
        "ensemble": (together, _line(color, "-", "o")),
        "mean member": (mean, _line(_pale(color), "-", "s")),
    }


def _shift_ece(strengths: Sequence[dict[str, Any]], color: str) -> _Lines:
    rows = [row["rules"]["mean_probability"] for row in strengths]
    before = {"as it is": ([row["before"]["ece"] for row in rows], _line(color, "-", "o"))}
    if rows[0]["after"] is None:
        return before
    after = [row["after"]["ece"] for row in rows]
    return before | {"after temperature scaling": (after, _scaled(color))}


def _plot(
    title: str, x_label: str, y_label: str, size: tuple[float, float] = _NARROW
) -> tuple[Figure, Axes]:
    figure = Figure(size, layout="constrained")
    axes = figure.subplots()
    _style(axes, title, x_label, y_label)
    return figure, axes


def _style(axes: Axes, title: str, x_label: str, y_label: str) -> None:
    axes.set_title(title, loc="left", fontsize=11, weight="bold")
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#DDDDDD", lw=0.6)
    axes.set_axisbelow(True)


def _maps(axes: Axes, canvas: np.ndarray, title: str) -> None:
    """Colours as they are; signed values, white at zero, up to their size's 99.5th percentile."""
    if canvas.ndim == 3:
        beside = np.isnan(canvas).any(axis=-1, keepdims=True)
        colours = np.concatenate([np.nan_to_num(canvas), ~beside], axis=-1)  # else transparent
        axes.imshow(colours, interpolation="nearest")
    else:
        largest = float(np.nanpercentile(np.abs(canvas), 99.5)) or 1.0
        axes.imshow(canvas, cmap=_SIGNED, vmin=-largest, vmax=largest, interpolation="nearest")
    axes.set_title(title, loc="left", fontsize=10)
    axes.set_facecolor("#C8C8C8")  # between the maps
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def _white_after(axes: Axes, canvas: np.ndarray, count: int, columns: int) -> None:
    """Cover what is left of a `tile`'s last row, which would look like a map."""
    height, width = canvas.shape[:2]
    rows = -(-count // columns)
    top, left = (rows - 1) / rows * height, (count - (rows - 1) * columns) / columns * width
    if left < width:
        axes.add_patch(Rectangle((left, top), width - left, height - top, color="white", lw=0))


def _draw_members(axes: Axes, x: Sequence[int], members: np.ndarray, color: str) -> None:
    for i, values in enumerate(members):
        label = "members" if i == 0 else None
        axes.plot(x, values, color=_pale(color), lw=1, marker=".", ms=4, label=label)


def _pale(color: str) -> str:
    """Half of it, half white."""
    red, green, blue = to_rgb(color)
    return to_hex(((1 + red) / 2, (1 + green) / 2, (1 + blue) / 2))


def _rules(color: str) -> dict[str, tuple[str, str, str]]:
    """Colour, line and marker of each rule, of a run of that colour."""
    return {"mean_probability": (color, "-", "o"), **_OTHER_RULES}


def _line(color: str, line: str, marker: str) -> dict[str, Any]:
    return {"color": color, "ls": line, "marker": marker, "ms": 5, "lw": 2}


def _scaled(color: str) -> dict[str, Any]:
    """Of what comes after temperature scaling."""
    return _line(color, "--", "s") | {"mfc": "white"}


def _short(name: str, most: int) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"


def _words(rule: str) -> str:
    return rule.replace("_", " ")


def _count_axis(axes: Axes) -> None:
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))


def _log_scale(axes: Axes) -> None:
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    _plain_log_ticks(axes, (1, 2, 5) if high > 10 * low else (1, 1.5, 2, 3, 4, 5, 6, 8))


def _legend(figure: Figure, axes: Axes, columns: int | None = None) -> None:
    """Below the axes, where it hides nothing."""
    handles, texts = axes.get_legend_handles_labels()
    columns = columns or (2 if len(texts) == 4 else 3)
    figure.legend(
        handles,
        texts,
        loc="outside lower left",
        ncols=columns,
        columnspacing=1.5,
        frameon=False,
    )


def _plain_log_ticks(axes: Axes, steps: Sequence[float]) -> None:
    """Numbers such as 0.05 and 100, where matplotlib has powers of ten."""
    axes.yaxis.set_major_locator(LogLocator(subs=steps))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
