"""What `experiments.run` does once JAX is imported: train, evaluate, and write a workdir."""

import dataclasses
import os
import re
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime
from functools import cache, partial
from importlib import import_module
from typing import Any, NamedTuple, NoReturn, TypeVar

import jax
import numpy as np
import optax
from etils import epath

from experiments.console import cli, terminal
from experiments.console.cli import FAILED, HELP, INTERRUPTED, Command
from experiments.console.clock import Clock, in_words
from experiments.console.display import TrainingDisplay, draw
from experiments.workdir import (
    cross_validation,
    datasets,
    evaluation,
    progress,
    records,
    stacks,
)
from experiments.workdir.config import Config
from experiments.workdir.cross_validation import Folds, Scorer
from experiments.workdir.progress import Progress
from experiments.workdir.records import TrainedOn
from experiments.workdir.stacks import Stack
from mnist_jax import augment, data, kernels, loop, models, parallel, training
from mnist_jax.data import Dataset, memory, sentences, vectors
from mnist_jax.data.sentences import Sentences
from mnist_jax.data.vectors import Vectors
from mnist_jax.loop import Chunk
from mnist_jax.models.sentence import set_vectors
from mnist_jax.training import TrainState
from mnist_jax.words import counted

TERMINATED = 128 + signal.SIGTERM
_STATUS = re.compile(r"[A-Z_]+: ")  # how XLA's errors begin, which JAX makes of several classes
_HANGUP = [signal.SIGHUP] if hasattr(signal, "SIGHUP") else []  # Windows has none
_Result = TypeVar("_Result")


class Run(NamedTuple):
    """What stays the same during a run."""

    config: Config
    kinds: dict[str, Stack]
    optimizer: optax.GradientTransformation
    dataset: Dataset
    fingerprint: str  # the data set's
    steps_per_epoch: int
    workdir: epath.Path
    trained_on: TrainedOn
    vectors: Vectors | None = None  # that a new run's tables of word vectors begin with
    folds: Folds | None = None

    @property
    def train_size(self) -> int:
        """How many inputs each member trains on."""
        if self.folds is not None:
            return self.folds.own_inputs.shape[1]
        return len(self.dataset.train.labels)


def train(command: Command, clock: Clock) -> int:
    """Do what the command line asks for; returns the exit code, see `train_and_evaluate`.

    Raises:
        SystemExit: code 2, with an error of two lines on stderr, for what is wrong with it.
    """
    try:
        with clock.during("imports"):
            cli.use_compilation_cache()
            parallel.use_cpu_cores(command.config.devices, _side_by_side(command))
            _connect(command)
            cli.check_devices()
        run = _prepare(command, clock)
    except (ValueError, RuntimeError, data.DataUnavailable) as error:
        message, _, hint = str(error).partition("\n")
        cli.fail(message, hint or HELP)
    return train_and_evaluate(run, clock, command.force)


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


