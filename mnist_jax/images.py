"""Pictures of digits, of any size and kind, made into what MNIST's digits are; and of things.

MNIST's digits were scaled to fit a box of 20 x 20 pixels, keeping their aspect ratio, with
anti-aliasing, and placed in 28 x 28 pixels by their centre of mass, bright on black: LeCun et al.
1998, "Gradient-based learning applied to document recognition", section III.A. Where the digits are
on a picture is found by `marks.py`.

Pictures of things, which networks trained on other than characters take, are scaled and cropped.
"""

from typing import NamedTuple

import numpy as np
from PIL import Image, ImageCms, ImageOps
from scipy import ndimage

from mnist_jax import marks
from mnist_jax.data.photos import upright
from mnist_jax.marks import Mark

_SIDE = 28
_BOX = 20
_CENTRE = 14.0  # where MNIST's centres of mass are, in pixel indices, to half a pixel
_LEAST_SIDE = 4
_LARGEST_SIDE = 4000
_WORKING_SIDES = (
    128,
    640,
)  # smaller pictures are enlarged to the first, larger reduced to the other
_DETAIL = 200  # a mark's surroundings are looked at again in so many pixels
_LEAST_STROKE = 2.0  # pixels of the box; MNIST's strokes are 2 to 4 wide


class Digit(NamedTuple):
    """One digit of a picture, as far as looks go: no network has seen it yet."""

    image: np.ndarray  # uint8 [28, 28, 1]
    box: tuple[int, int, int, int]  # left, top, right, bottom on the picture, in pixels
    found: float  # how sure it is that this is one digit and all of it, 0 to 1


def find_digits(image: Image.Image | np.ndarray) -> list[Digit]:
    """Find all digits of a picture, in reading order, and make each what MNIST's digits are.

    Ink may be darker or lighter than what it is on, or of another colour only. Lines, frames,
    shadows, what comes in from the edges, noise and dust are left out, and strokes thinner than
    MNIST's are thickened. Digits that touch each other count as one. A picture that is as MNIST's
    are already comes back unchanged.

    Args:
        image: a Pillow image of any mode, turned as its EXIF orientation says (boxes are of the
            turned picture), or an array `[height, width]` or `[height, width, channels]` with 1
            (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGBA) channels: bool, uint16, other whole numbers
            0 to 255, or floats in [0, 1].

    Returns:
        At least one.

    Raises:
        ValueError: a picture less than 4 pixels high or wide, without a digit, or of a wrong shape
            or range.
    """
    values = _pillow_values(image) if isinstance(image, Image.Image) else _values(image)
    height, width = values.shape[:2]
    if min(height, width) < _LEAST_SIDE:
        raise ValueError(
            f"image must be at least {_LEAST_SIDE} x {_LEAST_SIDE} pixels, not {width} x {height}."
        )
    picture = _rgb(values)
    for light_on_dark in (picture, 1 - picture):
        if _is_as_mnist(light_on_dark):
            whole = np.round(light_on_dark[..., :1] * 255).astype(np.uint8)
            return [Digit(whole, (0, 0, width, height), 1.0)]
    small = _resize(picture, _WORKING_SIDES)
    scale = np.array([height, width]) / small.shape[:2]
    found = [_in_detail(picture, mark, scale) for mark in marks.find(small)]
    if not found:
        raise ValueError("image is blank: nothing stands out of its background.")
    if isinstance(image, Image.Image):  # it may have been reduced
        factor = max(image.size) / max(height, width)
        found = [
            digit._replace(box=tuple(round(factor * side) for side in digit.box)) for digit in found
        ]
    return found


def to_mnist(image: Image.Image | np.ndarray) -> np.ndarray:
    """The one digit of a picture, or the largest of several, as `find_digits` makes it.

    Args:
        image: as for `find_digits`.

    Returns:
        uint8 `[28, 28, 1]`.

    Raises:
        ValueError: as `find_digits`.
    """

    def size(digit: Digit) -> int:
        left, top, right, bottom = digit.box
        return max(right - left, bottom - top)

    return max(find_digits(image), key=size).image


def are_as_mnist(images: np.ndarray) -> np.ndarray:
    """Which characters lie as MNIST's do, and so come back unchanged from `find_digits`.

    They are black around a box of 19 or 20 pixels, and centred by mass.

    Args:
        images: uint8 `[n, 28, 28, 1]`.

    Returns:
        bool `[n]`.
    """
    along = [images[..., 0].sum(axis=axis, dtype=int) for axis in (1, 2)]  # columns and rows
    sides = [_SIDE - (a > 0).argmax(axis=1) - (a[:, ::-1] > 0).argmax(axis=1) for a in along]
    ink = along[0].sum(axis=1)
    away = [np.abs(a @ np.arange(_SIDE) / np.maximum(ink, 1) - _CENTRE) for a in along]
    longer = np.max(sides, axis=0)
    fits = (ink > 0) & (longer >= _BOX - 1) & (longer <= _BOX)
    return fits & (np.max(away, axis=0) < 0.51)


