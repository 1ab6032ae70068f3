"""SGD's mean step as minus a gradient: a curl-free Gaussian process for the whole field.

With one step size the mean of a step is ``−γ∇f(θ)``, and the field of a gradient has no curl: how
the first coordinate's step changes with the second is how the second's changes with the first. A
Gaussian process on ``f`` carries that over to its gradient, so that runs which passed on
either side tell where a ridge between two basins lies. Far from every run its field goes back to
zero: SGD stays where it is until something is known.

The covariance is that of E. Solak, R. Murray-Smith, W. E. Leithead, D. J. Leith, C. E. Rasmussen:
Derivative observations in Gaussian process models of dynamic systems. NeurIPS 15 (2002).
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cho_solve, cholesky, solve_triangular
from scipy.linalg.blas import dtrmm
from scipy.optimize import minimize

from sgdmc.forecasting.paths import ranges_of, tail_of
from sgdmc.forecasting.var import noise_at, noise_line

__all__ = ["GradientField", "GradientKernel"]

Array = NDArray[np.float64]

# Stretches of a run whose mean step is one observation, and of all runs together.
_STRETCHES = (8, 24)
_MAX_STRETCHES = 300
_SHORTEST = 4
# Steps on both sides from which the noise of a stretch is taken.
_WINDOW = 10
# Median and spread (of logarithms) of the length scales, in ranges; their bounds.
_LENGTH, _LENGTH_SPREAD, _LENGTH_BOUNDS = 0.4, 0.5, (0.1, 4.0)
_STEPS = 40
# Standard deviation of the noise over that in the tails, at most.
_LOUDEST = 10.0
# Draws of the field behind the chains of a start.
_FIELDS = 12
# Farthest move of a step of the flow, in ranges.
_FARTHEST = 0.06
# Fields and, for each, flows that are kept: methods and horizons ask for the same ones.
_KEPT_FIELDS, _KEPT_FLOWS = 4, 16


@dataclass(frozen=True)
class _Stretches:
    """Mean positions and steps of stretches of runs, in ranges.

    ``points`` (k, dim); ``steps`` (k, dim) a recorded step; ``noise`` (k, dim) the variance of a
    single step there; ``lengths`` (k,) in steps.
    """

    points: Array
    steps: Array
    noise: Array
    lengths: Array

    @classmethod
    def of(cls, paths: Sequence[Array], width: Array) -> _Stretches:
        longest = max(len(p) for p in paths)
        paths = [p for p in paths if len(p) >= _SHORTEST]
        if not paths:
            raise ValueError(
                f"paths must hold a run of at least {_SHORTEST} iterates; the longest has "
                f"{longest}. Observe more steps."
            )
        low, high = _STRETCHES
        count = int(np.clip(_MAX_STRETCHES // len(paths), low, high))
        points, steps, noise, lengths = [], [], [], []
        for path in paths:
            z, n = path / width, len(path)
            gains = np.diff(z, axis=0)
            # Early steps are far apart, late ones are not.
            edges = np.unique(np.r_[0, np.geomspace(2, n - 1, count).astype(int)])
            for a, b in itertools.pairwise(edges):
                points.append(z[a:b].mean(axis=0))
                steps.append((z[b] - z[a]) / (b - a))
                near = gains[max(0, a - _WINDOW) : max(b, a + _WINDOW)]
                noise.append(near.var(axis=0))
                lengths.append(b - a)
        keep = slice(None, None, -(-len(points) // _MAX_STRETCHES))
        return cls(*(np.array(x, dtype=np.float64)[keep] for x in (points, steps, noise, lengths)))


@dataclass(frozen=True)
class GradientField:
    """The posterior of SGD's mean step under a curl-free Gaussian process.

    Attributes
    ----------
    width : ndarray, shape (dim,)
        Ranges of the runs: points are divided by them.
    seen : stretches of the runs
        Where steps were observed, which, and how noisy, in ranges.
    scale : float
        Unit of the gradients.
    parameters : ndarray, shape (dim + 2,)
        Logarithms of the length scales in ranges, of the field's amplitude and of the error that
        is not noise, found by maximum a posteriori.
    factor, solved : ndarray, shapes (k dim, k dim) and (k dim,)
        Cholesky factor of the observations' covariance, and what it solves to.
    """

    width: Array
    seen: _Stretches
    scale: float
    parameters: Array
    factor: Array
    solved: Array
    _flows: dict[bytes, Array] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def fit(cls, paths: Sequence[Array]) -> GradientField:
        """Fit the field to observed runs; the same object for runs that were lately fitted.

        Parameters
        ----------
        paths : sequence of ndarray, each (T_c, dim)
            Those of fewer than four iterates are left out.

        Raises
        ------
        ValueError
            If none is left.
        """
        floats = [np.asarray(p, dtype=np.float64) for p in paths]
        return _fitted(floats[0].shape[1], tuple(p.tobytes() for p in floats))

    @classmethod
    def _fit(cls, paths: Sequence[Array]) -> GradientField:
        width = ranges_of(paths)
        seen = _Stretches.of(paths, width)
        # dz = −γ (∂f/∂z) / width²: gradients in the scaled coordinates are steps × width².
        gradients = seen.steps * width**2
        scale = float(np.sqrt((gradients**2).mean())) or 1.0
        observed = (gradients / scale).ravel()
        noise = (seen.noise / seen.lengths[:, None] * width**4 / scale**2).ravel()
        dim = len(width)

        def covariance(theta: Array) -> Array:
            out = _covariance(seen.points, seen.points, theta)
            out[np.diag_indices_from(out)] += noise + np.exp(2 * theta[-1])
            return out

        def loss(theta: Array) -> float:
            try:
                factor = cholesky(covariance(theta), lower=True, check_finite=False)
            except LinAlgError:
                return 1e10
            white = solve_triangular(factor, observed, lower=True, check_finite=False)
            lengths = (theta[:dim] - np.log(_LENGTH)) / _LENGTH_SPREAD
            prior = 0.5 * (lengths @ lengths) + theta[dim] ** 2 / 8
            return float(0.5 * (white @ white) + np.log(np.diag(factor)).sum() + prior)

        bounds = [tuple(np.log(_LENGTH_BOUNDS))] * dim + [(-3.0, 4.0), (-5.0, 1.0)]
        found = minimize(
            loss,
            np.log(np.r_[[_LENGTH] * dim, 1.0, 0.02]),
            method="L-BFGS-B",
            bounds=bounds,
            options={"maxiter": 15, "maxfun": 90},
        )
        factor = cholesky(covariance(found.x), lower=True)
        solved = cho_solve((factor, True), observed)
        return cls(width, seen, scale, found.x, factor, solved)

    @cached_property
    def _inverse(self) -> Array:
        """Inverse of the factor: a product with it is twice as quick as solving."""
        unit = np.eye(len(self.factor), order="F")
        return np.asfortranarray(solve_triangular(self.factor, unit, lower=True))

    def mean(self, z: Array) -> Array:
        """Mean of a step at points in ranges (m, dim), in ranges."""
        means = _covariance(z, self.seen.points, self.parameters) @ self.solved
        return np.asarray(means.reshape(z.shape) * self.scale / self.width**2)

    def mean_and_spread(self, z: Array) -> tuple[Array, Array]:
        """Mean and standard deviation of a step at points in ranges (m, dim), in ranges."""
        dim, unit = z.shape[1], self.scale / self.width**2
        across = _covariance(z, self.seen.points, self.parameters)
        mean = (across @ self.solved).reshape(z.shape) * unit
        # Transposed, so that each column is contiguous; ``across`` itself is overwritten.
        white = dtrmm(1.0, self._inverse, across.T, lower=1, overwrite_b=1).T
        lengths, amplitude = _scales(self.parameters, dim)
        left = amplitude / lengths**2 - np.einsum("ij,ij->i", white, white).reshape(z.shape)
        return mean, np.sqrt(np.maximum(left, 0.0)) * unit

    def flow(self, starts: Array, n_steps: int, *, errors: Array | None = None) -> Array:
        """Follow the field from each start for ``n_steps`` recorded steps.

        Parameters
        ----------
        starts : ndarray, shape (m, dim)
            In parameter units.
        n_steps : int
        errors : ndarray, shape (m, dim), optional
            How many standard deviations the field is off along each path; 0 by default.

        Returns
        -------
        ndarray, shape (m, dim)

        Notes
        -----
        Exponential steps of growing length: the rate along a step is that between the field at
        both of its ends, so that a long step into a minimum ends there and does not overshoot.
        The last few flows are kept.
        """
        key = _digest(starts, np.array(n_steps), np.zeros(0) if errors is None else errors)
        if key not in self._flows:
            for old in list(self._flows)[: len(self._flows) - _KEPT_FLOWS + 1]:
                del self._flows[old]
            self._flows[key] = self._follow(starts, n_steps, errors)
        return self._flows[key].copy()

    def _follow(self, starts: Array, n_steps: int, errors: Array | None) -> Array:
        z = starts / self.width
        low, high = z.min(axis=0) - 1.0, z.max(axis=0) + 1.0

        def field(at: Array) -> Array:
            if errors is None:
                return self.mean(at)
            mean, spread = self.mean_and_spread(at)
            return mean + errors * spread

        lengths = np.diff(np.geomspace(1.0, n_steps + 1.0, _STEPS + 1))
        for length in lengths:
            move = length * field(z)
            # No step of the flow goes farther than the field was looked at.
            reach = np.abs(move).max(axis=1, keepdims=True)
            short = np.minimum(1.0, _FARTHEST / np.maximum(reach, 1e-300))
            move = move * short
            then = length * field(z + move) * short
            square = np.maximum((move**2).sum(axis=1, keepdims=True), 1e-300)
            along = (move * then).sum(axis=1, keepdims=True) / square
            rate = np.clip(1.0 - along, -1.0, 50.0)
            shrunk = np.where(np.abs(rate) < 1e-6, 1.0, -np.expm1(-rate) / (rate + 1e-300))
            z = np.clip(z + shrunk * (move + 0.5 * (then - along * move)), low, high)
        return np.asarray(z * self.width)


@lru_cache(maxsize=_KEPT_FIELDS)
def _fitted(dim: int, runs: tuple[bytes, ...]) -> GradientField:
    return GradientField._fit([np.frombuffer(run).reshape(-1, dim) for run in runs])


def _digest(*arrays: Array) -> bytes:
    found = hashlib.blake2b(digest_size=16)
    for array in arrays:
        found.update(repr(array.shape).encode() + array.tobytes())
    return found.digest()


@dataclass(frozen=True)
class GradientKernel:
    """SGD's law by the flow of a :class:`GradientField` and the noise of the observed runs.

    Attributes
    ----------
    field : GradientField
    noise : ndarray, shape (3,)
        Variance of a step as a line in the squared drift (:func:`sgdmc.forecasting.var.noise_at`).
    tail_spread, tail_rate : ndarray, shape (dim,)
        Standard deviation of the tails, and ``2λ`` of the AR(1) process with the same steps.
    lag, method, names, paths, notes
        As in :class:`sgdmc.Kernel`.
    """

    field: GradientField
    noise: Array
    tail_spread: Array
    tail_rate: Array
    lag: int
    names: tuple[str, ...]
    paths: tuple[Array, ...]
    notes: tuple[str, ...] = ()
    method: str = "gradient-gp"
    completion: str = "none"
    coupling: str = "joint"

    @classmethod
    def fit(
        cls,
        paths: tuple[Array, ...],
        *,
        lag: int,
        names: tuple[str, ...],
        notes: tuple[str, ...] = (),
    ) -> GradientKernel:
        """Fit the field, and the noise to the tails of the runs."""
        field = GradientField.fit(paths)
        tails = [tail_of(p) for p in paths]
        spread = np.sqrt(np.mean([t.var(axis=0) for t in tails], axis=0))
        step = np.mean([np.diff(t, axis=0).var(axis=0) for t in tails], axis=0)
        rate = np.minimum(step / np.maximum(spread**2, 1e-300), 1.0)
        seen, width = field.seen, field.width
        noise = noise_line(seen.steps * width, np.sqrt(seen.noise) * width)
        return cls(field, noise, spread, rate, lag, names, paths, notes)

    def advance(
        self, starts: Array, *, n_steps: int, n_chains: int, rng: np.random.Generator
    ) -> Array:
        """Draw from the law of the mean field ``n_steps`` after each start, with SGD's noise."""
        ends = self.field.flow(starts, n_steps) if n_steps else starts
        return self._noisy(ends[:, None], n_chains, n_steps, rng)

    def hedged(
        self, starts: Array, *, n_steps: int, n_chains: int, rng: np.random.Generator
    ) -> Array:
        """Draw likewise, from fields of the posterior."""
        if not n_steps:
            return np.repeat(starts[:, None], n_chains, axis=1)
        ends = self.ends(starts, n_steps, min(n_chains, _FIELDS), rng)
        return self._noisy(ends, n_chains, n_steps, rng)

    def ends(self, starts: Array, n_steps: int, n_draws: int, rng: np.random.Generator) -> Array:
        """Where draws of the field lead: (n_starts, n_draws, dim)."""
        errors = np.tile(rng.standard_normal((n_draws, starts.shape[1])), (len(starts), 1))
        found = self.field.flow(np.repeat(starts, n_draws, axis=0), n_steps, errors=errors)
        return found.reshape(len(starts), n_draws, -1)

    def _noisy(self, ends: Array, n_chains: int, n_steps: int, rng: np.random.Generator) -> Array:
        """Give chains the noise at their ends (n_starts, k, dim), which they share in turn."""
        width = self.field.width
        there = self.field.mean(ends.reshape(-1, len(width)) / width) * width
        still = noise_at(np.zeros((1, len(width))), self.noise)
        louder = np.sqrt(noise_at(there, self.noise) / still).reshape(*ends.shape[:2], 1)
        grown = -np.expm1(-self.tail_rate * n_steps)
        spread = self.tail_spread * np.sqrt(grown) * np.minimum(louder, _LOUDEST)
        of_chain = np.arange(n_chains) % ends.shape[1]
        noise = rng.standard_normal((len(ends), n_chains, len(width)))
        return np.asarray(ends[:, of_chain] + spread[:, of_chain] * noise)


