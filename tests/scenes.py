"""Pictures of digits as people have them, with where the digits are; all of MNIST's own digits."""

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

Box = tuple[int, int, int, int]  # left, top, right, bottom


class Scene(NamedTuple):
    """A picture, uint8 `[height, width, 3]`, and its digits' boxes in reading order."""

    picture: np.ndarray
    boxes: list[Box]


def ink(digit: np.ndarray, height: int) -> np.ndarray:
    """How much of each pixel a digit's strokes cover, 0 to 1, cut to their box."""
    scale = height / 20
    large = ndimage.zoom(np.pad(digit / 255.0, 2), scale, order=1)
    soft = ndimage.gaussian_filter(large, 0.4 * scale)
    covered = np.clip((soft - 0.45) * 0.8 * scale + 0.5, 0, 1)
    rows, columns = np.nonzero(covered > 0.4)
    return covered[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]


def draw(
    paper: np.ndarray, strokes: np.ndarray, place: tuple[int, int], colour: object
) -> tuple[np.ndarray, Box]:
    """Put ink on a float picture `[height, width, 3]`; gives the new picture and the box."""
    top, left = place
    height, width = strokes.shape
    picture = paper.copy()
    part = picture[top : top + height, left : left + width]
    part += strokes[..., None] * (np.asarray(colour, float) - part)
    return picture, (left, top, left + width, top + height)


def _paper(height: int, width: int, colour: object = (245, 243, 238)) -> np.ndarray:
    return np.full((height, width, 3), np.asarray(colour), float)


def _noisy(picture: np.ndarray, deviation: float = 2) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, deviation, picture.shape)
    return np.clip(np.rint(picture + noise), 0, 255).astype(np.uint8)


def _lines(picture: np.ndarray, lines: list[tuple[float, ...]], width: int, colour: object) -> None:
    image = Image.new("L", picture.shape[1::-1])
    for line in lines:
        ImageDraw.Draw(image).line(line, fill=255, width=width)
    picture[np.asarray(image) > 0] = colour


def _one(paper: np.ndarray, digit: np.ndarray, height: int, colour: object = (30, 30, 40)) -> Scene:
    strokes = ink(digit, height)
    place = (len(paper) - strokes.shape[0]) // 2, (paper.shape[1] - strokes.shape[1]) // 2
    picture, box = draw(paper, strokes, place, colour)
    return Scene(picture, [box])


def cropped_to_the_ink(digit: np.ndarray) -> Scene:
    strokes = ink(digit, 90)
    height, width = strokes.shape
    return Scene(_noisy(_one(_paper(height, width), digit, 90).picture), [(0, 0, width, height)])


def thick_and_cropped(digit: np.ndarray) -> Scene:
    thick = ndimage.grey_dilation(digit, footprint=np.ones((2, 2)))
    return cropped_to_the_ink(thick)


def blurred_and_filling(digit: np.ndarray) -> Scene:
    height, width = ink(digit, 80).shape
    scene = _one(_paper(height + 8, width + 8, (150, 146, 138)), digit, 80, (112, 112, 135))
    return Scene(_noisy(ndimage.gaussian_filter(scene.picture, (2, 2, 0)), 1), scene.boxes)


def weak_contrast(digit: np.ndarray) -> Scene:
    scene = _one(_paper(220, 220, 200), digit, 150, 185)
    return Scene(_noisy(scene.picture, 2.5), scene.boxes)


def colour_alone(digit: np.ndarray) -> Scene:
    scene = _one(_paper(200, 220, (0, 120, 0)), digit, 130, (203, 20, 20))  # as bright: 70 and 75
    return Scene(_noisy(scene.picture), scene.boxes)


def hard_shadow(digit: np.ndarray) -> Scene:
    picture, boxes = _one(_paper(200, 240), digit, 110)
    rows, columns = np.indices(picture.shape[:2])
    picture[rows + 0.6 * columns > 190] *= 0.55
    return Scene(_noisy(picture), boxes)


def paper_on_a_table(digit: np.ndarray) -> Scene:
    sheet = _one(_paper(180, 150), digit, 80)
    table = _paper(300, 360, (90, 60, 40))
    table[60:240, 110:260] = sheet.picture
    boxes = [
        (left + 110, top + 60, right + 110, bottom + 60) for left, top, right, bottom in sheet.boxes
    ]
    return Scene(_noisy(table, 4), boxes)


def in_a_table_s_cell(digit: np.ndarray) -> Scene:
    picture, boxes = _one(_paper(170, 210), digit, 80, 90)
    lines = [(12, 0, 14, 170), (196, 0, 195, 170), (0, 13, 210, 11), (0, 158, 210, 160)]
    _lines(picture, lines, 4, 25)
    return Scene(_noisy(picture), boxes)


