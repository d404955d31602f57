"""`python -m experiments.predict`, as a user meets it."""

import dataclasses
import io
import json
import types

import numpy as np
import pytest
from PIL import Image

from experiments import predict
from experiments.console import cli
from experiments.workdir import records, stacks
from experiments.workdir.config import Config
from experiments.workdir.records import TrainedOn
from mnist_jax import data, loop, parallel
from mnist_jax.checkpoints import Checkpoints
from tests import scenes
from tests.samples import idx


@pytest.fixture(autouse=True)
def this_process(monkeypatch):
    """The tests have started JAX already, and keep no cache of compiled programs."""
    monkeypatch.setattr(parallel, "use_cpu_cores", lambda: None)
    monkeypatch.setattr(cli, "use_compilation_cache", lambda: None)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """Two members that know most digits: `fast` for three epochs of 1,000 images."""
    folder = tmp_path_factory.mktemp("fast")
    config = Config(network="fast", members=2, dataset="mnist5k", learning_rate=0.003)
    about = TrainedOn(config.class_names, characters=True)
    (stack,) = stacks.create(config, None, about).values()
    images, labels = data.load("mnist5k").train
    optimizer = stacks.make_optimizer(config, total_steps=60)
    state = parallel.init(stack.layout, stack.network, optimizer, stack.seeds)
    arrays = stack.layout, stack.network, optimizer, state, stack.seeds, images, labels
    *_, last = loop.train(*arrays, batch_size=100, epochs=2)
    with Checkpoints(folder / "checkpoints") as checkpoints:
        checkpoints.save(1, {"fast": parallel.gather(stack.layout, last.state)}, {})
    records.write_json(folder / "config.json", dataclasses.asdict(config))
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of ten PNGs, 7.png of a seven, dark on light, 120 pixels wide."""
    folder = tmp_path_factory.mktemp("pictures")
    images, labels = data.load("mnist5k").test
    for label in range(10):
        digit = images[np.flatnonzero(labels == label)[3], ..., 0]
        Image.fromarray(255 - digit).resize((120, 120)).save(folder / f"{label}.png")
    (folder / "notes.txt").write_text("no picture")
    return folder


def rows(capsys, *argv):
    code = predict.main([*map(str, argv), "--json"])
    out, err = capsys.readouterr()
    return code, [json.loads(line) for line in out.splitlines()], err


def test_a_folder_of_pictures(workdir, pictures, capsys):
    code, found, _ = rows(capsys, workdir, pictures)
    assert code == 0
    assert [row["image"] for row in found] == [str(pictures / f"{i}.png") for i in range(10)]
    assert sum(row["class"] == str(i) for i, row in enumerate(found)) >= 9
    for row in found:
        assert len(row["votes"]) == 2 and 0.1 <= row["probability"] <= 1
        assert 0 <= row["mutual_information"] <= row["entropy"] + 1e-5 <= np.log(10) + 1e-4


def test_an_idx_file_is_read_as_it_is(workdir, tmp_path, capsys):
    images, labels = data.load("mnist5k").test
    (tmp_path / "digits").write_bytes(idx(images[:40, ..., 0]))
    code, found, _ = rows(capsys, workdir, tmp_path / "digits")
    assert code == 0 and found[39]["image"].endswith("digits[39]")
    right = [row["class"] == str(label) for row, label in zip(found, labels[:40], strict=True)]
    assert np.mean(right) > 0.8


def test_standard_input(workdir, pictures, capsys, monkeypatch):
    piped = types.SimpleNamespace(buffer=io.BytesIO((pictures / "7.png").read_bytes()))
    monkeypatch.setattr("sys.stdin", piped)
    _, (alone,), _ = rows(capsys, workdir, pictures / "7.png")
    _, (row,), _ = rows(capsys, workdir, "-")
    assert row == alone | {"image": "-"}


def test_the_table(workdir, pictures, capsys):
    assert predict.main([str(workdir), str(pictures / "7.png"), str(pictures / "1.png")]) == 0
    head, seven, one, found, unknown = capsys.readouterr().out.splitlines()
    assert all(word in head for word in ("probability", "entropy", "mutual information", "votes"))
    assert seven.split()[0].endswith("7.png") and "2 for" in one
    assert found.startswith("2 digits on 2 pictures") and "without validation images" in unknown


def test_a_third_of_a_picture_being_unsure_all_of_it_is():
    """Logits say which digit is sure: all but 1 of 3, 1 of 4 and the only one."""
    unsure = np.array([True, False, False, True, False, False, False, True])
    logits = np.zeros((1, 8, 10), np.float32)
    logits[0, ~unsure, 5] = 20
    pictures = [types.SimpleNamespace(name="same", label=None) for _ in range(3)]
    shown = [pictures[i] for i in (0, 0, 0, 1, 1, 1, 1, 2)]
    items = [predict.Item(picture, np.zeros((28, 28, 1)), None, 1.0, 1) for picture in shown]
    described = predict._describe(items, logits, "0123456789", 0.1)
    assert [row["unsure"] for row in described] == [True] * 4 + [False] * 3 + [True]


def test_what_cannot_be_read_is_said_and_the_rest_answered(workdir, pictures, tmp_path, capsys):
    png = (pictures / "3.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(png[: len(png) // 2])
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "cut.gz").write_bytes(b"\x1f\x8b\x08")
    Image.new("L", (50, 50)).save(tmp_path / "black.png")
    (tmp_path / "nothing").mkdir()
    (tmp_path / "photo.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    wrong = {
        tmp_path / "cut.png": "",
        tmp_path / "empty.png": "no image",
        tmp_path / "cut.gz": "",
        tmp_path / "black.png": "blank",
        tmp_path / "nothing": "no image files",
        tmp_path / "gone.png": "No such file",
        tmp_path / "photo.heic": "pillow-heif",
        pictures / "notes.txt": "no image",
        "": "is no name of a file",
    }
    code, found, err = rows(capsys, workdir, *wrong, pictures / "3.png")
    assert code == 1 and [row["image"] for row in found] == [str(pictures / "3.png")]
    lines = err.splitlines()
    assert len(lines) == len(wrong) + 2 and lines[-2] == "1 digit on 1 picture"
    for line, (path, message) in zip(lines, wrong.items(), strict=False):
        assert line.startswith(f"error: {path or repr('')}: ") and message in line


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["gone", "7.png"], "gone"),
        ([], "IMAGE"),
        (["gone", "7.png", "--jsn"], "Did you mean --json?"),
        (["gone", "-", "7.png", "-"], "once"),
    ],
)
def test_wrong_calls(argv, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        predict.main(argv)
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 2


def test_networks_of_other_things_take_28_by_28_alone(workdir, pictures, tmp_path, capsys):
    config = dataclasses.replace(records.read_config(workdir), dataset="fashion_mnist")
    (tmp_path / "checkpoints").symlink_to(workdir / "checkpoints")
    records.write_json(tmp_path / "config.json", dataclasses.asdict(config))
    Image.fromarray(data.load("mnist5k").test.inputs[0, ..., 0]).save(tmp_path / "small.png")
    code, (row,), err = rows(capsys, tmp_path, pictures / "3.png", tmp_path / "small.png")
    assert code == 1 and "must be 28 x 28" in err
    assert row["class"] in config.class_names


def test_several_digits_are_a_row_each_with_their_boxes(workdir, tmp_path, capsys):
    images, labels = data.load("mnist5k").test
    chosen = [int(np.flatnonzero(labels == label)[3]) for label in (7, 0, 3)]
    scene = scenes.row([images[i, ..., 0] for i in chosen])
    Image.fromarray(scene.picture).save(tmp_path / "703.png")
    code, found, err = rows(capsys, workdir, tmp_path / "703.png")
    assert code == 0 and [row["digits"] for row in found] == [3, 3, 3]
    assert "3 digits on 1 picture" in err
    for row, box in zip(found, scene.boxes, strict=True):
        assert np.abs(np.subtract(row["box"], box)).max() < 6 and 0 < row["found"] <= 1
    predict.main([str(workdir), str(tmp_path / "703.png")])
    head, *table = capsys.readouterr().out.splitlines()
    assert "box" in head and ", ".join(map(str, found[0]["box"])) in table[0]


def test_the_first_frame_that_shows_something(workdir, pictures, tmp_path, capsys):
    seven = Image.open(pictures / "7.png").convert("L")
    frames = [Image.new("L", seven.size, 255), seven, Image.new("L", seven.size, 255)]
    for name in ("moving.gif", "pages.tif"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        _, (alone,), _ = rows(capsys, workdir, pictures / "7.png")
        code, (row,), err = rows(capsys, workdir, tmp_path / name)
        assert code == 0 and row["class"] == alone["class"]
        assert "frame 2 of 3" in err


def test_a_folder_with_a_folder_a_class_tells_the_accuracy(workdir, pictures, tmp_path, capsys):
    for label in range(3):
        (tmp_path / str(label)).mkdir()
        (tmp_path / str(label) / "one.png").write_bytes((pictures / f"{label}.png").read_bytes())
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "__MACOSX" / "._one.png").write_bytes(b"no picture")
    code, found, err = rows(capsys, workdir, tmp_path)
    assert code == 0 and [row["label"] for row in found] == ["0", "1", "2"]
    right = sum(row["class"] == row["label"] for row in found)
    assert f"Accuracy: {right / 3:.4f} ({right} of 3 pictures)" in err
    (tmp_path / "2").rename(tmp_path / "holiday")
    assert "Accuracy" not in rows(capsys, workdir, tmp_path)[2]


def test_what_is_more_uncertain_than_right_answers_are_is_marked(
    workdir, pictures, tmp_path, capsys
):
    for name in ("checkpoints", "config.json"):
        (tmp_path / name).symlink_to(workdir / name)
    (tmp_path / "results.json").write_text(json.dumps({"unsure": {"entropy": 0.2}}))
    _, found, _ = rows(capsys, tmp_path, pictures)
    assert [row["unsure"] for row in found] == [row["entropy"] > 0.2 for row in found]
    (tmp_path / "results.json").write_text(json.dumps({"unsure": {"entropy": 0.0}}))
    _, found, err = rows(capsys, tmp_path, pictures / "7.png")
    assert found[0]["unsure"] and "1 unsure" in err
