"""The linear law of a lagged run, ``theta_{t+lag} = A theta_t + c + noise``, and its spread.

For a quadratic it is exact: ``A = (I − γH)^lag``. Its eigenvectors are the coordinates that
decouple, its weights tell which steps to believe, and its covariance how far a forecast can err.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.linalg
from numpy.typing import NDArray
from scipy.stats import chi2

__all__ = [
    "LinearLaw",
    "lagged_pairs",
    "law_deviations",
    "noise_at",
    "noise_line",
    "stable",
    "var1_fit",
]

Array = NDArray[np.float64]

# Leverage of a step, at most.
_LEVERAGE = 0.8
# Variances of a draw over those of the fit, at least and at most.
_RATIOS = (0.04, 25.0)


@dataclass(frozen=True)
class LinearLaw:
    """A weighted least-squares fit of ``after ≈ A before + c``.

    Attributes
    ----------
    matrix : ndarray, shape (dim, dim)
        ``A``.
    shift : ndarray, shape (dim,)
        ``c``.
    residuals : ndarray, shape (m, dim)
    weights : ndarray, shape (m,)
        Of the pairs; they sum to one.
    symmetric : bool
        Whether ``A`` was held symmetric.
    """

    matrix: Array
    shift: Array
    residuals: Array
    weights: Array
    symmetric: bool

    def push(self, starts: Array, n: int) -> Array:
        """Return the mean ``n`` lags after each start, (n_starts, dim)."""
        out = starts
        for _ in range(n):
            out = out @ self.matrix.T + self.shift
        return out


def lagged_pairs(paths: Sequence[Array], lag: int) -> tuple[Array, Array]:
    """Stack all pairs ``(theta_t, theta_{t+lag})`` of all runs (sliding windows).

    Raises
    ------
    ValueError
        If no run is longer than ``lag``.
    """
    long = [p for p in paths if len(p) > lag]
    if not long:
        raise ValueError(
            f"lag must be shorter than the longest run; got {lag} for runs of at most "
            f"{max(len(p) for p in paths)} iterates. Use a smaller lag."
        )
    return np.concatenate([p[:-lag] for p in long]), np.concatenate([p[lag:] for p in long])


def var1_fit(
    before: Array,
    after: Array,
    *,
    lag: int = 1,
    symmetric: bool | None = None,
    n_passes: int = 3,
) -> LinearLaw:
    """Weighted least-squares fit of ``after ≈ A before + c``.

    SGD's noise grows with the distance from the minimiser. After a first, unweighted pass the
    squared residuals are modelled as ``v0 + v1 |A before + c − before|²`` and each pair weighs the
    inverse of that: the few steps of a transient no longer drown the many near the limit. With one
    step size for all coordinates ``A = (I − γH)^lag`` is symmetric, as Hessians are: half of the
    coupling need not be estimated.

    Parameters
    ----------
    before, after : ndarray, shape (m, dim)
        In the parameters themselves: a change of basis does not keep ``A`` symmetric.
    lag : int
        Steps between the two; windows that overlap are counted as ``1/lag`` each by the test.
    symmetric : bool, optional
        Hold ``A`` symmetric; by default unless a likelihood-ratio test at 1% objects (momentum,
        Adam, or a step size for each coordinate).
    n_passes : int
        1 for ordinary least squares.

    Returns
    -------
    LinearLaw
    """
    free = _weighted_fit(before, after, False, n_passes)
    dim = before.shape[1]
    if dim == 1 or symmetric is False:
        return free
    held = _weighted_fit(before, after, True, n_passes)
    if symmetric:
        return held
    # Both are judged under the weights of the free fit.
    squares = [float(free.weights @ (f.residuals**2).sum(axis=1)) for f in (held, free)]
    ratio = squares[0] / squares[1] if squares[1] > 0 else 1.0 + squares[0]
    statistic = len(before) / lag * dim * np.log(max(ratio, 1.0))
    return held if statistic < chi2.ppf(0.99, dim * (dim - 1) // 2) else free


def _weighted_fit(before: Array, after: Array, symmetric: bool, n_passes: int) -> LinearLaw:
    weights = np.full(len(before), 1.0 / len(before))
    ridge = 1e-9
    for left in reversed(range(n_passes)):
        mean_x, mean_y = weights @ before, weights @ after
        x = before - mean_x
        # Moves, not places: a direction in which nothing was seen then stays where it is.
        y = after - before - (mean_y - mean_x)
        scale = np.sqrt(weights @ x**2)
        # One scale for all where A is held symmetric, one a coordinate otherwise.
        unit = np.full(len(scale), scale.max()) if symmetric else scale
        unit = np.where(unit > 0, unit, 1.0)
        scaled = (x / unit) * weights[:, None]
        gram = scaled.T @ (x / unit) + ridge * np.eye(len(unit))
        cross = scaled.T @ y
        if symmetric:
            cross = cross / unit[0]
            matrix = scipy.linalg.solve_sylvester(gram, gram, cross + cross.T)
        else:
            matrix = (np.linalg.solve(gram, cross) / unit[:, None]).T
        matrix = matrix + np.eye(len(unit))
        shift = mean_y - matrix @ mean_x
        residuals = after - before @ matrix.T - shift
        if left:
            weights = _precision(before @ matrix.T + shift - before, residuals)
    return LinearLaw(np.ascontiguousarray(matrix), shift, residuals, weights, symmetric)


def _precision(drift: Array, residuals: Array) -> Array:
    """Weights inverse to the variance of a step; they sum to one."""
    inverse = 1.0 / noise_at(drift, noise_line(drift, residuals))
    return np.asarray(inverse / inverse.sum())


def noise_line(drift: Array, residuals: Array) -> Array:
    """Variance of a step as a line in the squared drift: its two coefficients, and a floor."""
    squares, force = (residuals**2).sum(axis=1), (drift**2).sum(axis=1)
    unit = max(float(force.mean()), 1e-300)
    design = np.stack([np.ones(len(force)), force / unit], axis=1)
    # Relative errors matter: two reweighted passes stand for a likelihood of gamma type.
    variance, line = np.full(len(force), squares.mean()), np.zeros(2)
    for _ in range(2):
        if not variance.max() > 0:
            return np.array([1.0, 0.0, 1.0])
        inverse = design / variance[:, None] ** 2
        line = np.linalg.lstsq(inverse.T @ design, inverse.T @ squares, rcond=None)[0]
        line = np.maximum(line, 0.0)
        variance = np.maximum(design @ line, 0.05 * squares.mean())
    if not variance.max() > 0:
        return np.array([1.0, 0.0, 1.0])
    return np.array([line[0], line[1] / unit, 0.05 * squares.mean()])


def noise_at(drift: Array, line: Array) -> Array:
    """Variance of a step where the mean step is ``drift`` (m, dim): shape (m,)."""
    return np.asarray(np.maximum(line[0] + line[1] * (drift**2).sum(axis=1), line[2]))


def stable(law: LinearLaw, before: Array, after: Array) -> LinearLaw:
    """Return a law that does not grow: a matrix scaled back to spectral radius 1 if beyond."""
    radius = float(np.abs(np.linalg.eigvals(law.matrix)).max())
    if radius <= 1:
        return law
    matrix = law.matrix / radius
    return replace(law, matrix=matrix, shift=(after - before @ matrix.T).mean(axis=0))


def law_deviations(
    paths: Sequence[Array],
    lag: int,
    starts: Array,
    *,
    n_steps: int,
    n_draws: int,
    rng: np.random.Generator,
) -> tuple[Array, Array, Array]:
    """Draw by how much the law after ``n_steps`` may be off, the observed steps being few.

    Parameters
    ----------
    paths : sequence of ndarray, each (T_c, dim)
        The observed runs.
    lag : int
        Steps of a kernel step.
    starts : ndarray, shape (n_starts, dim)
    n_steps, n_draws : int
    rng : Generator

    Returns
    -------
    off : ndarray, shape (n_starts, n_draws, dim)
        Means of the linear law under draws of ``(A, c)`` less those of its fit.
    factor : ndarray, shape (n_draws, dim)
        Standard deviations under draws of ``A`` and of the noise over those of the fit.
    spread : ndarray, shape (n_starts, dim)
        Standard deviations after ``n_steps`` under the fit, with noise that grows with the drift.

    Notes
    -----
    The draws are those of a Student law with the covariance of Newey and West [1]_ over ``lag``
    steps, as windows overlap; residuals are divided by one minus their leverage (HC3), and the
    whole is widened by the number of independent steps. A fit or draw that would grow is scaled
    back to spectral radius 1. The variance of the noise has a scaled inverse χ² law with as many
    degrees of freedom as there are independent steps, at least three.

    References
    ----------
    .. [1] Newey and West, "A simple, positive semi-definite, heteroskedasticity and
       autocorrelation consistent covariance matrix", 1987.
    """
    before, after = lagged_pairs(paths, lag)
    dim = before.shape[1]
    # What grows would be far from every draw of it, as these do not.
    law = stable(var1_fit(before, after, lag=lag), before, after)
    centre = law.weights @ before
    unit = float(np.sqrt((law.weights @ (before - centre) ** 2).max()))
    if not unit > 0:
        still = np.zeros((len(starts), dim))
        return np.repeat(still[:, None], n_draws, axis=1), np.ones((n_draws, dim)), still
    design = np.concatenate([np.ones((len(before), 1)), (before - centre) / unit], axis=1)
    weighted = design * law.weights[:, None]
    # Parameters (1 + dim, dim) in rows of the design; a symmetric A has fewer.
    free = _free_parameters(dim) if law.symmetric else np.eye((dim + 1) * dim)
    gram = weighted.T @ design + 1e-12 * np.eye(dim + 1)
    inverse = np.linalg.inv(free.T @ np.kron(gram, np.eye(dim)) @ free)
    # Steps far from the others, overlapping ones together, bend the fit towards themselves.
    leverage = lag * np.einsum("ij,ij->i", weighted @ np.linalg.inv(gram), design)
    residuals = law.residuals / (1.0 - np.minimum(leverage, _LEVERAGE))[:, None]
    scores = (weighted[:, :, None] * residuals[:, None, :]).reshape(len(before), -1) @ free
    middle = np.zeros((scores.shape[1], scores.shape[1]))
    lengths = [len(p) - lag for p in paths if len(p) > lag]
    for g in np.split(scores, np.cumsum(lengths)[:-1]):
        middle += g.T @ g
        for gap in range(1, min(lag, len(g))):
            cross = (1 - gap / lag) * g[gap:].T @ g[:-gap]
            middle += cross + cross.T
    independent = 1.0 / float(law.weights @ law.weights) / lag
    widened = independent / max(independent - dim - 1.0, 0.5)
    values, vectors = np.linalg.eigh(widened * inverse @ middle @ inverse)
    free_steps = max(independent - dim - 1.0, 3.0)
    redrawn = free_steps / rng.chisquare(free_steps, size=(n_draws, 1))
    deviations = np.sqrt(redrawn * np.maximum(values, 0.0)) * rng.standard_normal(
        (n_draws, len(values))
    )
    draws = (deviations @ vectors.T @ free.T).reshape(n_draws, dim + 1, dim)
    whole = max(1, round(n_steps / lag))
    fitted = law.push(starts, whole)
    matrices = law.matrix + np.swapaxes(draws[:, 1:] / unit, 1, 2)
    values_at_centre = law.matrix @ centre + law.shift + draws[:, 0]
    radius = np.abs(np.linalg.eigvals(matrices)).max(axis=1)
    matrices /= np.maximum(radius, 1.0)[:, None, None]
    shifts = values_at_centre - np.einsum("rij,j->ri", matrices, centre)
    off = np.swapaxes(_pushed(matrices, shifts, starts, whole) - fitted, 0, 1)
    noise = (law.weights[:, None] * law.residuals).T @ law.residuals
    drawn, usual = _variances(matrices, noise, whole), _variances(law.matrix, noise, whole)
    ratio = redrawn * drawn / np.where(usual > 0, usual, 1.0)
    factor = np.sqrt(np.clip(np.where(usual > 0, ratio, 1.0), *_RATIOS))
    return off, factor, _spread(law, before, starts, whole)


def _spread(law: LinearLaw, before: Array, starts: Array, n: int) -> Array:
    """Standard deviations ``n`` lags after each start, noise growing with the squared drift."""
    drift = law.push(before, 1) - before
    line = noise_line(drift, law.residuals)
    scaled = law.residuals / np.sqrt(noise_at(drift, line))[:, None]
    shape = scaled.T @ scaled / len(scaled)
    at, covariance = starts, np.zeros((len(starts), *shape.shape))
    for _ in range(n):
        then = law.push(at, 1)
        noise = noise_at(then - at, line)[:, None, None] * shape
        covariance = law.matrix @ covariance @ law.matrix.T + noise
        at = then
    return np.asarray(np.sqrt(np.einsum("aii->ai", covariance)))


def _free_parameters(dim: int) -> Array:
    """Map the free entries of (c, symmetric A) to all (1 + dim) dim of them."""
    columns = []
    for i in range(dim):
        column = np.zeros((dim + 1, dim))
        column[0, i] = 1.0
        columns.append(column.ravel())
    for i in range(dim):
        for j in range(i, dim):
            column = np.zeros((dim + 1, dim))
            column[1 + i, j] = column[1 + j, i] = 1.0
            columns.append(column.ravel())
    return np.stack(columns, axis=1)


def _variances(matrices: Array, noise: Array, n: int) -> Array:
    """Variances of each coordinate after ``n`` lags: the diagonals of ``Σ_k A^k C A^kᵀ``."""
    out = np.zeros(matrices.shape[:-1])
    reach = np.broadcast_to(np.eye(len(noise)), matrices.shape)
    for _ in range(n):
        out += np.einsum("...ij,jk,...ik->...i", reach, noise, reach)
        reach = reach @ matrices
    return out


def _pushed(matrices: Array, shifts: Array, starts: Array, n: int) -> Array:
    """Means after ``n`` lags under each law: (n_laws, n_starts, dim)."""
    out = np.repeat(starts[None], len(matrices), axis=0)
    for _ in range(n):
        out = out @ np.swapaxes(matrices, 1, 2) + shifts[:, None]
    return out
