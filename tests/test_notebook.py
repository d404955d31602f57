"""The notebooks run from top to bottom, and are committed without outputs."""

import re
from pathlib import Path

import jax.numpy as jnp
import nbclient
import nbformat
import numpy as np
import pytest

from experiments.show import grids
from mnist_jax.layers import conv2d, max_pool
from tests.test_data import write_digits

FOLDER = Path(__file__).parent.parent / "experiments" / "notebooks"
COLAB, LECTURE = FOLDER / "colab.ipynb", FOLDER / "lecture.ipynb"
PATIENCE = {"timeout": 1200, "startup_timeout": 600}  # seconds for a cell, and for the kernel


def test_the_colab_notebook_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("MNIST_JAX_DATA", str(write_digits(tmp_path, 300, 100)))
    notebook = nbformat.read(COLAB, as_version=4)
    (parameters,) = (c for c in notebook.cells if "parameters" in c.metadata.get("tags", []))
    parameters.source = 'DATASET, EPOCHS, MEMBERS = "mnist", 1, 2'
    nbclient.NotebookClient(notebook, **PATIENCE, kernel_name="python3").execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
    text = "".join(output.get("text", "") for output in outputs)
    assert "test accuracy" in text and "ensemble" in text and "votes" in text


def test_the_lecture_runs(tmp_path, monkeypatch):
    """As it is, outside of the clone, as where the package is installed."""
    monkeypatch.delenv("JAX_DISABLE_MOST_OPTIMIZATIONS", raising=False)  # it trains for longer
    notebook = nbformat.read(LECTURE, as_version=4)
    place = {"metadata": {"path": str(tmp_path)}}
    client = nbclient.NotebookClient(notebook, **PATIENCE, kernel_name="python3", resources=place)
    client.execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 19
    tables = [
        output["data"]["text/html"] for output in outputs if "text/html" in output.get("data", {})
    ]
    assert len(tables) == 4
    text = "".join(output.get("text", "") for output in outputs)
    accuracies = {
        name: float(share)
        for name, share in re.findall(r"^(.+?) +([\d.]+)% of the test digits", text, re.MULTILINE)
    }
    assert all(accuracies[name] > 80 for name in ("simple", "deep", "layers", "ensemble"))
    assert accuracies["plain"] < 20 < 25 < accuracies["with skips"]
    first = {
        name: [float(size) for size in sizes.split()]
        for name, sizes in re.findall(r"^(plain|with skips) +(\S+e-.+)$", text, re.MULTILINE)
    }
    assert first["plain"][-1] < 1e-12 and min(first["with skips"]) > 1e-4
    assert "Label:" in text and "Prediction:" in text
    for total in ("13,378,280", "11,689,512"):  # GoogLeNet's with its heads, ResNet-18's
        assert re.search(f"^total +{total}$", text, re.MULTILINE)
    for total, table in zip(("1,950", "60,000", "62,378,344", "562,560"), tables, strict=True):
        assert re.search(rf"total +{total}\b", re.sub("<[^>]+>", "", table))


def test_the_lecture_asks_for_new_sums_where_a_filter_was_changed():
    cells = [cell.source for cell in nbformat.read(LECTURE, as_version=4).cells]
    (pool,) = (source for source in cells if "def as_images" in source)
    (convolution,) = (source for source in cells if "weights = [[1, 1], [1, 1]]" in source)
    names = {"jnp": jnp, "np": np, "grids": grids, "conv2d": conv2d, "max_pool": max_pool}
    exec(pool, names)
    exec(convolution, names)
    np.testing.assert_array_equal(names["outputs"]["VALID"], [[12, 16], [24, 28]])
    np.testing.assert_array_equal(
        names["outputs"]["SAME"], [[12, 16, 9], [24, 28, 15], [15, 17, 9]]
    )
    changed = convolution.replace("weights = [[1, 1], [1, 1]]", "weights = [[1, 2], [1, 1]]")
    with pytest.raises(AssertionError, match="VALID: the output, and by hand"):
        exec(changed, names)


@pytest.mark.parametrize("path", [COLAB, LECTURE])
def test_it_has_no_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)


@pytest.mark.parametrize("path", [COLAB, LECTURE])
def test_it_finds_the_clone_it_lies_in_and_else_asks_for_an_address(path, monkeypatch):
    """In the notebook's folder it installs the clone; elsewhere nothing is guessed."""
    notebook = nbformat.read(path, as_version=4)
    source = next(cell.source for cell in notebook.cells if cell.cell_type == "code")
    source = source.replace("%pip install -q {SOURCE}", "installed.append(SOURCE)")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    installed: list[str] = []
    monkeypatch.chdir(FOLDER)
    exec(source, {"installed": installed})
    monkeypatch.chdir("/")
    with pytest.raises(SystemExit, match="put its address into SOURCE"):
        exec(source, {"installed": installed})
    exec(source.replace('SOURCE = ""', 'SOURCE = "git+https://x"'), {"installed": installed})
    assert installed == [str(FOLDER.parents[1]), "git+https://x"]
