"""What one NVIDIA GPU computes, and how fast: `python -m experiments.benchmarks.gpu`."""

import importlib.metadata
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.benchmarks import convolutions, equality, measure
from experiments.benchmarks.run import INTERRUPTED, TERMINATED, add_output, check_output
from experiments.benchmarks.run import table as workload_table
from experiments.benchmarks.scaling import say
from experiments.benchmarks.scaling_worker import noise
from experiments.benchmarks.sides import OURS, missing_packages
from experiments.benchmarks.worker import CPU_ONLY
from experiments.benchmarks.workloads import BATCH, LEARNING_RATE
from experiments.console import cli
from experiments.workdir import records, stacks
from experiments.workdir.config import get
from mnist_jax import data, metrics, models, parallel, training
from mnist_jax.data import Dataset

HELP = "See python -m experiments.benchmarks.gpu --help."
DIFFERENT = 1
SECONDS = 450.0  # then the rest is left out by name
_PYTORCH_SECONDS = 100.0  # about what one comparison takes, compiling included
GOAL = 0.99
_CHUNK = 110  # steps of one of mnist_jax.loop; eleven of them on a CPU
_IMAGES = _CHUNK * BATCH
_TF32_TOLERANCE = 5e-3  # of the first loss; TF32 has 10 bits of mantissa
# The same for both sides.
_PRECISIONS = {
    "tf32": {
        "JAX_DEFAULT_MATMUL_PRECISION": "tensorfloat32",
        "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1",
    },
    "float32": {"JAX_DEFAULT_MATMUL_PRECISION": "highest", "NVIDIA_TF32_OVERRIDE": "0"},
}


class Sizes(NamedTuple):
    """How much is measured."""

    networks: tuple[str, ...]  # of the equality check
    members: tuple[int, ...]
    steps: int  # of one turn of members
    pytorch_steps: int  # of one turn beside PyTorch: whole chunks of mnist_jax.loop, also on a CPU
    turns: int
    shapes: slice  # of the convolutions
    batch: int  # of everything but the comparison with PyTorch, whose sides have their own
    seconds: float  # of one turn of a convolution
    seeds: int  # of fast
    fast_images: int
    workloads: tuple[str, ...]


FULL = Sizes(
    networks=models.LABS,
    members=(1, 2, 4, 8, 16, 32, 64),
    steps=220,
    pytorch_steps=1100,
    turns=5,
    shapes=slice(None),
    batch=BATCH,
    seconds=0.1,
    seeds=5,
    fast_images=60_000,
    workloads=("deep", "simple"),
)
QUICK = Sizes(
    networks=("simple",),
    members=(1, 2),
    steps=10,
    pytorch_steps=110,
    turns=2,
    shapes=slice(1, 2),
    batch=4,
    seconds=0.001,
    seeds=1,
    fast_images=512,
    workloads=("simple",),
)


class Found(NamedTuple):
    """What a part found, and what it had to leave out, with the reasons."""

    found: Any
    left_out: dict[str, str]


