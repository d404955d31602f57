"""Go: rules, ladders, eyes, planes, records and the policy network."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnist_jax.data.names import DataError
from mnist_jax.go import eyes, ladders, planes, records, rules, sgf, symmetries
from mnist_jax.go.opponent import Program
from mnist_jax.go.rules import BLACK, WHITE, IllegalMove, Position
from mnist_jax.models.policy import Policy
from mnist_jax.windows import convolve_by_xla
from tests.needs import gnugo, needs_gnugo


def board(picture: str, to_play: int = BLACK) -> Position:
    """A position of a picture: X is Black, O White."""
    rows = picture.split()
    colors = {"X": BLACK, "O": WHITE}
    stones = {
        row * len(rows) + column: colors[mark]
        for row, line in enumerate(rows)
        for column, mark in enumerate(line)
        if mark in colors
    }
    return rules.set_up(rules.start(len(rows)), stones, to_play)


def at(position: Position, vertex: str) -> int:
    point = rules.from_vertex(position.size, vertex)
    assert point is not None
    return point


def random_game(seed: int, size: int, moves: int) -> sgf.Game:
    """Random legal moves; some games fill the board again and again, with many captures."""
    rng = np.random.default_rng(seed)
    position, played = rules.start(size), []
    for _ in range(moves):
        legal = rules.legal_moves(position)
        point = int(rng.choice(legal)) if legal and rng.random() > 0.02 else None
        played.append((position.to_play, point))
        position = rules.play(position, point)
    return sgf.Game("random", size, {}, BLACK, played, None, None)


# Rules


def brute_force(size: int, stones: bytes, color: int, point: int) -> bytes | None:
    """The board after a move, by filling from the empty points; None for suicide."""
    grid = np.frombuffer(stones, np.uint8).reshape(size, size).copy()
    grid.flat[point] = color
    for side in (3 - color, color):
        alive = grid == 0
        for _ in range(size * size):  # what touches a liberty, or its like that does, lives
            near = np.zeros_like(alive)
            near[1:] |= alive[:-1]
            near[:-1] |= alive[1:]
            near[:, 1:] |= alive[:, :-1]
            near[:, :-1] |= alive[:, 1:]
            alive |= near & (grid == side)
        dead = (grid == side) & ~alive
        if side == color:
            return None if dead.any() else grid.tobytes()
        grid[dead] = 0
    raise AssertionError


@pytest.mark.parametrize("size", [2, 3, 5])
def test_moves_are_those_of_brute_force(size):
    captures = suicides = 0
    for position in records.replay(random_game(size, size, 150)):
        for point in range(size * size):
            if position.stones[point]:
                with pytest.raises(IllegalMove, match="occupied"):
                    rules.play(position, point)
                continue
            expected = brute_force(size, position.stones, position.to_play, point)
            if point == position.ko:
                continue
            if expected is None:
                suicides += 1
                with pytest.raises(IllegalMove, match="suicide"):
                    rules.play(position, point)
            else:
                made = rules.play(position, point).stones
                assert made == expected
                captures += made.count(0) >= position.stones.count(0)
    assert captures > 5 and suicides > 5


def test_ko():
    position = board(
        """
        .XO..
        X.XO.
        .XO..
        .....
        .....
        """,
        WHITE,
    )
    taken = rules.play(position, at(position, "B4"))
    assert taken.stones[at(taken, "C4")] == 0 and taken.ko == at(taken, "C4")
    with pytest.raises(IllegalMove, match="ko"):
        rules.play(taken, at(taken, "C4"))
    elsewhere = rules.play(rules.play(taken, at(taken, "E1")), at(taken, "A1"))
    assert rules.is_legal(elsewhere, at(elsewhere, "C4"))
    passed = rules.play(rules.play(taken, None), None)
    assert rules.is_legal(passed, at(passed, "C4"))


@pytest.mark.parametrize("kernels_are", ["on", "off"])
def test_who_took_a_ko_and_moves_again_may_fill_it(kernels_are, monkeypatch):
    """As in records that leave out the other's pass; GNU Go allows it too."""
    if kernels_are == "off":
        monkeypatch.setenv("MNIST_JAX_KERNELS", "off")
    records.kernels.host_library.cache_clear()
    names = ["B5", "C5", "A4", "D4", "B3", "C3", "C4", "B4"]  # White has taken C4
    moves = [(BLACK + i % 2, rules.from_vertex(5, name)) for i, name in enumerate(names)]
    ko = rules.from_vertex(5, "C4")
    fills, takes_back = (
        sgf.Game("a", 5, {}, BLACK, [*moves, (color, ko), (BLACK, None)], None, None)
        for color in (WHITE, BLACK)
    )
    filled, forbidden = records.forbidden([fills, takes_back])
    taken = list(records.replay(fills))[len(moves)]
    by_both = [records.packed(taken._replace(to_play=color)) for color in (WHITE, BLACK)]
    described = records.positions([fills]).planes[-1]
    monkeypatch.undo()
    records.kernels.host_library.cache_clear()
    assert filled is None and "(ko)" in str(forbidden)
    legal = [np.asarray(planes.unpack(packed))[1, 2, planes.LEGAL].any() for packed in by_both]
    assert legal == [True, False]
    np.testing.assert_array_equal(described, by_both[0])


