"""`experiments.predict` for networks of sentences: what is asked, and how it is answered."""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.console import cli

_MOST_LETTERS = 60  # of a sentence in the table


class Sentence(NamedTuple):
    """One sentence to classify."""

    text: str
    label: str | None = None  # of a file whose lines begin with a class


def predict(loaded: Any, threshold: float | None, arguments: Sequence[str], as_json: bool) -> int:
    """Print a row a sentence; returns the exit code.

    Args:
        loaded: of `trained.load`.
        threshold: the entropy above which an answer is unsure; None: not known.
        arguments: sentences, files with a sentence a line, or `-` for standard input.
        as_json: an object a line instead of a table.

    Raises:
        SystemExit: code 2 with an error of two lines, where there is nothing to classify.
    """
    encoding, class_names = loaded.config.encoding, loaded.class_names
    sentences, failed = cli.read_each(arguments, lambda one: _read(one, encoding, class_names))
    if not sentences:
        if failed:
            return cli.FAILED
        cli.fail("there is no sentence.", "Give one in quotes, a file of them, or - with some.")
    rows = describe(loaded, threshold, sentences)
    if as_json:
        for row in rows:
            print(json.dumps(row))
    else:
        _print_table(rows)
    for line in _summary(rows, threshold):
        print(line, file=sys.stderr if as_json else sys.stdout)
    return int(failed)


def _read(argument: str, encoding: str, class_names: Sequence[str]) -> list[Sentence]:
    """What one argument holds.

    Raises:
        ValueError: it cannot be read.
    """
    from mnist_jax.data import sentences

    try:
        if argument == "-":
            text = sentences.decode(sys.stdin.buffer.read(), "utf-8", "-")
            return [Sentence(*pair) for pair in sentences.of_lines(text, class_names)]
        if os.path.isfile(argument):
            pairs = sentences.read_file(argument, encoding, class_names)
            return [Sentence(*pair) for pair in pairs]
    except ValueError as error:  # whose hint is for the flags of other commands
        raise ValueError(str(error).partition("\n")[0]) from None
    if not argument.strip():
        raise ValueError(f"{argument!r} is no sentence.")
    if os.path.isdir(argument):
        raise ValueError(f"{argument} is a folder; give the files in it.")
    path = Path(argument)
    if " " not in argument and ("/" in argument or path.suffix in (".txt", ".tsv", ".csv")):
        raise ValueError(f"{argument} is no file; a sentence of one word has no / and no ending.")
    return [Sentence(argument)]


def describe(
    loaded: Any, threshold: float | None, sentences: Sequence[Sentence]
) -> list[dict[str, Any]]:
    """What is printed of each sentence.

    A sentence none of whose words is known is always unsure.
    """
    from mnist_jax import ensemble, uncertainty
    from mnist_jax.data.sentences import MOST_WORDS, clean, tokenize

    about = loaded.trained_on
    texts = [sentence.text for sentence in sentences]
    tokens = tokenize(texts, about.vocabulary, about.cased, about.image_shape[0])
    logits = loaded.predict(tokens)
    probabilities = np.exp(ensemble.mean_probability(logits))
    parts = uncertainty.decompose(logits)
    known = set(about.vocabulary)
    rows = []
    for i, sentence in enumerate(sentences):
        words = clean(sentence.text, about.cased).split()
        if len(words) > MOST_WORDS:
            note = f"has {len(words):,} words, of which the first {MOST_WORDS} are read."
            print(f"note: sentence {i + 1} {note}", file=sys.stderr)
        unknown = [word for word in dict.fromkeys(words) if word not in known]
        entropy = float(parts.total[i])
        row = {
            "sentence": sentence.text,
            "class": loaded.class_names[probabilities[i].argmax()],
            "probability": round(float(probabilities[i].max()), 6),
            "entropy": round(entropy, 6),
            "mutual_information": round(float(parts.epistemic[i]), 6),
            "votes": [loaded.class_names[best] for best in logits[:, i].argmax(axis=1)],
            "unsure": not tokens[i].any() or (threshold is not None and entropy > threshold),
            "unknown": unknown,
        }
        rows.append(row | ({} if sentence.label is None else {"label": sentence.label}))
    return rows


def _print_table(rows: Sequence[dict[str, Any]]) -> None:
    from experiments.console import answers  # Rich's tables take a while to import

    texts = [" ".join(row["sentence"].split()) for row in rows]
    shown = [t if len(t) <= _MOST_LETTERS else f"{t[: _MOST_LETTERS - 3]}..." for t in texts]
    answers.show({"sentence": shown}, rows, [_note(row) for row in rows])


def _note(row: dict[str, Any]) -> str:
    notes = ["unsure"] if row["unsure"] else []
    if row["unknown"]:
        notes.append(f"unknown: {', '.join(row['unknown'][:5])}")
    return "; ".join(notes)


def _summary(rows: Sequence[dict[str, Any]], threshold: float | None) -> Iterator[str]:
    if len(rows) > 1:
        unsure = sum(row["unsure"] for row in rows)
        yield f"{len(rows):,} sentences, {unsure:,} unsure"
    if threshold is None:
        yield "No entropy is known above which to be unsure: trained without validation sentences."
    labelled = [row for row in rows if "label" in row]
    if labelled:
        right = sum(row["class"] == row["label"] for row in labelled)
        share = right / len(labelled)
        yield f"Accuracy: {share:.4f} ({right:,} of {len(labelled):,} sentences)"
