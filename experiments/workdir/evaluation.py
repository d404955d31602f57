"""What predictions are worth: logits and labels in, dictionaries for JSON out.

Logits are float32 `[members, n, classes]`, labels int `[n]`. What is evaluated are rows: each
member, and the members combined by each of `RULES`. The dictionaries hold numbers of six digits,
lists, and None for what is undefined.
"""

import itertools
import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mnist_jax import calibration, ensemble, metrics, uncertainty

RULES = {
    "mean_probability": ensemble.mean_probability,
    "sum_logits": ensemble.sum_logits,
    "majority_vote": ensemble.majority_vote,
}
REFUSED_PERCENT = (1, 5, 10)
KEPT = 0.95  # of the right answers, where the least certain are not given
MOST_SUBSETS = 128  # of one size: all there are of up to 9 members


def split_scores(
    split: str, members: list[dict[str, Any]], logits: np.ndarray, labels: np.ndarray
) -> dict[str, Any]:
    """Accuracy and NLL of each member and of the ensemble, named after the split.

    The ensemble's accuracy is that of summed logits, the lab's rule; its NLL that of the members'
    mean probability.
    """
    accuracies, nlls = metrics.accuracy(logits, labels), metrics.nll(logits, labels)
    rows = [
        {
            **member,
            f"{split}_accuracy": plain(accuracy),
            f"{split}_nll": plain(nll),
        }
        for member, accuracy, nll in zip(members, accuracies, nlls, strict=True)
    ]
    summed, mean = ensemble.sum_logits(logits), ensemble.mean_probability(logits)
    together = {
        f"{split}_accuracy": plain(metrics.accuracy(summed, labels)),
        f"{split}_nll": plain(metrics.nll(mean, labels)),
    }
    return {"members": rows, "ensemble": together}


def unsure(logits: np.ndarray, labels: np.ndarray) -> dict[str, float | None]:
    """From which entropy on the members would rather not answer, by the validation images.

    Args:
        logits: float32 `[members, n, classes]`.
        labels: int `[n]`.

    Returns:
        The entropy in nats that most right answers stay below, and of the right and of the wrong
        answers the parts that do; None where there are none.
    """
    mean = np.asarray(ensemble.mean_probability(logits))
    threshold = uncertainty.threshold(mean, labels, KEPT)
    sure = np.asarray(uncertainty.entropy(mean)) <= threshold
    right = mean.argmax(axis=-1) == labels
    return {
        "entropy": plain(threshold),
        "right_kept": plain(sure[right].mean()) if right.any() else None,
        "wrong_kept": plain(sure[~right].mean()) if not right.all() else None,
    }


