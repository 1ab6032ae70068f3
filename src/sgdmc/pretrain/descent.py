"""Simulated finite-sample SGD for the prior: many losses, data sets, batches and step sizes.

The single tanh neuron and phase retrieval are left out on purpose: the evaluation measures
generalisation on them. Compiled with numba.
"""

# ruff: noqa: NPY002 (numba offers this generator alone inside compiled functions)
# mypy: disable-error-code="no-untyped-def, no-untyped-call"
from __future__ import annotations

import math

import numpy as np
from numba import njit

from sgdmc.pretrain.smooth import query_value

__all__ = ["draw_problem", "simulate_descent"]

SQUARE, LOGISTIC, ABSOLUTE, LOG_COSH, HUBER, POISSON, SINE, SINE_2, WELL, WAVES, TILTED = range(11)


@njit(cache=True)
def _features(n, dim):
    """Return (n, dim) features: Gaussian, heavy-tailed, clustered, discrete, bounded or skewed."""
    X = np.empty((n, dim))
    kind = np.random.randint(6)
    nu = np.random.uniform(2.1, 6.0)
    n_centres = np.random.randint(2, 5)
    centres = np.random.normal(0.0, 1.0, (n_centres, dim))
    width = math.exp(np.random.uniform(math.log(0.01), math.log(0.5)))
    n_levels = np.random.randint(2, 5)
    offset = np.random.normal() * 0.5
    for i in range(n):
        c = np.random.randint(n_centres)
        for j in range(dim):
            if kind == 0:
                X[i, j] = np.random.normal()
            elif kind == 1:
                X[i, j] = np.random.normal() / math.sqrt(np.random.gamma(nu / 2, 2.0) / nu)
            elif kind == 2:
                X[i, j] = centres[c, j] + width * np.random.normal()
            elif kind == 3:
                X[i, j] = (2.0 * np.random.randint(n_levels) - n_levels + 1.0) / (n_levels - 1.0)
            elif kind == 4:
                X[i, j] = np.random.uniform(-1.7, 1.7)
            else:
                X[i, j] = math.exp(0.7 * np.random.normal()) - 1.0
            X[i, j] += offset
    if dim > 1:
        if np.random.random() < 0.5:
            A = np.random.normal(0.0, 1.0, (dim, dim)) / math.sqrt(dim)
            X = X @ A
        for j in range(dim):
            X[:, j] *= math.exp(np.random.uniform(math.log(0.3), math.log(2.0)))
        if np.random.random() < 0.3:
            X[:, dim - 1] = 1.0
    return X


@njit(cache=True)
def draw_problem(dim, quadratic):
    """Draw a finite-sample problem.

    Parameters
    ----------
    dim : int
        Number of parameters, 1 to 6.
    quadratic : bool
        Least squares only.

    Returns
    -------
    kind : int
    X : ndarray (n, dim)
    y : ndarray (n,)
    extra : ndarray (n + 1, 4)
        Amplitudes a sample of the waves, and their frequencies in the last row.
    l2 : float
    solution : ndarray (dim,)
        The parameters behind the targets.
    curvature : float
        A mean curvature, for the step size.
    """
    n = int(math.exp(np.random.uniform(math.log(2.0), math.log(201.0))))
    X = _features(n, dim)
    u = np.random.random()
    kind = SQUARE
    if not quadratic:
        if u < 0.28:
            kind = SQUARE
        elif u < 0.46:
            kind = LOGISTIC
        elif u < 0.52:
            kind = ABSOLUTE
        elif u < 0.60:
            kind = LOG_COSH
        elif u < 0.65:
            kind = HUBER
        elif u < 0.69:
            kind = POISSON
        elif u < 0.76:
            kind = SINE_2 if dim == 2 else SINE
        elif u < 0.82:
            kind = WELL
        elif u < 0.94:
            kind = WAVES
        else:
            kind = TILTED
    solution = np.random.normal(0.0, 1.0, dim)
    if kind in (SINE_2, SINE):
        solution *= 1.5
    noise = 0.0
    if np.random.random() < 0.87:
        noise = math.exp(np.random.uniform(math.log(0.02), math.log(3.0)))
    noise_kind = np.random.randint(3)
    y = np.empty(n)
    sharp = math.exp(np.random.uniform(math.log(0.5), math.log(4.0)))
    for i in range(n):
        z = np.dot(X[i], solution)
        e = np.random.normal()
        if noise_kind == 1:
            e /= math.sqrt(np.random.gamma(1.5, 2.0) / 3.0)
        elif noise_kind == 2:
            e = 1.0 if np.random.random() < 0.5 else -1.0
        if kind == LOGISTIC:
            y[i] = 1.0 if np.random.random() < 1.0 / (1.0 + math.exp(-sharp * z)) else 0.0
        elif kind == POISSON:
            y[i] = float(np.random.poisson(math.exp(min(0.6 * z, 3.0))))
        elif kind == SINE:
            y[i] = math.sin(z) + noise * e
        elif kind == SINE_2:
            y[i] = solution[0] * math.sin(solution[1] * X[i, 0]) + noise * e
        elif kind in (WELL, WAVES, TILTED):
            y[i] = noise * e
        else:
            y[i] = z + noise * e
    extra = np.zeros((n + 1, 4))
    if kind == WAVES:
        common = np.random.normal(0.0, 1.0, 4)
        own = math.exp(np.random.uniform(math.log(0.05), math.log(2.0)))
        for k in range(4):
            extra[n, k] = math.exp(np.random.uniform(math.log(0.3), math.log(4.0)))
            for i in range(n):
                extra[i, k] = common[k] + own * np.random.normal()
    l2 = 0.0
    if np.random.random() < (0.8 if kind == LOGISTIC else 0.25):
        l2 = math.exp(np.random.uniform(math.log(1e-3), math.log(0.3)))
    if kind == WAVES:
        l2 += 0.1
    mean_square = max((X * X).sum() / n, 1e-3)
    curvature = mean_square
    if kind == LOGISTIC:
        curvature = 0.25 * mean_square + l2
    elif kind in (WELL, TILTED):
        curvature = 2.0
    elif kind == WAVES:
        curvature = 2.0 + l2
    elif kind == SINE_2:
        curvature = mean_square * (1.0 + solution[0] ** 2)
    elif kind == POISSON:
        curvature = mean_square * 1.5
    return kind, X, y, extra, l2, solution, curvature