def of_ink(ink: np.ndarray) -> np.ndarray:
    """Ink that is known to be one digit's, with nothing else on the picture, as MNIST has digits.

    Args:
        ink: float in [0, 1], `[height, width]`, not all 0.

    Returns:
        uint8 `[28, 28, 1]`.
    """
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    cut = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return _place(_scale(_thicken(np.asarray(cut, np.float32))))


def to_photo(
    image: Image.Image | np.ndarray, height: int, width: int, channels: int = 3
) -> np.ndarray:
    """A picture of things, scaled so that it just covers a size, and its middle cut out.

    One of this size already keeps its values, but for what is transparent, which becomes white.

    Args:
        image: as for `find_digits`, but with values in their whole range: 16 bits are 0 to 65535.
        height, width: of the result.
        channels: 3, RGB, or 1, grey (ITU-R 601); grey pictures get three equal channels.

    Returns:
        uint8 `[height, width, channels]`.

    Raises:
        ValueError: a height or width below 1, other channels, an array of a wrong shape or range,
            floats outside [0, 1].
    """
    if min(height, width) < 1 or channels not in (1, 3):
        raise ValueError(
            "height and width must be at least 1, channels 1 or 3, "
            f"not {height} x {width} x {channels}."
        )
    if not isinstance(image, Image.Image):
        image = Image.fromarray(_to_bytes(_values(image)))
    plain = _in_mode(upright(image), "L" if channels == 1 else "RGB")
    if plain.size != (width, height):
        plain = ImageOps.fit(plain, (width, height), Image.Resampling.BICUBIC)
    return np.array(plain).reshape(height, width, channels)


def _in_mode(image: Image.Image, mode: str) -> Image.Image:
    """A picture of any mode as one of 8 bits a channel, on white where it is transparent."""
    if image.mode.startswith("I"):
        image = Image.fromarray(_to_bytes(_in_range(np.asarray(image), 65535)))
    elif image.mode == "F":
        image = Image.fromarray(_to_bytes(_in_range(np.asarray(image), 1)))
    elif image.mode == "LAB":
        profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        image = ImageCms.profileToProfile(image, *profiles, outputMode="RGB") or image
    if image.has_transparency_data:
        ground = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(ground, image.convert("RGBA")).convert("RGB")
    return image.convert(mode)


def _in_range(values: np.ndarray, largest: int) -> np.ndarray:
    if not (values.min() >= 0 and values.max() <= largest):  # also refuses NaN
        raise ValueError(
            f"image must be in 0 to {largest}, not {values.min():g} to {values.max():g}."
        )
    return values / largest


def _to_bytes(values: np.ndarray) -> np.ndarray:
    """Values in [0, 1] as uint8, without an axis of one channel."""
    pixels = np.round(255 * values).astype(np.uint8)
    return pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels


