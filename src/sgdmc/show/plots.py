"""The three pictures of a forecast: the run, the kernel, the forecast against the truth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from sgdmc.chain.kernel import Kernel
from sgdmc.forecasting.forecast import Forecast
from sgdmc.forecasting.held import FieldKernel
from sgdmc.sgd.run import Run
from sgdmc.show.style import COLOURS, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_forecast", "plot_kernel", "plot_run", "save_figure"]

_MAX_STARTS = 60
_MAX_DRAWS = 30
# Coordinates that a legend names, and panels of a kernel beside each other.
_MAX_NAMED, _MAX_BESIDE = 8, 4


def plot_run(run: Run, *, title: str = "Observed run") -> Figure:
    """Draw every coordinate of a run against the step, and the first two against each other."""
    from matplotlib.figure import Figure

    with styled():
        n_panels = 2 if run.dim > 1 else 1
        figure = Figure(figsize=(4.6 * n_panels, 3.2))
        axes = np.atleast_1d(np.asarray(figure.subplots(1, n_panels)))
        for c, path in enumerate(run.paths):
            for i, name in enumerate(run.names):
                label = name if c == 0 and i < _MAX_NAMED else None
                axes[0].plot(path[:, i], color=f"C{i}", lw=0.8, label=label)
            if run.dim > 1:
                axes[1].plot(path[:, 0], path[:, 1], color=COLOURS["run"], lw=0.7, alpha=0.8)
                axes[1].plot(*path[0, :2], "o", color=COLOURS["run"])
                axes[1].plot(*path[-1, :2], "s", color=COLOURS["truth"])
        axes[0].set(xlabel="step", ylabel="parameter", title=title)
        if run.dim > _MAX_NAMED:
            axes[0].plot([], [], " ", label=f"and {run.dim - _MAX_NAMED} more")
        axes[0].legend()
        if run.dim > 1:
            axes[1].set(
                xlabel=run.names[0], ylabel=run.names[1], title="circle: start, square: end"
            )
        return figure


def plot_kernel(kernel: Kernel | FieldKernel, *, title: str | None = None) -> Figure:
    """Draw each block as a heat map; rows that no run visited are marked on the left edge.

    Of a kernel whose means follow a field these are the rows that tell its scatter.

    Colours are the square roots of the probabilities, so that thin rows stay visible.
    """
    from matplotlib.figure import Figure

    if isinstance(kernel, FieldKernel):
        kernel = kernel.rows
    with styled():
        beside = min(kernel.dim, _MAX_BESIDE)
        lines = -(-kernel.dim // beside)
        figure = Figure(figsize=(4.2 * beside, 3.8 * lines))
        axes = np.atleast_1d(np.asarray(figure.subplots(lines, beside))).ravel()
        for axis in axes[kernel.dim :]:
            axis.set_visible(False)
        n = kernel.n_states
        for i, axis in enumerate(axes[: kernel.dim]):
            axis.imshow(
                np.sqrt(kernel.blocks[i]), origin="lower", aspect="auto", interpolation="nearest"
            )
            missing = np.flatnonzero(~kernel.observed[i])
            if len(missing):
                axis.plot(
                    np.full(len(missing), -0.03 * n),
                    missing,
                    "_",
                    color=COLOURS["run"],
                    markersize=5,
                    clip_on=False,
                    label="row never visited",
                )
                axis.legend(loc="upper left", labelcolor="white")
            where = "" if kernel.coordinates.is_identity else " (rotated)"
            axis.set(
                xlim=(-0.06 * n, n),
                xlabel="next state",
                ylabel="present state",
                title=f"{kernel.names[i] if not where else f'coordinate {i + 1}'}{where}",
            )
            axis.grid(False)
        label = {"none": "unfilled"}.get(kernel.completion, kernel.completion)
        figure.suptitle(title or f"Kernel: {kernel.method}, lag {kernel.lag}, {label}")
        return figure


def plot_forecast(
    forecast: Forecast, *, truth: ArrayLike | None = None, title: str | None = None
) -> Figure:
    """Draw the 90% interval of each start, coordinate by coordinate, and real outcomes over it.

    Parameters
    ----------
    forecast : Forecast
    truth : array_like, shape (n_starts, n_truth, dim), optional
        Real outcomes from the same starts.
    title : str, optional

    Raises
    ------
    ValueError
        If ``truth`` has another shape.
    """
    from matplotlib.figure import Figure

    shown = np.linspace(0, len(forecast.starts) - 1, min(_MAX_STARTS, len(forecast.starts)))
    picks = np.unique(shown.astype(int))
    low_high = forecast.interval(0.9)[picks]
    middle = np.median(forecast.predictive[picks], axis=1)
    real = None
    if truth is not None:
        outcomes, (n_starts, dim) = np.asarray(truth, dtype=np.float64), forecast.starts.shape
        if outcomes.ndim != 3 or (len(outcomes), outcomes.shape[2]) != (n_starts, dim):
            raise ValueError(
                f"truth must have shape ({n_starts}, n_truth, {dim}), outcomes of each start; got "
                f"{outcomes.shape}."
            )
        real = outcomes[picks]
    with styled():
        dim = len(forecast.names)
        figure = Figure(figsize=(8.6, 2.3 * dim + 0.6))
        axes = np.atleast_1d(np.asarray(figure.subplots(dim, 1, sharex=True)))
        for i, axis in enumerate(axes):
            order = np.argsort(forecast.starts[picks, i])
            at = np.arange(len(picks))
            axis.vlines(
                at,
                low_high[order, 0, i],
                low_high[order, 1, i],
                color=COLOURS["llm"],
                alpha=0.45,
                lw=4,
                label="forecast, 90%",
            )
            axis.plot(at, middle[order, i], "_", color=COLOURS["llm"], markersize=7)
            axis.plot(
                at,
                forecast.starts[picks, i][order],
                ".",
                color=COLOURS["faint"],
                label="start",
                markersize=3,
            )
            if real is not None:
                draws = real[order, :_MAX_DRAWS, i]
                axis.plot(
                    np.repeat(at, draws.shape[1]) + 0.25,
                    draws.ravel(),
                    ".",
                    color=COLOURS["truth"],
                    alpha=0.35,
                    markersize=2,
                    label="real SGD",
                )
            axis.set(ylabel=forecast.names[i])
        axes[0].set(title=title or f"{forecast.n_steps} steps ahead ({forecast.kernel.method})")
        axes[0].legend(ncols=3, loc="upper right", bbox_to_anchor=(1.0, 1.22))
        axes[-1].set(xlabel="unseen starts, in order of the coordinate")
        return figure


def save_figure(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write a figure as PNG and SVG; returns the two paths."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for suffix in (".png", ".svg"):
        path = folder / f"{name}{suffix}"
        with styled():
            metadata = {"Date": None} if suffix == ".svg" else None
            figure.savefig(path, metadata=metadata)
        written.append(path)
    return written
