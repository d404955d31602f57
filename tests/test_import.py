"""`python -m experiments.import`, as a user meets it."""

import dataclasses
import json
from importlib import import_module

import jax
import numpy as np
import pytest
from PIL import Image

from experiments import evaluate, export
from experiments.console import cli
from experiments.workdir import records, trained
from experiments.workdir.config import Config
from mnist_jax import data, parallel
from tests.test_data import write_digits
from tests.test_evaluate import workdir_of
from tests.test_export import recipe

pytest.importorskip("safetensors")
torch = pytest.importorskip("torch")
nn = torch.nn

import_ = import_module("experiments.import")  # whose name is a word of Python's

CONFIG = Config(members="simple:1,fast:2", seed=3, dataset="mnist", ema=0.9, epochs=2)


@pytest.fixture(autouse=True)
def this_process(monkeypatch):
    """The tests have started JAX already, and keep no cache of compiled programs."""
    monkeypatch.setattr(parallel, "use_cpu_cores", lambda: None)
    monkeypatch.setattr(cli, "use_compilation_cache", lambda: None)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (5, 28, 28, 1)).astype(np.uint8)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    folder = workdir_of(tmp_path_factory.mktemp("mixed"), CONFIG, {"fingerprint": "of some data"})
    records.write_json(folder / "results.json", {"unsure": {"entropy": 0.5}})
    return folder


def export_to(workdir, path, *more):
    assert export.main([f"{workdir}", "--to", "safetensors", "--output", f"{path}", *more]) == 0
    return path


def import_into(folder, *files):
    return import_.main([*map(str, files), "--workdir", str(folder)])


def assert_same(members, others):
    """That they have the same weights to the bit, under the same names."""
    assert [member.network_name for member in members] == [one.network_name for one in others]
    for member, other in zip(members, others, strict=True):
        jax.tree.map(
            lambda a, b: np.testing.assert_array_equal(a, b, strict=True),
            dict(member.variables),
            dict(other.variables),
        )


def test_there_and_back_to_the_bit(mixed, images, tmp_path, capsys):
    """All members: the averages that predict, config, data and what is unsure."""
    assert import_into(tmp_path / "back", export_to(mixed, tmp_path / "a")) == 0
    assert "1 x simple, 2 x fast, 10 classes" in capsys.readouterr().out
    there, back = trained.load(mixed), trained.load(tmp_path / "back")
    assert_same(there.members, back.members)
    assert back.config == CONFIG and back.fingerprint == "of some data"
    assert back.trained_on == there.trained_on
    assert records.read_threshold(tmp_path / "back") == 0.5
    np.testing.assert_array_equal(there.predict(images), back.predict(images))
    again = export_to(tmp_path / "back", tmp_path / "b")
    assert _metadata(again) == _metadata(tmp_path / "a")


def test_members_come_back_one_by_one(mixed, tmp_path):
    """The second network alone; and two files as one ensemble, networks side by side."""
    second = export_to(mixed, tmp_path / "second", "--member", "1")
    first = export_to(mixed, tmp_path / "first", "--member", "0")
    third = export_to(mixed, tmp_path / "third", "--member", "2")
    members = trained.load(mixed).members
    assert import_into(tmp_path / "one", second) == 0
    one = trained.load(tmp_path / "one")
    assert_same(one.members, members[1:2])
    assert one.members[0].name == "fast 4" and not (tmp_path / "one" / "results.json").exists()
    assert import_into(tmp_path / "all", first, third, second) == 0
    assert_same(trained.load(tmp_path / "all").members, [members[i] for i in (0, 2, 1)])


def test_a_snapshot_and_a_fold_become_members(tmp_path):
    """Neither is a run of its own; what tested a fold's member trained others."""
    config = Config(network="fast", dataset="mnist", folds=3, epochs=1)
    folder = workdir_of(tmp_path / "folds", config, {"fingerprint": "of some data"})
    path = export_to(folder, tmp_path / "fold", "--member", "2")
    assert import_into(tmp_path / "one", path) == 0
    loaded = trained.load(tmp_path / "one")
    assert loaded.config.folds == 1 and loaded.members[0].seed == 2
    assert loaded.fingerprint != "of some data"
    assert_same(loaded.members, trained.load(folder).members[2:])


