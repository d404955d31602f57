"""Folders of photographs: of every size and kind, kept once decoded, too many for the memory."""

import os
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from mnist_jax import cache, data
from mnist_jax.data import DataError, memory, photos
from tests.samples import digits, write_pictures


@pytest.fixture(autouse=True)
def cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "mnist_jax" / "pictures"


def photo(rng, width=32, height=32, mode="RGB"):
    """A coarse pattern in colours, which is what photographs are to a small window."""
    coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def write(folder, sizes=((32, 32),), splits=("train", "test"), n=6, suffix=".png", mode="RGB"):
    """Of two classes, the sizes taking turns: each picture by its path."""
    rng = np.random.default_rng(0)
    written = {}
    for split in splits:
        for name in ("cat", "dog"):
            for i in range(n):
                path = folder / split / name / f"{i}{suffix}"
                path.parent.mkdir(parents=True, exist_ok=True)
                written[path] = photo(rng, *sizes[i % len(sizes)], mode)
                written[path].save(path)
    return written


def of(dataset, *splits):
    return {
        (image.tobytes(), dataset.class_names[label])
        for split in splits
        for image, label in zip(*split, strict=True)
    }


def arrays_of(written, part="", shape=None):
    """What NumPy makes of the pictures under a folder."""
    return {
        (np.asarray(image).reshape(shape or np.asarray(image).shape).tobytes(), path.parent.name)
        for path, image in written.items()
        if not part or part in path.parts
    }


@pytest.mark.parametrize("size", [(32, 32), (28, 28), (64, 48), (40, 100)])
def test_of_one_size_they_stay_as_they_are(tmp_path, size):
    written = write(tmp_path / "pets", [size])
    dataset = data.load("auto", tmp_path / "pets")
    assert dataset.train.inputs.shape[1:] == (size[1], size[0], 3)
    assert of(dataset, dataset.train, dataset.validation) == arrays_of(written, "train")
    assert of(dataset, dataset.test) == arrays_of(written, "test")
    assert dataset.class_names == ("cat", "dog") and not dataset.characters
    assert f"photographs of {size[1]} x {size[0]} in colour" in dataset.source
    np.testing.assert_array_equal(
        data.load_test(tmp_path / "pets").inputs, data.load("auto", tmp_path / "pets").test.inputs
    )


@pytest.mark.parametrize("place", ["", "pets"])
def test_a_picture_beside_train_and_test_makes_no_class(tmp_path, place):
    written = write(tmp_path / "pets")
    next(iter(written.values())).save(tmp_path / "pets" / "cover.png")
    with zipfile.ZipFile(tmp_path / "pets.zip", "w") as packed:
        for path in sorted((tmp_path / "pets").rglob("*.png")):
            packed.write(path, path.relative_to(tmp_path))
    for there in (tmp_path / place, tmp_path / "pets.zip"):
        dataset = data.load("auto", there)
        assert dataset.class_names == ("cat", "dog")
        assert of(dataset, dataset.test) == arrays_of(written, "test")
        assert "1 picture without a class" in dataset.source


def test_one_level_of_folders_is_split_by_classes(tmp_path):
    written = write(tmp_path, splits=[""], n=20)
    dataset = data.load("auto", tmp_path)
    assert [len(split.labels) for split in (dataset.train, dataset.test)] == [29, 8]
    assert np.bincount(dataset.test.labels).tolist() == [4, 4]
    assert of(dataset, dataset.train, dataset.validation, dataset.test) == arrays_of(written)


@pytest.mark.parametrize(
    ("sizes", "image_size", "side"),
    [
        ([(60, 40), (40, 50)], None, 40),
        ([(60, 40), (50, 70), (50, 80)], None, 50),
        ([(300, 260), (400, 250)], None, 224),
        ([(60, 40), (40, 50)], 24, 24),
        ([(32, 32)], 48, 48),
        ([(60, 40)], 40, 40),
    ],
)
def test_of_several_sizes_they_become_squares(tmp_path, sizes, image_size, side):
    write(tmp_path, sizes)
    dataset = data.load("auto", tmp_path, image_size=image_size)
    shapes = {s.inputs.shape[1:] for s in (dataset.train, dataset.validation, dataset.test)}
    assert shapes == {(side, side, 3)}


