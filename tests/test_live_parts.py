"""What the live page is made of: curves, answers, forms, layers, drawings, its optimizer."""

import base64
import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

pytest.importorskip("starlette")

from experiments.live_page import answers, choices, drawing, layers, snapshot
from experiments.live_page.curve import Curve, merge
from experiments.live_page.predictions import Answer, Predictions, confusion, moved_copies
from experiments.workdir import stacks
from experiments.workdir.trained import Member
from mnist_jax import ensemble, images, models, training, uncertainty
from mnist_jax.models import convnetjs
from tests import live
from tests.samples import digits


def point(step, loss, steps=1, validation=None):
    numbers = {"step": step, "seconds": step / 10, "examples": 100 * step, "steps": steps}
    return numbers | {"loss": [loss], "validation": validation}


def test_a_curve_stays_short_and_keeps_the_mean_and_the_ends():
    curve = Curve()
    losses = np.random.default_rng(0).random(5000)
    for i, loss in enumerate(losses, start=1):
        curve.add(point(i, float(loss), validation=[0.5]))
        assert len(curve.points) <= 300
    assert curve.points[0]["step"] == 1 and curve.points[-1]["step"] == 5000
    steps = [p["step"] for p in curve.points]
    assert steps == sorted(set(steps)) and sum(p["steps"] for p in curve.points) == 5000
    total = sum(p["steps"] * p["loss"][0] for p in curve.points)
    assert total / 5000 == pytest.approx(losses.mean())
    assert curve.revision > 0


def test_points_without_a_validation_take_that_of_the_other():
    merged = merge(point(1, 1.0, steps=3, validation=[0.2]), point(2, 3.0, steps=1))
    assert merged["loss"] == [1.5] and merged["validation"] == [0.2] and merged["step"] == 2


@pytest.mark.parametrize("members", [1, 3])
def test_answers_are_those_of_the_library(members):
    rng = np.random.default_rng(members)
    logits = rng.normal(scale=3, size=(members, 40, 10)).astype(np.float32)
    labels = rng.integers(0, 10, 40)
    combined = answers.combine(logits)
    np.testing.assert_allclose(np.log(combined.mean), ensemble.mean_probability(logits), atol=1e-5)
    parts = uncertainty.decompose(logits)
    np.testing.assert_allclose(combined.entropy, parts.total, atol=1e-5)
    np.testing.assert_allclose(combined.mutual_information, parts.epistemic, atol=1e-5)
    mean = ensemble.mean_probability(logits)
    labels[:20] = np.argmax(mean, axis=-1)[:20]
    expected = uncertainty.threshold(mean, labels, 0.95)
    assert answers.threshold(combined.mean, labels) == pytest.approx(expected, abs=1e-5)
    assert answers.threshold(combined.mean, (combined.mean.argmax(-1) + 1) % 10) is None
    together = answers.accuracies(logits, labels)
    assert len(together) == (1 if members == 1 else members + 1)
    assert together[0] == np.mean(logits[0].argmax(-1) == labels)


def test_every_preset_makes_a_network_that_takes_its_images():
    for name, (config, text) in choices.presets().items():
        assert config.schedule == "constant" and text, name
        shown = choices.fields(config)
        again = {key: value for key, value in shown.items() if key not in ("network", "augment")}
        again = {key: value for key, value in again.items() if value is not None}
        assert choices.read_form({"preset": name} | again).network == config.network
    assert {"sentence", "policy", "alphago"}.isdisjoint(choices.presets())
    assert {"simple", "deep", "layers", "fast", "lenet5", "resnet20", "convnetjs"} <= set(
        choices.presets()
    )


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({"preset": "nonsense"}, "preset must be one of"),
        ({"preset": ["simple"]}, "preset must be one of"),
        ({"members": 0}, "members must be from 1 to 8, not 0"),
        ({"members": 9}, "members must be from 1 to 8"),
        ({"members": 2.5}, "members must be a whole number"),
        ({"members": True}, "members must be a whole number"),
        ({"members": "2"}, "members must be a whole number"),
        ({"learning_rate": 0}, "learning rate must be from"),
        ({"learning_rate": float("nan")}, "learning rate must be a number"),
        ({"learning_rate": float("inf")}, "learning rate must be a number"),
        ({"learning_rate": None}, "learning rate must be a number"),
        ({"beta1": 1}, "momentum must be from 0 to below 1"),
        ({"batch_size": 10**9}, "batch size must be from 1 to 2000"),
        ({"dropout": 0.5}, "dropout has no use: simple has none"),
        ({"preset": "deep", "dropout": 1.0}, "dropout must be from 0 to below 1"),
        ({"dataset": "/etc/passwd"}, "dataset must be one of"),
        ({"dataset": "cifar10"}, "simple is made for 28 x 28 x 1"),
        ({"optimizer": {}}, "optimizer must be one of"),
        ({"data_dir": "/etc"}, "'data_dir' is no field"),
        ({"layers": "conv 5x5 8"}, "layers are for the presets convnetjs"),
        ({"preset": "convnetjs", "layers": 3}, "layers must be a text"),
        ({"preset": "convnetjs", "layers": "x" * 2000}, "at most 1,000"),
        ({"preset": "convnetjs", "layers": "__import__('os')"}, "which is none of"),
    ],
)
def test_forms_that_are_refused(form, message):
    with pytest.raises(ValueError, match=message):
        choices.read_form({"preset": "simple"} | form)


