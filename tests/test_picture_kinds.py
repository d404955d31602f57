"""Whether pictures in folders show characters or things, by their looks and by what is said."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from experiments import bundle, evaluate, predict, run
from experiments.console import cli
from experiments.console.pictures import named_by
from experiments.workdir.config import Config
from experiments.workdir.trained import load as load_trained
from mnist_jax import cache, data, parallel
from mnist_jax.data import DataError, pictures
from mnist_jax.data.names import class_of
from mnist_jax.images import are_as_mnist
from tests.samples import digits, idx, same_images, write_pictures

RNG = np.random.default_rng


@pytest.fixture(autouse=True)
def this_process(monkeypatch, tmp_path_factory):
    """The tests have started JAX already, and have a cache of compiled programs."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setattr(parallel, "use_cpu_cores", lambda *_, **__: None)
    for module in (cli, cache):
        monkeypatch.setattr(module, "use_compilation_cache", lambda: None)


def textures(n, side=40, seed=0):
    """Grey patterns of many shades up to the border, as of bones; each class has its own means."""
    rng, labels = RNG(seed), np.arange(n) % 5
    coarse = rng.integers(0, 150, (n, 5, 5)) + 25 * labels[:, None, None]
    resized = [Image.fromarray(c.astype(np.uint8)).resize((side, side), 3) for c in coarse]
    return [np.asarray(image) for image in resized], labels


def scans(n, side=40, seed=0):
    """Shaded disks on black, as of heads; each class has its own brightness and rings."""
    rng, labels = RNG(seed), np.arange(n) % 5
    rows, columns = np.mgrid[:side, :side] - side / 2
    images = []
    for label in labels:
        radius = side * rng.uniform(0.4, 0.45)
        distance = np.hypot(rows, columns) / radius
        shades = (60 + 30 * label) * (1 + np.cos((label + 2) * distance * np.pi)) / 2 + 20
        noise = rng.normal(0, 10, shades.shape)
        images.append(np.where(distance < 1, shades + noise, 0).clip(0, 255).astype(np.uint8))
    return images, labels


def coloured_digits(n, skip=0):
    """On a ground of other colours, as house numbers are: 28 x 28 x 3."""
    rng = RNG(skip)
    images, labels = digits(n, skip)
    weight = images[..., None] / 255
    slope = np.linspace(0, 90, 28)[:, None] + np.zeros(28)
    ground = rng.integers(0, 60, (n, 1, 1, 3)) + slope[..., None]
    made = ground + weight * (np.array([250, 220, 120]) - ground)
    return [image.astype(np.uint8) for image in made], labels


def rows_of(dataset):
    """All images of a data set."""
    splits = (dataset.train, dataset.validation, dataset.test)
    return [image.tobytes() for split in splits for image in split.inputs]


def same(dataset, images):
    """Whether a data set has these grey images, in any order."""
    return sorted(rows_of(dataset)) == sorted(np.asarray(image).tobytes() for image in images)


WORDS = np.array(["none", "doubtful", "mild", "moderate", "severe"])


@pytest.mark.parametrize("names", [np.arange(5), WORDS])
def test_grey_pictures_of_many_shades_are_photographs(tmp_path, names):
    images, labels = textures(60)
    write_pictures(tmp_path, images, names[labels])
    dataset = data.load("auto", tmp_path)
    assert not dataset.characters and same(dataset, images)
    assert "photographs of 40 x 40 in grey" in dataset.source


def test_on_an_even_ground_too_where_words_name_them(tmp_path):
    images, labels = scans(60)
    write_pictures(tmp_path, images, WORDS[labels])
    dataset = data.load("auto", tmp_path)
    assert not dataset.characters and same(dataset, images)


