"""What users of the estimator give it, made into what training takes or refused with a reason."""

import warnings
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.exceptions import DataConversionWarning
from sklearn.utils.multiclass import check_classification_targets

from mnist_jax.words import counted

_MNIST = (28, 28, 1)
_CHANNELS = (1, 3)
_MOST_CHANNELS = 4  # of pictures: red, green, blue and what is transparent
_LEAST_SIDE = 4
_DARK = 0.1  # images whose brightest pixel is darker are in another scale, or nearly so


def as_images(images: Any, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """uint8 or float32 `[n, height, width, channels]`.

    Args:
        images: an array, a frame or nested sequences: `[n, height, width, channels]` with 1 or 3
            channels, `[n, height, width]`, or a row of all values an image, `[n, 784]`; whole
            numbers 0 to 255, floats in [0, 1], or bools, which become 0 and 255.
        shape: height, width and channels that they must have, also in rows, as those of a fitted
            estimator; None: any, and in rows 28 x 28 x 1.

    Raises:
        ValueError: another shape, kind of values or range, none at all, NaN, and whole numbers of
            which none is above 1, which are black and white in another scale.
    """
    if sparse.issparse(images):
        raise ValueError("images must not be sparse; give images.toarray().")
    array = _as_array("images", images)
    if array.dtype.kind == "c":
        raise ValueError("images must be real numbers. Complex data not supported.")
    if array.dtype.kind not in "biuf":
        raise ValueError(f"images must be whole numbers or floats, not {array.dtype}.")
    array = _in_shape(array, shape)
    if array.dtype.kind == "b":
        return array.astype(np.uint8) * 255
    low, high = array.min(), array.max()
    if array.dtype.kind in "iu":
        if low < 0 or high > 255:
            raise ValueError(f"images of whole numbers must be 0 to 255, not {low} to {high}.")
        if high == 1:
            raise ValueError(
                "images of whole numbers must be 0 to 255, and of 0 and 1 all would be nearly "
                "black; multiply them by 255, or give them as bools or floats."
            )
        return array.astype(np.uint8)
    if not (low >= 0 and high <= 1):  # also refuses NaN
        raise ValueError(
            f"images of floats must be in [0, 1], not {low:g} to {high:g}; "
            "divide pixels by 255, or give them as uint8."
        )
    return array.astype(np.float32)


def _in_shape(array: np.ndarray, shape: tuple[int, ...] | None) -> np.ndarray:
    """`[n, height, width, channels]` of an array of one of three shapes."""
    height, width, channels = shape or _MNIST
    row = height * width * channels
    forms = (
        f"[n, {height}, {width}, {channels}]" if shape else "[n, height, width, 1 or 3 channels]"
    )
    if channels == 1:
        forms += f", [n, {height}, {width}]" if shape else ", [n, height, width]"
    forms += f" or [n, {row}]"
    one = {(height, width, channels), (row,)} | ({(height, width)} if channels == 1 else set())
    if array.shape in one:
        raise ValueError(f"images must be {forms}, not {array.shape}: of one image, [image].")
    if array.ndim == 2 and array.shape[1] == row:
        whole = array.reshape(-1, height, width, channels)
    else:
        whole = array[..., None] if array.ndim == 3 else array
    fits = whole.ndim == 4 and len(whole) > 0
    if shape is None:
        fits = fits and whole.shape[3] in _CHANNELS and min(whole.shape[1:3]) >= _LEAST_SIDE
    else:
        fits = fits and whole.shape[1:] == shape
    if not fits:
        hint = _hint(whole.shape, (channels,) if shape else _CHANNELS)
        raise ValueError(f"images must be {forms} with n > 0, not {array.shape}{hint}.")
    return whole


def _hint(shape: tuple[int, ...], wanted: tuple[int, ...]) -> str:
    """What to do about a wrong number of channels, where there are as many as pictures may have."""
    if len(shape) != 4 or shape[3] in wanted:
        return ""
    channels = shape[3]
    if channels in (2, 4) and channels - 1 in wanted:
        return (
            f": {channels} channels; without the last, which says what is transparent, X[..., :-1]"
        )
    if shape[1] in wanted and channels > _MOST_CHANNELS:
        return ": the channels come last, X.transpose(0, 2, 3, 1)"
    if (channels, wanted) == (1, (3,)):
        return ": grey, where those fitted were in colour, X.repeat(3, axis=3)"
    if channels in (3, 4) and wanted == (1,):
        return ": in colour, where those fitted were grey"
    return f": {counted(channels, 'channel')}"


def warn_if_dark(images: np.ndarray) -> None:
    """Warn of training images that are all so dark that they seem to be in another scale.

    Args:
        images: from `as_images`.

    Warns:
        UserWarning: naming the brightest pixel.
    """
    white = 255 if images.dtype == np.uint8 else 1
    if images.max() < _DARK * white:
        warnings.warn(
            f"images are nearly black: the brightest pixel of all is {images.max():.3g}, where "
            f"white is {white}. Are they in another scale?",
            stacklevel=3,
        )


def as_labels(labels: Any, n: int, each: str = "an image") -> np.ndarray:
    """`[n]`, of any kind that `np.unique` sorts.

    Raises:
        ValueError: none at all, another shape, missing or infinite values, mixed kinds, and the
            targets of a regression (scikit-learn's `check_classification_targets`).
        TypeError: labels of bytes.
    """
    if labels is None:
        raise ValueError("fit requires y to be passed, but the target y is None.")
    array = _as_array("labels", labels)
    if array.shape == (n, 1):
        message = "A column-vector y was passed when a 1d array was expected; give y.ravel()."
        warnings.warn(message, DataConversionWarning, stacklevel=3)
        array = array.ravel()
    if array.shape != (n,):
        hint = "; of a one-hot table, its argmax(axis=1)" if array.ndim == 2 else ""
        raise ValueError(f"labels must be [{n}], one {each}, not {array.shape}{hint}.")
    missing = _count_missing(array)
    if missing:
        raise ValueError(f"labels must be classes, and {missing} of the {n} are None, NaN or inf.")
    kinds = {type(label).__name__ for label in array} if array.dtype == object else set()
    if len(kinds) > 1:
        raise ValueError(f"labels must be of one kind, not {' and '.join(sorted(kinds))}.")
    check_classification_targets(array)
    return array


def as_weights(weights: Any, n: int) -> np.ndarray | None:
    """float64 `[n]`, or None for None.

    Raises:
        ValueError: another shape, a negative, missing or infinite weight, or none above 0.
    """
    if weights is None:
        return None
    try:
        array = np.asarray(weights, np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"sample_weight must be numbers: {error}.") from None
    if array.ndim == 0:
        array = np.full(n, array)
    if array.shape != (n,):
        raise ValueError(f"sample_weight must be [{n}], one an image, not {array.shape}.")
    if not (np.isfinite(array).all() and array.min() >= 0):
        raise ValueError(
            f"sample_weight must be finite and at least 0, not {array.min():g} to {array.max():g}."
        )
    if array.max() == 0:
        raise ValueError("sample_weight must not be zero for all images.")
    return array


def _as_array(name: str, values: Any) -> np.ndarray:
    """NumPy's array; of objects, such as pandas's nullable columns have, one of their own kind."""
    try:
        array = np.asarray(values)
        if array.dtype != object:
            return array
        kinds = {type(value) for value in array.flat}
        numbers = all(issubclass(kind, int | float | np.number | np.bool_) for kind in kinds)
        return np.array(array.tolist()) if numbers else array
    except (TypeError, ValueError) as error:  # of rows of different lengths, for example
        raise ValueError(f"{name} must be an array: {error}") from None


def _count_missing(labels: np.ndarray) -> int:
    if labels.dtype.kind == "f":
        return int((~np.isfinite(labels)).sum())
    if labels.dtype.kind in "mM":
        return int(np.isnat(labels).sum())
    return sum(map(_is_missing, labels)) if labels.dtype == object else 0


def _is_missing(label: Any) -> bool:
    try:
        return label is None or bool(label != label)
    except TypeError:  # pandas.NA knows no answer
        return True
