"""Four CPU devices for all tests, and short compilation, set before JAX starts.

Where JAX has a GPU or TPU the tests run on it; those that need more devices than there are skip.
"""

import importlib.util
import os
import tempfile

import pytest

# Compiling takes most of the tests' time. Processes that the tests start inherit it.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ.pop("COLUMNS", None)  # pytest-xdist sets it; commands in a pipe heed it
if importlib.util.find_spec("jax_plugins"):  # for a GPU
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # several processes share it
    # A run that is resumed ends with the same bits, which on a GPU needs sums in a fixed order.
    flags = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{flags} --xla_gpu_deterministic_ops=true".strip()

import jax

# What is compiled is kept until the tests end, for all of their processes: those of
# pytest-xdist too, which find the folder in the environment.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    compiled = tempfile.TemporaryDirectory(prefix="mnist_jax-compiled-", ignore_cleanup_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = compiled.name
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

from mnist_jax import parallel

parallel.use_cpu_cores(4)


@pytest.fixture(scope="session", autouse=True)
def float32_products():
    """Not TF32's or bfloat16's, by which GPUs and TPUs multiply by default."""
    if jax.default_backend() == "cpu":
        yield
        return
    with jax.default_matmul_precision("highest"):
        yield


@pytest.fixture
def on_a_cpu(monkeypatch):
    """The kernels are used also where there is a GPU, and more cores than the tests' devices."""
    monkeypatch.setattr(parallel, "each_core_is_a_device", lambda: True)
    with jax.default_device(jax.devices("cpu")[0]):
        yield
