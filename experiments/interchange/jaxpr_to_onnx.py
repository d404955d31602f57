"""A jaxpr as a graph of ONNX: a function an operation, after what can be computed at once was.

What depends on weights alone (a batch normalisation's factors, scattered kernels, matrices that
resize) is computed by JAX here and becomes a weight of the graph, so that only what is done to
inputs needs a translation. Dimensions may be symbolic, as `jax.export` has them.
"""

from collections.abc import Callable, Iterable, Sequence
from math import prod
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import onnx
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var
from onnx import helper, numpy_helper


class Unsupported(Exception):
    """What has no translation."""


class Constant(NamedTuple):
    """A value that does not depend on the input."""

    array: np.ndarray
    name: str | None = None  # of a weight

    def like(self, array: np.ndarray, suffix: str = "") -> "Constant":
        """The same values in another order or shape."""
        return Constant(array, self.name and f"{self.name}{suffix}")


Value = Constant | str  # the latter is the name of one that the graph computes
Translation = Callable[["Graph", JaxprEqn, list[Value]], Value | list[Value]]


class Graph:
    """An ONNX graph as it grows."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._weights: dict[str, np.ndarray] = {}

    def add(self, operation: str, *inputs: Value, **attributes: Any) -> str:
        """The result of an operation, whose inputs are values of this graph."""
        name = f"{operation}_{len(self._nodes)}"
        self.add_as(name, operation, *inputs, **attributes)
        return name

    def add_as(self, name: str, operation: str, *inputs: Value, **attributes: Any) -> None:
        """The same with a result of this name."""
        self._append(operation, inputs, [name], **attributes)

    def add_several(
        self, count: int, operation: str, *inputs: Value, **attributes: Any
    ) -> list[Value]:
        """The same with so many results."""
        names = [f"{operation}_{len(self._nodes)}_{i}" for i in range(count)]
        self._append(operation, inputs, names, **attributes)
        return list(names)

    def _append(
        self, operation: str, inputs: Sequence[Value], outputs: Sequence[str], **attributes: Any
    ) -> None:
        names = [self._name(value) for value in inputs]
        self._nodes.append(helper.make_node(operation, names, outputs, **attributes))

    def _name(self, value: Value) -> str:
        if isinstance(value, str):
            return value
        wanted = name = value.name or f"constant_{_text(value.array)}"
        number = 1
        while name in self._weights and not _same(self._weights[name], value.array):
            number += 1
            name = f"{wanted}_{number}"
        self._weights[name] = value.array
        return name

    def needed_for(self, outputs: Iterable[str]) -> list[onnx.NodeProto]:
        """The nodes that these depend on, in their order."""
        wanted, kept = set(outputs), []
        for node in reversed(self._nodes):
            if wanted.intersection(node.output):
                wanted.update(node.input)
                kept.append(node)
        return kept[::-1]

    def weights_of(self, outputs: Iterable[str]) -> list[onnx.TensorProto]:
        """The weights that these depend on."""
        used = {name for node in self.needed_for(outputs) for name in node.input}
        return [numpy_helper.from_array(a, n) for n, a in self._weights.items() if n in used]


def _text(array: np.ndarray) -> str:
    """For the names of constants: a single value as such."""
    return str(array.item()) if array.size == 1 else "x".join(map(str, array.shape))


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def translate(
    graph: Graph, jaxpr: Jaxpr, consts: Sequence[Any], inputs: Sequence[Value]
) -> list[Value]:
    """Add a jaxpr's operations to a graph.

    Returns:
        The jaxpr's outputs, as values of the graph.

    Raises:
        Unsupported: an operation that has no translation, or one of bfloat16 or float16.
    """
    values: dict[Var, Value] = dict(zip(jaxpr.invars, inputs, strict=True))
    values |= {
        var: Constant(np.asarray(const)) for var, const in zip(jaxpr.constvars, consts, strict=True)
    }

    def read(atom: Any) -> Value:
        if isinstance(atom, Literal):
            return Constant(np.asarray(atom.val, atom.aval.dtype))  # type: ignore[attr-defined]
        return values[atom]

    for eqn in jaxpr.eqns:
        results = _translate_one(graph, eqn, [read(atom) for atom in eqn.invars])
        values |= dict(zip(eqn.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _translate_one(graph: Graph, eqn: JaxprEqn, inputs: list[Value]) -> list[Value]:
    name = eqn.primitive.name
    for var in eqn.outvars:
        if var.aval.dtype in (jnp.bfloat16, jnp.float16):  # type: ignore[attr-defined]
            raise Unsupported(f"it computes in {var.aval.dtype}, not in float32")  # type: ignore[attr-defined]
    if name in _CALLS:
        inner: ClosedJaxpr = eqn.params[_CALLS[name]]
        return translate(graph, inner.jaxpr, inner.consts, inputs)
    constants = [value for value in inputs if isinstance(value, Constant)]
    if len(constants) == len(inputs) and not any(map(_is_free, eqn.outvars)):
        return _compute(eqn, constants)
    if name not in _TRANSLATIONS:
        raise Unsupported(f"there is no translation of the operation {name}")
    results = _TRANSLATIONS[name](graph, eqn, inputs)
    return results if isinstance(results, list) else [results]


def _is_free(var: Any) -> bool:
    """Whether some dimension depends on the input's."""
    return not all(isinstance(size, int) for size in var.aval.shape)


