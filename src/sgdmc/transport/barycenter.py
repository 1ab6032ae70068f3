"""Barycenters of histograms on a line: debiased, entropic, and exact.

Words: a *histogram* is a non-negative vector of length ``n`` that sums to one; its entry ``u`` is
the mass of bin ``u`` of a line cut into ``n`` equal bins. The ground cost is
``C_uv = ((u − v)/n)²``, so that the line has length one whatever the number of bins, and ``reg`` is
in units of that cost: the Gibbs kernel ``exp(−C/reg)`` is a Gaussian with a standard deviation of
``n sqrt(reg/2)`` bins.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sgdmc._core import backend as kernels
from sgdmc._core import validate

__all__ = [
    "BarycenterResult",
    "NotConvergedWarning",
    "debiased_barycenter",
    "debiased_barycenters",
    "entropic_barycenter",
    "quantile_barycenter",
]

SUM_TOLERANCE = 1e-6


class NotConvergedWarning(RuntimeWarning):
    """An iteration stopped at its limit; what it returned is its last state."""


@dataclass(frozen=True)
class BarycenterResult:
    """Barycenters, and how far the iteration that made them had settled.

    Attributes
    ----------
    histogram : ndarray, shape (n,) or (n_problems, n)
        Non-negative, sums to one.
    converged : bool or ndarray of bool, shape (n_problems,)
        Whether ``residual <= tol``.
    n_iter : int or ndarray of int, shape (n_problems,)
        Iterations done.
    residual : float or ndarray, shape (n_problems,)
        What was left to settle in the last iteration: the largest of the L1 distance to the
        previous barycenter, of that between the barycenter and the second marginal of any plan,
        and of the change that the debiasing vector would still make to it.
    """

    histogram: NDArray[np.float64]
    converged: bool | NDArray[np.bool_]
    n_iter: int | NDArray[np.int64]
    residual: float | NDArray[np.float64]


def debiased_barycenter(
    histograms: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    reg: float,
    tol: float = 1e-6,
    max_iter: int = 2000,
    backend: str = "cpp",
) -> BarycenterResult:
    """Debiased Sinkhorn barycenter of histograms on a line.

    The minimiser over histograms ``α`` of ``Σ_k w_k S_reg(α_k, α)``, where
    ``S_reg(p, q) = OT_reg(p, q) − ½ OT_reg(p, p) − ½ OT_reg(q, q)`` is the Sinkhorn divergence for
    the cost ``C_uv = ((u − v)/n)²``. With ``K = exp(−C/reg)`` it is the fixed point of::

        a_k = α_k / (K b_k),    α = d ⊙ Π_k (Kᵀ a_k)^{w_k},
        b_k = α / (Kᵀ a_k),     d = sqrt(d ⊙ α / (K d)).

    Parameters
    ----------
    histograms : array_like, shape (m, n)
        One histogram a row: non-negative, sums to one within 1e-6.
    weights : array_like, shape (m,), optional
        Non-negative weights ``w_k`` that sum to one within 1e-6; equal ones by default.
    reg : float
        Regularisation, positive, in units of the cost. See Notes for how to choose it.
    tol : float, optional
        The iteration stops once its residual (see `BarycenterResult`) is at most this.
    max_iter : int, optional
        Largest number of iterations.
    backend : {"cpp", "numba", "numpy"}, optional
        Same result, other speed.

    Returns
    -------
    BarycenterResult
        ``histogram`` has shape (n,).

    Raises
    ------
    ValueError
        If an entry is NaN, infinite or negative, a histogram or the weights do not sum to one,
        shapes disagree, or `reg`, `tol` or `max_iter` is not positive.

    Warns
    -----
    NotConvergedWarning
        If the residual is still above `tol` after `max_iter` iterations.

    Notes
    -----
    *Method.* The iteration of [1]_ on logarithms, after two changes that leave its fixed point as
    it is. Rows are first laid on top of one another by whole bins, which adds to each potential a
    straight line: those that remain are nearly flat, so that plain products with ``K``
    neither underflow nor lose digits; where they still would (rows with several distant bumps and
    a small ``reg``) the problem is solved in the log domain. And the first guess is the exact
    ``W_2`` barycenter, which is the answer whenever the rows are translates of each other.

    *Cost.* ``O(m n s)`` an iteration for ``s = n sqrt(reg)`` bins: a product with the Gaussian
    kernel on a line is a banded one.

    *Error.* The iteration contracts quickly while ``n² reg`` is comparable to the variance of the
    rows, in bins; a much larger ``reg`` makes the problem ill-conditioned (deconvolution by a wide
    Gaussian), a much smaller one makes mass move less than a bin an iteration. The debiased
    barycenter of Gaussians of equal width keeps that width; the entropic one
    (:func:`entropic_barycenter`) adds a variance of the order of ``reg/2``.

    References
    ----------
    .. [1] Janati, Cuturi, Gramfort, "Debiased Sinkhorn barycenters", ICML 2020.

    Examples
    --------
    The barycenter of two point masses is the point mass between them:

    >>> result = debiased_barycenter([[0, 1, 0, 0, 0], [0, 0, 0, 1, 0]], reg=0.01)
    >>> result.histogram.round(3).tolist()
    [0.0, 0.0, 1.0, 0.0, 0.0]
    """
    return _one(histograms, weights, reg, True, tol, max_iter, backend)


def entropic_barycenter(
    histograms: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    reg: float,
    tol: float = 1e-6,
    max_iter: int = 2000,
    backend: str = "cpp",
) -> BarycenterResult:
    """Entropic barycenter of histograms on a line: the debiased one without its debiasing.

    The minimiser of ``Σ_k w_k OT_reg(α_k, α)``: the iteration of :func:`debiased_barycenter` with
    ``d = 1`` throughout. It blurs: the variance grows by about ``n² reg / 2`` bins². Kept to
    show that.

    Parameters
    ----------
    histograms, weights, reg, tol, max_iter, backend
        As for :func:`debiased_barycenter`.

    Returns
    -------
    BarycenterResult
        ``histogram`` has shape (n,).

    Raises
    ------
    ValueError
        As for :func:`debiased_barycenter`.

    Warns
    -----
    NotConvergedWarning
        As for :func:`debiased_barycenter`.

    References
    ----------
    .. [1] Benamou, Carlier, Cuturi, Nenna, Peyré, "Iterative Bregman projections for regularized
       transportation problems", SIAM J. Sci. Comput. 37(2), 2015.

    Examples
    --------
    >>> result = entropic_barycenter([[0, 1, 0, 0, 0], [0, 0, 0, 1, 0]], reg=0.05)
    >>> result.histogram.round(3).tolist()
    [0.021, 0.227, 0.505, 0.227, 0.021]
    """
    return _one(histograms, weights, reg, False, tol, max_iter, backend)


def debiased_barycenters(
    histograms: ArrayLike,
    *,
    members: ArrayLike,
    weights: ArrayLike,
    reg: float,
    debiased: bool = True,
    tol: float = 1e-6,
    max_iter: int = 2000,
    n_threads: int | None = None,
    backend: str = "cpp",
) -> BarycenterResult:
    """Many barycenters over one dictionary of histograms, solved side by side.

    Problem ``p`` is ``debiased_barycenter(histograms[members[p]], weights=weights[p])``.

    Parameters
    ----------
    histograms : array_like, shape (n_histograms, n)
        The dictionary.
    members : array_like of int, shape (n_problems, m)
        Rows of the dictionary that each problem uses.
    weights : array_like, shape (n_problems, m)
        Their weights, each row non-negative with sum one; a zero leaves that member out.
    reg, tol, max_iter, backend
        As for :func:`debiased_barycenter`.
    debiased : bool, optional
        False for entropic barycenters.
    n_threads : int, optional
        Threads; results do not depend on it. All processors by default.

    Returns
    -------
    BarycenterResult
        ``histogram`` has shape (n_problems, n), the other fields (n_problems,). No warning is
        given here: look at ``converged``.

    Raises
    ------
    ValueError
        As for :func:`debiased_barycenter`, and if a member is not a row of the dictionary.

    Examples
    --------
    >>> result = debiased_barycenters(
    ...     [[1, 0, 0], [0, 0, 1]], members=[[0, 1], [0, 1]], weights=[[0.5, 0.5], [0, 1]], reg=0.01
    ... )
    >>> result.histogram.round(3).tolist()
    [[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    rows = _as_histograms(histograms)
    index = validate.as_states("members", members, ndim=(2,)).astype(np.int64)
    w = validate.as_floats("weights", weights, ndim=2)
    if index.shape != w.shape:
        raise ValueError(
            f"weights must have the shape of members, {index.shape}; got {w.shape}. "
            "Give one a member."
        )
    if index.size and (index.min() < 0 or index.max() >= len(rows)):
        bad = index.min() if index.min() < 0 else index.max()
        raise ValueError(
            f"members must lie in [0, {len(rows)}); got {bad}. Index rows of histograms."
        )
    for p, row in enumerate(w):
        _check_weights(row, f" of problem {p}")
    if not len(index):
        empty = np.empty(0)
        return BarycenterResult(
            np.empty((0, rows.shape[1])), np.empty(0, bool), np.empty(0, np.int64), empty
        )
    out, n_iter, residual = kernels(backend).sinkhorn_barycenters(
        rows,
        index,
        w / w.sum(axis=1, keepdims=True),
        validate.as_positive("reg", reg),
        bool(debiased),
        validate.as_positive("tol", tol),
        validate.as_int("max_iter", max_iter, minimum=1),
        validate.as_threads(n_threads),
    )
    return BarycenterResult(out, residual <= tol, n_iter, residual)


def quantile_barycenter(
    histograms: ArrayLike, *, weights: ArrayLike | None = None
) -> NDArray[np.float64]:
    """Exact ``W_2`` barycenter on a line: the average of the quantile functions.

    ``F^{-1}(p) = Σ_k w_k F_k^{-1}(p)``, each histogram being read as a density that is constant on
    each bin.

    Parameters
    ----------
    histograms : array_like, shape (m, n)
        One histogram a row: non-negative, sums to one within 1e-6.
    weights : array_like, shape (m,), optional
        Non-negative weights that sum to one within 1e-6; equal ones by default.

    Returns
    -------
    ndarray, shape (n,)
        Non-negative, sums to one.

    Raises
    ------
    ValueError
        As for :func:`debiased_barycenter`.

    Notes
    -----
    Exact up to the bins themselves, in ``O(m n log(m n))``: a barycenter that lies between bins is
    split over both, which adds up to a quarter of a squared bin to the variance.

    References
    ----------
    .. [1] Agueh, Carlier, "Barycenters in the Wasserstein space", SIAM J. Math. Anal. 43(2), 2011.

    Examples
    --------
    >>> quantile_barycenter([[1, 0, 0, 0], [0, 0, 1, 0]], weights=[0.25, 0.75]).tolist()
    [0.0, 0.5, 0.5, 0.0]
    """
    rows = _as_histograms(histograms)
    w = _as_weights(weights, len(rows))
    members = np.arange(len(rows))[None, :]
    return np.asarray(kernels("cpp").quantile_barycenters(rows, members, w[None, :])[0])


def _one(
    histograms: ArrayLike,
    weights: ArrayLike | None,
    reg: float,
    debiased: bool,
    tol: float,
    max_iter: int,
    backend: str,
) -> BarycenterResult:
    rows = _as_histograms(histograms)
    w = _as_weights(weights, len(rows))
    many = debiased_barycenters(
        rows,
        members=np.arange(len(rows))[None, :],
        weights=w[None, :],
        reg=reg,
        debiased=debiased,
        tol=tol,
        max_iter=max_iter,
        n_threads=1,
        backend=backend,
    )
    residual = float(np.asarray(many.residual)[0])
    if not residual <= tol:
        warnings.warn(
            f"barycenter not settled after {max_iter} iterations: residual {residual:.2e}, "
            f"tol {tol:.2e}. Raise max_iter or tol, or bring reg nearer to the rows' variance.",
            NotConvergedWarning,
            stacklevel=3,
        )
    return BarycenterResult(
        many.histogram[0], residual <= tol, int(np.asarray(many.n_iter)[0]), residual
    )


def _as_histograms(histograms: ArrayLike) -> NDArray[np.float64]:
    """Rows that are non-negative and sum to one, scaled to do so as exactly as can be."""
    rows = validate.as_floats("histograms", histograms, ndim=2)
    if rows.shape[0] == 0 or rows.shape[1] == 0:
        raise ValueError(
            f"histograms must not be empty; got shape {rows.shape}. Give at least one histogram."
        )
    if (rows < 0).any():
        k, s = (int(i) for i in np.unravel_index(int(np.argmax(rows < 0)), rows.shape))
        raise ValueError(
            f"histograms must be non-negative; got {rows[k, s]} at ({k}, {s}). Repair that entry."
        )
    sums = rows.sum(axis=1)
    off = np.abs(sums - 1) > SUM_TOLERANCE
    if off.any():
        k = int(np.argmax(off))
        raise ValueError(
            f"histograms must sum to 1; got {sums[k]:.9g} at row {k}. Divide each by its sum."
        )
    return np.asarray(rows / sums[:, None])


def _as_weights(weights: ArrayLike | None, m: int) -> NDArray[np.float64]:
    if weights is None:
        return np.full(m, 1.0 / m)
    w = validate.as_floats("weights", weights, ndim=1)
    if len(w) != m:
        raise ValueError(f"weights must have length {m}; got {len(w)}. Give one a histogram.")
    _check_weights(w, "")
    return np.asarray(w / w.sum())


def _check_weights(w: NDArray[np.float64], where: str) -> None:
    if (w < 0).any():
        k = int(np.argmax(w < 0))
        raise ValueError(
            f"weights{where} must be non-negative; got {w[k]} at index {k}. Raise it to 0."
        )
    if abs(w.sum() - 1) > SUM_TOLERANCE:
        raise ValueError(
            f"weights{where} must sum to 1; got {w.sum():.9g}. Divide them by their sum."
        )
