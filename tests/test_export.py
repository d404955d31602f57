"""`python -m experiments.export`, as a user meets it."""

import dataclasses
import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments import export
from experiments.console import cli
from experiments.interchange import exporter, files, stablehlo_file
from experiments.workdir import records, trained
from experiments.workdir.config import Config
from mnist_jax import ensemble, parallel
from tests.test_evaluate import workdir_of

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
safetensors_numpy = pytest.importorskip("safetensors.numpy")

TARGETS = tuple(export.TARGETS)
README = Path(export.__file__).parent / "README.md"
CONFIG = Config(members="fast:2,simple:1", seed=5, dataset="mnist", learning_rate=0.002)


@pytest.fixture(autouse=True)
def this_process(monkeypatch):
    """The tests have started JAX already, and keep no cache of compiled programs."""
    monkeypatch.setattr(parallel, "use_cpu_cores", lambda: None)
    monkeypatch.setattr(cli, "use_compilation_cache", lambda: None)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """A workdir of two `fast` and one `simple`."""
    folder = workdir_of(tmp_path_factory.mktemp("mixed"), CONFIG)
    records.write_json(folder / "results.json", {"ensemble": {"test_accuracy": 0.25}})
    return folder


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (5, 28, 28, 1)).astype(np.uint8)


@pytest.fixture(scope="module")
def wanted(mixed, images):
    """The members' probabilities, by the package's own prediction."""
    logits = trained.load(mixed).predict(images)
    return np.asarray(jax.nn.softmax(logits)), np.exp(ensemble.mean_probability(logits))


def above_zero(rng, shape):
    """What variances may be too."""
    return abs(rng.normal(0, 0.2, shape))


def call(workdir, target, output, *more):
    return export.main([str(workdir), "--to", target, "--output", str(output), *more])


def test_onnx(mixed, images, wanted, tmp_path, capsys):
    output = tmp_path / "mixed.onnx"
    assert call(mixed, "onnx", output) == 0
    said = capsys.readouterr().out
    assert "fast 5, fast 6, simple 7" in said and "opset 18" in said and "C++ kernels" in said
    running = onnxruntime.InferenceSession(str(output), providers=["CPUExecutionProvider"])
    (input_,), outputs = running.get_inputs(), running.get_outputs()
    assert (input_.name, input_.type, input_.shape) == ("images", "tensor(uint8)", ["n", 28, 28, 1])
    assert [out.name for out in outputs] == ["probabilities", "member_probabilities"]
    assert [out.shape for out in outputs] == [["n", 10], [3, "n", 10]]
    for n in (5, 1):
        combined, members = running.run(None, {"images": images[:n]})
        np.testing.assert_allclose(members, wanted[0][:, :n], atol=1e-5)
        np.testing.assert_allclose(combined, wanted[1][:n], atol=1e-5)
    kept = running.get_modelmeta().custom_metadata_map
    assert json.loads(kept["classes"]) == list("0123456789")
    assert json.loads(kept["normalisation"]) == {"scale": 1 / 255, "mean": None, "stddev": None}
    assert json.loads(kept["config"])["learning_rate"] == 0.002
    command = json.loads(kept["command"])
    assert command.endswith(
        "--members fast:2,simple:1 --seed 5 --learning-rate 0.002 --dataset mnist"
    )
    assert json.loads(kept["results"]) == {"ensemble": {"test_accuracy": 0.25}}
    assert json.loads(kept["members"])[2] == {"network": "simple", "seed": 7}


def test_one_member(mixed, images, wanted, tmp_path):
    output = tmp_path / "second.onnx"
    assert call(mixed, "onnx", output, "--member", "1") == 0
    running = onnxruntime.InferenceSession(str(output), providers=["CPUExecutionProvider"])
    combined, members = running.run(None, {"images": images})
    assert members.shape == (1, 5, 10)
    np.testing.assert_allclose(members, wanted[0][1:2], atol=1e-5)
    np.testing.assert_allclose(combined, wanted[0][1], atol=1e-5)
    kept = running.get_modelmeta().custom_metadata_map
    assert json.loads(kept["members"]) == [{"network": "fast", "seed": 6}]


_ALONE = """
import sys
import jax, numpy as np
with open(sys.argv[1], "rb") as file:
    model = jax.export.deserialize(bytearray(file.read()))
assert model.platforms == ("cpu", "cuda", "tpu"), model.platforms
custom = [line for line in model.mlir_module().splitlines() if "custom_call" in line]
assert all("@shape_assertion" in line for line in custom), custom
for n in (5, 2):
    combined, members = model.call(np.load(sys.argv[2])[:n])
    np.savez(f"{sys.argv[2]}.{n}.npz", combined=combined, members=members)
assert not {"mnist_jax", "flax", "experiments"} & set(sys.modules)
"""


