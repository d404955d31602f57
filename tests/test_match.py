"""Matches of Go: `experiments.match`, the games and the other program."""

import json
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.special import ndtri

from experiments import match as command
from experiments import run
from experiments.console import cli
from experiments.workdir import matches
from mnist_jax import parallel
from mnist_jax.go import match, records, rules, sgf
from mnist_jax.go.opponent import Program, ProgramError, Refused
from mnist_jax.go.rules import BLACK, WHITE
from tests.needs import gnugo, needs_gnugo
from tests.test_go import board, random_game
from tests.test_go_commands import as_sgf

SIZE = 5

# A program of the protocol: it plays at random, and does one thing as its second argument says,
# the third time that it is to move.
FAKE = """
import random, sys, time
from mnist_jax.go import gtp, rules

kind = sys.argv[1]
rng = random.Random(0)
moves = 0

def choose(position, after_pass):
    legal = rules.legal_moves(position)
    wish = None if after_pass or not legal else rng.choice(legal)
    return None if position.turn > 20 else wish

table = gtp.new("Fake", "1.0", (int(sys.argv[2]),))
for line in sys.stdin:
    words = line.split()
    if words[0] == "genmove":
        moves += 1
        if moves == 3:
            special = {
                "illegal": lambda: rules.to_vertex(5, next(iter(
                    p for p, c in enumerate(table.position.stones) if c))),
                "nowhere": lambda: "Z99",
                "resign": lambda: "resign",
                "crash": lambda: sys.exit("the board is on fire"),
                "hang": lambda: time.sleep(6000),
            }
            if kind in special:
                print(f"= {special[kind]()}\\n", flush=True)
                continue
    if kind == "random" and words == ["known_command", "set_random_seed"]:
        print("= true\\n", flush=True)
    elif kind == "random" and words[0] == "set_random_seed":
        rng = random.Random(int(words[1]))
        print("=\\n", flush=True)
    elif kind == "dead" and words == ["final_status_list", "dead"]:
        stones = [p for p, c in enumerate(table.position.stones) if c == 2]
        print("= " + "\\n".join(rules.to_vertex(5, p) for p in stones) + "\\n", flush=True)
    elif kind == "deaf" and words[0] == "play":
        print("? illegal move\\n", flush=True)
    else:
        text, table = gtp.answer(table, line, choose)
        print(text, end="", flush=True)
        if table.has_ended:
            break
"""


@pytest.fixture(autouse=True)
def this_process(monkeypatch):
    """The tests have started JAX already, and have a cache of compiled programs."""
    monkeypatch.setattr(parallel, "use_cpu_cores", lambda *_: None)
    monkeypatch.setattr(cli, "use_compilation_cache", lambda: None)


