"""Where commands are started: streams, encodings, JAX's settings, two at once."""

import errno
import io
import json
import os
import signal
import subprocess
import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import jax
import numpy as np
import pytest
from etils import epath

from experiments.console import cli, terminal
from experiments.workdir import config, evaluation, records, trainer
from experiments.workdir.config import Config
from mnist_jax import cache, loop, metrics, training, uncertainty
from tests import tiny
from tests.test_data import write_digits
from tests.test_resume import epochs_of


@pytest.fixture
def file_stream(tmp_path):
    """Makes a `Stream` of an encoding into a file; gives it and what is in the file."""
    made = []

    def make(encoding):
        path = tmp_path / encoding
        stream = terminal.Stream(io.TextIOWrapper(path.open("wb"), encoding))
        made.append(stream)
        return stream, path

    yield make
    for stream in made:
        stream.close()


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "cp437", "gbk"])
def test_plain_characters_where_an_encoding_lacks_some(file_stream, encoding):
    stream, path = file_stream(encoding)
    print("0.1 → 0.2 ± 3 ░▒▓█ a", file=stream, flush=True)
    assert path.read_bytes() == b"0.1 / 0.2 ~ 3 :+*# a\n"


def test_what_no_encoding_has(file_stream):
    stream, path = file_stream("ascii")
    print("é七", file=stream, flush=True)
    assert path.read_bytes() == b"\\xe9\\u4e03\n"
    stream, path = file_stream("utf-8")
    print("█七 \udcff", file=stream, flush=True)  # a byte of a file's name that is not UTF-8
    assert path.read_bytes() == "█七 \\udcff\n".encode()


def test_a_reader_that_has_gone():
    read, write = os.pipe()
    stream = terminal.Stream(io.TextIOWrapper(os.fdopen(write, "wb"), "utf-8"))
    os.close(read)
    for _ in range(3):
        print("x" * 100_000, file=stream, flush=True)
    assert terminal.failure(stream) is None
    stream.close()


def full_disk():
    if not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full")
    file = os.fdopen(os.open("/dev/full", os.O_WRONLY), "wb")
    return terminal.Stream(io.TextIOWrapper(file, "utf-8"))


def test_a_full_disk():
    stream = full_disk()
    print("x", file=stream)
    assert terminal.failure(stream).errno == errno.ENOSPC
    print("x" * 100_000, file=stream, flush=True)
    stream.close()


def test_closed_streams_do_not_lend_their_numbers(tmp_path):
    code = (
        "from experiments.console import terminal; terminal.protect(); import sys\n"
        "file = open('file', 'w'); print('lost'); print('lost', file=sys.stderr, flush=True)\n"
        "file.write(sys.stdin.read() + 'kept')"
    )
    command = f'"{sys.executable}" -c "{code}" <&- >&- 2>&-'
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    subprocess.run(command, shell=True, check=True, cwd=tmp_path, env=environment)
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize(
    ("prints_results", "code", "word"), [(True, 1, "error"), (False, 0, "warning")]
)
def test_a_full_disk_and_the_exit_code(monkeypatch, capsys, prints_results, code, word):
    monkeypatch.setattr(terminal, "protect", lambda: None)
    stream = full_disk()
    monkeypatch.setattr(sys, "stdout", stream)
    with pytest.raises(SystemExit) as exit_:
        cli.call(lambda: print("x") or 0, prints_results)
    assert exit_.value.code == code
    assert capsys.readouterr().err.startswith(f"{word}: standard output could not be written")
    stream.close()


