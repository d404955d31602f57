"""Which weights a page gets: of few bits, as its size asks for and its accuracy allows."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.interchange import chain, model, packed
from experiments.interchange.chain import Layer
from experiments.interchange.model import Model
from experiments.interchange.packed import Precision
from experiments.workdir import trained
from mnist_jax.data import DataError, DataUnavailable, Split

# From fine to coarse; the first whose file is small enough is taken, or the next finer one that
# keeps the accuracy.
_PRECISIONS = tuple(Precision(8, part) for part in (0, 0.25, 0.5, 0.75, 1, 1.25))
_HALF = Precision(16)
_MOST_BYTES = 5_000_000  # of three members' file; others may have as much for each
_MOST_LOST = 0.0002  # of accuracy on test images
_BATCH = 500
_ROOM = 100_000  # bytes of the page without its weights, at most

Packed = list[list[dict[str, packed.Array]]]  # of each member and layer, by name


class Checked(NamedTuple):
    """What the page's weights make of test images, beside the members as they were trained."""

    images: int
    before: float  # accuracy
    after: float
    largest: float  # difference of the members' mean probabilities
    average: float  # likewise

    def describe(self) -> str:
        """In words."""
        return (
            f"of {self.images:,} test images {percent(self.after)} are right, "
            f"{percent(self.before)} with the weights as trained; probabilities differ by up to "
            f"{self.largest:.2g}, on average by {self.average:.2g}"
        )


class Weights(NamedTuple):
    """What is chosen for a page."""

    precision: Precision
    layers: list[list[dict[str, Any]]]  # of each member and layer where its arrays lie
    content: bytes  # compressed
    checked: Checked | None  # None: there are no test images
    reason: str = ""  # why not


def choose(exported: Model, chains: Sequence[Sequence[Layer]]) -> Weights:
    """The weights of a page that has these layers, one list a member.

    They have 8 bits if the accuracy on the test images of the data set trained on stays within
    0.02 %, and so large steps as the size of the file asks for; else, and where there are no test
    images, 16 bits.
    """
    test, reason = _test_images(exported)
    if test is None:
        return Weights(_HALF, *packed.join(_pack(chains, _HALF)), None, reason)
    with jax.default_matmul_precision("highest"):  # as the browser computes
        before = _probabilities_as_trained(exported, test.inputs)
        return _choose(chains, partial(_check, chains, test, before))


def _test_images(exported: Model) -> tuple[Split | None, str]:
    """Those of the data set trained on; without them the reason."""
    try:
        test = trained.load_dataset(exported.trained).test
    except (ValueError, DataError, DataUnavailable) as error:
        return None, str(error).partition("\n")[0].rstrip(".")
    return (test, "") if len(test.labels) else (None, "there are no test images")


def _choose(chains: Sequence[Sequence[Layer]], check: Callable[[Packed], Checked]) -> Weights:
    """The finest weights of 8 bits whose file is small enough or, where these lose accuracy, the
    next finer ones that do not; of 16 bits where all do."""
    most = _MOST_BYTES * max(1, len(chains) / 3)
    tried = []
    for precision in _PRECISIONS:
        arrays = _pack(chains, precision)
        weights = Weights(precision, *packed.join(arrays), None)
        tried.append((weights, arrays))
        if _size(weights) <= most:
            break
    for weights, arrays in reversed(tried):
        checked = check(arrays)
        if checked.before - checked.after < _MOST_LOST + 1e-9:
            return weights._replace(checked=checked)
    arrays = _pack(chains, _HALF)
    return Weights(_HALF, *packed.join(arrays), check(arrays))


def _pack(chains: Sequence[Sequence[Layer]], precision: Precision) -> Packed:
    return [packed.pack_layers(layers, precision) for layers in chains]


def _size(weights: Weights) -> int:
    """Bytes of the file, at most."""
    return 4 * len(weights.content) // 3 + _ROOM


def _check(
    chains: Sequence[Sequence[Layer]], test: Split, before: np.ndarray, arrays: Packed
) -> Checked:
    """Arrays on the page beside probabilities as trained, float32 `[members, n, classes]`."""
    own = [packed.unpack_layers(*pair) for pair in zip(chains, arrays, strict=True)]
    after = np.stack([_probabilities(layers, test.inputs) for layers in own])
    means = before.mean(axis=0), after.mean(axis=0)
    before_right, after_right = ((mean.argmax(axis=-1) == test.labels).mean() for mean in means)
    off = abs(means[1] - means[0])
    return Checked(
        images=len(test.labels),
        before=float(before_right),
        after=float(after_right),
        largest=float(off.max()),
        average=float(off.mean()),
    )


def _probabilities(layers: Sequence[Layer], images: np.ndarray) -> np.ndarray:
    """What the page computes for one member, float32 `[n, classes]`."""

    @jax.jit
    def forward(weights: Any, batch: jax.Array) -> jax.Array:
        own = [one._replace(weights=arrays) for one, arrays in zip(layers, weights, strict=True)]
        return jax.nn.softmax(chain.forward(own, batch))

    weights = jax.device_put([one.weights for one in layers])
    return np.concatenate([forward(weights, batch) for batch in _batches(images)])


def _probabilities_as_trained(exported: Model, images: np.ndarray) -> np.ndarray:
    """Of each member, float32 `[members, n, classes]`."""
    predict = jax.jit(model.make_function(exported.members))
    variables = jax.device_put(exported.variables)
    found = [predict(variables, batch)[1] for batch in _batches(images)]
    return np.concatenate(found, axis=1)


def _batches(images: np.ndarray) -> list[np.ndarray]:
    return [images[i : i + _BATCH] for i in range(0, len(images), _BATCH)]


def percent(part: float) -> str:
    """As the page and the command say it."""
    return f"{100 * part:.2f} %"
