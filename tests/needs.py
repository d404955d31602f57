"""What a test is skipped without."""

import shutil

import pytest

from mnist_jax import kernels

needs_kernels = pytest.mark.skipif(not kernels.load(), reason="no compiler, or not a system for it")


def gnugo() -> str:
    """The program, or "" where it is not installed."""
    return shutil.which("gnugo") or shutil.which("/usr/games/gnugo") or ""


needs_gnugo = pytest.mark.skipif(not gnugo(), reason="gnugo is not installed")
