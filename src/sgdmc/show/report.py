"""A self-contained HTML report: text, tables and pictures in one file that reads offline."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sgdmc.show.style import styled
from sgdmc.show.terminal import cell_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Report"]

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.55 system-ui, sans-serif; max-width: 60rem; }
body { margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.25rem; margin-top: 2.4rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92rem; }
th, td { padding: .25rem .8rem .25rem 0; text-align: right; border-bottom: 1px solid #8886; }
th:first-child, td:first-child { text-align: left; }
figure { margin: 1.2rem 0; } img { max-width: 100%; height: auto; background: #fff; }
figcaption, .note { color: #777; font-size: .9rem; }
"""


@dataclass
class Report:
    """Sections collected in order and written as one page.

    Examples
    --------
    >>> report = Report("Forecast")
    >>> report.text("One run of 1000 steps.")
    >>> "<h1>Forecast</h1>" in report.page()
    True
    """

    title: str
    parts: list[str] = field(default_factory=list)

    def heading(self, text: str) -> None:
        """Open a section."""
        self.parts.append(f"<h2>{html.escape(text)}</h2>")

    def text(self, text: str) -> None:
        """Add a paragraph."""
        self.parts.append(f"<p>{html.escape(text)}</p>")

    def notes(self, lines: Sequence[str]) -> None:
        """Add a list of remarks."""
        items = "".join(f"<li>{html.escape(line)}</li>" for line in lines)
        self.parts.append(f'<ul class="note">{items}</ul>')

    def table(self, rows: Sequence[Mapping[str, str | float | None]], *, best: str = "") -> None:
        """Add a table; columns that are None throughout are left out."""
        keys = [k for k in rows[0] if any(row[k] is not None for row in rows)]
        head = "".join(f"<th>{html.escape(k)}</th>" for k in keys)
        body = "".join(
            "<tr>"
            + "".join(f"<td>{_cell(row[k], row[keys[0]] == best)}</td>" for k in keys)
            + "</tr>"
            for row in rows
        )
        self.parts.append(
            '<div class="wide"><table>'
            f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        )

    def figure(self, figure: Figure, *, caption: str) -> None:
        """Add a picture, embedded in the page; the caption is its alternative text too."""
        stream = io.BytesIO()
        with styled():
            figure.savefig(stream, format="png")
        data = base64.b64encode(stream.getvalue()).decode("ascii")
        text = html.escape(caption)
        self.parts.append(
            f'<figure><img alt="{text}" src="data:image/png;base64,{data}">'
            f"<figcaption>{text}</figcaption></figure>"
        )

    def page(self) -> str:
        """Return the page's HTML."""
        title = html.escape(self.title)
        return (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{title}</title><style>{_STYLE}</style></head>\n<body><h1>{title}</h1>\n"
            + "\n".join(self.parts)
            + "\n</body></html>\n"
        )

    def write(self, path: Path) -> Path:
        """Write the page to ``path``."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.page(), encoding="utf-8")
        return path


def _cell(value: str | float | None, strong: bool) -> str:
    text = html.escape(cell_text(value))
    return f"<b>{text}</b>" if strong else text