def test_batch_statistics_come_back(tmp_path):
    config = Config(network="resnet20", dataset="cifar10", ema=0.5)
    folder = workdir_of(tmp_path / "there", config)
    assert import_into(tmp_path / "back", export_to(folder, tmp_path / "a")) == 0
    there, back = trained.load(folder).members, trained.load(tmp_path / "back").members
    assert "batch_stats" in there[0].variables
    assert_same(there, back)


def test_sentences_come_back(tmp_path):
    config = Config(network="sentence", dataset="opinions", network_options="width=4,maps=3")
    about = records.TrainedOn(("no", "yes"), False, (9,), vocabulary=("", "ä", "b"), cased=True)
    folder = workdir_of(tmp_path / "there", config, about=about)
    assert import_into(tmp_path / "back", export_to(folder, tmp_path / "a")) == 0
    there, back = trained.load(folder), trained.load(tmp_path / "back")
    assert_same(there.members, back.members)
    assert back.trained_on == there.trained_on and back.trained_on.vocabulary == ("", "ä", "b")


def test_evaluate_takes_it(tmp_path):
    (tmp_path / "digits").mkdir()
    digits = write_digits(tmp_path / "digits", 100, 60)
    config = Config(network="fast", dataset="mnist", data_dir=str(digits), validation=40)
    fingerprint = data.fingerprint(data.load("mnist", str(digits), validation=40))
    folder = workdir_of(tmp_path / "there", config, {"fingerprint": fingerprint})
    assert import_into(tmp_path / "back", export_to(folder, tmp_path / "a")) == 0
    results = []
    for workdir in (folder, tmp_path / "back"):
        assert evaluate.main([str(workdir)]) == 0
        results.append(json.loads((workdir / "evaluation.json").read_text())["members"])
    assert results[0] == results[1]


def conv(*args, **options):
    return nn.Conv2d(*args, **options), nn.MaxPool2d(2, ceil_mode=True), nn.ReLU()


PADDED = {"kernel_size": 3, "padding": 1}


def lab(name, classes=10):
    """A lab's network as PyTorch has it, with drawn weights."""
    torch.manual_seed(0)
    without = {**PADDED, "bias": False}
    two = (*conv(1, 32, **without), *conv(32, 64, **without))
    biased = (*conv(1, 32, **PADDED), *conv(32, 64, **PADDED), *conv(64, 128, **PADDED))
    layers = {
        "simple": (*two, nn.Flatten(), nn.Linear(3136, classes)),
        "deep": (
            *(*two, *conv(64, 128, **without), nn.Flatten()),
            *(nn.Linear(2048, 625), nn.ReLU(), nn.Linear(625, 625), nn.ReLU()),
            nn.Linear(625, classes),
        ),
        "layers": (
            *(*biased, nn.Flatten()),
            *(nn.Linear(2048, 2048), nn.ReLU(), nn.Linear(2048, classes)),
        ),
        "fast": (
            *(*conv(1, 24, kernel_size=5), *conv(24, 32, kernel_size=3), nn.Flatten()),
            *(nn.Linear(800, 256), nn.ReLU(), nn.Linear(256, classes)),
        ),
    }
    return nn.Sequential(*layers[name])


@pytest.mark.parametrize("name", ["simple", "deep", "layers", "fast"])
def test_pytorch_s_weights_of_the_labs(name, images, tmp_path):
    network = lab(name)
    torch.save(network.state_dict(), tmp_path / "a.pt")
    assert import_into(tmp_path / "run", tmp_path / "a.pt") == 0
    loaded = trained.load(tmp_path / "run")
    assert loaded.config.network == name and loaded.class_names == tuple("0123456789")
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        wanted = network((pixels - 0.1307) / 0.3081 if name == "fast" else pixels).numpy()
    np.testing.assert_allclose(loaded.predict(images)[0], wanted, rtol=1e-4, atol=1e-4)


