"""Photographs in colour, of any size, through all commands and the estimator."""

import json
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import pytest
from PIL import Image

from experiments import evaluate, predict, report, run
from experiments.console import cli
from experiments.workdir import trained
from mnist_jax import cache, classifier_folder, models, parallel, shifts
from mnist_jax.classifier import Classifier
from mnist_jax.classifier_folder import Fitted
from mnist_jax.data.names import SYNSETS
from mnist_jax.normalization import BatchNorm
from tests.samples import idx, write_idx
from tests.tiny import assert_close

SHAPE = (12, 16, 3)
CLASSES = ("blue sky", "fire", "grass")
_COLOURS = ((60, 110, 220), (220, 80, 40), (60, 170, 60))


@pytest.fixture(autouse=True, scope="module")
def this_process():
    """The tests have started JAX already, and have a cache of compiled programs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parallel, "use_cpu_cores", lambda *_, **__: None)
        for module in (cli, cache):
            patch.setattr(module, "use_compilation_cache", lambda: None)
        yield


def photos(n, seed=0, shape=SHAPE):
    """Noise about each class's colour, and the classes; uint8 `[n, ...]` and `[n]`."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    noise = rng.normal(0, 60, (n, *shape)) + rng.normal(0, 30, (n, 1, shape[1], 1))
    return np.clip(np.array(_COLOURS)[labels][:, None, None] + noise, 0, 255).astype(
        np.uint8
    ), labels


def write(folder, shape=SHAPE, train=60, test=30):
    for split, n, seed in (("train", train, 0), ("test", test, 1)):
        for i, (image, label) in enumerate(zip(*photos(n, seed, shape), strict=True)):
            path = folder / split / CLASSES[label] / f"{i:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp("data") / "places")


FLAGS = ["--epochs", "2", "--batch-size", "7", "--learning-rate", "0.01", "--validation", "12"]


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, folder):
    """Two networks that normalise, with an average of their weights."""
    workdir = tmp_path_factory.mktemp("runs") / "places"
    flags = ["--members", "simple:2,fast:1", "--normalize", "standard", "--ema", "0.8"]
    flags += ["--augment", "crop-flip", "--data-dir", str(folder), "--workdir", str(workdir)]
    assert run.main(["--config", "simple", *flags, *FLAGS]) == 0
    return workdir


def two_lines(command, argv, capsys):
    capsys.readouterr()
    with pytest.raises(SystemExit, match="2"):
        command.main([*map(str, argv)])
    first, second = capsys.readouterr().err.splitlines()[-2:]
    return first, second


def test_a_run_knows_what_it_was_trained_on(workdir, folder):
    written = json.loads((workdir / "dataset.json").read_text())
    assert written["image_shape"] == list(SHAPE) and not written["characters"]
    loaded = trained.load(workdir)
    train = trained.load_dataset(loaded).train.inputs / 255
    np.testing.assert_allclose(loaded.members[2].network.mean, train.mean(axis=(0, 1, 2)))
    np.testing.assert_allclose(loaded.members[0].network.stddev, train.std(axis=(0, 1, 2)))
    results = json.loads((workdir / "results.json").read_text())
    assert results["ensemble"]["test_accuracy"] > 0.9


def test_a_channel_of_one_value_only_is_not_divided_by_0(tmp_path):
    for split, n, seed in (("train", 60, 0), ("test", 30, 1)):
        for i, (image, label) in enumerate(zip(*photos(n, seed), strict=True)):
            image[..., 2] = 51
            path = tmp_path / "data" / split / CLASSES[label] / f"{i:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    flags = ["--normalize", "standard", "--data-dir", str(tmp_path / "data"), *FLAGS]
    assert run.main(["--config", "simple", *flags, "--workdir", str(tmp_path / "run")]) == 0
    written = json.loads((tmp_path / "run" / "dataset.json").read_text())
    assert written["mean"][2] == pytest.approx(0.2) and written["stddev"][2] == 1
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["ensemble"]["test_accuracy"] > 0.8


