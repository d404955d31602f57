"""The machine's peak: the best that a 2048-cubed float32 matrix product reaches, by any library.

`python -m experiments.benchmarks.peak numpy` prints GFLOP/s; also `jax` and `torch`.
"""

import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Callable

SIZE = 2048
LIBRARIES = ("numpy", "jax", "torch")


def measure() -> dict[str, float]:
    """GFLOP/s of each library there is, each in its own process."""
    found = {}
    for library in LIBRARIES:
        if importlib.util.find_spec(library):
            command = [sys.executable, "-m", "experiments.benchmarks.peak", library]
            environment = os.environ | {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
            done = subprocess.run(
                command, capture_output=True, text=True, check=True, env=environment
            )
            found[library] = float(done.stdout)
    return found


def main(library: str, seconds: float = 2.0) -> None:
    """Print the best GFLOP/s of as many products as the time allows."""
    multiply = {"numpy": _numpy, "jax": _jax, "torch": _torch}[library]()
    multiply()
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        started = time.perf_counter()
        multiply()
        best = min(best, time.perf_counter() - started)
    print(2 * SIZE**3 / best / 1e9)


def _numpy() -> Callable[[], object]:
    import numpy as np

    a, b = np.random.default_rng(0).random((2, SIZE, SIZE), np.float32)
    return lambda: a @ b


def _jax() -> Callable[[], object]:
    import jax

    a, b = jax.random.normal(jax.random.key(0), (2, SIZE, SIZE))
    return lambda: (a @ b).block_until_ready()


def _torch() -> Callable[[], object]:
    import torch

    a, b = torch.rand((2, SIZE, SIZE))
    return lambda: a @ b


if __name__ == "__main__":
    main(sys.argv[1])
