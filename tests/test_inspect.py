"""`python -m experiments.inspect`, against numbers worked out by hand."""

import dataclasses
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from etils import epath

from experiments import inspect
from experiments.show import graph, inspector
from experiments.workdir import records
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


@pytest.mark.parametrize(
    ("name", "parameters"),  # as published, or counted from the published shapes
    [
        ("simple", None),
        ("deep", None),
        ("layers", None),
        ("fast", None),
        ("lenet5", 60_000),
        ("alexnet", 62_378_344),
        ("googlenet", 13_378_280),  # with the heads for training
        ("resnet18", 11_689_512),
        ("resnet20", 269_722),
        ("resnet50", 25_557_032),
    ],
)
def test_every_network_shows_all_its_parameters(name, parameters, capsys):
    image_shape, num_classes = models.PUBLISHED[name]
    network = models.create(name, num_classes)
    variables = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, *image_shape)))
    (shown,) = report(capsys, "--network", name)
    assert shown["parameters"] == sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    assert parameters in (None, shown["parameters"])


@pytest.mark.parametrize(
    ("name", "options", "parameters", "predicting"),  # as published, or of torchvision's networks
    [
        ("lenet5", "dense=True", 61_706, 61_706),
        ("alexnet", "two_towers=True", 60_965_224, 60_965_224),
        ("googlenet", "auxiliary_heads=True", 13_378_280, 6_998_552),
        ("googlenet", "auxiliary_heads=False", 6_998_552, 6_998_552),
        ("googlenet", "batch_norm=True", 13_004_888, 6_624_904),
        ("googlenet", "batch_norm=True,auxiliary_heads=False", 6_624_904, 6_624_904),
        ("resnet20", "shortcut=B", 272_474, 272_474),
    ],
)
def test_networks_with_options(name, options, parameters, predicting, capsys):
    (shown,) = report(capsys, "--network", name, "--network-options", options)
    assert shown["parameters"] == parameters
    assert parameters == sum(layer["parameters"] for layer in shown["layers"])
    assert shown["predicting"]["parameters"] == predicting
    assert inspect.main(["--network", name, "--network-options", options]) == 0
    title, *_, total, last = capsys.readouterr().out.splitlines()
    assert title.startswith(f"1 x {name}, {options.replace(',', ', ')}, images ")
    assert f"{parameters:,}" in (total if predicting < parameters else last)
    assert f"{predicting:,}" in last and ("aux1 and aux2" in last) == (predicting < parameters)


def test_options_change_the_flow(capsys):
    flags = ("--network", "resnet20", "--network-options", "shortcut=B")
    layers = layers_of(capsys, *flags)
    assert layers["layer2_0/add"]["inputs"] == ["layer2_0/bn2", "layer2_0/downsample_1"]
    flags = ("--network", "googlenet", "--network-options", "auxiliary_heads=False")
    assert not any(name.startswith("aux") for name in layers_of(capsys, *flags))
    layers = layers_of(capsys, "--config", "lenet5", "--network-options", "dense=True")
    assert layers["C3"]["parameters"] == 2_416 and layers["output"]["parameters"] == 850
    layers = layers_of(capsys, "--network", "alexnet", "--network-options", "two_towers=True")
    assert layers["conv2"]["size"].endswith("in 2 groups") and layers["conv3"]["size"][-1] == "3"


def test_a_graph_tells_the_options(tmp_path, monkeypatch):
    titles = []
    draw = graph.draw
    monkeypatch.setattr(graph, "draw", lambda *args: titles.append(args[0]) or draw(*args))
    flags = ["--network", "lenet5", "--network-options", "dense=True,image_size=28"]
    assert inspect.main([*flags, "--output", str(tmp_path / "lenet5.png")]) == 0
    assert titles == ["lenet5\nimage_size=28\ndense=True"]


