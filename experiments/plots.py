"""The pictures of a report: results in, a matplotlib Figure out.

Dictionaries are parts of `evaluation.json` and `metrics.jsonl`; logits are `[members, n, classes]`.
The colours are Okabe and Ito's, which colour-blind readers tell apart; lines differ in style too.
"""

import textwrap
from collections import Counter
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from mnist_jax import ensemble, shifts

BLACK, GREY = "#000000", "#767676"
BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"  # blue, vermilion, bluish green
SKY = "#56B4E9"
FEW = 10  # images in a bin
MOST_MAPS = 32  # of a layer
_RULES = {  # colour, line, marker
    "mean_probability": (BLUE, "-", "o"),
    "sum_logits": (ORANGE, "--", "s"),
    "majority_vote": (GREEN, ":", "^"),
}
_ERRORS = LinearSegmentedColormap.from_list("errors", ["#FFFFFF", "#F6C9A0", ORANGE])
_SIGNED = LinearSegmentedColormap.from_list("signed", [BLUE, "#FFFFFF", ORANGE])
_NARROW = (4.8, 3.6)  # inches; two side by side on a page
_WIDE = 8.0


def to_png(figure: Figure) -> bytes:
    """A figure's file."""
    file = BytesIO()
    figure.savefig(file, format="png", dpi=160)
    return file.getvalue()


def cost(history: Sequence[dict[str, Any]]) -> Figure:
    """The members' training cost by epoch."""
    title = f"Training cost: {history[-1]['cost']:.4f} at the end"
    figure, axes = _plot(title, "epoch", "mean cross-entropy, nats")
    epochs = [row["epoch"] for row in history]
    members = np.array([row["member_costs"] for row in history]).T
    if len(members) > 1:
        _draw_members(axes, epochs, members)
    axes.plot(epochs, [row["cost"] for row in history], **_line(BLACK, "-", "o"), label="mean")
    if len(members) > 1:
        _legend(figure, axes)
    _log_scale(axes)
    _count_axis(axes)
    return figure


def validation(history: Sequence[dict[str, Any]], metric: str) -> Figure:
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
        _draw_members(axes, epochs, members)
        axes.plot(epochs, together, **_line(BLUE, "-", "o"), label="ensemble")
        _legend(figure, axes)
    else:
        axes.plot(epochs, together, **_line(BLUE, "-", "o"))
    if not share:
        _log_scale(axes)
    _count_axis(axes)
    return figure


def sizes(rows: Sequence[dict[str, Any]], metric: str) -> Figure:
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
    rules = [rule for rule in _RULES if share or rule != "majority_vote"]
    for i, rule in enumerate(rules):
        x = np.array([row["size"] for row in rows]) + 0.08 * (i - (len(rules) - 1) / 2)
        mean, std = (
            scale * np.array([row[rule][metric][part] for row in rows]) for part in ("mean", "std")
        )
        axes.errorbar(
            x, mean, std, **_line(*_RULES[rule]), elinewidth=1, capsize=3, label=_words(rule)
        )
    _legend(figure, axes)
    _count_axis(axes)
    return figure


def reliability(curves: dict[str, Any]) -> Figure:
    """Accuracy by confidence, and how many images there are of each, before and after scaling.

    Args:
        curves: of one rule, of an evaluation's `curves`.
    """
    figure = Figure((4.8, 5.0), layout="constrained")
    axes, counts = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    _style(axes, "Is it right as often as it says?", "", "accuracy, %")
    _style(counts, "", "confidence: probability of the answer, %", "images")
    axes.plot([0, 100], [0, 100], color=GREY, lw=1, label="perfect")
    kinds = {"before": (ORANGE, "-", "s", -1.2), "after": (BLUE, "--", "o", 1.2)}
    for kind, (color, line, marker, shift) in kinds.items():
        if curves[kind] is None:
            continue
        bins = curves[kind]["reliability"]
        confidence, accuracy = (
            100 * np.array(bins[name], float) for name in ("confidence", "accuracy")
        )
        images = np.array(bins["images"])
        many, few = images >= FEW, (images > 0) & (images < FEW)
        label = f"{kind} scaling" if curves["after"] else "without scaling"
        style = _line(color, line, marker)
        axes.plot(confidence[many], accuracy[many], **style, label=label, clip_on=False)
        axes.plot(confidence[few], accuracy[few], **style | {"ls": ""}, alpha=0.3, clip_on=False)
        centres = 100 * (np.arange(len(images)) + 0.5) / len(images)
        counts.bar(centres + shift, images, width=2.4, color=color)
    axes.set(xlim=(0, 100), ylim=(0, 101))
    _legend(figure, axes)
    counts.set_yscale("log")
    counts.set_ylim(bottom=0.7)
    _plain_log_ticks(counts, (1,))
    return figure


