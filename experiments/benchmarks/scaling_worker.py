"""One process of a point of `scaling`: trains `deep` on noise, asked over a pipe.

`python -m experiments.benchmarks.scaling_worker MEMBERS DEVICES PROCESSES PROCESS_ID COORDINATOR`
"""

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from experiments.benchmarks.sides.ours import make_trainer
from experiments.benchmarks.worker import serve
from mnist_jax import models, parallel

NETWORK = "deep"
_IMAGES = 11_000  # 110 steps an epoch: whole chunks on a CPU (10 steps) and elsewhere (110)


def main(arguments: list[str]) -> None:
    """Answer requests until the pipe closes."""
    members, devices, processes, process_id = map(int, arguments[:4])
    coordinator = arguments[4]
    train: Callable[[int], None] | None = None

    def prepare(steps: int) -> dict[str, Any]:
        nonlocal train
        parallel.use_cpu_cores(devices)
        if processes > 1:
            parallel.connect(coordinator, processes, process_id)
        layout = parallel.plan(members, parallel.first_devices(devices))
        train = make_trainer(layout, models.create(NETWORK), *noise(_IMAGES))
        train(steps)
        return {}

    def run(steps: int) -> dict[str, Any]:
        assert train is not None
        started = time.perf_counter()
        train(steps)
        return {"seconds": time.perf_counter() - started}

    serve({"prepare": prepare, "run": run})


def noise(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Images of noise, uint8 `[n, 28, 28, 1]`, and labels, int32 `[n]`: as fast as any others."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (n, 28, 28, 1), np.uint8)
    return images, random.integers(0, 10, n, np.int32)


if __name__ == "__main__":
    main(sys.argv[1:])
