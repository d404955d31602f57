"""`convnetjs`: a network by its list of layers, as ConvNetJS's demos have it."""

import re
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from flax.typing import Dtype
from jax import Array, lax

from mnist_jax.layers import Dense, Dropout
from mnist_jax.models.images import ImageNetwork
from mnist_jax.windows import Convolution, MaxPooling

MNIST = "crop 24; conv 5x5 8; pool 2; conv 5x5 16; pool 3"
CIFAR10 = "conv 5x5 16; pool 2; conv 5x5 20; pool 2; conv 5x5 20; pool 2"
_FORMS = {  # of a line, and what it means
    r"crop (\d+)": "crop",
    r"conv (\d+)x\1 (\d+)": "conv",
    r"pool (\d+)": "pool",
    r"dense (\d+)": "dense",
    r"dropout (0|0?\.\d+)": "dropout",
}
_MOST = 20  # layers
_LARGEST = {"crop": 512, "conv": 512, "pool": 32, "dense": 8192}
_HINT = (
    "crop SIDE, conv FxF FEATURES (F odd), pool SIDE, dense FEATURES, or dropout PROBABILITY, "
    "with ; between them"
)


class Line(NamedTuple):
    """One layer of the list."""

    kind: str
    numbers: tuple[float, ...]


class ConvNetJS(ImageNetwork):
    """The layers of `layers` in their order, then one dense layer to the classes.

    Maps float32 `[n, height, width, channels]` in [0, 1] to logits `[n, num_classes]`. Of `layers`,
    which `;` divides, `crop 24` takes the middle 24 x 24 pixels, which with training images moved
    by up to two pixels is ConvNetJS's random crop of MNIST's; `conv 5x5 8` is a convolution to 8
    features that keeps the size, with relu; `pool 2` the maximum of squares of 2 x 2, leaving out
    what does not fill one; `dense 100` a dense layer with relu; `dropout 0.5` sets half of the
    values to 0 in training, for which an rng named `"dropout"` is needed. Pixels are made -0.5 to
    0.5.

    Initial weights are normal with deviation 1 / sqrt(inputs), biases 0.1 before a relu and else 0.

    Source: ConvNetJS 0.3.0 and its demos of MNIST (`MNIST`, the default) and CIFAR-10 (`CIFAR10`),
    A. Karpathy 2014.

    Raises:
        ValueError: a layer that cannot be read, out of range or out of order, or more than 20; a
            crop or pool larger than what it is given.
    """

    num_classes: int = 10
    dtype: Dtype = jnp.float32
    layers: str = MNIST

    def __post_init__(self) -> None:
        parse(self.layers)
        super().__post_init__()

    @nn.compact
    def __call__(self, images: Array, train: bool = False) -> Array:
        x = (self.prepare(images) - 0.5).astype(self.dtype)
        for i, line in enumerate(parse(self.layers), start=1):
            x = _layer(f"{line.kind}{i}", line, x, train)
        x = x.reshape(x.shape[0], -1)
        logits = Dense(self.num_classes, kernel_init=_normal(), name="softmax")(x)
        return logits.astype(jnp.float32)


def parse(layers: str) -> list[Line]:
    """The layers that a text lists; errors of `ConvNetJS`."""
    words = [" ".join(part.lower().split()) for part in re.split(r"[;\n]", str(layers))]
    lines = [_line(part) for part in words if part]
    kinds = [line.kind for line in lines]
    if not lines or len(lines) > _MOST:
        raise ValueError(f"layers must be 1 to {_MOST}, not {len(lines)}: {_HINT}.")
    if "dense" in kinds and {"conv", "pool", "crop"} & set(kinds[kinds.index("dense") :]):
        raise ValueError("layers must have crop, conv and pool before dense.")
    return lines


def _line(text: str) -> Line:
    for form, kind in _FORMS.items():
        found = re.fullmatch(form, text)
        if found:
            numbers = tuple(float(number) for number in found.groups())
            _check(text, kind, numbers)
            return Line(kind, numbers)
    raise ValueError(f"layers has {text[:60]!r}, which is none of {_HINT}.")


def _check(text: str, kind: str, numbers: tuple[float, ...]) -> None:
    if kind == "dropout":
        return  # its form keeps it below 1
    if not all(1 <= number <= _LARGEST[kind] for number in numbers):
        raise ValueError(f"layers has {text!r}, whose numbers must be 1 to {_LARGEST[kind]}.")
    if kind == "conv" and (numbers[0] % 2 == 0 or numbers[0] > 15):
        raise ValueError(f"layers has {text!r}, whose window must be odd and at most 15.")


def _layer(name: str, line: Line, x: Array, train: bool) -> Array:
    if line.kind == "dropout":
        return Dropout(line.numbers[0], name=name)(x, train)
    first, *others = (int(number) for number in line.numbers)
    if line.kind == "crop":
        return _middle(x, first)
    if line.kind == "pool":
        return MaxPooling(first, first, name=name)(x)
    bias_init = nn.initializers.constant(0.1)
    if line.kind == "dense":
        x = x.reshape(x.shape[0], -1)
        return nn.relu(Dense(first, kernel_init=_normal(), bias_init=bias_init, name=name)(x))
    convolution = Convolution(
        *(others[0], first),
        padding=first // 2,
        kernel_init=_normal(),
        bias_init=bias_init,
        name=name,
    )
    return nn.relu(convolution(x))


def _normal() -> nn.initializers.Initializer:
    return nn.initializers.variance_scaling(1.0, "fan_in", "normal")


def _middle(images: Array, side: int) -> Array:
    height, width = images.shape[1:3]
    if min(height, width) < side:
        raise ValueError(f"layers has crop {side}, and is given images of {height} x {width}.")
    top, left = (height - side) // 2, (width - side) // 2
    rows = lax.slice_in_dim(images, top, top + side, axis=1)
    return lax.slice_in_dim(rows, left, left + side, axis=2)
