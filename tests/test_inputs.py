"""Images of any size and colour, in all the forms that users of the estimator have."""

import numpy as np
import pytest

from mnist_jax import inputs


def images(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 32, 3), (20, 30, 1), (224, 224, 3)])
@pytest.mark.parametrize("asked", [False, True])
def test_images_of_any_size_and_colour(shape, asked):
    pixels = images(5, *shape)
    wanted = shape if asked else None
    np.testing.assert_array_equal(inputs.as_images(pixels, wanted), pixels)
    np.testing.assert_array_equal(inputs.as_images(pixels.astype(int).tolist(), wanted), pixels)
    floats = np.float32(pixels / 255)
    np.testing.assert_array_equal(inputs.as_images(floats, wanted), floats)
    if shape[-1] == 1:
        np.testing.assert_array_equal(inputs.as_images(pixels[..., 0], wanted), pixels)
    if asked or shape == (28, 28, 1):  # otherwise a row does not tell its shape
        np.testing.assert_array_equal(inputs.as_images(pixels.reshape(5, -1), wanted), pixels)


@pytest.mark.parametrize(
    ("shape", "wanted", "message"),
    [
        (
            (5, 28, 28, 2),
            None,
            r"\[n, height, width, 1 or 3 channels\], \[n, height, width\] or \[n, 784",
        ),
        ((5, 28, 28, 4), None, r"not \(5, 28, 28, 4\)"),
        ((5, 3, 28, 28), None, r"not \(5, 3, 28, 28\)"),
        ((5, 3072), None, r"not \(5, 3072\)"),
        ((5, 28, 28, 1, 1), None, "with n > 0, not"),
        ((32, 32, 3), None, r"not \(32, 32, 3\)"),
        ((0, 32, 32, 3), None, r"not \(0, 32, 32, 3\)"),
        ((28, 28), None, r"not \(28, 28\): of one image, \[image\]"),
        ((32, 32, 3), (32, 32, 3), r"of one image, \[image\]"),
        ((5, 28, 28, 1), (32, 32, 3), r"\[n, 32, 32, 3\] or \[n, 3072\] with n > 0, not \(5, 28"),
        ((5, 32, 32), (32, 32, 3), r"not \(5, 32, 32\)"),
        ((5, 784), (32, 32, 3), r"not \(5, 784\)"),
        ((5, 32, 32, 3), (28, 28, 1), r"\[n, 28, 28, 1\], \[n, 28, 28\] or \[n, 784\] with n > 0"),
    ],
)
def test_other_shapes(shape, wanted, message):
    with pytest.raises(ValueError, match=message):
        inputs.as_images(images(*shape), wanted)
