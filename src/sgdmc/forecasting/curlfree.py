"""Covariances of gradients: a parabola, a generalised linear model, and a process around them.

The covariance of a process's gradient is that of E. Solak, R. Murray-Smith, W. E. Leithead,
D. J. Leith, C. E. Rasmussen: Derivative observations in Gaussian process models of dynamic systems.
NeurIPS 15 (2002). The gradient of an unknown parabola is ``H z + b`` with ``H`` symmetric; that of
a generalised linear model bends around the parameters' zero (:mod:`sgdmc.forecasting.ridges`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cho_solve, cholesky
from scipy.optimize import minimize

from sgdmc.forecasting import ridges as bends

__all__ = ["Mixture", "Posterior", "Prior", "Space", "fit_posterior"]

Array = NDArray[np.float64]

# Median and spread (of logarithms) of length scales in ranges, and bounds around the median; of
# what is not a parabola, with one and without, and of the entries of H on and off its diagonal; of
# how far from zero a generalised linear model saturates, over the reach of the points, and of what
# its directions do not share. Gradients have a mean square of 1.
_LENGTH, _LENGTH_BOUNDS = (np.log(0.4), 0.5), (-np.log(4.0), np.log(10.0))
_RIPPLE, _ALONE = (np.log(0.1), 1.5), (0.0, 2.0)
_CURVATURE, _CROSSED = (np.log(0.5), 1.0), (np.log(0.5), 1.0)
_SOFTNESS, _APART = (np.log(0.5), 1.0), (np.log(0.25), 1.0)
_SOFTNESS_BOUNDS = (-2.0, 3.0)
_AMPLITUDE_BOUNDS, _CROSSED_BOUNDS, _ERROR_BOUNDS = (-6.0, 4.0), (-4.0, 1.0), (-7.0, 1.0)
_ERROR = np.log(0.02)
# Standard deviations of b, and of the curvature and the gradient that all directions share.
_SHIFT, _COMMON = 2.0, 3.0
_MAX_ITERATIONS = 40
# Least weight of a posterior in a mixture.
_LEAST_WEIGHT = 0.05


@dataclass(frozen=True)
class Space:
    """What is known of the space before gradients are.

    Attributes
    ----------
    common : ndarray, shape (dim, dim)
        Curvature, up to a factor, that all directions share.
    zero : ndarray, shape (dim,)
        Where all parameters are zero.
    stretch : ndarray, shape (dim,)
        Parameters a coordinate, over how far from zero the points reach.
    """

    common: Array
    zero: Array
    stretch: Array


@dataclass(frozen=True)
class Prior:
    """What is believed of a gradient's field before steps are seen.

    Attributes
    ----------
    parabola, ripple, ridges : bool
        Whether there is a parabola, a process around the points, and a generalised linear model.
    space : Space
    theta : ndarray
        Logarithms: length scales (dim) and amplitude of the process; how far from zero the
        generalised linear model saturates, and what its directions do not share; standard
        deviation of the diagonal of H, and of the rest over it; error that is not noise.
    """

    parabola: bool
    ripple: bool
    ridges: bool
    space: Space
    theta: Array

    @cached_property
    def scales(self) -> tuple[Array, float, Array]:
        """Length scales, variance of the process, and variances of the parabola's parts (4,)."""
        dim, theta = len(self.space.zero), self.theta
        lengths, variance = np.ones(dim), 0.0
        if self.ripple:
            lengths = np.exp(theta[:dim])
            # An amplitude of 1 is a gradient of 1.
            variance = float(np.exp(2 * theta[dim] + 2 * theta[:dim].mean()))
        parts = np.zeros(4)
        if self.parabola:
            on = np.exp(2 * theta[-3])
            parts[:] = _SHIFT**2, _COMMON**2, on, on * np.exp(2 * theta[-2])
        return lengths, variance, parts

    @cached_property
    def bend(self) -> tuple[float, float, float]:
        """Softness of the generalised linear model, and variances: own and shared ones."""
        at = (len(self.space.zero) + 1) * self.ripple
        softness, apart = np.exp(self.theta[at : at + 2])
        # Shared gradients have this deviation where the points reach.
        shared = _COMMON**2 * (1.0 + softness**2)
        return float(softness), float(apart**2 * shared), float(shared)

    def from_zero(self, z: Array) -> Array:
        """Points (m, dim) as the generalised linear model sees them: it saturates at length 1."""
        return np.asarray((z - self.space.zero) * self.space.stretch / self.bend[0])

    @property
    def error(self) -> float:
        """Variance of the error that is not noise."""
        return float(np.exp(2 * self.theta[-1]))

    def covariance(self, a: Array, b: Array) -> Array:
        """Covariance of gradients at points (n, dim) and (m, dim): (n dim, m dim)."""
        dim = a.shape[1]
        out = np.empty((len(a), dim, len(b), dim))
        _covariance(a, b, self.space.common, *self.scales, out)
        if self.ridges:
            _, own, shared = self.bend
            x, y = self.from_zero(a), self.from_zero(b)
            bends.add_covariance(x, y, self.space.stretch, own, shared, out)
        return out.reshape(len(a) * dim, len(b) * dim)

    def slopes(self, a: Array, weight: Array) -> list[float]:
        """Sum ``weight`` (n, dim, n, dim) times the covariance's derivatives by ``theta[:-1]``."""
        dim = a.shape[1]
        found = np.zeros(dim + 3)
        _slopes(a, *self.scales, weight, found)
        slopes = [*found[: dim + 1]] if self.ripple else []
        if self.ridges:
            softness, own, shared = self.bend
            bent = np.zeros(3)
            bends.add_slopes(self.from_zero(a), self.space.stretch, own, shared, weight, bent)
            by_size, by_own, by_shared = bent
            # Both variances grow with softness, too.
            growth = 2.0 * softness**2 / (1.0 + softness**2)
            slopes += [growth * (by_own + by_shared) - by_size, 2.0 * by_own]
        return slopes + ([*found[dim + 1 :]] if self.parabola else [])


