"""The training loop: a generator of chunks; whoever uses it decides what happens between them."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any, NamedTuple, NoReturn

import flax.linen as nn
import jax
import numpy as np
import optax
from jax import Array

from mnist_jax import data, parallel
from mnist_jax.augment import Augment
from mnist_jax.parallel import Layout
from mnist_jax.training import Decode, TrainState, epoch_batches, steps_per_epoch, to_float

_CHUNK = 10  # steps a dispatch on a CPU: about a second of work
_CHUNK_ACCELERATOR = 110
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class NonFiniteLoss(FloatingPointError):
    """A member's loss became NaN or infinite."""


class Chunk(NamedTuple):
    """What a few steps did."""

    # A TrainState on the devices, used up when the next chunk begins; None where that has begun.
    state: Any
    epoch: int  # from 1
    steps_done: int  # of this epoch
    steps: int  # in an epoch
    losses: np.ndarray  # float32 [members, steps of this chunk]
    seconds: float
    compile_seconds: float  # of the whole training, before its first chunk


class _Begun(NamedTuple):
    """A chunk that the devices work on."""

    state: TrainState
    losses: Array  # on the devices
    epoch: int
    steps_done: int
    since: float


def _raise(signal_number: int) -> NoReturn:
    raise KeyboardInterrupt


