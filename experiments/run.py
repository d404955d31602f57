"""Train and evaluate: `python -m experiments.run --config deep`."""

import dataclasses
import os
import shlex
import signal
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from etils import epath

from experiments import cli, evaluation, progress, records, stacks
from experiments.cli import INTERRUPTED, Command
from experiments.config import Config
from experiments.display import TrainingDisplay, draw
from experiments.progress import Progress
from experiments.stacks import Stack
from mnist_jax import augment, data, ensemble, kernels, loop, metrics, parallel, training
from mnist_jax.data import Dataset
from mnist_jax.loop import Chunk
from mnist_jax.training import TrainState

FAILED = 1
TERMINATED = 128 + signal.SIGTERM
_HANGUP = [signal.SIGHUP] if hasattr(signal, "SIGHUP") else []  # Windows has none
_HELP = "See python -m experiments.run --help."


class Run(NamedTuple):
    """What stays the same during a run."""

    config: Config
    kinds: dict[str, Stack]
    optimizer: optax.GradientTransformation
    dataset: Dataset
    fingerprint: str  # the data set's
    steps_per_epoch: int
    workdir: epath.Path


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code, see `train_and_evaluate`."""
    command = cli.parse(sys.argv[1:] if argv is None else argv)
    if command is None:
        return 0
    warnings.showwarning = cli.show_warning
    cli.use_compilation_cache()
    try:
        parallel.use_cpu_cores(command.config.devices, _side_by_side(command))
        _connect(command)
        cli.check_devices()
        run = _prepare(command)
    except (ValueError, RuntimeError, data.DataUnavailable) as error:
        message, _, hint = str(error).partition("\n")
        cli.fail(message, hint or _HELP)
    except KeyboardInterrupt:
        print("Interrupted before training began; nothing was written.", file=sys.stderr)
        return INTERRUPTED
    return train_and_evaluate(run, command.force)


def _side_by_side(command: Command) -> int:
    """How many members the cores of this process train at the same time, each on one device."""
    one_kind, *others = command.config.kinds
    if others or command.config.data_parallel or command.coordinator:
        return 1
    return len(one_kind.seeds)


def _connect(command: Command) -> None:
    """Join the other processes where there are some; only the first one prints."""
    if command.coordinator is None:
        if command.num_processes is not None or command.process_id is not None:
            raise ValueError("--num-processes and --process-id need --coordinator.")
        return
    if command.workdir is None:
        raise ValueError("--workdir is needed with --coordinator: one folder for all processes.")
    coordinator = None if command.coordinator == "auto" else command.coordinator
    parallel.connect(coordinator, command.num_processes, command.process_id)
    if not parallel.is_lead():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (until the process ends)


def _prepare(command: Command) -> Run:
    """Check everything that can be wrong; the workdir is made last."""
    config = command.config
    kinds = stacks.create(config, config.devices)  # what is wrong there is said before data are got
    # A run goes on with the classes that its networks have.
    trained_on = records.read_dataset(command.workdir, config) if command.resume else None
    dataset = data.load(
        config.dataset,
        config.data_dir,
        validation=config.validation,
        class_names=trained_on and trained_on.class_names,
    )
    if config.augment == "handwriting" and dataset.class_names != data.CLASS_NAMES["mnist"]:
        raise ValueError(
            f"--augment handwriting is for the digits 0 to 9, which {dataset.name} is not."
        )
    kinds = stacks.create(config, config.devices, len(dataset.class_names))
    steps = training.steps_per_epoch(len(dataset.train.labels), config.batch_size)
    optimizer = stacks.make_optimizer(config, config.epochs * steps)
    workdir = command.workdir
    if workdir is None:
        begun = f"{datetime.now():%Y%m%d-%H%M%S}"
        workdir = records.make_workdir(epath.Path("runs") / f"{command.name}-{begun}")
    problem = None
    if parallel.is_lead():
        try:
            records.open_workdir(workdir, config, command.resume)
            if not command.resume:
                records.write_dataset(workdir, dataset)
        except ValueError as error:
            problem = error
    if parallel.agree(problem is not None):
        raise problem or ValueError("Process 0 cannot use the workdir, and says why.")
    return Run(config, kinds, optimizer, dataset, data.fingerprint(dataset), steps, workdir)


def train_and_evaluate(run: Run, force: bool = False) -> int:
    """Train, or go on training, evaluate, and write everything into the workdir.

    Args:
        force: go on although the data set is not the one the run began with.

    Returns:
        0; 1 when the loss became NaN or infinite, nothing more can be written or another process
        was lost (the workdir keeps the last good state); 130 after SIGINT (what was trained is
        saved and evaluated); 143 after SIGTERM, 129 after SIGHUP, as from a terminal that closes
        (it is saved). A second signal ends the process at once.
    """
    # These take a second to import, which a mistyped command should not have to wait for.
    from tensorboardX import SummaryWriter

    from mnist_jax.checkpoints import Checkpoints

    folder = run.workdir / "checkpoints"
    snapshots = stacks.snapshot_steps(run.config, run.steps_per_epoch)
    board_options = {"write_to_disk": parallel.is_lead()}
    print(_first_line(run), flush=True)
    try:
        with (
            loop.interrupts(_leave_at_once, _signals()) as signals,
            Checkpoints(folder, keep=snapshots) as checkpoints,
            SummaryWriter(str(run.workdir / "tensorboard"), **board_options) as board,
        ):
            states, before = _begin(run, checkpoints, force)
            states, now, compile_seconds, stop = _train(
                run, states, before, checkpoints, board, signals
            )
            if stop in (signal.SIGTERM, *_HANGUP):
                print(f"Terminated: what is trained is saved. Go on with --resume {run.workdir}")
                return 128 + stop
            if stop:
                print("Interrupted: what is trained is saved, and evaluated now.", flush=True)
            if snapshots:
                checkpoints.wait()  # they are read for the evaluation
            _evaluate(run, states, now, compile_seconds)
            _print_next(run.workdir, unfinished=bool(stop))
            return INTERRUPTED if stop else 0
    except loop.NonFiniteLoss as error:
        _print_error(f"{error}", f"The last good state is in {folder}.")
    except OSError as error:
        _print_error(f"{error}", f"Go on with --resume {run.workdir}, once that is mended.")
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1:
            raise
        reason = str(error).partition("\n")[0]
        _print_error(f"another process was lost: {reason}", f"Go on with --resume {run.workdir}")
        os._exit(FAILED)  # a usual end would wait for the lost one
    return FAILED


def _signals() -> list[int]:
    """What stops a training; SIGHUP where it is not ignored, as under nohup."""
    heard = [number for number in _HANGUP if signal.getsignal(number) is not signal.SIG_IGN]
    return [signal.SIGINT, signal.SIGTERM, *heard]


def _leave_at_once(second_signal: int) -> None:
    if second_signal not in _HANGUP:  # a closing terminal and its shell both send it
        os._exit(128 + second_signal)


def _begin(run: Run, checkpoints: Any, force: bool) -> tuple[dict[str, TrainState], Progress]:
    """The states on the devices, and the progress, to go on from: saved ones or new ones."""
    saved = checkpoints.restore(stacks.shapes(run.kinds, run.optimizer))
    if saved is None:
        states = {
            name: parallel.init(stack.layout, stack.network, run.optimizer, stack.seeds)
            for name, stack in run.kinds.items()
        }
        before = progress.start(len(run.config.seeds))
        _save(run, checkpoints, states, before)
        return states, before
    before = Progress(**saved.details["progress"])
    if before.epochs + (before.steps > 0) > run.config.epochs:
        cli.fail(f"--epochs must be at least {before.epochs}, which are done already.", _HELP)
    if saved.details["fingerprint"] != run.fingerprint and not force:
        cli.fail(
            f"{run.dataset.name} ({run.dataset.source}) is not the data the run began with.",
            "Add --force to go on with other data.",
        )
    print(f"Going on after epoch {before.epochs}, step {before.steps} of the next.", flush=True)
    _print_jump(run, Config(**saved.details["config"]), saved.step)
    if parallel.is_lead():
        records.write_json(run.workdir / "config.json", dataclasses.asdict(run.config))
    _write_metrics(run, before)
    states = {
        name: parallel.place(stack.layout, saved.state[name]) for name, stack in run.kinds.items()
    }
    return states, before


def _print_jump(run: Run, then: Config, step: int) -> None:
    """Say where the learning rate goes on when it is not where it would have been.

    Args:
        then: the config of the steps done so far.
        step: how many they are.
    """
    n = len(run.dataset.train.labels)
    rates = [
        float(stacks.make_schedule(config, config.epochs * max(1, n // config.batch_size))(step))
        for config in (then, run.config)
    ]
    before, after = rates
    if before != after:
        print(
            f"The learning rate goes on at {after:.3g} ({run.config.schedule}, epochs: "
            f"{run.config.epochs}), not at {before:.3g} ({then.schedule}, epochs: {then.epochs}).",
            flush=True,
        )


def _train(
    run: Run,
    states: dict[str, TrainState],
    now: Progress,
    checkpoints: Any,
    board: Any,
    signals: Sequence[int],
) -> tuple[dict[str, TrainState], Progress, float, int]:
    """Train to the end or to a signal.

    Returns:
        The states, the progress, seconds of compilation, and the signal or 0.
    """
    compile_seconds, stop = 0.0, 0
    saved_at = time.monotonic()
    images_per_step = run.config.batch_size * len(run.config.seeds)
    steps_done = now.epochs * run.steps_per_epoch + now.steps
    with TrainingDisplay(run.config.epochs, images_per_step, steps_done) as display:
        for chunk in _chunks(run, states, now):
            states, compile_seconds = chunk.state, chunk.compile_seconds
            now = progress.advance(now, chunk, run.config.batch_size)
            display.update(chunk)
            stop = parallel.agree(signals[0] if signals else 0)
            due = parallel.agree(time.monotonic() - saved_at >= run.config.save_seconds)
            if chunk.steps_done == chunk.steps:
                now = progress.end_epoch(now, _validate(run, states))
                _write_metrics(run, now)
                for tag, value in records.scalars(now.history[-1]):
                    board.add_scalar(tag, value, progress.steps_done(now))
                display.print(_epoch_line(now.history[-1]))
            elif not (stop or due):
                continue
            _save(run, checkpoints, states, now)
            saved_at = time.monotonic()
            if stop:
                break
    return states, now, compile_seconds, stop


def _chunks(run: Run, states: dict[str, TrainState], now: Progress) -> Iterator[Chunk]:
    """Train all networks side by side; a chunk's state is `{network: state}`, its losses are all
    members', `[members, steps]`."""
    by_network = [
        loop.train(
            stack.layout,
            stack.network,
            run.optimizer,
            states[name],
            stack.seeds,
            *run.dataset.train,
            batch_size=run.config.batch_size,
            epochs=run.config.epochs,
            data_seed=run.config.data_seed,
            own_shuffles=run.config.shuffles == "own",
            augment=augment.create(run.config.augment),
            done=(now.epochs, now.steps),
        )
        for name, stack in run.kinds.items()
    ]
    for chunks in zip(*by_network, strict=True):
        yield chunks[0]._replace(
            state=dict(zip(run.kinds, (chunk.state for chunk in chunks), strict=True)),
            losses=np.concatenate([chunk.losses for chunk in chunks]),
            seconds=sum(chunk.seconds for chunk in chunks),
            compile_seconds=sum(chunk.compile_seconds for chunk in chunks),
        )


