"""`python -m experiments.report`, its page and what its pictures show."""

import base64
import json
from html.parser import HTMLParser

import numpy as np
import pytest
from jax import lax

from experiments import cli, evaluate, plots, records, report, trained
from experiments.config import Config
from mnist_jax import parallel
from tests.test_evaluate import digits, workdir_of  # noqa: F401 (a fixture)


@pytest.fixture(autouse=True)
def this_process(monkeypatch):
    """The tests have started JAX already, and keep no cache of compiled programs."""
    monkeypatch.setattr(parallel, "use_cpu_cores", lambda: None)
    monkeypatch.setattr(cli, "use_compilation_cache", lambda: None)


@pytest.fixture(scope="module")
def two_members(tmp_path_factory, digits):  # noqa: F811
    config = Config(members=2, seed=5, dataset="mnist", data_dir=str(digits), validation=40)
    workdir = workdir_of(tmp_path_factory.mktemp("runs") / "two & <more>", config)
    member = {"seed": 5, "network": "simple", "validation_accuracy": 0.9, "validation_nll": 0.3}
    history = [
        {
            "epoch": epoch,
            "steps": 10,
            "cost": 1 / epoch,
            "member_costs": [0.9 / epoch, 1.1 / epoch],
            "members": [member, member | {"seed": 6}],
            "ensemble": {"validation_accuracy": 0.91, "validation_nll": 0.28},
        }
        for epoch in (1, 2)
    ]
    records.write_json_lines(workdir / "metrics.jsonl", history)
    records.write_json(workdir / "results.json", {"train_seconds": 1234.5})
    return workdir


