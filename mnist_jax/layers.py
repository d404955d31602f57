"""Convolution, pooling and dropout, in forms that are fast on a CPU and under `vmap`.

`conv_pool_relu` and `matmul` are what the networks are made of; on a CPU each is one kernel where
`kernels.py` has one. What follows is said of all other cases.

XLA's own convolution is used on a TPU, and forward on a CPU. Its gradients are several to a hundred
times slower there than they should be, and under `vmap` with one kernel a member it becomes a
grouped convolution, slow on every backend. On a GPU, and in a CPU's gradients, a convolution is
shifted slices, concatenated, times one matrix; on a CPU for a few images at a time, so that the
slices stay in the cache. The gradients are written out, since those that JAX derives copy and
transpose much that need not be. A CPU's and a GPU's formulations were found by measurement, a TPU's
by the bytes that XLA's compiler for it counts: `experiments/benchmarks/NOTES.md`.
"""

from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.typing import Dtype, Initializer
from jax import Array, lax

from mnist_jax import kernels, platforms

Padding = Literal["SAME", "VALID"]
Pair = tuple[int, int]
Pads = Padding | tuple[Pair, Pair]  # pixels above and below, left and right

_DROPOUT_LEVELS = 256
_WORTH_WAITING = 2**21  # weights
_CACHE_BYTES = 5 * 2**18  # of columns: 1.25 MiB, about a core's second-level cache


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def conv2d(
    images: Array, kernel: Array, strides: Pair = (1, 1), padding: Padding = "SAME"
) -> Array:
    """Cross-correlate images with a kernel, as `lax.conv_general_dilated` does for NHWC and HWIO.

    Args:
        images: float `[n, height, width, channels]`.
        kernel: float `[kernel_height, kernel_width, channels, features]`, of the images' dtype.
        strides: pixels between neighbouring outputs, down and across.
        padding: `"SAME"` or `"VALID"`.

    Returns:
        `[n, out_height, out_width, features]` of the images' dtype.
    """
    return platforms.choose(
        images,
        kernel,
        cpu=partial(xla_conv2d, strides=strides, padding=padding),
        tpu=partial(xla_conv2d, strides=strides, padding=padding),
        default=partial(_columns_times_kernel, strides=strides, padding=padding),
    )


def xla_conv2d(images: Array, kernel: Array, strides: Pair, padding: Pads) -> Array:
    """`conv2d` by XLA's own operation."""
    numbers = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(images, kernel, strides, padding, dimension_numbers=numbers)


def _columns_times_kernel(images: Array, kernel: Array, strides: Pair, padding: Padding) -> Array:
    columns = jnp.concatenate(_shifted(images, kernel.shape, strides, padding), axis=-1)
    return jnp.tensordot(columns, kernel.reshape(-1, kernel.shape[-1]), axes=1)


def _conv2d_forward(
    images: Array, kernel: Array, strides: Pair, padding: Padding
) -> tuple[Array, tuple[Array, Array]]:
    return conv2d(images, kernel, strides, padding), (images, kernel)


def _conv2d_backward(
    strides: Pair, padding: Padding, residuals: tuple[Array, Array], grad: Array
) -> tuple[Array, Array]:
    images, kernel = residuals
    return platforms.choose(
        images,
        kernel,
        grad,
        cpu=partial(conv2d_gradients_in_blocks, strides=strides, padding=padding),
        tpu=partial(xla_conv2d_gradients, strides=strides, padding=padding),
        default=partial(_conv2d_gradients, strides=strides, padding=padding, size=len(images)),
    )


def xla_conv2d_gradients(
    images: Array, kernel: Array, grad: Array, strides: Pair, padding: Pads
) -> tuple[Array, Array]:
    """Of images and kernel, as JAX derives them of `xla_conv2d`."""
    convolution = partial(xla_conv2d, strides=strides, padding=padding)
    images_grad, kernel_grad = jax.vjp(convolution, images, kernel)[1](grad)
    return images_grad, kernel_grad


def conv2d_gradients_in_blocks(
    images: Array, kernel: Array, grad: Array, strides: Pair, padding: Pads
) -> tuple[Array, Array]:
    """Of images and kernel, for a CPU: as many images at a time as its cache holds columns of."""
    size = _block_size(images, kernel)
    return _conv2d_gradients(images, kernel, grad, strides, padding, size)


