"""The Classifier as scikit-learn uses it."""

import os
import pickle
import signal
import threading

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler

from mnist_jax.classifier import Classifier
from tests.tiny import Tiny, problem

NAMES = np.array(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])


def tiny(**options):
    return Classifier(
        **{"network": Tiny(), "epochs": 8, "batch_size": 20, "learning_rate": 0.02} | options
    )


@pytest.fixture(scope="module")
def fitted():
    images, labels = problem(200)
    return tiny(members=2).fit(images, NAMES[labels])


def test_it_learns_labels_of_any_kind(fitted):
    images, labels = problem(100, seed=1)
    assert fitted.score(images, NAMES[labels]) > 0.9
    assert fitted.predict(images).shape == (100,) and set(fitted.classes_) == set(NAMES)
    assert fitted.losses_.shape == (2, 80)


def test_probabilities(fitted):
    images, _ = problem(30, seed=1)
    probabilities = fitted.predict_proba(images)
    assert probabilities.shape == (30, 10) and (probabilities >= 0).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    logits = fitted.predict_logits(images)
    each = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(probabilities, each.mean(axis=0), rtol=1e-4, atol=1e-7)


def test_every_form_of_the_same_images(fitted):
    images, _ = problem(5, seed=1)
    wanted = fitted.predict_proba(images)
    as_floats = (images / 255).astype(np.float64)
    for same in (images[..., 0], images.reshape(5, 784), images.astype(int), as_floats):
        np.testing.assert_allclose(fitted.predict_proba(same), wanted, rtol=1e-4, atol=1e-6)


def test_cross_val_score_and_pipeline():
    images, labels = problem(150)
    scores = cross_val_score(tiny(), images, NAMES[labels], cv=2)
    assert scores.shape == (2,) and scores.min() > 0.7
    pipeline = make_pipeline(MinMaxScaler((0, 1), clip=True), tiny())
    assert (
        pipeline.fit(images.reshape(150, 784), labels).score(images.reshape(150, 784), labels) > 0.9
    )


def test_clone_and_pickle(fitted):
    assert clone(fitted).get_params()["members"] == 2
    images, _ = problem(5)
    copy = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(copy.predict_proba(images), fitted.predict_proba(images))


def test_an_interrupt_keeps_what_is_trained():
    images, labels = problem(200)
    classifier = tiny(epochs=100_000)
    timer = threading.Timer(8, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    classifier.fit(images, labels)
    assert 0 < classifier.losses_.shape[1] < 1_000_000
    assert classifier.predict(images).shape == (200,)


def test_before_fit():
    with pytest.raises(NotFittedError):
        tiny().predict(problem(2)[0])


IMAGES, LABELS = problem(40)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (IMAGES[:, :20], LABELS, "images must be .*not .40, 20, 28, 1."),
        (IMAGES[:0], LABELS[:0], r"n > 0, not \(0, 28, 28, 1\)"),
        (IMAGES.astype(float), LABELS, r"floats must be in \[0, 1\], not 0 to 255; divide"),
        (IMAGES / 255 - 0.5, LABELS, r"floats must be in \[0, 1\], not -0.5"),
        (np.where(IMAGES > 200, np.nan, 0.5), LABELS, "floats must be in .* nan"),
        (IMAGES.astype(int) * 2, LABELS, "whole numbers must be 0 to 255, not 0 to 510"),
        (IMAGES.astype(str), LABELS, "images must be whole numbers or floats, not <U3"),
        (IMAGES, LABELS[:39], r"labels must be \[40\], one an image, not \(39,\)"),
        (IMAGES, LABELS[:, None], r"labels must be \[40\]"),
        (IMAGES, np.zeros(40), "labels must have at least 2 classes, not 1"),
    ],
)
def test_wrong_data(images, labels, message):
    with pytest.raises(ValueError, match=message):
        tiny().fit(images, labels)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"members": 0}, "members must be at least 1"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"batch_size": 41}, "batch_size must be from 1 to the 40"),
        ({"batch_size": 0}, "batch_size must be from 1 to the 40"),
        ({"network": "dep"}, "Did you mean 'deep'"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        tiny(**options).fit(IMAGES, LABELS)
