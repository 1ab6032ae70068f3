"""SGD's law step by step: the flow of a gradient's field, and noise that grows with its drift."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from sgdmc.chain.kernel import describe_kernel, lag_schedule
from sgdmc.forecasting.field import GradientField
from sgdmc.forecasting.table import FlowTable
from sgdmc.forecasting.var import lagged_pairs

__all__ = ["GradientKernel", "follow_field", "residuals_of", "root_covariance"]

Array = NDArray[np.float64]

# Steps whose residuals are taken: their covariance is then right to a hundredth.
_MOST = 20_000


def residuals_of(field: GradientField, paths: Sequence[Array], lag: int) -> Array:
    """What a field leaves of the observed steps of a lag, over its loudness: (m, dim).

    Of more than 20 000 steps, so many that are spread over all.
    """
    before, after = lagged_pairs(paths, lag)
    if len(before) > _MOST:
        picks = np.linspace(0, len(before) - 1, _MOST).astype(int)
        before, after = before[picks], after[picks]
    ends = field.flow(before, lag)
    return np.asarray((after - ends) / field.loudness((ends - before) / lag)[:, None])


def root_covariance(residuals: Array) -> Array:
    """Symmetric square root of the covariance of residuals (m, dim): (dim, dim)."""
    values, vectors = np.linalg.eigh(residuals.T @ residuals / len(residuals))
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0)) @ vectors.T)


def follow_field(
    field: GradientField,
    starts: Array,
    scatter: Callable[[Array, Array], Array],
    *,
    lag: int,
    n_steps: int,
    n_chains: int,
    rng: np.random.Generator,
) -> Array:
    """Follow a field for a lag, add a draw, and so on: (n_starts, n_chains, dim).

    The last step may be a part of a lag, with as large a share of the variance.

    Parameters
    ----------
    field : GradientField
    starts : ndarray, shape (n_starts, dim)
    scatter : callable
        Maps parameters (m, dim) and uniform points (m, dim), stratified over the chains of a
        start, to draws at rest (m, dim).
    lag, n_steps, n_chains : int
    rng : Generator
    """
    whole, share = lag_schedule(n_steps, lag)
    theta = np.repeat(starts, n_chains, axis=0)
    shape = (len(starts), n_chains, starts.shape[1])
    table = FlowTable.of(field, lag, starts, whole * len(theta))
    for part in [1.0] * whole + [share] * (share > 0):
        points = (np.arange(n_chains)[:, None] + rng.random(shape)) / n_chains
        draws = scatter(theta, rng.permuted(points, axis=1).reshape(theta.shape))
        ends = table(theta) if table and part == 1.0 else field.flow(theta, part * lag)
        louder = field.loudness((ends - theta) / (part * lag))
        theta = ends + np.sqrt(part) * louder[:, None] * draws
    return theta.reshape(shape)


@dataclass(frozen=True)
class GradientKernel:
    """SGD's law by the flow of a :class:`GradientField` and Gaussian noise around it.

    Attributes
    ----------
    field : GradientField
    spread : ndarray, shape (dim, dim)
        A square root of the covariance of a kernel step where the field is at rest.
    lag, method, names, paths, notes
        As in :class:`sgdmc.Kernel`.
    """

    field: GradientField
    spread: Array
    lag: int
    names: tuple[str, ...]
    paths: tuple[Array, ...]
    notes: tuple[str, ...] = ()
    method: str = "gradient-gp"
    completion: str = "none"
    coupling: str = "joint"

    __repr__ = describe_kernel

    @classmethod
    def fit(
        cls,
        paths: tuple[Array, ...],
        *,
        lag: int,
        names: tuple[str, ...],
        notes: tuple[str, ...] = (),
        convex: bool | None = None,
    ) -> GradientKernel:
        """Fit the field, and the noise to what it leaves of the steps."""
        field = GradientField.fit(paths, convex=convex)
        spread = root_covariance(residuals_of(field, paths, lag))
        return cls(field, spread, lag, names, paths, (*notes, f"one gradient field: {field.kind}"))

    def advance(
        self, starts: Array, *, n_steps: int, n_chains: int, rng: np.random.Generator
    ) -> Array:
        """Draw from the law ``n_steps`` recorded steps after each start.

        Parameters
        ----------
        starts : ndarray, shape (n_starts, dim)
        n_steps, n_chains : int
        rng : Generator
            Covers every draw.

        Returns
        -------
        ndarray, shape (n_starts, n_chains, dim)
        """

        def scatter(theta: Array, points: Array) -> Array:
            return np.asarray(ndtri(points) @ self.spread)

        return follow_field(
            self.field, starts, scatter, lag=self.lag, n_steps=n_steps, n_chains=n_chains, rng=rng
        )
