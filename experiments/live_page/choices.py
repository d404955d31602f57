"""What the page's menus offer, and what may be asked for by a form: from JSON to a `Config`."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NamedTuple, get_args

from experiments.workdir import config as configs
from experiments.workdir.config import Config
from mnist_jax import models
from mnist_jax.data.names import shape_of
from mnist_jax.models import convnetjs

MOST_MEMBERS = 8
DATASETS = ("mnist", "mnist5k", "fashion_mnist", "kmnist", "emnist/letters", "cifar10")
OPTIMIZERS = get_args(Config.__annotations__["optimizer"])
ADJUSTED = ("learning_rate", "beta1", "weight_decay", "batch_size", "dropout")


class Range(NamedTuple):
    """Numbers that a field takes."""

    least: float
    most: float  # itself too, unless the field ends below it
    ends_below: bool = False
    whole: bool = False


RANGES = {
    "members": Range(1, MOST_MEMBERS, whole=True),
    "epochs": Range(1, 1000, whole=True),
    "batch_size": Range(1, 2000, whole=True),
    "learning_rate": Range(1e-9, 100),
    "beta1": Range(0, 1, ends_below=True),
    "weight_decay": Range(0, 10),
    "dropout": Range(0, 1, ends_below=True),
}
_TITLES = {"beta1": "momentum"}


def presets() -> dict[str, tuple[Config, str]]:
    """The networks of the menu with their configs, as they train on the page, and a line each."""
    ready = {name: configs.get(name) for name in configs.names()}
    found = {name: pair for name, pair in ready.items() if _reads_images(pair[0])}
    small: Any = found["resnet20"][0]
    for name in ("resnet32", "resnet44"):
        text = f"He et al.'s ResNet-{name[-2:]}, with the same recipe."
        found[name] = dataclasses.replace(small, network=name), text
    return {name: (_for_page(config), text) for name, (config, text) in found.items()}


def _reads_images(config: Config) -> bool:
    return not (config.reads_sentences or config.reads_positions)


def _for_page(config: Config) -> Config:
    """With a constant learning rate, which is changed by hand, and with validation images."""
    rate = config.learning_rate / 10 if config.schedule == "onecycle" else config.learning_rate
    return dataclasses.replace(config, schedule="constant", learning_rate=rate, validation=None)


def menus() -> dict[str, Any]:
    """All that the page needs to know to offer it, as JSON can hold it."""
    return {
        "presets": {
            name: fields(config) | {"text": text} for name, (config, text) in presets().items()
        },
        "datasets": DATASETS,
        "optimizers": OPTIMIZERS,
        "ranges": {name: span._asdict() for name, span in RANGES.items()},
    }


def fields(config: Config) -> dict[str, Any]:
    """What a form shows of a config."""
    shown = ("network", "members", "dataset", "optimizer", "epochs", *ADJUSTED)
    values = {name: getattr(config, name) for name in shown}
    values["dataset"] = "mnist" if config.dataset == "auto" else config.dataset
    if config.dropout is None:
        values["dropout"] = default_dropout(config)
    values["layers"] = layers_of(config)
    values["augment"] = config.augment
    return values


def default_dropout(config: Config) -> float | None:
    """The network's own probability; None where it has no such option."""
    network = type(models.create(config.network))
    return getattr(network, "dropout_rate", None)


def layers_of(config: Config) -> str | None:
    """The definition of a network that is defined by its layers; None of others."""
    if config.network != "convnetjs":
        return None
    return str(config.options.get("layers", convnetjs.MNIST))


def read_form(form: Mapping[str, Any]) -> Config:
    """The config that a form asks for.

    Args:
        form: `preset`, and values of `fields` that are to be others than the preset's.

    Raises:
        ValueError: an unknown name or field, or a value that a field does not take.
    """
    known = presets()
    preset = form.get("preset", "simple")
    if not isinstance(preset, str) or preset not in known:
        raise ValueError(f"preset must be one of {', '.join(known)}, not {preset!r}.")
    config, _ = known[preset]
    given = {name: value for name, value in form.items() if name != "preset"}
    changes: dict[str, Any] = {}
    for name in ("dataset", "optimizer"):
        if name in given:
            changes[name] = _one_of(
                name, given.pop(name), {"dataset": DATASETS, "optimizer": OPTIMIZERS}[name]
            )
    layers = given.pop("layers", None)
    if layers is not None:
        changes["network_options"] = _layers(config, layers)
    changes |= read_numbers(given, config)
    if shape_of(changes.get("dataset", config.dataset)) == (32, 32, 3):
        if config.network in models.LABS:
            raise ValueError(
                f"dataset {changes.get('dataset', config.dataset)} has images of 32 x 32 x 3, and "
                f"{config.network} is made for 28 x 28 x 1; resnet20 and convnetjs take both."
            )
        if config.augment == "handwriting":
            raise ValueError("the preset handwriting is for digits.")
    return dataclasses.replace(config, **changes)


def read_numbers(given: Mapping[str, Any], config: Config) -> dict[str, Any]:
    """Numbers for fields of a config.

    Raises:
        ValueError: an unknown field, no number, out of range, or dropout for a network without.
    """
    changes: dict[str, Any] = {}
    for name, value in given.items():
        if name not in RANGES:
            raise ValueError(f"{str(name)[:60]!r} is no field; there are {', '.join(RANGES)}.")
        if name == "dropout" and default_dropout(config) is None:
            if value is None:
                continue
            raise ValueError(f"dropout has no use: {config.network} has none.")
        changes[name] = _number(name, value)
    return changes


def _number(name: str, value: Any) -> int | float:
    span, title = RANGES[name], _TITLES.get(name, name.replace("_", " "))
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or (span.whole and value != int(value)):
        kind = "a whole number" if span.whole else "a number"
        raise ValueError(f"{title} must be {kind}, not {str(value)[:60]!r}.")
    if not span.least <= value <= span.most or (span.ends_below and value == span.most):
        most = f"below {span.most:g}" if span.ends_below else f"{span.most:g}"
        raise ValueError(f"{title} must be from {span.least:g} to {most}, not {value:g}.")
    return int(value) if span.whole else float(value)


def _one_of(name: str, value: Any, known: tuple[str, ...]) -> str:
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}, not {str(value)[:60]!r}.")
    return value


def _layers(config: Config, text: Any) -> str | None:
    if config.network != "convnetjs":
        raise ValueError(f"layers are for the presets convnetjs alone, not for {config.network}.")
    if not isinstance(text, str) or len(text) > 1000:
        raise ValueError("layers must be a text of at most 1,000 characters.")
    lines = [" ".join(part.split()) for part in text.replace("\n", ";").split(";")]
    joined = "; ".join(line for line in lines if line)
    convnetjs.parse(joined)
    return f"layers={joined}"
