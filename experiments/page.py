"""The report's page: one HTML file with its pictures in it."""

import base64
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
       color: #111; background: #fff; }
h1, h2, h3 { line-height: 1.2; }
h2 { margin-top: 3rem; border-bottom: 1px solid #999; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 0.9rem; }
th, td { padding: 0.25rem 0.7rem; text-align: right; border-bottom: 1px solid #ccc; }
th:nth-child(-n+3), td:nth-child(-n+3) { text-align: left; }
figure { margin: 1.5rem 0; break-inside: avoid; }
img { max-width: 100%; height: auto; }
figcaption { max-width: 45rem; color: #333; }
"""


class Picture(NamedTuple):
    """A picture and what it shows."""

    name: str  # of its file, without .png
    title: str
    caption: str  # how to read it
    png: bytes


class Section(NamedTuple):
    """What the page says of one workdir."""

    title: str
    lines: list[str]
    pictures: list[Picture]


def render(
    title: str, header: Sequence[str], rows: Sequence[Sequence[str]], sections: Sequence[Section]
) -> str:
    """The whole page; all texts are escaped here.

    Args:
        header, rows: of the table that comes first.
    """
    parts = [f"<h1>{escape(title)}</h1>", _table(header, rows)]
    for section in sections:
        parts.append(f"<h2>{escape(section.title)}</h2>")
        parts += [f"<p>{escape(line)}</p>" for line in section.lines]
        parts += [_figure(picture) for picture in section.pictures]
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>\n" for row in rows
    )
    return f'<div class="wide"><table>\n<tr>{head}</tr>\n{body}</table></div>'


def _figure(picture: Picture) -> str:
    data = base64.b64encode(picture.png).decode()
    return (
        f"<figure>\n<h3>{escape(picture.title)}</h3>\n"
        f'<img alt="{escape(picture.title)}" src="data:image/png;base64,{data}">\n'
        f"<figcaption>{escape(picture.caption)}</figcaption>\n</figure>"
    )
