"""`python -m experiments.report`, as a user meets it."""

import base64
import dataclasses
import io
import json
import re
import shutil
from html.parser import HTMLParser

import jax
import numpy as np
import pytest
from PIL import Image

from experiments import evaluate, report
from experiments.console import cli
from experiments.show import page, plots, reporter
from experiments.workdir import evaluator, records, trained
from experiments.workdir.config import Config
from mnist_jax import data, parallel
from tests.test_data import FILES, idx, write_digits
from tests.test_evaluate import workdir_of

_VOID = {"meta", "img", "br", "source"}
_NAME = 'two <b>&"members'


@pytest.fixture(autouse=True, scope="module")
def this_process():
    """The tests have started JAX already, and keep no cache of compiled programs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parallel, "use_cpu_cores", lambda: None)
        patch.setattr(cli, "use_compilation_cache", lambda: None)
        yield


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A folder of IDX files: 100 training and 60 test digits of the embedded subset."""
    return write_digits(tmp_path_factory.mktemp("digits"), 100, 60)


class Page(HTMLParser):
    """Reads a page, and fails where it is not well-formed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.text, self.images, self.addresses = [], "", [], []
        self.cells, self.rows, self.tags, self.places = None, [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append(tag)
        self.addresses += [attrs[name] for name in ("src", "href", "srcset") if name in attrs]
        self.places += [attrs["id"]] if "id" in attrs else []
        if tag not in _VOID:
            self.open.append(tag)
        if tag == "img":
            self.images.append(attrs)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        if "style" in self.open:
            self.addresses += [text] if "url(" in text or "@import" in text else []
            return
        self.text += text
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += text


@pytest.fixture(scope="module")
def two_members(tmp_path_factory, digits):
    """An evaluated ensemble with a history, and the page of it with the folder's name."""
    config = Config(members=2, seed=5, dataset="mnist", data_dir=str(digits), validation=40)
    workdir = workdir_of(tmp_path_factory.mktemp("runs") / _NAME, config)
    score = {"validation_accuracy": 0.5, "validation_nll": 1.5}
    epoch = {"cost": 2.5, "member_costs": [2.0, 3.0], "members": [score, score], "ensemble": score}
    records.write_json_lines(workdir / "metrics.jsonl", [{"epoch": i, **epoch} for i in (1, 2)])
    records.write_json(workdir / "results.json", {"epochs": 2.0, "train_seconds": 1234.5})
    assert evaluate.main([str(workdir), "--shift", "blur", "--unfamiliar", str(digits)]) == 0
    # What --mc-dropout would write, had this network dropout.
    results = json.loads((workdir / "evaluation.json").read_text())
    results["mc_dropout"] = {"passes": 8} | results["members"][1]
    records.write_json(workdir / "evaluation.json", results)
    assert report.main([str(workdir)]) == 0
    return workdir


@pytest.fixture(scope="module")
def shown(two_members):
    return Page((two_members / "report" / "index.html").read_text())


def test_the_page_needs_nothing_else(two_members, shown):
    pictures = {path.read_bytes(): path.stem for path in (two_members / "report").glob("*.png")}
    embedded = []
    for image in shown.images:
        assert len(image["alt"]) > 20
        head, _, content = image["src"].partition(",")
        assert head == "data:image/png;base64"
        embedded.append(pictures[base64.b64decode(content)])
    assert sorted(embedded) == sorted(pictures.values())
    assert set(embedded) == {
        *("cost", "validation_accuracy", "validation_nll", "size_accuracy", "size_nll"),
        *("reliability", "risk_coverage", "confusion", "wrong", "least_sure"),
        *("filters_simple", "features_simple", "shift_accuracy", "shift_ece"),
    }
    assert all(address.startswith(("data:", "#")) for address in shown.addresses)
    assert not {"script", "link", "iframe", "b"} & set(shown.tags)
    for path in (two_members / "report").glob("*.png"):
        with Image.open(path) as image:
            image.verify()
            assert image.width >= 600


