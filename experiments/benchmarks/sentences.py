"""Ten folds of Kim's CNN beside PyTorch: `python -m experiments.benchmarks.sentences`.

Sentences are drawn with MR's number, lengths and vocabulary. Here all folds train in one program;
PyTorch trains one network with all threads, and its folds would follow one another. The two take
turns.
"""

import json
import sys
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from experiments.console import cli

_SENTENCES, _WORDS, _LENGTH = 10_662, 18_766, 64  # of MR: all, the vocabulary, tokens of each
_MEAN_WORDS, _DEVIATION = 20.4, 9.3
_PADDING, _BATCH, _STEPS = 4, 50, 10


class Turn(NamedTuple):
    """Milliseconds of one fold's step, as many as there are turns."""

    ours: list[float]
    pytorch: list[float]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = cli.Parser(prog="python -m experiments.benchmarks.sentences", description=__doc__)
    parser.add_argument("--folds", type=int, default=10, metavar="N", help="default: 10")
    parser.add_argument("--turns", type=int, default=5, metavar="N", help="default: 5")
    parser.add_argument("--width", type=int, default=300, metavar="N", help="of the vectors: 300")
    given = parser.parse(sys.argv[1:] if argv is None else argv)
    for name in ("folds", "turns", "width"):
        if getattr(given, name) < 1:
            cli.fail(f"--{name} must be at least 1, not {getattr(given, name)}.", cli.HELP)
    try:
        import torch  # noqa: F401
    except ImportError:
        cli.fail("PyTorch is not installed.", "pip install 'mnist_jax[bench]' brings it.")
    tokens, labels = draw()
    ours = _ours(tokens, labels, given.folds, given.width)
    theirs = _pytorch(tokens, labels, given.width)
    for side in (ours, theirs):
        side()  # what is compiled or allocated at first does not count
    turn = Turn([], [])
    for _ in range(given.turns):
        turn.ours.append(_milliseconds(ours) / given.folds)
        turn.pytorch.append(_milliseconds(theirs))
    print(json.dumps(turn._asdict()))
    here, there = median(turn.ours), median(turn.pytorch)
    print(
        f"A fold's step: {here:.1f} ms here, {there:.1f} ms by PyTorch, {there / here:.2f} times."
    )
    return 0


def draw(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Tokens int32 `[n, length]`, words as rare as Zipf says, and labels int32 `[n]`."""
    rng = np.random.default_rng(seed)
    longest = _LENGTH - 2 * _PADDING
    lengths = np.clip(rng.normal(_MEAN_WORDS, _DEVIATION, _SENTENCES).round(), 1, longest)
    chances = 1 / np.arange(1, _WORDS)
    words = rng.choice(np.arange(1, _WORDS), (_SENTENCES, longest), p=chances / chances.sum())
    tokens = np.zeros((_SENTENCES, _LENGTH), np.int32)
    is_word = np.arange(longest) < lengths[:, None]
    tokens[:, _PADDING : _PADDING + longest] = np.where(is_word, words, 0)
    return tokens, rng.integers(0, 2, _SENTENCES).astype(np.int32)


def _milliseconds(run: Callable[[], None]) -> float:
    """Of one of the steps."""
    started = time.perf_counter()
    run()
    return 1000 * (time.perf_counter() - started) / _STEPS


def _ours(tokens: np.ndarray, labels: np.ndarray, folds: int, width: int) -> Callable[[], None]:
    """What trains all folds for some steps."""
    from mnist_jax import constraints, models, parallel, training
    from mnist_jax.folds import make

    parallel.use_cpu_cores(members=folds)
    layout = parallel.plan(folds)
    network = models.create("sentence", 2, words=_WORDS, width=width)
    optimizer = training.make_optimizer(1.0, 1, "adadelta", constraint=constraints.of_sentences())
    seeds = range(folds)
    state: Any = parallel.init(layout, network, optimizer, seeds, training.input_of(tokens))
    data = parallel.replicate(layout, tokens), parallel.replicate(layout, labels)
    train = parallel.compile_train(
        layout, network, optimizer, seeds, state, *data, _BATCH, _STEPS, own_batches=True
    )
    own = [fold.train for fold in make(labels, max(folds, 2))[:folds]]
    batches = np.stack([part[: _BATCH * _STEPS].reshape(_STEPS, _BATCH) for part in own])

    def run() -> None:
        nonlocal state
        state, losses = train(state, *data, batches)
        parallel.gather(layout, losses)

    return run


def _pytorch(tokens: np.ndarray, labels: np.ndarray, width: int) -> Callable[[], None]:
    """What trains one network for some steps, with all threads."""
    import torch
    from torch import nn

    embedding = nn.Embedding(_WORDS, width, padding_idx=0)
    windows = nn.ModuleList([nn.Conv1d(width, 100, size) for size in (3, 4, 5)])
    output = nn.Linear(300, 2)
    modules = nn.ModuleList([embedding, windows, output])
    optimizer = torch.optim.Adadelta(modules.parameters(), lr=1.0, rho=0.95, eps=1e-6)
    inputs, targets = torch.from_numpy(tokens).long(), torch.from_numpy(labels).long()

    def run() -> None:
        for step in range(_STEPS):
            batch = slice(step * _BATCH, (step + 1) * _BATCH)
            vectors = embedding(inputs[batch]).transpose(1, 2)
            maxima = [window(vectors).relu().amax(2) for window in windows]
            kept = nn.functional.dropout(torch.cat(maxima, 1), 0.5)
            loss = nn.functional.cross_entropy(output(kept), targets[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                output.weight.renorm_(2, 0, 3.0)

    return run


if __name__ == "__main__":
    cli.call(main, prints_results=True)