def in_a_box(digit: np.ndarray) -> Scene:
    picture, boxes = _one(_paper(220, 240), digit, 100)
    corners = [(50, 30), (190, 33), (188, 190), (52, 188), (50, 30)]
    _lines(picture, [(*a, *b) for a, b in pairwise(corners)], 3, 30)
    return Scene(_noisy(picture), boxes)


def underlined(digit: np.ndarray) -> Scene:
    picture, boxes = _one(_paper(220, 220), digit, 100)
    _lines(picture, [(50, 182, 175, 179)], 4, 30)
    return Scene(_noisy(picture), boxes)


def on_ruled_paper(digit: np.ndarray) -> Scene:
    picture = _paper(240, 260)
    _lines(picture, [(0, y, 260, y + 3) for y in range(20, 240, 34)], 1, (170, 180, 210))
    scene = _one(picture, digit, 110)
    return Scene(_noisy(scene.picture), scene.boxes)


def below_a_title_bar(digit: np.ndarray) -> Scene:
    picture, boxes = _one(_paper(240, 220, 255), digit, 100, 0)
    picture[:22] = (30, 80, 160)
    picture[:, [0, -1]] = picture[-1] = 130
    return Scene(_noisy(picture, 0.5), boxes)


def beside_another_s_stroke(digit: np.ndarray) -> Scene:
    picture, boxes = _one(_paper(150, 130), digit, 80)
    strokes = ink(digit, 80)[:9]
    picture, _ = draw(picture, strokes, (141, 40), (30, 30, 40))
    return Scene(_noisy(picture), boxes)


KINDS: list[Callable[[np.ndarray], Scene]] = [
    *(cropped_to_the_ink, thick_and_cropped, blurred_and_filling, weak_contrast, colour_alone),
    *(hard_shadow, paper_on_a_table, in_a_table_s_cell, in_a_box, underlined, on_ruled_paper),
    *(below_a_title_bar, beside_another_s_stroke),
]


def row(digits: list[np.ndarray], height: int = 80, gap: int = 20) -> Scene:
    """Digits side by side."""
    parts = [ink(digit, height) for digit in digits]
    width = sum(part.shape[1] + gap for part in parts) + 2 * gap
    picture, boxes, left = _paper(2 * height, width), [], 2 * gap
    for i, part in enumerate(parts):
        picture, box = draw(picture, part, (height // 2 + 6 * (i % 2), left), (20, 20, 90))
        boxes.append(box)
        left += part.shape[1] + gap
    return Scene(_noisy(picture), boxes)


def page(digits: list[np.ndarray], columns: int = 3) -> Scene:
    """Digits scattered in lines, far apart, over a page with print showing through."""
    picture, boxes = _paper(700, 1000), []
    for y in range(20, 700, 30):
        for x in range(500, 980, 16):
            picture[y : y + 14, x : x + 9 : 3] -= 18
    for i, digit in enumerate(digits):
        line, column = divmod(i, columns)
        place = 90 + 200 * line + 23 * (column % 2), 120 + 290 * column + 31 * (line % 2)
        picture, box = draw(picture, ink(digit, 62), place, (60, 60, 150))
        boxes.append(box)
    return Scene(_noisy(picture), boxes)


def form(digits: list[np.ndarray], apart: bool) -> Scene:
    """A box for each digit in a row: apart from each other, or with common sides."""
    width, gap = 70, 12 if apart else 0
    paper = _paper(120, 40 + len(digits) * (width + gap))
    boxes = []
    for i, digit in enumerate(digits):
        left = 20 + i * (width + gap)
        frame = [left, 15, left + width, 105]
        image = Image.new("L", paper.shape[1::-1])
        ImageDraw.Draw(image).rectangle(frame, outline=255, width=2)
        paper[np.asarray(image) > 0] = 60
        strokes = ink(digit, 50)
        place = 35, left + (width - strokes.shape[1]) // 2
        paper, box = draw(paper, strokes, place, (20, 20, 110))
        boxes.append(box)
    return Scene(_noisy(paper), boxes)


def face() -> np.ndarray:
    """A circle with eyes and a mouth, uint8 `[200, 200]`."""
    image = Image.new("L", (200, 200), "white")
    pen = ImageDraw.Draw(image)
    pen.ellipse((30, 30, 170, 170), outline="black", width=7)
    pen.ellipse((70, 75, 85, 90), fill="black")
    pen.ellipse((115, 75, 130, 90), fill="black")
    pen.arc((65, 70, 135, 140), 20, 160, fill="black", width=7)
    return np.asarray(image)


def barcode() -> np.ndarray:
    """Bars and gaps of chance widths, uint8 `[150, 220]`."""
    bars = np.repeat(np.random.default_rng(0).random(40) < 0.5, 4)
    return np.where(np.pad(np.tile(bars, (90, 1)), 30), 0, 255).astype(np.uint8)
