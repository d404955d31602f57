"""Pictures of things, of any size, decoded once into arrays and kept in the user's cache folder."""

import hashlib
import math
import os
import shutil
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from mnist_jax import cache
from mnist_jax.data import memory
from mnist_jax.data.files import File
from mnist_jax.data.names import DataError
from mnist_jax.words import counted

_LARGEST_SIDE = 224  # of pictures of several sizes, unless asked: what ImageNet's networks take
_COPIES = 2  # of all images in memory while they are shuffled
_LEAST_SECONDS = 1.0  # what is decoded sooner is not worth a file
_SMALL = 8192  # bytes of a picture; decoding it takes no longer than threads wait for each other
_ORIENTATION = 0x0112  # of EXIF
_ON_THEIR_SIDE = (5, 6, 7, 8)
_GREY = {"1", "L", "LA", "La", "I", "F", "I;16", "I;16L", "I;16B", "I;16N"}  # of Pillow's modes
_COLOURLESS = 8  # of 255, what the channels of a grey picture differ by at most
_MOSTLY = 0.9  # of the pictures grey, and all become so
_SAMPLE = 50
_VERSION = b"2"  # of how pictures become arrays; another one finds nothing of the former

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class _Header(NamedTuple):
    size: tuple[int, int]  # width, height, once turned as EXIF says
    is_grey: bool  # by its mode; one of another may have no colours either


@dataclass(frozen=True)
class Photos:
    """The pictures of a data set by split; all of them become arrays of one shape."""

    splits: Mapping[str, Sequence[File]]
    image_size: int | None  # height and width; None: the pictures' own

    @cached_property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels.

        The pictures' own height and width where all have the same, otherwise a square: of
        `image_size`, or of the median of their shorter sides, but 224 at most. One channel where
        nine of ten pictures or more are grey, three otherwise.

        Raises:
            DataError: none can be read, or their arrays would not fit memory.
        """
        here = [file for pictures in self.splits.values() for file in pictures]
        headers = _each(_header, here, here)
        good = [header for header in headers if isinstance(header, _Header)]
        if not good:
            raise unusable([header for header in headers if isinstance(header, str)])
        sizes = {header.size for header in good}
        if self.image_size is not None:
            width = height = self.image_size
        elif len(sizes) == 1:
            ((width, height),) = sizes
        else:
            median = int(np.median([min(header.size) for header in good]))
            width = height = min(median, _LARGEST_SIDE)
        shape = height, width, 1 if _are_grey(here, headers) else 3
        _refuse_too_many(len(here), shape, here[0])
        return shape

    def kept(self, split: str) -> np.ndarray | None:
        """What `read` has given before of the same files; None where that is not kept.

        Raises:
            DataError: it would not fit memory.
        """
        try:
            path = self._path(split)
            kept = None if path is None else np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        if kept is None:
            return None
        _refuse_too_many(len(kept), kept.shape[1:], self.splits[split][0])
        return np.array(kept)

    def read(self, split: str) -> np.ndarray:
        """Decode a split's pictures: uint8 `[n, height, width, channels]`, as `images.to_photo`.

        Raises:
            DataError: pictures that cannot be read, or too many for the memory.
        """
        from mnist_jax.images import to_photo

        here, shape, began = self.splits[split], self.shape, time.monotonic()
        images = np.empty((len(here), *shape), np.uint8)

        def decode(place: int) -> str | None:
            try:
                image = open_picture(here[place], draft=2 * max(shape[:2]))
                images[place] = to_photo(image, *shape)
            except ValueError as error:
                return f"{here[place].where}: {error}"
            return None

        failed = [error for error in _each(decode, range(len(here)), here) if error is not None]
        if failed:
            raise unusable(failed)
        if time.monotonic() - began > _LEAST_SECONDS:
            self._keep(split, images)
        return images

    def _path(self, split: str) -> Path | None:
        """Where a split's array is kept: a folder a place, and a name for what is there now.

        Raises:
            OSError: a file is not there any more.
        """
        folder = cache.folder()
        if folder is None:
            return None
        place, content = self._digests
        return folder / "pictures" / place / f"{content}-{split}.npy"

    @cached_property
    def _digests(self) -> tuple[str, str]:
        """Of the place, and of the names, sizes and times of the files that were there at first."""
        here = [(name, file) for name in sorted(self.splits) for file in self.splits[name]]
        root = os.path.abspath(here[0][1].where)
        place = hashlib.sha256(f"{root} {self.image_size}".encode(errors="replace"))
        content = hashlib.sha256(_VERSION)
        for name, file in here:
            line = f"{name} {os.path.abspath(file.where)} {file.stamp()}\n"
            content.update(line.encode(errors="surrogateescape"))
        return place.hexdigest()[:16], content.hexdigest()[:32]

    def _keep(self, split: str, images: np.ndarray) -> None:
        with suppress(OSError):  # it is decoded again, then
            path = self._path(split)
            if path is None:
                return
            path.parent.mkdir(parents=True, exist_ok=True)
            for other in path.parent.iterdir():  # of files that have changed since
                if other.name.partition("-")[0] != path.name.partition("-")[0]:
                    other.unlink()
            if shutil.disk_usage(path.parent).free < 2 * images.nbytes:
                return
            unfinished = path.with_name(f"{path.name}.{os.getpid()}")
            try:
                with unfinished.open("wb") as stream:
                    np.save(stream, images, allow_pickle=False)
                unfinished.replace(path)
            finally:
                unfinished.unlink(missing_ok=True)


def open_picture(file: File, draft: int | None = None) -> Image.Image:
    """Read and decode a picture, and turn it as its EXIF orientation says.

    Args:
        draft: a side in pixels above which a JPEG may come reduced, which is quicker.

    Raises:
        ValueError: it cannot be read; the message does not name it.
    """
    with _told(), file.open() as stream:
        image = Image.open(stream)
        if draft is not None:
            image.draft(None, (draft, draft))
        image.load()
        return upright(image)


def upright(image: Image.Image) -> Image.Image:
    """A picture turned as its EXIF orientation says; where EXIF cannot be read, as it is."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # Pillow raises of all kinds on damaged EXIF; the pixels may be sound
        return image


