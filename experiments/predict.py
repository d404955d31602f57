"""Classify pictures, sentences or positions of Go: `python -m experiments.predict ...`."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from experiments.console import cli, games, pictures, texts
from experiments.console.pictures import Picture
from mnist_jax.words import counted, on_one_line

_MNIST = (28, 28, 1)
_SAMPLE = 500  # pictures looked at
_FOUND = 0.3  # a mark found less surely than this may be no digit, or not all of one
_DOUBTFUL = 1 / 3  # of a picture's digits unsure, so that none is sure to be one

_EPILOG = """\
examples:
  python -m experiments.predict seven.png
  python -m experiments.predict runs/handwriting seven.png scans/
  python -m experiments.predict runs/handwriting - < seven.png
  python -m experiments.predict runs/handwriting --json photo.jpg t10k-images-idx3-ubyte.gz
  python -m experiments.predict runs/resnet20 cat.jpg holidays/

For networks of characters a picture shows one digit or several, in ink of any colour. Each is
found, scaled and centred as MNIST's were, and answered in a row of its own, in reading order, with
its box (left, top, right, bottom, in pixels); lines, frames and shadows are left out. A picture of
28 x 28 that is like MNIST's, and an IDX file of such, is taken as it is; so is any grey one of 28 x
28 by networks whose own characters did not lie as MNIST's do.

For networks of other things a picture is one image: scaled until it just covers the size of those
trained on, and its middle cut out; it becomes grey where those were. Networks of Fashion-MNIST and
KMNIST take pictures of 28 x 28 alone, light on black (or as dark as the pictures trained on).

In a folder with a folder a class the folders' names are the labels, also numbers of the classes of
Fashion-MNIST, KMNIST and CIFAR, and the accuracy is printed.

The probability is the members' mean. The uncertainty is the entropy of that mean, in nats (0:
sure); the mutual information is the part of it that comes from the members' disagreement. `found`
is how sure it is, from 0 to 1, that there is one digit in the box and all of it. Rows are marked
`unsure` where the entropy is above what 95 % of the right answers on validation images have, where
`found` is low, or where a third of the digits of the same picture are.

Networks of sentences take sentences, each in quotes, files with one a line, or -, one a line from
standard input: python -m experiments.predict runs/sentence "what a lovely film". Words that
were not in the training data are named as unknown; a sentence of such words alone is unsure.

Networks of Go positions take records of games: python -m experiments.predict runs/policy game.sgf
--move 57 draws the board before that move, with the likeliest moves on it.

