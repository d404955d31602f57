"""Measure mnist_jax and its peers on this machine's CPU: `python -m experiments.benchmarks.run`."""

import argparse
import json
import os
import platform
import signal
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.benchmarks import measure, peak
from experiments.benchmarks.sides import OURS, PEERS, SIDES, missing_packages
from experiments.benchmarks.workloads import DEFAULT, WORKLOADS
from experiments.console import cli
from experiments.workdir import records
from mnist_jax import data
from mnist_jax.data import Dataset

HELP = "See python -m experiments.benchmarks.run --help."
DISAGREE, INTERRUPTED, TERMINATED = 1, 130, 143
TEST_IMAGES = 10_000
QUICK_STEPS, QUICK_ROUNDS = 20, 3
QUICK_WORKLOADS = ("deep",)
QUICK_PEERS = ("torch", "keras_tf", "flax")


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code: 1 when a side computes something else."""
    options = parse(sys.argv[1:] if argv is None else argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))  # so that the sides end too
    try:
        return run(options)
    except KeyboardInterrupt:
        print("Interrupted; the tables above are whole.", file=sys.stderr)
        return INTERRUPTED


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line.

    Raises:
        SystemExit: code 2 with an error of two lines; code 0 after `--help`.
    """
    parser = cli.Parser(
        prog="python -m experiments.benchmarks.run",
        description="Measure mnist_jax and its peers side by side on this machine's CPU.",
        epilog="; ".join(f"{name}: {entry.title}" for name, entry in SIDES.items()),
    )
    parser.add_argument(
        "--workloads",
        metavar="A,B",
        help=f"of {', '.join(WORKLOADS)} (default: {', '.join(DEFAULT)}; fast needs all of MNIST)",
    )
    parser.add_argument(
        "--peers", metavar="A,B", help=f"of {', '.join(PEERS)}; or none (default: all installed)"
    )
    parser.add_argument("--rounds", type=int, metavar="N", help="turns of each side (default: 5)")
    add_output(parser)
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"two minutes, rough: {', '.join(QUICK_WORKLOADS)} with {', '.join(QUICK_PEERS)}",
    )
    options = parser.parse(argv)
    quick = options.quick
    options.workloads = _names(
        "--workloads", options.workloads, tuple(WORKLOADS), QUICK_WORKLOADS if quick else DEFAULT
    )
    if options.peers == "none":
        options.peers = []
    else:
        options.peers = _names("--peers", options.peers, PEERS, QUICK_PEERS if quick else PEERS)
    if options.rounds is None:
        options.rounds = QUICK_ROUNDS if quick else 5
    if options.rounds < 1:
        cli.fail(f"--rounds must be at least 1, not {options.rounds}.", HELP)
    check_output(options.output)
    return options


def add_output(parser: argparse.ArgumentParser) -> None:
    """The flag that `check_output` checks."""
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the results as JSON")


def check_output(file: Path | None) -> None:
    """See that the file can be written.

    Raises:
        SystemExit: code 2 with an error of two lines.
    """
    if file and (file.is_dir() or not file.parent.is_dir()):
        cli.fail(f"--output {file} cannot be written.", "Give a file in a folder there.")


def _names(flag: str, text: str | None, known: Sequence[str], default: Sequence[str]) -> list[str]:
    return list(default) if text is None else cli.names(flag, text, known)


