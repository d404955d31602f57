"""The benchmark's arithmetic, its turns, and its command line; no peer need be installed."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from experiments.benchmarks import measure, peak, run, sides, worker, workloads
from experiments.benchmarks.sides.flax_linen import FlaxLinen
from experiments.benchmarks.sides.ours import MnistJax
from experiments.benchmarks.worker import WorkerError, start_side
from experiments.benchmarks.workloads import NETWORKS
from mnist_jax import data, models, parallel
from mnist_jax.go import planes


@pytest.fixture(autouse=True)
def this_process(monkeypatch):
    """The tests have started JAX already, have no network, and need no figures."""
    monkeypatch.setattr(parallel, "use_cpu_cores", lambda **_: None)
    monkeypatch.setattr(run, "_load_data", lambda: data.load("mnist5k", validation=0))
    monkeypatch.setattr(peak, "measure", lambda: {"numpy": 100.0})


def test_arithmetic_by_hand():
    convolutions = 784 * 9 * 1 * 32 + 196 * 9 * 32 * 64 + 49 * 9 * 64 * 128
    dense = 2048 * 625 + 625 * 625 + 625 * 10
    deep = NETWORKS["deep"]
    assert workloads.forward_flop(deep) == 2 * (convolutions + dense)
    first = 2 * 784 * 9 * 32  # whose input needs no gradient
    assert workloads.training_flop(deep) == 6 * (convolutions + dense) - first
    assert workloads.forward_flop(NETWORKS["simple"]) == 2 * (
        784 * 9 * 32 + 196 * 9 * 32 * 64 + 3136 * 10
    )
    images, flop = workloads.step_work("ensemble", 500)
    assert (images, flop) == (700, 700 * workloads.training_flop(NETWORKS["layers"]))
    images, flop = workloads.step_work("evaluation", 500)
    assert (images, flop) == (500, 500 * workloads.forward_flop(deep))


@pytest.mark.parametrize("name", NETWORKS)
def test_the_networks_are_the_librarys(name):
    module, network = models.create(name), NETWORKS[name]
    params = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 28, 28, 1)))["params"]
    weights = sides.linen_params(workloads.make_weights(network))
    assert jax.tree.map(jnp.shape, weights) == jax.tree.map(jnp.shape, params)
    assert getattr(module, "dropout_rate", 0.0) == network.dropout


def reference_loss(network, weights, images, labels):
    """By XLA's own convolution and pooling, relu before pooling."""
    x = jnp.asarray(images, jnp.float32) / 255
    for kernel, bias in weights:
        if kernel.ndim == 4:
            dimensions = ("NHWC", "HWIO", "NHWC")
            x = lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=dimensions)
            x = jnp.maximum(x + (0 if bias is None else bias), 0)
            x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "SAME")
        else:
            x = x.reshape(len(x), -1) @ kernel + bias
            if kernel.shape[1] != 10:
                x = jnp.maximum(x, 0)
    return float(-jax.nn.log_softmax(x)[np.arange(len(x)), labels].mean())


@pytest.mark.parametrize("name", ["deep", "layers"])
def test_our_loss_is_the_references(name):
    train, network = data.load("mnist5k").train, NETWORKS[name]
    weights = workloads.make_weights(network)
    images, labels = train.inputs[:100], train.labels[:100]
    (loss,) = MnistJax().losses(network, weights, images, labels)
    assert loss == pytest.approx(reference_loss(network, weights, images, labels), rel=1e-5)


def test_a_peer_sees_our_losses_step_by_step():
    train, network = data.load("mnist5k").train, NETWORKS["simple"]
    problem = network, workloads.make_weights(network), train.inputs[:300], train.labels[:300]
    ours, theirs = MnistJax().losses(*problem), FlaxLinen().losses(*problem)
    assert not measure.disagreements({"ours": ours, "flax": theirs})
    assert len(set(ours)) == 3


class Fake:
    """Takes a second more each turn; fails in one of them."""

    def __init__(self, name, calls, fails_in=None):
        self.name, self.calls, self.fails_in = name, calls, fails_in
        self.turns = 0

    def run(self, steps):
        self.turns += 1
        self.calls.append((self.name, steps))
        if self.turns == self.fails_in:
            raise WorkerError("out of memory")
        return {"seconds": float(self.turns)}


def test_turns_are_interleaved_and_a_failing_side_leaves():
    calls, left_out = [], {}
    workers = {name: Fake(name, calls, 2 if name == "b" else None) for name in "abc"}
    turns = measure.interleave(workers, 3, 7, left_out, say=lambda line: None, pause=0)
    assert "".join(name for name, _ in calls) == "abcabcac"
    assert {steps for _, steps in calls} == {7}
    assert left_out == {"b": "out of memory"}
    assert turns == {name: [{"seconds": 1.0}, {"seconds": 2.0}, {"seconds": 3.0}] for name in "ac"}


