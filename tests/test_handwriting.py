"""Handwriting: digits changed at random, against SciPy, NumPy and what must stay the same."""

from functools import partial

import jax
import numpy as np
import optax
import pytest
from scipy import ndimage

from mnist_jax import augment, data, handwriting, training
from mnist_jax.handwriting import NO_CLASS
from tests.tiny import Tiny, train

augment_jitted = jax.jit(handwriting.augment)


@pytest.fixture(scope="module")
def digits():
    """float32 `[200, 28, 28, 1]` in [0, 1], and labels."""
    images, labels = data.load("mnist5k").test
    return images[:200].astype(np.float32) / 255, labels[:200]


@pytest.fixture(scope="module")
def changed(digits):
    images, labels = augment_jitted(*digits, jax.random.key(0))
    return np.asarray(images), np.asarray(labels)


def test_images_stay_images_and_only_the_first_lose_their_class(digits, changed):
    images, labels = changed
    assert images.shape == digits[0].shape and images.dtype == np.float32
    assert images.min() >= 0 and images.max() <= 1
    np.testing.assert_array_equal(labels[30:], digits[1][30:])  # 30 is 15 %
    lost = labels[:30] == NO_CLASS
    np.testing.assert_array_equal(lost, digits[1][:30] != 0)
    assert labels[:30][~lost].sum() == 0


def test_every_image_is_changed_by_its_own_chance(digits):
    images, labels = digits
    same = np.broadcast_to(images[57:58], images.shape), np.full_like(labels, labels[57])
    one, _ = augment_jitted(*same, jax.random.key(1))
    again, _ = augment_jitted(*same, jax.random.key(1))
    other, _ = augment_jitted(*same, jax.random.key(2))
    np.testing.assert_array_equal(one, again)
    kept = np.asarray(one)[30:72, ..., 0].reshape(42, -1)
    apart = np.abs(kept[:, None] - kept).max(axis=-1)
    assert (apart[~np.eye(42, dtype=bool)] > 0.1).all()
    assert (np.abs(np.asarray(other) - one).max(axis=(1, 2, 3)) > 0.1).all()


def test_strokes_are_where_they_belong(digits):
    images, labels = digits
    add = jax.jit(handwriting.add_strokes)
    added = np.asarray(add(images[..., 0], labels, jax.random.key(3)))
    more = (added - images[..., 0]).max(axis=(1, 2)) > 0.1
    assert not more[(labels != 1) & (labels != 7)].any()
    assert 0.1 < more[labels == 1].mean() < 0.6 and 0.2 < more[labels == 7].mean() < 0.95
    assert (added >= images[..., 0] - 1e-6).all()


def test_a_segment_is_all_that_is_near_it():
    start, end = np.array([[5.0, 6.0], [20.0, 3.0]]), np.array([[15.0, 20.0], [20.0, 3.0]])
    radius = np.array([1.0, 2.5])
    drawn = np.asarray(jax.jit(partial(handwriting.segments, shape=(28, 28)))(start, end, radius))
    points = np.stack(np.indices((28, 28)), axis=-1)
    for i in range(2):
        path = start[i] + np.linspace(0, 1, 2001)[:, None] * (end[i] - start[i])
        nearest = np.linalg.norm(points[:, :, None] - path, axis=-1).min(axis=-1)
        np.testing.assert_allclose(drawn[i], np.clip(radius[i] + 0.5 - nearest, 0, 1), atol=0.01)


def test_strokes_grow_and_shrink_as_in_scipy(digits, monkeypatch):
    images = digits[0][:40, ..., 0]
    cross = ndimage.generate_binary_structure(2, 1)
    wider = [ndimage.grey_dilation(image, footprint=cross, mode="nearest") for image in images]
    widest = [ndimage.grey_dilation(image, footprint=cross, mode="nearest") for image in wider]
    thinner = [ndimage.grey_erosion(image, footprint=cross, mode="nearest") for image in images]
    for amount, wanted in ((1.0, widest), (0.5, wider), (-1.0, thinner), (0.0, images)):
        monkeypatch.setattr(handwriting, "_THINNER", 1.0)
        monkeypatch.setattr(jax.random, "uniform", lambda *a, amount=amount, **k: amount)
        change = jax.jit(lambda *given: handwriting.change_strokes(*given))  # anew for each amount
        result = change(images, jax.random.key(0))
        np.testing.assert_allclose(result, wanted, atol=1e-6)


def test_without_amounts_nothing_is_warped(digits, monkeypatch):
    for name in ("_DEGREES", "_SLANT", "_ASPECT", "_PIXELS", "_BEND"):
        monkeypatch.setattr(handwriting, name, 0.0)
    monkeypatch.setattr(handwriting, "_SIZES", (1.0, 1.0))
    images = digits[0][:20, ..., 0]
    result = jax.jit(lambda *given: handwriting.warp(*given))(images, jax.random.key(0))
    np.testing.assert_allclose(result, images, atol=1e-5)


