"""Positions of Go as a data set, and the commands on them: run, evaluate, predict, report, gtp."""

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments import evaluate, export, gtp, inspect, predict, report, run
from experiments.console import cli
from experiments.show import graph, inspector
from experiments.workdir import trained
from experiments.workdir.config import Config
from mnist_jax import ensemble, models, parallel
from mnist_jax.data import DataError, DataWarning, positions
from mnist_jax.go import planes, player, records, rules, sgf
from mnist_jax.go.gtp import Table, answer, new
from mnist_jax.go.rules import BLACK, WHITE, Position
from tests.test_go import board, random_game


@pytest.fixture(scope="module")
def games(tmp_path_factory) -> Path:
    """30 short games of random moves on 5 x 5."""
    folder = tmp_path_factory.mktemp("games")
    (folder / "games.sgf").write_text("\n".join(as_sgf(random_game(i, 5, 24)) for i in range(30)))
    return folder / "games.sgf"


def as_sgf(game: sgf.Game) -> str:
    letters = "abcdefghi"
    moves = "".join(
        f";{' BW'[color]}[{'' if p is None else letters[p % game.size] + letters[p // game.size]}]"
        for color, p in game.moves
    )
    return f"(;GM[1]SZ[{game.size}]{moves})"


@pytest.fixture(autouse=True)
def this_process(monkeypatch):
    """The tests have started JAX already, and have a cache of compiled programs."""
    monkeypatch.setattr(parallel, "use_cpu_cores", lambda *_: None)
    monkeypatch.setattr(cli, "use_compilation_cache", lambda: None)


