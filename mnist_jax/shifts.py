"""Test images made harder, step by step: how a network fares where its images are not clean.

Each shift takes the same images at growing strengths, in the manner of Hendrycks and Dietterich
2019 and, for digits, Mu and Gilmer 2019. All images of a call are rotated, blurred or dimmed alike;
noise, directions and places are drawn for each image from the seed.
"""

from collections.abc import Callable
from difflib import get_close_matches
from functools import partial
from typing import Any

import numpy as np

# What each strength, from 0, which changes nothing, to 5 means.
AMOUNTS: dict[str, tuple[float, ...]] = {
    "rotation": (0, 15, 30, 45, 60, 90),
    "blur": (0, 0.5, 1, 1.5, 2, 2.5),
    "noise": (0, 0.1, 0.2, 0.3, 0.4, 0.5),
    "translation": (0, 2, 4, 6, 8, 10),
    "contrast": (1, 0.7, 0.5, 0.3, 0.2, 0.1),
    "occlusion": (0, 4, 7, 10, 13, 16),
}
# Pixels are 28ths of an image's shorter side, so that images of all sizes are made as hard.
UNITS = {
    "rotation": "degrees",
    "blur": "pixels of 28 a side, standard deviation",
    "noise": "standard deviation, white is 1",
    "translation": "pixels of 28 a side",
    "contrast": "part that is left",
    "occlusion": "pixels of 28 a side, side of the square",
}
NAMES = tuple(AMOUNTS)
_SIDE = 28
_CHUNK = 256  # images changed together, so that no copy of all as floats is made


def apply(name: str, images: np.ndarray, strength: int, seed: int = 0) -> np.ndarray:
    """Shifted images.

    Args:
        name: one of `NAMES`.

            - `"rotation"`: counter-clockwise about the centre, bilinear.
            - `"blur"`: with a Gaussian.
            - `"noise"`: Gaussian, added to each pixel and clipped to 0 to 255.
            - `"translation"`: up, down, left or right.
            - `"contrast"`: the pixels of each image's channels pulled towards their mean.
            - `"occlusion"`: a black square, its centre in the middle 12 x 12 pixels.

        images: uint8 `[n, height, width, channels]`; what moves in from outside is black. Where
            they are larger or smaller than 28 x 28, so is what is called a pixel here.
        strength: 0, which changes nothing, to 5; `AMOUNTS` has what they mean, in `UNITS`.
        seed: of what is drawn; the same at each strength, so that an image's noise only grows.

    Returns:
        Of the shape and dtype of `images`, a new array; the same for the same arguments.

    Raises:
        ValueError: an unknown name, images of another shape or type, a strength out of range.
    """
    if name not in NAMES:
        near = get_close_matches(name, NAMES, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"name {name!r} is no shift; there are {', '.join(NAMES)}.{hint}")
    if images.dtype != np.uint8 or images.ndim != 4:
        raise ValueError(
            "images must be uint8 [n, height, width, channels], not "
            f"{images.dtype} {list(images.shape)}."
        )
    if strength not in range(len(AMOUNTS[name])):
        raise ValueError(f"strength must be a whole number from 0 to 5, not {strength}.")
    return _SHIFTS[name](images, AMOUNTS[name][strength], np.random.default_rng(seed))


def _pixels(amount: float, images: np.ndarray) -> float:
    """Of 28ths of the shorter side."""
    return amount * min(images.shape[1:3]) / _SIDE


def _in_chunks(change: Callable[[np.ndarray], np.ndarray], images: np.ndarray) -> np.ndarray:
    """Apply what gives floats to some images at a time, in their order; uint8, rounded."""
    changed = np.empty_like(images)
    for start in range(0, len(images), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        changed[chunk] = np.clip(np.rint(change(images[chunk])), 0, 255)
    return changed


def _rotation(images: np.ndarray, degrees: float, rng: np.random.Generator) -> np.ndarray:
    from scipy import ndimage

    rotate = partial(
        ndimage.rotate,
        angle=degrees,
        axes=(2, 1),
        reshape=False,
        order=1,
        mode="grid-constant",  # black outside, and no darker border
        output=np.float32,
    )
    return _in_chunks(rotate, images)


def _blur(images: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    from scipy import ndimage

    sigma = _pixels(sigma, images)
    blur = partial(
        ndimage.gaussian_filter, sigma=(0, sigma, sigma, 0), output=np.float32, mode="constant"
    )
    return _in_chunks(blur, images)


def _noise(images: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    def add(some: np.ndarray) -> np.ndarray:
        return some + 255 * sigma * rng.standard_normal(some.shape, np.float32)

    return _in_chunks(add, images)


def _translation(images: np.ndarray, amount: int, rng: np.random.Generator) -> np.ndarray:
    height, width = images.shape[1:3]
    pixels = round(_pixels(amount, images))
    padded = np.pad(images, ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0)))
    directions = rng.integers(4, size=len(images))
    moved = np.empty_like(images)
    for direction, (down, right) in enumerate(((-1, 0), (1, 0), (0, -1), (0, 1))):
        top, left = pixels * (1 - down), pixels * (1 - right)
        chosen = directions == direction
        moved[chosen] = padded[chosen, top : top + height, left : left + width]
    return moved


def _contrast(images: np.ndarray, left: float, rng: np.random.Generator) -> np.ndarray:
    def pull(some: np.ndarray) -> np.ndarray:
        means = some.mean(axis=(1, 2), keepdims=True, dtype=np.float32)
        return means + left * (some - means)

    return _in_chunks(pull, images)


def _occlusion(images: np.ndarray, amount: int, rng: np.random.Generator) -> np.ndarray:
    side = round(_pixels(amount, images))
    inside = []
    for length in images.shape[1:3]:  # rows, columns
        near, far = round(8 * length / _SIDE), round(20 * length / _SIDE)
        first = rng.integers(near, max(far, near + 1), size=(len(images), 1)) - side // 2
        places = np.arange(length)
        inside.append((places >= first) & (places < first + side))
    rows, columns = inside
    square = rows[:, :, None] & columns[:, None, :]
    return np.where(square[..., None], np.uint8(0), images)


_SHIFTS: dict[str, Callable[[np.ndarray, Any, np.random.Generator], np.ndarray]] = {
    "rotation": _rotation,
    "blur": _blur,
    "noise": _noise,
    "translation": _translation,
    "contrast": _contrast,
    "occlusion": _occlusion,
}
