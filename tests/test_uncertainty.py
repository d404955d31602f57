"""Uncertainty against SciPy and NumPy, and by hand."""

import jax
import numpy as np
import pytest
import scipy.stats

from mnist_jax import uncertainty


def softmax(logits):
    return np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)


@pytest.fixture
def logits():
    return np.random.default_rng(0).normal(0, 3, (4, 60, 10)).astype(np.float32)


def test_entropy_and_error_probability(logits):
    probabilities = softmax(logits.astype(np.float64))
    np.testing.assert_allclose(
        uncertainty.entropy(logits), scipy.stats.entropy(probabilities, axis=-1), atol=1e-6
    )
    np.testing.assert_allclose(
        uncertainty.error_probability(logits), 1 - probabilities.max(axis=-1), rtol=1e-5
    )


def test_extremes():
    logits = np.array([[0, 0, 0, 0], [1e4, 0, 0, 0], [30, 0, 0, -np.inf]], np.float32)
    np.testing.assert_allclose(uncertainty.entropy(logits)[:2], [np.log(4), 0], rtol=1e-6)
    # In float32, 1 - 1.9e-13 is 1: the sum of the others still tells it from certainty.
    np.testing.assert_allclose(
        uncertainty.error_probability(logits), [0.75, 0, 2 * np.exp(-30)], rtol=1e-5
    )
    assert uncertainty.entropy(logits)[2] > 0


def test_decomposition(logits):
    probabilities = softmax(logits.astype(np.float64))
    mean = probabilities.mean(axis=0)
    parts = jax.jit(uncertainty.decompose)(logits)
    divergences = scipy.stats.entropy(probabilities, mean[None], axis=-1)  # of each from the mean
    np.testing.assert_allclose(parts.epistemic, divergences.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(parts.total, parts.aleatoric + parts.epistemic, atol=1e-6)
    np.testing.assert_allclose(parts.total, scipy.stats.entropy(mean, axis=-1), atol=1e-6)


def test_decomposition_of_members_that_agree_and_that_do_not(logits):
    same = uncertainty.decompose(np.stack([logits[0]] * 7))
    assert (same.epistemic >= 0).all() and (same.epistemic < 1e-6).all()
    opposed = np.array([[[1e4, 0.0]], [[0.0, 1e4]]], np.float32)
    parts = uncertainty.decompose(opposed)
    np.testing.assert_allclose(
        [parts.total, parts.aleatoric, parts.epistemic], [[np.log(2)], [0], [np.log(2)]], atol=1e-6
    )


def test_disagreement_and_error_correlation_against_numpy(logits):
    rng = np.random.default_rng(1)
    labels = np.where(rng.random(60) < 0.5, logits.sum(axis=0).argmax(axis=-1), 0)
    classes = logits.argmax(axis=-1)
    pairs = [(i, j) for i in range(4) for j in range(i)]
    differing = np.mean([(classes[i] != classes[j]).mean() for i, j in pairs])
    assert uncertainty.disagreement(logits) == pytest.approx(differing, rel=1e-5)
    wrong = classes != labels
    correlation = np.mean([np.corrcoef(wrong[i], wrong[j])[0, 1] for i, j in pairs])
    assert uncertainty.error_correlation(logits, labels) == pytest.approx(correlation, rel=1e-4)


def test_diversity_of_one_member_and_of_members_without_errors():
    labels = np.array([0, 1, 2])
    right = np.eye(3)
    turned = np.eye(3)[[1, 0, 2]]  # wrong on the first two
    assert np.isnan(uncertainty.disagreement(right[None]))
    assert np.isnan(uncertainty.error_correlation(turned[None], labels))
    assert np.isnan(uncertainty.error_correlation(np.stack([right, turned]), labels))
    assert uncertainty.disagreement(np.stack([right, turned])) == pytest.approx(2 / 3)
    three = np.stack([right, turned, turned])
    assert uncertainty.error_correlation(three, labels) == pytest.approx(1)
    assert uncertainty.disagreement(three) == pytest.approx(4 / 9)
    assert uncertainty.disagreement(np.stack([right] * 7)) == 0


def test_the_threshold_keeps_its_part_of_the_right_answers():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (4000, 10)).astype(np.float32)
    labels = np.where(rng.random(4000) < 0.7, logits.argmax(axis=1), rng.integers(0, 10, 4000))
    found = uncertainty.threshold(logits, labels, 0.9)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    entropy = -(probabilities * np.log(probabilities)).sum(axis=1)
    right = logits.argmax(axis=1) == labels
    assert (entropy[right] <= found + 1e-5).mean() == pytest.approx(0.9, abs=1e-3)
    assert uncertainty.threshold(logits, (logits.argmax(axis=1) + 1) % 10) == float("inf")
