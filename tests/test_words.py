"""Numbers and names as messages say them."""

import pytest

from mnist_jax.words import counted, on_one_line


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 pictures"), (1, "1 picture"), (2, "2 pictures"), (1234, "1,234 pictures")],
)
def test_counts(count, text):
    assert counted(count, "picture") == text
    assert counted(count, "pass", "passes") == text.replace("picture", "pass").replace(
        "passs", "passes"
    )


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("cat.png", "cat.png"),
        ("größe 猫 \u202f\xa0.png", "größe 猫 \u202f\xa0.png"),  # spaces that macOS writes, too
        ("a\nb\tc\r\x1b[2J\x7f\x85", r"a\nb\tc\r\x1b[2J\x7f\x85"),
        ("a\u2028b\u2029", r"a\u2028b\u2029"),
        ("\udcff", r"\udcff"),  # a byte that is not UTF-8
        ("C:\\new", "C:\\new"),
    ],
)
def test_names_are_one_line(name, line):
    assert on_one_line(name) == line
    assert len(on_one_line(name).splitlines()) == 1