def test_what_is_said_holds_against_looks(tmp_path):
    images, labels = scans(60)
    write_pictures(tmp_path / "scans", images, labels)
    characters = data.load("auto", tmp_path / "scans")
    assert characters.train.inputs.shape[1:] == (28, 28, 1) and characters.characters
    assert "characters, found, scaled and centred" in characters.source
    said = data.load("auto", tmp_path / "scans", picture_kind="photographs")
    assert not said.characters and same(said, images)
    # That they are kept now, decoded, changes no other answer.
    again = data.load("auto", tmp_path / "scans")
    assert data.fingerprint(again) == data.fingerprint(characters) and again.characters
    test = data.load_test(tmp_path / "scans", picture_kind="photographs")
    assert test.inputs.shape == (60, 40, 40, 1)

    images, labels = coloured_digits(60)
    write_pictures(tmp_path / "numbers", images, labels, mode="RGB")
    assert data.load("auto", tmp_path / "numbers").train.inputs.shape[1:] == (28, 28, 3)
    said = data.load("auto", tmp_path / "numbers", picture_kind="characters")
    assert said.train.inputs.shape[1:] == (28, 28, 1) and said.characters


def test_photographs_of_28_x_28_are_no_characters_where_that_is_said(tmp_path):
    images, labels = digits(40)
    write_pictures(tmp_path, 255 - images, np.array([*"ABCDEFGHIJ"])[labels])
    assert data.load("auto", tmp_path).characters
    said = data.load("auto", tmp_path, picture_kind="photographs")
    assert not said.characters and same(said, 255 - images)


def test_decoded_photographs_are_kept_and_do_not_tell_what_pictures_are(tmp_path, monkeypatch):
    monkeypatch.setattr("mnist_jax.data.photos._LEAST_SECONDS", 0)
    images, labels = scans(60)
    write_pictures(tmp_path, images, labels)
    assert not data.load("auto", tmp_path, picture_kind="photographs").characters
    assert data.load("auto", tmp_path).characters


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"picture_kind": "photos"}, "one of auto, characters, photographs, not 'photos'"),
        ({"picture_kind": None}, "one of auto, characters, photographs, not None"),
        ({"picture_kind": "characters", "image_size": 64}, "image_size is for photographs"),
    ],
)
def test_wrong_kinds(tmp_path, options, message):
    write_pictures(tmp_path, *digits(40))
    with pytest.raises(ValueError, match=message):
        data.load("auto", tmp_path, **options)
    with pytest.raises(ValueError, match=message):
        data.load_test(tmp_path, **options)


# Grey pictures of 28 x 28, which stay as they are.


def test_two_tones_by_hand():
    assert pictures._two_tones(np.array([0, 0, 9, 9.0])) == 1
    # Of 1 to 4 the best threshold leaves 1 and 2 below it: 1 of a variance of 1.25.
    assert pictures._two_tones(np.array([[3, 1], [4, 2.0]])) == pytest.approx(0.8)
    assert pictures._two_tones(np.full(9, 7.0)) == 0


@pytest.mark.parametrize("names", [np.array(["odd", "even"]), np.array(["class0", "class1"])])
def test_things_dark_on_light_stay_so(tmp_path, names):
    images, labels = digits(100)
    write_pictures(tmp_path, 255 - images, names[labels % 2])
    dataset = data.load("auto", tmp_path)
    assert not dataset.characters and same(dataset, 255 - images)
    assert same_images(data.load_test(tmp_path).inputs, 255 - images)


def test_things_in_numbered_folders_too(tmp_path):
    images, labels = digits(100)
    images = images.transpose(0, 2, 1)[:, ::-1]
    write_pictures(tmp_path / "lying", 255 - images, labels + 3)
    dataset = data.load("auto", tmp_path / "lying")
    assert not dataset.characters and same(dataset, 255 - images)
    write_pictures(tmp_path / "kmnist", 255 - images, labels)
    dataset = data.load("kmnist", tmp_path / "kmnist")
    assert not dataset.characters and same(dataset, 255 - images)


def test_letters_are_turned_light_on_dark_in_all_splits_alike(tmp_path):
    """The few letters to test on, in frames all around the border, go by all the others."""
    images, labels = digits(100)
    names = np.array([*"ABCDEFGHIJ"])[labels]
    paper = 255 - images
    paper[90:, [0, -1]] = paper[90:, :, [0, -1]] = 0
    write_pictures(tmp_path / "train", paper[:90], names[:90])
    write_pictures(tmp_path / "test", paper[90:], names[90:])
    dataset = data.load("auto", tmp_path)
    assert dataset.characters and "dark on light, inverted" in dataset.source
    rows = [image.tobytes() for split in (dataset.train, dataset.validation) for image in split[0]]
    assert sorted(rows) == sorted(image.tobytes() for image in images[:90])
    tested = data.load_test(tmp_path).inputs
    assert same_images(tested, dataset.test.inputs)
    assert not tested[:, [0, -1]].any() and not tested[:, :, [0, -1]].any()  # nor the frames


