"""`python -m experiments.run`, as a user meets it."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from experiments import run
from experiments.console import cli, clock, display
from experiments.workdir import config, trained, trainer
from experiments.workdir.config import Config
from mnist_jax import metrics, models, parallel
from mnist_jax.checkpoints import CheckpointError, Checkpoints
from mnist_jax.data import memory
from tests.test_data import write_digits
from tests.test_data_photos import write as write_photos

NAMES = [
    *("alphago", "class", "convnetjs", "convnetjs_cifar10", "deep", "ensemble", "fast"),
    *("handwriting", "layers", "lenet5", "policy", "pretrained", "resnet20", "sentence", "simple"),
]


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
    for scores in (*results["members"], results["ensemble"]):  # of 100 images
        assert scores["test_accuracy"] == round(scores["test_accuracy"], 2)
    assert json.loads((workdir / "config.json").read_text()) == results["config"]
    assert results["config"]["members"] == 2 and results["config"]["epochs"] == 2


def test_metrics_and_tensorboard(two_members):
    workdir, _ = two_members
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2] and lines[1]["cost"] < lines[0]["cost"]
    assert len(lines[0]["member_costs"]) == len(lines[0]["members"]) == 2
    assert lines[0]["cost"] == pytest.approx(np.mean(lines[0]["member_costs"]))
    (events,) = (workdir / "tensorboard").iterdir()
    for tag in ("validation_accuracy", "learning_rate", "images_per_second", "train_seconds"):
        assert tag.encode() in events.read_bytes()
    assert [line["learning_rate"] for line in lines] == [0.01, 0.01]
    assert 0 < lines[0]["train_seconds"] < lines[1]["train_seconds"]
    assert all(line["images_per_second"] > 0 for line in lines)
    for scores in lines[0]["members"]:
        assert scores["validation_accuracy"] == round(scores["validation_accuracy"], 2)


def test_what_a_run_says_first_and_last(two_members):
    workdir, output = two_members
    lines = output.splitlines()
    assert re.fullmatch(r"mnist_jax \S+: importing JAX \.\.\. \d+\.\d s", lines[0])
    waits = ["Reading the data", "Making the initial values", "Compiling", "Predicting 100 test"]
    waits += ["Validating, which is compiled the first time"]
    for what in waits:
        (line,) = [line for line in lines if line.startswith(what)]
        assert re.search(r" \.\.\. \d+\.\d s$", line)
    assert "s in all: imports" in output and f"All of it is in {workdir}. Next:" in output
    folder = shlex.quote(str(workdir))
    for line, name in zip(lines[-3:], ("evaluate", "report", "predict"), strict=True):
        assert line.startswith(f"  python -m experiments.{name} {folder}")


def wait_before(seconds, function):
    """The function, with a wait before its first call."""
    calls = []

    def waited(*arguments):
        calls.append(arguments)
        if len(calls) == 1:
            time.sleep(seconds)
        return function(*arguments)

    return waited


def test_each_phase_has_its_seconds(two_members):
    workdir, _ = two_members
    seconds = json.loads((workdir / "results.json").read_text())["seconds"]
    assert list(seconds) == [*clock.PHASES, "other"]
    for phase in ("imports", "initial_values", "compiling", "training", "evaluation"):
        assert seconds[phase] > 0
    assert min(seconds.values()) >= 0
    results = json.loads((workdir / "results.json").read_text())
    assert seconds["compiling"] >= results["compile_seconds"]


def test_all_seconds_are_accounted_for(digits, tmp_path, monkeypatch):
    """Up to when the results are written, wherever this process is kept waiting."""
    begun = []

    def finish(*arguments):
        begun.append(time.perf_counter())
        return finished(*arguments)

    finished = trainer._finish
    monkeypatch.setattr(trainer, "_finish", finish)
    flags = ["--config", "simple", "--epochs", "1", "--workdir", str(tmp_path / "w")]
    started = time.perf_counter()
    assert run.main(small(digits, *flags), started=started) == 0
    ended = time.perf_counter()
    seconds = json.loads((tmp_path / "w" / "results.json").read_text())["seconds"]
    rounding = 0.001 * len(seconds)
    assert begun[0] - started - rounding < sum(seconds.values()) < ended - started + rounding


def test_the_first_validation_is_waited_for_and_counts_as_compiling(digits, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "_predict", wait_before(1.0, trainer._predict))
    flags = ["--config", "simple", "--epochs", "2", "--workdir", str(tmp_path / "w")]
    assert run.main(small(digits, *flags)) == 0
    results = json.loads((tmp_path / "w" / "results.json").read_text())
    assert results["seconds"]["compiling"] >= results["compile_seconds"] + 1
    assert results["seconds"]["validation"] > 0


def test_closing_is_waited_for_before_the_last_lines_and_counted(
    digits, tmp_path, monkeypatch, capsys
):
    def close(self, *error):
        print("closing")
        time.sleep(1)
        return left(self, *error)

    left = Checkpoints.__exit__
    monkeypatch.setattr(Checkpoints, "__exit__", close)
    flags = ["--config", "simple", "--epochs", "1", "--workdir", str(tmp_path / "w")]
    assert run.main(small(digits, *flags)) == 0
    before, after = capsys.readouterr().out.split("closing\n")
    assert "Predicting" in before and "Accuracy" not in before
    assert "Accuracy: " in after and "Next:" in after
    assert float(re.search(r"closing (\d+\.\d)", after)[1]) >= 1
    seconds = json.loads((tmp_path / "w" / "results.json").read_text())["seconds"]
    assert seconds["closing"] >= 1


def test_what_could_not_be_saved_at_the_end_does_not_hide_the_results(
    digits, tmp_path, monkeypatch, capsys
):
    def fail(self, *error):
        left(self, *error)
        raise CheckpointError("no room")

    left = Checkpoints.__exit__
    monkeypatch.setattr(Checkpoints, "__exit__", fail)
    workdir = tmp_path / "w"
    flags = ["--config", "simple", "--epochs", "1", "--workdir", str(workdir)]
    assert run.main(small(digits, *flags)) == cli.FAILED
    captured = capsys.readouterr()
    assert "Accuracy: " in captured.out and "Next:" not in captured.out
    assert captured.err.splitlines()[0] == "error: no room" and "--resume" in captured.err
    assert (workdir / "results.json").exists()


def test_seconds_begin_with_the_process():
    """Python's own start and the first imports are seconds of the command too."""
    code = (
        "import time; time.sleep(0.5); from experiments.console import clock\n"
        "mine = clock.Clock(clock.process_started()); print(mine.seconds()['imports'])"
    )
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    least = 0.5 if os.path.exists("/proc/self/stat") else 0
    assert least < float(done.stdout) < time.perf_counter() - started + 0.02  # of a clock's tick