def test_summary_by_hand():
    turns = [{"seconds": seconds} for seconds in (6.0, 2.0, 4.0)]
    summary = measure.summarise(turns, 2, 100, flop=50_000_000_000, peak_gflops=100.0)
    assert summary == {
        "ms_per_step": {"median": 2000, "min": 1000, "max": 3000},
        "images_per_second": 50,
        "share_of_peak": 0.25,  # 25 of 100 GFLOP/s
    }
    recipe = [{"seconds": 1.0, "accuracy": 0.99}, {"seconds": 2.0, "accuracy": 0.98}]
    summary = measure.summarise(recipe, 1, 100, None, 100.0)
    assert summary["accuracies"] == [0.99, 0.98] and "share_of_peak" not in summary


@pytest.mark.parametrize(
    ("values", "wrong"),
    [
        ([2.5, 1.0], False),
        ([2.5001, 1.005], False),
        ([2.51, 1.0], True),
        ([2.5, 1.05], True),
        ([2.5, float("nan")], True),
    ],
)
def test_disagreements(values, wrong):
    assert ("b" in measure.disagreements({"a": [2.5, 1.0], "b": values})) == wrong


def test_fastest_takes_the_fastest(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(sides.time, "perf_counter", lambda: clock[0])

    def evaluate(batch):
        clock[0] += {1: 3, 2: 1, 3: 2}[batch]
        return batch

    assert sides.fastest(evaluate, (1, 2, 3))() == 2


@pytest.mark.parametrize(
    ("argv", "message", "hint"),
    [
        (["--peers", "torchh"], "--peers torchh does not exist", "torch"),
        (["--peers", "torch,ours"], "--peers ours does not exist", "There are torch, "),
        (["--workloads", "dep"], "--workloads dep does not exist", "deep"),
        (["--workloads", ""], "--workloads  does not exist", "There are deep, "),
        (["--rounds", "0"], "--rounds must be at least 1, not 0", "--help"),
        (["--rounds", "few"], "argument --rounds: invalid int value: 'few'", "--help"),
        (["--quik"], "--quik is no flag", "--quick"),
        (["--output", "/nowhere/results.json"], "--output /nowhere/results.json", "folder"),
        (["--workloads", "fast"], "fast needs all of MNIST", "MNIST_JAX_DATA"),
    ],
)
def test_a_mistake_is_two_lines_and_code_2(argv, message, hint, capsys):
    with pytest.raises(SystemExit) as exit_:
        run.main(argv)
    error = capsys.readouterr().err
    assert exit_.value.code == 2 and len(error.splitlines()) == 2, error
    assert message in error.splitlines()[0] and hint in error.splitlines()[1]


def test_a_peer_that_is_not_installed_is_left_out_by_name(monkeypatch, capsys):
    measured = []

    def fake(name, sides_, *arguments, **options):
        measured.append((name, sides_))
        return {
            "workload": name,
            "text": "",
            "steps_per_turn": 1,
            "rounds": 1,
            "gflop_per_step": None,
            "sides": {},
            "left_out": {"flax": "it broke"},
            "disagree": {"flax": "loss 2 in step 1, where ours has 1"},
        }

    monkeypatch.setattr(run, "missing_packages", lambda name: ["torch"] if "torch" in name else [])
    monkeypatch.setattr(measure, "measure", fake)
    code = run.main(["--peers", "torch,flax,torch_compile", "--workloads", "simple,deep"])
    output = capsys.readouterr().out
    assert code == run.DISAGREE
    for name in ("torch", "torch_compile"):
        assert f"left out: {name}, since torch is not installed: pip install" in output
    assert "left out: flax: it broke" in output and "error: flax computes something" in output
    assert measured == [("simple", ["ours", "flax"]), ("deep", ["ours", "flax"])]


def test_missing_packages(monkeypatch):
    assert sides.missing_packages("flax") == []
    entry = sides.Entry("a stranger", "stranger:Stranger", ("numpy", "no_such_package"))
    monkeypatch.setitem(sides.SIDES, "stranger", entry)
    assert sides.missing_packages("stranger") == ["no_such_package"]


def test_a_run(tmp_path, capsys, monkeypatch):
    """Two real processes, a round of two turns each."""
    monkeypatch.setattr(run, "QUICK_STEPS", 10)
    file = tmp_path / "results.json"
    flags = ["--quick", "--workloads", "simple", "--peers", "flax", "--rounds", "1"]
    assert run.main([*flags, "--output", str(file)]) == 0
    output = capsys.readouterr().out
    (result,) = json.loads(file.read_text())["workloads"]
    ours, flax = result["sides"]["ours"], result["sides"]["flax"]
    assert ours["time_over_ours"] == 1
    ratio = flax["ms_per_step"]["median"] / ours["ms_per_step"]["median"]
    assert flax["time_over_ours"] == pytest.approx(ratio, abs=1e-3)
    assert ours["check"] == pytest.approx(flax["check"], rel=1e-4)
    assert ours["peak_memory_mib"] > 100 and flax["versions"]["jax"] == jax.__version__
    assert "simple: one simple, training" in output and "same weights, same images" in output


def test_what_a_side_says_when_it_fails(tmp_path):
    said = r"ended with code 1: FileNotFoundError.*nothing.npz"
    missing = start_side("flax", "simple", tmp_path / "nothing.npz")
    with missing as side, pytest.raises(WorkerError, match=said):
        side.ask("prepare", steps=1)
    arrays = dict.fromkeys(("train_images", "train_labels"))
    for name, message in (("fast", "no recipe"), ("resnet20", "does not have this network")):
        with pytest.raises(NotImplementedError, match=message):
            worker.make_run(object(), name, arrays)


@pytest.mark.parametrize("name", workloads.PUBLISHED)
def test_published_networks_have_the_same_layers_in_pytorch(name):
    """The same sizes of weights; LeNet-5's outputs, and the inputs of its C3, differ."""
    pytest.importorskip("torch")
    from experiments.benchmarks.sides import pytorch_networks

    published = workloads.PUBLISHED[name]
    options = {"dense": True} if name == "lenet5" else published.options
    module = models.create(published.network, published.classes, **options)
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, *published.shape)))
    ours = sorted(leaf.size for leaf in jax.tree.leaves(shapes["params"]))
    theirs = dict(pytorch_networks.build(published).named_parameters())
    if name == "lenet5":  # whose dense variant has means in place of subsampling
        theirs = {key: value for key, value in theirs.items() if value.ndim != 3}
    sizes = sorted(value.numel() for value in theirs.values())
    assert [size for size in sizes if size > 16] == [size for size in ours if size > 16]