def test_commands_do_not_depend_on_the_surroundings(tmp_path):
    """A run whose reader goes, and one among all settings there are: the same results."""
    digits = write_digits(tmp_path, 200, 50)
    flags = ["--network", "simple", "--epochs", "1", "--schedule", "cosine", "--devices", "1"]
    flags += ["--data-dir", digits, "--validation", "50", "--batch-size", "50"]
    command = [sys.executable, "-m", "experiments.run", *map(str, flags), "--workdir"]
    plain = os.environ | {"MNIST_JAX_KERNELS": "off", "JAX_COMPILATION_CACHE_DIR": str(tmp_path)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([*command, tmp_path / "left"], env=plain, **pipes) as process:
        assert process.stdout.readline().startswith(b"mnist_jax ")
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0
    settings = {
        "JAX_DEBUG_NANS": "1",
        "JAX_DISABLE_JIT": "1",
        "JAX_ENABLE_X64": "1",
        "JAX_NUMPY_DTYPE_PROMOTION": "strict",
        "JAX_NUMPY_RANK_PROMOTION": "raise",
        "JAX_TRANSFER_GUARD": "disallow",
        "PYTHONIOENCODING": "ascii",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=3",
    }
    workdir = tmp_path / "strange"
    done = subprocess.run([*command, workdir], env=plain | settings, check=True, **pipes)
    assert b"#" in done.stdout and f"evaluate {workdir}".encode() in done.stdout
    assert b"JAX_DISABLE_JIT" in done.stderr and len(done.stderr.splitlines()) == 1
    results = [
        (json.loads((folder / "results.json").read_text())["members"]) + epochs_of(folder)
        for folder in (tmp_path / "left", workdir)
    ]
    assert results[0] == results[1]


def test_training_is_of_32_bits_and_compiled_whatever_the_caller_does():
    options = {"own_shuffles": True, "dropout_rate": 0.3, "epochs": 1}
    state, losses = tiny.train([0, 1], **options)
    with jax.enable_x64(True), jax.disable_jit():
        other_state, other_losses = tiny.train([0, 1], **options)
        batches = training.epoch_batches(0, 1, 10, 5)
    jax.tree.map(np.testing.assert_array_equal, other_state, state)
    np.testing.assert_array_equal(other_losses, losses)
    assert jax.tree.all(jax.tree.map(lambda a, b: a.dtype == b.dtype, other_state, state))
    assert batches.dtype == np.int32
    np.testing.assert_array_equal(batches, training.epoch_batches(0, 1, 10, 5))


def test_metrics_with_64_bits():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 200)
    logits = rng.normal(0, 2, (2, 200, 10)).astype(np.float32)
    logits[:, np.arange(200), labels] += 2

    def judge():
        temperatures = evaluation.fit_temperatures(logits, labels)
        scores = evaluation.scores(logits, labels, temperatures)
        combined = [rule(logits) for rule in evaluation.RULES.values()]
        told_apart = (
            metrics.auroc(logits[..., 0], labels == 0),
            metrics.aupr(logits[..., 0], labels == 0),
        )
        arrays = (temperatures, combined, told_apart, metrics.brier(logits, labels))
        arrays += (uncertainty.decompose(logits), uncertainty.disagreement(logits))
        assert {str(array.dtype) for array in jax.tree.leaves(arrays)} == {"float32"}
        return scores, arrays

    here = judge()
    with jax.enable_x64(True):
        there = judge()
    assert jax.tree.structure(there) == jax.tree.structure(here)
    for one, other in zip(jax.tree.leaves(there), jax.tree.leaves(here), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("variable", ["JAX_PLATFORMS", None])
def test_a_platform_that_is_not_there(monkeypatch, capsys, variable):
    def fail():
        raise RuntimeError("Unable to initialize backend 'tpu': no such thing. (set JAX_PLATFORMS=")

    monkeypatch.setattr(jax, "devices", fail)
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.delenv("JAX_PLATFORM_NAME", raising=False)
    if variable:
        monkeypatch.setenv(variable, "tpu")
    with pytest.raises(SystemExit) as exit_:
        cli.check_devices()
    error, hint = capsys.readouterr().err.splitlines()
    assert exit_.value.code == 2 and error.endswith("'tpu': no such thing.")
    assert "JAX_PLATFORMS" in hint and ("JAX_PLATFORMS is tpu" in error) == bool(variable)


@pytest.mark.parametrize("home", ["/proc/none", None])
def test_no_home_for_a_cache(monkeypatch, home):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    def home_of_nobody():
        if home is None:
            raise RuntimeError("Could not determine home directory.")
        return Path(home)

    monkeypatch.setattr(Path, "home", home_of_nobody)
    monkeypatch.setattr(jax.config, "update", lambda *_: pytest.fail("no folder for a cache"))
    cli.use_compilation_cache()
    assert cache.folder() is None


def begin(folder):
    about = records.TrainedOn(tuple("0123456789"), characters=True)
    records.begin_workdir(folder, Config(), "mnist", "nowhere", about)


def test_two_runs_that_begin_at_once(tmp_path):
    wanted = epath.Path(tmp_path) / "runs" / "deep-20260101-000000"
    folders = [records.make_workdir(wanted) for _ in range(3)]
    assert [folder.name for folder in folders] == [
        wanted.name,
        f"{wanted.name}-2",
        f"{wanted.name}-3",
    ]
    assert all(folder.is_dir() for folder in folders)
    # Both have seen that the folder which they were told to take is empty.
    begin(folders[0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(folders[0]), "iterdir", lambda self: iter(()))
        with pytest.raises(ValueError, match="is not an empty folder"):
            begin(folders[0])


def test_a_name_that_is_not_utf_8(tmp_path):
    with pytest.raises(ValueError, match="the name has characters outside of"):
        begin(epath.Path(tmp_path) / "\udcff")
    assert list(tmp_path.iterdir()) == []


def test_a_terminal_that_closes(monkeypatch):
    left = []
    monkeypatch.setattr(os, "_exit", left.append)
    given = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup
    with loop.interrupts(trainer._leave_at_once, trainer._signals()) as received:
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGHUP)  # by the terminal and by its shell
        assert received[0] == signal.SIGHUP and not left
        signal.raise_signal(signal.SIGTERM)
        assert left == [128 + signal.SIGTERM]
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    assert signal.SIGHUP not in trainer._signals()
    signal.signal(signal.SIGHUP, given)


def test_descriptions_without_docstrings(monkeypatch):
    module = import_module("experiments.configs.deep")
    monkeypatch.setattr(module, "__doc__", None)  # as PYTHONOPTIMIZE=2 leaves it
    assert config.get("deep")[1].startswith("Three convolutions")


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("--lr", "Did you mean --learning-rate?"),
        ("--LR", "Did you mean --learning-rate?"),
        ("-lr", "Did you mean --learning-rate?"),
        ("--lr=0.1", "Did you mean --learning-rate?"),
        ("--rate", "Did you mean --learning-rate?"),
        ("--learn", "Did you mean --learning-rate?"),
        ("--wd", "Did you mean --weight-decay?"),
        ("--bs", "Did you mean --batch-size?"),
        ("--batch", "Did you mean --batch-size?"),
        ("--epoch", "Did you mean --epochs?"),
        ("deep", "Did you mean --config deep?"),
        ("ensembel", "Did you mean --config ensemble?"),
    ],
)
def test_a_word_that_is_no_flag(word, hint, capsys):
    with pytest.raises(SystemExit):
        cli.parse([word, "0.1"])
    assert capsys.readouterr().err.splitlines()[1] == hint


