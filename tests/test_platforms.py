"""What decides between the formulations: the devices, said or left to the lowering."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mnist_jax import ensemble, parallel, platforms
from tests.tiny import Tiny, problem


def which(x):
    """0 on a CPU, 1 on a TPU, 2 elsewhere."""
    return platforms.choose(x, cpu=lambda x: x, tpu=lambda x: x + 1, default=lambda x: x + 2)


@pytest.mark.parametrize(("platform", "found"), [("cpu", 0), ("tpu", 1), ("gpu", 2), ("rocm", 2)])
@pytest.mark.parametrize("function", [which, jax.jit(which)])
def test_what_is_known_decides_and_is_not_mixed_up(function, platform, found):
    with platforms.known(platform):
        assert platforms.likely() == platform
        assert function(0) == found  # the same compiled function for all cases


def test_what_is_known_is_known_inside_only():
    before = platforms.likely()
    with platforms.known("tpu"), platforms.known("gpu"):
        assert platforms.likely() == "gpu"
    assert platforms.likely() == before == jax.devices()[0].platform


def test_a_default_device_counts_as_likely():
    with jax.default_device(jax.devices("cpu")[0]):
        assert platforms.likely() == "cpu"
    with jax.default_device("cpu"):
        assert platforms.likely() == "cpu"


@pytest.mark.parametrize(("platform", "added"), [("cpu", 0), ("tpu", 1), ("cuda", 2), ("rocm", 2)])
def test_else_the_lowering_decides(platform, added):
    text = jax.jit(which).trace(0.0).lower(lowering_platforms=(platform,)).as_text()
    found = [number for number in (1, 2) if f"dense<{number}.0" in text]
    assert found == [added][: added > 0]


def test_gradients_and_members_go_through_it():
    def square(x):
        return platforms.choose(x, cpu=lambda x: x**2, default=lambda x: x * x)

    out = jax.jit(jax.vmap(jax.grad(square)))(jnp.arange(3.0))
    np.testing.assert_array_equal(out, [0, 2, 4])


@pytest.mark.parametrize("platform", ["cpu", "gpu", "tpu"])
def test_members_in_turn_and_at_once_are_the_same(platform):
    with platforms.known(platform):
        found = jax.jit(lambda x, y: ensemble.map_members(jnp.dot, x, y))(
            jnp.arange(6.0).reshape(3, 2), jnp.ones((3, 2))
        )
    np.testing.assert_array_equal(found, [1, 5, 9])


said: list[str] = []


class Says(Tiny):
    """Logits that tell the platform that was known when they were traced."""

    def __call__(self, images, train=False):
        said.append(platforms.likely())
        return super().__call__(images, train)


def test_parallel_says_whose_devices_it_maps_over(monkeypatch):
    """Also where JAX's default is something else, as on a machine with a GPU."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    cpu = jax.devices("cpu")[:1]
    layout = parallel.plan(1, cpu)
    params = parallel.init(layout, Tiny(), optax.sgd(0.1), [0]).params
    said.clear()
    parallel.make_predict(layout, Says())(params, problem(3)[0])
    assert said and set(said) == {"cpu"}
