"""Kernels in C++ for one CPU core, called through XLA's FFI, and what builds C++ here.

In two parts, with their gradients. For the labs: convolution, pooling and relu in one pass, and
matrix products that skip zeros. For deeper networks: convolutions and pools of any window, and sums
by channel for batch normalisation. Each part of `kernels.cc` is compiled when it is first needed,
for the processor at hand, and kept in `~/.cache/mnist_jax`. That is tried on Linux and macOS,
x86-64 and ARM; elsewhere, without a compiler, or with `MNIST_JAX_KERNELS=off` in the environment,
`layers.py` and `windows.py` do the same in JAX.
"""

import atexit
import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
from jax import Array

from mnist_jax import cache, parallel, platforms

# What is built at a time: for the labs' networks, what `windows` and `normalization` need, or Go.
Part = Literal["labs", "windows", "go"]

_SOURCE = Path(__file__).with_suffix(".cc")
_SOURCES: dict[Part, Path] = {
    "labs": _SOURCE,
    "windows": _SOURCE,
    "go": _SOURCE.parent / "go" / "planes.cc",
}
_MACHINE = platform.machine().lower()
_ARM = _MACHINE in ("aarch64", "arm64")
_PROCESSOR = "-mcpu=native" if _ARM else "-march=native"  # which older Clangs want
_FLAGS = ("-std=c++17", "-O3", _PROCESSOR, "-fno-math-errno", "-shared", "-fPIC")
_TARGETS: dict[Part, tuple[str, ...]] = {
    "labs": (
        "conv_pool_relu",
        "conv_pool_relu_grad",
        "conv_pool_relu_grad_one_channel",
        "matmul",
        "matmul_grad",
    ),
    "windows": (
        "convolution",
        "convolution_images_grad",
        "convolution_kernel_grad",
        "channel_moments",
        "channel_products",
        "max_pool",
        "max_pool_grad",
    ),
}
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


def take_windows(images: Array, kernel: Array) -> bool:
    """Whether `convolution` and its gradients take these arrays here."""
    return images.dtype == kernel.dtype == jnp.float32 and available("windows")


def take_product(inputs: Array, kernel: Array) -> bool:
    """Whether `matmul` and its gradients take these arrays here, and are likely to pay."""
    return (
        inputs.ndim == kernel.ndim == 2
        and inputs.shape[1] == kernel.shape[0]
        and inputs.dtype == kernel.dtype == jnp.float32
        and min(kernel.shape) >= _FEWEST
        and available()
        and len(inputs) > 0  # the last: a batch of any size, for export, has no length
    )


def take_channels(values: Array) -> bool:
    """Whether `max_pool`, `channel_moments` and `channel_products` take this array here."""
    return (
        values.ndim >= 2
        and values.dtype == jnp.float32
        and values.shape[-1] % _LANES == 0
        and available("windows")
    )


def available(part: Part = "labs") -> bool:
    """Whether there are kernels, and a use for them.

    Each works on one core of a CPU, so the other cores are to be JAX devices of their own. With
    `MNIST_JAX_KERNELS=off` in the environment there are none from then on.
    """
    return _are_of_use() and load(part)


def _are_of_use() -> bool:
    switched_off = os.environ.get("MNIST_JAX_KERNELS", "").lower() == "off"
    on_cores = platforms.likely() == "cpu" and parallel.each_core_is_a_device()
    return on_cores and not switched_off


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


def convolution(images: Array, kernel: Array, stride: int, padding: int) -> Array:
    """`windows.convolve` of one group.

    An output that sees only zeros is 0 exactly.
    """
    n, *sides, _ = images.shape
    out = [
        (side + 2 * padding - size) // stride + 1
        for side, size in zip(sides, kernel.shape[:2], strict=True)
    ]
    shape = jax.ShapeDtypeStruct((n, *out, kernel.shape[-1]), jnp.float32)
    return _windows("convolution", shape, images, kernel, stride, padding)


