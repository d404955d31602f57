"""Folders of pictures, with a folder a class: `train/7/0001.png`, or without `train` and `test`.

Pictures of single characters become what MNIST's digits are, and grey ones of 28 x 28 are so
already; photographs of things, in colour or grey, stay as they are, of any size (`photos.py`). What
a data set shows is decided once, for all of its splits, before any is read.
"""

import os
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np
from PIL import Image

from mnist_jax.data import arrays, files, orientation
from mnist_jax.data.arrays import SIDE
from mnist_jax.data.files import PICTURES, File, Found, Part
from mnist_jax.data.names import (
    CLASS_NAMES,
    NOT_CHARACTERS,
    SYNSETS,
    DataError,
    PictureKind,
    shape_of,
)
from mnist_jax.data.photos import Photos, open_picture, unusable
from mnist_jax.words import counted

_HEIC = (".heic", ".heif")
_PAPER = 200  # a border at least this light is paper
# Photographs of things are colourful (of 1), have uneven borders (of 255), little plain ground (of
# 1) and many shades, so that two tones are less of them (of 1): CIFAR-10's medians are 0.11, 41,
# 0.45 and 0.73, those of 161 photographs and 600 scans of digits 0, 0, 0.92 and 0.89. Only digits
# cropped to their ink have borders as uneven, 77, and as little ground, 0.52, in two tones, 0.89.
_COLOURFUL, _UNEVEN, _PLAIN, _TWO_TONES = 0.06, 20, 0.7, 0.83
_NEAR = 40  # of 255, how far plain ground's colours are from that of the border at most
_SAMPLE = 50
_SMALL_SAMPLE = 500  # of grey pictures of 28 x 28


class Wanted(NamedTuple):
    """What pictures are to become."""

    # Photographs' height and width, and whatever the pictures show; None: by their own.
    image_size: int | None = None
    kind: PictureKind = "auto"  # what they show; auto: told by their looks
    # Grey characters of 28 x 28 are to lie as MNIST's do, also where most do not.
    as_mnist: bool = False
    name: str | None = None  # of the data set, as asked for or as their place is called


def found(here: Sequence[File], wanted: Wanted) -> list[Found]:
    """The data sets in pictures, a folder a class.

    Raises:
        DataError: there are pictures, and none is in the folder of a class.
    """
    by_folder: dict[PurePosixPath, list[File]] = defaultdict(list)
    for file in here:
        if file.suffix in PICTURES:
            by_folder[file.path.parent].append(file)
    # By data set and split, the pictures of each folder that holds the classes' folders.
    sets: dict[PurePosixPath, dict[str, dict[PurePosixPath, list[File]]]]
    sets = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    loose: dict[str, int] = {}  # how many lie in folders that are no class's
    below: dict[PurePosixPath, int] = {}  # and how many in folders within a class's
    of_classes = {folder.parent for folder in by_folder if not _is_split(folder)}
    of_splits = {
        above.parent for folder in by_folder for above in folder.parents if _is_split(above)
    }

    def is_class(folder: PurePosixPath) -> bool:
        # CIFAR-100 has a class called train: `train/train`, beside `train/apple`.
        is_train = files.split_of(folder.parent) is not None and folder.parent in of_classes
        can_be = bool(folder.parts) and folder not in of_splits
        return can_be and (is_train or not _is_split(folder))

    for folder, pictures in by_folder.items():
        if not is_class(folder):
            loose[os.path.dirname(pictures[0].where)] = len(pictures)
        elif any(above in by_folder and is_class(above) for above in folder.parents):
            below[folder] = len(pictures)
        else:
            split = files.split_of(folder.parent) or "all"
            sets[files.group_of(folder.parent)][split][folder.parent] += pictures
    if loose and not sets:
        where, count = next(iter(loose.items()))
        raise DataError(
            f"{where} holds {counted(count, 'picture')} in no class's folder, and nothing else "
            "tells the classes.\nPut each into its class's folder, as 7/0001.png."
        )
    left_out = [f"{counted(n, 'picture')} without a class in {w}" for w, n in loose.items()]
    left_out += [f"{counted(n, 'picture')} in {w}, within a class" for w, n in below.items()]
    heic = sum(file.suffix in _HEIC for file in here)
    left_out += [f"{counted(heic, 'HEIC picture')}, which Pillow does not read"] if heic else []
    return [_found(group, splits, tuple(left_out), wanted) for group, splits in sets.items()]


