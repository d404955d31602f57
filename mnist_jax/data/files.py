"""What lies in a folder, a zip archive or beside a file, and what the names tell."""

import gzip
import io
import os
import re
import shutil
import tarfile
import tempfile
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple, cast

import numpy as np

from mnist_jax import cache
from mnist_jax.data.names import CLASS_NAMES, DataError
from mnist_jax.words import on_one_line

READ_HERE = (
    "Read are IDX files (train-images-idx3-ubyte, ...), CIFAR's binary files, NumPy's .npz and "
    ".npy, .csv, and pictures in a folder a class; also inside a .zip or .tar.gz."
)
PICTURES = {
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".gif", ".tif", ".tiff"),
    *(".webp", ".avif", ".pgm", ".ppm", ".pbm", ".pnm", ".jp2", ".tga", ".pcx", ".ico"),
}
_DEPTH = 5  # folders below the one given
_GZIP = b"\x1f\x8b"
_BUFFER = 1 << 20  # bytes
_LAYERS = 4  # of gzip, one inside the other, at most
_TAR = (".tar", ".tgz")  # `.tar.gz` is `.tar` with a `.gz`
_JUNK = ("__macosx", "thumbs.db", "desktop.ini", "@eadir")
_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "validation"),
    **dict.fromkeys(("test", "testing", "t10k"), "test"),
}
_KINDS = {
    **dict.fromkeys(("images", "image", "imgs", "img", "x", "data"), "images"),
    **dict.fromkeys(("labels", "label", "y", "target", "targets"), "labels"),
}
# Words that say nothing about which data set it is.
_FILLERS = {*("ubyte", "byte", "int", "raw", "processed", "gzip", "set", "dataset", "arr", "0")}
_FILLERS |= {*("png", "pngs", "jpg", "jpeg", "as", "csv", "npz", "idx", "in", "format")}
_RUN_TOGETHER = {
    **{f"cifar{n}{more}": f"cifar{n}" for n in (10, 100) for more in ("", "images", "binary")},
    **{f"imagenette2{side}": f"imagenette/{side}px-v2" for side in (160, 320)},
}
# What people have that nothing here reads, and what to do instead.
_UNREAD = {
    ".mat": "a MATLAB file; EMNIST is also there as gzip.zip, which is read",
    **dict.fromkeys(
        (".parquet", ".arrow", ".feather"),
        "a table of another kind; save its pictures in a folder a class, or as .npz",
    ),
    **dict.fromkeys((".h5", ".hdf5"), "an HDF5 file; save its arrays as .npz"),
    **dict.fromkeys((".tfrecord", ".tfrecords"), "a TFRecord file; --dataset takes TFDS's names"),
    **dict.fromkeys((".arff", ".xlsx", ".xls", ".ods"), "a table of another kind; save it as .csv"),
    **dict.fromkeys((".json", ".jsonl", ".libsvm", ".svm"), "text of another kind than .csv"),
    **dict.fromkeys(
        (".7z", ".rar", ".xz", ".bz2", ".zst", ".tbz2", ".txz"),
        "packed in a way not read; unpack it",
    ),
    **dict.fromkeys(
        (".pkl", ".pickle", ".pt", ".pth", ".joblib"),
        "a pickle, and those can run code when read; save its arrays as .npz",
    ),
    **dict.fromkeys((".heic", ".heif"), "a HEIC picture; save it as PNG or JPEG"),
    **dict.fromkeys((".pdf", ".svg", ".psd"), "no picture made of pixels alone; save it as PNG"),
}


@dataclass(frozen=True)
class File:
    """A file in a folder or an archive."""

    path: PurePosixPath  # from the folder or archive given
    where: str  # for messages
    open: Callable[[], IO[bytes]]
    stamp: Callable[[], tuple[int, int]]  # size, and time of the last change (of the archive's)

    @cached_property
    def suffix(self) -> str:
        """In small letters, without `.gz`: `.csv` of `TRAIN.CSV.gz`."""
        return PurePosixPath(_without_gz(self.path.name)).suffix.lower()


class Role(NamedTuple):
    """What a name says about the array or table of this name."""

    split: str | None  # train, validation or test
    kind: str | None  # images or labels
    rest: tuple[str, ...]  # all other words


class Part(NamedTuple):
    """A split, or all of a data set, as files hold it."""

    images: np.ndarray  # uint8 [n, height, width, channels]
    labels: np.ndarray  # whole numbers or words, [n]
    where: str  # the labels are, for messages
    characters: bool | None = None  # whether pictures show them; None: not told
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Found:
    """A data set found among files, not read yet."""

    kind: str  # of files, for messages
    place: str  # which files, for messages
    depth: int  # of folders below the one given
    name: str | None  # in `NAMES`, as the files' names tell
    splits: frozenset[str]  # train, validation, test; "all" where no name tells a split
    read: Callable[[str], Part]
    missing: dict[str, str]  # what a split lacks that is there in part
    notes: tuple[str, ...] = ()
    transposed: bool = False  # as EMNIST is handed out
    mapping: File | None = None  # of labels to characters, as EMNIST's