def test_two_stones_taken_are_no_ko():
    position = board(
        """
        .XXO
        .OOO
        OO..
        ....
        """,
        WHITE,
    )
    taken = rules.play(position, at(position, "A4"))
    assert taken.stones[:4] == bytes([WHITE, 0, 0, WHITE]) and taken.ko is None
    assert rules.is_legal(taken, at(taken, "B4"))


@pytest.mark.parametrize("super_ko", [True, False])
def test_boards_come_back_but_under_super_ko(super_ko):
    rng = np.random.default_rng(0)
    position = rules.start(2, super_ko)
    boards = [position.stones]
    for _ in range(150):
        legal = rules.legal_moves(position)
        position = rules.play(position, int(rng.choice(legal)) if legal else None)
        if legal:
            boards.append(position.stones)
    assert len(boards) > 10
    assert (len(set(boards)) == len(boards)) == super_ko


def test_set_up_and_score():
    position = board(
        """
        .X.O.
        XX.OO
        .X.O.
        XX.OO
        .X.O.
        """
    )
    assert rules.score(position, komi=0.5) == -0.5
    with pytest.raises(IllegalMove, match="not on the board"):
        rules.play(position, 25)
    with pytest.raises(ValueError, match="size must be from 2 to 25, not 26"):
        rules.start(26)


def test_vertices():
    for size in (2, 9, 19, 25):
        for point in (*range(size * size), None):
            assert rules.from_vertex(size, rules.to_vertex(size, point)) == point
    assert rules.to_vertex(19, 0) == "A19" and rules.from_vertex(19, "t1") == 360
    assert rules.to_vertex(19, 8) == "J19"
    for wrong in ("", "I5", "A0", "A20", "U1", "A", "5", "A-1", "A1x", "A²"):
        with pytest.raises(ValueError, match="is no point of a board of 19 x 19"):
            rules.from_vertex(19, wrong)


# Ladders and eyes


def ladder(breaker: bool, to_play: int, more: str = "") -> Position:
    """White's stone at B6 runs down to the right, from one atari into the next."""
    stones = {"B7": BLACK, "A6": BLACK, "A5": BLACK, "B6": WHITE}
    stones |= {"E3": WHITE} if breaker else {}
    stones |= {more: BLACK} if more else {}
    empty = rules.start(7)
    return rules.set_up(empty, {at(empty, v): color for v, color in stones.items()}, to_play)


@pytest.mark.parametrize("breaker", [False, True])
def test_a_ladder_runs_to_the_edge_or_to_a_breaker(breaker):
    hunted = ladder(breaker, BLACK)
    assert ladders.captures(hunted, at(hunted, "C6")) is not breaker
    assert not ladders.captures(hunted, at(hunted, "B5"))  # it runs to C6 and has room
    assert not ladders.captures(hunted, at(hunted, "D4"))
    in_atari = ladder(breaker, WHITE, "C6")
    assert ladders.escapes(in_atari, at(in_atari, "B5")) is breaker
    assert not ladders.escapes(in_atari, at(in_atari, "D4"))


