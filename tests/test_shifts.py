"""Shifts: small cases by hand, and what must hold for each."""

import numpy as np
import pytest
from scipy import ndimage

from mnist_jax import data, shifts


@pytest.fixture(scope="module")
def digits():
    return data.load("mnist5k").test.inputs[:200]


@pytest.mark.parametrize("name", shifts.NAMES)
def test_each_strength(name, digits):
    before = digits.copy()
    np.testing.assert_array_equal(shifts.apply(name, digits, 0), digits)
    changes = []
    for strength in range(1, 6):
        shifted = shifts.apply(name, digits, strength, seed=3)
        assert shifted.dtype == np.uint8 and shifted.shape == digits.shape
        np.testing.assert_array_equal(shifted, shifts.apply(name, digits, strength, seed=3))
        changes.append(np.abs(shifted - digits.astype(float)).mean())
    np.testing.assert_array_equal(digits, before)
    if name == "translation":  # a stroke that has left its place altogether changes no more
        changes = changes[:4]
    assert changes[0] > 1 and (np.diff(changes) > 0).all(), changes
    drawn = name in ("noise", "translation", "occlusion")
    other_seed = shifts.apply(name, digits, 5, seed=4)
    assert (other_seed == shifted).all() != drawn


def pattern(*shape):
    """Noise, smooth enough to be blurred and moved."""
    noise = np.random.default_rng(0).integers(0, 256, (shape[0], 4, 4, shape[-1]))
    zoom = (1, shape[1] / 4, shape[2] / 4, 1)
    return ndimage.zoom(noise.astype(float), zoom, order=1).astype(np.uint8)


@pytest.mark.parametrize(
    "shape", [(9, 32, 32, 3), (5, 64, 64, 1), (4, 30, 50, 3), (300, 20, 24, 3)]
)
@pytest.mark.parametrize("name", shifts.NAMES)
def test_colours_and_other_sizes(name, shape):
    images = pattern(*shape)
    before, changes = images.copy(), []
    for strength in range(6):
        shifted = shifts.apply(name, images, strength, seed=3)
        assert shifted.dtype == np.uint8 and shifted.shape == shape
        changes.append(np.abs(shifted - images.astype(float)).mean())
    np.testing.assert_array_equal(images, before)
    assert changes[0] == 0 and changes[5] > changes[1] > 0
    if name in ("rotation", "blur", "contrast"):  # what is not drawn, each channel alone
        alone = [shifts.apply(name, images[..., [i]], 3) for i in range(shape[-1])]
        np.testing.assert_array_equal(shifts.apply(name, images, 3), np.concatenate(alone, axis=-1))


@pytest.mark.parametrize("name", ["blur", "translation", "occlusion"])
def test_pixels_grow_with_the_images(name, digits):
    """An image of twice the size changes as much as the image, twice as large."""
    twice = digits.repeat(2, axis=1).repeat(2, axis=2)
    shifted = shifts.apply(name, twice, 3)
    small = shifted.reshape(len(digits), 28, 2, 28, 2, 1).mean(axis=(2, 4))
    wanted = shifts.apply(name, digits, 3).astype(float)
    error = np.abs(small - wanted).mean(axis=(1, 2, 3))
    if name == "occlusion":  # its place is drawn to half a pixel
        black = (shifts.apply(name, twice | 1, 3) == 0).sum(axis=(1, 2, 3))
        assert (black == (2 * shifts.AMOUNTS[name][3]) ** 2).all()
    else:
        assert error.max() < 3


def test_images_are_changed_one_by_one_however_many(digits):
    many = np.concatenate([digits] * 3)
    for name in ("rotation", "blur", "contrast"):
        shifted = shifts.apply(name, many, 2)
        np.testing.assert_array_equal(shifted[:200], shifts.apply(name, digits, 2))
        np.testing.assert_array_equal(shifted[400:], shifted[:200])
    noise = shifts.apply("noise", np.full((600, 28, 28, 1), 128, np.uint8), 1)
    assert len({image.tobytes() for image in noise}) == 600


@pytest.mark.parametrize("name", shifts.NAMES)
def test_no_images(name):
    assert shifts.apply(name, np.zeros((0, 28, 28, 1), np.uint8), 3).shape == (0, 28, 28, 1)


