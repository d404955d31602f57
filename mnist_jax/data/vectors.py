"""Word vectors from the files that people have, of which only the words that occur are kept.

`read` takes GloVe's text, word2vec's text and binary formats, and NumPy's `.npz`, plain or packed
by gzip. Files are streamed: memory is needed for the vectors that are kept.
"""

import os
import zipfile
from collections.abc import Collection, Iterator
from itertools import chain
from os import PathLike
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from mnist_jax.data import files
from mnist_jax.data.files import File
from mnist_jax.data.names import DataError

_LONGEST_WORD = 2000  # bytes, in a binary file; GoogleNews has some of 1,000
_LONGEST_LINE = 1 << 20
_LEAST_WIDTH, _MOST_WIDTH = 2, 10_000
_BUFFER = 1 << 22  # bytes


class Vectors(NamedTuple):
    """The vectors of a vocabulary's words."""

    rows: np.ndarray  # float32 [words, width]; 0 of words without one
    known: np.ndarray  # bool [words], which have one

    @property
    def width(self) -> int:
        """Numbers in a vector."""
        return self.rows.shape[1]


def read(path: str | PathLike[str], vocabulary: Collection[str]) -> Vectors:
    """The vectors that a file has of a vocabulary's words.

    A word without a vector has that of its small letters, where there is one. Of a word that comes
    twice, the first vector counts.

    Args:
        path: GloVe's text (a word and its numbers a line), word2vec's text or binary format (a
            first line with the numbers of words and of numbers a vector), or `.npz` with `words`
            `[n]` and `vectors` `[n, width]`.
        vocabulary: words; the empty one, for padding, has no vector.

    Raises:
        DataError: no such file, a damaged one, none of these, vectors of different widths, numbers
            that are not finite, or no word of the vocabulary.
    """
    path = Path(path).expanduser()
    if not os.path.isfile(path):
        raise DataError(f"{path} is no file of word vectors.")
    file = files.single(path)
    wanted = {word for word in vocabulary if word} | {word.lower() for word in vocabulary if word}
    found: dict[str, np.ndarray] = {}
    for word, vector in _entries(file, wanted):
        if word in wanted and word not in found:
            found[word] = vector
    return _table(found, list(vocabulary), file.where)


def _table(found: dict[str, np.ndarray], words: list[str], where: str) -> Vectors:
    if not found:
        raise DataError(f"{where}: has a vector of none of the {len(words) - 1:,} words.")
    width = len(next(iter(found.values())))
    rows, known = np.zeros((len(words), width), np.float32), np.zeros(len(words), bool)
    for i, word in enumerate(words):
        vector = found.get(word, found.get(word.lower())) if word else None
        if vector is not None:
            with np.errstate(over="ignore"):  # what is then infinite is said below
                rows[i], known[i] = vector, True
    if not np.isfinite(rows).all():
        word = words[int(np.argwhere(~np.isfinite(rows))[0, 0])]
        raise DataError(f"{where}: the vector of {word!r} has numbers that are not finite.")
    return Vectors(rows, known)


def _entries(file: File, wanted: Collection[str]) -> Iterator[tuple[str, np.ndarray]]:
    """All words with their vectors, or at least those that are wanted."""
    if file.suffix in (".npz", ".zip"):
        yield from _in_npz(file) if file.suffix == ".npz" else _in_zip(file, wanted)
        return
    with files.reading(file) as stream:
        first = stream.readline(_LONGEST_LINE)
        cells = first.split()
        if len(cells) == 2 and all(cell.isdigit() for cell in cells):
            count, width = int(cells[0]), int(cells[1])
            _see_width(width, file.where)
            start = stream.read(_LONGEST_WORD + 4 * width)
            whole = _Again(start, stream)
            if _is_text(start, width):
                yield from _in_text(whole, b"", 2, width, wanted, file.where)
            else:
                yield from _in_binary(whole, count, width, wanted, file.where)
        else:
            yield from _in_text(stream, first, 1, None, wanted, file.where)


class _Again:
    """A stream, some of which has been read already."""

    def __init__(self, start: bytes, stream: IO[bytes]) -> None:
        self._start = start
        self._stream = stream

    def read(self, size: int) -> bytes:
        """As of a stream."""
        here, self._start = self._start[:size], self._start[size:]
        return here if len(here) == size else here + self._stream.read(size - len(here))

    def readline(self, size: int) -> bytes:
        """As of a stream."""
        end = self._start.find(b"\n") + 1
        if end:
            return self.read(end)
        here, self._start = self._start, b""
        return here + self._stream.readline(size)


def _is_text(start: bytes, width: int) -> bool:
    """Whether what follows word2vec's first line is text: a word and its numbers."""
    cells = start.partition(b"\n")[0].rstrip().split(b" ")
    if len(cells) == width + 1:
        return _numbers(cells[1:]) is not None
    try:  # a line longer than what has been read, or damaged text
        return start.decode().isprintable() or "\n" in start.decode()
    except UnicodeDecodeError:
        return False


