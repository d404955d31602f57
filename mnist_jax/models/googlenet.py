"""`googlenet`: the network of inception modules that won ImageNet's challenge of 2014."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax.typing import Dtype
from jax import Array

from mnist_jax.layers import Dense, Dropout
from mnist_jax.models.images import ImageNetwork
from mnist_jax.normalization import BatchNorm, LocalResponseNorm
from mnist_jax.windows import Convolution, MaxPooling, MeanOverPlaces, MeanPooling

_INCEPTIONS = {  # 1x1; 3x3 behind 1x1; 5x5 behind 1x1; 1x1 behind the pool: table 1
    "3a": (64, (96, 128), (16, 32), 32),
    "3b": (128, (128, 192), (32, 96), 64),
    "4a": (192, (96, 208), (16, 48), 64),
    "4b": (160, (112, 224), (24, 64), 64),
    "4c": (128, (128, 256), (24, 64), 64),
    "4d": (112, (144, 288), (32, 64), 64),
    "4e": (256, (160, 320), (32, 128), 128),
    "5a": (256, (160, 320), (32, 128), 128),
    "5b": (384, (192, 384), (48, 128), 128),
}
_HEADS = {"4a": "aux1", "4d": "aux2"}  # which module each auxiliary head looks at
_HEAD_DROPOUT = 0.7
_LEAST_SIDE, _LEAST_SIDE_WITH_HEADS = 47, 79  # 3x3 behind 4e; 5x5 behind 4a
_HE = nn.initializers.variance_scaling(2.0, "fan_in", "normal")


class GoogLeNet(ImageNetwork):
    """Three convolutions, nine inception modules, a mean over all places, one dense layer.

    Maps float32 `[n, height, width, channels]` to logits `[n, num_classes]`; with `train` an rng
    named `"dropout"` is needed. Images, meant to be 224x224 with mean 0 and deviation 1 by channel,
    are of at least 79x79 pixels, or 47x47 without `auxiliary_heads`. With 224x224x3 and 1,000
    classes it has 6,998,552 parameters and, with the two heads, 13,378,280.

    The heads are for training only: with `train` their logits are sown, as a tuple `logits`, into
    the collection `"auxiliary"` of an `apply` for which it is `mutable`, and each head's
    cross-entropy is to be added to the loss times `auxiliary_weight`. Otherwise they are not
    computed.

    `batch_norm` makes it torchvision's variant, with `BatchNorm` (epsilon 0.001; its fields
    `axis_name` and `axis_index_groups`) for biases and local response normalisation, 3x3 in place
    of 5x5, and 2x2 in the last pool: 6,624,904 parameters and, with heads, 13,004,888. The heads'
    pool stays the paper's.

    The paper gives no initial values: weights are normal with deviation sqrt(2 / inputs) (He et al.
    2015), the last layers' uniform to sqrt(3 / inputs) (LeCun et al. 1998), biases 0. Nor does it
    give the constants of local response normalisation; they are AlexNet's.

    Source: Szegedy et al. 2015, "Going deeper with convolutions", section 5 and table 1.

    Raises:
        ValueError: smaller images.
    """

    num_classes: int = 10
    dtype: Dtype = jnp.float32
    dropout_rate: float = 0.4
    auxiliary_heads: bool = True
    auxiliary_weight: float = 0.3
    batch_norm: bool = False
    axis_name: str | None = None
    axis_index_groups: tuple[tuple[int, ...], ...] | None = None

    @nn.compact
    def __call__(self, images: Array, train: bool = False, weights: Array | None = None) -> Array:
        """Logits; `weights`, float `[n]`, are those of `BatchNorm` and matter with `train` only."""
        images = self.prepare(images)
        self._check_size(images)
        conv = partial(
            Unit,
            batch_norm=self.batch_norm,
            axis_name=self.axis_name,
            axis_index_groups=self.axis_index_groups,
        )
        pool = partial(MaxPooling, 3, 2, round_up=True)
        x = images.astype(self.dtype)
        x = conv(64, 7, stride=2, name="conv1")(x, train, weights)
        x = self._normalize("norm1", pool(name="pool1")(x))
        x = conv(64, 1, name="conv2")(x, train, weights)
        x = conv(192, 3, name="conv3")(x, train, weights)
        x = pool(name="pool2")(self._normalize("norm2", x))
        for name, sizes in _INCEPTIONS.items():
            if name == "4a":
                x = pool(name="pool3")(x)
            if name == "5a":
                x = self._last_pool()(x)
            inner = 3 if self.batch_norm else 5
            x = Inception(*sizes, inner, conv, name=f"inception{name}")(x, train, weights)
            if name in _HEADS and self.auxiliary_heads:
                self._look(_HEADS[name], conv, x, train, weights)
        x = MeanOverPlaces(name="mean")(x)
        x = Dropout(self.dropout_rate)(x, train)
        return _classes(self.num_classes, "fc")(x).astype(jnp.float32)

    @nn.nowrap
    def _check_size(self, images: Array) -> None:
        height, width = images.shape[1:3]
        least = _LEAST_SIDE_WITH_HEADS if self.auxiliary_heads else _LEAST_SIDE
        if min(height, width) < least:
            heads = "with" if self.auxiliary_heads else "without"
            raise ValueError(
                f"googlenet {heads} auxiliary heads needs images of at least {least} x {least} "
                f"pixels (published: 224 x 224), not {height} x {width}."
            )

    @nn.nowrap
    def _normalize(self, name: str, x: Array) -> Array:
        return x if self.batch_norm else LocalResponseNorm(name=name)(x)

    @nn.nowrap
    def _last_pool(self) -> MaxPooling:
        return MaxPooling(2 if self.batch_norm else 3, 2, round_up=True, name="pool4")

    @nn.nowrap
    def _look(
        self, name: str, conv: Callable[..., Any], x: Array, train: bool, weights: Array | None
    ) -> None:
        """Call an auxiliary head where its logits are wanted, or its parameters are made."""
        if self.is_initializing() or (train and self.is_mutable_collection("auxiliary")):
            logits = Head(self.num_classes, conv, name=name)(x, train, weights)
            if not self.is_initializing():
                self.sow("auxiliary", "logits", logits.astype(jnp.float32))


class Unit(nn.Module):
    """A convolution that keeps the size, divided by `stride`; bias or `BatchNorm`; relu."""

    features: int
    window: int
    stride: int = 1
    batch_norm: bool = False
    axis_name: str | None = None
    axis_index_groups: tuple[tuple[int, ...], ...] | None = None

    @nn.compact
    def __call__(self, x: Array, train: bool, weights: Array | None) -> Array:
        x = Convolution(
            self.features,
            self.window,
            self.stride,
            padding=self.window // 2,
            use_bias=not self.batch_norm,
            kernel_init=_HE,
            name="conv",
        )(x)
        if self.batch_norm:
            norm = BatchNorm(
                epsilon=1e-3,
                axis_name=self.axis_name,
                axis_index_groups=self.axis_index_groups,
                name="bn",
            )
            x = norm(x, train, weights)
        return nn.relu(x)


class Inception(nn.Module):
    """1x1; 1x1 and 3x3; 1x1 and `inner` x `inner`; a 3x3 pool and 1x1: side by side."""

    only: int
    three: tuple[int, int]
    five: tuple[int, int]
    pooled: int
    inner: int
    conv: Callable[..., Any]

    @nn.compact
    def __call__(self, x: Array, train: bool, weights: Array | None) -> Array:
        def unit(name: str, features: int, window: int, x: Array) -> Array:
            return self.conv(features, window, name=name)(x, train, weights)

        branches = [
            unit("branch1", self.only, 1, x),
            unit("branch2_1", self.three[1], 3, unit("branch2_0", self.three[0], 1, x)),
            unit("branch3_1", self.five[1], self.inner, unit("branch3_0", self.five[0], 1, x)),
            unit("branch4_1", self.pooled, 1, MaxPooling(3, 1, 1, name="branch4_0")(x)),
        ]
        return jnp.concatenate(branches, axis=-1)


class Head(nn.Module):
    """An auxiliary classifier: means of 5x5 by 3, 1x1 128, dense 1024, dropout, dense."""

    num_classes: int
    conv: Callable[..., Any]

    @nn.compact
    def __call__(self, x: Array, train: bool, weights: Array | None) -> Array:
        x = MeanPooling(5, 3, name="pool")(x)
        x = self.conv(128, 1, name="conv")(x, train, weights)
        x = nn.relu(Dense(1024, kernel_init=_HE, name="fc1")(x.reshape(x.shape[0], -1)))
        x = Dropout(_HEAD_DROPOUT)(x, train)
        return _classes(self.num_classes, "fc2")(x)


def _classes(num_classes: int, name: str) -> Dense:
    return Dense(num_classes, kernel_init=nn.initializers.lecun_uniform(), name=name)