@dataclass(frozen=True)
class Posterior:
    """A prior and what observed gradients make of it.

    Attributes
    ----------
    prior : Prior
    points : ndarray, shape (k, dim)
    factor, solved : ndarray, shapes (k dim, k dim) and (k, dim)
        Cholesky factor of the observations' covariance, and what it solves to.
    noise : ndarray, shape (k, dim)
        Variance of each observation around the field.
    evidence : float
        Logarithm of the density of observations and hyperparameters, but for a constant.
    """

    prior: Prior
    points: Array
    factor: Array
    solved: Array
    noise: Array
    evidence: float

    def mean(self, z: Array) -> Array:
        """Mean gradient at points (m, dim)."""
        shift, matrix = self._line
        out = np.asarray(z @ matrix.T + shift)
        self.add_bends(z, self._weights, np.zeros(len(z), dtype=np.int64), out)
        return out

    @cached_property
    def places(self) -> float:
        """Effective number of places of the points: 1 if all lie well within a length scale."""
        lengths = self.prior.scales[0]
        gaps = (self.points[:, None] - self.points) / lengths
        # Over the mean squared correlation.
        return float(1.0 / np.exp(-(gaps**2).sum(axis=2)).mean())

    def louder(self, by: float) -> Posterior:
        """What the same gradients make of a process ``by`` times as large."""
        theta = self.prior.theta.copy()
        theta[self.points.shape[1]] += np.log(by)
        prior = replace(self.prior, theta=theta)
        observed = self.factor @ (self.factor.T @ self.solved.ravel())
        factor = _factor(prior, self.points, self.noise.ravel())
        solved = cho_solve((factor, True), observed).reshape(self.points.shape)
        return replace(self, prior=prior, factor=factor, solved=solved)

    @cached_property
    def _line(self) -> tuple[Array, Array]:
        return self.line(self.solved)

    @cached_property
    def _weights(self) -> Array:
        return np.ascontiguousarray(self.solved.T)[None]

    @cached_property
    def _columns(self) -> Array:
        return np.ascontiguousarray(self.points.T)

    @cached_property
    def _columns_from_zero(self) -> Array:
        return np.ascontiguousarray(self.prior.from_zero(self.points).T)

    def line(self, solved: Array) -> tuple[Array, Array]:
        """Parabola's share in what weights (k, dim) of the points make: shift and matrix."""
        parts, common = self.prior.scales[2], self.prior.space.common
        outer = self.points.T @ solved
        # Each off-diagonal entry of H is one number: it has half the variance twice.
        matrix = 0.5 * parts[3] * (outer + outer.T)
        np.fill_diagonal(matrix, parts[2] * np.diag(outer))
        matrix += parts[1] * float((common * outer).sum()) * common
        return parts[0] * solved.sum(axis=0), matrix

    def add_bends(self, z: Array, weights: Array, which: NDArray[np.int64], out: Array) -> None:
        """Add all but the parabola's share in what weights of the points make at ``z`` (m, dim).

        ``weights`` (n, dim, k), and which of the n (m,) for each of ``z``: equal ones beside each
        other.
        """
        prior = self.prior
        if prior.ripple:
            lengths, variance, _ = prior.scales
            _add_ripple(z, self._columns, weights, which, lengths, variance, out)
        if prior.ridges:
            _, own, shared = prior.bend
            x, points, unit = prior.from_zero(z), self._columns_from_zero, prior.space.stretch
            bends.add_mean(x, points, weights, which, unit, own, shared, out)


