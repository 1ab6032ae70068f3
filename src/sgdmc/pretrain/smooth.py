"""One-coordinate series with a smooth drift and a noise of any shape, for the prior.

``x_{t+1} = m(x_t) + s(x_t) ε``, where ``ε`` has the quantile function that a table of sorted
draws interpolates: one rule for Gaussian, heavy-tailed, skewed, bounded and clustered noise, and
one that is sampled by strata. Compiled with numba.
"""

# ruff: noqa: NPY002 (numba offers this generator alone inside compiled functions)
# mypy: disable-error-code="no-untyped-def, no-untyped-call"
from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numba import njit

__all__ = ["draw_noise_table", "query_value", "simulate_smooth"]

_BELL = np.array([NormalDist().inv_cdf((i + 0.5) / 2000) for i in range(2000)])
_BELL /= _BELL.std()


@njit(cache=True)
def draw_noise_table(size):
    """Return a sorted table of noise, centred and with unit deviation, of a random shape."""
    z = np.empty(size)
    u = np.random.random()
    if u < 0.3:
        return _BELL.copy()
    if u < 0.45:
        for i in range(size):
            z[i] = np.random.normal()
    elif u < 0.6:
        nu = np.random.uniform(2.2, 10.0)
        for i in range(size):
            z[i] = np.random.normal() / math.sqrt(np.random.gamma(nu / 2, 2.0) / nu)
    elif u < 0.72:
        shape = math.exp(np.random.uniform(math.log(0.5), math.log(10.0)))
        for i in range(size):
            z[i] = np.random.gamma(shape, 1.0)
    elif u < 0.78:
        for i in range(size):
            z[i] = np.random.exponential() * (1.0 if np.random.random() < 0.5 else -1.0)
    elif u < 0.83:
        for i in range(size):
            z[i] = np.random.random()
    else:
        n = np.random.randint(2, 6)
        centre = np.random.normal(0.0, 1.0, n)
        width = np.exp(np.random.uniform(math.log(0.02), 0.0, n))
        mass = np.cumsum(np.random.random(n) ** 2 + 0.02)
        for i in range(size):
            j = np.searchsorted(mass, np.random.random() * mass[-1])
            j = min(j, n - 1)
            z[i] = centre[j] + width[j] * np.random.normal()
    if np.random.random() < 0.5:
        z = -z
    z.sort()
    z -= z.mean()
    return z / max(z.std(), 1e-9)


@njit(cache=True)
def _quantile(table, u):
    at = u * (table.size - 1)
    i = min(int(at), table.size - 2)
    return table[i] + (at - i) * (table[i + 1] - table[i])


@njit(cache=True)
def _mean(x, kind, a, w, phase, b):
    if kind == 0:
        return a[0] * x
    if kind == 1:
        return x + a[0] * (x - x * x * x)
    total = 0.0
    for k in range(w.size):
        total += a[1 + k] * math.sin(w[k] * x + phase[k])
    if kind == 2:
        return x + a[0] * (total - b * x)
    return total


@njit(cache=True)
def _scale(x, kind, s, b, w, phase):
    if kind == 0:
        return s
    if kind == 1:
        return s * (0.1 + abs(1.0 + b * x))
    if kind == 2:
        return s * math.exp(min(max(b * x, -4.0), 4.0))
    return s * math.exp(b * math.sin(w[0] * x + phase[0]))


