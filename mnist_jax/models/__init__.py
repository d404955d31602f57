"""The networks, by name."""

import numbers
from collections.abc import Mapping
from difflib import get_close_matches
from types import NoneType, UnionType
from typing import Any, NamedTuple, get_args, get_type_hints

import flax.linen as nn
import jax
import jax.numpy as jnp

from mnist_jax.go.planes import COUNT, unpack
from mnist_jax.models.alexnet import AlexNet
from mnist_jax.models.convnetjs import ConvNetJS
from mnist_jax.models.deep import Deep
from mnist_jax.models.fast import Fast
from mnist_jax.models.googlenet import GoogLeNet
from mnist_jax.models.layers import Layers
from mnist_jax.models.lenet5 import LeNet5
from mnist_jax.models.policy import Policy
from mnist_jax.models.resnet import DEPTHS, STAGES, ResNet
from mnist_jax.models.sentence import VARIANTS, SentenceCNN
from mnist_jax.models.simple import Simple
from mnist_jax.training import Decode, to_float

_NETWORKS: Mapping[str, tuple[type[nn.Module], Mapping[str, Any]]] = {  # fields that the name sets
    "simple": (Simple, {}),
    "deep": (Deep, {}),
    "layers": (Layers, {}),
    "fast": (Fast, {}),
    "lenet5": (LeNet5, {}),
    "convnetjs": (ConvNetJS, {}),
    "alexnet": (AlexNet, {}),
    "googlenet": (GoogLeNet, {}),
    **{f"resnet{depth}": (ResNet, {"depth": depth}) for depth in DEPTHS},
    "sentence": (SentenceCNN, {}),
    "policy": (Policy, {}),
}


OF_SENTENCES = ("sentence",)  # they take tokens, int32 `[n, length]`
OF_POSITIONS = ("policy",)  # they take planes, float32 `[n, size, size, 48]`
NAMES = tuple(n for n in _NETWORKS if n not in OF_SENTENCES + OF_POSITIONS)  # they take images
LABS = ("simple", "deep", "layers", "fast")  # made for 28x28 grey images


class Published(NamedTuple):
    """What a network was published for."""

    image_shape: tuple[int, ...]  # height, width, channels; of sentences, how many tokens
    num_classes: int


_DIGITS, _IMAGENET = Published((28, 28, 1), 10), Published((224, 224, 3), 1000)
PUBLISHED: Mapping[str, Published] = {
    **dict.fromkeys((*LABS, "convnetjs"), _DIGITS),
    "lenet5": Published((32, 32, 1), 10),
    "alexnet": Published((227, 227, 3), 1000),  # the paper's 224 does not fit its own numbers
    "googlenet": _IMAGENET,
    **{
        f"resnet{depth}": _IMAGENET if depth in STAGES else Published((32, 32, 3), 10)
        for depth in DEPTHS
    },
    "sentence": Published((64,), 2),  # the longest sentence of MR, and padding
    "policy": Published((19, 19, COUNT), 361),
}
_KINDS: Mapping[Any, tuple[str, type]] = {  # of fields: in words, and what they take
    bool: ("True or False", bool),
    int: ("a whole number", numbers.Integral),
    float: ("a number", numbers.Real),
    tuple[float, ...]: ("a tuple of numbers, one a channel", tuple),
}
_NO_OPTIONS = {"num_classes", "parent", "name", "axis_name", "axis_index_groups"}


