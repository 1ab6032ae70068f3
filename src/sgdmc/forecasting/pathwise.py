"""Draws of a gradient's field as functions: a draw of the prior, moved to what was observed.

Pathwise conditioning (Matheron's rule): J. T. Wilson, V. Borovitskiy, A. Terenin, P. Mostowsky,
M. P. Deisenroth: Efficiently sampling functions from Gaussian process posteriors. ICML (2020). The
process's own draws are sums of waves (A. Rahimi, B. Recht, NeurIPS 20, 2007).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve

from sgdmc.forecasting.curlfree import Posterior

__all__ = ["Draws", "draw_fields"]

Array = NDArray[np.float64]

# Waves in a draw of the process.
_WAVES = 128


@dataclass(frozen=True)
class Draws:
    """Functions drawn from a posterior.

    Attributes
    ----------
    posterior : Posterior
    shift, matrix : ndarray, shapes (n, dim) and (n, dim, dim)
        Of each draw's parabola.
    solved : ndarray, shape (n, k, dim)
        Weights of the covariances with the posterior's points.
    frequencies : ndarray, shape (n, 128, dim)
    waves : ndarray, shape (n, 2, 128)
        Of the draws of the prior process: weights of cosines and of sines.
    """

    posterior: Posterior
    shift: Array
    matrix: Array
    solved: Array
    frequencies: Array
    waves: Array

    def __call__(self, z: Array, draw: int) -> Array:
        """Gradient of one draw at points (m, dim)."""
        out = z @ self.matrix[draw].T + self.shift[draw]
        if self.posterior.prior.ripple:
            out += _slopes_of_waves(z, self.frequencies[draw], self.waves[draw])
            self.posterior.add_ripple(z, self.solved[draw], out)
        return np.asarray(out)


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
    heavier = np.sqrt(freedom / rng.chisquare(freedom, size=n))
    shift = np.sqrt(parts[0]) * rng.standard_normal((n, dim))
    # Each entry off the diagonal of H is one number for two.
    upper = np.triu(np.sqrt(parts[3] / 2) * rng.standard_normal((n, dim, dim)), 1)
    own = np.sqrt(parts[2]) * rng.standard_normal((n, dim))
    own += np.sqrt(parts[1]) * rng.standard_normal((n, 1)) * prior.common
    matrix = upper + np.swapaxes(upper, 1, 2) + own[:, :, None] * np.eye(dim)
    frequencies = rng.standard_normal((n, _WAVES, dim)) / lengths
    waves = np.sqrt(variance / _WAVES) * rng.standard_normal((n, 2, _WAVES))
    seen = points @ matrix + shift[:, None]
    seen += np.sqrt(posterior.noise) * rng.standard_normal((n, k, dim))
    if prior.ripple:
        pairs = zip(frequencies, waves, strict=True)
        seen += np.stack([_slopes_of_waves(points, *pair) for pair in pairs])
    moved = cho_solve((posterior.factor, True), seen.reshape(n, k * dim).T).T.reshape(n, k, dim)
    # How far each draw is off the mean, times its factor.
    solved = posterior.solved - heavier[:, None, None] * moved
    lines = [posterior.line(s) for s in solved]
    return Draws(
        posterior,
        heavier[:, None] * shift + np.stack([line[0] for line in lines]),
        heavier[:, None, None] * matrix + np.stack([line[1] for line in lines]),
        solved,
        frequencies,
        heavier[:, None, None] * waves,
    )


def _slopes_of_waves(z: Array, frequencies: Array, waves: Array) -> Array:
    """Gradient of a sum of waves at points (m, dim)."""
    phases = z @ frequencies.T
    return np.asarray((waves[1] * np.cos(phases) - waves[0] * np.sin(phases)) @ frequencies)
