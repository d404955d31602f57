"""Whether digits stand upright or are transposed, as EMNIST's files have them."""

from typing import NamedTuple

import numpy as np
from PIL import Image

_SAMPLE = 200  # images looked at
_SIDE = 7  # pixels a digit's box is averaged down to
_INK = 0.3  # of the brightest pixel
_LEAST = 40  # images to tell anything from
# Digits that are no others' transposes are recognised at this rate by the means below: upright ones
# at 0.7 and more, whatever their size and place; anything else at 0.35 at most.
_RECOGNISED = 0.5
# A line a digit: the mean of its 500 in mnist5k, as `_box` has them, row by row.
_MEANS = """
01104784935b160946909d9797422683793729856850953b07107e6c71851a062e944b69a14d59957316228bbba55f1701
000212425a35030002156c7f200101021ba96a0600010232d13a0100000561b41a0000011d80711202000437624d140201
0d30617d6a380e193d57676e5424080e1c365a4d2103102e57634b141f5a8a97804d1a5b969f9d8767323c7c734d3d3d1b
0c377ba7a1631b0a213248727628010d4187a1580c0118699ea4650f060b1722537d24284425337175211b74abb07e3007
041a35181c4d240c4a5f1c43711a1f845a327c640e349b898aaa6014225c6f8e8a420a061434554c280703112a38302108
041e45636d64390d4576735a42251c6e88553010021867856f552a06151d314b523b0f475550565c350d23647f71451503
01092352632402031d55783a07010b3d7b47120b03166279414f3d0e1f817c7f8a711c1d92967d846e120856b6b77b2103
155f919ca084201d5d58456f92270c1a0f1f7b6716050d175889480d020633746526040119505941120208313c392b0c02
032069a29f5a160f517a486175240e4485788a460c062ca3c97116040b51958a5b1b06277262625327071f6c9a814a1502
011670ada751070a637d2e66730e117a696aab5e090b456f899f39050313366f682a04010e3b513f2405032038372d1e06
"""


class Look(NamedTuple):
    """What part of some digits is recognised as they are, and with rows and columns exchanged.

    The mean of the classes' parts, and how much there must be for them to be digits.
    """

    upright: float
    transposed: float
    needed: float = _RECOGNISED

    @property
    def are_digits(self) -> bool:
        """Whether these are the digits their labels say, one way or the other."""
        return max(self.upright, self.transposed) > self.needed

    @property
    def are_transposed(self) -> bool:
        """Whether they are digits once rows and columns are exchanged, and not before."""
        return self.transposed > self.needed and self.transposed > 2 * self.upright


def look(images: np.ndarray, digits: np.ndarray) -> Look:
    """Recognise digits by the nearest of ten means, as they are and transposed.

    Args:
        images: uint8 `[n, 28, 28, 1]`, light on dark.
        digits: which digit each shows, `[n]`.

    Returns:
        Rates of 0 where there are fewer than 40.
    """
    if len(images) < _LEAST:
        return Look(0.0, 0.0)
    some = np.linspace(0, len(images) - 1, min(len(images), _SAMPLE)).astype(int)
    boxes, digits = np.stack([_box(image) for image in images[some, ..., 0]]), digits[some]
    kinds, means = np.unique(digits), _centred(_means())
    rates = []
    for turned in (boxes, boxes.transpose(0, 2, 1)):
        right = (_centred(turned) @ means.T).argmax(axis=1) == digits
        rates.append(float(np.mean([right[digits == kind].mean() for kind in kinds])))
    # Where all look the same, one class of two is recognised.
    return Look(rates[0], rates[1], max(_RECOGNISED, 1.5 / len(kinds)))


def may_be_digits(images: np.ndarray, digits: np.ndarray) -> bool:
    """Whether these look like the digits of their labels, or are too few to tell; as of `look`."""
    return len(images) < _LEAST or look(images, digits).are_digits


def _means() -> np.ndarray:
    """Each digit's mean box, float32 `[10, 7, 7]`."""
    values = np.frombuffer(bytes.fromhex(_MEANS), np.uint8)
    return values.astype(np.float32).reshape(10, _SIDE, _SIDE)


def _box(image: np.ndarray) -> np.ndarray:
    """The square around a digit's ink, averaged down: float32 `[7, 7]`."""
    ink = image >= _INK * max(image.max(), 1)
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    if not len(rows):
        return np.zeros((_SIDE, _SIDE), np.float32)
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    reach, middle = max(bottom - top, right - left) / 2, ((left + right) / 2, (top + bottom) / 2)
    side = image.shape[0]  # of the margin that the square may reach into
    (x, y), padded = middle, np.pad(image, side)
    square = (x + side - reach, y + side - reach, x + side + reach, y + side + reach)
    small = Image.fromarray(padded).resize((_SIDE, _SIDE), Image.Resampling.BOX, square)
    return np.asarray(small, np.float32)


def _centred(boxes: np.ndarray) -> np.ndarray:
    """As rows of mean 0 and length 1, `[n, 49]`."""
    rows = boxes.reshape(len(boxes), -1)
    rows = rows - rows.mean(axis=1, keepdims=True)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)
