"""MNIST's digits changed at random into what other hands, pens and cameras make.

MNIST's writers were Americans with one kind of pen. Here the digits are slanted, squeezed and bent
(elastic distortions: Simard et al. 2003, section 2), their strokes made thinner, thicker and
fainter; a one gets the upstroke, a seven the bar and the serif that are usual in Europe. Some
images become what is no digit at all and get the label `NO_CLASS`, whose loss is least at equal
probabilities (outlier exposure: Hendrycks et al. 2019), so that a network is not sure of what it
has never seen.
"""

from collections.abc import Callable
from itertools import pairwise

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.ndimage import map_coordinates

NO_CLASS = -1

_SIDE = 28
_DEGREES = 12.0
_SLANT = 0.45  # columns a row
_SIZES = (0.85, 1.08)  # of the whole
_ASPECT = 0.25  # width to height, as a logarithm
_PIXELS = 1.5
_BEND = 2.0  # pixels, the largest standard deviation of elastic displacements
_BUMPS, _BUMP_WIDTH = 8, 4.0  # a side, and their standard deviation in pixels
_WIDER, _THINNER = 2.0, 0.7  # pixels a side; part of the way to an erosion
_SOME = 0.35  # of the ones get an upstroke, of the sevens a bar, a serif
_HEAD = 5  # rows of a digit's top
_CENTRE = 14.0  # where MNIST's centres of mass are
_NO_DIGITS = 0.15  # of all images
_INK = 0.3  # what is brighter belongs to the digit


def augment(images: Array, labels: Array, key: Array) -> tuple[Array, Array]:
    """Change each image of a batch, and make some of them no digits.

    Args:
        images: float32 `[n, 28, 28, 1]` in [0, 1]: digits, bright on black.
        labels: int32 `[n]`, 0 to 9.
        key: a PRNG key.

    Returns:
        Images of the same kind, and labels, some of them `NO_CLASS`.

    Raises:
        ValueError: images of another size or in colour, which are no digits as MNIST's are.
    """
    if images.shape[1:] != (_SIDE, _SIDE, 1):
        size = " x ".join(map(str, images.shape[1:]))
        raise ValueError(f"augment handwriting is for digits of 28 x 28 x 1, not {size} images.")
    keys = jax.random.split(key, 5)
    digits = add_strokes(images[..., 0], labels, keys[0])
    digits = change_strokes(digits, keys[1])
    pictures, labels = replace_some(digits, labels, keys[2])
    pictures = warp(pictures, keys[3])
    gain = jax.random.uniform(keys[4], (len(images), 1, 1), minval=0.7, maxval=1.6)
    return jnp.clip(pictures * gain, 0, 1)[..., None], labels


def add_strokes(digits: Array, labels: Array, key: Array) -> Array:
    """Give some ones an upstroke, some sevens a bar or a serif; `digits` are `[n, 28, 28]`."""
    one_key, seven_key, serif_key, width_key, chosen_key = jax.random.split(key, 5)
    n, height, width = digits.shape
    ink = digits > _INK
    rows = ink.any(axis=2)
    top = jnp.argmax(rows, axis=1).astype(jnp.float32)
    bottom = (height - 1 - jnp.argmax(rows[:, ::-1], axis=1)).astype(jnp.float32)
    near_top = jnp.arange(height) < top[:, None] + _HEAD
    left = jnp.argmax((ink & near_top[..., None]).any(axis=1), axis=1).astype(jnp.float32)

    def column(row: Array) -> Array:
        """The middle of the ink in a row of each digit."""
        line = jnp.take_along_axis(digits, row.astype(jnp.int32)[:, None, None], axis=1)[:, 0]
        return (line @ jnp.arange(width, dtype=jnp.float32)) / jnp.maximum(line.sum(axis=1), 1e-6)

    strokes = [
        _upstrokes(top + 1, column(top + 1), bottom, one_key),
        _bars(top, bottom, column, seven_key),
        _serifs(top + 2, left, serif_key),
    ]
    radius = jax.random.uniform(width_key, (n,), minval=0.7, maxval=1.6)
    some = jax.random.bernoulli(chosen_key, _SOME, (len(strokes), n))
    for points, chosen, label in zip(strokes, some, (1, 7, 7), strict=True):
        drawn = _curves(points, radius, (height, width))
        digits = jnp.where(
            (chosen & (labels == label))[:, None, None], jnp.maximum(digits, drawn), digits
        )
    return digits