def test_a_chain_escapes_by_capturing_what_holds_it():
    position = board(
        """
        .XO....
        XOXO...
        X......
        .......
        .......
        .......
        .......
        """,
        WHITE,
    )
    assert ladders.escapes(position, at(position, "C5"))
    assert not ladders.captures(position._replace(to_play=BLACK), at(position, "G1"))


@pytest.mark.parametrize(
    ("picture", "is_eye"),
    [
        (".X... XX... ..... ..... .....", True),  # in the corner all count
        (".X... XO... ..... ..... .....", False),
        (".X... X.... ..... ..... .....", False),
        ("..... .XXX. .X.X. .XXX. .....", True),
        ("..... .OXX. .X.X. .XXX. .....", True),  # inside one corner may be lost
        ("..... .OXX. .X.X. .XXO. .....", False),
        ("..... .OXX. .X.X. .XX.. .....", False),
        ("X.X.. XXX.. ..... ..... .....", None),
    ],
)
def test_true_eyes(picture, is_eye):
    position = board(picture.replace(" ", "\n"))
    point = 1 if is_eye is None else (0 if picture[0] == "." and picture[1] == "X" else 12)
    expected = True if is_eye is None else is_eye
    assert eyes.is_true_eye(5, position.stones, point, BLACK) is expected
    assert not eyes.is_true_eye(5, position.stones, point, WHITE)


def test_two_eyes_that_need_each_other_are_both_true():
    position = board(
        """
        .XO..
        X.XO.
        XXXO.
        OOO..
        .....
        """
    )
    for vertex in ("A5", "B4"):
        assert eyes.is_true_eye(5, position.stones, at(position, vertex), BLACK)


# Planes


def test_planes_of_a_position():
    """A position whose planes were counted by hand."""
    position = board(
        """
        .OX..
        OXX..
        .....
        ...X.
        .....
        """,
        BLACK,
    )
    position = rules.play(position, at(position, "E1"))  # Black
    position = rules.play(position, at(position, "A1"))  # White
    made = planes.of(position)

    def of(feature: str, vertex: str) -> list[int]:
        """The planes of a feature that are set."""
        first, count = planes.FIRST[feature], planes.FEATURES[feature]
        row, column = divmod(at(position, vertex), 5)
        return np.flatnonzero(made[row, column, first : first + count]).tolist()

    assert made.shape == (5, 5, 48) and made[..., planes.FIRST["ones"]].all()
    assert not made[..., planes.FIRST["zeros"]].any()
    for vertex, color in {"C5": [0], "B5": [1], "A5": [2]}.items():
        assert of("stone colour", vertex) == color
    # The last move is one turn ago; what was set up, eight or more.
    for vertex, turns in {"A1": [0], "E1": [1], "C5": [7], "A5": []}.items():
        assert of("turns since", vertex) == turns
    # B5: A5 alone; C5, C4 and B4: D5, D4, C3, B3; A4: A5 and A3.
    for vertex, count in {"B5": [0], "C5": [3], "B4": [3], "A4": [1], "D2": [3]}.items():
        assert of("liberties", vertex) == count
    # Black at A5 takes B5, and has that as its liberty; A4 stays with A3.
    assert of("capture size", "A5") == [1] and of("capture size", "E5") == [0]
    assert of("liberties after the move", "A5") == [0] and of("self-atari size", "A5") == [0]
    assert of("liberties after the move", "E2") == [3]  # with D2 and E1: E3, D3, C2, D1
    assert of("capture size", "C5") == [] == of("liberties after the move", "C5")
    assert of("sensibleness", "A5") == [0] and of("sensibleness", "B5") == []
    white = planes.of(position._replace(to_play=WHITE))
    row, column = divmod(at(position, "A5"), 5)
    after = white[row, column, planes.LEGAL]
    assert after.tolist() == [1, 0, 0, 0, 0, 0, 0, 0]  # joined at A5 they have A3
    self_atari = white[row, column, planes.FIRST["self-atari size"] :][:8]
    assert np.flatnonzero(self_atari).tolist() == [2]  # three stones


