"""Stationary laws and absorption probabilities by state reduction, in plain NumPy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "absorption_dense",
    "group_inverse_krylov",
    "stationary_banded",
    "stationary_dense",
]

Array = NDArray[np.float64]


def _reduce(a: Array, keep: int) -> tuple[Array, int]:
    """Eliminate states n-1, ..., keep in place; -1, or a state that leads to no lower one."""
    sums = np.zeros(len(a))
    for k in range(len(a) - 1, keep - 1, -1):
        sums[k] = a[k, :k].sum()
        if not sums[k] > 0:
            return sums, k
        a[:k, k] /= sums[k]
        a[:k, :k] += np.outer(a[:k, k], a[k, :k])
    return sums, -1


def stationary_dense(p: Array, n_threads: int) -> tuple[Array, int]:
    """Stationary law of a full matrix, and -1 or a state that leads to no lower one.

    Rows are scaled to sum to one.
    """
    a = p / p.sum(axis=1, keepdims=True)
    _, bad = _reduce(a, 1)
    pi = np.zeros(len(a))
    pi[0] = 1.0
    if bad < 0:
        for k in range(1, len(a)):
            pi[k] = pi[:k] @ a[:k, k]
            if pi[k] > 1e100:
                pi[: k + 1] *= 1e-100
    return pi / pi.sum(), bad


def stationary_banded(
    values: Array,
    columns: NDArray[np.int32],
    starts: NDArray[np.int32],
    lower: int,
    upper: int,
    n_threads: int,
) -> tuple[Array, int]:
    """The same for a CSR matrix with ``i - lower <= j <= i + upper``."""
    n = len(starts) - 1
    band = np.zeros((n, lower + upper + 1))  # band[i, j - i + lower] is P[i, j]
    rows = np.repeat(np.arange(n), np.diff(starts))
    sums = np.add.reduceat(values, starts[:-1])
    np.add.at(band, (rows, columns - rows + lower), values / sums[rows])
    for k in range(n - 1, 0, -1):
        left = max(0, k - lower)
        row = band[k, left - k + lower : lower]
        total = row.sum()
        if not total > 0:
            return np.zeros(n), k
        for i in range(max(0, k - upper), k):
            band[i, k - i + lower] /= total
            band[i, left - i + lower : k - i + lower] += band[i, k - i + lower] * row
    pi = np.zeros(n)
    pi[0] = 1.0
    for k in range(1, n):
        for i in range(max(0, k - upper), k):
            pi[k] += pi[i] * band[i, k - i + lower]
        if pi[k] > 1e100:
            pi[: k + 1] *= 1e-100
    return pi / pi.sum(), -1


def absorption_dense(p: Array, keep: int, n_threads: int) -> tuple[Array, int]:
    """Law of the state in which a chain is absorbed, the first `keep` states being absorbing."""
    a = p.copy()
    sums, bad = _reduce(a, keep)
    out = np.zeros((len(a), keep))
    out[:keep] = np.eye(keep)
    if bad < 0:
        for k in range(keep, len(a)):
            out[k] = (a[k, :k] / sums[k]) @ out[:k]
            out[k] /= out[k].sum()
    return out, bad


def group_inverse_krylov(
    values: Array,
    columns: NDArray[np.int32],
    starts: NDArray[np.int32],
    lower: int,
    upper: int,
    start: Array,
    steps: int,
    enough: Callable[[Array, int], bool],
    n_threads: int,
) -> tuple[Array, Array, int]:
    """Arnoldi's Hessenberg matrix of the group inverse of ``I - P``, the law, and the steps done.

    The group inverse is balanced, ``D G D^-1`` with ``D = diag(sqrt(pi))``, unless a mass is below
    1e-280. ``enough(table, m)`` is asked after m = 8, 12, 16, 24, 36, ... steps whether they do. A
    state that leads to no lower one gives ``-1 - state`` steps; a first state with less than 1e-8
    of the largest mass gives none: order the states so that it has more.
    """
    n = len(starts) - 1
    p = np.zeros((n, n))
    np.add.at(p, (np.repeat(np.arange(n), np.diff(starts)), columns), values)
    p /= p.sum(axis=1, keepdims=True)
    pi, bad = stationary_dense(p, n_threads)
    hessenberg = np.zeros((steps + 1, steps))
    if bad >= 0:
        return hessenberg, pi, -1 - bad
    if pi[0] < 1e-8 * pi.max():
        return hessenberg, pi, 0
    root = np.sqrt(pi) if pi.min() > 1e-280 else np.ones(n)
    group_inverse = (np.linalg.inv(np.eye(n) - p + pi) - pi) * root[:, None] / root
    basis = np.zeros((steps + 1, n))
    basis[0] = start - (pi / root) @ start * root
    basis[0] /= np.linalg.norm(basis[0])
    ask = 8
    for m in range(steps):
        x = group_inverse @ basis[m]
        for _ in range(2):
            h = basis[: m + 1] @ x
            hessenberg[: m + 1, m] += h
            x -= h @ basis[: m + 1]
        norm = np.linalg.norm(x)
        if not norm > 1e-14 * np.abs(hessenberg[: m + 1, m]).sum():
            return hessenberg, pi, m + 1
        hessenberg[m + 1, m] = norm
        basis[m + 1] = x / norm
        if m + 1 == ask and m + 1 < steps:
            if enough(hessenberg, m + 1):
                return hessenberg, pi, m + 1
            ask += 4 if ask < 16 else ask // 2
    return hessenberg, pi, steps
