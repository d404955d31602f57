"""Speed over devices and over processes: `python -m experiments.benchmarks.scaling`."""

import contextlib
import json
import os
import platform as python_platform
import signal
import socket
import subprocess
import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

from experiments.benchmarks import measure
from experiments.benchmarks.run import (
    INTERRUPTED,
    TERMINATED,
    add_output,
    check_output,
    cpu_name,
)
from experiments.benchmarks.scaling_worker import NETWORK
from experiments.benchmarks.worker import Worker, WorkerError
from experiments.benchmarks.workloads import BATCH
from experiments.console import cli
from experiments.workdir import records

MEMBERS = (1, 8)  # shared by all devices; several on each device
ROUNDS, QUICK_ROUNDS = 5, 3
_MEMBER_STEPS, _QUICK_MEMBER_STEPS = 160, 10  # of all members together, in a turn on a CPU
_CHUNK, _CHUNK_ACCELERATOR = 10, 110  # as in mnist_jax.loop


class Machine(NamedTuple):
    """What JAX finds here."""

    platform: str  # as JAX names it
    kind: str
    devices: int  # on a CPU: its cores
    cores: list[int]  # those this process may use; empty where the system does not tell


class Point(NamedTuple):
    """One thing to measure."""

    members: int
    devices: int  # of each process
    processes: int

    @property
    def name(self) -> str:
        """For people, and unique."""
        return f"{self.members} x {NETWORK}, devices {self.devices}, processes {self.processes}"


class Running:
    """A point's processes: they start, prepare and work together."""

    def __init__(self, point: Point, machine: Machine) -> None:
        self._stack = ExitStack()
        with socket.socket() as free:
            free.bind(("localhost", 0))
            coordinator = f"localhost:{free.getsockname()[1]}"
        self._workers = []
        for i in range(point.processes):
            arguments = [*map(str, (*point, i)), coordinator]
            cores = machine.cores[i * point.devices : (i + 1) * point.devices]
            with on_cores(cores if machine.platform == "cpu" else []):
                worker = Worker(
                    "experiments.benchmarks.scaling_worker",
                    arguments,
                    environment(point, machine.platform, i),
                )
            self._workers.append(self._stack.enter_context(worker))

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def prepare(self, steps: int) -> None:
        """Connect, compile and train for some steps.

        Raises:
            WorkerError: one of the processes failed.
        """
        self._ask_all("prepare", steps)

    def run(self, steps: int) -> dict[str, Any]:
        """Train; `seconds` are those of the slowest process.

        Raises:
            WorkerError: one of the processes failed.
        """
        return {"seconds": max(answer["seconds"] for answer in self._ask_all("run", steps))}

    def _ask_all(self, request: str, steps: int) -> list[dict[str, Any]]:
        for worker in self._workers:
            worker.send(request, steps=steps)
        return [worker.receive() for worker in self._workers]


@contextlib.contextmanager
def on_cores(cores: list[int]) -> Iterator[None]:
    """Start processes on these cores only; anywhere if there are none, or the system cannot."""
    if not cores:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)  # a process inherits it
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def environment(point: Point, platform: str, process: int) -> dict[str, str]:
    """A process's: only a CPU where only that is measured, a GPU of its own among several."""
    if platform == "cpu":
        return {"JAX_PLATFORMS": "cpu"}
    # The processes of all points hold memory of the same GPUs.
    shared = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    if point.processes == 1:
        return shared
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return shared | {
        "CUDA_VISIBLE_DEVICES": visible.split(",")[process] if visible else f"{process}"
    }


def counts(most: int) -> list[int]:
    """1, 2, 4, ... and `most`."""
    powers = [2**i for i in range(most.bit_length())]
    return [n for n in powers if n < most] + [most]


def points(machine: Machine, members: int, quick: bool) -> list[Point]:
    """Those that are compared with each other; the first is the one they are compared to."""
    several = [n for n in counts(machine.devices) if n > 1]
    if quick:
        several = several[-1:]
    found = [Point(members, n, 1) for n in [1, *several]]
    if machine.platform in ("cpu", "gpu"):  # a TPU's chips cannot be divided by one variable
        found += [Point(members, 1, n) for n in several]
    return found


