"""The files of a workdir, except the checkpoints."""

import contextlib
import dataclasses
import io
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from etils import epath

from experiments.workdir import config as configs
from experiments.workdir.config import Config
from mnist_jax import data, pretrained
from mnist_jax.data import Dataset
from mnist_jax.data.sentences import Sentences

if TYPE_CHECKING:  # it imports JAX, which a mistyped command should not have to wait for
    from mnist_jax.parallel import Layout

_SAMPLE = 500  # images looked at
COPY = epath.Path("runs") / "pretrained"  # where the networks of the package are evaluated


class TrainedOn(NamedTuple):
    """What a run's data are, as far as its networks and their pictures depend on them."""

    class_names: tuple[str, ...]
    characters: bool  # as in `mnist_jax.data.Dataset`
    image_shape: tuple[int, ...] = (28, 28, 1)
    mean: tuple[float, ...] | None = None  # by channel, for networks that subtract it
    stddev: tuple[float, ...] | None = None  # by channel, for networks that divide by it
    # Of sentences, whose `image_shape` is the number of tokens:
    vocabulary: tuple[str, ...] = ()
    cased: bool = False  # as in `mnist_jax.data.sentences.Sentences`
    vector_width: int = 300
    # Of characters of 28 x 28:
    as_mnist: bool | None = None  # whether they lie as MNIST's do; None: trained before it was told
    dark: bool = False  # on light, and not as MNIST's


def begin_workdir(
    workdir: epath.Path, config: Config, name: str, source: str, about: TrainedOn
) -> None:
    """Make the folder, or take an empty one, and write config and data set into it.

    Args:
        name: the data set's.
        source: where that was found.

    Raises:
        ValueError: it exists and is not an empty folder, or it cannot be made or written to.
    """
    _check_name(workdir)
    if in_use(workdir):
        raise _in_use(workdir)
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        (workdir / "checkpoints").mkdir()  # only one of two runs that begin at once makes it
        write_dataset(workdir, name, source, about)
        # The last, since what has a config can be gone on with, whenever it is killed.
        write_json(workdir / "config.json", dataclasses.asdict(config))
    except FileExistsError:
        raise _in_use(workdir) from None
    except OSError as error:
        raise _not_writable(workdir, error) from error


def check_writable(workdir: epath.Path) -> None:
    """See that a run can go on in its folder, by writing its config once more.

    Raises:
        ValueError: the folder cannot be written to.
    """
    try:
        write_json(workdir / "config.json", dataclasses.asdict(read_config(workdir)))
    except OSError as error:
        raise _not_writable(workdir, error) from error


def in_use(path: epath.Path) -> bool:
    """Whether there is a file, or a folder that is not empty."""
    return path.exists() and (not path.is_dir() or any(path.iterdir()))


def make_workdir(wanted: epath.Path) -> epath.Path:
    """Make a folder of this name or, where there is one, with -2, -3, ... after it.

    Raises:
        ValueError: it cannot be made.
    """
    workdir, number = wanted, 1
    while True:
        try:
            workdir.mkdir(parents=True)  # of two runs that begin at once it fails for one
            return workdir
        except FileExistsError:
            number += 1
            workdir = wanted.parent / f"{wanted.name}-{number}"
        except OSError as error:
            raise _not_writable(workdir, error) from error


def _in_use(workdir: epath.Path) -> ValueError:
    return ValueError(
        f"--workdir {workdir} exists and is not an empty folder.\n"
        "Choose another, or go on with the run in it by --resume."
    )


def _not_writable(workdir: epath.Path, error: OSError) -> ValueError:
    return ValueError(f"--workdir {workdir} cannot be written: {error.strerror}.")


def identity(path: epath.Path) -> str:
    """The same name for a folder however it is given."""
    return str(path) if "://" in str(path) else os.path.realpath(path)


def is_pretrained(folder: epath.Path) -> bool:
    """Whether a folder is the one that comes with the package, however it is given."""
    return identity(folder) == identity(epath.Path(pretrained.FOLDER))


def copy_of_pretrained() -> epath.Path:
    """`COPY` with the networks that come with the package, to be evaluated there.

    Raises:
        ValueError: it cannot be written, or holds something else, which stays as it is.
    """
    ours = {name: (pretrained.FOLDER / name).read_bytes() for name in pretrained.FILES}
    try:
        if COPY.exists() and not _is_copy(COPY, ours):
            raise ValueError(
                f"{COPY} holds something else than the networks that come with mnist_jax.\n"
                "Give it as WORKDIR if you mean it, or another name so that they can be copied."
            )
        COPY.mkdir(parents=True, exist_ok=True)
        for name, content in ours.items():
            _write(COPY / name, content)
    except OSError as error:
        raise ValueError(
            f"{COPY} cannot be written: {error.strerror}.\nGo to a folder that can be written."
        ) from error
    return COPY