@pytest.fixture(scope="module")
def fake(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("fake") / "fake.py"
    path.write_text(FAKE)
    return path


def train(folder: Path, size: int) -> Path:
    games = "\n".join(as_sgf(random_game(i, size, 24)) for i in range(20))
    (folder / "games.sgf").write_text(games)
    patch = pytest.MonkeyPatch()
    patch.setattr(parallel, "use_cpu_cores", lambda *_: None)
    patch.setattr(cli, "use_compilation_cache", lambda: None)
    flags = ["--config", "policy", "--network-options", "filters=4", "--epochs", "1"]
    flags += ["--data-dir", str(folder / "games.sgf"), "--batch-size", "50"]
    assert run.main([*flags, "--workdir", str(folder / "run")]) == 0
    patch.undo()
    return folder / "run"


@pytest.fixture(scope="module")
def workdir(tmp_path_factory) -> Path:
    return train(tmp_path_factory.mktemp("go"), SIZE)


def opponent(fake: Path, kind: str, size: int = SIZE) -> str:
    return shlex.join([sys.executable, str(fake), kind, str(size)])


def play(workdir: Path, fake: Path, kind: str, folder: Path, *flags: str, games: int = 2) -> int:
    argv = [str(workdir), "--opponent", opponent(fake, kind), "--games", str(games)]
    return command.main([*argv, "--output", str(folder), *flags])


def kept(folder: Path) -> dict:
    return json.loads((folder / "match.json").read_text())


# A match


def test_a_match_is_kept_and_summed_up(workdir, fake, tmp_path, capsys):
    assert play(workdir, fake, "random", tmp_path, games=4) == 0
    found = kept(tmp_path)
    rows, total = found["games"], found["summary"]
    assert [row["color"] for row in rows] == ["black", "white"] * 2
    for row in rows:
        (game,) = sgf.read((tmp_path / row["file"]).read_bytes(), row["file"])
        assert (game.result, len(game.moves), game.komi) == (row["result"], row["moves"], 7.5)
        *_, end = records.replay(game)  # all moves are by the rules
        assert [point for _, point in game.moves[-2:]] == [None, None]
        points = rules.score(end, 7.5)  # the opponent calls nothing dead
        assert game.result == f"{'B' if points > 0 else 'W'}+{abs(points):g}"
        assert row["won"] == (row["result"][0] == row["color"][0].upper())
    assert total["games"] == 4 and total["won"] == sum(row["won"] for row in rows)
    assert total["black"]["games"] == total["white"]["games"] == 2
    assert total["win_rate"] == total["won"] / 4 and total["different"] == 4
    low, high = total["interval"]
    assert low <= total["win_rate"] <= high
    text = capsys.readouterr().out
    assert f"Won {total['won']} of 4 games" in text and "against Fake 1.0" in text
    assert text.count(" moves") == 4


def test_a_match_depends_on_its_seed_alone(workdir, fake, tmp_path):
    for name, flags in {"one": [], "again": [], "other": ["--seed", "1"]}.items():
        assert play(workdir, fake, "random", tmp_path / name, *flags) == 0
    one, again, other = (
        [(tmp_path / name / f"game-00{i}.sgf").read_text() for i in (1, 2)]
        for name in ("one", "again", "other")
    )
    assert one == again and one[0] != other[0] and one[1] != other[1]


def test_a_match_goes_on(workdir, fake, tmp_path, capsys):
    assert play(workdir, fake, "random", tmp_path / "whole", games=3) == 0
    assert play(workdir, fake, "random", tmp_path / "parts", games=1) == 0
    assert play(workdir, fake, "random", tmp_path / "parts", games=3) == 0
    assert "1 game of it there already" in capsys.readouterr().out
    names = [f"game-00{i}.sgf" for i in (1, 2, 3)]
    assert all(
        (tmp_path / "whole" / n).read_text() == (tmp_path / "parts" / n).read_text() for n in names
    )
    with pytest.raises(SystemExit) as end:
        play(workdir, fake, "random", tmp_path / "parts", "--seed", "5")
    assert end.value.code == 2
    assert "holds another match: seed was 0 and is now 5" in capsys.readouterr().err
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a.txt").write_text("mine")
    with pytest.raises(SystemExit) as end:
        play(workdir, fake, "random", tmp_path / "full")
    assert end.value.code == 2 and "not an empty folder" in capsys.readouterr().err
    settings = kept(tmp_path / "whole")["settings"]
    for content in ("{", "[]", json.dumps({"settings": settings, "games": [{"game": 1}]})):
        (tmp_path / "parts" / "match.json").write_text(content)
        with pytest.raises(SystemExit) as end:
            play(workdir, fake, "random", tmp_path / "parts")
        assert end.value.code == 2 and "cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "ending", "won", "reason"),
    [
        ("illegal", "illegal move", True, "occupied"),
        ("nowhere", "illegal move", True, "not on the board"),
        ("deaf", "illegal move", False, "illegal move"),
        ("resign", "resignation", True, ""),
    ],
)
def test_games_that_end_early(workdir, fake, tmp_path, capsys, kind, ending, won, reason):
    assert play(workdir, fake, kind, tmp_path) == 0
    for row in kept(tmp_path)["games"]:
        assert (row["ending"], row["won"]) == (ending, won) and reason in row["note"]
        (game,) = sgf.read((tmp_path / row["file"]).read_bytes(), row["file"])
        assert game.result == row["result"] and game.result[1:] == ("+F" if reason else "+R")
        list(records.replay(game))
    text = capsys.readouterr().out
    assert text.count("illegal move lost game") == (2 if reason else 0)
    illegal = kept(tmp_path)["summary"]["illegal"]
    assert illegal == {"ours": 0 if won else 2, "theirs": 2 if won and reason else 0}


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("crash", "ended at genmove white: exit code 1, the board is on fire"),
        ("hang", "took more than 4 seconds for genmove white"),
    ],
)
def test_opponents_that_fail(workdir, fake, tmp_path, monkeypatch, capsys, kind, message):
    def ask(self, words):
        """With a time limit for the move alone that fails: to start may take a while."""
        self._moves = getattr(self, "_moves", 0) + words.startswith("genmove")
        self._seconds = 4 if self._moves == 3 and kind == "hang" else 600
        return asked(self, words)

    asked = Program.ask
    monkeypatch.setattr(Program, "ask", ask)
    assert play(workdir, fake, kind, tmp_path) == 1
    said = capsys.readouterr()
    assert message in said.err and len(said.err.strip().splitlines()) == 2
    assert "No game has a result yet" in said.out
    assert not list(tmp_path.glob("*.sgf"))


