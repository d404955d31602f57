"""The command `tpu`: its arithmetic, its mistakes, and one program compiled for a TPU."""

import importlib.util
import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

from experiments.benchmarks import tpu
from experiments.benchmarks.tpu import Chip

needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="needs libtpu: pip install 'jax[tpu]'"
)


def compiled(flop, byte, argument, temp, output, alias):
    memory = SimpleNamespace(
        argument_size_in_bytes=argument,
        temp_size_in_bytes=temp,
        output_size_in_bytes=output,
        alias_size_in_bytes=alias,
    )
    return SimpleNamespace(
        cost_analysis=lambda: {"flops": flop, "bytes accessed": byte},
        memory_analysis=lambda: memory,
    )


def test_the_arithmetic_by_hand():
    """Three members of 2 GB each lie on a chip of 16 GB, with 1 GB of data and 1 of results."""
    program = compiled(4e12, 1e9, 7e9, 0.5e9, 6.3e9, 6e9)
    layout = SimpleNamespace(slots=3, data=1)
    found = tpu.count(program, layout, Chip(2e12, 1e9, 16e9), 2_000_000_000)
    assert found["gflop"] == 4000 and found["gbyte"] == 1
    assert found["ms"] == pytest.approx(6000) and found["bound"] == "products"
    assert found["mbyte"] == pytest.approx(7800)
    assert found["fitting"] == (16 - 1 - 1.5) // 2.1 == 6
    slow = tpu.count(program, layout, Chip(2e12, 1e8, 16e9), 2_000_000_000)
    assert slow["ms"] == pytest.approx(30_000) and slow["bound"] == "bytes"


def test_the_chips_are_as_published():
    """Per chip: 197 and 918 TFLOP/s of bfloat16, 819 and 1,638 GB/s, 16 and 32 GB."""
    assert tpu.CHIPS["v5e"] == (197e12, 819e9, 16e9)
    assert tpu.CHIPS["v6e"] == (918e12, 1638e9, 32e9)


def test_a_line_under_its_heading():
    row = {
        "network": "layers",
        "task": "predict",
        "topology": "v5e:4x4",
        "members_a_chip": 1,
        "chips_a_member": 16,
        "gflop": 12.345,
        "gbyte": 0.5,
        "mbyte": 1234.5,
        "fitting": 289,
        "ms": 1.0,
        "bound": "bytes",
        "compile_seconds": 99.9,
    }
    text = tpu.line(row)
    assert len(text) == len(tpu.HEADER[1])
    assert text.split()[3:8] == ["1/16", "12.35", "0.500", "1,234", "289"]


@pytest.mark.parametrize(
    ("argv", "message", "hint"),
    [
        (["--networks", "deeep"], "--networks deeep does not exist", "deep"),
        (["--tasks", "training"], "--tasks training does not exist", "train"),
        (["--topologies", "v5e:3x3"], "--topologies v5e:3x3 does not exist", "v5e"),
        (["--members", "0"], "--members must be at least 1, not 0", "--help"),
        (["--topology", "v5e"], "--topology is no flag", "--topologies"),
        (["--output", "/nowhere/tpu.json"], "--output /nowhere/tpu.json", "folder"),
    ],
)
def test_a_mistake_is_two_lines_and_code_2(argv, message, hint, capsys):
    with pytest.raises(SystemExit) as exit_:
        tpu.main(argv)
    error = capsys.readouterr().err
    assert exit_.value.code == 2 and len(error.splitlines()) == 2, error
    assert message in error.splitlines()[0] and hint in error.splitlines()[1]


def test_without_libtpu(monkeypatch, capsys):
    monkeypatch.setattr(tpu.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as exit_:
        tpu.main([])
    error = capsys.readouterr().err.splitlines()
    assert exit_.value.code == 2 and len(error) == 2
    assert error[0].startswith("error: libtpu is not installed") and "jax[tpu]" in error[1]


@pytest.mark.slow
@needs_libtpu
def test_one_network_compiled(tmp_path):
    """Arithmetic that can be counted by hand; in a process of its own, which has no TPU."""
    file = tmp_path / "tpu.json"
    flags = ["--networks", "fast", "--topologies", "v5e:2x2", "--output", str(file)]
    command = [sys.executable, "-m", "experiments.benchmarks.tpu", *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    train, predict = json.loads(file.read_text())["rows"]
    # 24² x 25 x 24 and 10² x 9 x 24 x 32, and dense 800 x 256 and 256 x 10: multiply-adds
    forward = 2 * (24**2 * 25 * 24 + 10**2 * 9 * 24 * 32 + 800 * 256 + 256 * 10)
    first = 2 * 24**2 * 25 * 24  # whose images need no gradient
    assert predict["gflop"] == pytest.approx(1000 * forward / 1e9, rel=0.1)
    assert train["gflop"] == pytest.approx(100 * (3 * forward - first) / 1e9, rel=0.2)
    assert train["members_a_chip"] == train["chips_a_member"] == 1
    assert train["bound"] == predict["bound"] == "bytes" and train["fitting"] > 1000
    assert len(done.stdout.splitlines()) == 7