exit codes: 0; 1 where a picture, file or game cannot be read (the others are answered); 2 for a
wrong command.
"""


class Item(NamedTuple):
    """One image for the network: a digit of a picture, or the picture."""

    picture: Picture
    image: np.ndarray  # uint8 [height, width, channels]
    box: tuple[int, int, int, int] | None = None  # of a digit
    found: float = 1.0
    digits: int = 1  # on the picture
    note: str | None = None


# A picture to what is on it; ValueError with the reason where it cannot be read.
Look = Callable[[Picture], list[Item]]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    given = _parse(sys.argv[1:] if argv is None else argv)
    if given.images.count("-") > 1:
        cli.fail("- can be given once: it is all of standard input.", "Name files or folders.")
    with cli.importing_jax("Interrupted.", prints_results=True):
        from experiments.workdir import records, trained

    cli.start_jax()
    if given.workdir is None:
        print("Answered by the networks that come with mnist_jax.", file=sys.stderr)
    try:
        loaded = trained.load(given.workdir or cli.workdir("pretrained"))
    except ValueError as error:
        cli.fail(str(error), "WORKDIR is a folder that python -m experiments.run has made.")
    if loaded.trained_on.vocabulary:
        threshold = records.read_threshold(loaded.workdir)
        return texts.predict(loaded, threshold, given.images, given.json)
    if loaded.config.reads_positions:
        if given.move is not None and given.move < 1:
            cli.fail(f"--move must be at least 1, not {given.move}.", "1 is the first of a game.")
        return games.predict(loaded, given.images, given.move, given.json)
    if given.move is not None:
        cli.fail("--move is for networks of Go positions.", "Leave it out.")
    items, failed = _read_all(given.images, _look(loaded, given.images))
    if items:
        threshold = records.read_threshold(loaded.workdir)
        logits = loaded.predict(np.stack([item.image for item in items]))
        rows = _describe(items, logits, loaded.class_names, threshold)
        _print_json(rows) if given.json else _print_table(rows)
        for line in _summary(rows, loaded.class_names, threshold):
            print(line, file=sys.stderr if given.json else sys.stdout)
    return int(failed)


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    """The command line; `workdir` is None where there is none before the pictures."""
    parser = cli.Parser(
        prog="python -m experiments.predict",
        description="Classify pictures with the network, or the ensemble, that a workdir holds, or "
        "digits with the ensemble that comes with the package.",
        epilog=_EPILOG,
    )
    parser.add_argument(
        "workdir",
        nargs="?",
        metavar="WORKDIR",
        help="made by experiments.run (default: the networks of digits that come with the package)",
    )
    parser.add_argument(
        "images",
        nargs="+",
        metavar="IMAGE",
        help="PNG, JPEG, ... (anything Pillow reads) of any size, a folder of such files or of "
        "folders of them, an IDX file of images (plain or .gz); a sentence, or a file of them; an "
        ".sgf file, or a folder of them; or - for one picture, or a file's content, from standard "
        "input",
    )
    parser.add_argument(
        "--move",
        type=int,
        metavar="N",
        help="of networks of Go positions, which take .sgf files: the move of each game to predict "
        "(default: the one after the last)",
    )
    parser.add_argument(
        "--json", action="store_true", help="print a JSON object a line, not a table"
    )
    given = parser.parse(argv, mixed=True)
    first, *others = given.images
    if given.workdir is None and not others and _is_workdir(first):
        cli.fail(f"{first} is a workdir, and no picture is given.", "Name pictures after it.")
    if given.workdir is not None and _is_picture(given.workdir):
        given.workdir, given.images = None, [given.workdir, *given.images]
    given.workdir = None if given.workdir is None else cli.workdir(given.workdir)
    return given


def _is_workdir(text: str) -> bool:
    return text == "pretrained" or os.path.exists(Path(text) / "config.json")


def _is_picture(text: str) -> bool:
    """Whether the first argument, which others follow, is no WORKDIR but a picture, or a folder.

    What does not exist is one by its name: it cannot be read, and the others are answered.
    """
    if text == "-" or os.path.isfile(text):
        return True
    if os.path.isdir(text):
        return not _is_workdir(text) and pictures.are_in(Path(text))
    return pictures.has_ending(Path(text))


def _look(loaded: Any, arguments: Sequence[str]) -> Look:
    """What makes pictures into images such as were trained on; `loaded` is of `trained.load`."""
    from experiments.workdir import datasets

    about = loaded.trained_on
    kind = datasets.picture_kind(about)
    if kind == "characters" and about.as_mnist is False:
        return partial(_digits_as_they_are, _are_on_paper(arguments), about.dark)
    looks: dict[str, Look] = {
        "characters": _digits,
        "photographs": partial(_photo, loaded.image_shape),
        "auto": _as_it_is,
    }
    return looks[kind]


def _read_all(arguments: Sequence[str], look: Look) -> tuple[list[Item], bool]:
    """What all pictures show, in order, and whether some could not be read.

    Each that could not, and each that has more than was looked at, is a line on stderr.
    """

    def see(picture: Picture) -> list[Item] | ValueError:
        try:
            return look(picture)
        except ValueError as error:
            return error

    items, failed = [], False
    with ThreadPoolExecutor() as pool:
        named = [picture for argument in arguments for picture in pictures.named_by(argument)]
        for picture, seen in zip(named, pool.map(see, named), strict=True):
            if isinstance(seen, ValueError):
                print(f"error: {on_one_line(f'{picture.name}: {seen}')}", file=sys.stderr)
                failed = True
                continue
            if seen[0].note:
                print(f"note: {on_one_line(picture.name)}: {seen[0].note}", file=sys.stderr)
            items += seen
    return items, failed


def _digits(picture: Picture) -> list[Item]:
    """The digits of a picture: of its first frame that shows any."""
    from mnist_jax import images

    content = picture.read()
    if isinstance(content, np.ndarray):  # of an IDX file
        if _is_as_mnist(content):
            return [Item(picture, content.reshape(_MNIST), (0, 0, 28, 28))]
        return _items(picture, images.find_digits(content))
    blank = None
    for i, frame in enumerate(pictures.frames(content)):
        try:
            found = images.find_digits(frame)
        except ValueError as error:
            blank = blank or error
            continue
        return _items(picture, found, _of_frames(content, i))
    raise blank or ValueError("no frames.")


def _digits_as_they_are(on_paper: bool | None, dark: bool, picture: Picture) -> list[Item]:
    """`_digits`, but of 28 x 28 grey pixels all of them; dark on light where those trained on are.

    `on_paper` says whether the pictures of that size are; None: each by itself.
    """
    from mnist_jax.data.pictures import are_on_paper

    content = picture.read()
    if isinstance(content, np.ndarray):  # of an IDX file, which is as those trained on
        return _digits(picture)
    grey = _grey(content)
    if grey is None:
        found = _digits(picture._replace(read=lambda: content))
        return [item._replace(image=255 - item.image) for item in found] if dark else found
    is_dark = are_on_paper(grey[None]) if on_paper is None else on_paper
    return [Item(picture, grey if is_dark == dark else 255 - grey, (0, 0, 28, 28))]


def _are_on_paper(arguments: Sequence[str]) -> bool | None:
    """Whether most of some grey pictures of 28 x 28 pixels are dark on light; None without any."""
    from mnist_jax.data.pictures import are_on_paper

    again = [text for text in arguments if os.path.isdir(text) or os.path.isfile(text)]
    named = [picture for text in again for picture in pictures.named_by(text)]
    small = []
    for picture in named[:: max(1, -(-len(named) // _SAMPLE))]:
        with suppress(ValueError):  # said when all are read
            content = picture.read()
            grey = _grey(content) if isinstance(content, Image.Image) else None
            small += [] if grey is None else [grey]
    return are_on_paper(np.stack(small)) if small else None


def _grey(content: Image.Image) -> np.ndarray | None:
    """The pixels of a grey picture of 28 x 28, uint8 `[28, 28, 1]`; None of another."""
    from mnist_jax.data.photos import upright
    from mnist_jax.data.pictures import as_it_is

    return as_it_is(upright(content))


def _items(picture: Picture, found: Sequence[Any], note: str | None = None) -> list[Item]:
    return [Item(picture, digit.image, digit.box, digit.found, len(found), note) for digit in found]


def _of_frames(image: Image.Image, i: int) -> str | None:
    """What is said of a picture of several frames or pages, of which one is answered."""
    count = getattr(image, "n_frames", 1)
    return None if count == 1 else f"frame {i + 1} of {count}; the others are not answered."


def _photo(image_shape: tuple[int, ...], picture: Picture) -> list[Item]:
    """A picture of anything, of any size; of several frames the first."""
    from mnist_jax import images

    content = picture.read()
    if isinstance(content, np.ndarray):
        return [Item(picture, images.to_photo(content, *image_shape))]
    first = next(pictures.frames(content))
    image = images.to_photo(first, *image_shape)
    return [Item(picture, image, note=_of_frames(content, 0))]


def _as_it_is(picture: Picture) -> list[Item]:
    from mnist_jax import images

    content = picture.read()
    is_small = isinstance(content, Image.Image) and content.size == _MNIST[:2]
    pixels = images.to_photo(content, *_MNIST) if is_small else np.asarray(content)
    if not _is_as_mnist(pixels):
        height, width, *channels = pixels.shape
        by = " x ".join(map(str, (width, height, *channels)))
        raise ValueError(
            f"must be 28 x 28 pixels of 0 to 255, not {by} of {pixels.dtype}: Fashion-MNIST and "
            "KMNIST are light on black, which pictures of other sizes seldom are."
        )
    return [Item(picture, pixels.reshape(_MNIST))]


def _is_as_mnist(pixels: np.ndarray) -> bool:
    return pixels.dtype == np.uint8 and pixels.shape in (_MNIST, _MNIST[:2])


def _describe(
    items: Sequence[Item], logits: np.ndarray, class_names: Sequence[str], threshold: float | None
) -> list[dict[str, Any]]:
    """What is printed of each digit; logits are `[members, n, classes]`."""
    from mnist_jax import ensemble, uncertainty
    from mnist_jax.data.names import class_of

    probabilities = np.exp(ensemble.mean_probability(logits))
    parts = uncertainty.decompose(logits)
    rows = []
    for i, item in enumerate(items):
        entropy = float(parts.total[i])
        row = {
            "image": item.picture.name,
            "class": class_names[probabilities[i].argmax()],
            "probability": round(float(probabilities[i].max()), 6),
            "entropy": round(entropy, 6),
            "mutual_information": round(float(parts.epistemic[i]), 6),
            "votes": [class_names[best] for best in logits[:, i].argmax(axis=1)],
            "unsure": item.found < _FOUND or (threshold is not None and entropy > threshold),
        }
        if item.box is not None:
            row |= {"box": item.box, "found": round(item.found, 3), "digits": item.digits}
        if item.picture.label is not None:
            label = item.picture.label
            row["label"] = class_of(label, class_names) or label
        rows.append(row)
    for _, group in groupby(zip(items, rows, strict=True), key=lambda pair: id(pair[0].picture)):
        same = [row for _, row in group]
        if sum(row["unsure"] for row in same) >= _DOUBTFUL * len(same):
            for row in same:  # of a word, say, in which some letters look like digits
                row["unsure"] = True
    return rows


def _print_json(rows: Sequence[dict[str, Any]]) -> None:
    for row in rows:
        print(json.dumps(row))


def _print_table(rows: Sequence[dict[str, Any]]) -> None:
    from experiments.console import answers  # Rich's tables take a while to import

    asked = {"image": [row["image"] for row in rows]}
    if any(row.get("digits", 1) > 1 for row in rows):
        asked["box"] = [", ".join(map(str, row.get("box", ()))) for row in rows]
    answers.show(asked, rows, ["unsure" if row["unsure"] else "" for row in rows])


def _summary(
    rows: Sequence[dict[str, Any]], class_names: Sequence[str], threshold: float | None
) -> Iterator[str]:
    """How many were found, how many of them unsure, and how many right where that is known."""
    count = len({row["image"] for row in rows})
    unsure = sum(row["unsure"] for row in rows)
    found = counted(count, "picture")
    if any("box" in row for row in rows):
        found = f"{counted(len(rows), 'digit')} on {found}"
    yield f"{found}, {unsure:,} unsure" if unsure else found
    if threshold is None:
        yield "No entropy is known above which to be unsure: trained without validation images."
    labels = {row.get("label") for row in rows}
    if labels <= set(class_names):
        right = sum(_is_right(row) for row in rows)
        yield f"Accuracy: {right / count:.4f} ({right:,} of {counted(count, 'picture')})"


def _is_right(row: dict[str, Any]) -> bool:
    """Whether a picture's label is its only digit."""
    return row["class"] == row["label"] and row.get("digits", 1) == 1


if __name__ == "__main__":
    cli.call(main, prints_results=True)
