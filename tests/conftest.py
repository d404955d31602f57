"""Four CPU devices for all tests, and short compilation, set before JAX starts."""

import os
import tempfile

# Compiling takes most of the tests' time. Processes that the tests start inherit it.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

# What took some time to compile is kept until the tests end, for all of their processes: those of
# pytest-xdist too, which find the folder in the environment.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    compiled = tempfile.TemporaryDirectory(prefix="mnist_jax-compiled-", ignore_cleanup_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = compiled.name
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")

from mnist_jax import parallel

parallel.use_cpu_cores(4)
