"""`python -m experiments.evaluate`, as a user meets it."""

import dataclasses
import errno
import json
import shutil

import jax
import numpy as np
import pytest

from experiments import evaluate
from experiments.console import cli
from experiments.workdir import evaluator, records, stacks, trained
from experiments.workdir.config import Config
from experiments.workdir.records import TrainedOn
from mnist_jax import data, parallel, shifts
from mnist_jax.checkpoints import Checkpoints
from tests.test_data import FILES, idx, write_digits


@pytest.fixture(autouse=True)
def this_process(monkeypatch):
    """The tests have started JAX already, and keep no cache of compiled programs."""
    monkeypatch.setattr(parallel, "use_cpu_cores", lambda: None)
    monkeypatch.setattr(cli, "use_compilation_cache", lambda: None)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A folder of IDX files: 100 training and 60 test digits of the embedded subset."""
    return write_digits(tmp_path_factory.mktemp("digits"), 100, 60)


@pytest.fixture(scope="module")
def clothes(tmp_path_factory):
    """Only a test split, of noise."""
    folder = tmp_path_factory.mktemp("clothes")
    noise = np.random.default_rng(0).integers(0, 256, (30, 28, 28))
    (folder / FILES[2]).write_bytes(idx(noise))
    (folder / FILES[3]).write_bytes(idx(np.zeros(30)))
    return folder


def workdir_of(folder, config, details=(), seed=0, about=None, draw=None):
    """What `run` leaves, without its training: of images as MNIST's, or `about` others."""
    optimizer = stacks.make_optimizer(config, total_steps=1)
    draw = draw or (lambda rng, shape: rng.normal(0, 0.1, shape))
    given = about or TrainedOn(config.class_names, characters=True)
    like = stacks.shapes(stacks.create(config, None, given), optimizer, given)
    rng = np.random.default_rng(seed)
    with Checkpoints(folder / "checkpoints") as checkpoints:
        state = jax.tree.map(lambda x: _cast(draw(rng, x.shape), x.dtype), like)
        checkpoints.save(0, state, dict(details))
    records.write_json(folder / "config.json", dataclasses.asdict(config))
    if about is not None:
        records.write_dataset(folder, "mine", "drawn", about)
    return folder


def _cast(values, dtype):
    return np.nan_to_num(values).astype(dtype) if dtype != np.float32 else values.astype(dtype)


@pytest.fixture(scope="module")
def two_members(tmp_path_factory, digits):
    config = Config(members=2, seed=5, dataset="mnist", data_dir=str(digits), validation=40)
    return workdir_of(tmp_path_factory.mktemp("two"), config)


def test_everything(two_members, clothes, capsys):
    assert evaluate.main([str(two_members), "--shift", "blur", "--unfamiliar", str(clothes)]) == 0
    output = capsys.readouterr().out
    results = json.loads((two_members / "evaluation.json").read_text())
    assert results["test_size"] == 60 and results["validation_size"] == 40
    assert [(m["network"], m["seed"]) for m in results["members"]] == [("simple", 5), ("simple", 6)]
    assert [row["size"] for row in results["sizes"]] == [1, 2]
    assert results["unfamiliar"]["size"] == 30 and results["unfamiliar"]["share"] == 0.333333
    blur = results["shifts"]["blur"]
    assert [row["amount"] for row in blur] == list(shifts.AMOUNTS["blur"])
    assert blur[0]["rules"] == results["rules"] and blur[5]["rules"] != results["rules"]
    for words in ("simple 5", "majority vote", "±", "told apart by", "blur (pixels", "→"):
        assert words in output
    accuracy = results["rules"]["mean_probability"]["before"]["accuracy"]
    assert f" {100 * accuracy:.2f} " in output and "\x1b" not in output
    assert str(two_members / "evaluation.json") in output
    loaded = trained.load(two_members)
    saved = evaluator.read(loaded)
    assert saved.results == results and saved.logits["validation"].shape == (2, 40, 10)
    images = trained.load_dataset(loaded).test.inputs
    np.testing.assert_array_equal(saved.logits["test"], loaded.predict(images))
    assert evaluator.read(dataclasses.replace(loaded, step=1)) is None  # trained on since then


