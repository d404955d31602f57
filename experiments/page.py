"""A page of HTML that needs nothing but itself: text, tables and pictures in, a string out."""

import base64
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff; margin: 0 auto;
  max-width: 1080px; padding: 1rem; }
h1, h2, h3 { line-height: 1.2; overflow-wrap: anywhere; }
h2 { border-top: 2px solid #222; margin-top: 3rem; padding-top: 1rem; }
p { max-width: 46rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid #ccc; padding: 0.35rem 0.6rem; text-align: right;
  vertical-align: bottom; white-space: nowrap; }
th:first-child, .text { text-align: left; }
thead th { min-width: 4.2rem; white-space: normal; }
td.text { min-width: 9rem; white-space: normal; }
tbody th { font-weight: normal; }
.pictures { display: flex; flex-wrap: wrap; gap: 1rem 2rem; }
figure { flex: 1 1 24rem; margin: 0; max-width: 32rem; min-width: 0; }
figure.wide { flex-basis: 100%; max-width: 100%; }
img { height: auto; width: 100%; }
figure.wide img { max-width: 60rem; min-width: 44rem; }
figcaption { font-size: 0.9rem; max-width: 46rem; }
@media print {
  body { font-size: 11pt; max-width: none; }
  figure, tr { break-inside: avoid; }
  figure:not(.wide) { flex: 0 1 46%; }
  h2, h3 { break-after: avoid; }
  figure.wide img { max-height: 20cm; min-width: 0; object-fit: contain; object-position: left; }
  .scroll { overflow: visible; }
  table { font-size: 7.5pt; }
  th, td { padding: 0.2rem 0.3rem; white-space: normal; }
}
"""


class Picture(NamedTuple):
    """A PNG on the page."""

    png: bytes
    alt: str  # for those who do not see it
    caption: str  # how to read it
    wide: bool = False  # takes the whole width; scrolls on a narrow screen


def page(title: str, *parts: str) -> str:
    """The whole document; the parts are HTML, the title is text."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{escape(title)}</h1>\n" + "\n".join(parts) + "\n</body>\n</html>\n"
    )


def heading(text: str, level: int) -> str:
    """A heading of level 2 or 3."""
    return f"<h{level}>{escape(text)}</h{level}>"


def paragraph(text: str) -> str:
    """A paragraph."""
    return f"<p>{escape(text)}</p>"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], words: Sequence[int] = ()) -> str:
    """A table; each row's first cell is its heading, the others are numbers, aligned right.

    Args:
        words: columns of words, aligned left.
    """
    kinds = [' class="text"' if i in words else "" for i in range(len(head))]
    heads = "".join(
        f'<th scope="col"{kind}>{escape(cell)}</th>' for kind, cell in zip(kinds, head, strict=True)
    )
    lines = [
        f'<tr><th scope="row">{escape(first)}</th>'
        + "".join(
            f"<td{kind}>{escape(cell)}</td>" for kind, cell in zip(kinds[1:], others, strict=True)
        )
        + "</tr>"
        for first, *others in rows
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
    source = f"data:image/png;base64,{base64.b64encode(picture.png).decode()}"
    image = f'<img src="{source}" alt="{escape(picture.alt)}">'
    kind = ' class="wide"' if picture.wide else ""
    if picture.wide:
        image = f'<div class="scroll" tabindex="0">{image}</div>'
    return f"<figure{kind}>{image}<figcaption>{escape(picture.caption)}</figcaption></figure>"
