"""Arrays of images and of labels: pairs of them in IDX, `.npz` and `.npy` files."""

import tokenize
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from os import PathLike
from pathlib import PurePosixPath
from typing import IO, NamedTuple

import numpy as np

from mnist_jax.data import files, idx
from mnist_jax.data.files import File, Found, Part, Role
from mnist_jax.data.names import DataError, Split
from mnist_jax.words import counted

SIDE = 28  # of MNIST's images
_LEAST_SIDE = 4  # of what is taken for images
_NAMES = {
    ("train", "images"): idx.TRAIN[0],
    ("train", "labels"): idx.TRAIN[1],
    ("test", "images"): idx.TEST[0],
    ("test", "labels"): idx.TEST[1],
}
_QMNIST_COLUMNS = 8  # the class, and seven about who wrote it and where


class _Array(NamedTuple):
    file: File
    role: Role
    read: Callable[[], np.ndarray]
    where: str


def in_idx(here: Sequence[File]) -> list[Found]:
    """The data sets in IDX files."""
    arrays = [
        _Array(file, files.role_of(file), partial(idx.read, file), file.where)
        for file in here
        if files.is_idx(file)
    ]
    mappings = [f for f in here if f.suffix == ".txt" and "mapping" in files.role_of(f).rest]
    return _pair("IDX files", arrays, mappings)


def in_numpy(here: Sequence[File]) -> list[Found]:
    """The data sets in `.npz` and `.npy` files.

    Raises:
        DataError: an `.npz` file that is none.
    """
    arrays = []
    for file in here:
        if file.suffix == ".npy":
            read = partial(_read_npy_file, file)
            arrays.append(_Array(file, files.role_of(file), read, file.where))
        elif file.suffix == ".npz":
            arrays += _in_npz(file)
    return _pair("NumPy arrays", arrays, [])


def read_split(images_path: str | PathLike[str], labels_path: str | PathLike[str]) -> Split:
    """Read images and their labels, whole numbers, from a pair of IDX files.

    Raises:
        DataError: as `read_idx`, or what are no images, none at all, another number of labels, or
            labels that are none.
    """
    images = as_images(idx.read_idx(images_path), str(images_path))
    labels = as_labels(idx.read_idx(labels_path), str(labels_path), len(images))
    return Split(images, labels.astype(np.int32))


def _pair(kind: str, arrays: Sequence[_Array], mappings: Sequence[File]) -> list[Found]:
    """Put images and labels of the same name together, and the splits of the same name."""
    groups: dict[tuple[PurePosixPath, tuple[str, ...]], list[_Array]] = defaultdict(list)
    for array in sorted(arrays, key=lambda array: files.preference(array.file)):
        if array.role.kind:
            folder = files.group_of(array.file.path.parent)
            groups[folder, array.role.rest].append(array)
    found = []
    for (folder, words), group in groups.items():
        by_role: dict[tuple[str, str], _Array] = {}
        for array in group:
            by_role.setdefault((array.role.split or "all", array.role.kind or ""), array)
        splits = {split for split, _ in by_role}
        missing = {
            split: _missing(kind, split, what)
            for split in splits
            for what in ("images", "labels")
            if (split, what) not in by_role
        }
        name = files.dataset_of(words)
        found.append(
            Found(
                kind=kind,
                place=str(folder / "-".join(words)) if words else str(folder),
                depth=min(len(array.file.path.parts) for array in group),
                name=name or files.dataset_of_folder(folder),
                splits=frozenset(splits - missing.keys()),
                read=partial(_read_pair, by_role),
                missing=missing,
                transposed="emnist" in words,
                mapping=_mapping_of(words, mappings),
            )
        )
    return found


def _missing(kind: str, split: str, what: str) -> str:
    if kind == "IDX files" and (split, what) in _NAMES:
        return f"no {_NAMES[split, what]}, plain or with .gz"
    return f"no {what}" if split == "all" else f"no {split} {what}"


def _mapping_of(words: tuple[str, ...], mappings: Sequence[File]) -> File | None:
    return next((m for m in mappings if files.role_of(m).rest == (*words, "mapping")), None)


def _read_pair(by_role: dict[tuple[str, str], _Array], split: str) -> Part:
    of_images, of_labels = by_role[split, "images"], by_role[split, "labels"]
    images = as_images(of_images.read(), of_images.where)
    return Part(images, as_labels(of_labels.read(), of_labels.where, len(images)), of_labels.where)


def as_images(array: np.ndarray, where: str) -> np.ndarray:
    """Images as networks take them, uint8 `[n, height, width, channels]`.

    Args:
        array: `[n, height, width]`, the same with an axis of 1 or 3 channels at its end or before
            the height, or `[n, 784]`; of 0 to 255 or 0 to 1.

    Raises:
        DataError: another shape, none at all, or other values.
    """
    values = _channels_last(array)
    if values is None or len(array) == 0:
        raise DataError(
            f"{where}: holds {_by(array)} values, not [n, height, width] images, or "
            f"[n, height, width, 3] in colour{_why(array.shape)}."
        )
    if values.dtype == np.uint8 and values.max() != 1:
        return np.ascontiguousarray(values)
    if values.dtype.kind not in "biuf":
        raise DataError(f"{where}: holds {array.dtype} values, not numbers.")
    least, most = values.min(), values.max()
    if not (least >= 0 and most <= 255):  # or NaN
        raise DataError(f"{where}: holds values from {least:g} to {most:g}, not 0 to 255 or to 1.")
    if most <= 1:
        values = values * np.float32(255)
    return np.ascontiguousarray(np.round(values).astype(np.uint8))