def test_stablehlo_in_a_process_that_has_only_jax(mixed, images, wanted, tmp_path, capsys):
    output = tmp_path / "mixed.stablehlo"
    assert call(mixed, "stablehlo", output) == 0
    assert "cpu, cuda, tpu" in (said := capsys.readouterr().out) and "without the C++" in said
    np.save(tmp_path / "images.npy", images)
    command = [sys.executable, "-I", "-c", _ALONE.replace("import jax,", "import jax.export,", 1)]
    subprocess.run([*command, output, tmp_path / "images.npy"], check=True, cwd=tmp_path)
    for n in (5, 2):
        found = np.load(tmp_path / f"images.npy.{n}.npz")
        np.testing.assert_allclose(found["members"], wanted[0][:, :n], atol=1e-5)
        np.testing.assert_allclose(found["combined"], wanted[1][:n], atol=1e-5)
    beside = json.loads((tmp_path / "mixed.stablehlo.json").read_text())
    assert beside["classes"] == list("0123456789") and beside["results"] is not None


def test_safetensors(mixed, tmp_path, capsys):
    output = tmp_path / "mixed.safetensors"
    assert call(mixed, "safetensors", output) == 0
    tensors = safetensors_numpy.load_file(output)
    for i, member in enumerate(trained.load(mixed).members):
        for layer, params in member.variables["params"].items():
            for name, leaf in params.items():
                np.testing.assert_array_equal(
                    tensors.pop(f"member.{i}.params.{layer}.{name}"), leaf, strict=True
                )
    assert not tensors


def recipe():
    """The lines of the README that make PyTorch's `deep` of a safetensors file."""
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    (found,) = [block for block in blocks if "load_file" in block]
    return textwrap.dedent(found)


def test_safetensors_of_deep_in_pytorch_as_the_readme_says(images, tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    folder = workdir_of(tmp_path / "deep", Config(network="deep", dataset="mnist"))
    assert call(folder, "safetensors", tmp_path / "deep.safetensors") == 0
    monkeypatch.chdir(tmp_path)
    known = {"images": torch.from_numpy(images)}
    exec(recipe(), known)
    logits = trained.load(folder).predict(images)[0]
    found = known["probabilities"].detach().numpy()
    np.testing.assert_allclose(found, jax.nn.softmax(logits), atol=1e-5)


def test_batch_statistics_and_normalisation_are_inside(tmp_path):
    """`resnet20` on images whose mean and deviation its workdir knows."""
    config = Config(network="resnet20", dataset="cifar10", normalize="standard")
    folder = tmp_path / "resnet20"
    about = records.TrainedOn(tuple("abcd"), False, (16, 16, 3), (0.5, 0.4, 0.3), (0.2, 0.3, 0.25))
    workdir_of(folder, config, about=about, draw=above_zero)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3)).astype(np.uint8)
    assert call(folder, "onnx", tmp_path / "r.onnx") == 0
    running = onnxruntime.InferenceSession(tmp_path / "r.onnx", providers=["CPUExecutionProvider"])
    found = running.run(["probabilities"], {"images": pixels})[0]
    wanted = jax.nn.softmax(trained.load(folder).predict(pixels)[0])
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    kept = running.get_modelmeta().custom_metadata_map
    assert json.loads(kept["normalisation"])["mean"] == [0.5, 0.4, 0.3]
    assert call(folder, "safetensors", tmp_path / "r.safetensors") == 0
    names = safetensors_numpy.load_file(tmp_path / "r.safetensors").keys()
    assert "member.0.batch_stats.layer1_0.bn1.var" in names


def test_sentences(tmp_path):
    """Any length, also a shorter one than that trained on, and words in the metadata."""
    config = Config(network="sentence", dataset="opinions", network_options="width=8,maps=6")
    words = ("", *["the", "film", "is", "good", "bad"])
    about = records.TrainedOn(("no", "yes"), False, (12,), vocabulary=words)
    folder = tmp_path / "sentence"
    workdir_of(folder, config, about=about, draw=above_zero)
    tokens = np.random.default_rng(0).integers(0, 6, (4, 12)).astype(np.int32)
    assert call(folder, "onnx", tmp_path / "s.onnx") == 0
    running = onnxruntime.InferenceSession(tmp_path / "s.onnx", providers=["CPUExecutionProvider"])
    loaded = trained.load(folder)
    for length in (12, 5):
        found = running.run(["probabilities"], {"tokens": tokens[:, :length]})[0]
        wanted = jax.nn.softmax(loaded.predict(tokens[:, :length])[0])
        np.testing.assert_allclose(found, wanted, atol=1e-5)
    kept = running.get_modelmeta().custom_metadata_map
    assert json.loads(kept["data"])["vocabulary"] == list(words)
    assert call(folder, "stablehlo", tmp_path / "s.stablehlo") == 0
    content = (tmp_path / "s.stablehlo").read_bytes()
    combined, _ = jax.export.deserialize(bytearray(content)).call(tokens[:, :5])
    np.testing.assert_allclose(combined, wanted, atol=1e-5)


