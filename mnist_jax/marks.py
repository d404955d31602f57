"""Finding what is written on a picture: marks that may be digits, apart from all else on it.

A picture is looked at in several ways: in grey and along the colour in which it varies most; for
dark ink and for light; against a background that is smooth, or whatever is wider than a stroke
(a closing, Serra 1982), as shadows, tables and bars are. Each way gives marks, and the way whose
marks are most like writing counts.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy import ndimage

_GREY = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
_FAINTEST = 0.025  # contrast of ink with its background; black to white is 1
_NOISE_LEVELS = 6.0  # ink stands out of the noise by so many standard deviations
_SMOOTHING = (0.7, 1.5, 3.0)  # pixels; more where noise hides what is written
_WINDOWS = (0.12, 0.35)  # of the longer side: what is wider belongs to the background
_EDGE = 0.35  # a stroke ends where it has so much of its full contrast
_MOST = 200  # connected parts of writing and its surroundings
_SIDE_TO_SIDE = 0.9  # of the picture's width that a line covers
_DARKEST = 0.3  # of a picture's usual light, a shadow
_EIGHT = np.ones((3, 3), bool)
_ENOUGH = 0.5  # a way of looking this good needs no stronger smoothing
_LEAST = 0.15  # and one this bad found nothing
_NEARLY = 0.8  # as good as another
SAME = 0.5  # of their joint box that two marks share, to be the same one

Box = tuple[float, float, float, float]  # top, bottom, left, right, in pixels


class Mark(NamedTuple):
    """Something written that may be a digit."""

    ink: np.ndarray  # float32 [height, width] of the box, 0 to 1
    box: tuple[int, int, int, int]  # top, bottom, left, right, in pixels
    quality: float  # how much it is like writing, 0 to 1


class _Part(NamedTuple):
    """A connected part of what stands out."""

    rows: slice
    columns: slice
    mask: np.ndarray  # bool, of the part's box
    area: int
    sides: tuple[bool, bool, bool, bool]  # of the picture that it touches, as in `Mark.box`
    contrast: float

    @property
    def height(self) -> int:
        return self.rows.stop - self.rows.start

    @property
    def width(self) -> int:
        return self.columns.stop - self.columns.start

    @property
    def size(self) -> int:
        return max(self.height, self.width)


class _Look(NamedTuple):
    """What one way of looking at a picture found."""

    quality: float
    edges: float  # the part of the picture's edges that what stands out has
    marks: list[Mark]


def find(picture: np.ndarray) -> list[Mark]:
    """All marks that may be digits, in reading order.

    Args:
        picture: float32 `[height, width, 3]` in [0, 1], at most some 1,000 pixels a side.

    Returns:
        None of them where nothing stands out.
    """
    looks = [_look_at(picture), *_on_sheets(picture)]
    # One of many boxes with something written in each is easily the clearest.
    looks = [look for look in looks if not any(_has_more(other, look) for other in looks)]
    best = max(looks, key=lambda look: look.quality)
    return _in_reading_order(best.marks)


def _has_more(look: _Look, other: _Look) -> bool:
    """Whether a look is nearly as good as another, and found all of its marks, and more."""
    return (
        look.quality > _NEARLY * other.quality
        and len(look.marks) > len(other.marks)
        and all(any(shared(mark.box, own.box) > SAME for own in look.marks) for mark in other.marks)
    )


def shared(one: Box, other: Box) -> float:
    """Of two boxes, the common part of what they cover together (Jaccard 1912)."""
    down = min(one[1], other[1]) - max(one[0], other[0])
    across = min(one[3], other[3]) - max(one[2], other[2])
    common = max(down, 0) * max(across, 0)
    areas = [(bottom - top) * (right - left) for top, bottom, left, right in (one, other)]
    return common / max(sum(areas) - common, 1e-9)


def _look_at(picture: np.ndarray) -> _Look:
    """The best of all ways of looking."""
    best = _Look(_LEAST, 0.0, [])
    for smoothing in _SMOOTHING:
        looks = [_look(*way) for way in _contrasts(picture, smoothing)]
        # Of writing and the paper between its strokes, writing is what has all the edges.
        most = max(max(look.edges for look in looks), 1e-9)  # 0 in a gradient
        rated = [
            look._replace(quality=look.quality * look.edges / most) for look in looks if look.marks
        ]
        best = max([best, *rated], key=lambda look: look.quality)
        if best.quality > _ENOUGH:
            break
    return best


def _on_sheets(picture: np.ndarray) -> Iterator[_Look]:
    """What is written on a sheet, a card or a screen that lies on something else, or in a box."""
    grey = picture @ _GREY
    smooth = ndimage.gaussian_filter(grey, 1.0)
    level = _otsu(smooth)
    for mask in (smooth > level, smooth <= level):
        labels, count = ndimage.label(mask)
        areas = np.bincount(labels.ravel(), minlength=count + 1)[1:]
        for i in np.argsort(-areas)[:2]:
            sheet = ndimage.binary_fill_holes(labels == i + 1)
            if not 0.08 < sheet.mean() < 0.95 or not _is_rectangle(sheet):
                continue
            inner = ndimage.binary_erosion(sheet, iterations=2 + max(sheet.shape) // 150)
            rows, columns = (np.flatnonzero(inner.any(axis=axis)) for axis in (1, 0))
            if min(len(rows), len(columns)) < 8:
                continue
            part = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
            paper = np.median(picture[inner], axis=0)
            look = _look_at(np.where(inner[part][..., None], picture[part], paper))
            shape = inner[part].shape
            if look.marks and not any(_at_edge(mark, shape) for mark in look.marks):
                yield look._replace(marks=[_moved(mark, part) for mark in look.marks])


def _is_rectangle(region: np.ndarray) -> bool:
    """Whether a region fills the least rectangle around it, however that is turned."""
    places = np.stack(np.nonzero(region & ~ndimage.binary_erosion(region)))
    angles = np.deg2rad(np.arange(0, 90, 3))
    along = np.stack([np.cos(angles), np.sin(angles)], axis=-1) @ places
    across = np.stack([-np.sin(angles), np.cos(angles)], axis=-1) @ places
    least = ((np.ptp(along, axis=1) + 1) * (np.ptp(across, axis=1) + 1)).min()
    return bool(region.sum() > 0.87 * least)


def _at_edge(mark: Mark, shape: tuple[int, int]) -> bool:
    top, bottom, left, right = mark.box
    return top == 0 or left == 0 or bottom == shape[0] or right == shape[1]


def _moved(mark: Mark, part: tuple[slice, slice]) -> Mark:
    """A mark found in a part of a picture as one of the whole."""
    top, bottom, left, right = mark.box
    down, across = part[0].start, part[1].start
    return mark._replace(box=(top + down, bottom + down, left + across, right + across))


def _contrasts(
    picture: np.ndarray, smoothing: float
) -> Iterator[tuple[np.ndarray, np.ndarray, float]]:
    """In each way of looking, how much each pixel stands out, how steep it is there, and noise."""
    for i, view in enumerate(_views(picture)):
        smooth = ndimage.gaussian_filter(view, smoothing)
        noise = _noise(smooth, smoothing)
        steep = ndimage.gaussian_gradient_magnitude(smooth, 1.0)
        steep = np.maximum(steep - 2 * np.median(steep), 0)
        for background in _backgrounds(smooth):
            contrast = background - smooth
            if i == 0:  # dark ink takes away a part of the light, in shadows as much as beside them
                usual = np.median(background)
                contrast *= usual / np.maximum(background, _DARKEST * usual + 1e-6)
            yield contrast, steep, noise
        for background in _backgrounds(-smooth):
            yield background + smooth, steep, noise


def _views(picture: np.ndarray) -> list[np.ndarray]:
    """Grey, and where there is colour, what there is of the colour that varies most."""
    grey = picture @ _GREY
    few = picture[:: 1 + len(picture) // 100, :: 1 + picture.shape[1] // 100]
    rough = ndimage.gaussian_filter(few, (*(max(few.shape) / 6,) * 2, 0))
    differences = (few - rough).reshape(-1, 3)
    _, directions = np.linalg.eigh(differences.T @ differences)
    main = directions[:, -1]
    if abs(main.sum()) / np.sqrt(3) > 0.97:  # it is as good as grey
        return [grey]
    return [grey, (picture @ main).astype(np.float32)]


def _noise(smooth: np.ndarray, smoothing: float) -> float:
    """The standard deviation of noise, from what is finer than strokes; Gaussian."""
    fine = smooth - ndimage.gaussian_filter(smooth, 2 * smoothing)
    return float(np.median(np.abs(fine))) / 0.6745 * 1.5


def _backgrounds(values: np.ndarray) -> Iterator[np.ndarray]:
    """The brightness that a picture would have without its dark ink."""
    yield _surface(values)
    for part in _WINDOWS:
        size = max(3, round(part * max(values.shape)))
        yield ndimage.grey_closing(values, (size, size), mode="nearest")


def _surface(values: np.ndarray) -> np.ndarray:
    """A quadratic surface through the lighter part: pixels above a threshold by Otsu 1979."""
    height, width = values.shape
    terms = _quadratic_terms(height, width)
    some = (slice(None, None, 1 + height // 60), slice(None, None, 1 + width // 60))
    few, few_terms = values[some].ravel(), terms[some].reshape(-1, terms.shape[-1])
    surface = np.full_like(few, few.mean())
    for count in (1, 3, 6):
        difference = few - surface
        light = difference >= _otsu(difference)
        if light.sum() < 20:
            break
        weights = np.linalg.lstsq(few_terms[light, :count], few[light], rcond=None)[0]
        surface = few_terms[:, :count] @ weights
    else:
        return terms @ weights
    return np.full_like(values, few.max())


def _quadratic_terms(height: int, width: int) -> np.ndarray:
    """1, y, x, y * x, y ** 2 and x ** 2, for y and x from -1 to 1: `[height, width, 6]`."""
    y, x = np.meshgrid(
        np.linspace(-1, 1, height, dtype=np.float32),
        np.linspace(-1, 1, width, dtype=np.float32),
        indexing="ij",
    )
    return np.stack([np.ones_like(y), y, x, y * x, y**2, x**2], axis=-1)


def _otsu(values: np.ndarray) -> float:
    """The threshold between two classes with the largest variance between them (Otsu 1979)."""
    if not np.ptp(values):
        return float(values.flat[0])
    counts, edges = np.histogram(values, 64)
    centres = (edges[1:] + edges[:-1]) / 2
    below = np.cumsum(counts)
    sums = np.cumsum(counts * centres)
    above = below[-1] - below
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    return float(edges[1 + np.nanargmax(between[:-1])])


def _look(contrast: np.ndarray, steep: np.ndarray, noise: float) -> _Look:
    """The marks of one way of looking."""
    peak = float(contrast.max())
    if peak < max(_FAINTEST, _NOISE_LEVELS * noise):
        return _Look(0.0, 0.0, [])
    core = contrast[contrast > peak / 2]
    ink = float((core**2).sum() / core.sum())
    mask = contrast > max(_EDGE * min(ink, peak), 3 * noise)
    edges = float(steep[ndimage.binary_dilation(mask, iterations=2)].sum() / max(steep.sum(), 1e-9))
    mask = _without_lines(mask)
    border = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]]).mean()
    parts = _parts(mask, contrast)
    if len(parts) > _MOST:  # texture
        return _Look(0.0, 0.0, [])
    framing = [_is_frame(part, parts) for part in parts]
    frames = [part for part, is_frame in zip(parts, framing, strict=True) if is_frame]
    written = [part for part, is_frame in zip(parts, framing, strict=True) if not is_frame]
    kept = _without_surroundings(written)
    groups = _groups(kept) if kept else []
    if not groups:
        return _Look(0.0, 0.0, [])
    marks = [_mark(group, contrast, ink) for group in groups]
    weights = np.array([sum(part.area for part in group) for group in groups], float)
    likeness = max(float(np.average([mark.quality for mark in marks], weights=weights)), 1e-9)
    explained = weights.sum() / (mask.sum() - sum(part.area for part in frames))
    clear = 1 - np.exp(-ink / (4 * _NOISE_LEVELS * noise + _FAINTEST))
    crowd = min(1.0, 60 / len(parts)) * min(1.0, 40 / len(marks))
    inside = np.clip((0.75 - border) / 0.4, 0, 1)
    quality = float(likeness * explained**0.5 * inside * clear * crowd)
    whole = quality / likeness * (1 - 0.8 * _are_stripes(groups))
    marks = [
        mark._replace(quality=mark.quality * whole * _emptiness(group, parts))
        for mark, group in zip(marks, groups, strict=True)
    ]
    return _Look(quality, edges, marks)


def _without_lines(mask: np.ndarray) -> np.ndarray:
    """Leave out straight lines from one side of the picture to the other, as of ruled paper."""
    across = _lines(mask)
    down = _lines(mask.T).T
    return mask & ~across & ~down


def _lines(mask: np.ndarray) -> np.ndarray:
    """The pixels of nearly horizontal lines from side to side, but not of what crosses them."""
    height, width = mask.shape
    lengths = _run_lengths(mask)
    thin = mask & (lengths < height / 8)
    near = ndimage.binary_dilation(thin, np.ones((3, 1), bool))
    found = np.zeros_like(mask)
    if near.any(axis=0).mean() <= _SIDE_TO_SIDE:  # to save time
        return found
    columns = np.arange(width)
    some = columns[:: max(1, width // 100)]
    padded = np.pad(near[:, some], ((height, height), (0, 0)))
    drifts = [slope / 100 * (columns - width / 2) for slope in range(-8, 9)]
    at = height + np.arange(height)[:, None]
    covered = np.array(
        [
            padded[at + np.round(d[some]).astype(int), np.arange(len(some))].mean(axis=1)
            for d in drifts
        ]
    )
    for row in np.flatnonzero(covered.max(axis=0) > _SIDE_TO_SIDE):
        line = np.round(row + drifts[covered[:, row].argmax()]).astype(int).clip(0, height - 1)
        on_line = thin[line, columns]
        if not on_line.any():
            continue
        thickness = np.median(lengths[line, columns][on_line])
        reach = int(thickness / 2 + 2)
        band = (line[:, None] + np.arange(-reach, reach + 1)).clip(0, height - 1)
        place = band, np.broadcast_to(columns[:, None], band.shape)
        found[place] |= lengths[place] <= 1.5 * thickness + 2
    return found & mask


def _run_lengths(mask: np.ndarray) -> np.ndarray:
    """Of each pixel, how many lie in a row above and below that are True too, itself included."""
    labels, count = ndimage.label(mask, np.array([[0, 1, 0]] * 3, bool))
    return np.bincount(labels.ravel(), minlength=count + 1)[labels] * mask


def _parts(mask: np.ndarray, contrast: np.ndarray) -> list[_Part]:
    """Connected parts, without specks of a few pixels."""
    labels, count = ndimage.label(mask, _EIGHT)
    boxes = ndimage.find_objects(labels)
    areas = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    height, width = mask.shape
    least = max(4, 0.02 * areas.max(initial=0))
    parts = []
    for i in np.flatnonzero(areas >= least):
        rows, columns = boxes[i]
        own = labels[rows, columns] == i + 1
        sides = rows.start == 0, rows.stop == height, columns.start == 0, columns.stop == width
        strength = float(contrast[rows, columns][own].mean())
        parts.append(_Part(rows, columns, own, int(areas[i]), sides, strength))
    return parts


def _without_surroundings(parts: list[_Part]) -> list[_Part]:
    """Leave out underlines, and what comes in from the picture's edges."""
    parts = [part for part in parts if not _is_line(part)] or parts
    inside = [part for part in parts if not any(part.sides)]
    parts = [part for part in parts if not _comes_in(part, inside)]
    largest = max((part.size for part in parts), default=0)
    strongest = max((part.contrast for part in parts if part.size > 0.4 * largest), default=0.0)
    return [
        part for part in parts if part.size > 0.12 * largest and part.contrast > 0.5 * strongest
    ]