@pytest.mark.parametrize("age", [0.0, 3.0, 1e6])
def test_a_process_s_start_by_its_work_where_its_age_is_not_told(monkeypatch, age):
    monkeypatch.setattr(clock.time, "process_time", lambda: 2.0)
    monkeypatch.setattr(clock.time, "perf_counter", lambda: 100.0)
    fields = " ".join(["S", *"0" * 18, "500", *"0" * 30])
    monkeypatch.setattr(clock.Path, "read_text", lambda self: f"1 (a ) name) {fields}")
    monkeypatch.setattr(clock.os, "sysconf", lambda name: 100)
    monkeypatch.setattr(clock.time, "CLOCK_BOOTTIME", 7, raising=False)
    monkeypatch.setattr(clock.time, "clock_gettime", lambda number: 5 + age, raising=False)
    assert clock.process_started() == (97 if age == 3 else 98)
    monkeypatch.delattr(clock.time, "CLOCK_BOOTTIME")
    assert clock.process_started() == 98


def test_a_clock_gives_each_second_to_one_phase(monkeypatch):
    now = 10.0
    monkeypatch.setattr(clock.time, "perf_counter", lambda: now)
    mine = clock.Clock(started=7.5)
    with mine.during("training"):
        now += 4
        with mine.during("validation"):
            now += 8
        now += 16
    now += 32
    seconds = mine.seconds()
    assert (seconds["training"], seconds["validation"], seconds["other"]) == (20, 8, 32)
    assert seconds["imports"] == 2.5 and sum(seconds.values()) == now - 7.5
    assert clock.in_words(seconds) == (
        "62.5 s in all: imports 2.5, training 20.0, validation 8.0, other 32.0."
    )


def test_a_line_of_waiting_ends_also_where_it_fails(capsys):
    with pytest.raises(ValueError), clock.Clock().waiting("data", "Reading"):
        raise ValueError
    assert capsys.readouterr().out == "Reading ... \n"


@pytest.mark.parametrize("there", [False, True])
def test_tensorboard_does_not_import_pytorch(tmp_path, there):
    """Where it is installed; what has imported it already keeps it."""
    (tmp_path / "torch.py").write_text("class Tensor: pass")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{'import torch' if there else ''}\n"
        "from experiments.workdir import board\n"
        f"with board.summary_writer({str(tmp_path / 'board')!r}, True) as writer:\n"
        "    writer.add_scalar('cost', 0.5, 1)\n"
        f"assert ('torch' in sys.modules) == {there}; import torch; torch.Tensor()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    (events,) = (tmp_path / "board").iterdir()
    assert b"cost" in events.read_bytes()


