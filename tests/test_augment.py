"""Augmentation, against NumPy's and SciPy's way of moving images."""

import jax
import numpy as np
import pytest
from scipy import ndimage

from mnist_jax import augment, training
from tests.tiny import problem, train


@pytest.fixture(scope="module")
def images():
    return np.asarray(training.to_float(jax.numpy.asarray(problem(200)[0])))


def shifted(image, down, across):
    return ndimage.shift(image, (down, across, 0), order=0, prefilter=False)


def test_shift_moves_each_image_by_whole_pixels(images):
    moved = np.asarray(augment.shift(images, jax.random.key(0), pixels=1))
    places = []
    for image, result in zip(images, moved, strict=True):
        found = [
            (down, across)
            for down in (-1, 0, 1)
            for across in (-1, 0, 1)
            if np.array_equal(shifted(image, down, across), result)
        ]
        assert len(found) == 1
        places += found
    assert len(set(places)) == 9  # all of them occur


@pytest.mark.parametrize(
    ("degrees", "scale", "pixels"), [(0, 0, 0), (10, 0, 0), (0, 0.1, 0), (0, 0, 2), (30, 0.2, 3)]
)
def test_affine_is_scipys(images, degrees, scale, pixels):
    key = jax.random.key(1)
    moved = augment.affine(images[:20], key, degrees, scale, pixels)
    uniform = [
        np.asarray(jax.random.uniform(k, shape, minval=-1))
        for k, shape in zip(jax.random.split(key, 3), [(20,), (20,), (20, 2)], strict=True)
    ]
    centre = np.array([13.5, 13.5])
    for i, image in enumerate(images[:20]):
        angle, size, move = np.deg2rad(degrees) * uniform[0][i], 1 + scale * uniform[1][i], pixels
        cos, sin = np.cos(angle), np.sin(angle)
        matrix = np.array([[cos, -sin], [sin, cos]]) / size
        offset = centre - matrix @ (centre + move * uniform[2][i])
        wanted = ndimage.affine_transform(
            image[..., 0], matrix, offset, order=1, mode="grid-constant"
        )
        np.testing.assert_allclose(moved[i, ..., 0], wanted, atol=1e-4)


def test_another_key_is_another_change(images):
    for function in (augment.shift, augment.affine):
        one, same, other = (np.asarray(function(images, jax.random.key(i))) for i in (0, 0, 1))
        np.testing.assert_array_equal(one, same)
        assert (one != other).any(axis=(1, 2, 3)).mean() > 0.8
        assert one.shape == images.shape and one.min() >= 0 and one.max() <= 1 + 1e-6


def test_names():
    assert augment.create("none") is None
    with pytest.raises(ValueError, match="must be one of none, shift, affine, handwriting, not 'f"):
        augment.create("flip")


def test_training_sees_changed_images_each_step_and_member_others():
    """Members of the same weights and batches differ only by what augmentation makes of them."""
    _, plain = train([3, 3])
    _, changed = train([3, 4], augment=augment.create("shift"))
    _, again = train([3, 4], augment=augment.create("shift"))
    np.testing.assert_array_equal(plain[0], plain[1])
    np.testing.assert_array_equal(changed, again)
    assert abs(plain[0] - changed[0]).min() > 0
