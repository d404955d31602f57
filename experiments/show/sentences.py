"""Sentences on the report's page: what was taken for what, and the n-grams that decided."""

from collections.abc import Sequence
from functools import partial
from html import escape
from typing import NamedTuple

import jax
import numpy as np

from experiments.workdir.trained import Member, Trained
from mnist_jax.data.sentences import PADDING
from mnist_jax.models.sentence import OUTPUT

_FOR, _AGAINST = "#0072b2", "#d55e00"  # as colour-blind people tell apart
_STRONGEST = 3  # n-grams named below a sentence


class NGram(NamedTuple):
    """Some words in a row that maxima picked out, and what they weigh."""

    words: tuple[str, ...]
    weight: float  # of the answer's logit over the mean of the others'


class Explained(NamedTuple):
    """A sentence's words and what each weighs for the answer that was given."""

    words: list[str]
    weights: np.ndarray  # float [words]
    ngrams: list[NGram]  # the heaviest first, for or against


def explain(
    trained: Trained, tokens: np.ndarray, answers: np.ndarray, vocabulary: Sequence[str]
) -> list[Explained]:
    """What the members' maxima picked out, on average.

    Each map's maximum, times its weight for the answer less its mean weight for the other classes,
    is what its window adds to the answer. It is given to the window as an n-gram, and to its words
    in equal parts.

    Args:
        tokens: int32 `[n, length]`.
        answers: of the members together, int `[n]`.
    """
    length = tokens.shape[1]
    weights = np.zeros(tokens.shape)
    ngrams: list[dict[tuple[int, int], float]] = [{} for _ in tokens]
    for member in trained.members:
        places, shares = _shares(member, tokens, answers)
        sizes = np.repeat(member.network.windows, member.network.maps)
        for i in range(len(tokens)):
            for place, size, share in zip(places[i], sizes, shares[i], strict=True):
                if share:
                    share = float(share) / len(trained.members)
                    weights[i, place : place + size] += share / size
                    key = int(place), min(int(place + size), length)
                    ngrams[i][key] = ngrams[i].get(key, 0.0) + share
    return [
        _explained(row, weight, found, vocabulary)
        for row, weight, found in zip(tokens, weights, ngrams, strict=True)
    ]


def _shares(
    member: Member, tokens: np.ndarray, answers: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Of each sentence and map the place of its maximum, and what it adds: `[n, maps]`."""
    network = member.network
    run = jax.jit(partial(network.apply, mutable=["intermediates"]))
    _, state = run(member.variables, tokens)
    found = state["intermediates"]["windows"]
    values, places = np.asarray(found["maxima"][0]), np.asarray(found["places"][0])
    kernel = np.asarray(member.variables["params"][OUTPUT]["kernel"])
    classes = kernel.shape[1]
    others = (kernel.sum(axis=1, keepdims=True) - kernel) / (classes - 1)
    over = (kernel - others).T[answers]
    return places, np.maximum(values, 0) * (1 - network.dropout_rate) * over


def _explained(
    tokens: np.ndarray,
    weights: np.ndarray,
    found: dict[tuple[int, int], float],
    vocabulary: Sequence[str],
) -> Explained:
    count = max(int(np.flatnonzero(tokens).max(initial=PADDING - 1)) + 1 - PADDING, 0)
    inside = slice(PADDING, PADDING + count)
    words = [vocabulary[token] or "?" for token in tokens[inside]]
    merged: dict[tuple[str, ...], float] = {}
    for (start, end), weight in found.items():
        ngram = tuple(words[max(start - PADDING, 0) : max(end - PADDING, 0)])
        if ngram:
            merged[ngram] = merged.get(ngram, 0.0) + weight
    heaviest = sorted(merged, key=lambda ngram: -abs(merged[ngram]))[:_STRONGEST]
    return Explained(words, weights[inside], [NGram(words, merged[words]) for words in heaviest])


def as_html(explained: Explained, caption: str) -> str:
    """A sentence, each word on a colour as strong as it weighs; below it what the caption says."""
    largest = max(float(np.abs(explained.weights).max(initial=0)), 1e-9)
    marked = [
        f'<span style="background: {_color(weight / largest)}" title="{weight:+.3f}">'
        f"{escape(word)}</span>"
        for word, weight in zip(explained.words, explained.weights, strict=True)
    ]
    ngrams = "; ".join(f"{' '.join(words)} {weight:+.2f}" for words, weight in explained.ngrams)
    return (
        f'<figure class="wide"><div>{" ".join(marked) or "(no words)"}</div>'
        f"<figcaption>{escape(caption)}{escape(f' Heaviest: {ngrams}.') if ngrams else ''}"
        "</figcaption></figure>"
    )


def _color(share: float) -> str:
    """Blue for the answer, vermilion against it; `share` from -1 to 1."""
    alpha = round(0.6 * abs(share) * 255)
    return f"{_FOR if share > 0 else _AGAINST}{alpha:02x}"
