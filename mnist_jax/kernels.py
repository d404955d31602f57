"""Kernels in C++ for one CPU core, called through XLA's FFI.

There are two, with their gradients: convolution, pooling and relu in one pass, and matrix products
that skip zeros. `kernels.cc` is compiled when it is first needed, for the processor at hand, and
kept in `~/.cache/mnist_jax`. That is tried on Linux and macOS, x86-64 and ARM; elsewhere, without
a compiler, or with `MNIST_JAX_KERNELS=off` in the environment, `layers.py` does the same in JAX.
"""

import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import shlex
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
from jax import Array

from mnist_jax import cache, parallel, platforms

_SOURCE = Path(__file__).with_suffix(".cc")
_MACHINE = platform.machine().lower()
_ARM = _MACHINE in ("aarch64", "arm64")
_PROCESSOR = "-mcpu=native" if _ARM else "-march=native"  # which older Clangs want
_FLAGS = ("-std=c++17", "-O3", _PROCESSOR, "-fno-math-errno", "-shared", "-fPIC")
_TARGETS = (
    "conv_pool_relu",
    "conv_pool_relu_grad",
    "conv_pool_relu_grad_one_channel",
    "matmul",
    "matmul_grad",
)
_LANES = 8  # channels and features are multiples of it
_FEWEST = 64  # rows and columns of a matrix; with fewer XLA is faster


class KernelWarning(UserWarning):
    """The kernels could not be built, so that a CPU trains more slowly."""


def take_convolution(images: Array, kernel: Array) -> bool:
    """Whether `conv_pool_relu` and its gradients take these arrays here."""
    height, width, channels, features = kernel.shape
    sizes = (3, 5) if channels == 1 else (3,)
    return (
        images.dtype == kernel.dtype == jnp.float32
        and height == width
        and height in sizes
        and images.shape[-1] == channels
        and min(images.shape[1:3]) >= height
        and (channels == 1 or channels % _LANES == 0)
        and features % _LANES == 0
        and available()
    )


def take_product(inputs: Array, kernel: Array) -> bool:
    """Whether `matmul` and its gradients take these arrays here, and are likely to pay."""
    return (
        inputs.ndim == kernel.ndim == 2
        and len(inputs) > 0
        and inputs.shape[1] == kernel.shape[0]
        and inputs.dtype == kernel.dtype == jnp.float32
        and min(kernel.shape) >= _FEWEST
        and available()
    )


def available() -> bool:
    """Whether there are kernels, and a use for them.

    Each works on one core of a CPU, so the other cores are to be JAX devices of their own. With
    `MNIST_JAX_KERNELS=off` in the environment there are none from then on.
    """
    switched_off = os.environ.get("MNIST_JAX_KERNELS", "").lower() == "off"
    on_cores = platforms.likely() == "cpu" and parallel.each_core_is_a_device()
    return on_cores and not switched_off and load()


