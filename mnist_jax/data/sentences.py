"""Data sets of sentences, as tokens: Kim's cleaning, the files people have, a vocabulary.

`load` gives `Sentences`. A token is a word's place in the vocabulary; token 0 is padding, of which
there are four before and after each sentence, and after it up to the length of the longest. A word
that is not in the vocabulary is a token 0 as well: nothing is known of it.
"""

import codecs
import csv
import io
import os
import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from os import PathLike
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from mnist_jax.data import downloads, files
from mnist_jax.data import splits as splitting
from mnist_jax.data.files import File
from mnist_jax.data.names import DataError, Dataset, DataWarning, Split
from mnist_jax.words import counted

CLASS_NAMES: dict[str, tuple[str, ...]] = {
    "opinions": ("negative", "positive"),
    "glue/sst2": ("negative", "positive"),
    "trec": ("ABBR", "ENTY", "DESC", "HUM", "LOC", "NUM"),  # in TFDS's order
}
NAMES = ("auto", *CLASS_NAMES)
PADDING = 4  # tokens before and after each sentence: the widest window less one
MOST_WORDS = 400  # of a sentence that are read
READ_HERE = (
    "Read are lines of CLASS SENTENCE (.all, .train, .dev, .test, .txt, .label), a file a class "
    "(.pos and .neg), and .tsv and .csv with a header; also inside a .zip or .tar.gz."
)