@pytest.fixture(scope="module")
def workdir(games, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "policy"
    patch = pytest.MonkeyPatch()
    patch.setattr(parallel, "use_cpu_cores", lambda *_: None)
    patch.setattr(cli, "use_compilation_cache", lambda: None)
    flags = ["--config", "policy", "--network-options", "filters=8", "--members", "2"]
    flags += ["--data-dir", str(games), "--epochs", "1", "--batch-size", "50"]
    assert run.main([*flags, "--workdir", str(folder)]) == 0
    patch.undo()
    return folder


# Data


def test_splits_are_by_game(games):
    dataset = positions.load(data_dir=games)
    everything = sgf.read(games.read_bytes(), "games.sgf")
    lengths = [sum(point is not None for _, point in game.moves) for game in everything]
    assert len(dataset.test.labels) == sum(lengths[::10])
    held = len(dataset.validation.labels)
    assert held in np.cumsum(lengths[1:10]) and held >= sum(lengths) * 9 // 100 - 24
    total = sum(len(s.labels) for s in (dataset.train, dataset.validation, dataset.test))
    assert total == sum(lengths)
    assert dataset.class_names[0] == "A5" and len(dataset.class_names) == 25
    assert dataset.test.inputs.shape[1:] == (5, 5, planes.BYTES)
    first = [point for _, point in everything[0].moves if point is not None]
    np.testing.assert_array_equal(dataset.test.labels[: len(first)], first)
    assert dataset.test_turns[0] == 0 and len(dataset.test_turns) == len(dataset.test.labels)


def test_splits_that_have_names(games, tmp_path):
    lines = games.read_text().splitlines()
    for name, part in {"train": lines[:6], "validation": lines[6:8], "test": lines[8:9]}.items():
        (tmp_path / f"{name}.sgf").write_text("\n".join(part))
    dataset = positions.load(data_dir=tmp_path)
    assert "6 games to train on, 2 for validation; 1 for testing" in dataset.source
    more = positions.load(data_dir=tmp_path, validation=1)
    assert "7 games to train on, 1 for validation" in more.source


def test_planes_are_found_again(games, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(positions, "_LEAST_SECONDS", 0.0)
    made = positions.load(data_dir=games)
    kept = sorted((tmp_path / "mnist_jax" / "positions").iterdir())
    assert len(kept) == 3
    monkeypatch.setattr(positions.records, "positions", None)  # so that making them fails
    again = positions.load(data_dir=games)
    np.testing.assert_array_equal(made.train.inputs, again.train.inputs)
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for path in kept:
        path.write_bytes(b"damaged")
    again = positions.load(data_dir=games)
    np.testing.assert_array_equal(made.train.inputs, again.train.inputs)


def test_bad_games_are_left_out_and_counted(games, tmp_path):
    lines = games.read_text().splitlines()
    bad = ["(;GM[1]SZ[5];B[aa];W[aa])", "(;GM[1]SZ[5]HA[4];W[aa])", "(;GM[1]SZ[5];B[aa]"]
    (tmp_path / "some.sgf").write_text("\n".join([*lines[:5], *bad, *lines[5:]]))
    with pytest.warns(DataWarning, match=r"3 of 33 games are left out; .*some.sgf, game 7: HA\[4"):
        mixed = positions.load(data_dir=tmp_path / "some.sgf")
    clean = positions.load(data_dir=games)
    assert mixed.source.endswith("3 for testing; 3 games left out")
    np.testing.assert_array_equal(mixed.train.inputs, clean.train.inputs)
    np.testing.assert_array_equal(mixed.test.labels, clean.test.labels)
    (tmp_path / "some.sgf").write_text("\n".join(bad))
    with pytest.raises(DataError, match=r"some.sgf, game 2: HA\[4\]"):
        positions.load(data_dir=tmp_path / "some.sgf")


def test_games_that_come_with_the_package():
    dataset = positions.load()
    assert dataset.name == "games9x9" and len(dataset.class_names) == 81
    assert len(dataset.train.labels) > 1000 and len(dataset.test.labels) > 100


def test_wrong_data(games, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="name 'chess' is no data set of games"):
        positions.load("chess")
    with pytest.raises(ValueError, match="data_dir has no use with games9x9"):
        positions.load("games9x9", games)
    with pytest.raises(DataError, match=r"holds no records of games\.\nRead are .sgf files"):
        positions.load(data_dir=tmp_path)
    with pytest.raises(
        DataError, match="boards are of 5 x 5; a network takes one size, this one 9"
    ):
        positions.load(data_dir=games, size=9)
    (tmp_path / "a.sgf").write_text("(;SZ[5];B[aa])(;SZ[9];B[aa])")
    with pytest.raises(DataError, match="boards are of 5 x 5, 9 x 9; a network takes one size"):
        positions.load(data_dir=tmp_path / "a.sgf")
    (tmp_path / "b.sgf").write_text("(;SZ[5];B[aa])")
    with pytest.raises(DataError, match="too few games to train on some and test on others"):
        positions.load(data_dir=tmp_path / "b.sgf")
    with pytest.raises(DataError, match="--validation 5000 keeps too many"):
        positions.load(data_dir=games, validation=5000)
    monkeypatch.setattr(positions.memory, "available", lambda: 1000)
    with pytest.raises(DataError, match=r"planes of \d+ positions take .* GB of memory are free"):
        positions.load(data_dir=games)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"network": "policy", "dataset": "mnist"}, "dataset mnist has no positions, which policy"),
        ({"network": "deep", "dataset": "games9x9"}, "dataset games9x9 has no images, which deep"),
        ({"network": "policy", "augment": "shift"}, "augment shift is not for networks of pos"),
        ({"network": "deep", "augment": "symmetries"}, "augment symmetries is not for networks of"),
        ({"network": "policy", "image_size": 9}, "image_size is for networks of images"),
        ({"network": "policy", "variant": "static"}, "variant is for networks of sentences"),
        ({"members": "policy:2,deep:1"}, "members must all read positions"),
        ({"network": "policy", "folds": 3}, "folds would cut games in two"),
    ],
)
def test_wrong_configs(values, message):
    with pytest.raises(ValueError, match=message):
        Config(**values)


# Commands


