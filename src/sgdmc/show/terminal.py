"""Tables and progress on a terminal; plain text where there is none."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from sgdmc.forecasting.forecast import Forecast

__all__ = ["Progress", "cell_text", "forecast_rows", "print_table"]

# Sizes of numbers that four digits after the point suit.
_SMALLEST, _LARGEST = 1e-4, 1e6
# Coordinates of a start that a brief row writes out.
_MAX_WRITTEN = 4


def print_table(rows: Sequence[Mapping[str, str | float | None]], *, title: str) -> None:
    """Print rows as a table; columns that are None throughout are left out."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    terminal = sys.stdout.isatty()
    console = Console(width=None if terminal else 140)
    table = Table(
        title=title,
        title_justify="left",
        box=box.SIMPLE_HEAD if terminal else box.ASCII2,
        title_style="bold",
    )
    keys = [k for k in rows[0] if any(row[k] is not None for row in rows)]
    for j, key in enumerate(keys):
        table.add_column(key, justify="left" if j == 0 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(cell_text(row[k]) for k in keys))
    console.print(table)


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
                    "median": float(np.median(result.samples[a, :, i])),
                    "low 5%": float(low_high[a, 0, i]),
                    "high 95%": float(low_high[a, 1, i]),
                    "most likely": float(minima[a, i]),
                }
            )
    return rows
