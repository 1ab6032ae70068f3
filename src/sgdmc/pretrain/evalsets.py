"""Fresh chains and series with known kernels, for the evaluation of a model.

Written in plain NumPy and apart from the prior on purpose: what is evaluated must not share a
mistake with what was trained. The tanh neuron and phase retrieval are families that the prior does
not hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

__all__ = [
    "FAMILIES",
    "HELD_OUT",
    "Series",
    "fresh_chain",
    "fresh_series",
    "load_common",
    "uniform_chain",
]

Array = NDArray[np.float64]

N_BINS = 100
HELD_OUT = ("tanh neuron", "phase retrieval")
FAMILIES = ("linear", "double well", "least squares", "logistic", *HELD_OUT)


@dataclass(frozen=True)
class Series:
    """A series of one coordinate and its true kernel.

    Attributes
    ----------
    family : str
    states : ndarray (T,) of int
        On 1000 bins.
    truth : ndarray (100, 100)
        Row-stochastic; state ``s`` lies in bin ``s // 10``.
    """

    family: str
    states: NDArray[np.int64]
    truth: Array


def fresh_chain(rng: np.random.Generator, n_steps: int) -> tuple[Array, NDArray[np.int64]]:
    """Draw a chain with 2 to 10 states and Dirichlet(α) rows, α log-uniform in [.05, 3].

    Parameters
    ----------
    rng : Generator
    n_steps : int
        Length of the path.

    Returns
    -------
    P : ndarray (n, n)
    path : ndarray (n_steps,) of int
    """
    n = int(rng.integers(2, 11))
    alpha = np.exp(rng.uniform(np.log(0.05), np.log(3.0)))
    P = rng.dirichlet(np.full(n, alpha), size=n)
    path = np.empty(n_steps, np.int64)
    state = int(rng.integers(n))
    for t in range(n_steps):
        path[t] = state
        state = int(rng.choice(n, p=P[state]))
    return P, path


def uniform_chain(seed: int, n: int, n_steps: int) -> tuple[Array, NDArray[np.int64]]:
    """Regenerate a chain on which LLaMA-2's predictions were recorded.

    Parameters
    ----------
    seed : int
        Of NumPy's legacy generator, as published.
    n : int
        Number of states; rows are normalised uniform draws.
    n_steps : int

    Returns
    -------
    P : ndarray (n, n)
    path : ndarray (n_steps,) of int

    References
    ----------
    Liu, Boullé, Sarfati, Earls: LLMs learn governing principles of dynamical systems, revealing an
    in-context neural scaling law. arXiv:2402.00795 (2024).
    """
    legacy = np.random.RandomState(seed)
    P = legacy.rand(n, n)
    P /= P.sum(axis=1, keepdims=True)
    path = np.zeros(n_steps, np.int64)
    for t in range(1, n_steps):
        path[t] = legacy.choice(n, p=P[path[t - 1]])
    return P, path


def fresh_series(rng: np.random.Generator, family: str, n_steps: int) -> Series:
    """Draw a series of one of :data:`FAMILIES` with its true kernel on 100 bins.

    The kernel of the smooth families is analytic up to an average over ten positions in a bin;
    that of SGD is a Monte Carlo average over 4000 draws a row from uniform positions in the bin,
    floored as ``.995 K + .005/100``.

    Parameters
    ----------
    rng : Generator
    family : str
    n_steps : int

    Returns
    -------
    Series

    Raises
    ------
    ValueError
        If the family is not one of :data:`FAMILIES`.
    """
    if family not in FAMILIES:
        raise ValueError(f"family must be one of {FAMILIES}; got {family!r}. Choose one of them.")
    draw = _smooth_series if family in FAMILIES[:2] else _descent_series
    while True:
        series = draw(rng, family, n_steps)
        if series is not None:
            return series


def load_common(folder: str | Path) -> list[Series]:
    """Load the common sets ``real_sgd_24.npz`` and ``smooth_60.npz``.

    Parameters
    ----------
    folder : path

    Returns
    -------
    list of Series
        84 of them, of 201 states; families are prefixed with ``"sgd/"`` or ``"smooth/"``.
    """
    found = []
    for prefix, name in (("sgd/", "real_sgd_24.npz"), ("smooth/", "smooth_60.npz")):
        with np.load(Path(folder) / name, allow_pickle=False) as data:
            truth = data["truth"].astype(np.float64)
            truth /= truth.sum(axis=2, keepdims=True)
            for i, kind in enumerate(data["kind"]):
                states = data["states"][i].astype(np.int64)
                found.append(Series(prefix + str(kind), states, truth[i]))
    return found


def _grid(path: Array) -> tuple[float, float] | None:
    """Return left edge and states per unit of the grid fitted to a path, None if it is constant."""
    low, high = float(path.min()), float(path.max())
    if not high - low > 1e-9 * max(1.0, abs(low), abs(high)):
        return None
    scale = 700.0 / (high - low)
    return low - 150.0 / scale, scale


def _encode(values: Array, low: float, scale: float) -> NDArray[np.int64]:
    return np.clip(np.floor((values - low) * scale), 0, 999).astype(np.int64)


def _smooth_series(rng: np.random.Generator, family: str, n_steps: int) -> Series | None:
    rate = rng.uniform(0.02, 0.5)
    noise = np.exp(rng.uniform(np.log(0.02), np.log(0.3)))
    slope = rng.uniform(0.3, 0.99)

    def mean(x: Any) -> Any:
        return slope * x if family == "linear" else x + rate * (x - x**3)

    path = np.empty(n_steps)
    x = np.array(rng.normal())
    for t in range(n_steps):
        path[t] = x
        x = mean(x) + noise * rng.normal()
    grid = _grid(path)
    if grid is None or not np.isfinite(path).all():
        return None
    low, scale = grid
    edges = low + np.arange(N_BINS + 1) * 10.0 / scale
    edges[0], edges[-1] = -np.inf, np.inf
    inside = low + (np.arange(N_BINS * 10) + 0.5) / scale
    rows = np.diff(ndtr((edges - mean(inside)[:, None]) / noise), axis=1)
    truth = rows.reshape(N_BINS, 10, N_BINS).mean(axis=1)
    truth = np.maximum(truth, 1e-12)
    return Series(family, _encode(path, low, scale), truth / truth.sum(axis=1, keepdims=True))


def _gradient(family: str, x: Array, y: Array, theta: Array) -> Array:
    if family == "least squares":
        return x * (x * theta - y)
    if family == "logistic":
        return x * (1.0 / (1.0 + np.exp(-np.clip(x * theta, -40, 40))) - y) + 0.05 * theta
    if family == "tanh neuron":
        out = np.tanh(x * theta)
        return (out - y) * (1.0 - out**2) * x
    square = (x * theta) ** 2
    return np.asarray((square - y) * x * x * theta)


def _descent_series(rng: np.random.Generator, family: str, n_steps: int) -> Series | None:
    n, batch = 40, int(rng.integers(1, 5))
    x = rng.normal(size=n) if rng.random() < 0.5 else rng.standard_t(4, size=n)
    solution = rng.normal() + np.sign(rng.normal())
    noise = np.exp(rng.uniform(np.log(0.05), np.log(1.0)))
    if family == "least squares":
        y = x * solution + noise * rng.normal(size=n)
    elif family == "logistic":
        y = (rng.random(n) < 1.0 / (1.0 + np.exp(-2 * x * solution))).astype(np.float64)
    elif family == "tanh neuron":
        y = np.tanh(x * solution) + 0.5 * noise * rng.normal(size=n)
    else:
        y = (x * solution) ** 2 + noise * rng.normal(size=n)
    curvature = float((x**2).mean()) * (0.25 if family == "logistic" else 1.0)
    if family == "phase retrieval":
        curvature = 2.0 * float((x**4).mean()) * solution**2
    rate = np.exp(rng.uniform(np.log(0.03), np.log(0.6))) / curvature

    def step(theta: Array) -> Array:
        pick = rng.integers(n, size=(theta.size, batch))
        g = _gradient(family, x[pick], y[pick], theta[:, None]).mean(axis=1)
        return np.asarray(theta - rate * g)

    theta = np.array([solution + rng.normal() * np.exp(rng.uniform(-2.0, 0.7))])
    path = np.empty(n_steps)
    for t in range(n_steps):
        path[t] = theta[0]
        theta = step(theta)
        if not abs(theta[0]) < 1e3:
            return None
    grid = _grid(path)
    if grid is None:
        return None
    low, scale = grid
    truth = np.empty((N_BINS, N_BINS))
    for s in range(N_BINS):
        inside = low + 10.0 * (s + rng.random(4000)) / scale
        landed = _encode(np.nan_to_num(step(inside), posinf=1e9, neginf=-1e9), low, scale) // 10
        truth[s] = np.bincount(landed, minlength=N_BINS) / 4000.0
    return Series(family, _encode(path, low, scale), 0.995 * truth + 0.005 / N_BINS)
