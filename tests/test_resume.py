"""A run that is stopped, whenever and however, and goes on as if nothing had happened."""

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments import run
from experiments.console import cli
from experiments.workdir import records, trained, trainer
from mnist_jax import metrics, parallel
from tests.test_run import digits  # noqa: F401 (a fixture)

MEMBERS = "simple:2,deep:1"  # two networks, and dropout
PATIENCE = 600  # seconds on a busy machine; what hangs fails then


def command(*flags):
    return [sys.executable, "-m", "experiments.run", *map(str, flags)]


@pytest.fixture(autouse=True)
def this_process(monkeypatch):
    """The tests have started JAX already, and have a cache of compiled programs."""
    monkeypatch.setattr(parallel, "use_cpu_cores", lambda *_: None)
    monkeypatch.setattr(cli, "use_compilation_cache", lambda: None)


@pytest.fixture(scope="module")
def whole(digits, tmp_path_factory):  # noqa: F811
    """A run to the end: its workdir, flags, and seconds after its config is there."""
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    flags = ["--members", MEMBERS, "--data-dir", digits, "--validation", 100, "--batch-size", 25]
    # 20 steps an epoch, saved every 10; as many devices as the tests have in their own process
    flags += ["--epochs", 2, "--save-seconds", 0, "--devices", jax.local_device_count()]
    process = subprocess.Popen(command(*flags, "--workdir", workdir))
    wait_for(workdir / "config.json", process)
    started = time.monotonic()
    assert process.wait(timeout=PATIENCE) == 0
    return workdir, flags, time.monotonic() - started


def wait_for(path: Path, process) -> None:
    deadline = time.monotonic() + PATIENCE
    while not path.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)


def epochs_of(workdir: Path) -> list[dict]:
    """The records of the epochs, without the times that they took."""
    records_ = [json.loads(line) for line in (workdir / "metrics.jsonl").open()]
    return [
        {name: record[name] for name in record.keys() - {"train_seconds", "images_per_second"}}
        for record in records_
    ]


def assert_same_end(workdir: Path, other: Path) -> None:
    """The same parameters, bit for bit, the same line for each epoch, the same results."""
    members, others = trained.load(workdir).members, trained.load(other).members
    assert [(m.network_name, m.seed) for m in members] == [
        ("simple", 0),
        ("simple", 1),
        ("deep", 2),
    ]
    for a, b in zip(members, others, strict=True):
        for x, y in zip(jax.tree.leaves(a.variables), jax.tree.leaves(b.variables), strict=True):
            np.testing.assert_array_equal(x, y)
    assert epochs_of(workdir) == epochs_of(other)
    results = [json.loads((folder / "results.json").read_text()) for folder in (workdir, other)]
    assert results[0]["members"] == results[1]["members"]
    assert results[0]["ensemble"] == results[1]["ensemble"]


def kill_and_resume(whole, workdir: Path, after: float) -> None:
    """SIGKILL some seconds after the run began to write, then go on to the end."""
    _, flags, _ = whole
    process = subprocess.Popen(command(*flags, "--workdir", workdir), stdout=subprocess.DEVNULL)
    wait_for(workdir / "config.json", process)
    time.sleep(after)
    process.kill()
    process.wait()
    done = subprocess.run(command("--resume", workdir), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_metrics_have_each_epoch_once(whole):
    lines = (whole[0] / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2]


def test_killed_in_the_middle(whole, tmp_path):
    kill_and_resume(whole, tmp_path / "run", 0.7 * whole[2])
    assert_same_end(tmp_path / "run", whole[0])


@pytest.mark.slow
@pytest.mark.parametrize("i", range(20))
def test_killed_at_any_moment(whole, tmp_path, i):
    kill_and_resume(whole, tmp_path / "run", random.Random(i).uniform(0, whole[2]))
    assert_same_end(tmp_path / "run", whole[0])


# A run that gets a signal after its first epoch.
SIGNALLED = """
import signal, sys
from experiments import run
from experiments.console import cli
from experiments.workdir import trainer

number, write = int(sys.argv.pop(1)), trainer._write_metrics

def write_and_stop(run, now):
    write(run, now)
    if now.epochs == 1:
        signal.raise_signal(number)

trainer._write_metrics = write_and_stop
cli.call(run.main)
"""


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGTERM, trainer.TERMINATED),
        pytest.param(signal.SIGINT, cli.INTERRUPTED, marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, 128 + signal.SIGHUP, marks=pytest.mark.slow),
    ],
)
def test_a_signal_saves_and_has_its_own_code(whole, tmp_path, number, code):
    _, flags, _ = whole
    workdir = tmp_path / "run"
    words = [*flags, "--save-seconds", 1000, "--workdir", workdir]
    signalled = [sys.executable, "-c", SIGNALLED, str(int(number)), *map(str, words)]
    done = subprocess.run(signalled, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == code and "Traceback" not in done.stderr, done.stderr
    assert "what is trained is saved" in done.stdout
    assert (workdir / "results.json").exists() == (number == signal.SIGINT)
    assert run.main(["--resume", str(workdir)]) == 0
    assert_same_end(workdir, whole[0])


def test_a_second_signal_exits_at_once(whole, tmp_path):
    _, flags, _ = whole
    workdir = tmp_path / "run"
    process = subprocess.Popen(
        command(*flags, "--members", "simple:1", "--epochs", 10000, "--workdir", workdir),
        stdout=subprocess.DEVNULL,
    )
    wait_for(workdir / "metrics.jsonl", process)
    process.send_signal(signal.SIGSTOP)  # so that it finds both
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGCONT)
    assert process.wait(timeout=PATIENCE) in (cli.INTERRUPTED, trainer.TERMINATED)