def _is_split(folder: PurePosixPath) -> bool:
    """Whether a folder's name is that of a split and nothing else."""
    role = files.role(folder.name)
    return role.split is not None and not role.rest


def _found(
    group: PurePosixPath,
    splits: dict[str, dict[PurePosixPath, list[File]]],
    left_out: tuple[str, ...],
    wanted: Wanted,
) -> Found:
    # Where a split is there twice, as trainingSet and trainingSample, the larger is taken.
    largest = {
        split: max(by.items(), key=lambda item: len(item[1])) for split, by in splits.items()
    }
    others = tuple(
        f"{counted(len(pictures), 'picture')} in {folder}"
        for split, by in splits.items()
        for folder, pictures in by.items()
        if folder != largest[split][0]
    )
    by_split = {split: pictures for split, (_, pictures) in largest.items()}
    if _is_imagenette(by_split) and "test" not in by_split and "validation" in by_split:
        by_split["test"] = by_split.pop("validation")  # on which its accuracies are published
    name = files.dataset_of_folder(group)
    return Found(
        kind="pictures",
        place=", ".join(sorted(str(folder) for folder, _ in largest.values())),
        depth=min(len(folder.parts) for folder, _ in largest.values()),
        name=name,
        splits=frozenset(by_split),
        read=_Pictures(by_split, wanted._replace(name=name or wanted.name)).read,
        missing={},
        notes=tuple(f"left out: {what}" for what in (*left_out, *others)),
    )


def _is_imagenette(splits: Mapping[str, Sequence[File]]) -> bool:
    return all(file.path.parent.name in SYNSETS for here in splits.values() for file in here)


class _SmallOnes(NamedTuple):
    """The grey pictures of 28 x 28 among some."""

    light: np.ndarray  # uint8 [n, 28, 28, 1], light on dark
    names: list[str]  # of their folders
    on_paper: bool  # whether most are dark on light as they are
    others: int  # how many of the pictures are none


