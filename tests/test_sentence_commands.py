"""`run`, `evaluate`, `predict`, `report` and `inspect` on sentences, and the estimator."""

import io
import json
import pickle
import sys

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError

from experiments import evaluate, inspect, predict, report, run
from experiments.console import cli
from mnist_jax import parallel
from mnist_jax.data import sentences
from mnist_jax.sentence_classifier import SentenceClassifier

from . import samples

SMALL = ["--network-options", "width=8,maps=6", "--batch-size", "10", "--epochs", "2"]
SMALL += ["--optimizer", "adam", "--learning-rate", "0.01"]


@pytest.fixture(scope="module", autouse=True)
def this_process():
    """Commands leave it as the tests need it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parallel, "use_cpu_cores", lambda *_: None)
        patch.setattr(cli, "use_compilation_cache", lambda: None)
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Sentences of which one word tells the class."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    others = ["the", "a", "film", "food", "place", "was", "is", "and", "very", "with", "of"]
    lines = []
    for _ in range(120):
        label = int(rng.integers(2))
        words = rng.choice(others, rng.integers(0, 7)).tolist()
        words.insert(int(rng.integers(len(words) + 1)), rng.choice(WORDS[label]))
        lines.append(f"{label} {' '.join(words)}\n")
    (folder / "mine.all").write_text("".join(lines))
    return folder / "mine.all"


WORDS = (["bad", "awful", "dull"], ["good", "great", "fine"])


def write_vectors(path, width=8):
    rng = np.random.default_rng(0)
    words = [word for group in WORDS for word in group]
    rows = "".join(f"{word} {' '.join(map(str, rng.normal(size=width)))}\n" for word in words)
    path.write_text(rows)
    return path


@pytest.fixture(scope="module")
def workdir(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "two"
    flags = ["--config", "sentence", "--data-dir", f"{data}", "--members", "2", *SMALL]
    assert run.main([*flags, "--epochs", "12", "--workdir", f"{folder}"]) == 0
    return folder


def test_a_run_learns_and_keeps_its_words(workdir, data):
    results = json.loads((workdir / "results.json").read_text())
    assert results["ensemble"]["test_accuracy"] > 0.8
    words = (workdir / "vocabulary.txt").read_text().split("\n")
    assert words[0] == "" and "great" in words
    assert json.loads((workdir / "dataset.json").read_text())["words"] == len(words) - 1


def test_a_run_goes_on_as_if_it_had_not_stopped(workdir, data, tmp_path, capsys):
    folder = tmp_path / "resumed"
    flags = ["--config", "sentence", "--data-dir", f"{data}", "--members", "2", *SMALL]
    assert run.main([*flags, "--epochs", "5", "--workdir", f"{folder}"]) == 0
    assert run.main(["--resume", f"{folder}", "--epochs", "12"]) == 0
    whole, parts = (
        [json.loads(line)["member_costs"] for line in (f / "metrics.jsonl").open()]
        for f in (workdir, folder)
    )
    assert whole == parts


def test_predictions(workdir, tmp_path, capsys, monkeypatch):
    file = tmp_path / "some.txt"
    file.write_text("1 a great film\n0 the food was awful\n1 fine\n")
    capsys.readouterr()
    asked = ["a good place", "zzz qqq", "good " * 500, f"{file}"]
    assert predict.main([f"{workdir}", "--json", *asked]) == 0
    printed, said = capsys.readouterr()
    rows = [json.loads(line) for line in printed.splitlines()]
    assert [row["class"] for row in rows[:1] + rows[3:]] == ["1", "1", "0", "1"]
    assert rows[1]["unknown"] == ["zzz", "qqq"] and rows[1]["unsure"]
    assert rows[3]["label"] == "1" and "Accuracy: 1.0000 (3 of 3 sentences)" in said
    assert "sentence 3 has 500 words, of which the first 400 are read" in said
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"great\n\nawful\n")))
    assert predict.main([f"{workdir}", "-", f"{tmp_path}/none.txt"]) == 1
    printed, said = capsys.readouterr()
    assert "2 sentences" in printed and "none.txt is no file" in said


def rows_of(workdir, capsys, *asked):
    capsys.readouterr()
    code = predict.main([f"{workdir}", "--json", *map(str, asked)])
    printed, said = capsys.readouterr()
    return code, [json.loads(line) for line in printed.splitlines()], said


def test_flags_may_stand_between_names(workdir, capsys):
    argvs = (["--json", workdir, "a"], [workdir, "--json", "a"], [workdir, "a", "--json"])
    for argv in argvs:
        capsys.readouterr()
        assert predict.main([*map(str, argv)]) == 0
        assert json.loads(capsys.readouterr().out)["sentence"] == "a"
    capsys.readouterr()
    assert predict.main([f"{workdir}", "good", "--json", "bad"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_tables_are_read_as_in_training(workdir, tmp_path, capsys):
    csv_, tsv = tmp_path / "a.csv", tmp_path / "b.tsv"
    csv_.write_text('\ufefflabel,sentence\n1,"a ""great"", great film"\n0,awful\n', "utf-8")
    tsv.write_text("id\tText\n7\tdull food\n8\tfine place\n")
    code, rows, said = rows_of(workdir, capsys, csv_, tsv)
    assert code == 0 and "2 of 2 sentences" in said
    texts = ['a "great", great film', "awful", "dull food", "fine place"]
    assert [row["sentence"] for row in rows] == texts
    assert [row.get("label") for row in rows] == ["1", "0", None, None]
    plain = tmp_path / "plain.csv"  # without a header it is lines
    plain.write_text("good, really\nbad, really\n")
    _, rows, _ = rows_of(workdir, capsys, plain)
    assert [row["sentence"] for row in rows] == ["good, really", "bad, really"]
    csv_.write_text("label,sentence\n1\n")
    code, rows, said = rows_of(workdir, capsys, csv_, "good")
    assert code == 1 and len(rows) == 1 and "line 2: has 1 cell" in said


def test_what_is_asked_and_cannot_be_read(workdir, tmp_path, capsys):
    (tmp_path / "latin.txt").write_bytes("good\ncaf\xe9\n".encode("latin-1"))
    long = "good film " * 60
    code, rows, said = rows_of(workdir, capsys, tmp_path / "latin.txt", tmp_path, " ", long)
    assert code == 1 and [row["sentence"] for row in rows] == [long]
    assert "latin.txt, line 2: no utf-8" in said and "--encoding" not in said
    assert f"{tmp_path} is a folder" in said and "' ' is no sentence" in said
    assert len(said.splitlines()) == 3


def test_evaluation_and_report(workdir, capsys):
    assert evaluate.main([f"{workdir}"]) == 0
    assert "24 test sentences" in capsys.readouterr().out
    refused = fails(lambda: evaluate.main([f"{workdir}", "--shift", "all"]), capsys)
    assert "--shift is for images" in refused
    assert report.main([f"{workdir}"]) == 0
    page = (workdir / "report" / "index.html").read_text()
    assert "test sentences that the ensemble gets wrong" in page or "least sure of" in page
    assert '<span style="background: #' in page and "Harder images" not in page


def test_folds_of_sentences(data, tmp_path, capsys):
    folder = tmp_path / "folds"
    flags = ["--config", "sentence", "--data-dir", f"{data}", "--folds", "3", "--repeats", "2"]
    assert run.main([*flags, *SMALL, "--epochs", "3", "--workdir", f"{folder}"]) == 0
    found = json.loads((folder / "results.json").read_text())["cross_validation"]["single"]
    history = [json.loads(line) for line in (folder / "metrics.jsonl").open()]
    assert len(found["each"]) == 6 and len(found["repeats"]) == 2
    for i, row in enumerate(found["each"]):
        epochs = [record["members"][i] for record in history]
        best = max(
            range(3), key=lambda e: (epochs[e]["validation_accuracy"], -epochs[e]["validation_nll"])
        )
        assert row["epoch"] == best + 1
        assert row["test_accuracy"] == epochs[best]["test_accuracy"]
    accuracies = [row["test_accuracy"] for row in found["each"]]
    assert found["mean"] == pytest.approx(np.mean(accuracies), abs=1e-5)
    assert found["deviation"] == pytest.approx(np.std(accuracies, ddof=1), abs=1e-5)
    capsys.readouterr()
    assert "is cross-validated" in fails(lambda: evaluate.main([f"{folder}"]), capsys)
    assert predict.main([f"{folder}", "a good film"]) == 0


def test_folds_of_images(tmp_path, capsys):
    folder, workdir = (
        samples.write_idx(tmp_path / "d", "{split}-{kind}-idx{n}-ubyte"),
        tmp_path / "w",
    )
    flags = ["--config", "simple", "--data-dir", f"{folder}", "--folds", "2", "--members", "2"]
    assert run.main([*flags, "--epochs", "1", "--batch-size", "20", "--workdir", f"{workdir}"]) == 0
    found = json.loads((workdir / "results.json").read_text())["cross_validation"]
    assert len(found["single"]["each"]) == 4 and len(found["ensemble"]["each"]) == 2
    assert "ensemble, all folds" in capsys.readouterr().out


def fails(function, capsys):
    """What stderr says where a command ends with exit code 2, an error and a hint."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        function()
    said = capsys.readouterr().err.splitlines()
    lines = [line for line in said if not line.startswith("warning: ")]
    assert end.value.code == 2 and len(lines) == 2 and lines[0].startswith("error: ")
    return said[-2]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--variant", "static"], "--variant static needs --vectors"),
        (["--vectors", "x"], "--vectors are of no use to variant rand"),
        (["--augment", "shift"], "--augment shift is not for networks of sentences"),
        (["--dataset", "mnist"], "--dataset mnist has no sentences"),
        (["--network", "deep", "--dataset", "trec"], "--dataset trec has no images"),
        (["--network", "deep", "--encoding", "cp1252"], "--encoding is for networks of sentences"),
        (["--encoding", "klingon"], "encoding 'klingon' is none"),
        (["--repeats", "3"], "--repeats 3 needs --folds"),
        (["--folds", "500"], "folds must be from 2 to the 120"),
        (["--folds", "3", "--validation", "5"], "--validation cannot be chosen with --folds"),
        (["--members", "sentence:1,deep:1"], "--members must all read sentences"),
        (["--variant", "static", "--vectors", "none.bin"], "none.bin is no file of word vectors"),
        (["--variant", "static", "--vectors", "WIDE"], "vectors are 9 numbers wide"),
    ],
)
def test_wrong_flags(data, tmp_path, capsys, flags, message):
    wide = write_vectors(tmp_path / "wide.txt", 9)
    flags = [f"{wide}" if flag == "WIDE" else flag for flag in flags]
    place = [] if "--dataset" in flags else ["--data-dir", f"{data}"]
    options = SMALL if "deep" not in flags else []
    command = ["--config", "sentence", *place, *options, *flags, "--workdir", f"{tmp_path}/new"]
    assert message in fails(lambda: run.main(command), capsys)
    assert not (tmp_path / "new").exists()


