"""A model as ONNX: traced by JAX for any number of inputs, and translated."""

import json
from pathlib import Path

import jax
import numpy as np
import onnx
from onnx import helper

from experiments.interchange import files, model
from experiments.interchange.jaxpr_to_onnx import Constant, Graph, Unsupported, translate
from experiments.interchange.model import OUTPUTS, Input, Model
from mnist_jax import platforms

OPSET = 18
_IR_VERSION = 8  # the first that has this opset, so that older runtimes read it
_MOST_BYTES = 2**31 - 2**24  # that protobuf takes, and room for all but weights


def write(exported: Model, path: Path) -> str:
    """Write the file; returns what to say of it.

    Raises:
        ValueError: it cannot be written, the weights are too large, or the network computes what
            cannot be translated.
    """
    if exported.bytes > _MOST_BYTES:
        raise ValueError(
            f"--to onnx holds up to 2 GiB of weights, and not {exported.bytes / 2**30:.1f}.\n"
            "Export members one by one with --member, or all with --to safetensors."
        )
    try:
        proto = to_onnx(exported)
    except Unsupported as error:
        raise ValueError(
            f"--to onnx cannot hold this network: {error}.\n"
            "--to stablehlo and --to safetensors take every network."
        ) from None
    onnx.checker.check_model(proto, full_check=True)
    with files.new_file(path) as unfinished:
        onnx.save_model(proto, str(unfinished))
    return (
        f"ONNX, opset {OPSET}, checked by onnx.checker; its operations are ONNX's own, without the "
        "C++ kernels"
    )


def to_onnx(exported: Model) -> onnx.ModelProto:
    """The model in ONNX.

    Raises:
        Unsupported: an operation or dtype that has no translation.
    """
    input_ = exported.input
    with platforms.known(platforms.PLAIN):
        predict = model.make_function(exported.members)
        closed = jax.make_jaxpr(predict)(exported.variables, input_.symbolic())
    graph = Graph()
    weights = [Constant(array, name) for name, array in model.named(exported.members).items()]
    results = translate(graph, closed.jaxpr, closed.consts, [*weights, input_.name])
    for result, name in zip(results, OUTPUTS, strict=True):
        graph.add_as(name, "Identity", result)
    made = helper.make_graph(
        graph.needed_for(OUTPUTS),
        "mnist_jax",
        [_value_info(input_.name, input_.dtype, input_.dims)],
        _outputs(exported, input_),
        graph.weights_of(OUTPUTS),
    )
    proto = helper.make_model(
        made,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=_IR_VERSION,
        producer_name="mnist_jax",
        producer_version=exported.metadata["mnist_jax"],
    )
    helper.set_model_props(
        proto, {name: json.dumps(value) for name, value in exported.metadata.items()}
    )
    return proto


def _outputs(exported: Model, input_: Input) -> list[onnx.ValueInfoProto]:
    count, classes = len(exported.members), len(exported.metadata["classes"])
    n = input_.dims[0]
    dims: tuple[tuple[int | str, ...], ...] = (n, classes), (count, n, classes)
    return [_value_info(name, np.float32, d) for name, d in zip(OUTPUTS, dims, strict=True)]


def _value_info(name: str, dtype: type, dims: tuple[int | str, ...]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(
        name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), dims
    )
