"""The report's pictures: predictions and results in, a matplotlib `Figure` out."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from mnist_jax import shifts

# Okabe and Ito 2008: told apart by colour-blind readers; lines differ in style too.
_BLACK, _BLUE, _ORANGE, _GREEN, _GREY = "#000000", "#0072B2", "#D55E00", "#009E73", "#999999"
_RULES = {
    "mean_probability": ("mean probability", _BLUE, "-", "o"),
    "sum_logits": ("summed logits", _ORANGE, "--", "s"),
    "majority_vote": ("majority vote", _GREEN, ":", "^"),
}
_WIDTH = 9.0  # inches


def learning_curves(history: Sequence[dict[str, Any]]) -> Figure:
    """Cost, and validation accuracy and NLL where there are validation images, by epoch.

    Args:
        history: the lines of `metrics.jsonl`.
    """
    epochs = [record["epoch"] for record in history]
    validated = "ensemble" in history[0]
    figure = _figure(3.2)
    axes = figure.subplots(1, 3 if validated else 1, squeeze=False)[0]
    costs = np.array([record["member_costs"] for record in history])
    _members_and_mean(axes[0], epochs, costs, costs.mean(axis=1), "mean")
    axes[0].set(title="Training cost", yscale="log", ylabel="nats an image")
    for plain in (axes[0].yaxis.set_major_formatter, axes[0].yaxis.set_minor_formatter):
        plain("{x:g}")
    if validated:
        for axis, metric, title, factor, unit in (
            (axes[1], "validation_accuracy", "Validation accuracy", 100, "%"),
            (axes[2], "validation_nll", "Validation NLL", 1, "nats an image"),
        ):
            members = [[row[metric] for row in record["members"]] for record in history]
            together = [record["ensemble"][metric] for record in history]
            by_member, by_ensemble = factor * np.array(members), factor * np.array(together)
            _members_and_mean(axis, epochs, by_member, by_ensemble, "ensemble")
            axis.set(title=title, ylabel=unit)
        # The first epoch is far below the others, and what matters is at the top.
        late = [record["ensemble"]["validation_accuracy"] for record in history[1:]]
        axes[1].set_ylim(bottom=max(0, 100 * min(late, default=0) - 0.5))
    for axis in axes:
        axis.set_xlabel("epoch")
    return figure


def _members_and_mean(
    axis: Axes, epochs: list[int], members: np.ndarray, together: np.ndarray, name: str
) -> None:
    """One thin line a member, `[epochs, members]`, and a thick one of them together."""
    marker = "o" if len(epochs) == 1 else None
    if members.shape[1] == 1:
        axis.plot(epochs, members, color=_BLUE, marker=marker)
        return
    lines = axis.plot(epochs, members, color=_GREY, linewidth=0.8, marker=marker)
    lines[0].set_label("each member")
    axis.plot(epochs, together, color=_BLUE, linewidth=2, marker=marker, label=name)
    axis.legend()


def by_size(sizes: Sequence[dict[str, Any]]) -> Figure:
    """Accuracy by each rule, and NLL, of ensembles of 1, 2, ... members.

    Args:
        sizes: `evaluation.sizes`.
    """
    figure = _figure(3.4)
    left, right = figure.subplots(1, 2)
    counts = np.array([row["size"] for row in sizes])
    for i, (rule, (name, color, line, marker)) in enumerate(_RULES.items()):
        means, stds = (
            [100 * row[rule]["accuracy"][what] for row in sizes] for what in ("mean", "std")
        )
        style = {"color": color, "linestyle": line, "marker": marker, "capsize": 3, "label": name}
        left.errorbar(counts + 0.12 * (i - 1), means, stds, **style)
    nlls, stds = (
        [row["mean_probability"]["nll"][what] for row in sizes] for what in ("mean", "std")
    )
    right.errorbar(counts, nlls, stds, color=_BLUE, marker="o", capsize=3)
    left.set(title="Test accuracy", ylabel="%")
    right.set(title="Test NLL of the mean probability", ylabel="nats an image")
    left.legend(loc="lower right")
    for axis in (left, right):
        axis.set(xlabel="members", xticks=counts)
    return figure


def reliability(before: dict[str, Any], after: dict[str, Any] | None) -> Figure:
    """How often predictions of each confidence are right, before and after scaling.

    Args:
        before, after: a rule's parts of `evaluation.curves`.
    """
    parts = {"before scaling": before} | ({"after scaling": after} if after else {})
    figure = _figure(4.6)
    axes = figure.subplots(2, 2, height_ratios=[3, 1], sharex=True)
    for (above, below), (title, part) in zip(axes.T, parts.items(), strict=False):
        bins = part["reliability"]
        images = np.array(bins["images"])
        filled = images > 0
        images = images[filled]
        confidence = np.array(bins["confidence"], float)[filled]
        chance = np.array(stats.binom.interval(0.95, images, confidence)) / images
        margins = 100 * abs(chance - confidence)
        confidence = 100 * confidence
        accuracy = 100 * np.array(bins["accuracy"], float)[filled]
        above.plot([0, 100], [0, 100], color=_GREY, linestyle="--", label="calibrated")
        above.errorbar(
            confidence,
            confidence,
            margins,
            color=_GREY,
            linestyle="none",
            capsize=3,
            label="95 % of chances",
        )
        above.plot(confidence, accuracy, color=_BLUE, marker="o", label="measured")
        above.set(title=title.capitalize(), xlim=(0, 102), ylim=(0, 105))
        below.bar(confidence, images, width=5, color=_BLUE)
        below.set(yscale="log", xlabel="confidence, %")
    for axis in axes[:, len(parts) :].flat:
        axis.remove()
    axes[0, 0].set_ylabel("right, %")
    axes[1, 0].set_ylabel("images")
    axes[0, 0].legend(loc="upper left")
    return figure


def risk_coverage(curves: dict[str, Any], together: bool) -> Figure:
    """Errors among the images answered, when the least certain ones are refused.

    Args:
        curves: `evaluation.curves`.
        together: of several members, so that the rules differ.
    """
    figure = _figure(3.6)
    axis = figure.subplots()
    for rule, (name, color, line, _) in _RULES.items():
        if together or rule == "mean_probability":
            risk = 100 * np.array(curves[rule]["before"]["risk_coverage"], float)
            coverage = np.arange(1, 101)
            axis.plot(coverage, risk, color=color, linestyle=line, label=name)
    axis.set(xlabel="answered, % of images (the most certain first)", ylabel="wrong among them, %")
    axis.set(title="Risk and coverage", xlim=(80, 100), ylim=(0, None))
    if together:
        axis.legend()
    return figure


def confusion(matrix: Sequence[Sequence[int]], class_names: Sequence[str]) -> Figure:
    """A row a true class, a column a predicted one; only errors are coloured."""
    counts = np.array(matrix)
    errors = np.where(np.eye(len(counts), dtype=bool), 0, counts)
    figure = _figure(5.6, width=6.6)
    axis = figure.subplots()
    image = axis.imshow(errors, cmap="Blues", vmin=0, vmax=max(errors.max(), 1))
    for (row, column), count in np.ndenumerate(counts):
        if count:
            dark = row != column and count > 0.6 * errors.max()
            color = "white" if dark else _BLACK
            weight = "normal" if row != column else "bold"
            axis.text(
                column,
                row,
                f"{count:,}",
                ha="center",
                va="center",
                color=color,
                size=8,
                weight=weight,
            )
    ticks = range(len(class_names))
    axis.set_xticks(ticks, class_names)
    if max(map(len, class_names)) > 2:
        axis.tick_params("x", rotation=60)
    axis.set_yticks(ticks, class_names)
    axis.set(xlabel="predicted", ylabel="true class", title="Test images by class")
    axis.grid(False)
    figure.colorbar(image, ax=axis, label="errors", shrink=0.8)
    return figure


def hardest(
    images: np.ndarray,
    labels: np.ndarray,
    logits: np.ndarray,
    class_names: Sequence[str],
    most: int = 40,
) -> Figure:
    """The images of the largest NLL, the worst first, with all members' votes.

    Args:
        images: uint8 `[n, 28, 28, 1]`.
        labels: int `[n]`.
        logits: float32 `[members, n, classes]`.
        most: how many are shown.
    """
    chosen, probabilities = worst(logits, labels, most)
    columns = 8
    rows = -(-len(chosen) // columns)
    members = len(logits)
    vote_lines = -(-members // 10) if members > 1 else 0
    figure = _figure(rows * (1.32 + 0.16 * vote_lines) + 0.2)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, i in zip(axes.flat, chosen, strict=False):
        axis.imshow(images[i, ..., 0], cmap="gray_r")
        best = probabilities[i].argmax()
        answer = f"{class_names[best]} ({100 * probabilities[i, best]:.0f} %)"
        color = _BLACK if best == labels[i] else _ORANGE
        axis.set_title(f"{class_names[labels[i]]}: {answer}", size=8, pad=3, color=color)
        votes = [str(vote) for vote in logits[:, i].argmax(axis=-1)]
        lines = [" ".join(votes[j : j + 10]) for j in range(0, members, 10)] if members > 1 else []
        axis.text(
            0.5, -0.04, "\n".join(lines), transform=axis.transAxes, ha="center", va="top", size=7
        )
    return figure


def worst(logits: np.ndarray, labels: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """The images to which the ensemble gives least probability of being what they are.

    Returns:
        Their indices, the worst first, and all images' mean probabilities `[n, classes]`.
    """
    logits = np.asarray(logits, np.float64)
    exps = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities = (exps / exps.sum(axis=-1, keepdims=True)).mean(axis=0)
    order = np.argsort(probabilities[np.arange(len(labels)), labels], kind="stable")
    return order[:most], probabilities


def filters(kernel: np.ndarray) -> Figure:
    """The first convolution's kernels, `[height, width, 1, features]`, in a grid."""
    features = kernel.shape[-1]
    columns = 16
    limit = abs(kernel).max()
    figure = _figure(0.75 * -(-features // columns) + 0.5)
    axis = figure.subplots()
    tiles = mosaic(np.moveaxis(kernel[:, :, 0], -1, 0), columns)
    image = axis.imshow(tiles, cmap="PuOr", vmin=-limit, vmax=limit)
    axis.axis("off")
    figure.colorbar(image, ax=axis, label="weight", pad=0.02, aspect=8)
    return figure


def feature_maps(maps: dict[str, np.ndarray], most: int = 16) -> Figure:
    """What each layer makes of one image.

    Args:
        maps: layer to `[height, width, channels]`; the input is one of them.
        most: channels shown of each.
    """
    figure = _figure(0.85 * len(maps))
    axes = figure.subplots(len(maps), 1, squeeze=False)[:, 0]
    for axis, (name, grid) in zip(axes, maps.items(), strict=True):
        channels = np.moveaxis(grid, -1, 0)[:most]
        height, width, count = grid.shape
        axis.imshow(mosaic(channels, most), cmap="viridis")
        shown = f", the first {most}" if count > most else ""
        axis.set_title(f"{name}: {height} x {width} x {count}{shown}", size=8, loc="left", pad=2)
        axis.axis("off")
    return figure


def mosaic(tiles: np.ndarray, columns: int) -> np.ndarray:
    """`[n, height, width]` in rows of `columns`, a pixel of NaN between them."""
    n, height, width = tiles.shape
    rows = -(-n // columns)
    filled = np.full((rows * columns, height + 1, width + 1), np.nan)
    filled[:n, :height, :width] = tiles
    grid = filled.reshape(rows, columns, height + 1, width + 1).swapaxes(1, 2)
    return grid.reshape(rows * (height + 1), columns * (width + 1))[:-1, :-1]


def under_shift(by_shift: dict[str, list[dict[str, Any]]]) -> Figure:
    """Accuracy and ECE of a member and of the mean probability, by the strength of each shift.

    Args:
        by_shift: `shifts` of `evaluation.json`.
    """
    figure = _figure(3.0 * -(-len(by_shift) // 3) * 1.7)
    rows = 2 * -(-len(by_shift) // 3)
    axes = figure.subplots(rows, 3, squeeze=False)
    for axis in axes.flat:
        axis.set_visible(False)
    for i, (name, strengths) in enumerate(by_shift.items()):
        above, below = axes[2 * (i // 3), i % 3], axes[2 * (i // 3) + 1, i % 3]
        amounts = [row["amount"] for row in strengths]
        rules = [row["rules"]["mean_probability"] for row in strengths]
        for axis, metric in ((above, "accuracy"), (below, "ece")):
            axis.set_visible(True)
            members = [
                100 * np.mean([member["before"][metric] for member in row["members"]])
                for row in strengths
            ]
            if len(strengths[0]["members"]) > 1:
                axis.plot(
                    amounts, members, color=_GREY, linestyle="--", marker="s", label="a member"
                )
            values = [100 * row["before"][metric] for row in rules]
            axis.plot(amounts, values, color=_BLUE, marker="o", label="mean probability")
            if metric == "ece" and rules[0]["after"]:
                values = [100 * row["after"][metric] for row in rules]
                axis.plot(
                    amounts, values, color=_ORANGE, linestyle=":", marker="^", label="after scaling"
                )
        above.set(title=name.capitalize(), ylim=(0, 103))
        below.set(xlabel=shifts.UNITS[name], ylim=(0, None))
        if i % 3 == 0:
            above.set_ylabel("accuracy, %")
            below.set_ylabel("ECE, %")
        if amounts[0] > amounts[-1]:
            above.invert_xaxis()  # the harder, the further right
            below.invert_xaxis()
        handles = below.get_legend_handles_labels()
    figure.legend(*handles, loc="outside upper center", ncols=3)
    return figure


def _figure(height: float, width: float = _WIDTH) -> Figure:
    return Figure(figsize=(width, height), dpi=110, layout="constrained")
