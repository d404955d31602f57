"""`sentence`: Kim's network for sentences, in its four variants."""

from typing import Any, Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.typing import Dtype, Initializer
from jax import Array
from jax.typing import ArrayLike

from mnist_jax.layers import Dense, Dropout
from mnist_jax.word_windows import maxima

Variant = Literal["rand", "static", "non-static", "multichannel"]
VARIANTS: tuple[str, ...] = get_args(Variant)
WIDTH = 300  # of the vectors of `rand`, as of word2vec's
UNIFORM = 0.25  # random vectors lie between this and its negative
FIXED, TRAINED = "fixed", "trained"  # the two tables of vectors
OUTPUT = "output"  # the layer whose weights' norm is limited


class SentenceCNN(nn.Module):
    """Word vectors; convolutions over 3, 4 and 5 words, 100 maps each; relu; maximum over time;
    dropout; softmax.

    Maps int32 tokens `[n, length]`, 0 for padding, to logits `[n, num_classes]`. With `train` an
    rng named `"dropout"` is needed. Parameters beside the vectors: 360,902 of 300-d vectors and two
    classes.

    The variants differ in their vectors, tables of `[words, width]` that begin as random values or
    are set by `set_vectors`: `rand` and `non-static` have one, `trained`; `static` has one,
    `fixed`; `multichannel` both, and the same filters go over both and are added, which is the same
    as filters over the sum of both. `fixed` has no gradient.

    Dropout leaves out and does not scale in training; in use the maxima are multiplied by the
    probability of being kept. With that the limit on the weights' norm is the paper's.

    Source: Kim 2014, "Convolutional Neural Networks for Sentence Classification"; initial values
    as in github.com/yoonkim/CNN_sentence.
    """

    num_classes: int = 2
    words: int = 2
    width: int = WIDTH
    variant: Variant = "rand"
    windows: tuple[int, ...] = (3, 4, 5)
    maps: int = 100
    dropout_rate: float = 0.5
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, tokens: Array, train: bool = False) -> Array:
        tables = {"static": [FIXED], "multichannel": [FIXED, TRAINED]}.get(self.variant, [TRAINED])
        vectors = [WordVectors(self.words, self.width, name=name)(tokens) for name in tables]
        if FIXED in tables:
            vectors[0] = jax.lax.stop_gradient(vectors[0])
        x = sum(vectors[1:], vectors[0]).astype(self.dtype)
        x = nn.relu(WordWindows(self.windows, self.maps, name="windows")(x))
        x = Dropout(self.dropout_rate)(x, train) * (1 - self.dropout_rate)
        zeros = nn.initializers.zeros
        output = Dense(self.num_classes, kernel_init=zeros, bias_init=zeros, name=OUTPUT)
        return output(x).astype(jnp.float32)


class WordVectors(nn.Module):
    """A table of vectors; parameter `vectors`, float32 `[words, width]`, row 0 zero."""

    words: int
    width: int

    @nn.compact
    def __call__(self, tokens: Array) -> Array:
        shape = (self.words, self.width)
        return self.param("vectors", _random_vectors, shape, jnp.float32)[tokens]


class WordWindows(nn.Module):
    """Convolutions over words, their maximum over time: `[n, length, width]` to `[n, maps]`.

    Parameters: of each size of window `kernel_SIZE`, float32 `[size, width, maps]`, and of all
    `bias`. The places of the maxima are sown into the collection `intermediates` as `places`, those
    values as `maxima`.
    """

    windows: tuple[int, ...]
    maps: int

    @nn.compact
    def __call__(self, vectors: Array) -> Array:
        width = vectors.shape[-1]
        kernels = [
            self.param(
                f"kernel_{size}", _uniform(0.01), (size, width, self.maps), jnp.float32
            ).astype(vectors.dtype)
            for size in self.windows
        ]
        count = self.maps * len(self.windows)
        bias = self.param("bias", nn.initializers.zeros, (count,), jnp.float32)
        values, places = maxima(vectors, kernels)
        self.sow("intermediates", "places", places)
        values = values + bias.astype(values.dtype)
        self.sow("intermediates", "maxima", values)
        return values


def _uniform(bound: float) -> Initializer:
    def init(key: Array, shape: tuple[int, ...], dtype: Dtype = jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def _random_vectors(key: Array, shape: tuple[int, ...], dtype: Dtype = jnp.float32) -> Array:
    return _uniform(UNIFORM)(key, shape, dtype).at[0].set(0)


def set_vectors(params: Any, rows: ArrayLike, known: ArrayLike) -> Any:
    """New parameters whose tables begin with word vectors.

    Random vectors of words without one are scaled to the deviation of those that are known, as in
    the paper.

    Args:
        params: of one member or stacked, as `init` has made them.
        rows: float32 `[words, width]`, a vector a word.
        known: bool `[words]`, which words have one.

    Raises:
        ValueError: vectors of another shape than the tables.
    """
    rows, known = np.asarray(rows, np.float32), np.asarray(known, bool)
    scale = float(rows[known].std()) * 3**0.5 / UNIFORM
    new = dict(params)
    for name in {FIXED, TRAINED} & new.keys():
        table = new[name]["vectors"]
        if table.shape[-2:] != rows.shape:
            raise ValueError(f"vectors must be {table.shape[-2:]}, not {rows.shape}.")
        new[name] = {"vectors": jnp.where(known[:, None], rows, table * scale)}
    return new
