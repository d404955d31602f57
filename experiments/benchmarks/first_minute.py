"""A run's first steps, phase by phase: `python -m experiments.benchmarks.first_minute`."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from experiments.benchmarks.run import cpu_name
from experiments.console import cli
from experiments.workdir import config as configs

_CONFIGS = ("deep", "ensemble")
_STARTS = ("cold", "warm")
_AFTER = ("validation", "evaluation", "closing")  # phases that come after the first steps


class Start(NamedTuple):
    """What the first ten steps took."""

    seconds: dict[str, float]  # by phase
    cpu_seconds: float  # of all processes, compilers included
    load: float  # of the machine, in the minute before the end


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = cli.Parser(
        prog="python -m experiments.benchmarks.first_minute",
        description="Measure where the time goes from a run's start to its first ten steps: cold, "
        "with no kernels and no compiled programs of an earlier run, and warm, with them.",
    )
    parser.add_argument(
        "--configs",
        metavar="A,B",
        default=",".join(_CONFIGS),
        help=f"(default: {','.join(_CONFIGS)})",
    )
    names = parser.parse(sys.argv[1:] if argv is None else argv).configs.split(",")
    for name in names:
        if name not in configs.names():
            cli.fail(f"--configs {name} does not exist.", cli.nearest(name, configs.names()))
    print(f"{len(os.sched_getaffinity(0))} cores of {cpu_name()}", flush=True)
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            print("\n" + table(name, {kind: start(name, Path(folder), kind) for kind in _STARTS}))
    return 0


def start(name: str, folder: Path, kind: str) -> Start:
    """Start a run with a cache in the folder, and interrupt it after ten steps.

    Args:
        name: of a ready config.
        kind: names the run's own folder.

    Raises:
        SystemExit: the run failed; it has said why.
    """
    workdir = folder / kind
    environment = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    process = subprocess.Popen(
        [sys.executable, "-m", "experiments.run", "--config", name, "--workdir", str(workdir)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment | {"XDG_CACHE_HOME": str(folder)},
    )
    cpu_seconds, load = 0.0, 0.0
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("Compiling"):
            process.send_signal(signal.SIGINT)  # heard after the first chunk, of ten steps
        elif line.startswith("Interrupted"):
            cpu_seconds, load = _cpu_seconds(process.pid), os.getloadavg()[0]
    if process.wait() != cli.INTERRUPTED:
        sys.exit(process.returncode or 1)
    results = json.loads((workdir / "results.json").read_text())
    return Start(results["seconds"], cpu_seconds, load)


def _cpu_seconds(process_id: int) -> float:
    """User and system, of a process and of those that it has waited for; NaN outside of Linux."""
    try:
        fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return float("nan")
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def table(name: str, starts: dict[str, Start]) -> str:
    """A column a start, a line a phase; the phases up to the first steps add up."""

    def line(what: str, values: Sequence[float]) -> str:
        return f"{what:<24}" + "".join(f"{value:>8.1f}" for value in values)

    phases = [phase for phase in next(iter(starts.values())).seconds if phase not in _AFTER]
    by_phase = [[start.seconds[phase] for start in starts.values()] for phase in phases]
    totals = [sum(values) for values in zip(*by_phase, strict=True)]
    return "\n".join(
        [
            f"{name + ', seconds':<24}" + "".join(f"{kind:>8}" for kind in starts),
            *(
                line(phase.replace("_", " "), values)
                for phase, values in zip(phases, by_phase, strict=True)
            ),
            line("first 10 steps done at", totals),
            line("of all cores", [start.cpu_seconds for start in starts.values()]),
            line("load of the machine", [start.load for start in starts.values()]),
        ]
    )


if __name__ == "__main__":
    cli.call(main, prints_results=True)
