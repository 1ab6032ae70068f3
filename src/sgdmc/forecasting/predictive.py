"""What a forecast leaves open: the draws of a kernel, widened by how far the kernel may be off."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgdmc.forecasting.field import GradientField
from sgdmc.forecasting.gradient import GradientKernel
from sgdmc.forecasting.held import FieldKernel
from sgdmc.forecasting.var import law_deviations

__all__ = ["predictive_draws"]

Array = NDArray[np.float64]

# Draws of a field behind the chains of a start.
_DRAWS = 100
# Spread of a linear law over that of the draws, at least and at most.
_SPREADS = (0.75, 10.0)
# Observed iterates from which a kernel's own forecasts are judged: a run, in all; chains each,
# at most as many as were asked for.
_A_RUN, _JUDGED, _N_CHAINS = 12, 60, 40


def predictive_draws(
    kernel: Any,
    starts: Array,
    samples: Array,
    *,
    n_steps: int,
    seed: int,
) -> Array:
    """Add to draws through a kernel what the observed steps leave open about drift and noise.

    Parameters
    ----------
    kernel : Forecaster
    starts : ndarray, shape (n_starts, dim)
    samples : ndarray, shape (n_starts, n_chains, dim)
        Draws through the kernel itself; returned as they are for an exact kernel.
    n_steps, seed : int

    Returns
    -------
    ndarray, shape (n_starts, n_chains, dim)
    """
    if kernel.method == "exact" or n_steps == 0:
        return samples
    if isinstance(kernel, FieldKernel | GradientKernel):
        n_chains = samples.shape[1]
        rng = np.random.default_rng([seed, n_steps, 2])
        ends = _ends(kernel.field, kernel.paths, starts, n_steps, min(n_chains, _DRAWS), rng)
        # Draws of the field lead elsewhere than its mean does.
        off = ends - kernel.field.flow(starts, n_steps)[:, None]
        return np.asarray(samples + off[:, np.arange(n_chains) * off.shape[1] // n_chains])
    runs = tuple(np.asarray(p, dtype=np.float64).tobytes() for p in kernel.paths)
    points = np.asarray(starts, dtype=np.float64).tobytes()
    off, factor, spread = _deviations(
        starts.shape[1], runs, kernel.lag, points, n_steps, samples.shape[1], seed
    )
    rng = np.random.default_rng([seed, n_steps, 4])
    own, middle = samples.std(axis=1), samples.mean(axis=1, keepdims=True)
    ratio = np.divide(spread, own, out=np.ones_like(own), where=own > 0)
    wider = np.clip(ratio, *_SPREADS)[:, None] * factor
    n_chains = int(np.clip(samples.shape[1], 2, _N_CHAINS))
    moved = np.abs(middle - starts[:, None]) * _misfit(kernel, n_steps, n_chains, rng)
    off = off + moved * rng.standard_normal(samples.shape)
    return np.asarray(middle + wider * (samples - middle) + off)


def _ends(
    field: GradientField,
    paths: Sequence[Array],
    starts: Array,
    n_steps: int,
    n_draws: int,
    rng: np.random.Generator,
) -> Array:
    """Where draws of a field lead: (n_starts, n_draws, dim), the last few without convexity.

    Runs that show no second basin do not show that there is none, unless that is known. A second
    one is only doubted, so that gradients of these few are no larger elsewhere.
    """
    doubtful = np.round(field.doubt(starts) * n_draws).astype(int)
    ends = field.ends(starts, n_steps, n_draws=max(n_draws - int(doubtful.min()), 1), rng=rng)
    if not doubtful.any():
        return ends
    other = GradientField.fit(paths, convex=False)
    more = other.ends(starts, n_steps, n_draws=int(doubtful.max()), rng=rng, louder=False)
    found = np.empty((len(starts), n_draws, starts.shape[1]))
    for at, n in enumerate(doubtful.tolist()):
        found[at, : n_draws - n] = _spread(ends[at], n_draws - n)
        found[at, n_draws - n :] = _spread(more[at], n)
    return found


def _spread(draws: Array, n: int) -> Array:
    """Pick ``n`` draws evenly: they stand in the order of what they are draws of."""
    return draws[np.arange(n) * len(draws) // max(n, 1)]


@lru_cache(maxsize=8)
def _deviations(
    dim: int,
    runs: tuple[bytes, ...],
    lag: int,
    points: bytes,
    n_steps: int,
    n_draws: int,
    seed: int,
) -> tuple[Array, Array, Array]:
    """Deviations of the linear law, which is one for all kernels of the same runs and lag."""
    found = law_deviations(
        [np.frombuffer(run).reshape(-1, dim) for run in runs],
        lag,
        np.frombuffer(points).reshape(-1, dim),
        n_steps=n_steps,
        n_draws=n_draws,
        rng=np.random.default_rng([seed, n_steps, 1]),
    )
    for array in found:
        array.flags.writeable = False
    return found


def _misfit(kernel: Any, n_steps: int, n_chains: int, rng: np.random.Generator) -> Array:
    """By what share of its move a kernel misses observed outcomes beyond their noise: (dim,)."""
    dim = len(kernel.names)
    long = [p for p in kernel.paths if len(p) > n_steps]
    if not long:
        return np.zeros(dim)
    each = max(1, min(_A_RUN, _JUDGED // len(long)))
    pairs = []
    for path in long[:_JUDGED]:
        # Early iterates move, late ones do not.
        at = np.unique(np.geomspace(1, len(path) - n_steps, each).astype(int)) - 1
        pairs.append(np.stack([path[at], path[at + n_steps]]))
    before, after = np.concatenate(pairs, axis=1)
    draws = kernel.advance(before, n_steps=n_steps, n_chains=n_chains, rng=rng)
    middle = draws.mean(axis=1)
    noise = draws.var(axis=1, ddof=1) * (1 + 1 / n_chains)
    missed = ((after - middle) ** 2 - noise).sum(axis=0)
    moves = ((middle - before) ** 2).sum(axis=0)
    share = np.divide(missed, moves, out=np.zeros(dim), where=moves > 0)
    return np.asarray(np.sqrt(np.clip(share, 0.0, 1.0)))
