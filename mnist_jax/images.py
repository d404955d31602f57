"""Pictures of digits, of any size and kind, made into what MNIST's digits are.

MNIST's digits were scaled to fit a box of 20 x 20 pixels, keeping their aspect ratio, with
anti-aliasing, and placed in 28 x 28 pixels by their centre of mass, bright on black: LeCun et al.
1998, "Gradient-based learning applied to document recognition", section III.A.
"""

import numpy as np
from PIL import Image, ImageOps
from scipy import ndimage

_SIDE = 28
_BOX = 20
_CENTRE = 14.0  # where MNIST's centres of mass are, in pixel indices, to half a pixel
_LEAST_SIDE = 4
_LARGEST_SIDE = 4000
_WORKING_SIDE = 400  # larger pictures are reduced to this
_FAINTEST = 0.03  # contrast of a digit with its background; black to white is 1
_NOISE_LEVELS = 5.0  # a digit stands out of the noise by so many standard deviations
_EDGE = 0.3  # a stroke ends where it has so much of its full contrast
_LEAST_STROKE = 2.0  # pixels of the box; MNIST's strokes are 2 to 4 wide

Box = tuple[float, float, float, float]  # top, bottom, left, right, as parts of height and width


def to_mnist(image: Image.Image | np.ndarray) -> np.ndarray:
    """Find the one digit of a picture, and scale, centre and colour it as MNIST's digits are.

    The background is what the border shows, lighter or darker than the digit; its lighting may
    change smoothly. Noise, dust and the picture's dark edges are left out, and strokes thinner
    than MNIST's are thickened. A picture that is as MNIST's are already comes back unchanged.

    Args:
        image: a Pillow image of any mode, turned as its EXIF orientation says, or an array
            `[height, width]` or `[height, width, channels]` with 1 (grey), 2 (grey, alpha), 3 (RGB)
            or 4 (RGBA) channels: bool, uint16, other whole numbers 0 to 255, or floats in [0, 1].

    Returns:
        uint8 `[28, 28, 1]`.

    Raises:
        ValueError: a picture less than 4 pixels high or wide, without a digit, or of a wrong shape
            or range.
    """
    grey = _grey(_pillow_values(image) if isinstance(image, Image.Image) else _values(image))
    if min(grey.shape) < _LEAST_SIDE:
        height, width = grey.shape
        raise ValueError(
            f"image must be at least {_LEAST_SIDE} x {_LEAST_SIDE} pixels, not {width} x {height}."
        )
    if _is_as_mnist(grey):
        return np.round(grey * 255).astype(np.uint8)[..., None]
    # The first look finds the digit in all of the picture, the second sees it in detail.
    _, box = _find(_reduce(grey))
    grey = _reduce(_cut(grey, box, margin=0.5))
    ink, box = _find(grey)
    return _place(_scale(_thicken(_cut(ink, box, margin=0.0))))


def _pillow_values(image: Image.Image) -> np.ndarray:
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):  # of no fixed range: 12-bit scans come in 16 bits
        values = np.asarray(image, np.float32)
        if not np.isfinite(values).all():
            raise ValueError("image must be finite, but holds NaN or infinity.")
        return (values - values.min()) / max(np.ptp(values), 1e-30)
    if image.mode == "LAB":
        return _values(np.asarray(image.getchannel("L")))
    if image.has_transparency_data:
        image = image.convert("RGBA")
    elif image.mode != "L":
        image = image.convert("L" if image.mode == "1" else "RGB")
    if max(image.size) > _LARGEST_SIDE and min(image.size) > _WORKING_SIDE:  # to save memory
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


def _grey(values: np.ndarray) -> np.ndarray:
    """Brightness, `[height, width]`, with a background below what is transparent."""
    if values.ndim == 2:
        return values
    channels = values.shape[2]
    weights = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as Pillow's
    grey = values[..., :3] @ weights if channels > 2 else values[..., 0]
    if channels in (1, 3):
        return grey
    alpha = values[..., -1]
    if not alpha.any():
        return np.zeros_like(grey)
    # A picture with a hole is filled with its own background; strokes on nothing get contrast.
    ink = np.average(grey, weights=alpha)
    fill = np.median(grey[alpha > 0.5]) if alpha.mean() > 0.5 else float(ink < 0.5)
    return grey * alpha + fill * (1 - alpha)


def _is_as_mnist(grey: np.ndarray) -> bool:
    """Whether this is 28 x 28, black around a box of 19 or 20, and centred by mass."""
    if grey.shape != (_SIDE, _SIDE) or not grey.any():
        return False
    top, bottom, left, right = _box(grey)
    centre = np.array(ndimage.center_of_mass(grey))
    fits = _BOX - 1 <= max(bottom - top, right - left) <= _BOX
    return bool(fits and np.abs(centre - _CENTRE).max() < 0.51)


def _reduce(grey: np.ndarray) -> np.ndarray:
    """Average down to at most 400 pixels a side."""
    height, width = grey.shape
    factor = max(height, width) / _WORKING_SIDE
    if factor <= 1:
        return grey
    size = (max(1, round(width / factor)), max(1, round(height / factor)))
    return _resize(grey, size, Image.Resampling.BOX)


def _resize(grey: np.ndarray, size: tuple[int, int], method: Image.Resampling) -> np.ndarray:
    return np.asarray(Image.fromarray(np.ascontiguousarray(grey, np.float32)).resize(size, method))


