"""What is saved comes back, bit for bit."""

import jax
import numpy as np

from mnist_jax import ensemble, training
from mnist_jax.checkpoints import Checkpoints
from tests.tiny import Tiny


def test_a_state_comes_back_and_two_are_kept(tmp_path):
    network, optimizer = Tiny(), training.make_optimizer(0.01, 1)
    state = ensemble.init_state(network, optimizer, np.arange(3, dtype=np.uint32))
    states = [jax.tree.map(lambda leaf, i=i: np.asarray(leaf) + i, state) for i in range(3)]
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        assert checkpoints.latest_step() is None
        for i, saved in enumerate(states):
            checkpoints.save(i, saved)
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        assert checkpoints.latest_step() == 2
        for i in (1, 2):
            restored = checkpoints.restore(i, like=states[0])
            assert isinstance(restored, training.TrainState)
            for a, b in zip(jax.tree.leaves(restored), jax.tree.leaves(states[i]), strict=True):
                np.testing.assert_array_equal(a, b)
    folders = {path.name for path in (tmp_path / "checkpoints").iterdir() if path.is_dir()}
    assert folders == {"1", "2"}
