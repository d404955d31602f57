"""Keys with their rounds written out: JAX's own numbers come from them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnist_jax import ensemble, keys, models, training

DRAWS = {
    "uniform": lambda key: jax.random.uniform(key, (3, 5, 7), minval=-1),
    "normal": lambda key: jax.random.normal(key, (130,)),
    "scalar": jax.random.uniform,
    "none": lambda key: jax.random.normal(key, (0, 3)),
    "randint": lambda key: jax.random.randint(key, (40,), 0, 1000),
    "permutation": lambda key: jax.random.permutation(key, 50),
    "bernoulli": lambda key: jax.random.bernoulli(key, 0.3, (50,)),
    "bytes": lambda key: jax.random.bits(key, (11,), jnp.uint8),
    "halves": lambda key: jax.random.normal(key, (9,), jnp.bfloat16),
    "split": lambda key: jax.random.key_data(jax.random.split(key, (2, 3))),
    "fold_in": lambda key: jax.random.key_data(jax.random.fold_in(key, 2**32 - 1)),
    "deep": lambda key: jax.random.bits(
        jax.random.fold_in(jax.random.split(jax.random.fold_in(key, 7), 3)[2], 1), (4,)
    ),
}


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1])
@pytest.mark.parametrize("name", DRAWS)
def test_the_numbers_are_jaxs(name, seed):
    draw = DRAWS[name]
    seed = np.uint32(seed)
    wanted = draw(jax.random.key(seed))
    for ours in (draw(keys.key(seed)), jax.jit(lambda seed: draw(keys.key(seed)))(seed)):
        assert ours.dtype == wanted.dtype
        np.testing.assert_array_equal(ours, wanted)


def test_many_seeds_at_once():
    seeds = np.arange(5, dtype=np.uint32)
    ours = jax.vmap(lambda seed: jax.random.normal(keys.key(seed), (4,)))(seeds)
    wanted = [jax.random.normal(jax.random.key(seed), (4,)) for seed in seeds]
    np.testing.assert_array_equal(ours, wanted)


@pytest.mark.parametrize(
    ("option", "value"),
    [("jax_threefry_partitionable", False), ("jax_default_prng_impl", "rbg")],
)
def test_another_generator_is_left_to_jax(option, value, monkeypatch):
    before = jax.config.values[option]
    jax.config.update(option, value)
    try:
        assert keys.key(3) == jax.random.key(3)
    finally:
        jax.config.update(option, before)


@pytest.mark.parametrize("name", ["simple", "fast"])
def test_initial_values_are_what_the_network_makes_of_jaxs_keys(name):
    """The seeds' initial values are a promise: a run can be made again from its seed."""
    network, optimizer = models.create(name), training.make_optimizer(0.001, 1)
    seeds = np.array([0, 7], np.uint32)
    state = jax.jit(lambda seeds: ensemble.init_state(network, optimizer, seeds))(seeds)
    initial = jax.jit(network.init)
    for i, seed in enumerate(seeds):
        key, _ = jax.random.split(jax.random.key(seed))
        wanted = initial(key, jnp.zeros((1, 28, 28, 1)))["params"]
        mine = jax.tree.map(lambda leaf, i=i: leaf[i], state.params)
        jax.tree.map(np.testing.assert_array_equal, mine, wanted)