def _save(run: Run, checkpoints: Any, states: dict[str, TrainState], now: Progress) -> None:
    """Save everything that going on needs; an epoch's end may be the best so far."""
    checkpoints.wait()  # both at once would take the memory of both
    gathered = {
        name: parallel.gather(stack.layout, states[name]) for name, stack in run.kinds.items()
    }
    details = {
        "config": dataclasses.asdict(run.config),
        "fingerprint": run.fingerprint,
        "progress": now._asdict(),
    }
    checkpoints.save(progress.steps_done(now), gathered, details, best=progress.is_best(now))


def _predict(run: Run, states: dict[str, TrainState], images: np.ndarray) -> np.ndarray:
    """All members' logits, float32 `[members, n, classes]`."""
    return np.concatenate(
        [
            stack.predict(training.evaluated_params(states[name]), images)
            for name, stack in run.kinds.items()
        ]
    )


def _validate(run: Run, states: dict[str, TrainState]) -> dict[str, Any]:
    images, labels = run.dataset.validation
    if not len(labels):
        return {}
    members = _describe_members(run.config)
    return _scores("validation", members, _predict(run, states, images), labels)


def _evaluate(
    run: Run, states: dict[str, TrainState], now: Progress, compile_seconds: float
) -> None:
    """Write and print the results on the test images: with snapshots, theirs."""
    images, labels = run.dataset.test
    members = _describe_members(run.config)
    if run.config.snapshots > 1:
        from experiments import trained

        loaded = trained.load(run.workdir)
        members = [member.describe() for member in loaded.members]
        predict = loaded.predict
    else:
        predict = partial(_predict, run, states)
    logits = predict(images)
    unsure = None
    if len(run.dataset.validation.labels):
        validation, validation_labels = run.dataset.validation
        unsure = evaluation.unsure(predict(validation), validation_labels)
    results = (
        records.describe(run.config, run.dataset)
        | _scores("test", members, logits, labels)
        | {
            "epochs": now.epochs + now.steps / run.steps_per_epoch,
            "train_seconds": round(now.train_seconds, 3),
            "compile_seconds": round(compile_seconds, 3),
            "images_per_second": round(now.images / now.train_seconds, 1),
        }
        | {"unsure": unsure}
        | records.environment({name: stack.layout for name, stack in run.kinds.items()})
    )
    if parallel.is_lead():
        records.write_json(run.workdir / "results.json", results)
    _print_results(results, logits, run.dataset)


