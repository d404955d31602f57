"""Pictures in a folder a class."""

import numpy as np
import pytest
from PIL import Image

from mnist_jax import data
from mnist_jax.data import DataError
from tests.samples import arrays, digits, pairs, same_images, write_pictures


def wanted(split="train", n=100):
    images, labels = arrays(n)[split, "images"], arrays(n)[split, "labels"]
    return images, labels


def all_pairs(dataset):
    splits = (dataset.train, dataset.validation, dataset.test)
    return pairs(*splits, names=dataset.class_names)


def of(images, labels):
    return {(i.tobytes(), str(w)) for i, w in zip(images, labels, strict=True)}


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train", "test"),
        ("training", "testing"),
        ("Train", "TEST"),
        ("mnist_png/training", "mnist_png/testing"),
        ("trainingSet/trainingSet", "testSet/testSet"),
        ("images/train", "images/val"),
    ],
)
def test_a_folder_a_split(tmp_path, train, test):
    write_pictures(tmp_path / train, *wanted("train"))
    write_pictures(tmp_path / test, *wanted("test"))
    dataset = data.load("auto", tmp_path)
    assert all_pairs(dataset) == of(*wanted("train")) | of(*wanted("test"))
    held_out = dataset.validation if "val" in test else dataset.test
    assert same_images(held_out.inputs, wanted("test")[0])
    assert dataset.class_names == tuple("0123456789") and dataset.name == "mnist"
    if "val" not in test:
        assert np.bincount(dataset.validation.labels).tolist() == [1] * 10


def test_without_splits_they_are_made_of_all_classes_alike(tmp_path):
    write_pictures(tmp_path / "few", *wanted())
    dataset = data.load("auto", tmp_path / "few")
    assert "20 of 100" in dataset.source
    counts = [len(getattr(dataset, s).labels) for s in ("train", "validation", "test")]
    assert counts == [72, 8, 20] and all_pairs(dataset) == of(*wanted())
    assert np.bincount(dataset.test.labels).tolist() == [2] * 10
    again = data.load("auto", tmp_path / "few")
    assert data.fingerprint(again) == data.fingerprint(dataset)
    assert same_images(data.load_test(tmp_path / "few").inputs, wanted()[0])


def test_classes_named_by_words(tmp_path):
    images, labels = wanted()
    words = np.array(["zero", "one", "two", "three", "four", *"56789"])[labels]
    write_pictures(tmp_path, images, words)
    dataset = data.load("auto", tmp_path)
    assert dataset.class_names == ("5", "6", "7", "8", "9", "four", "one", "three", "two", "zero")
    assert all_pairs(dataset) == of(images, words)
    parity = np.array(["even", "odd"])[labels % 2]
    write_pictures(tmp_path / "parity", images, parity)
    dataset = data.load("mnist", tmp_path / "parity")
    assert dataset.class_names == ("even", "odd") and dataset.name == "parity"


def test_numbers_are_sorted_as_numbers(tmp_path):
    images, labels = wanted()
    write_pictures(tmp_path / "steps", images, labels * 5)
    assert data.load("auto", tmp_path / "steps").class_names[:3] == ("0", "5", "10")
    write_pictures(tmp_path / "words", images, [f"class{label * 5}" for label in labels])
    assert data.load("auto", tmp_path / "words").class_names[:3] == ("class0", "class5", "class10")


@pytest.mark.parametrize(
    ("suffix", "mode"),
    [(".png", "RGB"), (".PNG", "L"), (".png", "RGBA"), (".png", "P"), (".bmp", "L"), (".pgm", "L")],
)
def test_grey_pictures_of_28_x_28_stay_as_they_are(tmp_path, suffix, mode):
    write_pictures(tmp_path, *wanted(), suffix=suffix, mode=mode)
    assert all_pairs(data.load("auto", tmp_path)) == of(*wanted())