def test_deep_to_pytorch_and_back_to_the_bit(images, tmp_path, monkeypatch):
    folder = workdir_of(tmp_path / "there", Config(network="deep", dataset="mnist"))
    monkeypatch.chdir(tmp_path)
    export_to(folder, tmp_path / "deep.safetensors")
    exec(recipe(), {"images": torch.from_numpy(images)})
    assert import_into(tmp_path / "back", tmp_path / "deep.pt") == 0
    assert_same(trained.load(folder).members, trained.load(tmp_path / "back").members)


def test_other_names_wrappers_and_classes(tmp_path):
    """As PyTorch's users keep them; several files, of several networks."""
    state = lab("fast", 26).state_dict()
    renamed = {f"module.layer.{name}": value.double() for name, value in state.items()}
    torch.save({"epoch": 3, "state_dict": renamed, "optimizer": {}}, tmp_path / "a.pt")
    torch.save(lab("simple", 26).state_dict(), tmp_path / "b.pth")
    torch.save(state, tmp_path / "c.pt")
    files = [tmp_path / name for name in ("a.pt", "b.pth", "c.pt")]
    assert import_into(tmp_path / "run", *files) == 0
    loaded = trained.load(tmp_path / "run")
    assert loaded.config.members == "fast:2,simple:1"
    assert loaded.class_names == tuple(map(str, range(26))) and not loaded.characters
    assert_same(loaded.members[:1], loaded.members[1:2])


def with_bias():
    return nn.Sequential(
        *conv(1, 32, **PADDED), *conv(32, 64, **PADDED), nn.Flatten(), nn.Linear(3136, 10)
    )


class Code:
    """What a pickle may run."""

    def __reduce__(self):
        return (print, ("run",))


NAN = lab("fast").state_dict()
NAN["0.bias"] = torch.full((24,), float("nan"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (nn.Sequential(nn.Linear(784, 10)).state_dict(), "its layers are 10x784, which none of"),
        (with_bias().state_dict(), "those of simple, but 0 has a bias, and simple has none"),
        (nn.Sequential(nn.BatchNorm2d(3)).state_dict(), "as no convolution or dense layer has"),
        ({"epoch": 3}, "'epoch' is no tensor"),
        ({}, "it has no layers"),
        ([1, 2], "holds a list, no state_dict"),
        (NAN, "'0.bias' has NaN"),
        (Code(), "with tensors alone"),
        ({0: torch.zeros(3)}, "its 0 is no tensor"),
        ({"0.weight": torch.zeros(3, 3, device="meta")}, "'0.weight' has no values"),
        ({"0.weight": torch.zeros(3, 3, dtype=torch.complex64)}, "'0.weight' has complex numbers"),
    ],
)
def test_no_lab_s_weights(content, message, tmp_path, capsys):
    torch.save(content, tmp_path / "a.pt")
    capsys.readouterr()
    assert message in fails(capsys, tmp_path / "run", tmp_path / "a.pt")
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


def test_what_is_no_file_of_pytorch_is_not_advised_to_be_run(tmp_path, capsys):
    torch.save(nn.Linear(2, 2), tmp_path / "module.pt")
    (tmp_path / "empty.pt").write_bytes(b"")
    Image.new("L", (9, 9)).save(tmp_path / "picture.png")
    capsys.readouterr()
    for name in ("module.pt", "empty.pt", "picture.png"):
        error = fails(capsys, tmp_path / "run", tmp_path / name)
        assert "with tensors alone" in error and "weights_only" not in error
        assert "\x1b" not in error  # without colours


