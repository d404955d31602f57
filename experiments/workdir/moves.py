"""What `evaluate` says of networks of Go positions alone: how often the move played is foreseen."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from rich import box
from rich.table import Table

from experiments.workdir import evaluation
from mnist_jax import ensemble
from mnist_jax.data.positions import Positions
from mnist_jax.go import symmetries

TOP = 5
PHASES = (0, 50, 100, 150, 200)  # turns at which they begin
MOST_TURNED = 5_000  # test positions that are predicted in all eight symmetries

Predict = Callable[[np.ndarray], np.ndarray]  # packed planes to logits [members, n, points]


def scores(logits: np.ndarray, dataset: Positions, predict: Predict) -> dict[str, Any]:
    """Judge predictions of the test positions.

    Args:
        logits: of them, float32 `[members, n, points]`.
        predict: gives logits of others, here of turned boards.

    Returns:
        `members` and `together` (by the mean probability), each with `accuracy` and `top5`;
        `phases`, by the turn, and `symmetries`, of the first test positions, with one symmetry and
        with the mean over eight.
    """
    labels = dataset.test.labels
    mean = np.asarray(ensemble.mean_probability(logits))
    first = dataset.test.inputs[:MOST_TURNED]
    count = len(first)
    others = range(1, symmetries.COUNT)
    turned = [logits[:, :count], *(_turned(first, symmetry, predict) for symmetry in others)]
    return {
        "members": [_foreseen(member, labels) for member in logits],
        "together": _foreseen(mean, labels),
        "phases": list(_by_phase(mean, labels, dataset.test_turns)),
        "symmetries": {
            "size": count,
            "one": _foreseen(mean[:count], labels[:count]),
            "eight": _foreseen(
                np.asarray(ensemble.mean_probability(np.concatenate(turned))), labels[:count]
            ),
        },
    }


def _foreseen(logits: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Of `[n, points]`: how often the move is the likeliest one, and among the likeliest five."""
    own = np.take_along_axis(logits, labels[:, None], axis=1)
    rank = (logits > own).sum(axis=1)
    return {
        "accuracy": evaluation.plain(float((logits.argmax(axis=1) == labels).mean())),
        f"top{TOP}": evaluation.plain(float((rank < TOP).mean())),
    }


def _by_phase(
    logits: np.ndarray, labels: np.ndarray, turns: np.ndarray
) -> Iterator[dict[str, Any]]:
    ends = (*PHASES[1:], int(turns.max(initial=0)) + 1)
    for begin, end in zip(PHASES, ends, strict=True):
        chosen = (turns >= begin) & (turns < end)
        if chosen.any():
            found = _foreseen(logits[chosen], labels[chosen])
            yield {"turns": [begin, end - 1], "size": int(chosen.sum())} | found


def _turned(inputs: np.ndarray, symmetry: int, predict: Predict) -> np.ndarray:
    """Logits of boards that are all turned in one way."""
    return symmetries.predict_turned(predict, inputs, np.full(len(inputs), symmetry))


def tables(found: dict[str, Any], names: list[str]) -> Iterator[Table]:
    """What the terminal shows of `scores`."""
    table = _table("The move played", "is the likeliest, %", f"is among the likeliest {TOP}, %")
    for name, row in zip(names, found["members"], strict=True):
        _add(table, name, row)
    if len(names) > 1:
        _add(table, "mean probability", found["together"])
    turned = found["symmetries"]
    _add(table, f"the first {turned['size']:,}", turned["one"])
    _add(table, "the same, mean of 8 symmetries", turned["eight"])
    yield table
    phases = _table("By phase", "positions", "is the likeliest, %", f"among the likeliest {TOP}, %")
    for row in found["phases"]:
        begin, end = row["turns"]
        _add(phases, f"moves {begin + 1} to {end + 1}", row, f"{row['size']:,}")
    yield phases


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", show_edge=False)
    table.add_column("")
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _add(table: Table, name: str, row: dict[str, Any], *cells: str) -> None:
    shares = (f"{100 * row[key]:.2f}" for key in ("accuracy", f"top{TOP}"))
    table.add_row(name, *cells, *shares)
