"""Weights in fewer bits, and arrays as a page reads them: described, and one behind the other.

`page/worker.js` reads what is written here.
"""

import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.interchange.chain import Layer

_LARGE = 100_000  # weights; an output then sums so many that the errors of its steps even out


class Precision(NamedTuple):
    """How kernels are kept; what has one number an output stays float32."""

    bits: int  # 8: whole numbers times a step for each output; 16: float16
    # Of kernels with more than 100,000 weights no step is finer than this part of their root mean
    # square, so that most become one of a few numbers, which take few bits once compressed.
    coarseness: float = 0.0

    def describe(self) -> str:
        """In words."""
        if self.bits == 16:
            return "float16"
        if not self.coarseness:
            return "8 bits"
        return (
            f"8 bits, of layers with more than {_LARGE:,} weights in steps of at least "
            f"{self.coarseness:g} of their root mean square"
        )


class Array(NamedTuple):
    """An array as it is written."""

    values: np.ndarray  # int8, float16 or float32
    steps: np.ndarray | None = None  # float32, one an output, which is the last axis

    def unpacked(self) -> np.ndarray:
        """What a page computes with, float32."""
        wide = self.values.astype(np.float32)
        return wide if self.steps is None else wide * self.steps


def pack(array: np.ndarray, precision: Precision) -> Array:
    """An array in fewer bits, if it is a kernel."""
    if array.ndim == 1:
        return Array(array.astype(np.float32))
    if precision.bits == 16:
        return Array(array.astype(np.float16))
    steps = abs(array).max(axis=tuple(range(array.ndim - 1))) / 127
    if array.size > _LARGE:
        root_mean_square = np.sqrt(np.mean(array.astype(np.float64) ** 2))
        steps = np.maximum(steps, precision.coarseness * root_mean_square)
    steps = np.where(steps > 0, steps, 1).astype(np.float32)
    return Array(np.clip(np.round(array / steps), -127, 127).astype(np.int8), steps)


def pack_layers(layers: Sequence[Layer], precision: Precision) -> list[dict[str, Array]]:
    """Of each layer its weights."""
    return [
        {name: pack(array, precision) for name, array in layer.weights.items()} for layer in layers
    ]


def unpack_layers(layers: Sequence[Layer], packed: Sequence[Mapping[str, Array]]) -> list[Layer]:
    """The layers with the weights that the page has."""
    return [
        layer._replace(weights={name: array.unpacked() for name, array in own.items()})
        for layer, own in zip(layers, packed, strict=True)
    ]


def join(packed: Sequence[Sequence[Mapping[str, Array]]]) -> tuple[list[list[Any]], bytes]:
    """All members' arrays as bytes, little-endian, and where each lies.

    Returns:
        For each member and layer `{name: {"dtype", "size", "at", "steps"}}`, what JSON can hold:
        `at` is the first byte, `steps` how many steps lie before the values. And the bytes,
        compressed by zlib. These have no repetitions to look for, only some numbers more often
        than others.
    """
    content = bytearray()

    def add(array: Array) -> dict[str, Any]:
        at = len(content)
        for part in (array.steps, array.values):
            if part is not None:
                content.extend(part.astype(part.dtype.newbyteorder("<")).tobytes())
        steps = 0 if array.steps is None else len(array.steps)
        dtype, size = array.values.dtype.name, array.values.size
        return {"dtype": dtype, "size": size, "at": at, "steps": steps}

    described = [
        [{name: add(array) for name, array in layer.items()} for layer in member]
        for member in packed
    ]
    compress = zlib.compressobj(9, strategy=zlib.Z_HUFFMAN_ONLY)
    return described, compress.compress(content) + compress.flush()
