"""`python -m experiments.bundle`, and the networks that come with the package."""

import dataclasses
import io
import json
import shutil
import types
import zipfile

import numpy as np
import pytest
from etils import epath
from PIL import Image

from experiments import bundle, evaluate, export, live, predict, report
from experiments.console import cli
from experiments.workdir import records, stacks, trained
from experiments.workdir.config import Config
from mnist_jax import data, ensemble, loop, parallel, pretrained, weights_file
from mnist_jax.checkpoints import Checkpoints
from mnist_jax.classifier import Classifier
from mnist_jax.weights_file import Content


@pytest.fixture(autouse=True)
def this_process(monkeypatch):
    """The tests have started JAX already, and keep no cache of compiled programs."""
    monkeypatch.setattr(parallel, "use_cpu_cores", lambda *_: None)
    monkeypatch.setattr(cli, "use_compilation_cache", lambda: None)


@pytest.fixture(scope="module")
def digits():
    return data.load("mnist5k")


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, digits):
    """Two members, a few steps of training, and the data's fingerprint."""
    folder = epath.Path(tmp_path_factory.mktemp("trained"))
    config = Config(network="fast", members=2, dataset="mnist5k", seed=3, learning_rate=0.003)
    about = records.trained_on(config, digits)
    (stack,) = stacks.create(config, None, about).values()
    optimizer = stacks.make_optimizer(config, total_steps=20)
    state = parallel.init(stack.layout, stack.network, optimizer, stack.seeds)
    arrays = stack.layout, stack.network, optimizer, state, stack.seeds, *digits.train
    chunk = next(loop.train(*arrays, batch_size=100, epochs=1))
    with Checkpoints(folder / "checkpoints") as checkpoints:
        state = parallel.gather(stack.layout, chunk.state)
        details = {"fingerprint": data.fingerprint(digits), "progress": {"history": []}}
        checkpoints.save(chunk.steps_done, {"fast": state}, details)
    records.write_json(folder / "config.json", dataclasses.asdict(config))
    records.write_dataset(folder, "mnist5k", "/home/somebody/digits", about)
    return folder


