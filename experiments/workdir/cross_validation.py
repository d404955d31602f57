"""What a run with folds adds: its members' own inputs, and scores by fold, repeat and epoch.

After each epoch every member predicts its validation and its test inputs. The epoch that counts is
chosen afterwards, for each member by its own validation inputs; test inputs have no part in it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from jax import Array
from rich import box
from rich.table import Table

from experiments.workdir import evaluation
from experiments.workdir.config import Config
from experiments.workdir.stacks import Stack
from mnist_jax import ensemble, folds, metrics, parallel, training
from mnist_jax.data import Dataset, Split
from mnist_jax.folds import Fold
from mnist_jax.training import TrainState


class Folds(NamedTuple):
    """All folds of a run, repeat by repeat; members of one fold stand side by side."""

    each: list[Fold]
    members: int  # in each fold

    @property
    def own_inputs(self) -> np.ndarray:
        """What each member trains on, int32 `[members, m]`."""
        return np.repeat([fold.train for fold in self.each], self.members, axis=0)


def pool(dataset: Dataset) -> Dataset:
    """The same data set with all of its inputs for training."""
    splits = (dataset.train, dataset.validation, dataset.test)
    inputs, labels = (np.concatenate(part) for part in zip(*splits, strict=True))
    nothing = Split(inputs[:0], labels[:0])
    return replace(dataset, train=Split(inputs, labels), validation=nothing, test=nothing)


def make(config: Config, labels: np.ndarray) -> Folds:
    """The folds that a config asks for.

    Raises:
        ValueError: too many for the inputs.
    """
    assert isinstance(config.members, int)  # `Config` sees to it
    each = folds.make(labels, config.folds, config.repeats, config.data_seed)
    return Folds(each, config.members)


class Scorer:
    """Predicts each member's held-out inputs and gives the scores of an epoch."""

    def __init__(self, config: Config, stack: Stack, all_folds: Folds, data: Split) -> None:
        self._config, self._stack, self._folds = config, stack, all_folds
        self._labels = data.labels
        self._inputs: Array = parallel.replicate(stack.layout, data.inputs)
        self._predict = parallel.make_predict_own(stack.layout, stack.network, stack.decode)
        held = [np.concatenate([fold.validation, fold.test]) for fold in all_folds.each]
        longest = max(map(len, held))
        padded = [np.pad(places, (0, longest - len(places))) for places in held]
        self._places = np.repeat(padded, all_folds.members, axis=0)

    def __call__(self, state: TrainState) -> dict[str, Any]:
        """An epoch's record: a row a member and, of ensembles in the folds, a row a fold."""
        logits = self._predict(training.evaluated(state), self._inputs, self._places)
        members, together = [], []
        for number, fold in enumerate(self._folds.each):
            repeat, place = divmod(number, self._config.folds)
            mine = slice(number * self._folds.members, (number + 1) * self._folds.members)
            rows = self._rows(logits[mine], fold)
            about = {"repeat": repeat, "fold": place}
            members += [about | row for row in rows]
            (one,) = self._rows(np.asarray(ensemble.mean_probability(logits[mine]))[None], fold)
            together.append(about | one)
        described = [
            {"network": self._config.network, "seed": seed} | row
            for seed, row in zip(self._stack.seeds, members, strict=True)
        ]
        mean = {
            name: evaluation.plain(float(np.mean([row[name] for row in together])))
            for name in ("validation_accuracy", "validation_nll")
        }
        return {"members": described, "ensemble": mean, "folds": together}

    def _rows(self, logits: np.ndarray, fold: Fold) -> Iterator[dict[str, Any]]:
        """Accuracy and NLL of each member on both parts of a fold; logits are `[members, ...]`."""
        count = len(fold.validation)
        parts = {"validation": slice(count), "test": slice(count, count + len(fold.test))}
        scores = {}
        for name, part in parts.items():
            labels = self._labels[getattr(fold, name)]
            scores[f"{name}_accuracy"] = np.asarray(metrics.accuracy(logits[:, part], labels))
            scores[f"{name}_nll"] = np.asarray(metrics.nll(logits[:, part], labels))
        for i in range(len(logits)):
            yield {name: evaluation.plain(values[i]) for name, values in scores.items()}


def results(config: Config, history: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What `results.json` says of all folds at the epochs chosen.

    Returns:
        `{"single": of the members, "ensemble": of each fold's members together}`: `mean`,
        `deviation` over folds, `repeats` (the mean of each), `deviation_of_repeats`, `each`, and
        `last_epoch`, the mean without choosing. Deviations divide by n - 1.
    """
    if not history:
        return {"single": None, "ensemble": None}
    parts = {"single": "members", "ensemble": "folds"}
    return {part: _chosen([row[key] for row in history]) for part, key in parts.items()}


def _chosen(epochs: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Of the same rows after each epoch."""
    each = []
    for rows in zip(*epochs, strict=True):
        best = max(range(len(rows)), key=lambda i: _quality(rows[i]))
        each.append({"epoch": best + 1} | dict(rows[best]))
    accuracies = np.array([row["test_accuracy"] for row in each])
    repeats = np.array([row["repeat"] for row in each])
    means = np.array([accuracies[repeats == repeat].mean() for repeat in np.unique(repeats)])
    return {
        "mean": evaluation.plain(means.mean()),
        "deviation": _deviation(accuracies),
        "repeats": evaluation.plain(means),
        "deviation_of_repeats": _deviation(means),
        "last_epoch": evaluation.plain(np.mean([row["test_accuracy"] for row in epochs[-1]])),
        "each": each,
    }


def _quality(row: Mapping[str, Any]) -> tuple[float, float]:
    nll = row["validation_nll"]
    return row["validation_accuracy"], -(np.inf if nll is None else nll)


def _deviation(values: np.ndarray) -> float | None:
    return evaluation.plain(values.std(ddof=1)) if len(values) > 1 else None


def table(found: Mapping[str, Any], members: int) -> Table:
    """What the terminal shows of `results`."""
    shown = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    shown.add_column("")
    for heading in ("test accuracy %", "deviation", "epoch chosen", "validation %"):
        shown.add_column(heading, justify="right")
    kinds = ("single", "ensemble") if members > 1 else ("single",)
    for kind in kinds:
        for row in found[kind]["each"]:
            name = f"repeat {row['repeat'] + 1}, fold {row['fold'] + 1}"
            name += f", seed {row['seed']}" if kind == "single" else ", ensemble"
            cells = (_percent(row["test_accuracy"]), "", str(row["epoch"]))
            shown.add_row(name, *cells, _percent(row["validation_accuracy"]))
    for kind in kinds:
        part = found[kind]
        for i, mean in enumerate(part["repeats"] if len(part["repeats"]) > 1 else []):
            shown.add_row(f"{kind}, repeat {i + 1}", _percent(mean), "", "", "")
        deviation = part["deviation"]
        shown.add_row(f"{kind}, all folds", _percent(part["mean"]), _percent(deviation), "", "")
    return shown


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f}"
