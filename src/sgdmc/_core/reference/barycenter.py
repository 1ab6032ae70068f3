"""Barycenters of histograms on a line, in plain NumPy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

__all__ = ["quantile_barycenters", "sinkhorn_barycenters"]

Array = NDArray[np.float64]
Index = NDArray[np.int64]
Products = tuple[Callable[[Array], Array], Callable[[Array], Array], Callable[[Array], Array]]

START_DEBIAS = 20  # iterations for the debiasing vector of the first guess
START_STEPS = 3  # Sinkhorn iterations with the first guess held fixed
START_MIX = 1e-6  # share of the blurred start in the first guess, so that no state is ruled out


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
    """Sinkhorn barycenters, one a row of `members` and `weights` (`n_threads` is not used here).

    Returns the histograms `(n_problems, n)`, the iterations `(n_problems,)` and the residuals
    `(n_problems,)`.
    """
    n_problems, n = len(members), histograms.shape[1]
    out = np.empty((n_problems, n))
    n_iter = np.empty(n_problems, dtype=np.int64)
    residual = np.empty(n_problems)
    for p in range(n_problems):
        used = np.flatnonzero(weights[p] > 0)
        rows, w = histograms[members[p, used]], weights[p, used]
        out[p], n_iter[p], residual[p] = _solve(rows, w, reg, debiased, tol, max_iter)
    return out, n_iter, residual


def _solve(
    rows: Array, w: Array, reg: float, debiased: bool, tol: float, max_iter: int
) -> tuple[Array, int, float]:
    m, n = rows.shape
    states = np.arange(n)
    scale = n * n * reg  # cost / reg = (u - v)**2 / scale
    means = rows @ states
    # Moving row k by an integer offset changes its potentials by a line and nothing else: solve
    # with all rows on top of one another, where the potentials are flat and nothing underflows.
    offset = np.rint(means - w @ means).astype(np.int64)
    tilt = 2.0 * states * (w @ offset) / scale
    pad = int(np.max(np.abs(offset)))
    sources = np.zeros((m, n + 2 * pad))
    for k in range(m):
        sources[k, pad - offset[k] : pad - offset[k] + n] = rows[k]
    exponent = -((np.arange(-pad, n + pad)[:, None] - states[None, :]) ** 2) / scale  # (L, n)
    start = _first_guess(rows, w, exponent[pad : pad + n])
    # Plain products are right while no entry of the Gibbs kernel underflows.
    make = _scaled_products if exponent.min() > -600.0 else _log_products
    return _iterate(sources, w, tilt, start, make(exponent, pad), debiased, tol, max_iter)


def _first_guess(rows: Array, w: Array, exponent: Array) -> Array:
    """Exact W2 barycenter, with a little of its blurred self, as logarithms."""
    m, n = rows.shape
    exact = quantile_barycenters(rows, np.arange(m)[None, :], w[None, :])[0]
    gibbs = np.exp(exponent)
    blurred = gibbs @ (exact / gibbs.sum(axis=0))
    return np.asarray(np.log((1.0 - START_MIX) * exact + START_MIX * (blurred + 1e-6 / n)))


def _scaled_products(exponent: Array, pad: int) -> Products:
    """Logarithms of `K exp(f)` through plain products: quick, and void where they underflow."""
    gibbs = np.exp(exponent)
    square = np.ascontiguousarray(gibbs[pad : pad + exponent.shape[1]])

    def to_sources(log_b: Array) -> Array:  # (m, n) -> (m, L)
        shift = log_b.max(axis=-1, keepdims=True)
        return np.asarray(np.log(np.exp(log_b - shift) @ gibbs.T) + shift)

    def to_target(log_a: Array) -> Array:  # (m, L) -> (m, n)
        shift = log_a.max(axis=-1, keepdims=True)
        return np.asarray(np.log(np.exp(log_a - shift) @ gibbs) + shift)

    def within(log_d: Array) -> Array:  # (n,) -> (n,)
        shift = log_d.max()
        return np.asarray(np.log(square @ np.exp(log_d - shift)) + shift)

    return to_sources, to_target, within


def _log_products(exponent: Array, pad: int) -> Products:
    """The same by `logsumexp`: slow, and never void."""
    square = exponent[pad : pad + exponent.shape[1]]

    def to_sources(log_b: Array) -> Array:
        return np.stack([logsumexp(exponent + row, axis=1) for row in log_b])

    def to_target(log_a: Array) -> Array:
        out = []
        for row in log_a:
            live = np.isfinite(row)
            out.append(logsumexp(exponent[live] + row[live, None], axis=0))
        return np.stack(out)

    def within(log_d: Array) -> Array:
        return np.asarray(logsumexp(square + log_d, axis=1))

    return to_sources, to_target, within


def _iterate(
    sources: Array,
    w: Array,
    tilt: Array,
    start: Array,
    products: Products,
    debiased: bool,
    tol: float,
    max_iter: int,
) -> tuple[Array, int, float]:
    """The iteration, on logarithms."""
    to_sources, to_target, within = products
    m, n = len(sources), len(start)
    with np.errstate(divide="ignore", invalid="ignore"):
        log_sources = np.log(sources)
        log_d = np.zeros(n)
        if debiased:
            for _ in range(START_DEBIAS):
                log_d = 0.5 * (log_d + start - within(log_d))
        log_b = np.tile(log_d - tilt, (m, 1))
        for _ in range(START_STEPS):  # potentials that fit the first guess
            log_a = np.where(sources > 0, log_sources - to_sources(log_b), -np.inf)
            log_b = start - to_target(log_a)
        previous = np.exp(start)
        residual = np.inf
        iteration = 0
        while iteration < max_iter and residual > tol:
            iteration += 1
            log_kb = to_sources(log_b)
            log_a = np.where(sources > 0, log_sources - log_kb, -np.inf)
            log_ka = to_target(log_a)
            log_bary = log_d + tilt + w @ log_ka
            log_bary -= logsumexp(log_bary)
            bary = np.exp(log_bary)
            # The barycenter has settled when it moves no more and is the second marginal of every
            # plan, the debiasing one included; each of the three is a distance in L1.
            residual = float(np.abs(bary - previous).sum())
            short = bary - np.exp(np.minimum(log_b + log_ka, 700.0))
            residual = max(residual, float(2 * np.clip(short, 0.0, None).sum(axis=1).max()))
            log_b = log_bary - log_ka
            if debiased:
                log_kd = within(log_d)
                gap = bary - np.exp(np.minimum(log_d + log_kd, 700.0))
                residual = max(residual, float(np.abs(gap).sum()))
                log_d = 0.5 * (log_d + log_bary - log_kd)
            previous = bary
    return previous / previous.sum(), iteration, residual


def quantile_barycenters(histograms: Array, members: Index, weights: Array) -> Array:
    """Exact `W_2` barycenters of densities that are constant on each bin: averaged quantiles."""
    n = histograms.shape[1]
    edges = np.arange(n + 1.0)
    cumulated = np.concatenate(
        [np.zeros((len(histograms), 1)), np.cumsum(histograms, axis=1)], axis=1
    )
    cumulated /= cumulated[:, -1:]
    out = np.empty((len(members), n))
    for p, (rows, w) in enumerate(zip(members, weights, strict=True)):
        used = rows[w > 0]
        levels = np.unique(cumulated[used])
        left, right = np.zeros_like(levels), np.zeros_like(levels)
        for k, weight in zip(used, w[w > 0], strict=True):
            left += weight * _quantile(cumulated[k], levels, "left")
            right += weight * _quantile(cumulated[k], levels, "right")
        positions = np.column_stack([left, right])[1:-1].ravel()
        positions = np.concatenate([right[:1], positions, left[-1:]])
        law = np.repeat(levels, 2)[1:-1]
        out[p] = np.diff(np.interp(edges, np.maximum.accumulate(positions), law, left=0, right=1))
    return out


def _quantile(cumulated: Array, levels: Array, side: str) -> Array:
    """Limits of the quantile function from one side, in bins."""
    if side == "left":
        j = np.clip(np.searchsorted(cumulated, levels, side="left"), 1, len(cumulated) - 1) - 1
    else:
        j = np.clip(np.searchsorted(cumulated, levels, side="right"), 1, len(cumulated) - 1) - 1
    height = cumulated[j + 1] - cumulated[j]
    part = np.divide(levels - cumulated[j], height, out=np.zeros_like(levels), where=height > 0)
    return np.asarray(j + np.clip(part, 0.0, 1.0))