def _is_copy(folder: epath.Path, contents: Mapping[str, bytes]) -> bool:
    """Whether a folder has no other weights, and all files of these names have these contents."""
    return not (folder / "checkpoints").exists() and all(
        not (folder / name).exists() or (folder / name).read_bytes() == content
        for name, content in contents.items()
    )


def writable(folder: epath.Path) -> bool:
    """Whether a folder can be written, where that can be told beforehand: not of a bucket."""
    return not os.path.isdir(folder) or os.access(folder, os.W_OK)


def read_config(workdir: epath.Path) -> Config:
    """The config of a workdir.

    Raises:
        ValueError: the folder is none that `experiments.run` has made.
    """
    _check_name(workdir)
    try:
        return configs.from_json(json.loads((workdir / "config.json").read_text()))
    except (OSError, ValueError) as error:
        reason = str(error).rstrip(".")
        raise ValueError(f"{workdir} is no workdir of experiments.run: {reason}.") from None


def _check_name(workdir: epath.Path) -> None:
    """Orbax takes names in UTF-8 alone, and would report others as damage."""
    try:
        str(workdir.absolute()).encode()
    except UnicodeEncodeError:
        raise ValueError(
            f"{workdir}: the name has characters outside of {sys.getfilesystemencoding()}.\n"
            "Set PYTHONUTF8=1, or give the folder a name in UTF-8."
        ) from None