def find(path: str | PathLike[str]) -> list[File]:
    """The files in a folder and in those below it, in an archive, or a file and its partners.

    A file's partners lie beside it and have the same name but for the split and images or labels:
    the labels of images, the test images of training images. Hidden files and what file managers
    leave are passed over.

    Raises:
        DataError: no such folder or file, or a damaged archive.
    """
    if not os.fspath(path):  # as of a shell's variable that is not set; Path takes it for a dot
        raise DataError("data_dir is empty; . is the folder that the command is in.")
    path = Path(path).expanduser()
    if os.path.isdir(path):
        return _in_folder(path)
    if not os.path.isfile(path):
        raise DataError(f"{path} is no folder and no file.")
    this = _file(path, PurePosixPath(path.name))
    if is_archive(this):
        return in_archive(this)
    if role_of(this).split is None:
        return [this]
    beside = sorted(p for p in path.parent.iterdir() if p.is_file() and not _is_junk(p.name))
    files = [_file(p, PurePosixPath(p.name)) for p in beside]
    return [f for f in files if f.path == this.path or _are_partners(f, this)]


def is_archive(file: File) -> bool:
    """Whether a name is one of those that zip and tar archives have."""
    return file.suffix in (".zip", *_TAR)


def in_archive(file: File) -> list[File]:
    """The files inside a zip or tar archive; a tar may be packed by gzip.

    Raises:
        DataError: a damaged archive.
    """
    inside = _in_tar(file) if file.suffix in _TAR else _in_zip(file)
    return [f for f in inside if not any(_is_junk(part) for part in f.path.parts)]


def _in_tar(file: File) -> list[File]:
    unpacked = _unpack(file)

    def member(info: tarfile.TarInfo) -> File:
        def read() -> IO[bytes]:
            return io.BytesIO(unpacked.read(info.offset_data, info.size))

        where = f"{file.where}/{on_one_line(info.name)}"
        return File(PurePosixPath(info.name), where, read, file.stamp)

    try:
        with tarfile.open(fileobj=unpacked.stream, mode="r:") as archive:
            members = [info for info in archive if info.isreg()]
    except (tarfile.TarError, ValueError, OverflowError, EOFError) as error:
        raise DataError(f"{file.where}: damaged, or no tar archive: {error}.") from None
    for info in members:  # a truncated archive's last one
        if info.offset_data + info.size > unpacked.size:
            raise DataError(f"{file.where}: damaged: {info.name} is cut off.")
    return [member(info) for info in sorted(members, key=lambda info: info.name)]


class _Unpacked:
    """An archive's content in a file without a name, which any thread may read from."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream = stream
        self.size = stream.seek(0, os.SEEK_END)
        stream.seek(0)
        self._lock = threading.Lock()

    def read(self, offset: int, size: int) -> bytes:
        with self._lock:
            self.stream.seek(offset)
            return self.stream.read(size)


def _unpack(file: File) -> _Unpacked:
    """Out of gzip, once: each file inside is then found without unpacking all before it.

    Raises:
        DataError: it cannot be read, or there is no room for it.
    """
    stream = tempfile.TemporaryFile(dir=cache.folder())  # noqa: SIM115, as long as its files are
    with reading(file) as packed:
        shutil.copyfileobj(packed, stream, _BUFFER)
    return _Unpacked(stream)


def _in_zip(file: File) -> list[File]:
    try:
        archive = zipfile.ZipFile(file.open())
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"{file.where}: damaged, or no zip archive: {error}.") from None

    def member(name: str) -> File:
        where = f"{file.where}/{on_one_line(name)}"
        return File(PurePosixPath(name), where, lambda: archive.open(name), file.stamp)

    names = [info.filename for info in archive.infolist() if not info.is_dir()]
    return [member(name) for name in sorted(names)]


def single(path: str | PathLike[str], name: str | None = None) -> File:
    """A file by itself, under its own name or another."""
    path = Path(path)
    return _file(path, PurePosixPath(name or path.name))


def _in_folder(folder: Path) -> list[File]:
    files = []
    for where, folders, names in os.walk(folder, followlinks=True):
        inside = PurePosixPath(Path(where).relative_to(folder).as_posix())
        deepest = len(inside.parts) >= _DEPTH
        further = [f for f in folders if not (_is_junk(f) or _leads_back(Path(where) / f))]
        folders[:] = [] if deepest else sorted(further)
        files += [
            _file(Path(where) / name, inside / name) for name in sorted(names) if not _is_junk(name)
        ]
    return files


def _leads_back(folder: Path) -> bool:
    """Whether a folder is a link to one that it lies in."""
    return folder.is_symlink() and folder.parent.resolve().is_relative_to(folder.resolve())


def _file(path: Path, inside: PurePosixPath) -> File:
    def stamp() -> tuple[int, int]:
        status = path.stat()
        return status.st_size, status.st_mtime_ns

    return File(inside, on_one_line(str(path)), lambda: path.open("rb"), stamp)


def _is_junk(name: str) -> bool:
    return name.startswith(".") or name.lower() in _JUNK


def _are_partners(one: File, other: File) -> bool:
    same_format = one.suffix == other.suffix or (is_idx(one) and is_idx(other))
    return same_format and role_of(one).rest == role_of(other).rest


@contextmanager
def reading(file: File) -> Iterator[IO[bytes]]:
    """A file's content, out of gzip where it is packed, whatever its name says.

    Raises:
        DataError: it cannot be read, here or while it is read.
    """
    try:
        with ExitStack() as stack:
            stream = io.BufferedReader(cast(io.RawIOBase, stack.enter_context(file.open())))
            for _ in range(_LAYERS):
                if stream.peek(2)[:2] != _GZIP:
                    break
                packed = stack.enter_context(gzip.GzipFile(fileobj=stream, mode="rb"))
                stream = io.BufferedReader(cast(io.RawIOBase, packed), _BUFFER)
            yield stream
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{file.where}: truncated or damaged gzip data: {error}.") from None
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:  # encrypted, too
        raise DataError(f"{file.where}: cannot be read from its archive: {error}.") from None
    except OSError as error:
        raise DataError(f"{file.where}: cannot be read: {error.strerror or error}.") from None


def role(name: str) -> Role:
    """Read a name, such as `emnist-letters-train-images-idx3-ubyte` or `x_test`."""
    words = words_of(name)
    split = next((_SPLITS[word] for word in words if word in _SPLITS), None)
    kind = next((_KINDS[word] for word in words if word in _KINDS), None)
    known = {*_SPLITS, *_KINDS, *_FILLERS}
    rest = [w for w in words if w not in known and not re.fullmatch(r"idx\d?", w)]
    return Role(split, kind, tuple(rest))


def words_of(name: str) -> list[str]:
    """A name's words in small letters; a capital inside begins one, as in `trainImages`."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    return [word for word in re.split(r"[^a-z0-9]+", spaced.lower()) if word]


