"""Combining members, against NumPy."""

import numpy as np
import pytest

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


def test_majority_vote_by_hand():
    # Image 0: two votes for class 0 beat a far surer one for class 1. Image 1: one vote each, and
    # the mean probability decides for class 2.
    probabilities = np.array(
        [
            [[0.51, 0.49, 0.0], [0.5, 0.2, 0.3]],
            [[0.51, 0.49, 0.0], [0.1, 0.5, 0.4]],
            [[0.0, 1.0, 0.0], [0.1, 0.1, 0.8]],
        ]
    )
    with np.errstate(divide="ignore"):
        voted = np.exp(ensemble.majority_vote(np.log(probabilities)))
    np.testing.assert_allclose(voted[0], [2.34 / 4, 1.66 / 4, 0], rtol=1e-5)
    np.testing.assert_allclose(voted[1], (1 + probabilities[:, 1].mean(axis=0)) / 4, rtol=1e-5)
    assert voted.argmax(axis=1).tolist() == [0, 2]


def test_majority_vote_is_the_most_frequent_class():
    logits = np.random.default_rng(0).normal(0, 5, (7, 300, 4)).astype(np.float32)
    votes = np.stack([np.bincount(column, minlength=4) for column in logits.argmax(axis=-1).T])
    voted = np.asarray(ensemble.majority_vote(logits))
    best = voted.argmax(axis=1)
    assert (votes[np.arange(300), best] == votes.max(axis=1)).all()
    np.testing.assert_allclose(np.exp(voted).sum(axis=1), 1, rtol=1e-5)
    tied = (votes == votes.max(axis=1, keepdims=True)).sum(axis=1) > 1
    assert tied.sum() > 10
    mean = np.where(
        votes == votes.max(axis=1, keepdims=True), ensemble.mean_probability(logits), -np.inf
    )
    np.testing.assert_array_equal(best[tied], mean[tied].argmax(axis=1))


@pytest.mark.parametrize(
    "rule", [ensemble.sum_logits, ensemble.mean_probability, ensemble.majority_vote]
)
def test_weights_leave_members_out_or_count_them_twice(rule):
    logits = np.random.default_rng(0).normal(0, 3, (4, 20, 5)).astype(np.float32)
    some = rule(logits[[0, 2, 2]])
    np.testing.assert_allclose(rule(logits, weights=[1, 0, 2, 0]), some, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(rule(logits, weights=np.ones(4)), rule(logits))