def _conv2d_gradients(
    images: Array, kernel: Array, grad: Array, strides: Pair, padding: Pads, size: int
) -> tuple[Array, Array]:
    """Of images and kernel; `size` images' columns are made at a time."""
    matrix = kernel.reshape(-1, kernel.shape[-1])

    def block(total: Array, images: Array, grad: Array) -> tuple[Array, Array]:
        shifted = _shifted(images, kernel.shape, strides, padding)
        if images.shape[-1] == 1:
            part = jnp.tensordot(_side_by_side(shifted), grad, axes=3)
        else:
            part = _sum_of_outer_products(jnp.concatenate(shifted, axis=-1), grad)
        columns_grad = jnp.tensordot(grad, matrix.T, axes=1)
        images_grad = _shifted_back(columns_grad, images.shape, kernel.shape, strides, padding)
        return total + part, images_grad

    start = jnp.zeros_like(matrix)
    kernel_grad, images_grad = _scan_blocks(block, start, size, images, grad)
    return images_grad, kernel_grad.reshape(kernel.shape)


conv2d.defvjp(_conv2d_forward, _conv2d_backward)


def _block_size(images: Array, kernel: Array) -> int:
    """How many images' columns a core's cache holds; it divides the number of images."""
    n, height, width, channels = images.shape
    cache = _CACHE_BYTES if channels > 1 else _CACHE_BYTES // 4
    fitting = cache // (height * width * kernel[..., 0].size * images.dtype.itemsize)
    return max(size for size in range(1, max(1, fitting) + 1) if n % size == 0)