_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("dev", "val", "valid", "validation"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
# TREC's files as they are handed out (Li and Roth 2002).
_TREC_FILES = {"train_5500": "train", "trec_10": "test"}
# What a file of one class is called: MR's and CR's poles, and Subj's plots and quotes.
_CLASS_WORDS = ("neg", "pos", "negative", "positive", "plot", "quote")
_ENDINGS_OF_CLASSES = (".neg", ".pos")
_SUFFIXES = {
    ".all",
    ".train",
    ".dev",
    ".test",
    ".txt",
    ".label",
    ".tsv",
    ".csv",
    *_ENDINGS_OF_CLASSES,
}
_NO_DATA = {"readme", "license", "licence", "vocabulary"}
_FILLERS = {"all", "txt", "tsv", "csv", "label", "labels", "tok", "gt9", "5000", *_SPLITS}
_LABELS = ("label", "labels", "class", "category", "target", "sentiment", "polarity", "y")
_TEXTS = ("sentence", "text", "question", "review", "phrase", "content", "comment", "sentences")
_TREC_CLASS = re.compile(r"[A-Z]+:[A-Za-z]+")  # coarse:fine
_MOST_CLASSES = 1000


@dataclass(frozen=True)
class Sentences(Dataset):
    """A data set whose inputs are tokens, int32 `[n, length]`."""

    vocabulary: tuple[str, ...]  # the word of each token; that of token 0, padding, is ""
    cased: bool  # whether capital letters are kept


class _Rows(NamedTuple):
    """What a file, or several of a split, hold."""

    labels: list[str]
    texts: list[str]
    places: list[str]  # of each, for messages


class _Group(NamedTuple):
    """The files of one data set."""

    name: str
    files: list[File]
    depth: int  # of folders below the one given


def clean(text: str, cased: bool = False) -> str:
    """A sentence as words with a space between them.

    What is no English letter, digit or one of `(),!?'` and the backquote becomes a space; `'s`,
    `'ve`, `n't`, `'re`, `'d`, `'ll` and marks become words of their own. Source: `clean_str` of
    github.com/yoonkim/CNN_sentence.

    Args:
        cased: keep capital letters, as for TREC.
    """
    text = re.sub(r"[^A-Za-z0-9(),!?'`]", " ", text)
    text = re.sub(r"('s|'ve|n't|'re|'d|'ll)", r" \1", text)
    text = re.sub(r"([,!()?])", r" \1 ", text)
    text = " ".join(text.split())
    return text if cased else text.lower()


def make_vocabulary(sentences: Iterable[Sequence[str]]) -> tuple[str, ...]:
    """All words of some sentences after the empty one for padding, the most frequent first."""
    counts = Counter(word for words in sentences for word in words)
    return ("", *sorted(counts, key=lambda word: (-counts[word], word)))


def tokenize(
    texts: Sequence[str], vocabulary: Sequence[str], cased: bool = False, length: int = 0
) -> np.ndarray:
    """Sentences as tokens.

    Args:
        texts: as people write them; of each the first `MOST_WORDS` words are taken.
        vocabulary: from `make_vocabulary`; other words become padding.
        length: the least number of tokens of each; more where the longest sentence needs them.

    Returns:
        int32 `[n, length]`. After each sentence there are five tokens of padding at least, one more
        than in a data set's longest: so every sentence has a widest window of padding alone, and
        what a network makes of it does not depend on how long the others are.
    """
    words = _words(texts, cased)
    longest = max((len(sentence[:MOST_WORDS]) for sentence in words), default=0)
    return _tokens(words, vocabulary, max(length, longest + 2 * PADDING + 1))


def _words(texts: Sequence[str], cased: bool) -> list[list[str]]:
    return [clean(text, cased).split() for text in texts]


def _tokens(
    sentences: Sequence[Sequence[str]], vocabulary: Sequence[str], least: int
) -> np.ndarray:
    place = {word: i for i, word in enumerate(vocabulary)}
    cut = [words[:MOST_WORDS] for words in sentences]
    length = max([least, *(len(words) + 2 * PADDING for words in cut)])
    tokens = np.zeros((len(cut), length), np.int32)
    for row, words in zip(tokens, cut, strict=True):
        row[PADDING : PADDING + len(words)] = [place.get(word, 0) for word in words]
    return tokens


def words_of(tokens: np.ndarray, vocabulary: Sequence[str]) -> list[str]:
    """The words of one sentence's tokens `[length]`, without the padding around them."""
    return [vocabulary[token] for token in np.trim_zeros(tokens)]


def load(
    name: str = "auto",
    data_dir: str | PathLike[str] | None = None,
    *,
    validation: int | None = None,
    encoding: str = "utf-8",
    download_dir: str | PathLike[str] | None = None,
    class_names: Sequence[str] | None = None,
    vocabulary: Sequence[str] | None = None,
) -> Sentences:
    """Load a data set of sentences by name, or from files.

    Blank lines are passed over. A sentence in which the cleaning leaves no word is kept, as padding
    alone, and one of more than `MOST_WORDS` words is cut; a warning says how many are.

    Args:
        name: one of `NAMES`. `"auto"` is whatever `data_dir` holds, and without it `opinions`,
            which comes with this package. `glue/sst2` and `trec` are downloaded by TFDS's
            addresses.
        data_dir: a folder, a file (with those of its other splits or classes beside it), or an
            archive: lines of a class and a sentence, a file a class, or tables with a header.
        validation: how many of the first training sentences to keep for validation. Default: the
            validation sentences that the data come with, or else a tenth of the training sentences,
            5,000 at most. Data with validation sentences and without labelled test sentences, as
            GLUE's, are tested on those.
        encoding: of the files, as Python names it.
        download_dir: as for `mnist_jax.data.load`.
        class_names: the classes that labels are places among, as of a trained network; default the
            data's own.
        vocabulary: likewise; default all words of the data.

    Raises:
        ValueError: an unknown name or encoding, `validation` out of range, classes other than
            `class_names`.
        DataError: a missing or damaged file, a line that does not fit the encoding or the format,
            or sentences of one class alone.
        DataUnavailable: no file, and no way to download it.
    """
    if name not in NAMES:
        near = get_close_matches(name, NAMES, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"name {name!r} is no data set of sentences; {', '.join(NAMES)} are.{hint}"
        )
    if name == "opinions" and data_dir is not None:
        raise ValueError("data_dir has no use with opinions, which come with this package.")
    _check_encoding(encoding)
    if data_dir is not None:
        group, place = _choose(_find(data_dir), str(data_dir)), str(data_dir)
    elif name in ("auto", "opinions"):
        group, place = _opinions(), "sentences that come with mnist_jax"
        name = "opinions"
    else:
        folder = downloads.folder(download_dir)
        group = _choose(downloads.find(name, folder), str(folder))
        place = f"TFDS downloads in {folder}"
        encoding = "latin-1" if name == "trec" else encoding  # it has one byte that is no ASCII
    rows, notes = _read_splits(group, encoding, place)
    cased = name == "trec" or (name == "auto" and "trec" in files.words_of(group.name))
    sentences = {split: _words(part.texts, cased) for split, part in rows.items()}
    everything = [words for part in sentences.values() for words in part]
    _see_words(everything, [where for part in rows.values() for where in part.places], place)
    if vocabulary is None:
        vocabulary = make_vocabulary(everything)
    names = _classes(rows, name, place)
    tokens = _tokens(everything, vocabulary, 0)
    parts, start = {}, 0
    for split, part in rows.items():
        labels = np.array([names[label] for label in part.labels], np.int32)
        parts[split] = Split(tokens[start : start + len(labels)], labels)
        start += len(labels)
    known = CLASS_NAMES.get(name) or tuple(names)
    splitting.see_classes(parts, known, place, "sentence")
    train, held, test, more = splitting.cut(parts, validation, known, place, "sentence")
    dataset = Sentences(
        name if name != "auto" else group.name,
        train,
        held,
        test,
        known,
        "; ".join([place, *notes, *more]),
        False,
        tuple(vocabulary),
        cased,
    )
    if class_names is None:
        return dataset
    translated = splitting.translate(dataset, class_names, "sentence")
    assert isinstance(translated, Sentences)
    return translated


def load_test(
    path: str | PathLike[str],
    vocabulary: Sequence[str],
    cased: bool = False,
    encoding: str = "utf-8",
) -> np.ndarray:
    """The test sentences of any data that `load` reads, int32 `[n, length]`; all without a split.

    Raises:
        ValueError, DataError: as `load`.
    """
    _check_encoding(encoding)
    group = _choose(_find(path), str(path))
    rows, _ = _read_splits(group, encoding, str(path))
    split = next(split for split in ("test", "train", "validation") if split in rows)
    return tokenize(rows[split].texts, vocabulary, cased)


def decode(content: bytes, encoding: str, where: str) -> str:
    """A file's text.

    Raises:
        DataError: at the first line that does not fit the encoding.
    """
    is_utf8 = encoding.lower().replace("_", "-") in ("utf-8", "utf8")
    # With -sig without the mark that some programs write first.
    codec = "utf-8-sig" if is_utf8 else encoding
    try:
        text = content.decode(codec)
    except UnicodeDecodeError as error:
        line = content[: error.start].decode(codec, errors="replace").count("\n") + 1
        is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        others = "utf-16, as this file's seems" if is_utf16 else "cp1252 or latin-1 for older ones"
        raise DataError(
            f"{where}, line {line}: no {encoding}: byte {content[error.start]:#04x} does not fit.\n"
            f"Name the file's encoding (--encoding), such as {others}."
        ) from None
    if "\0" in text:
        raise DataError(
            f"{where}: no text in {encoding}, but bytes of 0.\n"
            "Name the file's encoding (--encoding), such as utf-16, or give a file of text."
        )
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _check_encoding(encoding: str) -> None:
    try:
        "".encode(encoding)
    except LookupError:
        raise ValueError(f"encoding {encoding!r} is none that Python knows.") from None


def _find(path: str | PathLike[str]) -> list[File]:
    """The files of a folder or an archive, or a file and those of its splits and classes.

    Raises:
        DataError: no such folder or file, or a damaged archive.
    """
    path = Path(path).expanduser()
    this = files.single(path)
    if not os.path.isfile(path) or files.is_archive(this):
        return [file for file in files.find(path) if _may_be_data(file)]
    return [this, *(file for file in _beside(path) if _are_partners(file, this))]


def _beside(path: Path) -> list[File]:
    others = sorted(p for p in path.parent.iterdir() if p.is_file() and p != path)
    return [files.single(p) for p in others]


def _are_partners(file: File, this: File) -> bool:
    """Whether two files are of one data set: of two splits or two classes."""
    if not _may_be_data(file) or _key(file) != _key(this):
        return False
    return (_split_of(file), _class_of(file)) != (_split_of(this), _class_of(this))


def _may_be_data(file: File) -> bool:
    words = files.words_of(file.path.name)
    if _NO_DATA & set(words):
        return False
    return file.suffix in _SUFFIXES or _class_of(file) is not None


def _key(file: File) -> tuple[str, ...]:
    """What the names of one data set's files share."""
    if _stem(file) in _TREC_FILES:
        return ("trec",)
    words = files.words_of(file.path.name)
    return tuple(word for word in words if word not in (*_FILLERS, *_CLASS_WORDS))


def _stem(file: File) -> str:
    return PurePosixPath(file.path.name.lower()).stem


def _split_of(file: File) -> str | None:
    """The split that a file's name, or that of a folder above it, tells."""
    if _stem(file) in _TREC_FILES:
        return _TREC_FILES[_stem(file)]
    for part in reversed(file.path.parts):
        found = [_SPLITS[word] for word in files.words_of(part) if word in _SPLITS]
        if found:
            return found[-1]
    return None


def _class_of(file: File) -> str | None:
    """The class of all sentences in a file, where its name tells one."""
    words = files.words_of(file.path.name)
    return next((word for word in words if word in _CLASS_WORDS), None)


def _choose(here: Sequence[File], place: str) -> _Group:
    """The data set that files hold.

    Raises:
        DataError: none, or several.
    """
    by_key: dict[tuple[PurePosixPath, tuple[str, ...]], list[File]] = defaultdict(list)
    for file in sorted(here, key=files.preference):
        folder = PurePosixPath(
            *(p for p in file.path.parent.parts if not set(files.words_of(p)) & set(_SPLITS))
        )
        by_key[folder, _key(file)].append(file)
    if not by_key:
        raise DataError(f"{place} has no file of sentences.\n{READ_HERE}")
    groups = [
        _Group("-".join(key) or Path(place).expanduser().absolute().stem, found, len(folder.parts))
        for (folder, key), found in by_key.items()
    ]
    depth = min(group.depth for group in groups)
    groups = [group for group in groups if group.depth == depth]
    if len(groups) > 1:
        each = splitting.listed([str(group.files[0].path) for group in groups])
        raise DataError(
            f"{place} holds several data sets: {each}.\nGive the file of one of them (--data-dir)."
        )
    return groups[0]


def _opinions() -> _Group:
    names = ("opinions.train", "opinions.test")
    return _Group("opinions", [files.single(Path(__file__).parent / name) for name in names], 0)


def _read_splits(
    group: _Group, encoding: str, place: str
) -> tuple[dict[str, _Rows], tuple[str, ...]]:
    """The sentences by split; what is in no split is for training.

    Raises:
        DataError: nothing to train on.
    """
    is_whole = len(group.files) == 1 and group.files[0].suffix not in _ENDINGS_OF_CLASSES
    by_class = all(_class_of(file) for file in group.files) and not is_whole
    rows: dict[str, _Rows] = {}
    unlabelled = []
    for file in group.files:
        found = _read(file, encoding, _class_of(file) if by_class else None)
        if found is None:
            unlabelled.append(file.path.name)
            continue
        split = _split_of(file) or "train"
        before = rows.get(split, _Rows([], [], []))
        rows[split] = _Rows(*(a + b for a, b in zip(before, found, strict=True)))
    notes = [f"{name} has no labels and is left out" for name in unlabelled]
    rows = {split: part for split, part in rows.items() if part.texts}
    if not rows:
        raise DataError(f"{place}: no sentences with classes.\n{READ_HERE}")
    if "train" not in rows:  # a file that the user names is what to train on
        only = next(iter(rows))
        rows["train"] = rows.pop(only)
    if "test" not in rows and "validation" in rows:
        rows["test"] = rows.pop("validation")
        notes.append("tested on the validation sentences")
    labels = [label for part in rows.values() for label in part.labels]
    if all(_TREC_CLASS.fullmatch(label) for label in labels):  # Kim has the coarse ones
        rows = {
            split: part._replace(labels=[_coarse(label) for label in part.labels])
            for split, part in rows.items()
        }
    return rows, tuple(notes)


def _read(file: File, encoding: str, class_name: str | None) -> _Rows | None:
    """A file's rows; None of a table without labels."""
    with files.reading(file) as stream:
        text = decode(stream.read(), encoding, file.where)
    if class_name is not None:
        lines = [(i, line) for i, line in _lines(text)]
        return _rows(file, [(class_name, line, i) for i, line in lines])
    if file.suffix in (".tsv", ".csv"):
        return _table(file, text)
    rows = []
    for number, line in _lines(text):
        label, _, sentence = line.strip().partition("\t" if "\t" in line.strip() else " ")
        rows.append((label, sentence, number))
    found = _rows(file, rows)
    if 2 * len(set(found.labels)) > max(len(rows), 4) or len(set(found.labels)) > _MOST_CLASSES:
        raise DataError(
            f"{file.where}, line {rows[0][2]}: {found.labels[0]!r} is no class; lines must begin "
            f"with theirs, and {len(rows):,} begin with {len(set(found.labels)):,} different words."
        )
    return found


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines that are not blank, with their numbers from 1."""
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, line


def _rows(file: File, rows: Sequence[tuple[str, str, int]]) -> _Rows:
    return _Rows(
        [label for label, _, _ in rows],
        [text for _, text, _ in rows],
        [f"{file.where}, line {number}" for _, _, number in rows],
    )


def read_file(
    path: str | PathLike[str], encoding: str, class_names: Sequence[str]
) -> list[tuple[str, str | None]]:
    """The sentences of one file, each with its class where all have one of those that are known.

    A table whose header names a column of sentences is read as `load` does, and of any other file
    each line is a sentence, or a class and a sentence.

    Raises:
        DataError: it cannot be read, a line that does not fit the encoding, or a damaged table.
    """
    file = files.single(path)
    with files.reading(file) as stream:
        text = decode(stream.read(), encoding, file.where)
    if file.suffix in (".tsv", ".csv") and text.strip():
        cells = _cells(file, text)
        sentence, label = _column(cells.header, _TEXTS), _column(cells.header, _LABELS)
        if sentence is not None:
            texts = [row[sentence] for _, row in cells.rows]
            if label is None:
                return [(text_of_row, None) for text_of_row in texts]
            return _labelled(texts, [row[label].strip() for _, row in cells.rows], class_names)
    return of_lines(text, class_names)


def of_lines(text: str, class_names: Sequence[str]) -> list[tuple[str, str | None]]:
    """A sentence a line; where all begin with a class of those known, it is their label."""
    lines = [line.strip() for _, line in _lines(text)]
    pairs = [line.split(maxsplit=1) for line in lines]
    if all(len(pair) == 2 for pair in pairs):
        labels = [_coarse(pair[0]) for pair in pairs]
        if set(labels) <= set(class_names):
            return [(pair[1], label) for pair, label in zip(pairs, labels, strict=True)]
    return [(line, None) for line in lines]


def _labelled(
    texts: Sequence[str], labels: Sequence[str], class_names: Sequence[str]
) -> list[tuple[str, str | None]]:
    coarse = [_coarse(label) for label in labels]
    known = set(coarse) <= set(class_names)
    return [(text, label if known else None) for text, label in zip(texts, coarse, strict=True)]


def _coarse(label: str) -> str:
    """TREC's class without what is finer: `DESC` of `DESC:manner`."""
    return label.partition(":")[0] if _TREC_CLASS.fullmatch(label) else label


class _Cells(NamedTuple):
    """A table."""

    header: list[str]  # in small letters
    rows: list[tuple[int, list[str]]]  # with their line, each as long as the header


def _table(file: File, text: str) -> _Rows | None:
    """A table with a header; None without a column of labels.

    Raises:
        DataError: no header with a column of sentences, or a row of another length.
    """
    header, rows = _cells(file, text)
    sentence, label = _column(header, _TEXTS), _column(header, _LABELS)
    if sentence is None:
        raise DataError(
            f"{file.where}: no column is called {', '.join(_TEXTS[:4])}; the first line has "
            f"{splitting.listed([cell[:20] for cell in header])}.\n"
            "A table must have a header that names its columns."
        )
    if label is None:
        return None
    for line, cells in rows:
        if not cells[label].strip():
            raise DataError(f"{file.where}, line {line}: has no label.")
    return _rows(file, [(cells[label].strip(), cells[sentence], line) for line, cells in rows])


def _cells(file: File, text: str) -> _Cells:
    """A table's cells; in `.tsv` quotes mean nothing, as in GLUE's.

    Raises:
        DataError: damaged quotes, or a row of another length than the header.
    """
    tabs = "\t" in text.partition("\n")[0]
    as_it_is = tabs and file.suffix == ".tsv"
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))  # a sentence of any length
    reader = csv.reader(
        io.StringIO(text),
        delimiter="\t" if tabs else ",",
        quoting=csv.QUOTE_NONE if as_it_is else csv.QUOTE_MINIMAL,
        strict=True,
    )
    try:
        rows = [(reader.line_num, cells) for cells in reader if any(map(str.strip, cells))]
    except csv.Error as error:
        raise DataError(f"{file.where}, line {reader.line_num}: {error}.") from None
    if not rows:
        raise DataError(f"{file.where}: is empty.\nA table must have a header and sentences.")
    header = [cell.strip().strip('"').lower() for cell in rows[0][1]]
    for line, cells in rows[1:]:
        if len(cells) != len(header) and _column(header, _TEXTS) is not None:
            raise DataError(
                f"{file.where}, line {line}: has {counted(len(cells), 'cell')}, and the header "
                f"{len(header)}."
            )
    return _Cells(header, rows[1:])