def test_the_middle_is_what_is_left(tmp_path):
    """A picture in three parts, red, green and blue; the middle one is a square."""
    for name in ("cat", "dog"):
        for i in range(10):
            values = np.zeros((50, 150, 3), np.uint8)
            for part in range(3):
                values[:, 50 * part : 50 * part + 50, part] = 200 + i
            values = values.transpose(1, 0, 2) if i % 2 else values
            path = tmp_path / name / f"{i}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(values).save(path)
    dataset = data.load("auto", tmp_path, image_size=20)
    inner = dataset.train.inputs[:, 2:-2, 2:-2]
    assert inner[..., 1].min() >= 195 and inner[..., [0, 2]].max() <= 10


def test_grey_ones_alone_have_one_channel_and_three_among_others(tmp_path):
    written = write(tmp_path / "grey", [(48, 48)], suffix=".jpg", mode="L")
    dataset = data.load("auto", tmp_path / "grey")
    assert dataset.train.inputs.shape[1:] == (48, 48, 1) and "in grey" in dataset.source
    grey = next(iter(written.values()))
    write(tmp_path / "mixed", [(48, 48)])
    grey.save(tmp_path / "mixed" / "train" / "cat" / "0.png")
    dataset = data.load("auto", tmp_path / "mixed")
    wanted = np.repeat(np.asarray(grey)[..., None], 3, axis=2).tobytes()
    assert (wanted, "cat") in of(dataset, dataset.train, dataset.validation)


def test_damaged_exif_is_not_looked_at(tmp_path):
    written = write(tmp_path, [(40, 30)], n=20)
    path = tmp_path / "train" / "cat" / "0.png"
    written[path].save(path, exif=b"X" * 16)
    dataset = data.load("auto", tmp_path)
    assert of(dataset, dataset.train, dataset.validation) == arrays_of(written, "train")


def test_turned_transparent_and_others(tmp_path):
    written = write(tmp_path, [(40, 30)], n=20)
    folder, rng = tmp_path / "train" / "cat", np.random.default_rng(1)
    image = photo(rng, 40, 30)
    turned = Image.Exif()
    turned[0x0112] = 6
    image.transpose(Image.Transpose.ROTATE_90).save(folder / "0.png", exif=turned)
    clear = image.convert("RGBA")
    clear.putalpha(Image.fromarray(np.repeat([0, 255], 600).reshape(30, 40).astype(np.uint8)))
    clear.save(folder / "1.png")
    image.quantize(200).save(folder / "2.png")
    deep = np.asarray(image.convert("L")).astype(np.uint16) * 257
    Image.fromarray(deep).save(folder / "3.png")
    image.convert("CMYK").save(folder / "4.tif")
    (folder / "4.png").unlink()
    dataset = data.load("auto", tmp_path, validation=0)
    assert dataset.train.inputs.shape[1:] == (30, 40, 3)
    found = [tuple(pair) for pair in of(dataset, dataset.train)]
    found = [np.frombuffer(pixels, np.uint8).reshape(30, 40, 3) for pixels, _ in found]
    on_white = np.asarray(image).copy()
    on_white[:15] = 255
    grey = np.repeat(np.asarray(image.convert("L"))[..., None], 3, axis=2)
    palette = np.asarray(image.quantize(200).convert("RGB"))
    ink = np.asarray(image.convert("CMYK").convert("RGB"))
    for wanted in (np.asarray(image), on_white, grey, palette, ink):
        assert any(np.array_equal(wanted, picture) for picture in found)
    assert len(written) == len(dataset.train.labels) + len(dataset.test.labels)


@pytest.mark.parametrize("content", [b"", b"no picture", None])
def test_damaged_ones_are_named_and_counted(tmp_path, content):
    written = write(tmp_path, suffix=".jpg")
    for path in list(written)[2:5]:
        path.write_bytes(path.read_bytes()[:400] if content is None else content)
    with pytest.raises(DataError) as caught:
        data.load("auto", tmp_path)
    first, second = str(caught.value).splitlines()
    assert str(list(written)[2]) in first and second == "2 more pictures cannot be used."


def test_a_damaged_one_and_a_link_to_nothing(tmp_path):
    written = write(tmp_path)
    first, second, *_ = written
    first.unlink()
    first.symlink_to("gone.png")
    with pytest.raises(DataError, match=r"0.png: cannot be read: No such file.*\.\nReplace it, or"):
        data.load("auto", tmp_path)
    second.write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"\n1 more picture cannot be used."):
        data.load("auto", tmp_path)


def test_more_pixels_than_pillow_reads(tmp_path, monkeypatch):
    first, *_ = write(tmp_path)
    photo(np.random.default_rng(0), 300, 300).save(first)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30_000)
    with pytest.raises(DataError, match=r"0.png: too large; more than 60,000 pixels.\nReplace"):
        data.load("auto", tmp_path)


