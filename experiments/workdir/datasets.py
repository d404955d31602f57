"""The data set that a config names: of images, sentences, or positions of Go."""

from typing import Any

import numpy as np

from experiments.workdir.config import Config
from experiments.workdir.records import TrainedOn
from mnist_jax import data
from mnist_jax.data import Dataset, positions, sentences
from mnist_jax.data.names import NOT_CHARACTERS, PACKAGED, PictureKind


def load(
    config: Config,
    about: TrainedOn | None = None,
    name: str | None = None,
    data_dir: str | None = None,
) -> Dataset:
    """Load it, split as in training.

    Args:
        about: what the networks were trained on, whose classes and words are taken; None for new
            networks.
        name: of another data set than the config's; or
        data_dir: where another one lies.

    Raises:
        ValueError, DataError, DataUnavailable: as `data.load`, `data.sentences.load` and
            `data.positions.load`.
    """
    same = name in (None, config.dataset)
    validation = config.validation if same else None
    if name is None and data_dir is None:
        data_dir = config.data_dir
    name = name or name_of(config, data_dir)
    class_names = None if about is None else about.class_names
    if config.reads_positions:
        size = None if about is None else about.image_shape[0]
        return positions.load(name, data_dir, validation=validation, size=size)
    if not config.reads_sentences:
        return data.load(
            name,
            data_dir,
            validation=validation,
            class_names=class_names,
            picture_kind=config.picture_kind,
        )
    return sentences.load(
        name,
        data_dir,
        validation=validation,
        encoding=config.encoding,
        class_names=class_names,
        vocabulary=None if about is None else about.vocabulary,
    )


def name_of(config: Config, data_dir: str | None) -> str:
    """The name of the data where `data_dir` says, which may be others than the config's."""
    if data_dir in (None, config.data_dir) or config.dataset not in PACKAGED:
        return config.dataset
    return "auto"  # whatever is there, and not what comes with the package


def picture_kind(about: TrainedOn) -> PictureKind:
    """What pictures in folders are to such networks.

    Fashion-MNIST and KMNIST, auto, were made light on black, which photographs of them are not.
    """
    if about.characters:
        return "characters"
    made = [data.CLASS_NAMES[name] for name in NOT_CHARACTERS]
    return "auto" if about.class_names in made else "photographs"


def load_test(trained: Any, path: str) -> np.ndarray:
    """The test sentences or positions of any other data, as `trained`, of `trained.load`, takes
    them.

    Raises:
        ValueError, DataError: as `data.sentences.load_test` and `data.positions.load`.
    """
    if trained.config.reads_positions:
        size = trained.image_shape[0]
        return positions.load(data_dir=path, validation=0, size=size).test.inputs
    about = trained.trained_on
    return sentences.load_test(path, about.vocabulary, about.cased, trained.config.encoding)