def test_interrupted(workdir, fake, tmp_path, monkeypatch, capsys):
    real = match.play

    def until_the_second(*args):
        if (tmp_path / "game-001.sgf").exists():
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(match, "play", until_the_second)
    assert play(workdir, fake, "random", tmp_path, games=3) == cli.INTERRUPTED
    assert "of 1 game" in capsys.readouterr().out and len(kept(tmp_path)["games"]) == 1


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--games", "0"], "--games must be at least 1"),
        (["--level", "11"], "--level must be from 1 to 10, not 11"),
        (["--level", "2", "--opponent", "x"], "--level is GNU Go's"),
        (["--opponent", "no-such-program-here --gtp"], "no-such-program-here is no program"),
        (["--opponent", ""], "--opponent is empty"),
        (["--opponent", "a 'b"], "no closing quotation"),
        (["--seed", "-1"], "--seed must be from 0"),
        (["--time-limit", "nan"], "--time-limit must be more than 0"),
        (["--board-size", "9"], "--board-size 9: the network was trained on 5 x 5"),
        (["--opponent", f"{sys.executable} -c 0"], "ended at name: exit code 0"),
        (["--opponent", f"{sys.executable} -c 'print(\"hello\")'"], "answers 'hello' to name"),
    ],
)
def test_wrong_commands(workdir, tmp_path, monkeypatch, capsys, argv, message):
    monkeypatch.setattr(command, "_PLACES", (sys.executable,))
    with pytest.raises(SystemExit) as end:
        command.main([str(workdir), "--output", str(tmp_path), *argv])
    said = capsys.readouterr().err.strip()
    assert end.value.code == 2 and message in said and len(said.splitlines()) == 2


