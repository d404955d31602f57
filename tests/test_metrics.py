"""Metrics against scikit-learn, and by hand where it has none."""

import jax
import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from mnist_jax import metrics


@pytest.fixture
def predictions():
    rng = np.random.default_rng(0)
    return rng.normal(size=(3, 50, 10)).astype(np.float32), rng.integers(0, 10, 50)


def softmax(logits):
    return np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)


def binary(confidences):
    """Logits of two classes; class 0 gets these probabilities."""
    confidences = np.asarray(confidences)
    with np.errstate(divide="ignore"):
        return np.log(np.stack([confidences, 1 - confidences], axis=-1)).astype(np.float32)


@pytest.mark.parametrize(
    ("metric", "reference"),
    [
        (
            metrics.accuracy,
            lambda labels, p: sklearn.metrics.accuracy_score(labels, p.argmax(axis=1)),
        ),
        (metrics.nll, lambda labels, p: sklearn.metrics.log_loss(labels, p, labels=range(10))),
        (
            metrics.brier,
            lambda labels, p: sklearn.metrics.brier_score_loss(
                labels, p / p.sum(axis=1, keepdims=True), labels=range(10), scale_by_half=False
            ),
        ),
        (
            metrics.confusion_matrix,
            lambda labels, p: sklearn.metrics.confusion_matrix(
                labels, p.argmax(axis=1), labels=range(10)
            ),
        ),
    ],
)
def test_each_members_metric_is_scikit_learns(predictions, metric, reference):
    logits, labels = predictions
    of_all = jax.jit(metric)(logits, labels)
    for i in range(3):
        expected = reference(labels, softmax(logits[i].astype(np.float64)))
        np.testing.assert_allclose(of_all[i], expected, rtol=1e-5)
        np.testing.assert_allclose(metric(logits[i], labels), expected, rtol=1e-5)


def test_nll_of_far_too_sure_logits_is_finite():
    assert metrics.nll(np.array([[1e4, 0.0]], np.float32), np.array([1])) == pytest.approx(1e4)


def test_brier_goes_from_0_to_2():
    sure = np.array([[1e4, 0.0]], np.float32)
    assert metrics.brier(sure, np.array([0])) == 0
    assert metrics.brier(sure, np.array([1])) == 2


def test_calibration_by_hand():
    # Four bins of equal width. 0.5 belongs to (0.25, 0.5], and that bin is right half of the time;
    # (0.5, 0.75] has one image, wrong; (0.75, 1] has 0.8, 0.9, 0.9 and is right twice of three.
    logits = binary([0.5, 0.5, 0.6, 0.8, 0.9, 0.9])
    labels = np.array([0, 1, 1, 0, 0, 1])
    curve = metrics.reliability(logits, labels, bins=4)
    np.testing.assert_array_equal(curve.images, [0, 2, 1, 3])
    np.testing.assert_allclose(curve.accuracy, [np.nan, 0.5, 0, 2 / 3], rtol=1e-6)
    np.testing.assert_allclose(curve.confidence, [np.nan, 0.5, 0.6, 2.6 / 3], rtol=1e-6)
    expected = (2 * 0 + 1 * 0.6 + 3 * 0.2) / 6
    assert metrics.ece(logits, labels, bins=4) == pytest.approx(expected, rel=1e-5)
    assert metrics.max_calibration_error(logits, labels, bins=4) == pytest.approx(0.6, rel=1e-5)


def test_equal_mass_calibration_by_hand():
    # Three bins of two images: 0.6, 0.7; 0.8, 0.8; 0.8, 0.9. The three images of 0.8 are right
    # twice of three, and it must not matter which of them falls into which bin.
    confidences = np.array([0.6, 0.7, 0.8, 0.8, 0.8, 0.9])
    labels = np.array([0, 1, 1, 0, 0, 0])
    curve = metrics.reliability(binary(confidences), labels, bins=3, equal_mass=True)
    np.testing.assert_array_equal(curve.images, [2, 2, 2])
    np.testing.assert_allclose(curve.confidence, [0.65, 0.8, 0.85], rtol=1e-6)
    np.testing.assert_allclose(curve.accuracy, [0.5, 2 / 3, 5 / 6], rtol=1e-6)
    gaps = np.array([0.15, 0.8 - 2 / 3, 0.85 - 5 / 6])
    for order in (np.arange(6), np.arange(6)[::-1], np.array([3, 1, 5, 4, 2, 0])):
        args = binary(confidences[order]), labels[order], 3
        ece = metrics.ece(*args, equal_mass=True)
        assert ece == pytest.approx(gaps.mean(), rel=1e-5)
        mce = metrics.max_calibration_error(*args, equal_mass=True)
        assert mce == pytest.approx(0.15, rel=1e-5)