def test_digits_dark_on_light_to_test_on(tmp_path):
    images, labels = digits(100)
    write_pictures(tmp_path, 255 - images, labels)
    assert same_images(data.load_test(tmp_path).inputs, images)


def odd_ones(images, labels, names, place):
    """Beside grey pictures of 28 x 28: one that is larger, and one in another colour."""
    write_pictures(place, images, names[labels])
    for i, size in ((0, (60, 60)), (1, (28, 28))):
        odd = Image.fromarray(images[i]).resize(size).convert("RGB")
        tint = np.array([1, 0.9, 0.8]) if i else np.ones(3)
        tinted = (np.asarray(odd) * tint).astype(np.uint8)
        Image.fromarray(tinted).save(place / str(names[labels[i]]) / f"odd{i}.png")


@pytest.mark.parametrize("ground", ["black", "white"])
def test_an_odd_picture_among_many_decides_nothing(tmp_path, ground):
    images, labels = digits(100)
    as_files = 255 - images if ground == "white" else images
    odd_ones(as_files, labels, np.array([*"bcdefghijk"]) + "ed", tmp_path / "things")
    things = data.load("auto", tmp_path / "things")
    assert not things.characters and "photographs of 28 x 28 in grey" in things.source
    assert {image.tobytes() for image in as_files} <= set(rows_of(things))
    assert len(rows_of(things)) == 102

    odd_ones(as_files, labels, np.arange(10), tmp_path / "digits")
    found = data.load("auto", tmp_path / "digits")
    assert found.characters and {image.tobytes() for image in images} <= set(rows_of(found))
    as_said = "as they are" if ground == "black" else "dark on light, inverted"
    assert re.search(f"characters, {as_said}, [12] of them found, scaled", found.source)


def test_few_pictures_in_numbered_folders_are_digits(tmp_path):
    write_pictures(tmp_path, *digits(30))
    assert data.load("auto", tmp_path).characters


def test_pictures_without_colours_are_grey_whatever_their_mode(tmp_path):
    images, labels = textures(60)
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        mode = ("RGB", "P", "RGBA", "LA")[i % 4]
        folder = tmp_path / WORDS[label]
        folder.mkdir(exist_ok=True)
        Image.fromarray(image).convert(mode).save(folder / f"{i}.png")
    Image.fromarray(np.stack([images[0], images[1], images[2]], -1)).save(folder / "odd.png")
    dataset = data.load("auto", tmp_path)
    assert dataset.train.inputs.shape[1:] == (40, 40, 1)
    assert {image.tobytes() for image in images} <= set(rows_of(dataset))


# The commands.

FLAGS = ["--config", "simple", "--epochs", "3", "--batch-size", "20", "--learning-rate", "0.01"]


def trained_on(folder, workdir, *flags):
    argv = [*FLAGS, "--data-dir", str(folder), "--workdir", str(workdir), *flags]
    assert run.main(argv) == 0
    return workdir