@pytest.fixture(scope="module")
def half(digits, tmp_path_factory):  # noqa: F811
    """A run of one epoch, of which tests go on with copies."""
    workdir = tmp_path_factory.mktemp("runs") / "half"
    flags = ["--network", "simple", "--members", 2, "--data-dir", digits, "--validation", 100]
    flags += ["--batch-size", 100]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parallel, "use_cpu_cores", lambda *_: None)
        patch.setattr(cli, "use_compilation_cache", lambda: None)
        assert run.main([*map(str, flags), "--epochs", "1", "--workdir", str(workdir)]) == 0
    return workdir


def resume(half, tmp_path, *flags):
    """Go on in a copy; returns the copy and the exit code."""
    workdir = tmp_path / "copy"
    shutil.copytree(half, workdir)
    return workdir, run.main(["--resume", str(workdir), *flags])


def epochs_done(workdir):
    return [json.loads(line)["epoch"] for line in (workdir / "metrics.jsonl").open()]


def test_more_epochs_and_another_number_of_devices(half, tmp_path, capsys):
    workdir, code = resume(half, tmp_path, "--epochs", "2", "--devices", "1")
    assert code == 0 and epochs_done(workdir) == [1, 2]
    assert "Going on after epoch 1, step 0" in capsys.readouterr().out
    config = json.loads((workdir / "config.json").read_text())
    assert (config["epochs"], config["devices"]) == (2, 1)


def test_more_epochs_would_stretch_a_schedule(half, tmp_path, capsys):
    workdir = tmp_path / "run"
    flags = ["--network", "simple", "--batch-size", "100", "--validation", "100", "--epochs", "1"]
    flags += ["--schedule", "cosine", "--data-dir", str(records.read_config(half).data_dir)]
    assert run.main([*flags, "--workdir", str(workdir)]) == 0
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_:
        run.main(["--resume", str(workdir), "--epochs", "2"])
    error, hint = capsys.readouterr().err.splitlines()
    assert exit_.value.code == 2 and "--epochs was 1 and is now 2" in error
    assert "cosine schedule would be stretched" in hint and "--force" in hint
    assert run.main(["--resume", str(workdir), "--epochs", "2", "--force"]) == 0
    # Half of two epochs: 0.001 * (1 + cos(pi / 2)) / 2, where one epoch ends at 0.
    said = "goes on at 0.0005 (cosine, epochs: 2), not at 0 (cosine, epochs: 1)."
    assert said in capsys.readouterr().out and epochs_done(workdir) == [1, 2]


def test_a_finished_run_is_evaluated_again(half, tmp_path):
    workdir, code = resume(half, tmp_path)
    assert code == 0 and epochs_done(workdir) == [1]
    results = [json.loads((folder / "results.json").read_text()) for folder in (workdir, half)]
    assert results[0]["members"] == results[1]["members"]


@pytest.mark.parametrize(
    ("flags", "message", "hint"),
    [
        (["--learning-rate", "0.1"], "--learning-rate was 0.001 and is now 0.1", "--force"),
        (["--config", "deep"], "--network was simple and is now deep", "new run"),
        (["--members", "3", "--force"], "--members was 2 and is now 3", "new run"),
        (["--optimizer", "sgd", "--force"], "--optimizer was adam and is now sgd", "new run"),
        (["--workdir", "x"], "--resume and --workdir exclude each other", "own folder"),
        (["--epochs", "0"], "--epochs must be at least 1", "--help"),
        (
            ["--dataset", "mnist5k", "--data-dir", "none"],
            "--dataset was auto and is now",
            "--force",
        ),
    ],
)
def test_changed_fields(half, tmp_path, capsys, flags, message, hint):
    with pytest.raises(SystemExit) as exit_:
        resume(half, tmp_path, *flags)
    error = capsys.readouterr().err.splitlines()
    assert exit_.value.code == 2 and len(error) == 2
    assert message in error[0] and hint in error[1]
    config = (half / "config.json").read_text()
    assert (tmp_path / "copy" / "config.json").read_text() == config


