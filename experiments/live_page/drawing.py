"""A drawing or photo to what the members say of it."""

import base64
import io
import math
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax import Array
from PIL import Image
from scipy import ndimage

from experiments.console import pictures
from experiments.live_page import answers
from experiments.workdir.trained import Member
from mnist_jax import images, training
from mnist_jax.images import Digit

_MOST_DIGITS = 12
_MOST_PIXELS = 40_000_000
_LARGEST_CANVAS = 1000  # pixels a side
_FAINT, _INK = 0.02, 0.3  # of black
Box = tuple[int, int, int, int]  # left, top, right, bottom
_FOUND = 0.3  # a mark found less surely than this may be no digit, as for `predict`


def read(content: bytes, characters: bool, image_shape: tuple[int, ...]) -> list[Digit]:
    """A picture's digits or, for networks of other things, the picture as one image.

    Args:
        content: of a file of any kind that Pillow reads.
        characters, image_shape: what the networks were trained on.

    Raises:
        ValueError: with the reason, for what cannot be read, is too large, or shows nothing.
    """
    try:
        size = Image.open(io.BytesIO(content)).size
    except Exception:  # `pictures.read` says what is wrong
        size = (0, 0)
    if size[0] * size[1] > _MOST_PIXELS:
        raise ValueError(f"too large: {size[0]:,} x {size[1]:,} pixels.")
    picture = next(pictures.frames(pictures.read(io.BytesIO(content))))
    if characters:
        return images.find_digits(picture)[:_MOST_DIGITS]
    height, width, channels = image_shape
    image = images.to_photo(picture, height, width, channels)
    return [Digit(image, (0, 0, *picture.size), 1.0)]


def of_strokes(content: bytes, characters: bool, image_shape: tuple[int, ...]) -> list[Digit]:
    """What was drawn with the page's pen, black on a white square with nothing else on it.

    This takes milliseconds, where what finds digits on photos takes its time. Strokes that touch,
    or lie above each other, are one digit; digits come from left to right, line by line.

    Raises:
        ValueError: as `read`.
    """
    picture = pictures.read(io.BytesIO(content))
    if max(picture.size) > _LARGEST_CANVAS:
        raise ValueError(f"a drawing of more than {_LARGEST_CANVAS} pixels a side.")
    if not characters:
        return read(content, characters, image_shape)
    ink = 1 - np.asarray(picture.convert("L"), np.float32) / 255
    boxes = _boxes(ink > _INK)
    if not boxes:
        raise ValueError("nothing is drawn.")
    digits = []
    for left, top, right, bottom in boxes[:_MOST_DIGITS]:
        image = images.of_ink(np.where(ink > _FAINT, ink, 0)[top:bottom, left:right])
        digits.append(Digit(image, (left, top, right, bottom), 1.0))
    return digits


def _boxes(drawn: np.ndarray) -> list[Box]:
    """Left, top, right and bottom of each digit."""
    labels, _ = ndimage.label(drawn, np.ones((3, 3)))
    boxes = [
        (columns.start, rows.start, columns.stop, rows.stop)
        for rows, columns in ndimage.find_objects(labels)
    ]
    while True:
        pair = next(
            (
                (one, other)
                for i, one in enumerate(boxes)
                for other in boxes[i + 1 :]
                if _belong_together(one, other)
            ),
            None,
        )
        if pair is None:
            return sorted(boxes, key=partial(_place_in_text, max(map(_height, boxes), default=1)))
        boxes = [box for box in boxes if box not in pair]
        (a, b, c, d), (e, f, g, h) = pair
        boxes.append((min(a, e), min(b, f), max(c, g), max(d, h)))


def _belong_together(one: Box, other: Box) -> bool:
    """Whether a good part of the narrower is above or below the other, and not far from it."""
    (left, top, right, bottom), (left2, top2, right2, bottom2) = one, other
    shared = min(right, right2) - max(left, left2)
    apart = max(top, top2) - min(bottom, bottom2)
    narrower = min(right - left, right2 - left2)
    lower = min(_height(one), _height(other))
    higher = max(_height(one), _height(other))
    is_part = lower < 0.6 * higher  # two digits of one size above each other are two lines
    return shared > 0.4 * narrower and apart < 0.4 * higher and (is_part or apart < 0)


def _height(box: Box) -> int:
    return box[3] - box[1]


def _place_in_text(line: int, box: Box) -> tuple[int, int]:
    left, top, _, bottom = box
    return (top + bottom) // 2 // max(line, 1), left


def describe(
    members: Sequence[Member],
    digits: Sequence[Digit],
    class_names: Sequence[str],
    unsure_above: float | None,
) -> list[dict[str, Any]]:
    """What the members say of each digit, as JSON can hold it; variables are looked at as given."""
    if not digits:
        return []
    logits = predict(members, np.stack([digit.image for digit in digits]))
    combined = answers.combine(logits)
    rows = []
    for i, digit in enumerate(digits):
        entropy = float(combined.entropy[i])
        votes = combined.probabilities[:, i].argmax(axis=-1)
        reasons = []
        if unsure_above is not None and entropy > unsure_above:
            reasons.append("the entropy is above what 95 % of right validation answers have")
        if unsure_above is None and entropy > 0.5 * math.log(len(class_names)):
            reasons.append("the entropy is above half of a mere guess's")
        if digit.found < _FOUND:
            reasons.append("it may be no digit, or not all of one")
        rows.append(
            {
                "pixels": base64.b64encode(digit.image.tobytes()).decode(),
                "shape": list(digit.image.shape),
                "box": list(digit.box),
                "found": round(float(digit.found), 3),
                "class": class_names[combined.mean[i].argmax()],
                "mean": _rounded(combined.mean[i]),
                "entropy": entropy,
                "mutual_information": float(combined.mutual_information[i]),
                "unsure": bool(reasons),
                "reasons": reasons,
                "members": [
                    {
                        "name": member.name,
                        "vote": class_names[vote],
                        "probabilities": _rounded(combined.probabilities[m, i]),
                    }
                    for m, (member, vote) in enumerate(zip(members, votes, strict=True))
                ],
            }
        )
    return rows


def predict(members: Sequence[Member], inputs: np.ndarray) -> np.ndarray:
    """Logits of members with their own networks, float32 `[members, n, classes]`.

    One image at a time, by a program for one image; members that lie on different devices are
    computed at the same time.
    """
    begun = [
        [_program(member.network)(member.variables, image) for image in inputs]
        for member in members
    ]
    return np.array([[np.asarray(logits) for logits in of_member] for of_member in begun])


@lru_cache(maxsize=16)
def _program(network: nn.Module) -> Callable[[Any, np.ndarray], Array]:
    @jax.jit
    def one(variables: Any, image: Array) -> Array:
        return training.apply(network, variables, training.to_float(image)[None])[0]

    return one


def _rounded(probabilities: np.ndarray) -> list[float]:
    return [round(float(probability), 5) for probability in probabilities]