def accuracies(workdir, folder, capsys):
    """On one folder of pictures: of `evaluate`, on all of them, and of `predict`."""
    capsys.readouterr()
    assert evaluate.main([str(workdir), "--data-dir", str(folder)]) == 0
    member = json.loads((workdir / "evaluation.json").read_text())["members"][0]
    evaluated = member["before"]["accuracy"]
    capsys.readouterr()
    assert predict.main([str(workdir), "--json", str(folder / "test")]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return evaluated, np.mean([row["class"] == row["label"] for row in rows])


def filling(image):
    return Image.fromarray(image[4:24, 4:24]).resize((28, 28))


def in_a_corner(image):
    small = Image.new("L", (28, 28))
    small.paste(Image.fromarray(image).resize((16, 16)))
    return small


@pytest.mark.parametrize(("layout", "ground"), [(filling, "black"), (in_a_corner, "white")])
def test_digits_that_lie_otherwise_than_mnists(tmp_path, capsys, layout, ground):
    """Networks of such, and networks of MNIST's, each want them in their own way."""
    images, labels = digits(2100)
    others = [np.asarray(layout(image)) for image in images]
    others = [255 - image for image in others] if ground == "white" else others
    for split, part in (("train", slice(0, 2000)), ("test", slice(2000, None))):
        write_pictures(tmp_path / "others" / split, others[part], labels[part])
        write_pictures(tmp_path / "mnist" / split, images[part], labels[part])
        write_pictures(tmp_path / "some" / split, others[part][:100], labels[part][:100])
    own = trained_on(tmp_path / "others", tmp_path / "own")
    assert json.loads((own / "dataset.json").read_text())["as_mnist"] is False
    evaluated, predicted = accuracies(own, tmp_path / "others", capsys)
    assert evaluated == pytest.approx(predicted) and predicted > 0.8
    mnist = trained_on(tmp_path / "mnist", tmp_path / "run")
    assert json.loads((mnist / "dataset.json").read_text())["as_mnist"] is True
    evaluated, predicted = accuracies(mnist, tmp_path / "some", capsys)
    assert evaluated == pytest.approx(predicted, abs=0.02)  # `predict` may find two on one
    assert predicted > 0.8


def test_where_most_lie_as_mnists_do_the_others_are_centred(tmp_path):
    images, labels = digits(100)
    mixed = [np.asarray(in_a_corner(x)) if i % 4 == 0 else x for i, x in enumerate(images)]
    write_pictures(tmp_path, mixed, labels)
    dataset = data.load("auto", tmp_path)
    assert "characters, as they are, 25 of them found, scaled and centred" in dataset.source
    splits = (dataset.train, dataset.validation, dataset.test)
    assert all(are_as_mnist(split.inputs).mean() > 0.95 for split in splits)
    assert {image.tobytes() for i, image in enumerate(images) if i % 4} <= set(rows_of(dataset))


def test_networks_of_arrays_dark_on_light_see_pictures_so(tmp_path, capsys):
    images, labels = digits(600)
    names = np.array([*"ABCDEFGHIJ"])[labels]
    paper = np.stack([255 - np.asarray(filling(image)) for image in images])
    arrays = {"x_train": paper[:500], "y_train": names[:500]}
    np.savez(tmp_path / "a.npz", x_test=paper[500:], y_test=names[500:], **arrays)
    for split, part in (("train", slice(0, 500)), ("test", slice(500, None))):
        write_pictures(tmp_path / "png" / split, paper[part], names[part])
    workdir = trained_on(tmp_path / "a.npz", tmp_path / "run")
    trained = json.loads((workdir / "results.json").read_text())["members"][0]["test_accuracy"]
    assert json.loads((workdir / "dataset.json").read_text())["dark"] is True
    assert accuracies(workdir, tmp_path / "png", capsys) == pytest.approx((trained, trained))
    look = predict._look(load_trained(workdir), [])
    file = tmp_path / "t10k-images-idx3-ubyte"
    file.write_bytes(idx(paper[500:]))
    (item,) = look(next(named_by(str(file))))
    np.testing.assert_array_equal(item.image[..., 0], paper[500])
    # A larger picture is cut out, and made dark on light.
    seven = Image.fromarray(images[labels.tolist().index(7)]).resize((112, 112))
    seven.save(tmp_path / "seven.png")
    item, *_ = look(next(named_by(str(tmp_path / "seven.png"))))
    assert np.median(item.image) == 255


def test_many_pictures_tell_together_what_paper_is(tmp_path, capsys):
    """Grey paper, some of it darker than what counts as paper."""
    images, labels = digits(400)
    filled = np.stack([np.asarray(filling(image)) for image in images]) / 255
    tones = RNG(0).integers(190, 216, 400)[:, None, None]
    paper = (tones * (1 - filled) + 20 * filled).astype(np.uint8)
    for split, part in (("train", slice(0, 300)), ("test", slice(300, None))):
        write_pictures(tmp_path / "data" / split, paper[part], labels[part])
    workdir = trained_on(tmp_path / "data", tmp_path / "run")
    evaluated, predicted = accuracies(workdir, tmp_path / "data", capsys)
    assert evaluated == pytest.approx(predicted) and predicted > 0.3


def test_workdirs_from_before_it_was_told_how_characters_lie(tmp_path, capsys):
    images, labels = digits(300)
    filled = [np.asarray(filling(image)) for image in images]
    for split, part in (("train", slice(0, 240)), ("test", slice(240, None))):
        write_pictures(tmp_path / "data" / split, filled[part], labels[part])
    workdir = trained_on(tmp_path / "data", tmp_path / "run")
    told = accuracies(workdir, tmp_path / "data", capsys)
    about = json.loads((workdir / "dataset.json").read_text())
    del about["as_mnist"], about["dark"]
    (workdir / "dataset.json").write_text(json.dumps(about))
    assert accuracies(workdir, tmp_path / "data", capsys)[0] == told[0]


def test_a_run_does_not_go_on_with_another_kind(tmp_path, capsys):
    images, labels = digits(200)
    write_pictures(tmp_path / "data", 255 - images, np.array([*"ABCDEFGHIJ"])[labels])
    workdir = trained_on(tmp_path / "data", tmp_path / "run")
    argv = ["--resume", str(workdir), "--epochs", "4", "--force"]
    with pytest.raises(SystemExit, match="2"):
        run.main([*argv, "--picture-kind", "photographs"])
    error, hint = capsys.readouterr().err.splitlines()[-2:]
    assert "has images of things; the run began with images of characters" in error
    assert "--picture-kind that it began with" in hint
    assert run.main(argv) == 0


def test_numbers_of_folders_are_the_classes_of_a_data_set_that_has_words(tmp_path, capsys):
    images, labels = digits(300)
    images = images.transpose(0, 2, 1)
    words = np.array(data.CLASS_NAMES["kmnist"])
    for split, part in (("train", slice(0, 240)), ("test", slice(240, None))):
        write_pictures(tmp_path / "words" / split, images[part], words[labels[part]])
        write_pictures(tmp_path / "numbers" / split, images[part], labels[part])
    workdir = tmp_path / "run"
    trained_on(tmp_path / "words", workdir, "--dataset", "kmnist")
    found = accuracies(workdir, tmp_path / "words", capsys)
    assert accuracies(workdir, tmp_path / "numbers", capsys) == found and found[1] > 0.3
    capsys.readouterr()
    assert predict.main([str(workdir), str(tmp_path / "numbers" / "test")]) == 0
    assert f"Accuracy: {found[1]:.4f}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("folder", "class_names", "wanted"),
    [
        ("7", data.CLASS_NAMES["mnist"], "7"),
        ("07", data.CLASS_NAMES["mnist"], "7"),
        ("07", ("05", "07"), "07"),
        ("1", data.CLASS_NAMES["fashion_mnist"], "Trouser"),
        ("10", data.CLASS_NAMES["fashion_mnist"], None),
        ("1", ("cat", "dog"), None),  # which may be in any order
        ("1", data.CLASS_NAMES["emnist/letters"], None),  # A, there
        ("n01440764", ("tench", "cassette player"), "tench"),
        ("cat", ("dog", "horse"), None),
    ],
)
def test_the_class_that_a_folders_name_tells(folder, class_names, wanted):
    assert class_of(folder, class_names) == wanted