@pytest.mark.parametrize(
    ("layers_text", "parameters"),
    [  # by hand: features * (window * window * channels) + features, and the last layer
        (convnetjs.MNIST, 8 * 25 + 8 + 16 * 25 * 8 + 16 + 16 * 4 * 4 * 10 + 10),
        ("pool 2; dense 30; dropout 0.5", 14 * 14 * 30 + 30 + 300 + 10),
        ("CONV 3x3   4 ;\n pool 4", 4 * 9 + 4 + 7 * 7 * 4 * 10 + 10),
    ],
)
def test_convnetjs_networks_by_their_layers(layers_text, parameters):
    network = models.create("convnetjs", layers=layers_text)
    keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    variables = network.init(keys, jnp.zeros((1, 28, 28, 1)))
    assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == parameters


def test_convnetjs_of_cifar_has_the_sizes_of_its_page():
    network = models.create("convnetjs", layers=convnetjs.CIFAR10)
    params = network.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))["params"]
    assert params["conv1"]["kernel"].shape == (5, 5, 3, 16)
    assert params["conv5"]["kernel"].shape == (5, 5, 20, 20)
    assert params["softmax"]["kernel"].shape == (4 * 4 * 20, 10)
    assert float(params["conv1"]["bias"][0]) == pytest.approx(0.1)
    assert float(jnp.std(params["conv3"]["kernel"])) == pytest.approx(1 / 20, rel=0.1)


def test_convnetjs_against_numpy():
    """Crop, one convolution with relu, a pool that leaves out what does not fill it, softmax."""
    network = models.create("convnetjs", 3, layers="crop 7; conv 3x3 2; pool 2")
    images_ = np.random.default_rng(0).random((2, 9, 9, 1)).astype(np.float32)
    variables = network.init(jax.random.key(0), images_)
    params = jax.tree.map(np.asarray, variables["params"])
    x = images_[:, 1:8, 1:8] - 0.5
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    conv = np.zeros((2, 7, 7, 2))
    for i in range(7):
        for j in range(7):
            window = padded[:, i : i + 3, j : j + 3]
            conv[:, i, j] = np.tensordot(window, params["conv2"]["kernel"], 3)
    conv = np.maximum(conv + params["conv2"]["bias"], 0)[:, :6, :6]
    pooled = conv.reshape(2, 3, 2, 3, 2, 2).max((2, 4)).reshape(2, -1)
    expected = pooled @ params["softmax"]["kernel"] + params["softmax"]["bias"]
    np.testing.assert_allclose(network.apply(variables, images_), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "layers must be 1 to 20, not 0"),
        (";".join(["pool 1"] * 21), "layers must be 1 to 20, not 21"),
        ("conv 4x4 8", "window must be odd"),
        ("conv 5x3 8", "none of"),
        ("conv 17x17 8", "at most 15"),
        ("conv 5x5 0", "must be 1 to 512"),
        ("dense 99999", "must be 1 to 8192"),
        ("dense 10; pool 2", "before dense"),
        ("dropout 1", "none of"),
        ("pool -2", "none of"),
    ],
)
def test_layers_that_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        models.create("convnetjs", layers=text)


