"""Pictures of digits made into MNIST's form: known digits, changed as cameras and scanners do."""

import numpy as np
import pytest
from PIL import Image, ImageOps
from scipy import ndimage

from mnist_jax import data
from mnist_jax.images import find_digits, to_mnist
from tests import scenes


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


def shared(one, other):
    """Of two boxes, the common part of what they cover together."""
    left, top = np.maximum(one[:2], other[:2])
    right, bottom = np.minimum(one[2:], other[2:])
    common = max(right - left, 0) * max(bottom - top, 0)
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return common / (areas - common)


@pytest.mark.parametrize("kind", scenes.KINDS, ids=lambda kind: kind.__name__)
def test_the_digit_is_found_whatever_is_around_it(kind, digits):
    for digit in digits[[0, 5, 9, 17]]:  # 0, 2, 4 and 8
        picture, (box,) = kind(digit)
        (found,) = find_digits(picture)
        assert shared(found.box, box) > 0.75 and 0.3 < found.found <= 1
        assert like(found.image, to_mnist(digit)) > 0.75


def test_digits_of_a_row_are_found_from_left_to_right(digits):
    picture, boxes = scenes.row(list(digits[[4, 1, 13, 4, 19]]))
    found = find_digits(picture)
    assert all(shared(digit.box, box) > 0.75 for digit, box in zip(found, boxes, strict=True))
    for digit, original in zip(found, digits[[4, 1, 13, 4, 19]], strict=True):
        assert like(digit.image, original) > 0.7


def test_digits_of_a_page_are_found_line_by_line(digits):
    picture, boxes = scenes.page(list(digits[:9]))
    found = find_digits(picture)
    shares = [shared(digit.box, box) for digit, box in zip(found, boxes, strict=True)]
    assert min(shares) > 0.6


@pytest.mark.parametrize("apart", [False, True])
def test_digits_in_boxes_of_a_form_are_all_found(apart, digits):
    picture, boxes = scenes.form(list(digits[[0, 5, 9, 3, 17]]), apart)
    found = find_digits(picture)
    shares = [shared(digit.box, box) for digit, box in zip(found, boxes, strict=True)]
    assert min(shares) > 0.75 and min(digit.found for digit in found) > 0.5


@pytest.mark.parametrize("drawing", [scenes.face(), scenes.barcode()], ids=["face", "barcode"])
def test_what_looks_like_noughts_and_ones_is_found_unsurely(drawing):
    for picture in (drawing, 255 - drawing):
        assert max(digit.found for digit in find_digits(picture)) < 0.3


def test_boxes_are_of_the_turned_picture(digits, tmp_path):
    picture, (box,) = scenes.underlined(digits[4])
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "turned.png"
    Image.fromarray(picture).transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)
    (found,) = find_digits(Image.open(path))
    assert shared(found.box, box) > 0.75


def test_a_large_picture_with_a_small_digit(digits):
    picture = np.full((2400, 3000), 230, np.uint8)
    strokes = scenes.ink(digits[12], 130)
    height, width = strokes.shape
    picture[1500 : 1500 + height, 700 : 700 + width] -= np.uint8(200 * strokes)
    (found,) = find_digits(picture)
    assert shared(found.box, (700, 1500, 700 + width, 1500 + height)) > 0.75
    assert like(found.image, digits[12]) > 0.75


def test_to_mnist_takes_the_largest_of_several(digits):
    large, small = scenes.row([digits[8]], 90).picture, scenes.row([digits[2]], 50).picture
    width = max(large.shape[1], small.shape[1])
    stacked = [np.pad(p, ((0, 0), (0, width - p.shape[1]), (0, 0)), "edge") for p in (small, large)]
    assert like(to_mnist(np.concatenate(stacked)), digits[8]) > 0.75


@pytest.mark.parametrize("down", [0, 0.5, 1])
@pytest.mark.parametrize("darkest", [0, 0.4])
def test_an_even_gradient_is_blank(down, darkest):
    rows, columns = np.mgrid[0:1:150j, 0:1:150j]
    light = darkest + (1 - darkest) * (down * rows + (1 - down) * columns)
    with pytest.raises(ValueError, match="blank"):
        find_digits((255 * light).astype(np.uint8))