def _prepare(command: Command, clock: Clock) -> Run:
    """Check everything that can be wrong; the workdir is made last."""
    config = command.config
    # What is wrong with the options is said before data are got.
    stacks.create(config, config.devices, TrainedOn(config.class_names, characters=True))
    for part in _kernel_parts(config):
        kernels.start_building(part)
    # A run goes on with the classes that its networks have.
    before = records.read_dataset(command.workdir, config) if command.resume else None
    reading = _beside(lambda: datasets.load(config, before))
    with clock.during("imports"):
        _import_writers()
    with clock.waiting("data", "Reading the data"):
        dataset = reading()
        if config.folds > 1:
            dataset = cross_validation.pool(dataset)
        fingerprint = data.fingerprint(dataset)
    digits = dataset.characters and dataset.class_names == data.CLASS_NAMES["mnist"]
    if config.augment == "handwriting" and not digits:
        raise ValueError(
            f"--augment handwriting is for the digits 0 to 9, light on black in 28 x 28 pixels, "
            f"which {dataset.name} is not."
        )
    about = before or records.trained_on(config, dataset)
    word_vectors = None
    if config.vectors is not None and before is None:
        with clock.waiting("data", "Reading the word vectors"):
            word_vectors = vectors.read(config.vectors, about.vocabulary)
        wanted = config.options.get("width", word_vectors.width)
        if wanted != word_vectors.width:
            raise ValueError(
                f"--vectors {config.vectors}: the vectors are {word_vectors.width} numbers wide, "
                f"not {wanted}.\nLeave out width in --network-options."
            )
        about = about._replace(vector_width=word_vectors.width)
        print(f"{word_vectors.known.sum():,} of {len(about.vocabulary) - 1:,} words have a vector.")
    shapes = dataset.train.inputs.shape[1:], about.image_shape
    if not about.vocabulary and shapes[0] != shapes[1]:
        here, then = (" x ".join(map(str, shape)) for shape in shapes)
        raise ValueError(
            f"{dataset.name} has {config.input_is}s of {here}; the run began with "
            f"{config.input_is}s of {then}.\n"
            "Go on with the data that it began with."
        )
    if dataset.characters != about.characters:
        here, then = (
            "characters" if yes else "things" for yes in (dataset.characters, about.characters)
        )
        raise ValueError(
            f"{dataset.name} has images of {here}; the run began with images of {then}.\n"
            "Go on with the data and the --picture-kind that it began with."
        )
    kinds = stacks.create(config, config.devices, about)
    stacks.check(kinds, about)
    _check_memory(kinds, dataset.train.inputs.nbytes)
    all_folds = None if config.folds == 1 else cross_validation.make(config, dataset.train.labels)
    labels = dataset.train.labels
    if all_folds is not None:
        labels = labels[all_folds.each[0].train]
    images = len(labels)
    steps = _steps_per_epoch(config, labels, dataset.class_names)
    # What shuffles is compiled by the time it is needed.
    _beside(partial(training.epoch_batches, config.data_seed, 1, images, config.batch_size))
    optimizer = stacks.make_optimizer(config, config.epochs * steps)
    workdir = command.workdir
    if workdir is None:
        begun = f"{datetime.now():%Y%m%d-%H%M%S}"
        workdir = records.make_workdir(epath.Path("runs") / f"{command.name}-{begun}")
    problem = None
    if parallel.is_lead():
        try:
            if command.resume:
                records.check_writable(workdir)
            else:
                records.begin_workdir(workdir, config, dataset.name, dataset.source, about)
        except ValueError as error:
            problem = error
    if parallel.agree(problem is not None):
        raise problem or ValueError("Process 0 cannot use the workdir, and says why.")
    return Run(
        config,
        kinds,
        optimizer,
        dataset,
        fingerprint,
        steps,
        workdir,
        about,
        word_vectors,
        all_folds,
    )


def _check_memory(kinds: Mapping[str, Stack], size: int) -> None:
    """See that the CPU's devices, which have the training inputs each, find memory for them.

    Raises:
        ValueError: they do not; `size` is in bytes, of the inputs once.
    """
    devices = {device for stack in kinds.values() for device in stack.layout.devices}
    here = [d for d in devices if d.platform == "cpu" and d.process_index == jax.process_index()]
    free = memory.available()
    if free is None or len(here) < 2 or len(here) * size <= free:
        return
    raise ValueError(
        f"{len(here)} CPU devices with {size / 1e9:,.1f} GB of training inputs each would take "
        f"{len(here) * size / 1e9:,.1f} GB; {free / 1e9:,.1f} GB of memory are free.\n"
        f"--devices {max(1, free // size)} takes fewer; or give fewer or smaller inputs."
    )


