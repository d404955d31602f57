"""The pictures that a command line names: files, folders, IDX files, standard input."""

import io
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple, NoReturn

import numpy as np
from PIL import Image, UnidentifiedImageError

_HEIF = (b"ftypheic", b"ftypheix", b"ftyphevc", b"ftypmif1", b"ftypmsf1")
HIDDEN = (".", "__MACOSX")


class Picture(NamedTuple):
    """One picture to look at."""

    name: str
    read: Callable[[], Image.Image | np.ndarray]  # raises ValueError with the reason
    label: str | None = None  # the folder's name, of pictures in a folder a class


def named_by(argument: str) -> Iterator[Picture]:
    """The pictures of one argument; one that cannot be read says so when it is read."""
    path = Path(argument)
    if argument == "-":
        yield Picture(argument, lambda: read(io.BytesIO(sys.stdin.buffer.read())))
    elif not argument:  # as of a shell's variable that is not set; Path takes it for a dot
        yield Picture("''", partial(_fail, "is no name of a file."))
    elif os.path.isdir(argument):  # unlike Path's, it is also False for a name that is too long
        yield from _in_folder(path)
    elif _is_idx(path):
        yield from _in_idx(path)
    else:
        yield Picture(argument, partial(read, path))


def frames(image: Image.Image) -> Iterator[Image.Image]:
    """All frames or pages of a picture."""
    for i in range(getattr(image, "n_frames", 1)):
        try:
            image.seek(i)
            image.load()
        except Exception as error:  # Pillow's decoders raise of all kinds on damaged files
            raise ValueError(f"damaged in frame {i + 1}: {error}.") from None
        yield image


def read(file: Path | BinaryIO) -> Image.Image:
    """Read and decode a file.

    Raises:
        ValueError: it cannot be read, or is no picture.
    """
    with suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", Image.DecompressionBombWarning
            )  # half of what is too much
            image = Image.open(file)
            image.load()
            return image
    except UnidentifiedImageError:
        if _is_heif(file):
            raise ValueError("HEIC needs the package pillow-heif (pip install it).") from None
        raise ValueError("no image that Pillow can read.") from None
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror or error}.") from None
    except Image.DecompressionBombError:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise ValueError(f"too large; more than {limit:,} pixels.") from None
    except Exception as error:  # Pillow's decoders raise of all kinds on damaged files
        raise ValueError(f"damaged: {error}.") from None


def _is_heif(file: Path | BinaryIO) -> bool:
    if isinstance(file, Path):
        with file.open("rb") as opened:
            return _is_heif(opened)
    file.seek(0)
    return file.read(12)[4:] in _HEIF


def are_in(folder: Path) -> bool:
    """Whether there are picture files in a folder, or in the folders in it."""
    return any(True for _ in _files_in(folder))


def has_ending(path: Path) -> bool:
    """Whether a name is one that picture files have."""
    Image.init()  # makes Pillow list its formats
    return path.suffix.lower() in {*Image.EXTENSION, ".heic", ".heif"}


def _in_folder(folder: Path) -> Iterator[Picture]:
    """All pictures of a folder, and of the folders in it, whose names are their labels."""
    files = sorted(_files_in(folder))
    for file in files:
        label = file.relative_to(folder).parent.name or None
        yield Picture(str(file), partial(read, file), label)
    if not files:
        yield Picture(str(folder), partial(_fail, "no image files in this folder."))


def _files_in(folder: Path) -> Iterator[Path]:
    for file in folder.rglob("*"):
        hidden = any(part.startswith(HIDDEN) for part in file.relative_to(folder).parts)
        if has_ending(file) and not hidden:
            yield file


def _in_idx(path: Path) -> Iterator[Picture]:
    from mnist_jax.data import read_idx

    try:
        images = read_idx(path)
        if images.ndim not in (3, 4):
            raise ValueError(
                f"holds {images.ndim}-dimensional data, not [n, height, width] images, with an "
                "axis of channels or without."
            )
    except ValueError as error:
        yield Picture(str(path), partial(_fail, str(error).removeprefix(f"{path}: ")))
        return
    for i, image in enumerate(images):
        yield Picture(f"{path}[{i}]", partial(np.asarray, image))


def _is_idx(path: Path) -> bool:
    if path.suffix == ".gz":
        return True
    try:
        with path.open("rb") as file:
            return file.read(2) == b"\0\0" and file.read(2)[1:] in (b"\1", b"\2", b"\3", b"\4")
    except OSError:
        return False  # reading it as an image will tell


def _fail(message: str) -> NoReturn:
    raise ValueError(message)
