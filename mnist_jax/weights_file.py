"""Trained weights as one small file: an .npz in half precision."""

import json
import zipfile
import zlib
from typing import Any, NamedTuple

import numpy as np
from etils import epath

NAME = "weights.npz"
_DETAILS = "details"
_DAMAGE = (ValueError, TypeError, LookupError, EOFError, zipfile.BadZipFile, zlib.error)


class Content(NamedTuple):
    """What a file holds."""

    variables: dict[str, dict[str, Any]]  # of each network: NumPy, float32, [members, ...]
    details: dict[str, Any]


def write(path: epath.Path, content: Content) -> None:
    """Write a file, always the same bytes for the same content.

    Raises:
        ValueError: a weight is too large for float16, or not finite.
        OSError: it cannot be written.
    """
    from flax.traverse_util import flatten_dict  # it imports JAX, which NAME need not wait for

    arrays: dict[str, np.ndarray] = {}
    arrays[_DETAILS] = np.frombuffer(json.dumps(content.details).encode(), np.uint8)
    for name, leaf in flatten_dict(content.variables, sep="/").items():
        with np.errstate(over="ignore"):
            half = np.asarray(leaf).astype(np.float16)
        if not np.isfinite(half).all():
            raise ValueError(f"{name} has weights that are beyond float16 or not finite.")
        arrays[name] = half
    with path.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def read(path: epath.Path) -> Content:
    """What `write` has written.

    Raises:
        ValueError: the file is damaged, another one, or cannot be read.
    """
    from flax.traverse_util import unflatten_dict

    try:
        with path.open("rb") as file, zipfile.ZipFile(file):  # np.load takes other files, too
            file.seek(0)
            with np.load(file) as arrays:
                details = dict(json.loads(arrays[_DETAILS].tobytes()))
                weights = {n: arrays[n].astype(np.float32) for n in arrays.files if n != _DETAILS}
        variables = unflatten_dict(weights, sep="/")
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}.") from None
    except _DAMAGE as error:
        raise ValueError(f"{path} is damaged, or no weights file: {error}.") from None
    for name, leaf in weights.items():
        if not np.isfinite(leaf).all():
            raise ValueError(f"{path} is damaged: {name} has weights that are not finite.")
    return Content(variables, details)
