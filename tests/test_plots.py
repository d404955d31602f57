"""What the pictures of a report show, against NumPy and `lax.conv`."""

import flax.linen as nn
import jax
import numpy as np
import pytest
from jax import lax

from experiments.show import features, plots
from mnist_jax import data, models
from mnist_jax.models.googlenet import Inception, Unit


@pytest.mark.parametrize("name", ["simple", "fast"])
def test_feature_maps_and_filters(name):
    image = data.load("mnist5k").test.inputs[3]
    network = models.create(name)
    like = jax.eval_shape(network.init, jax.random.key(0), np.zeros((1, 28, 28, 1), np.float32))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: rng.normal(0, 0.1, x.shape).astype(x.dtype), like["params"])
    maps = features.feature_maps(network, {"params": params}, image)
    assert list(maps) == ["Conv_0", "MaxPool_0", "Conv_1", "MaxPool_1"]
    pixels = image[None] / np.float32(255)
    padding = "SAME"
    if name == "fast":
        pixels, padding = (pixels - 0.1307) / 0.3081, "VALID"
    layer = params["Conv_0"]
    out = lax.conv_general_dilated(
        pixels.astype(np.float32),
        layer["kernel"],
        (1, 1),
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )[0]
    expected = np.asarray(out + layer.get("bias", 0))
    np.testing.assert_allclose(maps["Conv_0"].values, expected, rtol=1e-4, atol=1e-5)
    height, width, channels = expected.shape
    pooled = expected.reshape(height // 2, 2, width // 2, 2, channels).max(axis=(1, 3))
    np.testing.assert_allclose(maps["MaxPool_0"].values, pooled, rtol=1e-4, atol=1e-5)
    kernels = features.first_filters(params, maps)
    np.testing.assert_array_equal(kernels, layer["kernel"])


def test_tile():
    maps = np.arange(12.0).reshape(2, 2, 3)
    nan = np.nan
    expected = [
        [0, 3, nan, 1, 4],
        [6, 9, nan, 7, 10],
        [nan] * 5,
        [2, 5, nan, nan, nan],
        [8, 11, nan, nan, nan],
    ]
    np.testing.assert_array_equal(plots.tile(maps, columns=2, gap=1), expected)


def test_confusion_has_true_classes_down_and_answers_across():
    counts = np.array([[5, 2, 0], [0, 7, 1], [0, 0, 1000]])
    (axes,) = plots.confusion(counts, ["a", "b", "c"]).axes
    shown = {text.get_position(): text.get_text() for text in axes.texts}
    assert shown == {(0, 0): "5", (1, 0): "2", (1, 1): "7", (2, 1): "1", (2, 2): "1000"}
    assert axes.get_ylabel() == "true class" and axes.get_xlabel() == "answer"
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "c"]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first class on top
    np.testing.assert_array_equal(axes.images[0].get_array(), [[0, 2, 0], [0, 0, 1], [0, 0, 0]])
    assert axes.get_title("left") == "3 of 1,015 images get a wrong answer"


def test_who_is_wrong_and_least_sure():
    logits = np.log([[[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.3, 0.7]]]).astype(np.float32)
    labels = np.array([0, 1, 0, 0])
    assert plots.wrong(logits, labels).tolist() == [2, 3]
    assert plots.least_sure(logits, labels, 5).tolist() == [1, 0]
    assert plots.least_sure(logits, labels, 1).tolist() == [1]


def test_votes_of_long_names_are_counted_and_wrapped():
    logits = np.zeros((7, 1, 3), np.float32)
    logits[range(7), 0, [2, 1, 1, 2, 1, 0, 1]] = 5
    names = ["T-shirt/top", "Ankle boot", "Sneaker"]
    ((_, said, *votes),) = plots.describe(logits, np.array([2]), np.array([0]), names)
    assert said.startswith("said Ankle boot (")
    assert votes == ["4 x Ankle boot, 2 x Sneaker,", "1 x T-shirt/top"]
    ((*_, votes),) = plots.describe(logits, np.array([2]), np.array([0]), ["a", "b", "c"])
    assert votes == "c b b c b a b"