def _compute(eqn: JaxprEqn, inputs: Sequence[Constant]) -> list[Value]:
    """By JAX, now. What is a weight in another shape keeps its name."""
    found = eqn.primitive.bind(*(jnp.asarray(value.array) for value in inputs), **eqn.params)
    arrays = [np.asarray(a) for a in (found if eqn.primitive.multiple_results else [found])]
    if eqn.primitive.name in ("broadcast_in_dim", "reshape"):
        (value,), (array,) = inputs[:1], arrays
        if array.size == value.array.size:
            return [value.like(array)]
    return [Constant(array) for array in arrays]


def _shape(var: Any) -> tuple[Any, ...]:
    return tuple(var.aval.shape)


def _ints(values: Iterable[int]) -> Constant:
    return Constant(np.array([*values], np.int64))


def _same_value(graph: Graph, eqn: JaxprEqn, inputs: list[Value]) -> Value:
    return inputs[0]


def _as(operation: str) -> Translation:
    """The translation of an operation that ONNX has, of any number of inputs."""

    def translation(graph: Graph, eqn: JaxprEqn, inputs: list[Value]) -> Value:
        return graph.add(operation, *inputs)

    return translation


def _cast(graph: Graph, eqn: JaxprEqn, inputs: list[Value]) -> Value:
    if eqn.invars[0].aval.dtype == eqn.params["new_dtype"]:  # type: ignore[attr-defined]
        return inputs[0]
    return graph.add("Cast", inputs[0], to=_onnx_dtype(eqn.params["new_dtype"]))


def _onnx_dtype(dtype: Any) -> int:
    return helper.np_dtype_to_tensor_dtype(np.dtype(dtype))


def _power(graph: Graph, eqn: JaxprEqn, inputs: list[Value]) -> Value:
    if eqn.params["y"] == 2:
        return graph.add("Mul", inputs[0], inputs[0])
    return graph.add("Pow", inputs[0], Constant(np.array(eqn.params["y"], np.float32)))


def _select(graph: Graph, eqn: JaxprEqn, inputs: list[Value]) -> Value:
    which, *cases = inputs
    if len(cases) != 2 or eqn.invars[0].aval.dtype != np.bool_:  # type: ignore[attr-defined]
        raise Unsupported("it selects among more than two")
    return graph.add("Where", which, cases[1], cases[0])


def _reduce(operation: str) -> Translation:
    def translation(graph: Graph, eqn: JaxprEqn, inputs: list[Value]) -> Value:
        return graph.add(operation, inputs[0], _ints(eqn.params["axes"]), keepdims=0)

    return translation


def _argmax(graph: Graph, eqn: JaxprEqn, inputs: list[Value]) -> Value:
    (axis,) = eqn.params["axes"]
    place = graph.add("ArgMax", inputs[0], axis=axis, keepdims=0)
    return graph.add("Cast", place, to=_onnx_dtype(eqn.params["index_dtype"]))


def _reshape(graph: Graph, eqn: JaxprEqn, inputs: list[Value]) -> Value:
    if eqn.params["dimensions"] is not None:
        raise Unsupported("it reshapes in another order of dimensions")
    return graph.add("Reshape", inputs[0], _sizes(_shape(eqn.invars[0]), eqn.params["new_sizes"]))


def _sizes(before: Sequence[Any], after: Sequence[Any]) -> Constant:
    """As Reshape takes them: 0 for a free dimension that stays, -1 for one that changes."""
    sizes = []
    for i, size in enumerate(after):
        stays = i < len(before) and before[i] == size
        sizes.append(size if isinstance(size, int) else (0 if stays else -1))
    if sizes.count(-1) > 1:
        raise Unsupported("it reshapes to more than one free dimension")
    return _ints(sizes)


