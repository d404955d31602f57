"""What arrays must be for training, and what is counted of a split's images."""

import numpy as np
import pytest

from mnist_jax import data
from mnist_jax.data import Split


@pytest.mark.parametrize("shape", [(3, 5, 7, 3), (700, 8, 8, 1), (256, 4, 4, 3), (1, 1, 1, 1)])
def test_statistics_are_numpys(shape):
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    mean, std = data.statistics(Split(images, np.zeros(len(images), np.int32)))
    floats = images.astype(np.float64) / 255
    np.testing.assert_allclose(mean, floats.mean(axis=(0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(std, floats.std(axis=(0, 1, 2)), rtol=1e-12)
    assert len(mean) == len(std) == shape[-1]
    assert all(type(value) is float for value in (*mean, *std))


def test_statistics_by_hand():
    images = np.zeros((2, 1, 2, 2), np.uint8)
    images[..., 0], images[0, ..., 1] = 255, 255
    found = data.statistics(Split(images, np.zeros(2, np.int32)))
    assert found == data.Statistics(mean=(1.0, 0.5), std=(0.0, 0.5))


@pytest.mark.parametrize(
    ("images", "error"),
    [
        (np.zeros((3, 4, 4, 1), np.float32), TypeError),
        (np.zeros((3, 9), np.int32), TypeError),
        (np.zeros((3, 4, 4), np.uint8), ValueError),
        (np.zeros((0, 4, 4, 1), np.uint8), ValueError),
    ],
)
def test_statistics_are_of_images(images, error):
    with pytest.raises(error, match="images must be"):
        data.statistics(Split(images, np.zeros(len(images), np.int32)))


@pytest.mark.parametrize(
    "inputs",
    [
        np.zeros((3, 5, 9, 3), np.uint8),
        np.ones((3, 224, 2, 1), np.float32),
        np.full((3, 7), 2**31 - 1, np.int32),
        np.zeros((3, 1), np.int32),
    ],
)
def test_images_and_tokens(inputs):
    data.check(inputs)
    data.check(inputs, np.array([0, 1, 2]), num_classes=3)
    with pytest.raises(ValueError, match="labels must be 0 to 1, not 0 to 2"):
        data.check(inputs, np.array([0, 1, 2]), num_classes=2)
    what = "a sentence" if inputs.ndim == 2 else "an image"
    with pytest.raises(ValueError, match=rf"labels must be \[3\], one {what}, not \(4,\)"):
        data.check(inputs, np.zeros(4, int))


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        (np.zeros((3, 7), np.int64), TypeError, "uint8 or float32, not int64"),
        (np.zeros((3, 4, 4, 1), np.int32), TypeError, "images must be uint8 or float32, not int32"),
        (np.zeros((3, 7), np.uint8), ValueError, r"\[n, height, width, channels\], not \(3, 7\)"),
        (np.zeros(7, np.int32), ValueError, r"tokens must be \[n, length\], not \(7,\)"),
        (np.zeros((3, 4, 5), np.int32), ValueError, r"tokens must be .* not \(3, 4, 5\)"),
        (np.zeros((3, 0), np.int32), ValueError, r"tokens must be .* not \(3, 0\)"),
        (np.zeros((0, 3), np.int32), ValueError, r"tokens must be .* not \(0, 3\)"),
        (np.array([[1, -1]], np.int32), ValueError, "tokens must be at least 0, not -1"),
        (np.full((1, 2, 2, 1), 1.1, np.float32), ValueError, r"in \[0, 1\], not 1.1 to 1.1"),
    ],
)
def test_other_inputs(inputs, error, message):
    with pytest.raises(error, match=message):
        data.check(inputs)
