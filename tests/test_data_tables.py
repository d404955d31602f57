"""Arrays in NumPy's files, and tables: what each may hold, and what is refused."""

import gzip
import io
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mnist_jax import data
from mnist_jax.data import DataError
from tests.samples import arrays, idx, pairs, write_csv
from tests.test_data_files import is_right


def keras(**changes):
    """The arrays of Keras's `mnist.npz`, by name."""
    wanted = arrays()
    named = {"x_train": wanted["train", "images"], "y_train": wanted["train", "labels"]}
    named |= {"x_test": wanted["test", "images"], "y_test": wanted["test", "labels"]}
    return named | changes


@pytest.mark.parametrize(
    "names",
    [
        ("x_train", "y_train", "x_test", "y_test"),
        ("train_images", "train_labels", "test_images", "test_labels"),
        ("trainX", "trainY", "testX", "testY"),
        ("X_train", "train_label", "X_test", "test_label"),
    ],
)
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_of_images_and_labels(tmp_path, names, save):
    save(tmp_path / "mnist.npz", **dict(zip(names, keras().values(), strict=True)))
    for place in (tmp_path, tmp_path / "mnist.npz"):
        for asked in ("auto", "mnist"):
            dataset = data.load(asked, place)
            assert is_right(dataset) and dataset.name == "mnist" and dataset.characters
    assert len(data.load_test(tmp_path / "mnist.npz").labels) == 50


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.reshape(len(x), 784),
        lambda x: x[..., None],
        lambda x: x[:, None],
        lambda x: np.asfortranarray(x),
        lambda x: x.astype(np.int64),
        lambda x: x.astype(">u2"),
        lambda x: x.astype(np.float64),
        lambda x: (x / 255).astype(np.float32),
        lambda x: (x / 255).astype(np.float16).astype(np.float64),
    ],
)
def test_images_of_other_shapes_and_types(tmp_path, change):
    images = {name: change(x) for name, x in keras().items() if name.startswith("x")}
    np.savez(tmp_path / "mnist.npz", **keras(**images))
    assert is_right(data.load("mnist", tmp_path))


@pytest.mark.parametrize("shape", [(64, 64), (64, 64, 1), (28, 28, 3), (9, 12, 3), (128, 96, 3)])
@pytest.mark.parametrize("change", ["none", "channels first", "floats", "fortran"])
@pytest.mark.parametrize("kind", ["npz", "npy", "IDX"])
def test_images_of_any_size_and_colour(tmp_path, shape, change, kind):
    rng, arrays_here = np.random.default_rng(0), {}
    for split, n in (("train", 30), ("test", 12)):
        arrays_here[split, "images"] = rng.integers(0, 256, (n, *shape), np.uint8)
        arrays_here[split, "labels"] = np.arange(n) % 3 + 7
    for (split, what), array in arrays_here.items():
        if what == "images" and change == "channels first" and array.ndim == 4:
            array = array.transpose(0, 3, 1, 2)
        elif what == "images" and change == "floats":
            array = (array / 255).astype(np.float32)
        elif what == "images" and change == "fortran":
            array = np.asfortranarray(array)
        path = tmp_path / f"{split}_{what}"
        if kind == "IDX":
            number = 13 if array.dtype == np.float32 else 8
            (tmp_path / f"{split}-{what}-idx{array.ndim}-ubyte").write_bytes(idx(array, number))
        else:
            (np.save if kind == "npy" else np.savez)(path, array)
    dataset = data.load("auto", tmp_path, validation=0)
    wanted = (*shape, 1) if len(shape) == 2 else shape
    for split in ("train", "test"):
        images, labels = getattr(dataset, split)
        assert images.dtype == np.uint8 and images.flags.c_contiguous
        np.testing.assert_array_equal(images, arrays_here[split, "images"].reshape(-1, *wanted))
        assert [dataset.class_names[i] for i in labels] == [
            str(label) for label in arrays_here[split, "labels"]
        ]
    assert not dataset.characters  # networks of characters take 28 x 28
    np.testing.assert_array_equal(data.load_test(tmp_path).inputs, dataset.test.inputs)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int32, np.float32])
def test_black_and_white_images_are_0_and_255(tmp_path, dtype):
    images = {n: (x > 127).astype(dtype) for n, x in keras().items() if n.startswith("x")}
    np.savez(tmp_path / "mnist.npz", **keras(**images))
    test = data.load("mnist", tmp_path).test
    np.testing.assert_array_equal(test.inputs[..., 0], np.where(images["x_test"] > 0, 255, 0))


