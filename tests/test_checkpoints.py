"""What is saved comes back, bit for bit; what is damaged is found out."""

import os
import shutil
import warnings
from pathlib import Path

import jax
import numpy as np
import pytest

from mnist_jax import ensemble, training
from mnist_jax.checkpoints import CheckpointError, Checkpoints, CheckpointWarning
from tests.tiny import Tiny


@pytest.fixture(scope="module")
def state():
    optimizer = training.make_optimizer(0.01, 1)
    return ensemble.init_state(Tiny(), optimizer, np.arange(3, dtype=np.uint32))


def plus(state, i):
    return jax.tree.map(lambda leaf: np.asarray(leaf) + i, state)


@pytest.fixture(scope="module")
def saved(tmp_path_factory, state) -> Path:
    """Steps 1 to 5, of which 2 was the best."""
    folder = tmp_path_factory.mktemp("saved") / "checkpoints"
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.restore(state) is None
        for i in range(1, 6):
            checkpoints.save(i, plus(state, i), {"i": i, "x": [0.1, 1e-30]}, best=i == 2)
    return folder


def assert_holds(found, state, step):
    assert found.step == step and found.details == {"i": step, "x": [0.1, 1e-30]}
    assert isinstance(found.state, training.TrainState)
    leaves = jax.tree.leaves(found.state), jax.tree.leaves(plus(state, step))
    for a, b in zip(*leaves, strict=True):
        assert isinstance(a, np.ndarray) and a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_chosen_steps_are_kept(tmp_path, state):
    with Checkpoints(tmp_path / "checkpoints", keep=[1, 3]) as checkpoints:
        for i in range(1, 7):
            checkpoints.save(i, plus(state, i), {"i": i, "x": [0.1, 1e-30]}, best=i == 2)
        checkpoints.wait()
        assert checkpoints.steps() == [1, 2, 3, 5, 6]
        assert_holds(checkpoints.restore_step(3, state), state, 3)
        with pytest.raises(CheckpointError, match="checkpoints/4 cannot be read"):
            checkpoints.restore_step(4, state)


def test_the_last_two_and_the_best_are_kept(saved, state):
    with Checkpoints(saved, read_only=True) as checkpoints:
        assert checkpoints.steps() == [2, 4, 5]
        assert_holds(checkpoints.restore(state), state, 5)


def damage(path: Path, how: str) -> None:
    size = path.stat().st_size
    if how == "deleted":
        path.unlink()
    elif how == "truncated":
        os.truncate(path, size // 2)
    elif how == "zeroed":
        path.write_bytes(bytes(size))
    else:
        content = bytearray(path.read_bytes())
        content[size // 2] ^= 1
        path.write_bytes(content)


@pytest.mark.parametrize("how", ["deleted", "truncated", "zeroed", "flipped"])
def test_no_damage_goes_unnoticed(saved, state, tmp_path, how):
    """Each file in turn: the state comes back right, or the one before does with a warning."""
    files = [path.relative_to(saved) for path in (saved / "5").rglob("*") if path.is_file()]
    fell_back = 0
    for i, file in enumerate(files):
        folder = tmp_path / str(i)
        shutil.copytree(saved, folder)
        damage(folder / file, how)
        with (
            Checkpoints(folder, read_only=True) as checkpoints,
            warnings.catch_warnings(record=True) as caught,
        ):
            warnings.simplefilter("always")
            found = checkpoints.restore(state)
        assert_holds(found, state, found.step)
        said = [w for w in caught if w.category is CheckpointWarning]
        assert (found.step, len(said)) in [(5, 0), (4, 1)]
        fell_back += found.step == 4
    assert fell_back >= 4 and len(files) >= 10


def test_after_a_damaged_one_the_run_saves_again(saved, state, tmp_path):
    shutil.copytree(saved, tmp_path / "c")
    (tmp_path / "c" / "5" / "details" / "metadata").write_text("{")
    with Checkpoints(tmp_path / "c") as checkpoints:
        with pytest.warns(CheckpointWarning, match="5 is damaged"):
            assert_holds(checkpoints.restore(state), state, 4)
        checkpoints.save(5, plus(state, 5), {"i": 5, "x": [0.1, 1e-30]})
    with Checkpoints(tmp_path / "c") as checkpoints:
        assert_holds(checkpoints.restore(state), state, 5)


def test_all_damaged_is_an_error(saved, state, tmp_path):
    shutil.copytree(saved, tmp_path / "c")
    for step in (2, 4, 5):
        (tmp_path / "c" / str(step) / "details" / "metadata").unlink()
    with (
        Checkpoints(tmp_path / "c", read_only=True) as checkpoints,
        pytest.warns(CheckpointWarning),
        pytest.raises(CheckpointError, match="every checkpoint is damaged"),
    ):
        checkpoints.restore(state)


def test_another_structure_is_an_error(saved):
    other = {"a": np.zeros(3)}
    with (
        Checkpoints(saved, read_only=True) as checkpoints,
        pytest.warns(CheckpointWarning),
        pytest.raises(CheckpointError),
    ):
        checkpoints.restore(other)