def test_a_network_word_by_word(capsys):
    assert inspect.main(["--network", "sentence", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["parameters"] - 18_766 * 300 == 360_902
    # Of windows of 3, 4 and 5 there are 62, 61 and 60 places in 64 tokens.
    windows = 100 * 300 * (3 * 62 + 4 * 61 + 5 * 60)
    assert found["multiply_adds"] == windows + 600


def test_the_estimator(data, tmp_path):
    dataset = sentences.load(data_dir=data)
    texts = [" ".join(sentences.words_of(t, dataset.vocabulary)) for t in dataset.train.inputs]
    labels = np.array(["no", "yes"])[dataset.train.labels]
    options = {"epochs": 12, "batch_size": 10, "members": 2}
    made = SentenceClassifier("static", write_vectors(tmp_path / "v.txt"), **options)
    made.fit(texts, labels)
    assert made.score(texts, labels) > 0.9 and made.params_["fixed"]["vectors"].shape[2] == 8
    proba = made.predict_proba(["good", "awful", "zzz"])
    np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=1e-5)
    assert made.predict(["good", "awful"]).tolist() == ["yes", "no"]
    again = pickle.loads(pickle.dumps(made))
    np.testing.assert_array_equal(again.predict_proba(["good", "awful", "zzz"]), proba)
    with pytest.raises(TypeError, match="not one string"):
        made.predict("good")
    with pytest.raises(TypeError, match="not int as at 1"):
        made.fit(["good", 3], [0, 1])
    with pytest.raises(ValueError, match="none of these has any"):
        SentenceClassifier().fit(["...", "--"], [0, 1])
    with pytest.raises(ValueError, match="'static' needs vectors"):
        SentenceClassifier("static").fit(texts, labels)


TEXTS, LABELS = ["a good film", "a bad film", "great", "awful"], ["yes", "no", "yes", "no"]


@pytest.mark.parametrize(
    ("texts", "error", "message"),
    [
        (None, TypeError, "not NoneType"),
        (5, TypeError, "not int"),
        (b"a b", TypeError, "not bytes"),
        ({"a": 1}, TypeError, "not dict"),
        (np.array("a"), ValueError, r"must be \[n\], not \(\)"),
        (np.array([["a"], ["b"]]), ValueError, r"must be \[n\], not \(2, 1\)"),
        (["a", float("nan")], TypeError, "not float as at 1"),
        (["a", None], TypeError, "not NoneType as at 1"),
        ([], ValueError, "at least 1 sentence"),
    ],
)
def test_what_are_no_sentences(texts, error, message):
    with pytest.raises(error, match=message):
        SentenceClassifier().fit(texts, LABELS)


def test_a_frame_is_no_list_of_its_columns():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"text": TEXTS, "label": LABELS})
    with pytest.raises(TypeError, match="one column of the frame"):
        SentenceClassifier().fit(frame[["text"]], ["yes"])
    made = SentenceClassifier(epochs=1, width=4).fit(frame["text"], frame["label"])
    assert made.classes_.tolist() == ["no", "yes"]
    with pytest.raises(TypeError, match="one column of the frame"):
        made.predict(frame)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"members": 1.5}, "members must be a whole number of at least 1, not 1.5"),
        ({"batch_size": "a"}, "batch_size must be a whole number of at least 1, not 'a'"),
        ({"seed": 2**32}, "seed . members must be at most"),
        ({"learning_rate": "x"}, "learning_rate must be a number, not 'x'"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        SentenceClassifier(**options).fit(TEXTS, LABELS)


def test_predictions_go_by_what_was_fitted():
    with pytest.raises(NotFittedError):
        SentenceClassifier().predict(TEXTS)
    with pytest.raises(ValueError, match="one a sentence"):
        SentenceClassifier().fit(TEXTS, LABELS[:3])
    whole = {"members": np.int64(2), "epochs": np.int64(3)}
    made = SentenceClassifier(width=4, optimizer="adam", learning_rate=0.1, **whole)
    proba = made.fit(TEXTS, LABELS).predict_proba(["A Good Film", "great"])
    one_by_one = [made.predict_proba([text])[0] for text in ("A Good Film", "great")]
    np.testing.assert_allclose(one_by_one, proba, atol=1e-6)
    made.set_params(cased=True, members=5, variant="static")
    np.testing.assert_array_equal(made.predict_proba(["A Good Film", "great"]), proba)