def _is_on_its_side(image: Image.Image) -> bool:
    """Whether `upright` exchanges height and width."""
    if "exif" not in image.info and image.format != "TIFF":
        return False
    try:
        return image.getexif().get(_ORIENTATION, 1) in _ON_THEIR_SIDE
    except Exception:  # as above
        return False


@contextmanager
def _told() -> Iterator[None]:
    """All that Pillow raises, as ValueErrors."""
    try:
        yield
    except UnidentifiedImageError:
        raise ValueError("no picture that Pillow can read.") from None
    except OSError as error:  # of the system's, or of Pillow's
        what = f"cannot be read: {error.strerror}" if error.strerror else f"damaged: {error}"
        raise ValueError(f"{what}.") from None
    except Image.DecompressionBombError:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise ValueError(f"too large; more than {limit:,} pixels.") from None
    except Exception as error:  # Pillow's decoders raise of all kinds on damaged files
        raise ValueError(f"damaged: {str(error).rstrip('.')}.") from None


def unusable(errors: Sequence[str]) -> DataError:
    """Of pictures that cannot be used, the first one's error, and how many more there are."""
    others = counted(len(errors) - 1, "more picture")
    hint = f"{others} cannot be used." if len(errors) > 1 else "Replace it, or take it away."
    return DataError(f"{errors[0]}\n{hint}")


def _header(file: File) -> _Header | str:
    """What a picture's beginning says of it; or what is wrong."""
    try:
        with _told(), file.open() as stream:
            image = Image.open(stream)
            width, height = image.size
            size = (height, width) if _is_on_its_side(image) else (width, height)
            return _Header(size, image.mode in _GREY)
    except ValueError as error:
        return f"{file.where}: {error}"


def _are_grey(here: Sequence[File], headers: Sequence[_Header | str]) -> bool:
    """Whether nearly all pictures are grey, by their modes and, of some of the others, by looks."""
    grey = [isinstance(header, _Header) and header.is_grey for header in headers]
    others = [file for file, is_grey in zip(here, grey, strict=True) if not is_grey]
    some = others[:: max(1, len(others) // _SAMPLE)]
    are_grey_too = np.mean([_has_no_colours(file) for file in some]) if some else 0.0
    return bool(len(here) - len(others) + are_grey_too * len(others) >= _MOSTLY * len(here))


def _has_no_colours(file: File) -> bool:
    try:
        image = open_picture(file, draft=_LARGEST_SIDE)
    except ValueError:
        return False  # said when all are read
    if image.mode in ("LAB", "HSV"):
        return False
    values = np.asarray(image.convert("RGBA"), np.int16)
    return bool((np.ptp(values[..., :3], axis=-1) * (values[..., 3] > 0)).max() <= _COLOURLESS)


def _each(
    function: Callable[[_Item], _Result], items: Sequence[_Item], files: Sequence[File]
) -> list[_Result]:
    """A function's results for all items, several at a time where the files are large enough."""
    if _are_small(files):
        return [function(item) for item in items]
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        return list(threads.map(function, items))


def _are_small(files: Sequence[File]) -> bool:
    sizes = []
    for file in files[:: -(-len(files) // _SAMPLE)]:
        with suppress(OSError, RuntimeError, zipfile.BadZipFile), file.open() as stream:
            sizes.append(len(stream.read(_SMALL)))
    return bool(np.median(sizes or [0]) < _SMALL)


def _refuse_too_many(count: int, shape: tuple[int, ...], first: File) -> None:
    """Raise DataError where so many images of a shape would not fit memory."""
    needed, free = count * math.prod(shape), memory.available()
    if free is None or _COPIES * needed <= free:
        return
    size = " x ".join(map(str, shape))
    raise DataError(
        f"{os.path.dirname(first.where)}: {counted(count, 'picture')} of {size} would take "
        f"{_COPIES} x {needed / 1e9:,.1f} GB while they are shuffled; {free / 1e9:,.1f} GB of "
        "memory are free.\nTake fewer pictures, or a smaller image_size."
    )