@pytest.mark.parametrize("name", ["lenet5", "policy"])
def test_published_networks_are_trained(name):
    published = workloads.PUBLISHED[name]
    if name == "policy":  # as small as can be
        published = dataclasses.replace(
            published, shape=(3, 3, 48), batch=8, classes=9, options={"filters": 8}
        )
    inputs, labels = workloads.random_inputs(published, 2 * published.batch)
    run = MnistJax().published_trainer(published, inputs, labels)
    assert run(10) is None


def test_planes_are_those_of_go():
    assert (workloads.PLANES, workloads.LEGAL) == (planes.COUNT, planes.LEGAL)


def test_the_policy_network_is_pytorch_s():
    """The same logits and gradient from the same weights, where some moves are not legal."""
    torch = pytest.importorskip("torch")
    from experiments.benchmarks.sides import pytorch, pytorch_networks

    published = dataclasses.replace(
        workloads.PUBLISHED["policy"], shape=(5, 5, 48), classes=25, options={"filters": 8}
    )
    inputs, labels = workloads.random_inputs(published, 6)
    inputs[:, 0, 0] = 0
    labels = np.maximum(labels, 1)
    unpacked = planes.unpack(jnp.asarray(inputs))
    module = models.create("policy", 25, **published.options)
    params = module.init(jax.random.key(0), unpacked)["params"]
    params["points"]["bias"] = jnp.arange(25) / 25
    theirs = pytorch_networks.build(published)
    convolutions = [layer for layer in theirs.trunk if isinstance(layer, torch.nn.Conv2d)]
    with torch.no_grad():
        theirs.points.copy_(torch.tensor(np.asarray(params["points"]["bias"])))
        for i, layer in enumerate(convolutions, start=1):
            weights = jax.tree.map(np.array, params[f"conv{i}"])
            layer.weight.copy_(torch.tensor(weights["kernel"]).permute(3, 2, 0, 1))
            if "bias" in weights:
                layer.bias.copy_(torch.tensor(weights["bias"]))

    def loss(params):
        logits = module.apply({"params": params}, unpacked)
        return -jax.nn.log_softmax(logits)[np.arange(6), labels].mean(), logits

    (mine, logits), gradient = jax.value_and_grad(loss, has_aux=True)(params)
    their_logits = theirs(pytorch.from_packed(inputs))
    np.testing.assert_allclose(their_logits.detach(), logits, rtol=1e-4, atol=1e-4)
    their_loss = torch.nn.functional.cross_entropy(their_logits, pytorch.to_target(labels))
    their_loss.backward()
    assert their_loss.item() == pytest.approx(float(mine), rel=1e-5)
    kernel = np.transpose(gradient["conv1"]["kernel"], (3, 2, 0, 1))
    np.testing.assert_allclose(convolutions[0].weight.grad, kernel, rtol=1e-3, atol=1e-5)