def _upstrokes(row: Array, column: Array, bottom: Array, key: Array) -> Array:
    """Short and long ones, from a one's top down to the left, bent: points `[5, n, 2]`."""
    down_key, across_key, bow_key = jax.random.split(key, 3)
    part = jax.random.uniform(down_key, row.shape, minval=0.15, maxval=0.8)
    across = jax.random.uniform(across_key, row.shape, minval=1.5, maxval=8)
    bow = jax.random.uniform(bow_key, row.shape, minval=-1.5, maxval=1.5)
    along = jnp.linspace(0, 1, 5)[:, None]
    rows = row + along * part * (bottom - row)
    return jnp.stack([rows + 4 * along * (1 - along) * bow, column - along * across], axis=-1)


def _bars(top: Array, bottom: Array, column: Callable[[Array], Array], key: Array) -> Array:
    """Through the middle of a seven's stem, sloping, bent or wavy: points `[7, n, 2]`."""
    place_key, length_key, slope_key, wave_key, bow_key = jax.random.split(key, 5)
    row = top + jax.random.uniform(place_key, top.shape, minval=0.35, maxval=0.65) * (bottom - top)
    length = jax.random.uniform(length_key, top.shape, minval=4, maxval=12)
    slope = jax.random.uniform(slope_key, top.shape, minval=-0.4, maxval=0.4)
    wave = jax.random.uniform(wave_key, top.shape, minval=-2, maxval=2)
    bow = jax.random.uniform(bow_key, top.shape, minval=-1.5, maxval=1.5)
    along = jnp.linspace(-0.5, 0.5, 7)[:, None]
    bent = wave * jnp.sin(2 * jnp.pi * along) + bow * (1 - 4 * along**2)
    return jnp.stack([row + slope * along * length + bent, column(row) + along * length], axis=-1)


def _serifs(row: Array, left: Array, key: Array) -> Array:
    """Down from the left end of a seven's top: points `[2, n, 2]`."""
    down = jax.random.uniform(key, row.shape, minval=2, maxval=7)
    start = jnp.stack([row, left + 1], axis=-1)
    return jnp.stack([start, start + jnp.stack([down, -0.2 * down], axis=-1)])


def _curves(points: Array, radius: Array, shape: tuple[int, int]) -> Array:
    """Strokes from point to point, `[points, n, 2]`, as `segments` draws them."""
    pieces = [segments(start, end, radius, shape) for start, end in pairwise(points)]
    return jnp.stack(pieces).max(axis=0)