def _describe_members(config: Config) -> list[dict[str, Any]]:
    return [{"network": name, "seed": seed} for name, seeds in config.kinds for seed in seeds]


def _write_metrics(run: Run, now: Progress) -> None:
    if parallel.is_lead():
        records.write_json_lines(run.workdir / "metrics.jsonl", now.history)


def _scores(
    split: str, members: list[dict[str, Any]], logits: np.ndarray, labels: np.ndarray
) -> dict[str, Any]:
    """Accuracy and NLL of each member and of the ensemble, named after the split.

    The ensemble's accuracy is that of summed logits, the lab's rule; its NLL that of the members'
    mean probability.
    """
    accuracies, nlls = metrics.accuracy(logits, labels), metrics.nll(logits, labels)
    rows = [
        {**member, f"{split}_accuracy": float(accuracy), f"{split}_nll": float(nll)}
        for member, accuracy, nll in zip(members, accuracies, nlls, strict=True)
    ]
    together = {
        f"{split}_accuracy": float(metrics.accuracy(ensemble.sum_logits(logits), labels)),
        f"{split}_nll": float(metrics.nll(ensemble.mean_probability(logits), labels)),
    }
    return {"members": rows, "ensemble": together}


def _first_line(run: Run) -> str:
    members = " + ".join(f"{len(stack.seeds)} x {name}" for name, stack in run.kinds.items())
    layouts = [stack.layout for stack in run.kinds.values()]
    count = len({device for layout in layouts for device in layout.devices})
    devices = f"{count} {layouts[0].devices[0].device_kind} device{'s' if count > 1 else ''}"
    if len(layouts) == 1 and layouts[0].data > 1:
        devices += f", {layouts[0].data} a member"
    if run.config.precision != "bfloat16" and kernels.available():
        devices += ", C++ kernels"
    return (
        f"{members} on {len(run.dataset.train.labels):,} images of {run.dataset.name} "
        f"({run.dataset.source}), {devices}; into {run.workdir}"
    )


