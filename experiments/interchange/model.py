"""What is exported: members, the function they are together, and what is to be known of it."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax import Array, export

import mnist_jax
from experiments.workdir import config as configs
from experiments.workdir import records
from experiments.workdir.trained import Member, Trained
from mnist_jax import models, training
from mnist_jax.training import Variables

OUTPUTS = ("probabilities", "member_probabilities")


class Input(NamedTuple):
    """What a model takes: any number of images, sentences or positions."""

    name: str
    dtype: Any  # np.uint8 for pixels and packed planes, np.int32 for tokens
    dims: tuple[int | str, ...]  # a name for a number that is free
    least_length: int | None = None  # tokens of a sentence, which the windows must fit into

    def symbolic(self) -> jax.ShapeDtypeStruct:
        """As JAX traces it."""
        constraints = [] if self.least_length is None else [f"length >= {self.least_length}"]
        shape = export.symbolic_shape(", ".join(map(str, self.dims)), constraints=constraints)
        return jax.ShapeDtypeStruct(shape, self.dtype)

    def describe(self) -> str:
        """In a line."""
        return f"{self.name} {np.dtype(self.dtype).name} [{', '.join(map(str, self.dims))}]"


class Model(NamedTuple):
    """Members that predict together."""

    members: Sequence[Member]
    input: Input
    metadata: dict[str, Any]  # what JSON can hold
    trained: Trained  # the workdir that they are of

    @property
    def variables(self) -> list[Variables]:
        """Of each member."""
        return [member.variables for member in self.members]

    @property
    def bytes(self) -> int:
        """Of all weights."""
        return sum(leaf.nbytes for leaf in jax.tree.leaves(self.variables))


def make(trained: Trained, member: int | None) -> Model:
    """The model of a workdir's members, or of one of them.

    Raises:
        ValueError: there is no such member, or its weights are not finite.
    """
    count = len(trained.members)
    if member is not None and not 0 <= member < count:
        have = f"0 to {count - 1}" if count > 1 else "0 alone"
        raise ValueError(f"--member {member} does not exist.\n{trained.workdir} has {have}.")
    members = trained.members if member is None else [trained.members[member]]
    for one in members:
        if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(one.variables)):
            raise ValueError(
                f"{trained.workdir}: the weights of member {one.name} are not finite.\n"
                "Train it again."
            )
    return Model(members, _input(trained), _metadata(trained, members), trained)


def make_function(
    members: Sequence[Member],
) -> Callable[[Sequence[Variables], Array], tuple[Array, Array]]:
    """Each member's variables and stored inputs to `OUTPUTS`, in JAX.

    These are float32 `[n, classes]`, the mean, and `[members, n, classes]`.
    """

    def predict(variables: Sequence[Variables], inputs: Array) -> tuple[Array, Array]:
        logits = [
            training.apply(member.network, own, models.decode_of(member.network_name)(inputs))[None]
            for member, own in zip(members, variables, strict=True)
        ]
        probabilities = jax.nn.softmax(jnp.concatenate(logits))
        return jnp.mean(probabilities, axis=0), probabilities

    return predict


def named(members: Sequence[Member]) -> dict[str, np.ndarray]:
    """All weights by name, such as `member.0.params.Conv_0.kernel`.

    The order is that of the leaves of a list of the members' variables.
    """
    leaves = jax.tree.leaves_with_path([member.variables for member in members])
    return {
        "member." + jax.tree_util.keystr(path, simple=True, separator="."): np.asarray(leaf)
        for path, leaf in leaves
    }


def _input(trained: Trained) -> Input:
    if not trained.trained_on.vocabulary:
        name = "planes" if trained.config.reads_positions else "images"  # packed: 6 bytes a point
        return Input(name, np.uint8, ("n", *trained.image_shape))
    windows = trained.members[0].network.windows
    return Input("tokens", np.int32, ("n", "length"), max(windows))


def _metadata(trained: Trained, members: Sequence[Member]) -> dict[str, Any]:
    about = trained.trained_on
    name, source = records.read_source(trained.workdir, trained.config)
    return {
        "mnist_jax": mnist_jax.__version__,
        "classes": list(about.class_names),
        "input": _input(trained).describe(),
        "outputs": list(OUTPUTS),
        "normalisation": {  # all of it is inside the model
            "scale": 1 / 255 if trained.config.input_is == "image" else None,
            "mean": about.mean,
            "stddev": about.stddev,
        },
        "members": [member.describe() for member in members],
        "command": configs.command_line(trained.config),
        "config": dataclasses.asdict(trained.config),
        "data": {
            **{"name": name, "source": source, "fingerprint": trained.fingerprint},
            **about._asdict(),
        },
        "results": _results(trained.workdir),
    }


def _results(workdir: epath.Path) -> Any:
    """What `results.json` says; None where training did not come to its end."""
    try:
        return json.loads((workdir / "results.json").read_text())
    except (OSError, ValueError):
        return None