def _see_width(width: int, where: str) -> None:
    if not _LEAST_WIDTH <= width <= _MOST_WIDTH:
        raise DataError(
            f"{where}: vectors of words have {_LEAST_WIDTH} to {_MOST_WIDTH:,} numbers, "
            f"not {width:,}."
        )


def _in_text(
    stream: IO[bytes] | _Again,
    first: bytes,
    number: int,
    width: int | None,
    wanted: Collection[str],
    where: str,
) -> Iterator[tuple[str, np.ndarray]]:
    """Lines of a word and its numbers.

    Args:
        first: a line that has been read already.
        number: of the first line.
        width: numbers a vector; None: as many as the first line has.
    """
    wanted_bytes = {word.encode() for word in wanted}
    lines = iter(lambda: stream.readline(_LONGEST_LINE), b"")
    for at, line in enumerate(chain([first] if first else [], lines), start=number):
        line = line.rstrip()
        count = line.count(b" ")  # of numbers; GloVe's words have spaces in some places, as ". . ."
        if not line:
            continue
        if width is None:
            width = count
            if width < _LEAST_WIDTH or _numbers(line.split(b" ")[1:]) is None:
                raise DataError(
                    f"{where}, line {at}: no word and its numbers; read are GloVe's text, "
                    "word2vec's text and binary formats, and .npz with words and vectors."
                )
        if count < width or (
            count > width and _numbers(line.split(b" ")[-width - 1 :]) is not None
        ):
            raise DataError(f"{where}, line {at}: {count} numbers, and {width} in those before.")
        word = line.partition(b" ")[0] if count == width else line.rsplit(b" ", width)[0]
        if word not in wanted_bytes:
            continue
        vector = _numbers(line.split(b" ")[-width:])
        if vector is None:
            raise DataError(f"{where}, line {at}: something is no number.")
        yield word.decode(), vector


def _numbers(cells: list[bytes]) -> np.ndarray | None:
    try:
        return np.array(cells, np.bytes_).astype(np.float32)
    except ValueError:
        return None


def _in_binary(
    stream: _Again, count: int, width: int, wanted: Collection[str], where: str
) -> Iterator[tuple[str, np.ndarray]]:
    """A word, a space, and little-endian float32 numbers, as often as the first line says.

    Raises:
        DataError: the file ends earlier, or a word does not.
    """
    pending, at, size = b"", 0, 4 * width
    wanted_bytes = {word.encode() for word in wanted}
    for entry in range(1, count + 1):
        if len(pending) - at < _LONGEST_WORD + 1 + size:
            pending, at = pending[at:] + stream.read(_BUFFER), 0
        space = pending.find(b" ", at, at + _LONGEST_WORD + 1)
        if space < 0 and len(pending) - at > _LONGEST_WORD:
            raise DataError(f"{where}: damaged; word {entry:,} of {count:,} does not end.")
        end = space + 1 + size
        if space < 0 or end > len(pending):
            raise DataError(f"{where}: cut off; it ends in word {entry:,} of {count:,}.")
        word = pending[at:space].lstrip(b"\n")
        if word in wanted_bytes:
            yield word.decode(), np.frombuffer(pending, "<f4", width, space + 1).copy()
        at = end


def _in_npz(file: File) -> Iterator[tuple[str, np.ndarray]]:
    try:
        with files.reading(file) as stream:
            arrays = np.load(stream, allow_pickle=False)
            if isinstance(arrays, np.ndarray):
                raise DataError(f"{file.where}: is a .npy of one array, and no .npz.")
            lacking = [name for name in ("words", "vectors") if name not in arrays]
            if lacking:
                held = ", ".join(arrays.files)
                raise DataError(f"{file.where}: has no {' and no '.join(lacking)}, but {held}.")
            words, vectors = arrays["words"].astype(str), arrays["vectors"]
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{file.where}: damaged, or no .npz of words: {error}.") from None
    if vectors.ndim != 2 or words.shape != vectors.shape[:1] or vectors.dtype.kind != "f":
        raise DataError(
            f"{file.where}: words {words.shape} and vectors {vectors.shape} of {vectors.dtype} are "
            "not [n] and float [n, width]."
        )
    _see_width(vectors.shape[1], file.where)
    yield from zip(words.tolist(), vectors, strict=True)


def _in_zip(file: File, wanted: Collection[str]) -> Iterator[tuple[str, np.ndarray]]:
    inside = files.in_archive(file)
    if len(inside) != 1:
        names = ", ".join(str(inner.path) for inner in inside)
        raise DataError(f"{file.where}: holds {names}; unpack it and give one of them.")
    yield from _entries(inside[0], wanted)
