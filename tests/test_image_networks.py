"""What all networks of images can do first: scale and standardise, by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnist_jax import models
from mnist_jax.models.images import scale


def test_scaling_up_by_hand():
    """Pixels have their values at their middles; between them it is linear."""
    image = np.array([[0.0, 1.0], [0.0, 1.0]])[None, :, :, None]
    row = [0, 0.25, 0.75, 1]
    np.testing.assert_allclose(scale(jnp.array(image), 4)[0, ..., 0], [row] * 4, atol=1e-6)


def test_scaling_down_averages():
    image = np.random.default_rng(0).random((2, 40, 40, 3)).astype(np.float32)
    small = scale(jnp.array(image), 10)
    assert small.shape == (2, 10, 10, 3)
    np.testing.assert_allclose(small.mean((1, 2)), image.mean((1, 2)), atol=0.02)
    assert small.std() < 0.5 * image.std()  # single pixels of it would deviate as much


def test_the_middle_of_a_long_image_is_cut_out():
    image = np.arange(5 * 9).reshape(1, 5, 9, 1).astype(np.float32)
    np.testing.assert_array_equal(scale(jnp.array(image), 5), image[:, :, 2:7])
    np.testing.assert_array_equal(scale(jnp.array(image.swapaxes(1, 2)), 5)[0].shape, (5, 5, 1))


@pytest.mark.parametrize("name", ["simple", "fast", "lenet5", "resnet20"])
def test_images_are_standardised_first(name):
    """With mean and deviation on images as without on standardised ones."""
    images = np.random.default_rng(0).random((2, 28, 28, 3)).astype(np.float32)
    mean, stddev = (0.1, 0.5, 0.2), (0.5, 2.0, 0.25)
    plain, standard = models.create(name), models.create(name, mean=mean, stddev=stddev)
    variables = jax.jit(plain.init)(jax.random.key(0), images)
    wanted = plain.apply(variables, (images - mean) / np.array(stddev))
    np.testing.assert_allclose(standard.apply(variables, images), wanted, rtol=1e-3, atol=1e-4)
    with pytest.raises(ValueError, match="must be of the 1 channels of the images, not of 3 and 3"):
        standard.apply(variables, images[..., :1])


def test_alexnet_of_digits_at_its_own_size():
    network = models.create("alexnet", image_size=67)
    images = jnp.zeros((1, 28, 28, 1))
    logits = jax.eval_shape(network.init_with_output, jax.random.key(0), images)[0]
    assert logits.shape == (1, 10)