def test_ink_on_paper_is_made_light_on_dark(tmp_path):
    images, labels = wanted()
    write_pictures(tmp_path / "paper", 255 - images, labels)
    assert all_pairs(data.load("auto", tmp_path / "paper")) == of(images, labels)


def test_clothes_that_reach_the_border_are_not_inverted(tmp_path):
    images, labels = wanted()
    images = images.copy()
    images[::3] = np.maximum(images[::3], 210)
    write_pictures(tmp_path / "numbers", images, labels)
    others = np.arange(len(images)) % 3 > 0
    assert all_pairs(data.load("auto", tmp_path / "numbers")) > of(images[others], labels[others])
    names = np.array([f"class{label}" for label in labels])
    write_pictures(tmp_path / "words", images, names)
    assert all_pairs(data.load("auto", tmp_path / "words")) == of(images, names)


def test_pictures_of_other_sizes_are_made_like_mnist(tmp_path):
    images, labels = digits(40)
    large = [np.asarray(Image.fromarray(image).resize((90, 120))) for image in images]
    write_pictures(tmp_path, [255 - image for image in large], labels, ".jpg")
    dataset = data.load("auto", tmp_path)
    assert dataset.characters
    found = {name: [] for name in dataset.class_names}
    for split in (dataset.train, dataset.validation, dataset.test):
        for image, label in zip(*split, strict=True):
            found[dataset.class_names[label]].append(image[..., 0].astype(float))
            rows = np.flatnonzero(image.any(axis=(1, 2)))
            assert np.ptp(rows) <= 20 and image[0].max() == 0  # in MNIST's box
    for digit, several in found.items():
        mean = np.mean(several, axis=0).ravel()
        own = np.mean(images[labels == int(digit)], axis=0).ravel()
        assert np.corrcoef(mean, own)[0, 1] > 0.8


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n", None])
def test_a_damaged_picture_is_named(tmp_path, content):
    write_pictures(tmp_path, *wanted())
    path = next((tmp_path / "7").iterdir())
    path.write_bytes(path.read_bytes()[:-40] if content is None else content)
    with pytest.raises(DataError, match=rf"7.{path.name}: (damaged|no picture)"):
        data.load("auto", tmp_path)
    other = next((tmp_path / "8").iterdir())
    other.write_bytes(b"")
    with pytest.raises(DataError, match="1 more picture cannot be used"):
        data.load("auto", tmp_path)


def test_pictures_without_classes(tmp_path):
    images, labels = wanted()
    write_pictures(tmp_path / "all", images, labels)
    (tmp_path / "all" / "3" / "IMG_0001.HEIC").write_bytes(b"")
    for i, image in enumerate(images[:3]):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    with pytest.raises(DataError, match=r"holds 1 picture in no class's folder, and nothing"):
        data.load("auto", tmp_path / "0.png")
    # Kaggle's test pictures have no labels, and lie beside those that have.
    (tmp_path / "all" / "testSet").mkdir()
    for i, image in enumerate(images[:3]):
        Image.fromarray(image).save(tmp_path / "all" / "testSet" / f"{i}.png")
    dataset = data.load("auto", tmp_path / "all")
    assert "3 pictures without a class" in dataset.source and "20 of 100" in dataset.source
    assert "left out: 1 HEIC picture, which Pillow does not read" in dataset.source
    write_pictures(tmp_path / "one", images, ["digit"] * len(images))
    with pytest.raises(DataError, match="all images are of one class, digit"):
        data.load("auto", tmp_path / "one")


def test_of_a_sample_and_the_whole_the_whole_is_taken(tmp_path):
    write_pictures(tmp_path / "trainingSet" / "trainingSet", *wanted())
    some = [array[:20] for array in wanted()]
    write_pictures(tmp_path / "trainingSample" / "trainingSample", *some)
    write_pictures(tmp_path / "testSet", *wanted("test"))
    dataset = data.load("auto", tmp_path)
    assert all_pairs(dataset) == of(*wanted()) | of(*wanted("test"))
    assert "20 pictures in trainingSample" in dataset.source
