"""Trained members as one file for other programs: `python -m experiments.export WORKDIR ...`."""

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from experiments.console import cli

TARGETS = {
    "onnx": "for ONNX Runtime and others, opset 18",
    "stablehlo": "for JAX alone, on CPU, GPU and TPU, by jax.export",
    "safetensors": "the weights alone, for PyTorch, NumPy, ... and experiments.import",
    "html": "a page to draw on, for any browser, from disk",
}
_EPILOG = """\
examples:
  python -m experiments.export runs/ensemble --to onnx --output ensemble.onnx
  python -m experiments.export runs/deep --to stablehlo --output deep.stablehlo
  python -m experiments.export runs/ensemble --to safetensors --output third.safetensors --member 2
  python -m experiments.export runs/ensemble --to html --output ensemble.html

A model takes `images`, uint8 [n, height, width, channels] as trained on (digits: ink is 255),
`tokens`, int32 [n, length], or `planes` of Go, packed as mnist_jax.go.planes packs them, uint8
[n, size, size, 6], for any n. It gives `probabilities` [n, classes], the members' mean,
and `member_probabilities` [members, n, classes]. Scaling and normalisation are inside. Classes,
config, command, results and, of sentences, the vocabulary go with it: in the file, and beside a
StableHLO file as FILE.json.

A page of HTML computes by itself what the members say of a drawing, and shows their layers. It
holds simple, deep, layers, fast, lenet5 and convnetjs, of digits or letters in 28 x 28 grey pixels.
Its weights have 8 bits, as far as the accuracy on test images stays within 0.02 %.

exit codes: 0; 2 for a wrong command, and then nothing is written.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    given = _parse(sys.argv[1:] if argv is None else argv)
    warnings.showwarning = cli.show_warning
    with cli.importing_jax("Interrupted; nothing was written."):
        from experiments.interchange import exporter
    return exporter.run(given)


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = cli.Parser(
        prog="python -m experiments.export",
        description="Write a workdir's members as one model for other programs.",
        epilog=_EPILOG,
    )
    parser.add_argument(
        "workdir",
        type=cli.workdir,
        metavar="WORKDIR",
        help="of experiments.run; pretrained: the networks that come with the package",
    )
    targets = "; ".join(f"{name}: {text}" for name, text in TARGETS.items())
    parser.add_argument("--to", required=True, metavar="TARGET", help=targets)
    parser.add_argument(
        "--output", type=Path, required=True, metavar="FILE", help="one that does not exist yet"
    )
    parser.add_argument(
        "--member", type=int, metavar="I", help="only this one, from 0 (default: all)"
    )
    given = parser.parse(argv, {"--to": list(TARGETS)})
    if given.to not in TARGETS:
        cli.fail(f"--to {given.to} does not exist.", cli.nearest(given.to, list(TARGETS)))
    return given


if __name__ == "__main__":
    cli.call(main)
