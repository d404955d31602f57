"""Cross-validation: which inputs each fold trains on, which choose its epoch, which test it."""

from typing import NamedTuple

import numpy as np

_VALIDATION = 10  # one training input of so many chooses the epoch


class Fold(NamedTuple):
    """Places of inputs, int32, each in one of the three."""

    train: np.ndarray  # as many in all folds
    validation: np.ndarray
    test: np.ndarray


def make(labels: np.ndarray, folds: int, repeats: int = 1, seed: int = 0) -> list[Fold]:
    """Cut a data set into folds, each of which is the test set once, as often as asked.

    All parts have the classes in proportion. Of what is not tested, a tenth or a little more
    chooses the epoch, so that test inputs have no part in the choice.

    Args:
        labels: int `[n]`.
        folds: how many, from 2 to n.
        repeats: times, each with another cut.

    Returns:
        The folds of the first cut, then those of the next.

    Raises:
        ValueError: `folds` out of range, or that leave nothing to train on.
    """
    n = len(labels)
    if not 2 <= folds <= n:
        raise ValueError(f"folds must be from 2 to the {n:,} inputs there are, not {folds}.")
    made = [fold for repeat in range(repeats) for fold in _once(labels, folds, (seed, repeat))]
    fewest = min(len(fold.train) for fold in made)
    if fewest == 0:
        raise ValueError(f"folds {folds} of {n} inputs leave none to train on.")
    return [
        Fold(train[:fewest], np.concatenate([validation, train[fewest:]]), test)
        for train, validation, test in made
    ]


def _once(labels: np.ndarray, folds: int, seed: tuple[int, int]) -> list[Fold]:
    order = np.random.default_rng(seed).permutation(len(labels)).astype(np.int32)
    by_class = order[np.argsort(labels[order], kind="stable")]  # dealt out in turn, like cards
    made = []
    for first in range(folds):
        is_tested = np.arange(len(labels)) % folds == first
        others = by_class[~is_tested]
        chooses = np.arange(len(others)) % _VALIDATION == 0
        made.append(Fold(others[~chooses], others[chooses], by_class[is_tested]))
    return made
