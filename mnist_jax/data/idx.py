"""IDX files, the format of MNIST: http://yann.lecun.com/exdb/mnist, "the IDX file format"."""

import math
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path

import numpy as np

from mnist_jax.data import files
from mnist_jax.data.files import File
from mnist_jax.data.names import DataError
from mnist_jax.words import counted

TRAIN = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
TEST = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
_TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}


def read_idx(path: str | PathLike[str]) -> np.ndarray:
    """Read an IDX file, plain or packed by gzip.

    Returns:
        What the file says: uint8, int8, int16, int32, float32 or float64, of 1 to 4 dimensions.

    Raises:
        DataError: the file is missing or cannot be read, is truncated or too long, or is no IDX
            file.
    """
    return read(files.single(path))


def read(file: File) -> np.ndarray:
    """As `read_idx`."""
    with files.reading(file) as stream:
        return _parse(file.where, stream.read)


def _parse(where: str, read: Callable[[int], bytes]) -> np.ndarray:
    magic = read(4)
    if len(magic) < 4:
        raise DataError(f"{where}: truncated; it has only {counted(len(magic), 'byte')}.")
    dimensions = magic[3]
    if magic[:2] != b"\0\0" or magic[2] not in _TYPES or not 1 <= dimensions <= 4:
        raise DataError(
            f"{where}: wrong magic number 0x{magic.hex()}; 0x00000803 starts a file of images, "
            "0x00000801 one of labels."
        )
    header = read(4 * dimensions)
    if len(header) < 4 * dimensions:
        raise DataError(f"{where}: truncated inside its header.")
    shape = [int(length) for length in np.frombuffer(header, ">u4")]
    return read_values(where, read, shape, np.dtype(_TYPES[magic[2]]))


def read_values(
    where: str, read: Callable[[int], bytes], shape: Sequence[int], dtype: np.dtype
) -> np.ndarray:
    """Read an array's values, to the end of the file, in the machine's own byte order.

    Raises:
        DataError: fewer or more bytes than the shape needs, or no such array can be.
    """
    size = math.prod(shape) * dtype.itemsize
    content = _read_at_most(read, size + 1)
    if len(content) < size:
        raise DataError(f"{where}: truncated; {len(content):,} of {size:,} bytes are there.")
    if len(content) > size:
        raise DataError(f"{where}: longer than the {size:,} bytes its header announces.")
    try:
        values = np.frombuffer(content, dtype).reshape(shape)
    except ValueError as error:
        raise DataError(f"{where}: damaged: {error}.") from None
    return values.astype(dtype.newbyteorder("="), copy=False)


def _read_at_most(read: Callable[[int], bytes], size: int) -> bytes:
    """Read in parts, so that a header that announces terabytes takes no memory."""
    parts = []
    while size > 0 and (part := read(min(size, 1 << 24))):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def find_idx_files(
    folder: str | PathLike[str], names: Sequence[str] = (*TRAIN, *TEST)
) -> dict[str, Path]:
    """The paths of a folder's four IDX files, or of some, by MNIST's own names for them.

    Raises:
        DataError: the folder or one of the files is missing.
    """
    found = {}
    here = [file for file in files.find(folder) if files.is_idx(file)]
    for name in names:
        wanted = files.role(name)
        alike = [file for file in here if files.role_of(file)[:2] == wanted[:2]]
        if not alike:
            raise DataError(f"{folder} has no {name}, plain or with .gz.")
        found[name] = Path(folder).expanduser() / min(alike, key=files.preference).path
    return found
