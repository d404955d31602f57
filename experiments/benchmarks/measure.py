"""Measuring one workload: start its sides, check that they agree, let them take turns."""

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any, Protocol

from experiments.benchmarks.sides import OURS
from experiments.benchmarks.worker import CPU_ONLY, FIRST_STEPS, Worker, WorkerError, start_side
from experiments.benchmarks.workloads import WORKLOADS, step_work

PAUSE = 0.3  # seconds before each turn, in which the threads of the last one fall asleep
TOLERANCE = 1e-4  # relative, of the first loss; the same function in another order of sums
# Of the losses after a step or two. Adam divides by the gradient's size, so that the rounding of a
# tiny gradient counts in full; and Keras adds epsilon before the bias correction.
LATER_TOLERANCE = 1e-2

Say = Callable[[str], None]


class Runs(Protocol):
    """What takes turns: a `Worker`."""

    def run(self, steps: int) -> dict[str, Any]: ...


def measure(
    workload_name: str,
    sides: list[str],
    data: Path,
    test_images: int,
    rounds: int,
    steps: int,
    peak_gflops: float | None,
    say: Say,
    *,
    environment: Mapping[str, str] = CPU_ONLY,
    first_steps: int = FIRST_STEPS,
    tolerance: float = TOLERANCE,
) -> dict[str, Any]:
    """Measure one workload; the record of it for the table and the JSON file.

    Args:
        sides: names in `sides.SIDES`, all installed.
        data: an `.npz` file of `train_images`, `train_labels`, `test_images`, `test_labels`.
        test_images: how many it has.
        rounds: turns of each side.
        steps: of a turn.
        peak_gflops: the machine's, to say each side's share of it; None where it is not known.
        say: is given a line of progress now and then.
        environment: of the sides' processes.
        first_steps: of training before the first turn, to compile.
        tolerance: as in `disagreements`.
    """
    workload = WORKLOADS[workload_name]
    images, flop = step_work(workload_name, test_images)
    left_out: dict[str, str] = {}
    records: dict[str, dict[str, Any]] = {}
    with ExitStack() as stack:
        workers: dict[str, Worker] = {}
        for name in sides:
            say(f"{workload_name}: starting {name}")
            started = time.perf_counter()
            worker = stack.enter_context(start_side(name, workload_name, data, environment))
            try:
                worker.ask("prepare", steps=first_steps)
                start_seconds = time.perf_counter() - started
                values = worker.ask("check")["values"]
            except WorkerError as error:
                left_out[name] = str(error)
                worker.close()
                continue
            workers[name] = worker
            records[name] = {"start_seconds": round(start_seconds, 2), "check": values}
        for name, turns in interleave(workers, rounds, steps, left_out, say).items():
            records[name] |= summarise(turns, steps, images, flop, peak_gflops)
            records[name] |= workers[name].ask("describe")
    records = {name: record for name, record in records.items() if name not in left_out}
    if OURS in records:
        for record in records.values():
            ratio = record["ms_per_step"]["median"] / records[OURS]["ms_per_step"]["median"]
            record["time_over_ours"] = round(ratio, 3)
    return {
        "workload": workload_name,
        "text": workload.text,
        "steps_per_turn": steps,
        "rounds": rounds,
        "images_per_step": images,
        "gflop_per_step": None if flop is None else round(flop / 1e9, 3),
        "sides": records,
        "left_out": left_out,
        "disagree": disagreements(
            {name: record["check"] for name, record in records.items()}, tolerance
        ),
    }


def interleave(
    workers: Mapping[str, Runs],
    rounds: int,
    steps: int,
    left_out: dict[str, str],
    say: Say,
    pause: float = PAUSE,
) -> dict[str, list[dict[str, Any]]]:
    """Let the workers take turns, A B C A B C ...; all their answers.

    A worker that fails moves to `left_out`, with what it said.
    """
    turns: dict[str, list[dict[str, Any]]] = {name: [] for name in workers}
    for i in range(rounds):
        say(f"round {i + 1} of {rounds}")
        for name, worker in workers.items():
            if name in left_out:
                continue
            time.sleep(pause)
            try:
                turns[name].append(worker.run(steps))
            except WorkerError as error:
                left_out[name] = str(error)
    return {name: answers for name, answers in turns.items() if name not in left_out}


def take_turns(
    run: Callable[[int], object], turns: int, seconds: float
) -> tuple[list[dict[str, Any]], int]:
    """Time something alone: its turns, and the steps of each, of about so many seconds.

    `run` does some steps, and returns when they are done.
    """

    def timed(steps: int) -> float:
        started = time.perf_counter()
        run(steps)
        return time.perf_counter() - started

    run(1)  # compiles
    steps, taken = 1, timed(1)
    while taken < seconds / 10:
        steps *= 4
        taken = timed(steps)
    steps = max(1, round(steps * seconds / taken))
    return [{"seconds": timed(steps)} for _ in range(turns)], steps


def summarise(
    turns: list[dict[str, Any]],
    steps: int,
    images: int,
    flop: int | None = None,
    peak_gflops: float | None = None,
) -> dict[str, Any]:
    """Median, minimum and maximum of the turns; rates by the median."""
    seconds = [turn["seconds"] / steps for turn in turns]
    middle = median(seconds)
    summary: dict[str, Any] = {
        "ms_per_step": {
            "median": round(1000 * middle, 3),
            "min": round(1000 * min(seconds), 3),
            "max": round(1000 * max(seconds), 3),
        },
        "images_per_second": round(images / middle, 1),
    }
    if flop is not None and peak_gflops is not None:
        summary["share_of_peak"] = round(flop / middle / 1e9 / peak_gflops, 4)
    if "accuracy" in turns[0]:
        summary["accuracies"] = [turn["accuracy"] for turn in turns]
    return summary


def disagreements(
    checks: Mapping[str, list[float]], tolerance: float = TOLERANCE
) -> dict[str, str]:
    """The sides that do not compute what the first one does, with a line that says it.

    `tolerance` is relative and of the first loss; that of later ones is `LATER_TOLERANCE`, or
    `tolerance` where that is larger.
    """
    later = max(tolerance, LATER_TOLERANCE)
    found: dict[str, str] = {}
    (first, wanted), *others = checks.items() if checks else [("", [])]
    for name, values in others:
        for i, (value, want) in enumerate(zip(values, wanted, strict=True)):
            if not abs(value - want) <= (later if i else tolerance) * abs(want):
                found[name] = f"loss {value:.6f} in step {i + 1}, where {first} has {want:.6f}"
                break
    return found
