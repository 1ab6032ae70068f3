"""The figures of Zekri, Benechehab and Redko (2024), each with the exact truth beside it.

:mod:`sgdmc.show.paper_studies` and, for Fig. 5, :mod:`sgdmc.show.paper_scaling` compute what is
drawn here.
"""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sgdmc.forecasting.baselines import TRIVIAL
from sgdmc.show.paper_scaling import ScalingStudy
from sgdmc.show.paper_studies import (
    EXACT,
    LLM,
    ForecastStudy,
    MethodStudy,
    RegimeStudy,
    basin_probability,
)
from sgdmc.show.style import COLOURS, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "figure_convex",
    "figure_method",
    "figure_nonconvex",
    "figure_regimes",
    "figure_scaling",
]

Array = NDArray[np.float64]

# Names and colours of Fig. 5.
_READERS = {
    "llm": (LLM, COLOURS["llm"]),
    "counts": ("counts", COLOURS["counts"]),
    "Laplace": ("Bayes, uniform prior", COLOURS["dirichlet"]),
    "Krichevsky–Trofimov": ("Bayes, Jeffreys prior", COLOURS["exact"]),
}


def figure_method(study: MethodStudy) -> Figure:
    """Draw the method (Fig. 1) in eight panels: run, text, digits, row, kernels, forecasts."""
    from matplotlib.figure import Figure

    i, lag, path = study.coordinate, study.bare.lag, study.run.paths[0]
    edges = study.bare.grid.edges[i]
    centres = (edges[:-1] + edges[1:]) / 2
    name = study.run.names[i]
    with styled():
        figure = Figure(figsize=(11.5, 5.6))
        axes = figure.subplots(2, 4).ravel()
        axes[0].plot(path[:, i], color=COLOURS["run"], lw=0.6)
        axes[0].plot(np.arange(0, len(path), lag), path[::lag, i], ".", color=COLOURS["truth"])
        axes[0].set(xlabel="step", ylabel=name, title=f"1  every {lag}th iterate")
        _draw_text(axes[1], study.text)
        _draw_tree(axes[2], study.digit_laws)
        near = np.flatnonzero(study.next_law + study.next_true > 1e-3)
        shown = slice(near[0], near[-1] + 1)
        axes[3].fill_between(
            centres[shown],
            study.next_true[shown],
            color=COLOURS["faint"],
            alpha=0.5,
            step="mid",
            label="SGD itself",
        )
        axes[3].step(
            centres[shown], study.next_law[shown], color=COLOURS["llm"], where="mid", label=LLM
        )
        axes[3].set(xlabel=f"next {name}", ylabel="probability", title="4  law of the next number")
        # Room above the histogram for the names.
        axes[3].set_ylim(0, 1.35 * max(study.next_true[shown].max(), study.next_law[shown].max()))
        axes[3].legend(loc="upper right")
        visited = np.where(study.bare.observed[i][:, None], study.bare.blocks[i], np.nan)
        panels = (visited, study.filled.blocks[i], study.exact)
        titles = ("5  rows that were visited", f"6  filled: {study.filled.completion}", "7  exact")
        for axis, block, title in zip(axes[4:7], panels, titles, strict=True):
            _draw_block(axis, block, title)
        _draw_laws(axes[7], study)
        return figure


def figure_regimes(studies: Sequence[RegimeStudy]) -> Figure:
    """Draw runs and visited rows of both coordinates, read and exact (Fig. 2); a row a regime."""
    from matplotlib.figure import Figure

    with styled():
        figure = Figure(figsize=(12.5, 2.9 * len(studies)))
        axes = figure.subplots(len(studies), 6, squeeze=False)
        for row, study in zip(axes, studies, strict=True):
            for i, name in enumerate(study.run.names):
                row[0].plot(study.run.iterates[0, :, i], lw=0.8, color=f"C{i}", label=name)
            row[0].set(xlabel="step", ylabel="parameter", title=study.name)
            row[0].legend()
            row[1].semilogy(study.loss, lw=0.8, color=COLOURS["run"], label="run")
            if study.least_loss > 1e-12 * study.loss[0]:
                row[1].axhline(study.least_loss, color=COLOURS["truth"], ls="--", label="least")
            row[1].set(xlabel="step", ylabel="training loss", title="loss")
            row[1].legend()
            for i, name in enumerate(study.run.names):
                seen = study.kernel.observed[i][:, None]
                read, true = row[2 + 2 * i], row[3 + 2 * i]
                title = f"{name}: {LLM}\nW1 to exact {study.w1[i]:.4f}"
                _draw_block(read, np.where(seen, study.kernel.blocks[i], np.nan), title)
                _draw_block(
                    true,
                    np.where(seen, study.exact[i], np.nan),
                    f"{name}: exact\nlag {study.kernel.lag}",
                )
        return figure


