"""Sentences as tokens: the cleaning, the files people have, and what can be wrong with them."""

import re
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnist_jax import models
from mnist_jax.data import DataError, DataUnavailable, DataWarning, sentences
from mnist_jax.data.sentences import MOST_WORDS, clean, load, tokenize, words_of

LINES = [
    ("1", "a fine film"),
    ("0", "a dull film"),
    ("1", "it's great, isn't it?"),
    ("0", "they'd call it bad!"),
    ("1", "fine"),
    ("0", "dull"),
    ("1", "great (really)"),
    ("0", "bad , bad , bad"),
    ("1", "a great film"),
    ("0", "a bad film"),
]


def write(path, lines=LINES, encoding="utf-8"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(f"{label} {text}\n" for label, text in lines).encode(encoding))
    return path


def in_words(dataset):
    """Each sentence's words with its class's name, of all splits."""
    return sorted(
        (dataset.class_names[label], " ".join(words_of(tokens, dataset.vocabulary)))
        for split in (dataset.train, dataset.validation, dataset.test)
        for tokens, label in zip(split.inputs, split.labels, strict=True)
    )


def as_kim(string, trec=False):
    """`clean_str` of Kim's process_data.py, but that a bracket's replacement has no backslash."""
    string = re.sub(r"[^A-Za-z0-9(),!?\'\`]", " ", string)
    for ending in (r"\'s", r"\'ve", r"n\'t", r"\'re", r"\'d", r"\'ll"):
        string = re.sub(ending, " " + ending.replace("\\", ""), string)
    for mark in ",!()?":
        string = string.replace(mark, f" {mark} ")
    string = re.sub(r"\s{2,}", " ", string)
    return string.strip() if trec else string.strip().lower()


@pytest.mark.parametrize(
    "text",
    [
        *("it's they've isn't you're he'd we'll", "a,b!c(d)e?f", "  A  quick-brown\tFOX. ", ""),
        *("`` quoted ''", "caf\xe9 \u00fcber", "don't!!! (they'll say)", "can't've", "\x85 . ."),
    ],
)
@pytest.mark.parametrize("cased", [False, True])
def test_cleaning_is_kims(text, cased):
    assert clean(text, cased) == as_kim(text, cased)


def test_tokens_are_words_between_padding():
    tokens = tokenize(["a b", "b zzz b c", ""], ("", "a", "b", "c"))
    assert tokens.dtype == np.int32
    np.testing.assert_array_equal(
        tokens,
        [
            [0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0],
            [0, 0, 0, 0, 2, 0, 2, 3, 0, 0, 0, 0, 0],
            [0] * 13,
        ],
    )


def test_what_comes_with_the_package():
    dataset = load()
    assert dataset.class_names == ("negative", "positive")
    assert len(dataset.train.labels) + len(dataset.validation.labels) > 300
    for split in (dataset.train, dataset.test):
        assert split.labels.mean() == pytest.approx(0.5, abs=0.05)
        assert (split.inputs[:, :4] == 0).all() and (split.inputs[:, -4:] == 0).all()
    train = {row.tobytes() for row in [*dataset.train.inputs, *dataset.validation.inputs]}
    assert not train & {row.tobytes() for row in dataset.test.inputs}


def test_lines_of_class_and_sentence(tmp_path):
    dataset = load(data_dir=write(tmp_path / "mine.all"))
    assert in_words(dataset) == sorted((label, clean(text)) for label, text in LINES)
    assert dataset.name == "mine" and not dataset.cased
    assert dataset.vocabulary[0] == "" and dataset.vocabulary[1] == "bad"  # five times


def test_splits_beside_a_file_are_found(tmp_path):
    for split, part in (("train", LINES[:6]), ("dev", LINES[6:8]), ("test", LINES[8:])):
        write(tmp_path / f"stsa.binary.{split}", part)
    write(tmp_path / "other.train", [("x", "y z"), ("w", "y z")] * 3)
    dataset = load(data_dir=tmp_path / "stsa.binary.train")
    assert [len(s.labels) for s in (dataset.train, dataset.validation, dataset.test)] == [6, 2, 2]
    assert in_words(dataset) == sorted((label, clean(text)) for label, text in LINES)
    with pytest.raises(DataError, match=r"several data sets: other\.train, stsa\.binary\.dev"):
        load(data_dir=tmp_path)


def test_a_file_a_class_as_mrs(tmp_path):
    folder = tmp_path / "rt-polaritydata"
    folder.mkdir()
    for name, label in (("rt-polarity.pos", "1"), ("rt-polarity.neg", "0")):
        lines = [text for own, text in LINES if own == label]
        (folder / name).write_bytes("\n".join(lines).encode())
    (folder / "rt-polaritydata.README.1.0.txt").write_text("1 about\n0 the data\n")
    expected = sorted((["neg", "pos"][int(label)], clean(text)) for label, text in LINES)
    assert in_words(load(data_dir=folder)) == expected
    assert in_words(load(data_dir=folder / "rt-polarity.neg")) == expected