@pytest.fixture(scope="module")
def packed_folder(workdir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("packed") / "small"
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr(parallel, "use_cpu_cores", lambda: None)
    monkeypatch.setattr(cli, "use_compilation_cache", lambda: None)
    assert bundle.main([str(workdir), "--output", str(folder)]) == 0
    monkeypatch.undo()
    return folder


def test_the_folder_predicts_what_the_workdir_does(workdir, packed_folder, digits):
    images = digits.test.images[:300]
    whole, half = trained.load(workdir), trained.load(packed_folder)
    assert [m.name for m in half.members] == [m.name for m in whole.members]
    assert (half.step, half.fingerprint) == (whole.step, whole.fingerprint)
    difference = half.predict(images) - whole.predict(images)
    assert 0 < np.abs(difference).max() < 0.02  # half precision has 11 bits
    for member, other in zip(half.members, whole.members, strict=True):
        for name, kernel in member.variables["params"].items():
            rounded = {k: np.float16(v).astype(np.float32) for k, v in kernel.items()}
            expected = other.variables["params"][name]
            for key, value in rounded.items():
                assert np.array_equal(value, np.float16(expected[key]).astype(np.float32))


def test_it_is_the_same_to_the_bit_each_time(workdir, packed_folder, tmp_path):
    assert bundle.main([str(workdir), "--output", str(tmp_path / "again")]) == 0
    names = {path.name for path in packed_folder.iterdir()}
    assert names == set(pretrained.FILES)
    for name in names:
        assert (tmp_path / "again" / name).read_bytes() == (packed_folder / name).read_bytes()


def test_its_figures_are_of_its_own_weights(packed_folder, digits):
    results = json.loads((packed_folder / "results.json").read_text())
    logits = trained.load(packed_folder).predict(digits.test.images).astype(np.float64)
    right = (logits.sum(axis=0).argmax(axis=-1) == digits.test.labels).mean()
    assert results["ensemble"]["test_accuracy"] == pytest.approx(right, abs=1e-6)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    right = (probabilities.mean(axis=0).argmax(axis=-1) == digits.test.labels).mean()
    assert results["mean_probability"]["test_accuracy"] == pytest.approx(right, abs=1e-6)
    assert results["epochs"] == trained.load(packed_folder).step * 100 / 4_000
    card = (packed_folder / "MODEL_CARD.md").read_text()
    assert f"| together | {100 * right:.2f} | " in card and "Not for letters" in card
    accuracies = results["shift_accuracy"]
    assert len(accuracies["rotation"]) == 6 and f"{100 * accuracies['rotation'][5]:.2f}" in card
    assert records.read_threshold(epath.Path(packed_folder)) > 0


def test_it_tells_nothing_of_the_machine(packed_folder):
    texts = [path.read_text() for path in packed_folder.iterdir() if path.suffix != ".npz"]
    assert len(texts) == 4 and not any("somebody" in text for text in texts)
    ours = [(pretrained.FOLDER / name).read_bytes() for name in pretrained.FILES]
    assert not any(b"/work" in text or b"/home" in text for text in ours)


def test_other_commands_take_it(packed_folder, tmp_path, capsys, monkeypatch):
    assert evaluate.main([str(packed_folder)]) == 0
    assert "mean probability" in capsys.readouterr().out
    for name in ("evaluation.json", "predictions.npz"):
        (packed_folder / name).unlink()
    pytest.importorskip("safetensors")
    output = tmp_path / "weights.safetensors"
    assert export.main([str(packed_folder), "--to", "safetensors", "--output", str(output)]) == 0
    assert output.stat().st_size > 2 * 200_000 * 4


def test_a_run_cannot_go_on_from_it(packed_folder, tmp_path, capsys):
    from experiments import run

    copy = shutil.copytree(packed_folder, tmp_path / "copy")
    with pytest.raises(SystemExit) as stop:
        run.main(["--resume", str(copy)])
    assert stop.value.code == 2
    error, hint = capsys.readouterr().err.splitlines()
    assert "weights alone" in error and hint


def fails(capsys, *argv):
    with pytest.raises(SystemExit) as stop:
        bundle.main([str(word) for word in argv])
    assert stop.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    return lines[0]


def test_mistakes_leave_nothing(workdir, tmp_path, capsys):
    output = tmp_path / "output"
    assert "no workdir" in fails(capsys, tmp_path / "none", "--output", output)
    assert "--output" in fails(capsys, workdir)
    assert "--data-dir" in fails(capsys, workdir, "--output", output, "--data-dir", "digits")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("")
    assert "not an empty folder" in fails(capsys, workdir, "--output", tmp_path / "full")
    other = shutil.copytree(workdir, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"snapshots": 3}))
    assert "snapshots" in fails(capsys, other, "--output", output)
    (other / "config.json").write_text(json.dumps(config | {"data_dir": str(tmp_path)}))
    fails(capsys, other, "--output", output)
    assert not output.exists() and not list(tmp_path.glob("*.tmp"))


def test_weights_that_do_not_fit_are_refused(tmp_path):
    path = epath.Path(tmp_path / "weights.npz")
    for bad in (1e6, np.nan):
        variables = {"fast": {"params": {"kernel": np.array([[1.0, bad]], np.float32)}}}
        with pytest.raises(ValueError, match="fast/params/kernel"):
            weights_file.write(path, Content(variables, {}))
    assert not path.exists()


