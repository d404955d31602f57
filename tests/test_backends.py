"""All that the commands compile, lowered for a CPU, a GPU and a TPU; none of these is needed."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from experiments.workdir import evaluation
from mnist_jax import (
    augment,
    calibration,
    ensemble,
    layers,
    metrics,
    models,
    parallel,
    platforms,
    training,
    uncertainty,
)
from tests.lowering import PLATFORMS, faults, faults_of_module
from tests.needs import needs_kernels
from tests.tiny import Tiny, problem

MEMBERS, N, CLASSES = 2, 20, 10
NOTHING = {platform: set() for platform in PLATFORMS}

pytestmark = pytest.mark.usefixtures("on_a_cpu")


@pytest.fixture
def on_device(monkeypatch):
    """What `parallel` maps over devices, as a function of the arrays on one of them."""
    monkeypatch.setattr(parallel, "_pmap", lambda layout, function, **options: function)
    return parallel.plan(MEMBERS, jax.devices()[:1])


def shapes(network, optimizer):
    init = functools.partial(ensemble.init_state, network, optimizer)
    return jax.eval_shape(init, np.arange(MEMBERS, dtype=np.uint32))


def train_arguments(network, optimizer, steps=2, batch=10, own_batches=False, weighted=False):
    images, labels = problem(N)
    batches = np.zeros((MEMBERS, steps, batch) if own_batches else (steps, batch), np.int32)
    return (
        shapes(network, optimizer),
        np.arange(MEMBERS, dtype=np.uint32),
        np.int32(0),
        images,
        labels,
        batches,
        np.ones(N, np.float32) if weighted else None,
    )


NETWORKS = [
    *(pytest.param(models.create(name), id=name) for name in models.LABS),
    *(pytest.param(models.create(name), id=name) for name in ("lenet5", "resnet20")),
    pytest.param(models.create("googlenet", image_size=79), id="googlenet"),
    pytest.param(models.create("layers", dtype=jnp.bfloat16), id="layers-bfloat16"),
    pytest.param(Tiny(dropout_rate=0.3), id="tiny"),  # of shapes that no kernel is for
]


@pytest.mark.parametrize("network", NETWORKS)
def test_training(network, on_device):
    optimizer = training.make_optimizer(1e-3, 9)
    options = False, None, training.to_float, None
    train = parallel._map_train(on_device, network, optimizer, 10, *options)
    assert faults(train, *train_arguments(network, optimizer)) == NOTHING


@pytest.mark.parametrize(
    ("name", "own_batches"), [("shift", True), ("affine", False), ("handwriting", True)]
)
def test_training_with_all_options(name, own_batches, on_device):
    network = Tiny()
    optimizer = training.make_optimizer(
        0.1, 9, "sgd" if own_batches else "adam", "onecycle", weight_decay=0.1, ema=0.9
    )
    options = own_batches, augment.create(name), training.to_float, None
    train = parallel._map_train(on_device, network, optimizer, 10, *options)
    arguments = train_arguments(network, optimizer, own_batches=own_batches, weighted=own_batches)
    assert faults(train, *arguments) == NOTHING


@pytest.mark.parametrize("use_dropout", [True, False])
@pytest.mark.parametrize("network", NETWORKS)
def test_prediction(network, use_dropout, on_device):
    predict = parallel._map_predict(on_device, network, training.to_float)
    variables = training.evaluated(shapes(network, training.make_optimizer(1e-3, 9)))
    images, seeds = np.zeros((2, 5, 28, 28, 1), np.uint8), np.zeros(2, np.uint32)
    on_one = functools.partial(predict, use_dropout=use_dropout)
    assert faults(on_one, variables, images, np.int32(0), seeds) == NOTHING


@pytest.mark.parametrize("network", NETWORKS)
def test_initial_values(network, on_device):
    optimizer = training.make_optimizer(1e-3, 9, ema=0.9)
    init = parallel._map_init(on_device, network, optimizer, training.IMAGE)
    assert faults(init, np.arange(MEMBERS, dtype=np.uint32)) == NOTHING


def test_batches():
    def batches(data_seed, epoch, seed):
        return training.epoch_batches(data_seed, epoch, N, 10, seed)

    assert faults(batches, 0, 1, 2) == NOTHING


ARGUMENTS = {
    "logits": np.zeros((MEMBERS, N, CLASSES), np.float32),
    "labels": np.zeros(N, np.int32),
    "scores": np.zeros((MEMBERS, N), np.float32),
    "confidences": np.zeros((MEMBERS, N), np.float32),
    "positive": np.zeros(N, bool),
    "correct": np.zeros((MEMBERS, N), bool),
    "temperature": np.ones(MEMBERS, np.float32),
    "weights": np.ones(MEMBERS, np.float32),
    "rows": np.zeros((MEMBERS, N, CLASSES), np.float32),
    "subsets": np.ones((3, MEMBERS), bool),
}
ON_THE_HOST = {"threshold", "init_state", "train_epoch", "map_members"}  # or tested above
OPTIONS = {"bins": [15], "equal_mass": [False, True], "shared": [False, True]}


def calls():
    """Each public function of some modules, and each compiled one of `evaluation`, with arrays for
    its parameters; one that has another parameter is an error here."""
    modules = (metrics, uncertainty, calibration, ensemble)
    functions = [
        function
        for module in modules
        for name, function in vars(module).items()
        if callable(function) and not inspect.isclass(function) and not name.startswith("_")
        if getattr(function, "__module__", "") == module.__name__ and name not in ON_THE_HOST
    ]
    compiled = type(jax.jit(lambda: 0))
    functions += [value for value in vars(evaluation).values() if isinstance(value, compiled)]
    for function in functions:
        parameters = list(inspect.signature(function).parameters)
        switch = next((name for name in parameters if len(OPTIONS.get(name, [])) > 1), None)
        arrays = [ARGUMENTS[name] for name in parameters if name not in OPTIONS]
        for value in OPTIONS[switch] if switch else [None]:
            options = {} if switch is None else {switch: value}
            name = f"{function.__module__}.{function.__name__}"
            yield pytest.param(functools.partial(function, **options), arrays, id=f"{name}-{value}")


@pytest.mark.parametrize(("function", "arrays"), list(calls()))
def test_metrics(function, arrays):
    assert faults(function, *arrays) == NOTHING


def test_the_metrics_are_found():
    names = {call.id for call in calls()}
    assert len(names) > 25
    for name in (
        "mnist_jax.uncertainty.error_correlation-None",
        "mnist_jax.metrics.reliability-True",
        "mnist_jax.calibration.fit_temperature-False",
        "experiments.workdir.evaluation._subset_scores-None",
    ):
        assert name in names


def product_of_booleans(wrong):
    """As `uncertainty.error_correlation` was, on which a GPU failed."""
    return jnp.dot(wrong, wrong.T, preferred_element_type=jnp.float32)


def convolution(images):
    numbers = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(images, images, (1, 1), "SAME", dimension_numbers=numbers)


def in_a_loop(counts):
    return lax.fori_loop(0, 3, lambda _, x: x @ counts, counts)


@pytest.mark.parametrize(
    ("function", "array", "fault"),
    [
        (product_of_booleans, np.ones((3, 4), bool), "stablehlo.dot_general of i1 and i1"),
        (in_a_loop, np.ones((3, 3), np.int32), "stablehlo.dot_general of i32 and i32"),
        (convolution, np.ones((4, 4, 4, 4), np.int8), "stablehlo.convolution of i8 and i8"),
        (jnp.fft.fft, np.ones(8, np.float32), "stablehlo.fft of complex"),
    ],
)
def test_faults_are_found(function, array, fault):
    assert all(fault in found for found in faults(function, array).values())


def test_a_cpus_library_is_found():
    traced = jax.jit(jnp.linalg.svd).trace(np.eye(3, dtype=np.float32))
    module = traced.lower(lowering_platforms=("cpu",)).compiler_ir()
    assert "call of lapack_sgesdd_ffi" in set(faults_of_module(module, "cpu"))


@needs_kernels
def test_kernels_for_a_cpu_are_found_elsewhere():
    def forced(a, b):
        with platforms.known("cpu"):
            return layers.matmul(a, b)

    found = faults(forced, *np.ones((2, 64, 64), np.float32))
    assert found == {"cpu": set()} | {p: {"call of mnist_jax.matmul"} for p in ("cuda", "tpu")}


def loss(network, params, images, labels):
    key, weights = jax.random.key(0), jnp.ones(len(labels))
    grad = jax.value_and_grad(training.weighted_loss, argnums=1, has_aux=True)
    return grad(network, params, None, images, labels, weights, key)


@needs_kernels
@pytest.mark.parametrize("name", ["layers", "fast"])
def test_the_lowering_decides_where_nobody_said(name):
    """The same function of the same process for all platforms, kernels on the CPU alone."""
    network = models.create(name)
    params = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 28, 28, 1)))["params"]
    arrays = np.zeros((N, 28, 28, 1), np.float32), np.zeros(N, np.int32)
    assert faults(functools.partial(loss, network), params, *arrays, said=False) == NOTHING
    traced = jax.jit(functools.partial(loss, network)).trace(params, *arrays)
    texts = {p: traced.lower(lowering_platforms=(p,)).as_text() for p in PLATFORMS}
    assert {p: "mnist_jax.conv_pool_relu" in text for p, text in texts.items()} == {
        "cpu": True,
        "cuda": False,
        "tpu": False,
    }