@pytest.mark.parametrize(
    "change",
    [
        lambda y: y[:, None],
        lambda y: np.eye(10, dtype=np.float32)[y],
        lambda y: y.astype(np.float64),
        lambda y: y.astype(np.uint8),
        lambda y: y.astype(str),
        lambda y: y.astype("S1"),
    ],
)
def test_labels_of_other_shapes_and_types(tmp_path, change):
    labels = {name: change(y) for name, y in keras().items() if name.startswith("y")}
    np.savez(tmp_path / "mnist.npz", **keras(**labels))
    assert is_right(data.load("mnist", tmp_path))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_train": np.zeros((200, 28, 28, 3), np.uint8)}, "test images are 28 x 28 x 1, .*x 3"),
        ({"x_train": np.zeros((200, 28, 28, 4), np.uint8)}, "x_train: .*28 x 28 x 4.*last channel"),
        ({"x_train": np.zeros((200, 3072), np.uint8)}, "200 x 3072 .*reshape its rows to height"),
        ({"x_train": np.zeros((32, 32, 3, 200), np.uint8)}, "holds 32 x 32 x 3 x 200.*last axis"),
        ({"x_train": np.zeros((200, 3, 3), np.uint8)}, "holds 200 x 3 x 3 values"),
        ({"x_train": np.zeros((200, 28, 28, 28), np.uint8)}, "holds 200 x 28 x 28 x 28 values"),
        ({"x_train": np.zeros((28, 28, 200), np.uint8)}, "y_train: 200 labels for 28 images"),
        ({"x_train": np.zeros((0, 28, 28), np.uint8)}, "holds 0 x 28 x 28"),
        ({"x_train": np.uint8(3)}, "holds single values"),
        ({"x_train": np.full((200, 28, 28), 256)}, "values from 256 to 256, not 0 to 255"),
        ({"x_train": np.full((200, 28, 28), np.nan)}, "values from nan"),
        ({"x_train": np.random.default_rng(0).normal(size=(200, 28, 28))}, "not 0 to 255 or to 1"),
        ({"x_train": np.full((200, 28, 28), "a")}, "holds <U1 values, not numbers"),
        ({"x_train": np.array([{}] * 200)}, "x_train: a pickle, and those can run code"),
        ({"y_train": np.array([[1], [2, 3]], object)}, "y_train: a pickle, and those can run code"),
        ({"y_train": np.zeros(199, int)}, "y_train: 199 labels for 200 images"),
        ({"y_train": np.ones((200, 14), int)}, "holds 200 x 14 values, not .n. labels"),
        ({"y_train": np.linspace(0, 1, 200)}, "holds fractions, not labels"),
        ({"y_train": np.full(200, np.nan)}, "holds fractions, not labels"),
        ({"y_train": np.zeros(200, complex)}, "complex128 values, not labels"),
        ({"y_train": np.zeros(200, np.dtype([("a", int)]))}, "values, not labels"),
        ({"y_train": np.full(200, "")}, "label 0 is empty"),
    ],
)
def test_arrays_that_are_not_what_is_read(tmp_path, changes, message):
    np.savez(tmp_path / "mnist.npz", **keras(**changes))
    with pytest.raises(DataError, match=message):
        data.load("mnist", tmp_path / "mnist.npz")


def test_npz_with_names_that_tell_nothing(tmp_path):
    np.savez(tmp_path / "mnist.npz", *keras().values())
    with pytest.raises(DataError, match="holds arr_0, arr_1, arr_2, arr_3, not x_train"):
        data.load("mnist", tmp_path)
    np.savez(tmp_path / "mnist.npz", **{n: a for n, a in keras().items() if n != "y_test"})
    with pytest.raises(DataError, match="has no test labels"):
        data.load("mnist", tmp_path)


def test_an_array_a_file(tmp_path):
    for (split, kind), array in arrays().items():
        np.save(tmp_path / f"{split}_{kind}.npy", array)
    assert is_right(data.load("mnist", tmp_path))
    (tmp_path / "kmnist").mkdir()
    for (split, kind), array in arrays().items():
        name = {"images": "imgs", "labels": "labels"}[kind]
        np.savez(tmp_path / "kmnist" / f"kmnist-{split}-{name}.npz", array)
    assert is_right(data.load("kmnist", tmp_path / "kmnist"))


def test_medmnist_brings_its_own_validation_images(tmp_path):
    rng = np.random.default_rng(0)
    sizes = {"train": 60, "val": 20, "test": 30}
    named = {f"{s}_images": rng.integers(0, 256, (n, 28, 28), np.uint8) for s, n in sizes.items()}
    named |= {f"{s}_labels": np.arange(n)[:, None] % 2 for s, n in sizes.items()}
    np.savez(tmp_path / "breastmnist.npz", **named)
    dataset = data.load("auto", tmp_path / "breastmnist.npz")
    for split, name in (("train", "train"), ("val", "validation"), ("test", "test")):
        images, labels = getattr(dataset, name)
        np.testing.assert_array_equal(images[..., 0], named[f"{split}_images"])
        np.testing.assert_array_equal(labels, named[f"{split}_labels"][:, 0])
    assert dataset.class_names == ("0", "1") and dataset.name == "breastmnist"
    assert not dataset.characters  # though 0 and 1 are digits
    some = data.load("auto", tmp_path, validation=5)
    assert len(some.validation.labels) == 5 and len(some.train.labels) == 75


