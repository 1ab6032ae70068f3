"""Draws of a gradient's field as functions: a draw of the prior, moved to what was observed.

Pathwise conditioning (Matheron's rule): J. T. Wilson, V. Borovitskiy, A. Terenin, P. Mostowsky,
M. P. Deisenroth: Efficiently sampling functions from Gaussian process posteriors. ICML (2020). The
process's own draws are sums of waves (A. Rahimi, B. Recht, NeurIPS 20, 2007).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numba import njit
from numpy.polynomial import Chebyshev, Polynomial
from numpy.typing import NDArray
from scipy.linalg import cho_solve

from sgdmc.forecasting.curlfree import Posterior, Prior
from sgdmc.forecasting.ridges import draw_ridges, ridge_gradients

__all__ = ["Draw", "draw_fields"]

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
class Draw:
    """A function drawn from a posterior.

    Attributes
    ----------
    posterior : Posterior
    shift, matrix : ndarray, shapes (dim,) and (dim, dim)
        Of the draw's parabola.
    solved : ndarray, shape (k, dim)
        Weights of the covariances with the posterior's points.
    bends : _Bends
        Of the draw of the prior: all but the parabola.
    """

    posterior: Posterior
    shift: Array
    matrix: Array
    solved: Array
    bends: _Bends

    def __call__(self, z: Array) -> Array:
        """Gradient at points (m, dim)."""
        out = z @ self.matrix.T + self.shift + self.bends(z)
        self.posterior.add_bends(z, self.solved, out)
        return np.asarray(out)


@dataclass(frozen=True)
class _Bends:
    """A draw of a prior's process and of its generalised linear model.

    ``size`` multiplies both; the process is a sum of sines with ``frequencies`` (dim, 128) and
    ``phases`` (128,) in turns, and ``amplitudes`` (128,); ``ridges`` as
    :func:`sgdmc.forecasting.ridges.draw_ridges` draws them.
    """

    prior: Prior
    size: float
    frequencies: Array
    phases: Array
    amplitudes: Array
    ridges: tuple[Array, Array, Array]

    def __call__(self, z: Array) -> Array:
        """Gradient at points (m, dim)."""
        out = np.zeros_like(z)
        if self.prior.ripple:
            _add_slopes(z, self.frequencies, self.phases, self.amplitudes, out)
        if self.prior.ridges:
            _, own, shared = self.prior.bend
            directions, weights, share = self.ridges
            each, common = ridge_gradients(self.prior.from_zero(z), directions, weights)
            bent = np.sqrt(own) * each + np.sqrt(shared) * share * common
            out += bent * self.prior.space.stretch
        return self.size * out


def draw_fields(
    posterior: Posterior, n: int, *, freedom: float, rng: np.random.Generator
) -> list[Draw]:
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
    heavier = np.sqrt(freedom / rng.chisquare(freedom, size=n))
    shift = np.sqrt(parts[0]) * rng.standard_normal((n, dim))
    # Each entry off the diagonal of H is one number for two.
    upper = np.triu(np.sqrt(parts[3] / 2) * rng.standard_normal((n, dim, dim)), 1)
    own = np.sqrt(parts[2]) * rng.standard_normal((n, dim))
    matrix = upper + np.swapaxes(upper, 1, 2) + own[:, :, None] * np.eye(dim)
    matrix += np.sqrt(parts[1]) * rng.standard_normal((n, 1, 1)) * prior.space.common
    frequencies = rng.standard_normal((n, dim, _WAVES)) / (2 * np.pi * lengths[:, None])
    phases = rng.random((n, _WAVES))
    amplitudes = np.sqrt(2 * variance / _WAVES * rng.standard_exponential((n, _WAVES)))
    drawn = zip(
        frequencies, phases, amplitudes, zip(*draw_ridges(n, dim, rng), strict=True), strict=True
    )
    bends = [_Bends(prior, 1.0, *parts) for parts in drawn]
    seen = points @ matrix + shift[:, None]
    seen += np.sqrt(posterior.noise) * rng.standard_normal((n, k, dim))
    seen += np.stack([bend(points) for bend in bends])
    moved = cho_solve((posterior.factor, True), seen.reshape(n, k * dim).T).T.reshape(n, k, dim)
    # How far each draw is off the mean, times its factor.
    solved = posterior.solved - heavier[:, None, None] * moved
    draws = []
    for d, size in enumerate(heavier):
        line = posterior.line(solved[d])
        own_shift, own_matrix = size * shift[d] + line[0], size * matrix[d] + line[1]
        bent = replace(bends[d], size=float(size))
        draws.append(Draw(posterior, own_shift, own_matrix, solved[d], bent))
    return draws


@njit(cache=True, fastmath=True, error_model="numpy")
def _add_slopes(z, frequencies, phases, amplitudes, out):  # type: ignore[no-untyped-def]
    """Add the gradient of a sum of sines at each of ``z`` (m, dim).

    ``frequencies`` (dim, n) and ``phases`` (n,) in turns: loops along the waves are side by side.
    """
    m, dim = z.shape
    n = len(phases)
    slope = np.empty(n)
    for p in range(m):
        slope[:] = phases
        for i in range(dim):
            for w in range(n):
                slope[w] += z[p, i] * frequencies[i, w]
        for w in range(n):
            # cos(2πx) = sin(2πu), u = ¼ − |x − round(x)|.
            u = 0.25 - abs(slope[w] - np.floor(slope[w] + 0.5))
            square = u * u
            y = _SINE[8]
            for order in range(7, -1, -1):
                y = y * square + _SINE[order]
            slope[w] = 2.0 * np.pi * amplitudes[w] * u * y
        for i in range(dim):
            total = 0.0
            for w in range(n):
                total += slope[w] * frequencies[i, w]
            out[p, i] += total
