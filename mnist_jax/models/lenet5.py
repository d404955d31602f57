"""`lenet5`: the network of 1998 that read cheques, and its plain variant."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.typing import Dtype, Initializer
from jax import Array

from mnist_jax.layers import Dense
from mnist_jax.models.images import ImageNetwork
from mnist_jax.windows import Convolution, MeanPooling, convolve, convolve_by_xla

SIDE = 32
WHITE, BLACK = -0.1, 1.175  # what pixels of paper and ink are for the network
_CODE = 12 * 7  # pixels of an output's picture, one for each unit of F6
# Table I: which of S2's six maps each of C3's sixteen sees.
C3_INPUTS = (
    *("012", "123", "234", "345", "045", "015"),
    *("0123", "1234", "2345", "0345", "0145", "0125"),
    *("0134", "1245", "0235"),
    "012345",
)


class LeNet5(ImageNetwork):
    """C1 6 5x5, S2, C3 16 5x5, S4, C5 120 5x5, F6 84, outputs.

    Maps float32 `[n, height, width, channels]` in [0, 1], ink 1, of up to 32x32 pixels to logits
    `[n, num_classes]`. Smaller images are padded with 0 on all sides to 32x32.

    As published all units up to F6 have `scaled_tanh`; S2 and S4 are `Subsampling`; each map of C3
    sees some of S2's, by table I; and the outputs are `Distances` to fixed codes. These are 60,000
    parameters. With `dense` C3 sees all of S2, means of 2x2 take the place of subsampling, and the
    outputs are a dense layer, which knows no `rubbish`: 61,706 parameters with ten classes.

    Softmax cross-entropy of the logits is the paper's equation 9 without its constant j, the
    distance of a class that no image is of. With `rubbish` as j, `train` sows that class's logit
    -j as `rubbish`, float32 `[n, 1]`, into the collection `"auxiliary"` of an `apply` for which it
    is `mutable`. Training then brings the distance to the right code below j, and not only below
    the others': fewer digits are wrong, and those more surely.

    Initial values are uniform to 2.4 / inputs of the unit, biases too (appendix A).

    Source: LeCun et al. 1998, "Gradient-based learning applied to document recognition", II.B.

    Raises:
        ValueError: an image higher or wider than 32 pixels.
    """

    num_classes: int = 10
    dtype: Dtype = jnp.float32
    dense: bool = False
    rubbish: float | None = None

    @nn.compact
    def __call__(self, images: Array, train: bool = False) -> Array:
        x = (WHITE + (BLACK - WHITE) * _framed(self.prepare(images))).astype(self.dtype)
        x = scaled_tanh(_conv(6, x.shape[-1], "C1")(x))
        x = self._subsample("S2", x)
        if self.dense:
            x = scaled_tanh(_conv(16, 6, "C3")(x))
        else:
            x = scaled_tanh(PartialConvolution(C3_INPUTS, 5, name="C3")(x))
        x = self._subsample("S4", x)
        x = scaled_tanh(_conv(120, 16, "C5")(x))
        x = scaled_tanh(_dense(_CODE, 120, "F6")(x.reshape(x.shape[0], -1)))
        if self.dense:
            return _dense(self.num_classes, _CODE, "output")(x).astype(jnp.float32)
        logits = -Distances(self.num_classes, name="output")(x)
        if train and self.rubbish is not None and not self.is_initializing():
            self.sow("auxiliary", "rubbish", jnp.full_like(logits[:, :1], -self.rubbish))
        return logits

    def _subsample(self, name: str, x: Array) -> Array:
        if self.dense:
            return MeanPooling(2, 2, name=name)(x)
        return scaled_tanh(Subsampling(name=name)(x))


def scaled_tanh(values: Array) -> Array:
    """1.7159 tanh(2x/3), which is 1 at 1 and -1 at -1. Source: LeCun et al. 1998, appendix A."""
    return 1.7159 * jnp.tanh(values * (2 / 3))


class Subsampling(nn.Module):
    """The sum of each 2x2 square, times a trainable coefficient, plus a trainable bias.

    Maps `[n, height, width, channels]` to half the height and width, rounded down. Parameters:
    `coefficient` and `bias`, float32 `[channels]`.
    """

    @nn.compact
    def __call__(self, images: Array) -> Array:
        shape = images.shape[-1:]
        coefficient = self.param("coefficient", _uniform(4), shape, jnp.float32)
        bias = self.param("bias", _uniform(4), shape, jnp.float32)
        sums = 4 * nn.avg_pool(images, (2, 2), (2, 2))
        return sums * coefficient.astype(images.dtype) + bias.astype(images.dtype)


class PartialConvolution(nn.Module):
    """A convolution without padding whose outputs see some of the inputs only.

    `inputs` has a string of one digit an input for each output. Parameters: `kernel`
    `[window, window, connections]`, ordered by output, and `bias` `[outputs]`, float32.
    """

    inputs: tuple[str, ...]
    window: int

    @nn.compact
    def __call__(self, images: Array) -> Array:
        _, targets = _connections(self.inputs)
        seen = self.window**2 * np.array([len(chosen) for chosen in self.inputs])
        shape = (self.window, self.window, len(targets))
        kernel = self.param("kernel", _uniform(seen[targets]), shape, jnp.float32)
        bias = self.param("bias", _uniform(seen), (len(self.inputs),), jnp.float32)
        whole = whole_kernel(kernel.astype(images.dtype), self.inputs, images.shape[-1])
        convolution = convolve_by_xla if self.is_initializing() else convolve
        return convolution(images, whole) + bias.astype(images.dtype)


def whole_kernel(kernel: Array, inputs: tuple[str, ...], channels: int) -> Array:
    """A `PartialConvolution`'s kernel as one of all `channels`, 0 where an output sees none.

    Args:
        kernel: `[window, window, connections]`.

    Returns:
        `[window, window, channels, outputs]`.
    """
    sources, targets = _connections(inputs)
    whole = jnp.zeros((*kernel.shape[:2], channels, len(inputs)), kernel.dtype)
    return whole.at[:, :, sources, targets].set(kernel)


def _connections(inputs: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The input and the output of each connection, int `[connections]`."""
    pairs = [(int(i), o) for o, chosen in enumerate(inputs) for i in chosen]
    sources, targets = map(np.array, zip(*pairs, strict=True))
    return sources, targets


