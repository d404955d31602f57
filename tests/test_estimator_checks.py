"""scikit-learn's own checks of an estimator, which bring data of their own."""

import numpy as np
import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks
from sklearn.utils.validation import validate_data

from mnist_jax import inputs, models
from mnist_jax.classifier import Classifier
from tests.tiny import Tiny


class Striped(Classifier):
    """A Classifier of tables: each feature is a stripe of a picture, as bright as it is large."""

    def _pixels(self, images, reset):
        table = validate_data(self, images, dtype=float, reset=reset)
        if reset:
            self.low_, self.high_ = table.min(axis=0), table.max(axis=0)
        span = np.where(self.high_ > self.low_, self.high_ - self.low_, 1)
        stripes = np.repeat(np.clip((table - self.low_) / span, 0, 1), 784, axis=1)
        return inputs.as_images(stripes[:, :: table.shape[1]])


@pytest.fixture(autouse=True)
def tiny_by_name(monkeypatch):
    monkeypatch.setitem(models._NETWORKS, "simple", Tiny)


def failures(estimator):
    """The checks that cannot hold, and why."""
    return {
        "check_sample_weight_equivalence_on_dense_data": "an image given twice is in two batches, "
        "one of weight 2 in one; that weight 0 leaves an image out is tested in test_classifier"
    }


@parametrize_with_checks(
    [Striped("simple", epochs=8, batch_size=20, learning_rate=0.02)],
    expected_failed_checks=failures,
)
def test_check_estimator(estimator, check):
    check(estimator)