def _steps_per_epoch(config: Config, labels: np.ndarray, class_names: Sequence[str]) -> int:
    """How many batches of inputs with these labels an epoch has.

    Raises:
        ValueError: fewer than a batch has; with what to do about it in a second line.
    """
    try:
        return training.steps_per_epoch(len(labels), config.batch_size, config.input_is)
    except ValueError as error:
        if config.reads_positions:
            raise ValueError(f"{error}\nAdd --batch-size {len(labels)}, or games.") from None
        counts = np.bincount(labels, minlength=len(class_names))
        needed = -(-config.batch_size // len(counts))
        rarest = class_names[int(counts.argmin())]
        raise ValueError(
            f"{error}\nAdd --batch-size {len(labels)}, or {config.input_is}s: a batch of "
            f"{config.batch_size} takes {needed} of each class to train on, and {rarest} has "
            f"{counts.min()}."
        ) from None


def _import_writers() -> None:
    """Import what only writes, for which there is time while the data are read."""
    for name in ("experiments.workdir.board", "mnist_jax.checkpoints"):
        import_module(name)


def _beside(function: Callable[[], _Result]) -> Callable[[], _Result]:
    """Begin a function in a thread; what is returned waits for it and gives what it gave or raised.

    The thread ends with the process, also in the middle of a download.
    """
    outcome: list[Callable[[], _Result]] = []

    def work() -> None:
        try:
            result = function()
        except BaseException as error:
            raised = error  # `error` is gone after this clause
            outcome.append(lambda: _raise(raised))
        else:
            outcome.append(lambda: result)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()

    def wait() -> _Result:
        thread.join()
        return outcome[0]()

    return wait


def _raise(error: BaseException) -> NoReturn:
    raise error


def _kernel_parts(config: Config) -> list[kernels.Part]:
    """Which of the kernels a run's networks use."""
    if config.precision == "bfloat16":
        return []
    of_labs_alone = all(kind.network in models.LABS for kind in config.kinds)
    return ["labs"] if of_labs_alone else ["labs", "windows"]


def train_and_evaluate(run: Run, clock: Clock, force: bool = False) -> int:
    """Train, or go on training, evaluate, and write everything into the workdir.

    Args:
        force: go on although the data set is not the one the run began with.

    Returns:
        0; 1 when the loss became NaN or infinite, nothing more can be written or another process
        was lost (the workdir keeps the last good state); 130 after SIGINT (what was trained is
        saved and evaluated); 143 after SIGTERM, 129 after SIGHUP, as from a terminal that closes
        (it is saved). A second signal ends the process at once.
    """
    from experiments.workdir.board import summary_writer
    from mnist_jax.checkpoints import Checkpoints

    folder = run.workdir / "checkpoints"
    snapshots = stacks.snapshot_steps(run.config, run.steps_per_epoch)
    try:
        with loop.interrupts(_leave_at_once, _signals()) as signals, ExitStack() as files:
            checkpoints = files.enter_context(Checkpoints(folder, keep=snapshots))
            board = files.enter_context(
                summary_writer(str(run.workdir / "tensorboard"), parallel.is_lead())
            )
            print(_first_line(run), flush=True)
            states, before = _begin(run, clock, checkpoints, force)
            states, now, compile_seconds, stop = _train(
                run, clock, states, before, checkpoints, board, signals
            )
            if stop in (signal.SIGTERM, *_HANGUP):
                print(f"Terminated: what is trained is saved. Go on with --resume {run.workdir}")
                return 128 + stop
            if stop:
                print("Interrupted: what is trained is saved, and evaluated now.", flush=True)
            if snapshots:
                with clock.during("checkpoints"):
                    checkpoints.wait()  # they are read for the evaluation
            scores, logits = _evaluate(run, clock, states, now)
            try:
                with clock.during("closing"):
                    files.close()  # until all is written
            finally:
                _finish(run, clock, scores, logits, now, compile_seconds)
            _print_next(run, unfinished=bool(stop))
            return INTERRUPTED if stop else 0
    except loop.NonFiniteLoss as error:
        _print_error(f"{error}", f"The last good state is in {folder}.")
    except OSError as error:
        _leave_a_lost_process(run, error)
        _print_error(f"{error}", f"Go on with --resume {run.workdir}, once that is mended.")
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        _leave_a_lost_process(run, error)
        raise
    return FAILED


def _leave_a_lost_process(run: Run, error: BaseException) -> None:
    """End this process if the error, or what it came of, is that another of the run's is lost.

    That is found by whatever all of them do together: a step, a checkpoint, or to gather what is
    on the devices of all.
    """
    cause: BaseException | None = error
    while cause is not None and not _is_of_jax(cause):
        cause = cause.__cause__ or cause.__context__
    if cause is None or jax.process_count() == 1:
        return
    reason = str(cause).partition("\n")[0]
    _print_error(f"another process was lost: {reason}", f"Go on with --resume {run.workdir}")
    os._exit(FAILED)  # a usual end would wait for the lost one


def _is_of_jax(error: BaseException) -> bool:
    return isinstance(error, jax.errors.JaxRuntimeError) or bool(_STATUS.match(str(error)))


def _signals() -> list[int]:
    """What stops a training; SIGHUP where it is not ignored, as under nohup."""
    heard = [number for number in _HANGUP if signal.getsignal(number) is not signal.SIG_IGN]
    return [signal.SIGINT, signal.SIGTERM, *heard]


def _leave_at_once(second_signal: int) -> None:
    if second_signal not in _HANGUP:  # a closing terminal and its shell both send it
        os._exit(128 + second_signal)


def _begin(
    run: Run, clock: Clock, checkpoints: Any, force: bool
) -> tuple[dict[str, TrainState], Progress]:
    """The states on the devices, and the progress, to go on from: saved ones or new ones."""
    saved = None
    with clock.during("checkpoints"):
        if checkpoints.steps():
            saved = checkpoints.restore(stacks.shapes(run.kinds, run.optimizer, run.trained_on))
    if saved is None:
        with clock.waiting("initial_values", "Making the initial values"):
            states = {
                name: parallel.init(
                    stack.layout,
                    stack.network,
                    run.optimizer,
                    stack.seeds,
                    training.input_of(run.dataset.train.inputs, stack.decode),
                )
                for name, stack in run.kinds.items()
            }
            if run.vectors is not None:
                states = {
                    name: _with_vectors(run.kinds[name], state, run.vectors)
                    for name, state in states.items()
                }
            jax.block_until_ready(states)
        before = progress.start(len(run.config.seeds))
        with clock.during("checkpoints"):
            _save(run, checkpoints, states, before)
        return states, before
    before = Progress(**saved.details["progress"])
    if before.epochs + (before.steps > 0) > run.config.epochs:
        cli.fail(f"--epochs must be at least {before.epochs}, which are done already.", HELP)
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


def _with_vectors(stack: Stack, state: TrainState, word_vectors: Vectors) -> TrainState:
    """The same state on the devices, with tables of word vectors that begin with given ones."""
    gathered = parallel.gather(stack.layout, state)
    params = set_vectors(gathered.params, word_vectors.rows, word_vectors.known)
    return parallel.place(stack.layout, gathered._replace(params=params))


def _print_jump(run: Run, then: Config, step: int) -> None:
    """Say where the learning rate goes on when it is not where it would have been.

    Args:
        then: the config of the steps done so far.
        step: how many they are.
    """
    n = run.train_size
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
    clock: Clock,
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
    compile_seconds, stop, saved_at, is_first = 0.0, 0, time.monotonic(), True
    learning_rate = stacks.make_schedule(run.config, run.config.epochs * run.steps_per_epoch)
    images_per_step = run.config.batch_size * len(run.config.seeds)
    steps_done = now.epochs * run.steps_per_epoch + now.steps

    @cache  # the loops of all networks are told the same
    def is_wanted(epoch: int, steps_done: int) -> bool:
        """Whether what is trained is looked at after a chunk: an epoch ends, a signal has come, or
        a checkpoint is due."""
        nonlocal stop
        stop = parallel.agree(signals[0] if signals else 0)
        due = parallel.agree(time.monotonic() - saved_at >= run.config.save_seconds)
        return steps_done == run.steps_per_epoch or bool(stop or due)

    score = _make_scorer(run)
    chunks = _start(run, clock, states, now, is_wanted)
    with TrainingDisplay(
        run.config.epochs, images_per_step, steps_done, run.config.input_is
    ) as display:
        while True:
            with clock.during("training"):
                chunk = next(chunks, None)
            if chunk is None:
                break
            compile_seconds = chunk.compile_seconds
            now = progress.advance(now, chunk, run.config.batch_size)
            display.update(chunk)
            if not is_wanted(chunk.epoch, chunk.steps_done):
                continue
            states = chunk.state
            if chunk.steps_done == chunk.steps:
                scores = _validate(run, clock, states, score, display, is_first)
                is_first = False
                rate = evaluation.plain(float(learning_rate(progress.steps_done(now) - 1)))
                now = progress.end_epoch(now, scores, rate)
                _write_metrics(run, now)
                for tag, value in records.scalars(now.history[-1]):
                    board.add_scalar(tag, value, progress.steps_done(now))
                display.print(_epoch_line(now.history[-1]))
            with clock.during("checkpoints"):
                _save(run, checkpoints, states, now)
            saved_at = time.monotonic()
            if stop:
                break
    return states, now, compile_seconds, stop


def _start(
    run: Run,
    clock: Clock,
    states: dict[str, TrainState],
    now: Progress,
    is_wanted: Callable[[int, int], bool],
) -> Iterator[Chunk]:
    """Compile what trains all networks side by side.

    Returns:
        Their chunks: the state is `{network: state}`, the losses are all members',
        `[members, steps]`.
    """
    parts = _kernel_parts(run.config)
    building = [kernels.start_building(part) for part in parts]
    what = "Building the C++ kernels, once, about 10 s"
    with clock.waiting("kernels", what) if any(building) else clock.during("kernels"):
        with_kernels = any([kernels.available(part) for part in parts])
    # Networks that take turns, and processes that wait for each other, go on chunk by chunk.
    ahead = len(run.kinds) == 1 and jax.process_count() == 1
    with clock.waiting("compiling", f"Compiling{', with C++ kernels' if with_kernels else ''}"):
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
                is_wanted=is_wanted if ahead else None,
                own_inputs=None if run.folds is None else run.folds.own_inputs,
                decode=stack.decode,
            )
            for name, stack in run.kinds.items()
        ]
    return (
        chunks[0]._replace(
            state=dict(zip(run.kinds, (chunk.state for chunk in chunks), strict=True)),
            losses=np.concatenate([chunk.losses for chunk in chunks]),
            seconds=sum(chunk.seconds for chunk in chunks),
            compile_seconds=sum(chunk.compile_seconds for chunk in chunks),
        )
        for chunks in zip(*by_network, strict=True)
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
            stack.predict(training.evaluated(states[name]), images)
            for name, stack in run.kinds.items()
        ]
    )


