"""Draws of a gradient's field as functions: a draw of the prior, moved to what was observed.

Pathwise conditioning (Matheron's rule): J. T. Wilson, V. Borovitskiy, A. Terenin, P. Mostowsky,
M. P. Deisenroth: Efficiently sampling functions from Gaussian process posteriors. ICML (2020). The
process's own draws are sums of waves (A. Rahimi, B. Recht, NeurIPS 20, 2007).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.polynomial import Chebyshev, Polynomial
from numpy.typing import NDArray
from scipy.linalg import cho_solve

from sgdmc.forecasting.curlfree import Posterior, Prior
from sgdmc.forecasting.ridges import add_ridges, draw_ridges

__all__ = ["Draws", "draw_fields"]

Array = NDArray[np.float64]

# Waves in a draw of the process.
_WAVES = 128
# sin(2πu)/u for |u| ≤ ¼ as a polynomial in u²: right to 1e-13.
_SINE = (
    Chebyshev.interpolate(
        lambda v: np.sin(2 * np.pi * np.sqrt(v)) / np.sqrt(v), 8, domain=[1e-300, 1 / 16]
    )
    .convert(kind=Polynomial, domain=[-1, 1])
    .coef
)


@dataclass(frozen=True)
class Draws:
    """Functions drawn from a posterior.

    Attributes
    ----------
    posterior : Posterior
    shift, matrix : ndarray, shapes (n, dim) and (n, dim, dim)
        Of each draw's parabola.
    weights : ndarray, shape (n, dim, k)
        Of the covariances with the posterior's points.
    bends : _Bends
        Draws of the prior: all but the parabola.
    """

    posterior: Posterior
    shift: Array
    matrix: Array
    weights: Array
    bends: _Bends

    def __len__(self) -> int:
        return len(self.shift)

    def __call__(self, z: Array, which: NDArray[np.int64]) -> Array:
        """Gradients at points (m, dim), which of the draws for each (m,), equal ones together."""
        out = np.einsum("pij,pj->pi", self.matrix[which], z) + self.shift[which]
        self.bends.add(z, which, out)
        self.posterior.add_bends(z, self.weights, which, out)
        return np.asarray(out)


@dataclass(frozen=True)
class _Bends:
    """Draws of a prior's process and of its generalised linear model.

    The process is a sum of sines with ``frequencies`` (n, dim, 128) and ``phases`` (n, 128) in
    turns, and ``amplitudes`` (n, 128); ``ridges`` as
    :func:`sgdmc.forecasting.ridges.draw_ridges` draws them, in their own sizes.
    """

    prior: Prior
    frequencies: Array
    phases: Array
    amplitudes: Array
    ridges: tuple[Array, Array, Array]

    def add(self, z: Array, which: NDArray[np.int64], out: Array) -> None:
        """Add gradients at points (m, dim)."""
        prior = self.prior
        if prior.ripple:
            _add_slopes(z, which, self.frequencies, self.phases, self.amplitudes, out)
        if prior.ridges:
            add_ridges(prior.from_zero(z), which, *self.ridges, prior.space.stretch, out)


def draw_fields(posterior: Posterior, n: int, *, freedom: float, rng: np.random.Generator) -> Draws:
    """Draw ``n`` functions.

    Parameters
    ----------
    posterior : Posterior
    n : int
    freedom : float
        Degrees of freedom of Student's t: each draw departs from the mean as much farther.
    rng : Generator
    """
    prior, points = posterior.prior, posterior.points
    k, dim = points.shape
    lengths, variance, parts = prior.scales
    # What is drawn of the prior and of the noise, times its factor, is how far off the mean it is.
    heavier = np.sqrt(freedom / rng.chisquare(freedom, size=n))
    by, times = heavier[:, None], heavier[:, None, None]
    shift = by * np.sqrt(parts[0]) * rng.standard_normal((n, dim))
    # Each entry off the diagonal of H is one number for two.
    upper = np.triu(np.sqrt(parts[3] / 2) * rng.standard_normal((n, dim, dim)), 1)
    on = np.sqrt(parts[2]) * rng.standard_normal((n, dim))
    matrix = upper + np.swapaxes(upper, 1, 2) + on[:, :, None] * np.eye(dim)
    matrix += np.sqrt(parts[1]) * rng.standard_normal((n, 1, 1)) * prior.space.common
    matrix *= times
    frequencies = rng.standard_normal((n, dim, _WAVES)) / (2 * np.pi * lengths[:, None])
    phases = rng.random((n, _WAVES))
    amplitudes = by * np.sqrt(2 * variance / _WAVES * rng.standard_exponential((n, _WAVES)))
    directions, links, share = draw_ridges(n, dim, rng)
    if prior.ridges:
        _, own, shared = prior.bend
        links, share = by * np.sqrt(own) * links, heavier * np.sqrt(shared) * share
    bends = _Bends(prior, frequencies, phases, amplitudes, (directions, links, share))
    seen = points @ matrix + shift[:, None]
    seen += times * np.sqrt(posterior.noise) * rng.standard_normal((n, k, dim))
    bends.add(np.tile(points, (n, 1)), np.repeat(np.arange(n), k), seen.reshape(n * k, dim))
    moved = cho_solve((posterior.factor, True), seen.reshape(n, k * dim).T).T.reshape(n, k, dim)
    solved = posterior.solved - moved
    shifts, matrices = zip(*(posterior.line(part) for part in solved), strict=True)
    weights = np.ascontiguousarray(np.swapaxes(solved, 1, 2))
    return Draws(posterior, shift + np.stack(shifts), matrix + np.stack(matrices), weights, bends)


@njit(cache=True, fastmath=True, error_model="numpy")
def _add_slopes(z, which, frequencies, phases, amplitudes, out):  # type: ignore[no-untyped-def]
    """Add the gradients of sums of sines, which of them for each (m,), at ``z`` (m, dim).

    ``frequencies`` (n, dim, 128) and ``phases`` (n, 128) in turns: loops go along the waves.
    """
    m, dim = z.shape
    n = phases.shape[1]
    slope = np.empty(n)
    for p in range(m):
        d = which[p]
        slope[:] = phases[d]
        for i in range(dim):
            for w in range(n):
                slope[w] += z[p, i] * frequencies[d, i, w]
        for w in range(n):
            # cos(2πx) = sin(2πu), u = ¼ − |x − round(x)|.
            u = 0.25 - abs(slope[w] - np.floor(slope[w] + 0.5))
            square = u * u
            y = _SINE[8]
            for order in range(7, -1, -1):
                y = y * square + _SINE[order]
            slope[w] = 2.0 * np.pi * amplitudes[d, w] * u * y
        for i in range(dim):
            total = 0.0
            for w in range(n):
                total += slope[w] * frequencies[d, i, w]
            out[p, i] += total