def test_sparse_weights_are_those_they_say(images, tmp_path):
    state = lab("simple").state_dict()
    for name, content in (
        ("dense", state),
        ("sparse", {k: v.to_sparse() for k, v in state.items()}),
    ):
        torch.save(content, tmp_path / f"{name}.pt")
        assert import_into(tmp_path / name, tmp_path / f"{name}.pt") == 0
    one, other = (trained.load(tmp_path / name).predict(images) for name in ("dense", "sparse"))
    assert np.array_equal(one, other)


def fails(capsys, folder, *files):
    """The two lines that a call ends with."""
    with pytest.raises(SystemExit, match="2"):
        import_into(folder, *files)
    captured = capsys.readouterr()
    assert len(captured.err.splitlines()) == 2, captured.err
    assert captured.err.startswith("error: ") and "run" not in captured.out
    return captured.err


def test_no_safetensors(mixed, tmp_path, capsys):
    from safetensors.numpy import load_file, save_file

    folder = tmp_path / "new"
    assert "cannot be read" in fails(capsys, folder, tmp_path / "gone")
    (tmp_path / "text").write_text("weights")
    assert "no file of torch.save" in fails(capsys, folder, tmp_path / "text")
    whole = export_to(mixed, tmp_path / "whole")
    capsys.readouterr()
    (tmp_path / "half").write_bytes(whole.read_bytes()[:5000])
    assert "is no safetensors file" in fails(capsys, folder, tmp_path / "half")
    tensors = load_file(whole)
    save_file(tensors, tmp_path / "bare")
    assert "is no file of experiments.export" in fails(capsys, folder, tmp_path / "bare")
    metadata = _metadata(whole)
    del tensors["member.1.params.Dense_0.bias"]
    save_file(tensors, tmp_path / "less", metadata)
    assert "has nothing for params.Dense_0.bias" in fails(capsys, folder, tmp_path / "less")
    tensors["member.1.params.Dense_0.bias"] = np.full(256, np.nan, np.float32)
    save_file(tensors, tmp_path / "nan", metadata)
    assert "params.Dense_0.bias has NaN" in fails(capsys, folder, tmp_path / "nan")
    save_file(tensors | {"member.1.params": np.zeros(1)}, tmp_path / "more", metadata)
    assert "is no file of experiments.export" in fails(capsys, folder, tmp_path / "more")
    for changed in ({"members": "[]"}, {"config": '{"members": null}'}, {"data": "[]"}):
        save_file(tensors, tmp_path / "changed", metadata | changed)
        assert "or was changed since" in fails(capsys, folder, tmp_path / "changed")
    assert not folder.exists()


def test_data_of_several_files_are_named(mixed, tmp_path, capsys):
    torch.save(lab("simple").state_dict(), tmp_path / "simple.pt")
    assert (
        import_into(tmp_path / "run", export_to(mixed, tmp_path / "a"), tmp_path / "simple.pt") == 0
    )
    assert "trained on mnist and unknown data" in capsys.readouterr().out


def _metadata(path):
    from safetensors import safe_open

    with safe_open(path, "numpy") as file:
        return file.metadata()


def test_files_that_do_not_belong_together(mixed, tmp_path, capsys):
    other = workdir_of(tmp_path / "other", Config(network="fast", dataset="fashion_mnist"))
    files = export_to(mixed, tmp_path / "a"), export_to(other, tmp_path / "b")
    capsys.readouterr()
    assert "is of other classes" in fails(capsys, tmp_path / "new", *files)
    assert not (tmp_path / "new").exists()


def test_a_workdir_in_use_stays(mixed, tmp_path, capsys):
    path = export_to(mixed, tmp_path / "a")
    before = (mixed / "config.json").read_bytes()
    capsys.readouterr()
    with pytest.raises(SystemExit, match="2"):
        import_into(mixed, path)
    error, hint = capsys.readouterr().err.splitlines()
    assert "exists and is not an empty folder" in error and "--resume" not in hint
    assert (mixed / "config.json").read_bytes() == before
    assert dataclasses.asdict(CONFIG) == json.loads(before)
