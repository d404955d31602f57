"""`resnet18` to `resnet152` for photographs, `resnet20` to `resnet110` for small pictures."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
from flax.typing import Dtype
from jax import Array, lax

from mnist_jax.layers import Dense
from mnist_jax.models.images import ImageNetwork
from mnist_jax.normalization import BatchNorm
from mnist_jax.windows import Convolution, MaxPooling, MeanOverPlaces

Shortcut = Literal["A", "B"]

STAGES = {  # ImageNet's, of 64, 128, 256 and 512 features: table 1
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
_SMALL_DEPTHS = (20, 32, 44, 56, 110)  # CIFAR-10's, 6n + 2, of 16, 32 and 64 features: section 4.2
DEPTHS = tuple(sorted((*STAGES, *_SMALL_DEPTHS)))


class ResNet(ImageNetwork):
    """Blocks of two or three convolutions that add to what they are given.

    Maps float32 `[n, height, width, channels]` of any size to logits `[n, num_classes]`. Depths 18,
    34, 50, 101 and 152 begin with a 7x7 convolution and a 3x3 pool, each by 2, and are meant for
    224x224; 20, 32, 44, 56 and 110 begin with a 3x3 convolution and are meant for 32x32. Images
    should have mean 0 and deviation 1 by channel.

    `shortcut` says how a block that changes the number of features passes on what it is given:
    `"A"` fills up with zeros, `"B"` is a 1x1 convolution. As published, and by default, it is
    `"A"` for the small ones and `"B"` for the others. `bottleneck_stride` says which convolution
    of a block of three (from depth 50 on) takes every other pixel: as published `"1x1"`, the first;
    `"3x3"`, the second, in torchvision's networks. `axis_name` and `axis_index_groups` are those of
    `BatchNorm`.

    Initial weights are normal with deviation sqrt(2 / inputs) (He et al. 2015), those of the last
    layer PyTorch's (uniform to 1 / sqrt(inputs)); biases are 0.

    Source: He et al. 2016, "Deep residual learning for image recognition", sections 3.3, 3.4, 4.2.

    Raises:
        ValueError: another depth, `shortcut` or `bottleneck_stride`.
    """

    depth: int = 18
    num_classes: int = 10
    dtype: Dtype = jnp.float32
    shortcut: Shortcut | None = None
    bottleneck_stride: Literal["1x1", "3x3"] = "1x1"
    axis_name: str | None = None
    axis_index_groups: tuple[tuple[int, ...], ...] | None = None

    def __post_init__(self) -> None:
        if self.depth not in DEPTHS:
            known = ", ".join(map(str, DEPTHS))
            raise ValueError(f"depth must be one of {known}, not {self.depth}.")
        if self.shortcut not in (None, "A", "B"):
            raise ValueError(f"shortcut must be 'A' or 'B', not {self.shortcut!r}.")
        if self.bottleneck_stride not in ("1x1", "3x3"):
            where = self.bottleneck_stride
            raise ValueError(f"bottleneck_stride must be '1x1' or '3x3', not {where!r}.")
        super().__post_init__()

    @nn.compact
    def __call__(self, images: Array, train: bool = False, weights: Array | None = None) -> Array:
        """Logits; `weights`, float `[n]`, are those of `BatchNorm` and matter with `train` only."""
        normalize = partial(
            BatchNorm, axis_name=self.axis_name, axis_index_groups=self.axis_index_groups
        )
        small = self.depth in _SMALL_DEPTHS
        blocks = ((self.depth - 2) // 6,) * 3 if small else STAGES[self.depth]
        features = 16 if small else 64
        x = self.prepare(images).astype(self.dtype)
        x = _conv("conv1", features, 3 if small else 7, 1 if small else 2)(x)
        x = nn.relu(normalize(name="bn1")(x, train, weights))
        if not small:
            x = MaxPooling(3, 2, padding=1, name="maxpool")(x)
        for stage, number in enumerate(blocks):
            for i in range(number):
                block = Block(
                    features * 2**stage,
                    stride=2 if stage > 0 and i == 0 else 1,
                    bottleneck=has_bottlenecks(self.depth),
                    shortcut=self.shortcut or ("A" if small else "B"),
                    bottleneck_stride=self.bottleneck_stride,
                    normalize=normalize,
                    name=f"layer{stage + 1}_{i}",
                )
                x = block(x, train, weights)
        x = MeanOverPlaces(name="mean")(x)
        kernel_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
        return Dense(self.num_classes, kernel_init=kernel_init, name="fc")(x).astype(jnp.float32)


def has_bottlenecks(depth: int) -> bool:
    """Whether a network's blocks are of three convolutions."""
    return depth in STAGES and depth >= 50


class Block(nn.Module):
    """relu(input + convolutions): 3x3, 3x3; or, with `bottleneck`, 1x1, 3x3, 1x1 of 4 x features.

    Each convolution is normalised; all but the last have relu.
    """

    features: int
    stride: int
    bottleneck: bool
    shortcut: Shortcut
    bottleneck_stride: str
    normalize: Callable[..., Any]

    @nn.compact
    def __call__(self, x: Array, train: bool, weights: Array | None) -> Array:
        out = x
        layers = self._layers()
        for i, (features, window, stride) in enumerate(layers, start=1):
            out = _conv(f"conv{i}", features, window, stride)(out)
            out = self.normalize(name=f"bn{i}")(out, train, weights)
            out = nn.relu(out) if i < len(layers) else out
        return nn.relu(out + self._passed_on(x, out.shape[-1], train, weights))

    def _layers(self) -> list[tuple[int, int, int]]:
        """Features, window and stride of each convolution."""
        if not self.bottleneck:
            return [(self.features, 3, self.stride), (self.features, 3, 1)]
        first, second = (self.stride, 1) if self.bottleneck_stride == "1x1" else (1, self.stride)
        return [(self.features, 1, first), (self.features, 3, second), (4 * self.features, 1, 1)]

    @nn.nowrap
    def _passed_on(self, x: Array, features: int, train: bool, weights: Array | None) -> Array:
        if x.shape[-1] == features and self.stride == 1:
            return x
        if self.shortcut == "A":
            missing = features - x.shape[-1]
            steps = (1, self.stride, self.stride, 1)
            every_other = lax.slice(x, (0, 0, 0, 0), x.shape, steps)
            return jnp.pad(every_other, ((0, 0), (0, 0), (0, 0), (0, missing)))
        x = _conv("downsample_0", features, 1, self.stride)(x)
        return self.normalize(name="downsample_1")(x, train, weights)


def _conv(name: str, features: int, window: int, stride: int) -> Convolution:
    return Convolution(
        features,
        window,
        stride,
        padding=window // 2,
        use_bias=False,
        kernel_init=nn.initializers.variance_scaling(2.0, "fan_in", "normal"),
        name=name,
    )