def test_scans_in_numbered_folders_from_run_to_predict(tmp_path, capsys):
    for split, n, seed in (("train", 200, 0), ("test", 50, 1)):
        write_pictures(tmp_path / "data" / split, *scans(n, seed=seed))
    flags = ["--picture-kind", "photographs"]
    workdir = trained_on(tmp_path / "data", tmp_path / "run", *flags)
    assert "photographs of 40 x 40 in grey" in capsys.readouterr().out
    about = json.loads((workdir / "dataset.json").read_text())
    assert about["image_shape"] == [40, 40, 1] and not about["characters"]
    # Of another size, which the networks' own size is made of.
    write_pictures(tmp_path / "others" / "train", *scans(50, 60, seed=2))
    write_pictures(tmp_path / "others" / "test", *scans(50, 60, seed=3))
    evaluated, predicted = accuracies(workdir, tmp_path / "others", capsys)
    assert evaluated == pytest.approx(predicted) and predicted > 0.8
    assert run.main(["--resume", str(workdir), "--epochs", "4"]) == 0


def test_what_is_dark_on_light_is_to_predict_what_it_was_in_training(tmp_path, capsys):
    images, labels = digits(300)
    for split, part in (("train", slice(0, 240)), ("test", slice(240, None))):
        names = np.array(["odd", "even"])[labels[part] % 2]
        write_pictures(tmp_path / "data" / split, 255 - images[part], names)
    workdir = trained_on(tmp_path / "data", tmp_path / "run")
    evaluated, predicted = accuracies(workdir, tmp_path / "data", capsys)
    assert evaluated == pytest.approx(predicted) and predicted > 0.5