def figure_convex(studies: Sequence[ForecastStudy], *, n_shown: int = 8) -> Figure:
    """Draw forecast, exact and real laws from some unseen starts (Fig. 3), a column an instance.

    Thin lines are 90% intervals, thick ones 50%; titles give ``W1/range`` over all starts.

    Parameters
    ----------
    studies : sequence of ForecastStudy
    n_shown : int
        Starts drawn.
    """
    from matplotlib.figure import Figure

    with styled():
        figure = Figure(figsize=(3.2 * len(studies), 5.2))
        axes = figure.subplots(2, len(studies), squeeze=False)
        for column, study in zip(axes.T, studies, strict=True):
            starts = study.forecasts[LLM].starts
            for i, axis in enumerate(column):
                order = np.argsort(starts[:, i])
                picks = order[np.linspace(0, len(order) - 1, min(n_shown, len(order))).astype(int)]
                axis.plot(starts[picks, i], ".", color=COLOURS["faint"], label="start")
                for k, (label, draws, colour) in enumerate(_draws(study)):
                    at = np.arange(len(picks)) + 0.2 * (k - 1)
                    _draw_intervals(axis, at, draws[picks, :, i], COLOURS[colour], label)
                axis.set(ylabel=study.run.names[i], xlabel="unseen start", xticks=[])
            column[0].set_title(f"{study.name}\n{_scores(study)}", fontsize="small")
        axes[0, 0].legend(fontsize="x-small")
        return figure


def figure_nonconvex(studies: Sequence[ForecastStudy]) -> Figure:
    """Draw where SGD ends among several basins, forecast and real (Fig. 4).

    Above, draws over the observed runs; below, the probability of the first basin by start against
    that of real SGD.

    Parameters
    ----------
    studies : sequence of ForecastStudy
        On the same task and starts; the exact kernel is drawn from the last.
    """
    from matplotlib.figure import Figure

    last = studies[-1]
    real = basin_probability(last.truth, last.task)
    panels = [(s.name, s.forecasts[LLM].samples, LLM, s) for s in studies]
    panels.append((EXACT, last.forecasts[EXACT].samples, EXACT, last))
    with styled():
        figure = Figure(figsize=(3.3 * len(panels), 6.2))
        axes = figure.subplots(2, len(panels))
        for (name, draws, key, study), above, below in zip(panels, *axes, strict=True):
            for k, path in enumerate(study.run.paths if key == LLM else ()):
                label = "observed run" if k == 0 else None
                above.plot(*path.T, lw=0.5, color=COLOURS["run"], alpha=0.5, label=label)
            _draw_ends(above, study.truth, COLOURS["faint"], "real SGD")
            _draw_ends(above, draws, COLOURS["llm" if key == LLM else "exact"], key)
            minima = np.asarray(study.task.minima)
            above.plot(*minima.T, "x", color=COLOURS["truth"], label="minima")
            above.set(xlabel=study.run.names[0], ylabel=study.run.names[1])
            above.set_title(f"{name}\n{_scores(study, key)}", fontsize="small")
            below.plot([0, 1], [0, 1], lw=0.8, color=COLOURS["faint"])
            found = basin_probability(draws, study.task)
            below.plot(real, found, "o", color=COLOURS["llm" if key == LLM else "exact"])
            below.set(xlabel="real probability of the first basin", ylabel="forecast")
            brier = {score.name: float(score.brier or 0.0) for score in study.table.scores}
            best = min(TRIVIAL, key=brier.__getitem__)
            text = f"Brier {brier[key]:.3f}, SGD itself {brier['SGD itself, other seeds']:.3f}"
            below.set_title(f"{text}\n{best} {brier[best]:.3f}", fontsize="small")
        axes[0, 0].legend(fontsize="x-small")
        return figure


