"""One side in its own process, asked for work over a pipe: JSON lines in, JSON lines out.

Each framework gets the whole machine for its turn: the others' processes sleep on their pipes.
"""

import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np

from experiments.benchmarks import sides
from experiments.benchmarks.sides import SIDES, Side
from experiments.benchmarks.workloads import (
    BATCH,
    CHECKED_STEPS,
    NETWORKS,
    PUBLISHED,
    WORKLOADS,
    Workload,
    make_weights,
    random_inputs,
)

# Nothing else is set: each framework as it comes. OpenMP's threads need not be told to wait without
# spinning, which would slow PyTorch: they fall asleep well within the pause between turns.
CPU_ONLY = {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}
FIRST_STEPS = 10
_BATCHES = 4  # of random inputs


class WorkerError(RuntimeError):
    """A worker could not do what it was asked; the message is its last word."""


class Worker:
    """The parent's end of a process that answers requests; a context manager that ends it.

    Args:
        module: what the process runs; it ends in `serve`.
        arguments: the module's.
        environment: added to this process's own.
    """

    def __init__(self, module: str, arguments: list[str], environment: Mapping[str, str]) -> None:
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115, closed in __exit__
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=os.environ | environment,
        )

    def ask(self, request: str, **arguments: Any) -> dict[str, Any]:
        """Send one request and wait for its answer.

        Raises:
            WorkerError: it failed, or its process ended.
        """
        self.send(request, **arguments)
        return self.receive()

    def send(self, request: str, **arguments: Any) -> None:
        """Send one request; `receive` gives its answer."""
        assert self._process.stdin
        with contextlib.suppress(BrokenPipeError):  # `receive` tells
            self._process.stdin.write(json.dumps({"do": request} | arguments) + "\n")
            self._process.stdin.flush()

    def receive(self) -> dict[str, Any]:
        """Wait for an answer.

        Raises:
            WorkerError: it failed, or its process ended.
        """
        assert self._process.stdout
        line = self._process.stdout.readline()
        answer = json.loads(line) if line else {"error": self._last_words()}
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer

    def run(self, steps: int) -> dict[str, Any]:
        """Work; `seconds`, and `accuracy` after a recipe."""
        return self.ask("run", steps=steps)

    def _last_words(self) -> str:
        code = self._process.wait()
        self._log.seek(0)
        lines = self._log.read().strip().splitlines() or ["no output"]
        return f"its process ended with code {code}: {lines[-1]}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._log):
            if stream:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


def start_side(
    name: str, workload: str, data: Path, environment: Mapping[str, str] = CPU_ONLY
) -> Worker:
    """A side in its own process, which is to `prepare` next."""
    arguments = [name, workload, str(data)]
    return Worker(
        "experiments.benchmarks.worker", arguments, {**environment, **SIDES[name].environment}
    )


def peak_memory() -> int:
    """The largest resident size of this process so far, in bytes."""
    try:
        # Not getrusage, which on Linux also counts the process that started this one.
        status = Path("/proc/self/status").read_text()
        return 1024 * int(status.split("VmHWM:")[1].split()[0])
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS


def make_run(side: Side, name: str, arrays: dict[str, np.ndarray]) -> Callable[[int], float | None]:
    """A function of steps that does a workload; it gives the accuracy of a recipe."""
    workload = WORKLOADS[name]
    if workload.task == "published":
        make_trainer = getattr(side, "published_trainer", None)
        if make_trainer is None:
            raise NotImplementedError("it does not have this network.")
        published = PUBLISHED[name]
        trainer: Callable[[int], None] = make_trainer(
            published, *random_inputs(published, _BATCHES * published.batch)
        )
        return trainer
    train = arrays["train_images"], arrays["train_labels"]
    if workload.task == "recipe":
        make_recipe = getattr(side, "recipe", None)
        if make_recipe is None:
            raise NotImplementedError("it has no recipe for this workload.")
        recipe = make_recipe(train, (arrays["test_images"], arrays["test_labels"]))
        return lambda steps: [recipe() for _ in range(steps)][-1]
    network = NETWORKS[workload.network or ""]
    if workload.task == "train":
        return side.trainer(network, workload.members, *train)
    predict = side.predictor(network, make_weights(network), arrays["test_images"])

    def run(steps: int) -> None:
        for _ in range(steps):
            predict()

    return run


def check_values(side: Side, workload: Workload, arrays: dict[str, np.ndarray]) -> list[float]:
    """What every side must agree on: the losses of the first steps without dropout, or the mean
    NLL of the test images; from the same weights. Nothing for a recipe, or a published network."""
    if workload.network is None:
        return []
    network = NETWORKS[workload.network]
    weights = make_weights(network)
    if workload.task == "train":
        n = CHECKED_STEPS * BATCH
        return side.losses(network, weights, arrays["train_images"][:n], arrays["train_labels"][:n])
    logits = side.predictor(network, weights, arrays["test_images"])().astype(np.float64)
    log_probs = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    return [float(-log_probs[np.arange(len(logits)), arrays["test_labels"]].mean())]


def main(name: str, workload_name: str, data: str) -> None:
    """Answer requests until the pipe closes."""
    workload = WORKLOADS[workload_name]
    arrays = dict(np.load(data))
    side: Side | None = None
    run: Callable[[int], float | None] | None = None

    def prepare(steps: int) -> dict[str, Any]:
        nonlocal side, run
        side = sides.load(name)
        run = make_run(side, workload_name, arrays)
        run(steps if workload.task in ("train", "published") else 1)
        return {}

    def check() -> dict[str, Any]:
        assert side is not None
        return {"values": check_values(side, workload, arrays)}

    def work(steps: int) -> dict[str, Any]:
        assert run is not None
        started = time.perf_counter()
        accuracy = run(steps)
        seconds = time.perf_counter() - started
        return {"seconds": seconds} | ({} if accuracy is None else {"accuracy": accuracy})

    def describe() -> dict[str, Any]:
        return {
            "peak_memory_mib": round(peak_memory() / 2**20),
            "versions": {
                package: sys.modules[package].__version__ for package in SIDES[name].packages
            },
        }

    serve({"prepare": prepare, "check": check, "run": work, "describe": describe})


def serve(requests: Mapping[str, Callable[..., dict[str, Any]]]) -> None:
    """Answer requests from stdin on stdout until the pipe closes."""
    # What a framework prints must not get between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = requests[request.pop("do")](**request)
        except Exception as error:  # whatever the framework raises becomes its answer
            first = str(error).strip().splitlines() or [""]
            answer = {"error": f"{type(error).__name__}: {first[0]}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