def segments(start: Array, end: Array, radius: Array, shape: tuple[int, int]) -> Array:
    """Straight strokes with soft edges: rows and columns `[n, 2]`, radii `[n]`, in pixels."""
    height, width = shape
    grid = jnp.stack(jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij"), axis=-1)
    along = (end - start)[:, None, None]
    away = grid - start[:, None, None]
    part = (away * along).sum(axis=-1) / jnp.maximum((along**2).sum(axis=-1), 1e-6)
    distance = jnp.linalg.norm(away - jnp.clip(part, 0, 1)[..., None] * along, axis=-1)
    return jnp.clip(radius[:, None, None] + 0.5 - distance, 0, 1)


def _first_segments(
    count: Array, starts: Array, ends: Array, radius: Array, shape: tuple[int, int]
) -> Array:
    """The first `count`, `[n, 1, 1]`, of `segments` from `starts` to `ends`, `[strokes, n, 2]`."""
    strokes = [
        segments(start, end, radius, shape) * (i < count)
        for i, (start, end) in enumerate(zip(starts, ends, strict=True))
    ]
    return jnp.stack(strokes).max(axis=0)


def change_strokes(digits: Array, key: Array) -> Array:
    """Make strokes wider or thinner; `digits` are `[n, 28, 28]`."""
    amount = jax.random.uniform(key, (len(digits), 1, 1), minval=-1, maxval=1)
    wider = _largest_near(digits)
    widest = _largest_near(wider)
    thinner = -_largest_near(-digits)
    more, less = jnp.maximum(amount, 0) * _WIDER, jnp.maximum(-amount, 0) * _THINNER
    return (
        digits
        + jnp.clip(more, 0, 1) * (wider - digits)
        + jnp.clip(more - 1, 0, 1) * (widest - wider)
        + less * (thinner - digits)
    )


def _largest_near(pictures: Array) -> Array:
    """The largest of a pixel and its four neighbours."""
    height, width = pictures.shape[1:]
    padded = jnp.pad(pictures, ((0, 0), (1, 1), (1, 1)), mode="edge")
    near = [(1, 1), (0, 1), (2, 1), (1, 0), (1, 2)]
    parts = [padded[:, i : i + height, j : j + width] for i, j in near]
    return jnp.stack(parts).max(axis=0)


def warp(pictures: Array, key: Array) -> Array:
    """Turn, slant, squeeze, scale, move and bend; `pictures` are `[n, 28, 28]`, zeros come in.

    What lies off the centre is brought there first, by whole pixels, as MNIST's digits were.
    """
    angle_key, slant_key, size_key, aspect_key, move_key, bend_key, field_key = jax.random.split(
        key, 7
    )
    n, height, width = pictures.shape
    angle = jnp.deg2rad(_DEGREES) * jax.random.uniform(angle_key, (n,), minval=-1)
    slant = _SLANT * jax.random.uniform(slant_key, (n,), minval=-1)
    size = jax.random.uniform(size_key, (n,), minval=_SIZES[0], maxval=_SIZES[1])
    aspect = jnp.exp(_ASPECT * jax.random.uniform(aspect_key, (n,), minval=-1))
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    # Where a pixel comes from: turned, slanted and scaled backwards.
    turned = jnp.stack([jnp.stack([cos, -sin], -1), jnp.stack([sin, cos], -1)], -2)
    slanted = jnp.stack(
        [jnp.stack([jnp.ones(n), jnp.zeros(n)], -1), jnp.stack([slant, jnp.ones(n)], -1)], -2
    )
    scales = jnp.stack([jnp.sqrt(aspect), 1 / jnp.sqrt(aspect)], -1) / size[:, None]
    backwards = (slanted @ turned) * scales[:, :, None]
    moves = _PIXELS * jax.random.uniform(move_key, (n, 2), minval=-1)
    amount = _BEND * jax.random.uniform(bend_key, (n, 1, 1, 1))
    field = amount * _smooth_noise(field_key, (n, 2, height, width))
    centre = jnp.array([height - 1, width - 1]) / 2
    grid = jnp.stack(jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij"), axis=-1)
    sources = (grid - centre - moves[:, None, None]) @ jnp.swapaxes(backwards, 1, 2)[:, None]
    sources = sources + centre + _off_centre(pictures)[:, None, None]
    sources = jnp.moveaxis(sources, -1, 1) + field
    return jax.vmap(lambda picture, place: map_coordinates(picture, list(place), order=1))(
        pictures, sources
    )


def _off_centre(pictures: Array) -> Array:
    """How many rows and columns the centres of mass are from where MNIST's are, `[n, 2]`."""
    mass = jnp.maximum(pictures.sum(axis=(1, 2)), 1e-6)
    rows = pictures.sum(axis=2) @ jnp.arange(pictures.shape[1], dtype=pictures.dtype) / mass
    columns = pictures.sum(axis=1) @ jnp.arange(pictures.shape[2], dtype=pictures.dtype) / mass
    return jnp.round(jnp.stack([rows, columns], axis=-1) - _CENTRE)


def _smooth_noise(key: Array, shape: tuple[int, ...]) -> Array:
    """Gaussian, of standard deviation 1, alike in near pixels of the last two axes."""
    *images, height, width = shape
    bumps = jax.random.normal(key, (*images, _BUMPS, _BUMPS))
    return _bumps(height) @ bumps @ _bumps(width).T


def _bumps(side: int) -> Array:
    """Gaussian bumps along a side, `[side, bumps]`; their squares add up to 1 in each pixel."""
    places = jnp.linspace(0, side - 1, _BUMPS)
    values = jnp.exp(-((jnp.arange(side)[:, None] - places) ** 2) / (2 * _BUMP_WIDTH**2))
    return values / jnp.linalg.norm(values, axis=1, keepdims=True)


def replace_some(digits: Array, labels: Array, key: Array) -> tuple[Array, Array]:
    """Put what is no digit in the place of a batch's first digits, and `NO_CLASS` among `labels`.

    By chance: a digit cut at its middle and put together the wrong way; one turned by a quarter;
    two of them, one turned, on top of each other; some straight strokes; blots; rings with
    something in them; triangles and squares; stripes.
    """
    kind_key, roll_key, line_key, blot_key, ring_key, corner_key, stripe_key = jax.random.split(
        key, 7
    )
    count = round(_NO_DIGITS * len(digits))
    first, (_, height, width) = digits[:count], digits.shape
    across, down = jnp.roll(first, width // 2, axis=2), jnp.roll(first, height // 2, axis=1)
    cuts = [across, down, jnp.roll(across, height // 2, axis=1)]
    turned = jnp.swapaxes(first, 1, 2)[:, ::-1]
    kinds = [
        jnp.choose(jax.random.randint(roll_key, (count, 1, 1), 0, len(cuts)), cuts, mode="clip"),
        turned,
        jnp.maximum(first, jnp.roll(turned, 1, axis=0)),
        _lines(line_key, first.shape),
        _blots(blot_key, first.shape),
        _rings(ring_key, first.shape),
        _polygons(corner_key, first.shape),
        _stripes(stripe_key, first.shape),
    ]
    kind = jax.random.randint(kind_key, (count, 1, 1), 0, len(kinds))
    # A nought stays one when it is turned, or laid over another.
    replaced = labels[:count] != 0
    no_digits = jnp.where(replaced[:, None, None], jnp.choose(kind, kinds, mode="clip"), first)
    new_labels = jnp.where(replaced, NO_CLASS, labels[:count])
    return (
        jnp.concatenate([no_digits, digits[count:]]),
        jnp.concatenate([new_labels, labels[count:]]),
    )


def _lines(key: Array, shape: tuple[int, ...]) -> Array:
    """Three to five straight strokes each, from corners and middles of a box of 20, as letters."""
    n, height, width = shape
    place_key, radius_key, count_key = jax.random.split(key, 3)
    places = 4 + 10 * jax.random.randint(place_key, (5, 2, n, 2), 0, 3).astype(jnp.float32)
    radius = jax.random.uniform(radius_key, (n,), minval=0.7, maxval=2)
    count = jax.random.randint(count_key, (n, 1, 1), 3, 6)
    starts, ends = jnp.swapaxes(places, 0, 1)
    return _first_segments(count, starts, ends, radius, (height, width))


def _blots(key: Array, shape: tuple[int, ...]) -> Array:
    """Smooth noise, of grey or cut to black and white, within an ellipse."""
    n, height, width = shape
    bumps, sides, hardness, level = jax.random.split(key, 4)
    noise = _smooth_noise(bumps, shape)
    radii = jax.random.uniform(sides, (n, 2, 1), minval=5, maxval=13)
    rows = (jnp.arange(height) - (height - 1) / 2) / radii[:, 0]
    columns = (jnp.arange(width) - (width - 1) / 2) / radii[:, 1]
    inside = rows[:, :, None] ** 2 + columns[:, None] ** 2 < 1
    hard = jnp.exp(jax.random.uniform(hardness, (n, 1, 1), minval=-1, maxval=3))
    shift = jax.random.uniform(level, (n, 1, 1), minval=-0.5, maxval=1.5)
    return jnp.where(inside, jax.nn.sigmoid(hard * (noise + shift)), 0)


def _rings(key: Array, shape: tuple[int, ...]) -> Array:
    """Ellipses with two to five short strokes or dots in them, as faces and clocks have."""
    n, height, width = shape
    side_key, radius_key, place_key, way_key, count_key = jax.random.split(key, 5)
    sides = jax.random.uniform(side_key, (n, 2), minval=7.5, maxval=10.5)
    radius = jax.random.uniform(radius_key, (n,), minval=0.7, maxval=1.5)
    centre = jnp.array([height - 1, width - 1]) / 2
    angles = jnp.linspace(0, 2 * jnp.pi, 17)[:, None]
    around = jnp.stack([jnp.sin(angles), jnp.cos(angles)], axis=-1) * sides + centre
    ring = _curves(around, radius, (height, width))
    starts = centre + jax.random.uniform(place_key, (5, n, 2), minval=-0.45, maxval=0.45) * sides
    ends = starts + jax.random.uniform(way_key, (5, n, 2), minval=-4, maxval=4)
    count = jax.random.randint(count_key, (n, 1, 1), 2, 6)
    inner = _first_segments(count, starts, ends, radius, (height, width))
    return jnp.maximum(ring, inner)


def _polygons(key: Array, shape: tuple[int, ...]) -> Array:
    """Triangles and squares, any way up."""
    n, height, width = shape
    count_key, turn_key, side_key, radius_key = jax.random.split(key, 4)
    corners = jax.random.randint(count_key, (n,), 3, 5)
    turn = jax.random.uniform(turn_key, (n,), maxval=2 * jnp.pi)
    sides = jax.random.uniform(side_key, (n, 2), minval=7, maxval=11)
    radius = jax.random.uniform(radius_key, (n,), minval=0.7, maxval=2)
    # A triangle's first side is drawn twice.
    angles = turn + 2 * jnp.pi * jnp.arange(5)[:, None] / corners
    centre = jnp.array([height - 1, width - 1]) / 2
    points = jnp.stack([jnp.sin(angles), jnp.cos(angles)], axis=-1) * sides + centre
    return _curves(points, radius, (height, width))


def _stripes(key: Array, shape: tuple[int, ...]) -> Array:
    """Parallel bars within a box of 20, across or down."""
    n, side, _ = shape
    step_key, part_key, shift_key, way_key = jax.random.split(key, 4)
    step = jax.random.uniform(step_key, (n, 1), minval=3, maxval=7)
    part = jax.random.uniform(part_key, (n, 1), minval=0.3, maxval=0.7)
    shift = jax.random.uniform(shift_key, (n, 1))
    places = jnp.arange(side)
    inside = (places >= 4) & (places < 24)
    bars = ((places / step + shift) % 1 < part) & inside
    down = (bars[:, None, :] & inside[:, None]).astype(jnp.float32)
    way = jax.random.bernoulli(way_key, shape=(n, 1, 1))
    return jnp.where(way, down, jnp.swapaxes(down, 1, 2))
