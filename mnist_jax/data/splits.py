"""Labels made into classes; splits made where the files have none; what arrays must be."""

import hashlib
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from mnist_jax.data.files import Part
from mnist_jax.data.names import CLASS_NAMES, DataError, Dataset, DataWarning, Split, class_of
from mnist_jax.words import counted

_MOST_CLASSES = 1000
_MOST_VALIDATION = 5000
_TENTH = 10  # of the training images at most are kept for validation unless asked
_CHUNK = 256  # images looked at together, so that no copy of all is made
_TEST = 5  # one image of so many is for testing where there are no test images


class Statistics(NamedTuple):
    """Of all pixels, of each channel, in [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


def statistics(split: Split) -> Statistics:
    """Mean and standard deviation of each channel of a split's images, pixels from 0 to 1.

    Args:
        split: with images, uint8 `[n, height, width, channels]`, n at least 1.

    Raises:
        TypeError, ValueError: inputs that are no such images.
    """
    images = split.inputs
    if images.dtype != np.uint8:
        raise TypeError(f"images must be uint8, not {images.dtype}.")
    check(images)
    counts = np.zeros((images.shape[-1], 256), np.int64)  # of each value, which loses no digits
    for start in range(0, len(images), _CHUNK):
        for channel, of_values in enumerate(counts):
            chunk = images[start : start + _CHUNK, ..., channel]
            of_values += np.bincount(chunk.ravel(), minlength=256)
    values = np.arange(256) / 255
    total = counts.sum(axis=1)
    mean = counts @ values / total
    var = (counts * (values - mean[:, None]) ** 2).sum(axis=1) / total
    return Statistics(tuple(mean.tolist()), tuple(np.sqrt(var).tolist()))


def check(inputs: np.ndarray, labels: np.ndarray | None = None, num_classes: int = 10) -> None:
    """See that arrays are what training and prediction take: images, or sentences of tokens.

    Raises:
        TypeError: inputs other than uint8, float32 or int32, labels that are no integers.
        ValueError: images, uint8 or float32, other than `[n, height, width, channels]`, none, or
            floats outside [0, 1]; tokens, int32, other than `[n, length]`, none, or below 0; labels
            other than `[n]`, or outside 0 to `num_classes - 1`.
    """
    inputs = np.asarray(inputs)
    if inputs.dtype == np.int32 and inputs.ndim != 4:
        _check_tokens(inputs)
    else:
        _check_images(inputs)
    if labels is None:
        return
    labels = np.asarray(labels)
    if labels.dtype.kind not in "iu":
        raise TypeError(f"labels must be integers, not {labels.dtype}.")
    if labels.shape != inputs.shape[:1]:
        what = "a sentence" if inputs.ndim == 2 else "an image"
        raise ValueError(f"labels must be [{len(inputs)}], one {what}, not {labels.shape}.")
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(
            f"labels must be 0 to {num_classes - 1}, not {labels.min()} to {labels.max()}."
        )


def _check_images(images: np.ndarray) -> None:
    if images.dtype not in (np.uint8, np.float32):
        raise TypeError(f"images must be uint8 or float32, not {images.dtype}.")
    if images.ndim != 4 or 0 in images.shape:
        raise ValueError(f"images must be [n, height, width, channels], not {images.shape}.")
    if images.dtype == np.float32 and not (images.min() >= 0 and images.max() <= 1):  # or NaN
        raise ValueError(f"images must be in [0, 1], not {images.min():g} to {images.max():g}.")


def _check_tokens(tokens: np.ndarray) -> None:
    if tokens.ndim != 2 or 0 in tokens.shape:
        raise ValueError(f"tokens must be [n, length], not {tokens.shape}.")
    if tokens.min() < 0:
        raise ValueError(f"tokens must be at least 0, not {tokens.min()}.")


def fingerprint(dataset: Dataset) -> str:
    """SHA-256 of all images and labels, in hexadecimal: the same split has the same one."""
    digest = hashlib.sha256()
    for split in (dataset.train, dataset.validation, dataset.test):
        for array in split:
            digest.update(repr(array.shape).encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def classify(
    parts: Mapping[str, Part], name: str | None, mapping: Mapping[int, str] | None = None
) -> tuple[dict[str, Split], tuple[str, ...]]:
    """Make labels as files hold them into places among the names of the classes.

    A data set of `NAMES` has its own classes, but for `mnist`, whose name is taken for a folder of
    any kind: there, as without a name, they are those that the labels have, in order.

    Args:
        parts: by split.
        mapping: of labels to names.

    Returns:
        The splits, and the classes' names.

    Raises:
        DataError: labels that the data set does not have, or too many for classes.
    """
    labels = {split: part.labels for split, part in parts.items()}
    if len({array.dtype.kind for array in labels.values()}) > 1:  # words among numbers
        labels = {split: array.astype(str) for split, array in labels.items()}
    naming = _naming(labels, name, mapping)
    place = {label: i for i, label in enumerate(naming)}
    splits = {}
    for split, array in labels.items():
        where = parts[split].where
        kinds, first, inverse = np.unique(array, return_index=True, return_inverse=True)
        for kind, at in zip(kinds.tolist(), first, strict=True):
            if kind not in place and isinstance(kind, int):
                raise DataError(f"{where}: label {kind} at {at} is over {max(naming)}.")
            if kind not in place:
                names = listed(list(naming.values()))
                raise DataError(f"{where}: class {kind!r} is none of {name}'s: {names}.")
        places = np.array([place[kind] for kind in kinds.tolist()], np.int32)
        splits[split] = Split(parts[split].images, places[inverse])
    if len(naming) > _MOST_CLASSES:
        where = next(iter(parts.values())).where
        raise DataError(f"{where}: {len(naming):,} different labels; those are no classes.")
    return splits, tuple(naming.values())


def _naming(
    labels: Mapping[str, np.ndarray], name: str | None, mapping: Mapping[int, str] | None
) -> dict[Any, str]:
    """The name of each label, in the order of the classes; some may have none."""
    kinds = {kind for array in labels.values() for kind in np.unique(array).tolist()}
    if mapping and kinds <= mapping.keys():
        return {label: mapping[label] for label in sorted(mapping)}
    if name is not None:
        first = int(name == "emnist/letters" and 0 not in kinds)  # whose labels are 1 to 26
        numbers = dict(enumerate(CLASS_NAMES[name], start=first))
        words = {word: word for word in CLASS_NAMES[name]}
        known: dict[Any, str] = numbers if all(isinstance(k, int) for k in kinds) else words
        if kinds <= known.keys() or name != "mnist":
            return known
    digits = dict(enumerate(CLASS_NAMES["mnist"]))
    over = [array[array > max(digits)] for array in labels.values() if array.dtype.kind == "i"]
    if sum(map(len, over)) == 1:  # a label that one image alone has is damage
        return digits
    return {kind: str(kind) for kind in sorted(kinds, key=natural)}


def natural(kind: Any) -> tuple[Any, ...]:
    """For sorting: whole numbers inside words by their value."""
    parts = re.split(r"(\d+)", str(kind).lower())
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], str(kind)


def listed(words: Sequence[str]) -> str:
    """For messages: the words, or the first and the last of many."""
    return ", ".join(words if len(words) <= 12 else [*words[:10], "...", words[-1]])


def see_classes(
    splits: Mapping[str, Split], class_names: Sequence[str], place: str, what: str = "image"
) -> None:
    """See that there are classes to learn, and that they are those tested.

    Args:
        what: an input is, for messages.

    Raises:
        DataError: one class alone, or test inputs of other classes altogether.
    """
    if len(class_names) < 2:
        hint = "\nPictures must lie in a folder a class." if what == "image" else ""
        raise DataError(f"{place}: all {what}s are of one class, {class_names[0]}.{hint}")
    train = set(np.unique(splits["train"].labels).tolist())
    for split in splits.keys() & {"validation", "test"}:
        here = set(np.unique(splits[split].labels).tolist())
        strange = [class_names[i] for i in sorted(here - train)]
        message = f"{place}: no training {what} is of the {split} classes {listed(strange)}."
        if strange and len(strange) == len(here):
            raise DataError(message)
        if strange:
            warnings.warn(message, DataWarning, stacklevel=4)


def cut(
    splits: Mapping[str, Split],
    validation: int | None,
    class_names: Sequence[str],
    place: str,
    what: str = "image",
) -> tuple[Split, Split, Split, tuple[str, ...]]:
    """Training, validation and test images out of the splits that there are.

    Test images that are missing are taken from the training images, a fifth, and validation images
    as `load` says. Where the images lie in order of their classes, or the test images are missing,
    the classes take turns first, so that any stretch is balanced.

    Args:
        place: where the inputs were found, for messages.
        what: an input is, for messages.

    Returns:
        The three, and in words what was done.

    Raises:
        DataError: too few images of a class to take some of them for testing.
        ValueError: `validation` below 0 or beyond the training images.
    """
    train, notes = splits["train"], []
    if "test" not in splits:
        count, n = len(train.labels) // _TEST, len(train.labels)
        mixed = take_turns(train)
        if count == 0 or _lost(mixed.labels, count):
            raise DataError(_too_few(train.labels, class_names, place, what))
        test, train = _part(mixed, 0, count), _part(mixed, count, None)
        notes.append(f"without test {what}s: {count:,} of {n:,} are, of all classes alike")
    else:
        test = splits["test"]
        train = take_turns(train) if is_sorted(train.labels) else train
    own = splits.get("validation")
    if own is not None:
        images, labels = zip(own, train, strict=True)
        train = Split(np.concatenate(images), np.concatenate(labels))
    n = len(train.labels)
    kept = min(_MOST_VALIDATION, n // _TENTH) if own is None else len(own.labels)
    kept = kept if validation is None else validation
    if not 0 <= kept < n:
        raise ValueError(
            f"validation must be from 0 to {n - 1}, one less than the training {what}s, not {kept}."
        )
    lost = [class_names[i] for i in _lost(train.labels, kept)]
    if lost:
        warnings.warn(
            f"{place}: all training {what}s of {listed(lost)} are kept for validation; with "
            "--validation 0 (validation=0) none are.",
            DataWarning,
            stacklevel=4,
        )
    return _part(train, kept, None), _part(train, 0, kept), test, tuple(notes)


def _lost(labels: np.ndarray, count: int) -> list[int]:
    """Of which classes nothing is left without the first labels."""
    return sorted(set(np.unique(labels).tolist()) - set(np.unique(labels[count:]).tolist()))


def _too_few(labels: np.ndarray, class_names: Sequence[str], place: str, what: str) -> str:
    counts = np.bincount(labels).tolist()
    few = [f"{class_names[i]} has {n}" for i, n in enumerate(counts) if 0 < n < _TEST]
    how = ": train/CLASS and test/CLASS" if what == "image" else ""
    return (
        f"{place}: a class needs at least {counted(_TEST, what)}, of which one is for testing; "
        f"{listed(few)}.\nAdd {what}s, or put those for testing apart{how}."
    )


def _part(split: Split, start: int, stop: int | None) -> Split:
    return Split(split.inputs[start:stop], split.labels[start:stop])


def is_sorted(labels: np.ndarray) -> bool:
    """Whether a class follows on another less than half as often as by chance."""
    changes = np.count_nonzero(np.diff(labels))
    shares = np.bincount(labels) / len(labels)
    return bool(changes < 0.5 * (1 - (shares**2).sum()) * (len(labels) - 1))


def take_turns(split: Split, seed: int = 0) -> Split:
    """Shuffle, and spread each class evenly from the first image to the last."""
    order = np.random.default_rng(seed).permutation(len(split.labels))
    labels = split.labels[order]
    by_class = np.argsort(labels, kind="stable")
    counts = np.bincount(labels)
    first = np.cumsum(counts) - counts
    place = np.empty(len(labels))  # among those of its class, from 0 to 1
    of = labels[by_class]
    place[by_class] = (np.arange(len(labels)) - first[of] + 0.5) / counts[of]
    order = order[np.argsort(place, kind="stable")]
    return Split(split.inputs[order], split.labels[order])


def translate(dataset: Dataset, class_names: Sequence[str], what: str = "image") -> Dataset:
    """The same data set with labels that are places among other names of classes.

    Args:
        what: an input is, for messages.

    Raises:
        ValueError: an image is of a class that is not among them.
    """
    place = {name: i for i, name in enumerate(class_names)}
    splits = (dataset.train, dataset.validation, dataset.test)
    used = sorted({i for split in splits for i in np.unique(split.labels).tolist()})
    meant = [class_of(name, class_names) for name in dataset.class_names]
    strange = [dataset.class_names[i] for i in used if meant[i] is None]
    if strange:
        raise ValueError(
            f"{dataset.name} has {what}s of {listed(strange)}, which are not among the classes "
            f"{listed(class_names)}."
        )
    places = np.array([place.get(name or "", -1) for name in meant], np.int32)
    train, validation, test = (Split(s.inputs, places[s.labels]) for s in splits)
    return replace(
        dataset, train=train, validation=validation, test=test, class_names=tuple(class_names)
    )
