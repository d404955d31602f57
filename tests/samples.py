"""Digits of the embedded subset, and writers of them in the formats that people have."""

import functools
import gzip
from pathlib import Path

import numpy as np
from PIL import Image

from mnist_jax import data

# The IDX format's own numbers for types.
TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}


def idx(array: np.ndarray, kind: int = 8) -> bytes:
    header = bytes([0, 0, kind, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return header + array.astype(TYPES[kind]).tobytes()


@functools.cache
def digits(n: int, skip: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """uint8 `[n, 28, 28]` and int32 `[n]`, the ten digits taking turns."""
    images, labels = data.load("mnist5k", validation=0).train
    return images[skip : skip + n, ..., 0], labels[skip : skip + n]


def arrays(train: int = 200, test: int = 50) -> dict[tuple[str, str], np.ndarray]:
    """By split, train or test, and images or labels."""
    named = {"train": digits(train), "test": digits(test, skip=train)}
    return {
        (split, kind): array
        for split, pair in named.items()
        for kind, array in zip(("images", "labels"), pair, strict=True)
    }


def write_idx(folder: Path, name: str, **options) -> Path:
    """The four files, `name` like `"{split}-{kind}-idx{n}-ubyte"`; `.gz` at its end packs."""
    for (split, kind), array in arrays(**options).items():
        path = folder / name.format(split=split, kind=kind, n=array.ndim)
        path.parent.mkdir(parents=True, exist_ok=True)
        content = idx(array)
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return folder


def write_csv(
    path: Path,
    images: np.ndarray,
    labels: np.ndarray | None,
    header: str | None = "label,{pixels}",
    row: str = "{label},{pixels}",
    pixel: str = "pixel{}",
) -> Path:
    lines = (
        [] if header is None else [header.format(pixels=",".join(map(pixel.format, range(784))))]
    )
    for i, image in enumerate(images.reshape(len(images), -1)):
        label = "" if labels is None else labels[i]
        lines.append(row.format(label=label, pixels=",".join(map(str, image.tolist())), i=i))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def write_pictures(
    folder: Path, images: np.ndarray, labels: np.ndarray, suffix: str = ".png", mode: str = "L"
) -> Path:
    """A folder a label."""
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = folder / str(label) / f"{i:04}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).convert(mode).save(path)
    return folder


def same_images(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two stacks hold the same images, in any order."""
    rows = [sorted(image.tobytes() for image in stack) for stack in (one, other)]
    return rows[0] == rows[1]


def pairs(*splits: data.Split, names: tuple[str, ...]) -> set[tuple[bytes, str]]:
    """Each image's content with its class's name."""
    return {
        (image.tobytes(), names[label])
        for split in splits
        for image, label in zip(split.inputs, split.labels, strict=True)
    }