@pytest.mark.parametrize("size", [0.8, 1.05])
def test_a_size_alone_is_scipys_zoom(digits, monkeypatch, size):
    for name in ("_DEGREES", "_SLANT", "_ASPECT", "_PIXELS", "_BEND"):
        monkeypatch.setattr(handwriting, name, 0.0)
    monkeypatch.setattr(handwriting, "_SIZES", (size, size))
    images = digits[0][:20, ..., 0]
    matrix = np.eye(2) / size
    wanted = [
        ndimage.affine_transform(
            image, matrix, 13.5 - matrix @ np.full(2, 13.5), order=1, mode="grid-constant"
        )
        for image in images
    ]
    result = jax.jit(lambda *given: handwriting.warp(*given))(images, jax.random.key(0))
    np.testing.assert_allclose(result, wanted, atol=1e-4)


def test_what_lies_off_the_centre_is_moved_as_mnist_was(digits):
    images = digits[0][:40, ..., 0]
    moves = np.random.default_rng(0).integers(-4, 5, (40, 2))
    moved = np.stack(
        [np.roll(image, move, (0, 1)) for image, move in zip(images, moves, strict=True)]
    )
    centres = [ndimage.center_of_mass(image) for image in moved]
    np.testing.assert_array_equal(handwriting._off_centre(moved), np.rint(np.array(centres) - 14))
    np.testing.assert_array_equal(handwriting._off_centre(0 * moved[:1]), [[-14, -14]])


def test_drawings_that_are_no_digits_are_what_they_are_called():
    shape = (50, 28, 28)
    rings, polygons, stripes = (
        np.asarray(draw(jax.random.key(i), shape))
        for i, draw in enumerate((handwriting._rings, handwriting._polygons, handwriting._stripes))
    )
    for drawings in (rings, polygons, stripes):
        assert drawings.min() >= 0 and drawings.max() <= 1
        assert (np.abs(drawings[1:] - drawings[:-1]).max(axis=(1, 2)) > 0.5).all()
    for ring, polygon, stripe in zip(rings, polygons, stripes, strict=True):
        inner = ndimage.binary_fill_holes(ring > 0.5) & ~(ring > 0.5)
        assert inner.sum() > 20 and (ring[9:19, 9:19] > 0.3).any()  # a hole with something in it
        assert ndimage.label(polygon <= 0.5)[1] == 2  # around it and within
        level = stripe if (stripe[4:24] == stripe[14]).all() else stripe.T
        assert (level[4:24] == level[14]).all() and ndimage.label(level[14])[1] >= 3


def test_the_bending_is_smooth_and_of_the_size_it_should_be():
    draw = jax.jit(partial(handwriting._smooth_noise, shape=(4000, 28, 28)))
    noise = np.asarray(draw(jax.random.key(0)))
    np.testing.assert_allclose(noise.std(axis=0), 1, atol=0.05)
    near = (noise[:, 14, 14] * noise[:, 14, 15]).mean()
    far = (noise[:, 2, 2] * noise[:, 25, 25]).mean()
    assert near > 0.95 and abs(far) < 0.06


def test_the_loss_of_no_class_is_least_at_equal_probabilities():
    network, key = Tiny(), jax.random.key(0)
    images = np.random.default_rng(0).random((6, 28, 28, 1), np.float32)
    labels = np.array([3, NO_CLASS, 5, NO_CLASS, 0, 9], np.int32)
    params = jax.jit(network.init)(key, images)["params"]
    weights = np.linspace(0.1, 0.6, 6, dtype=np.float32)
    weighted_loss = partial(training.weighted_loss, network)
    arguments = images, labels, weights, key, True
    loss, _ = jax.jit(weighted_loss, static_argnums=6)(params, None, *arguments)
    logits = np.asarray(network.apply({"params": params}, images), np.float64)
    log_probs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    wanted = [-p.mean() if c == NO_CLASS else -p[c] for p, c in zip(log_probs, labels, strict=True)]
    np.testing.assert_allclose(loss, (weights * wanted).sum(), rtol=1e-5)
    equal = jax.tree.map(np.zeros_like, params)
    grad, _ = jax.jit(jax.grad(weighted_loss, has_aux=True), static_argnums=6)(
        equal, None, images, np.full(6, NO_CLASS, np.int32), weights, key, True
    )
    assert optax.tree.norm(grad) < 1e-6


def test_members_train_with_it():
    """It goes through scan, the devices' map and members, and no loss is of a label -1."""
    _, losses = train([0, 1], augment=augment.create("handwriting"), batch_size=20)
    assert np.isfinite(losses).all() and (losses[0] != losses[1]).all() and losses.max() < 10