@contextlib.contextmanager
def interrupts(
    second: Callable[[int], None] = _raise, signals: Sequence[int] = _SIGNALS
) -> Iterator[list[int]]:
    """Turn SIGINT (Ctrl-C) and SIGTERM, or others, into entries of a list, to be looked at between
    chunks.

    An exception in the middle of a chunk would lose the state, whose buffers are used up there. A
    second signal calls `second` with its number at once, which by default raises
    `KeyboardInterrupt`. In a thread other than the main one, which signals never reach, the list
    stays empty.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def handle(signal_number: int, frame: FrameType | None) -> None:
        if received:
            second(signal_number)
        received.append(signal_number)

    previous = {number: signal.signal(number, handle) for number in signals}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def chunk_lengths(steps: int, longest: int) -> list[int]:
    """Cut an epoch into chunks: of one length if one divides it well, else with a shorter last one.

    Each length is compiled once, so few lengths are better than even ones.
    """
    good = [length for length in range(1, longest + 1) if steps % length == 0]
    return cut(steps, good[-1] if 2 * good[-1] > longest or good[-1] == steps else longest)


def cut(steps: int, length: int) -> list[int]:
    """Pieces of a length, and a shorter last one where they do not add up to `steps`."""
    rest = steps % length
    return [length] * (steps // length) + ([rest] if rest else [])


def train(
    layout: Layout,
    network: nn.Module,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    seeds: Sequence[int],
    inputs: np.ndarray,
    labels: np.ndarray,
    *,
    batch_size: int,
    epochs: int,
    data_seed: int = 0,
    own_shuffles: bool = False,
    augment: Augment | None = None,
    input_weights: np.ndarray | None = None,
    decode: Decode = to_float,
    own_inputs: np.ndarray | None = None,
    done: tuple[int, int] = (0, 0),
    is_wanted: Callable[[int, int], bool] | None = None,
    longest: int | None = None,
    adjust: Callable[[TrainState], TrainState] | None = None,
) -> Iterator[Chunk]:
    """Compile the training of all members; the iterator trains them, a chunk of steps at a time.

    Args:
        layout: from `parallel.plan`.
        state: from `parallel.init`; its buffers are used up.
        seeds: one a member.
        inputs: `[n, ...]`, such as images, uint8 or float32 in [0, 1].
        labels: int32 `[n]`.
        batch_size: inputs a step, at most `n`.
        data_seed: shuffles; all members see the same batches.
        own_shuffles: instead each member sees batches of its own, which also its seed decides on.
        augment: changes the decoded inputs of each batch, from `augment.create`.
        input_weights: of each input in the loss, float32 `[n]`; a batch's loss is the sum of its
            inputs' weighted losses, divided by `batch_size`. Default 1.
        decode: makes inputs as they are stored, and given here, into those of the network.
        own_inputs: of each member the places of the inputs that it trains on, int32
            `[members, m]`, as of folds; each then has batches of its own. Default all inputs.
        done: whole epochs, and steps of the next one, that `state` has behind it. A run that goes
            on from the end of one of its own chunks ends with the bits it would have had.
        is_wanted: whether the state is wanted after a chunk, by its epoch and the steps done in it;
            default after each. Where it is not, the next chunk begins before what this one did is
            looked at, so that the devices do not wait for whoever does that.
        longest: steps of a chunk, at most; default by the platform.
        adjust: called with the state before each chunk; the chunk begins with what it returns, as
            with other hyperparameters of `training.make_adjustable`.

    Raises:
        TypeError, ValueError: inputs or labels that `data.check` refuses, a batch size below 1 or
            above the number of inputs, epochs below 1, another number of seeds than members, or of
            weights than inputs.
        NonFiniteLoss: naming epoch, member and step. No chunk is yielded for it.
    """
    if epochs < 1:
        raise ValueError(f"epochs must be at least 1, not {epochs}.")
    if len(seeds) != layout.members:
        raise ValueError(f"seeds must be {layout.members}, one a member, not {len(seeds)}.")
    data.check(inputs, labels, getattr(network, "num_classes", 2**31))
    if input_weights is not None and np.shape(input_weights) != np.shape(labels):
        raise ValueError(
            f"input_weights must be [{len(inputs)}], one an input, not {np.shape(input_weights)}."
        )
    on_devices = parallel.replicate(layout, inputs), parallel.replicate(layout, labels)
    weights = None
    if input_weights is not None:
        weights = parallel.replicate(layout, np.asarray(input_weights, np.float32))
    count = len(inputs) if own_inputs is None else own_inputs.shape[1]
    own_shuffles = own_shuffles or own_inputs is not None
    steps = steps_per_epoch(count, batch_size)
    epochs_done, steps_done = done
    if epochs_done >= epochs:
        return iter(())
    on_cpu = layout.devices[0].platform == "cpu"
    whole = chunk_lengths(steps, longest or (_CHUNK if on_cpu else _CHUNK_ACCELERATOR))
    first = cut(steps - steps_done, whole[0])
    started = time.perf_counter()
    run = {
        length: parallel.compile_train(
            layout,
            network,
            optimizer,
            seeds,
            state,
            *on_devices,
            batch_size,
            length,
            own_shuffles,
            augment,
            weights,
            decode,
        )
        for length in {*first, *(whole if epochs - epochs_done > 1 else [])}
    }
    compile_seconds = time.perf_counter() - started

    pieces = _pieces(
        [first, *[whole] * (epochs - epochs_done - 1)],
        done,
        lambda epoch: _batches(
            data_seed, epoch, count, batch_size, seeds if own_shuffles else None, own_inputs
        ),
    )

    def begin_next(state: TrainState) -> _Begun | None:
        piece = next(pieces, None)
        if piece is None:
            return None
        since = time.perf_counter()
        length = piece.batches.shape[-2]
        state = state if adjust is None else adjust(state)
        new, losses = run[length](state, *on_devices, piece.batches)
        return _Begun(new, losses, piece.epoch, piece.steps_done, since)

    def chunks() -> Iterator[Chunk]:
        begun, looked_at = begin_next(state), 0.0
        while begun:
            if on_cpu:  # a signal need not wait for a chunk that has hardly begun
                jax.block_until_ready(begun.losses)
            wanted = is_wanted is None or is_wanted(begun.epoch, begun.steps_done)
            following = None if wanted else begin_next(begun.state)
            losses = parallel.gather(layout, begun.losses)
            before, looked_at = looked_at, time.perf_counter()
            _check_finite(losses, seeds, begun.epoch, begun.steps_done - losses.shape[1])
            yield Chunk(
                begun.state if following is None else None,
                begun.epoch,
                begun.steps_done,
                steps,
                losses,
                looked_at - max(begun.since, before),
                compile_seconds,
            )
            begun = following or begin_next(begun.state)

    return chunks()


class _Piece(NamedTuple):
    """The batches of a chunk."""

    epoch: int
    steps_done: int  # of it, after this
    batches: np.ndarray  # int32 [..., steps, batch]


def _pieces(
    lengths: Sequence[Sequence[int]],
    done: tuple[int, int],
    batches_of: Callable[[int], np.ndarray],
) -> Iterator[_Piece]:
    """All chunks to come, epoch by epoch.

    Args:
        lengths: of the chunks of each epoch, in steps.
        done: whole epochs, and steps of the next one.
        batches_of: an epoch's batches.
    """
    epochs_done, steps_done = done
    for epoch, chunks in enumerate(lengths, start=epochs_done + 1):
        batches = batches_of(epoch)
        for length in chunks:
            part = batches[..., steps_done : steps_done + length, :]
            steps_done += length
            yield _Piece(epoch, steps_done, part)
        steps_done = 0


def _batches(
    data_seed: int,
    epoch: int,
    n: int,
    batch_size: int,
    seeds: Sequence[int] | None,
    own_inputs: np.ndarray | None,
) -> np.ndarray:
    """An epoch's batches of all members `[steps, batch]` or, given seeds, of each one."""
    if seeds is None:
        return np.asarray(epoch_batches(data_seed, epoch, n, batch_size))
    batches = [np.asarray(epoch_batches(data_seed, epoch, n, batch_size, seed)) for seed in seeds]
    if own_inputs is not None:
        batches = [own[batch] for own, batch in zip(own_inputs, batches, strict=True)]
    return np.stack(batches)


def _check_finite(losses: np.ndarray, seeds: Sequence[int], epoch: int, done: int) -> None:
    bad = np.argwhere(~np.isfinite(losses.T))
    if len(bad):
        step, member = bad[0]
        raise NonFiniteLoss(
            f"The loss became {losses[member, step]} in epoch {epoch}, step {done + step + 1}, "
            f"member {member} (seed {seeds[member]}). A smaller learning rate often helps."
        )