class Part(NamedTuple):
    """How a part is done, and shown."""

    do: Callable[[jax.Device, Sizes, float], Found]  # until time.monotonic() is the last
    table: Callable[[Any], list[str]]  # of what was found


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code: 1 when something else is computed."""
    options = parse(sys.argv[1:] if argv is None else argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))  # so that the sides end too
    # The sides of the comparison need memory of the same GPU.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    device = find_device(options.allow_cpu)
    try:
        return run(options, device)
    except KeyboardInterrupt:
        print("Interrupted; the tables above are whole.", file=sys.stderr)
        return INTERRUPTED


def parse(argv: Sequence[str]) -> Namespace:
    """Read the command line.

    Raises:
        SystemExit: code 2 with an error of two lines; code 0 after `--help`.
    """
    parser = cli.Parser(
        prog="python -m experiments.benchmarks.gpu",
        description="Check and measure one NVIDIA GPU, in about eight minutes at most.",
    )
    parser.add_argument(
        "--parts", metavar="A,B", default=",".join(PARTS), help=f"of {', '.join(PARTS)}"
    )
    add_output(parser)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to try the command")
    parser.add_argument("--allow-cpu", action="store_true", help="go on where there is no GPU")
    options = parser.parse(argv)
    options.parts = cli.names("--parts", options.parts, list(PARTS))
    check_output(options.output)
    return options


def find_device(allow_cpu: bool) -> jax.Device:
    """The first GPU, or with `allow_cpu` whatever there is.

    Raises:
        SystemExit: code 2 with an error of two lines.
    """
    try:
        device = jax.devices()[0]
        jax.devices("cpu")
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        cli.fail(f"JAX does not start: {reason}", "JAX_PLATFORMS must leave it GPU and CPU.")
    if device.platform != "gpu" and not allow_cpu:
        hint = 'pip install "jax[cuda13]", or try the command with --allow-cpu --quick.'
        cli.fail(f"JAX finds no GPU here, only {device.device_kind}.", hint)
    return device


def run(options: Namespace, device: jax.Device) -> int:
    """Do the parts in their order, and print a table of each."""
    sizes = QUICK if options.quick else FULL
    deadline = time.monotonic() + SECONDS
    results: dict[str, Any] = {"environment": describe(device)}
    print("\n".join(f"{name}: {value}" for name, value in results["environment"].items()))
    for name in (name for name in PARTS if name in options.parts):
        say(f"{name} ...")
        started = time.monotonic()
        part = PARTS[name].do(device, sizes, deadline)
        seconds = round(time.monotonic() - started, 1)
        results[name] = part._asdict() | {"seconds": seconds}
        lines = PARTS[name].table(part.found)
        lines += [f"left out: {what}: {reason}" for what, reason in part.left_out.items()]
        print("\n" + "\n".join(lines), flush=True)
        if options.output:
            options.output.write_text(json.dumps(results, indent=2) + "\n")
    return DIFFERENT if different(results) else 0


def different(results: dict[str, Any]) -> bool:
    """Whether a network computes something else here, or one of PyTorch's sides."""
    networks = results.get("equality", {}).get("found", {}).values()
    workloads = results.get("pytorch", {}).get("found", [])
    return not all(network["equal"] for network in networks) or any(
        result["disagree"] for result in workloads
    )


def describe(device: jax.Device) -> dict[str, str]:
    """The card and the versions."""
    packages = ("jax", "jaxlib", "flax", "optax", "numpy")
    return {
        "device": device.device_kind,
        "backend": " ".join(device.client.platform_version.split()),
        "versions": ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
        + f", Python {platform.python_version()}",
        "commit": records.git_commit() or "unknown",
    }


def check_equality(device: jax.Device, sizes: Sizes, deadline: float) -> Found:
    """Logits and one step's gradients of some networks, by network; see `equality.check`."""
    return Found(equality.check(device, sizes.networks, *noise(sizes.batch)), {})


def measure_members(device: jax.Device, sizes: Sizes, deadline: float) -> Found:
    """Milliseconds a step of `layers`, by the number of members, as the package trains them."""
    found: list[dict[str, Any]] = []
    left_out = {}
    for members in sizes.members:
        if time.monotonic() > deadline:
            left_out[f"{members} members"] = "no time left"
            continue
        try:
            summary = time_members(device, members, sizes)
        except jax.errors.JaxRuntimeError as error:
            left_out[f"{members} members"] = str(error).partition("\n")[0]
            continue
        found.append({"members": members} | summary)
    for entry in found:
        ratio = entry["ms_per_step"]["median"] / found[0]["ms_per_step"]["median"]
        entry["time_over_first"] = round(ratio, 3)
    return Found(found, left_out)


def time_members(device: jax.Device, members: int, sizes: Sizes) -> dict[str, Any]:
    """The turns of one number of members; all but the first, which is for warming up."""
    layout, seeds = parallel.plan(members, [device]), range(members)
    network = models.create("layers")
    optimizer = training.make_optimizer(LEARNING_RATE, sizes.steps)
    state = parallel.init(layout, network, optimizer, seeds)
    images, labels = noise(_IMAGES)
    arrays = parallel.replicate(layout, images), parallel.replicate(layout, labels)
    batches = np.arange(sizes.steps * sizes.batch, dtype=np.int32) % _IMAGES
    train = parallel.compile_train(
        layout, network, optimizer, seeds, state, *arrays, sizes.batch, sizes.steps
    )
    turns = []
    for _ in range(1 + sizes.turns):
        started = time.perf_counter()
        state, _ = jax.block_until_ready(train(state, *arrays, batches.reshape(sizes.steps, -1)))
        turns.append({"seconds": time.perf_counter() - started})
    return measure.summarise(turns[1:], sizes.steps, members * sizes.batch)