def test_folders_within_a_class_are_said_to_be_left_out(tmp_path):
    written = write(tmp_path)
    inside = tmp_path / "train" / "cat" / "sub"
    inside.mkdir()
    for i, image in enumerate(list(written.values())[:3]):
        image.save(inside / f"{i}.png")
    dataset = data.load("auto", tmp_path, validation=0)
    assert len(dataset.train.labels) == 12 and dataset.class_names == ("cat", "dog")
    assert "left out: 3 pictures in train/cat/sub, within a class" in dataset.source


@pytest.mark.parametrize("to", ["..", ".", "../.."])
def test_a_folder_that_leads_back_is_passed_over(tmp_path, to):
    written = write(tmp_path)
    (tmp_path / "train" / "cat" / "loop").symlink_to(to, target_is_directory=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "pets").mkdir()
    (tmp_path / "pets" / "train").symlink_to(tmp_path / "train")  # a link, but to no folder above
    dataset = data.load("auto", tmp_path / "pets", validation=0)
    assert of(dataset, dataset.train, dataset.test) == arrays_of(written, "train")
    assert "left out" not in dataset.source


@pytest.mark.parametrize("split", ["test", "val"])
def test_a_split_alone_is_none_to_train_on(tmp_path, split):
    write(tmp_path, splits=[split])
    name = {"test": "test", "val": "validation"}[split]
    with pytest.raises(DataError, match=f"holds pictures for {name} alone, and none to train on"):
        data.load("auto", tmp_path)


def test_all_damaged(tmp_path):
    for path in write(tmp_path, n=2):
        path.write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"no picture that Pillow can read.\n"):
        data.load("auto", tmp_path, image_size=32)


def test_once_decoded_they_are_kept(tmp_path, monkeypatch, cache_folder):
    monkeypatch.setattr(photos, "_LEAST_SECONDS", -1)
    written = write(tmp_path / "pets")
    decoded = data.load("auto", tmp_path / "pets")
    assert len(list(cache_folder.glob("*/*.npy"))) == 2
    with monkeypatch.context() as patched:
        patched.setattr(photos, "open_picture", None)  # it would be called
        again = data.load("auto", tmp_path / "pets")
        patched.chdir(tmp_path)
        assert data.fingerprint(data.load("auto", "pets")) == data.fingerprint(decoded)
    assert data.fingerprint(again) == data.fingerprint(decoded) and again.source == decoded.source
    first, *_, last = written
    changed = photo(np.random.default_rng(9))
    changed.save(first)
    os.utime(first, ns=(1, 1))
    dataset = data.load("auto", tmp_path / "pets")
    assert (np.asarray(changed).tobytes(), "cat") in of(dataset, dataset.train, dataset.validation)
    assert len(list(cache_folder.glob("*/*.npy"))) == 2  # the former are gone
    last.unlink()
    assert len(data.load("auto", tmp_path / "pets").test.labels) == 11


def test_what_is_kept_and_damaged_is_made_anew(tmp_path, monkeypatch, cache_folder):
    monkeypatch.setattr(photos, "_LEAST_SECONDS", -1)
    write(tmp_path / "pets")
    wanted = data.fingerprint(data.load("auto", tmp_path / "pets"))
    for path in cache_folder.glob("*/*.npy"):
        path.write_bytes(path.read_bytes()[:200])
    assert data.fingerprint(data.load("auto", tmp_path / "pets")) == wanted


def test_small_folders_leave_nothing_and_a_cache_is_not_needed(tmp_path, monkeypatch, cache_folder):
    monkeypatch.setattr(photos, "_LEAST_SECONDS", 600)
    write(tmp_path / "pets")
    wanted = data.fingerprint(data.load("auto", tmp_path / "pets"))
    assert not cache_folder.exists()
    monkeypatch.setattr(photos, "_LEAST_SECONDS", -1)
    monkeypatch.setattr(cache, "folder", lambda: None)
    assert data.fingerprint(data.load("auto", tmp_path / "pets")) == wanted