def _broadcast(graph: Graph, eqn: JaxprEqn, inputs: list[Value]) -> Value:
    """New dimensions of one; then those that are larger."""
    kept, shape = eqn.params["broadcast_dimensions"], eqn.params["shape"]
    new = [i for i in range(len(shape)) if i not in kept]
    value = graph.add("Unsqueeze", inputs[0], _ints(new)) if new else inputs[0]
    before = dict(zip(kept, _shape(eqn.invars[0]), strict=True))
    grown = [1 if before.get(i, 1) == size else size for i, size in enumerate(shape)]
    if not all(isinstance(size, int) for size in grown):
        raise Unsupported("it repeats values as often as there are inputs")
    return value if prod(grown) == 1 else graph.add("Expand", value, _ints(grown))


def _transpose(graph: Graph, eqn: JaxprEqn, inputs: list[Value]) -> Value:
    return graph.add("Transpose", inputs[0], perm=eqn.params["permutation"])


def _concatenate(graph: Graph, eqn: JaxprEqn, inputs: list[Value]) -> Value:
    if len(inputs) == 1:
        return inputs[0]
    return graph.add("Concat", *inputs, axis=eqn.params["dimension"])


def _split(graph: Graph, eqn: JaxprEqn, inputs: list[Value]) -> list[Value]:
    sizes, axis = eqn.params["sizes"], eqn.params["axis"]
    if len(sizes) == 1:
        return inputs
    return graph.add_several(len(sizes), "Split", inputs[0], _ints(sizes), axis=axis)


def _pad(graph: Graph, eqn: JaxprEqn, inputs: list[Value]) -> Value:
    before, after, between = zip(*eqn.params["padding_config"], strict=True)
    if any(between) or min(*before, *after) < 0:
        raise Unsupported("it pads between values, or cuts some off")
    return graph.add("Pad", inputs[0], _ints((*before, *after)), inputs[1])


def _slice(graph: Graph, eqn: JaxprEqn, inputs: list[Value]) -> Value:
    """The limits of free dimensions are told from their ends."""
    starts, limits = eqn.params["start_indices"], eqn.params["limit_indices"]
    steps, shape = eqn.params["strides"] or (1,) * len(starts), _shape(eqn.invars[0])
    cuts = [*zip(starts, limits, steps, shape, strict=True)]
    axes = [
        i
        for i, (start, limit, step, size) in enumerate(cuts)
        if (start, limit, step) != (0, size, 1)
    ]
    ends = [_end(limits[i], shape[i]) for i in axes]
    parts = [starts[i] for i in axes], ends, axes, [steps[i] for i in axes]
    return graph.add("Slice", inputs[0], *map(_ints, parts)) if axes else inputs[0]


def _end(limit: Any, size: Any) -> int:
    """A limit as Slice takes it: below 0 it counts from the end."""
    if isinstance(limit, int):
        return limit
    left_out = size - limit
    if not isinstance(left_out, int):
        raise Unsupported("it cuts off a part that depends on the number of inputs")
    return -left_out or np.iinfo(np.int64).max


def _gather(graph: Graph, eqn: JaxprEqn, inputs: list[Value]) -> Value:
    """Of what a gather can do, what networks do: whole rows of a table."""
    numbers, sizes = eqn.params["dimension_numbers"], eqn.params["slice_sizes"]
    _, *others = _shape(eqn.invars[0])
    batch = len(_shape(eqn.invars[1])) - 1
    takes_rows = numbers.start_index_map == numbers.collapsed_slice_dims == (0,)
    behind = tuple(range(batch, batch + len(others)))
    if not takes_rows or numbers.offset_dims != behind or tuple(sizes) != (1, *others):
        raise Unsupported("it gathers other than rows of a table")
    return graph.add("Gather", inputs[0], graph.add("Squeeze", inputs[1], _ints([batch])), axis=0)


def _product(graph: Graph, eqn: JaxprEqn, inputs: list[Value]) -> Value:
    (left, right), (left_batch, right_batch) = eqn.params["dimension_numbers"]
    ranks = [len(_shape(var)) for var in eqn.invars]
    if tuple(left) == (ranks[0] - 1,) and tuple(right) == (0,) and ranks[1] == 2:
        return graph.add("MatMul", *inputs)
    letters = iter("abcdefghijklmnopqrstuvwxyz")
    names: list[dict[int, str]] = [{}, {}]
    pairs = [*zip(left_batch, right_batch, strict=True), *zip(left, right, strict=True)]
    for of_left, of_right in pairs:
        names[0][of_left] = names[1][of_right] = next(letters)
    terms = [
        [own.get(i) or next(letters) for i in range(r)] for own, r in zip(names, ranks, strict=True)
    ]
    batch = [names[0][i] for i in left_batch]
    summed = {names[0][i] for i in left}
    free = [name for term in terms for name in term if name not in summed.union(batch)]
    equation = f"{''.join(terms[0])},{''.join(terms[1])}->{''.join([*batch, *free])}"
    return graph.add("Einsum", *inputs, equation=equation)