def test_a_forced_change_is_written_down(half, tmp_path):
    workdir, code = resume(half, tmp_path, "--learning-rate", "0.1", "--force")
    assert code == 0
    assert json.loads((workdir / "config.json").read_text())["learning_rate"] == 0.1


def test_fewer_steps_an_epoch_than_before(half, tmp_path):
    workdir, code = resume(half, tmp_path, "--batch-size", "250", "--epochs", "2", "--force")
    assert code == 0
    results = json.loads((workdir / "results.json").read_text())
    loaded = trained.load(workdir)
    assert loaded.step == 5 + 2  # the state that was evaluated is the one that is found
    images, labels = trained.load_dataset(loaded).test
    accuracies = metrics.accuracy(loaded.predict(images), labels)
    np.testing.assert_allclose(accuracies, [row["test_accuracy"] for row in results["members"]])


def test_fewer_epochs_than_done(half, tmp_path, capsys):
    workdir, _ = resume(half, tmp_path, "--epochs", "2")
    with pytest.raises(SystemExit) as exit_:
        run.main(["--resume", str(workdir), "--epochs", "1"])
    assert exit_.value.code == 2 and "at least 2" in capsys.readouterr().err
    assert json.loads((workdir / "config.json").read_text())["epochs"] == 2


def test_other_data_are_refused(half, tmp_path, capsys, digits):  # noqa: F811
    other = tmp_path / "other"
    shutil.copytree(digits, other)
    labels = other / "train-labels-idx1-ubyte"
    content = bytearray(labels.read_bytes())
    content[-1] = (content[-1] + 1) % 10
    labels.write_bytes(content)
    with pytest.raises(SystemExit) as exit_:
        resume(half, tmp_path, "--data-dir", str(other))
    assert exit_.value.code == 2 and "not the data the run began with" in capsys.readouterr().err
    assert run.main(["--resume", str(tmp_path / "copy"), "--data-dir", str(other), "--force"]) == 0


def test_a_damaged_checkpoint_is_said_and_passed_over(half, tmp_path, capsys):
    workdir = tmp_path / "run"
    shutil.copytree(half, workdir)
    (workdir / "checkpoints" / "5" / "details" / "metadata").unlink()
    assert run.main(["--resume", str(workdir)]) == 0
    captured = capsys.readouterr()
    assert "checkpoints/5 is damaged" in captured.err and "after epoch 0" in captured.out
    for step in (workdir / "checkpoints").glob("[0-9]*"):
        shutil.rmtree(step / "details")
    assert run.main(["--resume", str(workdir)]) == cli.FAILED
    assert "every checkpoint is damaged" in capsys.readouterr().err


@pytest.fixture
def small_disk(tmp_path):
    """Mount what `mount` takes; only root can."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(*options):
        command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(folder)]
        if subprocess.run(command, capture_output=True).returncode:
            pytest.skip("mounting a small disk needs root")
        return folder

    yield mount
    subprocess.run(["umount", str(folder)], capture_output=True)


def test_a_full_disk_stops_the_run_and_leaves_the_last_good_state(half, small_disk, capsys):
    disk = small_disk("size=4m")
    shutil.copytree(half, disk / "run")
    free = shutil.disk_usage(disk).free
    (disk / "ballast").write_bytes(bytes(free - 100_000))
    assert run.main(["--resume", str(disk / "run"), "--epochs", "3"]) == cli.FAILED
    error = capsys.readouterr().err
    # A checkpoint, or what is written while that is.
    assert "could not be written" in error or "No space left" in error
    assert "--resume" in error and "Traceback" not in error and len(error.splitlines()) == 2
    (disk / "ballast").unlink()
    assert run.main(["--resume", str(disk / "run"), "--epochs", "2"]) == 0
    assert epochs_done(disk / "run") == [1, 2]


def test_a_disk_that_cannot_be_written_is_refused(half, small_disk, capsys):
    disk = small_disk("size=16m")
    shutil.copytree(half, disk / "run")
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    for flags in (
        ["--resume", str(disk / "run")],
        ["--dataset", "mnist5k", "--workdir", str(disk / "new")],
    ):
        with pytest.raises(SystemExit) as exit_:
            run.main(flags)
        error = capsys.readouterr().err
        assert exit_.value.code == 2 and "cannot be written" in error
        assert len(error.splitlines()) == 2
