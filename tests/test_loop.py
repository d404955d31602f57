"""The loop: its chunks, its errors and its interrupts."""

import signal
import threading

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mnist_jax import loop, parallel, training
from tests.tiny import Tiny, problem, some_devices


@settings(deadline=None)
@given(steps=st.integers(1, 2000), longest=st.integers(1, 200))
def test_chunk_lengths_cover_the_epoch_in_at_most_two_lengths(steps, longest):
    lengths = loop.chunk_lengths(steps, longest)
    assert sum(lengths) == steps and max(lengths) <= longest and len(set(lengths)) <= 2


def test_chunk_lengths():
    assert loop.chunk_lengths(550, 10) == [10] * 55
    assert loop.chunk_lengths(547, 10) == [10] * 54 + [7]
    assert loop.chunk_lengths(3, 10) == [3]
    assert loop.chunk_lengths(14, 10) == [7, 7]


def start(learning_rate=0.01, batch_size=10, epochs=2, n=130, seeds=(0, 7), **options):
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
        **options,
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
        signal.raise_signal(signal.SIGINT)
        assert received == [signal.SIGINT]
        signal.raise_signal(signal.SIGINT)
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


def test_chunks_that_nobody_looks_at_are_the_same_training():
    asked = []

    def is_wanted(epoch, steps_done):
        asked.append((epoch, steps_done))
        return steps_done == 13

    one_by_one, ahead = list(start()), list(start(is_wanted=is_wanted))
    assert asked == [(c.epoch, c.steps_done) for c in one_by_one]
    assert [c.state is not None for c in ahead] == [False, True, False, True]
    for a, b in zip(one_by_one, ahead, strict=True):
        np.testing.assert_array_equal(a.losses, b.losses)
        assert a[1:4] == b[1:4]
    jax.tree.map(np.testing.assert_array_equal, one_by_one[-1].state, ahead[-1].state)


def test_the_last_state_is_always_there():
    assert [c.state is None for c in start(is_wanted=lambda *_: False)] == [True, True, True, False]


def test_a_wanted_state_is_that_of_its_chunk():
    """Also while the chunk before it was passed over."""
    states = [
        jax.tree.map(np.array, c.state)
        for c in start(is_wanted=lambda epoch, steps_done: (epoch, steps_done) == (2, 10))
        if c.state is not None
    ]
    steps = [np.unique(state.step).tolist() for state in states]
    assert steps == [[23], [26]]


def test_a_loss_that_is_not_finite_is_named_where_nobody_looks():
    with pytest.raises(loop.NonFiniteLoss, match=r"in epoch 1, step \d+, member"):
        list(start(learning_rate=1e30, is_wanted=lambda *_: False))


def test_the_next_chunk_has_begun_before_this_one_is_looked_at(monkeypatch):
    happened = []
    compile_train, gather = parallel.compile_train, parallel.gather

    def compile_and_note(*args):
        run = compile_train(*args)

        def train(*args):
            happened.append("begun")
            return run(*args)

        return train

    def gather_and_note(*args):
        happened.append("looked at")
        return gather(*args)

    monkeypatch.setattr(parallel, "compile_train", compile_and_note)
    monkeypatch.setattr(parallel, "gather", gather_and_note)
    chunks = start(is_wanted=lambda epoch, steps_done: steps_done == 13)
    for _ in chunks:
        happened.append("given")
    unseen, wanted = ["begun", "looked at", "given"], ["looked at", "given"]
    assert happened == 2 * ["begun", *unseen, *wanted]


def test_seconds_are_those_that_pass(monkeypatch):
    """Each second belongs to one chunk at most, whoever waits for what."""
    now = iter(range(1000))
    monkeypatch.setattr(loop.time, "perf_counter", lambda: float(next(now)))
    began = next(now)
    chunks = list(start(is_wanted=lambda epoch, steps_done: steps_done == 13))
    assert all(c.seconds > 0 for c in chunks)
    assert sum(c.seconds for c in chunks) + chunks[0].compile_seconds < next(now) - began
