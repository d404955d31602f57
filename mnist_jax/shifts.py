"""Test images made harder, step by step: how a network fares where its images are not clean.

Each shift takes the same images at growing strengths, in the manner of Hendrycks and Dietterich
2019 and, for digits, Mu and Gilmer 2019. All images of a call are rotated, blurred or dimmed alike;
noise, directions and places are drawn for each image from the seed.
"""

from collections.abc import Callable
from difflib import get_close_matches

import numpy as np

MAX_STRENGTH = 5
# What each strength from 0, which changes nothing, to 5 means.
DEGREES = (0, 15, 30, 45, 60, 90)
BLUR_PIXELS = (0, 0.5, 1, 1.5, 2, 2.5)  # standard deviation of the Gaussian
NOISE = (0, 0.1, 0.2, 0.3, 0.4, 0.5)  # standard deviation, where white is 1
TRANSLATION_PIXELS = (0, 2, 4, 6, 8, 10)
CONTRAST = (1, 0.7, 0.5, 0.3, 0.2, 0.1)  # what is left of it
OCCLUSION_PIXELS = (0, 4, 7, 10, 13, 16)  # side of the square


def apply(name: str, images: np.ndarray, strength: int, seed: int = 0) -> np.ndarray:
    """Shifted images.

    Args:
        name: one of `NAMES`.

            - `"rotation"`: counter-clockwise about the centre by `DEGREES`, bilinear.
            - `"blur"`: with a Gaussian of `BLUR_PIXELS`.
            - `"noise"`: Gaussian of `NOISE`, added to each pixel and clipped to 0 to 255.
            - `"translation"`: by `TRANSLATION_PIXELS` up, down, left or right.
            - `"contrast"`: each image's pixels pulled towards its mean, `CONTRAST` left.
            - `"occlusion"`: a black square of `OCCLUSION_PIXELS`, its centre in the middle 12 x 12
              pixels, where digits are.

        images: uint8 `[n, 28, 28, 1]`; what moves in from outside is black.
        strength: 0, which changes nothing, to 5.
        seed: of what is drawn; the same at each strength, so that an image's noise only grows.

    Returns:
        uint8 `[n, 28, 28, 1]`, new arrays; the same for the same arguments.

    Raises:
        ValueError: an unknown name, images of another shape or type, a strength out of range.
    """
    if name not in _SHIFTS:
        near = get_close_matches(name, NAMES, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"name {name!r} is no shift; there are {', '.join(NAMES)}.{hint}")
    if images.dtype != np.uint8 or images.shape[1:] != (28, 28, 1):
        raise ValueError(
            f"images must be uint8 [n, 28, 28, 1], not {images.dtype} {list(images.shape)}."
        )
    if strength not in range(MAX_STRENGTH + 1):
        raise ValueError(f"strength must be a whole number from 0 to 5, not {strength}.")
    return _SHIFTS[name](images, strength, np.random.default_rng(seed))


def _to_uint8(images: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(images), 0, 255).astype(np.uint8)


def _rotation(images: np.ndarray, strength: int, rng: np.random.Generator) -> np.ndarray:
    from scipy import ndimage

    rotated = ndimage.rotate(
        images,
        DEGREES[strength],
        axes=(2, 1),
        reshape=False,
        order=1,
        mode="grid-constant",  # black outside, and no darker border
        output=np.float32,
    )
    return _to_uint8(rotated)


def _blur(images: np.ndarray, strength: int, rng: np.random.Generator) -> np.ndarray:
    from scipy import ndimage

    sigma = BLUR_PIXELS[strength]
    return _to_uint8(
        ndimage.gaussian_filter(images, (0, sigma, sigma, 0), output=np.float32, mode="constant")
    )


def _noise(images: np.ndarray, strength: int, rng: np.random.Generator) -> np.ndarray:
    noise = rng.standard_normal(images.shape, np.float32)
    return _to_uint8(images + 255 * NOISE[strength] * noise)


def _translation(images: np.ndarray, strength: int, rng: np.random.Generator) -> np.ndarray:
    pixels = TRANSLATION_PIXELS[strength]
    padded = np.pad(images, ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0)))
    directions = rng.integers(4, size=len(images))
    moved = np.empty_like(images)
    for direction, (down, right) in enumerate(((-1, 0), (1, 0), (0, -1), (0, 1))):
        top, left = pixels * (1 - down), pixels * (1 - right)
        chosen = directions == direction
        moved[chosen] = padded[chosen, top : top + 28, left : left + 28]
    return moved


def _contrast(images: np.ndarray, strength: int, rng: np.random.Generator) -> np.ndarray:
    means = images.mean(axis=(1, 2, 3), keepdims=True, dtype=np.float32)
    return _to_uint8(means + CONTRAST[strength] * (images - means))


def _occlusion(images: np.ndarray, strength: int, rng: np.random.Generator) -> np.ndarray:
    side = OCCLUSION_PIXELS[strength]
    first = rng.integers(8, 20, size=(2, len(images), 1)) - side // 2  # rows, columns
    inside = (np.arange(28) >= first) & (np.arange(28) < first + side)
    square = inside[0][:, :, None] & inside[1][:, None, :]
    return np.where(square[..., None], np.uint8(0), images)


_SHIFTS: dict[str, Callable[[np.ndarray, int, np.random.Generator], np.ndarray]] = {
    "rotation": _rotation,
    "blur": _blur,
    "noise": _noise,
    "translation": _translation,
    "contrast": _contrast,
    "occlusion": _occlusion,
}
NAMES = tuple(_SHIFTS)
