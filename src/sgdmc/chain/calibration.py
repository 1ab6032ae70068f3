"""Rows held to the steps that were observed: their means, and their spreads.

Rows read off a language model carry small errors of the mean that have the same sign from state to
state, and they are as wide as the model is unsure. Both are drawn again at every kernel step: over
twenty steps the errors add up. One-step residuals of the observed pairs show them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sgdmc.chain.moves import move_rows, rescale_rows

__all__ = ["Calibration", "calibrate_rows"]

Array = NDArray[np.float64]

# Information, in squared deviations, that a bend has to outweigh.
_STRAIGHT = 100.0
# Independent steps that the rows' own spread is worth.
_PRIOR_STEPS = 4.0
# Of the grid, for the spread of residuals.
_BANDWIDTH = 0.025
# Of what is left of the drift: cells of the grid, length scales in grids, sizes in standard errors
# of a cell, and the gain in log-likelihood that it has to show.
_CELLS, _LENGTHS, _SIZES, _GAIN = 100, (0.05, 0.1, 0.2, 0.4), (1.0, 3.0, 10.0, 30.0, 100.0), 2.0


@dataclass(frozen=True)
class Calibration:
    """Rows after calibration, and what was done to them.

    Attributes
    ----------
    rows : ndarray, shape (n, n)
    bend : float
        Share of the rows' own departure from a line that was kept, in [0, 1].
    spread : float
        Median factor of the standard deviations of visited rows.
    """

    rows: Array
    bend: float
    spread: float


def calibrate_rows(
    paths: Sequence[Array],
    lag: int,
    rows: Array,
    known: NDArray[np.bool_],
    *,
    weights: Array | None = None,
) -> Calibration:
    """Move and scale rows so that the observed steps have no trend left and the right spread.

    Parameters
    ----------
    paths : sequence of ndarray, each (T_c,)
        One coordinate of the runs, in bins (a value in bin ``s`` lies in ``[s, s + 1)``).
    lag : int
        Steps of a kernel step.
    rows : ndarray, shape (n, n)
        Row-stochastic where known; rows of zeros stay zero.
    known : ndarray of bool, shape (n,)
        Rows of visited states. Means and variances between them are interpolated.
    weights : ndarray, shape (m,), optional
        Of the lagged pairs of all runs longer than ``lag``, in order: inverse to the variance of
        their noise. Equal by default.

    Returns
    -------
    Calibration
        The rows as they are where fewer than eight pairs or two states were seen.

    Notes
    -----
    With :math:`\\mu(s)` the mean of row ``s`` and :math:`g` its departure from a line, the
    calibrated mean is :math:`a + b s + \\kappa g(s)`: ``a`` and ``b``, in [−1, 1], by weighted
    least squares of the observed next positions, and :math:`\\kappa`, the *bend*, by ridge
    regression of what is left on :math:`g` under a normal prior of variance 1/100: a curved drift
    has to show itself in the steps, all the more as the rows have seen them.

    Where what then is left shows a trend still, in cells of a hundredth of the grid, it is added:
    the posterior mean of a Gaussian process, of the length and size of largest likelihood, if that
    exceeds the likelihood of noise alone by a factor of e² (a drift that the steps know and the
    rows do not).

    Standard deviations are multiplied by the root of a local mean of squared residuals over
    variances, in which the row's own spread counts as four steps. Overlapping windows count as
    ``1/lag`` of a step each, and squared residuals are divided by one minus their leverage.
    """
    long = [p for p in paths if len(p) > lag]
    x, y = np.concatenate([p[:-lag] for p in long]), np.concatenate([p[lag:] for p in long])
    places = np.flatnonzero(known)
    if len(x) < 8 or len(places) < 2 or not np.ptp(x) > 1e-3:
        return Calibration(rows, 1.0, 1.0)
    w = np.full(len(x), 1.0 / len(x)) if weights is None else weights / weights.sum()
    bins = np.asarray(np.arange(rows.shape[1]) + 0.5)
    means = rows @ bins
    variances = np.maximum(rows @ bins**2 - means**2, 1e-6)
    own = np.interp(x, places + 0.5, means[places])
    line, own_line = _Line.fit(x, y, w), _Line.fit(x, own, w)
    left, bent = y - line.at(x), own - own_line.at(x)
    # Weights in units of one over the variance of a step.
    precision = w * len(x) / max(float(w @ left**2), 1e-300) / lag
    evidence, information = float(precision @ (left * bent)), float(precision @ bent**2)
    bend = float(np.clip(evidence / (_STRAIGHT + information), 0.0, 1.0))
    left -= bend * bent
    # Where the line was held back, what is left is growth.
    held = abs(line.slope) == 1.0
    remainder = np.zeros(len(bins)) if held else _remainder(x, left, precision, bins)
    left -= np.interp(x, bins, remainder)
    target = line.at(bins) + bend * (means - own_line.at(bins)) + remainder
    # Steps far from the others bend the line towards themselves, overlapping ones together.
    reach = (x - line.centre) ** 2
    leverage = np.minimum(lag * w * (1.0 + reach / float(w @ reach)), 0.8)
    ratios = left**2 / (1.0 - leverage)
    ratios /= np.interp(x, places + 0.5, variances[places])
    scale = np.sqrt(_local_mean(x, ratios, bins, lag))
    full = rows.sum(axis=1) > 0
    calibrated = rows.copy()
    scaled = rescale_rows(rows[full], scale[full])
    calibrated[full] = move_rows(scaled, target[full] - scaled @ bins)
    return Calibration(calibrated, bend, float(np.median(scale[places])))


@dataclass(frozen=True)
class _Line:
    """A weighted least-squares line: ``value + slope (x − centre)``."""

    value: float
    slope: float
    centre: float

    @classmethod
    def fit(cls, x: Array, y: Array, weights: Array) -> _Line:
        centre, value = float(weights @ x), float(weights @ y)
        slope = float(weights @ ((x - centre) * (y - value)) / (weights @ (x - centre) ** 2))
        return cls(value, float(np.clip(slope, -1.0, 1.0)), centre)

    def at(self, x: Array) -> Array:
        return np.asarray(self.value + self.slope * (x - self.centre))


def _remainder(x: Array, left: Array, precision: Array, at: Array) -> Array:
    """What is left of the mean steps, as a Gaussian process where the steps ask for one."""
    cells = np.clip(x * (_CELLS / len(at)), 0, _CELLS - 1).astype(np.int64)
    mass = np.bincount(cells, precision, minlength=_CELLS)
    full = mass > 0
    mass = mass[full]
    unit = np.sqrt(len(mass) / mass.sum())
    if not unit > 1e-6:
        return np.zeros(len(at))
    centre = np.bincount(cells, precision * x, minlength=_CELLS)[full] / mass
    value = np.bincount(cells, precision * left, minlength=_CELLS)[full] / mass
    best, found = _GAIN - 0.5 * float(mass @ value**2 - np.log(mass).sum()), np.zeros(len(at))
    for length in _LENGTHS:
        width = length * len(at)
        near = np.exp(-0.5 * ((centre[:, None] - centre) / width) ** 2)
        for size in _SIZES:
            variance = (size * unit) ** 2
            factor = np.linalg.cholesky(variance * near + np.diag(1.0 / mass))
            white = np.linalg.solve(factor, value)
            likelihood = -0.5 * float(white @ white) - float(np.log(np.diag(factor)).sum())
            if likelihood > best:
                across = np.exp(-0.5 * ((at[:, None] - centre) / width) ** 2)
                best, found = likelihood, variance * across @ np.linalg.solve(factor.T, white)
    return np.asarray(found)


def _local_mean(x: Array, ratios: Array, at: Array, lag: int) -> Array:
    """Mean of ratios of observed to stated variance near positions, shrunk towards 1."""
    order = np.argsort(x)
    # Neighbours are averaged first: the smoothing is far wider than what they span.
    parts = np.array_split(order, min(len(x), 400))
    size = np.array([len(p) for p in parts], dtype=np.float64)
    values = np.array([ratios[p].mean() for p in parts])
    near = np.array([x[p].mean() for p in parts])
    gaps = (near[None, :] - at[:, None]) ** 2
    gaps -= gaps.min(axis=1, keepdims=True)
    kernel = np.exp(-gaps / (2 * (_BANDWIDTH * len(at)) ** 2)) * size / lag
    return np.asarray((kernel @ values + _PRIOR_STEPS) / (kernel.sum(axis=1) + _PRIOR_STEPS))
