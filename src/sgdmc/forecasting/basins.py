"""Several limits: runs that ended in different places are different chains, met by chance.

No product of one-coordinate kernels can send a start to one of two minima as a whole. Runs are
grouped by where they ended, each group has a kernel of its own, and a start belongs to a group with
the probability that the gradient's field, as the runs leave it open, takes it there.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from sgdmc.forecasting.gradient import GradientKernel
from sgdmc.forecasting.paths import ranges_of, tail_of

__all__ = ["BasinKernel", "ascent_from_limits", "group_by_tail", "mix_draws"]

Array = NDArray[np.float64]

_APART = 8.0
_SHARE_OF_RANGE = 0.05
# Standard errors by which a run must go away from another's limit.
_NOT_CONVEX = 3.5
# Stretches of a run in that test, and the steps beside them from which their noise is taken.
_STRETCHES, _WINDOW = 16, 10
# Draws of the field a start.
_N_DRAWS = 12
# A draw that ends farther than this from every tail, in ranges and in spreads of the tail, is lost.
_LOST, _LOST_SPREADS = 0.35, 4.0
# Power of the probabilities in draws from the law.
_SHARPENED = 4.0


def group_by_tail(paths: Sequence[Array]) -> NDArray[np.int64]:
    """Group runs whose last fifths lie together, where the loss is not convex.

    Two runs belong together if, in some chain of runs, the means of neighbours' tails differ by
    less than eight times the tails' own spread, or a twentieth of the range, in every coordinate.
    Limits that differ are basins only if some run goes away from another's limit: all runs are one
    group where :func:`ascent_from_limits` is below 3.5 (a line of minimisers, or runs that were
    cut off), and where there are more groups than three and than half of the runs.

    Parameters
    ----------
    paths : sequence of ndarray, each (T_c, dim)

    Returns
    -------
    ndarray of int, shape (n_runs,)
        Labels 0, 1, …, by first appearance.
    """
    width = ranges_of(paths)
    tails = [tail_of(p) / width for p in paths]
    means = np.stack([t.mean(axis=0) for t in tails])
    spread = np.stack([t.std(axis=0) for t in tails])
    reach = np.maximum(_APART * (spread[:, None] + spread[None]) / 2, _SHARE_OF_RANGE)
    gaps = np.abs(means[:, None] - means[None])
    near = (gaps < reach).all(axis=2)
    labels = np.arange(len(tails))
    for _ in range(len(tails)):
        labels = np.array([labels[row].min() for row in near])
    labels = np.unique(labels, return_inverse=True)[1].astype(np.int64)
    few = 1 < int(labels.max()) + 1 <= max(3, len(tails) // 2)
    if few and ascent_from_limits(paths, labels) > _NOT_CONVEX:
        return labels
    return np.zeros(len(tails), dtype=np.int64)


def ascent_from_limits(paths: Sequence[Array], labels: NDArray[np.int64]) -> float:
    """How clearly some run moves away from where a run of another group ended.

    Gradients of a convex function are monotone, ``(∇f(x) − ∇f(y))·(x − y) ≥ 0``: seen from the
    tail of any run, the mean steps of all others, less that of the tail, lead nearer.

    Parameters
    ----------
    paths : sequence of ndarray, each (T_c, dim)
        Of iterates whose mean step is minus a gradient times the step size.
    labels : ndarray of int, shape (n_runs,)
        Only runs of different groups are compared.

    Returns
    -------
    float
        The largest statistic over all stretches of runs: in standard errors, at least 0. Below 2
        for convex losses, as their true values are negative.
    """
    clearest = 0.0
    for path, label in zip(paths, labels, strict=True):
        tail = tail_of(path)
        limit, steps = tail.mean(axis=0), len(tail) - 1
        rest, doubt = (tail[-1] - tail[0]) / steps, _covariance(tail) / steps
        for other in (p for p, own in zip(paths, labels, strict=True) if own != label):
            edges = np.unique(np.geomspace(1, len(other), _STRETCHES + 1).astype(int) - 1)
            for a, b in itertools.pairwise(edges):
                away = other[a:b].mean(axis=0) - limit
                noise = _covariance(other[max(0, a - _WINDOW) : b + _WINDOW]) / (b - a)
                ascent = float(((other[b] - other[a]) / (b - a) - rest) @ away)
                variance = float(away @ (noise + doubt) @ away)
                clearest = max(clearest, ascent / np.sqrt(variance + 1e-300))
    return clearest


def _covariance(path: Array) -> Array:
    """Covariance of the steps of a stretch."""
    steps = np.diff(path, axis=0)
    steps = steps - steps.mean(axis=0)
    return np.asarray(steps.T @ steps / max(len(steps) - 1, 1))


@final
@dataclass(frozen=True)
class BasinKernel:
    """A mixture of kernels, one a group of runs that ended together.

    Attributes
    ----------
    kernels : tuple
        One a group, each knowing its own runs.
    field : GradientKernel
        Of all runs: tells which group a start joins, and draws from where it takes starts that
        come to none.
    labels : ndarray, shape (n_runs,), int
        Group of each run.
    names, paths, lag, method, completion, notes
        As in :class:`sgdmc.Kernel`; ``paths`` are all runs.
    """

    kernels: tuple[Any, ...]
    field: GradientKernel
    labels: NDArray[np.int64]
    names: tuple[str, ...]
    paths: tuple[Array, ...]
    lag: int
    method: str
    completion: str
    notes: tuple[str, ...] = ()
    coupling: str = "basins"

    @classmethod
    def of(
        cls, kernels: Sequence[Any], labels: NDArray[np.int64], paths: tuple[Array, ...]
    ) -> BasinKernel:
        """Join kernels of groups of runs."""
        first = kernels[0]
        field = GradientKernel.fit(paths, lag=first.lag, names=first.names)
        note = (
            f"{len(kernels)} groups of runs by where they ended; which of them a start joins is "
            "told by a Gaussian process for the gradient"
        )
        return cls(
            tuple(kernels),
            field,
            labels,
            first.names,
            paths,
            first.lag,
            first.method,
            first.completion,
            (note, *(n for k in kernels for n in k.notes)),
        )

    def probabilities(self, starts: Array) -> Array:
        """Probability of each kernel from each start: (n_starts, n_groups + 1), rows sum to one.

        Shares of draws of the field that lead to the tails of a group; the last column is those
        that lead to none.
        """
        width = self.field.field.width
        steps = max(len(p) for p in self.paths) - 1
        rng = np.random.default_rng(0)
        ends = self.field.ends(starts, steps, _N_DRAWS, rng)
        tails = [tail_of(p) / width for p in self.paths]
        spread = np.stack([np.linalg.norm(t.std(axis=0)) for t in tails])
        means = np.stack([t.mean(axis=0) for t in tails])
        gaps = np.linalg.norm((ends / width)[:, :, None] - means, axis=3)
        nearest = gaps.argmin(axis=2)
        lost = gaps.min(axis=2) > np.maximum(_LOST, _LOST_SPREADS * spread[nearest])
        n_groups = len(self.kernels)
        group = np.where(lost, n_groups, self.labels[nearest])
        counts = (group[:, :, None] == np.arange(n_groups + 1)).sum(axis=1)
        return np.asarray((counts + 0.1) / (_N_DRAWS + 0.1 * (n_groups + 1)))

    def advance(
        self, starts: Array, *, n_steps: int, n_chains: int, rng: np.random.Generator
    ) -> Array:
        """Draw from the mixture ``n_steps`` after each start: (n_starts, n_chains, dim).

        Kernels have the fourth powers of their probabilities, normalised: which basin a start lies
        in is mostly unknown rather than random. The probabilities themselves are those of
        :attr:`sgdmc.forecasting.forecast.Forecast.predictive`.
        """
        draws = np.stack(
            [
                kernel.advance(starts, n_steps=n_steps, n_chains=n_chains, rng=rng)
                for kernel in (*self.kernels, self.field)
            ]
        )
        odds = self.probabilities(starts) ** _SHARPENED
        return mix_draws(draws, odds / odds.sum(axis=1, keepdims=True), rng)


def mix_draws(draws: Array, probabilities: Array, rng: np.random.Generator) -> Array:
    """Mix draws (n_groups, n_starts, n_chains, dim) by probabilities (n_starts, n_groups)."""
    n_starts, n_chains = draws.shape[1:3]
    edges = np.cumsum(probabilities, axis=1)
    # Stratified: each group has its share of the chains of a start, up to one.
    points = (np.arange(n_chains) + rng.random((n_starts, 1))) / n_chains
    group = (points[:, :, None] >= edges[:, None, :-1]).sum(axis=2)
    rows, columns = np.indices(group.shape)
    return np.asarray(draws[group, rows, columns])
