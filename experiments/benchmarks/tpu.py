"""What a TPU would have to do, found without one: `python -m experiments.benchmarks.tpu`.

XLA's compiler for TPUs comes with `libtpu` and needs no TPU. It says how many operations and bytes
a program takes, and how much memory. Nothing is run, so the times are not measured: they are what
the chip needs at the least, by its published speeds.
"""

import functools
import importlib.metadata
import importlib.util
import json
import math
import os
import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from jax.experimental import topologies

from experiments.benchmarks.run import INTERRUPTED, add_output, check_output
from experiments.benchmarks.scaling import say
from experiments.benchmarks.workloads import BATCH, LEARNING_RATE
from experiments.console import cli
from experiments.workdir import records
from mnist_jax import ensemble, models, parallel, training
from mnist_jax.parallel import Layout

HELP = "See python -m experiments.benchmarks.tpu --help."
TOPOLOGIES = ("v5e:1x1", "v5e:2x2", "v5e:4x4", "v6e:1x1", "v6e:2x2", "v6e:4x4")
TASKS = ("train", "predict")
_IMAGE = (28, 28, 1)
_TRAINING_SET = (55_000, *_IMAGE)
_CHUNK = 110  # steps, as in mnist_jax.loop
_RESERVED = 1e9  # bytes of a chip's memory, for programs and for what lies there besides
# Without these libtpu looks for the TPU, for what a cloud machine's neighbours would tell it, and
# for another process that has loaded it, which only matters where there is a TPU.
_NO_TPU = {
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
}

Task = Literal["train", "predict"]


class Chip(NamedTuple):
    """A chip as Google publishes it."""

    flops: float  # a second, of bfloat16 products, which float32's are by default
    bandwidth: float  # of its memory, bytes a second
    memory: float  # bytes


# cloud.google.com/tpu/docs/v5e and cloud.google.com/tpu/docs/v6e
CHIPS = {"v5e": Chip(197e12, 819e9, 16e9), "v6e": Chip(918e12, 1638e9, 32e9)}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = parse(sys.argv[1:] if argv is None else argv)
    check_compiler()
    try:
        return run(options)
    except KeyboardInterrupt:
        print("Interrupted; the lines above are whole.", file=sys.stderr)
        return INTERRUPTED


def parse(argv: Sequence[str]) -> Namespace:
    """Read the command line.

    Raises:
        SystemExit: code 2 with an error of two lines; code 0 after `--help`.
    """
    parser = cli.Parser(
        prog="python -m experiments.benchmarks.tpu",
        description="Compile training and prediction for TPUs, without one: half a minute each.",
    )
    lists = {"networks": models.LABS, "tasks": TASKS, "topologies": TOPOLOGIES}
    for flag, names in lists.items():
        choices = f"of {', '.join(names)} (default: all)"
        parser.add_argument(f"--{flag}", metavar="A,B", default=",".join(names), help=choices)
    parser.add_argument(
        "--members", type=int, metavar="N", help="on all chips together (default: one a chip)"
    )
    add_output(parser)
    options = parser.parse(argv)
    for flag, names in lists.items():
        setattr(options, flag, cli.names(f"--{flag}", getattr(options, flag), names))
    if options.members is not None and options.members < 1:
        cli.fail(f"--members must be at least 1, not {options.members}.", HELP)
    check_output(options.output)
    return options


def check_compiler() -> None:
    """See that there is a compiler for TPUs, and keep it from looking for a TPU.

    Raises:
        SystemExit: code 2 with an error of two lines.
    """
    if importlib.util.find_spec("libtpu") is None:
        cli.fail(
            "libtpu is not installed, and with it the compiler for TPUs.",
            f"pip install 'jax[tpu]=={jax.__version__}' brings it; no TPU is needed.",
        )
    os.environ.update(_NO_TPU)
    jax.config.update("jax_platforms", "cpu")


def run(options: Namespace) -> int:
    """Compile case by case, and print a line of each."""
    results: dict[str, Any] = {"environment": describe(), "rows": [], "left_out": {}}
    print("\n".join(f"{name}: {value}" for name, value in results["environment"].items()))
    print("\n" + "\n".join(HEADER), flush=True)
    cases = [
        (topology, task, network)
        for topology in options.topologies
        for task in options.tasks
        for network in options.networks
    ]
    for topology, task, network in cases:
        members = options.members or len(devices(topology))
        name = f"{members} x {network}, {task}, {topology}"
        say(f"{name} ...")
        try:
            row = compile_case(network, task, topology, members)
        except jax.errors.JaxRuntimeError as error:  # out of memory, say
            reason = str(error).partition("\n")[0]
            results["left_out"][name] = reason
            print(f"left out: {name}: {reason}", flush=True)
        else:
            results["rows"].append(row)
            print(line(row), flush=True)
        if options.output:
            options.output.write_text(json.dumps(results, indent=2) + "\n")
    return 0


