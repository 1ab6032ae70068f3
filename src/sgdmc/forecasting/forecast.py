"""Forecasts: where SGD is, and where it ends, from starts that were never run."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sgdmc._core import validate
from sgdmc._core.words import counted
from sgdmc.chain.kernel import JointKernel, Kernel
from sgdmc.forecasting.predictive import predictive_draws

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Forecast", "Forecaster", "StartOutsideWarning", "forecast"]


class StartOutsideWarning(UserWarning):
    """A start lies where the run never was: its forecast rests on steps seen elsewhere."""


class Forecaster(Protocol):
    """Anything that draws from SGD's law some steps after a start."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parameters."""

    @property
    def paths(self) -> tuple[NDArray[np.float64], ...]:
        """The observed runs."""

    @property
    def lag(self) -> int:
        """SGD steps of one kernel step."""

    @property
    def method(self) -> str:
        """How the kernel was made."""

    def advance(
        self, starts: NDArray[np.float64], *, n_steps: int, n_chains: int, rng: np.random.Generator
    ) -> NDArray[np.float64]:
        """Draw (n_starts, n_chains, dim) parameters ``n_steps`` after the starts."""


@dataclass(frozen=True)
class Forecast:
    """Laws of SGD at a horizon, one a start.

    Attributes
    ----------
    kernel : Kernel, JointKernel, SteppedKernel, GradientKernel or FieldKernel
        What the forecast was made with.
    starts : ndarray, shape (n_starts, dim)
    n_steps : int
        Horizon, in recorded steps of the run.
    samples : ndarray, shape (n_starts, n_chains, dim)
        Draws of the parameter at the horizon.
    seed : int
        Seed of every draw, here and in :meth:`law`.
    """

    kernel: Any
    starts: NDArray[np.float64]
    n_steps: int
    samples: NDArray[np.float64]
    seed: int

    def __repr__(self) -> str:
        n_starts, n_chains, _ = self.samples.shape
        return (
            f"Forecast({counted(self.n_steps, 'step')} from {counted(n_starts, 'start')}, "
            f"{counted(n_chains, 'draw')} each; {self.kernel!r})"
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parameters."""
        names: tuple[str, ...] = self.kernel.names
        return names

    def at(self, n_steps: int) -> NDArray[np.float64]:
        """Draws at another step: (n_starts, n_chains, dim)."""
        return np.asarray(
            self.kernel.advance(
                self.starts,
                n_steps=n_steps,
                n_chains=self.samples.shape[1],
                rng=np.random.default_rng([self.seed, n_steps]),
            )
        )

    def law(self, t: int, *, n_bins: int = 100) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the law of each parameter ``t`` steps after each start as a histogram.

        Returns
        -------
        probabilities : ndarray, shape (n_starts, dim, n_bins)
        edges : ndarray, shape (dim, n_bins + 1)
            Bin edges in parameter units, common to all starts.
        """
        draws = self.samples if t == self.n_steps else self.at(t)
        dim = draws.shape[2]
        edges = np.empty((dim, n_bins + 1))
        out = np.empty((len(draws), dim, n_bins))
        for i in range(dim):
            edges[i] = np.histogram_bin_edges(draws[:, :, i], bins=n_bins)
            for a in range(len(draws)):
                out[a, i] = np.histogram(draws[a, :, i], bins=edges[i])[0] / draws.shape[1]
        return out, edges

    @cached_property
    def minima(self) -> NDArray[np.float64]:
        """Where each start most likely ends: the densest of its draws, shape (n_starts, dim).

        The densest draw is the one whose ``sqrt(n_chains)``-th nearest neighbour is closest, in
        units of each parameter's spread over all draws.
        """
        from scipy.spatial import cKDTree

        spread = self.samples.reshape(-1, self.samples.shape[2]).std(axis=0)
        scale = np.where(spread > 0, spread, 1.0)
        k = max(2, int(np.sqrt(self.samples.shape[1])))
        out = np.empty_like(self.starts)
        for a, draws in enumerate(self.samples):
            points = draws / scale
            reach = np.asarray(cKDTree(points).query(points, k=min(k, len(points)))[0])
            out[a] = draws[int(np.argmin(reach.reshape(len(points), -1)[:, -1]))]
        return out

    @cached_property
    def predictive(self) -> NDArray[np.float64]:
        """Draws that also carry the uncertainty of the kernel: (n_starts, n_chains, dim).

        Each chain is moved and stretched by a draw of how far the kernel may be off
        (:func:`sgdmc.forecasting.predictive.predictive_draws`).
        """
        return predictive_draws(
            self.kernel, self.starts, self.samples, n_steps=self.n_steps, seed=self.seed
        )

    def interval(self, level: float = 0.9) -> NDArray[np.float64]:
        """Central intervals of probability ``level``: shape (n_starts, 2, dim).

        They cover SGD's own noise and the uncertainty of the kernel (:attr:`predictive`), that of
        basins no run has seen among it, unless ``convex`` was told to
        :func:`sgdmc.estimate_kernel`: then they are narrower.
        """
        if not 0 < level < 1:
            raise ValueError(f"level must lie in (0, 1); got {level}.")
        tails = [(1 - level) / 2, (1 + level) / 2]
        return np.moveaxis(np.quantile(self.predictive, tails, axis=1), 0, 1)

    def plot(self, truth: ArrayLike | None = None) -> Figure:
        """Draw the forecast beside the observed runs (and real runs, where given)."""
        from sgdmc.show.plots import plot_forecast

        return plot_forecast(self, truth=truth)


def forecast(
    kernel: Forecaster,
    starts: ArrayLike,
    *,
    n_steps: int,
    n_chains: int = 1000,
    rng: int | np.random.SeedSequence | np.random.Generator | None = None,
) -> Forecast:
    """Forecast SGD's law ``n_steps`` after each start: ``mu_T = mu_0 Q^(T/lag)``.

    Parameters
    ----------
    kernel : Kernel, JointKernel or SteppedKernel
        From :func:`sgdmc.estimate_kernel` or :func:`sgdmc.exact_kernel`.
    starts : array_like, shape (n_starts, dim) or (dim,)
        Finite parameters.
    n_steps : int
        Horizon in recorded steps of the run, at least 0. A horizon that is no multiple of the
        kernel's lag mixes the two neighbouring multiples.
    n_chains : int
        Draws a start.
    rng : int, SeedSequence, Generator or None
        Covers every draw.

    Returns
    -------
    Forecast

    Warns
    -----
    StartOutsideWarning
        If a start lies outside the range of the observed runs: says how far, and what is done.

    Raises
    ------
    TypeError
        If a count is not an integer.
    ValueError
        If there is no start, one is not finite or has the wrong number of coordinates, or a count
        is too small.
    """
    points = np.atleast_2d(np.asarray(starts, dtype=np.float64))
    dim = len(kernel.names)
    if points.ndim != 2 or points.shape[1] != dim:
        raise ValueError(
            f"starts must have {dim} coordinates {tuple(kernel.names)}; got shape {points.shape}."
        )
    if not len(points):
        raise ValueError("starts must hold at least one; got none.")
    if not np.isfinite(points).all():
        a, i = (int(v) for v in np.argwhere(~np.isfinite(points))[0])
        raise ValueError(f"starts must be finite; got {points[a, i]} at {(a, i)}.")
    n_steps = validate.as_int("n_steps", n_steps, minimum=0)
    n_chains = validate.as_int("n_chains", n_chains, minimum=1)
    _warn_outside(kernel, points)
    generator = np.random.default_rng(rng)
    seed = int(generator.integers(2**63))
    samples = kernel.advance(
        points, n_steps=n_steps, n_chains=n_chains, rng=np.random.default_rng([seed, n_steps])
    )
    return Forecast(kernel, points, n_steps, samples, seed)


def _warn_outside(kernel: Forecaster, starts: NDArray[np.float64]) -> None:
    if isinstance(kernel, JointKernel):
        # An exact kernel knows its whole grid, visited or not.
        low, high = kernel.grid.edges[:, 0], kernel.grid.edges[:, -1]
    elif kernel.paths:
        values = np.concatenate(kernel.paths)
        low, high = values.min(axis=0), values.max(axis=0)
    else:
        return
    width = np.where(high > low, high - low, np.maximum(np.abs(high), 1e-300))
    beyond = np.maximum(low - starts, starts - high) / width
    outside = (beyond > 0).any(axis=1)
    if not outside.any():
        return
    a, i = np.unravel_index(int(beyond.argmax()), beyond.shape)
    if isinstance(kernel, Kernel | JointKernel):
        rest = "rows that no run visited; starts beyond the grid begin at its edge"
    else:
        rest = "steps that were seen elsewhere"
    warnings.warn(
        f"{int(outside.sum())} of {len(starts)} starts lie outside the observed range; the "
        f"furthest, start {a}, by {beyond[a, i]:.2g} ranges in '{kernel.names[i]}'. Their "
        f"forecasts rest on {rest}. Observe a run from there, or read them with care.",
        StartOutsideWarning,
        stacklevel=3,
    )
