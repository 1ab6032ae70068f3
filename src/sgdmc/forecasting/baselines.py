"""Trivial forecasts: what any forecast has to beat before it may be called one.

Each takes the observed paths, the starts and the horizon, and returns draws of shape
(n_starts, n_chains, dim), as a kernel's ``advance`` does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from sgdmc.forecasting.paths import ranges_of, tail_of

__all__ = ["TRIVIAL", "trivial_forecasts"]

Paths = Sequence[NDArray[np.float64]]
Array = NDArray[np.float64]


def stays(
    paths: Paths, starts: Array, n_steps: int, n_chains: int, rng: np.random.Generator
) -> Array:
    """SGD stays where it starts."""
    return np.repeat(starts[:, None], n_chains, axis=1)


def tail_of_run(
    paths: Paths, starts: Array, n_steps: int, n_chains: int, rng: np.random.Generator
) -> Array:
    """Every start ends like the last fifth of the observed runs."""
    pool = np.concatenate([tail_of(p, at_least=1) for p in paths])
    return pool[rng.integers(len(pool), size=(len(starts), n_chains))]


def tail_of_nearest_run(
    paths: Paths, starts: Array, n_steps: int, n_chains: int, rng: np.random.Generator
) -> Array:
    """Each start ends like the run that began nearest to it."""
    scale = ranges_of(paths)
    begins = np.stack([p[0] for p in paths])
    out = np.empty((len(starts), n_chains, starts.shape[1]))
    for a, start in enumerate(starts):
        nearest = int(np.argmin((((begins - start) / scale) ** 2).sum(axis=1)))
        pool = tail_of(paths[nearest], at_least=1)
        out[a] = pool[rng.integers(len(pool), size=n_chains)]
    return out


def analogue(
    paths: Paths, starts: Array, n_steps: int, n_chains: int, rng: np.random.Generator
) -> Array:
    """Each start follows the observed iterate nearest to it.

    Its law is the observed path around the horizon after that iterate (a window of a tenth of the
    horizon on both sides); a path that ends earlier counts with its tail.
    """
    scale = ranges_of(paths)
    where = [(c, t) for c, p in enumerate(paths) for t in range(len(p))]
    values = np.concatenate(list(paths))
    out = np.empty((len(starts), n_chains, starts.shape[1]))
    half = max(1, n_steps // 10)
    for a, start in enumerate(starts):
        c, t = where[int(np.argmin((((values - start) / scale) ** 2).sum(axis=1)))]
        path = paths[c]
        centre = t + n_steps
        pool = path[max(0, centre - half) : centre + half + 1] if n_steps else start[None]
        if centre >= len(path):
            pool = tail_of(path, at_least=1)
        out[a] = pool[rng.integers(len(pool), size=n_chains)]
    return out


def straight_line(
    paths: Paths, starts: Array, n_steps: int, n_chains: int, rng: np.random.Generator
) -> Array:
    """Each start moves on at the mean velocity of the observed runs."""
    steps = sum(len(p) - 1 for p in paths)
    velocity = np.sum([p[-1] - p[0] for p in paths], axis=0) / steps
    return np.repeat((starts + n_steps * velocity)[:, None], n_chains, axis=1)


def ar1(
    paths: Paths, starts: Array, n_steps: int, n_chains: int, rng: np.random.Generator
) -> Array:
    """AR(1) fit a coordinate: ``x' = a + b x + s e``, Gaussian ``e``, pushed to the horizon."""
    before = np.concatenate([p[:-1] for p in paths])
    after = np.concatenate([p[1:] for p in paths])
    out = np.empty((len(starts), n_chains, starts.shape[1]))
    for i in range(starts.shape[1]):
        x, y = before[:, i], after[:, i]
        spread = float(np.var(x))
        slope = float(np.mean((x - x.mean()) * (y - y.mean())) / spread) if spread > 0 else 1.0
        slope = float(np.clip(slope, -1.0, 1.0))
        shift = float(y.mean() - slope * x.mean())
        noise = float(np.std(y - shift - slope * x))
        powers = slope ** np.arange(n_steps)
        mean = starts[:, i] * slope**n_steps + shift * powers.sum()
        sd = noise * np.sqrt((powers**2).sum())
        out[:, :, i] = mean[:, None] + sd * rng.standard_normal((len(starts), n_chains))
    return out


TRIVIAL: dict[str, Callable[[Paths, Array, int, int, np.random.Generator], Array]] = {
    "stays where it starts": stays,
    "tail of the run": tail_of_run,
    "tail of the nearest run": tail_of_nearest_run,
    "analogue": analogue,
    "straight line": straight_line,
    "AR(1)": ar1,
}


def trivial_forecasts(
    paths: Paths, starts: Array, *, n_steps: int, n_chains: int, rng: np.random.Generator
) -> dict[str, Array]:
    """Draw from every trivial forecast.

    Parameters
    ----------
    paths : sequence of ndarray, each (T_c, dim)
        Observed runs.
    starts : ndarray, shape (n_starts, dim)
        Unseen starts.
    n_steps : int
        Horizon in recorded steps.
    n_chains : int
        Draws a start.
    rng : Generator
        Covers every draw.

    Returns
    -------
    dict of str to ndarray, shape (n_starts, n_chains, dim)
        Keys as in :data:`TRIVIAL`.

    Raises
    ------
    ValueError
        If there is no observed path.
    """
    if not paths:
        raise ValueError("paths must hold at least one observed run; got none. Pass run=.")
    return {name: f(paths, starts, n_steps, n_chains, rng) for name, f in TRIVIAL.items()}
