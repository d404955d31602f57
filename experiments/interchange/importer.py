"""What `experiments.import` does once JAX is imported."""

import argparse
import dataclasses
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.console import cli
from experiments.interchange import state_dicts
from experiments.workdir import config as configs
from experiments.workdir import imported, records, stacks
from experiments.workdir.config import Config
from experiments.workdir.imported import Origin
from experiments.workdir.records import TrainedOn
from mnist_jax.checkpoints import CheckpointError
from mnist_jax.training import Variables, evaluated

_HINT = "See python -m experiments.import --help."
_WRAPPERS = ("state_dict", "model_state_dict", "model")  # what checkpoints keep a state_dict as
_DIGITS = 10


class Weights(NamedTuple):
    """What a file, or several, hold."""

    config: Config
    about: TrainedOn
    origin: Origin
    members: list[tuple[str, Variables]]  # each one's network
    results: Any = None  # the content of results.json, where these are all members of that run


def run(given: argparse.Namespace) -> int:
    """Do what the command line asks for; returns the exit code.

    Raises:
        SystemExit: code 2, with an error of two lines on stderr, for what is wrong with it.
    """
    try:
        if records.in_use(given.workdir):
            raise ValueError(
                f"--workdir {given.workdir} exists and is not an empty folder.\nChoose another."
            )
        cli.start_jax()
        weights = _together([(path, _read(path)) for path in given.files])
        _write(given.workdir, weights)
    except (ValueError, CheckpointError) as error:
        message, _, hint = str(error).partition("\n")
        cli.fail(message, hint or _HINT)
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return cli.INTERRUPTED
    kinds = ", ".join(f"{len(kind.seeds)} x {kind.network}" for kind in weights.config.kinds)
    classes = len(weights.about.class_names)
    print(f"{given.workdir}: {kinds}, {classes} classes, trained on {weights.origin.name}")
    asked = f"{shlex.quote(str(given.workdir))} {weights.config.predict_takes}"
    print(f"python -m experiments.predict {asked} uses them.")
    return 0


def _read(path: Path) -> Weights:
    """What one file holds.

    Raises:
        ValueError: it cannot be read, or holds no weights of this package's networks.
    """
    try:
        with path.open("rb") as file:
            begin = file.read(9)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}.") from None
    is_safetensors = begin[8:] == b"{"  # after the length of its header
    try:
        return _of_safetensors(path) if is_safetensors else _of_pytorch(path)
    except ModuleNotFoundError as error:
        package = error.name or ""
        hint = "pip install 'mnist_jax[export]'" if is_safetensors else "pip install torch"
        raise ValueError(
            f"{path} needs the package {package}, which is not installed.\n{hint} brings it."
        ) from None


def _of_safetensors(path: Path) -> Weights:
    from experiments.interchange import safetensors_file  # a package that not everyone has

    tensors, metadata = safetensors_file.read(path)
    try:
        known = {name: json.loads(text) for name, text in metadata.items()}
        stored, data = configs.from_json(known["config"]), known["data"]
        about = records.trained_on_of(data)
        origin = Origin(data["name"], data["source"], data["fingerprint"])
        names = [member["network"] for member in known["members"]]
        seeds = [member["seed"] for member in known["members"]]
        variables = _nested(tensors)
        members = [(name, variables[str(i)]) for i, name in enumerate(names)]
        is_whole = stored.snapshots == 1 and seeds == stored.seeds
        results = known["results"] if is_whole else None
        first_seed = seeds[0]
    except (ValueError, LookupError, TypeError, AttributeError):
        raise ValueError(
            f"{path} is no file of experiments.export --to safetensors, or was changed since.\n"
            "Of other programs PyTorch's state_dicts (.pt) can be read."
        ) from None
    if is_whole:
        return Weights(stored, about, origin, members, results)
    if stored.folds > 1:  # what this member was tested on, others were trained on
        origin = origin._replace(fingerprint=None)
    return Weights(_of_members(stored, names, first_seed), about, origin, members)


