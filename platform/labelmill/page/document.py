"""One HTML file with everything in it: no script, nothing fetched from elsewhere, fit for a phone and a dark room."""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib.resources import files

__all__ = ["Section", "beside", "document", "figures", "folded", "sections", "table", "tiles"]


@dataclass(frozen=True)
class Section:
    """A part of a long page: `anchor` is its address there, `title` what the list of contents says. Both, and `body`,
    are markup already."""

    anchor: str
    title: str
    body: str


def document(title: str, body: Sequence[str]) -> str:
    """The page. `title` is escaped here; the parts of `body` are markup already, all that came from outside escaped.

    Its own policy forbids scripts and every load, so that markup which slipped through could do nothing.
    """
    style = _style()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{style}</style></head>"
        f"<body>{''.join(body)}</body></html>"
    )


@cache
def _style() -> str:
    return files("labelmill.page").joinpath("page.css").read_text("utf-8")


def sections(parts: Sequence[Section]) -> str:
    """The parts one after the other, and before them where each is to be found."""
    links = "".join(f'<a href="#{part.anchor}">{part.title}</a>' for part in parts)
    bodies = "".join(f'<section id="{part.anchor}"><h2>{part.title}</h2>{part.body}</section>' for part in parts)
    return f"<nav>{links}</nav>{bodies}"


def folded(summary: str, body: str) -> str:
    """What is shown when somebody asks for it. Both are markup already."""
    return f"<details><summary>{summary}</summary>{body}</details>"


def tiles(cells: Sequence[tuple[str, str]]) -> str:
    """Figures that say most, large: (value, what it is). Both are escaped already."""
    inner = "".join(f'<div class="tile"><b>{value}</b><span>{what}</span></div>' for value, what in cells)
    return f'<div class="tiles">{inner}</div>'


def figures(charts: Sequence[tuple[str, str]], *, dense: bool = False) -> str:
    """Charts side by side: (svg, caption), more of them in a row when `dense`. Captions are escaped already."""
    inner = "".join(f"<figure>{svg}<figcaption>{caption}</figcaption></figure>" for svg, caption in charts)
    look = " dense" if dense else " even" if len(charts) % 2 == 0 else ""
    return f'<div class="charts{look}">{inner}</div>'


def beside(left: str, right: str) -> str:
    """Two parts side by side where there is room. Both are markup already; one may be empty."""
    return f'<div class="beside"><div>{left}</div><div>{right}</div></div>' if left and right else left or right


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table that scrolls sideways where it must, without a head when all of its words are empty. Cells are escaped
    already."""
    words = "".join(f"<th>{word}</th>" for word in head) if any(head) else ""
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return (
        f'<div class="scroll"><table>{f"<thead><tr>{words}</tr></thead>" if words else ""}'
        f"<tbody>{body}</tbody></table></div>"
    )