def _epoch_line(epoch: dict[str, Any]) -> str:
    line = f"Epoch: {epoch['epoch']:04d} cost = {epoch['cost']:.9f}"
    if "ensemble" in epoch:
        line += f" validation accuracy = {epoch['ensemble']['validation_accuracy']:.4f}"
    return line


def _print_results(results: dict[str, Any], logits: np.ndarray, dataset: Dataset) -> None:
    if len(results["members"]) > 1:
        for i, member in enumerate(results["members"]):
            print(f"{i} Accuracy: {member['test_accuracy']:.4f}")
        print(f"Ensemble accuracy: {results['ensemble']['test_accuracy']:.4f}")
    else:
        print(f"Accuracy: {results['ensemble']['test_accuracy']:.4f}")
    random = np.random.default_rng(results["config"]["seed"])
    digit = int(random.integers(len(dataset.test.labels)))
    print(f"Label: {dataset.class_names[dataset.test.labels[digit]]}")
    print(f"Prediction: {dataset.class_names[logits[:, digit].sum(axis=0).argmax()]}")
    print(draw(dataset.test.images[digit]))
    print(
        f"Trained in {results['train_seconds']:.1f} s "
        f"({results['images_per_second']:,.0f} images/s), "
        f"compiled in {results['compile_seconds']:.1f} s."
    )


def _print_next(workdir: epath.Path, unfinished: bool) -> None:
    """Where everything is, and what can be done with it."""
    folder = shlex.quote(str(workdir))
    commands = [f"evaluate {folder}", f"report {folder}", f"predict {folder} IMAGE..."]
    if unfinished:
        commands.insert(0, f"run --resume {folder}")
    print(f"All of it is in {workdir}. Next:")
    for command in commands:
        print(f"  python -m experiments.{command}")


def _print_error(message: str, hint: str) -> None:
    print(f"error: {message}\n{hint}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    cli.call(main)