def figure_scaling(study: ScalingStudy) -> Figure:
    """Draw losses against context length by ``rho``, and their exponents (Fig. 5).

    A panel a chain: the language model's mean loss with 95% intervals of the mean, lines of the
    exact expected losses of counting and of two Bayes estimators with dots for their means on the
    model's own paths, and dashed ``1/(4t)``, where they all tend: a row of two states costs
    ``1/(8N)`` after ``N ≈ t/2`` visits. In the last panel, the exponents of the fitted power laws
    with 95% intervals, and lines for those fitted to the exact losses.
    """
    from matplotlib.figure import Figure

    n_columns = min(4, len(study.curves) + 1)
    n_lines = -(-(len(study.curves) + 1) // n_columns)
    with styled():
        figure = Figure(figsize=(2.9 * n_columns, 2.7 * n_lines + 0.4))
        axes = figure.subplots(n_lines, n_columns, squeeze=False).ravel()
        panels, last, spare = np.split(axes, [len(study.curves), len(study.curves) + 1])
        for axis in spare:
            axis.remove()
        for axis, rho in zip(panels, study.curves, strict=True):
            _draw_losses(axis, study, rho)
        _draw_exponents(last[0], study)
        limits = np.array([axis.get_ylim() for axis in panels])
        for k, axis in enumerate(panels):
            axis.set_ylim(limits[:, 0].min(), limits[:, 1].max())
            axis.set_ylabel("" if k % n_columns else "Bhattacharyya distance")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=n_columns + 1)
        return figure


def _draws(study: ForecastStudy) -> list[tuple[str, Array, str]]:
    return [
        ("forecast", study.forecasts[LLM].samples, "llm"),
        ("exact kernel", study.forecasts[EXACT].samples, "exact"),
        ("real SGD", study.truth, "truth"),
    ]


def _scores(study: ForecastStudy, key: str = LLM) -> str:
    best = study.best_trivial
    others = f"exact {study.table[EXACT].w1:.3f}, " if key == LLM else ""
    return f"W1/range {study.table[key].w1:.3f}\n{others}{best.name} {best.w1:.3f}"


def _draw_intervals(
    axis: Axes, at: NDArray[np.floating[Any]], draws: Array, colour: str, label: str
) -> None:
    for level, width in ((0.9, 1.0), (0.5, 3.0)):
        low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=1)
        axis.vlines(at, low, high, color=colour, lw=width, label=label if level < 0.9 else "")
    axis.plot(at, np.median(draws, axis=1), "_", color=colour, ms=5)


def _draw_ends(axis: Axes, draws: Array, colour: str, label: str, n: int = 15) -> None:
    points = draws[:, :n].reshape(-1, draws.shape[2])
    axis.plot(*points.T, ".", ms=2, alpha=0.6, color=colour, label=label)


def _draw_block(axis: Axes, block: Array, title: str) -> None:
    axis.imshow(np.sqrt(block), origin="lower", aspect="auto", interpolation="nearest", vmax=1)
    axis.set_facecolor("#dddddd")
    axis.grid(False)
    axis.set(xlabel="next state", ylabel="present state")
    axis.set_title(title, fontsize="small")


def _draw_text(axis: Axes, text: str, *, width: int = 24, n_lines: int = 12) -> None:
    """Write a series as the model reads it; the middle is left out where it is long."""
    lines = wrap(text.replace(",", ", "), width, break_long_words=False)
    lines = [line.replace(", ", ",") for line in lines]
    if len(lines) > n_lines:
        half = n_lines // 2
        lines = [*lines[:half], "…", *lines[1 - half :]]
    for k, line in enumerate(lines):
        axis.text(0, -k, line, family="monospace", fontsize="small", va="center")
    axis.set(ylim=(0.7 - n_lines, 0.7), xlim=(0, 1), title="2  the text")
    axis.set_axis_off()


