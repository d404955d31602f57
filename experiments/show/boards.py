"""Positions of Go as pictures of `report`: SVG in HTML."""

from collections.abc import Iterator
from html import escape

import numpy as np

from mnist_jax.go import planes, rules

MOST = 5  # moves that are numbered
_STARS = {19: (3, 9, 15), 13: (3, 6, 9), 9: (2, 4, 6)}
_WOOD, _BLUE, _RED = "#e9c98f", "#0072b2", "#d55e00"
_WIDTH = 340  # pixels of the page


def as_html(packed: np.ndarray, probabilities: np.ndarray, played: int, caption: str) -> str:
    """A figure of one position; whose turn it is has the black stones.

    Args:
        packed: its planes, uint8 `[size, size, 6]`.
        probabilities: float `[size * size]`; the likeliest moves are numbered.
        played: the point that was played, which has a ring.
        caption: below it.
    """
    size = packed.shape[0]
    picture = "".join(_shapes(packed, probabilities, played))
    label = f"A board of {size} x {size}. {caption}"
    return (
        f'<figure style="flex: 0 1 {_WIDTH}px"><svg viewBox="-1 -1 {size + 1} {size + 1}" '
        f'role="img" aria-label="{escape(label, quote=True)}" style="width: 100%">{picture}</svg>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _shapes(packed: np.ndarray, probabilities: np.ndarray, played: int) -> Iterator[str]:
    size = packed.shape[0]
    bits = np.unpackbits(packed, axis=-1, bitorder="little")[..., : planes.FEATURES["stone colour"]]
    last = size - 1
    yield f'<rect x="-1" y="-1" width="{size + 1}" height="{size + 1}" fill="{_WOOD}"/>'
    for i in range(size):
        for ends in (f"M0 {i}H{last}", f"M{i} 0V{last}"):
            yield f'<path d="{ends}" stroke="#555" stroke-width="0.04"/>'
    for row in _STARS.get(size, ()):
        for column in _STARS[size]:
            yield f'<circle cx="{column}" cy="{row}" r="0.1" fill="#555"/>'
    for row, column in np.ndindex(size, size):
        own, other, _ = bits[row, column]
        if own or other:
            fill = "#111" if own else "#fff"
            yield (
                f'<circle cx="{column}" cy="{row}" r="0.46" fill="{fill}" stroke="#111" '
                'stroke-width="0.05"/>'
            )
    row, column = divmod(played, size)
    yield (
        f'<circle cx="{column}" cy="{row}" r="0.4" fill="none" stroke="{_RED}" '
        'stroke-width="0.14"/>'
    )
    for number, point in enumerate(np.argsort(-probabilities, kind="stable")[:MOST], start=1):
        row, column = divmod(int(point), size)
        yield (
            f'<text x="{column}" y="{row + 0.22}" text-anchor="middle" font-size="0.65" '
            f'font-weight="bold" fill="{_BLUE}">{number}</text>'
        )


def describe(probabilities: np.ndarray, played: int, turn: int) -> str:
    """In words, what a board shows."""
    size = round(len(probabilities) ** 0.5)
    best = np.argsort(-probabilities, kind="stable")[:MOST]
    likely = ", ".join(
        f"{number}: {rules.to_vertex(size, int(point))} {100 * probabilities[point]:.1f} %"
        for number, point in enumerate(best, start=1)
    )
    share = 100 * probabilities[played]
    return f"Move {turn + 1}. {likely}. Played was {rules.to_vertex(size, played)}, {share:.1f} %."
