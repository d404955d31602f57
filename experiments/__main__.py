"""All commands under one name: `mnist-jax run --config deep` is `python -m experiments.run ...`."""

import runpy
import shutil
import sys
import textwrap
from collections.abc import Sequence
from importlib.metadata import version

from experiments.console import terminal

COMMANDS = {
    "run": "train a network, or an ensemble of them, and test it",
    "evaluate": "judge a run's members, alone and together: accuracy, calibration, uncertainty",
    "live": "watch a network train in the browser, and draw digits for it",
    "report": "write one HTML page about runs",
    "predict": "tell the digits on pictures, the classes of sentences, or likely moves of Go",
    "inspect": "show a network layer by layer",
    "gtp": "play Go, for programs that speak GTP",
    "match": "play Go against GNU Go, or another program, and count",
    "export": "write a run's members as ONNX, StableHLO, safetensors or a page to draw on",
    "bundle": "make a small folder of a run, with the weights alone",
    "import": "make a workdir of such a safetensors file, or of PyTorch's weights",
    "benchmarks.run": "train and predict beside other frameworks",
    "benchmarks.sentences": "train ten folds of Kim's CNN beside PyTorch",
    "benchmarks.scaling": "measure by number of devices and processes",
    "benchmarks.gpu": "check and measure one NVIDIA GPU",
    "benchmarks.tpu": "compile for TPUs, without one: operations, bytes, memory, time",
    "benchmarks.exports": "compare what exported files predict, weigh and take",
    "benchmarks.first_minute": "measure a run's start, phase by phase",
}
_WIDE = 1000  # characters a line, for who does not say how many he has room for
_MORE = (
    "mnist-jax COMMAND --help tells more of one, mnist-jax --version which version this is.",
    "mnist-jax COMMAND and python -m experiments.COMMAND are the same.",
)


def main(argv: Sequence[str] | None = None) -> int:
    """List the commands, or become one of them.

    JAX is first imported by the command, so that the list is there at once.

    Returns:
        The exit code; a command ends with its own by SystemExit.
    """
    name, *rest = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in COMMANDS:
        sys.argv[1:] = rest
        runpy.run_module(f"experiments.{name}", run_name="__main__", alter_sys=True)
        return 0
    terminal.protect()
    if name in ("-h", "--help"):
        print(_usage(shutil.get_terminal_size(fallback=(_WIDE, 0)).columns))
    elif name == "--version":
        print(f"mnist_jax {version('mnist_jax')}")
    else:
        from experiments.console import cli  # the list need not wait for what it imports

        print(
            f"error: {name!r} is no command.\n{cli.nearest(name, list(COMMANDS))}", file=sys.stderr
        )
        return 2
    return 0


def _usage(width: int) -> str:
    """How to call this and what there is, in lines of a width where words allow it."""
    column = 27 if width >= 60 else 6
    listed = [
        textwrap.fill(text, width, initial_indent=f"  {name:23}  ", subsequent_indent=" " * column)
        for name, text in COMMANDS.items()
    ]
    more = [textwrap.fill(line, width) for line in _MORE]
    return "\n".join(["usage: mnist-jax COMMAND ...", "", *listed, "", *more])


if __name__ == "__main__":
    sys.exit(main())