@njit(cache=True)
def _add_gradient(kind, X, y, extra, l2, i, theta, g):
    """Add the gradient of sample ``i`` at ``theta`` to ``g``."""
    dim = theta.size
    if kind == SINE_2:
        wave = math.sin(theta[1] * X[i, 0])
        r = theta[0] * wave - y[i]
        g[0] += r * wave + l2 * theta[0]
        g[1] += r * theta[0] * X[i, 0] * math.cos(theta[1] * X[i, 0]) + l2 * theta[1]
        return
    if kind == WELL:
        for j in range(dim):
            g[j] += theta[j] * (theta[j] * theta[j] - 1.0) + y[i] * (1.0 if j == 0 else 0.5)
            g[j] += 0.3 * (X[i, j] if j > 0 else 0.0)
        return
    if kind == TILTED:
        for j in range(dim):
            g[j] += theta[j] + 0.8 * math.sin(2.5 * theta[j] + y[i]) + 0.5 * X[i, j]
        return
    if kind == WAVES:
        n = y.size
        for j in range(dim):
            total = l2 * theta[j] + 0.2 * y[i]
            for k in range(4):
                total += extra[i, k] * math.sin(extra[n, k] * theta[j] + 1.7 * k + 0.9 * j)
            g[j] += 0.7 * total
        return
    z = 0.0
    for j in range(dim):
        z += X[i, j] * theta[j]
    if kind == LOGISTIC:
        psi = 1.0 / (1.0 + math.exp(-min(max(z, -40.0), 40.0))) - y[i]
    elif kind == ABSOLUTE:
        psi = 1.0 if z > y[i] else -1.0
    elif kind == LOG_COSH:
        psi = math.tanh(z - y[i])
    elif kind == HUBER:
        psi = min(max(z - y[i], -0.7), 0.7)
    elif kind == POISSON:
        psi = math.exp(min(z, 6.0)) - y[i]
    elif kind == SINE:
        psi = (math.sin(z) - y[i]) * math.cos(z)
    else:
        psi = z - y[i]
    for j in range(dim):
        g[j] += psi * X[i, j] + l2 * theta[j]


@njit(cache=True)
def _advance(kind, X, y, extra, l2, rate, batch, lag, first, theta, g):
    """Take ``lag`` steps in place; ``first >= 0`` names the sample of a single step."""
    n = y.size
    for _ in range(lag):
        g[:] = 0.0
        if first >= 0:
            _add_gradient(kind, X, y, extra, l2, first, theta, g)
        else:
            for _ in range(batch):
                _add_gradient(kind, X, y, extra, l2, np.random.randint(n), theta, g)
        for j in range(theta.size):
            theta[j] -= rate / batch * g[j]