def risk_coverage(curves: dict[str, Any], single: bool) -> Figure:
    """The errors that remain when the least certain images are refused.

    Args:
        curves: of an evaluation.
        single: draw one curve, since there is one member and no rule to tell apart.
    """
    figure, axes = _plot(
        "Errors left when it may refuse", "images it answers, the surest first, %", "errors, %"
    )
    rules = ["mean_probability"] if single else list(_RULES)
    coverage = np.arange(1, 101)
    risks = {rule: 100 * np.array(curves[rule]["before"]["risk_coverage"]) for rule in rules}
    for rule, risk in risks.items():
        color, line, _ = _RULES[rule]
        label = "the network" if single else _words(rule)
        axes.plot(coverage, risk, color=color, ls=line, lw=2, label=label)
    everything = risks[rules[0]][-1]
    axes.axhline(everything, color=GREY, lw=1, ls="-.", label="refusing at random")
    # From where there is something to see: further left the risk is a tenth or less.
    highest = np.max(list(risks.values()), axis=0)
    starts = [start for start in (50, 80, 90) if highest[start - 1] <= everything / 10]
    axes.set_xlim(max(starts, default=0), 100)
    axes.set_ylim(bottom=0)
    _legend(figure, axes)
    return figure


def confusion(counts: np.ndarray, names: Sequence[str]) -> Figure:
    """A confusion matrix, int `[classes, classes]`, a row a true class; errors are coloured."""
    errors = counts * (1 - np.eye(len(counts), dtype=int))
    long = max(map(len, names)) > 3
    figure, axes = _plot(
        f"{errors.sum():,} of {counts.sum():,} images get a wrong answer",
        "answer",
        "true class",
        (6.4, 6.2) if long else (4.8, 4.8),
    )
    axes.grid(False)
    axes.imshow(errors, cmap=_ERRORS, vmin=0, vmax=max(errors.max(), 1))
    for (row, column), count in np.ndenumerate(counts):
        if count:
            right = row == column
            color = GREY if right else BLACK
            size = 8 if count < 1000 else 7
            axes.text(column, row, f"{count}", ha="center", va="center", color=color, fontsize=size)
    axes.set_xticks(range(len(names)), names)
    if long:
        axes.tick_params("x", rotation=90)
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


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


