"""Four CPU devices for all tests, and short compilation, set before JAX starts."""

import os

# Compiling takes most of the tests' time. Processes that the tests start inherit it.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

from mnist_jax import parallel

parallel.use_cpu_cores(4)