def run(options: argparse.Namespace) -> int:
    """Measure what the options ask for, and print a table a workload."""
    dataset = _load_data()
    if "fast" in options.workloads and dataset.name != "mnist":
        cli.fail("--workloads fast needs all of MNIST.", "MNIST_JAX_DATA can name its folder.")
    left_out = {name: missing_packages(name) for name in options.peers}
    left_out = {name: packages for name, packages in left_out.items() if packages}
    sides = [OURS, *(name for name in options.peers if name not in left_out)]
    for name, packages in left_out.items():
        missing = " and ".join(packages)
        print(f"left out: {name}, since {missing} is not installed: pip install -e '.[bench]'")
    products = peak.measure()
    results: dict[str, Any] = {
        "machine": {
            "cpu": cpu_name(),
            "cores": len(os.sched_getaffinity(0)),
            "python": platform.python_version(),
        },
        "git_commit": records.git_commit(),
        "dataset": {"name": dataset.name, "source": dataset.source},
        "matrix_product_gflops": {name: round(value, 1) for name, value in products.items()},
        "not_installed": left_out,
        "workloads": [],
    }
    print(describe_machine(results), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "data.npz"
        _write_data(file, dataset)
        for name in options.workloads:
            result = measure.measure(
                name,
                sides,
                file,
                TEST_IMAGES,
                options.rounds,
                min(WORKLOADS[name].steps, QUICK_STEPS if options.quick else sys.maxsize),
                max(products.values()),
                say=lambda line: print(line, file=sys.stderr, flush=True),
            )
            results["workloads"].append(result)
            print("\n" + table(result), flush=True)
            if options.output:
                options.output.write_text(json.dumps(results, indent=2) + "\n")
    return DISAGREE if any(result["disagree"] for result in results["workloads"]) else 0


def _load_data() -> Dataset:
    try:
        with warnings.catch_warnings():  # the line on the data says it
            warnings.simplefilter("ignore", data.FallbackWarning)
            return data.load("auto", validation=0)
    except ValueError as error:
        message, _, hint = str(error).partition("\n")
        cli.fail(message, hint or HELP)


def _write_data(file: Path, dataset: Dataset) -> None:
    """Whole thousands of training images, for turns of whole chunks; test images repeated."""
    n = len(dataset.train.labels) // 1000 * 1000
    repeated = np.arange(TEST_IMAGES) % len(dataset.test.labels)
    np.savez(
        file,
        train_images=dataset.train.inputs[:n],
        train_labels=dataset.train.labels[:n],
        test_images=dataset.test.inputs[repeated],
        test_labels=dataset.test.labels[repeated],
    )


def cpu_name() -> str:
    """The processor's model where it can be had, else the architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def describe_machine(results: dict[str, Any]) -> str:
    """What the figures are to be read with, in two lines."""
    machine, products = results["machine"], results["matrix_product_gflops"]
    each = ", ".join(f"{name} {value:,.0f}" for name, value in products.items())
    return (
        f"{machine['cores']} cores of {machine['cpu']}; {results['dataset']['name']} "
        f"({results['dataset']['source']})\n"
        f"{peak.SIZE}-cubed float32 product, GFLOP/s: {each}; the best is the peak below"
    )


def table(result: dict[str, Any]) -> str:
    """A workload's table, with what was left out and whether the sides agree."""
    work = result["gflop_per_step"]
    title = f"{result['workload']}: {result['text']}" + (f"; {work:,.2f} GFLOP" if work else "")
    lines = [
        f"{title}; {result['rounds']} x {result['steps_per_turn']} steps each, in turns",
        f"{'side':<14}{'ms a step':>10}{'min':>10}{'max':>10}{'images/s':>10}{'/ ours':>8}"
        f"{'of peak':>9}{'start s':>9}{'MiB':>7}",
    ]
    for name, side in result["sides"].items():
        ms = side["ms_per_step"]
        ratio = f"{side['time_over_ours']:.2f}" if "time_over_ours" in side else "-"
        share = f"{side['share_of_peak']:.0%}" if "share_of_peak" in side else "-"
        lines.append(
            f"{name:<14}{ms['median']:>10,.1f}{ms['min']:>10,.1f}{ms['max']:>10,.1f}"
            f"{side['images_per_second']:>10,.0f}{ratio:>8}{share:>9}"
            f"{side['start_seconds']:>9.1f}{side['peak_memory_mib']:>7,}"
        )
    for name, side in result["sides"].items():
        if "accuracies" in side:
            accuracies = ", ".join(f"{accuracy:.2%}" for accuracy in side["accuracies"])
            lines.append(f"test accuracies of {name}: {accuracies}")
    lines += [f"left out: {name}: {reason}" for name, reason in result["left_out"].items()]
    lines += [
        f"error: {name} computes something else: {what}"
        for name, what in result["disagree"].items()
    ]
    checks = [side["check"] for side in result["sides"].values() if side["check"]]
    if len(checks) > 1 and not result["disagree"]:
        first, *later = np.ptp(checks, axis=0) / np.mean(checks, axis=0)
        line = (
            f"same weights, same images: loss {checks[0][0]:.6f}, at most {first:.0e} of it apart"
        )
        lines.append(line + (f"; in the next steps {max(later):.0e}" if later else ""))
    return "\n".join(lines)


if __name__ == "__main__":
    cli.call(main, prints_results=True)
