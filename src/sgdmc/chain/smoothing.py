"""Kernels from one series by classical smoothing: what a language model's reading has to beat.

Three estimators of every row of a one-coordinate kernel from observed pairs ``(x_j, y_j)``: kernel
smoothing in both states, a Gaussian autoregression, and an autoregression whose residuals are
given a locally weighted kernel density, with bandwidths by leave-one-out likelihood. All are mixed
with a little of the uniform law, so that no state is impossible.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr

from sgdmc._core import validate
from sgdmc.chain.moves import interpolate_rows

__all__ = ["ar1_kde_kernel", "ar1_kernel", "kernel_smoothed_kernel"]

Array = NDArray[np.float64]

# Bandwidths in hundredths of the range of states, and how many pairs judge them.
_NEXT_WIDTHS = np.array([0.4, 0.7, 1.2, 2.0, 3.0, 4.5, 7.0, 11.0])
_PRESENT_WIDTHS = np.array([3.0, 8.0, 20.0, 1000.0])
_JUDGES = 200
_PAIRS = 1000
# On finer grids the rows are computed at about so many states and interpolated between them.
_KNOTS = 250
_UNIFORM = 0.01


def kernel_smoothed_kernel(
    states: ArrayLike | Sequence[ArrayLike], *, n_states: int, lag: int = 1
) -> Array:
    r"""Estimate a kernel by smoothing the observed transitions in both states.

    .. math:: P(s' \mid s) \propto \sum_j e^{-(x_j - s)^2 / 2 h_x^2}
        \int_{s'}^{s'+1} e^{-(v - y_j)^2 / 2 h_y^2} \, dv

    Parameters
    ----------
    states : array_like of int, shape (T,), or a sequence of them
        State indices ``0 .. n_states − 1`` of one run, or of several.
    n_states : int
        At least 2.
    lag : int, default 1
        Steps between the present and the next state; windows slide.

    Returns
    -------
    ndarray, shape (n_states, n_states)
        Row-stochastic; every entry is positive.

    Raises
    ------
    TypeError
        If the states are not integers.
    ValueError
        If a state is out of range, or if fewer than two transitions are observed.

    Notes
    -----
    Bandwidths ``h_x, h_y`` come from {.4, …, 11} hundredths of the range, by leave-one-out
    likelihood over at most 200 of the transitions. Cost ``O(n m h)`` for ``m`` transitions.

    Examples
    --------
    >>> P = kernel_smoothed_kernel([4, 5, 6, 5, 4, 5, 6, 5], n_states=10)
    >>> P.shape, int(P[4].argmax())
    ((10, 10), 5)
    """
    x, y, n = _pairs(states, n_states, lag)
    return _smooth(x, y, np.zeros(n), np.zeros(len(x)), n, _NEXT_WIDTHS)


def ar1_kernel(states: ArrayLike | Sequence[ArrayLike], *, n_states: int, lag: int = 1) -> Array:
    """Estimate a kernel by a least-squares line with Gaussian residuals, integrated over the bins.

    Parameters
    ----------
    states, n_states, lag
        As for :func:`kernel_smoothed_kernel`.

    Returns
    -------
    ndarray, shape (n_states, n_states)
        Row-stochastic; every entry is positive.

    Raises
    ------
    TypeError, ValueError
        As for :func:`kernel_smoothed_kernel`.

    Examples
    --------
    >>> P = ar1_kernel([8, 4, 2, 1, 0, 0], n_states=10)
    >>> int(P[8].argmax())
    4
    """
    x, y, n = _pairs(states, n_states, lag)
    shift, slope = _line(x, y)
    residual = y - shift - slope * x
    noise = math.sqrt(float(residual @ residual) / max(len(x) - 2, 1))
    noise = max(noise, 1e-3 * n / 100)
    mean = shift + slope * (np.arange(n) + 0.5)
    # The grid clips what leaves it: the outer bins take the tails.
    edges = np.concatenate(([-math.inf], np.arange(1.0, n), [math.inf]))
    rows = np.diff(ndtr((edges - mean[:, None]) / noise), axis=1)
    return np.asarray((1.0 - _UNIFORM) * rows + _UNIFORM / n, dtype=np.float64)


def ar1_kde_kernel(
    states: ArrayLike | Sequence[ArrayLike], *, n_states: int, lag: int = 1
) -> Array:
    r"""Estimate a kernel by a line plus a locally weighted density of its residuals.

    With residuals :math:`r_j = y_j - a - b x_j` of the least-squares line,

    .. math:: P(s' \mid s) \propto \sum_j e^{-(x_j - s)^2 / 2 h_x^2}
        \int_{s'}^{s'+1} e^{-(v - a - b s - r_j)^2 / 2 h^2} \, dv

    Parameters
    ----------
    states, n_states, lag
        As for :func:`kernel_smoothed_kernel`.

    Returns
    -------
    ndarray, shape (n_states, n_states)
        Row-stochastic; every entry is positive.

    Raises
    ------
    TypeError, ValueError
        As for :func:`kernel_smoothed_kernel`.

    Notes
    -----
    ``h`` comes from {.4, .7, 1.2, 2, 3, 4.5, 7, 11} and ``h_x`` from {3, 8, 20, 1000} hundredths
    of the range, by leave-one-out likelihood over at most 200 of the transitions. Of more than
    1000 transitions, 1000 evenly spread ones make the density; all of them make the line.

    Examples
    --------
    >>> P = ar1_kde_kernel([80, 40, 20, 10, 5, 2, 1, 0, 0], n_states=100)
    >>> 38 <= int(P[80].argmax()) <= 42
    True
    """
    x, y, n = _pairs(states, n_states, lag)
    shift, slope = _line(x, y)
    if len(x) > _PAIRS:
        picks = np.linspace(0, len(x) - 1, _PAIRS).astype(np.int64)
        x, y = x[picks], y[picks]
    mean = shift + slope * (np.arange(n, dtype=np.float64) + 0.5)
    return _smooth(x, y, mean, shift + slope * x, n, _PRESENT_WIDTHS)


def _pairs(
    states: ArrayLike | Sequence[ArrayLike], n_states: int, lag: int
) -> tuple[Array, Array, int]:
    """Return present and next bin centres of all transitions, in bins, and the number of bins."""
    n = validate.as_int("n_states", n_states, minimum=2)
    lag = validate.as_int("lag", lag, minimum=1)
    runs: list[ArrayLike] = [cast(ArrayLike, states)]
    if isinstance(states, Sequence) and len(states) > 0 and np.ndim(states[0]) == 1:
        runs = list(cast(Sequence[ArrayLike], states))
    checked = [validate.as_states("states", run, ndim=(1,)) for run in runs]
    for run in checked:
        bad = (run < 0) | (run >= n)
        if bad.any():
            where = int(np.argmax(bad))
            raise ValueError(
                f"states must lie in 0 .. {n - 1}; got {run[where]} at index {where}. "
                "Encode with a grid of n_states bins."
            )
    long = [run.astype(np.float64) + 0.5 for run in checked if len(run) > lag]
    count = sum(len(run) - lag for run in long)
    if count < 2:
        raise ValueError(
            f"states must hold at least 2 transitions at lag {lag}; got {count}. "
            "Use a longer series, or a smaller lag."
        )
    x = np.concatenate([run[:-lag] for run in long])
    return x, np.concatenate([run[lag:] for run in long]), n


def _line(x: Array, y: Array) -> tuple[float, float]:
    spread = float(np.var(x))
    slope = float(np.mean((x - x.mean()) * (y - y.mean())) / spread) if spread > 0 else 0.0
    return float(y.mean() - slope * x.mean()), slope


def _smooth(x: Array, y: Array, mean: Array, fitted: Array, n: int, present_widths: Array) -> Array:
    """Return rows with the bandwidths of largest leave-one-out likelihood."""
    unit = n / 100.0
    judges = np.unique(np.linspace(0, len(x) - 1, min(len(x), _JUDGES)).astype(np.int64))
    nexts, presents = _NEXT_WIDTHS * unit, present_widths * unit
    scores = _leave_one_out(x, y - fitted, judges, presents, nexts, n, _UNIFORM)
    # Of equal scores the widest: presents first, then nexts.
    i, j = max(np.ndindex(scores.shape), key=lambda at: (scores[at], presents[at[0]], nexts[at[1]]))
    at = np.unique(np.append(np.arange(0, n, max(1, n // _KNOTS)), n - 1))
    rows = _rows(x, y - fitted, mean, presents[i], nexts[j], n, at)
    rows = interpolate_rows(rows, at)
    return np.asarray((1.0 - _UNIFORM) * rows + _UNIFORM / n, dtype=np.float64)


# The normal distribution function and its slope, every 128th from -8 to 8: the cubics through both
# are within 1e-11 of it.
_KNOTS_A_UNIT, _END = 128, 8
_CENTRES = 256
_GRID = np.arange(-_END * _KNOTS_A_UNIT, _END * _KNOTS_A_UNIT + 2) / _KNOTS_A_UNIT
_SLOPES = np.exp(-0.5 * _GRID**2) / math.sqrt(2 * math.pi) / _KNOTS_A_UNIT
_TABLE = np.stack([ndtr(_GRID), _SLOPES], axis=1)


@njit(cache=True)
def _phi(z):  # type: ignore[no-untyped-def]
    if z <= -_END:
        return 0.0
    if z >= _END:
        return 1.0
    at = (z + _END) * _KNOTS_A_UNIT
    k = int(at)
    t = at - k
    low, high = _TABLE[k, 0], _TABLE[k + 1, 0]
    rise, a, b = high - low, _TABLE[k, 1], _TABLE[k + 1, 1]
    return low + t * (a + t * (3 * rise - 2 * a - b + t * (a + b - 2 * rise)))


@njit(cache=True)
def _leave_one_out(x, residual, judges, present_widths, next_widths, n, uniform):  # type: ignore[no-untyped-def]
    """Log-likelihoods of the judges, (n_present_widths, n_next_widths)."""
    total = np.zeros((present_widths.size, next_widths.size))
    weights = np.empty((present_widths.size, x.size))
    for i in judges:
        nearest = math.inf
        for j in range(x.size):
            if j != i:
                nearest = min(nearest, abs(x[j] - x[i]))
        norms, mass = np.zeros(present_widths.size), np.zeros(total.shape)
        for a in range(present_widths.size):
            for j in range(x.size):
                gap = ((x[j] - x[i]) ** 2 - nearest**2) / (2 * present_widths[a] ** 2)
                weights[a, j] = 0.0 if j == i or gap > 20.0 else math.exp(-gap)
                norms[a] += weights[a, j]
        for b in range(next_widths.size):
            half = 0.5 / next_widths[b]
            for j in range(x.size):
                z = (residual[i] - residual[j]) / next_widths[b]
                if abs(z) < 7.0 + half:
                    # What a pair gives to a bin is the same for every width of the present.
                    share = _phi(z + half) - _phi(z - half)
                    for a in range(present_widths.size):
                        mass[a, b] += weights[a, j] * share
        for a in range(present_widths.size):
            for b in range(next_widths.size):
                likely = (1.0 - uniform) * mass[a, b] / norms[a] + uniform / n
                total[a, b] += math.log(likely)
    return total


@njit(cache=True)
def _rows(x, residual, mean, present_width, next_width, n, at):  # type: ignore[no-untyped-def]
    # Shares of the bins around a centre, for centres at every 256th of a bin; those between are
    # mixtures, right to 1e-5 where a width is .4 bins and to less where it is wider.
    reach = int(7.0 * next_width) + 1
    shares = np.empty((_CENTRES + 1, 2 * reach + 1))
    for c in range(_CENTRES + 1):
        for k in range(2 * reach + 1):
            low = (k - reach - c / _CENTRES) / next_width
            shares[c, k] = _phi(low + 1.0 / next_width) - _phi(low)
    rows = np.zeros((at.size, n))
    for i, s in enumerate(at):
        nearest = np.abs(x - s - 0.5).min()
        for j in range(x.size):
            gap = ((x[j] - s - 0.5) ** 2 - nearest**2) / (2 * present_width**2)
            if gap > 20.0:
                continue
            weight = math.exp(-gap)
            centre = min(max(mean[s] + residual[j], 0.0), float(n))
            bin_ = int(centre)
            c = int((centre - bin_) * _CENTRES)
            right = weight * ((centre - bin_) * _CENTRES - c)
            left = weight - right
            first = max(bin_ - reach, 0)
            skip = first - bin_ + reach
            for k in range(min(bin_ + reach + 1, n) - first):
                rows[i, first + k] += left * shares[c, skip + k] + right * shares[c + 1, skip + k]
        rows[i] /= rows[i].sum()
    return rows
