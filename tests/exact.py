"""Convolution, pooling and relu in float64 by NumPy, and where float32 may decide otherwise."""

import functools
from typing import NamedTuple

import numpy as np

from mnist_jax import data

_TIE = 1e-12  # of the largest value: more than float64's rounding


class Pooled(NamedTuple):
    """Of each 2x2 square of outputs, float64 and bool `[n, down, across, 4, features]`.

    A place passes the gradient on where its value is the square's largest and above 0; those that
    tie share it.
    """

    values: np.ndarray  # of the convolution and bias; -infinity outside of the image
    passing: np.ndarray

    @property
    def output(self) -> np.ndarray:
        """`[n, down, across, features]`."""
        return np.maximum(self.values.max(axis=3), 0)

    @property
    def places(self) -> np.ndarray:
        """As the kernels' bytes: bit i for place i of the square, row by row."""
        return (self.passing << np.arange(4)[:, None]).sum(axis=3)

    def close(self, within: float = 1e-5) -> np.ndarray:
        """`[n, down, across, features]`, where another value, or 0, is so close to the largest, and
        yet not equal, that rounding decides what passes; in parts of the largest value of all."""
        scale = np.abs(self.values[np.isfinite(self.values)]).max(initial=0)
        top = self.values.max(axis=3, keepdims=True)
        behind, height = top - self.values, np.abs(top[:, :, :, 0])
        runner_up = ((behind > _TIE * scale) & (behind < within * scale)).any(axis=3)
        above = top[:, :, :, 0] > -within * scale
        return (runner_up & above) | ((height > _TIE * scale) & (height < within * scale))


def pool(images, kernel, bias, padding) -> Pooled:
    """`[n, height, width, channels]`, `[size, size, channels, features]` and `[features]`."""
    images, kernel, bias = (np.asarray(array, np.float64) for array in (images, kernel, bias))
    return pool_outputs(np.tensordot(_windows(images, kernel, padding), kernel, axes=3) + bias)


def pool_outputs(out) -> Pooled:
    """The outputs of a convolution, float64 `[n, height, width, features]`."""
    n, height, width, features = out.shape
    odd = ((0, 0), (0, height % 2), (0, width % 2), (0, 0))
    out = np.pad(out, odd, constant_values=-np.inf)
    squares = out.reshape(n, -(-height // 2), 2, -(-width // 2), 2, features)
    values = squares.transpose(0, 1, 3, 2, 4, 5).reshape(n, *squares.shape[1:4:2], 4, features)
    tie = _TIE * np.abs(out[np.isfinite(out)]).max(initial=0)
    top = values.max(axis=3, keepdims=True)
    return Pooled(values, (values >= top - tie) & (top > tie))


def gradients(images, kernel, passing, grad, padding) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of images, kernel and bias, where `grad` is the output's."""
    images, kernel, grad = (np.asarray(array, np.float64) for array in (images, kernel, grad))
    windows = _windows(images, kernel, padding)
    parts = passing * (grad / np.maximum(passing.sum(axis=3), 1))[:, :, :, None]
    n, down, across, _, features = parts.shape
    parts = parts.reshape(n, down, across, 2, 2, features).transpose(0, 1, 3, 2, 4, 5)
    parts = parts.reshape(n, 2 * down, 2 * across, features)
    parts = parts[:, : windows.shape[1], : windows.shape[2]]
    size, pad = len(kernel), _pad(kernel, padding)
    padded = np.zeros_like(np.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0))))
    height, width = parts.shape[1:3]
    for i in range(size):
        for j in range(size):
            padded[:, i : i + height, j : j + width] += parts @ kernel[i, j].T
    images_grad = padded[:, pad : pad + images.shape[1], pad : pad + images.shape[2]]
    return images_grad, np.tensordot(windows, parts, axes=((0, 1, 2),) * 2), parts.sum((0, 1, 2))


def _pad(kernel, padding) -> int:
    return len(kernel) // 2 if padding == "SAME" else 0


def _windows(images, kernel, padding) -> np.ndarray:
    """What each output sees: `[n, out_height, out_width, size, size, channels]`."""
    pad = _pad(kernel, padding)
    images = np.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(images, kernel.shape[:2], axis=(1, 2))
    return windows.transpose(0, 1, 2, 4, 5, 3)


def difference(ours, exact) -> float:
    """As a part of the exact array's norm; where that is 0, 0 or infinity."""
    ours, exact = np.asarray(ours, np.float64), np.asarray(exact, np.float64)
    assert ours.shape == exact.shape
    error, norm = np.linalg.norm(ours - exact), np.linalg.norm(exact)
    return float(error / norm) if norm else float(np.inf if error else 0)


@functools.cache
def digits(n: int) -> tuple[np.ndarray, np.ndarray]:
    """The first of mnist5k: float32 `[n, 28, 28, 1]` in [0, 1] and int32 `[n]`."""
    train = data.load("mnist5k", validation=0).train
    return np.float32(train.inputs[:n]) / np.float32(255), train.labels[:n]


KINDS = (
    *("digits", "digits and bias", "blank", "uniform", "margins"),
    *("rows", "columns", "diagonals", "dots"),
)


def draw(kind: str, channels: int, n: int = 3) -> np.ndarray:
    """Images whose outputs see zeros, or the same as others, at many places.

    float32 `[n, 28, 28, 1]` or, as if behind a first layer, `[n, 14, 14, channels]`.
    """
    rng = np.random.default_rng(0)
    side = 28 if channels == 1 else 14
    noise = rng.random((n, side, side, channels))
    y, x = np.arange(side)[:, None], np.arange(side)
    edge = side // 4
    if kind.startswith("digits"):
        images = digits(n)[0]
        if channels > 1:
            bias = np.full(channels, 0.2 if kind == "digits and bias" else 0.0)
            images = pool(images, rng.normal(size=(3, 3, 1, channels)), bias, "SAME").output
        elif kind == "digits and bias":
            images = images - 0.1
    elif kind == "margins":
        images = np.pad(noise[:, edge:-edge, edge:-edge], ((0, 0), *((edge, edge),) * 2, (0, 0)))
    else:
        images = {
            "blank": 0 * noise,
            "uniform": noise[:, :1, :1] + 0 * noise,
            "rows": noise[:, :, :1] + 0 * noise,
            "columns": noise[:, :1] + 0 * noise,
            "diagonals": noise[:, 0][:, (y + x) % side],
            "dots": noise * (rng.random((n, side, side, 1)) < 0.03),
        }[kind]
    return np.asarray(images, np.float32)
