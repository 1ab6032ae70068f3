"""Joint estimators that step parameters, not bins: VAR(1), nearest neighbours, local lines.

All draw ``theta_{t+lag}`` given ``theta_t`` from the observed lagged pairs, with the residuals
of the fit as the noise, so that coordinates stay coupled.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from sgdmc.chain.kernel import describe_kernel, lag_schedule
from sgdmc.forecasting.var import lagged_pairs, stable, var1_fit

__all__ = ["STEPPED", "SteppedKernel", "stepped_kernel"]

_MAX_ANCHORS = 200
_MAX_NEIGHBOURS = 16

Array = NDArray[np.float64]
Step = Callable[[Array, np.random.Generator], Array]


@dataclass(frozen=True)
class SteppedKernel:
    """A kernel that is known through its draws.

    Attributes
    ----------
    step : callable
        Maps parameters (m, dim) and a Generator to parameters (m, dim) one lag later.
    lag, method, names, paths, notes
        As in :class:`sgdmc.Kernel`.
    """

    step: Step
    lag: int
    method: str
    names: tuple[str, ...]
    paths: tuple[Array, ...]
    notes: tuple[str, ...] = ()
    completion: str = "none"
    coupling: str = "joint"

    __repr__ = describe_kernel

    def __reduce__(self) -> Any:
        """Pickle what a step is fitted to, as the step itself is a closure."""
        if self.method in STEPPED:
            return _refitted, (self.paths, self.method, self.lag, self.names, self.notes)
        return super().__reduce__()

    def advance(
        self, starts: Array, *, n_steps: int, n_chains: int, rng: np.random.Generator
    ) -> Array:
        """Simulate ``n_chains`` chains from each start; a share of them takes the last step.

        A horizon that is no multiple of the lag lets each chain take one more step with the
        probability of the remainder.
        """
        whole, share = lag_schedule(n_steps, self.lag)
        theta = np.repeat(starts, n_chains, axis=0)
        for _ in range(whole):
            theta = self.step(theta, rng)
        if share > 0:
            more = rng.random(len(theta)) < share
            if more.any():
                theta[more] = self.step(theta[more], rng)
        return theta.reshape(len(starts), n_chains, -1)


def _var1(before: Array, after: Array, lag: int) -> Step:
    law = stable(var1_fit(before, after, lag=lag), before, after)

    def step(theta: Array, rng: np.random.Generator) -> Array:
        picked = rng.integers(len(law.residuals), size=len(theta))
        return law.push(theta, 1) + law.residuals[picked]

    return step


def _knn(before: Array, after: Array, lag: int) -> Step:
    scale = _unit(before)
    # Steps end in clouds, in which boxes of the tree hold many near points: twice as quick.
    tree = cKDTree(before / scale, leafsize=16 if before.shape[1] < 3 else 64)
    k = max(1, min(len(before), _MAX_NEIGHBOURS, round(np.sqrt(len(before)) / 2)))
    gains = after - before

    def step(theta: Array, rng: np.random.Generator) -> Array:
        points, which = theta / scale, rng.integers(k, size=len(theta))
        picked = np.empty(len(theta), dtype=np.int64)
        # A search ends at the neighbour that was drawn: half as many, on average, as all of them.
        for j in range(k):
            mine = np.flatnonzero(which == j)
            if len(mine):
                picked[mine] = np.asarray(tree.query(points[mine], k=[j + 1])[1])[:, 0]
        return theta + gains[picked]

    return step


def _local_linear(before: Array, after: Array, lag: int) -> Step:
    """Weighted lines through the nearest pairs, tricube weights; their residuals are the noise.

    Lines are fitted at anchors, observed points spread over the runs, and the nearest one is used.
    Beyond the pairs that a line was fitted to it is held, not extrapolated.
    """
    scale = _unit(before)
    tree = cKDTree(before / scale)
    dim = before.shape[1]
    k = min(len(before), max(4 * dim + 4, min(round(0.25 * len(before)), 150)))
    anchors = _spread(before / scale, _MAX_ANCHORS) * scale
    gaps, near = tree.query(anchors / scale, k=k)
    gaps, near = np.asarray(gaps).reshape(-1, k), np.asarray(near).reshape(-1, k)
    weights = (1 - np.minimum(gaps / (gaps[:, -1:] * 1.001 + 1e-300), 1.0) ** 3) ** 3 + 1e-6
    x = (before[near] - anchors[:, None]) / scale
    design = np.concatenate([np.ones((*x.shape[:2], 1)), x], axis=2)
    moved = after[near] - before[near]
    weighted = design * weights[..., None]
    ridge = 1e-6 * weights.sum(1)[:, None, None] * np.eye(dim + 1)
    gram = np.swapaxes(design, 1, 2) @ weighted + ridge
    coefficients = np.linalg.solve(gram, np.swapaxes(weighted, 1, 2) @ moved)
    residuals = (moved - design @ coefficients)[:, : min(k, max(8, k // 4))]
    places = cKDTree(anchors / scale)
    reach = gaps[:, -1:]

    def step(theta: Array, rng: np.random.Generator) -> Array:
        which = np.asarray(places.query(theta / scale)[1])
        off = (theta - anchors[which]) / scale
        length = np.linalg.norm(off, axis=1, keepdims=True)
        off *= np.minimum(1.0, reach[which] / np.maximum(length, 1e-300))
        mean = coefficients[which, 0] + np.einsum("mi,mij->mj", off, coefficients[which, 1:])
        picked = rng.integers(residuals.shape[1], size=len(theta))
        return np.asarray(theta + mean + residuals[which, picked])

    return step


def _spread(points: Array, count: int) -> Array:
    """At most ``count`` of the points, each far from the others (Gonzalez 1985)."""
    if len(points) <= count:
        return points
    picks = np.empty(count, dtype=np.int64)
    picks[0] = 0
    gap = np.full(len(points), np.inf)
    for i in range(1, count):
        gap = np.minimum(gap, ((points - points[picks[i - 1]]) ** 2).sum(axis=1))
        picks[i] = int(np.argmax(gap))
    return points[picks]


STEPPED: dict[str, Callable[[Array, Array, int], Step]] = {
    "var1": _var1,
    "knn": _knn,
    "local-linear": _local_linear,
}


def stepped_kernel(
    paths: tuple[Array, ...],
    *,
    method: str,
    lag: int,
    names: tuple[str, ...],
    notes: tuple[str, ...] = (),
) -> SteppedKernel:
    """Fit one of :data:`STEPPED` to all lagged pairs of the observed runs."""
    before, after = lagged_pairs(paths, lag)
    return SteppedKernel(STEPPED[method](before, after, lag), lag, method, names, paths, notes)


def _refitted(
    paths: tuple[Array, ...], method: str, lag: int, names: tuple[str, ...], notes: tuple[str, ...]
) -> SteppedKernel:
    return stepped_kernel(paths, method=method, lag=lag, names=names, notes=notes)


def _unit(values: Array) -> Array:
    spread = values.std(axis=0)
    return np.where(spread > 0, spread, 1.0)