def _is_frame(part: _Part, parts: list[_Part]) -> bool:
    """Whether something of size is written between a part's lines."""
    if part.area > 0.4 * part.mask.size:
        return False
    return any(
        other is not part
        and 0.25 * part.height < other.height
        and other.size < 0.95 * part.size
        and _surrounds(part, other)
        for other in parts
    )


def _surrounds(part: _Part, other: _Part) -> bool:
    """Whether there is something of a part on three sides of another that lies in its box."""
    row = (other.rows.start + other.rows.stop) // 2 - part.rows.start
    column = (other.columns.start + other.columns.stop) // 2 - part.columns.start
    if not (0 <= row < part.height and 0 <= column < part.width):
        return False
    top, bottom = other.rows.start - part.rows.start, other.rows.stop - part.rows.start
    left, right = other.columns.start - part.columns.start, other.columns.stop - part.columns.start
    beyond = [
        part.mask[: max(top, 0), column],
        part.mask[max(bottom, 0) :, column],
        part.mask[row, : max(left, 0)],
        part.mask[row, max(right, 0) :],
    ]
    return sum(bool(there.any()) for there in beyond) >= 3


def _is_line(part: _Part) -> bool:
    """Whether a part is straight, and lies or comes in from an edge, as no digit does."""
    rows, columns = np.nonzero(part.mask)
    if len(rows) < 5:
        return False
    (least, most), directions = np.linalg.eigh(np.cov(np.stack([rows, columns])))
    flat = abs(directions[1, -1]) > np.cos(np.deg2rad(25))
    return bool((flat or any(part.sides)) and most > 30 * least)