@pytest.mark.parametrize(
    "spoil",
    [
        lambda b: b[:2000],
        lambda b: b[:-30],
        lambda b: b"<!DOCTYPE html>",
        lambda b: b"",
        lambda b: b.replace(b"NUMPY", b"NUMPI"),
        lambda b: b.replace(b"\x93NUMPY\1", b"\x93NUMPY\7"),
    ],
)
def test_a_damaged_npz_is_named(tmp_path, spoil):
    path = tmp_path / "mnist.npz"
    np.savez(path, **keras())
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(DataError, match=r"mnist\.npz"):
        data.load("mnist", path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"'descr'", b"'desc''", "damaged, or no array of NumPy's"),
        (b"(200, 28, 28)", b"(200, 28, 99)", "truncated; 156,800 of 554,400 bytes"),
        (b"(200, 28, 28)", b"(2**9,28, 28)", "damaged, or no array of NumPy's"),
        (b"(200, 28, 28)", b"(99999999999)", "damaged, or no array of NumPy's"),
        (b"(200, 28, 28)", b"(9999999, 99)", "truncated"),
        (b"(200, 28, 28)", b"(200, 28, 2) ", "longer than the 11,200 bytes"),
        (b"(200, 28, 28)", b"(-1, -28, 28)", "x_train"),
    ],
)
def test_an_array_that_is_not_what_its_header_says(tmp_path, old, new, message):
    with zipfile.ZipFile(tmp_path / "mnist.npz", "w") as archive:
        for name, array in keras().items():
            stream = io.BytesIO()
            np.save(stream, array)
            archive.writestr(f"{name}.npy", stream.getvalue().replace(old, new))
    with pytest.raises(DataError, match=message):
        data.load("mnist", tmp_path)


@settings(deadline=None, max_examples=50)
@given(garbage=st.binary(max_size=200))
def test_garbage_in_npy_and_csv_is_refused(tmp_path_factory, garbage):
    folder = tmp_path_factory.getbasetemp() / "garbage-tables"
    folder.mkdir(exist_ok=True)
    for name in ("train.csv", "train_images.npy", "mnist.npz"):
        (folder / name).write_bytes(garbage)
        np.save(folder / "train_labels.npy", np.zeros(3))
        for given_path in (folder, folder / name):
            with pytest.raises(DataError):
                data.load("auto", given_path)
        (folder / name).unlink()


# Tables.


def rows(split):
    return arrays()[split, "images"], arrays()[split, "labels"]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"pixel": "{}x1"},
        {"header": None},
        {"header": "{pixels},class", "row": "{pixels},{label}"},
        {"header": "{pixels},what", "row": "{pixels},{label}"},
        {"header": None, "row": "{pixels},{label}"},
        {"header": '"label","{pixels}"', "pixel": "p{}"},
        {"header": ",label,{pixels}", "row": "{i},{label},{pixels}"},
        {"header": "label,{pixels},id", "row": "{label},{pixels},{i}"},
        {"header": ",l,{pixels}", "row": "{i},{label},{pixels}", "pixel": "{}"},
        {"header": "label,{pixels}", "row": "{label}.0,{pixels}"},
        {"header": "digit,{pixels}", "row": '"{label}",{pixels}'},
        {"header": "\ufefflabel,{pixels}"},
    ],
)
def test_csv(tmp_path, options):
    for split, name in (("train", "mnist_train.csv"), ("test", "mnist_test.csv")):
        write_csv(tmp_path / name, *rows(split), **options)
    for place in (tmp_path, tmp_path / "mnist_train.csv"):
        assert is_right(data.load("auto", place)), place
    np.testing.assert_array_equal(data.load_test(tmp_path).labels, rows("test")[1])


def test_csv_packed_and_with_other_delimiters(tmp_path):
    for split in ("train", "test"):
        path = write_csv(tmp_path / f"{split}.csv", *rows(split))
        text = path.read_text().replace(",", ";" if split == "train" else "\t")
        path.with_name(f"{split}.CSV.gz").write_bytes(gzip.compress(text.encode()))
        path.unlink()
    assert is_right(data.load("mnist", tmp_path))


@pytest.mark.parametrize("scale", [255, 1])
def test_csv_of_fractions(tmp_path, scale):
    for split in ("train", "test"):
        images, labels = rows(split)
        write_csv(tmp_path / f"{split}.csv", images / np.float64(255 / scale), labels)
    assert is_right(data.load("mnist", tmp_path))