def turn_steps(platform: str, members: int, quick: bool) -> int:
    """Whole chunks of `loop.train`; about as much work for few members as for many."""
    steps = (_QUICK_MEMBER_STEPS if quick else _MEMBER_STEPS) // members
    if platform != "cpu":
        return _CHUNK_ACCELERATOR * max(1, steps // _CHUNK)
    return _CHUNK * max(1, steps // _CHUNK)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = parse(sys.argv[1:] if argv is None else argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))  # so that the workers end too
    try:
        run(options)
    except KeyboardInterrupt:
        print("Interrupted; the tables above are whole.", file=sys.stderr)
        return INTERRUPTED
    return 0


def parse(argv: Sequence[str]) -> Namespace:
    """Read the command line.

    Raises:
        SystemExit: code 2 with an error of two lines; code 0 after `--help`.
    """
    parser = cli.Parser(
        prog="python -m experiments.benchmarks.scaling",
        description=f"Measure the training of {NETWORK}, batches of {BATCH}, for 1 member that "
        "all devices share and for 8 members side by side, over devices and over processes.",
    )
    add_output(parser)
    parser.add_argument(
        "--quick", action="store_true", help="rough: one device and all of them, short turns"
    )
    options = parser.parse(argv)
    check_output(options.output)
    return options


def run(options: Namespace) -> None:
    """Measure all points, and print a table for each number of members."""
    machine = find_machine()
    results: dict[str, Any] = {
        "platform": machine.platform,
        "kind": machine.kind,
        "cpu": cpu_name(),
        "devices": machine.devices,
        "pinned": machine.platform == "cpu" and bool(machine.cores),
        "python": python_platform.python_version(),
        "git_commit": records.git_commit(),
        "tables": [],
    }
    pinned = ", each process pinned to as many cores" if results["pinned"] else ""
    print(f"{machine.devices} devices: {machine.kind}{pinned}", flush=True)
    for members in MEMBERS:
        result = measure_points(
            points(machine, members, options.quick),
            machine,
            QUICK_ROUNDS if options.quick else ROUNDS,
            turn_steps(machine.platform, members, options.quick),
        )
        results["tables"].append(result)
        print("\n" + table(result), flush=True)
        if options.output:
            options.output.write_text(json.dumps(results, indent=2) + "\n")


def find_machine() -> Machine:
    """Ask JAX in another process, since a process that asks holds the devices.

    Raises:
        SystemExit: code 2 with an error of two lines, where JAX does not start.
    """
    question = "import jax; d = jax.devices(); print(d[0].platform, len(d), d[0].device_kind)"
    done = subprocess.run([sys.executable, "-c", question], capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it gives no reason"])[-1]
        cli.fail(f"JAX finds no device: {last}", "JAX_PLATFORMS=cpu takes the CPU.")
    platform, count, kind = done.stdout.split(maxsplit=2)
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if platform == "cpu":
        return Machine(platform, f"cores of {cpu_name()}", len(cores) or os.cpu_count() or 1, cores)
    return Machine(platform, kind.strip(), int(count), cores)


def measure_points(
    wanted: list[Point], machine: Machine, rounds: int, steps: int
) -> dict[str, Any]:
    """Let the points take turns; the record for the table and the JSON file."""
    members = wanted[0].members
    left_out: dict[str, str] = {}
    with ExitStack() as stack:
        running: dict[str, Running] = {}
        for point in wanted:
            say(f"starting {point.name}")
            candidate = stack.enter_context(Running(point, machine))
            try:
                candidate.prepare(_CHUNK if machine.platform == "cpu" else _CHUNK_ACCELERATOR)
            except WorkerError as error:
                left_out[point.name] = str(error)
                candidate.__exit__()
                continue
            running[point.name] = candidate
        turns = measure.interleave(running, rounds, steps, left_out, say)
    measured = [
        point._asdict() | measure.summarise(turns[point.name], steps, members * BATCH)
        for point in wanted
        if point.name in turns
    ]
    return {
        "members": members,
        "rounds": rounds,
        "steps_per_turn": steps,
        "points": add_efficiency(measured),
        "left_out": left_out,
    }


def add_efficiency(measured: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add each point's speed over that of one device, and that over the number of devices.

    Both are None where one device was not measured.
    """
    alone = [
        point["images_per_second"]
        for point in measured
        if point["devices"] == point["processes"] == 1
    ]
    found = []
    for point in measured:
        speedup = point["images_per_second"] / alone[0] if alone else None
        efficiency = speedup / (point["devices"] * point["processes"]) if speedup else None
        found.append(point | {"speedup": speedup, "efficiency": efficiency})
    return found


def table(result: dict[str, Any]) -> str:
    """The table of one number of members, and what was left out."""
    sharing = "all devices share each batch" if result["members"] == 1 else "side by side"
    lines = [
        f"{result['members']} x {NETWORK}, {sharing}; batches of {BATCH}; "
        f"{result['rounds']} x {result['steps_per_turn']} steps each, in turns",
        f"{'devices':>9}{'processes':>11}{'ms a step':>11}{'min':>9}{'max':>9}{'images/s':>10}"
        f"{'speedup':>9}{'efficiency':>12}",
    ]
    for point in result["points"]:
        ms = point["ms_per_step"]
        compared = f"{'-':>9}{'-':>12}"
        if point["efficiency"] is not None:
            compared = f"{point['speedup']:>9.2f}{point['efficiency']:>12.0%}"
        lines.append(
            f"{point['devices'] * point['processes']:>9}{point['processes']:>11}"
            f"{ms['median']:>11,.2f}{ms['min']:>9,.2f}{ms['max']:>9,.2f}"
            f"{point['images_per_second']:>10,.0f}{compared}"
        )
    return "\n".join(
        lines + [f"left out: {name}: {reason}" for name, reason in result["left_out"].items()]
    )


def say(line: str) -> None:
    """A line of progress on stderr."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    cli.call(main, prints_results=True)