def conv_pool_relu(images: Array, kernel: Array, bias: Array, padding: str) -> tuple[Array, Array]:
    """`layers.conv_pool_relu`, and of each value where it comes from, which its gradient needs.

    An output of the convolution that sees only zeros is its bias exactly, and outputs of a square
    that see the same tie: in blank parts of an image rounding decides nothing.

    Returns:
        float32 and uint8 `[n, pooled_height, pooled_width, features]`. Bit i of the latter is set
        where place i of the 2x2 square (row by row) is its maximum; none where that is not above 0.
    """
    n, *sides, _ = images.shape
    pad = _pad(kernel, padding)
    down, across = (side + 2 * int(pad) - kernel.shape[0] + 1 for side in sides)
    shape = (n, -(-down // 2), -(-across // 2), kernel.shape[-1])
    out = jax.ShapeDtypeStruct(shape, jnp.float32), jax.ShapeDtypeStruct(shape, jnp.uint8)
    pooled, places = _kernel("conv_pool_relu", out)(images, kernel, bias, pad=pad)
    return pooled, places


def conv_pool_relu_gradients(
    images: Array, kernel: Array, places: Array, grad: Array, padding: str
) -> tuple[Array | None, Array, Array]:
    """The gradients of images, kernel and bias; None for images of one channel."""
    images_out, kernel_out, bias_out = (
        jax.ShapeDtypeStruct(shape, jnp.float32)
        for shape in (images.shape, kernel.shape, kernel.shape[-1:])
    )
    arrays, pad = (images, kernel, places, grad), _pad(kernel, padding)
    if images.shape[-1] == 1:
        call = _kernel("conv_pool_relu_grad_one_channel", (kernel_out, bias_out))
        kernel_grad, bias_grad = call(*arrays, pad=pad)
        return None, kernel_grad, bias_grad
    call = _kernel("conv_pool_relu_grad", (images_out, kernel_out, bias_out))
    images_grad, kernel_grad, bias_grad = call(*arrays, pad=pad)
    return images_grad, kernel_grad, bias_grad


def matmul(inputs: Array, kernel: Array) -> Array:
    """`inputs @ kernel` without the products of inputs that are 0."""
    out = jax.ShapeDtypeStruct((len(inputs), kernel.shape[1]), jnp.float32)
    return _kernel("matmul", out)(inputs, kernel)


def matmul_gradients(inputs: Array, kernel: Array, grad: Array) -> tuple[Array, Array]:
    """The gradients of inputs and kernel, without the products of values of `grad` that are 0 in
    the first, and of inputs that are 0 in the second."""
    out = [jax.ShapeDtypeStruct(array.shape, jnp.float32) for array in (inputs, kernel)]
    inputs_grad, kernel_grad = _kernel("matmul_grad", out)(inputs, kernel, grad)
    return inputs_grad, kernel_grad


def _kernel(target: str, out: Any) -> Callable[..., Any]:
    """One of `_TARGETS` as a function; `out` has the shapes of what it gives."""
    return jax.ffi.ffi_call(f"mnist_jax.{target}", out, vmap_method="sequential")


def _pad(kernel: Array, padding: str) -> np.int64:
    return np.int64(kernel.shape[0] // 2 if padding == "SAME" else 0)


@functools.cache
def load() -> bool:
    """Build the kernels if need be, and register them with XLA; whether that worked.

    Warns:
        KernelWarning: there is no compiler, or what it made cannot be used.
    """
    if sys.platform not in ("linux", "darwin") or not (_ARM or _MACHINE == "x86_64"):
        return False
    try:
        library = _library()
        for target in _TARGETS:
            capsule = jax.ffi.pycapsule(getattr(library, target))
            jax.ffi.register_ffi_target(f"mnist_jax.{target}", capsule, platform="cpu")
    except (OSError, RuntimeError, AttributeError, subprocess.CalledProcessError) as error:
        first, *_ = (getattr(error, "stderr", None) or str(error)).splitlines() or [repr(error)]
        message = f"kernels.cc cannot be used, so this CPU trains more slowly: {first}"
        warnings.warn(message, KernelWarning, stacklevel=2)
        return False
    return True


def _library() -> ctypes.CDLL:
    """The kernels that an earlier process built for the same code and processor, or new ones."""
    what = (_SOURCE.read_text(), _FLAGS, jaxlib.__version__, platform.libc_ver(), _processor())
    name = f"kernels-{hashlib.sha256(repr(what).encode()).hexdigest()[:16]}.so"
    # Where there can be no folder for later processes too, one for this process.
    where = cache.folder() or Path(tempfile.mkdtemp(prefix="mnist_jax-"))
    if (where / name).exists():
        with contextlib.suppress(OSError):  # it is damaged, or of another system
            return ctypes.CDLL(str(where / name))
    with tempfile.TemporaryDirectory(dir=where) as folder:
        built = Path(folder) / name
        compiler = shlex.split(os.environ.get("CXX", "c++"))
        command = [*compiler, *_FLAGS, f"-I{jax.ffi.include_dir()}", str(_SOURCE), "-o", str(built)]
        subprocess.run(command, check=True, capture_output=True, text=True)
        # Several processes may build at once: each puts the whole file there in one move.
        return ctypes.CDLL(str(built.replace(where / name)))


def _processor() -> str:
    """What building for the processor at hand depends on: machines may share a home."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return "".join(sorted({line for line in lines if line.startswith(("model name", "flags"))}))
