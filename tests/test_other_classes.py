"""Runs on data of other than ten classes: what the commands after `run` know of them."""

import json

import numpy as np
import pytest
from etils import epath

from experiments import evaluate, run
from experiments.console import cli
from experiments.workdir import records, trained
from experiments.workdir.config import Config
from mnist_jax import data, parallel
from tests.samples import digits, write_pictures

LETTERS = np.array([*"ABCDEFGHIJKL"])


@pytest.fixture(autouse=True, scope="module")
def this_process():
    """The tests have started JAX already, and have a cache of compiled programs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parallel, "use_cpu_cores", lambda *_: None)
        patch.setattr(cli, "use_compilation_cache", lambda: None)
        yield


@pytest.fixture(scope="module")
def letters(tmp_path_factory):
    """Pictures of twelve classes, a folder each."""
    images, labels = digits(240)
    more = np.where(np.arange(240) % 3 == 0, labels, labels // 5 + 10)
    return write_pictures(tmp_path_factory.mktemp("data") / "letters", images, LETTERS[more])


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, letters):
    workdir = tmp_path_factory.mktemp("runs") / "letters"
    flags = ["--data-dir", str(letters), "--epochs", "1", "--batch-size", "48"]
    assert run.main(["--config", "simple", "--workdir", str(workdir), *flags]) == 0
    return workdir


def test_the_classes_of_the_data_are_those_of_the_run(workdir, letters):
    written = json.loads((workdir / "dataset.json").read_text())
    assert written["class_names"] == LETTERS.tolist() and written["characters"]
    assert written["name"] == "letters" and str(letters) in written["source"]
    loaded = trained.load(workdir)
    assert loaded.class_names == tuple(LETTERS) and loaded.characters
    test = trained.load_dataset(loaded).test
    assert loaded.predict(test.inputs[:3]).shape == (1, 3, 12)


def test_evaluation_and_going_on(workdir, letters, capsys):
    assert evaluate.main([str(workdir), "--unfamiliar", str(letters)]) == 0
    results = json.loads((workdir / "evaluation.json").read_text())
    assert results["unfamiliar"]["size"] == 240 and results["test_size"] == 48
    assert run.main(["--resume", str(workdir), "--epochs", "2"]) == 0
    capsys.readouterr()
    with pytest.raises(SystemExit):
        evaluate.main([str(workdir), "--dataset", "mnist5k"])
    error = capsys.readouterr().err
    assert "mnist5k has images of 0, 1" in error and "not among the classes A, B" in error


def test_handwriting_is_of_digits_alone(letters, tmp_path, capsys):
    flags = ["--config", "handwriting", "--data-dir", str(letters), "--batch-size", "48"]
    with pytest.raises(SystemExit, match="2"):
        run.main([*flags, "--workdir", str(tmp_path / "run")])
    assert "--augment handwriting is for the digits 0 to 9" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_some_of_the_classes_are_enough_to_evaluate(workdir, tmp_path):
    images, labels = digits(60, skip=300)
    some = write_pictures(tmp_path, images, LETTERS[labels // 5 * 7])  # A and H
    assert evaluate.main([str(workdir), "--data-dir", str(some)]) == 0
    dataset = data.load("auto", some, class_names=trained.load(workdir).class_names)
    assert set(dataset.test.labels) == {0, 7}


def test_a_run_from_before_is_known_by_its_name(tmp_path):
    folder = epath.Path(tmp_path)
    for name, characters in (("auto", True), ("fashion_mnist", False), ("mnist5k", True)):
        trained_on = records.read_dataset(folder, Config(dataset=name))
        assert len(trained_on.class_names) == 10 and trained_on.characters is characters
    assert trained_on.class_names == tuple("0123456789")
    (folder / "dataset.json").write_text('{"class_names": 7}')
    with pytest.raises(ValueError, match=r"dataset\.json is damaged"):
        records.read_dataset(folder, Config())
