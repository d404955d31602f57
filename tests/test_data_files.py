"""Folders, files and archives: what is found in them, under the names that people have."""

import gzip
import shutil
import zipfile

import numpy as np
import pytest

from mnist_jax import data
from mnist_jax.data import DataError, files
from tests.samples import TYPES, arrays, idx, same_images, write_csv, write_idx, write_pictures

MNIST = "{split}-{kind}-idx{n}-ubyte"


def is_right(dataset: data.Dataset, train: int = 200, test: int = 50) -> bool:
    """Whether these are `samples.arrays`, the first tenth for validation."""
    wanted = arrays(train, test)
    whole = [np.concatenate(pair) for pair in zip(dataset.validation, dataset.train, strict=True)]
    held = len(dataset.validation.labels)
    found = (*whole, *dataset.test)
    wanted_arrays = (wanted[s, k] for s in ("train", "test") for k in ("images", "labels"))
    return held == train // 10 and all(
        np.array_equal(a.reshape(b.shape), b) for a, b in zip(found, wanted_arrays, strict=True)
    )


@pytest.mark.parametrize(
    "name",
    [
        "train-images-idx3-ubyte",
        "train-images.idx3-ubyte",
        "TRAIN-IMAGES-IDX3-UBYTE.GZ",
        "{split}-{kind}.idx{n}-ubyte.gz",
        "{split}_{kind}",
        "{split}-{kind}.gz",
        "{split}-{kind}.bin",
        "MNIST/raw/{split}-{kind}-idx{n}-ubyte",
        "{split}-{kind}-idx{n}-ubyte/{split}-{kind}-idx{n}-ubyte",
        "archive/{split}-{kind}-idx{n}-ubyte/{split}-{kind}.idx{n}-ubyte",
        "{split}/{kind}-idx{n}-ubyte",
        "mnist-{split}-{kind}-idx{n}-ubyte.gz",
    ],
)
def test_the_four_files_under_their_usual_names(tmp_path, name):
    if "{" not in name:
        upper = name.isupper()
        name = name.lower().replace("train", "{split}").replace("images", "{kind}")
        name = name.replace("idx3", "idx{n}")
        for path in write_idx(tmp_path / "lower", name).iterdir():
            (tmp_path / "data").mkdir(exist_ok=True)
            path.rename(tmp_path / "data" / (path.name.upper() if upper else path.name))
        shutil.rmtree(tmp_path / "lower")
    else:
        write_idx(tmp_path / "data", name)
    for asked in ("auto", "mnist"):
        dataset = data.load(asked, tmp_path / "data")
        assert is_right(dataset) and dataset.name == "mnist" and dataset.characters
        assert dataset.class_names == tuple("0123456789")
    np.testing.assert_array_equal(
        data.load_test(tmp_path / "data").inputs[..., 0], arrays()["test", "images"]
    )


def test_t10k_is_the_test_split(tmp_path):
    write_idx(tmp_path, MNIST)
    for path in list(tmp_path.glob("test-*")):
        path.rename(tmp_path / path.name.replace("test-", "t10k-"))
    assert is_right(data.load("mnist", tmp_path))
    found = data.find_idx_files(tmp_path)
    assert found["t10k-labels-idx1-ubyte"] == tmp_path / "t10k-labels-idx1-ubyte"
    split = data.read_split(*(found[name] for name in list(found)[2:]))
    np.testing.assert_array_equal(split.labels, arrays()["test", "labels"])


@pytest.mark.parametrize("times", [0, 1, 2, 3])
def test_gz_is_told_by_content(tmp_path, times):
    for path in write_idx(tmp_path, MNIST).iterdir():
        content = path.read_bytes()
        for _ in range(times):
            content = gzip.compress(content)
        path.with_name(f"{path.name}.gz").write_bytes(content)
        path.unlink()
    assert is_right(data.load("mnist", tmp_path))


@pytest.mark.parametrize("kind", [k for k in TYPES if k != 9])
def test_idx_of_other_types(tmp_path, kind):
    write_idx(tmp_path, MNIST)
    for (split, what), array in arrays().items():
        (tmp_path / f"{split}-{what}-idx{array.ndim}-ubyte").write_bytes(idx(array, kind))
    assert is_right(data.load("mnist", tmp_path))


