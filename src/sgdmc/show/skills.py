"""Rows and heat map of a finished benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sgdmc.forecasting.baselines import TRIVIAL
from sgdmc.forecasting.benchmark import Cell
from sgdmc.show.style import styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["benchmark_rows", "figure_benchmark"]


def benchmark_rows(cells: Sequence[Cell]) -> list[dict[str, str | float | None]]:
    """Return one dictionary a cell, for tables and CSV files."""
    return [
        {
            "family": c.family,
            "runs": str(c.runs),
            "horizon": str(c.horizon),
            "method": c.method,
            "W1/range": c.score,
            "skill": c.skill,
            "low": c.skill_interval[0],
            "high": c.skill_interval[1],
            "CRPS/range": c.crps,
            "CRPS skill": c.crps_skill,
            "cover 50%": c.cover50,
            "cover 90%": c.cover90,
            "width 90%": c.width90,
            "interval score 90%": c.interval90,
            "basin accuracy": c.basin_accuracy,
            "Brier": c.brier,
            "best trivial": c.best_trivial,
            "problems": str(c.n_problems),
        }
        for c in cells
    ]


def figure_benchmark(cells: Sequence[Cell], *, n_runs: int | None = None) -> Figure:
    """Draw the skill of every method in every family and horizon, as heat maps.

    Parameters
    ----------
    cells : sequence of Cell
        Those of trivial forecasts are left out: their skill is at most zero.
    n_runs : int, optional
        One number of observed runs; by default a panel for each, side by side.

    Raises
    ------
    ValueError
        If no cell of a forecast that is not trivial has that number of runs.
    """
    from matplotlib.figure import Figure

    drawn = [c for c in cells if c.method not in TRIVIAL]
    runs = sorted({c.runs for c in drawn})
    if not runs or (n_runs is not None and n_runs not in runs):
        raise ValueError(f"n_runs must be among those of the cells, {runs}; got {n_runs}.")
    runs = runs if n_runs is None else [n_runs]
    drawn = [c for c in drawn if c.runs in runs]
    columns = list(dict.fromkeys((c.family, c.horizon) for c in drawn))
    methods = list(dict.fromkeys(c.method for c in drawn))
    tables = np.full((len(runs), len(methods), len(columns)), np.nan)
    for c in drawn:
        at = runs.index(c.runs), methods.index(c.method), columns.index((c.family, c.horizon))
        tables[at] = c.skill
    # Inches: names, panels (a title needs width, however few the columns), bar.
    width = 0.09 * max(map(len, methods)) + len(runs) * max(1.7, 0.5 * len(columns)) + 1.2
    with styled():
        figure = Figure(figsize=(width, max(2.6, 1.2 + 0.3 * len(methods))))
        axes = figure.subplots(1, len(runs), squeeze=False, sharey=True)[0]
        for axis, m, table in zip(axes, runs, tables, strict=True):
            image = axis.imshow(table, cmap="cividis", vmin=-0.5, vmax=1.0, aspect="auto")
            for (i, j), skill in np.ndenumerate(table):
                if np.isfinite(skill):
                    text = f"{skill:.2f}" if skill > -9.995 else "< −10"
                    colour = "black" if skill > 0.4 else "white"
                    axis.text(j, i, text, ha="center", va="center", color=colour, fontsize=8)
            axis.set_xticks(range(len(columns)), [f"{f}\n{h}" for f, h in columns], fontsize=8)
            axis.set_yticks(range(len(methods)), methods)
            axis.grid(False)
            axis.set_title(f"{m} observed run" + "s" * (m > 1))
        figure.colorbar(
            image,
            ax=axes,
            label="skill over the best trivial",
            extend="min",
            fraction=0.4 / width,
            pad=0.15 / width,
        )
        return figure