@dataclass(frozen=True)
class Mixture:
    """Posteriors of the same gradients under several priors, each with its probability.

    Attributes
    ----------
    posteriors : tuple of Posterior
        At least one, of the same points.
    weights : ndarray, one for each
        Above 0; they sum to one.
    """

    posteriors: tuple[Posterior, ...]
    weights: Array

    @classmethod
    def of(
        cls, posteriors: Sequence[Posterior], odds: Sequence[float], *, trust: float = 1.0
    ) -> Mixture:
        """Weigh posteriors by evidence and prior odds; those below a twentieth are left out.

        ``odds`` are logarithms, one for each; ``trust`` is the power that evidence is raised to.
        """
        evidence = trust * np.array([p.evidence for p in posteriors]) + np.array(odds)
        weights = np.exp(evidence - evidence.max())
        kept = weights >= _LEAST_WEIGHT * weights.sum()
        picks = [p for p, keep in zip(posteriors, kept, strict=True) if keep]
        return cls(tuple(picks), weights[kept] / weights[kept].sum())

    @property
    def points(self) -> Array:
        """Where gradients were observed: (k, dim)."""
        return self.posteriors[0].points

    def mean(self, z: Array) -> Array:
        """Mean gradient at points (m, dim)."""
        pairs = zip(self.weights, self.posteriors, strict=True)
        return np.asarray(sum(weight * posterior.mean(z) for weight, posterior in pairs))

    def shares(self, n: int) -> list[int]:
        """How many of ``n`` draws are from each posterior."""
        edges = np.round(n * np.cumsum(self.weights)).astype(int)
        return [int(count) for count in np.diff(edges, prepend=0)]


