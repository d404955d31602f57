"""The Colab notebook runs from top to bottom, and is committed without outputs."""

from pathlib import Path

import nbclient
import nbformat
import pytest

from tests.test_data import write_digits

NOTEBOOK = Path(__file__).parent.parent / "experiments" / "notebooks" / "colab.ipynb"


def test_it_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("MNIST_JAX_DATA", str(write_digits(tmp_path, 300, 100)))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    (parameters,) = (c for c in notebook.cells if "parameters" in c.metadata.get("tags", []))
    parameters.source = 'DATASET, EPOCHS, MEMBERS = "mnist", 1, 2'
    nbclient.NotebookClient(notebook, timeout=1200, kernel_name="python3").execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
    text = "".join(output.get("text", "") for output in outputs)
    assert "test accuracy" in text and "ensemble" in text and "votes" in text


def test_it_has_no_outputs():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)


def test_it_finds_the_clone_it_lies_in_and_else_asks_for_an_address(monkeypatch):
    """In the notebook's folder it installs the clone; elsewhere nothing is guessed."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    source = next(cell.source for cell in notebook.cells if cell.cell_type == "code")
    source = source.replace("%pip install -q {SOURCE}", "installed.append(SOURCE)")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    installed: list[str] = []
    monkeypatch.chdir(NOTEBOOK.parent)
    exec(source, {"installed": installed})
    monkeypatch.chdir("/")
    with pytest.raises(SystemExit, match="put its address into SOURCE"):
        exec(source, {"installed": installed})
    exec(source.replace('SOURCE = ""', 'SOURCE = "git+https://x"'), {"installed": installed})
    assert installed == [str(NOTEBOOK.parents[2]), "git+https://x"]