def create(name: str, num_classes: int = 10, **options: Any) -> nn.Module:
    """Make a network.

    Args:
        name: one of `NAMES`, `OF_SENTENCES` or `OF_POSITIONS`.
        num_classes: how many logits it gives an input; at least 2.
        options: the network's own fields, such as `dropout_rate`; all have `dtype`, what they
            compute in (default float32; parameters are always float32), and those of
            `ImageNetwork`.

    Returns:
        A linen module: `init(rngs, images, train=False)` and
        `apply(variables, images, train=..., rngs={"dropout": key})` map float32
        `[n, height, width, channels]` in [0, 1], int32 tokens `[n, length]`, or a board's planes,
        to float32 logits `[n, num_classes]`.

    Raises:
        ValueError: an unknown name, option or variant, an option of another kind than the field,
            `num_classes` below 2, `dropout_rate` outside [0, 1), a negative `conv_stddev`,
            `image_size` below 1, `filters` below 1, `planes` not from 1 to 48, a negative
            `rubbish`, or one with `dense`.
    """
    if name not in _NETWORKS:
        near = get_close_matches(name, list(_NETWORKS), n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"name {name!r} is no network; there are {', '.join(NAMES)}.{hint}")
    if num_classes < 2:
        raise ValueError(f"num_classes must be at least 2, not {num_classes}.")
    network, set_by_name = _NETWORKS[name]
    known = sorted(network.__dataclass_fields__.keys() - _NO_OPTIONS - set_by_name.keys())
    for option in options:
        if option not in known:
            takes = ", ".join(known) or "none"
            raise ValueError(f"network {name!r} has no option {option!r}; its options: {takes}.")
    _check_kinds(network, options)
    if not 0 <= options.get("dropout_rate", 0) < 1:
        raise ValueError(f"dropout_rate must be in [0, 1), not {options['dropout_rate']}.")
    if options.get("variant", "rand") not in VARIANTS:
        raise ValueError(f"variant must be one of {', '.join(VARIANTS)}, not {options['variant']}.")
    if options.get("conv_stddev", 0) < 0:
        raise ValueError(f"conv_stddev must not be negative, but is {options['conv_stddev']}.")
    if options.get("image_size") is not None and options["image_size"] < 1:
        raise ValueError(f"image_size must be at least 1, not {options['image_size']}.")
    if options.get("filters", 1) < 1:
        raise ValueError(f"filters must be at least 1, not {options['filters']}.")
    if (options.get("rubbish") or 0) < 0:
        raise ValueError(f"rubbish must not be negative, but is {options['rubbish']}.")
    if options.get("dense") and options.get("rubbish") is not None:
        raise ValueError(f"{name} with dense=True has no distances, and so no rubbish.")
    if not 1 <= options.get("planes", 1) <= COUNT:
        raise ValueError(f"planes must be from 1 to {COUNT}, not {options['planes']}.")
    return network(num_classes=num_classes, **set_by_name, **options)


def decode_of(name: str) -> Decode:
    """What makes stored inputs into those that a network takes."""
    return unpack if name in OF_POSITIONS else to_float


def check_size(name: str, network: nn.Module, image_shape: tuple[int, ...]) -> None:
    """See that a network of `NAMES` takes images of a shape; those it was published for it does.

    Raises:
        ValueError: it does not, as too small ones.
    """
    scales = getattr(network, "image_size", None) is not None
    if scales or image_shape != PUBLISHED[name].image_shape:
        images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
        jax.eval_shape(network.init, jax.random.key(0), images)


def _check_kinds(network: type[nn.Module], options: Mapping[str, Any]) -> None:
    """Raise ValueError for options such as `dense="maybe"`, which only counts as true."""
    hints = get_type_hints(network)
    for option, value in options.items():
        hint = hints[option]
        kinds = get_args(hint) if isinstance(hint, UnionType) else (hint,)
        if option == "dtype":
            _check_dtype(value)
        elif value is None and NoneType in kinds:
            continue
        for kind, (words, accepted) in _KINDS.items():
            is_bool_for_number = isinstance(value, bool) and kind is not bool
            if kind in kinds and (is_bool_for_number or not isinstance(value, accepted)):
                raise ValueError(f"{option} must be {words}, not {value!r}.")


def _check_dtype(value: Any) -> None:
    try:
        is_float = jnp.issubdtype(jnp.dtype(value), jnp.floating)
    except TypeError:
        is_float = False
    if not is_float:
        raise ValueError(f"dtype must be float32, bfloat16 or another of floats, not {value!r}.")