def _scales(theta: Array, dim: int) -> tuple[Array, float]:
    """Return length scales and the variance of ``f``: an amplitude of 1 is a gradient of 1."""
    amplitude = float(np.exp(2 * theta[dim] + 2 * theta[:dim].mean()))
    return np.exp(theta[:dim]), amplitude


def _covariance(a: Array, b: Array, theta: Array) -> Array:
    """Covariance of gradients at points (n, dim) and (m, dim): (n dim, m dim).

    ``∂²k/∂a_i∂b_j = k (δ_ij/l_i² − u_i u_j)`` for ``k = s² exp(−½ Σ (a_i − b_i)²/l_i²)`` and
    ``u_i = (a_i − b_i)/l_i²``.
    """
    dim = a.shape[1]
    lengths, amplitude = _scales(theta, dim)
    squares = np.zeros((len(a), len(b)))
    u = np.empty((dim, len(a), len(b)))
    for i in range(dim):
        np.subtract.outer(a[:, i], b[:, i], out=u[i])
        u[i] /= lengths[i]
        squares += u[i] ** 2
        u[i] /= lengths[i]
    out = np.empty((len(a), dim, len(b), dim))
    variances = np.array([length**2 for length in lengths])
    _interleave(amplitude * np.exp(-0.5 * squares), u, variances, out)
    return out.reshape(len(a) * dim, len(b) * dim)


@njit(cache=True)
def _interleave(kernel, u, variances, out):  # type: ignore[no-untyped-def]
    n, dim, m, _ = out.shape
    for p in range(n):
        for i in range(dim):
            for q in range(m):
                for j in range(dim):
                    out[p, i, q, j] = -(kernel[p, q] * u[i, p, q]) * u[j, p, q]
                out[p, i, q, i] += kernel[p, q] / variances[i]