def role_of(file: File) -> Role:
    """As `role`, of a file's name, with the split of the folders around it where it has none."""
    name = PurePosixPath(_without_gz(file.path.name))
    own = role(name.name if is_idx(file) else name.stem)
    return own._replace(split=own.split or split_of(file.path.parent))


def split_of(folder: PurePosixPath) -> str | None:
    """The split that a folder's name, or one above it, tells."""
    return next((s for s in (role(part).split for part in reversed(folder.parts)) if s), None)


def group_of(folder: PurePosixPath) -> PurePosixPath:
    """A folder without the parts that name a split: `train` and `test` of a data set share one."""
    return PurePosixPath(*(part for part in folder.parts if role(part).split is None))


def is_idx(file: File) -> bool:
    """Whether a name is one of those that IDX files have."""
    if file.suffix in _UNREAD or file.suffix in (".csv", ".tsv", ".txt", ".npz", ".npy", *PICTURES):
        return False
    name = _without_gz(file.path.name)
    words = words_of(name)
    if any(re.fullmatch(r"idx\d?|ubyte", word) for word in words):
        return True
    own = role(name)
    return file.suffix in ("", ".bin") and own.split is not None and own.kind is not None


def preference(file: File) -> tuple[int, bool, str]:
    """Where the same thing is there twice, the least is taken: the highest up, then the plain."""
    return len(file.path.parts), file.path.name.lower().endswith(".gz"), str(file.path)


def dataset_of(words: Sequence[str]) -> str | None:
    """The data set of `NAMES` that words name, as those of `emnist-letters-train-images`."""
    named = "".join(word for word in words if word not in _FILLERS)
    if named in _RUN_TOGETHER:
        return _RUN_TOGETHER[named]
    words = [word for word in words if word not in _FILLERS and not word.isdecimal()]
    if words[:1] == ["emnist"]:
        return next((f"emnist/{w}" for w in words if f"emnist/{w}" in CLASS_NAMES), None)
    if words in (["fashion", "mnist"], ["fashionmnist"], ["fashion"]):
        return "fashion_mnist"
    return words[0] if words in (["mnist"], ["kmnist"], ["qmnist"]) else None


def dataset_of_folder(folder: PurePosixPath) -> str | None:
    """The data set that a folder's name, or that of one above it, is: `FashionMNIST/raw`."""
    return next((n for n in (dataset_of(words_of(p)) for p in reversed(folder.parts)) if n), None)


def unread(files: Sequence[File]) -> str | None:
    """What is there that nothing here reads, and what to do with it; None without any."""
    for suffix, what in _UNREAD.items():
        for file in files:
            if suffix in (ending.lower() for ending in file.path.suffixes):
                return f"{file.path} is {what}."
    return None


def stem(path: Path) -> str:
    """A file's name without what tells its format: `photos` of `photos.tar.gz`."""
    name = PurePosixPath(_without_gz(path.name))
    return name.stem if name.suffix else name.name


def _without_gz(name: str) -> str:
    while name.lower().endswith(".gz"):
        name = name[: -len(".gz")]
    return name
