"""Word vectors out of the formats that people have."""

import gzip
import tracemalloc
import warnings

import numpy as np
import pytest

from mnist_jax.data import DataError, vectors

WORDS = ["the", "good", "New_York", "bad", "Caf\xe9", "a"]
ROWS = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)


def text(words=WORDS, rows=ROWS, end="\n"):
    return "".join(
        f"{w} {' '.join(map(repr, r.tolist()))}{end}" for w, r in zip(words, rows, strict=True)
    )


def binary(words=WORDS, rows=ROWS, between=b""):
    head = f"{len(words)} {rows.shape[1]}\n".encode()
    parts = [w.encode() + b" " + r.tobytes() + between for w, r in zip(words, rows, strict=True)]
    return head + b"".join(parts)


FORMATS = {
    "glove.txt": text().encode(),
    "glove.txt.gz": gzip.compress(text().encode()),
    "word2vec.txt": f"6 5\n{text(end=' ' + chr(10))}".encode(),
    "google.bin": binary(),
    "original.bin": binary(between=b"\n"),
    "google.bin.gz": gzip.compress(binary()),
}


@pytest.mark.parametrize("name", FORMATS)
def test_formats(tmp_path, name):
    (tmp_path / name).write_bytes(FORMATS[name])
    check(vectors.read(tmp_path / name, ("", "good", "Bad", "missing", "Caf\xe9")))


def test_npz(tmp_path):
    np.savez(tmp_path / "v.npz", words=np.array(WORDS), vectors=ROWS)
    check(vectors.read(tmp_path / "v.npz", ("", "good", "Bad", "missing", "Caf\xe9")))


def check(found):
    """A word as it is; else in small letters; zeros of padding and of what is not there."""
    np.testing.assert_allclose(found.rows[[1, 2, 4]], ROWS[[1, 3, 4]], rtol=1e-6)
    assert found.known.tolist() == [False, True, True, False, True] and found.width == 5
    assert (found.rows[[0, 3]] == 0).all() and found.rows.dtype == np.float32


def test_gloves_words_with_spaces(tmp_path):
    (tmp_path / "g.txt").write_text(text(["a", ". . .", "at name@x.com", "b"], ROWS[:4]))
    found = vectors.read(tmp_path / "g.txt", ("", "b", ".", "name@x.com"))
    np.testing.assert_allclose(found.rows[1], ROWS[3], rtol=1e-6)
    assert found.known.tolist() == [False, True, False, False]


def test_large_files_are_streamed(tmp_path):
    words, rows = [f"w{i}" for i in range(60_000)], np.ones((60_000, 100), np.float32)
    (tmp_path / "v.bin").write_bytes(binary(words, rows))  # 24 MB
    tracemalloc.start()
    found = vectors.read(tmp_path / "v.bin", ("", "w5", "w59999"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.known.sum() == 2 and peak < 16e6


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("v.bin", binary()[:-7], "cut off; it ends in word 6 of 6"),
        ("v.bin", binary().replace(b"6 5", b"9 5"), "cut off; it ends in word 7 of 9"),
        ("v.bin", b"5 300\n" + b"\xff" * 9000, "damaged; word 1 of 5 does not end"),
        ("v.txt", text().encode() + b"more 1 2\n", "line 7: 2 numbers, and 5 in those before"),
        ("v.txt", text().encode() + b"more 1 2 3 4 5 6\n", "line 7: 6 numbers, and 5 in"),
        ("v.txt", text().replace("good ", "good x").encode(), "line 2: something is no number"),
        ("v.txt", b"once upon a time\n", "line 1: no word and its numbers"),
        ("v.txt", b"good nan 1\n", "the vector of 'good' has numbers that are not finite"),
        ("v.txt", b"zzz 1 2\n", "has a vector of none of the 1 words"),
        ("v.txt", b"", "none of the 1 words"),
        ("v.npz", b"PK\3\4", "cannot be read from its archive"),
        ("v.txt.gz", gzip.compress(text().encode())[:-9], "truncated or damaged gzip"),
    ],
)
def test_damage(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        vectors.read(tmp_path / name, ("", "good"))


def test_other_npz(tmp_path):
    np.savez(tmp_path / "v.npz", words=np.array(WORDS), vectors=ROWS[:4])
    with pytest.raises(DataError, match=r"words \(6,\) and vectors \(4, 5\)"):
        vectors.read(tmp_path / "v.npz", ("", "good"))
    np.savez(tmp_path / "v.npz", x_train=ROWS)
    with pytest.raises(DataError, match="has no words and no vectors, but x_train"):
        vectors.read(tmp_path / "v.npz", ("", "good"))
    np.savez(tmp_path / "v.npz", words=np.array(WORDS), vectors=ROWS.astype(float) * 1e300)
    with warnings.catch_warnings(), pytest.raises(DataError, match="numbers that are not finite"):
        warnings.simplefilter("error")
        vectors.read(tmp_path / "v.npz", ("", "good"))
    np.savez(tmp_path / "v.npz", words=np.array([b"caf\xe9"] * len(WORDS)), vectors=ROWS)
    with pytest.raises(DataError, match=r"damaged, or no \.npz of words"):
        vectors.read(tmp_path / "v.npz", ("", "good"))
    with (tmp_path / "v.npz").open("wb") as file:
        np.save(file, ROWS)
    with pytest.raises(DataError, match=r"is a \.npy of one array"):
        vectors.read(tmp_path / "v.npz", ("", "good"))
    with pytest.raises(DataError, match="is no file of word vectors"):
        vectors.read("a" * 300, ("", "good"))
    with pytest.raises(DataError, match="is no file of word vectors"):
        vectors.read(tmp_path / "none.bin", ("", "good"))
