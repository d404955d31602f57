"""Jaxprs as graphs of ONNX, run by ONNX Runtime beside JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export, lax

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from experiments.interchange import jaxpr_to_onnx, onnx_file  # noqa: E402
from experiments.interchange.jaxpr_to_onnx import Graph, Unsupported  # noqa: E402
from experiments.interchange.model import Input, Model  # noqa: E402
from experiments.workdir.trained import Member  # noqa: E402
from mnist_jax import models  # noqa: E402

CPU = ["CPUExecutionProvider"]
RNG = np.random.default_rng(0)


def session(proto):
    onnx.checker.check_model(proto, full_check=True)
    return onnxruntime.InferenceSession(proto.SerializeToString(), providers=CPU)


def by_onnx(function, values, shape):
    """What ONNX Runtime makes of a function's translation; `shape` has free dimensions."""
    symbolic = jax.ShapeDtypeStruct(export.symbolic_shape(shape), values.dtype)
    closed = jax.make_jaxpr(function)(symbolic)
    graph = Graph()
    (result,) = jaxpr_to_onnx.translate(graph, closed.jaxpr, closed.consts, ["x"])
    graph.add_as("y", "Identity", result)
    (out,) = closed.out_avals
    infos = [
        onnx.helper.make_tensor_value_info(
            name, onnx.helper.np_dtype_to_tensor_dtype(np.dtype(aval.dtype)), [None] * aval.ndim
        )
        for name, aval in (("x", symbolic), ("y", out))
    ]
    made = onnx.helper.make_graph(
        graph.needed_for(["y"]), "test", infos[:1], infos[1:], graph.weights_of(["y"])
    )
    opset = [onnx.helper.make_opsetid("", onnx_file.OPSET)]
    proto = onnx.helper.make_model(made, opset_imports=opset, ir_version=8)
    return session(proto).run(None, {"x": values})[0]


KERNELS = {groups: RNG.normal(size=(3, 2, 4 // groups, 6)).astype(np.float32) for groups in (1, 2)}


def conv(
    x, strides=(1, 1), padding="SAME", groups=1, dilation=(1, 1), layout=("NHWC", "HWIO", "NHWC")
):
    kernel = KERNELS[groups]
    return lax.conv_general_dilated(
        x,
        kernel if layout[1] == "HWIO" else kernel.transpose(3, 2, 0, 1),
        strides,
        padding,
        rhs_dilation=dilation,
        dimension_numbers=layout,
        feature_group_count=groups,
    )


TABLE = RNG.normal(size=(5, 3)).astype(np.float32)
IMAGES = RNG.normal(size=(3, 8, 7, 4)).astype(np.float32)
OF_IMAGES = {
    "convolution": conv,
    "convolution with strides": lambda x: conv(x, (2, 3), "VALID"),
    "convolution in groups": lambda x: conv(x, groups=2),
    "convolution with holes": lambda x: conv(x, dilation=(2, 1), padding=((0, 3), (1, 2))),
    "convolution of channels first": lambda x: conv(
        x.transpose(0, 3, 1, 2), layout=("NCHW", "OIHW", "NHWC")
    ),
    "maxima": lambda x: lax.reduce_window(
        x, -np.inf, lax.max, (1, 3, 2, 1), (1, 2, 1, 1), ((0, 0), (1, 1), (0, 1), (0, 0))
    ),
    "sums": lambda x: lax.reduce_window(
        x, np.float32(0), lax.add, (1, 3, 2, 1), (1, 2, 1, 1), ((0, 0), (1, 0), (0, 1), (0, 0))
    ),
    "flat": lambda x: x.reshape(x.shape[0], -1),
    "slice with steps": lambda x: lax.slice(x, (0, 1, 0, 0), (x.shape[0], 8, 6, 4), (1, 2, 3, 1)),
    "nothing cut": lambda x: lax.slice(x, (0, 0, 0, 0), x.shape),
    "all but the first input": lambda x: lax.slice_in_dim(x, 1, None),
    "pad": lambda x: jnp.pad(x, ((0, 0), (1, 2), (0, 0), (0, 3)), constant_values=-1.5),
    "split": lambda x: jnp.split(x, [1, 3], axis=-1)[1] * 2,
    "columns": lambda x: jnp.broadcast_to(x.mean(-1, keepdims=True), (x.shape[0], 8, 7, 5)),
    "product with a matrix": lambda x: x @ TABLE[:4],
    "product over other axes": lambda x: jnp.einsum("nhwc,wk->nkhc", x, IMAGES[0, 0]),
    "product by inputs": lambda x: jnp.einsum("nhwc,nhwd->nhcd", x, x),
    "powers": lambda x: x**2 + x**3,
    "tanh": lambda x: 1.7 * jnp.tanh(-x / 3),
    "softmax": jax.nn.softmax,
    "norm": lambda x: jnp.exp(-0.75 * jnp.log(2 + x * x)),
    "relu": jax.nn.relu,
    "places": lambda x: jnp.argmax(x, axis=1).astype(jnp.int32),
    "side by side": lambda x: jnp.concatenate([x, 2 - x], axis=-1),
    "where": lambda x: jnp.where(x < 0.5, x, 3 * x),
    "computed before": lambda x: x * lax.rsqrt(jnp.arange(4.0) + 1) + jnp.sort(TABLE[:4, 0]),
}


@pytest.mark.parametrize("name", OF_IMAGES)
def test_operations(name):
    """Each on two numbers of inputs."""
    function = OF_IMAGES[name]
    for n in (3, 2):
        found = by_onnx(function, IMAGES[:n], "n, 8, 7, 4")
        wanted = np.asarray(function(IMAGES[:n]))
        assert found.dtype == wanted.dtype and found.shape == wanted.shape
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_rows_of_a_table():
    tokens = np.array([[0, 4, 1], [2, 2, 3]], np.int32)
    found = by_onnx(lambda tokens: jnp.asarray(TABLE)[tokens], tokens, "n, length")
    np.testing.assert_array_equal(found, TABLE[tokens])


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: jnp.sort(x), "no translation of the operation sort"),
        (lambda x: lax.map(jnp.sum, x), "no translation of the operation scan"),
        (lambda x: x.astype(jnp.bfloat16) * 2, "computes in bfloat16"),
        (lambda x: x + jnp.ones(x.shape), "as often as there are inputs"),
        (lambda x: lax.pad(x, 0.0, [(0, 0, 0), (0, 0, 1), (0, 0, 0), (0, 0, 0)]), "between values"),
        (lambda x: x[:, jnp.array([0, 2])], "other than rows of a table"),
        (
            lambda x: lax.reduce_window(x, -np.inf, lax.max, (1, 1, 1, 2), (1,) * 4, "VALID"),
            "pools",
        ),
    ],
)
def test_what_has_no_translation(function, message):
    with pytest.raises(Unsupported, match=message):
        by_onnx(function, IMAGES, "n, 8, 7, 4")


