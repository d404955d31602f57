"""Folders of pictures, with a folder a class: `train/7/0001.png`, or without `train` and `test`."""

import os
import warnings
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import PurePosixPath

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from mnist_jax.data import arrays, files
from mnist_jax.data.arrays import SIDE
from mnist_jax.data.files import File, Found, Part
from mnist_jax.data.names import DataError

_SUFFIXES = {
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".gif", ".tif", ".tiff"),
    *(".webp", ".avif", ".pgm", ".ppm", ".pbm", ".pnm", ".jp2", ".tga", ".pcx", ".ico"),
}
_HEIC = (".heic", ".heif")
_PAPER = 200  # a border at least this light is paper
# Photographs of things are colourful (of 1) and have uneven borders (of 255): CIFAR-10's medians
# are 0.11 and 39, those of 161 photographs and 600 scans of digits 0 and 0.
_COLOURFUL, _UNEVEN = 0.06, 20
_SAMPLE = 50


def found(here: Sequence[File]) -> list[Found]:
    """The data sets in pictures, a folder a class.

    Raises:
        DataError: there are pictures, and none is in the folder of a class.
    """
    by_folder: dict[PurePosixPath, list[File]] = defaultdict(list)
    for file in here:
        if file.suffix in _SUFFIXES:
            by_folder[file.path.parent].append(file)
    # By data set and split, the pictures of each folder that holds the classes' folders.
    sets: dict[PurePosixPath, dict[str, dict[PurePosixPath, list[File]]]]
    sets = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    loose: dict[str, int] = {}
    for folder, pictures in by_folder.items():
        role = files.role(folder.name)
        if not folder.parts or (role.split and not role.rest):
            loose[os.path.dirname(pictures[0].where)] = len(pictures)
        else:
            split = files.split_of(folder.parent) or "all"
            sets[files.group_of(folder.parent)][split][folder.parent] += pictures
    if loose and not sets:
        where, count = next(iter(loose.items()))
        raise DataError(
            f"{count:,} pictures lie side by side in {where}, and nothing tells their classes.\n"
            "Put them into a folder a class, such as 7/0001.png."
        )
    left_out = [f"{n:,} pictures without a class in {where}" for where, n in loose.items()]
    heic = sum(file.suffix in _HEIC for file in here)
    left_out += [f"{heic:,} HEIC pictures, which Pillow does not read"] if heic else []
    return [_found(group, splits, tuple(left_out)) for group, splits in sets.items()]


def _found(
    group: PurePosixPath, splits: dict[str, dict[PurePosixPath, list[File]]], left_out: tuple
) -> Found:
    # Where a split is there twice, as trainingSet and trainingSample, the larger is taken.
    largest = {
        split: max(by.items(), key=lambda item: len(item[1])) for split, by in splits.items()
    }
    others = tuple(
        f"{len(pictures):,} pictures in {folder}"
        for split, by in splits.items()
        for folder, pictures in by.items()
        if folder != largest[split][0]
    )
    return Found(
        kind="pictures",
        place=", ".join(sorted(str(folder) for folder, _ in largest.values())),
        depth=min(len(folder.parts) for folder, _ in largest.values()),
        name=files.dataset_of_folder(group),
        splits=frozenset(largest),
        read=partial(_read, {split: pictures for split, (_, pictures) in largest.items()}),
        missing={},
        notes=tuple(f"{what}, are left out" for what in (*left_out, *others)),
    )


def _read(pictures: dict[str, list[File]], split: str) -> Part:
    """Read a split's pictures, several at a time.

    Raises:
        DataError: a picture that cannot be read, or is none of a character, or photographs.
    """
    here = pictures[split]
    with warnings.catch_warnings():  # not in the threads, which share the filters
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # half of what is too much
        _refuse_photographs(here[:: -(-len(here) // _SAMPLE)])
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            made = list(threads.map(_pixels, here))
    failed = [result for result in made if isinstance(result, str)]
    good = [result for result in made if not isinstance(result, str)]
    if failed:
        more = f"\n{len(failed) - 1:,} more pictures cannot be used." if len(failed) > 1 else ""
        raise DataError(f"{failed[0]}{more}")
    images = np.stack([pixels for pixels, _ in good])
    by_to_mnist = np.array([is_made for _, is_made in good])
    _lighten(images, ~by_to_mnist)
    labels = arrays.as_numbers(np.array([file.path.parent.name for file in here]))
    where = os.path.dirname(os.path.dirname(here[0].where))
    return Part(images, labels, where, bool(by_to_mnist.any()))


def _lighten(images: np.ndarray, which: np.ndarray) -> None:
    """Make ink on paper light on dark, where most of the images are that; in place."""
    if not which.any():
        return
    edge = np.ones((SIDE, SIDE), bool)
    edge[1:-1, 1:-1] = False
    borders = np.median(images[which][:, edge, 0], axis=1)
    if np.mean(borders >= _PAPER) > 0.5:
        images[which] = 255 - images[which]


def _pixels(file: File) -> tuple[np.ndarray, bool] | str:
    """uint8 `[28, 28, 1]`, and whether it was made so; or what is wrong.

    A picture that is grey and of this size already stays as it is.
    """
    from mnist_jax.images import to_mnist

    try:
        image = _open(file)
        grey = _as_it_is(image)
        return (to_mnist(image), True) if grey is None else (grey, False)
    except ValueError as error:
        return f"{file.where}: {error}"


def _as_it_is(image: Image.Image) -> np.ndarray | None:
    """The values of a picture of 28 x 28 pixels without colours; None of another."""
    if image.size != (SIDE, SIDE) or image.mode.startswith(("I", "F")):
        return None
    if image.mode == "L" and "transparency" not in image.info:
        return np.asarray(image)[..., None]
    values = np.asarray(image.convert("RGBA"))
    if (values[..., 3] < 255).any() or np.ptp(values[..., :3], axis=-1).any():
        return None
    return values[..., :1]


def _open(file: File) -> Image.Image:
    try:
        with file.open() as stream:
            image = Image.open(stream)
            image.load()
            return ImageOps.exif_transpose(image)
    except UnidentifiedImageError:
        raise ValueError("no picture that Pillow can read.") from None
    except OSError as error:
        raise ValueError(f"damaged: {error.strerror or error}.") from None
    except Exception as error:  # Pillow's decoders raise of all kinds on damaged files
        raise ValueError(f"damaged: {error}.") from None


def _refuse_photographs(some: Sequence[File]) -> None:
    """Raise DataError where pictures are of things, which `to_mnist` would take for ink."""
    colours, borders = [], []
    for file in some:
        try:
            image = _open(file)
        except ValueError:
            continue  # said when all are read
        if _as_it_is(image) is None:
            values = np.asarray(image.convert("RGB").resize((SIDE, SIDE)), np.float32)
            colours.append(np.ptp(values, axis=-1).mean() / 255)
            grey = values.mean(axis=-1)
            borders.append(np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]]).std())
    if colours and np.median(colours) > _COLOURFUL and np.median(borders) > _UNEVEN:
        raise DataError(
            f"{some[0].where}: photographs in colour; these networks take one channel of 28 x 28.\n"
            "Read are pictures of single characters on a plain ground, of any size, and pictures "
            "of 28 x 28 pixels in grey."
        )