@pytest.mark.parametrize("name", ["adam", "sgd", "momentum", "adadelta"])
@pytest.mark.parametrize("decay", [0.0, 0.01])
def test_an_adjustable_optimizer_is_the_fixed_one(name, decay):
    """Steps and states; so a workdir can be made of what the page has trained."""
    values = {"learning_rate": 0.03, "beta1": 0.8, "weight_decay": decay}
    fixed = training.make_optimizer(0.03, 9, name, weight_decay=decay, beta1=0.8)
    adjustable = training.make_adjustable(name)
    params = {"w": jnp.array([1.0, -2.0, 3.0])}
    states = fixed.init(params), adjustable.init(params)
    hyperparams = {key: jnp.float32(value) for key, value in values.items()}
    states = states[0], states[1]._replace(hyperparams=hyperparams)
    both = params, params
    for step in range(3):
        grads = {"w": jnp.array([0.5, 0.1, -1.0]) * (step + 1)}
        updates = (
            fixed.update(grads, states[0], both[0]),
            adjustable.update(grads, states[1], both[1]),
        )
        states = updates[0][1], updates[1][1]
        both = tuple(optax.apply_updates(p, u[0]) for p, u in zip(both, updates, strict=True))
    np.testing.assert_allclose(both[0]["w"], both[1]["w"], rtol=1e-6)
    inner = states[1].inner_state
    assert jax.tree.structure(inner) == jax.tree.structure(states[0])
    config = dataclasses.replace(live.small(), optimizer=name, weight_decay=decay)
    of_workdir = stacks.make_optimizer(config, 9).init(params)
    assert jax.tree.structure(inner) == jax.tree.structure(of_workdir)


def test_layers_gradients():
    """Against JAX's of the plain network; the last layer's is softmax - one-hot, by hand."""
    network = models.create("convnetjs", layers="conv 3x3 4; pool 4")
    image = digits(1)[0][0][..., None]
    variables = network.init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))
    _, run, _ = layers._program(network, image.shape)
    looked = run(variables, image, 3)
    pixels = image.astype(np.float32) / 255

    def loss(variables, pixels):
        logits = network.apply(variables, pixels[None])[0]
        return optax.softmax_cross_entropy_with_integer_labels(logits, 3)

    value, grads = jax.value_and_grad(loss, (0, 1))(variables, pixels)
    assert float(looked.loss) == pytest.approx(float(value), abs=1e-5)
    np.testing.assert_allclose(looked.image_grad, grads[1], atol=1e-5)
    kernel = looked.param_grads["conv1"]["kernel"]
    np.testing.assert_allclose(kernel, grads[0]["params"]["conv1"]["kernel"], atol=1e-4)
    logits = np.asarray(network.apply(variables, pixels[None])[0])
    softmax = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(looked.output_grads[-1], softmax - np.eye(10)[3], atol=1e-5)


@pytest.mark.parametrize("name", choices.presets())
def test_all_of_the_menu_may_be_in_a_snapshot(name):
    config = choices.read_form({"preset": name})
    fields = {field: getattr(config, field) for field in snapshot._FIELDS}
    read = snapshot._config(json.loads(json.dumps(fields)))
    assert {field: getattr(read, field) for field in snapshot._FIELDS} == fields


@pytest.mark.parametrize("name", ["simple", "deep", "lenet5", "resnet20", "convnetjs"])
def test_layers_are_described(name):
    network = models.create(name)
    variables = network.init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))
    described = layers.describe(Member(name, network, 0, variables), digits(1)[0][0][..., None], 5)
    rows = described["layers"]
    assert rows[0]["kind"] == "input" and rows[-1]["kind"] == "softmax"
    counted = 0
    for row in rows[1:-1]:
        assert row["shape"] and row["activations"]["min"] <= row["activations"]["max"]
        for group in ("activations", "gradients", "weights", "weight_gradients"):
            if group in row:
                size = int(np.prod(row[group]["shape"]))
                assert len(base64.b64decode(row[group]["data"])) == size
        text = row["parameters"]
        if text:
            *terms, total = text.replace(",", "").split(" = ") if "=" in text else (text, text)
            assert eval(terms[0]) == int(total)
            counted += int(total)
    assert counted == sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    softmax = rows[-1]["activations"]
    assert softmax["min"] >= 0 and softmax["max"] <= 1