def test_out_of_archives(tmp_path, monkeypatch):
    monkeypatch.setattr(photos, "_LEAST_SECONDS", -1)
    written = write(tmp_path / "pets", [(30, 40)])
    with tarfile.open(tmp_path / "pets.tar.gz", "w:gz") as packed:
        packed.add(tmp_path / "pets", "pets")
    with zipfile.ZipFile(tmp_path / "pets.zip", "w") as packed:
        for path in written:
            packed.write(path, path.relative_to(tmp_path))
    for name in ("pets.tar.gz", "pets.zip"):
        for _ in range(2):
            dataset = data.load("auto", tmp_path / name)
            assert of(dataset, dataset.train, dataset.validation) == arrays_of(written, "train")


def test_large_pictures_are_read_by_several_threads(tmp_path, monkeypatch):
    written = write(tmp_path)
    one = data.fingerprint(data.load("auto", tmp_path))
    monkeypatch.setattr(photos, "_SMALL", 1)
    assert data.fingerprint(data.load("auto", tmp_path)) == one and written


def test_more_than_fits_memory_is_refused_with_numbers(tmp_path, monkeypatch):
    written = write(tmp_path, [(100, 80)], n=5)
    monkeypatch.setattr(memory, "available", lambda: 2 * 20 * 80 * 100 * 3 - 1)
    message = r"20 pictures of 80 x 100 x 3 would take 2 x 0\.0 GB.*; 0\.0 GB.*\n.*image_size"
    with pytest.raises(DataError, match=message):
        data.load("auto", tmp_path)
    monkeypatch.setattr(memory, "available", lambda: 2 * 20 * 80 * 100 * 3)
    assert len(data.load("auto", tmp_path).train.labels) and written


def test_memory_that_is_there():
    free = memory.available()
    assert free is None or 0 < free < 1 << 50


# What is taken for photographs and what for characters.


@pytest.mark.parametrize("names", ["0123456789", [f"class{i}" for i in range(10)]])
@pytest.mark.parametrize("ground", [(255, 255, 255), (235, 230, 200), (0, 0, 0)])
def test_drawn_digits_stay_characters_also_in_coloured_ink(tmp_path, names, ground):
    images, labels = digits(40)
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        ink = Image.fromarray(image).resize((84, 84)).point(lambda v: 255 * (v > 100))
        picture = Image.new("RGB", (120, 120), ground)
        picture.paste((200, 30, 40), (18, 18), ink)
        path = tmp_path / "drawn" / names[label] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path)
    dataset = data.load("auto", tmp_path / "drawn")
    assert dataset.train.inputs.shape[1:] == (28, 28, 1) and dataset.characters


def test_digits_cropped_to_their_ink_stay_characters(tmp_path):
    images, labels = digits(40)
    cropped = []
    for image in images:
        rows, columns = np.flatnonzero(image.any(axis=1)), np.flatnonzero(image.any(axis=0))
        inside = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        cropped.append(np.asarray(Image.fromarray(inside).resize((60, 80))))
    write_pictures(tmp_path, cropped, labels)
    assert data.load("auto", tmp_path).characters
    dataset = data.load("auto", tmp_path, image_size=40)  # as they are, where that is asked for
    assert dataset.train.inputs.shape[1:] == (40, 40, 1) and not dataset.characters


def test_things_on_a_plain_ground_are_photographs(tmp_path):
    rows, columns = np.mgrid[:100, :100]
    for name, colour in (("apple", (200, 20, 30)), ("banana", (230, 210, 40))):
        for i in range(10):
            values = np.full((100, 100, 3), 255, np.uint8)
            values[np.hypot(rows - 50, columns - 50) < 30 + i] = colour
            path = tmp_path / name / f"{i}.jpg"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(values).save(path)
    dataset = data.load("auto", tmp_path)
    assert dataset.train.inputs.shape[1:] == (100, 100, 3) and not dataset.characters


def test_photographs_of_digits_in_a_folder_a_digit(tmp_path):
    """As SVHN's house numbers are: colours, not ink."""
    rng = np.random.default_rng(0)
    for digit in range(10):
        (tmp_path / str(digit)).mkdir()
        for i in range(6):
            photo(rng, 28, 28).save(tmp_path / str(digit) / f"{i}.png")
    for asked in ("auto", "mnist"):
        dataset = data.load(asked, tmp_path)
        assert dataset.train.inputs.shape[1:] == (28, 28, 3) and not dataset.characters
        assert dataset.class_names == tuple("0123456789") and dataset.name != "mnist"
    with pytest.raises(DataError, match="holds images of 28 x 28 x 3, not emnist/digits's"):
        data.load("emnist/digits", tmp_path)