Score = Callable[[dict[str, TrainState]], dict[str, Any]]


def _make_scorer(run: Run) -> Score | None:
    """What gives the scores of states after an epoch; None where there is nothing to predict."""
    if run.folds is not None:
        ((name, stack),) = run.kinds.items()
        scorer = Scorer(run.config, stack, run.folds, run.dataset.train)
        return lambda states: scorer(states[name])
    images, labels = run.dataset.validation
    if not len(labels):
        return None
    members = _describe_members(run.config)

    def score(states: dict[str, TrainState]) -> dict[str, Any]:
        logits = _predict(run, states, images)
        return evaluation.split_scores("validation", members, logits, labels)

    return score


def _validate(
    run: Run,
    clock: Clock,
    states: dict[str, TrainState],
    score: Score | None,
    display: TrainingDisplay,
    is_first: bool,
) -> dict[str, Any]:
    """The scores on the validation images; empty where there are none.

    Args:
        score: from `_make_scorer`.
        is_first: of this process, so that most of the time goes to compiling the prediction.
    """
    if score is None:
        return {}
    what = "Validating, which is compiled the first time"
    if is_first:
        display.clear()
    with clock.waiting("compiling", what) if is_first else clock.during("validation"):
        return score(states)


def _evaluate(
    run: Run, clock: Clock, states: dict[str, TrainState], now: Progress
) -> tuple[dict[str, Any], np.ndarray | None]:
    """Predict the test images, with snapshots by them; with folds that has been done.

    Returns:
        What `results.json` says of the predictions, and all members' logits.
    """
    if run.folds is not None:
        return {"cross_validation": cross_validation.results(run.config, now.history)}, None
    images, labels = run.dataset.test
    members = _describe_members(run.config)
    with clock.waiting(
        "evaluation", f"Predicting {counted(len(labels), f'test {run.config.input_is}')}"
    ):
        if run.config.snapshots > 1:
            from experiments.workdir import trained

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
        return evaluation.split_scores("test", members, logits, labels) | {"unsure": unsure}, logits


