"""Runs and measurements; the library is `mnist_jax`."""