NETWORKS = {
    "simple": ((28, 28, 1), {}),
    "deep": ((28, 28, 1), {}),
    "layers": ((28, 28, 1), {}),
    "fast": ((28, 28, 1), {}),
    "lenet5": ((28, 28, 1), {}),
    "lenet5, dense": ((32, 32, 1), {"dense": True}),
    "convnetjs": ((28, 28, 1), {}),
    "resnet20": ((32, 32, 3), {}),
    "resnet18": ((33, 40, 3), {"mean": (0.5, 0.4, 0.3), "stddev": (0.2, 0.3, 0.4)}),
    "alexnet": ((40, 50, 1), {"image_size": 67, "two_towers": True}),
    "googlenet": ((47, 47, 3), {"auxiliary_heads": False}),
    "googlenet, batch_norm": ((47, 48, 3), {"auxiliary_heads": False, "batch_norm": True}),
    "sentence": ((9,), {"words": 20, "width": 12, "maps": 7}),
    "sentence, multichannel": ((9,), {"words": 20, "width": 12, "variant": "multichannel"}),
}


def make(name, members=2, **more):
    """A model of members whose weights are drawn, without compiling their `init`."""
    shape, options = NETWORKS[name]
    network = models.create(name.partition(",")[0], 5, **options, **more)
    is_sentence = len(shape) == 1
    like = jax.ShapeDtypeStruct((1, *shape), np.int32 if is_sentence else np.float32)
    shapes = jax.eval_shape(network.init, jax.random.key(0), like)

    def draw(path, leaf):
        values = RNG.normal(size=leaf.shape) / np.sqrt(max(np.prod(leaf.shape[:-1]), 4))
        return (abs(values) + 0.5 if path[-1].key in ("var", "scale") else values).astype("f4")

    variables = [jax.tree_util.tree_map_with_path(draw, shapes) for _ in range(members)]
    made = [Member(name, network, seed, own) for seed, own in enumerate(variables)]
    input_ = Input("tokens", np.int32, ("n", "length"), 5)
    if not is_sentence:
        input_ = Input("images", np.uint8, ("n", *shape))
    return Model(made, input_, {"classes": list("abcde"), "mnist_jax": "0"}, trained=None)


def inputs_of(exported, n):
    if exported.input.name == "tokens":
        return RNG.integers(0, 20, (n, 5 + n)).astype(np.int32)
    return RNG.integers(0, 256, (n, *exported.input.dims[1:])).astype(np.uint8)


_SLOW = ("resnet18", "googlenet, batch_norm")  # made of what `resnet20` and `googlenet` are


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow) if n in _SLOW else n for n in NETWORKS],
)
def test_every_network(name):
    """In ONNX Runtime as in JAX."""
    exported = make(name, members=1)
    running = session(onnx_file.to_onnx(exported))
    inputs = inputs_of(exported, 3)
    (member,) = exported.members
    values = inputs if exported.input.name == "tokens" else inputs / np.float32(255)
    wanted = jax.nn.softmax(jax.jit(member.network.apply)(member.variables, values))
    assert np.ptp(wanted, axis=1).max() > 1e-3  # the drawn weights make a difference
    for n in (1, 3):
        found, members = running.run(None, {exported.input.name: inputs[:n]})
        assert found.shape == (n, 5) and members.shape == (1, n, 5)
        np.testing.assert_allclose(found, wanted[:n], atol=1e-5)
        np.testing.assert_array_equal(found, members[0])


def test_no_kind_of_network_is_left_out():
    """Of those of images; tests/test_go_commands.py exports the one of Go."""
    tried = {type(models.create(name.partition(",")[0], 5)) for name in NETWORKS}
    assert {type(models.create(name, 5)) for name in models.NAMES} <= tried


def test_weights_keep_their_names():
    proto = onnx_file.to_onnx(make("layers", members=1))
    weights = {
        weight.name: onnx.numpy_helper.to_array(weight) for weight in proto.graph.initializer
    }
    assert weights["member.0.params.Conv_1.kernel.transposed"].shape == (64, 32, 3, 3)
    assert weights["member.0.params.Dense_1.kernel"].shape == (2048, 5)
    assert {"member.0.params.Conv_0.bias", "member.0.params.Dense_0.bias"} < weights.keys()
    size = sum(array.nbytes for array in weights.values())
    assert proto.ByteSize() < 1.01 * size  # each weight once


def test_bfloat16_is_no_network_for_onnx():
    with pytest.raises(Unsupported, match="bfloat16"):
        onnx_file.to_onnx(make("simple", dtype="bfloat16"))