def fit_posterior(
    points: Array,
    gradients: Array,
    noise: Array,
    space: Space,
    *,
    parabola: bool,
    ripple: bool,
    ridges: bool,
    longer: float = 1.0,
) -> Posterior:
    """Find the hyperparameters of largest posterior density.

    Parameters
    ----------
    points, gradients, noise : ndarray, shape (k, dim)
        Where gradients were observed, which, and the variance of each.
    space : Space
    parabola, ripple, ridges : bool
        As in :class:`Prior`; at least one of them.
    longer : float
        Length scales that are expected of the process, over the usual ones; gradients are expected
        to be as much larger, so that curvature is as usual.
    """
    dim = points.shape[1]
    starts, bounds, beliefs = [], [], []
    if ripple:
        by = np.log(longer)
        length, amplitude = _LENGTH[0] + by, (_RIPPLE if parabola else _ALONE)
        (low, high), (least, most) = _LENGTH_BOUNDS, _AMPLITUDE_BOUNDS
        starts += [length] * dim + [amplitude[0] + by]
        bounds += [(length + low, length + high)] * dim + [(least, most + by)]
        beliefs += [(length, _LENGTH[1])] * dim + [(amplitude[0] + by, amplitude[1])]
    if ridges:
        starts += [_SOFTNESS[0], _APART[0]]
        bounds += [_SOFTNESS_BOUNDS, _AMPLITUDE_BOUNDS]
        beliefs += [_SOFTNESS, _APART]
    if parabola:
        starts += [_CURVATURE[0], _CROSSED[0]]
        bounds += [_AMPLITUDE_BOUNDS, _CROSSED_BOUNDS]
        beliefs += [_CURVATURE, _CROSSED]
    starts.append(_ERROR)
    bounds.append(_ERROR_BOUNDS)
    means, spreads = np.array([*beliefs, (0.0, np.inf)]).T
    observed, diagonal = gradients.ravel(), noise.ravel()
    unit = np.eye(len(observed))

    def factored(theta: Array) -> tuple[Prior, Array]:
        prior = Prior(parabola, ripple, ridges, space, theta)
        return prior, _factor(prior, points, diagonal + prior.error)

    def loss(theta: Array) -> tuple[float, Array]:
        try:
            prior, factor = factored(theta)
        except LinAlgError:
            return 1e10, np.zeros_like(theta)
        inverse = cho_solve((factor, True), unit, check_finite=False)
        solved = inverse @ observed
        off = (theta - means) / spreads
        value = 0.5 * (observed @ solved + off @ off) + np.log(np.diag(factor)).sum()
        weight = 0.5 * (inverse - np.outer(solved, solved))
        square = weight.reshape(len(points), dim, len(points), dim)
        slopes = [*prior.slopes(points, square), 2 * prior.error * float(np.trace(weight))]
        return float(value), np.array(slopes) + off / spreads

    found = minimize(
        loss,
        np.array(starts),
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"maxiter": _MAX_ITERATIONS},
    )
    prior, factor = factored(found.x)
    solved = cho_solve((factor, True), observed).reshape(points.shape)
    return Posterior(prior, points, factor, solved, noise + prior.error, -float(found.fun))


def _factor(prior: Prior, points: Array, noise: Array) -> Array:
    """Cholesky factor of the covariance of what is observed at points, with noise (k dim,)."""
    covariance = prior.covariance(points, points)
    covariance[np.diag_indices_from(covariance)] += noise
    return cholesky(covariance, lower=True, check_finite=False)


@njit(cache=True, fastmath=True)
def _covariance(a, b, common, lengths, variance, parts, out):  # type: ignore[no-untyped-def]
    """``∂²k/∂a_i∂b_j = k (δ_ij/l_i² − u_i u_j)``, ``u_i = (a_i − b_i)/l_i²``, and the parabola's.

    For ``k = s² exp(−½ Σ (a_i − b_i)²/l_i²)``; every inner loop runs along ``b``.
    """
    n, dim = a.shape
    m = b.shape[0]
    points = np.ascontiguousarray(b.T)
    along, across = a @ common, common @ points
    near, u, dot = np.empty(m), np.empty((dim, m)), np.empty(m)
    for p in range(n):
        _fill_near(a[p], points, lengths, variance, near, u)
        dot[:] = 0.0
        for i in range(dim):
            for q in range(m):
                dot[q] += a[p, i] * points[i, q]
        for i in range(dim):
            for j in range(dim):
                whole = parts[1] * along[p, i]
                half = 0.5 * parts[3] * a[p, j]
                for q in range(m):
                    value = whole * across[j, q] - near[q] * u[i, q] * u[j, q]
                    out[p, i, q, j] = value + half * points[i, q]
            flat, own = 1.0 / lengths[i] ** 2, (parts[2] - parts[3]) * a[p, i]
            for q in range(m):
                more = near[q] * flat + parts[0] + own * points[i, q]
                out[p, i, q, i] += more + 0.5 * parts[3] * dot[q]