def _finish(
    run: Run,
    clock: Clock,
    scores: dict[str, Any],
    logits: np.ndarray | None,
    now: Progress,
    compile_seconds: float,
) -> None:
    """Write and print the results; scores and logits are from `_evaluate`."""
    layouts = {name: stack.layout for name, stack in run.kinds.items()}
    environment = records.environment(layouts, kernels.available())
    seconds = clock.seconds()
    results = (
        records.describe(run.config, run.dataset)
        | scores
        | {
            "epochs": now.epochs + now.steps / run.steps_per_epoch,
            "train_seconds": round(now.train_seconds, 3),
            "compile_seconds": round(compile_seconds, 3),
            "images_per_second": round(now.images / now.train_seconds, 1),
            "seconds": {phase: round(spent, 3) for phase, spent in seconds.items()},
        }
        | environment
    )
    if parallel.is_lead():
        records.write_json(run.workdir / "results.json", results)
    if logits is not None:
        _print_results(results, logits, run.dataset)
    elif results["cross_validation"]["single"]:
        assert run.folds is not None  # without logits there are folds
        terminal.show(cross_validation.table(results["cross_validation"], run.folds.members))
    print(
        f"Trained in {results['train_seconds']:.1f} s "
        f"({results['images_per_second']:,.0f} {run.config.input_is}s/s), "
        f"compiled in {results['compile_seconds']:.1f} s."
    )
    print(in_words(results["seconds"]))