def convolution_gradients(
    images: Array, kernel: Array, grad: Array, stride: int, padding: int
) -> tuple[Array, Array]:
    """The gradients of images and kernel, each a kernel's call: XLA leaves out what is not used."""
    images_out, kernel_out = (
        jax.ShapeDtypeStruct(array.shape, jnp.float32) for array in (images, kernel)
    )
    return (
        _windows("convolution_images_grad", images_out, kernel, grad, stride, padding),
        _windows("convolution_kernel_grad", kernel_out, images, grad, stride, padding),
    )


def _windows(target: str, out: Any, a: Array, b: Array, stride: int, padding: int) -> Array:
    result: Array = _kernel(target, out)(a, b, stride=np.int64(stride), pad=np.int64(padding))
    return result


def channel_moments(values: Array, weights: Array) -> tuple[Array, Array]:
    """The mean, and the sum of squared deviations from it, over all but the last axis.

    Args:
        values: `[n, ..., channels]`.
        weights: `[n]`, what each image counts for.

    Returns:
        `[channels]` each.
    """
    out = jax.ShapeDtypeStruct(values.shape[-1:], jnp.float32)
    mean, deviations = _kernel("channel_moments", (out, out))(values, weights)
    return mean, deviations


def channel_products(values: Array, grad: Array, mean: Array) -> tuple[Array, Array]:
    """The sums of `grad` and of `grad * (values - mean)` over all but the last axis."""
    out = jax.ShapeDtypeStruct(values.shape[-1:], jnp.float32)
    sums, products = _kernel("channel_products", (out, out))(values, grad, mean)
    return sums, products


def max_pool(
    images: Array, window: int, stride: int, padding: int, out: tuple[int, int]
) -> tuple[Array, Array]:
    """The maximum of each window, and its place, for `max_pool_gradient`.

    Args:
        images: `[n, height, width, channels]`.
        window: a side of up to 15 pixels.
        stride: from one window to the next.
        padding: pixels above and on the left that are outside of the images.
        out: how many windows, down and across; the last may hang over the edge.

    Returns:
        float32 and uint8 `[n, *out, channels]`.
    """
    shape = (len(images), *out, images.shape[-1])
    results = jax.ShapeDtypeStruct(shape, jnp.float32), jax.ShapeDtypeStruct(shape, jnp.uint8)
    sides = {"window": np.int64(window), "stride": np.int64(stride), "pad": np.int64(padding)}
    pooled, places = _kernel("max_pool", results)(images, **sides)
    return pooled, places


def max_pool_gradient(
    places: Array, grad: Array, window: int, stride: int, padding: int, sides: tuple[int, int]
) -> Array:
    """The gradient of images of `sides`, height and width; of equal values the first gets it."""
    out = jax.ShapeDtypeStruct((len(grad), *sides, grad.shape[-1]), jnp.float32)
    attributes = {"window": np.int64(window), "stride": np.int64(stride), "pad": np.int64(padding)}
    images_grad: Array = _kernel("max_pool_grad", out)(places, grad, **attributes)
    return images_grad


def _kernel(target: str, out: Any) -> Callable[..., Any]:
    """One of the `_TARGETS` as a function; `out` has the shapes of what it gives."""
    return jax.ffi.ffi_call(f"mnist_jax.{target}", out, vmap_method="sequential")


