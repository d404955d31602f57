"""What a test is skipped without."""

import pytest

from mnist_jax import kernels

needs_kernels = pytest.mark.skipif(not kernels.load(), reason="no compiler, or not a system for it")
