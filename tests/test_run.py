"""`python -m experiments.run`, as a user meets it."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from experiments import cli, config, display, run, trained
from experiments.config import Config
from mnist_jax import metrics, parallel
from tests.test_data import write_digits

NAMES = ["class", "deep", "ensemble", "fast", "handwriting", "layers", "simple"]


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Path:
    """A folder of IDX files: 600 training and 100 test digits of the embedded subset."""
    return write_digits(tmp_path_factory.mktemp("digits"), 600, 100)


@pytest.fixture(autouse=True)
def this_process(monkeypatch):
    """The tests have started JAX already, and have a cache of compiled programs."""
    monkeypatch.setattr(parallel, "use_cpu_cores", lambda *_: None)
    monkeypatch.setattr(cli, "use_compilation_cache", lambda: None)


def small(digits, *flags):
    return ["--data-dir", str(digits), "--validation", "100", "--batch-size", "50", *flags]


@pytest.fixture(scope="module")
def two_members(digits, tmp_path_factory):
    """The workdir and the output of a run of two members."""
    workdir = tmp_path_factory.mktemp("runs") / "two"
    flags = ["--config", "simple", "--members", "2", "--seed", "5", "--epochs", "2"]
    command = [sys.executable, "-m", "experiments.run", *small(digits, *flags)]
    done = subprocess.run(
        [*command, "--workdir", str(workdir), "--learning-rate", "0.01"],
        capture_output=True,
        text=True,
        check=True,
    )
    return workdir, done.stdout


def test_snapshots_are_members(digits, tmp_path, capsys):
    flags = ["--config", "simple", "--epochs", "4", "--snapshots", "2", "--schedule", "cosine"]
    flags += ["--learning-rate", "0.01", "--ema", "0.9", "--workdir", str(tmp_path / "run")]
    assert run.main(small(digits, *flags)) == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    members = [(member["seed"], member["epoch"]) for member in results["members"]]
    assert members == [(0, 2), (0, 4)]
    history = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    loaded = trained.load(tmp_path / "run")
    images, labels = trained.load_dataset(loaded).validation
    nlls = metrics.nll(loaded.predict(images), labels)
    for nll, epoch in zip(nlls, (2, 4), strict=True):  # what was in place at the end of each
        np.testing.assert_allclose(
            nll, history[epoch - 1]["members"][0]["validation_nll"], rtol=1e-5
        )
    capsys.readouterr()
    with pytest.raises(SystemExit):
        run.main(["--resume", str(tmp_path / "run"), "--epochs", "6", "--force"])
    assert "--epochs was 4 and is now 6" in capsys.readouterr().err


def test_the_labs_lines(two_members):
    _, output = two_members
    lines = output.splitlines()
    epochs = [line for line in lines if line.startswith("Epoch: ")]
    assert len(epochs) == 2 and epochs[0].startswith("Epoch: 0001 cost = ")
    assert all(" validation accuracy = 0." in line for line in epochs)
    starts = ["0 Accuracy: ", "1 Accuracy: ", "Ensemble accuracy: ", "Label: ", "Prediction: "]
    assert [line for line in lines if any(line.startswith(s) for s in starts)][:5]
    for start in starts:
        assert sum(line.startswith(start) for line in lines) == 1
    assert "█" in output and "\x1b" not in output


def test_results(two_members):
    workdir, output = two_members
    results = json.loads((workdir / "results.json").read_text())
    assert results["train_size"] == 500 and results["test_size"] == 100
    assert [member["seed"] for member in results["members"]] == [5, 6]
    assert f"Ensemble accuracy: {results['ensemble']['test_accuracy']:.4f}" in output
    for scores in (*results["members"], results["ensemble"]):
        assert 0.2 < scores["test_accuracy"] <= 1 and 0 < scores["test_nll"] < 2.3
    for key in ("train_seconds", "compile_seconds", "images_per_second"):
        assert results[key] > 0
    assert results["epochs"] == 2 and results["dataset"]["name"] == "mnist"
    assert results["devices"]["count"] >= 1 and "jax" in results["versions"]
    assert "git_commit" in results
    assert json.loads((workdir / "config.json").read_text()) == results["config"]
    assert results["config"]["members"] == 2 and results["config"]["epochs"] == 2


def test_metrics_and_tensorboard(two_members):
    workdir, _ = two_members
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2] and lines[1]["cost"] < lines[0]["cost"]
    assert len(lines[0]["member_costs"]) == len(lines[0]["members"]) == 2
    assert lines[0]["cost"] == pytest.approx(np.mean(lines[0]["member_costs"]))
    (events,) = (workdir / "tensorboard").iterdir()
    assert b"validation_accuracy" in events.read_bytes()


def test_the_saved_state_gives_the_reported_accuracy(two_members, digits):
    from experiments import trained
    from mnist_jax import data, metrics

    workdir, _ = two_members
    results = json.loads((workdir / "results.json").read_text())
    test = data.load("mnist", digits, validation=100).test
    members = trained.load(workdir).members
    for member, saved in zip(results["members"], members, strict=True):
        assert (saved.network_name, saved.seed) == (member["network"], member["seed"])
        images = (test.images / 255).astype(np.float32)
        logits = saved.network.apply({"params": saved.params}, images)
        assert float(metrics.accuracy(logits, test.labels)) == pytest.approx(
            member["test_accuracy"]
        )
        assert float(metrics.nll(logits, test.labels)) == pytest.approx(
            member["test_nll"], rel=1e-4
        )


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_last_good_state(
    digits, tmp_path, capsys
):
    flags = ["--config", "simple", "--learning-rate", "1e30", "--workdir", str(tmp_path / "w")]
    assert run.main(small(digits, *flags)) == 1
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 2 and "in epoch 1, step" in error[0] and "checkpoints" in error[1]
    assert (tmp_path / "w" / "checkpoints" / "0").is_dir()
    assert not (tmp_path / "w" / "results.json").exists()


def test_an_interrupt_saves_and_evaluates(digits, tmp_path):
    flags = ["--config", "simple", "--epochs", "100000", "--workdir", str(tmp_path / "w")]
    process = subprocess.Popen(
        [sys.executable, "-m", "experiments.run", *small(digits, *flags)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    metrics = tmp_path / "w" / "metrics.jsonl"
    deadline = time.monotonic() + 600
    while not metrics.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    output, error = process.communicate(timeout=600)
    assert process.returncode == 130, error
    assert "Interrupted" in output and "Accuracy: " in output and "Traceback" not in error
    results = json.loads((tmp_path / "w" / "results.json").read_text())
    assert 0 < results["epochs"] < 100000


@pytest.mark.parametrize("kind", ["full", "file", "below_a_file"])
def test_a_workdir_in_use_is_left_alone(digits, tmp_path, capsys, kind):
    (tmp_path / "file").write_text("mine")
    workdir = {"full": tmp_path, "file": tmp_path / "file", "below_a_file": tmp_path / "file" / "x"}
    with pytest.raises(SystemExit) as exit_:
        run.main(small(digits, "--workdir", str(workdir[kind])))
    error = capsys.readouterr().err
    assert exit_.value.code == 2 and "--workdir" in error and len(error.splitlines()) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_list(capsys):
    assert run.main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == NAMES and all(len(line) > 30 for line in lines)


def test_help_shows_every_field(capsys):
    with pytest.raises(SystemExit) as exit_:
        run.main(["--help"])
    text = capsys.readouterr().out
    assert exit_.value.code == 0
    for field in Config.__dataclass_fields__:
        assert f"--{field.replace('_', '-')} " in text
    assert all(name in text for name in NAMES)


def test_flags_change_the_config():
    command = cli.parse(
        [
            "--config=ensemble",
            "--members",
            "2",
            "--validation=0",
            "--dropout",
            "none",
            "--learning-rate",
            "3e-4",
            "--dataset",
            "kmnist",
            "--workdir",
            "here",
        ]
    )
    assert (command.name, str(command.workdir)) == ("ensemble", "here")
    assert command.config == Config(
        network="layers", members=2, validation=0, learning_rate=3e-4, dataset="kmnist"
    )


def test_the_configs_are_the_labs():
    assert config.names() == NAMES
    networks = {name: config.get(name)[0].network for name in NAMES}
    assert networks == {
        "simple": "simple",
        "deep": "deep",
        "class": "deep",
        "layers": "layers",
        "ensemble": "layers",
        "fast": "fast",
        "handwriting": "layers",
    }
    assert config.get("ensemble")[0].seeds == list(range(7))
    assert config.get("class")[0].network_options == {"conv_stddev": 1.0}
    for name in ("class", "deep", "ensemble", "layers", "simple"):
        lab = config.get(name)[0]
        assert (lab.epochs, lab.batch_size, lab.learning_rate) == (15, 100, 0.001)
        assert (lab.optimizer, lab.schedule, lab.weight_decay) == ("adam", "constant", 0)


def test_draw():
    image = np.zeros((4, 3, 1), np.uint8)
    image[1, 1], image[2, 2] = 255, 120
    assert display.draw(image) == "  ██\n    ▒▒"
    assert display.draw(np.zeros((4, 3, 1), np.uint8)) == ""


@pytest.mark.parametrize(
    ("flags", "members"),
    [
        (["--config", "ensemble"], 7),
        (["--config", "ensemble", "--data-parallel", "2"], 1),
        (["--members", "simple:2,deep:3"], 1),
        (["--config", "ensemble", "--coordinator", "auto"], 1),
    ],
)
def test_how_many_members_the_cores_are_told_of(flags, members):
    assert run._side_by_side(cli.parse(flags)) == members