def trained_on(config: Config, dataset: Dataset) -> TrainedOn:
    """What a new run's networks depend on."""
    about = TrainedOn(dataset.class_names, dataset.characters, dataset.train.inputs.shape[1:])
    if dataset.characters:
        from mnist_jax import images  # SciPy takes a while to import
        from mnist_jax.data.pictures import are_on_paper

        some = dataset.train.inputs[:: -(-len(dataset.train.inputs) // _SAMPLE)]
        as_mnist = bool(images.are_as_mnist(some).mean() > 0.5)
        about = about._replace(as_mnist=as_mnist, dark=not as_mnist and are_on_paper(some))
    if isinstance(dataset, Sentences):
        return about._replace(vocabulary=dataset.vocabulary, cased=dataset.cased)
    if config.normalize == "none":
        return about
    mean, stddev = data.statistics(dataset.train)
    if config.normalize == "mean":
        stddev = (1.0,) * len(mean)
    # A channel of one value only, as pictures of two colours have, becomes 0.
    return about._replace(mean=mean, stddev=tuple(deviation or 1.0 for deviation in stddev))


def write_dataset(workdir: epath.Path, name: str, source: str, about: TrainedOn) -> None:
    """Write the data set's name, source and what networks depend on, as `dataset.json`.

    The vocabulary of sentences is beside it, as `vocabulary.txt`: the word of each token a line, an
    empty one for padding.
    """
    content: dict[str, Any] = {"name": name, "source": source} | about._asdict()
    del content["vocabulary"]
    if about.vocabulary:
        _write(workdir / "vocabulary.txt", ("\n".join(about.vocabulary) + "\n").encode())
        content["words"] = len(about.vocabulary)
    write_json(workdir / "dataset.json", content)


def read_dataset(workdir: epath.Path, config: Config) -> TrainedOn:
    """What a workdir's networks were trained on; of a run before there was `dataset.json`, what
    the name in its config tells.

    Raises:
        ValueError: the file is damaged.
    """
    path = workdir / "dataset.json"
    if not path.exists() and config.input_is == "image":
        return TrainedOn(config.class_names, config.dataset in ("auto", "mnist", "mnist5k"))
    try:
        content = json.loads(path.read_text())
        about = trained_on_of(content)
        if "words" in content:
            vocabulary = _read_vocabulary(workdir / "vocabulary.txt", content["words"])
            about = about._replace(vocabulary=vocabulary)
        if bool(about.vocabulary) != config.reads_sentences:
            has = "words" if about.vocabulary else "no words"
            raise ValueError(f"there are {has} for networks of {config.input_is}s")
        return about
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged: {error}.") from None


def trained_on_of(content: dict[str, Any]) -> TrainedOn:
    """What JSON has kept of one.

    Raises:
        TypeError: too little of it.
        ValueError: values that it cannot have.
    """
    known = {name: content[name] for name in TrainedOn._fields if name in content}
    values: Any = {name: tuple(v) if isinstance(v, list) else v for name, v in known.items()}
    about = TrainedOn(**values)
    dims = 1 if about.vocabulary or "words" in content else 3
    fits = {
        "class_names": _are(str, about.class_names) and len(about.class_names) > 1,
        "characters": isinstance(about.characters, bool),
        "image_shape": _are(int, about.image_shape)
        and len(about.image_shape) == dims
        and min(about.image_shape) > 0,
        "mean": about.mean is None or _are(int | float, about.mean),
        "stddev": (about.stddev is None) == (about.mean is None)
        and (about.stddev is None or _are(int | float, about.stddev)),
        "vocabulary": _are(str, about.vocabulary),
        "cased": isinstance(about.cased, bool),
        "vector_width": _are(int, (about.vector_width,)) and about.vector_width > 0,
        "as_mnist": isinstance(about.as_mnist, bool | None),
        "dark": isinstance(about.dark, bool),
    }
    for name, is_right in fits.items():
        if not is_right:
            raise ValueError(f"{name} cannot be {json.dumps(content.get(name))[:60]}")
    return about


def _are(kind: Any, values: Any) -> bool:
    """Whether something is a tuple of values of a type."""
    return isinstance(values, tuple) and all(
        isinstance(value, kind) and not isinstance(value, bool) for value in values
    )


def read_source(workdir: epath.Path, config: Config) -> tuple[str, str]:
    """The name of a workdir's data set, and where it was found, as far as that is known."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        content = json.loads((workdir / "dataset.json").read_text())
        return str(content["name"]), str(content["source"])
    return config.dataset, "not known"


def _read_vocabulary(path: epath.Path, count: int) -> tuple[str, ...]:
    words = tuple(path.read_text().split("\n")[:-1])
    if len(words) != count:
        raise ValueError(f"{path.name} has {len(words):,} words, not {count:,}")
    return words


def read_threshold(workdir: epath.Path) -> float | None:
    """The entropy above which a workdir's members are unsure; None where there is none."""
    for name in ("evaluation.json", "results.json"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            return float(json.loads((workdir / name).read_text())["unsure"]["entropy"])
    return None


def write_json(path: epath.Path, content: Any) -> None:
    """Write indented JSON."""
    _write(path, (json.dumps(content, indent=2) + "\n").encode())


def write_json_lines(path: epath.Path, contents: Iterable[Any]) -> None:
    """Write a line of JSON each."""
    _write(path, "".join(json.dumps(content) + "\n" for content in contents).encode())


def write_arrays(path: epath.Path, arrays: dict[str, np.ndarray]) -> None:
    """Write an .npz."""
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, **arrays)
    _write(path, content.getvalue())


def _write(path: epath.Path, content: bytes) -> None:
    """Write all of it or nothing, whenever the process ends."""
    unfinished = path.parent / f"{path.name}.tmp"
    unfinished.write_bytes(content)
    unfinished.replace(path)


def environment(layouts: dict[str, "Layout"], kernels_available: bool) -> dict[str, Any]:
    """Devices, versions and the commit, for `results.json`."""
    devices = {device for layout in layouts.values() for device in layout.devices}
    device = min(devices, key=lambda device: device.id)
    return {
        "devices": {
            "kind": device.device_kind,
            "platform": device.platform,
            "count": len(devices),
            "kernels_available": kernels_available,
            "processes": len({device.process_index for device in devices}),
            "layouts": {
                name: {"member_groups": layout.groups, "data_parallel": layout.data}
                for name, layout in layouts.items()
            },
        },
        "versions": versions(),
        "git_commit": git_commit(),
    }


def versions() -> dict[str, str]:
    """Those of the packages that results depend on, and Python's."""
    packages = ("mnist_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    return {name: version(name) for name in packages} | {"python": platform.python_version()}


def git_commit() -> str | None:
    """The commit of this code; None outside a git checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def describe(config: Config, dataset: Dataset) -> dict[str, Any]:
    """Config and data set, for `results.json`."""
    return {
        "config": dataclasses.asdict(config),
        "dataset": {"name": dataset.name, "source": dataset.source},
        "train_size": len(dataset.train.labels),
        "validation_size": len(dataset.validation.labels),
        "test_size": len(dataset.test.labels),
    }


def scalars(epoch: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """An epoch's record as TensorBoard tags and values."""
    for tag in ("cost", "learning_rate", "images_per_second", "train_seconds"):
        yield tag, epoch[tag]
    for metric, value in epoch.get("ensemble", {}).items():
        yield metric, value
    for member in epoch.get("members", []) if len(epoch["member_costs"]) > 1 else []:
        for metric, value in member.items():
            if metric not in ("seed", "network"):
                yield f"seed_{member['seed']}/{metric}", value
