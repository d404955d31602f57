"""Lower functions for platforms that are not here, and look for what these do not take."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend.mlir import ir

from mnist_jax import platforms

# As JAX lowers for them, and as it names their devices.
PLATFORMS = {"cpu": "cpu", "cuda": "gpu", "tpu": "tpu"}
_FLOATS = ("bf16", "f16", "f32")
_PRODUCTS = ("stablehlo.dot", "stablehlo.dot_general", "stablehlo.convolution")
# Calls of code beside XLA: jaxlib's own on a GPU, and what only tells XLA about layouts.
_CALLS = {
    "cpu": ("mnist_jax.",),
    "cuda": ("cu_threefry2x32_ffi", "Sharding"),
    "tpu": ("Sharding",),
}


def faults(function: Callable[..., Any], *args: Any, said: bool = True) -> dict[str, set[str]]:
    """What is wrong with a function's lowering, by platform; empty sets where nothing is.

    Args:
        said: the platform is `platforms.known`, as in all that `parallel` maps; otherwise the
            choice is left to the lowering.
    """
    found = {}
    for platform, device in PLATFORMS.items():
        # A function of its own: JAX would take what it has traced for another platform.
        traced = jax.jit(lambda *args: function(*args))
        if said:
            with platforms.known(device):
                lowered = traced.trace(*args).lower(lowering_platforms=(platform,))
        else:
            lowered = traced.trace(*args).lower(lowering_platforms=(platform,))
        found[platform] = set(faults_of_module(lowered.compiler_ir(), platform))
    return found


def faults_of_module(module: Any, platform: str) -> Iterator[str]:
    """What a platform does not take of a StableHLO module.

    Products are of two floats of the same type, neither of booleans or integers, which cuBLAS and a
    TPU's matrix unit lack, nor of float64, which a TPU lacks; nothing else is of float64 or of
    complex numbers either. Code beside XLA is only called where it exists.
    """
    for operation in _operations(module):
        name = operation.name
        types = [_element(value) for value in (*operation.operands, *operation.results)]
        if name in _PRODUCTS and (len(set(types[:2])) > 1 or types[0] not in _FLOATS):
            yield f"{name} of {' and '.join(types[:2])}"
        if name == "stablehlo.custom_call":
            target = ir.StringAttr(operation.attributes["call_target_name"]).value
            if not target.startswith(_CALLS[platform]):
                yield f"call of {target}"
        for wide in ("f64", "complex"):
            if any(wide in element for element in types):
                yield f"{name} of {wide}"


def _element(value: Any) -> str:
    """What an array has: `f32` of `tensor<3x4xf32>`."""
    return re.sub(r"tensor<(?:[0-9?]+x)*(.*)>", r"\1", str(value.type))


def _operations(module: Any) -> list[Any]:
    found: list[Any] = []

    def visit(operation: Any) -> Any:
        found.append(operation)
        return ir.WalkResult.ADVANCE

    module.operation.walk(visit)
    return found
