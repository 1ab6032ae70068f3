"""Figures of studies: scaling laws by spectral gap (the paper's Fig. 5), the benchmark's skills."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sgdmc.forecasting.baselines import TRIVIAL
from sgdmc.forecasting.benchmark import Cell
from sgdmc.forecasting.scaling import (
    InContextCurve,
    PowerLaw,
    fit_power_law,
    in_context_curve,
    two_state_chain,
)
from sgdmc.show.style import COLOURS, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "GAPS",
    "ScalingStudy",
    "benchmark_rows",
    "figure_benchmark",
    "figure_scaling",
    "scaling_study",
]

GAPS = (0.05, 0.1, 0.2, 0.5, 1.0, 1.5, 1.9)
_SHOWN = {"llm": "llm", "Krichevsky–Trofimov": "counts", "Laplace": "dirichlet"}


@dataclass(frozen=True)
class ScalingStudy:
    """In-context curves of two-state chains and the power laws fitted to them.

    Attributes
    ----------
    curves : dict of float to InContextCurve
        Keyed by ``rho = p + q``.
    laws : dict of (float, str) to PowerLaw
        Keyed by ``rho`` and estimator.
    """

    curves: dict[float, InContextCurve]
    laws: dict[tuple[float, str], PowerLaw]

    def rows(self) -> list[dict[str, str | float | None]]:
        """Return one dictionary a chain and estimator."""
        return [
            {
                "rho": f"{rho:g}",
                "estimator": name,
                "beta": law.beta,
                "low": law.beta_interval[0],
                "high": law.beta_interval[1],
                "a": law.a,
                "last loss": float(self.curves[rho].losses[name][:, -1].mean()),
            }
            for (rho, name), law in self.laws.items()
        ]


def scaling_study(
    *,
    model: str = "shipped",
    gaps: Sequence[float] = GAPS,
    longest: int = 1000,
    n_repeats: int = 10,
    rng: int = 0,
    on_done: Callable[[], None] | None = None,
) -> ScalingStudy:
    """Measure in-context curves of two-state chains and fit ``a t^(−beta)`` to them.

    Parameters
    ----------
    model : str
        As in :func:`sgdmc.estimate_kernel`.
    gaps : sequence of float
        Values of ``rho = p + q`` in (0, 2).
    longest : int
        Longest context, in symbols.
    n_repeats : int
        Paths a chain.
    rng : int
        Covers every draw.
    on_done : callable, optional
        Called after each chain.
    """
    lengths = np.unique(np.geomspace(10, longest, 9).astype(int))
    curves, laws = {}, {}
    for k, rho in enumerate(gaps):
        curve = in_context_curve(
            two_state_chain(rho),
            model=model,
            lengths=lengths,
            n_repeats=n_repeats,
            rng=np.random.default_rng([rng, k]),
        )
        curves[rho] = curve
        for name in _SHOWN:
            laws[rho, name] = fit_power_law(lengths, curve.losses[name], rng=rng)
        if on_done:
            on_done()
    return ScalingStudy(curves, laws)


def figure_scaling(study: ScalingStudy) -> Figure:
    """Draw losses against context length, and the exponent against ``rho``."""
    from matplotlib.figure import Figure

    with styled():
        figure = Figure(figsize=(9.2, 3.6))
        left, right = figure.subplots(1, 2)
        for k, (rho, curve) in enumerate(study.curves.items()):
            mean = curve.losses["llm"].mean(axis=0)
            left.loglog(curve.lengths, mean, "o-", color=f"C{k}", label=f"ρ = {rho:g}")
        left.set(
            xlabel="symbols seen", ylabel="Bhattacharyya distance", title="language model, by ρ"
        )
        left.legend(ncols=2)
        for name, colour in _SHOWN.items():
            laws = {rho: law for (rho, which), law in study.laws.items() if which == name}
            beta = np.array([law.beta for law in laws.values()])
            bounds = np.array([law.beta_interval for law in laws.values()])
            gaps = np.abs(bounds - beta[:, None]).T
            right.errorbar(
                list(laws), beta, yerr=gaps, fmt="o-", color=COLOURS[colour], label=name, capsize=2
            )
        right.set(xlabel="ρ = p + q  (1 − λ₂)", ylabel="exponent β", title="loss ≈ a · length^(−β)")
        right.legend()
        return figure


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