def test_run_and_evaluate(workdir, capsys):
    results = json.loads((workdir / "results.json").read_text())
    assert len(results["members"]) == 2 and 0 <= results["ensemble"]["test_accuracy"] <= 1
    assert json.loads((workdir / "dataset.json").read_text())["image_shape"] == [5, 5, 6]
    assert evaluate.main([str(workdir)]) == 0
    text = capsys.readouterr().out
    assert "is among the likeliest 5, %" in text and "moves 1 to 50" in text
    found = json.loads((workdir / "evaluation.json").read_text())
    moves = found["moves"]
    together = found["rules"]["mean_probability"]["before"]["accuracy"]
    assert moves["together"]["accuracy"] == pytest.approx(together)
    assert moves["together"]["top5"] >= moves["together"]["accuracy"]
    (phase,) = moves["phases"]  # the games are shorter than 50 moves
    assert phase["size"] == found["test_size"]
    assert phase["accuracy"] == pytest.approx(together)
    assert moves["symmetries"]["size"] == found["test_size"]
    with pytest.raises(SystemExit) as end:
        evaluate.main([str(workdir), "--shift", "rotation"])
    assert end.value.code == 2 and "reads positions" in capsys.readouterr().err


def test_evaluate_on_other_games(workdir, tmp_path, capsys):
    lines = [as_sgf(random_game(100 + i, 5, 20)) for i in range(12)]
    (tmp_path / "others.sgf").write_text("\n".join(lines))
    assert evaluate.main([str(workdir), "--data-dir", str(tmp_path / "others.sgf")]) == 0
    assert "others: " in capsys.readouterr().out
    assert evaluate.main([str(workdir)]) == 0
    said = capsys.readouterr().out
    assert "evaluation.json is of other positions (others) and will be replaced" in said
    assert not re.search(r"\b(image|class)", said)


def test_too_large_a_batch(games, tmp_path, capsys):
    flags = ["--config", "policy", "--data-dir", str(games), "--batch-size", "100000"]
    with pytest.raises(SystemExit) as end:
        run.main([*flags, "--workdir", str(tmp_path / "run")])
    message, hint = capsys.readouterr().err.strip().splitlines()
    assert end.value.code == 2 and message.endswith("training positions, not 100000.")
    assert re.fullmatch(r"Add --batch-size \d+, or games.", hint)