def test_gallery_puts_each_image_above_its_text():
    images = np.zeros((8, 28, 28, 1), np.uint8)
    for i, image in enumerate(images):
        image[10, 14] = 100 + i
    figure = plots.gallery(images, [[f"no. {i}"] for i in range(8)], "title")
    (axes,) = figure.axes
    assert len(axes.texts) == len(axes.images) == 8
    for i, (text, shown) in enumerate(zip(axes.texts, axes.images, strict=True)):
        assert (shown.get_array()[10, 14] == 255 - (100 + i)).all()  # dark on white
        left, right, bottom, top = shown.get_extent()
        x, y = text.get_position()
        assert text.get_text() == f"no. {i}"
        assert x == pytest.approx((left + right) / 2) and bottom < y < bottom + 0.1
        assert top == pytest.approx(i // 6 * axes.get_ylim()[0] / 2)


@pytest.mark.parametrize("shape", [(32, 32, 3), (224, 100, 3), (9, 16, 1)])
@pytest.mark.parametrize("narrow", [False, True])
def test_gallery_of_pictures_of_any_size(shape, narrow):
    images = np.random.default_rng(0).integers(0, 256, (5, *shape), np.uint8)
    texts = [["no. 1 is a class whose name is so long that nothing has room for it", "said cat"]]
    (axes,) = plots.gallery(images, texts * 5, "title", narrow).axes
    width, height = axes.figure.get_size_inches() * axes.get_position().size
    assert axes.get_xlim() == (0, pytest.approx(width))
    assert axes.get_ylim() == (pytest.approx(height), 0)  # the axes are in inches
    boxes = [shown.get_extent() for shown in axes.images]
    for image, shown, text in zip(images, axes.images, axes.texts, strict=True):
        np.testing.assert_array_equal(shown.get_array(), np.broadcast_to(image, (*shape[:2], 3)))
        left, right, bottom, top = shown.get_extent()
        assert (bottom - top) / (right - left) == pytest.approx(shape[0] / shape[1])
        assert max(bottom - top, right - left) == pytest.approx(1.3)
        lines = text.get_text().splitlines()
        assert len(lines) > 2 and max(map(len, lines)) <= 30 and lines[-1] == "said cat"
    assert len({(left, top) for left, _, _, top in boxes}) == 5
    assert max(right for _, right, _, _ in boxes) < width


def test_filters_of_colours_have_grey_where_weights_are_0():
    kernels = np.zeros((2, 2, 3, 2), np.float32)
    kernels[0, 0, :, 0] = [2, -1, 0]
    kernels[1, 1, 2, 1] = 0.1
    (axes,) = plots.filters(kernels, "it").axes
    colours = axes.images[0].get_array()
    np.testing.assert_allclose(colours[0, 0], [1, 0.25, 0.5, 1])
    np.testing.assert_allclose(colours[1, 1], [0.5, 0.5, 0.5, 1])
    np.testing.assert_allclose(colours[1, 4], [0.5, 0.5, 1, 1])  # to its own scale
    assert colours[0, 2, 3] == 0  # nothing between them
    assert "2 filters of 2 x 2 x 3 weights" in axes.get_title("left")


def test_many_channels_are_shown_evenly():
    assert plots.evenly(54, 12)[:2] == [0, 5] and plots.evenly(54, 12)[-1] == 53
    assert plots.evenly(3, 12) == [0, 1, 2] and plots.evenly(1, 12) == [0]
    values = np.broadcast_to(np.arange(1, 64, dtype=np.float32), (1, 1, 63))
    image = np.zeros((4, 4, 3), np.uint8)
    first, axes = plots.features(image, {"conv": values}, "title").axes
    shown = axes.images[0].get_array().compressed()
    np.testing.assert_array_equal(shown, np.arange(1, 64, 2))
    assert axes.get_title("left") == "conv: 1 x 1, 32 of 63 channels"
    assert (first.images[0].get_array()[:4, :4] == [0, 0, 0, 1]).all()


def test_blocks_are_looked_at_as_a_whole():
    network = models.create("resnet20", 3)
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    variables = jax.jit(network.init)(jax.random.key(0), np.zeros((1, 8, 8, 3), np.float32))
    maps = features.feature_maps(network, variables, image)
    blocks = [f"layer{stage}_{i}" for stage in (1, 2, 3) for i in range(3)]
    assert list(maps) == ["conv1", *blocks]
    assert maps["conv1"].joined is None and "skips" in maps["layer2_0"].joined
    last, layer = maps["layer3_2"].values, variables["params"]["fc"]
    logits = jax.jit(network.apply)(variables, image[None] / np.float32(255))[0]
    expected = last.mean(axis=(0, 1)) @ layer["kernel"] + layer["bias"]
    np.testing.assert_allclose(expected, logits, rtol=1e-4, atol=1e-4)
    assert features.first_filters(variables["params"], maps).shape == (3, 3, 3, 16)


class OneInception(nn.Module):
    @nn.compact
    def __call__(self, images, train=False):
        return Inception(2, (3, 4), (1, 2), 5, 5, Unit, name="module")(images, train, None)


def test_branches_are_looked_at_side_by_side():
    variables = OneInception().init(jax.random.key(0), np.zeros((1, 6, 6, 3), np.float32))
    image = np.random.default_rng(0).integers(0, 256, (6, 6, 3), np.uint8)
    ((name, maps),) = features.feature_maps(OneInception(), variables, image).items()
    assert name == "module" and "four branches" in maps.joined
    only = variables["params"]["module"]["branch1"]["conv"]
    first = np.maximum(image / 255 @ np.asarray(only["kernel"][0, 0]) + only["bias"], 0)
    assert maps.values.shape == (6, 6, 13)
    np.testing.assert_allclose(maps.values[..., :2], first, rtol=1e-4, atol=1e-5)


def test_confusion_of_a_hundred_classes():
    counts = np.diag(np.full(100, 50))
    for i in range(20):  # class 4 i for 4 i + 1, and the first for one of few mistakes
        counts[4 * i, 4 * i + 1] = 40 - i
    counts[0, 99] = 3
    names = [f"class {i}" for i in range(99)] + ["a name that is much too long to be written"]
    together, shown = plots.most_mistaken(counts, names)
    kept = sorted(place for i in range(10) for place in (4 * i, 4 * i + 1))
    assert shown == [*(f"class {i}" for i in kept), "80 others"]
    np.testing.assert_array_equal(together[:-1, :-1], counts[np.ix_(kept, kept)])
    assert together.sum() == counts.sum() and together[0, -1] == 3
    assert together[-1, -1] == 80 * 50 + sum(40 - i for i in range(10, 20))
    (axes,) = plots.confusion(counts, names).axes
    wrong = counts.sum() - np.trace(counts)
    assert axes.get_title("left").startswith(f"{wrong:,} of {counts.sum():,} images")
    assert len(axes.get_xticklabels()) == 21
    same, same_names = plots.most_mistaken(counts[:30, :30], names[:30])
    assert len(same) == len(same_names) == 30


def test_lines_have_the_numbers():
    accuracies = [[0.90, 0.80], [0.95, 0.85]]
    history = [
        {
            "epoch": epoch,
            "members": [{"validation_accuracy": value} for value in members],
            "ensemble": {"validation_accuracy": members[0] + 0.01},
        }
        for epoch, members in enumerate(accuracies, start=1)
    ]
    (axes,) = plots.validation(history, "accuracy").axes
    lines = [line.get_ydata() for line in axes.lines]
    np.testing.assert_allclose(lines, [[90, 95], [80, 85], [91, 96]])
    assert axes.get_title("left") == "Validation accuracy: 96.00 % at the end"


def test_shifts_that_do_not_fill_the_grid_share_their_scale():
    def row(accuracy, ece):
        return {
            "amount": 0.5,
            "members": [{"before": {"accuracy": accuracy}}],
            "rules": {"mean_probability": {"before": {"ece": ece, "accuracy": accuracy}}},
        }

    by_shift = {name: [row(0.9, 0.1), row(0.2, ece)] for name, ece in [("blur", 0.2)]}
    by_shift |= {"noise": [row(0.9, 0.1), row(0.2, 0.7)], "rotation": [row(0.9, 0.1)]}
    for rows in by_shift.values():
        for strength in rows:
            strength["rules"]["mean_probability"]["after"] = None
    figure = plots.shift_curves(by_shift, "ece")
    assert [axes.axison for axes in figure.axes] == [True, True, True, False]
    assert all(axes.get_ylim()[0] == 0 and axes.get_ylim()[1] >= 70 for axes in figure.axes)
    (line,) = figure.axes[1].lines
    np.testing.assert_allclose(line.get_ydata(), [10, 70])


def test_bins_of_few_images_are_apart_and_empty_ones_left_out():
    bins = {"confidence": [None, 0.5, 0.9], "accuracy": [None, 0.4, 1.0], "images": [0, 5, 20]}
    axes, counts = plots.reliability({"before": {"reliability": bins}, "after": None}).axes
    _, many, few = axes.lines
    np.testing.assert_allclose(many.get_xydata(), [[90, 100]])
    np.testing.assert_allclose(few.get_xydata(), [[50, 40]])
    assert few.get_alpha() < 1
    assert [bar.get_height() for bar in counts.patches] == [0, 5, 20]


@pytest.mark.parametrize("images", [[5, 3], [5, 300], [200, 300]])
def test_reliability_fills_its_figure_whatever_the_bins_hold(images):
    bins = {"confidence": [0.5, 0.9], "accuracy": [0.4, 1.0], "images": images}
    figure = plots.reliability({"before": {"reliability": bins}, "after": None})
    figure.draw_without_rendering()
    assert sum(axes.get_position().height for axes in figure.axes) > 0.6


def test_risk_coverage_begins_where_there_are_errors():
    def curves(risk):
        return {"mean_probability": {"before": {"risk_coverage": risk}}}

    for risk, start in (([0.0] * 90 + [0.01] * 10, 90), ([0.01] * 100, 0), ([0.0] * 100, 90)):
        (axes,) = plots.risk_coverage(curves(risk), single=True).axes
        assert axes.get_xlim() == (start, 100)
        np.testing.assert_allclose(axes.lines[0].get_ydata(), 100 * np.array(risk))


def test_curves_of_many_runs_are_told_apart():
    def history(cost):
        return [{"epoch": epoch, "cost": cost / epoch} for epoch in (1, 2)]

    curves = [
        (f"{'long' * number} run {number}", number, history(number + 1)) for number in range(14)
    ]
    figure = plots.compare(curves, "cost")
    lines = figure.axes[0].lines
    np.testing.assert_allclose(
        [line.get_ydata() for line in lines], [[n, n / 2] for n in range(1, 15)]
    )
    looks = {(line.get_color(), line.get_linestyle()) for line in lines}
    assert len(looks) == 14
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names[0] == " run 0" and all(len(name) <= 48 for name in names)
    assert names[13].startswith("…") and names[13].endswith("long run 13")


def test_one_colour_is_one_run_s():
    """The ensemble has its run's colour in each picture; members are a pale one; others black."""
    green = plots.RUN_COLORS[1]
    history = [
        {
            "epoch": epoch,
            "cost": 1.0,
            "member_costs": [0.5, 1.5],
            "members": [{"validation_accuracy": 0.5}] * 2,
            "ensemble": {"validation_accuracy": 0.5},
        }
        for epoch in (1, 2)
    ]
    curve = {"before": {"risk_coverage": [0.1] * 100}}
    rules = {rule: curve for rule in ("mean_probability", "sum_logits", "majority_vote")}
    for figure in (plots.cost(history, green), plots.validation(history, "accuracy", green)):
        *members, together = figure.axes[0].lines
        assert together.get_color() == green and together.get_linestyle() == "-"
        assert {line.get_color() for line in members} == {"#80ceb9"}  # half white
    risk = plots.risk_coverage(rules, single=False, color=green).axes[0].lines
    assert [line.get_color() for line in risk] == [green, plots.BLACK, plots.BLACK, plots.GREY]
    assert len({line.get_linestyle() for line in risk}) == 4
