"""Stationary laws and absorption probabilities by state reduction, in numba."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sgdmc._core.jit.compiler import compiled

__all__ = ["absorption_dense", "stationary_banded", "stationary_dense"]

Array = NDArray[np.float64]


@compiled
def _reduce(a: Array, keep: int, sums: Array) -> int:
    for k in range(len(a) - 1, keep - 1, -1):
        total = 0.0
        for j in range(k):
            total += a[k, j]
        sums[k] = total
        if not total > 0:
            return k
        for i in range(k):
            c = a[i, k] / total
            a[i, k] = c
            for j in range(k):
                a[i, j] += c * a[k, j]
    return -1


@compiled
def stationary_dense(p: Array, n_threads: int) -> tuple[Array, int]:
    """Stationary law of a full matrix, and -1 or a state that leads to no lower one."""
    a = p.copy()
    n = len(a)
    for i in range(n):
        a[i] /= a[i].sum()
    bad = _reduce(a, 1, np.zeros(n))
    pi = np.zeros(n)
    pi[0] = 1.0
    if bad < 0:
        for k in range(1, n):
            for i in range(k):
                pi[k] += pi[i] * a[i, k]
            if pi[k] > 1e100:
                pi[: k + 1] *= 1e-100
    return pi / pi.sum(), bad


@compiled
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
    band = np.zeros((n, lower + upper + 1))
    for i in range(n):
        total = values[starts[i] : starts[i + 1]].sum()
        for e in range(starts[i], starts[i + 1]):
            band[i, columns[e] - i + lower] += values[e] / total
    pi = np.zeros(n)
    for k in range(n - 1, 0, -1):
        left = max(0, k - lower)
        total = 0.0
        for j in range(left, k):
            total += band[k, j - k + lower]
        if not total > 0:
            return pi, k
        for i in range(max(0, k - upper), k):
            c = band[i, k - i + lower] / total
            band[i, k - i + lower] = c
            for j in range(left, k):
                band[i, j - i + lower] += c * band[k, j - k + lower]
    pi[0] = 1.0
    for k in range(1, n):
        for i in range(max(0, k - upper), k):
            pi[k] += pi[i] * band[i, k - i + lower]
        if pi[k] > 1e100:
            pi[: k + 1] *= 1e-100
    return pi / pi.sum(), -1


@compiled
def absorption_dense(p: Array, keep: int, n_threads: int) -> tuple[Array, int]:
    """Law of the state in which a chain is absorbed, the first `keep` states being absorbing."""
    a = p.copy()
    n = len(a)
    sums = np.zeros(n)
    bad = _reduce(a, keep, sums)
    out = np.zeros((n, keep))
    for k in range(keep):
        out[k, k] = 1.0
    if bad < 0:
        for k in range(keep, n):
            for j in range(k):
                out[k] += (a[k, j] / sums[k]) * out[j]
            out[k] /= out[k].sum()
    return out, bad