class Distances(nn.Module):
    """The squared distance to each class's code, float32 `[n, 84]` to `[n, num_classes]`.

    No parameters: radial basis functions whose centres are `class_codes`.
    """

    num_classes: int

    @nn.compact
    def __call__(self, values: Array) -> Array:
        codes = class_codes(self.num_classes)
        return jnp.sum((values.astype(jnp.float32)[:, None] - codes) ** 2, axis=-1)


def class_codes(num_classes: int) -> np.ndarray:
    """What F6 should be for each class, float32 -1 or 1, `[num_classes, 84]`.

    The first ten are pictures of the digits, 7 pixels wide and 12 high, in the manner of the
    paper's figure 3. Classes after them have random codes, the same in each call, which the paper
    names as a possible choice.
    """
    digits = np.array([[mark == "#" for mark in picture] for picture in _digit_pictures()])
    rng = np.random.default_rng(1998)
    others = rng.integers(0, 2, (max(num_classes - 10, 0), _CODE))
    return (2 * np.concatenate([digits, others])[:num_classes] - 1).astype(np.float32)


def _digit_pictures() -> list[str]:
    """A string of 84 marks a digit, row by row."""
    rows = [line.split() for line in _DIGITS.strip().splitlines()]
    return ["".join(row[digit] for row in rows) for digit in range(10)]


_DIGITS = """
..###.. ...#... ..###.. .#####. .....#. ####### ..####. ####### .#####. .#####.
.#...#. ..##... .#...#. #.....# ....##. #...... .#..... ......# #.....# #.....#
#.....# .#.#... #.....# ......# ...#.#. #...... #...... ......# #.....# #.....#
#.....# ...#... ......# ......# ..#..#. #...... #...... .....#. #.....# #.....#
#.....# ...#... ......# .....#. .#...#. #.####. #.####. .....#. .#...#. #.....#
#.....# ...#... .....#. ..###.. #....#. ##....# ##....# ....#.. ..###.. #....##
#.....# ...#... ....#.. .....#. ####### ......# #.....# ....#.. .#...#. .####.#
#.....# ...#... ...#... ......# .....#. ......# #.....# ...#... #.....# ......#
#.....# ...#... ..#.... ......# .....#. ......# #.....# ...#... #.....# ......#
.#...#. ...#... .#..... #.....# .....#. #.....# #.....# ..#.... #.....# .....#.
..###.. .#####. ####### .#####. .....#. .#####. .#####. ..#.... .#####. .####..
....... ....... ....... ....... ....... ....... ....... ....... ....... .......
"""


def _framed(images: Array) -> Array:
    """Padded with 0 to 32x32, the odd pixel at the bottom and on the right."""
    height, width = images.shape[1:3]
    if max(height, width) > SIDE:
        raise ValueError(
            f"lenet5 takes images of up to {SIDE} x {SIDE} pixels, not {height} x {width}."
        )
    pads = [((SIDE - side) // 2, (SIDE - side + 1) // 2) for side in (height, width)]
    return jnp.pad(images, ((0, 0), *pads, (0, 0)))


def _uniform(inputs: int | np.ndarray) -> Initializer:
    """Uniform to 2.4 / inputs; `inputs` may differ along the last axis."""

    def init(key: Array, shape: tuple[int, ...], dtype: Dtype = jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, -1, 1) * (2.4 / inputs)

    return init


def _conv(features: int, channels: int, name: str) -> Convolution:
    init = _uniform(25 * channels)
    return Convolution(features, 5, kernel_init=init, bias_init=init, name=name)


def _dense(features: int, inputs: int, name: str) -> Dense:
    init = _uniform(inputs)
    return Dense(features, kernel_init=init, bias_init=init, name=name)
