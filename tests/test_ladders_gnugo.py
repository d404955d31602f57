"""Ladders beside GNU Go's reading, on positions of real games and of random ones."""

from collections import Counter
from pathlib import Path

import numpy as np

from mnist_jax.data import positions
from mnist_jax.go import planes, records, rules, sgf
from mnist_jax.go.opponent import Program
from mnist_jax.go.rules import BLACK, WHITE, Position
from tests.needs import gnugo, needs_gnugo
from tests.test_go import random_game

OWN = Path(positions.__file__).with_name("games9x9.sgf")
NAMES = {BLACK: "black", WHITE: "white"}
FAILS, WITHOUT_KO = "0", "1"
LEVEL = 10  # at which it reads deep enough for a ladder across a board of 9 x 9


def chains(position: Position, color: int, liberties: int) -> list[frozenset[int]]:
    size, stones = position.size, position.stones
    return [
        chain
        for chain in rules.chains(size, stones, color)
        if len(rules.liberties(size, stones, chain)) == liberties
    ]


def compare(games: list[sgf.Game], level: int = LEVEL) -> Counter[str]:
    """How often GNU Go reads what the planes of ladders say, in every position of some games."""
    found: Counter[str] = Counter()
    bits = np.unpackbits(records.positions(games).planes, axis=-1, bitorder="little")
    made = iter(bits.reshape(len(bits), -1, planes.COUNT))
    with Program([gnugo(), "--mode", "gtp", "--level", str(level)], 60) as program:
        for game in games:
            program.ask(f"boardsize {game.size}")
            program.ask("clear_board")
            for position, (color, point) in zip(records.replay(game), game.moves, strict=False):
                if point is not None:
                    here = next(made)
                    found += captures(program, position, here[:, planes.FIRST["ladder capture"]])
                    found += escapes(program, position, here[:, planes.FIRST["ladder escape"]])
                vertex = rules.to_vertex(game.size, point)
                program.ask(f"play {NAMES[color]} {vertex}")
    return found


def captures(program: Program, position: Position, plane: np.ndarray) -> Counter[str]:
    """Of chains with two liberties that a move of a ladder takes, how many GNU Go takes."""
    size, stones = position.size, position.stones
    found: Counter[str] = Counter()
    hunted = chains(position, rules.opponent(position.to_play), 2)
    beside = Counter(p for chain in hunted for p in rules.liberties(size, stones, chain))
    for chain in hunted:
        # A move beside several such chains may take another one of them.
        if any(plane[p] and beside[p] == 1 for p in rules.liberties(size, stones, chain)):
            prey = rules.to_vertex(size, min(chain))
            found["taken"] += 1
            found["taken, attack"] += code(program, f"attack {prey}") != FAILS
            found["taken, ladder_attack"] += code(program, f"ladder_attack {prey}") != FAILS
    return found


def escapes(program: Program, position: Position, plane: np.ndarray) -> Counter[str]:
    """Of moves that save the only chain in atari from a ladder, and of those on its last liberty
    that do not, how many save it as GNU Go reads it: from anything, and from a ladder."""
    size, stones = position.size, position.stones
    found: Counter[str] = Counter()
    in_atari = chains(position, position.to_play, 1)
    if len(in_atari) != 1:
        return found
    (own,) = in_atari
    for point in {*rules.liberties(size, stones, own), *np.flatnonzero(plane).tolist()}:
        if not rules.is_legal(position, point):
            continue
        kind = "saved" if plane[point] else "not saved"
        move, chain = rules.to_vertex(size, point), rules.to_vertex(size, min(own))
        found[kind] += 1
        found[f"{kind}, does_defend"] += code(program, f"does_defend {move} {chain}") != FAILS
        program.ask(f"trymove {NAMES[position.to_play]} {move}")
        if program.ask(f"countlib {chain}") == "2":  # ladder_attack takes no others
            found[f"{kind}, two liberties"] += 1
            taken = code(program, f"ladder_attack {chain}") == WITHOUT_KO
            found[f"{kind}, two liberties, ladder_attack"] += taken
        program.ask("popgo")
    return found


def code(program: Program, command: str) -> str:
    """How GNU Go's reading ends: 2 and 3 are successes that need a ko."""
    return program.ask(command).split()[0]


@needs_gnugo
def test_ladders_are_gnu_go_s():
    """Figures of all 150 games and 75 of random moves, which took 17 s, are in the README."""
    games = sgf.read(OWN.read_bytes(), OWN.name)[::10]
    found = compare([*games, *(random_game(seed, 9, 100) for seed in range(6))])
    assert found["taken"] > 300 and found["saved"] > 80
    assert found["taken, attack"] >= 0.99 * found["taken"]
    assert found["taken, ladder_attack"] >= 0.99 * found["taken"]
    escaped, caught = found["saved, two liberties"], found["not saved, two liberties"]
    assert escaped > 20 and found["saved, two liberties, ladder_attack"] <= 0.01 * escaped
    assert caught > 20 and found["not saved, two liberties, ladder_attack"] >= 0.99 * caught
