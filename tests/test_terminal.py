"""Tables and bars in terminals of any width: no number is cut off."""

import io
import os
import re
import subprocess
import sys

import pytest
from rich.console import Console
from rich.table import Table
from rich.text import Text

from experiments import inspect, predict
from experiments.console import display, terminal
from experiments.console.terminal import bar_line
from experiments.workdir import evaluator

WIDTHS = (40, 60, 80)
SHOW = terminal.show


class Terminal(io.StringIO):
    """What a terminal has been sent."""

    def isatty(self):
        return True


def terminal_of(width):
    return Console(file=Terminal(), width=width, height=50, highlight=False, color_system=None)


def cells(table):
    return [str(cell) for column in table.columns for cell in column.cells]


def shown(table, width):
    out = terminal_of(width)
    SHOW(table, out)
    return re.sub("\x1b\\[[0-9;]*m", "", out.file.getvalue())  # without styles


def scores(accuracy):
    names = ("nll", "brier", "aurc", "ece", "adaptive_ece", "max_calibration_error")
    refusing = {f"accuracy_refusing_{percent}_percent": accuracy for percent in (1, 5, 10)}
    return {"accuracy": accuracy, **refusing} | {name: accuracy / 7 for name in names}


def row(accuracy):
    return {"temperature": 1.0517, "before": scores(accuracy), "after": scores(accuracy - 0.011)}


def spread(value):
    return {"mean": value, "std": 0.0123}


def evaluation_of(members):
    """What `evaluate` finds, with a number of its own in each place."""
    rules = {
        rule: row(0.98765 - i / 997)
        for i, rule in enumerate(("mean_probability", "sum_logits", "majority_vote"))
    }
    sizes = {
        rule: {name: spread(0.97531) for name in ("accuracy", "nll", "brier", "ece")}
        for rule in rules
    }
    areas = {name: {"auroc": 0.91234, "aupr": 0.81234} for name in evaluator._SCORES}
    diversity = {
        "disagreement": 0.01234,
        "error_correlation": 0.4321,
        "uncertainty": {"total": 0.1234, "aleatoric": 0.1123, "epistemic": 0.0111},
    }
    names = [f"layers {i}, epoch 12" for i in range(members)]
    return {
        "dataset": {"name": "fashion_mnist"},
        "test_size": 10000,
        "validation_size": 5000,
        "members": [row(0.9912 - i / 991) | {"name": name} for i, name in enumerate(names)],
        "rules": rules,
        "sizes": [{"size": 3, "subsets": 128, "of": 12345} | sizes],
        "diversity": diversity,
        "mc_dropout": {"passes": 9} | row(0.9876),
        "unfamiliar": {"size": 1234, "share": 0.1, "members": [areas] * members, "ensemble": areas},
        "shifts": {
            "blur": [{"amount": 1.5, "members": [row(0.9)], "rules": rules, "diversity": diversity}]
        },
    }


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("members", [1, 7])
def test_evaluates_tables(members, width):
    tables = list(evaluator.tables(evaluation_of(members)))
    assert len(tables) == (4 if members == 1 else 6)
    for table in tables:
        lines = shown(table, width).splitlines()
        for cell in cells(table):
            assert any(cell in line for line in lines), (cell, lines)
        title = str(table.title).strip()
        assert all(len(line) <= width for line in lines if line != title), lines


@pytest.mark.parametrize("width", WIDTHS)
def test_inspects_table(width, monkeypatch, capsys):
    tables = []
    monkeypatch.setattr(terminal, "show", tables.append)
    inspect.main(["--config", "deep"])
    (table,) = tables
    lines = shown(table, width).splitlines()
    for cell in cells(table):
        assert any(cell in line for line in lines), cell


@pytest.mark.parametrize("width", WIDTHS)
def test_predicts_table(width, monkeypatch):
    tables = []
    monkeypatch.setattr(terminal, "show", tables.append)
    found = {"class": "7", "probability": 0.987654, "entropy": 0.123456, "unsure": True}
    found |= {"mutual_information": 0.012345, "votes": ["7"] * 4 + ["1"] * 3, "digits": 2}
    predict._print_table([found | {"image": "scans/a [red] name.png", "box": (10, 20, 300, 4000)}])
    (table,) = tables
    lines = shown(table, width).splitlines()
    wanted = ["scans/a [red] name.png", "10, 20, 300, 4000", "0.9877", "0.1235", "0.0123"]
    for cell in [*wanted, "4 for 7, 3 for 1", "unsure"]:
        assert any(cell in line for line in lines), (cell, lines)