def test_a_name_is_text(shown):
    assert shown.rows[1][0] == _NAME and f"Report: {_NAME}" in shown.text
    heading = page.heading(_NAME, 2, "run-1")
    assert heading == '<h2 id="run-1">two &lt;b&gt;&amp;&quot;members</h2>'


def test_the_list_of_contents_leads_to_every_heading(shown):
    links = [address[1:] for address in shown.addresses if address.startswith("#")]
    assert links == shown.places and len(set(links)) == len(links)
    assert shown.tags.count("h2") + shown.tags.count("h3") == len(links) == 8


def test_wide_pictures_have_a_narrow_one(two_members, shown):
    text = (two_members / "report" / "index.html").read_text()
    pairs = re.findall(r'srcset="data:image/png;base64,(.*?)"><img src="[^,]*,(.*?)"', text)
    sizes = [[Image.open(io.BytesIO(base64.b64decode(x))).width for x in pair] for pair in pairs]
    # wrong, least sure, features: half as wide; of the one shift there is nothing to stack
    assert sizes == [[640, 1280]] * 3


def test_the_table_has_the_evaluation_s_numbers(two_members, shown):
    results = json.loads((two_members / "evaluation.json").read_text())
    head, row, dropping = shown.rows[:3]
    assert len(head) == len(row) == len(dropping)
    accuracies = [member["before"]["accuracy"] for member in results["members"]]
    rules = results["rules"]
    mean = rules["mean_probability"]

    def quality(row):
        ece = f"{100 * row['before']['ece']:.2f} → {100 * row['after']['ece']:.2f}"
        return [f"{row['before']['nll']:.4f}", ece, f"{100 * row['before']['aurc']:.3f}"]

    assert row[1:] == [
        *("2 x simple", "2", f"{50 * sum(accuracies):.2f}"),
        f"{100 * mean['before']['accuracy']:.2f}",
        f"{100 * rules['sum_logits']['before']['accuracy']:.2f}",
        *(*quality(mean), "1,234"),
    ]
    member = results["members"][1]
    assert dropping[1] == "8 passes each, dropout on"
    assert dropping[4] == f"{100 * member['before']['accuracy']:.2f}"
    assert dropping[6:9] == quality(member)
    unfamiliar = results["unfamiliar"]["ensemble"]["mutual_information"]
    areas = f"{100 * unfamiliar['auroc']:.2f} / {100 * unfamiliar['aupr']:.2f}"
    assert shown.rows[-1] == ["ensemble", *shown.rows[-1][1:3], areas]


def test_the_wrong_digits(two_members, shown):
    loaded = trained.load(two_members)
    images, labels = trained.load_dataset(loaded).test
    logits = loaded.predict(images)
    odds = np.exp(logits - logits.max(axis=2, keepdims=True))
    mean = (odds / odds.sum(axis=2, keepdims=True)).mean(axis=0)
    answers, votes = mean.argmax(axis=1), logits.argmax(axis=2)
    wrong = [i for i in np.argsort(-mean.max(axis=1), kind="stable") if answers[i] != labels[i]]
    assert len(wrong) > reporter.MOST_WRONG  # the weights are random
    (alt,) = [image["alt"] for image in shown.images if "gets wrong" in image["alt"]]
    title, _, rest = alt.removesuffix(".").partition(": ")
    assert title.startswith(f"The {len(wrong)} test images that the ensemble gets wrong")
    told = rest.split("; ")
    assert len(told) == reporter.MOST_WRONG
    for text, i in zip(told, wrong, strict=False):
        said = f"said {answers[i]} ({100 * mean[i].max():.1f} %)"
        assert text == f"no. {i} is {labels[i]}, {said}, {votes[0, i]} {votes[1, i]}"