def test_one_member_without_validation_images(tmp_path, digits, clothes, capsys):
    workdir = workdir_of(tmp_path, Config(dataset="mnist", data_dir=str(digits), validation=0))
    assert evaluate.main([str(workdir), "--unfamiliar", str(clothes)]) == 0
    output = capsys.readouterr().out
    results = json.loads((workdir / "evaluation.json").read_text())
    (member,) = results["members"]
    assert member["after"] is None and member["temperature"] is None and results["shifts"] == {}
    assert results["rules"]["sum_logits"]["before"] == member["before"]
    assert results["curves"]["sum_logits"]["after"] is None
    assert results["diversity"]["disagreement"] is None
    assert set(results["unfamiliar"]["ensemble"]) == {"error_probability", "entropy"}
    assert [row["size"] for row in results["sizes"]] == [1]
    assert "±" not in output and "→" not in output and "None" not in output


def found(workdir):
    return json.loads((workdir / "evaluation.json").read_text())


def test_what_was_found_before_stays_while_it_is_true(tmp_path, digits, clothes, monkeypatch):
    config = Config(dataset="mnist", data_dir=str(digits), validation=40)
    workdir = workdir_of(tmp_path / "run", config)
    assert evaluate.main([str(workdir), "--shift", "blur"]) == 0
    blur = found(workdir)["shifts"]["blur"]
    assert evaluate.main([str(workdir), "--unfamiliar", str(clothes)]) == 0
    results = found(workdir)
    assert results["shifts"] == {"blur": blur} and results["unfamiliar"]["size"] == 30
    monkeypatch.setattr(
        evaluator, "_load_dataset", lambda *_: data.load("mnist", digits, validation=30)
    )
    assert evaluate.main([str(workdir)]) == 0  # other images
    results = found(workdir)
    assert results["shifts"] == {} and results["unfamiliar"] is None


def test_what_was_found_of_other_weights_goes(tmp_path, digits):
    config = Config(dataset="mnist", data_dir=str(digits), validation=40)
    workdir = workdir_of(tmp_path, config)
    assert evaluate.main([str(workdir), "--shift", "blur"]) == 0
    shutil.rmtree(workdir / "checkpoints")
    workdir_of(tmp_path, config, seed=1)  # at the same step
    assert evaluator.read(trained.load(workdir)) is None
    assert evaluate.main([str(workdir)]) == 0
    assert found(workdir)["shifts"] == {}


def test_an_interrupt_keeps_the_parts_that_are_done(tmp_path, digits, capsys, monkeypatch):
    config = Config(dataset="mnist", data_dir=str(digits), validation=40)
    workdir = workdir_of(tmp_path, config)
    apply = shifts.apply

    def interrupted(name, *rest):
        if name == "blur":
            raise KeyboardInterrupt
        return apply(name, *rest)

    monkeypatch.setattr(shifts, "apply", interrupted)  # "all" begins with rotation, then blur
    assert evaluate.main([str(workdir), "--shift", "all"]) == cli.INTERRUPTED
    assert "what was found is in evaluation.json" in capsys.readouterr().err
    assert list(found(workdir)["shifts"]) == ["rotation"]
    assert evaluator.read(trained.load(workdir)).logits["test"].shape == (1, 60, 10)


def test_a_full_disk_does_not_hide_the_tables(tmp_path, digits, capsys, monkeypatch):
    config = Config(dataset="mnist", data_dir=str(digits), validation=40)
    workdir = workdir_of(tmp_path, config)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(records, "_write", full)
    assert evaluate.main([str(workdir)]) == cli.FAILED
    captured = capsys.readouterr()
    assert "accuracy" in captured.out and len(captured.err.splitlines()) == 2
    assert "No space left" in captured.err


