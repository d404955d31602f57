"""What a CPU, a GPU and a TPU each do in their own way: asked here, and nowhere else.

The devices decide, not JAX's default backend: `choose` is `lax.platform_dependent`, whose branch is
taken when a function is lowered. That traces all branches, so who knows the devices before says so
by `known`, as `parallel` does, and only theirs is traced.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import jax
from jax import lax

_Result = TypeVar("_Result")

PLAIN = "tpu"  # the platform whose ways are XLA's own operations, which run, or translate, anywhere

_known = jax.make_user_context(None)  # a part of JAX's keys to what is traced and compiled already


def known(platform: str) -> AbstractContextManager[None]:
    """A context: what is traced in it is for devices of one platform, as `jax.Device` names it."""
    return _known(platform)


def choose(
    *args: Any, default: Callable[..., _Result], **others: Callable[..., _Result]
) -> _Result:
    """One function of `args`, by the platform of the devices in use.

    Args:
        args: arrays, or trees of them.
        default: for the platforms that `others` does not name.
        others: `cpu` or `tpu`, functions that give arrays of the same shapes and dtypes.
    """
    if _known.value is None:
        return lax.platform_dependent(*args, default=default, **others)
    return others.get(_known.value, default)(*args)


def likely() -> str:
    """The platform that is `known`, or else that of JAX's default device."""
    device = _known.value or jax.config.values["jax_default_device"] or jax.default_backend()
    return getattr(device, "platform", device)