def _comes_in(part: _Part, inside: list[_Part]) -> bool:
    """Whether a part is the end of something that lies beyond the picture's edge.

    Args:
        inside: the parts that touch no edge.
    """
    if not any(part.sides) or sum(other.area for other in inside) < 0.5 * part.area:
        return False
    top, bottom, left, right = part.sides
    high = part.height / np.median([other.height for other in inside])
    wide = part.width / np.median([other.width for other in inside])
    return bool(((top or bottom) and high < 0.7) or ((left or right) and wide < 0.7))


def _groups(parts: list[_Part]) -> list[list[_Part]]:
    """Put parts together that belong to one digit: above each other, or torn."""
    groups = [[part] for part in sorted(parts, key=lambda part: -part.area)]
    merged = True
    while merged:
        merged = False
        for i, one in enumerate(groups):
            for other in groups[i + 1 :]:
                if _belong_together(one, other):
                    one += other
                    groups.remove(other)
                    merged = True
                    break
            if merged:
                break
    largest = max(max(bottom - top, right - left) for top, bottom, left, right in map(_box, groups))
    return [
        group
        for group in groups
        if max(np.subtract(_box(group)[1::2], _box(group)[::2])) > 0.3 * largest
    ]


def _box(group: list[_Part]) -> tuple[int, int, int, int]:
    return (
        min(part.rows.start for part in group),
        max(part.rows.stop for part in group),
        min(part.columns.start for part in group),
        max(part.columns.stop for part in group),
    )