def fit_temperatures(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Each row's own temperature, float32 `[members + rules]`, from validation images."""
    return np.asarray(calibration.fit_temperature(_rows(logits), labels))


def scores(
    logits: np.ndarray, labels: np.ndarray, temperatures: np.ndarray | None = None
) -> dict[str, Any]:
    """All metrics of every row, before and after its temperature scaling.

    Args:
        logits, labels: of test images.
        temperatures: from `fit_temperatures`; None leaves `temperature` and `after` None.

    Returns:
        `{"members": [row, ...], "rules": {rule: row}}`, where a row is
        `{"temperature": t, "before": {metric: value}, "after": {metric: value}}`.
    """
    rows = _rows(logits)
    before = _scores(rows, labels)
    after = None
    if temperatures is not None:
        after = _scores(calibration.scale(rows, temperatures), labels)
    table = [
        {
            "temperature": None if temperatures is None else plain(temperatures[i]),
            "before": _row(before, i),
            "after": _row(after, i),
        }
        for i in range(len(rows))
    ]
    return {
        "members": table[: len(logits)],
        "rules": dict(zip(RULES, table[len(logits) :], strict=True)),
    }


def curves(
    logits: np.ndarray, labels: np.ndarray, temperatures: np.ndarray | None = None
) -> dict[str, Any]:
    """What the plots of each rule show; the arguments are those of `scores`.

    Returns:
        `{rule: {"confusion_matrix": [...], "before": part, "after": part}}`. The confusion matrix
        has a row a true class. A part is `{"reliability": {"confidence", "accuracy", "images"},
        "risk_coverage": [...]}`: 15 bins of equal width, and the risk at the coverages 1 %, 2 %,
        ... 100 %.
    """
    rows = _rows(logits)[len(logits) :]
    confusion = metrics.confusion_matrix(rows, labels)
    before = _curves(rows, labels)
    after = None
    if temperatures is not None:
        after = _curves(calibration.scale(rows, temperatures[len(logits) :]), labels)
    return {
        rule: {
            "confusion_matrix": plain(confusion[i]),
            "before": _row(before, i),
            "after": _row(after, i),
        }
        for i, rule in enumerate(RULES)
    }


def sizes(logits: np.ndarray, labels: np.ndarray) -> list[dict[str, Any]]:
    """Ensembles of 1, 2, ... of the members: mean and standard deviation over subsets.

    All subsets of a size where there are at most 128, else 128 drawn with a fixed seed. The
    standard deviation is that of the subsets, which share members and test images: the spread of a
    choice among these members, not an error bar for new ones.

    Returns:
        `[{"size": k, "subsets": s, "of": all there are, rule: {metric: {"mean", "std"}}}, ...]`.
    """
    members = len(logits)
    by_size = [subsets(members, size) for size in range(1, members + 1)]
    everything = _subset_scores(logits, labels, np.concatenate(by_size))
    ends = np.cumsum([len(chosen) for chosen in by_size])
    return [
        {"size": size, "subsets": len(chosen), "of": math.comb(members, size)}
        | jax.tree.map(partial(_spread, slice(end - len(chosen), end)), everything)
        for size, (chosen, end) in enumerate(zip(by_size, ends, strict=True), start=1)
    ]


def _spread(part: slice, values: Array) -> dict[str, Any]:
    of_size = np.asarray(values, np.float64)[part]
    return {"mean": plain(of_size.mean()), "std": plain(of_size.std())}


def subsets(members: int, size: int) -> np.ndarray:
    """Who takes part in each subset of a size, bool `[subsets, members]`."""
    if math.comb(members, size) <= MOST_SUBSETS:
        chosen = list(itertools.combinations(range(members), size))
    else:
        rng = np.random.default_rng([members, size])
        drawn: dict[tuple[int, ...], None] = {}  # a set in the order of drawing
        while len(drawn) < MOST_SUBSETS:
            drawn[tuple(sorted(rng.permutation(members)[:size].tolist()))] = None
        chosen = list(drawn)
    return np.array([np.isin(np.arange(members), subset) for subset in chosen])


def diversity(logits: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """How much the members differ, and their mean uncertainty over the images in nats."""
    parts = uncertainty.decompose(logits)
    return {
        "disagreement": plain(uncertainty.disagreement(logits)),
        "error_correlation": plain(uncertainty.error_correlation(logits, labels)),
        "uncertainty": {name: plain(jnp.mean(part)) for name, part in parts._asdict().items()},
    }


def detection(familiar: np.ndarray, unfamiliar: np.ndarray) -> dict[str, Any]:
    """How well uncertainty tells unfamiliar images, the positives, from familiar ones.

    Args:
        familiar, unfamiliar: logits of test images, and of images of something else.

    Returns:
        `{"share": positives among all, which is the AUPR of guessing; "members": [by, ...],
        "ensemble": by}`, where `by` is `{score: {"auroc", "aupr"}}`: for all by
        `error_probability` (1 - the largest probability) and `entropy`, for the ensemble of the
        mean probability, of two members or more, also by `mutual_information`.
    """
    logits = np.concatenate([familiar, unfamiliar], axis=1)
    positive = np.arange(logits.shape[1]) >= familiar.shape[1]
    by_score = _uncertainties(logits)
    if len(logits) == 1:
        del by_score["ensemble"]["mutual_information"]  # rounding errors, nothing else

    def judge(score: Array) -> dict[str, Any]:
        auroc, aupr = metrics.auroc(score, positive), metrics.aupr(score, positive)
        return {"auroc": plain(auroc), "aupr": plain(aupr)}

    return {
        "share": plain(positive.mean()),
        "members": [
            {name: judge(score[i]) for name, score in by_score["members"].items()}
            for i in range(len(logits))
        ],
        "ensemble": {name: judge(score) for name, score in by_score["ensemble"].items()},
    }


def plain(value: Any) -> Any:
    """An array or a number as JSON has it: lists, six digits, None for NaN and infinity."""
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") + 0.0 if math.isfinite(value) else None  # no -0.0
    return value


def _row(tree: Any, i: int) -> Any:
    return jax.tree.map(lambda leaf: plain(leaf[i]), tree)


@jax.jit
def _rows(logits: Array) -> Array:
    """Members' logits and, below them, what each rule makes of them: `[members + rules, ...]`."""
    combined = jnp.stack([rule(logits) for rule in RULES.values()])
    return jnp.concatenate([logits, combined])


@jax.jit
def _scores(rows: Array, labels: Array) -> dict[str, Array]:
    n = rows.shape[1]
    confidences = -uncertainty.error_probability(rows)
    risk = metrics.risk_coverage(confidences, metrics.is_correct(rows, labels))
    refusing = {
        f"accuracy_refusing_{percent}_percent": 1 - risk[:, n - 1 - n * percent // 100]
        for percent in REFUSED_PERCENT
    }
    return {
        "accuracy": metrics.accuracy(rows, labels),
        **refusing,
        "nll": metrics.nll(rows, labels),
        "brier": metrics.brier(rows, labels),
        "aurc": jnp.mean(risk, axis=-1),
        "ece": metrics.ece(rows, labels),
        "adaptive_ece": metrics.ece(rows, labels, equal_mass=True),
        "max_calibration_error": metrics.max_calibration_error(rows, labels),
    }


@jax.jit
def _curves(rows: Array, labels: Array) -> dict[str, Any]:
    n = rows.shape[1]
    confidences = -uncertainty.error_probability(rows)
    risk = metrics.risk_coverage(confidences, metrics.is_correct(rows, labels))
    kept = -(-n * np.arange(1, 101) // 100)
    return {
        "reliability": metrics.reliability(rows, labels)._asdict(),
        "risk_coverage": risk[:, kept - 1],
    }


@jax.jit
def _subset_scores(logits: Array, labels: Array, subsets: Array) -> dict[str, dict[str, Array]]:
    """Each `[subsets]`; one after the other, since all at once would take gigabytes."""

    def one(subset: Array) -> dict[str, dict[str, Array]]:
        combined = jnp.stack([rule(logits, subset) for rule in RULES.values()])
        by_metric = {
            "accuracy": metrics.accuracy(combined, labels),
            "nll": metrics.nll(combined, labels),
            "brier": metrics.brier(combined, labels),
            "ece": metrics.ece(combined, labels),
        }
        return {rule: _take(by_metric, i) for i, rule in enumerate(RULES)}

    return jax.lax.map(one, subsets)


def _take(tree: Any, i: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[i], tree)


@jax.jit
def _uncertainties(logits: Array) -> dict[str, dict[str, Array]]:
    combined = ensemble.mean_probability(logits)
    parts = uncertainty.decompose(logits)
    return {
        "members": {
            "error_probability": uncertainty.error_probability(logits),
            "entropy": uncertainty.entropy(logits),
        },
        "ensemble": {
            "error_probability": uncertainty.error_probability(combined),
            "entropy": parts.total,
            "mutual_information": parts.epistemic,
        },
    }