@njit(cache=True)
def _slopes(a, lengths, variance, parts, weight, out):  # type: ignore[no-untyped-def]
    """Sum ``weight`` times the derivative of the covariance by each logarithm (dim + 3,)."""
    n, dim = a.shape
    for p in range(n):
        for q in range(n):
            square = dot = 0.0
            for i in range(dim):
                square += ((a[p, i] - a[q, i]) / lengths[i]) ** 2
                dot += a[p, i] * a[q, i]
            near = variance * np.exp(-0.5 * square)
            for i in range(dim):
                u = (a[p, i] - a[q, i]) / lengths[i] ** 2
                for j in range(dim):
                    v = (a[p, j] - a[q, j]) / lengths[j] ** 2
                    w = weight[p, i, q, j]
                    value, on, off = -near * u * v, 0.0, 0.5 * parts[3] * a[p, j] * a[q, i]
                    if i == j:
                        own = a[p, i] * a[q, i]
                        value += near / lengths[i] ** 2
                        on, off = parts[2] * own, 0.5 * parts[3] * (dot - own)
                        out[i] -= 2.0 * w * near / lengths[i] ** 2
                    for r in range(dim):
                        gap = (a[p, r] - a[q, r]) / lengths[r]
                        out[r] += w * value * (2.0 / dim + gap * gap)
                    out[i] += 2.0 * w * near * u * v
                    out[j] += 2.0 * w * near * u * v
                    out[dim] += 2.0 * w * value
                    out[dim + 1] += 2.0 * w * (on + off)
                    out[dim + 2] += 2.0 * w * off


@njit(cache=True, fastmath=True)
def _fill_near(at, points, lengths, variance, near, u):  # type: ignore[no-untyped-def]
    """Fill ``k`` of a point and each of ``points`` (dim, k), and ``u`` (dim, k)."""
    dim, k = points.shape
    near[:] = 0.0
    for i in range(dim):
        scale = 1.0 / lengths[i]
        for q in range(k):
            gap = (at[i] - points[i, q]) * scale
            near[q] += gap * gap
            u[i, q] = gap * scale
    for q in range(k):
        # exp(x) = exp(x/64)^64: a Taylor sum of order 12 is right to 1e-11 for x > −40.
        far = near[q] > 80.0
        x = max(-0.5 * near[q], -40.0) / 64.0
        y = 1.0 + x / 12.0
        for order in range(11, 0, -1):
            y = 1.0 + x / order * y
        for _ in range(6):
            y *= y
        near[q] = 0.0 if far else y * variance


@njit(cache=True, fastmath=True)
def _add_ripple(z, points, weights, which, lengths, variance, out):  # type: ignore[no-untyped-def]
    """Add the process's share of the mean at each of ``z`` (m, dim).

    ``points`` (dim, k); ``weights`` (n, dim, k), and which of them for each of ``z`` (m,).
    """
    m, dim = z.shape
    k = points.shape[1]
    near, along, u = np.empty(k), np.empty(k), np.empty((dim, k))
    for p in range(m):
        _fill_near(z[p], points, lengths, variance, near, u)
        solved = weights[which[p]]
        along[:] = 0.0
        for i in range(dim):
            for q in range(k):
                along[q] += u[i, q] * solved[i, q]
        for i in range(dim):
            total, square = 0.0, 1.0 / lengths[i] ** 2
            for q in range(k):
                total += near[q] * (solved[i, q] * square - u[i, q] * along[q])
            out[p, i] += total
