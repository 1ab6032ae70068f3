"""Several limits: runs that ended in different places are different chains, met by chance.

No product of one-coordinate kernels can send a start to one of two minima as a whole. Runs are
grouped by where they ended, each group has a kernel of its own, and a start belongs to a group with
a probability: the mean of what its nearest runs vote and of where local lines, which step all
coordinates together, take it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from sgdmc.forecasting.stepped import stepped_kernel
from sgdmc.forecasting.var import lagged_pairs, var1_fit

__all__ = ["BasinKernel", "group_by_tail", "mix_draws"]

Array = NDArray[np.float64]

_TAIL_SHARE = 0.2
_APART = 8.0
_SHARE_OF_RANGE = 0.05
_WIDTHS = (0.02, 0.04, 0.08, 0.16, 0.32)
_POINTS_A_RUN = 200
_N_CHAINS = 40
# Power of the probabilities in draws from the law.
_SHARPENED = 4.0


def group_by_tail(paths: Sequence[Array], *, lag: int = 1) -> NDArray[np.int64]:
    """Group runs whose last fifths lie together.

    Two runs belong together if, in some chain of runs, the means of neighbours' tails differ by
    less than eight times the tails' own spread, or a twentieth of the range, in every coordinate.
    All runs are one group where there are more groups than three and than a third of the runs:
    limits that differ from run to run are a continuum, as on a line of minimisers, and not basins;
    and where one linear law explains the steps of all runs as well as one law a group does, by the
    Bayesian information criterion.

    Parameters
    ----------
    paths : sequence of ndarray, each (T_c, dim)
    lag : int
        Steps of a kernel step.

    Returns
    -------
    ndarray of int, shape (n_runs,)
        Labels 0, 1, …, by first appearance.
    """
    values = np.concatenate(list(paths))
    width = np.ptp(values, axis=0)
    width = np.where(width > 0, width, 1.0)
    tails = [p[len(p) - max(2, round(_TAIL_SHARE * len(p))) :] / width for p in paths]
    means = np.stack([t.mean(axis=0) for t in tails])
    spread = np.stack([t.std(axis=0) for t in tails])
    reach = np.maximum(_APART * (spread[:, None] + spread[None]) / 2, _SHARE_OF_RANGE)
    gaps = np.abs(means[:, None] - means[None])
    near = (gaps < reach).all(axis=2)
    labels = np.arange(len(tails))
    for _ in range(len(tails)):
        labels = np.array([labels[row].min() for row in near])
    labels = np.unique(labels, return_inverse=True)[1].astype(np.int64)
    few = int(labels.max()) + 1 <= max(3, len(tails) // 3)
    if few and _laws_differ([p / width for p in paths], labels, lag):
        return labels
    return np.zeros(len(tails), dtype=np.int64)


def _laws_differ(paths: Sequence[Array], labels: NDArray[np.int64], lag: int) -> bool:
    """Whether a linear law for each group explains the steps better than one, by BIC."""
    dim = paths[0].shape[1]

    def score(members: NDArray[np.int64]) -> tuple[float, float]:
        before, after = lagged_pairs([paths[k] for k in members], lag)
        law = var1_fit(before, after, lag=lag)
        # Errors below a thousandth of the range are below the bins: they must not decide.
        variance = (law.residuals**2).mean(axis=0) + 1e-6
        n = len(before) / lag
        return -0.5 * n * float(np.log(variance).sum()), n

    long = np.array([k for k, p in enumerate(paths) if len(p) > lag])
    whole, n = score(long)
    parts = [long[labels[long] == g] for g in range(int(labels.max()) + 1)]
    separate = sum(score(part)[0] for part in parts if len(part))
    extra = (len(parts) - 1) * dim * (dim + 1)
    return bool(separate - whole > 0.5 * extra * np.log(max(n, 2.0)))


@final
@dataclass(frozen=True)
class BasinKernel:
    """A mixture of kernels, one a group of runs that ended together.

    Attributes
    ----------
    kernels : tuple
        One a group, each knowing its own runs.
    labels : ndarray, shape (n_runs,), int
        Group of each run.
    names, paths, lag, method, completion, notes
        As in :class:`sgdmc.Kernel`; ``paths`` are all runs.
    width : float
        Of the Gaussian window in which runs vote on a start, in ranges.
    """

    kernels: tuple[Any, ...]
    labels: NDArray[np.int64]
    names: tuple[str, ...]
    paths: tuple[Array, ...]
    lag: int
    method: str
    completion: str
    width: float
    notes: tuple[str, ...] = ()
    coupling: str = "basins"

    @classmethod
    def of(
        cls, kernels: Sequence[Any], labels: NDArray[np.int64], paths: tuple[Array, ...]
    ) -> BasinKernel:
        """Join kernels of groups of runs; the window is chosen by leaving runs out."""
        first = kernels[0]
        width = _choose_width(paths, labels)
        note = (
            f"{len(kernels)} groups of runs by where they ended; window {width:g} ranges, by "
            "leaving runs out"
        )
        return cls(
            tuple(kernels),
            labels,
            first.names,
            paths,
            first.lag,
            first.method,
            first.completion,
            width,
            (note, *(n for k in kernels for n in k.notes)),
        )

    def probabilities(self, starts: Array) -> Array:
        """Probability of each group from each start: (n_starts, n_groups), rows sum to one."""
        voted = _votes(_distances(starts, self.paths), self.labels, self.width)
        return 0.5 * (voted + self._absorbed(starts))

    def _absorbed(self, starts: Array) -> Array:
        """Share of chains that local lines take to each group's tails."""
        steps = max(len(p) for p in self.paths) - 1
        # A long lag steps over the ridge between two basins.
        lag = max(1, min(self.lag, steps // 100))
        stepper = stepped_kernel(self.paths, method="local-linear", lag=lag, names=self.names)
        rng = np.random.default_rng(0)
        ends = stepper.advance(starts, n_steps=steps, n_chains=_N_CHAINS, rng=rng)
        width = np.ptp(np.concatenate(self.paths), axis=0)
        width = np.where(width > 0, width, 1.0)
        tails = np.stack(
            [p[len(p) - max(2, round(_TAIL_SHARE * len(p))) :].mean(0) for p in self.paths]
        )
        gaps = (((ends[:, :, None] - tails) / width) ** 2).sum(axis=3)
        group = self.labels[gaps.argmin(axis=2)]
        n_groups = len(self.kernels)
        counts = (group[:, :, None] == np.arange(n_groups)).sum(axis=1)
        return np.asarray((counts + 0.5) / (_N_CHAINS + 0.5 * n_groups))

    def advance(
        self, starts: Array, *, n_steps: int, n_chains: int, rng: np.random.Generator
    ) -> Array:
        """Draw from the mixture ``n_steps`` after each start: (n_starts, n_chains, dim).

        Groups have the fourth powers of their probabilities, normalised: which basin a start lies
        in is mostly unknown rather than random. The probabilities themselves are those of
        :attr:`sgdmc.forecasting.forecast.Forecast.predictive`.
        """
        draws = np.stack(
            [
                kernel.advance(starts, n_steps=n_steps, n_chains=n_chains, rng=rng)
                for kernel in self.kernels
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


def _distances(starts: Array, paths: Sequence[Array]) -> Array:
    """Distance from each start to the nearest iterate of each run, in ranges."""
    values = np.concatenate(list(paths))
    width = np.ptp(values, axis=0)
    width = np.where(width > 0, width, 1.0)
    found = []
    for path in paths:
        # Early iterates are far apart, late ones are not: a spread of both is enough.
        picks = np.unique(np.geomspace(1, len(path), _POINTS_A_RUN).astype(int) - 1)
        gaps = (starts[:, None] - path[picks][None]) / width
        found.append(np.sqrt((gaps**2).sum(axis=2)).min(axis=1))
    return np.stack(found, axis=1)


def _votes(distances: Array, labels: NDArray[np.int64], width: float) -> Array:
    n_groups = int(labels.max()) + 1
    nearest = distances.min(axis=1, keepdims=True)
    weights = np.exp(-(distances**2 - nearest**2) / (2 * width**2))
    votes = np.stack([weights[:, labels == g].sum(axis=1) for g in range(n_groups)], axis=1)
    prior = np.bincount(labels, minlength=n_groups) / len(labels)
    votes = votes + 0.25 * prior
    return np.asarray(votes / votes.sum(axis=1, keepdims=True))


def _choose_width(paths: Sequence[Array], labels: NDArray[np.int64]) -> float:
    """Window with the largest likelihood of each run's group given the others."""
    if len(paths) < 3:
        return _WIDTHS[2]
    scores = np.zeros(len(_WIDTHS))
    for held in range(len(paths)):
        others = [k for k in range(len(paths)) if k != held]
        kept = labels[others]
        if labels[held] not in kept:
            continue
        groups = np.unique(kept)
        relabelled = np.searchsorted(groups, kept)
        begin = paths[held][: max(1, len(paths[held]) // 50)]
        distances = _distances(begin, [paths[k] for k in others])
        own = int(np.searchsorted(groups, labels[held]))
        for k, width in enumerate(_WIDTHS):
            scores[k] += float(np.log(_votes(distances, relabelled, width)[:, own]).mean())
    return _WIDTHS[int(np.argmax(scores))]