def _find(grey: np.ndarray) -> tuple[np.ndarray, Box]:
    """How much ink of the digit is where, 0 to 1, and the digit's box.

    Raises:
        ValueError: nothing stands out of the background.
    """
    smooth = ndimage.gaussian_filter(grey, max(grey.shape) / 150)
    background = _background(smooth)
    difference, smooth = grey - background, smooth - background
    # Cubes, since a little ink against much noise is what must win.
    if (smooth**3).sum() < 0:
        difference, smooth = -difference, -smooth
    noise, peak = _spread(smooth), smooth.max()
    if peak < max(_FAINTEST, _NOISE_LEVELS * noise):
        raise ValueError("image is blank: nothing stands out of its background.")
    core = np.maximum(difference[smooth > peak / 2], 0)
    ink = (core**2).sum() / core.sum()
    mask = _main_parts(smooth > max(_EDGE * min(ink, peak), 3 * noise))
    height, width = mask.shape
    top, bottom, left, right = _box(mask)
    reach = 1 + max(mask.shape) // 100  # the soft edge of a stroke lies beyond the mask
    near = ndimage.binary_dilation(mask, iterations=reach)
    box = (top / height, bottom / height, left / width, right / width)
    return np.where(near, np.clip(difference / ink, 0, 1), 0), box


def _background(grey: np.ndarray) -> np.ndarray:
    """The brightness that the picture would have without the digit: a smooth surface.

    A constant, a plane or a quadratic surface: what leaves the least 30 % quantile of distances, as
    the least median of squares of Rousseeuw 1984, since a digit may cover half of a picture.
    """
    height, width = grey.shape
    terms = _quadratic_terms(height, width)
    # Some 60 x 60 pixels are enough to fit.
    some = (slice(None, None, 1 + height // 60), slice(None, None, 1 + width // 60))
    weights = [_fit(terms[some][..., :n], grey[some]) for n in (1, 3, 6)]
    surfaces = [terms[..., : len(w)] @ w for w in weights]
    return min(surfaces, key=lambda surface: _spread(grey[some] - surface[some]))


def _quadratic_terms(height: int, width: int) -> np.ndarray:
    """1, y, x, y * x, y ** 2 and x ** 2, for y and x from -1 to 1: `[height, width, 6]`."""
    y, x = np.meshgrid(
        np.linspace(-1, 1, height, dtype=np.float32),
        np.linspace(-1, 1, width, dtype=np.float32),
        indexing="ij",
    )
    return np.stack([np.ones_like(y), y, x, y * x, y**2, x**2], axis=-1)


def _fit(terms: np.ndarray, grey: np.ndarray) -> np.ndarray:
    """Least squares, over what is near the border first, then over all that is near the fit."""
    edge = 1 + min(grey.shape) // 20
    border = np.ones(grey.shape, bool)
    border[edge:-edge, edge:-edge] = False
    distance = grey - np.median(grey[border])
    for among in (border, True, True, True):
        near = among & (np.abs(distance) <= 3 * _spread(distance) + 0.05)
        weights = np.linalg.lstsq(terms[near], grey[near], rcond=None)[0]
        distance = grey - terms @ weights
    return weights


def _spread(distance: np.ndarray) -> float:
    """The standard deviation that Gaussian noise of this 30 % quantile of distances has."""
    return float(np.quantile(np.abs(distance), 0.3)) / 0.3853


def _main_parts(mask: np.ndarray) -> np.ndarray:
    """Leave out dust, and the dark edges that a scan may have."""
    labels, count = ndimage.label(mask, np.ones((3, 3)))
    edge = np.ones(mask.shape, bool)
    height, width = (round(side / 20) for side in mask.shape)
    edge[height : mask.shape[0] - height, width : mask.shape[1] - width] = False
    areas = np.bincount(labels[mask], minlength=count + 1)
    inside = np.bincount(labels[mask & ~edge], minlength=count + 1)
    if (inside > 0.1 * areas).any():
        areas[inside <= 0.1 * areas] = 0
    return np.isin(labels, np.flatnonzero(areas > 0.05 * areas.max()))


def _box(digit: np.ndarray) -> tuple[int, int, int, int]:
    """Rows from and to, columns from and to, of all that is not 0."""
    rows, columns = np.flatnonzero(digit.any(axis=1)), np.flatnonzero(digit.any(axis=0))
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


def _cut(picture: np.ndarray, box: Box, margin: float) -> np.ndarray:
    """A picture's part in a box and `margin` of the box's longer side around it."""
    height, width = picture.shape
    top, bottom, left, right = box[0] * height, box[1] * height, box[2] * width, box[3] * width
    more = margin * max(bottom - top, right - left)
    rows = slice(max(0, round(top - more)), round(bottom + more))
    return picture[rows, max(0, round(left - more)) : round(right + more)]


def _thicken(ink: np.ndarray) -> np.ndarray:
    """Widen strokes that would be thinner than MNIST's, once in the box of 20."""
    scale = _BOX / max(ink.shape)
    depth = ndimage.distance_transform_edt(np.pad(ink > 0.5, 1))
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
    return np.clip(_resize(ink, size, Image.Resampling.HAMMING), 0, 1)


def _place(ink: np.ndarray) -> np.ndarray:
    """Put the scaled digit into 28 x 28, its centre of mass in the middle."""
    height, width = ink.shape
    centre = ndimage.center_of_mass(ink)
    top = min(max(round(_CENTRE - centre[0]), 0), _SIDE - height)
    left = min(max(round(_CENTRE - centre[1]), 0), _SIDE - width)
    image = np.zeros((_SIDE, _SIDE, 1), np.uint8)
    image[top : top + height, left : left + width, 0] = np.round(255 * ink / ink.max())
    return image