def test_one_member_that_was_stopped_before_the_end_of_an_epoch(
    tmp_path, digits, capsys, monkeypatch
):
    monkeypatch.setattr(plots, "to_png", lambda figure: b"")  # the other tests draw
    config = Config(dataset="mnist", data_dir=str(digits), validation=0, ema=0.9)
    workdir = workdir_of(tmp_path / "one", config)
    (workdir / "metrics.jsonl").write_text("")
    output = tmp_path / "made" / "here" / "page.html"
    assert report.main([str(workdir), "--output", str(output)]) == 0
    assert "one: not evaluated yet" in capsys.readouterr().out
    assert (workdir / "evaluation.json").exists() and not (workdir / "report").exists()
    page_ = Page(output.read_text())
    (row,) = page_.rows[1:]
    assert row[1:3] == ["1 x simple, averaged weights (0.9)", "0"] and row[4:6] == ["–", "–"]  # noqa: RUF001
    assert "→" not in row[7] and row[9] == "–"  # noqa: RUF001
    assert {path.stem for path in output.parent.glob("*.png")} == {
        f"page-{name}"
        for name in (
            *("reliability", "risk_coverage", "confusion", "wrong", "least_sure"),
            *("filters_simple", "features_simple"),
        )
    }
    assert f"experiments.evaluate {workdir} --shift all" in page_.text
    assert "ensemble" not in page_.text and "nan" not in page_.text.lower()


def test_a_mixed_ensemble_next_to_a_run_of_the_same_name(
    tmp_path, two_members, digits, monkeypatch
):
    monkeypatch.setattr(plots, "to_png", lambda figure: b"")  # the other tests draw
    config = Config(members="simple:1,fast:1", dataset="mnist", data_dir=str(digits), validation=40)
    other = workdir_of(tmp_path / _NAME, config)
    assert report.main([str(other), str(two_members)]) == 0
    page_ = Page((other / "report" / "index.html").read_text())
    assert [row[0] for row in page_.rows[1:3]] == [str(other), str(two_members)]
    assert page_.rows[1][1] == "1 x simple + 1 x fast"
    assert (
        "different" not in page_.text
        and f"60 images of mnist (IDX files in {digits})" in page_.text
    )
    names = {path.name for path in (other / "report").glob("*.png")}
    assert {"1-features_simple.png", "1-features_fast.png", "2-features_simple.png"} <= names


def test_runs_on_different_data_are_apart(tmp_path, two_members, digits, monkeypatch):
    """And have one plot of their curves for those that can be compared, in the runs' colours."""
    drawn = []
    monkeypatch.setattr(plots, "to_png", lambda figure: drawn.append(figure) or b"")
    (tmp_path / "letters").mkdir()
    letters = write_digits(tmp_path / "letters", 100, 50)
    config = dataclasses.replace(records.read_config(two_members), data_dir=str(letters))
    other = workdir_of(tmp_path / "other", config)
    again = shutil.copytree(two_members, tmp_path / "again")
    for folder in (other, again):
        (folder / "metrics.jsonl").write_text((two_members / "metrics.jsonl").read_text())
    output = tmp_path / "page.html"
    runs = [str(two_members), str(other), str(again), "--output", str(output)]
    assert report.main(runs) == 0
    page_ = Page(output.read_text())
    assert "tested on different data" in page_.text
    heads = [i for i, row in enumerate(page_.rows) if row[0] == "run"]
    first, second = page_.rows[heads[0] : heads[1]], page_.rows[heads[1] : heads[1] + 2]
    assert list(dict.fromkeys(row[0] for row in first[1:])) == [_NAME, "again"]
    assert second[1][0] == "other"
    for folder, count in ((digits, 60), (letters, 50)):
        assert f"Tested on {count} images of mnist (IDX files in {folder})" in page_.text
    together = [figure for figure in drawn if len(figure.axes[0].lines) == 2][:3]
    titles = ["Training cost", "Validation accuracy", "Validation NLL"]
    assert [figure.axes[0].get_title("left") for figure in together] == titles
    for figure in together:
        assert [line.get_label() for line in figure.axes[0].lines] == [_NAME, "again"]
        assert [line.get_color() for line in figure.axes[0].lines] == list(plots.RUN_COLORS[:2])
    names = {path.name for path in tmp_path.glob("*.png")}
    assert {"page-all-1-cost.png", "page-all-1-validation_nll.png", "page-3-wrong.png"} <= names
    assert "page-all-2-cost.png" not in names


