"""Metrics against scikit-learn."""

import numpy as np
import pytest
import sklearn.metrics

from mnist_jax import metrics


@pytest.fixture
def predictions():
    rng = np.random.default_rng(0)
    return rng.normal(size=(3, 50, 10)).astype(np.float32), rng.integers(0, 10, 50)


def test_accuracy_and_nll_of_each_member(predictions):
    logits, labels = predictions
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    for i in range(3):
        accuracy = sklearn.metrics.accuracy_score(labels, logits[i].argmax(axis=1))
        nll = sklearn.metrics.log_loss(labels, probabilities[i], labels=range(10))
        np.testing.assert_allclose(metrics.accuracy(logits, labels)[i], accuracy, rtol=1e-6)
        np.testing.assert_allclose(metrics.nll(logits[i], labels), nll, rtol=1e-5)
        np.testing.assert_allclose(metrics.nll(logits, labels)[i], nll, rtol=1e-5)


def test_nll_of_far_too_sure_logits_is_finite():
    assert metrics.nll(np.array([[1e4, 0.0]], np.float32), np.array([1])) == pytest.approx(1e4)