@pytest.mark.parametrize("size", [5, 9])
def test_planes_by_cpp_are_the_same_bits(size, monkeypatch):
    games = [random_game(seed, size, 80) for seed in (1, 2)]
    fast = records.positions(games)
    monkeypatch.setenv("MNIST_JAX_KERNELS", "off")
    records.kernels.host_library.cache_clear()
    slow = records.positions(games)
    records.kernels.host_library.cache_clear()
    for mine, theirs in zip(fast, slow, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    bits = np.asarray(planes.unpack(fast.planes))
    ladders_and_eyes = bits[..., planes.FIRST["ladder capture"] : planes.FIRST["zeros"]]
    assert ladders_and_eyes.any(axis=(0, 1, 2)).all()
    legal = bits[..., planes.LEGAL].sum(axis=-1)
    assert set(np.unique(legal)) == {0, 1}
    moves = legal.reshape(len(legal), -1)[np.arange(len(legal)), fast.moves]
    assert (moves == 1).all()


@pytest.mark.parametrize("super_ko", [False, True])
def test_one_position_by_cpp_is_the_same_bits(super_ko):
    """With ko, with set-up stones, after passes, of both colours, and with boards not to repeat."""
    position = rules.set_up(rules.start(7, super_ko), {0: BLACK, 10: WHITE})
    kos = 0
    for color, point in random_game(4, 7, 120).moves:
        position = position._replace(to_play=color)
        if point is not None and not rules.is_legal(position, point):
            point = None
        position = rules.play(position, point)
        later = rules.play(rules.play(position, None), None)
        for one in (position, position._replace(to_play=color), later):
            np.testing.assert_array_equal(records.packed(one), planes.pack(planes.of(one)))
        if position.ko is not None:
            kos += 1
            row, column = divmod(position.ko, 7)
            assert not planes.of(position)[row, column, planes.LEGAL].any()
            assert planes.of(later)[row, column, planes.LEGAL].any() != super_ko
    assert kos


@pytest.mark.parametrize(
    ("position", "match"),
    [
        (Position(5, bytes(25)), "turns of 0, on a board of 5 x 5"),
        (Position(6, bytes(25), played=(0,) * 25), "25 points and turns of 25, on a board of 6"),
        (Position(26, bytes(676), played=(0,) * 676), "board of 26 x 26"),
        (rules.play(rules.start(2)._replace(turn=99), 0)._replace(turn=0), "to 100"),
    ],
)
def test_positions_that_cannot_be_are_refused(position, match):
    with pytest.raises(ValueError, match=match):
        records.packed(position)


def test_planes_of_a_turned_board_are_turned_planes():
    """Ladders and eyes too: what is read does not depend on which way is up."""
    (game,) = [random_game(5, 7, 60)]
    made = np.unpackbits(records.positions([game]).planes, axis=-1, bitorder="little")
    points = np.arange(49, dtype=np.int32)
    for symmetry in range(symmetries.COUNT):
        turn = np.asarray(symmetries.of_points(points, np.full(49, symmetry), 7))
        moves = [(color, None if p is None else int(turn[p])) for color, p in game.moves]
        turned = records.positions([game._replace(moves=moves)]).planes
        turned = np.unpackbits(turned, axis=-1, bitorder="little")
        expected = symmetries.of_planes(jnp.asarray(made), np.full(len(made), symmetry))
        np.testing.assert_array_equal(turned, np.asarray(expected))


def test_symmetries_are_eight_and_can_be_undone():
    image = np.arange(25, dtype=np.float32).reshape(1, 5, 5, 1)
    boards = np.repeat(image, 8, axis=0)
    turned = np.asarray(symmetries.of_planes(jnp.asarray(boards), np.arange(8)))
    seen = {board_.tobytes() for board_ in turned}
    assert len(seen) == 8 and image[0].tobytes() in seen
    np.testing.assert_array_equal(turned[1, ..., 0], np.rot90(image[0, ..., 0]))
    np.testing.assert_array_equal(turned[4, ..., 0], image[0, :, ::-1, 0])
    logits = jnp.asarray(turned.reshape(8, 25))
    back = symmetries.back(logits, np.arange(8))
    np.testing.assert_array_equal(back, np.tile(image.reshape(1, 25), (8, 1)))


def test_augmented_moves_stay_on_their_points():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(64, 9, 9, 1)).astype(np.float32)
    moves = rng.integers(0, 81, 64).astype(np.int32)
    turned, points = symmetries.augment(jnp.asarray(values), moves, jax.random.key(0))
    before = values.reshape(64, 81)[np.arange(64), moves]
    after = np.asarray(turned).reshape(64, 81)[np.arange(64), points]
    np.testing.assert_array_equal(before, after)
    assert len(set(np.asarray(points).tolist())) > 20 and (points != moves).any()