def _describe_members(config: Config) -> list[dict[str, Any]]:
    return [{"network": name, "seed": seed} for name, seeds in config.kinds for seed in seeds]


def _write_metrics(run: Run, now: Progress) -> None:
    if parallel.is_lead():
        records.write_json_lines(run.workdir / "metrics.jsonl", now.history)


def _first_line(run: Run) -> str:
    members = " + ".join(f"{len(stack.seeds)} x {name}" for name, stack in run.kinds.items())
    layouts = [stack.layout for stack in run.kinds.values()]
    count = len({device for layout in layouts for device in layout.devices})
    devices = counted(count, f"{layouts[0].devices[0].device_kind} device")
    if len(layouts) == 1 and layouts[0].data > 1:
        devices += f", {layouts[0].data} a member"
    size = counted(len(run.dataset.train.labels), run.config.input_is)
    if run.folds is not None:
        size = f"{run.train_size:,} of {size}"
    return (
        f"{members} on {size} of {run.dataset.name} "
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
    if dataset.characters:
        print(draw(dataset.test.inputs[digit]))
    if isinstance(dataset, Sentences):
        print(" ".join(sentences.words_of(dataset.test.inputs[digit], dataset.vocabulary)))


def _print_next(run: Run, unfinished: bool) -> None:
    """Where everything is, and what can be done with it."""
    folder = shlex.quote(str(run.workdir))
    commands = [
        f"evaluate {folder}",
        f"report {folder}",
        f"predict {folder} {run.config.predict_takes}",
    ]
    if run.folds is not None:  # it has been evaluated, fold by fold
        commands = commands[2:]
    if unfinished:
        commands.insert(0, f"run --resume {folder}")
    print(f"All of it is in {run.workdir}. Next:")
    for command in commands:
        print(f"  python -m experiments.{command}")


def _print_error(message: str, hint: str) -> None:
    print(f"error: {message}\n{hint}", file=sys.stderr, flush=True)
