"""Barycenters of histograms on a line, in numba: the reference's iteration on logarithms."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgdmc._core.jit.compiler import compiled
from sgdmc._core.reference.barycenter import START_DEBIAS, START_MIX, START_STEPS

__all__ = ["quantile_barycenters", "sinkhorn_barycenters"]

Array = NDArray[np.float64]
Index = NDArray[np.int64]


@compiled
def _log_product(log_in: Any, first_in: int, scale: float, first_out: int, log_out: Any) -> None:
    """Logarithm of ``Σ_v exp(log_in[v] − (u − v)²/scale)``, bins counted from first_in, _out."""
    for u in range(len(log_out)):
        top = -np.inf
        for v in range(len(log_in)):
            d = float(u + first_out - v - first_in)
            top = max(top, log_in[v] - d * d / scale)
        total = 0.0
        if top > -np.inf:
            for v in range(len(log_in)):
                d = float(u + first_out - v - first_in)
                total += np.exp(log_in[v] - d * d / scale - top)
        log_out[u] = top + np.log(total) if total > 0 else -np.inf


@compiled
def _quantile(rows: Any, w: Any) -> Any:
    """Exact W2 barycenter: mass between consecutive levels lies between the averaged quantiles."""
    m, n = rows.shape
    cumulated = np.zeros((m, n + 1))
    for k in range(m):
        for s in range(n):
            cumulated[k, s + 1] = cumulated[k, s] + rows[k, s]
        cumulated[k] /= cumulated[k, n]
    place = np.zeros(m, dtype=np.int64)
    out = np.zeros(n)
    level = 0.0
    while level < 1.0:
        following = 1.0
        for k in range(m):
            while place[k] + 1 < n and cumulated[k, place[k] + 1] <= level:
                place[k] += 1
            if cumulated[k, place[k] + 1] > level:
                following = min(following, cumulated[k, place[k] + 1])
        left, right = 0.0, 0.0
        for k in range(m):
            low, high = cumulated[k, place[k]], cumulated[k, place[k] + 1]
            if high > low:
                left += w[k] * (place[k] + min(max((level - low) / (high - low), 0.0), 1.0))
                right += w[k] * (place[k] + min(max((following - low) / (high - low), 0.0), 1.0))
            else:
                left += w[k] * place[k]
                right += w[k] * (place[k] + 1)
        right = min(max(right, left), float(n))
        s = min(int(left), n - 1)
        if right <= s + 1:
            out[s] += following - level
        else:
            while s < n and s < right:
                part = min(right, s + 1.0) - max(left, float(s))
                out[s] += (following - level) * part / (right - left)
                s += 1
        level = following
    return out


@compiled
def _solve(
    rows: Any, w: Any, reg: float, debiased: bool, tol: float, max_iter: int
) -> tuple[Any, int, float]:
    m, n = rows.shape
    scale = n * n * reg
    states = np.arange(n)
    means = np.zeros(m)
    for k in range(m):
        means[k] = (rows[k] * states).sum()
    offset = np.rint(means - (w * means).sum()).astype(np.int64)
    tilt = 2.0 * states * (w * offset).sum() / scale
    scratch = np.empty(n)
    exact = _quantile(rows, w)
    ones = np.zeros(n)
    _log_product(ones, 0, scale, 0, scratch)
    blurred = np.empty(n)
    _log_product(np.log(exact) - scratch, 0, scale, 0, blurred)
    start = np.log((1.0 - START_MIX) * exact + START_MIX * (np.exp(blurred) + 1e-6 / n))
    log_d = np.zeros(n)
    if debiased:
        for _ in range(START_DEBIAS):
            _log_product(log_d, 0, scale, 0, scratch)
            log_d = 0.5 * (log_d + start - scratch)
    log_rows = np.log(rows)
    log_b, log_ka = np.empty((m, n)), np.empty((m, n))
    for k in range(m):
        log_b[k] = log_d - tilt
        for _ in range(START_STEPS):
            _log_product(log_b[k], 0, scale, -offset[k], scratch)
            _log_product(log_rows[k] - scratch, -offset[k], scale, 0, log_ka[k])
            log_b[k] = start - log_ka[k]
    previous = np.exp(start)
    residual = np.inf
    iteration = 0
    while iteration < max_iter and residual > tol:
        iteration += 1
        log_bary = log_d + tilt
        for k in range(m):
            _log_product(log_b[k], 0, scale, -offset[k], scratch)
            _log_product(log_rows[k] - scratch, -offset[k], scale, 0, log_ka[k])
            log_bary += w[k] * log_ka[k]
        top = log_bary.max()
        log_bary -= top + np.log(np.exp(log_bary - top).sum())
        bary = np.exp(log_bary)
        residual = np.abs(bary - previous).sum()
        for k in range(m):
            short = bary - np.exp(np.minimum(log_b[k] + log_ka[k], 700.0))
            residual = max(residual, 2.0 * np.maximum(short, 0.0).sum())
            log_b[k] = log_bary - log_ka[k]
        if debiased:
            _log_product(log_d, 0, scale, 0, scratch)
            gap = bary - np.exp(np.minimum(log_d + scratch, 700.0))
            residual = max(residual, np.abs(gap).sum())
            log_d = 0.5 * (log_d + log_bary - scratch)
        previous = bary
    return previous / previous.sum(), iteration, residual


def sinkhorn_barycenters(
    histograms: Array,
    members: Index,
    weights: Array,
    reg: float,
    debiased: bool,
    tol: float,
    max_iter: int,
    n_threads: int,
) -> tuple[Array, Index, Array]:
    """Sinkhorn barycenters, one a row of `members` and `weights` (`n_threads` is not used here)."""
    out = np.empty((len(members), histograms.shape[1]))
    n_iter = np.empty(len(members), dtype=np.int64)
    residual = np.empty(len(members))
    for p, (index, w) in enumerate(zip(members, weights, strict=True)):
        used = w > 0
        rows = np.ascontiguousarray(histograms[index[used]])
        out[p], n_iter[p], residual[p] = _solve(rows, w[used], reg, debiased, tol, max_iter)
    return out, n_iter, residual


def quantile_barycenters(histograms: Array, members: Index, weights: Array) -> Array:
    """Exact `W_2` barycenters of densities that are constant on each bin: averaged quantiles."""
    return np.stack(
        [_quantile(histograms[index], w) for index, w in zip(members, weights, strict=True)]
    )