def describe() -> dict[str, str]:
    """The versions: another compiler makes another program."""
    packages = ("jax", "jaxlib", "libtpu", "flax", "optax")
    return {
        "versions": ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages),
        "commit": records.git_commit() or "unknown",
    }


def devices(topology: str) -> list[Any]:
    """The chips of a topology such as `v5e:2x2`, which need not exist."""
    sides = tuple(int(side) for side in topology.partition(":")[2].split("x"))
    # All chips of one host: what they compute is the same, and one process lowers for them.
    described = topologies.get_topology_desc(topology, "tpu", chips_per_host_bounds=(*sides, 1))
    return list(described.devices)


def compile_case(network_name: str, task: Task, topology: str, members: int) -> dict[str, Any]:
    """Compile one program; what it takes, as `count` has it, and the seconds that compiling took.

    It is the package's own: a chunk of training, or the prediction of many images.
    """
    layout = parallel.plan(members, devices(topology))
    network = models.create(network_name)
    optimizer = training.make_optimizer(LEARNING_RATE, _CHUNK)
    started = time.monotonic()
    if task == "train":
        lowered = parallel.lower_train(layout, network, optimizer, _TRAINING_SET, BATCH, _CHUNK)
    else:
        lowered = parallel.lower_predict(layout, network, _IMAGE)
    compiled = lowered.compile()
    seconds = round(time.monotonic() - started, 1)
    init = functools.partial(ensemble.init_state, network, optimizer)
    state = jax.eval_shape(init, np.zeros(1, np.uint32))
    of_member = sum(
        leaf.size * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(state if task == "train" else training.evaluated(state))
    )
    chip = CHIPS[topology.partition(":")[0]]
    case = {"network": network_name, "task": task, "topology": topology, "members": members}
    return case | count(compiled, layout, chip, of_member) | {"compile_seconds": seconds}


def count(compiled: Any, layout: Layout, chip: Chip, of_member: int) -> dict[str, Any]:
    """What a program takes of one chip.

    XLA's compiler counts what is in a loop once, and a chip's members and their steps are loops. So
    `gflop` and `gbyte` are of one member's step, or of one batch that it predicts, together with
    what is done once a program. Bytes to and from the chip's own fast memory (VMEM) count as well:
    for both reasons they are too many rather than too few.

    Args:
        of_member: bytes that lie on the chip for each member, from one program to the next.

    Returns:
        Also `mbyte`, the chip's memory that the program needs; `fitting`, how many members a chip
        holds; and of a step of all members of a chip the roofline's `ms`, and what it is `bound`
        by (Williams et al. 2009).
    """
    cost, memory = compiled.cost_analysis(), compiled.memory_analysis()
    flop, byte = cost["flops"], cost["bytes accessed"]
    needed = (
        memory.argument_size_in_bytes
        + memory.temp_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
    )
    results = (memory.output_size_in_bytes - memory.alias_size_in_bytes) / layout.slots
    others = needed - layout.slots * (of_member + results)
    times = {"products": flop / chip.flops, "bytes": byte / chip.bandwidth}
    bound = max(times, key=lambda name: times[name])
    return {
        "members_a_chip": layout.slots,
        "chips_a_member": layout.data,
        "gflop": flop / 1e9,
        "gbyte": byte / 1e9,
        "mbyte": needed / 1e6,
        "fitting": math.floor((chip.memory - _RESERVED - others) / (of_member + results)),
        "ms": 1e3 * layout.slots * times[bound],
        "bound": bound,
    }


HEADER = [
    "of each chip; a step of training is a batch of 100, one of prediction 1,000 images",
    f"{'network':<9}{'task':<9}{'chips':<9}{'members':>8}{'GFLOP':>8}{'GB':>7}"
    f"{'needs MB':>10}{'would fit':>11}{'at least ms':>13}{'bound by':>10}{'compiled s':>12}",
]


def line(row: dict[str, Any]) -> str:
    """A case's line of the table."""
    shared = row["chips_a_member"]
    members = str(row["members_a_chip"]) if shared == 1 else f"1/{shared}"
    return (
        f"{row['network']:<9}{row['task']:<9}{row['topology']:<9}{members:>8}{row['gflop']:>8.2f}"
        f"{row['gbyte']:>7.3f}{row['mbyte']:>10,.0f}{row['fitting']:>11,}{row['ms']:>13.3f}"
        f"{row['bound']:>10}{row['compile_seconds']:>12.1f}"
    )


if __name__ == "__main__":
    cli.call(main, prints_results=True)
