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


def colourful(n, height=32, width=32, seed=0):
    return np.random.default_rng(seed).random((n, height, width, 3), np.float32)


@pytest.mark.parametrize(
    ("shape", "pixels"), [((32, 32), None), ((32, 32), 2), ((28, 28), None), ((24, 40), None)]
)
def test_crop_flip_is_numpys_window_of_the_padded_image(shape, pixels):
    images = colourful(300, *shape)
    changed = np.asarray(augment.crop_flip(images, jax.random.key(0), pixels))
    reach = min(shape) // 8 if pixels is None else pixels
    assert reach == {(32, 32): 4, (28, 28): 3, (24, 40): 3}[shape] or pixels
    pads = ((0, 0), (reach, reach), (reach, reach), (0, 0))
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(images, pads), shape, axis=(1, 2))
    windows = np.moveaxis(windows, 3, -1)  # [n, down, across, height, width, channels]
    found = []
    for image, result in zip(windows, changed, strict=True):
        for mirrored, wanted in enumerate((result, result[:, ::-1])):
            same = (image == wanted).all(axis=(2, 3, 4))
            found += [(mirrored, *place) for place in np.argwhere(same).tolist()]
    assert len(found) == len(images)  # each is exactly one of them
    flips, downs, acrosses = np.array(found).T
    assert 0.4 < flips.mean() < 0.6
    for places in (downs, acrosses):  # all of them occur, as often in both halves
        assert set(places) == set(range(2 * reach + 1))
        assert abs(places.mean() - reach) < 0.2 * reach
    assert abs(np.corrcoef([flips, downs, acrosses]) - np.eye(3)).max() < 0.2


@pytest.mark.parametrize("name", ["shift", "affine"])
def test_in_colours_each_channel_changes_alike(name):
    images, key = colourful(20, 24, 40), jax.random.key(3)
    together = np.asarray(getattr(augment, name)(images, key))
    apart = [getattr(augment, name)(images[..., i : i + 1], key) for i in range(3)]
    np.testing.assert_allclose(together, np.concatenate(apart, axis=-1), atol=1e-6)


@pytest.mark.parametrize("shape", [(32, 32, 3), (28, 28, 3), (32, 32, 1)])
def test_handwriting_is_for_digits_alone(shape):
    change = augment.create("handwriting")
    with pytest.raises(ValueError, match=r"is for digits of 28 x 28 x 1, not .* images"):
        change(np.zeros((2, *shape), np.float32), np.zeros(2, np.int32), jax.random.key(0))


def test_another_key_is_another_change(images):
    for function in (augment.shift, augment.affine, augment.crop_flip):
        one, same, other = (np.asarray(function(images, jax.random.key(i))) for i in (0, 0, 1))
        np.testing.assert_array_equal(one, same)
        assert (one != other).any(axis=(1, 2, 3)).mean() > 0.8
        assert one.shape == images.shape and one.min() >= 0 and one.max() <= 1 + 1e-6


def test_names():
    assert augment.create("none") is None
    with pytest.raises(
        ValueError, match="one of none, shift, affine, crop-flip, handwriting, symmetries, not"
    ):
        augment.create("flip")


def test_training_sees_changed_images_each_step_and_member_others():
    """Members of the same weights and batches differ only by what augmentation makes of them."""
    _, plain = train([3, 3])
    _, changed = train([3, 4], augment=augment.create("shift"))
    _, again = train([3, 4], augment=augment.create("shift"))
    np.testing.assert_array_equal(plain[0], plain[1])
    np.testing.assert_array_equal(changed, again)
    assert abs(plain[0] - changed[0]).min() > 0