def test_the_lecture_s_numbers_of_alexnet(capsys):
    (alexnet,) = report(capsys, "--network", "alexnet")
    conv1, *_, pool1 = alexnet["layers"][:3]
    assert conv1["output_shape"] == [55, 55, 96] and conv1["parameters"] == 11 * 11 * 3 * 96 + 96
    assert conv1["multiply_adds"] == 55 * 55 * 11 * 11 * 3 * 96
    assert conv1["size"] == "(227 + 2*0 - 11)/4 + 1 = 55"
    assert pool1["output_shape"] == [27, 27, 96] and pool1["parameters"] == 0
    assert pool1["size"] == "(55 + 2*0 - 3)/2 + 1 = 27"


def layers_of(capsys, *argv):
    (shown,) = report(capsys, *argv)
    return {layer["name"]: layer for layer in shown["layers"]}


def test_a_residual_block_adds_what_it_was_given(capsys):
    layers = layers_of(capsys, "--network", "resnet20")
    assert layers["conv1"]["inputs"] == ["images"]
    assert layers["layer1_0/add"]["inputs"] == ["layer1_0/bn2", "bn1"]
    assert layers["layer2_0/conv1"]["inputs"] == ["layer1_2/add"]
    assert layers["layer2_0/add"]["inputs"] == ["layer2_0/bn2", "layer1_2/add"]  # filled up
    projected = layers_of(capsys, "--network", "resnet18")
    assert projected["layer2_0/downsample_0"]["inputs"] == ["layer1_1/add"]
    assert projected["layer2_0/add"]["inputs"] == ["layer2_0/bn2", "layer2_0/downsample_1"]


def test_an_inception_module_has_four_branches(capsys):
    layers = layers_of(capsys, "--network", "googlenet")
    module = layers["inception3a/concatenate"]
    ends = ["branch1/conv", "branch2_1/conv", "branch3_1/conv", "branch4_1/conv"]
    assert module["inputs"] == [f"inception3a/{end}" for end in ends]
    assert module["output_shape"] == [28, 28, 64 + 128 + 32 + 32]
    for begin in ("branch1/conv", "branch2_0/conv", "branch3_0/conv", "branch4_0"):
        assert layers[f"inception3a/{begin}"]["inputs"] == ["pool2"]
    assert layers["aux1/pool"]["inputs"] == ["inception4a/concatenate"]


def test_in_a_row_each_layer_takes_the_one_above(capsys):
    (deep,) = report(capsys, "--network", "deep")
    names = ["images", *(layer["name"] for layer in deep["layers"])]
    assert [layer["inputs"] for layer in deep["layers"]] == [[name] for name in names[:-1]]


def test_images_and_classes_of_one_s_own(capsys):
    flags = ("--network", "resnet20", "--images", "28x28x1", "--classes", "7")
    layers = layers_of(capsys, *flags)
    assert layers["conv1"]["output_shape"] == [28, 28, 16]
    assert layers["conv1"]["parameters"] == 9 * 16 and layers["fc"]["output_shape"] == [7]


def test_a_graph_is_drawn_into_a_file(tmp_path, capsys):
    output = tmp_path / "resnet20.svg"
    assert inspect.main(["--network", "resnet20", "--output", str(output)]) == 0
    drawn = output.read_text()
    assert drawn.count("<path") > 60  # boxes, lines and letters
    assert f"The graph is in {output}." in capsys.readouterr().err


def test_places_of_a_graph():
    """A skip passes to the right of what it skips; a dead end is right of the way to the end."""
    residual = [("a", ()), ("b", ("a",)), ("c", ("b",)), ("sum", ("c", "a"))]
    places = graph.arrange(residual)
    assert {name: places[name] for name, _ in residual} == {
        **{"a": (0, 0), "b": (0, 1), "c": (0, 2)},
        "sum": (0, 3),
    }
    passing = [("a", "sum", 1), ("a", "sum", 2)]
    assert [places[spot][1] for spot in passing] == [1, 2]
    assert all(places[spot][0] >= 0.5 for spot in passing)
    branches = [("a", ()), ("head", ("a",)), ("b", ("a",)), ("c", ("a",)), ("end", ("b", "c"))]
    columns = {name: graph.arrange(branches)[name][0] for name, _ in branches}
    assert columns == {"a": 0, "b": 0, "c": 1, "head": 2, "end": 0}


