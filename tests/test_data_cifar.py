"""CIFAR's binary files, in a folder, in the archives that TFDS registers, and damaged."""

import gzip
import hashlib
import io
import tarfile

import numpy as np
import pytest
from PIL import Image

from mnist_jax import data
from mnist_jax.data import CLASS_NAMES, DataError, downloads, files, loading


def records(n, classes, seed, coarse=False):
    """Images, labels, and the bytes of their records, put together value by value."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (n, 32, 32, 3), np.uint8)
    labels = np.arange(n) % classes
    content = bytearray()
    for image, label in zip(images, labels, strict=True):
        content += bytes([label // 5, label] if coarse else [label])
        for channel in range(3):
            content += bytes(
                image[row, column, channel] for row in range(32) for column in range(32)
            )
    return images, labels, bytes(content)


def write_cifar10(folder, n=20):
    """The six files; all training images and the test images, with their labels."""
    folder.mkdir(parents=True, exist_ok=True)
    batches = [records(n, 10, seed) for seed in range(6)]
    for i, (_, _, content) in enumerate(batches):
        name = "test_batch.bin" if i == 5 else f"data_batch_{i + 1}.bin"
        (folder / name).write_bytes(content)
    (folder / "batches.meta.txt").write_text("\n".join(CLASS_NAMES["cifar10"]) + "\n")
    train = [np.concatenate([batch[i] for batch in batches[:5]]) for i in (0, 1)]
    return (*train, *batches[5][:2])


def pack(folder, path, mode="w:gz"):
    with tarfile.open(path, mode) as archive:
        archive.add(folder, folder.name)
    return path


def is_right(dataset, wanted, name="cifar10"):
    whole = [np.concatenate(pair) for pair in zip(dataset.validation, dataset.train, strict=True)]
    found = (*whole, *dataset.test)
    assert dataset.name == name and dataset.class_names == CLASS_NAMES[name]
    assert not dataset.characters and dataset.train.inputs.flags.c_contiguous
    return all(np.array_equal(a, b) for a, b in zip(found, wanted, strict=True))


@pytest.mark.parametrize("asked", ["auto", "cifar10", "mnist"])
def test_cifar10_in_a_folder_and_in_archives(tmp_path, asked):
    wanted = write_cifar10(tmp_path / "cifar-10-batches-bin")
    dataset = data.load(asked, tmp_path / "cifar-10-batches-bin")
    assert is_right(dataset, wanted)
    assert len(dataset.validation.labels) == 10  # the first tenth
    np.testing.assert_array_equal(dataset.validation.inputs, wanted[0][:10])
    assert is_right(data.load(asked, tmp_path), wanted)
    for name, mode in (
        ("a.tar.gz", "w:gz"),
        ("b.tgz", "w:gz"),
        ("c.tar", "w"),
        ("D.TAR.GZ", "w:gz"),
    ):
        (tmp_path / name).mkdir()
        path = pack(tmp_path / "cifar-10-batches-bin", tmp_path / name / name, mode)
        for place in (path, path.parent):
            assert is_right(data.load(asked, place), wanted)
    np.testing.assert_array_equal(data.load_test(path).inputs, wanted[2])


def test_cifar100_has_its_fine_labels(tmp_path):
    folder = tmp_path / "cifar-100-binary"
    folder.mkdir()
    train, test = records(200, 100, 0, coarse=True), records(100, 100, 1, coarse=True)
    for name, (_, _, content) in (("train.bin", train), ("test.bin", test)):
        (folder / name).write_bytes(content)
    wanted = (*train[:2], *test[:2])
    for place in (folder, folder / "train.bin", folder / "test.bin", tmp_path):
        assert is_right(data.load("auto", place), wanted, "cifar100")
    with pytest.raises(DataError, match="holds cifar100, not cifar10"):
        data.load("cifar10", folder)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_names_are_sorted_by_the_alphabet_as_the_official_ones_are(name):
    names = CLASS_NAMES[name]
    assert (
        list(names) == sorted(names) and len(set(names)) == {"cifar10": 10, "cifar100": 100}[name]
    )


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "data_batch_3.bin").unlink(), r"has no data_batch_3\.bin"),
        (lambda f: cut(f / "data_batch_3.bin", -1), r"data_batch_3\.bin: truncated.* 61,459 bytes"),
        (lambda f: cut(f / "test_batch.bin", 0), r"test_batch\.bin: truncated.* 0 bytes"),
        (lambda f: patch(f / "data_batch_1.bin", 3073, 10), r"label 10 at 1 is over 9"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, spoil, message):
    write_cifar10(tmp_path / "cifar")
    spoil(tmp_path / "cifar")
    with pytest.raises(DataError, match=message):
        data.load("cifar10", tmp_path / "cifar")


def cut(path, length):
    path.write_bytes(path.read_bytes()[:length])


def patch(path, place, value):
    content = bytearray(path.read_bytes())
    content[place] = value
    path.write_bytes(content)


@pytest.mark.parametrize("names", [("data_batch_1", "test_batch"), ("train", "test")])
def test_the_python_version_is_not_read_and_the_binary_one_named(tmp_path, names):
    folder = tmp_path / ("cifar-100-python" if "train" in names else "cifar-10-batches-py")
    folder.mkdir()
    for name in names:
        (folder / name).write_bytes(b"\x80\x02}q\x01.")
    packed = pack(folder, tmp_path / f"{folder.name}.tar.gz")
    for place in (folder, packed):
        with pytest.raises(DataError, match=r"pickles.*not read\.\nGive.*cifar-10-binary\.tar\.gz"):
            data.load("auto", place)


def test_out_of_tfds_archive(tmp_path, monkeypatch):
    """Under the address that TFDS registers, laid by hand, with another checksum."""
    from tensorflow_datasets.core.download.checksums import UrlInfo

    wanted = write_cifar10(tmp_path / "cifar-10-batches-bin")
    (url,) = downloads._url_infos("cifar10")
    assert url.endswith("cifar-10-binary.tar.gz")
    assert next(iter(downloads._url_infos("cifar100"))).endswith("cifar-100-binary.tar.gz")
    by_hand = tmp_path / "downloads" / "manual" / "cifar10"
    by_hand.mkdir(parents=True)
    archive = pack(tmp_path / "cifar-10-batches-bin", by_hand / "cifar-10-binary.tar.gz")
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    info = {url: UrlInfo(archive.stat().st_size, digest, archive.name)}
    monkeypatch.setattr(downloads, "_url_infos", lambda name: info)
    dataset = data.load("cifar10", download_dir=tmp_path / "downloads")
    assert is_right(dataset, wanted) and dataset.source.startswith("TFDS downloads in")
    monkeypatch.setattr(downloads, "fetch", None)  # the second time, TFDS is not asked
    assert is_right(data.load("cifar10", download_dir=tmp_path / "downloads"), wanted)


def test_images_of_another_size_are_not_cifars(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (40, 48, 48, 3), np.uint8)
    np.savez(tmp_path / "cifar10.npz", x_train=images, y_train=np.arange(40) % 10)
    with pytest.raises(DataError, match=r"holds images of 48 x 48 x 3, not cifar10's 32 x 32 x 3"):
        data.load("cifar10", tmp_path)
    assert data.load("auto", tmp_path).class_names == tuple("0123456789")
    np.savez(tmp_path / "cifar10.npz", x_train=images[:, 8:40, 8:40], y_train=np.arange(40) % 10)
    dataset = data.load("auto", tmp_path)  # by the file's name
    assert dataset.name == "cifar10" and dataset.class_names[3] == "cat"


# Tar archives of anything else.


def test_what_a_tar_archive_holds_is_found_by_name(tmp_path):
    with tarfile.open(tmp_path / "some.tar", "w") as archive:
        for name, content in (("./b/2.txt", b"two"), ("b/._2.txt", b""), ("a.csv", b"one" * 1000)):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    for path in (tmp_path / "some.tar", tmp_path / "some.tar.gz"):
        if path.suffix == ".gz":
            path.write_bytes(gzip.compress((tmp_path / "some.tar").read_bytes()))
        found = {str(file.path): file for file in files.find(path)}
        assert sorted(found) == ["a.csv", "b/2.txt"]
        for _ in range(2):
            with found["a.csv"].open() as stream:
                assert stream.read() == b"one" * 1000


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: b"no archive",
        lambda content: gzip.compress(b"no archive" * 100),
        lambda content: content[: len(content) // 2],
        lambda content: gzip.compress(gzip.decompress(content)[:30_000]),
        lambda content: gzip.compress(gzip.decompress(content)[: 512 + 100]),
        lambda content: b"",
    ],
)
def test_a_damaged_tar_archive_is_named(tmp_path, spoil):
    write_cifar10(tmp_path / "cifar-10-batches-bin", 10)
    path = pack(tmp_path / "cifar-10-batches-bin", tmp_path / "cifar.tar.gz")
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(DataError, match=r"cifar\.tar\.gz"):
        data.load("cifar10", path)


def test_pictures_of_cifars_classes_are_cifar10_where_all_are_there(tmp_path, monkeypatch):
    """Few of them are called by their folder, and so are those in a folder of CIFAR-10's name."""
    rng = np.random.default_rng(0)
    root = tmp_path / "cifar10" / "pictures"
    for split in ("train", "test"):
        for name in CLASS_NAMES["cifar10"]:
            (root / split / name).mkdir(parents=True)
            for i in range(2):
                coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), np.uint8)).resize((32, 32))
                coarse.save(root / split / name / f"{i}.png")
    for count in (20, 21):
        monkeypatch.setattr(loading, "_CIFAR_COUNTS", (count, 20))
        dataset = data.load("auto", root, validation=0)
        assert dataset.name == ("cifar10" if count == 20 else "pictures")
        assert dataset.class_names == CLASS_NAMES["cifar10"]
        for image, label in zip(*dataset.test, strict=True):
            files_here = (root / "test" / CLASS_NAMES["cifar10"][label]).iterdir()
            assert any(np.array_equal(np.asarray(Image.open(path)), image) for path in files_here)
    monkeypatch.setattr(loading, "_CIFAR_COUNTS", (20, 20))
    assert data.load("auto", root, validation=0, image_size=64).name == "pictures"
    assert data.load("cifar10", root, validation=0).name == "cifar10"


@pytest.mark.parametrize(
    ("counts", "name"),
    [
        ({"train": 50_000, "test": 10_000}, "cifar10"),
        ({"train": 45_000, "validation": 5_000, "test": 10_000}, "cifar10"),
        ({"train": 60_000}, None),
        ({"train": 49_999, "test": 10_000}, None),
        ({"train": 500, "test": 100}, None),
    ],
)
def test_how_many_images_cifar10_has(counts, name):
    splits = {
        split: data.Split(np.broadcast_to(np.uint8(0), (n, 32, 32, 3)), np.zeros(n, np.int32))
        for split, n in counts.items()
    }
    assert loading._cifar(splits, CLASS_NAMES["cifar10"]) == name