def _belong_together(one: list[_Part], other: list[_Part]) -> bool:
    top1, bottom1, left1, right1 = _box(one)
    top2, bottom2, left2, right2 = _box(other)
    tall = max(bottom1 - top1, bottom2 - top2)
    across = max(left1, left2) - min(right1, right2)  # below 0 where they overlap
    down = max(top1, top2) - min(bottom1, bottom2)
    narrow = min(right1 - left1, right2 - left2)
    above = -across > 0.5 * narrow and down < 0.3 * tall
    torn = max(across, down) < 0.03 * tall
    high = max(bottom1, bottom2) - min(top1, top2)
    wide = max(right1, right2) - min(left1, left2)
    return (above or torn) and wide < 1.6 * high and high < 1.7 * max(tall, wide)


def _mark(group: list[_Part], contrast: np.ndarray, ink: float) -> Mark:
    box = top, bottom, left, right = _box(group)
    mask = np.zeros((bottom - top, right - left), bool)
    for part in group:
        place = (
            slice(part.rows.start - top, part.rows.stop - top),
            slice(part.columns.start - left, part.columns.stop - left),
        )
        mask[place] |= part.mask
    reach = 1 + max(contrast.shape) // 200  # the soft edge of a stroke lies beyond the mask
    near = ndimage.binary_dilation(mask, iterations=reach)
    strength = np.clip(contrast[top:bottom, left:right] / ink, 0, 1)
    values = np.where(near, strength, 0).astype(np.float32)
    return Mark(values, box, _likeness(mask, box, contrast.shape))


