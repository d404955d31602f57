"""Classes and their names, splits where there are none, EMNIST, and which way digits stand."""

import warnings
import zipfile

import numpy as np
import pytest

from mnist_jax import data
from mnist_jax.data import DataError, DataWarning, downloads, embedded, orientation, splits
from mnist_jax.data.names import Split
from tests.samples import arrays, digits, idx, pairs, write_csv, write_idx, write_pictures

MNIST = "{split}-{kind}-idx{n}-ubyte"


def write(folder, relabel=lambda labels: labels, turn=False, name=MNIST, **options):
    """IDX files of digits with other labels, or transposed."""
    folder.mkdir(parents=True, exist_ok=True)
    for (split, kind), array in arrays(**options).items():
        array = array.transpose(0, 2, 1) if turn and kind == "images" else array
        array = relabel(array) if kind == "labels" else array
        (folder / name.format(split=split, kind=kind, n=array.ndim)).write_bytes(idx(array))
    return folder


def whole(dataset):
    return pairs(dataset.train, dataset.validation, dataset.test, names=dataset.class_names)


def expected(name_of, turn=False):
    wanted = arrays()
    return {
        ((image.T if turn else image).tobytes(), name_of(int(label)))
        for split in ("train", "test")
        for image, label in zip(wanted[split, "images"], wanted[split, "labels"], strict=True)
    }