def test_the_saved_state_gives_the_reported_accuracy(two_members, digits):
    from experiments.workdir import trained
    from mnist_jax import data, metrics

    workdir, _ = two_members
    results = json.loads((workdir / "results.json").read_text())
    test = data.load("mnist", digits, validation=100).test
    members = trained.load(workdir).members
    for member, saved in zip(results["members"], members, strict=True):
        assert (saved.network_name, saved.seed) == (member["network"], member["seed"])
        images = (test.inputs / 255).astype(np.float32)
        logits = saved.network.apply(saved.variables, images)
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
        "convnetjs": "convnetjs",
        "convnetjs_cifar10": "convnetjs",
        "layers": "layers",
        "ensemble": "layers",
        "fast": "fast",
        "handwriting": "layers",
        "lenet5": "lenet5",
        "resnet20": "resnet20",
        "sentence": "sentence",
        "policy": "policy",
        "alphago": "policy",
        "pretrained": "fast",
    }
    assert config.get("ensemble")[0].seeds == list(range(7))
    assert config.get("class")[0].options == {"conv_stddev": 1.0}
    for name in ("class", "deep", "ensemble", "layers", "simple"):
        lab = config.get(name)[0]
        assert (lab.epochs, lab.batch_size, lab.learning_rate) == (15, 100, 0.001)
        assert (lab.optimizer, lab.schedule, lab.weight_decay) == ("adam", "constant", 0)


@pytest.mark.parametrize(
    ("flags", "options"),
    [
        ([], "rubbish=10"),
        (["--members", "3"], "rubbish=10"),
        (["--members", "lenet5:2"], "rubbish=10"),
        (["--members", "lenet5:2,simple:1"], None),
        (["--network", "simple"], None),
        (["--network-options", "dense=True"], "dense=True"),
        (
            ["--members", "lenet5:2,simple:1", "--network-options", "dtype=bfloat16"],
            "dtype=bfloat16",
        ),
    ],
)
def test_a_configs_network_options_are_for_its_own_network(flags, options):
    assert cli.parse(["--config", "lenet5", *flags]).config.network_options == options


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
    assert trainer._side_by_side(cli.parse(flags)) == members


def test_every_network_can_be_named():
    """The config knows them without JAX, which `models` needs."""
    assert sorted(get_args(config.Network)) == sorted(
        [*models.NAMES, *models.OF_SENTENCES, *models.OF_POSITIONS]
    )


def test_options_of_a_network():
    options = config.Config(network_options="shortcut=B,dense=True,side=3,rate=0.5,x=None").options
    assert options == {"shortcut": "B", "dense": True, "side": 3, "rate": 0.5}


@pytest.mark.parametrize("text", ["shortcut", "=B", "shortcut=", "a=1,,b=2"])
def test_options_that_are_none(text):
    with pytest.raises(ValueError, match="network_options must be like"):
        config.Config(network_options=text)


def test_a_network_has_no_such_option(digits, capsys, tmp_path):
    with pytest.raises(SystemExit, match="2"):
        run.main(
            small(digits, "--network-options", "shortcut=B", "--workdir", str(tmp_path / "run"))
        )
    error = capsys.readouterr().err
    assert "has no option 'shortcut'" in error and len(error.splitlines()) == 2


@pytest.mark.parametrize("network", ["googlenet", "alexnet"])
def test_images_of_the_published_size_scaled_to_less(network, capsys, tmp_path):
    side = models.PUBLISHED[network].image_shape[0]
    write_photos(tmp_path / "data", [(side, side)])
    flags = ["--network", network, "--image-size", "40", "--data-dir", str(tmp_path / "data")]
    with pytest.raises(SystemExit, match="2"):
        run.main([*flags, "--workdir", str(tmp_path / "run")])
    error = capsys.readouterr().err
    assert "not 40 x 40" in error and len(error.splitlines()) == 2
    assert not (tmp_path / "run").exists()


def test_each_core_needs_memory_for_the_training_images(digits, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 1000)
    flags = small(digits, "--devices", "2", "--workdir", str(tmp_path / "run"))
    with pytest.raises(SystemExit, match="2"):
        run.main(flags)
    error = capsys.readouterr().err
    assert "2 CPU devices" in error and "--devices 1 takes fewer" in error
    assert len(error.splitlines()) == 2 and not (tmp_path / "run").exists()


def test_a_network_that_needs_larger_images(digits, capsys, tmp_path):
    flags = ("--network", "googlenet", "--workdir", str(tmp_path / "run"))
    with pytest.raises(SystemExit, match="2"):
        run.main(small(digits, *flags))
    error = capsys.readouterr().err
    assert "at least 79 x 79" in error and "--image-size" in error and len(error.splitlines()) == 2
    assert not (tmp_path / "run").exists()
