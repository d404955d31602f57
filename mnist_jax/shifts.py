"""Test images made harder, step by step: how a network fares where its images are not clean.

Each shift takes the same images at growing strengths, in the manner of Hendrycks and Dietterich
2019 and, for digits, Mu and Gilmer 2019. All images of a call are rotated, blurred or dimmed alike;
noise, directions and places are drawn for each image from the seed.
"""

from collections.abc import Callable
from difflib import get_close_matches
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
UNITS = {
    "rotation": "degrees",
    "blur": "pixels, standard deviation",
    "noise": "standard deviation, white is 1",
    "translation": "pixels",
    "contrast": "part that is left",
    "occlusion": "pixels, side of the square",
}
NAMES = tuple(AMOUNTS)


def apply(name: str, images: np.ndarray, strength: int, seed: int = 0) -> np.ndarray:
    """Shifted images.

    Args:
        name: one of `NAMES`.

            - `"rotation"`: counter-clockwise about the centre, bilinear.
            - `"blur"`: with a Gaussian.
            - `"noise"`: Gaussian, added to each pixel and clipped to 0 to 255.
            - `"translation"`: up, down, left or right.
            - `"contrast"`: each image's pixels pulled towards its mean.
            - `"occlusion"`: a black square, its centre in the middle 12 x 12 pixels.

        images: uint8 `[n, 28, 28, 1]`; what moves in from outside is black.
        strength: 0, which changes nothing, to 5; `AMOUNTS` has what they mean, in `UNITS`.
        seed: of what is drawn; the same at each strength, so that an image's noise only grows.

    Returns:
        uint8 `[n, 28, 28, 1]`, new arrays; the same for the same arguments.

    Raises:
        ValueError: an unknown name, images of another shape or type, a strength out of range.
    """
    if name not in NAMES:
        near = get_close_matches(name, NAMES, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"name {name!r} is no shift; there are {', '.join(NAMES)}.{hint}")
    if images.dtype != np.uint8 or images.shape[1:] != (28, 28, 1):
        raise ValueError(
            f"images must be uint8 [n, 28, 28, 1], not {images.dtype} {list(images.shape)}."
        )
    if strength not in range(len(AMOUNTS[name])):
        raise ValueError(f"strength must be a whole number from 0 to 5, not {strength}.")
    return _SHIFTS[name](images, AMOUNTS[name][strength], np.random.default_rng(seed))


def _to_uint8(images: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(images), 0, 255).astype(np.uint8)


def _rotation(images: np.ndarray, degrees: float, rng: np.random.Generator) -> np.ndarray:
    from scipy import ndimage

    rotated = ndimage.rotate(
        images,
        degrees,
        axes=(2, 1),
        reshape=False,
        order=1,
        mode="grid-constant",  # black outside, and no darker border
        output=np.float32,
    )
    return _to_uint8(rotated)


def _blur(images: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    from scipy import ndimage

    return _to_uint8(
        ndimage.gaussian_filter(images, (0, sigma, sigma, 0), output=np.float32, mode="constant")
    )


def _noise(images: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    noise = rng.standard_normal(images.shape, np.float32)
    return _to_uint8(images + 255 * sigma * noise)


def _translation(images: np.ndarray, pixels: int, rng: np.random.Generator) -> np.ndarray:
    padded = np.pad(images, ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0)))
    directions = rng.integers(4, size=len(images))
    moved = np.empty_like(images)
    for direction, (down, right) in enumerate(((-1, 0), (1, 0), (0, -1), (0, 1))):
        top, left = pixels * (1 - down), pixels * (1 - right)
        chosen = directions == direction
        moved[chosen] = padded[chosen, top : top + 28, left : left + 28]
    return moved


def _contrast(images: np.ndarray, left: float, rng: np.random.Generator) -> np.ndarray:
    means = images.mean(axis=(1, 2, 3), keepdims=True, dtype=np.float32)
    return _to_uint8(means + left * (images - means))


def _occlusion(images: np.ndarray, side: int, rng: np.random.Generator) -> np.ndarray:
    first = rng.integers(8, 20, size=(2, len(images), 1)) - side // 2  # rows, columns
    inside = (np.arange(28) >= first) & (np.arange(28) < first + side)
    square = inside[0][:, :, None] & inside[1][:, None, :]
    return np.where(square[..., None], np.uint8(0), images)


_SHIFTS: dict[str, Callable[[np.ndarray, Any, np.random.Generator], np.ndarray]] = {
    "rotation": _rotation,
    "blur": _blur,
    "noise": _noise,
    "translation": _translation,
    "contrast": _contrast,
    "occlusion": _occlusion,
}