class Page(HTMLParser):
    """What a browser would find."""

    def __init__(self, text):
        super().__init__()
        self.images, self.cells, self.open, self.text, self.links = [], [], [], "", []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.links += [attrs[name] for name in ("src", "href") if name in attrs]
        if tag == "img":
            self.images.append(attrs)
        if tag == "tr":
            self.cells.append([])
        if tag in ("td", "th"):
            self.cells[-1].append("")
        if tag not in ("img", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.cells[-1][-1] += data
        self.text += data


def test_the_page_is_whole_and_says_what_the_evaluation_says(two_members, capsys):
    argv = [str(two_members), "--shift", "blur", "--mc-dropout", "0"]
    assert evaluate.main(argv) == 0
    assert report.main([str(two_members)]) == 0
    assert "Predicting" not in capsys.readouterr().out.partition("All of it")[2]
    folder = two_members / "report"
    page = Page((folder / "index.html").read_text())
    assert all(link.startswith("data:image/png;base64,") for link in page.links)
    names = ["learning_curves", "by_size", "reliability", "risk_coverage", "confusion", "hardest"]
    names += ["filters", "feature_maps", "shifts"]
    assert [image["alt"] != "" for image in page.images] == [True] * len(names)
    for name, image in zip(names, page.images, strict=True):
        png = base64.b64decode(image["src"].partition(",")[2])
        assert png == (folder / f"{name}.png").read_bytes() and png.startswith(b"\x89PNG")
    assert "Report: two & <more>" in page.text
    results = json.loads((two_members / "evaluation.json").read_text())
    header, alone, mean, summed = page.cells
    assert "unfamiliar AUROC %" not in header  # nothing unfamiliar was given
    column = dict(zip(header, zip(alone, mean, summed, strict=True), strict=True))
    assert column["trained s"] == ("1,234",) * 3 and column["networks run"] == ("1", "2", "2")
    accuracies = [member["before"]["accuracy"] for member in results["members"]]
    rules = results["rules"]
    wanted = [np.mean(accuracies)] + [
        rules[rule]["before"]["accuracy"] for rule in ("mean_probability", "sum_logits")
    ]
    assert column["accuracy %"] == tuple(f"{100 * accuracy:.2f}" for accuracy in wanted)
    assert column["scaled ECE %"][1] == f"{100 * rules['mean_probability']['after']['ece']:.2f}"


def test_one_member_without_validation_or_history(tmp_path, digits, two_members, capsys):  # noqa: F811
    workdir = workdir_of(
        tmp_path / "one", Config(dataset="mnist", data_dir=str(digits), validation=0)
    )
    assert report.main([str(workdir), str(two_members), "--output", str(tmp_path / "out")]) == 0
    assert f"{workdir} has no evaluation of its last state yet." in capsys.readouterr().out
    assert (workdir / "predictions.npz").exists()
    page = Page((tmp_path / "out" / "index.html").read_text())
    assert len(page.cells) == 1 + 1 + 3 and page.cells[1][:3] == ["one", "simple", "alone"]
    pictures = {path.name for path in (tmp_path / "out").glob("0-*.png")}
    assert "0-reliability.png" in pictures
    assert not pictures & {"0-by_size.png", "0-learning_curves.png", "0-shifts.png"}
    assert f"python -m experiments.evaluate {workdir} --shift all" in page.text


def test_feature_maps_are_what_lax_computes(two_members):
    loaded = trained.load(two_members)
    image = trained.load_dataset(loaded).test.images[0]
    maps = report.feature_maps(loaded.members[0], image)
    assert list(maps) == ["input", "Conv_0", "MaxPool_0", "Conv_1", "MaxPool_1"]
    kernel = loaded.members[0].params["Conv_0"]["kernel"]
    convolved = lax.conv_general_dilated(
        image[None] / np.float32(255),
        kernel,
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )[0]
    np.testing.assert_allclose(maps["Conv_0"], convolved, atol=1e-5)
    pooled = np.asarray(convolved).reshape(14, 2, 14, 2, 32).max(axis=(1, 3))
    np.testing.assert_allclose(maps["MaxPool_0"], pooled, atol=1e-5)


def test_the_worst_come_first():
    logits = np.log([[[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]], [[0.7, 0.3], [0.6, 0.4], [0.9, 0.1]]])
    order, probabilities = plots.worst(logits, np.array([1, 1, 1]), most=2)
    np.testing.assert_allclose(probabilities[:, 1], [0.2, 0.6, 0.3])
    assert order.tolist() == [0, 2]


def test_a_mosaic_by_hand():
    tiles = np.arange(12.0).reshape(3, 2, 2)
    nan = np.nan
    wanted = [
        [0, 1, nan, 4, 5],
        [2, 3, nan, 6, 7],
        [nan] * 5,
        [8, 9, nan, nan, nan],
        [10, 11, nan, nan, nan],
    ]
    np.testing.assert_array_equal(plots.mosaic(tiles, 2), wanted)


def test_errors_are_below_their_class_and_beside_it():
    figure = plots.confusion([[5, 2], [0, 7]], ["a", "b"])
    texts = {text.get_text(): text.get_position() for text in figure.axes[0].texts}
    assert texts == {"5": (0, 0), "2": (1, 0), "7": (1, 1)}  # (predicted, true)
    colored = figure.axes[0].images[0].get_array()
    np.testing.assert_array_equal(colored, [[0, 2], [0, 0]])


@pytest.mark.parametrize(
    ("argv", "message", "hint"),
    [
        ([], "required: WORKDIR", "--help"),
        (["/nowhere"], "/nowhere is no workdir of experiments.run", "--help"),
        (["WORKDIR", "/nowhere"], "/nowhere is no workdir of experiments.run", "--help"),
        (["WORKDIR", "WORKDIR"], "is given twice", "--help"),
        (["WORKDIR", "--output", "/proc/report"], "/proc/report cannot be written", "--help"),
        (["WORKDIR", "--out", "x"], "--out is no flag", "--output"),
    ],
)
def test_a_mistake_is_two_lines_and_code_2(two_members, argv, message, hint, capsys):
    argv = [str(two_members) if word == "WORKDIR" else word for word in argv]
    with pytest.raises(SystemExit) as exit_:
        report.main(argv)
    error = capsys.readouterr().err
    assert exit_.value.code == 2 and len(error.splitlines()) == 2, error
    assert message in error.splitlines()[0] and hint in error.splitlines()[1]
