"""What `experiments.export` does once JAX is imported."""

import argparse
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from experiments.console import cli
from experiments.interchange import files, model
from experiments.interchange.model import Model
from experiments.workdir import trained
from mnist_jax.checkpoints import CheckpointError

_HINT = "See python -m experiments.export --help."


def run(given: argparse.Namespace) -> int:
    """Do what the command line asks for; returns the exit code.

    Raises:
        SystemExit: code 2, with an error of two lines on stderr, for what is wrong with it.
    """
    try:
        files.check_new(given.output)
        write = _writer(given.to)
        cli.start_jax()
        exported = model.make(trained.load(given.workdir), given.member)
        said = write(exported, given.output)
    except (ValueError, CheckpointError) as error:
        message, _, hint = str(error).partition("\n")
        cli.fail(message, hint or _HINT)
    except KeyboardInterrupt:
        print("Interrupted; nothing was written.", file=sys.stderr)
        return cli.INTERRUPTED
    names = ", ".join(member.name for member in exported.members)
    print(f"{given.output}: {names}, {given.output.stat().st_size / 1e6:.1f} MB")
    print(f"{said}.")
    if given.to in ("onnx", "stablehlo"):
        print(f"It takes {exported.input.describe()} and gives {' and '.join(model.OUTPUTS)}.")
    return 0


def _writer(target: str) -> Callable[[Model, Path], str]:
    """The function that writes a file for the target.

    Raises:
        ValueError: a package that it needs is not installed.
    """
    try:
        return import_module(f"experiments.interchange.{target}_file").write
    except ModuleNotFoundError as error:
        raise ValueError(
            f"--to {target} needs the package {error.name}, which is not installed.\n"
            "pip install 'mnist_jax[export]' brings it."
        ) from None
