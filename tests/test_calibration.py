"""Temperature scaling against the temperatures that labels were drawn with, and SciPy."""

import jax
import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from mnist_jax import calibration, ensemble, metrics


def problem(temperatures, n=20_000, seed=0):
    """Logits `[members, n, 5]`, each member's the true ones times its temperature; and labels."""
    rng = np.random.default_rng(seed)
    true = rng.normal(0, 2, (n, 5))
    labels = (true + rng.gumbel(size=true.shape)).argmax(axis=1)
    return np.stack([true * t for t in temperatures]).astype(np.float32), labels


def test_recovers_each_members_temperature():
    logits, labels = problem([0.2, 1.0, 3.0, 20.0])
    fitted = jax.jit(calibration.fit_temperature)(logits, labels)
    np.testing.assert_allclose(fitted, [0.2, 1.0, 3.0, 20.0], rtol=0.03)
    np.testing.assert_allclose(calibration.fit_temperature(logits[2], labels), fitted[2], rtol=1e-5)
    scaled = calibration.scale(logits, fitted)
    assert (metrics.nll(scaled, labels) <= metrics.nll(logits, labels) + 1e-6).all()
    np.testing.assert_array_equal(scaled.argmax(axis=-1), logits.argmax(axis=-1))
    assert (metrics.ece(scaled, labels) < 0.015).all()


@pytest.mark.parametrize("shared", [False, True])
def test_is_the_minimum_that_scipy_finds(shared):
    logits, labels = problem([0.5, 4.0], n=500)
    logits = logits + np.random.default_rng(1).normal(0, 3, logits.shape).astype(np.float32)
    fitted = np.asarray(calibration.fit_temperature(logits, labels, shared=shared))
    assert fitted.shape == (() if shared else (2,))
    for i in range(2):
        chosen = logits if shared else logits[i]
        best = minimize_scalar(
            lambda s, chosen=chosen: float(np.mean(metrics.nll(chosen / np.exp(s), labels))),
            bounds=(-4, 4),
            method="bounded",
        )
        assert np.atleast_1d(fitted)[0 if shared else i] == pytest.approx(np.exp(best.x), rel=5e-3)


def test_of_the_ensembles_mean_probability():
    logits, labels = problem([2.0, 2.0, 2.0])
    noise = np.random.default_rng(1).normal(0, 1, logits.shape).astype(np.float32)
    combined = ensemble.mean_probability(logits + noise)
    temperature = calibration.fit_temperature(combined, labels)
    scaled = calibration.scale(combined, temperature)
    assert metrics.nll(scaled, labels) < metrics.nll(combined, labels)
    np.testing.assert_array_equal(scaled.argmax(axis=-1), combined.argmax(axis=-1))


def test_stays_within_bounds():
    logits, labels = np.eye(3, dtype=np.float32), np.arange(3)
    lowest = calibration.fit_temperature(logits, labels)
    assert lowest == pytest.approx(calibration.MIN_TEMPERATURE, rel=1e-3)
    assert metrics.nll(calibration.scale(logits, lowest), labels) == 0
    highest = calibration.fit_temperature(logits, (labels + 1) % 3)  # always wrong
    assert highest == pytest.approx(calibration.MAX_TEMPERATURE, rel=1e-3)


def test_far_too_sure_logits():
    logits, labels = problem([1.0])
    shifted = logits[0] * 30 + 1e4  # a constant added to all logits changes nothing
    assert calibration.fit_temperature(shifted, labels) == pytest.approx(30, rel=0.03)