def test_another_data_set_has_its_own_validation_images(two_members, digits, capsys):
    for name, validation in (("qmnist", 10), ("mnist", 40)):  # a tenth of 100; as in training
        flags = ["--dataset", name, "--data-dir", str(digits)]
        assert evaluate.main([str(two_members), *flags]) == 0
        results = json.loads((two_members / "evaluation.json").read_text())
        assert results["validation_size"] == validation
    capsys.readouterr()
    with pytest.raises(SystemExit):
        evaluate.main([str(two_members), "--dataset", "fashion_mnist", "--data-dir", str(digits)])
    error = capsys.readouterr().err
    assert "images of T-shirt/top" in error and "not among the classes 0, 1, 2" in error


def test_data_that_are_not_those_trained_on(tmp_path, digits, capsys):
    config = Config(dataset="mnist", data_dir=str(digits), validation=40)
    right = {"fingerprint": data.fingerprint(data.load("mnist", digits, validation=40))}
    assert evaluate.main([str(workdir_of(tmp_path / "right", config, right))]) == 0
    wrong = {"fingerprint": data.fingerprint(data.load("mnist5k"))}
    workdir = str(workdir_of(tmp_path / "wrong", config, wrong))
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_:
        evaluate.main([workdir])
    first, second = capsys.readouterr().err.splitlines()
    assert exit_.value.code == 2 and f"is not the data that {workdir} was trained on" in first
    assert "--data-dir" in second
    assert evaluate.main([workdir, "--data-dir", str(digits)]) == 0


def test_data_of_one_s_own_after_those_that_come_with_the_package(tmp_path, digits):
    workdir = workdir_of(tmp_path / "packaged", Config(dataset="mnist5k"), {})
    assert evaluate.main([str(workdir), "--data-dir", str(digits)]) == 0
    results = json.loads((workdir / "evaluation.json").read_text())
    assert results["test_size"] == len(data.load("mnist", digits).test.labels)


@pytest.mark.parametrize(
    ("argv", "message", "hint"),
    [
        (["/nowhere"], "/nowhere is no workdir of experiments.run", "--help"),
        (["WORKDIR", "--shift", "rotate"], "--shift rotate does not exist", "rotation"),
        (["WORKDIR", "--shift", "zzz"], "--shift zzz does not exist", "rotation, blur, noise"),
        (["WORKDIR", "--shift"], "argument --shift: expected one argument", "--help"),
        (["WORKDIR", "--dataset", "minst"], "--dataset minst does not exist", "mnist"),
        (["WORKDIR", "--data-dir", "/nowhere"], "/nowhere is no folder", "--help"),
        (["WORKDIR", "--unfamiliar", "/nowhere"], "/nowhere is no folder", "--help"),
        (["WORKDIR", "--unfamiliar", "WORKDIR"], "holds no images to test on", "IDX files"),
        (["WORKDIR", "--mc-dropout", "-1"], "--mc-dropout must be at least 0", "--help"),
        (["WORKDIR", "--mc-dropout", "9"], "--mc-dropout needs networks with dropout", "--help"),
        (["WORKDIR", "--shifts", "all"], "--shifts is no flag", "--shift"),
        (["WORKDIR", "WORKDIR"], "is no flag of this command", "There are"),
    ],
)
def test_a_mistake_is_two_lines_and_code_2(two_members, argv, message, hint, capsys):
    argv = [str(two_members) if word == "WORKDIR" else word for word in argv]
    with pytest.raises(SystemExit) as exit_:
        evaluate.main(argv)
    error = capsys.readouterr().err
    assert exit_.value.code == 2 and len(error.splitlines()) == 2, error
    assert message in error.splitlines()[0] and hint in error.splitlines()[1]