def test_imagenettes_folders_say_which_class_their_pictures_are_of(tmp_path, capsys):
    for split, n in (("train", 6), ("val", 2)):
        for name in SYNSETS:
            folder = tmp_path / "imagenette2-160" / split / name
            folder.mkdir(parents=True)
            for i in range(n):
                Image.fromarray(photos(1, i)[0][0]).save(folder / f"{i}.png")
    flags = ["--data-dir", str(tmp_path / "imagenette2-160"), *FLAGS]
    assert run.main(["--config", "simple", *flags, "--workdir", str(tmp_path / "run")]) == 0
    val = str(tmp_path / "imagenette2-160" / "val")
    capsys.readouterr()
    assert predict.main([str(tmp_path / "run"), val]) == 0
    assert "Accuracy: " in capsys.readouterr().out
    assert predict.main([str(tmp_path / "run"), "--json", val]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {(Path(row["image"]).parent.name, row["label"]) for row in rows} == set(SYNSETS.items())


def test_pictures_of_any_size_and_kind(workdir, folder, tmp_path, capsys):
    images, _ = photos(3, 2, (120, 200, 3))
    fire = Image.fromarray(images[1])
    fire.save(tmp_path / "large.png")
    fire.convert("L").save(tmp_path / "grey.jpg")
    fire.save(tmp_path / "two.gif", save_all=True, append_images=[fire.rotate(90)])
    (tmp_path / "colours").write_bytes(idx(photos(6, 1)[0]))
    (tmp_path / "notes.txt").write_text("no picture")
    names = ["large.png", "grey.jpg", "two.gif", "colours", "notes.txt"]
    code = predict.main([str(workdir), "--json", *(str(tmp_path / name) for name in names)])
    out, err = capsys.readouterr()
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 1 and "notes.txt: no image that Pillow can read" in err
    assert "two.gif: frame 1 of 2" in err and err.splitlines()[-1].startswith("9 pictures")
    assert len(rows) == 9 and rows[0]["class"] == rows[2]["class"] == "fire"
    assert set(rows[0]) == {
        *("image", "class", "probability", "entropy", "mutual_information", "votes", "unsure")
    }
    loaded = trained.load(workdir)  # those of the right size are taken as they are
    votes = loaded.predict(photos(6, 1)[0]).argmax(axis=2).T
    assert [row["votes"] for row in rows[3:]] == [[CLASSES[i] for i in vote] for vote in votes]
    assert predict.main([str(workdir), str(folder / "test")]) == 0
    accuracy = json.loads((workdir / "results.json").read_text())["ensemble"]["test_accuracy"]
    last = capsys.readouterr().out.splitlines()[-1]
    assert float(last.split()[1]) == pytest.approx(accuracy, abs=0.07)  # another rule combines


def test_evaluation_and_report(workdir, tmp_path, capsys):
    digits = write_idx(tmp_path / "digits", "{split}-{kind}-idx{n}-ubyte", train=10, test=20)
    assert evaluate.main([str(workdir), "--shift", "noise", "--unfamiliar", str(digits)]) == 0
    results = json.loads((workdir / "evaluation.json").read_text())
    loaded = trained.load(workdir)
    images, labels = trained.load_dataset(loaded).test
    right = loaded.predict(shifts.apply("noise", images, 5)).argmax(axis=2) == labels
    members = results["shifts"]["noise"][5]["members"]
    said = [member["before"]["accuracy"] for member in members]
    np.testing.assert_allclose(said, right.mean(axis=1), atol=1e-6)
    assert results["unfamiliar"]["size"] == 20
    assert results["unfamiliar"]["source"].endswith("from 28 x 28 x 1 to 12 x 16 x 3")
    assert report.main([str(workdir)]) == 0
    page = (workdir / "report" / "index.html").read_text()
    assert "grey is zero" in page and "is fire, said fire" in page
    assert (workdir / "report" / "filters_fast.png").exists()
    message, _ = two_lines(evaluate, [workdir, "--mc-dropout", "2"], capsys)
    assert "--mc-dropout needs networks with dropout" in message


def test_going_on(workdir, tmp_path, capsys):
    other = write(tmp_path / "other", (12, 12, 3))
    message, hint = two_lines(
        run, ["--resume", workdir, "--data-dir", other, "--epochs", 3], capsys
    )
    assert "other has images of 12 x 12 x 3; the run began with images of 12 x 16 x 3" in message
    assert "the data that it began with" in hint
    assert run.main(["--resume", str(workdir), "--epochs", "3"]) == 0


def test_evaluation_on_other_images(workdir, tmp_path, capsys):
    other = write(tmp_path / "other", (12, 12, 3))
    message, hint = two_lines(evaluate, [workdir, "--data-dir", other], capsys)
    assert "other has images of 12 x 12 x 3;" in message and "trained on 12 x 16 x 3." in message
    assert "--data-dir" in hint
    (other / "train" / "grass").rename(other / "train" / "meadow")
    (other / "test" / "grass").rename(other / "test" / "meadow")
    message, _ = two_lines(evaluate, [workdir, "--data-dir", other], capsys)
    assert "images of meadow, which are not among the classes blue sky, fire, grass" in message


def test_photographs_are_scaled_to_what_square_ones_were(tmp_path, capsys):
    square = write(tmp_path / "square", (16, 16, 3))
    workdir = tmp_path / "run"
    flags = ["--network", "simple", "--data-dir", str(square), "--workdir", str(workdir), *FLAGS]
    assert run.main([*flags, "--data-parallel", "2"]) == 0  # batches of 7
    larger = write(tmp_path / "larger", (32, 40, 3), train=24, test=12)
    assert evaluate.main([str(workdir), "--data-dir", str(larger)]) == 0
    results = json.loads((workdir / "evaluation.json").read_text())
    assert results["test_size"] == 12
    assert results["rules"]["sum_logits"]["before"]["accuracy"] > 0.8


def test_grey_pictures_are_evaluated_as_predict_takes_them(workdir, folder, tmp_path, capsys):
    """By a network of colour images; all of them grey, which gives images of one channel."""
    for path in folder.rglob("*.png"):
        grey = tmp_path / "grey" / path.relative_to(folder)
        grey.parent.mkdir(parents=True, exist_ok=True)
        Image.open(path).convert("L").save(grey)
    assert evaluate.main([str(workdir), "--data-dir", str(tmp_path / "grey")]) == 0
    results = json.loads((workdir / "evaluation.json").read_text())
    capsys.readouterr()
    assert predict.main([str(workdir), str(tmp_path / "grey" / "test")]) == 0
    accuracy = results["rules"]["mean_probability"]["before"]["accuracy"]
    assert f"Accuracy: {accuracy:.4f} (" in capsys.readouterr().out


def test_other_data_than_those_trained_on_have_their_own_validation_images(
    workdir, folder, tmp_path
):
    """Fewer than the run kept of its own (12), and more."""
    for train, kept in ((9, 0), (30, 3), (60, 6)):
        other = write(tmp_path / f"other{train}", train=train, test=6)
        (other / "train" / "fire" / "001.png").write_bytes(
            (other / "train" / "fire" / "004.png").read_bytes()
        )
        assert evaluate.main([str(workdir), "--data-dir", str(other)]) == 0
        results = json.loads((workdir / "evaluation.json").read_text())
        assert (results["validation_size"], results["test_size"]) == (kept, 6)
    moved = folder.parent / "moved"  # the same data elsewhere
    moved.symlink_to(folder)
    assert evaluate.main([str(workdir), "--data-dir", str(moved)]) == 0
    results = json.loads((workdir / "evaluation.json").read_text())
    assert (results["validation_size"], results["test_size"]) == (12, 30)


def test_names_with_a_line_break_are_a_line(workdir, folder, tmp_path, capsys):
    (tmp_path / "blue sky").mkdir()
    name = "a\nb\x1b[2J\u2028.png"
    picture = tmp_path / "blue sky" / name
    picture.write_bytes((folder / "test" / "fire" / "001.png").read_bytes())
    (tmp_path / "bad\n.png").write_bytes(b"no picture")
    assert predict.main([str(workdir), str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert len(lines) == 4 and r"a\nb\x1b[2J\u2028.png" in lines[1] and "\x1b" not in out
    assert err.splitlines() == [rf"error: {tmp_path}/bad\n.png: no image that Pillow can read."]
    assert predict.main([str(workdir), "--json", str(picture)]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["image"] == str(picture)


def test_networks_that_need_larger_images(folder, tmp_path, capsys):
    flags = ["--network", "alexnet", "--data-dir", folder, "--workdir", tmp_path / "run", *FLAGS]
    message, hint = two_lines(run, flags, capsys)
    assert "at least 67 x 67" in message and "--image-size" in hint
    assert not (tmp_path / "run").exists()


def test_one_picture_a_class(tmp_path, capsys):
    few = write(tmp_path / "few", train=3, test=3)
    flags = ["--network", "simple", "--data-dir", few, "--workdir", tmp_path / "run"]
    message, hint = two_lines(run, flags, capsys)
    assert "batch_size must be from 1 to the 3 training images, not 100" in message
    assert "Add --batch-size 3, or images: a batch of 100 takes 34 of each class" in hint
    assert "blue sky has 1" in hint
    flags[3] = few / "train"  # none for testing
    message, hint = two_lines(run, flags, capsys)
    assert "a class needs at least 5 images, of which one is for testing; blue sky has 1" in message
    assert "train/CLASS and test/CLASS" in hint


# --- the estimator


def simple(**options):
    return Classifier(
        **{"network": "simple", "epochs": 3, "batch_size": 20, "learning_rate": 0.01} | options
    )


@pytest.fixture(scope="module")
def fitted():
    images, labels = photos(60)
    return simple(members=2, augment="crop-flip").fit(images, np.array(CLASSES)[labels])


def test_the_estimator_takes_images_of_any_size(fitted):
    images, labels = photos(30, 1)
    assert fitted.image_shape_ == SHAPE and fitted.n_features_in_ == 12 * 16 * 3
    assert fitted.score(images, np.array(CLASSES)[labels]) > 0.9
    wanted = fitted.predict_logits(images)
    for form in (images.reshape(30, -1), images.tolist()):
        np.testing.assert_array_equal(fitted.predict_logits(form), wanted)
    np.testing.assert_allclose(fitted.predict_logits(np.float32(images / 255)), wanted, atol=1e-4)
    for wrong in (images[:, :, :12], images[..., :1], images.reshape(30, -1)[:, :192]):
        with pytest.raises(ValueError, match=r"\[n, 12, 16, 3\] or \[n, 576\] with n > 0, not"):
            fitted.predict(wrong)


@pytest.mark.parametrize(
    ("channels", "advice"),
    [(4, r": 4 channels; .* transparent, X\[..., :-1\]"), (2, ": 2 channels"), (5, ": 5 channels")],
)
def test_images_of_other_channels_are_refused_with_advice(fitted, channels, advice):
    images = np.full((20, 12, 16, channels), 100, np.uint8)
    with pytest.raises(ValueError, match=rf"not \(20, 12, 16, {channels}\){advice}"):
        fitted.predict(images)
    with pytest.raises(
        ValueError, match=rf"1 or 3 channels\].*, {channels}\): {channels} channels"
    ):
        simple().fit(images, np.arange(20) % 2)


def test_images_whose_channels_come_first_or_are_grey(fitted):
    images, _ = photos(20)
    with pytest.raises(ValueError, match=r"not \(20, 3, 12, 16\): .*X.transpose\(0, 2, 3, 1\)"):
        fitted.predict(images.transpose(0, 3, 1, 2))
    with pytest.raises(ValueError, match=r"X.transpose\(0, 2, 3, 1\)"):
        simple().fit(images.transpose(0, 3, 1, 2), np.arange(20) % 2)
    with pytest.raises(ValueError, match=r"grey, where those fitted were in colour, X.repeat\(3"):
        fitted.predict(images[..., :1])


def test_the_commands_take_what_the_estimator_saves(fitted, folder, tmp_path, capsys):
    fitted.save(tmp_path / "saved")
    images, _ = photos(9, 1)
    again = Classifier.load(tmp_path / "saved")
    assert again.image_shape_ == SHAPE and again.n_features_in_ == 576
    np.testing.assert_array_equal(again.predict_logits(images), fitted.predict_logits(images))
    assert predict.main([str(tmp_path / "saved"), str(folder / "test")]) == 0
    assert "Accuracy: 1.0" in capsys.readouterr().out
    assert evaluate.main([str(tmp_path / "saved"), "--data-dir", str(folder)]) == 0


def test_one_letter_classes_of_colour_images_are_no_characters(tmp_path):
    images, labels = photos(20)
    simple(epochs=1).fit(images, labels).save(tmp_path)
    loaded = trained.load(tmp_path)
    assert loaded.image_shape == SHAPE and not loaded.characters


OPTIONS = {"mean": (0.5, 0.4, 0.3), "stddev": (0.2, 0.2, 0.2), "image_size": 6}


def test_a_network_with_options_comes_back(tmp_path):
    images, labels = photos(20)
    network = models.create("simple", 3, dtype="bfloat16", **OPTIONS)
    kept = simple(network=network, epochs=1).fit(images, labels)
    kept.save(tmp_path)
    again, wanted = Classifier.load(tmp_path), kept.predict_logits(images)
    assert again.network == network
    np.testing.assert_array_equal(again.predict_logits(images), wanted)
    np.testing.assert_array_equal(trained.load(tmp_path).predict(images), wanted)


def test_batch_statistics_come_back(tmp_path):
    network = models.create("resnet20", 3, shortcut="B", **OPTIONS)
    like = jax.eval_shape(network.init, jax.random.key(0), np.zeros((1, *SHAPE), np.float32))
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda x: rng.random((2, *x.shape), np.float32), like)
    arguments = simple(network=network, members=2, ema=0.5).get_params()
    losses = np.zeros((2, 3), np.float32)
    written = Fitted(arguments, np.arange(3), SHAPE, variables, losses, 1, [], None)
    classifier_folder.write(tmp_path / "saved", written)
    again = Classifier.load(tmp_path / "saved")
    assert again.network == network
    assert_close(again.params_, variables["params"], 0, 0)
    assert_close(again.batch_stats_, variables["batch_stats"], 0, 0)
    members = trained.load(tmp_path / "saved").members
    assert [member.network for member in members] == [network] * 2
    for i, member in enumerate(members):
        wanted = jax.tree.map(lambda leaf, i=i: leaf[i], variables)
        assert_close(member.variables, wanted, 0, 0)


class Normed(nn.Module):
    """With batch statistics, as the estimator can use them."""

    axis_name: str | None = None
    axis_index_groups: tuple[tuple[int, ...], ...] | None = None

    @nn.compact
    def __call__(self, images, train=False, weights=None):
        groups = {"axis_name": self.axis_name, "axis_index_groups": self.axis_index_groups}
        normed = BatchNorm(**groups)(images, train, weights)
        return nn.Dense(3)(normed.mean(axis=(1, 2)))


def test_a_network_of_one_s_own_with_batch_statistics():
    images, labels = photos(60)
    made = simple(network=Normed(), epochs=10, learning_rate=0.1).fit(images, labels)
    mean = made.batch_stats_["BatchNorm_0"]["mean"][0]
    np.testing.assert_allclose(mean, images.mean(axis=(0, 1, 2)) / 255, atol=0.05)
    assert made.score(*photos(30, 1)) > 0.9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"network": "alexnet"}, r"67 x 67.*not 12 x 16\. To scale.*create\('alexnet', 3, image_s"),
        (
            {"network": "googlenet"},
            r"googlenet with auxiliary heads.*not 12 x 16\. To scale images",
        ),
        ({"network": models.create("alexnet", 3)}, "alexnet needs images of at least 67 x 67"),
        ({"augment": "handwriting"}, "needs images of 28 x 28 x 1, not 12 x 16 x 3"),
    ],
)
def test_what_cannot_be_fitted(options, message):
    with pytest.raises(ValueError, match=message):
        simple(**options).fit(*photos(20))
