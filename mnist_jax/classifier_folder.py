"""The folder that keeps a fitted `Classifier`, which `experiments.predict` and `evaluate` read too.

`config.json`, `dataset.json` and `checkpoints/` are those of a run of `experiments.run` with the
same network and members; `classifier.json` is what the estimator needs beside them.
"""

import contextlib
import json
import logging
from collections.abc import Iterator
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from mnist_jax import ensemble, models, parallel, pretrained, training, weights_file
from mnist_jax.training import Variables

_CONFIG = "config.json"
_DATASET = "dataset.json"
_CLASSIFIER = "classifier.json"
_CHECKPOINTS = "checkpoints"
# Also in place of the SHA-256 of a data set: it is like no other, so that going on with training is
# refused, and evaluating on what may have been trained on.
_DATA = "images given to Classifier.fit"
_SAME_NAME = (  # in the constructor and in the config
    *("network", "members", "seed", "epochs", "batch_size", "learning_rate"),
    *("optimizer", "schedule", "weight_decay", "ema", "augment"),
)
# A network's options that the config has fields for; `_MOMENTS` are in dataset.json, and others in
# the config's network_options.
_OPTIONS = {"dropout_rate": "dropout", "conv_stddev": "conv_stddev", "image_size": "image_size"}
_MOMENTS = ("mean", "stddev")
_NO_OPTIONS = {"num_classes", "parent", "name"}


class Fitted(NamedTuple):
    """What `fit` has made."""

    arguments: dict[str, Any]  # of the constructor
    classes: np.ndarray
    image_shape: tuple[int, ...]  # height, width, channels
    variables: Variables  # NumPy, [members, ...]
    losses: np.ndarray  # float32 [members, steps]
    epochs: int
    scores: list[float]  # of each epoch, or none
    feature_names: list[str] | None


@parallel.as_written
def write(folder: str | PathLike[str], fitted: Fitted) -> None:
    """Write everything into a new or empty folder.

    Raises:
        ValueError: the folder exists and is not empty, the network is none of `models.NAMES`, or
            labels that are no numbers, bools or strings.
        OSError: the folder cannot be written.
    """
    from mnist_jax.checkpoints import Checkpoints  # takes a second to import

    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"folder {folder} exists and is not an empty folder.")
    name, options = _name(fitted.arguments["network"], len(fitted.classes))
    arguments = {key: _plain(value) for key, value in fitted.arguments.items()}
    arguments["network"] = name
    known = {
        "arguments": arguments,
        "network_options": options,
        "classes": _classes_as_json(fitted.classes),
        "losses": fitted.losses.tolist(),
        "epochs": fitted.epochs,
        "scores": fitted.scores,
        "feature_names": fitted.feature_names,
    }
    class_names = [str(value) for value in known["classes"]["values"]]
    characters = all(len(name) == 1 for name in class_names)
    characters = characters and fitted.image_shape == training.IMAGE.shape
    dataset: dict[str, Any] = {"name": "own", "source": _DATA}
    dataset |= {"class_names": class_names, "characters": characters}
    dataset |= {"image_shape": fitted.image_shape}
    dataset |= {option: options.get(option) for option in _MOMENTS}
    config = {key: arguments[key] for key in _SAME_NAME}
    config |= {"data_seed": arguments["seed"]}
    config |= {field: options[option] for option, field in _OPTIONS.items() if option in options}
    others = options.keys() - {*_OPTIONS, *_MOMENTS}
    if others:
        config["network_options"] = ",".join(f"{o}={options[o]}" for o in sorted(others))
    members, steps = fitted.losses.shape
    progress = {"epochs": fitted.epochs, "steps": 0, "losses": [[]] * members, "history": []}
    progress |= {"images": 0, "train_seconds": 0.0}
    details = {"config": config, "fingerprint": _DATA, "progress": progress}
    parallel.claim_cpu_cores(members)  # before Orbax starts JAX
    optimizer = _make_optimizer(arguments)
    begun = jax.vmap(partial(training.state_of, optimizer))(fitted.variables)
    state = jax.tree.map(np.asarray, begun._replace(step=jnp.full(members, steps)))
    folder.mkdir(parents=True, exist_ok=True)
    with Checkpoints(folder / _CHECKPOINTS) as checkpoints:
        checkpoints.save(steps, {name: state}, details)
    _write_json(folder / _CONFIG, config)
    _write_json(folder / _DATASET, dataset)
    _write_json(folder / _CLASSIFIER, known)  # the last: it says that all is there


