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
            "problems": str(c.n_problems),
            "W1/range": c.score,
            "skill": c.skill,
            "low": c.skill_interval[0],
            "high": c.skill_interval[1],
            "CRPS/range": c.crps,
            "cover 50%": c.cover50,
            "cover 90%": c.cover90,
            "width 90%": c.width90,
            "interval score 90%": c.interval90,
            "basin accuracy": c.basin_accuracy,
            "Brier": c.brier,
            "best trivial": c.best_trivial,
        }
        for c in cells
    ]


def figure_benchmark(cells: Sequence[Cell], *, n_runs: int | None = None) -> Figure:
    """Draw the skill of every method in every family and horizon, as a heat map.

    Parameters
    ----------
    cells : sequence of Cell
    n_runs : int, optional
        Which number of observed runs; the smallest by default.
    """
    from matplotlib.figure import Figure

    runs = min(c.runs for c in cells) if n_runs is None else n_runs
    chosen = [c for c in cells if c.runs == runs and c.method not in TRIVIAL]
    columns = list(dict.fromkeys((c.family, c.horizon) for c in chosen))
    methods = list(dict.fromkeys(c.method for c in chosen))
    table = np.full((len(methods), len(columns)), np.nan)
    for c in chosen:
        table[methods.index(c.method), columns.index((c.family, c.horizon))] = c.skill
    with styled():
        figure = Figure(figsize=(2.6 + 0.75 * len(columns), 1.4 + 0.3 * len(methods)))
        axis = figure.subplots()
        image = axis.imshow(table, cmap="cividis", vmin=-0.5, vmax=1.0, aspect="auto")
        for i in range(len(methods)):
            for j in range(len(columns)):
                if np.isfinite(table[i, j]):
                    colour = "black" if table[i, j] > 0.4 else "white"
                    text = f"{max(table[i, j], -9.99):.2f}"
                    axis.text(j, i, text, ha="center", va="center", color=colour, fontsize=8)
        axis.set_xticks(range(len(columns)), [f"{f}\n{h}" for f, h in columns])
        axis.set_yticks(range(len(methods)), methods)
        axis.grid(False)
        axis.set_title(f"skill over the best trivial forecast, {runs} observed run(s)")
        figure.colorbar(image, ax=axis, shrink=0.8, label="skill")
        return figure