def test_each_kind_of_a_mixed_ensemble(capsys, monkeypatch):
    mixed = Config(members="simple:2,fast:3")
    monkeypatch.setattr(inspect.configs, "get", lambda name: (mixed, ""))
    assert [(kind["network"], kind["members"]) for kind in report(capsys, "--config", "deep")] == [
        ("simple", 2),
        ("fast", 3),
    ]


def test_a_workdir_s_networks_are_those_it_holds(tmp_path, capsys):
    classes, shape = tuple("abc"), (20, 24, 3)
    config = Config(network="simple", members=2, dataset="mnist5k")
    records.write_json(epath.Path(tmp_path) / "config.json", dataclasses.asdict(config))
    about = records.TrainedOn(classes, False, shape)
    records.write_dataset(epath.Path(tmp_path), "own", "a folder", about)
    inspect.main([str(tmp_path), "--json"])
    (report,) = json.loads(capsys.readouterr().out)
    network = models.create("simple", 3)
    variables = network.init(jax.random.key(0), jnp.zeros((1, *shape)))
    assert report["members"] == 2
    assert report["parameters"] == sum(leaf.size for leaf in jax.tree.leaves(variables))


def test_the_table_has_a_line_a_layer(capsys):
    assert inspect.main(["--network", "simple"]) == 0
    title, _, *lines = capsys.readouterr().out.splitlines()
    assert title == "1 x simple, images 28 x 28 x 1"
    assert [line.split()[0] for line in lines] == [
        *("Conv_0", "MaxPool_0", "Conv_1", "MaxPool_1", "Dense_0"),
        "total",
    ]


WRONG_SIZES = ("28x28", "0x28x1", "-1x28x1", "28x28x1x1", "28,28,1", "x", "", "²x28x1", "2.5x9x1")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--config", "dep"], "Did you mean deep?"),
        (["--network", "dep"], "Did you mean deep?"),
        (["--conf", "deep"], "Did you mean --config"),
        (["--config", "deep", "--network", "deep"], "not allowed with"),
        *(([f"--images={size}"], "28x28x1 (1 channel, grey)") for size in WRONG_SIZES),
        (["--images", "28x28x2"], "--images 28x28x2 must have 1 or 3 channels, not 2."),
        (["--images", "28x99999x1"], "--images 28x99999x1 has more than 10,000 pixels a side."),
        (["--network", "alexnet", "--images", "28x28x1"], "images of at least 67 x 67"),
        (["--classes", "1"], "--classes must be at least 2, not 1."),
        (["--output", "page.html"], "does not end in .svg, .png or .pdf.\nDid you mean page.svg?"),
        (["--output", "a.b/c"], "Did you mean a.b/c.svg?"),
        (["--output", "x.svg.gz"], "Did you mean x.svg?"),
        (["--output", ".svg"], "Did you mean network.svg?"),
        (["--output", ""], "Did you mean network.svg?"),
        (["--network-options", "dense"], "--network-options must be like shortcut=B,dense=True"),
        (["--network-options", "dense=True"], "network 'deep' has no option 'dense'; its options"),
        (["--network", "lenet5", "--network-options", "dense=2"], "dense must be True or False"),
        (["--network", "resnet20", "--network-options", "shortcut=C"], "must be 'A' or 'B', not"),
        (["--network", "alexnet", "--network-options", "image_size=9"], "images of at least 67"),
        (["--output", "/no/such/folder/a.svg"], "cannot be written"),
        (["no/such/deep"], "no workdir of experiments.run: "),
        (["resnet20"], "Did you mean --config resnet20?"),
        (["resnet34"], "Did you mean --network resnet34?"),
        (["pretrained", "--network-options", "dense=True"], "--network-options is of no use"),
        (["pretrained", "--config", "deep"], "not allowed with argument"),
    ],
)
def test_wrong_calls(argv, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        inspect.main(argv)
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 2