GLUE = {
    "train": 'sentence\tlabel\n"hide new secretions" \t0\nso "good \t1\nfine work\t1\nweak\t0\n',
    "dev": "sentence\tlabel\na charming journey\t1\nunflinchingly bleak\t0\n",
    "test": "index\tsentence\n0\tuneasy mishmash\n",
}


def test_glues_tables_in_their_archive(tmp_path):
    with zipfile.ZipFile(tmp_path / "SST-2.zip", "w") as archive:
        for split, text in GLUE.items():
            archive.writestr(f"SST-2/{split}.tsv", text)
        archive.writestr("SST-2/original/README.txt", "about")
    dataset = load("glue/sst2", data_dir=tmp_path / "SST-2.zip")
    assert dataset.class_names == ("negative", "positive")
    assert in_words(dataset)[0] == ("negative", "hide new secretions")
    assert [" ".join(words_of(t, dataset.vocabulary)) for t in dataset.test.inputs] == [
        "a charming journey",
        "unflinchingly bleak",
    ]
    assert "test.tsv has no labels" in dataset.source


def test_csv_with_quotes_and_line_breaks(tmp_path):
    rows = '"no, not\nthis",bad\r\nyes,good\r\n"a ""word""",good\r\nnever,bad\r\n' * 3
    (tmp_path / "data.csv").write_text("Review,Sentiment\r\n" + rows, newline="")
    dataset = load(data_dir=tmp_path / "data.csv")
    assert ("bad", "no , not this") in in_words(dataset) and ("good", "a word") in in_words(dataset)


def test_trec_as_it_is_handed_out(tmp_path):
    rows = ["DESC:manner How did serfdom develop ?", "ENTY:cremat What films featured Popeye ?"]
    rows += ["NUM:dist How far is it from Denver ?", "LOC:city What sister\xf0city is it ?"] * 2
    rows *= 2
    for name in ("train_5500.label", "TREC_10.label"):
        (tmp_path / name).write_bytes("\n".join(rows).encode("latin-1"))
    for name in ("trec", "auto"):
        dataset = load(name, data_dir=tmp_path, encoding="latin-1")
        assert dataset.cased and "Denver" in dataset.vocabulary
        assert len(dataset.test.labels) == 12
        assert {c for c, _ in in_words(dataset)} == {"DESC", "ENTY", "NUM", "LOC"}
    assert load("trec", tmp_path, encoding="latin-1").class_names == sentences.CLASS_NAMES["trec"]
    with pytest.raises(ValueError, match=r"trec has sentences of .* not among the classes"):
        load("trec", tmp_path, encoding="latin-1", class_names=("0", "1"))


def test_by_name_without_a_network(tmp_path, monkeypatch):
    monkeypatch.setattr("mnist_jax.data.downloads._PROBE_SECONDS", 0.001)
    with pytest.raises(DataUnavailable, match=r"trec is not on this machine.*\n.*opinions"):
        load("trec", download_dir=tmp_path)


def test_a_trained_networks_words_and_classes(tmp_path):
    path = write(tmp_path / "x.all", LINES * 2)
    dataset = load(data_dir=path, class_names=("1", "0", "2"), vocabulary=("", "film", "a"))
    assert dataset.vocabulary == ("", "film", "a") and dataset.train.inputs.max() == 2
    assert sorted(set(in_words(dataset))) != []
    assert {label for label, _ in in_words(dataset)} == {"0", "1"}


def test_an_encoding_that_does_not_fit_is_told_with_its_line(tmp_path):
    lines = [*LINES, ("1", "clich\xe9 caf\xe9"), ("0", "x")]
    path = write(tmp_path / "a.all", lines, "latin-1")
    with pytest.raises(DataError, match=r"line 11: no utf-8: byte 0xe9.*\n.*--encoding"):
        load(data_dir=path)
    assert ("1", "clich caf") in in_words(load(data_dir=path, encoding="latin-1"))
    mixed = path.read_bytes() + "1 na\xefve\n".encode()
    path.write_bytes(mixed)
    with pytest.raises(DataError, match="line 11"):
        load(data_dir=path)
    with pytest.raises(ValueError, match="encoding 'klingon'"):
        load(data_dir=path, encoding="klingon")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "cp1252"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_encodings_and_line_ends(tmp_path, encoding, end):
    text = end.join(f"{label} {text}" for label, text in LINES)
    (tmp_path / "a.all").write_bytes(text.encode(encoding))
    given = "utf-8" if encoding == "utf-8-sig" else encoding
    if encoding == "utf-16":
        with pytest.raises(DataError, match=r"line 1: no utf-8: .*\n.*such as utf-16"):
            load(data_dir=tmp_path / "a.all")
    dataset = load(data_dir=tmp_path / "a.all", encoding=given)
    assert in_words(dataset) == sorted((label, clean(text)) for label, text in LINES)