def test_an_opponent_of_other_boards(workdir, fake, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        command.main([str(workdir), "--opponent", opponent(fake, "random", 9)])
    assert end.value.code == 2 and "unacceptable size" in capsys.readouterr().err


def test_without_gnu_go(workdir, monkeypatch, capsys):
    monkeypatch.setattr(command, "_PLACES", ("no-such-program-here",))
    with pytest.raises(SystemExit) as end:
        command.main([str(workdir)])
    said = capsys.readouterr().err.strip().splitlines()
    assert end.value.code == 2 and len(said) == 2
    assert "not installed" in said[0] and "apt install gnugo" in said[1]


@needs_gnugo
@pytest.mark.slow
def test_against_gnu_go(tmp_path):
    """A network that has learnt nothing loses, and records end as GNU Go counts them."""
    workdir = train(tmp_path, 9)
    folder = tmp_path / "match"
    assert command.main([str(workdir), "--games", "4", "--output", str(folder)]) == 0
    found = kept(folder)
    assert found["settings"]["opponent"].startswith("GNU Go")
    assert found["summary"]["won"] == 0 and found["summary"]["different"] == 4
    for row in found["games"]:
        if row["ending"] == "score":
            with Program([gnugo(), "--mode", "gtp", "--chinese-rules"], 60) as counting:
                counting.ask(f"loadsgf {folder / row['file']}")
                theirs = counting.ask("final_score")
            assert theirs[0] == row["result"][0]


# Games


def test_what_the_opponent_calls_dead_is_taken_off(fake):
    def first_legal(position, after_pass):
        return None if position.turn > 7 else rules.legal_moves(position)[0]

    with Program(shlex.split(opponent(fake, "dead")), 30) as program:
        played = match.play(first_legal, program, BLACK, SIZE)
    whites = [point for color, point in played.moves if color == WHITE and point is not None]
    # All of White's stones are called dead, so that the whole board is Black's.
    assert whites and played.result == "B+17.5"
    assert played.note.startswith("dead: ") and len(played.note.split()) == len(whites) + 1


def test_games_without_an_end(fake, monkeypatch):
    monkeypatch.setattr(match, "LONGEST", 0.2)

    def first_legal(position, after_pass):
        return rules.legal_moves(position)[0]

    with Program(shlex.split(opponent(fake, "random")), 30) as program:
        played = match.play(first_legal, program, WHITE, SIZE)
    assert (played.result, played.ending, len(played.moves)) == ("Void", "too many moves", 5)
    assert played.winner is None
    row = {"won": None, "color": "black", "ending": played.ending, "digest": "a"}
    found = matches.summary([row])
    assert found["games"] == 0 and found["without_result"] == 1 and found["interval"] is None


def test_a_move_of_ours_against_the_rules(fake):
    with Program(shlex.split(opponent(fake, "random")), 30) as program:
        played = match.play(lambda position, after_pass: 0, program, BLACK, SIZE)
    assert played.result == "W+F" and "black at A5: occupied" in played.note


def test_programs_answer_and_refuse(fake):
    with Program(shlex.split(opponent(fake, "random")), 30) as program:
        assert program.ask("name") == "Fake"
        assert program.ask("7 version") == "1.0"
        assert program.ask("list_commands").splitlines()[0] == "protocol_version"
        with pytest.raises(Refused, match=r"^unknown command$"):
            program.ask("dance")
    with pytest.raises(ProgramError, match="cannot be started"):
        Program(["/no/such/program"], 1)


def test_wilsons_interval():
    """Against the formula of Wilson 1927, and an interval that Newcombe 1998 published."""
    z = ndtri(0.975)
    for won, games in [(0, 10), (3, 40), (20, 40), (40, 40)]:
        p = won / games
        middle = (p + z**2 / (2 * games)) / (1 + z**2 / games)
        half = z / (1 + z**2 / games) * np.sqrt(p * (1 - p) / games + z**2 / (4 * games**2))
        expected = [middle - half, middle + half]
        np.testing.assert_allclose(matches.wilson(won, games), expected, atol=1e-12)
    np.testing.assert_allclose(matches.wilson(81, 263), [0.2553, 0.3662], atol=5e-5)


# Records


def test_records_that_were_written_are_read_again():
    game = random_game(4, 9, 60)._replace(
        stones={0: BLACK, 80: WHITE}, moves=[(BLACK, 40), (WHITE, None), (BLACK, 8)]
    )
    game = game._replace(komi=7.5, result="B+R")
    text = sgf.write(game, "a [strange\\] name", "GNU Go 3.8", "ends; [so]")
    (again,) = sgf.read(text.encode(), game.where)
    assert again == game
    position = board("X.... ..... ..... ..... ....O".replace(" ", "\n"))
    assert not rules.without_liberties(5, position.stones)
