"""Tables and progress on a terminal; plain text where there is none."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from itertools import takewhile
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from rich.console import JustifyMethod

    from sgdmc.forecasting.forecast import Forecast

__all__ = ["Progress", "cell_text", "forecast_rows", "print_table"]

# Sizes of numbers that four digits after the point suit.
_SMALLEST, _LARGEST = 1e-4, 1e6
# Characters a line where there is no terminal.
_PLAIN_WIDTH = 140
# Columns of text do not wrap for being as narrow as this.
_MIN_LABEL = 16
# Coordinates of a start that a brief row writes out.
_MAX_WRITTEN = 4


def print_table(rows: Sequence[Mapping[str, str | float | None]], *, title: str) -> None:
    """Print rows as a table; columns that are None throughout are left out.

    Columns that do not fit the width (of the terminal; 140 elsewhere) go into tables below, each
    with the leading columns of text again. Numbers are never cut: text and heads wrap between
    words, and a table that is too wide with a single column of numbers is printed as it is.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    terminal = sys.stdout.isatty()
    shown = Console().width if terminal else _PLAIN_WIDTH
    keys = [k for k in rows[0] if any(row[k] is not None for row in rows)]
    cells = {k: [cell_text(row[k]) for row in rows] for k in keys}
    texts = [k for k in keys if all(isinstance(row[k], str) for row in rows)]
    labels = list(takewhile(lambda k: k in texts, keys))
    least = {k: _least_width(k, cells[k], wraps=k in texts) for k in keys}
    for part in _parts(least, labels, shown):
        table = Table(
            title=title if part == keys[: len(part)] else None,
            title_justify="left",
            box=box.SIMPLE_HEAD if terminal else box.ASCII2,
            title_style="bold",
        )
        width = max(shown, _table_width(least, part))
        room = width - _table_width(least, part)
        for key in part:
            # Widths are given: left to itself, rich narrows numbers as much as text.
            spare = min(room, max(map(len, [key, *cells[key]])) - least[key])
            room -= spare
            side: JustifyMethod = "left" if key in labels else "right"
            table.add_column(key, justify=side, width=least[key] + spare)
        for row in zip(*(cells[key] for key in part), strict=True):
            table.add_row(*row)
        Console(width=width).print(table)


def _parts(least: Mapping[str, int], labels: list[str], width: int) -> list[list[str]]:
    """Share the columns out among as few tables of a width as order allows."""
    parts: list[list[str]] = [labels]
    for key in list(least)[len(labels) :]:
        if parts[-1] == labels or _table_width(least, [*parts[-1], key]) <= width:
            parts[-1] = [*parts[-1], key]
        else:
            parts.append([*labels, key])
    return parts


def _table_width(least: Mapping[str, int], keys: Sequence[str]) -> int:
    # A blank on both sides of a cell, a line on both sides of a column.
    return 1 + sum(least[key] + 3 for key in keys)


def _least_width(head: str, cells: Sequence[str], *, wraps: bool) -> int:
    whole = max(map(len, cells))
    if wraps:
        words = [word for text in cells for word in text.split()]
        whole = min(whole, max(_MIN_LABEL, *map(len, words)))
    return max(whole, *map(len, head.split()))


class Progress:
    """A progress bar on standard error, shown only on a terminal.

    Examples
    --------
    >>> with Progress(3, "problems") as bar:
    ...     bar.advance()
    """

    def __init__(self, total: int, unit: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar

        console = Console(stderr=True)
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(unit, total=total)

    def __enter__(self) -> Progress:
        """Show the bar."""
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take the bar away, also after an error."""
        self._bar.stop()

    def advance(self, n: int = 1) -> None:
        """Say that ``n`` more are done."""
        self._bar.advance(self._task, n)

    def show(self, done: int, total: int) -> None:
        """Say that ``done`` of ``total`` are done."""
        self._bar.update(self._task, completed=done, total=total)


def cell_text(value: str | float | None) -> str:
    """Write what a cell of a table holds: four digits after the point, or five in all."""
    if value is None:
        return "–"
    if isinstance(value, str):
        return value
    plain = value == 0 or _SMALLEST <= abs(value) < _LARGEST
    return f"{value:.4f}" if plain else f"{value:.5g}"


def forecast_rows(result: Forecast, *, brief: bool = False) -> list[dict[str, str | float | None]]:
    """Return one dictionary a start and coordinate; brief ones write few coordinates of a start."""
    low_high = result.interval(0.9)
    minima = result.minima
    rows: list[dict[str, str | float | None]] = []
    for a, start in enumerate(result.starts):
        written = [f"{v:.6g}" for v in start]
        if brief and len(written) > _MAX_WRITTEN:
            written[_MAX_WRITTEN:] = ["…"]
        for i, name in enumerate(result.names):
            rows.append(
                {
                    "start": ", ".join(written),
                    "coordinate": name,
                    "median": float(np.median(result.predictive[a, :, i])),
                    "low 5%": float(low_high[a, 0, i]),
                    "high 95%": float(low_high[a, 1, i]),
                    "most likely": float(minima[a, i]),
                }
            )
    return rows