def _channels_last(array: np.ndarray) -> np.ndarray | None:
    """`[n, height, width, channels]`; None where the shape is none of images."""
    if array.shape[1:] == (SIDE * SIDE,):
        return array.reshape(-1, SIDE, SIDE, 1)
    if array.ndim == 3:
        array = array[..., None]
    elif array.ndim == 4 and array.shape[3] not in (1, 3) and array.shape[1] in (1, 3):
        array = array.transpose(0, 2, 3, 1)
    is_image = array.ndim == 4 and array.shape[3] in (1, 3)
    return array if is_image and min(array.shape[1:3]) >= _LEAST_SIDE else None


def _why(shape: tuple[int, ...]) -> str:
    """Of a shape that some data sets have, why it is not read."""
    if len(shape) == 4 and shape[-1] in (2, 4):
        return "; leave out the last channel, which tells what is transparent"
    if len(shape) == 4 and shape[2] in (1, 3):
        return "; move the last axis, the images, to the front"
    if len(shape) == 2 and shape[1] > SIDE:
        return "; reshape its rows to height and width (and channels)"
    return ""


def as_labels(array: np.ndarray, where: str, count: int) -> np.ndarray:
    """One label an image: int64 or words, `[n]`.

    Args:
        array: `[n]`, `[n, 1]`, one-hot `[n, classes]`, or as QMNIST's, the class in the first of
            eight columns.

    Raises:
        DataError: another shape or number, or values that are no labels.
    """
    if array.dtype.kind not in "biufUS":
        raise DataError(f"{where}: holds {array.dtype} values, not labels.")
    if len(array) != count:
        raise DataError(f"{where}: {counted(len(array), 'label')} for {counted(count, 'image')}.")
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    elif array.ndim == 2 and array.dtype.kind in "biuf" and _is_one_hot(array):
        array = array.argmax(axis=1)
    elif array.ndim == 2 and array.dtype == np.int32 and array.shape[1] == _QMNIST_COLUMNS:
        array = array[:, 0]
    if array.ndim != 1:
        raise DataError(f"{where}: holds {_by(array)} values, not [n] labels, one an image.")
    if array.dtype.kind in "US":
        words = array.astype(str)
        if (words == "").any():
            raise DataError(f"{where}: label {int((words == '').argmax())} is empty.")
        return as_numbers(words)
    if array.dtype.kind == "f" and not (np.isfinite(array) & (array == np.floor(array))).all():
        raise DataError(f"{where}: holds fractions, not labels, which are whole numbers or words.")
    labels = array.astype(np.int64)
    if labels.min() < 0:
        where_least = int(labels.argmin())
        raise DataError(f"{where}: label {labels[where_least]} at {where_least} is below 0.")
    return labels


def as_numbers(words: np.ndarray) -> np.ndarray:
    """Words as int64 where all are written as whole numbers are, and as they are otherwise."""
    kinds, inverse = np.unique(words, return_inverse=True)
    if all(kind == str(int(kind)) if kind.isdecimal() else False for kind in kinds.tolist()):
        return kinds.astype(np.int64)[inverse]
    return words


def _is_one_hot(array: np.ndarray) -> bool:
    ones = array == 1
    return bool((ones.sum(axis=1) == 1).all() and (ones | (array == 0)).all())


def _by(array: np.ndarray) -> str:
    return " x ".join(map(str, array.shape)) or "single"


def names_in_npz(file: File) -> list[str]:
    """The names of an `.npz` file's arrays.

    Raises:
        DataError: it is none.
    """
    with files.reading(file) as stream:
        try:
            names = zipfile.ZipFile(stream).namelist()
        except zipfile.BadZipFile:
            raise DataError(f"{file.where}: damaged, or no .npz file.") from None
    return [name.removesuffix(".npy") for name in names if name.endswith(".npy")]


def _in_npz(file: File) -> Iterator[_Array]:
    of_file = files.role_of(file)
    for name in names_in_npz(file):
        own = files.role(name)
        role = Role(own.split or of_file.split, own.kind or of_file.kind, of_file.rest + own.rest)
        where = f"{file.where}, {name}"
        yield _Array(file, role, partial(_read_member, file, name, where), where)


def _read_member(file: File, name: str, where: str) -> np.ndarray:
    with (
        files.reading(file) as stream,
        zipfile.ZipFile(stream) as archive,
        archive.open(f"{name}.npy") as member,
    ):
        return _read_npy(member, where)


def _read_npy_file(file: File) -> np.ndarray:
    with files.reading(file) as stream:
        return _read_npy(stream, file.where)


def _read_npy(stream: IO[bytes], where: str) -> np.ndarray:
    """Read NumPy's format of one array; never a pickle."""
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    try:
        version = np.lib.format.read_magic(stream)
        shape, by_columns, dtype = read_header[version](stream)
    except (ValueError, KeyError, tokenize.TokenError) as error:
        raise DataError(f"{where}: damaged, or no array of NumPy's: {error}.") from None
    if dtype.hasobject:  # its values are a pickle
        raise DataError(f"{where}: a pickle, and those can run code when read; it is not read.")
    values = idx.read_values(where, stream.read, shape[::-1] if by_columns else shape, dtype)
    return values.T if by_columns else values