@njit(cache=True)
def _draw_next(kind, X, y, extra, l2, rate, batch, lag, theta, budget, draws, direction, work, g):
    """Fill ``draws`` (k, ...) with next states; return how many, 0 if none could be afforded."""
    n = y.size
    limit = draws.shape[0]
    single = batch == 1 and lag == 1
    count = min(limit, n) if single else min(limit, budget // (lag * batch))
    if count < 2 and not single:
        return 0
    start = np.random.randint(n)
    # Distinct samples by a stride prime to n: all of them when n <= limit.
    stride = 1 + np.random.randint(max(n - 1, 1))
    while math.gcd(stride, n) != 1:
        stride += 1
    for k in range(count):
        work[:] = theta
        first = (start + k * stride) % n if single else -1
        _advance(kind, X, y, extra, l2, rate, batch, lag, first, work, g)
        for c in range(direction.shape[0]):
            total = 0.0
            for j in range(theta.size):
                total += direction[c, j] * work[j]
            draws[k, c] = total
    return count


@njit(cache=True)
def simulate_descent(n_steps, n_draws, starts, n_queries, n_seen, quadratic):
    """Simulate SGD and see ``n_seen`` directions of its parameters.

    Parameters
    ----------
    n_steps, n_draws : int
    starts : ndarray (n_steps,) of bool
        Where a new run starts; the first is true.
    n_queries : int
    n_seen : int
        Number of directions seen: 1 for a one-coordinate series.
    quadratic : bool
        Least squares only.

    Returns
    -------
    path : ndarray (n_steps, n_seen)
    draws : ndarray (n_steps, n_draws, n_seen)
        Independent next states at each point of the path.
    counts : ndarray (n_steps,) of int
        How many draws there are; 0 where the budget allowed none.
    query, query_draws, query_counts
        The same at points off the path.
    """
    path = np.empty((n_steps, n_seen))
    draws = np.zeros((n_steps, n_draws, n_seen))
    counts = np.zeros(n_steps, np.int64)
    query = np.empty((n_queries, n_seen))
    query_draws = np.zeros((n_queries, n_draws, n_seen))
    query_counts = np.zeros(n_queries, np.int64)
    while True:
        dim = n_seen
        if n_seen == 1:
            u = np.random.random()
            dim = 1 if u < 0.45 else (2 if u < 0.8 else np.random.randint(3, 7))
        elif np.random.random() < 0.2:
            dim = n_seen + np.random.randint(1, 3)
        kind, X, y, extra, l2, solution, curvature = draw_problem(dim, quadratic)
        relative = math.exp(np.random.uniform(math.log(0.004), math.log(1.7)))
        rate = relative / curvature
        batch = 1 if np.random.random() < 0.55 else np.random.randint(2, 17)
        lag = 1
        if np.random.random() < 0.4:
            longest = 50.0 if np.random.random() < 0.5 else min(50.0, 2.0 + 1.5 / relative)
            lag = int(math.exp(np.random.uniform(math.log(2.0), math.log(longest + 1.0))))
        direction = np.zeros((n_seen, dim))
        for c in range(n_seen):
            direction[c, c] = 1.0
        if n_seen == 1 and dim > 1 and np.random.random() < 0.5:
            direction[0] = np.random.normal(0.0, 1.0, dim)
            direction[0] /= math.sqrt((direction[0] ** 2).sum())
        far = math.exp(np.random.uniform(math.log(0.03), math.log(6.0)))
        burn = 0
        if np.random.random() < 0.3:
            burn = np.random.randint(1, 200)
        # Runs start anywhere, or all near one point (as the lagged phases of one run do).
        common = np.random.normal(0.0, 1.0, dim)
        jitter = 1.0
        if np.random.random() < 0.35:
            jitter = np.random.random() ** 4
        theta = np.zeros(dim)
        all_theta = np.empty((n_steps, dim))
        work = np.empty(dim)
        g = np.empty(dim)
        ok = True
        for t in range(n_steps):
            if starts[t]:
                for j in range(dim):
                    away = math.sqrt(1.0 - jitter * jitter) * common[j]
                    theta[j] = solution[j] + far * (away + jitter * np.random.normal())
                if kind in (WELL, WAVES, TILTED):
                    theta[:] = theta - solution
                _advance(kind, X, y, extra, l2, rate, batch, burn, -1, theta, g)
            all_theta[t] = theta
            counts[t] = _draw_next(
                kind, X, y, extra, l2, rate, batch, lag, theta, 160, draws[t], direction, work, g
            )
            _advance(kind, X, y, extra, l2, rate, batch, lag, -1, theta, g)
            for j in range(dim):
                if not abs(theta[j]) < 1e5:
                    ok = False
            if not ok:
                break
            if counts[t] == 0:
                for c in range(n_seen):
                    draws[t, 0, c] = np.dot(direction[c], theta)
                counts[t] = 1
        if ok:
            break
    for t in range(n_steps):
        for c in range(n_seen):
            path[t, c] = np.dot(direction[c], all_theta[t])
    for q in range(n_queries):
        t = np.random.randint(n_steps)
        theta[:] = all_theta[t]
        for c in range(n_seen):
            value = query_value(path[:, c], path[:, c].min(), path[:, c].max())
            shift = value - np.dot(direction[c], theta)
            theta += shift * direction[c]
            query[q, c] = value
        query_counts[q] = _draw_next(
            kind, X, y, extra, l2, rate, batch, lag, theta, 480, query_draws[q], direction, work, g
        )
        if query_counts[q] == 0:
            _advance(kind, X, y, extra, l2, rate, batch, lag, -1, theta, g)
            for c in range(n_seen):
                query_draws[q, 0, c] = np.dot(direction[c], theta)
            query_counts[q] = 1
    return path, draws, counts, query, query_draws, query_counts