def test_an_evaluation_of_other_images_is_not_taken(tmp_path, two_members, digits, capsys):
    backwards = data.load_test(digits)
    (tmp_path / FILES[2]).write_bytes(idx(backwards.inputs[::-1, ..., 0]))
    (tmp_path / FILES[3]).write_bytes(idx(backwards.labels[::-1]))
    for name in FILES[:2]:
        (tmp_path / name).write_bytes((digits / name).read_bytes())
    loaded = trained.load(two_members)
    here = dataclasses.replace(loaded.config, data_dir=str(tmp_path))
    dataset = trained.load_dataset(dataclasses.replace(loaded, config=here))
    run = reporter.read("two", loaded, dataset)
    assert "of other images" in capsys.readouterr().out
    accuracy = (run.evaluation.logits["test"].argmax(axis=2) == dataset.test.labels).mean(axis=1)
    said = [member["before"]["accuracy"] for member in run.evaluation.results["members"]]
    np.testing.assert_allclose(said, accuracy, atol=1e-6)
    assert evaluator.read(loaded).results["test_size"] == 60  # and the one that is there stays


def test_members_that_are_nan(tmp_path, digits, capsys, monkeypatch):
    workdir = workdir_of(tmp_path / "nan", Config(dataset="mnist", data_dir=str(digits)))
    load = trained.load

    def load_nan(folder):
        loaded = load(folder)
        (member,) = loaded.members
        variables = jax.tree.map(lambda leaf: np.full_like(leaf, np.nan), member.variables)
        return dataclasses.replace(
            loaded, members=[dataclasses.replace(member, variables=variables)]
        )

    monkeypatch.setattr(trained, "load", load_nan)
    with pytest.raises(SystemExit, match="2"):
        report.main([str(workdir)])
    error = capsys.readouterr().err
    assert "member simple 0 are not finite" in error and len(error.splitlines()) == 2
    assert not (workdir / "report").exists()


@pytest.mark.parametrize(
    ("argv", "message", "hint"),
    [
        (["/nowhere"], "/nowhere is no workdir of experiments.run", "--help"),
        (["WORKDIR", "WORKDIR/../DATA"], "is no workdir of experiments.run", "--help"),
        (["WORKDIR", "WORKDIR/."], "is given twice", "once"),
        (["WORKDIR", "--output", "WORKDIR"], "is a folder", "HTML file"),
        (["WORKDIR", "--output", "WORKDIR/new/"], "new/ is a folder", "new/index.html"),
        (["WORKDIR", "--output", "WORKDIR/page"], "does not end in .html", "/page.html?"),
        (["WORKDIR", "--output", "WORKDIR/page.pdf"], "does not end in .html", "/page.pdf.html?"),
        (["WORKDIR", "--output", ""], "is a folder", "HTML file"),
        (["WORKDIR", "--output", "WORKDIR/config.json/page.html"], "cannot be made", "--help"),
        (["WORKDIR", "--out", "x"], "--out is no flag", "--output"),
    ],
)
def test_a_mistake_is_two_lines_and_code_2(two_members, argv, message, hint, capsys, monkeypatch):
    def read(*_):
        raise AssertionError("the work was begun")

    monkeypatch.setattr(reporter, "read", read)
    argv = [word.replace("WORKDIR", str(two_members)) for word in argv]
    with pytest.raises(SystemExit) as exit_:
        report.main(argv)
    error = capsys.readouterr().err
    assert exit_.value.code == 2 and len(error.splitlines()) == 2, error
    assert message in error.splitlines()[0] and hint in error.splitlines()[1]
    assert not (two_members / "new").exists()
