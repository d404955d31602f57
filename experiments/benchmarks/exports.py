"""What exported models differ, weigh and take: `python -m experiments.benchmarks.exports WORKDIR`.

Of each workdir a row a target: the largest difference of a probability to this package's own
prediction, of members and combined, over the test inputs; the file's size; milliseconds for 100
inputs on all cores, beside ours; and seconds to export.
"""

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from experiments.console import cli
from mnist_jax.data import DataUnavailable

_TARGETS = ("onnx", "stablehlo", "safetensors")
_BATCH = 100
_ROUNDS = 3

Run = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]  # inputs to a model's two outputs


class Row(NamedTuple):
    """Of one target."""

    target: str
    difference: float | None  # None: weights alone
    megabytes: float
    milliseconds: float | None
    seconds: float


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    given = _parser().parse(sys.argv[1:] if argv is None else argv)
    with cli.importing_jax("Interrupted."):
        from experiments.workdir import trained
    cli.start_jax()
    for workdir in given.workdirs:
        try:
            loaded = trained.load(workdir)
        except ValueError as error:
            cli.fail(str(error), "WORKDIR is a folder that python -m experiments.run has made.")
        _show(workdir, loaded, given.inputs)
    return 0


def _parser() -> cli.Parser:
    parser = cli.Parser(
        prog="python -m experiments.benchmarks.exports",
        description="Export workdirs to all targets, and compare what the files predict.",
    )
    parser.add_argument("workdirs", type=cli.workdir, nargs="+", metavar="WORKDIR")
    parser.add_argument(
        "--inputs", type=int, metavar="N", help="test inputs to compare (default: all)"
    )
    return parser


def _show(workdir: epath.Path, loaded: Any, count: int | None) -> None:
    """Print a workdir's rows."""
    from experiments.interchange import model

    inputs, what = _inputs(loaded)
    inputs = inputs[:count]
    ours, milliseconds = _ours(loaded, inputs)
    names = ", ".join(member.name for member in loaded.members)
    print(f"{workdir}: {names}; {len(inputs):,} {what}; ours {milliseconds:.1f} ms / {_BATCH}")
    exported = model.make(loaded, None)
    with tempfile.TemporaryDirectory() as folder:
        for target in _TARGETS:
            row = _measure(exported, target, Path(folder) / target, inputs, ours)
            difference = "-" if row.difference is None else f"{row.difference:.1e}"
            took = "-" if row.milliseconds is None else f"{row.milliseconds:.1f}"
            print(
                f"  {row.target:12} difference {difference:>8}  {row.megabytes:7.2f} MB"
                f"  {took:>7} ms / {_BATCH}  exported in {row.seconds:.1f} s",
                flush=True,
            )


def _inputs(loaded: Any) -> tuple[np.ndarray, str]:
    """The test inputs; where they cannot be had, drawn ones."""
    from experiments.workdir import trained

    try:
        return trained.load_dataset(loaded).test.inputs, "test inputs"
    except (ValueError, DataUnavailable):
        rng = np.random.default_rng(0)
        if loaded.trained_on.vocabulary:
            words = len(loaded.trained_on.vocabulary)
            tokens = rng.integers(0, words, (_BATCH, *loaded.image_shape))
            return tokens.astype(np.int32), "drawn inputs"
        pixels = rng.integers(0, 256, (_BATCH, *loaded.image_shape))
        return pixels.astype(np.uint8), "drawn inputs"


def _ours(loaded: Any, inputs: np.ndarray) -> tuple[tuple[np.ndarray, np.ndarray], float]:
    """The two outputs by this package, and milliseconds for a batch."""
    import jax

    from mnist_jax import ensemble

    def run(inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        logits = loaded.predict(inputs)
        combined = np.exp(ensemble.mean_probability(logits))
        return combined, np.asarray(jax.nn.softmax(logits))

    return run(inputs), _milliseconds(run, inputs)


def _measure(
    exported: Any, target: str, path: Path, inputs: np.ndarray, ours: tuple[np.ndarray, np.ndarray]
) -> Row:
    start = time.perf_counter()
    import_module(f"experiments.interchange.{target}_file").write(exported, path)
    seconds = time.perf_counter() - start
    megabytes = path.stat().st_size / 1e6
    if target == "safetensors":
        return Row(target, None, megabytes, None, seconds)
    run = (_run_onnx if target == "onnx" else _run_stablehlo)(path)
    batches = [run(inputs[i : i + _BATCH]) for i in range(0, len(inputs), _BATCH)]
    combined = np.concatenate([batch[0] for batch in batches])
    members = np.concatenate([batch[1] for batch in batches], axis=1)
    difference = max(abs(combined - ours[0]).max(), abs(members - ours[1]).max())
    return Row(target, float(difference), megabytes, _milliseconds(run, inputs), seconds)


def _run_onnx(path: Path) -> Run:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (input_,) = session.get_inputs()
    return lambda inputs: tuple(session.run(None, {input_.name: inputs}))


def _run_stablehlo(path: Path) -> Run:
    import jax
    from jax import export

    call = jax.jit(export.deserialize(bytearray(path.read_bytes())).call)

    def run(inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        combined, members = call(inputs)
        return np.asarray(combined), np.asarray(members)

    return run


def _milliseconds(run: Callable[[np.ndarray], Any], inputs: np.ndarray) -> float:
    """For a batch, of as many as there are up to ten: the least of some rounds."""
    some = inputs[: 10 * _BATCH]
    batches = [some[i : i + _BATCH] for i in range(0, len(some), _BATCH)]
    whole = len(some) / _BATCH
    least = float("inf")
    for _ in range(_ROUNDS + 1):  # the first compiles
        start = time.perf_counter()
        for batch in batches:
            run(batch)
        least = min(least, time.perf_counter() - start)
    return 1000 * least / whole


if __name__ == "__main__":
    cli.call(main, prints_results=True)
