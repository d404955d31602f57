"""Classify pictures: `python -m experiments.predict WORKDIR IMAGE...`."""

import argparse
import io
import json
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import numpy as np
from etils import epath
from PIL import Image, UnidentifiedImageError

from experiments import cli, terminal

_DIGITS = ("auto", "mnist", "mnist5k")

_EPILOG = """\
examples:
  python -m experiments.predict runs/deep seven.png scans/
  python -m experiments.predict runs/deep - < seven.png
  python -m experiments.predict runs/deep --json photo.jpg t10k-images-idx3-ubyte.gz

A picture shows one digit, dark on light or light on dark, on a background that reaches its
border. The digit is found, scaled and centred as MNIST's were; a picture like MNIST's is taken as
it is. For networks trained on other than digits, pictures must be 28 x 28, light on black.

The probability is the members' mean. The uncertainty is the entropy of that mean, in nats (0:
sure); the mutual information is the part of it that comes from the members' disagreement.

exit codes: 0; 1 where a picture cannot be read (the others are answered); 2 for a wrong command.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    given = _parser().parse(sys.argv[1:] if argv is None else argv)
    # These take a second to import, which a mistyped command should not have to wait for.
    from experiments import trained
    from mnist_jax import parallel

    cli.use_compilation_cache()
    parallel.use_cpu_cores()
    cli.check_devices()
    try:
        loaded = trained.load(given.workdir)
    except ValueError as error:
        cli.fail(str(error), "WORKDIR is a folder that python -m experiments.run has made.")
    prepare = _prepare_digit if loaded.config.dataset in _DIGITS else _as_it_is
    names, images, failed = _read_all(given.images, prepare)
    if images:
        rows = _describe(names, loaded.predict(np.stack(images)), loaded.config.class_names)
        _print_json(rows) if given.json else _print_table(rows)
    return int(failed)


def _parser() -> cli.Parser:
    parser = cli.Parser(
        prog="python -m experiments.predict",
        description="Classify pictures with the network, or the ensemble, that a workdir holds.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "workdir", type=epath.Path, metavar="WORKDIR", help="made by experiments.run"
    )
    parser.add_argument(
        "images",
        nargs="+",
        metavar="IMAGE",
        help="PNG, JPEG, ... (anything Pillow reads), a folder of such files, an IDX file of "
        "images (plain or .gz), or - for one picture from standard input",
    )
    parser.add_argument(
        "--json", action="store_true", help="print a JSON object a line, not a table"
    )
    return parser


def _read_all(
    arguments: Sequence[str], prepare: Callable[[Any], np.ndarray]
) -> tuple[list[str], list[np.ndarray], bool]:
    """All pictures' names and pixels, uint8 `[28, 28, 1]`, and whether some could not be read.

    Each that could not is a line on stderr.
    """
    names, images, failed = [], [], False
    for argument in arguments:
        for name, read in _pictures(argument):
            try:
                images.append(prepare(read()))
                names.append(name)
            except ValueError as error:
                print(f"error: {name}: {error}", file=sys.stderr)
                failed = True
    return names, images, failed


def _pictures(argument: str) -> Iterator[tuple[str, Callable[[], Any]]]:
    """The pictures of one argument: each one's name, and what reads it or raises ValueError."""
    path = Path(argument)
    if argument == "-":
        yield argument, lambda: _open(io.BytesIO(sys.stdin.buffer.read()))
    elif path.is_dir():
        Image.init()  # makes Pillow list its formats
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in Image.EXTENSION)
        for file in files:
            yield str(file), partial(_open, file)
        if not files:
            yield argument, partial(_fail, "no image files in this folder.")
    elif _is_idx(path):
        try:
            images = _read_idx_images(path)
        except ValueError as error:
            yield argument, partial(_fail, str(error).removeprefix(f"{path}: "))
        else:
            for i, image in enumerate(images):
                yield f"{argument}[{i}]", partial(np.asarray, image)
    else:
        yield argument, partial(_open, path)


def _fail(message: str) -> NoReturn:
    raise ValueError(message)


def _open(file: Path | BinaryIO) -> Image.Image:
    """Read and decode a file; any trouble is a ValueError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", Image.DecompressionBombWarning
            )  # half of what is too much
            image = Image.open(file)
            image.load()
            return image
    except UnidentifiedImageError:
        raise ValueError("no image that Pillow can read.") from None
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror or error}.") from None
    except Image.DecompressionBombError:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise ValueError(f"too large; more than {limit:,} pixels.") from None
    except Exception as error:  # Pillow's decoders raise of all kinds on damaged files
        raise ValueError(f"damaged: {error}.") from None


def _is_idx(path: Path) -> bool:
    if path.suffix == ".gz":
        return True
    try:
        with path.open("rb") as file:
            return file.read(3) == bytes([0, 0, 8])
    except OSError:
        return False  # reading it as an image will tell


def _read_idx_images(path: Path) -> np.ndarray:
    from mnist_jax.data import read_idx

    images = read_idx(path)
    if images.ndim != 3:
        raise ValueError(f"holds {images.ndim}-dimensional data, not [n, height, width] images.")
    return images


def _prepare_digit(image: Image.Image | np.ndarray) -> np.ndarray:
    from mnist_jax.images import to_mnist

    return to_mnist(image)


def _as_it_is(image: Image.Image | np.ndarray) -> np.ndarray:
    pixels = np.asarray(image.convert("L") if isinstance(image, Image.Image) else image)
    if pixels.shape != (28, 28):
        height, width = pixels.shape
        raise ValueError(
            f"must be 28 x 28 pixels, not {width} x {height}; networks of digits alone"
        )
    return pixels[..., None]


def _describe(
    names: Sequence[str], logits: np.ndarray, class_names: Sequence[str]
) -> list[dict[str, Any]]:
    """What is printed of each picture; logits are `[members, n, classes]`."""
    from mnist_jax import ensemble, uncertainty

    probabilities = np.exp(ensemble.mean_probability(logits))
    parts = uncertainty.decompose(logits)
    return [
        {
            "image": name,
            "class": class_names[probabilities[i].argmax()],
            "probability": round(float(probabilities[i].max()), 6),
            "entropy": round(float(parts.total[i]), 6),
            "mutual_information": round(float(parts.epistemic[i]), 6),
            "votes": [class_names[best] for best in logits[:, i].argmax(axis=1)],
        }
        for i, name in enumerate(names)
    ]


def _print_json(rows: Sequence[dict[str, Any]]) -> None:
    for row in rows:
        print(json.dumps(row))


def _print_table(rows: Sequence[dict[str, Any]]) -> None:
    from rich.table import Table
    from rich.text import Text

    console = terminal.console()
    together = len(rows[0]["votes"]) > 1
    table = Table(box=None, pad_edge=False)
    table.add_column("image", overflow="fold")
    table.add_column("class")
    for heading in ("probability", "entropy", *(["mutual information"] if together else [])):
        table.add_column(heading, justify="right")
    if together:
        table.add_column("votes")
    for row in rows:
        cells = [row["image"], row["class"], f"{row['probability']:.4f}", f"{row['entropy']:.4f}"]
        if together:
            votes = Counter(row["votes"]).most_common()
            cells.append(f"{row['mutual_information']:.4f}")
            cells.append(", ".join(f"{count} for {name}" for name, count in votes))
        table.add_row(*map(Text, cells))
    console.print(table)


if __name__ == "__main__":
    cli.call(main, prints_results=True)
