"""`python -m experiments.inspect`, against numbers worked out by hand."""

import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from experiments import inspect
from experiments.show import inspector
from experiments.workdir.config import Config
from mnist_jax import models
from mnist_jax.layers import MaxPool


def report(capsys, *argv):
    assert inspect.main([*argv, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("side", "pads", "window", "stride", "text"),
    [
        (28, (1, 1), 3, 1, "(28 + 2*1 - 3)/1 + 1 = 28"),
        (7, (0, 1), 2, 2, "(7 + 0 + 1 - 2)/2 + 1 = 4"),
        (28, (0, 0), 5, 1, "(28 + 2*0 - 5)/1 + 1 = 24"),
        (28, (0, 0), 3, 2, "floor((28 + 2*0 - 3)/2) + 1 = 13"),
    ],
)
def test_formula(side, pads, window, stride, text):
    assert inspector.formula(side, pads, window, stride) == text


@pytest.mark.parametrize(
    ("pool", "text"),
    [
        (MaxPool(), "(7 + 0 + 1 - 2)/2 + 1 = 4"),
        (MaxPool(2, 1), "(7 + 0 + 1 - 2)/1 + 1 = 7"),
        (MaxPool(3, 2, "VALID"), "(7 + 2*0 - 3)/2 + 1 = 3"),
        (MaxPool((3, 2), (2, 1), "VALID"), "(7 + 2*0 - 3)/2 + 1 = 3 and (7 + 2*0 - 2)/1 + 1 = 6"),
        (MaxPool(2, padding="VALID"), "floor((7 + 2*0 - 2)/2) + 1 = 3"),
    ],
)
def test_a_pool_s_size(pool, text):
    (layer,) = inspector.look(Pooled(pool), (7, 7, 3))
    assert layer.size == text
    sides = [int(part.split()[-1]) for part in text.split(" and ")]
    assert layer.output_shape == (sides[0], sides[-1], 3)


class Pooled(nn.Module):
    """A pool and nothing else."""

    pool: MaxPool

    @nn.compact
    def __call__(self, images):
        return self.pool(images)


def test_the_lecture_s_deep_network(capsys):
    (deep,) = report(capsys, "--config", "deep")
    shapes = {layer["name"]: layer["output_shape"] for layer in deep["layers"]}
    assert shapes["Conv_0"] == [28, 28, 32]
    assert [shapes[f"MaxPool_{i}"] for i in range(3)] == [[14, 14, 32], [7, 7, 64], [4, 4, 128]]
    convs = [28 * 28 * 9 * 32, 14 * 14 * 9 * 32 * 64, 7 * 7 * 9 * 64 * 128]
    denses = [2048 * 625, 625 * 625, 625 * 10]
    counted = [layer["multiply_adds"] for layer in deep["layers"] if layer["multiply_adds"]]
    assert counted == convs + denses
    assert deep["multiply_adds"] == sum(convs + denses)


@pytest.mark.parametrize("name", models.LABS)
def test_every_network_shows_all_its_parameters(name, capsys):
    variables = jax.eval_shape(
        models.create(name).init, jax.random.key(0), jnp.zeros((1, 28, 28, 1))
    )
    (shown,) = report(capsys, "--network", name)
    assert shown["parameters"] == sum(leaf.size for leaf in jax.tree.leaves(variables))


def test_each_kind_of_a_mixed_ensemble(capsys, monkeypatch):
    mixed = Config(members="simple:2,fast:3")
    monkeypatch.setattr(inspect.configs, "get", lambda name: (mixed, ""))
    assert [(kind["network"], kind["members"]) for kind in report(capsys, "--config", "deep")] == [
        ("simple", 2),
        ("fast", 3),
    ]


def test_the_table_has_a_line_a_layer(capsys):
    assert inspect.main(["--network", "simple"]) == 0
    title, _, *lines = capsys.readouterr().out.splitlines()
    assert title == "1 x simple, images 28 x 28 x 1"
    assert [line.split()[0] for line in lines] == [
        *("Conv_0", "MaxPool_0", "Conv_1", "MaxPool_1", "Dense_0"),
        "total",
    ]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--config", "dep"], "Did you mean deep?"),
        (["--network", "dep"], "Did you mean deep?"),
        (["--conf", "deep"], "Did you mean --config"),
        (["--config", "deep", "--network", "deep"], "not allowed with"),
    ],
)
def test_wrong_calls(argv, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        inspect.main(argv)
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 2
