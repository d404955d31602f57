"""The command `gpu`, tried on a CPU: its check, its parts and its command line."""

import json
import subprocess
import sys
import time
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmarks import convolutions, equality, gpu, measure
from experiments.benchmarks.scaling_worker import noise
from mnist_jax import data, models
from mnist_jax.layers import Conv, Dense, MaxPool
from tests.tiny import Tiny, problem

CPU = jax.devices("cpu")[0]


def vmap(function, *stacked):
    return jax.vmap(function)(*stacked)


def exchanged(function, params, *others):
    """The members in another order."""
    return vmap(function, jax.tree.map(lambda leaf: leaf[::-1], params), *others)


def one_dropout(function, params, seeds, *others):
    """All members with the dropout of the first."""
    return vmap(function, params, 0 * seeds, *others)


def imprecise(function, params, *others):
    """Weights of 8 bits, as bfloat16 has them."""
    rounded = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16).astype(jnp.float32), params)
    return vmap(function, rounded, *others)


def broken(function, *stacked):
    """Right, but for one gradient that is no number."""
    outputs = vmap(function, *stacked)
    leaves, structure = jax.tree.flatten(outputs.gradients)
    leaves[-1] = leaves[-1].at[0].set(jnp.nan)
    return outputs._replace(gradients=jax.tree.unflatten(structure, leaves))


@pytest.mark.parametrize(
    ("map_members", "wrong"),
    [
        (vmap, set()),
        (exchanged, {"logits", "loss", "gradients"}),
        (one_dropout, {"loss", "gradients"}),
        (broken, {"gradients"}),
    ],
)
def test_the_check_fails_when_it_should(map_members, wrong, monkeypatch):
    monkeypatch.setattr(models, "create", lambda name: Tiny(dropout_rate=0.5))
    monkeypatch.setattr(equality.ensemble, "map_members", map_members)
    images, labels = problem(32)
    found = equality.check(CPU, ["tiny"], images, labels)
    row = found["tiny"]
    assert {field for field in equality.Outputs._fields if row[field] > equality.TOLERANCE} == wrong
    assert row["equal"] == (not wrong)
    assert gpu.different({"equality": {"found": found}}) == bool(wrong)
    assert ("error: not equal" in "".join(gpu.equality_table(found))) == bool(wrong)


def test_the_check_fails_for_products_of_8_bits(monkeypatch):
    monkeypatch.setattr(models, "create", lambda name: Tiny())
    monkeypatch.setattr(equality.ensemble, "map_members", imprecise)
    row = equality.check(CPU, ["tiny"], *problem(32))["tiny"]
    assert min(row["logits"], row["gradients"]) > equality.TOLERANCE and not row["equal"]


class Close(nn.Module):
    """A pool and a relu whose inputs the first four of some images bring close together."""

    @nn.compact
    def __call__(self, images, train=False):
        conv = Conv(1, (1, 1), kernel_init=nn.initializers.ones)
        pooled = MaxPool()(conv(images)).reshape(len(images), -1)
        x = Dense(2, kernel_init=lambda *_: jnp.array([[1.0, -1.0]]))(pooled)
        return nn.relu(x)


def test_images_in_which_rounding_decides_are_found():
    """Squares of pixels around 1: two close, two alike, one alone, and a relu close to 0."""
    near = np.float32(1 + 1e-6)
    squares = [[1, near, 0, 0], [near, near, 0, 0], [1, 0, 0, 0], [1e-7, 0, 0, 0], [0, 0, 0, 0]]
    images = np.float32(squares).reshape(-1, 2, 2, 1)
    network = Close()
    params = jax.vmap(lambda key: network.init(key, images)["params"])(
        jax.random.split(jax.random.key(0), 2)
    )
    found = equality.find_decided(network, params, images, CPU)
    assert found.tolist() == 2 * [[False, True, True, False, True]]


def nudged(function, params, *others):
    """As another order of sums might: weights by a millionth of their size larger or smaller."""
    rng = np.random.default_rng(0)
    return vmap(
        function,
        jax.tree.map(lambda leaf: leaf * (1 + 1e-6 * rng.choice([-1, 1], leaf.shape)), params),
        *others,
    )


@pytest.mark.parametrize("name", ["simple", "fast"])
def test_what_rounding_decides_is_no_error(name, monkeypatch):
    monkeypatch.setattr(equality.ensemble, "map_members", nudged)
    row = equality.check(CPU, [name], *noise(30))[name]
    assert row["equal"] and row["gradients"] < 2e-5 and row["images"] == 90
    assert 0 < row["by_rounding"] < 60 and row["gradients_of_all"] >= row["gradients"] / 2


def test_nothing_is_compared_where_rounding_decides_everywhere(monkeypatch):
    monkeypatch.setattr(equality, "CLOSE", 1.0)
    row = equality.check(CPU, ["simple"], *noise(2))["simple"]
    assert row["by_rounding"] == row["images"] == 6 and not row["equal"]


def test_the_differences_by_hand():
    reference = equality.Outputs(np.array([[4.0, -8.0]]), np.array([2.0]), {"w": np.array([0.0])})
    outputs = equality.Outputs(np.array([[4.0, -7.0]]), np.array([2.5]), {"w": np.array([0.5])})
    wanted = {"logits": 0.125, "loss": 0.25, "gradients": 0.5, "equal": False}
    assert equality.compare(outputs, reference) == wanted


