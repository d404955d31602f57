"""CIFAR-10 and CIFAR-100 in their binary version: https://www.cs.toronto.edu/~kriz/cifar.html.

A record is the label (CIFAR-100: the coarse one, then the fine one), a byte each, and 3,072 bytes
of 32 x 32 pixels, all red ones first, then the green and the blue ones, row by row.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import PurePosixPath

import numpy as np

from mnist_jax.data import files
from mnist_jax.data.files import File, Found, Part
from mnist_jax.data.names import DataError
from mnist_jax.words import counted

_HEIGHT, _WIDTH, _CHANNELS = 32, 32, 3
_PIXELS = _HEIGHT * _WIDTH * _CHANNELS
# Of each data set, the bytes of labels in a record and the files of each split.
_FORMATS: dict[str, tuple[int, dict[str, tuple[str, ...]]]] = {
    "cifar10": (
        1,
        {
            "train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
            "test": ("test_batch.bin",),
        },
    ),
    "cifar100": (2, {"train": ("train.bin",), "test": ("test.bin",)}),
}
# The files of the Python version, cifar-10-batches-py and cifar-100-python, and how they begin.
_PICKLES = re.compile(r"data_batch_\d|test_batch|train|test")
_PICKLED = b"\x80"


def found(here: Sequence[File]) -> list[Found]:
    """The data sets in CIFAR's binary files, a folder each.

    Raises:
        DataError: there are only the files of CIFAR's Python version, which are pickles.
    """
    folders: dict[PurePosixPath, dict[str, File]] = defaultdict(dict)
    for file in here:
        if file.suffix == ".bin":
            name = file.path.name.lower().removesuffix(".gz")
            folders[file.path.parent].setdefault(name, file)
    sets = [
        _found(name, folder, by_name)
        for folder, by_name in folders.items()
        for name, (_, splits) in _FORMATS.items()
        if any(file in by_name for batches in splits.values() for file in batches)
    ]
    pickles = [file for file in here if _is_pickle(file)]
    if pickles and not sets:
        raise DataError(
            f"{pickles[0].where}: CIFAR's Python version, pickles, and those can run code when "
            "read; it is not read.\n"
            "Give the binary version: cifar-10-binary.tar.gz or cifar-100-binary.tar.gz of "
            "https://www.cs.toronto.edu/~kriz/cifar.html."
        )
    return sets


def _is_pickle(file: File) -> bool:
    if not _PICKLES.fullmatch(file.path.name):
        return False
    with files.reading(file) as stream:
        return stream.read(1) == _PICKLED


def _found(name: str, folder: PurePosixPath, by_name: dict[str, File]) -> Found:
    label_bytes, batches = _FORMATS[name]
    missing = {}
    for split, wanted in batches.items():
        lacking = [file for file in wanted if file not in by_name]
        if lacking and len(lacking) < len(wanted):
            missing[split] = f"no {lacking[0]}"
    splits = {
        split: [by_name[file] for file in wanted]
        for split, wanted in batches.items()
        if all(file in by_name for file in wanted)
    }
    return Found(
        kind="CIFAR's binary files",
        place=str(folder),
        depth=len(folder.parts) + 1,
        name=name,
        splits=frozenset(splits),
        read=partial(_read, splits, label_bytes),
        missing=missing,
    )


def _read(splits: dict[str, list[File]], label_bytes: int, split: str) -> Part:
    parts = [_read_file(file, label_bytes) for file in splits[split]]
    images, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return Part(images, labels, splits[split][0].where)


def _read_file(file: File, label_bytes: int) -> tuple[np.ndarray, np.ndarray]:
    """uint8 `[n, 32, 32, 3]`, and the (fine) labels, int64 `[n]`.

    Raises:
        DataError: it cannot be read, or holds no whole number of records.
    """
    with files.reading(file) as stream:
        content = stream.read()
    record = label_bytes + _PIXELS
    if not content or len(content) % record:
        raise DataError(
            f"{file.where}: truncated or no file of CIFAR's; {counted(len(content), 'byte')} make "
            f"no whole number of records of {record:,}."
        )
    rows = np.frombuffer(content, np.uint8).reshape(-1, record)
    pixels = rows[:, label_bytes:].reshape(-1, _CHANNELS, _HEIGHT, _WIDTH)
    labels = rows[:, label_bytes - 1].astype(np.int64)
    return np.ascontiguousarray(pixels.transpose(0, 2, 3, 1)), labels