def _likeness(mask: np.ndarray, box: tuple[int, int, int, int], shape: tuple[int, ...]) -> float:
    """How much a mark is like writing: strokes of some width, upright, not cut off.

    Args:
        mask: bool, of the box.
        shape: the picture's.
    """
    top, bottom, left, right = box
    height, width = mask.shape
    filled = mask.mean()
    solid = 1.0
    if width > 0.4 * height:  # a one may fill its box
        solid = float(np.clip((0.95 - filled) / 0.3, 0, 1))
    depth = ndimage.distance_transform_edt(np.pad(mask, 1)).max()
    thick = float(np.clip((0.32 - depth / max(height, width)) / 0.1, 0.05, 1))
    lying = float(np.clip(2.2 - width / height, 0.1, 1))
    edge = 0.03 * min(shape)
    away = min(top, left, shape[0] - bottom, shape[1] - right) > edge
    whole = 1.0 if away else 0.9
    return solid * thick * lying * whole


def _emptiness(group: list[_Part], parts: list[_Part]) -> float:
    """1 where a mark's main part has nothing else in its box, as a face has eyes, a dial dots."""
    main = max(group, key=lambda part: part.area)
    inside = sum(part.area for part in parts if _lies_in(part, main)) - main.area
    return float(np.clip(1 - 8 * inside / main.area, 0.1, 1))