def _draw_tree(axis: Axes, laws: Sequence[Array]) -> None:
    """Draw the digit tree of the next number; below the likeliest digit it goes on."""
    parent = 4.5
    for level, law in enumerate(laws):
        for digit, chance in enumerate(law):
            axis.plot(
                [level, level + 0.9],
                [parent, digit],
                color=COLOURS["llm"],
                lw=5 * chance,
                alpha=0.5,
            )
            axis.text(
                level + 0.95,
                digit,
                str(digit),
                ha="center",
                va="center",
                fontsize="small",
                alpha=float(0.35 + 0.65 * min(1.0, 3 * chance)),
            )
        parent = float(law.argmax())
    axis.set(xlim=(-0.1, len(laws) + 0.1), xlabel="digit of the next number", ylabel="its value")
    axis.set(xticks=np.arange(len(laws)) + 0.95, xticklabels=range(1, len(laws) + 1))
    axis.set(title="3  logits of the next number", yticks=[])
    axis.grid(False)


def _draw_laws(axis: Axes, study: MethodStudy) -> None:
    """Draw forecast laws (lines) over those of real runs (shaded), a colour a start."""
    i = study.coordinate
    bins = study.filled.grid.edges[i][::2]
    for k, (ahead, real) in enumerate(zip(study.ahead.samples, study.truth, strict=True)):
        kind = {"bins": bins, "density": True, "color": f"C{k}"}
        axis.hist(real[:, i], alpha=0.3, label="SGD itself" if k == 0 else None, **kind)
        label = "forecast" if k == 0 else None
        axis.hist(ahead[:, i], histtype="step", label=label, **kind)
    axis.set(xlabel=study.run.names[i], ylabel="density")
    axis.set(title=f"8  {study.ahead.n_steps} steps after unseen starts")
    axis.legend()


def _draw_losses(axis: Axes, study: ScalingStudy, rho: float) -> None:
    curve = study.curves[rho]
    for name, (label, colour) in _READERS.items():
        losses = curve.losses[name]
        mean = losses.mean(axis=0)
        if name == "llm":
            bars = np.maximum(0, np.array([[-1], [1]]) * (_mean_interval(losses) - mean))
            axis.errorbar(
                curve.lengths, mean, yerr=bars, fmt="o-", color=colour, label=label, capsize=2
            )
        else:
            axis.plot(curve.lengths, study.expected[rho, name], color=colour, label=label)
            axis.plot(curve.lengths, mean, ".", color=colour, alpha=0.5)
    axis.plot(
        curve.lengths, 1 / (4 * curve.lengths), "--", color=COLOURS["truth"], lw=1, label="1/(4t)"
    )
    axis.set(xscale="log", yscale="log", xlabel="symbols seen, t")
    axis.set_title(f"ρ = {rho:g}, gap {min(rho, 2 - rho):g}")


def _mean_interval(losses: Array, *, n_bootstrap: int = 500) -> Array:
    """95% bootstrap interval (2, k) of the mean over repeats (n, k); its ends are positive."""
    picks = np.random.default_rng(0).integers(len(losses), size=(n_bootstrap, len(losses)))
    return np.asarray(np.quantile(losses[picks].mean(axis=1), [0.025, 0.975], axis=0))


def _draw_exponents(axis: Axes, study: ScalingStudy) -> None:
    rhos = list(study.curves)
    at = np.arange(len(rhos))
    for k, (name, (label, colour)) in enumerate(_READERS.items()):
        laws = [study.laws[rho, name] for rho in rhos]
        beta, bounds = np.array([x.beta for x in laws]), np.array([x.beta_interval for x in laws])
        # A bootstrap interval of few paths need not hold the estimate, and bars have lengths.
        bars = np.maximum(0, np.array([beta - bounds[:, 0], bounds[:, 1] - beta]))
        axis.errorbar(
            at + 0.16 * (k - 1.5), beta, yerr=bars, fmt="o", ms=3, color=colour, label=label
        )
        if name != "llm":
            axis.plot(at, [study.expected_laws[rho, name].beta for rho in rhos], color=colour)
    axis.axhline(1, color=COLOURS["truth"], ls="--", lw=1)
    axis.set_xticks(at, [f"{rho:g}" for rho in rhos])
    axis.set(xlabel="ρ = p + q = 1 − λ₂", ylabel="exponent β", title="loss ≈ a t^(−β)")