@parallel.as_written
def read(folder: str | PathLike[str]) -> Fitted:
    """What `write` has written.

    Raises:
        ValueError: the folder is none that `write` has made.
        CheckpointError: its checkpoint is damaged.
    """
    from mnist_jax.checkpoints import Checkpoints  # takes a second to import

    folder = Path(folder)
    try:
        known = json.loads((folder / _CLASSIFIER).read_text())
        arguments, options = known["arguments"], known["network_options"]
        classes = np.array(known["classes"]["values"], known["classes"]["dtype"])
        losses = np.array(known["losses"], np.float32)
        epochs, scores, columns = known["epochs"], known["scores"], known["feature_names"]
        dataset = json.loads((folder / _DATASET).read_text())
        image_shape = tuple(dataset.get("image_shape", training.IMAGE.shape))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder} is no folder that Classifier.save has made: {error}") from None
    parallel.claim_cpu_cores(arguments["members"])  # before Orbax starts JAX
    name = arguments["network"]
    options = {key: tuple(v) if isinstance(v, list) else v for key, v in options.items()}
    network = models.create(name, len(classes), **options)
    input_ = jax.ShapeDtypeStruct(image_shape, jnp.float32)
    init = partial(ensemble.init_state, network, _make_optimizer(arguments), input_=input_)
    like = jax.eval_shape(init, np.arange(arguments["members"], dtype=np.uint32))
    with _quiet(), Checkpoints(folder / _CHECKPOINTS, read_only=True) as checkpoints:
        saved = checkpoints.restore({name: like})
    if saved is None:
        raise ValueError(f"{folder / _CHECKPOINTS} holds no checkpoint.")
    if options:
        arguments["network"] = network
    state = saved.state[name]
    variables = training.variables_of(state.params, state.batch_stats)
    return Fitted(arguments, classes, image_shape, variables, losses, epochs, scores, columns)


def read_pretrained() -> Fitted:
    """The networks that come with the package."""
    config = json.loads((pretrained.FOLDER / _CONFIG).read_text())
    about = json.loads((pretrained.FOLDER / _DATASET).read_text())
    weights = weights_file.read(epath.Path(pretrained.FOLDER / weights_file.NAME))
    arguments = {key: config[key] for key in _SAME_NAME}
    labels = np.array([int(name) for name in about["class_names"]])
    no_losses = np.empty((config["members"], 0), np.float32)
    variables = weights.variables[config["network"]]
    shape = tuple(about["image_shape"])
    return Fitted(arguments, labels, shape, variables, no_losses, config["epochs"], [], None)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without Orbax's warnings that it only reads."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _name(network: str | nn.Module, num_classes: int) -> tuple[str, dict[str, Any]]:
    """A network's name in `models.NAMES`, and the options that make it, as JSON has them."""
    if isinstance(network, str):
        return network, {}
    for name in models.NAMES:
        made = models.create(name, num_classes)
        if type(made) is not type(network):
            continue
        fields = made.__dataclass_fields__.keys() - _NO_OPTIONS
        pairs = {field: (getattr(network, field), getattr(made, field)) for field in fields}
        options = {field: value for field, (value, default) in pairs.items() if value != default}
        if "dtype" in options:
            options["dtype"] = jnp.dtype(options["dtype"]).name
            network = network.clone(dtype=options["dtype"])
        with contextlib.suppress(ValueError):  # it has no such option
            if models.create(name, num_classes, **options) == network:
                return name, {option: _plain(value) for option, value in options.items()}
    raise ValueError(
        f"network must be one of {', '.join(models.NAMES)} to be saved in a folder, not "
        f"{type(network).__name__}; pickle and joblib keep others too."
    )


def _make_optimizer(arguments: dict[str, Any]) -> Any:
    """The optimizer, for its state's structure."""
    return training.make_optimizer(
        arguments["learning_rate"],
        1,
        arguments["optimizer"],
        arguments["schedule"],
        arguments["weight_decay"],
        ema=arguments["ema"],
    )


def _classes_as_json(classes: np.ndarray) -> dict[str, Any]:
    values = classes.tolist()
    if not all(isinstance(value, bool | int | float | str) for value in values):
        raise ValueError(f"labels must be numbers, bools or strings to be saved, not {values[:3]}.")
    return {"dtype": classes.dtype.str, "values": values}


def _plain(value: Any) -> Any:
    """NumPy's numbers as Python's, which JSON knows."""
    return value.item() if isinstance(value, np.generic) else value


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")
