"""Combining members, against NumPy."""

import numpy as np

from mnist_jax import ensemble


def test_rules_by_hand():
    # Two members, one image: the second is very sure of class 1, the first fairly of class 0.
    logits = np.log(np.array([[[0.8, 0.2]], [[0.01, 0.99]]]))
    np.testing.assert_allclose(ensemble.sum_logits(logits), np.log([[0.008, 0.198]]), rtol=1e-5)
    np.testing.assert_allclose(
        np.exp(ensemble.mean_probability(logits)), [[0.405, 0.595]], rtol=1e-5
    )


def test_mean_probability_is_a_distribution_and_stable():
    logits = np.array([[[1e4, 0.0, 0.0]], [[0.0, -1e4, 0.0]]], np.float32)
    probabilities = np.exp(ensemble.mean_probability(logits))
    np.testing.assert_allclose(probabilities, [[0.75, 0.0, 0.25]], rtol=1e-6)


def test_one_member_is_itself():
    logits = np.random.default_rng(0).normal(size=(1, 5, 10)).astype(np.float32)
    np.testing.assert_array_equal(ensemble.sum_logits(logits), logits[0])
    exact = np.exp(logits[0]) / np.exp(logits[0]).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(np.exp(ensemble.mean_probability(logits)), exact, rtol=1e-5)
