"""Rows of a kernel that the run never visited, filled from the ones that it did."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sgdmc._core import backend as kernels
from sgdmc._core import validate
from sgdmc.chain.moves import interpolate_rows, move_rows
from sgdmc.transport.barycenter import SUM_TOLERANCE, debiased_barycenters

__all__ = ["COMPLETIONS", "complete"]

COMPLETIONS = ("barycenter", "entropic", "increments", "quantiles", "nearest")

# States between which Sinkhorn barycenters are solved for, at least.
_KNOTS = 250

Array = NDArray[np.float64]
Index = NDArray[np.int64]


def complete(
    rows: ArrayLike,
    observed: ArrayLike,
    *,
    method: str = "barycenter",
    reg: float | None = None,
    n_neighbours: int = 2,
    visits: ArrayLike | None = None,
    extrapolation: str = "linear",
    stride: int | None = None,
    tol: float = 1e-3,
    max_iter: int = 300,
    n_threads: int | None = None,
    backend: str = "cpp",
) -> NDArray[np.float64]:
    """Fill the rows of a transition matrix that were never visited.

    Row ``s`` between visited states becomes a barycenter of the visited rows nearest to it on
    both sides, with weights that fall with their distance ``|s_k − s|`` and satisfy
    ``Σ_k w_k s_k = s``.

    Parameters
    ----------
    rows : array_like, shape (n, n)
        Rows index the present state. The rows that are not observed are ignored.
    observed : array_like of bool, shape (n,)
        Which rows are to be trusted; at least one.
    method : {"barycenter", "entropic", "increments", "quantiles", "nearest"}, optional
        See the table in Notes.
    reg : float, optional
        Regularisation of the Sinkhorn barycenters. By default that whose Gibbs kernel has the
        median variance of the observed rows, within [1e-3, 1e-2]: the iteration is quickest there.
    n_neighbours : int, optional
        Observed rows used on each side.
    visits : array_like, shape (n,), optional
        How often each state was visited: rows visited more often weigh more. Equal by default.
    extrapolation : {"linear", "shift", "hold"}, optional
        What happens to states outside the visited range (see Notes).
    stride : int, optional
        Between visited states every so many-th row is solved for by Sinkhorn; those between are
        moved mixtures of their neighbours (:func:`sgdmc.chain.moves.interpolate_rows`). By default
        a 250th of the states, at least 1: from 500 states on, neighbours differ by less than any
        estimate of them.
    tol, max_iter, backend, n_threads
        As for :func:`~sgdmc.transport.barycenter.debiased_barycenters`; `tol` is far below the
        error of any estimated row.

    Returns
    -------
    ndarray, shape (n, n)
        Row-stochastic; observed rows are as they were.

    Raises
    ------
    ValueError
        If no row is observed, an observed row is not a histogram, `visits` is negative, shapes
        disagree, or an option is unknown.

    Notes
    -----
    ============ =================================== ===========================================
    method       filled row                          bias
    ============ =================================== ===========================================
    barycenter   debiased Sinkhorn barycenter        none for translates
    entropic     the same without debiasing          variance grows by about ``n² reg / 2`` bins²
    increments   barycenter of the laws of           supposes equal increments, no drift towards
                 ``s' − s``, moved to ``s``          the minimiser; matters outside only
    quantiles    exact ``W_2`` barycenter            up to ¼ bin² of variance, bins being split
    nearest      nearest observed row, as it is      pulls towards visited states
    ============ =================================== ===========================================

    *Between visited states* barycenters of rows and of increments agree, but for edges, since the
    weights satisfy ``Σ_k w_k s_k = s``.

    *Outside the visited range* there is nothing to average on one side, and a barycenter of edge
    rows would throw the chain into the visited range in one step. Instead the barycenter of the
    edge rows (their centroid is ``c``) is moved by ``slope · (s − c)``. With ``"linear"``,
    ``slope`` is that of a weighted least-squares line through the means of the observed rows,
    clipped to [0, 1]: exact for SGD on a quadratic, where the mean row is ``s − γ h (s − s*)``.
    ``"shift"`` sets it to 1 (equal increments), ``"hold"`` to 0. The method "increments" always
    shifts, "nearest" always holds. Mass beyond the grid goes to its edge.

    Rows are read as densities on bins: a move by part of a bin splits each bin in two.

    References
    ----------
    .. [1] Zekri, Benechehab, Redko, "Can LLMs predict the convergence of stochastic gradient
       descent?", arXiv:2408.01736, 2024.
    .. [2] Janati, Cuturi, Gramfort, "Debiased Sinkhorn barycenters", ICML 2020.

    Examples
    --------
    >>> rows = [[0, 1, 0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 1]]
    >>> filled = complete(rows, [True, False, True, False, True], n_neighbours=1)
    >>> filled[1].round(3).tolist()
    [0.0, 0.0, 1.0, 0.0, 0.0]
    """
    matrix, seen = _as_rows(rows, observed)
    validate.as_choice("method", method, COMPLETIONS)
    validate.as_choice("extrapolation", extrapolation, ("linear", "shift", "hold"))
    n_neighbours = validate.as_int("n_neighbours", n_neighbours, minimum=1)
    default = max(1, np.shape(rows)[0] // _KNOTS) if np.ndim(rows) else 1
    stride = validate.as_int("stride", default if stride is None else stride, minimum=1)
    counts = _as_visits(visits, seen)
    states, missing = np.flatnonzero(seen), np.flatnonzero(~seen)
    out = np.zeros_like(matrix)
    out[states] = matrix[states] / matrix[states].sum(axis=1, keepdims=True)
    if not len(missing):
        return out
    if method == "nearest":
        right = np.clip(np.searchsorted(states, missing), 0, len(states) - 1)
        left = np.maximum(right - 1, 0)
        take_left = np.abs(missing - states[left]) <= np.abs(states[right] - missing)
        out[missing] = out[states[np.where(take_left, left, right)]]
        return out
    mixed = np.zeros(len(missing), dtype=bool)
    if method in ("barycenter", "entropic", "increments"):
        inside = (missing > states[0]) & (missing < states[-1])
        mixed = inside & (missing % stride != 0)
    later, missing = missing[mixed], missing[~mixed]
    members, weights = _neighbours(states, missing, counts[states], n_neighbours)
    centroid = (weights * states[members]).sum(axis=1)
    # States that ask for the same barycenter, as all those on one side do, share one solve.
    problems, of_state = np.unique(
        np.concatenate([members, weights], axis=1), axis=0, return_inverse=True
    )
    width = members.shape[1]
    members = np.ascontiguousarray(problems[:, :width], dtype=np.int64)
    weights = np.ascontiguousarray(problems[:, width:])
    dictionary = out[states]
    if method == "quantiles":
        filled = kernels(backend).quantile_barycenters(dictionary, members, weights)
    else:
        filled = debiased_barycenters(
            dictionary,
            members=members,
            weights=weights,
            reg=_natural_reg(dictionary) if reg is None else reg,
            debiased=method != "entropic",
            tol=tol,
            max_iter=max_iter,
            n_threads=n_threads,
            backend=backend,
        ).histogram
    filled = filled[of_state.ravel()]
    move = missing - centroid  # zero up to rounding between visited states
    if method == "increments" or extrapolation == "shift":
        slope = np.ones(len(missing))
    elif extrapolation == "hold":
        slope = np.zeros(len(missing))
    else:
        slope = _slopes(dictionary, states, counts[states], missing)
    shift = slope * move
    out[missing] = filled
    moved = np.abs(shift) > 1e-9
    out[missing[moved]] = move_rows(filled[moved], shift[moved])
    if len(later):
        known = np.flatnonzero(out.sum(axis=1) > 0)
        out[later] = interpolate_rows(out[known], known)[later]
    return out


def _as_rows(rows: ArrayLike, observed: ArrayLike) -> tuple[Array, NDArray[np.bool_]]:
    matrix = validate.as_floats("rows", rows, ndim=2, finite=False)
    if matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"rows must be a square matrix; got shape {matrix.shape}. Reshape it.")
    seen = np.asarray(observed)
    if seen.dtype != np.bool_:
        raise TypeError(
            f"observed must be an array of bool; got {seen.dtype}. Compare with 0 first."
        )
    if seen.shape != (len(matrix),):
        raise ValueError(
            f"observed must have shape ({len(matrix)},); got {seen.shape}. Give one a row."
        )
    if not seen.any():
        raise ValueError(
            "observed must name at least one visited row; got none. "
            "Observe a longer run, or use coarser bins."
        )
    states = np.flatnonzero(seen)
    bad = ~np.isfinite(matrix[states]) | (matrix[states] < 0)
    if bad.any():
        k, s = (int(i) for i in np.unravel_index(int(np.argmax(bad)), bad.shape))
        raise ValueError(
            f"rows must be finite and non-negative; got {matrix[states[k], s]} at "
            f"({states[k]}, {s}). Repair that row, or mark it as not observed."
        )
    sums = matrix[states].sum(axis=1)
    off = np.abs(sums - 1) > SUM_TOLERANCE
    if off.any():
        k = int(np.argmax(off))
        raise ValueError(
            f"rows must sum to 1 where observed; got {sums[k]:.9g} at row {states[k]}. "
            "Normalise it, or mark it as not observed."
        )
    return matrix, seen


def _as_visits(visits: ArrayLike | None, seen: NDArray[np.bool_]) -> Array:
    if visits is None:
        return np.ones(len(seen))
    counts = validate.as_floats("visits", visits, ndim=1)
    if len(counts) != len(seen):
        raise ValueError(f"visits must have length {len(seen)}; got {len(counts)}. Give one a row.")
    if (counts[seen] <= 0).any():
        s = int(np.flatnonzero(seen)[np.argmax(counts[seen] <= 0)])
        raise ValueError(
            f"visits must be positive where observed; got {counts[s]} at index {s}. "
            "Mark that row as not observed."
        )
    return counts


def _neighbours(states: Index, missing: Index, visits: Array, count: int) -> tuple[Index, Array]:
    """Nearest observed rows on both sides of each missing one, and weights whose centroid is it.

    On each side a row weighs as its visits over its distance; the two sides are then balanced so
    that the centroid of the states is the missing state. One side alone has all the weight, and
    the same for every state beyond it.
    """
    n_missing, n_seen = len(missing), len(states)
    right = np.searchsorted(states, missing)
    sides = []
    for step in (np.arange(-count, 0), np.arange(count)):
        index = right[:, None] + step
        valid = (index >= 0) & (index < n_seen)
        index = np.clip(index, 0, n_seen - 1)
        # Outside the visited range distances count from its edge: one law for all such states.
        origin = np.clip(missing, states[0] - 1, states[-1] + 1)
        raw = np.where(valid, visits[index] / np.abs(states[index] - origin[:, None]), 0.0)
        total = raw.sum(axis=1, keepdims=True)
        share = np.divide(raw, total, out=np.zeros_like(raw), where=total > 0)
        sides.append((index, share, (share * states[index]).sum(axis=1), total[:, 0] > 0))
    (l_index, l_share, l_centre, has_left), (r_index, r_share, r_centre, has_right) = sides
    both = has_left & has_right
    left = np.where(has_left, 1.0, 0.0)
    left[both] = ((r_centre - missing) / np.where(both, r_centre - l_centre, 1.0))[both]
    members = np.concatenate([l_index, r_index], axis=1)
    weights = np.concatenate([l_share * left[:, None], r_share * (1 - left)[:, None]], axis=1)
    return members.reshape(n_missing, 2 * count), weights


def _natural_reg(rows: Array) -> float:
    """The `reg` whose Gibbs kernel has the median variance of the rows."""
    n = rows.shape[1]
    states = np.arange(n)
    means = rows @ states
    variance = np.median(rows @ states**2 - means**2)
    return float(np.clip(2.0 * variance / n**2, 1e-3, 1e-2))


def _slopes(rows: Array, states: Index, visits: Array, missing: Index) -> Array:
    """Slopes of the rows' means on their states, near each missing one, in [0, 1]; 1 with one row.

    Shape (n_missing,). States beyond the same end have the same weights, so one slope.
    """
    if len(states) < 2:
        return np.ones(len(missing))
    n = rows.shape[1]
    means = rows @ np.arange(n)
    near, back = np.unique(np.clip(missing, states[0], states[-1]), return_inverse=True)
    distance = np.abs(states - near[:, None])
    nearest = distance.min(axis=1, keepdims=True)
    w = visits * np.exp((nearest - distance) / (n / 8))
    w /= w.sum(axis=1, keepdims=True)
    centred = states - w @ states[:, None]
    slopes = (w * centred) @ means / (w * centred**2).sum(axis=1)
    return np.asarray(np.clip(slopes, 0.0, 1.0)[back.ravel()])