@pytest.mark.parametrize("target", TARGETS)
def test_an_output_that_exists_stays(target, mixed, tmp_path, capsys):
    output = tmp_path / "there"
    output.write_text("mine")
    error = fails(capsys, mixed, target, output)
    assert error[0] == f"error: --output {output} exists." and output.read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["there"]


def fails(capsys, *argv):
    """The two lines that a call ends with."""
    with pytest.raises(SystemExit, match="2"):
        call(*argv)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2, lines
    return lines


@pytest.mark.parametrize(
    ("target", "output", "more", "message"),
    [
        ("onxn", "a", (), "Did you mean onnx?"),
        ("xyz", "a", (), "There are onnx, stablehlo, safetensors, html."),
        ("onnx", "a", ("--member", "3"), "--member 3 does not exist."),
        ("onnx", "a", ("--member", "-1"), "--member -1 does not exist."),
        ("onnx", "a", ("--member", "one"), "invalid int value"),
        ("onnx", ".", (), "is a folder"),
        ("onnx", "no/such/a", (), "there is no folder"),
        ("onnx", "a", ("--quantise",), "is no flag"),
    ],
)
def test_wrong_calls(target, output, more, message, mixed, tmp_path, capsys):
    assert message in "\n".join(fails(capsys, mixed, target, tmp_path / output, *more))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("length", [300, 250])  # too long, and too long while it is written
def test_names_that_are_too_long(length, mixed, tmp_path, capsys):
    name = tmp_path / ("a" * length)
    error = "\n".join(fails(capsys, mixed, "safetensors", name))
    assert "cannot be written" in error and "File name too long" in error
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("target", TARGETS)
def test_no_workdir_and_no_checkpoint(target, tmp_path, capsys):
    output = tmp_path / "a"
    assert "is no workdir" in fails(capsys, tmp_path / "gone", target, output)[0]
    folder = tmp_path / "begun"
    (folder / "checkpoints").mkdir(parents=True)
    records.write_json(folder / "config.json", dataclasses.asdict(CONFIG))
    assert "holds no checkpoint" in fails(capsys, folder, target, output)[0]
    assert [path.name for path in tmp_path.iterdir()] == ["begun"]


def test_stablehlo_s_metadata_are_not_written_over(mixed, tmp_path, capsys):
    (tmp_path / "a.json").write_text("mine")
    assert "a.json exists" in fails(capsys, mixed, "stablehlo", tmp_path / "a")[0]
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_networks_that_onnx_cannot_hold(tmp_path, capsys, monkeypatch, mixed):
    config = Config(network="fast", dataset="mnist", precision="bfloat16")
    folder = workdir_of(tmp_path / "half", config)
    error = fails(capsys, folder, "onnx", tmp_path / "a")
    assert error[0].startswith("error: --to onnx cannot hold this network: it computes in bfloat16")
    assert call(folder, "stablehlo", tmp_path / "b") == 0
    for target in ("onnx", "stablehlo"):
        module = exporter.import_module(f"experiments.interchange.{target}_file")
        monkeypatch.setattr(module, "_MOST_BYTES", 1000)
        assert "up to 2 GiB" in fails(capsys, mixed, target, tmp_path / "c")[0]
    assert not (tmp_path / "a").exists() and not (tmp_path / "c").exists()


def test_weights_that_are_nan(tmp_path, capsys):
    config = Config(network="fast", dataset="mnist")
    workdir_of(tmp_path / "nan", config, draw=lambda rng, shape: np.full(shape, np.nan))
    error = fails(capsys, tmp_path / "nan", "safetensors", tmp_path / "a")
    assert "member fast 0 are not finite" in error[0] and not (tmp_path / "a").exists()


def test_a_write_that_fails_leaves_nothing(mixed, tmp_path, capsys, monkeypatch):
    def full(self, content):
        with self.open("wb") as file:
            file.write(content[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(stablehlo_file.Path, "write_bytes", full)
    error = fails(capsys, mixed, "stablehlo", tmp_path / "a")
    assert error[0].endswith("cannot be written: No space left on device.")
    assert not list(tmp_path.iterdir())


def test_ctrl_c_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), files.new_file(tmp_path / "a") as unfinished:
        unfinished.write_text("half")
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_a_package_that_is_missing(mixed, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.delitem(sys.modules, "experiments.interchange.onnx_file", raising=False)
    error = fails(capsys, mixed, "onnx", tmp_path / "a")
    assert "needs the package onnx" in error[0] and "mnist_jax[export]" in error[1]