@dataclass(frozen=True)
class _Pictures:
    """The pictures of a data set by split, all of one kind."""

    splits: Mapping[str, Sequence[File]]
    wanted: Wanted

    def read(self, split: str) -> Part:
        """Read a split's pictures.

        Raises:
            DataError: pictures that cannot be read, or too many for the memory; of characters, one
                on which none is found.
        """
        here = self.splits[split]
        names = np.array([file.path.parent.name for file in here])
        if _is_imagenette(self.splits):
            names = np.array([SYNSETS[name] for name in names.tolist()])
        labels = arrays.as_numbers(names)
        where = os.path.dirname(os.path.dirname(here[0].where))
        with warnings.catch_warnings():  # not in the threads, which share the filters
            warnings.filterwarnings("ignore", module="PIL")  # of large pictures, odd metadata
            if self._are_characters:
                return self._characters(here, labels, where)
            photos = self._photos.kept(split)
            if photos is None:
                photos = self._photos.read(split)
        height, width, channels = photos.shape[1:]
        note = f"photographs of {height} x {width} in {'grey' if channels == 1 else 'colour'}"
        return Part(photos, labels, where, characters=False, notes=(note,))

    def _characters(self, here: Sequence[File], labels: np.ndarray, where: str) -> Part:
        """Raises DataError for a picture that cannot be read, or shows no character."""
        from mnist_jax.images import are_as_mnist

        with ThreadPoolExecutor(os.cpu_count()) as threads:
            made = list(threads.map(self._character, here))
        failed = [result for result in made if isinstance(result, str)]
        if failed:
            raise unusable(failed)
        good = [result for result in made if not isinstance(result, str)]
        images = np.stack([pixels for pixels, _ in good])
        are_cut_out = np.array([is_cut_out for _, is_cut_out in good])
        how = []
        if not are_cut_out.all():
            on_paper = self._small_ones.on_paper
            how.append("dark on light, inverted" if on_paper else "as they are")
            as_read, small = images, ~are_cut_out
            if on_paper:
                images = np.where(small[:, None, None, None], 255 - as_read, as_read)
            if self.wanted.as_mnist or self._lie_as_mnist:
                others = small & ~are_as_mnist(images)
                if others.any():
                    images[others] = _centred(as_read[others], images[others])
                    are_cut_out |= others
        if are_cut_out.any():
            how.append("found, scaled and centred")
        if len(how) == 2:
            how[1] = f"{are_cut_out.sum():,} of them {how[1]}"
        return Part(images, labels, where, True, (", ".join(["characters", *how]),))

    def _character(self, file: File) -> tuple[np.ndarray, bool] | str:
        """uint8 `[28, 28, 1]`, and whether it was cut out; or what is wrong."""
        from mnist_jax.images import to_mnist

        try:
            image = open_picture(file)
        except ValueError as error:
            return f"{file.where}: {error}"
        grey = as_it_is(image)
        if grey is not None:
            return grey, False
        try:
            return to_mnist(image), True
        except ValueError as error:
            return f"{file.where}: {error}{self._hint}"

    @property
    def _hint(self) -> str:
        if self.wanted.kind == "characters":
            return ""
        return (
            " It was taken for a character; picture_kind (--picture-kind) photographs takes it as "
            "it is."
        )

    @cached_property
    def _photos(self) -> Photos:
        return Photos(self.splits, self.wanted.image_size)

    @cached_property
    def _are_characters(self) -> bool:
        """As most of some pictures look: a few others among them decide nothing."""
        if self.wanted.kind != "auto" or self.wanted.image_size is not None:
            return self.wanted.kind == "characters"
        if self.wanted.name in NOT_CHARACTERS:
            return False
        some = self._some(_SAMPLE)
        images = [image for _, image in _opened(some)]
        others = [image for image in images if as_it_is(image) is None]
        if 2 * len(others) < len(images):
            return self._small_ones_are_characters()
        return not _look_like_photographs(others, [file.path.parent.name for file in some])

    def _small_ones_are_characters(self) -> bool:
        """Of grey pictures of 28 x 28: as names tell; numbers are of digits that look like them."""
        small = self._small_ones
        words = set(small.names)
        numbers = {str(int(word)) if word.isdecimal() else word for word in words}
        name = self.wanted.name
        if name is not None and shape_of(name) == (SIDE, SIDE, 1) and name != "mnist":
            return True
        if not numbers <= set(CLASS_NAMES["mnist"]):
            return all(len(word) == 1 and word.isalnum() for word in words)
        digits = np.array(small.names, int)
        return name == "mnist" or orientation.may_be_digits(small.light, digits)

    @cached_property
    def _lie_as_mnist(self) -> bool:
        """Whether most of the pictures do, once others than grey ones of 28 x 28 are cut out."""
        from mnist_jax.images import are_as_mnist

        small = self._small_ones
        as_mnist = small.others + are_as_mnist(small.light).sum()
        return bool(2 * as_mnist >= small.others + len(small.light))

    @cached_property
    def _small_ones(self) -> _SmallOnes:
        some = [(file, as_it_is(image)) for file, image in _opened(self._some(_SMALL_SAMPLE))]
        small = [(file.path.parent.name, grey) for file, grey in some if grey is not None]
        images = np.array([grey for _, grey in small], np.uint8).reshape(-1, SIDE, SIDE, 1)
        on_paper = are_on_paper(images)
        light = 255 - images if on_paper else images
        return _SmallOnes(light, [name for name, _ in small], on_paper, len(some) - len(small))

    def _some(self, count: int) -> Sequence[File]:
        """At most so many pictures, of all splits."""
        here = [file for pictures in self.splits.values() for file in pictures]
        return here[:: -(-len(here) // count)]


def _opened(some: Sequence[File]) -> Iterator[tuple[File, Image.Image]]:
    """Pictures, large ones maybe reduced, but for those that cannot be read: that is said when all
    are.
    """
    for file in some:
        with suppress(ValueError):
            yield file, open_picture(file, draft=4 * SIDE)


def _centred(images: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    """Characters as MNIST's lie, uint8 `[n, 28, 28, 1]`, or what they are where none is found."""
    from mnist_jax.images import to_mnist

    def centred(image: np.ndarray, blank: np.ndarray) -> np.ndarray:
        try:
            return to_mnist(image)
        except ValueError:
            return blank

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        return np.array(list(threads.map(centred, images, otherwise)), np.uint8)


def are_on_paper(images: np.ndarray) -> bool:
    """Whether most of some characters, uint8 `[n, 28, 28, 1]`, are dark on light."""
    edge = np.ones((SIDE, SIDE), bool)
    edge[1:-1, 1:-1] = False
    borders = np.median(images[:, edge], axis=1)
    return bool(2 * np.sum(borders >= _PAPER) > len(images))


def as_it_is(image: Image.Image) -> np.ndarray | None:
    """The values of a picture of 28 x 28 pixels without colours; None of another."""
    if image.size != (SIDE, SIDE) or image.mode.startswith(("I", "F")):
        return None
    if image.mode == "L" and "transparency" not in image.info:
        return np.asarray(image)[..., None]
    values = np.asarray(image.convert("RGBA"))
    if (values[..., 3] < 255).any() or np.ptp(values[..., :3], axis=-1).any():
        return None
    return values[..., :1]


def _look_like_photographs(images: Sequence[Image.Image], names: Sequence[str]) -> bool:
    """Whether pictures, in folders of such names, show things, which `to_mnist` would take for ink.

    They are not grey ones of 28 x 28, whose looks tell too little.
    """
    looks = []
    for image in images:
        with suppress(ValueError):  # said when all are read
            looks.append(_look(image))
    if not looks:
        return False
    colours, unevenness, ground, tones = np.median(looks, axis=0)
    is_colourful, is_uneven = colours > _COLOURFUL, unevenness > _UNEVEN
    is_shaded = tones < _TWO_TONES and ground < _PLAIN
    if all(len(name) == 1 or name.isdecimal() for name in names):  # as of characters
        return bool(is_uneven and (is_colourful or is_shaded))
    return bool(is_uneven or is_shaded or (is_colourful and ground < _PLAIN))


def _look(image: Image.Image) -> tuple[float, float, float, float]:
    """How colourful a picture is, how uneven its border, what part of it is plain ground, and what
    part of its variance is that between two tones (the largest eta of Otsu 1979, eq. 12).
    """
    from mnist_jax.images import to_photo

    whole = Image.fromarray(to_photo(image, image.height, image.width))
    values = np.asarray(whole.resize((SIDE, SIDE)), np.float32)
    border = np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]])
    near = np.abs(values - np.median(border, axis=0)).max(axis=-1) < _NEAR
    colourful = np.ptp(values, axis=-1).mean() / 255
    uneven = border.mean(axis=-1).std()
    return float(colourful), float(uneven), float(near.mean()), _two_tones(values.mean(axis=-1))


def _two_tones(values: np.ndarray) -> float:
    """What part of values' variance is that between those below and above the best threshold."""
    ordered = np.sort(values, axis=None).astype(float)
    below = np.arange(1, ordered.size)
    sums, above = np.cumsum(ordered), ordered.size - below
    apart = sums[:-1] / below - (sums[-1] - sums[:-1]) / above  # of both means
    between = below * above * (apart / ordered.size) ** 2
    return float(between.max() / max(ordered.var(), 1e-9))