# Records


SGF = """(;GM[1]FF[4]SZ[9]KM[6.5]RE[B+R]C[a comment with \\] and (;B[zz\\])]
AB[cc][gg:hh]PL[W];W[ee]C[here];B[];W[tt]
(;B[aa](;W[ab])(;W[ii];B[ii]))
(;B[bb]))"""


def test_the_main_line_of_a_record():
    (game,) = sgf.read(SGF.encode(), "a.sgf")
    assert (game.size, game.komi, game.result, game.to_play) == (9, 6.5, "B+R", WHITE)
    assert game.stones == dict.fromkeys([20, 60, 61, 69, 70], BLACK)
    assert game.moves == [(2, 40), (1, None), (2, None), (1, 0), (2, 9)]
    assert [position.turn for position in records.replay(game)] == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    "content",
    [
        "(;GM[1]SZ[5];B[aa];W[bb])",
        "(;GM[1]SZ[5]\n;Black[aa]\n;White[bb])",
        "(;gm[1]sz[5];b[aa];w[bb])",
        "(;CA[a\0b]SZ[5];B[aa];W[bb])",
        "\ufeffsome words ( ;SZ[5:5];B[aa];W[bb]) and more",
        "From: me (at home) [1]\nSubject: Re: (fwd [x (;-)\n\n(;SZ[5];B[aa];W[bb])\n-- \n:-( [me",
        "a)\\ ] ((;SZ[5];B[aa];W[bb]))",
        "(;SZ[5]HA[0];B[aa];W[bb])",
        "(;SZ[5]HA[1];B[aa];W[bb])",
        "(;SZ[5]HA[none];B[aa];W[bb])",
        "(;SZ[5]PB[\u5433\u6e05\u6e90];B[aa];W[bb])",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "gb18030"])
def test_records_of_all_kinds(content, encoding):
    (game,) = sgf.read(content.encode(encoding), "a.sgf")
    assert game.size == 5 and game.moves == [(1, 0), (2, 6)]


def test_a_named_encoding():
    text = "(;CA[Shift_JIS]SZ[5]PB[\u30bd\u8868];B[aa])"  # whose second bytes are backslashes
    (game,) = sgf.read(text.encode("shift_jis"), "a.sgf")
    assert game.moves == [(1, 0)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "a.sgf holds no game"),
        ("hello", "a.sgf holds no game"),
        ("(;GM[2])", r"a.sgf is no game of Go: GM\[2\], not GM\[1\]"),
        ("(;SZ[1])", r"SZ\[1\] is no square board of 2 to 25"),
        ("(;SZ[19:9])", r"SZ\[19:9\] is no square board"),
        ("(;SZ[x])", r"SZ\[x\] is no square board"),
        ("(;SZ[9];B[aa];W[ja])", r"a.sgf, move 2: W\[ja\] is no point of a board of 9 x 9"),
        ("(;SZ[9];B[a])", r"move 1: B\[a\] is no point"),
        ("(;B[aa];W[bb", "a.sgf is damaged after 2 moves"),
        ("(;B[aa];W[bb]", "a.sgf is cut off after 2 moves"),
        ("(;B[aa])(;B[aa];W[zz])", r"a.sgf, game 2, move 2: W\[zz\]"),
        ("(;B[aa];AW[bb];B[cc])", "move 2: AW sets stones up in the middle"),
        ("(B[aa])", r"a.sgf holds no game: SGF begins with \(;"),
        ("(;B[aa]!!)", "damaged after 1 moves, at '!'"),
        ("mail (1) [2]\n", r"a.sgf holds no game: SGF begins with \(;"),
        ("(;SZ[9]HA[2];W[aa])", r"a.sgf: HA\[2\], and it is not said where"),
        ("(;SZ[9]HA[3]AB[aa][bb];W[cc])", r"HA\[3\], and it is not said where"),
        ("(;SZ[9];HA[2];B[aa];W[bb])", r"HA\[2\], and it is not said where"),
        ("(;SZ[9]HA[9])", r"HA\[9\], and it is not said where"),
        ("(;SZ[9]AB[aa]AW[ba][ab];B[cc])", "a.sgf: what is set up at A9 has no liberties"),
        ("(;SZ[2]AW[aa:bb])", "what is set up at A2, B2, A1, B1 has no liberties"),
        ("(;SZ[3]AB[aa:cc])", "at A3, B3, C3, A2, B2, ... has no liberties"),
    ],
)
def test_damaged_records(content, message):
    with pytest.raises(sgf.SGFError, match=message):
        sgf.read(content.encode(), "a.sgf")