def gallery(images: np.ndarray, texts: Sequence[Sequence[str]], title: str) -> Figure:
    """Pictures in a grid, each with its lines of text below.

    Args:
        images: uint8 `[n, 28, 28, 1]`, n > 0.
        texts: each image's lines.
    """
    longest = max(len(line) for lines in texts for line in lines)
    columns = 6 if longest <= 19 else 4
    cell_width, picture = _WIDE / columns, 0.9  # inches
    line_height = 0.155
    cell_height = picture + line_height * max(map(len, texts)) + 0.15
    rows = -(-len(images) // columns)
    per_inch = 28 / picture
    height, width = round(cell_height * per_inch), round(cell_width * per_inch)
    canvas = np.full((rows * height, columns * width), np.nan)
    top = 0.4
    figure = Figure((_WIDE, rows * cell_height + top))
    axes = figure.add_axes((0, 0, 1, rows * cell_height / (rows * cell_height + top)))
    for i, (image, lines) in enumerate(zip(images, texts, strict=True)):
        y, x = i // columns * height, i % columns * width
        left = x + (width - 28) // 2
        canvas[y : y + 28, left : left + 28] = 255.0 - image[..., 0]
        axes.text(x + width / 2, y + 29, "\n".join(lines), ha="center", va="top", fontsize=8.5)
    axes.imshow(canvas, cmap="gray", vmin=0, vmax=255, interpolation="nearest", aspect="auto")
    axes.axis("off")
    figure.text(0.01, 1 - 0.1 / (rows * cell_height + top), title, va="top", weight="bold")
    return figure


def filters(kernels: np.ndarray, name: str) -> Figure:
    """The first convolution's kernels, float `[height, width, features]`."""
    rows, columns, count = kernels.shape
    canvas = tile(kernels, columns=8, gap=1)
    height = 0.5 + 4.4 * canvas.shape[0] / canvas.shape[1]
    figure = Figure((4.8, height + 0.3), layout="constrained")
    figure.suptitle(f"What {name} looks for first", x=0.01, ha="left", weight="bold", fontsize=11)
    _maps(figure.subplots(), canvas, f"{count} filters of {rows} x {columns} weights")
    return figure


def features(image: np.ndarray, maps: dict[str, np.ndarray], title: str) -> Figure:
    """What each layer makes of one image.

    Args:
        image: uint8 `[height, width, 1]`.
        maps: layer's name to float `[height, width, channels]`; the first 32 channels are shown.
    """
    shown = {"the image": image.astype(np.float32)} | maps
    canvases = {
        name: tile(values[..., :MOST_MAPS], columns=16, gap=max(1, values.shape[0] // 14))
        for name, values in shown.items()
    }
    ratios = [canvas.shape[0] / canvas.shape[1] for canvas in canvases.values()]
    figure = Figure((_WIDE, _WIDE * sum(ratios) + 0.3 * len(ratios) + 0.4), layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", weight="bold", fontsize=11)
    subplots = figure.subplots(len(shown), 1, height_ratios=ratios, squeeze=False)[:, 0]
    for axes, (name, canvas) in zip(subplots, canvases.items(), strict=True):
        height, width, channels = shown[name].shape
        some = f"the first {MOST_MAPS} of " if channels > MOST_MAPS else ""
        size = f"{height} x {width}" + (f", {some}{channels} channels" if name in maps else "")
        _maps(axes, canvas, f"{name}: {size}")
    subplots[0].set_facecolor("white")
    return figure


def tile(maps: np.ndarray, columns: int, gap: int) -> np.ndarray:
    """Maps `[height, width, n]` in a grid, row by row, with NaN between and after them."""
    height, width, n = maps.shape
    rows = -(-n // columns)
    cells = np.full((rows * columns, height + gap, width + gap), np.nan, np.float32)
    cells[:n, :height, :width] = np.moveaxis(maps, -1, 0)
    grid = cells.reshape(rows, columns, height + gap, width + gap).swapaxes(1, 2)
    return grid.reshape(rows * (height + gap), columns * (width + gap))[:-gap, :-gap]


def shift_curves(by_shift: dict[str, Any], metric: str) -> Figure:
    """Accuracy or ECE on shifted images by strength, of the members and of the ensemble.

    Args:
        by_shift: `shifts` of an evaluation.
        metric: `"accuracy"` or `"ece"`.
    """
    columns = min(2, len(by_shift))
    rows = -(-len(by_shift) // columns)
    figure = Figure((4 * columns, 2.6 * rows + 0.5), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    lines = _shift_accuracy if metric == "accuracy" else _shift_ece
    label = "accuracy, %" if metric == "accuracy" else "ECE, %"
    for axes, (name, strengths) in zip(panels, by_shift.items(), strict=False):
        _style(axes, name, shifts.UNITS[name], label if axes in panels[::columns] else "")
        x = range(len(strengths))
        for text, (values, style) in lines(strengths).items():
            axes.plot(x, 100 * np.array(values), **_line(*style), label=text)
        axes.set_xticks(x, [f"{row['amount']:g}" for row in strengths])
    for axes in panels[len(by_shift) :]:
        axes.axis("off")
    panels[0].set_ylim(0, 102 if metric == "accuracy" else None)  # of all, with sharey
    _legend(figure, panels[0])
    return figure


_Lines = dict[str, tuple[list[float], tuple[str, str, str]]]


def _shift_accuracy(strengths: Sequence[dict[str, Any]]) -> _Lines:
    together = [row["rules"]["mean_probability"]["before"]["accuracy"] for row in strengths]
    members = [[m["before"]["accuracy"] for m in row["members"]] for row in strengths]
    if len(members[0]) == 1:
        return {"the network": (together, (BLUE, "-", "o"))}
    return {
        "ensemble": (together, (BLUE, "-", "o")),
        "mean member": ([float(np.mean(row)) for row in members], (ORANGE, "--", "s")),
    }


def _shift_ece(strengths: Sequence[dict[str, Any]]) -> _Lines:
    rows = [row["rules"]["mean_probability"] for row in strengths]
    before = {"as it is": ([row["before"]["ece"] for row in rows], (ORANGE, "-", "s"))}
    if rows[0]["after"] is None:
        return before
    after = [row["after"]["ece"] for row in rows]
    return before | {"after temperature scaling": (after, (BLUE, "--", "o"))}


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
    """Signed values, white at zero, up to the 99.5th percentile of their size."""
    largest = float(np.nanpercentile(np.abs(canvas), 99.5)) or 1.0
    axes.imshow(canvas, cmap=_SIGNED, vmin=-largest, vmax=largest, interpolation="nearest")
    axes.set_title(title, loc="left", fontsize=10)
    axes.set_facecolor("#C8C8C8")  # between the maps
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def _draw_members(axes: Axes, x: Sequence[int], members: np.ndarray) -> None:
    for i, values in enumerate(members):
        label = "members" if i == 0 else None
        axes.plot(x, values, color=SKY, lw=1, marker=".", ms=4, label=label)


def _line(color: str, line: str, marker: str) -> dict[str, Any]:
    return {"color": color, "ls": line, "marker": marker, "ms": 5, "lw": 2}


def _words(rule: str) -> str:
    return rule.replace("_", " ")


def _count_axis(axes: Axes) -> None:
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))


def _log_scale(axes: Axes) -> None:
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    _plain_log_ticks(axes, (1, 2, 5) if high > 10 * low else (1, 1.5, 2, 3, 4, 5, 6, 8))


def _legend(figure: Figure, axes: Axes) -> None:
    """Below the axes, where it hides nothing."""
    handles, texts = axes.get_legend_handles_labels()
    columns = 2 if len(texts) == 4 else 3
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
