"""Rows moved along the line of states: by parts of a bin, to other bins, to where none is known."""

from __future__ import annotations

import math

import numpy as np
import scipy.sparse as sp
from numba import njit
from numpy.typing import ArrayLike, NDArray

__all__ = ["interpolate_rows", "move_rows", "overlaps", "rescale_rows"]

Array = NDArray[np.float64]


def move_rows(rows: ArrayLike, shifts: ArrayLike) -> Array:
    """Move histograms by numbers of bins; what passes an end stays on it.

    A move by part of a bin splits each bin in two, so that means move exactly and the variance
    grows by at most a quarter of a bin squared.

    Parameters
    ----------
    rows : array_like, shape (m, n)
    shifts : array_like, shape (m,)
        In bins, finite.

    Returns
    -------
    ndarray, shape (m, n)

    Examples
    --------
    >>> move_rows([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]], [0.5, -1.0]).tolist()
    [[0.5, 0.5, 0.0], [0.0, 1.0, 0.0]]
    """
    given, by = np.asarray(rows, dtype=np.float64), np.asarray(shifts, dtype=np.float64)
    out = np.zeros_like(given)
    _add_moved(given, np.arange(len(given)), by, np.ones(len(given)), out)
    return out


@njit(cache=True)
def _add_moved(rows, which, shifts, shares, out):  # type: ignore[no-untyped-def]
    """Add ``shares[i]`` times row ``which[i]``, moved by ``shifts[i]`` bins, to each ``out[i]``."""
    n = rows.shape[1]
    for i in range(which.size):
        if shares[i] == 0.0:
            continue
        row, target = rows[which[i]], out[i]
        by = min(max(shifts[i], -1.0 * n), 1.0 * n)
        whole = math.floor(by)
        near, far = shares[i] * (1.0 - by + whole), shares[i] * (by - whole)
        step = int(whole)
        # Bins whose two halves both stay on the line; the others end on its first or last bin.
        first, last = max(0, -step), min(n, n - 1 - step)
        for j in range(first, last):
            target[j + step] += near * row[j]
            target[j + step + 1] += far * row[j]
        for j in range(min(first, n)):
            target[0] += near * row[j]
            target[min(max(j + step + 1, 0), n - 1)] += far * row[j]
        for j in range(max(last, first), n):
            target[min(j + step, n - 1)] += near * row[j]
            target[n - 1] += far * row[j]


def interpolate_rows(rows: ArrayLike, at: ArrayLike) -> Array:
    """Fill the rows between known ones: their mixture, each moved by its distance.

    Exact for kernels whose rows are translates with means that are linear between known states;
    what a move pushes beyond an end stays on it.

    Parameters
    ----------
    rows : array_like, shape (m, n)
        Histograms.
    at : array_like of int, shape (m,)
        Their present states, increasing, in 0 .. n − 1; states beyond the outermost are given the
        outermost row, moved.

    Returns
    -------
    ndarray, shape (n, n)

    Examples
    --------
    >>> interpolate_rows([[1, 0, 0], [0, 0, 1]], [0, 2]).tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    known, where = np.asarray(rows, dtype=np.float64), np.asarray(at, dtype=np.int64)
    states = np.arange(known.shape[1])
    right = np.clip(np.searchsorted(where, states), 0, len(where) - 1)
    left = np.where(where[right] > states, np.maximum(right - 1, 0), right)
    gap = where[right] - where[left]
    share = np.where(gap > 0, (states - where[left]) / np.maximum(gap, 1), 0.0)
    out = np.zeros((len(states), len(states)))
    _add_moved(known, left, (states - where[left]).astype(np.float64), 1.0 - share, out)
    _add_moved(known, right, (states - where[right]).astype(np.float64), share, out)
    return out


def rescale_rows(rows: ArrayLike, factors: ArrayLike) -> Array:
    """Stretch histograms about their means; what passes an end stays on it.

    Parameters
    ----------
    rows : array_like, shape (m, n)
        Read as densities on bins.
    factors : array_like, shape (m,)
        Positive; below 1 contracts.

    Returns
    -------
    ndarray, shape (m, n)

    Examples
    --------
    >>> rescale_rows([[0.25, 0.25, 0.25, 0.25]], [0.5]).tolist()
    [[0.0, 0.5, 0.5, 0.0]]
    """
    given, by = np.asarray(rows, dtype=np.float64), np.asarray(factors, dtype=np.float64)
    n = given.shape[1]
    edges = np.arange(n + 1, dtype=np.float64)
    means = given @ (edges[:-1] + 0.5)
    below = np.zeros((len(given), n + 1))
    np.cumsum(given, axis=1, out=below[:, 1:])
    out = np.empty_like(given)
    for k, (mean, factor) in enumerate(zip(means, by, strict=True)):
        moved = np.interp(mean + (edges - mean) / factor, edges, below[k])
        moved[0], moved[-1] = 0.0, below[k, -1]
        out[k] = np.diff(moved)
    return out


def overlaps(edges: ArrayLike, targets: ArrayLike) -> sp.csr_array:
    """Share of each bin that lies in each bin of another partition of the line.

    ``rows @ overlaps(edges, targets)`` carries histograms from the one to the other: mass is spread
    evenly over its bin, and what lies beyond the targets counts to the outermost of them.

    Parameters
    ----------
    edges : array_like, shape (m + 1,)
        Increasing.
    targets : array_like, shape (n + 1,)
        Increasing.

    Returns
    -------
    csr_array, shape (m, n)
        Each row sums to 1.

    Examples
    --------
    >>> overlaps([0.0, 2.0, 4.0], [1.0, 1.5, 3.0]).toarray().tolist()
    [[0.75, 0.25], [0.0, 1.0]]
    """
    given, wanted = np.asarray(edges, dtype=np.float64), np.asarray(targets, dtype=np.float64)
    inside = wanted[(wanted > given[0]) & (wanted < given[-1])]
    cuts = np.union1d(given, inside)
    source = np.searchsorted(given, cuts[:-1], side="right") - 1
    target = np.searchsorted(wanted, cuts[:-1], side="right") - 1
    n_targets = len(wanted) - 1
    share = np.diff(cuts) / np.diff(given)[source]
    at = (source, np.clip(target, 0, n_targets - 1))
    return sp.csr_array((share, at), shape=(len(given) - 1, n_targets))