def test_rotation(digits):
    turned = np.rot90(digits, axes=(1, 2))  # counter-clockwise, as rows run downwards
    np.testing.assert_array_equal(shifts.apply("rotation", digits, 5), turned)
    # A bright pixel right above the centre moves to the left, by 45 degrees.
    image = np.zeros((1, 28, 28, 1), np.uint8)
    image[0, 4:6, 13:15] = 255
    rotated = shifts.apply("rotation", image, 3)[0, ..., 0]
    expected = 13.5 - 9 * np.sin(np.pi / 4) * np.ones(2)
    np.testing.assert_allclose(ndimage.center_of_mass(rotated), expected, atol=0.1)


def test_blur_keeps_the_sum_and_spreads_it():
    image = np.zeros((1, 28, 28, 1), np.uint8)
    image[0, 12:16, 12:16] = 255
    for strength, sigma in enumerate(shifts.AMOUNTS["blur"]):
        blurred = shifts.apply("blur", image, strength)[0, ..., 0].astype(float)
        assert blurred.sum() == pytest.approx(16 * 255, rel=0.02)
        variance = (blurred.sum(axis=0) * (np.arange(28) - 13.5) ** 2).sum() / blurred.sum()
        assert variance == pytest.approx(1.25 + sigma**2, rel=0.1)


def test_noise_has_its_standard_deviation():
    grey = np.full((50, 28, 28, 1), 128, np.uint8)
    noise = shifts.apply("noise", grey, 1) - 128.0
    assert noise.mean() == pytest.approx(0, abs=0.5) and noise.std() == pytest.approx(
        25.5, rel=0.02
    )
    assert not (noise[0] == noise[1]).all()


def test_translation(digits):
    for strength, pixels in enumerate(shifts.AMOUNTS["translation"]):
        moved = shifts.apply("translation", digits, strength)
        padded = np.pad(digits, ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0)))
        ways = [(0, pixels), (2 * pixels, pixels), (pixels, 0), (pixels, 2 * pixels)]
        candidates = [padded[:, top : top + 28, left : left + 28] for top, left in ways]
        same = np.array([(moved == candidate).all(axis=(1, 2, 3)) for candidate in candidates])
        assert same.any(axis=0).all()
        if pixels:
            assert (same.sum(axis=1) > 20).all()  # each of the four ways


def test_contrast_keeps_means_and_shrinks_deviations(digits):
    for strength, left in enumerate(shifts.AMOUNTS["contrast"]):
        flat = shifts.apply("contrast", digits, strength).astype(float)
        np.testing.assert_allclose(flat.mean(axis=(1, 2, 3)), digits.mean(axis=(1, 2, 3)), atol=0.5)
        np.testing.assert_allclose(
            flat.std(axis=(1, 2, 3)), left * digits.std(axis=(1, 2, 3)), atol=0.5
        )


def test_occlusion_is_one_black_square_that_grows():
    white = np.full((100, 28, 28, 1), 255, np.uint8)
    smaller = np.zeros(white.shape, bool)
    for strength, side in enumerate(shifts.AMOUNTS["occlusion"]):
        black = shifts.apply("occlusion", white, strength) == 0
        assert (black.sum(axis=(1, 2, 3)) == side**2).all()
        assert (black.any(axis=2).sum(axis=1) == side).all()
        assert (black | ~smaller).all()
        smaller = black


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("rotate", np.zeros((1, 28, 28, 1), np.uint8), 1), "Did you mean 'rotation'"),
        (("blur", np.zeros((1, 28, 28, 1), np.float32), 1), "must be uint8 .* not float32"),
        (("blur", np.zeros((28, 28), np.uint8), 1), r"not uint8 \[28, 28\]"),
        (("blur", np.zeros((1, 28, 28, 1), np.uint8), 6), "strength must be .* 0 to 5, not 6"),
        (("blur", np.zeros((1, 28, 28, 1), np.uint8), 2.5), "strength must be .* not 2.5"),
    ],
)
def test_mistakes(arguments, message):
    with pytest.raises(ValueError, match=message):
        shifts.apply(*arguments)
