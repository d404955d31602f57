"""Tables of square grey images, a row each: a label and the pixels, as Kaggle's `.csv` files."""

import io
import math
import re
import warnings
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import PurePosixPath
from typing import Literal, NamedTuple

import numpy as np

from mnist_jax.data import arrays, files
from mnist_jax.data.files import File, Found, Part
from mnist_jax.data.names import DataError
from mnist_jax.words import counted

_LEAST_SIDE = 16  # of what is taken for an image; MNIST's have 28
_LABELS = {"label", "labels", "class", "target", "y", "digit", "character", "letter"}
_NUMBERING = {"", "id", "index", "imageid", "unnamed: 0", "row"}
_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*")
_LONGEST_WORD = 64  # of labels
_LONGEST_LINE = 1 << 20


class _Layout(NamedTuple):
    """Where a table has what."""

    delimiter: str
    header: bool
    label: int  # its column; -1 without labels
    pixels: list[int]  # their columns


def found(here: Sequence[File]) -> list[Found]:
    """The data sets in `.csv` and `.tsv` files; tables of other things are passed over.

    Raises:
        DataError: there are such files, and none is a table of images.
    """
    groups: dict[tuple[PurePosixPath, tuple[str, ...]], dict[str, tuple[File, _Layout]]]
    groups = defaultdict(dict)
    problems: list[DataError] = []
    for file in sorted(here, key=files.preference):
        if file.suffix not in (".csv", ".tsv"):
            continue
        try:
            layout = _look(file)
        except DataError as error:
            problems.append(error)
            continue
        role = files.role_of(file)
        group = groups[files.group_of(file.path.parent), role.rest]
        group.setdefault(role.split or "all", (file, layout))
    if problems and not groups:
        raise problems[0]
    return [_found(*key, tables) for key, tables in groups.items()]


def _found(
    folder: PurePosixPath, words: tuple[str, ...], tables: dict[str, tuple[File, _Layout]]
) -> Found:
    labelled = {split for split, (_, layout) in tables.items() if layout.label >= 0}
    unlabelled = [str(tables[split][0].path) for split in sorted(tables.keys() - labelled)]
    return Found(
        kind="tables",
        place=", ".join(str(file.path) for file, _ in tables.values()),
        depth=min(len(file.path.parts) for file, _ in tables.values()),
        name=files.dataset_of(words) or files.dataset_of_folder(folder),
        splits=frozenset(labelled),
        read=partial(_read_part, tables),
        missing={} if labelled else {"train": f"no column of labels in {unlabelled[0]}"},
        notes=tuple(f"left out: {name}, which has no labels" for name in unlabelled),
        transposed="emnist" in words,
    )


def _look(file: File) -> _Layout:
    """Find out from its beginning what a table's columns are.

    Raises:
        DataError: it is no table of images.
    """
    with files.reading(file) as stream:
        first = stream.readline(_LONGEST_LINE)
    if b"\0" in first:
        raise DataError(f"{file.where}: no text.")
    line = first.decode("utf-8-sig", errors="replace").rstrip("\r\n")
    delimiter = max(",;\t", key=line.count)
    cells = [cell.strip().strip('"').strip() for cell in line.split(delimiter)]
    header = _is_header(cells)
    names = [cell.lower() for cell in cells] if header else []
    labels = [i for i, name in enumerate(names) if name in _LABELS]
    pixels = [i for i in range(len(cells)) if i not in labels]
    if not _side(len(pixels)):
        pixels = [i for i in pixels if not names or names[i] not in _NUMBERING]
    if _side(len(pixels) - 1) and not labels:
        labels = [_odd_one(file, names, header, delimiter, pixels)]
        pixels.remove(labels[0])
    if not _side(len(pixels)) or len(labels) > 1:
        columns = f"{counted(len(cells), 'column')}{_why(len(pixels) - (not labels))}"
        raise DataError(
            f"{file.where}: has {columns}; a table of "
            "28 x 28 images has 785, a label and the pixels."
        )
    return _Layout(delimiter, header, labels[0] if labels else -1, pixels)


def _side(pixels: int) -> int:
    """The side of a square of so many pixels; 0 where there is none, or it is no image."""
    side = math.isqrt(max(pixels, 0))
    return side if side >= _LEAST_SIDE and side**2 == pixels else 0


def _why(pixels: int) -> str:
    """Of a number of pixels that some tables have, what it is."""
    side = _side(pixels // 3) if pixels % 3 == 0 else 0
    if not side:
        return ""
    return f", as {side} x {side} pixels in three colours have, of which the order is not known"


def _is_header(cells: list[str]) -> bool:
    """Words between the ends, or numbers that count the columns, as pandas writes them."""
    if not all(_NUMBER.fullmatch(cell) for cell in cells[1:-1]):
        return True
    steps = np.diff([float(cell) for cell in cells[1:-1]])
    return len(steps) > 0 and bool((steps == 1).all())


def _odd_one(file: File, names: list[str], header: bool, delimiter: str, among: list[int]) -> int:
    """Which column has the labels where none is called so: the first or the last."""
    first, last = among[0], among[-1]
    if header:
        counted = [bool(re.search(r"\d", names[i])) for i in (first, last)]  # as pixels are
        if counted[0] != counted[1]:
            return last if counted[0] else first
    # A corner's pixel hardly ever changes; labels do.
    try:
        labels, corner = _load(file, _Layout(delimiter, header, first, [last]))
    except DataError:  # words, last
        return last
    return last if len(np.unique(labels)) == 1 < len(np.unique(corner)) else first


def _read_part(tables: dict[str, tuple[File, _Layout]], split: str) -> Part:
    file, layout = tables[split]
    labels, pixels = _load(file, layout)
    side = _side(len(layout.pixels))
    images = arrays.as_images(pixels.reshape(-1, side, side), file.where)
    return Part(images, arrays.as_labels(labels, file.where, len(images)), file.where)


def _load(file: File, layout: _Layout) -> tuple[np.ndarray, np.ndarray]:
    """All rows' labels, `[n]`, and pixels, `[n, columns]`, in the narrowest type that fits.

    Raises:
        DataError: a row of another length, or pixels that are no numbers.
    """
    count = len(layout.pixels)
    words = np.dtype([("label", f"U{_LONGEST_WORD}"), ("pixels", np.float32, count)])
    for dtype in (np.dtype(np.uint8), np.dtype(np.float32)):
        try:
            rows = _rows(file, layout, dtype, ndmin=2)
            return rows[:, 0], rows[:, 1:]
        except ValueError:
            continue
    try:
        rows = _rows(file, layout, words, ndmin=1)
    except ValueError as error:
        raise DataError(f"{file.where}: damaged, or no table of numbers: {error}") from None
    return np.char.strip(rows["label"], ' "'), rows["pixels"]


def _rows(file: File, layout: _Layout, dtype: np.dtype, ndmin: Literal[1, 2]) -> np.ndarray:
    with (
        files.reading(file) as stream,
        io.TextIOWrapper(stream, "utf-8-sig", errors="replace") as text,
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", "loadtxt: input contained no data")  # said as an error
        return np.loadtxt(
            text,
            dtype,
            comments=None,
            delimiter=layout.delimiter,
            quotechar='"',
            skiprows=int(layout.header),
            usecols=[layout.label, *layout.pixels],
            ndmin=ndmin,
        )
