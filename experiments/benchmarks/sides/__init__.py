"""The sides of the comparison, one module a framework, each as its own users would write it.

All pool before relu, which is the same function as relu before pooling on a quarter of the values.
"""

import importlib
import importlib.util
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, TypeVar

import numpy as np

from experiments.benchmarks.workloads import Network, Weights

T = TypeVar("T")


class Side(Protocol):
    """What a side can do. Images are uint8 `[n, 28, 28, 1]`, labels int32 `[n]`.

    What a side returns is called again and again, and ends when the work is done. A side may also
    have `recipe(train, test)`, which gives a function that trains by the recipe of the workload
    `fast` and returns the test accuracy, and `published_trainer(published, images, labels)`, which
    is to a `workloads.Published` what `trainer` is to a `Network`.
    """

    def losses(
        self, network: Network, weights: Weights, images: np.ndarray, labels: np.ndarray
    ) -> list[float]:
        """Each batch's loss before its step: batches of 100 in order, dropout off."""

    def trainer(
        self, network: Network, members: int, images: np.ndarray, labels: np.ndarray
    ) -> Callable[[int], Any]:
        """A function that trains each member for some steps, dropout on."""

    def predictor(
        self, network: Network, weights: Weights, images: np.ndarray
    ) -> Callable[[], np.ndarray]:
        """A function that gives the logits, float32 `[n, 10]`, on the host."""


@dataclass(frozen=True)
class Entry:
    """How a side is found and started."""

    title: str
    make: str  # module:class
    packages: tuple[str, ...]  # what must be installed, by the names they are imported by
    options: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)


OURS = "ours"
_TENSORFLOW = {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "2"}
SIDES = {
    OURS: Entry("mnist_jax", "ours:MnistJax", ("jax", "flax")),
    "torch": Entry("PyTorch, eager", "pytorch:PyTorch", ("torch",)),
    "torch_compile": Entry(
        "PyTorch, torch.compile", "pytorch:PyTorch", ("torch",), {"compiled": True}
    ),
    "keras_tf": Entry(
        "Keras on TensorFlow",
        "keras_fit:Keras",
        ("keras", "tensorflow"),
        {"jit_compile": False},
        _TENSORFLOW,
    ),
    "keras_tf_jit": Entry(
        "Keras on TensorFlow, jit_compile",
        "keras_fit:Keras",
        ("keras", "tensorflow"),
        {"jit_compile": True},
        _TENSORFLOW,
    ),
    "keras_jax": Entry(
        "Keras on JAX",
        "keras_fit:Keras",
        ("keras", "jax"),
        {"jit_compile": True},
        {"KERAS_BACKEND": "jax"},
    ),
    "flax": Entry(
        "Flax linen, nn.Conv, one jitted call a step", "flax_linen:FlaxLinen", ("flax", "jax")
    ),
}
PEERS = tuple(name for name in SIDES if name != OURS)


def missing_packages(name: str) -> list[str]:
    """Those of a side's packages that are not installed."""
    packages = SIDES[name].packages
    return [package for package in packages if importlib.util.find_spec(package) is None]


def load(name: str) -> Side:
    """Import a side's framework and make the side."""
    module, _, kind = SIDES[name].make.partition(":")
    make = getattr(importlib.import_module(f"experiments.benchmarks.sides.{module}"), kind)
    side: Side = make(**SIDES[name].options)
    return side


def linen_params(weights: Weights) -> dict[str, dict[str, np.ndarray]]:
    """As linen names them: `Conv_0`, `Conv_1`, ..., `Dense_0`, ..."""
    params: dict[str, dict[str, np.ndarray]] = {}
    for kernel, bias in weights:
        kind = "Conv" if kernel.ndim == 4 else "Dense"
        place = sum(name.startswith(kind) for name in params)
        params[f"{kind}_{place}"] = {"kernel": kernel} | ({} if bias is None else {"bias": bias})
    return params


def fastest(
    run: Callable[[int], T], batches: tuple[int, ...] = (100, 250, 1000)
) -> Callable[[], T]:
    """Bind the batch size that takes least time, after one run of each to compile."""
    seconds = {}
    for batch in batches:
        run(batch)
        started = time.perf_counter()
        run(batch)
        seconds[batch] = time.perf_counter() - started
    return partial(run, min(seconds, key=lambda batch: seconds[batch]))