def _column(header: Sequence[str], names: Sequence[str]) -> int | None:
    return next((header.index(name) for name in names if name in header), None)


def _classes(rows: Mapping[str, _Rows], name: str, place: str) -> dict[str, int]:
    """Each label's class.

    Raises:
        DataError: labels that a data set of this name does not have.
    """
    kinds = {label for part in rows.values() for label in part.labels}
    known = CLASS_NAMES.get(name)
    if known is None:
        return {kind: i for i, kind in enumerate(sorted(kinds, key=splitting.natural))}
    by_word = {word: i for i, word in enumerate(known)}
    by_number = {str(i): i for i in range(len(known))}
    for naming in (by_word, by_number):
        if kinds <= naming.keys():
            return naming
    strange = splitting.listed(sorted(kinds - by_word.keys()))
    raise DataError(f"{place}: {strange} are none of {name}'s classes, {', '.join(known)}.")


def _see_words(sentences: Sequence[Sequence[str]], places: Sequence[str], place: str) -> None:
    """Warn of sentences without words, and of those that are cut.

    Raises:
        DataError: there are no words at all.
    """
    pairs = list(zip(map(len, sentences), places, strict=True))
    empty = [where for count, where in pairs if count == 0]
    long = [where for count, where in pairs if count > MOST_WORDS]
    if len(empty) == len(pairs):
        raise DataError(
            f"{place}: no word is left of any sentence; the cleaning keeps English letters, digits "
            "and (),!?'` alone."
        )
    if empty:
        first = f"; the first is in {empty[0]}" if len(empty) > 1 else f": {empty[0]}"
        message = f"{counted(len(empty), 'sentence')} without words{first}."
        warnings.warn(message, DataWarning, stacklevel=3)
    if long:
        first = f"; the first is in {long[0]}" if len(long) > 1 else f": {long[0]}"
        message = (
            f"{counted(len(long), 'sentence')} of more than {MOST_WORDS} words, of which the first "
            f"{MOST_WORDS} are read{first}."
        )
        warnings.warn(message, DataWarning, stacklevel=3)
