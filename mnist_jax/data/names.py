"""The data sets there are by name, what a loaded one is, and what can be wrong."""

from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_uppercase, digits
from typing import Literal, NamedTuple

import numpy as np

_DIGITS = tuple(digits)
_CLOTHES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
# EMNIST's classes: Cohen et al. 2017, "EMNIST: an extension of MNIST to handwritten letters". Where
# capital and small letters are one class, it has the capital's name, as in EMNIST's mapping files.
_BYCLASS = (*_DIGITS, *ascii_uppercase, *ascii_uppercase.lower())
_BYMERGE = (*_DIGITS, *ascii_uppercase, *"abdefghnqrt")
# The order of the labels is that of cifar-10-batches-bin/batches.meta.txt.
_CIFAR10 = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
# The 100 fine classes, in the order of cifar-100-binary/fine_label_names.txt.
_CIFAR100 = tuple(
    """apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus
    butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab
    crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard
    lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom
    oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
    possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake
    spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor
    train trout tulip turtle wardrobe whale willow_tree wolf woman worm""".split()  # noqa: SIM905
)
# Imagenette's folders are named by ImageNet's synsets; its classes in words, in TFDS's order.
SYNSETS = {
    "n01440764": "tench",
    "n02102040": "English springer",
    "n02979186": "cassette player",
    "n03000684": "chain saw",
    "n03028079": "church",
    "n03394916": "French horn",
    "n03417042": "garbage truck",
    "n03425413": "gas pump",
    "n03445777": "golf ball",
    "n03888257": "parachute",
}
CLASS_NAMES: dict[str, tuple[str, ...]] = {
    "mnist": _DIGITS,
    "fashion_mnist": _CLOTHES,
    "kmnist": ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
    "qmnist": _DIGITS,
    "emnist/byclass": _BYCLASS,
    "emnist/bymerge": _BYMERGE,
    "emnist/balanced": _BYMERGE,
    "emnist/letters": tuple(ascii_uppercase),
    "emnist/digits": _DIGITS,
    "emnist/mnist": _DIGITS,
    "mnist5k": _DIGITS,
    "cifar10": _CIFAR10,
    "cifar100": _CIFAR100,
    "imagenette/160px-v2": tuple(SYNSETS.values()),
    "imagenette/320px-v2": tuple(SYNSETS.values()),
}
NAMES = ("auto", *CLASS_NAMES)
NOT_CHARACTERS = ("fashion_mnist", "kmnist")  # of 28 x 28
GAMES = ("auto", "games9x9")  # of Go
PictureKind = Literal["auto", "characters", "photographs"]  # what pictures in folders show
PACKAGED = ("mnist5k", "opinions", "games9x9")  # there without a folder and a download


def shape_of(name: str) -> tuple[int, int, int] | None:
    """Height, width and channels of a data set's images; None where they have no one size."""
    if name.startswith("cifar"):
        return 32, 32, 3
    return None if name.startswith("imagenette/") else (28, 28, 1)


def class_of(folder: str, class_names: Sequence[str]) -> str | None:
    """The class that a folder's name tells: itself, `07` 7, ImageNet's number of a word, or, of the
    classes of a data set that has words for them, their number there.
    """
    if folder in class_names:
        return folder
    if not folder.isdecimal():
        return SYNSETS[folder] if SYNSETS.get(folder) in class_names else None
    number = int(folder)
    if str(number) in class_names:
        return str(number)
    of_words = [CLASS_NAMES[name] for name in (*NOT_CHARACTERS, "cifar10", "cifar100")]
    is_place = tuple(class_names) in of_words and number < len(class_names)
    return class_names[number] if is_place else None


class DataError(ValueError):
    """A file is missing, damaged, or not what its name says."""


class NoPictures(ValueError):
    """What is said of pictures in folders is said of other data."""


class DataUnavailable(OSError):
    """A data set is not on this machine, and its server cannot be reached."""


class FallbackWarning(UserWarning):
    """`auto` could not get MNIST and gave the embedded subset."""


class DataWarning(UserWarning):
    """Data were read, and something about them looks wrong."""


class Split(NamedTuple):
    """Inputs, such as images, uint8 `[n, height, width, channels]`, and labels, int32 `[n]`."""

    inputs: np.ndarray
    labels: np.ndarray

    @property
    def images(self) -> np.ndarray:
        """The inputs, where they are images."""
        return self.inputs


@dataclass(frozen=True)
class Dataset:
    """Three splits, the names of the classes, and where the files were found."""

    name: str
    train: Split
    validation: Split
    test: Split
    class_names: tuple[str, ...]
    source: str
    # Whether the images are single characters, such as `images.to_mnist` makes of pictures.
    # Others are what `images.to_photo` makes of pictures.
    characters: bool