def _nested(tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """`{"0": {"params": {"Conv_0": {"kernel": ...}}}}` of `member.0.params.Conv_0.kernel`."""
    members: dict[str, Any] = {}
    for name, array in tensors.items():
        _, *path, last = name.split(".")
        place = members
        for part in path:
            place = place.setdefault(part, {})
        place[last] = array
    return members


def _of_pytorch(path: Path) -> Weights:
    import torch  # a package that not everyone has

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (
        Exception
    ):  # of many kinds, for what is no such file, and with advice to run what is in it
        raise ValueError(
            f"{path} is damaged, or no file of torch.save with tensors alone.\n"
            "Save network.state_dict() by torch.save."
        ) from None
    for name in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    if not isinstance(content, Mapping):
        raise ValueError(
            f"{path} holds a {type(content).__name__}, no state_dict.\n"
            "Save network.state_dict() by torch.save."
        )
    try:
        name, variables = state_dicts.to_variables(content)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    count = [*variables["params"].values()][-1]["kernel"].shape[-1]
    about = TrainedOn(tuple(map(str, range(count))), characters=count == _DIGITS)
    config = _of_members(Config(dataset="mnist"), [name], seed=0)
    return Weights(config, about, Origin("unknown data", "weights of PyTorch"), [(name, variables)])


def _together(files: Sequence[tuple[Path, Weights]]) -> Weights:
    """All members as one ensemble.

    Raises:
        ValueError: they are of other classes, images or options.
    """
    (first_path, first), *others = files
    if not others:
        return first
    for path, weights in others:
        if (weights.about, weights.config.options) != (first.about, first.config.options):
            raise ValueError(
                f"{path} is of other classes, inputs or options than {first_path}.\n"
                "Make a workdir of each."
            )
    members = [member for _, weights in files for member in weights.members]
    names = [name for name, _ in members]
    config = _of_members(first.config, names, first.config.seed)
    origins = list(dict.fromkeys(weights.origin for _, weights in files))
    return Weights(config, first.about, _joined(origins), members)


def _joined(origins: Sequence[Origin]) -> Origin:
    """The data of all files; several data sets are none that members could be evaluated on."""
    if len(origins) == 1:
        return origins[0]
    names = " and ".join(dict.fromkeys(origin.name for origin in origins))
    return Origin(names, "; ".join(dict.fromkeys(origin.source for origin in origins)))


def _of_members(config: Config, names: Sequence[str], seed: int) -> Config:
    """A config whose members are networks of these names."""
    counts = {name: names.count(name) for name in names}
    mixed = ",".join(f"{name}:{count}" for name, count in counts.items())
    changes: dict[str, Any] = {
        **{"network": names[0], "members": mixed if len(counts) > 1 else len(names), "seed": seed},
        **{"snapshots": 1, "folds": 1, "repeats": 1},
    }
    return dataclasses.replace(config, **changes)


def _write(folder: Any, weights: Weights) -> None:
    """Make the workdir, once the weights are known to be those of its networks.

    Raises:
        ValueError: they are not, or the folder is in use.
        CheckpointError: they cannot be written.
    """
    config, about = weights.config, weights.about
    kinds = stacks.create(config, None, about)
    states = stacks.shapes(kinds, stacks.make_optimizer(config, config.epochs), about)
    variables = {}
    for name in kinds:
        own = [member for network, member in weights.members if network == name]
        for member in own:
            _check(name, evaluated(states[name]), member)
        variables[name] = jax.tree.map(lambda *leaves: np.stack(leaves), *own)
    imported.write(folder, config, about, variables, weights.origin)
    if weights.results is not None:
        records.write_json(folder / "results.json", weights.results)


def _check(name: str, stacked: Variables, member: Variables) -> None:
    """See that a member's variables are those of its network, whose shapes have members first.

    Raises:
        ValueError: they are not.
    """
    wanted = {path: (leaf.shape[1:], leaf.dtype) for path, leaf in _leaves(stacked)}
    found = {path: (leaf.shape, leaf.dtype) for path, leaf in _leaves(member)}
    for path in sorted(wanted.keys() | found.keys()):
        if wanted.get(path) != found.get(path):
            has, takes = (_described(leaves.get(path)) for leaves in (found, wanted))
            raise ValueError(f"a member has {has} for {path}, where {name} has {takes}.")
    for path, leaf in _leaves(member):
        if not np.isfinite(leaf).all():
            raise ValueError(f"a member's {path} has NaN or infinite values.\nTrain it again.")


def _described(leaf: tuple[tuple[int, ...], np.dtype] | None) -> str:
    return "nothing" if leaf is None else f"{leaf[1]} {list(leaf[0])}"


def _leaves(tree: Any) -> list[tuple[str, Any]]:
    leaves = jax.tree.leaves_with_path(tree)
    return [(jax.tree_util.keystr(path, simple=True, separator="."), leaf) for path, leaf in leaves]