def test_both_formulations_are_one_function():
    random = np.random.default_rng(0)
    images = random.standard_normal((2, 3, 7, 7, 4)).astype(np.float32)
    kernels = random.standard_normal((2, 3, 3, 4, 5)).astype(np.float32)
    ours, theirs = (
        convolutions.make_steps(convolution)(jnp.int32(3), images, kernels)
        for convolution in convolutions.FORMULATIONS.values()
    )
    for a, b, before in zip(ours, theirs, (images, kernels), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
        assert np.abs(a - before).max() > 1e-3  # descent goes somewhere


def test_shapes_and_arithmetic_by_hand():
    first, second, third = convolutions.shapes()
    assert (first, second, third) == ((28, 1, 32), (14, 32, 64), (7, 64, 128))
    assert convolutions.flop(second, 100, 8) == 3 * 2 * 8 * 100 * 196 * 288 * 64


def test_turns_take_as_long_as_they_should(monkeypatch):
    clock, asked = [0.0], []
    monkeypatch.setattr(measure.time, "perf_counter", lambda: clock[0])

    def run(steps):
        asked.append(steps)
        clock[0] += 0.25 * steps

    turns, steps = measure.take_turns(run, 3, 10.0)
    assert steps == 40 and turns == 3 * [{"seconds": 10.0}]
    assert asked[-3:] == [40, 40, 40] and asked[0] == 1


def test_what_there_is_no_time_for_is_left_out_by_name():
    over = time.monotonic() - 1
    members = gpu.measure_members(CPU, gpu.QUICK, over)
    assert members == gpu.Found([], {"1 members": "no time left", "2 members": "no time left"})
    cases = gpu.measure_convolutions(CPU, gpu.QUICK, over)
    assert not cases.found
    assert "14 x 14 x 32 to 64, 8 members, tf32, layers.conv2d" in cases.left_out


def test_fast_without_mnist_is_left_out_by_name(monkeypatch, tmp_path):
    monkeypatch.setenv("MNIST_JAX_DATA", str(tmp_path))
    part = gpu.train_fast(CPU, gpu.QUICK, time.monotonic() + 9)
    assert part.found == [] and "MNIST cannot be had: " in part.left_out["fast"]
    assert gpu.fast_table(part.found) == ["config fast, one epoch"]


@pytest.mark.slow
def test_fast_seed_by_seed():
    digits = data.load("mnist5k", validation=0)
    sizes = gpu.QUICK._replace(seeds=2, fast_images=4096)
    first, second = gpu.fast_runs(CPU, digits, sizes)
    assert (first["seed"], second["seed"]) == (0, 1)
    assert first["accuracy"] > 0.7 and second["accuracy"] > 0.7
    assert first["accuracy"] != second["accuracy"]


def test_fast_says_how_many_reached_the_goal():
    first, second = ({"seed": i, "seconds": 1.5, "accuracy": 0.99 - i / 100} for i in range(2))
    assert gpu.fast_table([first, second])[-1] == "1 of 2 reached 99%"


@pytest.mark.parametrize(
    ("argv", "message", "hint"),
    [
        ([], "JAX finds no GPU here, only cpu", "--allow-cpu"),
        (["--parts", "member"], "--parts member does not exist", "members"),
        (["--quik"], "--quik is no flag of this command", "--quick"),
        (["--output", "/nowhere/gpu.json"], "--output /nowhere/gpu.json", "folder"),
    ],
)
def test_a_mistake_is_two_lines_and_code_2(argv, message, hint, capsys):
    with pytest.raises(SystemExit) as exit_:
        gpu.main(argv)
    error = capsys.readouterr().err
    assert exit_.value.code == 2 and len(error.splitlines()) == 2, error
    assert message in error.splitlines()[0] and hint in error.splitlines()[1]


def test_it_starts_without_what_a_bare_gpu_machine_lacks():
    absent = ("tensorflow_datasets", "mlxtend", "tyro", "tensorboardX", "sklearn", "torch")
    program = f"import sys; sys.modules.update(dict.fromkeys({absent})); "
    program += "import mnist_jax.data; from experiments.benchmarks import gpu; gpu.main([])"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={"JAX_PLATFORMS": "cpu", "PYTHONPATH": ":".join(sys.path)},
    )
    assert done.returncode == 2 and "JAX finds no GPU here" in done.stderr, done.stderr


@pytest.mark.slow
def test_a_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu, "missing_packages", lambda name: ["torch"])
    monkeypatch.setattr(
        data, "load", partial(lambda load, name, **o: load("mnist5k", **o), data.load)
    )
    file = tmp_path / "gpu.json"
    assert gpu.main(["--allow-cpu", "--quick", "--output", str(file)]) == 0
    results = json.loads(file.read_text())
    assert results["equality"]["found"]["simple"]["equal"]
    assert [row["members"] for row in results["members"]["found"]] == [1, 2]
    assert [row["seed"] for row in results["fast"]["found"]] == [0]
    assert len(results["convolutions"]["found"]) == 12
    assert results["pytorch"]["left_out"] == {"pytorch": "torch is not installed"}
    assert jax.__version__ in results["environment"]["versions"]
    output = capsys.readouterr().out
    assert "left out: pytorch: torch is not installed" in output and "/ first" in output
