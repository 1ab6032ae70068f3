"""What the observed steps say about the drift of estimated rows: a correction, and its spread.

Rows read off a language model carry small errors of the mean that have the same sign from state to
state. Over twenty kernel steps they add up, while the noise does not. One-step residuals of the
observed pairs show them: a line through the residuals is the correction, and the covariance of
that line is an uncertainty that a forecast has to draw once a chain, not once a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Drift", "fit_drift"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Drift:
    """A line ``shift + slope (s − centre)``, in bins, to be added to the means of rows.

    Attributes
    ----------
    shift, slope : float
    centre : float
        Mean present state of the observed pairs, in bins.
    covariance : ndarray, shape (2, 2)
        Of (shift, slope).
    """

    shift: float
    slope: float
    centre: float
    covariance: Array

    def at(self, states: Array) -> Array:
        """Return the correction at states, in bins."""
        return np.asarray(self.shift + self.slope * (states - self.centre))

    def draws(self, n: int, rng: np.random.Generator) -> Array:
        """Draw ``n`` deviations (shift, slope) from the correction: shape (n, 2)."""
        return rng.multivariate_normal(np.zeros(2), self.covariance, size=n, method="eigh")


def fit_drift(
    paths: Sequence[Array], lag: int, means: Array, known: NDArray[np.bool_], slope: float
) -> Drift:
    """Fit a line to the one-step residuals of rows on the pairs that were observed.

    Parameters
    ----------
    paths : sequence of ndarray, each (T_c,)
        One coordinate of the runs, in bins (a value in bin ``s`` lies in ``[s, s + 1)``).
    lag : int
        Steps of a kernel step.
    means : ndarray, shape (n,)
        Mean next position of each row, in bins.
    known : ndarray of bool, shape (n,)
        Which rows to judge; means between them are interpolated.
    slope : float
        Slope of the known rows' means; corrected, it stays in [−1, 1].

    Returns
    -------
    Drift
        Zero with a zero covariance where fewer than four pairs were observed.

    Notes
    -----
    The least-squares line is shrunk towards zero by the positive-part rule of James and Stein, its
    covariance is that of Newey and West over ``lag`` steps, as windows overlap, and robust to a
    noise that depends on the state.

    References
    ----------
    .. [1] James and Stein, "Estimation with quadratic loss", 1961.
    .. [2] Newey and West, "A simple, positive semi-definite, heteroskedasticity and
       autocorrelation consistent covariance matrix", 1987.
    """
    long = [p for p in paths if len(p) > lag]
    present = np.concatenate([p[:-lag] for p in long])
    centre = float(present.mean())
    centres = np.flatnonzero(known)
    spread = float(((present - centre) ** 2).mean())
    if len(present) < 4 or not spread > 1e-6 or len(centres) < 2:
        return Drift(0.0, 0.0, centre, np.zeros((2, 2)))
    unit = np.sqrt(spread)

    def design(x: Array) -> Array:
        return np.stack([np.ones(len(x)), (x - centre) / unit], axis=1)

    def residual(path: Array) -> Array:
        predicted = np.interp(path[:-lag], centres + 0.5, means[centres])
        return np.asarray(path[lag:] - predicted)

    X = design(present)
    inverse = np.linalg.inv(X.T @ X + 1e-9 * len(X) * np.eye(2))
    line = inverse @ (X.T @ np.concatenate([residual(p) for p in long]))
    middle = np.zeros((2, 2))
    for path in long:
        g = design(path[:-lag]) * (residual(path) - design(path[:-lag]) @ line)[:, None]
        middle += g.T @ g
        for gap in range(1, min(lag, len(g))):
            cross = (1 - gap / lag) * g[gap:].T @ g[:-gap]
            middle += cross + cross.T
    independent = max(len(present) / lag, 3.0)
    covariance = inverse @ middle @ inverse * independent / (independent - 2.0)
    strength = float(line @ np.linalg.solve(covariance + 1e-12 * np.eye(2), line))
    line = line * max(0.0, 1.0 - 2.0 / strength) if strength > 0 else np.zeros(2)
    to_bins = np.diag([1.0, 1.0 / unit])
    correction = float(np.clip(line[1] / unit, -1.0 - slope, 1.0 - slope))
    return Drift(float(line[0]), correction, centre, to_bins @ covariance @ to_bins)
