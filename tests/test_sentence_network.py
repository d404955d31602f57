"""Kim's network beside NumPy's, what its optimizer keeps to, and folds."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mnist_jax import constraints, folds, loop, models, parallel, training
from mnist_jax.models.sentence import FIXED, OUTPUT, TRAINED, VARIANTS, SentenceCNN, set_vectors
from mnist_jax.word_windows import maxima

from .tiny import assert_close, some_devices

_LIMIT = 0.003  # of a norm, which a few steps reach
SMALL = {"words": 30, "width": 6, "maps": 5, "windows": (2, 3)}


def tokens_of(n=7, length=12, words=30, seed=0):
    tokens = np.random.default_rng(seed).integers(0, words, (n, length)).astype(np.int32)
    tokens[:, :2], tokens[:, -2:] = 0, 0
    return tokens


def variables_of(network, seed=0):
    variables = network.init(jax.random.key(seed), jnp.zeros((1, 12), jnp.int32))
    # The output's kernel is zero at first, which would hide everything behind it.
    rng = np.random.default_rng(seed)
    noise = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), variables)
    return jax.tree.map(lambda leaf, more: leaf + 0.3 * more, variables, noise)


@pytest.mark.parametrize(("width", "count"), [(300, 360_902), (100, 120_902), (50, 60_902)])
def test_parameters_beside_the_vectors(width, count):
    network = models.create("sentence", 2, words=9, width=width)
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 9), jnp.int32))
    params = {name: part for name, part in shapes["params"].items() if name != TRAINED}
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == count


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_are_those_of_loops_in_numpy(variant):
    network = SentenceCNN(3, variant=variant, **SMALL)
    variables = variables_of(network)
    params = jax.tree.map(np.asarray, variables["params"])
    tokens = tokens_of()
    expected = []
    for sentence in tokens:
        channels = [
            params[name]["vectors"][sentence] for name in (FIXED, TRAINED) if name in params
        ]
        found, start = [], 0
        for size in SMALL["windows"]:
            kernel = params["windows"][f"kernel_{size}"]
            bias = params["windows"]["bias"][start : start + 5]
            start += 5
            values = [
                # The same filters go over both channels, and the results are added.
                sum(np.einsum("kd,kdm->m", x[t : t + size], kernel) for x in channels) + bias
                for t in range(len(sentence) - size + 1)
            ]
            found.append(np.maximum(values, 0).max(axis=0))
        kept = np.concatenate(found) * 0.5
        expected.append(kept @ params[OUTPUT]["kernel"] + params[OUTPUT]["bias"])
    np.testing.assert_allclose(network.apply(variables, tokens), expected, rtol=1e-4, atol=1e-4)


def test_longer_padding_changes_nothing():
    network = SentenceCNN(3, **SMALL)
    params = training.init_state(
        network, optax.identity(), 0, jax.ShapeDtypeStruct((12,), jnp.int32)
    ).params
    params[OUTPUT]["kernel"] = np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32)
    tokens = tokens_of()
    longer = np.pad(tokens, ((0, 0), (0, 9)))
    assert_close(training.apply(network, params, tokens), training.apply(network, params, longer))


def test_maxima_and_their_gradients_are_those_of_xlas_convolution():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, 15, 6)).astype(np.float32)
    x[:, :3], x[:2, 8:] = 0, 0  # padding
    kernels = [rng.normal(size=(size, 6, 5)).astype(np.float32) for size in (2, 4)]
    weights = rng.normal(size=(4, 10)).astype(np.float32)

    def plain(x, kernels):
        numbers = ("NWC", "WIO", "NWC")
        convolved = [
            jax.lax.conv_general_dilated(x, k, (1,), "VALID", dimension_numbers=numbers)
            for k in kernels
        ]
        return jnp.concatenate([y.max(axis=1) for y in convolved], axis=-1)

    x, kernels = jax.tree.map(jnp.asarray, (x, kernels))
    values, places = maxima(x, kernels)
    assert_close(values, plain(x, kernels))
    assert places.dtype == jnp.int32 and places.max() <= 13
    ours = jax.grad(lambda x, k: (maxima(x, k)[0] * weights).sum(), (0, 1))(x, kernels)
    theirs = jax.grad(lambda x, k: (plain(x, k) * weights).sum(), (0, 1))(x, kernels)
    # Where all windows with words are below 0, those of padding alone tie: one of them, or all in
    # part, may have the gradient, which of padding's vectors nobody uses.
    words = (x != 0).any(axis=-1)
    assert_close(ours[0] * words[..., None], theirs[0] * words[..., None])
    assert_close(ours[1], theirs[1])


def train(variant, optimizer, steps=12, constrained=True, members=1, **options):
    network = SentenceCNN(3, variant=variant, **SMALL)
    made = training.make_optimizer(
        *optimizer, constraint=constraints.of_sentences(_LIMIT) if constrained else None
    )
    layout = parallel.plan(members, some_devices(1), 1)
    input_ = jax.ShapeDtypeStruct((12,), jnp.int32)
    state = parallel.init(layout, network, made, range(members), input_)
    before = parallel.gather(layout, state.params)
    tokens = tokens_of(10 * steps)
    labels = (tokens.max(axis=1) % 3).astype(np.int32)
    chunks = list(
        loop.train(
            *(layout, network, made, state, range(members), tokens, labels),
            **{"batch_size": 10, "epochs": 1, **options},
        )
    )
    after = parallel.gather(layout, chunks[-1].state.params)
    return jax.tree.map(lambda leaf: leaf[0], (before, after)) if members == 1 else after


@pytest.mark.parametrize(
    ("variant", "optimizer"),
    [("rand", (1.0, 1, "adadelta")), ("static", (0.5, 1, "sgd")), ("multichannel", (0.05, 1))],
    ids=str,
)
def test_what_holds_after_each_step(variant, optimizer):
    before, after = train(variant, optimizer)
    norms = np.linalg.norm(after[OUTPUT]["kernel"], axis=0)
    assert (norms < _LIMIT * 1.001).all() and norms.max() > _LIMIT * 0.99
    for name in {FIXED, TRAINED} & after.keys():
        assert (after[name]["vectors"][0] == 0).all()
        moved = (before[name]["vectors"] != after[name]["vectors"]).any()
        assert moved == (name == TRAINED)


def test_the_limit_scales_only_what_is_above_it():
    link = constraints.limit_norms(2.0, "output")
    params = {"output": {"kernel": jnp.array([[3.0, 1.0], [0.0, 0.0]]), "bias": jnp.ones(2)}}
    updates = {"output": {"kernel": jnp.array([[0.0, 0.5], [4.0, 0.0]]), "bias": jnp.ones(2)}}
    new, _ = link.update(updates, link.init(params), params)
    after = optax.apply_updates(params, new)
    np.testing.assert_allclose(after["output"]["kernel"], [[1.2, 1.5], [1.6, 0]], rtol=1e-5)
    np.testing.assert_allclose(after["output"]["bias"], [2, 2])
    with pytest.raises(ValueError, match="norm_limit must be above 0, not 0"):
        constraints.of_sentences(0)


def test_adadelta_is_zeilers():
    optimizer = training.make_optimizer(1.0, 1, "adadelta")
    params, state = jnp.array([1.0, -2.0]), None
    state = optimizer.init(params)
    x = np.array([1.0, -2.0])
    squares, deltas = np.zeros(2), np.zeros(2)
    for step in range(5):
        gradient = 2 * x + step
        updates, state = optimizer.update(jnp.asarray(gradient, jnp.float32), state, params)
        params = optax.apply_updates(params, updates)
        squares = 0.95 * squares + 0.05 * gradient**2
        delta = -np.sqrt(deltas + 1e-6) / np.sqrt(squares + 1e-6) * gradient
        deltas = 0.95 * deltas + 0.05 * delta**2
        x = x + delta
        np.testing.assert_allclose(params, x, rtol=1e-4)


def test_given_vectors():
    network = SentenceCNN(2, variant="multichannel", words=4, width=3)
    params = network.init(jax.random.key(0), jnp.zeros((1, 9), jnp.int32))["params"]
    rows = np.arange(12, dtype=np.float32).reshape(4, 3)
    known = np.array([False, True, False, True])
    new = set_vectors(params, rows, known)
    for name in (FIXED, TRAINED):
        np.testing.assert_array_equal(new[name]["vectors"][known], rows[known])
        assert (new[name]["vectors"][0] == 0).all()
        bound = rows[known].std() * 3**0.5  # uniform, of the same deviation
        assert 0.05 * bound < np.abs(new[name]["vectors"][2]).max() <= bound
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf] * 2), params)
    assert_close(jax.tree.map(lambda leaf: leaf[1], set_vectors(stacked, rows, known)), new)
    with pytest.raises(ValueError, match=r"vectors must be \(4, 3\), not \(4, 5\)"):
        set_vectors(params, np.ones((4, 5)), known)


def test_folds_cut_all_inputs_each_once():
    labels = np.array([0] * 31 + [1] * 17 + [2])
    made = folds.make(labels, 5, repeats=2, seed=3)
    assert len(made) == 10
    for repeat in (made[:5], made[5:]):
        np.testing.assert_array_equal(
            np.sort(np.concatenate([fold.test for fold in repeat])), np.arange(49)
        )
    for fold in made:
        everything = np.concatenate(fold)
        np.testing.assert_array_equal(np.sort(everything), np.arange(49))
        assert len(fold.train) == len(made[0].train) and len(fold.validation) >= 4
        assert 9 <= len(fold.test) <= 10
        assert abs((labels[fold.test] == 0).sum() - 31 / 5) < 1
    assert set(made[0].test) != set(made[5].test)
    again = folds.make(labels, 5, repeats=2, seed=3)
    assert all((a.train == b.train).all() for a, b in zip(made, again, strict=True))
    for wrong in (1, 50):
        with pytest.raises(ValueError, match=f"folds must be from 2 to the 49.*not {wrong}"):
            folds.make(labels, wrong)


def test_a_fold_trains_on_its_own_inputs_alone():
    """As the first member of two, and alone on just these inputs, it is the same network."""
    own = np.stack([np.arange(0, 60), np.arange(60, 120)]).astype(np.int32)
    together = train("rand", (0.5, 1, "sgd"), members=2, own_inputs=own)
    _, alone = train("rand", (0.5, 1, "sgd"), steps=12, own_inputs=own[:1])
    assert_close(jax.tree.map(lambda leaf: leaf[0], together), alone)


def test_each_member_predicts_its_own():
    network = SentenceCNN(3, **SMALL)
    layout = parallel.plan(2, some_devices(1), 1)
    input_ = jax.ShapeDtypeStruct((12,), jnp.int32)
    state = parallel.init(layout, network, optax.identity(), [0, 1], input_)
    params = parallel.gather(layout, state.params)
    params[OUTPUT]["kernel"] = np.random.default_rng(0).normal(size=(2, 10, 3)).astype(np.float32)
    params = parallel.place(layout, params)
    tokens, places = tokens_of(20), np.array([[3, 1, 19], [0, 7, 7]], np.int32)
    own = parallel.make_predict_own(layout, network)
    found = own(params, parallel.replicate(layout, tokens), places)
    everything = parallel.make_predict(layout, network)(params, tokens)
    for member in range(2):
        assert_close(found[member], everything[member, places[member]])


def test_wrong_options():
    with pytest.raises(ValueError, match=r"variant must be one of rand, static.*not moving"):
        models.create("sentence", 2, variant="moving")
    assert "sentence" not in models.NAMES