def test_qmnist_leaves_out_the_columns_about_the_writers(tmp_path):
    rng = np.random.default_rng(0)
    for (split, kind), array in arrays().items():
        if kind == "labels":
            more = rng.integers(0, 9999, (len(array), 7))
            content = idx(np.concatenate([array[:, None], more], axis=1), 12)
            (tmp_path / f"qmnist-{split}-labels-idx2-int.gz").write_bytes(gzip.compress(content))
        else:
            (tmp_path / f"qmnist-{split}-images-idx3-ubyte").write_bytes(idx(array))
    for asked in ("auto", "mnist", "qmnist"):
        dataset = data.load(asked, tmp_path)
        assert is_right(dataset) and dataset.name == "qmnist"
    with pytest.raises(DataError, match="holds qmnist, not kmnist, by its files' names"):
        data.load("kmnist", tmp_path)


def test_a_file_brings_those_that_belong_to_it(tmp_path):
    write_idx(tmp_path, MNIST)
    write_idx(tmp_path, "other-{split}-{kind}-idx{n}-ubyte", train=100)
    (tmp_path / "train.csv").write_text("what,else\n")
    for path in sorted(tmp_path.glob("t*ubyte")):
        assert is_right(data.load("mnist", path)), path


def test_several_data_sets_are_told_apart_by_name(tmp_path):
    write_idx(tmp_path / "root", "MNIST/raw/{split}-{kind}-idx{n}-ubyte")
    write_idx(tmp_path / "root", "FashionMNIST/raw/{split}-{kind}-idx{n}-ubyte", train=100)
    write_idx(tmp_path / "root", "KMNIST/raw/{split}-{kind}-idx{n}-ubyte", train=150)
    counts = {
        name: len(data.load(name, tmp_path / "root", validation=0).train.labels)
        for name in ("mnist", "fashion_mnist", "kmnist")
    }
    assert counts == {"mnist": 200, "fashion_mnist": 100, "kmnist": 150}
    with pytest.raises(DataError, match=r"several data sets: fashion_mnist, kmnist, mnist\.\nName"):
        data.load("auto", tmp_path / "root")
    dataset = data.load("auto", tmp_path / "root" / "FashionMNIST")
    assert dataset.name == "fashion_mnist" and dataset.class_names[1] == "Trouser"
    assert not dataset.characters


def test_of_two_copies_one_is_taken(tmp_path):
    write_idx(tmp_path, MNIST)
    write_idx(tmp_path, f"{MNIST}.gz", train=100)
    write_idx(tmp_path, f"old/{MNIST}", train=150)
    assert is_right(data.load("mnist", tmp_path))


def test_what_systems_leave_behind_is_passed_over(tmp_path):
    write_pictures(tmp_path / "7s and 3s", *(a[::5] for a in _threes_and_sevens()))
    for junk in (".DS_Store", "3/.DS_Store", "3/Thumbs.db", "__MACOSX/3/._0.png", "3/._0001.png"):
        path = tmp_path / "7s and 3s" / junk
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"\0\0\0\1Bud1")
    (tmp_path / "7s and 3s" / ".ipynb_checkpoints" / "8").mkdir(parents=True)
    dataset = data.load("auto", tmp_path / "7s and 3s")
    assert dataset.class_names == ("3", "7")


def _threes_and_sevens():
    images, labels = arrays(400)["train", "images"], arrays(400)["train", "labels"]
    some = np.isin(labels, (3, 7))
    return images[some], labels[some]


def zip_folder(folder, path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder.parent))
    return path