@pytest.mark.parametrize("equal_mass", [False, True])
def test_calibration_of_each_member_and_against_numpy(predictions, equal_mass):
    logits, labels = predictions
    bins = 7
    curve = metrics.reliability(logits, labels, bins, equal_mass)
    assert curve.images.shape == (3, bins) and (curve.images.sum(axis=1) == 50).all()
    if equal_mass:
        assert set(np.unique(curve.images)) == {7, 8}
    for i in range(3):
        probabilities = softmax(logits[i])
        confidences, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
        bin_of = np.ceil(confidences * bins) - 1
        if equal_mass:
            bin_of = np.arange(50)[confidences.argsort().argsort()] * bins // 50
        ece = sum(
            abs((right - confidences.astype(np.float64))[bin_of == b].sum()) / 50
            for b in range(bins)
        )
        np.testing.assert_allclose(metrics.ece(logits, labels, bins, equal_mass)[i], ece, rtol=1e-5)


def test_ece_of_many_sure_images_keeps_its_digits():
    confidences = np.full(200_000, 1 - 1e-4)
    labels = (np.arange(200_000) % 20_000 == 0).astype(int)  # 10 wrong: accuracy 1 - 5e-5
    for equal_mass in (False, True):
        ece = metrics.ece(binary(confidences), labels, equal_mass=equal_mass)
        assert ece == pytest.approx(5e-5, rel=0.01)


@pytest.mark.parametrize("equal_mass", [False, True])
def test_fewer_images_than_bins(equal_mass):
    logits, labels = binary([0.75, 1.0]), np.array([0, 0])
    assert metrics.ece(logits, labels, equal_mass=equal_mass) == pytest.approx(0.125)
    mce = metrics.max_calibration_error(logits, labels, equal_mass=equal_mass)
    assert mce == pytest.approx(0.25)


def test_bins_below_1_are_refused():
    with pytest.raises(ValueError, match="bins must be at least 1, not 0"):
        metrics.ece(binary([0.5]), np.array([0]), bins=0)


# Few values, infinities among them, so that there are many ties.
SCORES = st.sampled_from([-np.inf, -1.0, 0.0, 1e-30, 0.5, 0.5000001, 1.0, np.inf])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(SCORES, st.booleans()), min_size=12, max_size=12))
def test_auroc_and_aupr_with_ties_are_scikit_learns(pairs):
    scores, positive = np.array([p[0] for p in pairs], np.float32), np.array([p[1] for p in pairs])
    if positive.all() or not positive.any():
        assert np.isnan(metrics.auroc(scores, positive))
        assert np.isnan(metrics.aupr(scores, positive))
        return
    ranks = np.searchsorted(np.unique(scores), scores)  # scikit-learn takes no infinities
    expected = sklearn.metrics.roc_auc_score(positive, ranks)
    assert metrics.auroc(scores, positive) == pytest.approx(expected, rel=1e-5, abs=1e-6)
    expected = sklearn.metrics.average_precision_score(positive, ranks)
    assert metrics.aupr(scores, positive) == pytest.approx(expected, rel=1e-5)


def test_auroc_and_aupr_of_many_scores_a_row_each():
    rng = np.random.default_rng(0)
    positive = np.arange(30_000) < 20_000
    scores = np.round(rng.normal(size=(2, 30_000)) + positive, 3).astype(np.float32)
    for i in range(2):
        auroc = sklearn.metrics.roc_auc_score(positive, scores[i])
        assert metrics.auroc(scores, positive)[i] == pytest.approx(auroc, abs=1e-6)
        aupr = sklearn.metrics.average_precision_score(positive, scores[i])
        assert metrics.aupr(scores, positive)[i] == pytest.approx(aupr, abs=1e-6)


def test_risk_coverage_by_hand():
    # Most confident first: right, then two of one confidence of which one is wrong, then wrong.
    confidences, correct = np.array([0.5, 0.9, 0.7, 0.7]), np.array([False, True, False, True])
    expected = [0, 0.5 / 2, 1 / 3, 2 / 4]
    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]):
        curve = metrics.risk_coverage(confidences[order], correct[order])
        np.testing.assert_allclose(curve, expected, rtol=1e-6)
        area = metrics.aurc(confidences[order], correct[order])
        assert area == pytest.approx(np.mean(expected), rel=1e-6)


def test_risk_coverage_among_ties_is_the_mean_over_orders():
    rng = np.random.default_rng(0)
    confidences, correct = rng.integers(0, 4, 30), rng.random(30) < 0.7
    curves = []
    for _ in range(4000):
        order = np.lexsort((rng.random(30), -confidences))
        curves.append(np.cumsum(~correct[order]) / np.arange(1, 31))
    np.testing.assert_allclose(
        metrics.risk_coverage(confidences, correct), np.mean(curves, axis=0), atol=0.03
    )


def test_risk_coverage_of_rows_and_extremes():
    correct = np.array([[True, True, True], [False, False, False], [True, False, False]])
    curve = metrics.risk_coverage(np.zeros((3, 3)), correct)
    np.testing.assert_allclose(curve, [[0] * 3, [1] * 3, [2 / 3] * 3], rtol=1e-6)
    np.testing.assert_allclose(metrics.aurc(np.zeros((3, 3)), correct), [0, 1, 2 / 3], rtol=1e-6)