def test_networks_of_digits_find_them_on_coloured_pictures(tmp_path, capsys):
    """`evaluate` looks for them as `predict` does."""
    write_pictures(tmp_path / "data", *digits(2000))
    workdir = trained_on(tmp_path / "data", tmp_path / "run")
    for split, skip in (("train", 2000), ("test", 2060)):
        folder = tmp_path / "numbers" / split
        write_pictures(folder, *coloured_digits(60, skip), mode="RGB")
    evaluated, predicted = accuracies(workdir, tmp_path / "numbers", capsys)
    assert evaluated == pytest.approx(predicted) and predicted > 0.7


@pytest.mark.parametrize("flags", [[], ["--picture-kind", "photographs"]])
def test_networks_of_things_of_28_x_28_take_any_size(tmp_path, capsys, flags):
    """Also as a bundle, which has no folder any more."""
    for split, n, seed in (("train", 200, 0), ("test", 50, 1)):
        for folder, side in (("data", 28), ("large", 112)):
            images, labels = scans(n, side, seed)
            write_pictures(tmp_path / folder / split, images, WORDS[labels])
    workdir = trained_on(tmp_path / "data", tmp_path / "run", *flags)
    evaluated, predicted = accuracies(workdir, tmp_path / "large", capsys)
    assert evaluated == pytest.approx(predicted) and predicted > 0.5
    assert bundle.main([str(workdir), "--output", str(tmp_path / "bundle")]) == 0
    again, bundled = accuracies(tmp_path / "bundle", tmp_path / "large", capsys)
    assert again == evaluated and bundled == predicted
    if flags:
        with pytest.raises(SystemExit, match="2"):
            evaluate.main([str(tmp_path / "bundle")])
        error, hint = capsys.readouterr().err.splitlines()[-2:]
        assert "was trained on pictures in folders, and does not say where" in error
        assert "--data-dir" in hint


@pytest.mark.parametrize("kind", ["photographs", "characters"])
def test_it_is_for_pictures_in_folders(tmp_path, monkeypatch, capsys, kind):
    images, labels = digits(40)
    np.savez(tmp_path / "a.npz", x_train=images, y_train=labels)
    said = [["--data-dir", str(tmp_path / "a.npz")], ["--dataset", "mnist5k"], []]
    monkeypatch.delenv("MNIST_JAX_DATA", raising=False)
    for flags in said:
        with pytest.raises(SystemExit, match="2"):
            run.main(["--picture-kind", kind, *flags])
        *_, error, hint = capsys.readouterr().err.splitlines()
        assert "--picture-kind) is for pictures in folders, and" in error and hint
    with pytest.raises(data.NoPictures):
        data.load_test(tmp_path / "a.npz", picture_kind=kind)
    with pytest.raises(ValueError, match="picture_kind is for networks of images"):
        Config(network="sentence", picture_kind=kind)
    write_pictures(tmp_path / "digits", images, labels)
    monkeypatch.setenv("MNIST_JAX_DATA", str(tmp_path / "digits"))
    assert len(data.load("mnist", picture_kind=kind).train.labels) == 29


def test_a_thing_taken_for_a_character_says_how_to_say_so(tmp_path):
    images, labels = scans(40)
    images[7] = np.full((40, 40), 128, np.uint8)
    write_pictures(tmp_path, images, labels)
    with pytest.raises(DataError, match=r"2.0007\.png: image is blank.*--picture-kind\) photogra"):
        data.load("auto", tmp_path)
    assert len(data.load_test(tmp_path, picture_kind="photographs").labels) == 40