@pytest.mark.parametrize(
    "content",
    ["(;SZ[9]HA[2];B[aa];B[bb];W[cc])", "(;SZ[9]HA[2]AB[aa]AB[bb];W[cc])", "(;HA[2]AB[aa];B[bb])"],
)
def test_handicaps_that_are_on_the_board(content):
    (game,) = sgf.read(content.encode(), "a.sgf")
    assert [*records.replay(game)][-1].stones.count(BLACK) == 2


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("(;GM[1]SZ[5];B[aa];W[zz])", r"move 2: W\[zz\] is no point"),
        ("(;GM[1]SZ[5];B[aa];W[bb]", "cut off after 2 moves"),
        ("(;GM[1]SZ[5];B[aa];W[bb\n", r"move 2: W\[bb(\\n)+\(;GM\[1\] is no point|after 2 moves"),
        ("(;GM[1]SZ[5];B[aa]!;W[bb])", "damaged after 1 moves"),
        ("(;GM[1]SZ[5];B[aa](;W[bb]", "cut off after 2 moves"),
        ("(;GM[2])", "is no game of Go"),
        ("(;GaMe[1]SiZe[5];Black[aa]", "cut off after 1 moves"),
    ],
)
def test_a_damaged_game_leaves_the_others(bad, message):
    good = "(;GM[1]FF[4]SZ[5];B[aa];W[bb](;B[cc])(;B[dd]))"
    found = list(sgf.read_each(f"{good}\n{bad}\n{good}{good}".encode(), "a.sgf"))
    first, error, *others = found
    assert isinstance(error, sgf.SGFError) and re.search(message, str(error))
    assert str(error).startswith("a.sgf, game 2")
    assert [game.moves for game in (first, *others)] == [[(1, 0), (2, 6), (1, 12)]] * 3
    assert [game.where for game in others] == ["a.sgf, game 3", "a.sgf, game 4"]
    with pytest.raises(sgf.SGFError, match=message):
        sgf.read(f"{good}\n{bad}".encode(), "a.sgf")


def test_damage_that_many_games_have_is_read_fast():
    """A game that is cut off is not looked for to the end of the file."""
    found = list(sgf.read_each(b"(;GM[1]SZ[5];B[aa]\n" * 20_000, "a.sgf"))
    assert len(found) == 20_000 and all(isinstance(error, sgf.SGFError) for error in found)