def test_damage_is_found(packed_folder, tmp_path, capsys):
    content = (packed_folder / "weights.npz").read_bytes()
    path = epath.Path(tmp_path / "weights.npz")
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 1
    another = io.BytesIO()
    np.savez(another, x=np.zeros(3))
    for damaged in (content[:1000], b"", bytes(flipped), another.getvalue()):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="damaged, or no weights file"):
            weights_file.read(path)
    folder = shutil.copytree(packed_folder, tmp_path / "folder")
    (folder / "weights.npz").write_bytes(content[:1000])
    Image.new("L", (28, 28)).save(tmp_path / "picture.png")
    with pytest.raises(SystemExit):
        predict.main([str(folder), str(tmp_path / "picture.png")])
    assert "damaged" in capsys.readouterr().err


def test_weights_of_another_network_are_refused(packed_folder, tmp_path):
    folder = shutil.copytree(packed_folder, tmp_path / "folder")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"members": 3}))
    with pytest.raises(ValueError, match="other weights than the networks"):
        trained.load(folder)


def arrays_of(folder):
    with np.load(folder / "weights.npz") as file:
        return dict(file)


def as_npz(arrays):
    content = io.BytesIO()
    np.savez(content, **arrays)
    return content.getvalue()


def as_npy(array):
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


@pytest.mark.parametrize(
    "damage",
    [
        lambda arrays: as_npy(np.zeros(3)),
        lambda arrays: as_npz(arrays | {"details": np.frombuffer(b"[1]", np.uint8)}),
        lambda arrays: as_npz(arrays | {"details": np.frombuffer(b"{}", np.uint8)}),
        lambda arrays: as_npz(arrays | {"fast/params": np.zeros(1, np.float16)}),
        lambda arrays: as_npz(arrays | {"fast/params/Dense_0/bias": np.array(["a"])}),
        lambda arrays: as_npz(arrays | {"fast/params/Dense_0/bias": np.full((2, 10), np.nan)}),
        None,  # a folder of that name
    ],
)
def test_weights_that_are_none_are_said(damage, packed_folder, tmp_path, capsys):
    folder = shutil.copytree(packed_folder, tmp_path / "folder")
    arrays = arrays_of(folder)
    (folder / "weights.npz").unlink()
    if damage is None:
        (folder / "weights.npz").mkdir()
    else:
        (folder / "weights.npz").write_bytes(damage(arrays))
    Image.new("L", (28, 28)).save(tmp_path / "a.png")
    with pytest.raises(SystemExit) as stop:
        predict.main([str(folder), str(tmp_path / "a.png")])
    assert stop.value.code == 2
    error, _ = capsys.readouterr().err.splitlines()
    assert any(f"weights.npz {text}" in error for text in ("is damaged", "cannot be", "has other"))


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        *(("config.json", {"members": value}) for value in (None, 6.0, True, [2])),
        *(("config.json", {name: 5}) for name in ("network_options", "augment", "dataset", "ema")),
        ("config.json", {"epochs": "five"}),
        ("config.json", {"of_a_later_version": 1}),
        *(("dataset.json", {"class_names": value}) for value in (None, "0123456789", [1, 2], [])),
        *(("dataset.json", {"image_shape": value}) for value in ([28], "abc", [0, 0, 1], [28.0])),
        *(("dataset.json", {"mean": value}) for value in ("x", [0.5], ["x"])),
        ("dataset.json", {"characters": "yes"}),
        ("dataset.json", {"vocabulary": ["", "a"]}),
        ("dataset.json", {"words": 2}),
    ],
)
def test_files_that_were_changed_by_hand_are_said(file, changes, packed_folder, tmp_path, capsys):
    folder = shutil.copytree(packed_folder, tmp_path / "folder")
    content = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(content | changes))
    for command, argv in ((predict, ["a.png"]), (evaluate, []), (report, [])):
        with pytest.raises(SystemExit) as stop:
            command.main([str(folder), *argv])
        assert stop.value.code == 2
        error, hint = capsys.readouterr().err.splitlines()
        assert error.startswith("error: ") and hint
        assert "no workdir" in error or "dataset.json is damaged" in error


