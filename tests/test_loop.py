"""The loop: its chunks, its errors and its interrupts."""

import os
import signal
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnist_jax import loop, parallel, training
from tests.tiny import Tiny, problem, some_devices


@given(steps=st.integers(1, 2000), longest=st.integers(1, 200))
def test_chunk_lengths_cover_the_epoch_in_at_most_two_lengths(steps, longest):
    lengths = loop.chunk_lengths(steps, longest)
    assert sum(lengths) == steps and max(lengths) <= longest and len(set(lengths)) <= 2


def test_chunk_lengths():
    assert loop.chunk_lengths(550, 10) == [10] * 55
    assert loop.chunk_lengths(547, 10) == [10] * 54 + [7]
    assert loop.chunk_lengths(3, 10) == [3]
    assert loop.chunk_lengths(14, 10) == [7, 7]


def start(learning_rate=0.01, batch_size=10, epochs=2, n=130, seeds=(0, 7)):
    layout = parallel.plan(len(seeds), some_devices(2))
    network, optimizer = Tiny(), training.make_optimizer(learning_rate, 100)
    state = parallel.init(layout, network, optimizer, seeds)
    images, labels = problem(n)
    return loop.train(
        layout,
        network,
        optimizer,
        state,
        seeds,
        images,
        labels,
        batch_size=batch_size,
        epochs=epochs,
    )


def test_chunks_count_epochs_and_steps():
    chunks = list(start())
    seen = [(c.epoch, c.steps_done, c.steps, c.losses.shape) for c in chunks]
    assert seen == [
        (epoch, done, 13, (2, length)) for epoch in (1, 2) for done, length in ((10, 10), (13, 3))
    ]
    losses = np.concatenate([c.losses for c in chunks], axis=1)
    assert (losses[:, -5:].mean(axis=1) < losses[:, :5].mean(axis=1)).all()


def test_a_loss_that_is_not_finite_is_named():
    with pytest.raises(loop.NonFiniteLoss, match=r"in epoch 1, step \d+, member \d \(seed [07]\)"):
        list(start(learning_rate=1e30))


def test_the_first_bad_step_is_found_across_members():
    losses = np.ones((3, 4), np.float32)
    losses[0, 3], losses[2, 1], losses[2, 2] = np.nan, np.inf, np.nan
    with pytest.raises(loop.NonFiniteLoss, match=r"inf in epoch 5, step 22, member 2 \(seed 9\)"):
        loop._check_finite(losses, [7, 8, 9], 5, 20)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 131}, "batch_size must be from 1 to the 130 training images, not 131"),
        ({"batch_size": 0}, "batch_size must be from 1"),
        ({"epochs": 0}, "epochs must be at least 1, not 0"),
    ],
)
def test_wrong_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        next(start(**options))


def test_interrupts_are_kept_and_the_second_raises():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), loop.interrupts() as received:
        assert not received
        os.kill(os.getpid(), signal.SIGINT)
        assert received == [signal.SIGINT]
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_interrupts_in_another_thread_are_none():
    found = []

    def run():
        with loop.interrupts() as received:
            found.append(list(received))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [[]]
