"""Pictures of digits made into MNIST's form: known digits, changed as cameras and scanners do."""

import numpy as np
import pytest
from PIL import Image, ImageOps
from scipy import ndimage

from mnist_jax import data
from mnist_jax.images import to_mnist


@pytest.fixture(scope="module")
def digits():
    """uint8 `[20, 28, 28]`, two a class."""
    images, labels = data.load("mnist5k").test
    chosen = np.concatenate([np.flatnonzero(labels == label)[:2] for label in range(10)])
    return images[chosen, ..., 0]


def enlarged(digit, side=200):
    return Image.fromarray(digit).resize((side, side), Image.Resampling.BICUBIC)


def like(image, digit):
    """Correlation of two pictures' pixels."""
    return np.corrcoef(np.ravel(image), np.ravel(digit))[0, 1]


def light(image):
    """Dark on light, lit from the left."""
    return np.asarray(ImageOps.invert(image)) * np.linspace(1, 0.6, image.width)


CHANGES = {
    "enlarged": lambda image: image,
    "dark on light": ImageOps.invert,
    "faint": lambda image: image.point(lambda value: 100 + value // 5),
    "uneven light": lambda image: Image.fromarray(light(image).astype(np.uint8)),
    "off centre": lambda image: ImageOps.expand(image, (180, 10, 20, 60)),
    "not square": lambda image: ImageOps.expand(image, (150, 0, 150, 0)),
    "red on white": lambda image: ImageOps.colorize(image, "white", "red"),
    "palette": lambda image: image.convert("P"),
    "1 bit": lambda image: image.convert("1", dither=Image.Dither.NONE),
    "16 bit": lambda image: Image.fromarray(np.asarray(image).astype(np.uint16) * 16),
    "CMYK": lambda image: image.convert("CMYK"),
    "array of floats": lambda image: np.asarray(image, np.float32) / 255,
    "array of bool": lambda image: np.asarray(image) > 127,
    "RGB array": lambda image: np.stack([np.asarray(image)] * 3, axis=-1),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_digit_comes_back(change, digits):
    back = [to_mnist(CHANGES[change](enlarged(digit))) for digit in digits]
    likeness = [like(image, digit) for image, digit in zip(back, digits, strict=True)]
    assert np.median(likeness) > 0.93 and min(likeness) > 0.75


def test_noise_and_dust_are_left_out(digits):
    rng = np.random.default_rng(0)
    for digit in digits:
        picture = np.asarray(ImageOps.invert(enlarged(digit)), np.float32)
        picture += rng.normal(0, 12, picture.shape)
        picture[10:13, 180:183] = 0
        image = to_mnist(np.clip(picture, 0, 255).astype(np.uint8))
        assert like(image, digit) > 0.7


def test_ink_on_a_transparent_background(digits):
    for colour in (0, 255):
        ink = Image.new("L", (200, 200), colour)
        picture = Image.merge("LA", (ink, enlarged(digits[0])))
        assert like(to_mnist(picture), digits[0]) > 0.9


def test_exif_orientation_is_followed(digits, tmp_path):
    image = enlarged(digits[4])
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    image.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    assert like(to_mnist(Image.open(tmp_path / "turned.png")), digits[4]) > 0.9


def test_the_form_is_mnist_s(digits):
    for digit in digits:
        image = to_mnist(ImageOps.invert(enlarged(digit, 300)))
        assert image.shape == (28, 28, 1) and image.dtype == np.uint8 and image.max() == 255
        rows, columns = np.nonzero(image[..., 0])
        assert max(np.ptp(rows), np.ptp(columns)) + 1 == 20
        assert np.abs(np.array(ndimage.center_of_mass(image[..., 0])) - 14).max() <= 0.51


def test_what_is_in_the_form_already_is_not_changed(digits):
    same = [np.array_equal(to_mnist(digit)[..., 0], digit) for digit in digits]
    assert np.mean(same) > 0.8
    again = to_mnist(to_mnist(enlarged(digits[0])))
    np.testing.assert_array_equal(again, to_mnist(enlarged(digits[0])))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((50, 50), np.uint8), "blank"),
        (np.full((50, 50, 3), 200, np.uint8), "blank"),
        (Image.new("RGBA", (40, 40)), "blank"),
        (np.zeros((3, 50), np.uint8), "at least 4 x 4"),
        (np.zeros((0, 0), np.uint8), "at least 4 x 4"),
        (np.zeros(784, np.uint8), "height, width"),
        (np.zeros((9, 28, 28, 1), np.uint8), "height, width"),
        (np.full((28, 28), np.nan, np.float32), "in 0 to 1"),
        (np.full((28, 28), 200.0), "in 0 to 1"),
        (np.full((28, 28), -1), "in 0 to 255"),
        (np.full((28, 28), "x"), "whole numbers"),
        (Image.fromarray(np.full((28, 28), np.inf, np.float32)), "finite"),
    ],
)
def test_wrong_pictures(image, message):
    with pytest.raises(ValueError, match=message):
        to_mnist(image)


def test_pure_noise_is_blank():
    noise = np.random.default_rng(0).normal(128, 10, (100, 100)).astype(np.uint8)
    with pytest.raises(ValueError, match="blank"):
        to_mnist(noise)