@pytest.mark.parametrize("kernels_", ["", "off"])
def test_forbidden_moves_are_named(kernels_, monkeypatch):
    monkeypatch.setenv("MNIST_JAX_KERNELS", kernels_)
    records.kernels.host_library.cache_clear()
    games = sgf.read(b"(;SZ[5];B[aa];W[bb])(;SZ[5];B[aa];W[];B[aa])", "a.sgf")
    with pytest.raises(DataError, match=r"a.sgf, game 2, move 3: Black at A5 .*\(occupied\)"):
        records.positions(games)
    games = sgf.read(b"(;SZ[5];B[ba];W[cc];B[ab];W[aa])", "b.sgf")
    with pytest.raises(DataError, match=r"b.sgf, move 4: White at A5 .*\(suicide\)"):
        records.positions(games)
    assert str(records.forbidden(games)[0]).startswith("b.sgf, move 4: White at A5")
    assert records.forbidden([random_game(1, 5, 60), *games])[0] is None
    with pytest.raises(DataError, match="boards must be of one size, not of 5, 19"):
        records.positions(sgf.read(b"(;SZ[5];B[ba])(;SZ[19];B[ba])", "b.sgf"))
    records.kernels.host_library.cache_clear()
    assert len(records.positions([]).moves) == 0


# The network


def test_parameters_of_the_policy_network():
    for filters, published in {192: 3_882_793, 32: 140_553, 64: 483_497}.items():
        network = Policy(filters=filters)
        shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 19, 19, 48)))
        assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == published


def test_the_policy_network_is_a_stack_of_convolutions():
    made = records.positions([random_game(3, 9, 30)])
    inputs = planes.unpack(made.planes)
    network = Policy(81, filters=8)
    params = network.init(jax.random.key(0), inputs[:1])["params"]
    params["points"]["bias"] = jnp.arange(81) / 81
    x = inputs
    for layer in range(1, 13):
        weights = params[f"conv{layer}"]
        size = len(weights["kernel"])
        x = convolve_by_xla(x, weights["kernel"], 1, size // 2, 1) + weights["bias"]
        x = jax.nn.relu(x)
    expected = (x @ params["conv13"]["kernel"][0, 0])[..., 0].reshape(len(x), -1) + params[
        "points"
    ]["bias"]
    legal = np.asarray(inputs[..., planes.LEGAL].any(axis=-1)).reshape(len(x), -1)
    logits = np.asarray(network.apply({"params": params}, inputs))
    np.testing.assert_allclose(logits[legal], np.asarray(expected)[legal], rtol=1e-4, atol=1e-5)
    assert (logits[~legal] == -1e9).all() and (~legal).any()
    assert (np.asarray(jax.nn.softmax(logits))[~legal] == 0).all()


def test_fewer_planes_are_not_looked_at():
    inputs = np.array(planes.unpack(records.positions([random_game(3, 5, 20)]).planes))
    network = Policy(25, filters=4, planes=12)
    params = network.init(jax.random.key(0), inputs[:1])
    assert params["params"]["conv1"]["kernel"].shape == (5, 5, 12, 4)
    before = network.apply(params, inputs)
    inputs[..., 12:] = 1 - inputs[..., 12:]
    np.testing.assert_array_equal(before, network.apply(params, inputs))
    with pytest.raises(ValueError, match=r"policy takes planes \[n, 5, 5, 48\], not \(1, 6, 6"):
        network.apply(params, jnp.zeros((1, 6, 6, 48)))


# GNU Go


@needs_gnugo
@pytest.mark.slow
@pytest.mark.parametrize("size", [5, 9])
def test_legality_and_captures_are_gnu_gos(size):
    """All legal moves and all stones of random games' positions. Last run: 2 passed."""
    game = random_game(11, size, 120)
    with Program([gnugo(), "--mode", "gtp", "--level", "1"], 60) as program:
        program.ask(f"boardsize {size}")
        for position, (color, point) in zip(records.replay(game), game.moves, strict=False):
            name = "black" if color == BLACK else "white"
            legal = program.ask(f"all_legal {name}").split()
            ours = {rules.to_vertex(size, p) for p in rules.legal_moves(position)}
            assert set(legal) == ours
            for side, stones in ((BLACK, "black"), (WHITE, "white")):
                listed = program.ask(f"list_stones {stones}").split()
                here = {
                    rules.to_vertex(size, p) for p, c in enumerate(position.stones) if c == side
                }
                assert set(listed) == here
            program.ask(f"play {name} {rules.to_vertex(size, point)}")