def _in_detail(picture: np.ndarray, mark: Mark, scale: np.ndarray) -> Digit:
    """A mark that was found on a reduced picture, looked at in the whole one."""
    ink, box, quality = mark
    rows, columns = np.array(box[:2]) * scale[0], np.array(box[2:]) * scale[1]
    if scale.max() > 1.2:
        more = 0.5 * max(np.ptp(rows), np.ptp(columns))
        near = (
            slice(max(0, int(rows[0] - more)), int(rows[1] + more) + 1),
            slice(max(0, int(columns[0] - more)), int(columns[1] + more) + 1),
        )
        detail = _resize(picture[near], (_DETAIL // 2, _DETAIL))
        finer = np.array(picture[near].shape[:2]) / detail.shape[:2]
        for other in marks.find(detail):
            other_rows = np.array(other.box[:2]) * finer[0] + near[0].start
            other_columns = np.array(other.box[2:]) * finer[1] + near[1].start
            if marks.shared((*rows, *columns), (*other_rows, *other_columns)) > marks.SAME:
                ink, rows, columns = other.ink, other_rows, other_columns
                break
    place = int(columns[0]), int(rows[0]), int(np.ceil(columns[1])), int(np.ceil(rows[1]))
    image = _place(_scale(_thicken(ink)))
    return Digit(image, place, quality)


def _pillow_values(image: Image.Image) -> np.ndarray:
    image = upright(image)
    if image.mode.startswith(("I", "F")):  # of no fixed range: 12-bit scans come in 16 bits
        values = np.asarray(image, np.float32)
        if not np.isfinite(values).all():
            raise ValueError("image must be finite, but holds NaN or infinity.")
        return (values - values.min()) / max(float(np.ptp(values)), 1e-30)
    if image.mode == "LAB":
        return _values(np.asarray(image.getchannel("L")))
    if image.has_transparency_data:
        image = image.convert("RGBA")
    elif image.mode != "L":
        image = image.convert("L" if image.mode == "1" else "RGB")
    if max(image.size) > _LARGEST_SIDE and min(image.size) > _WORKING_SIDES[1]:  # to save memory
        image = image.reduce(-(-max(image.size) // _LARGEST_SIDE))
    return _values(np.asarray(image))


def _values(image: np.ndarray) -> np.ndarray:
    """float32 in [0, 1], of the image's shape."""
    array = np.asarray(image)
    if array.ndim not in (2, 3) or (array.ndim == 3 and not 1 <= array.shape[2] <= 4):
        raise ValueError(
            "image must be [height, width], or [height, width, channels] with 1 to 4 channels, "
            f"not {array.shape}."
        )
    if array.dtype.kind not in "biuf":
        raise ValueError(f"image must be whole numbers, floats or bool, not {array.dtype}.")
    largest = {"b": 1, "f": 1, "u": 65535 if array.dtype == np.uint16 else 255, "i": 255}
    scale = largest[array.dtype.kind]
    if array.size and not (array.min() >= 0 and array.max() <= scale):  # also refuses NaN
        raise ValueError(
            f"image of {array.dtype} must be in 0 to {scale}, not {array.min()} to {array.max()}."
        )
    return array.astype(np.float32) / np.float32(scale)


def _rgb(values: np.ndarray) -> np.ndarray:
    """`[height, width, 3]`, with a background below what is transparent."""
    if values.ndim == 2:
        values = values[..., None]
    channels = values.shape[2]
    colours = values[..., :3] if channels > 2 else values[..., :1]
    if channels in (2, 4):
        alpha = values[..., -1:]
        if not alpha.any():
            return np.zeros((*values.shape[:2], 3), np.float32)
        # A picture with a hole is filled with its own background; strokes on nothing get contrast.
        ink = np.average(colours.mean(axis=2), weights=alpha[..., 0])
        own = np.median(colours[alpha[..., 0] > 0.5], axis=0) if alpha.mean() > 0.5 else None
        fill = np.float32(ink < 0.5) if own is None else own
        colours = colours * alpha + fill * (1 - alpha)
    return np.ascontiguousarray(np.broadcast_to(colours, (*values.shape[:2], 3)), np.float32)


def _is_as_mnist(picture: np.ndarray) -> bool:
    """Whether this is 28 x 28, grey, and lies as MNIST's do."""
    if picture.shape[:2] != (_SIDE, _SIDE) or np.ptp(picture, axis=2).any():
        return False
    return bool(are_as_mnist(np.round(picture[None, ..., :1] * 255).astype(np.uint8))[0])


def _resize(picture: np.ndarray, sides: tuple[int, int]) -> np.ndarray:
    """Bring the longer side between two lengths, by averaging or by interpolation."""
    height, width, _ = picture.shape
    factor = np.clip(max(height, width), *sides) / max(height, width)
    if factor == 1:
        return picture
    size = max(1, round(width * factor)), max(1, round(height * factor))
    method = Image.Resampling.BOX if factor < 1 else Image.Resampling.BICUBIC
    channels = [_resize_channel(picture[..., i], size, method) for i in range(3)]
    return np.clip(np.stack(channels, axis=-1), 0, 1)


def _resize_channel(
    grey: np.ndarray, size: tuple[int, int], method: Image.Resampling
) -> np.ndarray:
    return np.asarray(Image.fromarray(np.ascontiguousarray(grey, np.float32)).resize(size, method))


def _thicken(ink: np.ndarray) -> np.ndarray:
    """Widen strokes that would be thinner than MNIST's, once in the box of 20."""
    scale = _BOX / max(ink.shape)
    level = 0.5 if ink.max() > 0.5 else ink.max() / 2  # what is faint all over has strokes too
    depth = ndimage.distance_transform_edt(np.pad(ink > level, 1))
    width = 4 * depth[depth > 0].mean() - 1  # a stroke's pixels are on average a quarter deep
    radius = (_LEAST_STROKE / scale - width) / 2
    if radius < 0.5:
        return ink
    reach = int(np.ceil(radius))
    rows, columns = np.ogrid[-reach : reach + 1, -reach : reach + 1]
    disk = rows**2 + columns**2 <= radius**2
    return ndimage.grey_dilation(np.pad(ink, reach), footprint=disk)


def _scale(ink: np.ndarray) -> np.ndarray:
    """Fit into 20 x 20, keeping the aspect ratio."""
    height, width = ink.shape
    scale = _BOX / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.clip(_resize_channel(ink, size, Image.Resampling.HAMMING), 0, 1)


def _place(ink: np.ndarray) -> np.ndarray:
    """Put the scaled digit into 28 x 28, its centre of mass in the middle."""
    height, width = ink.shape
    centre = ndimage.center_of_mass(ink)
    top = min(max(round(_CENTRE - centre[0]), 0), _SIDE - height)
    left = min(max(round(_CENTRE - centre[1]), 0), _SIDE - width)
    image = np.zeros((_SIDE, _SIDE, 1), np.uint8)
    image[top : top + height, left : left + width, 0] = np.round(255 * ink / ink.max())
    return image