def test_kaggles_test_table_has_no_labels(tmp_path):
    write_csv(tmp_path / "train.csv", *rows("train"))
    write_csv(tmp_path / "test.csv", rows("test")[0], None, "{pixels}", "{pixels}")
    (tmp_path / "sample_submission.csv").write_text("ImageId,Label\n1,0\n")
    for place in (tmp_path, tmp_path / "train.csv"):
        dataset = data.load("auto", place)
        assert len(dataset.test.labels) == 40 and len(dataset.validation.labels) == 16
        assert (
            "left out: test.csv, which has no labels" in dataset.source
            and "40 of 200" in dataset.source
        )
        assert np.bincount(dataset.test.labels).tolist() == [4] * 10
    (tmp_path / "train.csv").unlink()
    with pytest.raises(DataError, match=r"no column of labels in test\.csv"):
        data.load("auto", tmp_path)


def test_a_table_given_by_itself_is_what_to_train_on(tmp_path):
    path = write_csv(tmp_path / "mnist_test.csv", *rows("train"))
    assert len(data.load("auto", path).test.labels) == 40
    with pytest.raises(DataError, match="holds tables for test alone, and none to train on"):
        data.load("auto", tmp_path)


def test_csv_with_words_for_labels(tmp_path):
    images, labels = rows("train")
    letters = np.array(list("ZYXWVUTSRQ"))[labels]
    for options in ({}, {"header": None}, {"header": None, "row": "{pixels},{label}"}):
        path = write_csv(tmp_path / "letters.csv", images, letters, **options)
        dataset = data.load("auto", path)
        assert dataset.class_names == tuple("QRSTUVWXYZ") and dataset.characters
        names = {image.tobytes(): name for image, name in zip(images, letters, strict=True)}
        for image, label in zip(*dataset.test, strict=True):
            assert dataset.class_names[label] == names[image.tobytes()]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (lambda t: t.replace("\n", ",7\n"), "has 786 columns"),
        (lambda t: "\n".join(line[:100] for line in t.splitlines()), "columns; a table of 28 x 28"),
        (lambda t: t[: len(t) // 2 - 100], "damaged, or no table of numbers"),
        (lambda t: t.replace(",0,0,0,", ",0,x,0,", 3), "damaged, or no table of numbers"),
        (lambda t: t.replace(",0,0,0,", ",0,999,0,", 3), "values from 0 to 999"),
        (lambda t: t.replace(",0,0,0,", ",0,,0,", 3), "damaged, or no table of numbers"),
        (lambda t: t.replace("\n5,", "\n,"), "is empty"),
        (lambda t: t.splitlines()[0], "mnist.csv"),
        (lambda t: "", "mnist.csv"),
        (lambda t: "\n\n\n", "mnist.csv"),
        (lambda t: "\0" + t, "mnist.csv: no text"),
    ],
)
def test_a_table_that_is_not_what_is_read(tmp_path, text, message):
    path = write_csv(tmp_path / "mnist.csv", *rows("train"))
    path.write_text(text(path.read_text()))
    with pytest.raises(DataError, match=message):
        data.load("mnist", path)


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        (2352, "28 x 28 pixels in three colours"),
        (3072, "32 x 32 pixels in three"),
        (225, "226 columns; a table of 28 x 28 images has 785"),
        (1000, "1,001 columns;"),
    ],
)
def test_tables_of_other_images_are_named(tmp_path, pixels, words):
    header = ",".join(["label", *(f"p{i}" for i in range(pixels))])
    (tmp_path / "train.csv").write_text(f"{header}\n{','.join(['0'] * (pixels + 1))}\n")
    with pytest.raises(DataError, match=words):
        data.load("auto", tmp_path)


@pytest.mark.parametrize("side", [16, 32, 64])
@pytest.mark.parametrize("header", ["id,label,{}", "{},character", None])
def test_tables_of_images_of_other_sizes(tmp_path, side, header):
    rng = np.random.default_rng(0)
    images, names = rng.integers(0, 256, (30, side, side)), np.array(["ka", "kha", "ga"])
    lines = [] if header is None else [header.format(",".join(f"p{i}" for i in range(side**2)))]
    for i, image in enumerate(images):
        pixels, label = ",".join(map(str, image.ravel())), names[i % 3]
        rows_by_header = {
            "id,label,{}": f"{i},{label},{pixels}",
            "{},character": f"{pixels},{label}",
            None: f"{label},{pixels}",
        }
        lines.append(rows_by_header[header])
    (tmp_path / "train.csv").write_text("\n".join(lines))
    dataset = data.load("auto", tmp_path)
    assert dataset.train.inputs.shape[1:] == (side, side, 1)
    whole = {(image.astype(np.uint8).tobytes(), names[i % 3]) for i, image in enumerate(images)}
    assert (
        pairs(dataset.train, dataset.validation, dataset.test, names=dataset.class_names) == whole
    )