def test_a_narrow_terminal_gets_lines_of_name_and_value():
    table = Table("", "accuracy\n%", "of", title="7 [b]bold[/b] images")
    table.add_row("deep 0", "99.12", "")
    table.add_row(Text("[deep] 1"), "98.76", "3")
    lines = [line.strip() for line in shown(table, 12).splitlines()]
    assert lines == [
        "7 bold images",
        "deep 0",
        "accuracy % 99.12",
        "[deep] 1",
        "accuracy % 98.76",
        "of 3",
    ]


def test_a_pipe_gets_the_whole_table():
    table = Table(*"abcdefgh")
    table.add_row(*(str(10**20 + i) for i in range(8)))
    out = Console(file=io.StringIO(), width=20)
    terminal.show(table, out)
    assert max(map(len, out.file.getvalue().splitlines())) > 8 * 21


@pytest.mark.parametrize("columns", ["40", "1000", "0", "x", ""])
def test_a_pipe_whose_reader_tells_the_width(columns, monkeypatch):
    table = Table(*"abcdefgh")
    table.add_row(*(str(10**20 + i) for i in range(8)))
    monkeypatch.setenv("COLUMNS", columns)
    out = Console(file=io.StringIO(), soft_wrap=True)
    terminal.show(table, out)
    lines = out.file.getvalue().splitlines()
    assert (max(map(len, lines)) <= 40) == (columns == "40")
    for i in range(8):
        assert any(str(10**20 + i) in line for line in lines)


def longest_line_of_help(name, columns):
    done = subprocess.run(
        [sys.executable, "-m", name, "--help"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"COLUMNS": str(columns)},
    )
    # A line that is indented is an example to be copied; a single long word cannot be broken.
    lines = [line for line in done.stdout.splitlines() if not line.startswith("  python ")]
    return max(len(line) for line in lines if len(line.split()) > 1), done.stdout


@pytest.mark.parametrize(
    "name",
    ["mnist_jax"] + [f"experiments.{name}" for name in ("run", "evaluate", "predict", "inspect")],
)
def test_help_in_a_pipe_whose_reader_tells_the_width(name):
    narrow, text = longest_line_of_help(name, 40)
    assert narrow <= 40, text
    wide, other = longest_line_of_help(name, 100)
    assert 80 < wide <= 100 and other.split()[-5:] == text.split()[-5:]


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_fleeting_line_is_for_terminals_and_goes_away(is_terminal, monkeypatch):
    error = Terminal() if is_terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", error)
    with terminal.fleeting("wait ..."):
        assert error.getvalue() == ("wait ..." if is_terminal else "")
    assert error.getvalue() == (f"wait ...\r{' ' * 8}\r" if is_terminal else "")


TEXTS = ["epoch 12/15", "loss 0.1234", "1:02:03 left", "123,456 images/s"]


@pytest.mark.parametrize("done", [0, 0.5, 1])
@pytest.mark.parametrize("width", [1, 10, 20, 40, 60, 80, 200])
def test_a_bar_has_whole_texts_in_one_line(width, done):
    line = bar_line(done, TEXTS, width).plain
    assert len(line) < width
    parts = [part for part in line.split("  ") if part.strip(" ━")]
    assert [part.strip() for part in parts] == TEXTS[: len(parts)]
    assert len(parts) == {1: 0, 10: 0, 20: 1, 40: 3}.get(width, 4)
    assert ("━" in line) == (done > 0 and width in (20, 80, 200) and width != 20)


def test_a_bar_is_drawn_where_there_is_a_terminal():
    out = terminal_of(40)
    bar = terminal.Bar(out)
    bar.stop()
    assert out.file.getvalue() == ""
    bar.update(0.25, ["25%", "0:03 left"])
    bar.stop()
    assert "25%" in out.file.getvalue() and "0:03 left" in out.file.getvalue()
    pipe = Console(file=io.StringIO())
    other = terminal.Bar(pipe)
    other.update(0.5, ["50%"])
    other.stop()
    assert not other.is_drawn and pipe.file.getvalue() == ""


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "0:00"), (59.6, "1:00"), (7, "0:07"), (3723, "1:02:03")]
)
def test_durations(seconds, words):
    assert display.duration(seconds) == words