def _convolution(graph: Graph, eqn: JaxprEqn, inputs: list[Value]) -> Value:
    """ONNX has channels before pixels, and of a kernel features first."""
    params = eqn.params
    numbers = params["dimension_numbers"]
    if params["batch_group_count"] != 1 or set(params["lhs_dilation"]) != {1}:
        raise Unsupported("it has a convolution that is transposed or by batches")
    images = graph.add("Transpose", inputs[0], perm=numbers.lhs_spec)
    out = graph.add(
        "Conv",
        images,
        _transposed(graph, inputs[1], numbers.rhs_spec),
        pads=_pads(params["padding"]),
        strides=params["window_strides"],
        dilations=params["rhs_dilation"],
        group=params["feature_group_count"],
    )
    return graph.add("Transpose", out, perm=_inverse(numbers.out_spec))


def _transposed(graph: Graph, value: Value, order: Sequence[int]) -> Value:
    if isinstance(value, Constant):
        return value.like(np.ascontiguousarray(value.array.transpose(order)), ".transposed")
    return graph.add("Transpose", value, perm=order)


def _inverse(order: Sequence[int]) -> list[int]:
    return np.argsort(order).tolist()


def _pads(pads: Sequence[tuple[int, int]]) -> list[int]:
    """Those before each side, then those behind."""
    return [before for before, _ in pads] + [behind for _, behind in pads]


_CHANNELS_FIRST = (0, 3, 1, 2)


def _pool(graph: Graph, eqn: JaxprEqn, value: Value, operation: str, **attributes: Any) -> Value:
    """Over height and width of `[n, height, width, channels]`."""
    params = eqn.params
    window, strides, pads = (
        params[name] for name in ("window_dimensions", "window_strides", "padding")
    )
    dilations = (*params["base_dilation"], *params["window_dilation"])
    outer = [*zip(window, strides, pads, strict=True)]
    if {*dilations} != {1} or len(outer) != 4 or {outer[0], outer[3]} != {(1, 1, (0, 0))}:
        raise Unsupported("it pools over other than height and width")
    images = graph.add("Transpose", value, perm=_CHANNELS_FIRST)
    pooled = graph.add(
        operation,
        images,
        kernel_shape=window[1:3],
        strides=strides[1:3],
        pads=_pads(pads[1:3]),
        **attributes,
    )
    return graph.add("Transpose", pooled, perm=_inverse(_CHANNELS_FIRST))


def _max_pool(graph: Graph, eqn: JaxprEqn, inputs: list[Value]) -> Value:
    return _pool(graph, eqn, inputs[0], "MaxPool")


def _sum_pool(graph: Graph, eqn: JaxprEqn, inputs: list[Value]) -> Value:
    """As the mean of each window, padding counted, times its size."""
    mean = _pool(graph, eqn, inputs[0], "AveragePool", count_include_pad=1)
    size = np.array(prod(eqn.params["window_dimensions"]), np.float32)
    return graph.add("Mul", mean, Constant(size))


def _shift_right(graph: Graph, eqn: JaxprEqn, inputs: list[Value]) -> Value:
    return graph.add("BitShift", *inputs, direction="RIGHT")


_CALLS = {"jit": "jaxpr", "custom_jvp_call": "call_jaxpr", "custom_vjp_call": "call_jaxpr"}
_TRANSLATIONS: dict[str, Translation] = {
    "add": _as("Add"),
    "and": _as("BitwiseAnd"),
    "argmax": _argmax,
    "broadcast_in_dim": _broadcast,
    "concatenate": _concatenate,
    "conv_general_dilated": _convolution,
    "convert_element_type": _cast,
    "div": _as("Div"),
    "dot_general": _product,
    "exp": _as("Exp"),
    "gather": _gather,
    "integer_pow": _power,
    "log": _as("Log"),
    "lt": _as("Less"),
    "max": _as("Max"),
    "mul": _as("Mul"),
    "neg": _as("Neg"),
    "pad": _pad,
    "reduce_max": _reduce("ReduceMax"),
    "reduce_sum": _reduce("ReduceSum"),
    "reduce_window_max": _max_pool,
    "reduce_window_sum": _sum_pool,
    "reshape": _reshape,
    "select_n": _select,
    "shift_right_logical": _shift_right,
    "slice": _slice,
    "split": _split,
    "stop_gradient": _same_value,
    "sub": _as("Sub"),
    "tanh": _as("Tanh"),
    "transpose": _transpose,
}