def test_zip_archives(tmp_path):
    write_idx(tmp_path / "idx", f"{MNIST}.gz")
    assert is_right(data.load("mnist", zip_folder(tmp_path / "idx", tmp_path / "archive.zip")))
    (tmp_path / "downloads").mkdir()
    (tmp_path / "archive.zip").rename(tmp_path / "downloads" / "archive (1).ZIP")
    assert is_right(data.load("mnist", tmp_path / "downloads"))
    wanted = arrays()
    write_pictures(tmp_path / "png" / "train", wanted["train", "images"], wanted["train", "labels"])
    dataset = data.load("auto", zip_folder(tmp_path / "png", tmp_path / "png.zip"))
    every = np.concatenate([dataset.train.inputs, dataset.validation.inputs, dataset.test.inputs])
    assert same_images(every, wanted["train", "images"][..., None])
    # As Kaggle hands out the files of a competition, one by one.
    (tmp_path / "kaggle").mkdir()
    for split in ("train", "test"):
        file = tmp_path / f"{split}.csv"
        write_csv(file, wanted[split, "images"], wanted[split, "labels"])
        with zipfile.ZipFile(tmp_path / "kaggle" / f"{split}.csv.zip", "w") as archive:
            archive.write(file, file.name)
    assert is_right(data.load("mnist", tmp_path / "kaggle"))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("emnist-letters.mat", "a MATLAB file; EMNIST is also there as gzip.zip"),
        ("train-00000-of-00001.parquet", "a table of another kind"),
        ("data-00000-of-00001.arrow", "a table of another kind"),
        ("mnist.pkl.gz", "a pickle, and those can run code"),
        ("training.pt", "a pickle, and those can run code"),
        ("mnist.txz", "unpack it"),
        ("mnist.tar.bz2", "unpack it"),
        ("mnist.7z", "unpack it"),
        ("train-images-idx3-ubyte.xz", "unpack it"),
        ("mnist_784.arff", "save it as .csv"),
        ("mnist-train.tfrecord", "a TFRecord file"),
        ("mnist.h5", "an HDF5 file"),
        ("3/IMG_0001.HEIC", "a HEIC picture; save it as PNG or JPEG"),
    ],
)
def test_a_format_that_is_not_read_is_named(tmp_path, name, words):
    path = tmp_path / "data" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"anything")
    for given in (tmp_path / "data", path):
        for read in (lambda p: data.load("auto", p), data.load_test):
            with pytest.raises(DataError) as caught:
                read(given)
            first, second = str(caught.value).splitlines()
            assert path.name in first and words in first and "IDX files" in second


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: f.write_bytes(b"no zip"), "damaged, or no zip archive"),
        (lambda f: f.write_bytes(f.read_bytes()[:-100]), "damaged, or no zip archive"),
        (
            lambda f: f.write_bytes(f.read_bytes().replace(b"\x1f\x8b\x08", b"\x1f\x8b\x09")),
            "ubyte",
        ),
    ],
)
def test_a_damaged_archive_is_named(tmp_path, spoil, message):
    write_idx(tmp_path / "idx", f"{MNIST}.gz")
    path = zip_folder(tmp_path / "idx", tmp_path / "archive.zip")
    spoil(path)
    with pytest.raises(DataError, match=rf"archive\.zip.*{message}"):
        data.load("mnist", path)


def test_an_empty_folder_and_none(tmp_path):
    with pytest.raises(
        DataError, match=r"holds no images to train on\.\nRead are IDX.*pictures in a"
    ):
        data.load("auto", tmp_path)
    with pytest.raises(DataError, match=r"holds no images to test on\.\nRead are IDX"):
        data.load_test(tmp_path)
    for name in ("cat", "dog"):  # as where pictures of a kind that is not read were to be
        (tmp_path / name).mkdir()
        (tmp_path / name / "notes.txt").write_text("no picture")
    with pytest.raises(DataError, match=r"holds no images to train on\.\nRead are .*CIFAR.*\.csv"):
        data.load("auto", tmp_path)
    (tmp_path / "cat" / "cats.mat").write_bytes(b"")
    with pytest.raises(DataError, match=r"holds no images to train on; cat/cats.mat is a MATLAB"):
        data.load("auto", tmp_path)
    with pytest.raises(DataError, match="nowhere is no folder and no file"):
        data.load("auto", tmp_path / "nowhere")
    with pytest.raises(DataError, match="data_dir is empty"):
        data.load("auto", "")


def test_images_without_labels_are_an_error(tmp_path):
    write_idx(tmp_path, MNIST)
    (tmp_path / "test-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match="has no t10k-labels-idx1-ubyte"):
        data.load("mnist", tmp_path)
    (tmp_path / "test-images-idx3-ubyte").unlink()
    dataset = data.load("mnist", tmp_path)  # no test files at all
    assert len(dataset.test.labels) == 40 and "40 of 200" in dataset.source
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match="has no train-labels-idx1-ubyte"):
        data.load("mnist", tmp_path)


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("emnist-letters-train-images-idx3-ubyte", ("train", "images", ("emnist", "letters"))),
        ("x_test", ("test", "images", ())),
        ("trainY", ("train", "labels", ())),
        ("val_labels", ("validation", "labels", ())),
        ("X_kannada_MNIST_train", ("train", "images", ("kannada", "mnist"))),
        ("arr_0", (None, None, ())),
        ("trainingSet", ("train", None, ())),
        ("k49-test-imgs", ("test", "images", ("k49",))),
        ("pretrained", (None, None, ("pretrained",))),
    ],
)
def test_names_are_read_as_meant(name, role):
    assert files.role(name) == role
