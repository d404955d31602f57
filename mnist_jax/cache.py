"""The folder in which later processes find what earlier ones have compiled."""

import contextlib
import os
from pathlib import Path

_LEAST_SECONDS = 0.5  # what compiles sooner is not worth a file


def folder() -> Path | None:
    """`~/.cache/mnist_jax`, or that of `XDG_CACHE_HOME`, made if need be; None if not writable."""
    with contextlib.suppress(OSError, RuntimeError):  # RuntimeError: there is no home
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mnist_jax"
        cache.mkdir(parents=True, exist_ok=True)
        if os.access(cache, os.W_OK):
            return cache
    return None


def use_compilation_cache() -> None:
    """Let later processes find this one's compiled programs.

    It does nothing where JAX has a folder for them already, as by `JAX_COMPILATION_CACHE_DIR`.
    """
    import jax  # it takes a second, which whoever asks for the folder should not have to wait for

    cache = folder()
    if cache is not None and jax.config.values["jax_compilation_cache_dir"] is None:
        jax.config.update("jax_compilation_cache_dir", str(cache / "xla"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", _LEAST_SECONDS)
