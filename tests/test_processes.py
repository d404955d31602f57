"""Several real processes on one machine, over loopback: the same run as one process."""

import contextlib
import json
import os
import random
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from experiments import run
from experiments.console import cli
from experiments.workdir import trained, trainer
from mnist_jax import parallel
from mnist_jax.checkpoints import CheckpointError
from tests.test_resume import PATIENCE, wait_for
from tests.test_run import digits  # noqa: F401 (a fixture)
from tests.tiny import some_devices

# SGD, since Adam's first steps make a large difference of the rounding of a tiny gradient.
FLAGS = ["--config", "simple", "--optimizer", "sgd", "--learning-rate", "0.01", "--batch-size"]


def free_port():
    """One that no system gives to whoever asks for any, until the processes listen there."""
    for port in random.sample(range(20_000, 32_000), 100):
        with contextlib.suppress(OSError), socket.socket() as free:
            free.bind(("localhost", port))
            return port
    raise OSError("no port is free.")


def start(folder, digits, processes, devices, members, *flags):  # noqa: F811
    """Start all processes of a run; each writes its output into a file of its own."""
    port = free_port()
    command = [sys.executable, "-m", "experiments.run", *FLAGS, "50", "--data-dir", str(digits)]
    command += ["--validation", "100", "--members", str(members), "--devices", str(devices)]
    command += ["--workdir", str(folder / "run"), *flags]
    if processes > 1:
        command += ["--coordinator", f"localhost:{port}", "--num-processes", str(processes)]
    return [
        subprocess.Popen(
            [*command, "--process-id", str(i)] if processes > 1 else command,
            stdout=(folder / f"out.{i}").open("w"),
            stderr=(folder / f"err.{i}").open("w"),
        )
        for i in range(processes)
    ]


@pytest.fixture(scope="module")
def alone(digits, tmp_path_factory):  # noqa: F811
    """Parameters and results of one process with four devices, by number of members."""
    some_devices(4)  # or all that needs this is skipped

    def run(members):
        folder = tmp_path_factory.mktemp("alone")
        (process,) = start(folder, digits, 1, 4, members, "--epochs", "2")
        assert process.wait(timeout=PATIENCE) == 0
        return folder / "run"

    return run


@pytest.mark.parametrize(
    ("processes", "devices", "members"),
    [
        (2, 2, 1),
        pytest.param(2, 2, 3, marks=pytest.mark.slow),
        pytest.param(4, 1, 1, marks=pytest.mark.slow),
        pytest.param(4, 1, 3, marks=pytest.mark.slow),
        pytest.param(4, 2, 2, marks=pytest.mark.slow),
    ],
)
def test_the_same_networks_come_out(
    digits,  # noqa: F811
    alone,
    tmp_path,
    processes,
    devices,
    members,
):
    started = start(tmp_path, digits, processes, devices, members, "--epochs", "2")
    for i, process in enumerate(started):
        assert process.wait(timeout=PATIENCE) == 0, (tmp_path / f"err.{i}").read_text()
    one, several = alone(members), tmp_path / "run"
    for a, b in zip(trained.load(one).members, trained.load(several).members, strict=True):
        assert a.seed == b.seed
        for x, y in zip(jax.tree.leaves(a.variables), jax.tree.leaves(b.variables), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-4)
    results = json.loads((several / "results.json").read_text())
    assert results["devices"]["processes"] == processes
    assert results["devices"]["count"] == processes * devices
    assert len((several / "metrics.jsonl").read_text().splitlines()) == 2
    assert "Epoch: 0002" in (tmp_path / "out.0").read_text()
    assert "Epoch" not in (tmp_path / "out.1").read_text()


def test_a_lost_process_ends_the_others_and_the_run_can_go_on(
    digits,  # noqa: F811
    tmp_path,
):
    first, second = start(tmp_path, digits, 2, 2, 2, "--epochs", "100000")
    wait_for(tmp_path / "run" / "metrics.jsonl", first)
    second.kill()
    assert first.wait(timeout=PATIENCE) == 1
    error = (tmp_path / "err.0").read_text()
    assert "error: another process was lost" in error and "--resume" in error
    epochs = len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    command = [sys.executable, "-m", "experiments.run", "--resume", str(tmp_path / "run")]
    done = subprocess.run([*command, "--epochs", str(epochs + 1)], capture_output=True)
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == epochs + 1


@pytest.mark.parametrize("kind", [jax.errors.JaxRuntimeError, ValueError])
@pytest.mark.parametrize("at", ["step", "checkpoint"])
def test_a_process_is_lost_whatever_finds_it(
    digits,  # noqa: F811
    tmp_path,
    monkeypatch,
    capsys,
    at,
    kind,
):
    def lose(*_):
        try:
            raise kind("INTERNAL: Gloo all-reduce failed\nmore")
        except kind as error:
            monkeypatch.setattr(jax, "process_count", lambda: 2)
            if at == "checkpoint":
                raise CheckpointError("a checkpoint could not be written") from error
            raise

    def leave(code):
        raise SystemExit(code)

    monkeypatch.setattr(parallel, "use_cpu_cores", lambda *_: None)
    monkeypatch.setattr(trainer, "_train", lose)
    monkeypatch.setattr(os, "_exit", leave)
    flags = [*FLAGS, "50", "--data-dir", str(digits), "--workdir", str(tmp_path / "run")]
    with pytest.raises(SystemExit) as exit_:
        run.main(flags)
    error = capsys.readouterr().err
    assert exit_.value.code == cli.FAILED and "--resume" in error and len(error.splitlines()) == 2
    assert error.startswith("error: another process was lost: INTERNAL: Gloo all-reduce failed")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--process-id", "0"], "--num-processes and --process-id need --coordinator"),
        (["--coordinator", "localhost:1"], "--workdir is needed with --coordinator"),
        (["--coordinator", "localhost:1", "--workdir", "x"], "num_processes must be at least 1"),
        (
            ["--coordinator", "h:1", "--workdir", "x", "--num-processes", "2"],
            "process_id must be from 0 to 1, not None",
        ),
        (
            ["--coordinator", "h:1", "--workdir", "x", "--num-processes", "2", "--process-id", "2"],
            "process_id must be from 0 to 1, not 2",
        ),
    ],
)
def test_flags_that_make_no_sense(flags, message, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(parallel, "use_cpu_cores", lambda *_: None)
    with pytest.raises(SystemExit) as exit_:
        run.main(flags)
    error = capsys.readouterr().err
    assert exit_.value.code == 2 and message in error and len(error.splitlines()) == 2
    assert not list(tmp_path.iterdir())
