"""The table in which `experiments.predict` answers."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from experiments.console import terminal
from mnist_jax.words import on_one_line


def show(
    asked: Mapping[str, Sequence[str]], rows: Sequence[dict[str, Any]], notes: Sequence[str]
) -> None:
    """Print what was asked, the answers, and what is to be said of them.

    Args:
        asked: the first columns by their headings, a cell a row; all but the first are to the
            right.
        rows: each with `class`, `probability`, `entropy`, `mutual_information` and `votes`.
        notes: the last column.
    """
    together = len(rows[0]["votes"]) > 1
    table = Table(box=None, pad_edge=False)
    for i, heading in enumerate(asked):
        table.add_column(heading, justify="right" if i else "left")
    table.add_column("class")
    for heading in ("probability", "entropy", *(["mutual information"] if together else [])):
        table.add_column(heading, justify="right")
    if together:
        table.add_column("votes")
    table.add_column("")
    for *first, row, note in zip(*asked.values(), rows, notes, strict=True):
        cells = [*first, row["class"], f"{row['probability']:.4f}", f"{row['entropy']:.4f}"]
        if together:
            votes = Counter(row["votes"]).most_common()
            cells.append(f"{row['mutual_information']:.4f}")
            cells.append(", ".join(f"{count} for {name}" for name, count in votes))
        table.add_row(*(Text(on_one_line(cell)) for cell in [*cells, note]))
    terminal.show(table)
