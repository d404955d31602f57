"""Four CPU devices for all tests, set before JAX starts its backend."""

from mnist_jax import parallel

parallel.use_cpu_cores(4)
