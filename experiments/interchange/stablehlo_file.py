"""A model as StableHLO, by `jax.export`: one file for CPU, GPU and TPU, which JAX alone runs."""

import json
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
from jax import export

from experiments.interchange import files, model
from experiments.interchange.model import Model
from mnist_jax import platforms

PLATFORMS = ("cpu", "cuda", "tpu")
_MOST_BYTES = 2**31 - 2**24  # that the format addresses, and room for all but weights


def metadata_of(path: Path) -> Path:
    """The file with the metadata, for which the format has no place."""
    return path.with_name(f"{path.name}.json")


def write(exported: Model, path: Path) -> str:
    """Write the file, and the metadata beside it; returns what to say of it.

    Raises:
        ValueError: it cannot be written, or the weights are too large.
    """
    beside = metadata_of(path)
    files.check_new(beside)
    if exported.bytes > _MOST_BYTES:
        raise ValueError(
            f"--to stablehlo holds up to 2 GiB of weights, and not {exported.bytes / 2**30:.1f}.\n"
            "Export members one by one with --member, or all with --to safetensors."
        )
    weights = jax.tree.map(jnp.asarray, exported.variables)  # NumPy's take no traced tokens
    predict = partial(model.make_function(exported.members), weights)
    with platforms.known(platforms.PLAIN):
        program = export.export(jax.jit(predict), platforms=PLATFORMS)(exported.input.symbolic())
    content = bytes(program.serialize())
    with files.new_file(path) as unfinished, files.new_file(beside) as unfinished_beside:
        unfinished.write_bytes(content)
        unfinished_beside.write_text(json.dumps(exported.metadata, indent=2) + "\n")
    return (
        f"StableHLO for {', '.join(PLATFORMS)}, of XLA's own operations without the C++ kernels; "
        f"metadata in {beside}"
    )