def _lies_in(part: _Part, other: _Part) -> bool:
    return (
        other.rows.start <= part.rows.start
        and part.rows.stop <= other.rows.stop
        and other.columns.start <= part.columns.start
        and part.columns.stop <= other.columns.stop
    )


def _are_stripes(groups: list[list[_Part]]) -> bool:
    """Whether all marks are bars of one height in one row, as of a barcode, and not just a few."""
    tops, bottoms, _, _ = np.array([_box(group) for group in groups]).T
    height = np.median(bottoms - tops)
    level = max(np.ptp(tops), np.ptp(bottoms)) < 0.03 * height + 2
    filled = all(len(group) == 1 and group[0].mask.mean() > 0.9 for group in groups)
    return bool(len(groups) >= 4 and level and filled)


def _in_reading_order(marks: list[Mark]) -> list[Mark]:
    """Line by line: a mark belongs to a line whose middle it covers, or that covers its middle."""
    lines: list[list[Mark]] = []
    for mark in sorted(marks, key=lambda mark: mark.box[0] + mark.box[1]):
        top, bottom = mark.box[:2]
        if lines:
            line_top = np.mean([other.box[0] for other in lines[-1]])
            line_bottom = np.mean([other.box[1] for other in lines[-1]])
            if line_top < (top + bottom) / 2 < line_bottom:
                lines[-1].append(mark)
                continue
        lines.append([mark])
    return [mark for line in lines for mark in sorted(line, key=lambda mark: mark.box[2])]
