"""A page of HTML that needs nothing but itself: text, tables and pictures in, a string out."""

import base64
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

_NARROW = "screen and (max-width: 45rem)"  # a phone
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff; margin: 0 auto;
  max-width: 76rem; padding: 1rem; }
h1, h2, h3 { line-height: 1.2; }
h1, h2, h3, p, li { overflow-wrap: anywhere; }
h2 { border-top: 4px solid #222; margin-top: 3rem; padding-top: 1rem; }
p { max-width: 46rem; }
nav ul { padding-left: 1.2rem; }
nav li li { display: inline-block; margin-right: 1rem; }
.scroll { margin: 1rem 0; overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid #ccc; padding: 0.35rem 0.6rem; text-align: right;
  vertical-align: bottom; white-space: nowrap; }
th:first-child, .text { text-align: left; }
thead th { min-width: 4.2rem; white-space: normal; }
td.text { min-width: 8rem; white-space: normal; }
tbody th { border-left: 0.5rem solid transparent; font-weight: normal; min-width: 8rem;
  overflow-wrap: anywhere; white-space: normal; }
.pictures { display: flex; flex-wrap: wrap; gap: 1rem 2rem; }
figure { flex: 1 1 24rem; margin: 0; max-width: 32rem; min-width: 0; }
figure.wide { flex-basis: 100%; max-width: 100%; }
img { height: auto; width: 100%; }
figure.wide img { max-width: 60rem; }
figcaption { font-size: 0.9rem; max-width: 46rem; }
@media NARROW {
  figure { flex-basis: 100%; }
  table, tbody, tr, td, tbody th { display: block; }
  thead { display: none; }
  tbody tr { margin-bottom: 1rem; }
  tbody td, td.text { display: flex; gap: 1rem; justify-content: space-between; min-width: 0;
    white-space: normal; }
  tbody td:empty { display: none; }
  td::before { color: #555; content: attr(data-head); text-align: left; }
  tbody th { background: #eee; font-weight: bold; }
}
@media print {
  body { font-size: 11pt; max-width: none; }
  figure, tr { break-inside: avoid; }
  figure:not(.wide) { flex: 0 1 46%; }
  h2, h3 { break-after: avoid; }
  figure.wide img { max-height: 20cm; object-fit: contain; object-position: left; }
  .scroll { overflow: visible; }
  table { font-size: 7.5pt; }
  th, td { padding: 0.2rem 0.3rem; white-space: normal; }
}
""".replace("NARROW", _NARROW)


class Picture(NamedTuple):
    """A PNG on the page."""

    png: bytes
    alt: str  # for those who do not see it
    caption: str  # how to read it
    narrow: bytes | None = None  # of a wide picture, what a narrow screen shows in its place


class Entry(NamedTuple):
    """A line of the list of contents."""

    name: str  # of the heading it leads to
    text: str
    below: Sequence["Entry"] = ()


def page(title: str, *parts: str) -> str:
    """The whole document; the parts are HTML, the title is text."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{escape(title)}</h1>\n" + "\n".join(parts) + "\n</body>\n</html>\n"
    )


def heading(text: str, level: int, name: str, color: str | None = None) -> str:
    """A heading of level 2 or 3.

    Args:
        name: of this place on the page, for the list of contents; one word.
        color: of the line above it.
    """
    style = f' style="border-color: {color}"' if color else ""
    return f'<h{level} id="{name}"{style}>{escape(text)}</h{level}>'


def contents(entries: Sequence[Entry]) -> str:
    """A list of links to headings."""
    return f"<nav>\n{_entries(entries)}\n</nav>"


def _entries(entries: Sequence[Entry]) -> str:
    lines = (
        f'<li><a href="#{name}">{escape(text)}</a>{_entries(below) if below else ""}</li>'
        for name, text, below in entries
    )
    return "<ul>\n" + "\n".join(lines) + "\n</ul>"


def paragraph(text: str) -> str:
    """A paragraph."""
    return f"<p>{escape(text)}</p>"


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    words: Sequence[int] = (),
    colors: Sequence[str] = (),
) -> str:
    """A table; each row's first cell is its heading, the others are numbers, aligned right.

    On a narrow screen each row is a list, a line a column.

    Args:
        words: columns of words, aligned left.
        colors: of a mark beside each row; none where there are none.
    """
    marks = [f' style="border-left-color: {color}"' for color in colors] or [""] * len(rows)
    kinds = [' class="text"' if i in words else "" for i in range(len(head))]
    heads = "".join(
        f'<th scope="col"{kind}>{escape(cell)}</th>' for kind, cell in zip(kinds, head, strict=True)
    )
    lines = [
        f'<tr><th scope="row"{mark}>{escape(first)}</th>'
        + "".join(
            f'<td{kind} data-head="{escape(name)}">{escape(cell)}</td>'
            for kind, name, cell in zip(kinds[1:], head[1:], others, strict=True)
        )
        + "</tr>"
        for mark, (first, *others) in zip(marks, rows, strict=True)
    ]
    return (
        f'<div class="scroll" tabindex="0"><table>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n'
        + "\n".join(lines)
        + "\n</tbody>\n</table></div>"
    )


def pictures(shown: Sequence[Picture]) -> str:
    """Pictures side by side where there is room."""
    return '<div class="pictures">\n' + "\n".join(map(_figure, shown)) + "\n</div>"


def _figure(picture: Picture) -> str:
    image = f'<img src="{_address(picture.png)}" alt="{escape(picture.alt)}">'
    kind = ""
    if picture.narrow is not None:
        kind = ' class="wide"'
        other = f'<source media="{_NARROW}" srcset="{_address(picture.narrow)}">'
        image = f"<picture>{other}{image}</picture>"
    return f"<figure{kind}>{image}<figcaption>{escape(picture.caption)}</figcaption></figure>"


def _address(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
