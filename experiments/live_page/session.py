"""A training that is watched and steered while it goes on: one thread owns it, others ask."""

import dataclasses
import queue
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np

from experiments.live_page import answers
from experiments.live_page import setting as settings
from experiments.live_page.measures import Measures
from experiments.live_page.predictions import Predictions
from experiments.live_page.setting import Setting
from experiments.workdir import evaluation, progress
from experiments.workdir.config import Config
from experiments.workdir.progress import Progress
from experiments.workdir.records import TrainedOn
from experiments.workdir.trained import Member, Trained
from mnist_jax import augment, data, loop, parallel, training
from mnist_jax.data import Dataset
from mnist_jax.training import TrainState

_Result = TypeVar("_Result")

_WATCHING = 0.03  # of the training time, for what is only shown
_SAMPLING = 0.03  # of the training time, for the curves' accuracies
_MOST_WAITING = 64  # commands, and looks
_FRESH_SECONDS = 1.5  # after which a copy of the members is made anew, if one is wanted


class Busy(RuntimeError):
    """More is asked for than can be answered."""


class Published(NamedTuple):
    """A copy of the members that stays while training goes on."""

    members: list[Member]  # their variables lie on devices, or on the host
    step: int
    made_at: float
    about: TrainedOn


class Images(NamedTuple):
    """Test images."""

    key: str  # the data's fingerprint, by which pages ask for them, and browsers keep them
    images: np.ndarray