COMMANDS = ["run", "evaluate", "predict", "inspect", "report", "export", "import"]
COMMANDS += [f"benchmarks.{name}" for name in ("run", "scaling", "gpu", "first_minute")]


# What of the commands' own imports JAX, in the middle of which Ctrl-C is pressed.
WHILE_JAX_IS_IMPORTED = {
    "run": (["--workdir", "new"], "nothing was written."),
    "evaluate": (["gone"], "nothing was written."),
    "report": (["gone"], "nothing was written."),
    "predict": (["gone", "7.png"], "Interrupted."),
    "inspect": ([], "Interrupted."),
    "export": (["gone", "--to", "onnx", "--output", "a.onnx"], "nothing was written."),
}


@pytest.mark.parametrize("name", WHILE_JAX_IS_IMPORTED)
def test_ctrl_c_while_jax_is_imported(name, tmp_path):
    argv, message = WHILE_JAX_IS_IMPORTED[name]
    (tmp_path / "jax.py").write_text(
        "import os, signal\n"
        "try: os.kill(os.getpid(), signal.SIGINT)\n"
        "except KeyboardInterrupt: pass  # as in a callback of C++\n"
        "1 / 0"
    )
    code = (  # whatever started the tests may ignore the signal, as nohup's shells do
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from experiments import {name}\n"
        f"from experiments.console import cli; cli.call(lambda: {name}.main({argv}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == cli.INTERRUPTED and len(done.stderr.splitlines()) == 2, done.stderr
    assert done.stderr.rstrip().endswith(message)
    said = "" if message == "Interrupted." else f"mnist_jax {version('mnist_jax')}: importing JAX"
    assert done.stdout.rstrip(" .") == said
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["jax.py"]


@pytest.mark.parametrize("name", WHILE_JAX_IS_IMPORTED)
def test_a_mistyped_command_does_not_wait_for_jax(name):
    code = (
        f"import sys; from experiments import {name}\n"
        f"try: {name}.main(['x', 'y', '--versio'])\n"
        "except SystemExit: pass\n"
        "print([name for name in ('jax', 'flax', 'optax', 'orbax') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n" and len(done.stderr.splitlines()) == 2


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_tells_its_version(name, capsys):
    command = import_module(f"experiments.{name}")
    with pytest.raises(SystemExit) as exit_:
        command.main(["--version"])
    assert exit_.value.code == 0
    assert capsys.readouterr().out == f"mnist_jax {version('mnist_jax')}\n"
