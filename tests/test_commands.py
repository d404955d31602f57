"""`mnist-jax` and `python -m mnist_jax`: all commands under one name."""

import subprocess
import sys
from importlib.metadata import entry_points, metadata
from pathlib import Path

import pytest

import mnist_jax
from experiments import __main__ as commands

ROOT = Path(commands.__file__).parent
INTERNAL = {"benchmarks.peak", "benchmarks.worker", "benchmarks.scaling_worker"}  # for others


def call(*argv):
    command = [sys.executable, "-m", "mnist_jax", *argv]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def test_all_commands_are_listed():
    scripts = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in ROOT.rglob("*.py")
        if 'if __name__ == "__main__":' in path.read_text()
    }
    assert set(commands.COMMANDS) == scripts - INTERNAL - {"__main__"}


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"]])
def test_the_list(argv, capsys):
    assert commands.main(argv) == 0
    output = capsys.readouterr().out
    for name, text in commands.COMMANDS.items():
        assert f"  {name} " in output and text in output


def test_the_list_does_not_wait_for_jax():
    code = (
        "import sys; from experiments.__main__ import main; main([]); print('jax' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_the_version(capsys):
    assert commands.main(["--version"]) == 0
    assert capsys.readouterr().out == f"mnist_jax {mnist_jax.__version__}\n"


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("trian", "There are run, evaluate"),
        ("runs", "Did you mean run"),
        ("raport", "Did you mean report"),
        ("--config", "There are run, evaluate"),
        ("benchmark.run", "Did you mean benchmarks.run"),
        ("", "There are run"),
    ],
)
def test_no_command(word, hint, capsys):
    assert commands.main([word]) == 2
    error, second = capsys.readouterr().err.splitlines()
    assert error == f"error: {word!r} is no command." and second.startswith(hint)


def test_a_command_has_its_flags_errors_and_exit_codes():
    code, output, error = call("run", "--list")
    assert code == 0 and error == "" and "\nensemble " in output
    code, output, error = call("predict", "--nonsense")
    assert code == 2 and output == "" and len(error.splitlines()) == 2
    assert error.startswith("error: ") and "python -m experiments.predict --help" in error


def test_the_installed_script():
    (script,) = entry_points(group="console_scripts", name="mnist-jax")
    assert script.load() is commands.main


def test_what_a_package_is_to_say_of_itself():
    """An index shows these; a machine reads which licence and which extras there are."""
    about = metadata("mnist_jax")
    assert about["License-Expression"] == "Apache-2.0"
    assert {"cuda", "tpu"} <= set(about.get_all("Provides-Extra"))
    requirements = " ".join(about.get_all("Requires-Dist")).replace('"', "'")
    assert "jax[cuda13]" in requirements and "jax[tpu]" in requirements
    package = Path(mnist_jax.__file__).parent
    assert (package / "py.typed").exists()
    assert "Apache License" in (package / "LICENSE").read_text()[:200]
