"""Pictures of digits made into MNIST's form: known digits, changed as cameras and scanners do."""

import numpy as np
import pytest
from PIL import Image, ImageOps
from scipy import ndimage

from mnist_jax import data
from mnist_jax.images import find_digits, of_ink, to_mnist, to_photo
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


# Pictures of things.


def scene(height, width, channels=3):
    coarse = np.random.default_rng(0).integers(0, 256, (4, 4, 3), np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image if channels == 3 else image.convert("L"))


def test_a_photo_of_the_size_keeps_its_values():
    colours, grey = scene(20, 30), scene(20, 30, 1)
    for given in (colours, Image.fromarray(colours), np.float32(colours / 255)):
        np.testing.assert_array_equal(to_photo(given, 20, 30), colours)
    for given in (grey, Image.fromarray(grey), grey[..., None], grey.astype(np.uint16) * 257):
        np.testing.assert_array_equal(to_photo(given, 20, 30, 1)[..., 0], grey)
        np.testing.assert_array_equal(to_photo(given, 20, 30), np.stack([grey] * 3, axis=-1))
    luma = colours @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(to_photo(colours, 20, 30, 1)[..., 0], luma, atol=1)


@pytest.mark.parametrize("size", [(60, 120), (120, 60), (90, 90), (15, 40), (7, 5), (1, 300)])
@pytest.mark.parametrize("target", [(30, 30), (20, 40), (64, 32)])
def test_a_photo_is_scaled_and_its_middle_cut_out(size, target):
    """Of a picture whose red and green are its rows and columns, those of the middle are left."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    values = [255 * (grid + 0.5) / n for grid, n in zip((rows, columns), size, strict=True)]
    picture = np.stack([*values, np.zeros(size)], axis=-1).astype(np.uint8)
    photo = to_photo(picture, *target)
    assert photo.shape == (*target, 3) and photo.dtype == np.uint8
    scale = max(t / s for t, s in zip(target, size, strict=True))
    for axis, (length, kept) in enumerate(zip(size, target, strict=True)):
        part = kept / (scale * length)  # of the picture's height or width
        places = 0.5 + part * ((np.arange(kept) + 0.5) / kept - 0.5)
        line = photo[..., axis].mean(axis=1 - axis)
        inner = slice(kept // 4, -(kept // 4))
        step = 255 / length  # between two pixels of the picture
        np.testing.assert_allclose(line[inner], (255 * places)[inner], atol=max(2, step))


def test_a_photo_turned_as_its_exif_says():
    exif = Image.Exif()
    exif[0x0112] = 8
    picture = Image.fromarray(scene(20, 30))
    stored = picture.transpose(Image.Transpose.ROTATE_270)
    stored.getexif().update(exif)
    np.testing.assert_array_equal(to_photo(stored, 20, 30), np.asarray(picture))


def test_a_photo_with_damaged_exif_is_taken_as_it_is(tmp_path):
    picture = Image.fromarray(scene(20, 30))
    picture.save(tmp_path / "damaged.png", exif=b"X" * 16)
    with Image.open(tmp_path / "damaged.png") as damaged:
        np.testing.assert_array_equal(to_photo(damaged, 20, 30), np.asarray(picture))


def test_photos_of_other_modes():
    picture = Image.fromarray(scene(20, 30))
    colours = np.asarray(picture)
    clear = picture.copy()
    clear.putalpha(0)
    assert (to_photo(clear, 20, 30) == 255).all()  # white below what is transparent
    half = np.dstack([colours, np.full((20, 30), 128, np.uint8)])
    np.testing.assert_allclose(to_photo(half, 20, 30), (colours + 254.0) / 2, atol=2)
    for mode in ("CMYK", "YCbCr", "HSV", "RGBA", "RGBX"):
        np.testing.assert_allclose(to_photo(picture.convert(mode), 20, 30), colours, atol=9)
    palette = picture.quantize(256)
    wanted = np.asarray(palette.convert("RGB"))
    np.testing.assert_array_equal(to_photo(palette, 20, 30), wanted)
    black_and_white = picture.convert("1")
    assert set(np.unique(to_photo(black_and_white, 20, 30))) == {0, 255}
    grey = scene(20, 30, 1)
    for deep in (grey.astype(np.uint16) * 257, grey.astype(np.int32) * 257):
        np.testing.assert_array_equal(to_photo(Image.fromarray(deep), 20, 30, 1)[..., 0], grey)
    floats = Image.fromarray(np.float32(grey / 255))
    np.testing.assert_array_equal(to_photo(floats, 20, 30, 1)[..., 0], grey)
    # L of 50 and neither red nor yellow (Pillow takes a and b with their signs): middle grey.
    lab = Image.frombytes("LAB", (4, 4), bytes([128, 0, 0]) * 16)
    assert np.abs(to_photo(lab, 4, 4).astype(int) - 119).max() <= 3


@pytest.mark.parametrize(
    ("image", "size", "message"),
    [
        (np.zeros((4, 4), np.uint8), (0, 4, 3), "height and width must be at least 1"),
        (np.zeros((4, 4), np.uint8), (4, 4, 2), "channels 1 or 3, not 4 x 4 x 2"),
        (np.zeros((4, 4, 5), np.uint8), (4, 4, 3), "with 1 to 4 channels"),
        (np.full((4, 4), 1.5), (4, 4, 3), "in 0 to 1, not 1.5"),
        (Image.fromarray(np.full((4, 4), 70_000, np.int32)), (4, 4, 3), "in 0 to 65535"),
        (Image.fromarray(np.full((4, 4), np.nan, np.float32)), (4, 4, 3), "in 0 to 1, not nan"),
    ],
)
def test_wrong_photos(image, size, message):
    with pytest.raises(ValueError, match=message):
        to_photo(image, *size)


@pytest.mark.parametrize("strength", [0.5, 0.4, 0.02])
def test_ink_that_is_faint_all_over_is_made_as_strong_ink(digits, strength):
    for digit in digits[:4]:
        strong = (digit > 60).astype(np.float32)
        assert np.array_equal(of_ink(strength * strong), of_ink(strong))


def test_dark_on_light_mnists_digits_are_taken_as_they_are(digits):
    for digit in digits:
        assert np.array_equal(to_mnist(255 - digit), to_mnist(digit))
        assert np.array_equal(to_mnist(digit)[..., 0], digit)
