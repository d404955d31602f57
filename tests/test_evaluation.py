"""The dictionaries of an evaluation, against the metrics, NumPy and scikit-learn."""

import itertools
import json
import math

import numpy as np
import pytest
import sklearn.metrics

from experiments.workdir import evaluation
from mnist_jax import calibration, ensemble, metrics


def predictions(members=3, n=300, seed=0, signal=3.0):
    """Logits that know the label and share some of their noise; and labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, n)
    noise = rng.normal(0, 2, (members, n, 10)) + rng.normal(0, 1, (n, 10))
    return (noise + signal * np.eye(10)[labels]).astype(np.float32), labels


def test_scores_of_members_and_rules():
    logits, labels = predictions()
    temperatures = evaluation.fit_temperatures(*predictions(seed=1))
    assert temperatures.shape == (6,)
    table = evaluation.scores(logits, labels, temperatures)
    assert len(table["members"]) == 3 and list(table["rules"]) == list(evaluation.RULES)
    expected = [*logits, *(rule(logits) for rule in evaluation.RULES.values())]
    expected = np.stack(expected)
    scaled = calibration.scale(expected, temperatures)
    rows = [*table["members"], *table["rules"].values()]
    np.testing.assert_allclose([row["temperature"] for row in rows], temperatures, rtol=1e-5)
    right = expected.argmax(axis=-1) == labels
    for when, logits_then in (("before", expected), ("after", np.asarray(scaled))):
        for metric in ("accuracy", "nll", "brier", "ece"):
            got = [row[when][metric] for row in rows]
            np.testing.assert_allclose(got, getattr(metrics, metric)(logits_then, labels), 1e-4)
        probabilities = np.exp(logits_then) / np.exp(logits_then).sum(axis=-1, keepdims=True)
        surest_first = np.argsort(-probabilities.max(axis=-1), axis=-1)
        for percent, kept in ((1, 297), (5, 285), (10, 270)):
            of_kept = np.take_along_axis(right, surest_first[:, :kept], axis=-1).mean(axis=-1)
            got = [row[when][f"accuracy_refusing_{percent}_percent"] for row in rows]
            np.testing.assert_allclose(got, of_kept, atol=0.002)  # the vote has ties
        cumulative = np.cumsum(~np.take_along_axis(right, surest_first, axis=-1), axis=-1)
        aurc = (cumulative / np.arange(1, 301)).mean(axis=-1)
        np.testing.assert_allclose([row[when]["aurc"] for row in rows], aurc, rtol=0.01)
    assert all(row["after"]["nll"] < row["before"]["nll"] for row in rows)
    json.dumps(table, allow_nan=False)


def test_curves():
    logits, labels = predictions()
    temperatures = evaluation.fit_temperatures(logits, labels)
    curves = evaluation.curves(logits, labels, temperatures)
    assert set(curves) == set(evaluation.RULES)
    combined = np.asarray(ensemble.sum_logits(logits))
    of_sum = curves["sum_logits"]
    np.testing.assert_array_equal(
        of_sum["confusion_matrix"],
        sklearn.metrics.confusion_matrix(labels, combined.argmax(axis=1), labels=range(10)),
    )
    error = 1 - float(metrics.accuracy(combined, labels))
    for when, temperature in (("before", 1.0), ("after", temperatures[4])):
        risk = of_sum[when]["risk_coverage"]
        assert len(risk) == 100 and risk[-1] == pytest.approx(error, rel=1e-4)
        scaled = calibration.scale(combined, temperature)
        curve = metrics.reliability(scaled, labels)
        assert of_sum[when]["reliability"]["images"] == curve.images.tolist()
        accuracy = [math.nan if a is None else a for a in of_sum[when]["reliability"]["accuracy"]]
        np.testing.assert_allclose(accuracy, curve.accuracy, rtol=1e-5)
    assert json.dumps(curves, allow_nan=False)


def test_sizes_are_all_subsets():
    logits, labels = predictions(members=4)
    table = evaluation.sizes(logits, labels)
    assert [row["size"] for row in table] == [1, 2, 3, 4]
    assert [row["subsets"] for row in table] == [row["of"] for row in table] == [4, 6, 4, 1]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    for row in table:
        subsets = [list(chosen) for chosen in itertools.combinations(range(4), row["size"])]
        means = np.stack([probabilities[chosen].mean(axis=0) for chosen in subsets])
        sums = np.stack([logits[chosen].sum(axis=0) for chosen in subsets])
        expected = {
            ("mean_probability", "accuracy"): (means.argmax(axis=-1) == labels).mean(axis=1),
            ("mean_probability", "nll"): -np.log(means[:, range(300), labels]).mean(axis=1),
            ("sum_logits", "accuracy"): (sums.argmax(axis=-1) == labels).mean(axis=1),
        }
        for (rule, metric), values in expected.items():
            assert row[rule][metric]["mean"] == pytest.approx(values.mean(), rel=1e-4)
            assert row[rule][metric]["std"] == pytest.approx(values.std(), abs=1e-5)
    whole = evaluation.scores(logits, labels)["rules"]
    for rule, metric in itertools.product(evaluation.RULES, ("accuracy", "nll", "brier", "ece")):
        assert table[-1][rule][metric]["mean"] == pytest.approx(whole[rule]["before"][metric])
        assert table[-1][rule][metric]["std"] == 0


def test_many_members_are_sampled():
    chosen = evaluation.subsets(14, 6)
    assert chosen.shape == (evaluation.MOST_SUBSETS, 14) and (chosen.sum(axis=1) == 6).all()
    assert len(np.unique(chosen, axis=0)) == len(chosen)
    np.testing.assert_array_equal(chosen, evaluation.subsets(14, 6))
    assert chosen.any(axis=0).all()
    assert len(evaluation.subsets(14, 13)) == 14 and len(evaluation.subsets(9, 4)) == 126


def test_detection():
    familiar, _ = predictions(n=200)
    unfamiliar, _ = predictions(n=50, seed=1, signal=0.0)
    found = evaluation.detection(familiar, unfamiliar)
    assert found["share"] == 0.2
    positive = np.arange(250) >= 200
    logits = np.concatenate([familiar, unfamiliar], axis=1).astype(np.float64)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)

    def entropy(p):
        return -(p * np.log(p)).sum(axis=-1)

    mean = probabilities.mean(axis=0)
    cases = [
        (found["ensemble"]["error_probability"], 1 - mean.max(axis=-1)),
        (found["ensemble"]["entropy"], entropy(mean)),
        (found["ensemble"]["mutual_information"], entropy(mean) - entropy(probabilities).mean(0)),
        (found["members"][2]["error_probability"], 1 - probabilities[2].max(axis=-1)),
        (found["members"][0]["entropy"], entropy(probabilities[0])),
    ]
    for got, score in cases:
        auroc = sklearn.metrics.roc_auc_score(positive, score)
        aupr = sklearn.metrics.average_precision_score(positive, score)
        assert got == pytest.approx({"auroc": auroc, "aupr": aupr}, rel=1e-3)


def test_plain():
    value = np.array([[0.123456789, np.nan], [-0.0, np.inf]])
    assert evaluation.plain(value) == [[0.123457, None], [0.0, None]]
    assert evaluation.plain(np.int32(3)) == 3 and type(evaluation.plain(np.int32(3))) is int


def test_unsure_keeps_most_right_answers_and_fewer_wrong_ones():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 2000)
    logits = rng.normal(0, 1, (3, 2000, 10)).astype(np.float32)
    logits[:, np.arange(2000), labels] += rng.gamma(2, 3, 2000).astype(np.float32)
    found = evaluation.unsure(logits, labels)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    mean = probabilities.mean(axis=0)
    entropy = -(mean * np.log(mean)).sum(axis=-1)
    right = mean.argmax(axis=-1) == labels
    assert found["right_kept"] == pytest.approx(0.95, abs=1e-3)
    assert found["right_kept"] == pytest.approx(
        (entropy[right] <= found["entropy"]).mean(), abs=2e-3
    )
    assert found["wrong_kept"] == pytest.approx(
        (entropy[~right] <= found["entropy"]).mean(), abs=2e-2
    )
    assert found["wrong_kept"] < 0.8
    assert evaluation.unsure(logits, (mean.argmax(axis=-1) + 1) % 10)["right_kept"] is None