def test_a_layers_values_survive_as_bytes():
    values = np.random.default_rng(0).normal(size=(5, 4, 3)).astype(np.float32)
    packed = layers._maps(values)
    back = np.frombuffer(base64.b64decode(packed["data"]), np.uint8).reshape(packed["shape"])
    span = packed["max"] - packed["min"]
    restored = np.moveaxis(back, 0, -1) / 255 * span + packed["min"]
    np.testing.assert_allclose(restored, values, atol=span / 255)


def test_a_drawing_is_made_as_photos_are():
    content = live.drawn(live.SEVEN)
    (quick,) = drawing.of_strokes(content, True, (28, 28, 1))
    (found,) = images.find_digits(drawing.pictures.read(drawing.io.BytesIO(content)))
    assert np.abs(quick.image.astype(int) - found.image).mean() < 3
    assert np.abs(np.array(quick.box) - found.box).max() <= 3


def test_several_digits_and_digits_of_several_strokes():
    one = [(40, 60), (40, 220)]
    five = [(110, 60), (110, 130), (150, 150), (145, 215), (95, 220)]
    bar = [(112, 35), (160, 35)]  # not touching the five
    seven = [(200, 60), (255, 60), (215, 220)]
    found = drawing.of_strokes(live.drawn(one, five, bar, seven, width=10), True, (28, 28, 1))
    assert len(found) == 3
    lefts = [digit.box[0] for digit in found]
    assert lefts == sorted(lefts)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no image"),
        (b"not a picture", "no image"),
        (live.drawn(), "nothing is drawn"),
        (live.drawn(live.SEVEN, size=(1500, 300)), "more than 1000 pixels"),
    ],
)
def test_drawings_that_cannot_be_read(content, message):
    with pytest.raises(ValueError, match=message):
        drawing.of_strokes(content, True, (28, 28, 1))


def test_confusions_and_the_hardest():
    predictions = Predictions(tuple("0123456789"))
    logits = np.full((2, 4, 10), -5.0, np.float32)
    labels = np.array([0, 1, 2, 3])
    for member in range(2):
        for i, said in enumerate([0, 1, 7, 3]):
            logits[member, i, said] = 5
    logits[1, 3, 3], logits[1, 3, 8] = -5, 5  # the second member disagrees on the last one
    predictions.add(np.array([10, 11, 12, 13]), labels, logits, step=5)
    described = predictions.describe()
    matrix = np.array(described["confusion"])
    assert matrix.sum() == 4 and matrix[2, 7] == 1 and matrix[0, 0] == matrix[1, 1] == 1
    assert described["wrong"][0]["place"] == 12
    assert [row["place"] for row in described["differing"]] == [13]
    assert described["member_accuracies"] == [0.75, 0.5]
    both_right = np.repeat(np.eye(10, dtype=np.float32)[None, 2:3] * 9, 2, axis=0)
    predictions.add(np.array([12]), labels[2:3], both_right, 6)
    assert np.array(predictions.describe()["confusion"]).sum() == 4  # the newest answer counts
    rows = [Answer(0, 1, np.eye(10)[4], (4,), 0.0, 1)]
    assert confusion(rows, 10)[1, 4] == 1


def test_the_mean_over_moved_copies():
    image = np.zeros((28, 28, 1), np.uint8)
    image[10:18, 10:18] = 9
    copies = moved_copies(image, np.random.default_rng(0))
    assert copies.shape == (6, 28, 28, 1) and (copies[0] == image).all()
    assert all(copy.sum() == image.sum() for copy in copies)
    predictions = Predictions(tuple("01"))
    predictions.averages = True
    inputs, chosen = predictions.choose(np.stack([image] * 50), np.random.default_rng(1))
    assert len(inputs) == 6 * len(chosen)
    logits = np.zeros((1, len(inputs), 2), np.float32)
    logits[0, ::6, 1] = 9  # only the copy that is the image itself is sure
    predictions.add(chosen, np.zeros(len(chosen), int), logits, 0)
    (row, *_) = predictions.describe()["recent"]
    expected = (1 / (1 + np.exp(-9)) + 5 * 0.5) / 6
    assert row["bars"][0] == ["1", pytest.approx(expected, abs=1e-5)]
