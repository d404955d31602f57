"""Members as a safetensors file: weights by their names, and the metadata in its header."""

import json
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from experiments.interchange import files, model
from experiments.interchange.model import Model


def write(exported: Model, path: Path) -> str:
    """Write the file; returns what to say of it.

    Tensors are called `member.I.params.LAYER.NAME` and `member.I.batch_stats.LAYER.NAME` and have
    this package's shapes. Metadata are JSON, one a name.

    Raises:
        ValueError: it cannot be written.
    """
    tensors = {
        name: np.ascontiguousarray(array) for name, array in model.named(exported.members).items()
    }
    metadata = {name: json.dumps(value) for name, value in exported.metadata.items()}
    with files.new_file(path) as unfinished:
        try:
            save_file(tensors, unfinished, metadata)
        except SafetensorError as error:
            raise OSError(str(error)) from error
    return f"safetensors, {len(tensors)} tensors; python -m experiments.import reads it"


def read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Tensors and metadata of a safetensors file.

    Raises:
        ValueError: it is none.
    """
    try:
        with safe_open(path, "numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is no safetensors file: {error}.") from None
