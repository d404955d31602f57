"""`alexnet`: the network that won ImageNet's challenge of 2012."""

import flax.linen as nn
import jax.numpy as jnp
from flax.typing import Dtype
from jax import Array

from mnist_jax.layers import Dense, Dropout
from mnist_jax.models.images import ImageNetwork
from mnist_jax.normalization import LocalResponseNorm
from mnist_jax.windows import Convolution, MaxPooling

_LEAST_SIDE = 67  # then the last pool sees 3x3 and gives one pixel
_NORMAL = nn.initializers.normal(0.01)
_ZEROS, _ONES = nn.initializers.zeros, nn.initializers.ones


class AlexNet(ImageNetwork):
    """Five convolutions, three with 3x3 pooling by 2, and three dense layers.

    conv 11x11 96 by 4, 5x5 256, 3x3 384, 384 and 256, each with relu; local response normalisation
    and pooling after the first and second, pooling after the fifth; dense 4096, 4096, each with
    relu and dropout; dense num_classes.

    Maps float32 `[n, height, width, channels]` of at least 67x67 pixels to logits
    `[n, num_classes]`; with `train` an rng named `"dropout"` is needed. With 227x227x3 (the paper
    says 224, which its numbers contradict) and 1,000 classes it has 62,378,344 parameters. With
    `two_towers`, as published for two GPUs, the second, fourth and fifth convolution and the
    normalisations see only their own half of the channels: 60,965,224 parameters.

    Initial weights are normal with deviation 0.01; biases are 1 in the second, fourth and fifth
    convolution and the first two dense layers, and 0 elsewhere. They were meant for pixels from 0
    to 255 less their mean, so images are multiplied by `pixel_scale`: 255 brings [0, 1] to that.

    Source: Krizhevsky et al. 2012, "ImageNet classification with deep convolutional neural
    networks", sections 3 to 5.

    Raises:
        ValueError: smaller images.
    """

    num_classes: int = 10
    dtype: Dtype = jnp.float32
    dropout_rate: float = 0.5
    two_towers: bool = False
    pixel_scale: float = 255.0

    @nn.compact
    def __call__(self, images: Array, train: bool = False) -> Array:
        images = self.prepare(images)
        height, width = images.shape[1:3]
        if min(height, width) < _LEAST_SIDE:
            raise ValueError(
                f"alexnet needs images of at least {_LEAST_SIDE} x {_LEAST_SIDE} pixels "
                f"(published: 227 x 227), not {height} x {width}."
            )
        towers = 2 if self.two_towers else 1
        x = (images * self.pixel_scale).astype(self.dtype)
        x = nn.relu(_conv("conv1", 96, 11, stride=4)(x))
        x = MaxPooling(3, 2, name="pool1")(LocalResponseNorm(towers, name="norm1")(x))
        x = nn.relu(_conv("conv2", 256, 5, padding=2, groups=towers, bias_init=_ONES)(x))
        x = MaxPooling(3, 2, name="pool2")(LocalResponseNorm(towers, name="norm2")(x))
        x = nn.relu(_conv("conv3", 384, 3, padding=1)(x))
        x = nn.relu(_conv("conv4", 384, 3, padding=1, groups=towers, bias_init=_ONES)(x))
        x = nn.relu(_conv("conv5", 256, 3, padding=1, groups=towers, bias_init=_ONES)(x))
        x = MaxPooling(3, 2, name="pool5")(x)
        x = x.reshape(x.shape[0], -1)
        for name in ("fc6", "fc7"):
            x = nn.relu(Dense(4096, kernel_init=_NORMAL, bias_init=_ONES, name=name)(x))
            x = Dropout(self.dropout_rate)(x, train)
        return Dense(self.num_classes, kernel_init=_NORMAL, name="fc8")(x).astype(jnp.float32)


def _conv(
    name: str,
    features: int,
    window: int,
    stride: int = 1,
    padding: int = 0,
    groups: int = 1,
    bias_init: nn.initializers.Initializer = _ZEROS,
) -> Convolution:
    return Convolution(
        features,
        window,
        stride,
        padding,
        groups,
        kernel_init=_NORMAL,
        bias_init=bias_init,
        name=name,
    )
