"""TensorBoard's files."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, cast


@contextmanager
def _hidden(package: str) -> Iterator[None]:
    """As if a package were not installed, unless it is imported already."""
    if package in sys.modules:
        yield
        return
    modules = cast(dict[str, Any], sys.modules)
    modules[package] = None  # importing it raises ModuleNotFoundError
    try:
        yield
    finally:
        del modules[package]


# It imports PyTorch wherever there is one, which takes seconds, to know its tensors.
with _hidden("torch"):
    _tensorboardx = import_module("tensorboardX")


def summary_writer(folder: str, write: bool) -> Any:
    """A `tensorboardX.SummaryWriter` into a folder, or one that writes nothing."""
    return _tensorboardx.SummaryWriter(folder, write_to_disk=write)
