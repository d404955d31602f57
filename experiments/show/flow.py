"""Which layers of a network take what which others give, found by calling it on shapes alone."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

_BEGIN, _END = "begin ", "end "
_JOINING = ("add", "concatenate")  # of JAX's operations, those shown

Names = tuple[str, ...]


class Node(NamedTuple):
    """A layer, or a place where what several layers give is added or concatenated."""

    name: str
    kind: str  # "layer", "add" or "concatenate"
    inputs: Names  # the nodes it takes, and the network's input
    output_shape: tuple[int, ...]  # of one image
    module: nn.Module | None = None  # None where it is no layer
    params: Any = None  # of the layer: shapes and dtypes
    input_shape: tuple[int, ...] = ()


def trace(
    network: nn.Module,
    image_shape: tuple[int, ...],
    layers: tuple[type[nn.Module], ...],
    given: str = "images",
) -> list[Node]:
    """The layers of a network, and where their outputs meet, in the order they are computed in.

    Each layer's input and output are marked in the program that JAX makes of the network; then the
    program is gone through.

    Args:
        image_shape: `(height, width, channels)`; of sentences `(length,)`, which are tokens.
        layers: the kinds of modules that are layers; what they consist of is not looked at.
        given: what the network's input is called.
    """
    about: dict[str, dict[str, Any]] = {}  # of each layer the fields of its node

    def watch(
        call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext
    ) -> Any:
        module = context.module
        if context.method_name != "__call__" or not isinstance(module, layers):
            return call(*args, **kwargs)
        name = "/".join(module.path)
        marked = [
            checkpoint_name(arg, f"{_BEGIN}{name}") if isinstance(arg, jax.Array) else arg
            for arg in args
        ]
        out = checkpoint_name(call(*marked, **kwargs), f"{_END}{name}")
        params = jax.tree.map(_shape_of, module.variables.get("params", {}))
        input_shape = tuple(args[0].shape[1:])
        about[name] = {"module": module, "params": params, "input_shape": input_shape}
        return out

    with nn.intercept_methods(watch):
        dtype = jnp.int32 if len(image_shape) == 1 else jnp.float32
        images = jax.ShapeDtypeStruct((1, *image_shape), dtype)
        program = jax.make_jaxpr(network.init)(jax.random.key(0), images)
    walk = _Walk()
    walk.through(program.jaxpr, [(), (given,)])
    return [node._replace(**about.get(node.name, {})) for node in walk.nodes]


def _shape_of(array: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(array.shape, array.dtype)


class _Walk:
    """Goes through a program and notes from which nodes each of its values comes."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self._begun: dict[str, Names] = {}  # what a layer was given that has not ended yet

    def through(self, program: Any, given: Sequence[Names]) -> list[Names]:
        """The sources of a program's outputs; `given` are those of its inputs."""
        sources = dict(zip(program.invars, given, strict=True))

        def of(value: Any) -> Names:
            return () if hasattr(value, "val") else sources.get(value, ())  # or a constant

        for step in program.eqns:
            inputs = [of(value) for value in step.invars]
            inner = step.params.get("jaxpr") or step.params.get("call_jaxpr")
            inner = getattr(inner, "jaxpr", inner)
            if inner is not None and len(inner.invars) == len(inputs):
                outputs = self.through(inner, inputs)
            else:
                outputs = [self._step(step, inputs)] * len(step.outvars)
            sources |= dict(zip(step.outvars, outputs, strict=True))
        return [of(value) for value in program.outvars]

    def _step(self, step: Any, inputs: Sequence[Names]) -> Names:
        """The sources of what one operation gives."""
        together = tuple(dict.fromkeys(name for names in inputs for name in names))
        shape = tuple(step.outvars[0].aval.shape[1:])
        kind = step.primitive.name
        if kind == "name":
            mark = step.params["name"]
            if mark.startswith(_BEGIN):
                name = mark.removeprefix(_BEGIN)
                self._begun[name] = (*self._begun.get(name, ()), *together)
                return together
            name = mark.removeprefix(_END)
            taken = tuple(dict.fromkeys(self._begun.pop(name)))
            self.nodes.append(Node(name, "layer", taken, shape))
            return (name,)
        joined = [names for names in dict.fromkeys(inputs) if names]
        if kind in _JOINING and len(joined) > 1 and not self._begun:
            deepest = max(together, key=lambda name: name.count("/"))
            scope = deepest.rpartition("/")[0]
            while not all(name.startswith(scope) for name in together) and kind == "concatenate":
                scope = scope.rpartition("/")[0]
            name = self._new(f"{scope}/{kind}".lstrip("/"))
            self.nodes.append(Node(name, kind, together, shape))
            return (name,)
        return together

    def _new(self, name: str) -> str:
        taken = {node.name for node in self.nodes}
        return next(n for n in (name, *(f"{name}_{i}" for i in range(1, 999))) if n not in taken)