def test_predict(workdir, games, tmp_path, capsys):
    (tmp_path / "a.sgf").write_text(games.read_text().splitlines()[0])
    game = sgf.read((tmp_path / "a.sgf").read_bytes(), "a")[0]
    number = 1 + next(i for i in range(2, 20) if game.moves[i][1] is not None)
    asked = [str(workdir), str(tmp_path / "a.sgf"), "--move", str(number), "--json"]
    assert predict.main(asked) == 0
    (row,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert {"image", "class", "probability"} <= row.keys() and row["move"] == number
    assert row["played"] == rules.to_vertex(5, game.moves[number - 1][1])
    assert max(row["moves"].values()) == row["probability"] <= 1
    assert row["moves"][row["class"]] == row["probability"]
    before = list(records.replay(game))[number - 1]
    legal = {rules.to_vertex(5, point) for point in rules.legal_moves(before)}
    assert set(row["moves"]) <= legal and len(legal) < 25
    assert predict.main([str(workdir), str(tmp_path / "a.sgf")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert (
        lines[0].endswith(f"move {len(game.moves) + 1}: Black (X)") and lines[1] == "   A B C D E"
    )
    assert predict.main([str(workdir), str(tmp_path / "a.sgf"), "--move", "99"]) == 1
    assert "--move must be from 1 to 25, not 99" in capsys.readouterr().err
    (tmp_path / "games").mkdir()
    (tmp_path / "games" / "c.sgf").write_text("(;sz[5];b[aa];w[bb])")
    assert predict.main([str(workdir), str(tmp_path / "games"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["move"] == 3
    with pytest.raises(SystemExit) as end:
        predict.main([str(workdir), str(tmp_path / "a.sgf"), "--move", "0"])
    assert end.value.code == 2 and "--move must be at least 1" in capsys.readouterr().err
    (tmp_path / "b.sgf").write_text("(;SZ[9];B[aa])")
    assert predict.main([str(workdir), str(tmp_path / "b.sgf"), str(tmp_path / "none.sgf")]) == 1
    errors = capsys.readouterr().err
    assert "a board of 9 x 9, not 5" in errors and "none.sgf cannot be read" in errors


def test_predict_answers_the_other_games(workdir, tmp_path, monkeypatch, capsys):
    """One that is damaged, and one against the rules, in a file and in a folder."""
    good, bad = "(;GM[1]SZ[5];B[aa];W[bb])", "(;GM[1]SZ[5];B[aa];W[zz])"
    content = f"{good}{bad}(;GM[1]SZ[5];B[aa];W[aa])(;GM[1]SZ[9];B[aa]){good}"
    (tmp_path / "games").mkdir()
    (tmp_path / "games" / "A.SGF").write_text(content)
    (tmp_path / "games" / ".hidden.sgf").write_text(bad)
    (tmp_path / "games" / "b.sgf").write_text("no game")
    (tmp_path / "games" / "c.sgf").write_text(good)
    for argument, count in ((tmp_path / "games" / "A.SGF", 2), (tmp_path / "games", 3)):
        assert predict.main([str(workdir), str(argument), "--json"]) == 1
        said = capsys.readouterr()
        rows = list(map(json.loads, said.out.splitlines()))
        assert len(rows) == count and all(row["move"] == 3 for row in rows)
        assert rows[1]["image"].endswith("A.SGF, game 5")
        errors = said.err.splitlines()
        assert all(line.startswith("error: ") for line in errors)
        for part in (
            "game 2, move 2: W[zz]",
            "game 3, move 2: White at A5",
            "game 4: a board of 9",
        ):
            assert sum(part in line for line in errors) == 1
        assert len(errors) == (3 if count == 2 else 4)
    # What is against the rules after the move that is asked for does not matter.
    assert predict.main([str(workdir), str(tmp_path / "games" / "A.SGF"), "--move", "2"]) == 1
    said = capsys.readouterr()
    assert said.out.count("move 2: White (O)") == 3 and "game 3" not in said.err
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content.encode())))
    assert predict.main([str(workdir), "-", "--json"]) == 1
    assert capsys.readouterr().out.count('"image": "-') == 2
    with pytest.raises(SystemExit) as end:
        predict.main([str(workdir), "-", "-"])
    said = capsys.readouterr().err
    assert end.value.code == 2 and "- can be given once" in said and "picture" not in said


def test_report(workdir):
    assert report.main([str(workdir)]) == 0
    page = (workdir / "report" / "index.html").read_text()
    assert "positions" in page and "A board of 5 x 5. Move " in page and "Played was" in page
    assert "images it answers" not in page and "right class" not in page


def test_inspect(capsys):
    assert inspect.main(["--network", "policy", "--json"]) == 0
    (shown,) = json.loads(capsys.readouterr().out)
    assert shown["parameters"] == 3_882_793
    *_, conv12, conv13, points, playable = shown["layers"]
    assert conv13["inputs"] == [conv12["name"]] and points["inputs"] == ["conv13"]
    assert points["output_shape"] == [361] and points["parameters"] == 361
    assert playable["inputs"] == ["points", "planes"] and playable["parameters"] == 0
    assert inspect.main(["--network", "policy", "--classes", "81"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("1 x policy, planes 9 x 9 x 48\n") and "images" not in text
    for flags in (["--images", "9x9x3"], ["--classes", "80"]):
        with pytest.raises(SystemExit) as end:
            inspect.main(["--network", "policy", *flags])
        said = capsys.readouterr().err
        assert end.value.code == 2 and f"{flags[0]}" in said and "--classes 81" in said


def test_inspect_of_a_workdir(workdir, capsys):
    capsys.readouterr()
    assert inspect.main([f"{workdir}", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    loaded = trained.load(workdir)
    assert found["layers"][-1]["output_shape"][-1] == len(loaded.class_names)
    leaves = jax.tree.leaves(loaded.members[0].variables["params"])
    assert found["parameters"] == sum(leaf.size for leaf in leaves)


def test_the_graph_of_the_network():
    layers = inspector.look(models.create("policy", 361), (19, 19, 48), "planes")
    figure = graph.draw("policy", (19, 19, 48), layers, "planes")
    labels = [text.get_text() for text in figure.axes[0].texts]
    boxes = [label.splitlines() for label in labels if label]
    assert boxes[0] == ["planes", "19 x 19 x 48"]
    assert boxes[-2:] == [["conv13 + points", "361"], ["playable", "361"]]
    assert len(boxes) == 1 + 12 + 2


def test_export_to_onnx(workdir, games, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    file = tmp_path / "policy.onnx"
    assert export.main([str(workdir), "--to", "onnx", "--output", str(file)]) == 0
    inputs = positions.load(data_dir=games).test.inputs[:20]
    together, _ = onnxruntime.InferenceSession(file).run(None, {"planes": inputs})
    mean = np.exp(ensemble.mean_probability(trained.load(workdir).predict(inputs)))
    np.testing.assert_allclose(together, mean, atol=1e-5)


# The player


def first_legal(position: Position, after_pass: bool) -> int | None:
    return None if after_pass else rules.legal_moves(position)[0]


def talk(lines: str, table: Table | None = None) -> tuple[list[str], Table]:
    table = table or new("mnist_jax", "1", (9,))
    answers = []
    for line in lines.splitlines():
        text, table = answer(table, line, first_legal)
        answers.append(text)
    return answers, table


def test_gtp_commands():
    answers, table = talk(
        """name
        7 version
        protocol_version # a comment
        known_command genmove
        known_command dance
        boardsize 9
        boardsize 19
        komi 5.5
        play black C3
        play W C3
        8 play white pass
        genmove black
        undo
        undo
        final_score
        dance

        quit"""
    )
    expected = ["= mnist_jax", "=7 1", "= 2", "= true", "= false", "=", "? unacceptable size", "="]
    expected += ["=", "? illegal move", "=8", "= PASS", "=", "=", "= B+75.5", "? unknown command"]
    expected += ["", "="]
    assert [text.lower() for text in answers] == [
        text.lower() + "\n\n" if text else "" for text in expected
    ]
    assert table.has_ended and table.position.stones[rules.from_vertex(9, "C3")] == BLACK


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("play", "? invalid color or coordinate"),
        ("play green C3", "? invalid color or coordinate"),
        ("play black Z3", "? invalid color or coordinate"),
        ("genmove", "? invalid color or coordinate"),
        ("boardsize nine", "? boardsize not an integer"),
        ("komi x", "? komi not a float"),
        ("komi nan", "? komi not a float"),
        ("undo", "? cannot undo"),
        ("fixed_handicap 1", "? invalid number of stones"),
        ("fixed_handicap 10", "? invalid number of stones"),
        ("set_free_handicap A1", "? bad vertex list"),
        ("set_free_handicap A1 A1", "? bad vertex list"),
        ("set_free_handicap A1 pass", "? bad vertex list"),
        ("time_left b 0 0", "="),
        ("\x07list_commands", None),
    ],
)
def test_gtp_errors(line, text):
    (answered,), _ = talk(line)
    if text is None:
        assert answered.startswith("= protocol_version\nname\n")
    else:
        assert answered == f"{text}\n\n"


def test_handicaps_are_where_they_belong():
    (text, other), table = talk("fixed_handicap 4\nfixed_handicap 2")
    assert sorted(text.split()[1:]) == ["C3", "C7", "G3", "G7"] and "not empty" in other
    assert table.position.to_play == WHITE
    (text,), _ = talk("fixed_handicap 9", new("x", "1", (19,)))
    points = {f"{column}{row}" for column in "DKQ" for row in (4, 10, 16)}
    assert set(text.split()[1:]) == points
    (text, _), table = talk("set_free_handicap A1 B2\nundo")
    assert not any(table.position.stones)


def test_the_player_keeps_its_eyes_and_passes_at_the_end():
    position = board(
        """
        .X.XO
        XXXXO
        .OOOO
        .O.O.
        OOOOO
        """
    )
    eyes = [0, 2]
    others = [10, 15, 17, 19]

    def like_eyes(packed: np.ndarray) -> np.ndarray:
        return np.where(np.isin(np.arange(25), eyes), 0.0, -5.0) - np.arange(25) / 100

    assert player.choose(position, False, like_eyes, 0.5) == others[0]
    white = position._replace(to_play=WHITE)
    assert player.choose(white, True, like_eyes, 0.5) is None  # ahead, after a pass
    black = position._replace(to_play=BLACK)
    assert player.choose(black, True, like_eyes, 0.5) == others[0]  # behind, it plays on


def test_the_player_knows_no_direction():
    """Of a turned board it thinks what it thinks of the board, turned; two members' mean counts."""
    weights = np.random.default_rng(0).normal(size=(2, 25 * 48, 25)).astype(np.float32)
    seen = []

    def logits(packed: np.ndarray) -> np.ndarray:
        seen.append(packed)
        bits = np.unpackbits(packed, axis=-1, bitorder="little")
        return bits.reshape(len(bits), -1) @ weights / 10

    think = player.from_logits(logits)
    position = list(records.replay(random_game(2, 5, 12)))[-1]
    packed = records.packed(position)
    scores = think(packed[None])
    np.testing.assert_allclose(np.exp(scores).sum(), 1, rtol=1e-5)
    assert len(np.unique(seen[0], axis=0)) == 8
    quarter = think(np.rot90(packed)[None]).reshape(5, 5)
    np.testing.assert_allclose(quarter, np.rot90(scores.reshape(5, 5)), atol=1e-5)
    mirrored = think(packed[None, :, ::-1]).reshape(5, 5)
    np.testing.assert_allclose(mirrored, scores.reshape(5, 5)[:, ::-1], atol=1e-5)
    probabilities = jax.nn.softmax(logits(seen[0]), axis=-1)
    centre = probabilities[:, :, 12].mean()  # the same point in all symmetries
    np.testing.assert_allclose(np.exp(scores[12]), centre, rtol=1e-5)


def test_what_is_no_text_is_answered_as_a_wrong_line(workdir, monkeypatch, capsys):
    lines = io.BytesIO(b"name # f\xfcnf\nplay b \xff\xfe\n\xe4\nname\n")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(lines, encoding="utf-8"))
    assert gtp.main([str(workdir)]) == 0
    answers = capsys.readouterr().out.split("\n\n")
    wrong = "? invalid color or coordinate", "? unknown command"
    assert answers == ["= mnist_jax", *wrong, "= mnist_jax", ""]


def test_a_game_against_itself_ends(workdir, monkeypatch, capsys):
    commands = "\n".join(["genmove b", "genmove w"] * 60)
    monkeypatch.setattr(sys, "stdin", io.StringIO(commands + "\nshowboard\nquit\n"))
    assert gtp.main([str(workdir)]) == 0
    answers = capsys.readouterr().out.split("\n\n")
    assert not any(text.startswith("?") for text in answers)
    moves = [text.removeprefix("= ") for text in answers[:120]]
    assert moves[-2:] == ["pass", "pass"] and moves.count("pass") < 110


def test_gtp_of_other_networks(tmp_path):
    command = [sys.executable, "-m", "experiments.gtp", str(tmp_path / "none")]
    ended = subprocess.run(command, input="quit\n", capture_output=True, text=True)
    assert ended.returncode == 2 and len(ended.stderr.strip().splitlines()) == 2