@pytest.mark.parametrize("asked", ["auto", "mnist"])
@pytest.mark.parametrize(
    ("relabel", "names"),
    [
        (lambda y: y, "0 1 2 3 4 5 6 7 8 9"),
        (lambda y: y + 1, "1 2 3 4 5 6 7 8 9 10"),
        (lambda y: y * 25, "0 25 50 75 100 125 150 175 200 225"),
        (lambda y: y + (y == 9), "0 1 2 3 4 5 6 7 8 10"),
        (lambda y: y // 5 + 20, "20 21"),
    ],
)
def test_the_classes_are_those_of_the_labels(tmp_path, asked, relabel, names):
    dataset = data.load(asked, write(tmp_path / "some", relabel))
    assert dataset.class_names == tuple(names.split())
    assert whole(dataset) == expected(lambda label: str(relabel(label)))
    assert max(dataset.train.labels) == len(dataset.class_names) - 1


def test_two_of_the_digits(tmp_path):
    write(tmp_path / "two", lambda y: y // 5)
    assert data.load("auto", tmp_path / "two").class_names == ("0", "1")
    assert data.load("mnist", tmp_path / "two").class_names == tuple("0123456789")


@pytest.mark.parametrize(
    ("name", "relabel", "message"),
    [
        ("fashion_mnist", lambda y: y + 1, "label 10 at 9 is over 9"),
        ("emnist/letters", lambda y: y * 3, "label 27 at 9 is over 25"),
        ("emnist/balanced", lambda y: y * 6, "label 48 at 8 is over 46"),
    ],
)
def test_a_named_data_set_has_its_own_classes(tmp_path, name, relabel, message):
    with pytest.raises(DataError, match=message):
        data.load(name, write(tmp_path, relabel))


@pytest.mark.parametrize("asked", ["auto", "mnist"])
def test_one_stray_label_is_damage(tmp_path, asked):
    def stray(labels):
        return np.where(np.arange(len(labels)) == 150, 77, labels)

    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte: label 77 at 150 is over 9"):
        data.load(asked, write(tmp_path, stray))


def test_labels_that_are_no_classes(tmp_path):
    images = np.zeros((1200, 28, 28), np.uint8)
    np.savez(tmp_path / "ids.npz", images=images, labels=np.arange(1200))
    with pytest.raises(DataError, match="1,200 different labels; those are no classes"):
        data.load("auto", tmp_path)


def test_test_images_of_other_classes(tmp_path):
    wanted = arrays()
    write_pictures(tmp_path / "train", wanted["train", "images"], wanted["train", "labels"])
    few = wanted["test", "images"][:10]
    write_pictures(tmp_path / "test", few, [f"{i}s" for i in range(10)])
    with pytest.raises(DataError, match="no training image is of the test classes 0s, 1s"):
        data.load("auto", tmp_path)
    write_pictures(tmp_path / "test", few, range(10))
    with pytest.warns(DataWarning, match="no training image is of the test classes 0s, 1s"):
        assert len(data.load("auto", tmp_path).class_names) == 20


@pytest.mark.parametrize(
    ("split", "relabel", "name_of"),
    [
        ("letters", lambda y: y + 1, lambda d: "ABCDEFGHIJ"[d]),
        ("letters", lambda y: y + 17, lambda d: "QRSTUVWXYZ"[d]),
        ("byclass", lambda y: y + 36, lambda d: "abcdefghij"[d]),
        ("balanced", lambda y: y + 37, lambda d: "bdefghnqrt"[d]),
        ("digits", lambda y: y, str),
        ("mnist", lambda y: y, str),
    ],
)
@pytest.mark.parametrize("kind", ["IDX", "csv"])
def test_emnist_is_turned_upright_and_named(tmp_path, split, relabel, name_of, kind):
    if kind == "IDX":
        write(tmp_path, relabel, turn=True, name=f"emnist-{split}-{MNIST}")
    else:
        for part in ("train", "test"):
            images, labels = (arrays()[part, what] for what in ("images", "labels"))
            path = tmp_path / f"emnist-{split}-{part}.csv"
            write_csv(path, images.transpose(0, 2, 1), relabel(labels), header=None)
    for asked in ("auto", f"emnist/{split}"):
        dataset = data.load(asked, tmp_path)
        assert dataset.name == f"emnist/{split}" and dataset.characters
        assert dataset.class_names == data.CLASS_NAMES[f"emnist/{split}"]
        assert whole(dataset) == expected(name_of) and "turned upright" in dataset.source
    test = data.load_test(tmp_path)
    assert pairs(test, names=dataset.class_names) == pairs(dataset.test, names=dataset.class_names)


def test_emnists_files_under_mnists_names(tmp_path):
    write(tmp_path, turn=True)
    with pytest.warns(DataWarning, match=r"look transposed.*emnist/digits"):
        dataset = data.load("mnist", tmp_path)
    assert whole(dataset) == expected(str, turn=True)  # said, and left as they are
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert whole(data.load("emnist/digits", tmp_path)) == expected(str)
        write(tmp_path / "upright")
        assert whole(data.load("emnist/digits", tmp_path / "upright")) == expected(str)


def test_emnists_mapping_names_the_classes(tmp_path):
    write(tmp_path, lambda y: y + 1, name=f"shorthand-{MNIST}")
    codes = "\n".join(f"{i + 1} {97 + i} {65 + i}" for i in range(12))
    (tmp_path / "shorthand-mapping.txt").write_text(f"{codes}\n")
    dataset = data.load("auto", tmp_path)
    assert dataset.class_names == tuple("abcdefghijkl")
    assert whole(dataset) == expected(lambda digit: "abcdefghij"[digit])
    (tmp_path / "shorthand-mapping.txt").write_text("a b c\n")
    with pytest.raises(DataError, match=r"shorthand-mapping\.txt: holds no lines"):
        data.load("auto", tmp_path)


def test_emnist_out_of_tfds_archive(tmp_path, monkeypatch):
    """The zip that TFDS registers, laid where TFDS takes it from by hand, with another checksum."""
    import hashlib

    from tensorflow_datasets.core.download.checksums import UrlInfo

    for split, up in (("letters", 1), ("digits", 0)):
        write(tmp_path / "gzip", lambda y, up=up: y + up, turn=True, name=f"emnist-{split}-{MNIST}")
    archive = tmp_path / "downloads" / "manual" / "emnist" / "gzip.zip"
    archive.parent.mkdir(parents=True)
    with zipfile.ZipFile(archive, "w") as opened:
        for path in sorted((tmp_path / "gzip").iterdir()):
            opened.write(path, f"gzip/{path.name}.gz")
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    (url,) = downloads._url_infos("emnist")
    assert url.endswith("gzip.zip")
    info = {url: UrlInfo(archive.stat().st_size, digest, "gzip.zip")}
    monkeypatch.setattr(downloads, "_url_infos", lambda name: info if name == "emnist" else {})
    load = {"download_dir": tmp_path / "downloads"}
    letters = data.load("emnist/letters", **load)
    assert whole(letters) == expected(lambda digit: "ABCDEFGHIJ"[digit])
    assert letters.source.startswith("TFDS downloads in")
    monkeypatch.setattr(downloads, "fetch", None)  # the second time, TFDS is not asked
    assert whole(data.load("emnist/digits", **load)) == expected(str)
    with pytest.raises(DataError, match="not emnist/balanced"):
        data.load("emnist/balanced", **load)


def test_names_that_tfds_does_not_have(tmp_path):
    with pytest.raises(data.DataUnavailable, match=r"qmnist is not among.*\n.*data_dir"):
        data.load("qmnist", download_dir=tmp_path)


def test_a_network_has_its_own_classes(tmp_path):
    write(tmp_path, lambda y: y // 2 + 3)  # 3 to 7
    names = tuple("9876543210")
    dataset = data.load("auto", tmp_path, class_names=names)
    assert dataset.class_names == names
    assert whole(dataset) == expected(lambda digit: str(digit // 2 + 3))
    with pytest.raises(ValueError, match=r"images of 3, 4.*not among the classes 5, 6, 7"):
        data.load("auto", tmp_path, class_names=("5", "6", "7"))


# Splits.


def test_sorted_files_are_spread_out(tmp_path):
    images, labels = digits(200)
    order = np.argsort(labels, kind="stable")
    np.savez(
        tmp_path / "sorted.npz",
        x_train=images[order],
        y_train=labels[order],
        x_test=images[:20],
        y_test=labels[:20],
    )
    dataset = data.load("mnist", tmp_path, validation=40)
    assert np.bincount(dataset.validation.labels).tolist() == [4] * 10
    assert pairs(dataset.train, dataset.validation, names=tuple("0123456789")) == {
        (image.tobytes(), str(label)) for image, label in zip(images, labels, strict=True)
    }


def test_is_sorted():
    rng = np.random.default_rng(0)
    for classes in ([0.5, 0.5], [0.95, 0.05], [0.1] * 10):
        labels = rng.choice(len(classes), 2000, p=classes)
        assert not splits.is_sorted(labels)
        assert splits.is_sorted(np.sort(labels)) and splits.is_sorted(np.sort(labels)[::-1])
    assert not splits.is_sorted(np.arange(100) % 10)


def test_taking_turns_keeps_every_stretch_balanced():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [600, 300, 100]).astype(np.int32)
    images = rng.integers(0, 256, (1000, 2, 2, 1), np.uint8)
    images_here, labels_here = splits.take_turns(Split(images, labels))
    for start in range(0, 1000, 100):
        counts = np.bincount(labels_here[start : start + 100], minlength=3)
        assert np.abs(counts - [60, 30, 10]).max() <= 1
    assert sorted(i.tobytes() for i in images_here) == sorted(i.tobytes() for i in images)


@pytest.mark.parametrize(("n", "held"), [(60, 6), (3000, 300), (49_990, 4999), (60_000, 5000)])
def test_validation_images_are_a_tenth_or_5000(n, held):
    images, labels = np.zeros((n, 1, 1, 1), np.uint8), np.arange(n, dtype=np.int32) % 10
    both = {"train": Split(images, labels), "test": Split(images, labels)}
    train, validation, test, notes = splits.cut(both, None, "0123456789", "here")
    assert (len(train.labels), len(validation.labels), len(test.labels)) == (n - held, held, n)
    assert notes == ()


def test_a_class_that_is_too_small_to_test_is_named():
    """Ten classes of one image each but for a larger one; a fifth is for testing."""
    for counts in ([1] * 10, [1, 3], [2] + [1] * 9):
        labels = np.repeat(np.arange(len(counts)), counts).astype(np.int32)
        only = {"train": Split(np.zeros((len(labels), 1, 1, 1), np.uint8), labels)}
        with pytest.raises(DataError) as caught:
            splits.cut(only, None, "abcdefghij"[: len(counts)], "here")
        error, hint = str(caught.value).splitlines()
        assert "here: a class needs at least 5 images, of which one is for testing" in error
        assert f"; a has {counts[0]}, b has {counts[1]}" in error and "train/CLASS" in hint


@pytest.mark.filterwarnings("error")
def test_a_class_of_one_image_among_larger_ones_is_trained_on():
    labels = np.repeat([0, 1, 2], [20, 20, 1]).astype(np.int32)
    only = {"train": Split(np.zeros((41, 1, 1, 1), np.uint8), labels)}
    train, *_ = splits.cut(only, None, "abc", "here")
    assert set(train.labels.tolist()) == {0, 1, 2}


def test_a_class_that_is_kept_for_validation_alone_is_warned_of():
    labels = np.array([2, 0, 1, 0, 1, 0, 1, 0, 1, 0], np.int32)
    both = {name: Split(np.zeros((10, 1, 1, 1), np.uint8), labels) for name in ("train", "test")}
    with pytest.warns(
        DataWarning, match=r"here: all training images of c are kept.*--validation 0"
    ):
        splits.cut(both, None, "abc", "here")


# Which way digits stand.


def test_the_means_are_those_of_mnist5k():
    images, labels = embedded.digits()
    for digit, mean in enumerate(orientation._means()):
        boxes = [orientation._box(image) for image in images[labels == digit, ..., 0]]
        np.testing.assert_allclose(mean, np.mean(boxes, axis=0), atol=0.51)


def clothes(n):
    """Like Fashion-MNIST: bright shapes that fill the frame, each class another."""
    rng = np.random.default_rng(0)
    labels = np.arange(n) % 10
    shapes = rng.integers(0, 256, (10, 4, 4)).repeat(7, axis=1).repeat(7, axis=2)
    return np.clip(shapes[labels] + rng.normal(0, 30, (n, 28, 28)), 0, 255).astype(np.uint8), labels


def enlarged(images):
    """As EMNIST has digits: 24 pixels high where MNIST's have 20."""
    from scipy import ndimage

    return np.stack([ndimage.zoom(i, 1.25, order=1)[3:31, 3:31] for i in images])


@pytest.mark.parametrize("n", [40, 200])
@pytest.mark.parametrize("change", [lambda x: x, enlarged, lambda x: np.roll(x, (2, -3), (1, 2))])
def test_which_way_digits_stand(n, change):
    images, labels = digits(n, skip=1000)
    upright = change(images)[..., None]
    assert orientation.look(upright, labels).are_digits
    assert not orientation.look(upright, labels).are_transposed
    assert orientation.look(upright.transpose(0, 2, 1, 3), labels).are_transposed


def test_what_are_no_digits_is_not_taken_for_transposed_ones():
    images, labels = digits(300, skip=1000)
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, images.shape, np.uint8)
    blank = np.zeros_like(images)
    others = [(noise, labels), (blank, labels), clothes(300), (images, (labels + 3) % 10)]
    others += [(images.transpose(0, 2, 1), (labels * 7 + 1) % 10), (noise, labels % 2)]
    others += [(images[:, ::-1], labels), (images[:, ::-1, ::-1], labels)]
    for pictures, named in others:
        look = orientation.look(pictures[..., None], named)
        assert not look.are_digits and not look.are_transposed
    few = orientation.look(images[:39, ..., None], labels[:39])
    assert not few.are_digits  # too few to tell


def test_other_classes_are_not_looked_at(tmp_path):
    write_idx(tmp_path / "KMNIST", MNIST)
    write(tmp_path / "turned", turn=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data.load("kmnist", tmp_path / "KMNIST")
        data.load("kmnist", tmp_path / "turned")