def test_blank_lines_and_sentences_without_words(tmp_path):
    path = tmp_path / "a.all"
    path.write_text("\n\n" + "".join(f"{a} {b}\n\n  \n" for a, b in LINES) + "1 \u2026 --\n")
    with pytest.warns(DataWarning, match="1 sentence without words: .*, line 33"):
        dataset = load(data_dir=path)
    assert len(in_words(dataset)) == len(LINES) + 1 and ("1", "") in in_words(dataset)


def test_ten_thousand_words_are_cut(tmp_path):
    path = write(tmp_path / "a.all", [*LINES, ("1", "word " * 10_000)])
    with pytest.warns(DataWarning, match="more than 400 words.*line 11"):
        dataset = load(data_dir=path)
    assert dataset.train.inputs.shape[1] == MOST_WORDS + 8


def test_a_table_s_sentence_may_be_as_long_as_a_line_s(tmp_path):
    rows = [f"{label},{text.replace(',', ' ')}" for label, text in LINES]
    text = "\n".join(["label,text", *rows, "1," + "word " * 40_000])
    (tmp_path / "a.csv").write_text(text)
    with pytest.warns(DataWarning, match="1 sentence of more than 400 words, .*line 12"):
        assert load(data_dir=tmp_path / "a.csv").train.inputs.shape[1] == MOST_WORDS + 8


def test_a_sentence_s_answer_does_not_depend_on_its_neighbours():
    vocabulary = ("", "a", "film", "good")
    network = models.create("sentence", 2, words=4, width=6, maps=5)
    variables = network.init(jax.random.key(0), np.zeros((1, 9), np.int32))
    rng = np.random.default_rng(0)
    drawn = jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), "float32"), variables
    )
    table, windows = drawn["params"]["trained"], drawn["params"]["windows"]
    table["vectors"] = jnp.abs(table["vectors"]).at[0].set(0)  # of padding
    for name, leaf in windows.items():  # so that padding, which is 0, is each map's maximum
        windows[name] = jnp.abs(leaf) if name == "bias" else -jnp.abs(leaf)

    def answer(texts):
        return network.apply(drawn, sentences.tokenize(texts, vocabulary))[0]

    alone = answer(["a good film"])
    for neighbour in ("a", "a good film a", "good " * 30):
        assert np.allclose(answer(["a good film", neighbour]), alone, atol=1e-6)


def test_a_class_seen_once_is_trained_on(tmp_path):
    dataset = load(data_dir=write(tmp_path / "a.all", [*LINES, ("2", "only one")]))
    assert 2 in dataset.train.labels and dataset.class_names == ("0", "1", "2")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.all", "", "no sentences with classes"),
        ("a.all", "1 fine\n1 good\n1 great\n1 x\n1 y\n", "of one class, 1"),
        ("a.all", "the film is good\nit is bad\nwhy not\nall of it\nno\n", "line 1: 'the' is no"),
        ("a.all", "1 \u4f60\u597d\n0 \u4f60\n" * 3, "no word is left of any sentence"),
        ("a.all", "\0\0\1\2", "no text in utf-8"),
        ("a.tsv", "phrase\n1\n", None),
        ("a.tsv", "what\tlabel\nx\t1\n", "no column is called sentence"),
        ("a.tsv", "sentence\tlabel\nx\t1\ny\n", "line 3: has 1 cell, and the header 2"),
        ("a.csv", 'sentence,label\n"x,1\n', "line 2: unexpected end of data"),
        ("a.csv", "sentence,label\nx,\n", "line 2: has no label"),
        ("a.csv", "", "is empty"),
        ("a.pos", "a fine film\n" * 9, "of one class, pos"),
        ("a.bin", "x", None),
    ],
)
def test_what_is_no_data_set(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        load(data_dir=tmp_path)


def test_what_is_not_there(tmp_path):
    with pytest.raises(DataError, match="no folder and no file"):
        load(data_dir=tmp_path / "none")
    with pytest.raises(ValueError, match="Did you mean 'trec'"):
        load("trek")
    with pytest.raises(ValueError, match="data_dir has no use with opinions"):
        load("opinions", data_dir=tmp_path)
    (tmp_path / "cut.zip").write_bytes(b"PK\3\4nothing")
    with pytest.raises(DataError, match="damaged, or no zip"):
        load(data_dir=tmp_path / "cut.zip")
