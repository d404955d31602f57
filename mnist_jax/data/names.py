"""The data sets there are by name, what a loaded one is, and what can be wrong."""

from dataclasses import dataclass
from string import ascii_uppercase, digits
from typing import NamedTuple

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
}
NAMES = ("auto", *CLASS_NAMES)


class DataError(ValueError):
    """A file is missing, damaged, or not what its name says."""


class DataUnavailable(OSError):
    """A data set is not on this machine, and its server cannot be reached."""


class FallbackWarning(UserWarning):
    """`auto` could not get MNIST and gave the embedded subset."""


class DataWarning(UserWarning):
    """Data were read, and something about them looks wrong."""


class Split(NamedTuple):
    """Inputs, as images, uint8 `[n, height, width, channels]`, and their labels, int32 `[n]`."""

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
    characters: bool
