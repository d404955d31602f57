"""The C++ kernels built for other processors than the one at hand, against NumPy in float64.

ARM's is run by an emulator: Debian's g++-aarch64-linux-gnu and qemu-user. Last result: all passed,
with GCC 12.2 and QEMU 7.2.
"""

import platform
import shutil
import subprocess
from pathlib import Path

import jax
import numpy as np
import pytest

from mnist_jax import kernels
from tests import exact

pytestmark = pytest.mark.slow

_ARM = ("qemu-aarch64", "-L", "/usr/aarch64-linux-gnu")
PROCESSORS = {
    "SSE2": (["c++", "-march=x86-64"], []),
    "AVX2": (["c++", "-march=haswell"], []),
    "NEON": (["aarch64-linux-gnu-g++", "-march=armv8-a"], [*_ARM]),
}
SHAPES = [(3, 28, 28, 1, 3, 32, 1), (3, 14, 14, 8, 3, 40, 1), (3, 14, 14, 32, 3, 64, 0)]


@pytest.fixture(scope="module", params=PROCESSORS)
def program(request, tmp_path_factory):
    """The command that runs the kernels on standard input."""
    (compiler, *flags), emulator = PROCESSORS[request.param]
    if not shutil.which(compiler) or (emulator and not shutil.which(emulator[0])):
        pytest.skip(f"no {compiler}, or nothing that runs what it builds")
    if not emulator and platform.machine() != "x86_64":
        pytest.skip("no x86-64 processor")
    built = tmp_path_factory.mktemp("kernels") / "kernels"
    folders = [f"-I{jax.ffi.include_dir()}", f"-I{kernels._SOURCE.parent}"]
    source = str(Path(__file__).with_name("kernels_main.cc"))
    flags += [flag for flag in kernels._FLAGS if flag not in (kernels._PROCESSOR, "-shared")]
    subprocess.run([compiler, *flags, *folders, source, "-o", built], check=True)
    return [*emulator, str(built)]


@pytest.mark.parametrize("kind", exact.KINDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_kernels_are_numpys(program, shape, kind):
    n, _, _, channels, size, features, pad = shape
    padding = "SAME" if pad else "VALID"
    images = exact.draw(kind, channels, n)
    rng = np.random.default_rng(1)
    kernel = rng.normal(size=(size, size, channels, features)).astype(np.float32)
    bias = rng.normal(size=features).astype(np.float32)
    pooled = exact.pool(images, kernel, bias, padding)
    grad = rng.normal(size=pooled.output.shape).astype(np.float32)
    grad[rng.random(grad.shape) < 0.5] = 0
    grad[pooled.close()] = 0
    arrays = [np.array(shape, np.int64), images, kernel, bias, grad]
    given = b"".join(array.tobytes() for array in arrays)
    found = subprocess.run(program, input=given, stdout=subprocess.PIPE, check=True).stdout

    exact_grads = list(exact.gradients(images, kernel, pooled.passing, grad, padding))
    if channels == 1:
        exact_grads[0] *= 0
    a = grad.astype(np.float64).reshape(-1, features)
    g = a[:features]
    wanted = [pooled.output, pooled.places.astype(np.uint8), *exact_grads, a @ g, a @ g.T, a.T @ a]
    for array in wanted:
        part = np.frombuffer(found, np.uint8 if array.dtype == np.uint8 else np.float32, array.size)
        found = found[part.nbytes :]
        if array.dtype == np.uint8:
            clear = ~pooled.close()
            np.testing.assert_array_equal(part.reshape(array.shape)[clear], array[clear])
        else:
            assert exact.difference(part.reshape(array.shape), array) < 1e-5
    assert not found