def train_fast(device: jax.Device, sizes: Sizes, deadline: float) -> Found:
    """The config `fast`, seed by seed: seconds of training after compilation, test accuracy."""
    try:
        mnist = data.load("mnist", validation=0)
    except (ValueError, OSError, ImportError) as error:
        return Found([], {"fast": f"MNIST cannot be had: {str(error).partition(chr(10))[0]}"})
    return Found(fast_runs(device, mnist, sizes), {})


def fast_runs(device: jax.Device, mnist: Dataset, sizes: Sizes) -> list[dict[str, Any]]:
    """A record a seed; seeds differ in the initial weights and in the order of the images."""
    config, _ = get("fast")
    layout, network = parallel.plan(1, [device]), models.create(config.network)
    images, labels = (array[: sizes.fast_images] for array in mnist.train)
    steps = training.steps_per_epoch(len(labels), config.batch_size)
    optimizer = stacks.make_optimizer(config, steps)
    arrays = parallel.replicate(layout, images), parallel.replicate(layout, labels)
    state = parallel.init(layout, network, optimizer, [0])
    # Compiled once: the seed given here is that of dropout, of which this network has none.
    train = parallel.compile_train(
        layout, network, optimizer, [0], state, *arrays, config.batch_size, steps
    )
    predict = parallel.make_predict(layout, network)

    def one(seed: int) -> dict[str, Any]:
        state = jax.block_until_ready(parallel.init(layout, network, optimizer, [seed]))
        started = time.perf_counter()
        order = training.epoch_batches(seed, 1, len(labels), config.batch_size)
        state, _ = jax.block_until_ready(train(state, *arrays, np.asarray(order)))
        seconds = time.perf_counter() - started
        logits = predict(state.params, mnist.test.inputs)
        accuracy = float(metrics.accuracy(logits, mnist.test.labels)[0])
        return {"seed": seed, "seconds": round(seconds, 4), "accuracy": accuracy}

    one(0)  # warms up
    return [one(seed) for seed in range(sizes.seeds)]


def measure_convolutions(device: jax.Device, sizes: Sizes, deadline: float) -> Found:
    """Each formulation of each convolution of `layers`, in each precision."""
    found, left_out = [], {}
    cases = [
        (shape, members, precision, formulation)
        for members in convolutions.MEMBERS
        for shape in convolutions.shapes()[sizes.shapes]
        for precision in convolutions.PRECISIONS
        for formulation in convolutions.FORMULATIONS
    ]
    for shape, members, precision, formulation in cases:
        name = f"{shape.name}, {members} members, {precision}, {formulation}"
        if time.monotonic() > deadline:
            left_out[name] = "no time left"
            continue
        try:
            summary = convolutions.measure_case(
                device,
                formulation,
                shape,
                members,
                precision,
                sizes.batch,
                sizes.turns,
                sizes.seconds,
            )
        except jax.errors.JaxRuntimeError as error:
            left_out[name] = str(error).partition("\n")[0]
            continue
        case = {"shape": shape.name, "members": members, "precision": precision}
        found.append(case | {"formulation": formulation} | summary)
    return Found(found, left_out)


def compare_with_pytorch(device: jax.Device, sizes: Sizes, deadline: float) -> Found:
    """Some workloads beside PyTorch on the same device, as `run` does on a CPU."""
    reason = why_no_pytorch(device)
    if reason:
        return Found([], {"pytorch": reason})
    on_cpu = device.platform == "cpu"
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    where = CPU_ONLY if on_cpu else {"CUDA_VISIBLE_DEVICES": first}
    found, left_out = [], {}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "data.npz"
        images, labels = noise(_IMAGES)
        np.savez(file, train_images=images, train_labels=labels)
        for precision, environment in _PRECISIONS.items():
            for workload in sizes.workloads:
                if time.monotonic() + _PYTORCH_SECONDS > deadline:
                    left_out[f"{workload}, {precision}"] = "no time left"
                    continue
                result = measure.measure(
                    workload,
                    [OURS, "torch", "torch_compile"],
                    file,
                    0,
                    sizes.turns,
                    sizes.pytorch_steps,
                    None,
                    say,
                    environment={**where, **environment},
                    first_steps=_CHUNK,
                    tolerance=_TF32_TOLERANCE if precision == "tf32" else measure.TOLERANCE,
                )
                found.append({"precision": precision} | result)
    return Found(found, left_out)