def test_a_bundle_of_given_vectors(tmp_path, capsys):
    from experiments import run

    rng = np.random.default_rng(0)
    rows = [f"{word} {' '.join(map(str, rng.normal(size=6)))}" for word in ("film", "the", "dull")]
    (tmp_path / "somewhere").mkdir()
    vectors = tmp_path / "somewhere" / "vectors.txt"
    vectors.write_text("\n".join(rows))
    flags = ["--variant", "static", "--vectors", str(vectors), "--epochs", "1"]
    flags += ["--network-options", "maps=4", "--workdir", str(tmp_path / "run")]
    assert run.main(["--config", "sentence", *flags]) == 0
    assert bundle.main([str(tmp_path / "run"), "--output", str(tmp_path / "small")]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith('"A SENTENCE" uses them.')
    assert trained.load(tmp_path / "small").config.vectors == "vectors.txt"
    card = (tmp_path / "small" / "MODEL_CARD.md").read_text()
    assert "somewhere" not in card and "several networks" not in card


def test_a_cross_validated_run_is_refused_and_flags_are_not_taken_for_bundle_s(tmp_path, capsys):
    from experiments import run

    flags = ["--network-options", "maps=4,width=6", "--epochs", "1", "--folds", "2"]
    assert run.main(["--config", "sentence", *flags, "--workdir", str(tmp_path / "run")]) == 0
    capsys.readouterr()
    with pytest.raises(SystemExit, match="2"):
        bundle.main([str(tmp_path / "run"), "--output", str(tmp_path / "small")])
    error, hint = capsys.readouterr().err.splitlines()
    assert "is cross-validated" in error and "experiments.evaluate" in hint
    assert not (tmp_path / "small").exists()


# What comes with the package.


@pytest.fixture(scope="module")
def pictures(tmp_path_factory, digits):
    """Ten PNGs, a digit each, dark on light, 140 pixels wide, in folders called after it."""
    folder = tmp_path_factory.mktemp("pictures")
    for label in range(10):
        digit = digits.test.images[np.flatnonzero(digits.test.labels == label)[1], ..., 0]
        page = Image.new("L", (140, 140), 255)
        page.paste(Image.fromarray(255 - digit).resize((112, 112)), (14, 14))
        (folder / str(label)).mkdir()
        page.save(folder / str(label) / "digit.png")
    return folder


def rows(capsys, *argv):
    code = predict.main([*map(str, argv), "--json"])
    out, err = capsys.readouterr()
    return code, [json.loads(line) for line in out.splitlines()], err


def test_a_picture_needs_no_workdir(pictures, capsys, monkeypatch):
    code, found, err = rows(capsys, pictures)
    assert code == 0 and "that come with mnist_jax" in err and "Accuracy: " in err
    assert sum(row["class"] == row["label"] for row in found) >= 9
    _, two, _ = rows(capsys, pictures / "3" / "digit.png", pictures / "7")
    assert [row["class"] for row in two] == ["3", "7"]
    piped = types.SimpleNamespace(buffer=io.BytesIO((pictures / "7" / "digit.png").read_bytes()))
    monkeypatch.setattr("sys.stdin", piped)
    assert rows(capsys, "-")[1][0]["class"] == "7"
    _, named, _ = rows(capsys, "pretrained", pictures / "3")
    assert named[0]["class"] == "3"


def test_what_is_no_picture_is_taken_for_a_workdir(packed_folder, pictures, tmp_path, capsys):
    one = str(pictures / "1" / "digit.png")
    for argv, message in (
        ([str(tmp_path / "runs"), one], "no workdir"),
        ([str(tmp_path), one], "no workdir"),  # a folder without pictures
        ([str(packed_folder)], "no picture is given"),
        (["pretrained"], "no picture is given"),
    ):
        with pytest.raises(SystemExit) as stop:
            predict.main(argv)
        assert stop.value.code == 2
        lines = capsys.readouterr().err.splitlines()
        assert message in lines[-2]
    code, _, err = rows(capsys, tmp_path / "nothing.png")
    assert code == 1 and "No such file" in err
    code, found, err = rows(capsys, tmp_path / "nothing.png", one)
    assert code == 1 and "nothing.png: cannot be read: No such file" in err
    assert [row["class"] for row in found] == ["1"]


def test_names_that_are_too_long_for_a_file(pictures, capsys):
    one, long = str(pictures / "1" / "digit.png"), "what a lovely film " * 30
    code, found, err = rows(capsys, one, long)
    assert code == 1 and len(found) == 1 and "cannot be read: File name too long" in err
    assert rows(capsys, long)[0] == 1
    with pytest.raises(SystemExit, match="2"):
        predict.main([long, one])
    assert "is no workdir" in capsys.readouterr().err.splitlines()[-2]


def test_the_other_commands_copy_it(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert evaluate.main(["--dataset", "mnist5k"]) == 0
    assert "copied to runs/pretrained" in capsys.readouterr().out
    copy = tmp_path / "runs" / "pretrained"
    assert (copy / "evaluation.json").exists()
    assert not (pretrained.FOLDER / "evaluation.json").exists()
    assert report._parse(["--output", "page.html"]).workdirs == [cli.workdir("pretrained")]
    assert live._parse([]).workdir is None and live._parse(["pretrained"]).workdir is not None


def test_a_folder_of_that_name_stays_as_it_is(packed_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for made in (packed_folder, None):
        shutil.rmtree("runs", ignore_errors=True)
        folder = tmp_path / "runs" / "pretrained"
        if made is None:  # a run that has only begun
            (folder / "checkpoints").mkdir(parents=True)
        else:
            shutil.copytree(made, folder)
        before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
        for command in (evaluate, report):
            with pytest.raises(SystemExit, match="2"):
                command.main([])
            error, hint = capsys.readouterr().err.splitlines()
            assert "runs/pretrained holds something else" in error and "WORKDIR" in hint
        assert before == {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_it_is_never_evaluated_in_its_place(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    link = tmp_path / "link"
    link.symlink_to(pretrained.FOLDER)
    assert cli.writable_workdir(epath.Path(link)) == records.COPY
    assert cli.writable_workdir(epath.Path(pretrained.FOLDER)) == records.COPY  # once more
    with pytest.raises(SystemExit, match="2"):
        report.main(["pretrained", "runs/pretrained"])
    assert "runs/pretrained is given twice" in capsys.readouterr().err


def test_where_nothing_can_be_written_that_is_said(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").write_text("")  # no folder
    with pytest.raises(SystemExit) as stop:
        evaluate.main([])
    assert stop.value.code == 2 and "runs/pretrained cannot be written" in capsys.readouterr().err


def test_the_classifier_is_the_same_networks(digits):
    classifier = Classifier.pretrained()
    images = digits.test.images[:200]
    logits = trained.load(cli.workdir("pretrained")).predict(images)
    mean = np.exp(ensemble.mean_probability(logits))
    assert np.allclose(classifier.predict_proba(images), mean, atol=1e-5)
    assert classifier.score(*digits.test) > 0.98
    assert classifier.predict(images.reshape(200, -1)).dtype == classifier.classes_.dtype
    assert classifier.classes_.tolist() == list(range(10))


def test_it_is_small_and_its_card_true():
    assert sum((pretrained.FOLDER / name).stat().st_size for name in pretrained.FILES) <= 3e6
    assert zipfile.is_zipfile(pretrained.FOLDER / "weights.npz")
    results = json.loads((pretrained.FOLDER / "results.json").read_text())
    card = (pretrained.FOLDER / "MODEL_CARD.md").read_text()
    assert f"| together | {100 * results['mean_probability']['test_accuracy']:.2f} | " in card
    assert results["train_size"] == 55_000 and results["test_size"] == 10_000
