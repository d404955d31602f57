"""A training as one file, to be downloaded and to go on from: NumPy's .npz, without pickles."""

import dataclasses
import io
import json
import zipfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, get_args

import jax
import numpy as np

from experiments.live_page import choices
from experiments.live_page.setting import Setting
from experiments.workdir.config import Config
from experiments.workdir.progress import Progress
from mnist_jax import ensemble, training
from mnist_jax.models import convnetjs
from mnist_jax.training import TrainState

KIND = "mnist_jax live snapshot 1"
_ABOUT = "about.json"
_OPTIONS = {(config.network, config.network_options) for config, _ in choices.presets().values()}
_NETWORKS = {network for network, _ in _OPTIONS}
# Of a config, those that say nothing about the machine it was made on.
_FIELDS = (
    *("network", "members", "seed", "data_seed", "shuffles", "augment", "normalize"),
    *("network_options", "dropout", "conv_stddev", "epochs", "batch_size", "optimizer"),
    *("learning_rate", "beta1", "beta2", "weight_decay", "dataset"),
)


class Snapshot(NamedTuple):
    """What a file says; whether its arrays fit is seen by `restore`."""

    config: Config
    progress: Progress
    arrays: dict[str, np.ndarray]


def write(setting: Setting, state: TrainState, now: Progress) -> bytes:
    """The file's content; `state` is on the host."""
    config = {name: getattr(setting.config, name) for name in _FIELDS}
    about = {
        "kind": KIND,
        "config": config,
        "progress": now._asdict(),
        "data": setting.fingerprint,
    }
    leaves = jax.tree.leaves(state)
    arrays = {f"{i:04}": leaf for i, leaf in enumerate(leaves)}
    arrays[_ABOUT] = np.frombuffer(json.dumps(about).encode(), np.uint8)
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, **arrays)
    return content.getvalue()


def read(path: Path) -> Snapshot:
    """Read a file that anybody may have made.

    Raises:
        ValueError: it is none of this page's, or is damaged.
    """
    try:
        _check_size(path)
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        about = json.loads(arrays.pop(_ABOUT).tobytes())
        if about["kind"] != KIND:
            raise ValueError(f"it is of another kind, {str(about['kind'])[:40]!r}")
        config = _config(about["config"])
        return Snapshot(config, _progress(about["progress"], config), arrays)
    except Exception as error:  # whatever a damaged file makes of the readers
        reason = str(error).partition("\n")[0][:200].rstrip(".") or type(error).__name__
        raise ValueError(f"This file is no snapshot of this page: {reason}.") from None


def restore(snapshot: Snapshot, setting: Setting) -> TrainState:
    """The state on the host, as the setting's members have it.

    Raises:
        ValueError: arrays that are not those of such members, or not finite.
    """
    like = jax.eval_shape(
        partial(
            ensemble.init_state,
            setting.stack.network,
            setting.optimizer,
            input_=training.input_of(setting.dataset.train.inputs),
        ),
        np.asarray(setting.stack.seeds, np.uint32),
    )
    wanted, structure = jax.tree.flatten(like)
    names = [f"{i:04}" for i in range(len(wanted))]
    if sorted(snapshot.arrays) != names:
        raise ValueError("This snapshot's arrays are not those of its network.")
    leaves = [snapshot.arrays[name] for name in names]
    for leaf, shape in zip(leaves, wanted, strict=True):
        if leaf.shape != shape.shape or leaf.dtype != shape.dtype:
            raise ValueError(
                f"This snapshot has an array of {leaf.shape} where its network has {shape.shape}."
            )
        if leaf.dtype.kind == "f" and not np.isfinite(leaf).all():
            raise ValueError("This snapshot has NaN or infinite weights.")
    state: TrainState = jax.tree.unflatten(structure, leaves)
    return state


def _check_size(path: Path) -> None:
    """See that unpacking needs no more memory than the file takes."""
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
                raise ValueError("its arrays are compressed, which this page never does")


def _config(values: Mapping[str, Any]) -> Config:
    """A config of values that may be anything."""
    if set(values) != set(_FIELDS):
        raise ValueError("its config has other fields")
    numbers = {name: values[name] for name in choices.RANGES if values[name] is not None}
    types = Config.__annotations__
    for name in ("optimizer", "augment", "normalize", "shuffles"):
        if values[name] not in get_args(types[name]):
            raise ValueError(f"its {name} is {str(values[name])[:40]!r}")
    if values["network"] not in _NETWORKS:
        raise ValueError(f"its network is {str(values['network'])[:40]!r}")
    if values["dataset"] not in (*choices.DATASETS, "auto"):  # the page begins with that
        raise ValueError(f"its data set is {str(values['dataset'])[:40]!r}")
    for name in ("seed", "data_seed"):
        if not isinstance(values[name], int):
            raise ValueError(f"its {name} is no whole number")
    options = values["network_options"]
    if options is not None and (values["network"], options) not in _OPTIONS:
        prefix, _, layers = str(options).partition("=")
        if prefix != "layers" or values["network"] != "convnetjs":
            raise ValueError("its network has options that are not known here")
        convnetjs.parse(layers)
    config = Config(**values)
    return dataclasses.replace(config, **choices.read_numbers(numbers, config))


def _progress(values: Mapping[str, Any], config: Config) -> Progress:
    now = Progress(**values)
    counts = now.epochs, now.steps, now.images, now.epoch_images
    if not all(isinstance(count, int) and count >= 0 for count in counts):
        raise ValueError("its progress is no count of steps")
    if len(now.losses) != config.members or len(now.history) != now.epochs:
        raise ValueError("its progress is of other members")
    return now