def _scan_blocks(
    function: Callable[..., tuple[Any, Array]], start: Any, size: int, *arrays: Array
) -> tuple[Any, Array]:
    """`lax.scan` over blocks of the arrays' leading axis; what it gives is put together again."""
    n = len(arrays[0])
    if size == n:
        return function(start, *arrays)
    blocks = [array.reshape(n // size, size, *array.shape[1:]) for array in arrays]
    last, out = lax.scan(lambda carry, block: function(carry, *block), start, blocks)
    return last, out.reshape(n, *out.shape[2:])


def _pads(shape: Sequence[int], kernel: Sequence[int], strides: Pair, padding: Pads) -> Any:
    if not isinstance(padding, str):
        return padding
    return lax.padtype_to_pads(shape[1:3], kernel[:2], strides, padding)


def _shifted(images: Array, kernel: Sequence[int], strides: Pair, padding: Pads) -> list[Array]:
    """The pixels below each place of the kernel, whose shape is given: `[n, out, out, channels]`.

    Concatenated along the channels they are the columns that a product with the kernel takes.
    """
    pads = _pads(images.shape, kernel, strides, padding)
    padded = jnp.pad(images, ((0, 0), *pads, (0, 0)))
    down, across = (
        (side - size) // stride + 1
        for side, size, stride in zip(padded.shape[1:3], kernel[:2], strides, strict=True)
    )
    return [
        padded[
            :,
            i : i + (down - 1) * strides[0] + 1 : strides[0],
            j : j + (across - 1) * strides[1] + 1 : strides[1],
        ]
        for i in range(kernel[0])
        for j in range(kernel[1])
    ]


def _side_by_side(shifted: Sequence[Array]) -> Array:
    """Columns of one channel, `[kernel * kernel, n, out, out]`.

    The other order would write single pixels, with the others of a column between them.
    """
    return jnp.stack([images[..., 0] for images in shifted])


def _shifted_back(
    columns: Array, shape: Sequence[int], kernel: Sequence[int], strides: Pair, padding: Pads
) -> Array:
    """The transpose of the columns: each value is added to the pixel of `shape` it comes from."""
    n, down, across, _ = columns.shape
    columns = columns.reshape(n, down, across, *kernel[:3])
    (top, _), (left, _) = _pads(shape, kernel, strides, padding)

    def spread(side: int, out: int, stride: int, start: int) -> tuple[int, int, int]:
        return start, side - start - (out - 1) * stride - 1, stride - 1

    zero = jnp.zeros((), columns.dtype)
    placed = [
        lax.pad(
            columns[:, :, :, i, j],
            zero,
            [
                (0, 0, 0),
                spread(shape[1], down, strides[0], i - top),
                spread(shape[2], across, strides[1], j - left),
                (0, 0, 0),
            ],
        )
        for i in range(kernel[0])
        for j in range(kernel[1])
    ]
    return sum(placed[1:], placed[0])


def _sum_of_outer_products(a: Array, b: Array) -> Array:
    """`a.T @ b` of `[..., a]` and `[..., b]`, in the order that transposes less in memory.

    The barriers keep XLA from making it one product with a transposed factor, which is slower.
    """
    a, b = a.reshape(-1, a.shape[-1]), b.reshape(-1, b.shape[-1])
    barrier = lax.optimization_barrier
    if a.size <= b.size + a.shape[1] * b.shape[1]:
        return barrier(a.T) @ b
    return barrier(barrier(b.T) @ a).T


@jax.custom_vjp
def matmul(inputs: Array, kernel: Array) -> Array:
    """`inputs @ kernel`, `[n, in]` times `[in, out]`.

    On a CPU, where `kernels` takes it, products of inputs that are 0 are skipped, and backward of
    gradients that are 0: after relu and dropout most are; without any it is up to a sixth slower.
    NaN or infinity does not show where it meets only zeros. As with `conv_pool_relu` there is one
    derivative, of both arguments at once, and no export.

    Elsewhere the gradient is what JAX's own is, without a transposed copy of the kernel's gradient,
    which costs more than the product.
    """
    if kernels.take_product(inputs, kernel):
        return platforms.choose(inputs, kernel, cpu=kernels.matmul, default=jnp.matmul)
    return inputs @ kernel


def _matmul_backward(residuals: tuple[Array, Array], grad: Array) -> tuple[Array, Array]:
    inputs, kernel = residuals
    on_cpu: Callable[..., tuple[Array, Array]] = _matmul_gradients
    if kernels.take_product(inputs, kernel):
        on_cpu = kernels.matmul_gradients
    elif kernel.size >= _WORTH_WAITING and inputs.size:
        on_cpu = partial(_matmul_gradients, wait=True)
    return platforms.choose(*residuals, grad, cpu=on_cpu, default=_matmul_gradients)


def _matmul_gradients(
    inputs: Array, kernel: Array, grad: Array, wait: bool = False
) -> tuple[Array, Array]:
    """Of inputs and kernel.

    With `wait` the kernel's update waits for its last use here, by a zero that XLA does not see
    through; else XLA on a CPU copies the kernel in each step.
    """
    inputs_grad = (kernel @ grad.T).T
    if wait:
        grad = grad + jnp.minimum(jnp.abs(inputs_grad[0, 0]), 0)
    return inputs_grad, _sum_of_outer_products(inputs, grad)


matmul.defvjp(lambda inputs, kernel: (matmul(inputs, kernel), (inputs, kernel)), _matmul_backward)


class Conv(nn.Module):
    """A 2-D convolution, `[n, height, width, channels]` to `[n, out_height, out_width, features]`.

    Parameters: `kernel` `[kernel_height, kernel_width, channels, features]` and, with `use_bias`,
    `bias` `[features]`, both float32. Images and parameters are brought to `dtype` (default: the
    images' own) before they meet.
    """

    features: int
    kernel_size: Pair = (3, 3)
    strides: Pair = (1, 1)
    padding: Padding = "SAME"
    use_bias: bool = True
    dtype: Dtype | None = None
    kernel_init: Initializer = nn.initializers.glorot_uniform()
    bias_init: Initializer = nn.initializers.zeros

    @nn.compact
    def operands(self, images: Array) -> tuple[Array, Array, Array | None]:
        """Images, kernel and bias as they meet."""
        dtype = self.dtype or images.dtype
        shape = (*self.kernel_size, images.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32).astype(dtype)
        if not self.use_bias:
            return images.astype(dtype), kernel, None
        bias = self.param("bias", self.bias_init, (self.features,), jnp.float32).astype(dtype)
        return images.astype(dtype), kernel, bias

    def __call__(self, images: Array) -> Array:
        images, kernel, bias = self.operands(images)
        out = conv2d(images, kernel, self.strides, self.padding)
        return out if bias is None else out + bias


class Dense(nn.Module):
    """`inputs @ kernel + bias`, `[n, in]` to `[n, features]`.

    Parameters: `kernel` `[in, features]` and `bias` `[features]`, float32, brought to the inputs'
    dtype.
    """

    features: int
    kernel_init: Initializer = nn.initializers.glorot_uniform()
    bias_init: Initializer = nn.initializers.zeros

    @nn.compact
    def __call__(self, inputs: Array) -> Array:
        shape = (inputs.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        bias = self.param("bias", self.bias_init, (self.features,), jnp.float32)
        # While variables are made only the shape counts, and the kernels may not be built yet.
        product = jnp.matmul if self.is_initializing() else matmul
        return product(inputs, kernel.astype(inputs.dtype)) + bias.astype(inputs.dtype)


def max_pool(
    images: Array,
    window: int | Pair = 2,
    strides: int | Pair | None = None,
    padding: Padding = "SAME",
) -> Array:
    """The largest pixel under each place of a window; windows may overlap.

    Args:
        images: float `[n, height, width, channels]`.
        window: its pixels, down and across, or one number for both.
        strides: pixels between neighbouring windows likewise; default the window's own size, so
            that windows lie side by side.
        padding: `"SAME"` or `"VALID"`. What is outside of the image never is the largest.

    Returns:
        `[n, out_height, out_width, channels]`. With `"SAME"` the output's sides are the image's
        over the strides, rounded up. Where pixels tie for the maximum, each gets an equal part of
        the gradient.

    Raises:
        ValueError: a window or strides that are no whole numbers from 1 on, another padding, or a
            window that does not fit into the image with `"VALID"`.
    """
    window, strides, padding = _geometry(window, strides, padding)
    if padding == "VALID" and (images.shape[1] < window[0] or images.shape[2] < window[1]):
        raise ValueError(
            f"A window of {window[0]} x {window[1]} pixels does not fit into images of "
            f'{images.shape[1]} x {images.shape[2]} with padding "VALID".'
        )
    if padding == "SAME" and window[0] == window[1] and window == strides:
        return _pool_squares(images, window[0])
    return _pool_windows(images, window, strides, padding)


def _geometry(
    window: int | Pair, strides: int | Pair | None, padding: Padding
) -> tuple[Pair, Pair, Padding]:
    if padding not in ("SAME", "VALID"):
        raise ValueError(f'padding must be "SAME" or "VALID", not {padding!r}.')
    sides = _down_and_across("window", window)
    return sides, sides if strides is None else _down_and_across("strides", strides), padding


def _down_and_across(name: str, value: int | Pair) -> Pair:
    both = np.array(value if np.ndim(value) else (value, value))
    if both.shape != (2,) or both.dtype.kind not in "iu" or both.min() < 1:
        raise ValueError(f"{name} must be a number of pixels from 1 on, or two, not {value!r}.")
    return int(both[0]), int(both[1])


def pixels_under(images: Array, window: Pair, strides: Pair, padding: Padding) -> list[Array]:
    """What `max_pool` chooses from: for each pixel of the window `[n, out, out, channels]`.

    Outside of the image it is -infinity.
    """
    pads = _pads(images.shape, window, strides, padding)
    padded = jnp.pad(images, ((0, 0), *pads, (0, 0)), constant_values=-jnp.inf)
    return _shifted(padded, window, strides, "VALID")


@partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _pool_windows(images: Array, window: Pair, strides: Pair, padding: Padding) -> Array:
    return reduce(jnp.maximum, pixels_under(images, window, strides, padding))


def _pool_windows_forward(
    images: Array, window: Pair, strides: Pair, padding: Padding
) -> tuple[Array, tuple[Array, Array]]:
    pooled = _pool_windows(images, window, strides, padding)
    return pooled, (images, pooled)


def _pool_windows_backward(
    window: Pair, strides: Pair, padding: Padding, residuals: tuple[Array, Array], grad: Array
) -> tuple[Array]:
    images, pooled = residuals
    are_largest = [pixels == pooled for pixels in pixels_under(images, window, strides, padding)]
    part = grad / sum(is_largest.astype(grad.dtype) for is_largest in are_largest)
    parts = jnp.concatenate([jnp.where(largest, part, 0) for largest in are_largest], axis=-1)
    shape = (*window, images.shape[-1])
    return (_shifted_back(parts, images.shape, shape, strides, padding),)


_pool_windows.defvjp(_pool_windows_forward, _pool_windows_backward)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _pool_squares(images: Array, window: int) -> Array:
    """`max_pool` over squares side by side, which is a matter of axes: faster than windows."""
    return platforms.choose(
        images,
        tpu=partial(_over_squares, lax.max, -jnp.inf, window=window),
        default=partial(_largest, window=window),
    )


def _largest(images: Array, window: int) -> Array:
    return _squares(images, window).max(axis=(2, 4))


def _over_squares(combine: Callable[..., Array], start: float, images: Array, window: int) -> Array:
    """`images` combined over the squares of a pool, by XLA's own operation for that."""
    shape = (1, window, window, 1)
    initial = np.asarray(start, images.dtype)  # of NumPy, so that JAX sees which operation it is
    return lax.reduce_window(images, initial, combine, shape, shape, "SAME")


def _pool_pads(images: Array, window: int) -> Sequence[Pair]:
    return lax.padtype_to_pads(images.shape[1:3], (window, window), (window, window), "SAME")


def _squares(images: Array, window: int) -> Array:
    """`[n, down, window, across, window, channels]`, filled up with -infinity."""
    pads = ((0, 0), *_pool_pads(images, window), (0, 0))
    images = jnp.pad(images, pads, constant_values=-jnp.inf)
    n, height, width, channels = images.shape
    return images.reshape(n, height // window, window, width // window, window, channels)


def _pool_squares_forward(images: Array, window: int) -> tuple[Array, tuple[Array, Array]]:
    pooled = _pool_squares(images, window)
    return pooled, (images, pooled)


def _pool_squares_backward(
    window: int, residuals: tuple[Array, Array], grad: Array
) -> tuple[Array]:
    images_grad = platforms.choose(
        *residuals,
        grad,
        tpu=partial(_pool_squares_gradient_in_place, window=window),
        default=partial(_pool_squares_gradient, window=window),
    )
    return (images_grad,)


def _pool_squares_gradient_in_place(
    images: Array, pooled: Array, grad: Array, window: int
) -> Array:
    """The gradient without another order of the pixels, each of which is looked at in its place."""

    def spread(values: Array) -> Array:
        whole = jnp.repeat(jnp.repeat(values, window, axis=1), window, axis=2)
        (top, _), (left, _) = _pool_pads(images, window)
        return whole[:, top : top + images.shape[1], left : left + images.shape[2]]

    is_largest = images == spread(pooled)
    ties = _over_squares(lax.add, 0, is_largest.astype(grad.dtype), window)
    return jnp.where(is_largest, spread(grad / ties), 0)


def _pool_squares_gradient(images: Array, pooled: Array, grad: Array, window: int) -> Array:
    squares = _squares(images, window)
    places = [squares[:, :, i, :, j] for i in range(window) for j in range(window)]
    ties = sum((place == pooled).astype(grad.dtype) for place in places)
    part = (grad / ties)[:, :, None, :, None]
    parts = jnp.where(squares == pooled[:, :, None, :, None], part, 0)
    n, down, across, channels = pooled.shape
    whole = parts.reshape(n, down * window, across * window, channels)
    (top, _), (left, _) = _pool_pads(images, window)
    height, width = images.shape[1:3]
    return whole[:, top : top + height, left : left + width]


_pool_squares.defvjp(_pool_squares_forward, _pool_squares_backward)


class MaxPool(nn.Module):
    """`max_pool` as a module, which shows it to whoever looks at a network layer by layer."""

    window: int | Pair = 2
    strides: int | Pair | None = None
    padding: Padding = "SAME"

    @nn.compact
    def __call__(self, images: Array) -> Array:
        return max_pool(images, *self.geometry)

    @property
    def geometry(self) -> tuple[Pair, Pair, Padding]:
        """Window and strides, each down and across, and padding."""
        return _geometry(self.window, self.strides, self.padding)


def conv_pool_relu(conv: Conv, pool: MaxPool, images: Array) -> Array:
    """`relu(pool(conv(images)))`, which is relu before pooling on a quarter of the values.

    On a CPU this is one pass over memory where `kernels` takes it. That calls neither module, so
    they are called one by one while variables are made and where "intermediates" are asked for. It
    can be differentiated once, and not exported; a NaN or infinity among the images or weights does
    not reach a gradient where it meets only zeros. `MNIST_JAX_KERNELS=off` in the environment
    switches it off.
    """
    watched = conv.is_initializing() or conv.is_mutable_collection("intermediates")
    plain = type(conv) is Conv and type(pool) is MaxPool and conv.padding in ("SAME", "VALID")
    halves = plain and pool.geometry == ((2, 2), (2, 2), "SAME")
    if halves and not watched and conv.strides == (1, 1):
        images, kernel, bias = conv.operands(images)
        if kernels.take_convolution(images, kernel):
            bias = jnp.zeros(conv.features, images.dtype) if bias is None else bias
            return platforms.choose(
                images,
                kernel,
                bias,
                cpu=partial(_in_one_pass, padding=conv.padding),
                default=partial(_step_by_step, padding=conv.padding),
            )
    return nn.relu(pool(conv(images)))


def _step_by_step(images: Array, kernel: Array, bias: Array, padding: Padding) -> Array:
    return nn.relu(max_pool(conv2d(images, kernel, (1, 1), padding) + bias))


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _in_one_pass(images: Array, kernel: Array, bias: Array, padding: Padding) -> Array:
    return kernels.conv_pool_relu(images, kernel, bias, padding)[0]


def _in_one_pass_forward(
    images: Array, kernel: Array, bias: Array, padding: Padding
) -> tuple[Array, tuple[Array, ...]]:
    pooled, places = kernels.conv_pool_relu(images, kernel, bias, padding)
    return pooled, (images, kernel, bias, places)


def _in_one_pass_backward(
    padding: Padding, residuals: tuple[Array, ...], grad: Array
) -> tuple[Array, Array, Array]:
    images, kernel, bias, places = residuals
    images_grad, kernel_grad, bias_grad = kernels.conv_pool_relu_gradients(
        images, kernel, places, grad, padding
    )
    if images_grad is None:  # of a network's input; XLA leaves this out where nobody asks for it

        def of_images(images: Array) -> Array:
            return _step_by_step(images, kernel, bias, padding)

        (images_grad,) = jax.vjp(of_images, images)[1](grad)
    return images_grad, kernel_grad, bias_grad


_in_one_pass.defvjp(_in_one_pass_forward, _in_one_pass_backward)


def dropout(values: Array, rate: float, key: Array) -> Array:
    """Set each value to zero with probability `rate`, and scale the others to keep the mean.

    One random byte decides about one value, which is a quarter of the random bits that 32 a value
    take; so the probability is `rate` rounded to a multiple of 1/256 (0.3 becomes 77/256 = 0.3008),
    and the scale is that of the rounded one, so the expectation is exact.

    Source: Srivastava et al. 2014, section 10 ("inverted" scaling).

    Args:
        values: float, any shape.
        rate: probability of zero, in [0, 1).
        key: a PRNG key.
    """
    kept = max(_DROPOUT_LEVELS - round(rate * _DROPOUT_LEVELS), 1)
    words = jax.random.bits(key, (-(-values.size // 4),), jnp.uint32)
    levels = lax.bitcast_convert_type(words, jnp.uint8).reshape(-1)[: values.size]
    scaled = values * jnp.asarray(_DROPOUT_LEVELS / kept, values.dtype)
    # `<= kept - 1`, since 256 is no uint8.
    return jnp.where(levels.reshape(values.shape) <= kept - 1, scaled, jnp.zeros_like(values))


class Dropout(nn.Module):
    """`dropout` with the rng named `"dropout"` when `train`; nothing otherwise."""

    rate: float

    @nn.compact
    def __call__(self, values: Array, train: bool) -> Array:
        if not train or self.rate == 0:
            return values
        return dropout(values, self.rate, self.make_rng("dropout"))