def _pad(kernel: Array, padding: str) -> np.int64:
    return np.int64(kernel.shape[0] // 2 if padding == "SAME" else 0)


class _Build(NamedTuple):
    """A compiler at work."""

    process: subprocess.Popen[str]
    folder: tempfile.TemporaryDirectory[str]
    unfinished: Path  # the file that it writes


_builds: dict[Path, _Build] = {}  # those that `_library` has not waited for yet


def start_building(part: Part = "labs") -> bool:
    """Begin to build the kernels, where they are of use and there are none yet.

    Other things can go on meanwhile; `load` waits for it.

    Returns:
        Whether they are being built.
    """
    if not _is_supported() or not _are_of_use():
        return False
    library = _folder() / _name(part)
    if library in _builds or library.exists():
        return library in _builds
    with contextlib.suppress(OSError):  # `load` tries again, and says what is wrong
        _builds[library] = _start_compiler(library, part)
    return library in _builds


@functools.cache
def load(part: Part = "labs") -> bool:
    """Build the kernels if need be, and register them with XLA; whether that worked.

    Warns:
        KernelWarning: there is no compiler, or what it made cannot be used.
    """
    if not _is_supported():
        return False
    try:
        library = _library(part)
        for target in _TARGETS[part]:
            capsule = jax.ffi.pycapsule(getattr(library, target))
            jax.ffi.register_ffi_target(f"mnist_jax.{target}", capsule, platform="cpu")
    except (OSError, RuntimeError, AttributeError, subprocess.CalledProcessError) as error:
        message = f"kernels.cc cannot be used, so this CPU trains more slowly: {_reason(error)}"
        warnings.warn(message, KernelWarning, stacklevel=2)
        return False
    return True


@functools.cache
def host_library(part: Part) -> ctypes.CDLL | None:
    """Functions that Python calls itself; None where they cannot be had.

    Warns:
        KernelWarning: there is no compiler, or what it made cannot be used.
    """
    if not _is_supported() or os.environ.get("MNIST_JAX_KERNELS", "").lower() == "off":
        return None
    try:
        return _library(part)
    except (OSError, RuntimeError, subprocess.CalledProcessError) as error:
        message = f"{_SOURCES[part].name} cannot be used, which takes longer: {_reason(error)}"
        warnings.warn(message, KernelWarning, stacklevel=2)
        return None


def _reason(error: Exception) -> str:
    """In one line."""
    if isinstance(error, subprocess.CalledProcessError):
        first, *_ = (error.stderr or "").splitlines() or ["it says nothing"]
        return f"{error.cmd[0]} ended with code {error.returncode}: {first}"
    first, *_ = str(error).splitlines() or [repr(error)]
    return first


def _is_supported() -> bool:
    return sys.platform in ("linux", "darwin") and (_ARM or _MACHINE == "x86_64")


def _name(part: Part) -> str:
    """Of the file for this code and processor."""
    what = (
        part,
        _SOURCES[part].read_text(),
        _FLAGS,
        jaxlib.__version__,
        platform.libc_ver(),
        _processor(),
    )
    return f"kernels-{hashlib.sha256(repr(what).encode()).hexdigest()[:16]}.so"


def _folder() -> Path:
    return cache.folder() or _own_folder()


@functools.cache
def _own_folder() -> Path:
    """For this process, where there can be none for later ones too."""
    folder = Path(tempfile.mkdtemp(prefix="mnist_jax-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _library(part: Part = "labs") -> ctypes.CDLL:
    """The kernels that an earlier process built for the same code and processor, or new ones."""
    library = _folder() / _name(part)
    if library.exists():
        with contextlib.suppress(OSError):  # it is damaged, or of another system
            return ctypes.CDLL(str(library))
    build = _builds.pop(library, None) or _start_compiler(library, part)
    with build.folder:
        _, errors = build.process.communicate()
        if code := build.process.returncode:
            raise subprocess.CalledProcessError(code, build.process.args, stderr=errors)
        # Several processes may build at once: each puts the whole file there in one move.
        return ctypes.CDLL(str(build.unfinished.replace(library)))


def _start_compiler(library: Path, part: Part) -> _Build:
    """Start what makes the library; it ends with this process.

    Raises:
        OSError: there is no compiler, or the library's folder cannot be written.
    """
    folder = tempfile.TemporaryDirectory(dir=library.parent)
    unfinished = Path(folder.name) / library.name
    compiler = shlex.split(os.environ.get("CXX", "c++"))
    command = [
        *compiler,
        *_FLAGS,
        f"-DMNIST_JAX_{part.upper()}",
        f"-I{jax.ffi.include_dir()}",
        str(_SOURCES[part]),
    ]
    try:
        process = subprocess.Popen(
            [*command, "-o", str(unfinished)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # so that the processes it starts can be ended too
        )
    except OSError:
        folder.cleanup()
        raise
    atexit.register(_end, process)
    return _Build(process, folder, unfinished)


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def _processor() -> str:
    """What building for the processor at hand depends on: machines may share a home."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return "".join(sorted({line for line in lines if line.startswith(("model name", "flags"))}))