def why_no_pytorch(device: jax.Device) -> str:
    """Why PyTorch cannot be compared on this device; empty where it can."""
    if missing_packages("torch"):
        return "torch is not installed"
    if device.platform == "cpu":
        return ""
    question = "import torch; print(torch.cuda.is_available())"
    done = subprocess.run([sys.executable, "-c", question], capture_output=True, text=True)
    return "" if done.stdout.strip() == "True" else "torch sees no GPU"


def equality_table(found: dict[str, dict[str, Any]]) -> list[str]:
    """The largest differences from the CPU, a line a network."""
    lines = [
        f"equality with the CPU, float32, {equality.MEMBERS} members at once; differences over the "
        f"largest value, at most {equality.TOLERANCE:.0e}",
        f"{'network':<10}{'logits':>10}{'loss':>10}{'gradients':>11}",
    ]
    for name, row in found.items():
        differences = f"{row['logits']:>10.1e}{row['loss']:>10.1e}{row['gradients']:>11.1e}"
        lines.append(f"{name:<10}{differences}" + ("" if row["equal"] else "  error: not equal"))
        of_all = f"{row['gradients_of_all']:.1e}"
        lines.append(
            f"{'':<10}without {row['by_rounding']} of {row['images']} images, in which rounding "
            f"decides about a relu or a pool; gradients with them {of_all}"
        )
    return lines


def members_table(found: list[dict[str, Any]]) -> list[str]:
    """A line a number of members."""
    lines = [
        "members of layers side by side, training, JAX's default precision",
        f"{'members':>8}{'ms a step':>11}{'min':>9}{'max':>9}{'/ first':>9}{'images/s':>12}",
    ]
    for row in found:
        ms = row["ms_per_step"]
        lines.append(
            f"{row['members']:>8}{ms['median']:>11,.3f}{ms['min']:>9,.3f}{ms['max']:>9,.3f}"
            f"{row['time_over_first']:>9.2f}{row['images_per_second']:>12,.0f}"
        )
    return lines


def fast_table(found: list[dict[str, Any]]) -> list[str]:
    """A line a seed."""
    lines = ["config fast, one epoch", f"{'seed':>5}{'train s':>10}{'test accuracy':>15}"]
    for row in found:
        lines.append(f"{row['seed']:>5}{row['seconds']:>10.3f}{row['accuracy']:>15.2%}")
    reached = sum(row["accuracy"] >= GOAL for row in found)
    return [*lines, f"{reached} of {len(found)} reached {GOAL:.0%}"] if found else lines[:1]


def convolutions_table(found: list[dict[str, Any]]) -> list[str]:
    """A line a case."""
    lines = [
        "convolutions, forward and both gradients",
        f"{'shape':<22}{'members':>8}  {'precision':<10}{'formulation':<26}{'ms':>9}{'min':>9}"
        f"{'max':>9}{'TFLOP/s':>9}",
    ]
    for row in found:
        ms = row["ms_per_step"]
        lines.append(
            f"{row['shape']:<22}{row['members']:>8}  {row['precision']:<10}"
            f"{row['formulation']:<26}{ms['median']:>9,.3f}{ms['min']:>9,.3f}{ms['max']:>9,.3f}"
            f"{row['tflops']:>9.2f}"
        )
    return lines


def pytorch_table(found: list[dict[str, Any]]) -> list[str]:
    """A table a workload and precision."""
    lines = ["beside PyTorch"]
    for result in found:
        lines += [f"{result['precision']}:", workload_table(result)]
    return lines


PARTS = {
    "equality": Part(check_equality, equality_table),
    "members": Part(measure_members, members_table),
    "fast": Part(train_fast, fast_table),
    "convolutions": Part(measure_convolutions, convolutions_table),
    "pytorch": Part(compare_with_pytorch, pytorch_table),
}


if __name__ == "__main__":
    cli.call(main, prints_results=True)