class Session:
    """What the page shows, and the thread that makes it.

    `status`, `measures`, `predictions` and `published` are replaced as a whole or only grow, so
    that other threads read them as they are; all else is done by `ask` and `look`.
    """

    def __init__(self) -> None:
        self.watchers = 0  # open pages
        # Counts trainings; a page that has known an earlier process must not take it for that one.
        self.run = time.time_ns() // 1_000_000
        self.dataset: Dataset | None = None
        self.images = Images("", np.empty((0, 28, 28, 1), np.uint8))
        self.about = TrainedOn((), characters=True)
        self.predictions = Predictions(())
        self.published: Published | None = None
        self.unsure_above: float | None = None
        self.status: dict[str, Any] = {"state": "preparing", "message": "", "run": self.run}
        self.setting: Setting | None = None
        self._commands: queue.SimpleQueue[tuple[Callable[[], Any], Future] | None]
        self._commands = queue.SimpleQueue()
        self._looks: deque[tuple[Callable[[], Any], Future]] = deque()
        self._credit = 0.0
        self._sample_credit = 0.0
        self._compiled: set[str] = set()  # what has been done once, and so is compiled
        self._viewed: Trained | None = None
        self._state: TrainState | None = None
        self._chunks: Iterator[loop.Chunk] | None = None
        self._going, self._message, self._stopping = False, "", False
        self._to_step = 0
        self._now = progress.start(1)
        self._epochs = 0
        self.measures = Measures(1, 0)
        self._validation_at = 0  # which images are looked at next
        self._epoch_batches: tuple[Any, np.ndarray] = (None, np.zeros((0, 1), np.int32))
        self._placed: dict[str, float] = {}  # hyperparameters in the state
        self._realign = False
        self._random = np.random.default_rng(0)
        self._thread = threading.Thread(target=self._work, daemon=True, name="training")

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    # What other threads call.

    def ask(self, command: Callable[[], _Result]) -> "Future[_Result]":
        """Let the training's thread do something between two chunks.

        Raises:
            Busy: too much waits already.
        """
        if self._commands.qsize() >= _MOST_WAITING:
            raise Busy("The training is busy; try again.")
        future: Future[_Result] = Future()
        self._commands.put((command, future))
        return future

    def look(self, function: Callable[[], _Result]) -> "Future[_Result]":
        """Let the training's thread do what is only for the eye, so seldom that it costs little.

        Raises:
            Busy: too much waits already.
        """
        if len(self._looks) >= _MOST_WAITING:
            raise Busy("Too many pages are looking; try again.")
        future: Future[_Result] = Future()
        self._looks.append((function, future))
        self._commands.put(None)  # wakes it up where it waits
        return future

    def stop(self) -> None:
        """End the thread between two chunks, and wait for it."""
        self._stopping = True
        self._commands.put(None)
        self._thread.join()

    # Commands, for `ask`.

    def restart(self, config: Config) -> None:
        """Train new members. Errors of `setting.prepare` leave what is there as it is."""
        self._tell("preparing")
        try:
            setting = settings.prepare(config, self.setting)
        finally:
            self._tell()
        stack = setting.stack
        input_ = training.input_of(setting.dataset.train.inputs)
        state = parallel.init(stack.layout, stack.network, setting.optimizer, stack.seeds, input_)
        self.install(setting, state, progress.start(len(stack.seeds)))
        self._going = True

    def install(self, setting: Setting, state: TrainState, now: Progress) -> None:
        """Take members as they are, whose state is on the devices, and wait."""
        self.setting, self._state, self._now = setting, state, now
        self._chunks, self._going, self._message, self._to_step = None, False, "", 0
        self._epochs = max(setting.config.epochs, now.epochs + 1)
        self.run += 1
        self.dataset, self.about = setting.dataset, setting.about
        self.images = Images(setting.fingerprint, setting.dataset.test.inputs)
        self.predictions = Predictions(self.about.class_names, self.images.key)
        self.unsure_above = None
        self.measures = Measures(len(setting.stack.seeds), len(setting.dataset.validation.labels))
        self._placed, self._validation_at = {}, 0
        self._credit, self._sample_credit, self._compiled = 0.0, 0.0, set()
        self.publish()

    def view(self, trained: Trained, dataset: Dataset | None, unsure_above: float | None) -> None:
        """Show trained members, which are not trained further.

        Args:
            dataset: None where it cannot be had.
        """
        self._viewed, self.dataset, self.about = trained, dataset, trained.trained_on
        if dataset is not None:
            self.images = Images(data.fingerprint(dataset), dataset.test.inputs)
        self.unsure_above = unsure_above
        self.run += 1
        self.predictions = Predictions(self.about.class_names, self.images.key)
        devices = jax.local_devices()
        members = [
            dataclasses.replace(
                member, variables=jax.device_put(member.variables, devices[i % len(devices)])
            )
            for i, member in enumerate(trained.members)
        ]
        self.published = Published(members, trained.step, time.monotonic(), self.about)
        self._tell()

    def go(self) -> None:
        """Train, or go on; beyond the last epoch as many as there were."""
        self._need_state()
        assert self.setting is not None
        if self._now.epochs >= self._epochs:
            self._epochs += self.setting.config.epochs
        self._going, self._to_step = True, 0

    def pause(self) -> None:
        """Stop after this chunk."""
        self._going, self._to_step = False, 0

    def step(self) -> None:
        """One optimizer step, and wait."""
        self.go()
        self._going, self._to_step, self._chunks = False, 1, None

    def adjust(self, changes: dict[str, Any]) -> None:
        """Other hyperparameters for the steps to come; `changes` are fields of the config.

        Raises:
            ValueError: a batch size beyond the training set.
        """
        self._need_state()
        assert self.setting is not None
        before = self.setting.config
        config = dataclasses.replace(before, **changes)
        setting = settings.with_config(self.setting, config)
        _ = setting.steps_per_epoch
        if (config.batch_size, config.dropout) != (before.batch_size, before.dropout):
            seen = self._now.steps * before.batch_size
            done = min(seen // config.batch_size, setting.steps_per_epoch - 1)
            self._now = self._now._replace(steps=done - done % setting.chunk)
            self._chunks = None
        self.setting = setting

    def state_on_host(self) -> tuple[Setting, TrainState, Progress]:
        """All that going on needs."""
        self._need_state()
        assert self.setting is not None
        return self.setting, parallel.gather(self.setting.stack.layout, self._state), self._now

    # For `look`.

    def publish(self) -> None:
        """Copy the members, for whoever uses them while the training goes on."""
        if self._viewed is not None:
            return
        self._need_state()
        members = [self.member(i) for i in range(len(self.members()))]
        self.published = Published(members, self._step(), time.monotonic(), self.about)

    def member(self, i: int) -> Member:
        """A copy of one member as it is now."""
        if self._viewed is not None:
            assert self.published is not None
            return self.published.members[i]
        self._need_state()
        assert self.setting is not None and self._state is not None
        stack = self.setting.stack
        variables = parallel.member(stack.layout, training.evaluated(self._state), i)
        jax.block_until_ready(variables)
        return Member(self.setting.name, stack.network, stack.seeds[i], variables)

    def members(self) -> list[str]:
        """The members' names."""
        if self._viewed is not None:
            return [member.name for member in self._viewed.members]
        if self.setting is None:
            return []
        return [f"{self.setting.name} {seed}" for seed in self.setting.stack.seeds]

    def predict(self, inputs: np.ndarray) -> np.ndarray:
        """All members' logits now, float32 `[members, n, classes]`."""
        if self._viewed is not None:
            return self._viewed.predict(inputs)
        self._need_state()
        assert self.setting is not None and self._state is not None
        return self.setting.stack.predict(training.evaluated(self._state), inputs)

    # The thread.

    def _work(self) -> None:
        with jax.enable_x64(False):
            while not self._stopping:
                idle = not (self._going or self._to_step)
                self._obey(idle)
                try:
                    if self._going or self._to_step:
                        self._advance()
                    self._show()
                except loop.NonFiniteLoss as error:
                    self._fail(str(error))
                except Exception as error:  # the page goes on, and says what happened
                    traceback.print_exc(file=sys.stderr)
                    self._fail(f"{type(error).__name__}: {str(error).partition(chr(10))[0]}")
                self._tell()

    def _fail(self, message: str) -> None:
        self._going, self._to_step, self._chunks = False, 0, None
        self._state, self._message = None, message

    def _obey(self, idle: bool) -> None:
        """Do all commands that wait; where there is nothing else to do, wait for one."""
        waits_for_look = bool(self._looks) or self._wants_copy() or self._wants_test_images()
        timeout = 0.25 if idle and not waits_for_look else None
        while True:
            try:
                command = self._commands.get(block=timeout is not None, timeout=timeout)
            except queue.Empty:
                return
            timeout = None
            if command is not None:
                _answer(*command)

    def _begin(self) -> None:
        """Make what does the next steps; programs that are compiled already are found again."""
        assert self.setting is not None and self._state is not None
        setting, stack = self.setting, self.setting.stack
        self._tell("compiling")
        # Single steps until the chunks fall where they do in every epoch: no other program.
        aligned = self._now.steps % setting.chunk == 0 and not self._to_step
        self._chunks = loop.train(
            stack.layout,
            stack.network,
            setting.optimizer,
            self._state,
            stack.seeds,
            *setting.dataset.train,
            batch_size=setting.config.batch_size,
            epochs=self._epochs,
            data_seed=setting.config.data_seed,
            own_shuffles=setting.config.shuffles == "own",
            augment=augment.create(setting.config.augment),
            done=(self._now.epochs, self._now.steps),
            longest=setting.chunk if aligned else 1,
            adjust=self._with_hyperparameters,
        )
        self._realign = not aligned
        self.measures.forget_speed()

    def _with_hyperparameters(self, state: TrainState) -> TrainState:
        """The state with those of the config, where they have changed."""
        assert self.setting is not None
        wanted = {name: getattr(self.setting.config, name) for name in training.ADJUSTABLE}
        if wanted == self._placed:
            return state
        self._placed = wanted
        layout = self.setting.stack.layout
        on_devices = {
            name: parallel.place(layout, np.full(layout.members, value, np.float32))
            for name, value in wanted.items()
        }
        return state._replace(opt_state=state.opt_state._replace(hyperparams=on_devices))

    def _advance(self) -> None:
        """A chunk of steps, and what belongs to it whether somebody watches or not."""
        if self._state is None:
            raise ValueError("there is nothing to train; start anew.")
        assert self.setting is not None
        if self._now.epochs >= self._epochs:
            self._going, self._to_step = False, 0
            return
        if self._chunks is None:
            self._begin()
        assert self._chunks is not None
        chunk = next(self._chunks)
        self._state = chunk.state
        self._now = progress.advance(self._now, chunk, self.setting.config.batch_size)
        self.measures.add_chunk(chunk, self.setting.config.batch_size)
        self._credit += _WATCHING * chunk.seconds
        self._sample_credit += _SAMPLING * chunk.seconds
        if chunk.steps_done == chunk.steps:
            self._end_epoch()
        elif self._sample_credit > 0 or self._to_step:
            self._sample()
        if self._to_step:
            self._to_step, self._chunks = 0, None
        elif self._realign and self._now.steps % self.setting.chunk == 0:
            self._chunks = None
        if self._now.epochs >= self._epochs:
            self._going, self._chunks = False, None

    def _end_epoch(self) -> None:
        """Validate on all images, as `experiments.run` does."""
        assert self.setting is not None
        name, stack = self.setting.name, self.setting.stack
        scores: dict[str, Any] = {}
        images, labels = self.setting.dataset.validation
        if len(labels):
            logits = self._validate(images, labels)
            members = [{"network": name, "seed": seed} for seed in stack.seeds]
            scores = evaluation.split_scores("validation", members, logits, labels)
        self._now = progress.end_epoch(self._now, scores, self.setting.config.learning_rate)
        self.measures.add_point(self._step())

    def _sample(self) -> None:
        """Look at a few validation and training images, for the curves."""
        assert self.setting is not None and self._state is not None
        began = time.perf_counter()
        layout, dataset = self.setting.stack.layout, self.setting.dataset
        network, shape = self.setting.stack.network, dataset.train.inputs.shape[1:]
        count = parallel.predict_batch(layout, network, shape) * layout.data
        images, labels = dataset.validation
        if len(labels):
            chosen = (self._validation_at + np.arange(min(count, len(labels)))) % len(labels)
            self._validation_at = int(chosen[-1] + 1) % len(labels)
            self._validate(images[chosen], labels[chosen])
        seen = self._batches(self._now.epochs + 1)[: self._now.steps].reshape(-1)[-count:]
        if len(seen):
            logits = self.predict(dataset.train.inputs[seen])
            self.measures.train_accuracy = answers.accuracies(logits, dataset.train.labels[seen])
        squares = parallel.sum_of_squares(layout, self._state.params)
        self.measures.decay_loss = float(squares.mean()) * self.setting.config.weight_decay / 2
        self.measures.add_point(self._step())
        spent = time.perf_counter() - began
        if "sample" in self._compiled:
            self.measures.seconds += spent
            self._sample_credit -= spent
        self._compiled.add("sample")

    def _validate(self, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """All members' logits of validation images, which are noted."""
        began = time.perf_counter()
        logits = self.predict(images)
        self.measures.add_validation(logits, labels, time.perf_counter() - began)
        recent = self.measures.validated()
        assert recent is not None
        self.unsure_above = answers.threshold(answers.combine(recent[0]).mean, recent[1])
        return logits

    def _batches(self, epoch: int) -> np.ndarray:
        assert self.setting is not None
        config, n = self.setting.config, len(self.setting.dataset.train.labels)
        wanted = (self.run, epoch, config.batch_size)
        if self._epoch_batches[0] != wanted:
            batches = training.epoch_batches(config.data_seed, epoch, n, config.batch_size)
            self._epoch_batches = wanted, np.asarray(batches)
        return self._epoch_batches[1]

    def _show(self) -> None:
        """What is only for the eye: while training, only as much as there is credit for."""
        training_now = self._going or bool(self._to_step)
        self._credit = min(self._credit, 0.1)
        while self._looks and (self._credit > 0 or not training_now):
            self._pay("look", lambda: _answer(*self._looks.popleft()))
        if self._wants_copy() and (self._credit > 0 or not training_now):
            self._pay("copy", self.publish)
        if self._wants_test_images() and (self._credit > 0 or not training_now):
            self._pay("predict", self._predict_some)

    def _pay(self, kind: str, work: Callable[[], None]) -> None:
        """Do some work for its price; the first of a kind, which is compiled, has none."""
        began = time.perf_counter()
        work()
        if kind in self._compiled:
            self._credit -= time.perf_counter() - began
        self._compiled.add(kind)

    def _wants_copy(self) -> bool:
        """Whether drawings are answered by members that have long learned more."""
        if self._viewed is not None or self._state is None or not self.watchers:
            return False
        published = self.published
        if published is None:
            return True
        is_old = time.monotonic() - published.made_at > _FRESH_SECONDS
        return is_old and published.step != self._step()

    def _wants_test_images(self) -> bool:
        if not self.watchers or self.dataset is None or not len(self.dataset.test.labels):
            return False
        if self._viewed is None and self._state is None:
            return False
        is_training = self._going or bool(self._to_step)
        return is_training or not self.predictions.is_full_at(self._step())

    def _predict_some(self) -> None:
        assert self.dataset is not None
        images, labels = self.dataset.test
        inputs, chosen = self.predictions.choose(images, self._random)
        logits = self.predict(inputs)
        self.predictions.add(chosen, labels[chosen], logits, self._step())

    def _step(self) -> int:
        if self._viewed is not None:
            return self._viewed.step
        return progress.steps_done(self._now)

    def _need_state(self) -> None:
        if self._viewed is not None:
            raise ValueError("this is a trained workdir, shown without training.")
        if self._state is None:
            raise ValueError("there are no members; start anew.")

    def _tell(self, state: str | None = None) -> None:
        """Replace `status`, which is what the page's first lines say."""
        if state is None:
            state = self._state_name()
        about = {"state": state, "going": self._going, "message": self._message, "run": self.run}
        self.status = about | self._figures()

    def _state_name(self) -> str:
        if self._viewed is not None:
            return "viewing"
        if self._message:
            return "failed"
        if self.setting is None:
            return "preparing"
        if self._going or self._to_step:
            return "training"
        return "finished" if self._now.epochs >= self._epochs else "paused"

    def _figures(self) -> dict[str, Any]:
        about = {
            "members": self.members(),
            "class_names": self.about.class_names,
            "image_shape": self.about.image_shape,
            "unsure_above": self.unsure_above,
            "test_images": 0 if self.dataset is None else len(self.dataset.test.labels),
            "dataset": None if self.dataset is None else self.dataset.name,
            "source": None if self.dataset is None else self.dataset.source,
        }
        if self.setting is None or self._viewed is not None:
            return about
        config, members = self.setting.config, len(self.setting.stack.seeds)
        steps = self.setting.steps_per_epoch
        left = (self._epochs - self._now.epochs) * steps - self._now.steps
        rate = self.measures.images_per_second()
        devices = self.setting.stack.layout.devices
        return (
            about
            | self.measures.figures()
            | {
                "network": self.setting.name,
                "config": {name: getattr(config, name) for name in _SHOWN},
                "train_images": len(self.setting.dataset.train.labels),
                "validation_images": len(self.setting.dataset.validation.labels),
                "parameters": settings.parameters(self.setting),
                "devices": f"{len(devices)} x {devices[0].device_kind}",
                "step": self._step(),
                "epoch": self._now.epochs,
                "epochs": self._epochs,
                "steps_in_epoch": self._now.steps,
                "steps_per_epoch": steps,
                "seconds_left": rate and max(left, 0) * config.batch_size * members / rate,
            }
        )


_SHOWN = (
    *("network", "optimizer", "learning_rate", "beta1", "weight_decay", "batch_size", "dropout"),
    *("epochs", "augment", "normalize", "dataset"),
)


def _answer(function: Callable[[], Any], future: Future) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(function())
    except BaseException as error:
        future.set_exception(error)