@pytest.mark.parametrize("folder", ["cifar10", "fashion_mnist", "mnist"])
def test_a_folders_name_does_not_make_pictures_what_they_are_not(tmp_path, folder):
    write(tmp_path / folder / "pets", [(32, 32)])
    for asked in ("auto", "mnist"):
        dataset = data.load(asked, tmp_path / folder / "pets")
        assert dataset.name == "pets" and dataset.class_names == ("cat", "dog")
    (tmp_path / folder / "pets" / "train" / "dog").rename(tmp_path / folder / "pets/train/newt")
    (tmp_path / folder / "pets" / "test" / "dog").rename(tmp_path / folder / "pets/test/newt")
    dataset = data.load("auto", tmp_path / folder / "pets")
    assert dataset.name == "pets" and dataset.class_names == ("cat", "newt")


def test_a_class_called_train(tmp_path):
    write(tmp_path / "things")
    for split in ("train", "test"):
        (tmp_path / "things" / split / "dog").rename(tmp_path / "things" / split / "train")
    dataset = data.load("auto", tmp_path / "things")
    assert dataset.class_names == ("cat", "train") and "without a class" not in dataset.source
    assert len(dataset.test.labels) == 12


# Imagenette.


def test_imagenettes_classes_have_words_and_its_val_is_for_testing(tmp_path):
    rng, names = np.random.default_rng(0), data.CLASS_NAMES["imagenette/160px-v2"]
    synsets = ["n01440764", "n02102040", "n02979186", "n03000684", "n03028079"]
    synsets += ["n03394916", "n03417042", "n03425413", "n03445777", "n03888257"]
    root, written = tmp_path / "imagenette2-160", {}
    for split in ("train", "val"):
        for synset, name in zip(synsets, names, strict=True):
            (root / split / synset).mkdir(parents=True)
            for i, size in enumerate(((44, 40), (40, 40), (40, 51))):
                image = photo(rng, *size)
                image.save(root / split / synset / f"{synset}_{i}.JPEG", quality=95)
                written[split, name, i] = np.asarray(
                    Image.open(root / split / synset / f"{synset}_{i}.JPEG")
                )
    with tarfile.open(tmp_path / "imagenette2-160.tgz", "w:gz") as packed:
        packed.add(root, root.name)
    for asked in ("imagenette/160px-v2", "auto"):
        for place in (root, root.with_suffix(".tgz")):
            dataset = data.load(asked, place)
            assert dataset.name == "imagenette/160px-v2" and dataset.class_names == names
            assert dataset.test.inputs.shape == (30, 40, 40, 3)
            assert len(dataset.train.labels) == 27 and len(dataset.validation.labels) == 3
            test = of(dataset, dataset.test)
            assert all((written["val", name, 1].tobytes(), name) in test for name in names)
    other = data.load("imagenette/320px-v2", tmp_path / "imagenette2-160", image_size=32)
    assert other.test.inputs.shape == (30, 32, 32, 3)


def test_of_imagenettes_archives_one_is_fetched(tmp_path, monkeypatch):
    from mnist_jax.data import downloads

    asked = []
    infos = downloads._url_infos("imagenette")

    def fetch(name, url_infos, download_dir):
        asked.append((name, [info.filename for info in url_infos.values()]))
        raise data.DataUnavailable("no network in this test")

    monkeypatch.setattr(downloads, "fetch", fetch)
    for side in (160, 320):
        with pytest.raises(data.DataUnavailable):
            data.load(f"imagenette/{side}px-v2", download_dir=tmp_path)
    assert len(infos) > 2
    assert asked == [("imagenette", [f"imagenette2-{side}.tgz"]) for side in (160, 320)]


@pytest.mark.parametrize(("value", "message"), [(0, "at least 1, not 0"), (-3, "not -3")])
def test_wrong_image_sizes(tmp_path, value, message):
    write(tmp_path)
    with pytest.raises(ValueError, match=f"image_size must be {message}|{message}"):
        data.load("auto", tmp_path, image_size=value)


def test_image_size_is_for_pictures(tmp_path):
    np.savez(tmp_path / "a.npz", x_train=np.zeros((9, 28, 28), np.uint8), y_train=np.arange(9) % 2)
    with pytest.raises(ValueError, match=r"is for pictures in folders, and .* NumPy arrays"):
        data.load("auto", tmp_path, image_size=32)
    with pytest.raises(ValueError, match="image_size is for pictures"):
        data.load_test(tmp_path, image_size=32)
    for name in ("auto", "mnist5k", "cifar10"):
        with pytest.raises(ValueError, match="image_size is for pictures"):
            data.load(name, image_size=32)
