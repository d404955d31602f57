"""The training loop: a generator of chunks; whoever uses it decides what happens between them."""

import contextlib
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import NamedTuple

import flax.linen as nn
import numpy as np
import optax

from mnist_jax import parallel
from mnist_jax.parallel import Layout
from mnist_jax.training import TrainState, epoch_batches, steps_per_epoch

_CHUNK = {"cpu": 10}  # steps a dispatch: about a second of work
_CHUNK_ACCELERATOR = 110


class NonFiniteLoss(FloatingPointError):
    """A member's loss became NaN or infinite."""


class Chunk(NamedTuple):
    """What a few steps did."""

    state: TrainState  # on the devices; used up when the next chunk begins
    epoch: int  # from 1
    steps_done: int  # of this epoch
    steps: int  # in an epoch
    losses: np.ndarray  # float32 [members, steps of this chunk]
    seconds: float
    compile_seconds: float  # of the whole training, before its first chunk


@contextlib.contextmanager
def interrupts() -> Iterator[list[int]]:
    """Turn Ctrl-C into an entry of a list, to be looked at between chunks.

    An exception in the middle of a chunk would lose the state, whose buffers are used up there. A
    second Ctrl-C raises `KeyboardInterrupt` at once. In a thread other than the main one, which
    Ctrl-C never reaches, the list stays empty.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def handle(signal_number: int, frame: FrameType | None) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(signal_number)

    previous = signal.signal(signal.SIGINT, handle)
    try:
        yield received
    finally:
        signal.signal(signal.SIGINT, previous)


def chunk_lengths(steps: int, longest: int) -> list[int]:
    """Cut an epoch into chunks: of one length if one divides it well, else with a shorter last one.

    Each length is compiled once, so few lengths are better than even ones.
    """
    good = [length for length in range(1, longest + 1) if steps % length == 0]
    length = good[-1] if 2 * good[-1] > longest or good[-1] == steps else longest
    rest = steps % length
    return [length] * (steps // length) + ([rest] if rest else [])


def train(
    layout: Layout,
    network: nn.Module,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    seeds: Sequence[int],
    images: np.ndarray,
    labels: np.ndarray,
    *,
    batch_size: int,
    epochs: int,
    data_seed: int = 0,
) -> Iterator[Chunk]:
    """Train all members, yielding after each chunk of steps.

    Args:
        layout: from `parallel.plan`.
        state: from `parallel.init`; its buffers are used up.
        seeds: one a member.
        images: uint8 or float32 in [0, 1], `[n, 28, 28, 1]`.
        labels: int32 `[n]`.
        batch_size: images a step, at most `n`.
        data_seed: shuffles; all members see the same batches.

    Raises:
        ValueError: a batch size below 1 or above the number of images, epochs below 1.
        NonFiniteLoss: naming epoch, member and step. No chunk is yielded for it.
    """
    if epochs < 1:
        raise ValueError(f"epochs must be at least 1, not {epochs}.")
    on_devices = parallel.replicate(layout, images), parallel.replicate(layout, labels)
    steps = steps_per_epoch(len(images), batch_size)
    lengths = chunk_lengths(steps, _CHUNK.get(layout.devices[0].platform, _CHUNK_ACCELERATOR))
    started = time.perf_counter()
    run = {
        length: parallel.compile_train(
            layout, network, optimizer, seeds, state, *on_devices, batch_size, length
        )
        for length in set(lengths)
    }
    compile_seconds = time.perf_counter() - started
    for epoch in range(1, epochs + 1):
        batches = np.asarray(epoch_batches(data_seed, epoch, len(images), batch_size))
        done = 0
        for length in lengths:
            started = time.perf_counter()
            state, on_device_losses = run[length](state, *on_devices, batches[done : done + length])
            losses = parallel.gather(layout, on_device_losses)
            seconds = time.perf_counter() - started
            _check_finite(losses, seeds, epoch, done)
            done += length
            yield Chunk(state, epoch, done, steps, losses, seconds, compile_seconds)


def _check_finite(losses: np.ndarray, seeds: Sequence[int], epoch: int, done: int) -> None:
    bad = np.argwhere(~np.isfinite(losses.T))
    if len(bad):
        step, member = bad[0]
        raise NonFiniteLoss(
            f"The loss became {losses[member, step]} in epoch {epoch}, step {done + step + 1}, "
            f"member {member} (seed {seeds[member]}). A smaller learning rate often helps."
        )
