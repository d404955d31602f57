"""Numbers and names as messages say them."""

import unicodedata

_UNSEEN = ("Cc", "Cs", "Zl", "Zp")  # control characters, halves of pairs, and breaks of lines


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """A number of things: `1 picture`, `2,000 pictures`; the plural by default with an s."""
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"


def on_one_line(name: str) -> str:
    """A name with escapes, such as `\\n`, for characters that break a line or steer a terminal."""
    return "".join(
        char.encode("unicode_escape").decode() if unicodedata.category(char) in _UNSEEN else char
        for char in name
    )