@njit(cache=True)
def simulate_smooth(n_steps, n_draws, starts, n_queries):
    """Simulate one series and draw independent next values at each of its points.

    Parameters
    ----------
    n_steps, n_draws : int
    starts : ndarray (n_steps,) of bool
        Where a new run starts; the first is true.
    n_queries : int

    Returns
    -------
    path : ndarray (n_steps,)
    draws : ndarray (n_steps, n_draws)
    query, query_draws : ndarray (n_queries,), (n_queries, n_draws)
        Present values off the path, and draws of the next value.
    """
    path = np.empty(n_steps)
    draws = np.empty((n_steps, n_draws))
    query = np.empty(n_queries)
    query_draws = np.empty((n_queries, n_draws))
    while True:
        table = draw_noise_table(128 if np.random.random() < 0.3 else 600)
        u = np.random.random()
        kind = 0 if u < 0.42 else (1 if u < 0.68 else (2 if u < 0.88 else 3))
        a = np.random.normal(0.0, 1.0, 5)
        w = np.exp(np.random.uniform(math.log(0.5), math.log(5.0), 4))
        a[1:] /= np.sqrt(1.0 + w)
        phase = np.random.uniform(0.0, 2 * math.pi, 4)
        b = np.random.uniform(0.0, 1.0)
        if kind == 0:
            a[0] = np.random.uniform(-0.6, 1.0)
            if np.random.random() < 0.6:
                a[0] = 1.0 - math.exp(np.random.uniform(math.log(0.003), 0.0))
        elif kind == 1:
            a[0] = math.exp(np.random.uniform(math.log(0.01), math.log(0.9)))
        elif kind == 2:
            a[0] = math.exp(np.random.uniform(math.log(0.01), 0.0))
        s = math.exp(np.random.uniform(math.log(0.003), math.log(0.8)))
        if kind == 0:
            s = math.exp(np.random.uniform(math.log(0.01), 0.0))
        s_kind = 0
        if np.random.random() < 0.45:
            s_kind = 1 if np.random.random() < 0.5 else 2
        s_b = np.random.normal()
        spread = math.exp(np.random.uniform(math.log(0.1), math.log(4.0)))
        burn = 60 if np.random.random() < 0.5 else 0
        if np.random.random() < 0.4:
            # The plain case: a line or two wells, and the bell, of one width or a smooth one.
            table = _BELL.copy()
            s = math.exp(np.random.uniform(math.log(0.02), math.log(0.7)))
            spread = math.exp(np.random.uniform(math.log(0.3), math.log(2.0)))
            kind = 0 if np.random.random() < 0.5 else 1
            width = 1.0
            if kind == 0:
                a[0] = np.random.uniform(-0.2, 1.0)
                if np.random.random() < 0.3:
                    a[0] = 1.0 - math.exp(np.random.uniform(math.log(0.005), 0.0))
                width = max(0.3 * spread, s / math.sqrt(1.0 - a[0] ** 2 + 1e-6))
            else:
                a[0] = math.exp(np.random.uniform(math.log(0.015), math.log(0.7)))
            s_kind = 0 if np.random.random() < 0.5 else np.random.randint(1, 4)
            s_b = np.random.normal() / (1.0 if s_kind == 3 else width)
            w[0] /= width
        x = 0.0
        ok = True
        for t in range(n_steps):
            if starts[t]:
                x = spread * np.random.normal()
                for _ in range(burn):
                    x = _mean(x, kind, a, w, phase, b) + _scale(
                        x, s_kind, s, s_b, w, phase
                    ) * _quantile(table, np.random.random())
                    x = min(max(x, -1e6), 1e6)
            path[t] = x
            mean = _mean(x, kind, a, w, phase, b)
            scale = _scale(x, s_kind, s, s_b, w, phase)
            for k in range(n_draws):
                draws[t, k] = mean + scale * _quantile(table, (k + np.random.random()) / n_draws)
            x = mean + scale * _quantile(table, np.random.random())
            if not abs(x) < 50.0:
                ok = False
                break
        if ok:
            break
    low, high = path.min(), path.max()
    for q in range(n_queries):
        x = query_value(path, low, high)
        query[q] = x
        mean = _mean(x, kind, a, w, phase, b)
        scale = _scale(x, s_kind, s, s_b, w, phase)
        for k in range(n_draws):
            u = (k + np.random.random()) / n_draws
            query_draws[q, k] = mean + scale * _quantile(table, u)
    return path, draws, query, query_draws


@njit(cache=True)
def query_value(path, low, high):
    """Return a present value to ask about: near the path, within its range, or outside."""
    width = high - low
    u = np.random.random()
    if u < 0.4:
        near = path[np.random.randint(path.size)]
        return near + 0.006 * width * np.random.normal()
    if u < 0.75:
        return np.random.uniform(low, high)
    beyond = width * math.exp(np.random.uniform(math.log(0.05), math.log(2.0)))
    return np.random.uniform(low - beyond, high + beyond)
