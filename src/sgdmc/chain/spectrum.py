"""The long run of a finite chain: stationary laws and rates.

Words: the *absolute spectral gap*
is ``1 − |λ₂|``, the *relaxation time* its inverse, an *implied timescale* ``−lag / ln|λ|``, and the
*mixing time* is the first ``t`` at which every row of ``P^t`` is within ``eps`` of the stationary
law in total variation.

Every function takes ``P`` as a dense row-stochastic array or as any scipy sparse matrix.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse import csgraph
from scipy.sparse.linalg import eigs

from sgdmc._core import backend as kernels
from sgdmc._core import validate
from sgdmc.chain.classes import (
    as_dense,
    check_ergodic,
    communicating_classes,
    is_sparse,
    only_recurrent,
)

__all__ = [
    "implied_timescales",
    "mixing_time",
    "relaxation_time",
    "spectral_gap",
    "stationary_distribution",
]

Array = NDArray[np.float64]
FAR = 0.1  # distance from one beyond which eigenvalues are not looked for by inversion
MAX_STEPS = 192  # of Arnoldi's method
MAX_BAND = 2**29  # entries of the band that a sparse elimination may fill (4 GiB)


def stationary_distribution(P: Any, *, n_threads: int | None = None, backend: str = "cpp") -> Array:
    """Stationary distribution ``pi`` of a chain: ``pi P = pi``, ``Σ pi = 1``.

    Parameters
    ----------
    P : array_like or sparse matrix, shape (n, n)
        Row-stochastic, with one recurrent class; it may be periodic.
    n_threads : int, optional
        Threads; results do not depend on it. All processors by default.
    backend : {"cpp", "numba", "numpy"}, optional
        Same result, other speed.

    Returns
    -------
    ndarray, shape (n,)
        Zero at transient states.

    Raises
    ------
    ValueError
        If ``P`` is not row-stochastic, or has several recurrent classes: they are named, since any
        mixture of their stationary distributions is stationary.
    MemoryError
        If a sparse ``P`` needs a band of more than 2**29 entries even after reordering.

    Notes
    -----
    State reduction [1]_: no subtraction anywhere, so that each component is right to about
    ``n`` rounding errors, relative to itself, even where the chain nearly falls apart and linear
    solvers or eigensolvers return negative entries. Dense: blocked, ``O(2 n³/3)``. Sparse: within
    the band left by reverse Cuthill–McKee, ``O(n w²)`` for bandwidth ``w``, rescaled on the way, so
    that components may be as small as the smallest double.

    References
    ----------
    .. [1] Grassmann, Taksar, Heyman, "Regenerative analysis and steady state distributions for
       Markov chains", Operations Research 33(5), 1985.

    Examples
    --------
    >>> stationary_distribution([[0.9, 0.1], [0.3, 0.7]]).round(12).tolist()
    [0.75, 0.25]
    """
    matrix, *bandwidths = validate.checked_transition_matrix(P)
    threads = validate.as_threads(n_threads)
    pi, bad = _stationary(matrix, bandwidths, threads, backend)
    if bad < 0:
        return pi
    states = only_recurrent(communicating_classes(matrix))
    out = np.zeros(matrix.shape[0])
    inner, *bandwidths = validate.checked_transition_matrix(matrix[states][:, states])
    out[states], bad = _stationary(inner, bandwidths, threads, backend)
    if bad >= 0:
        raise ValueError(
            "P must connect its states by probabilities that doubles can hold; got state "
            f"{states[bad]}, whose way out underflows. Raise its tiny entries."
        )
    return out


def spectral_gap(P: Any) -> float:
    """Absolute spectral gap ``1 − |λ₂|``, the largest modulus among eigenvalues other than one.

    Parameters
    ----------
    P : array_like or sparse matrix, shape (n, n)
        Row-stochastic, with one recurrent, aperiodic class.

    Returns
    -------
    float
        In (0, 1]; one for a chain with a single state.

    Raises
    ------
    ValueError
        If ``P`` is not row-stochastic, has several recurrent classes, or is periodic; the classes
        are named.

    Notes
    -----
    Dense: all eigenvalues, ``O(n³)``, with an absolute error of about 1e-15 times their condition.
    Sparse, beyond 500 states: those nearest to one as the largest of the group inverse of
    ``I − P``, applied through the state reduction of :func:`stationary_distribution`, which keeps
    tiny gaps accurate, and balanced by the stationary law, which makes a reversible chain
    symmetric. Eigenvalues further off are ruled out by the smallest ``P_ii`` (Gershgorin's discs),
    else by Ritz values of ``P``; should those be as large in modulus: the dominant eigenvalues by
    ARPACK.

    Examples
    --------
    >>> round(spectral_gap([[0.9, 0.1], [0.3, 0.7]]), 12)
    0.4
    """
    matrix, *bandwidths = validate.checked_transition_matrix(P)
    n = matrix.shape[0]
    gap = _sparse_gap(matrix, bandwidths) if is_sparse(matrix) and n > 500 else None
    if gap is not None:
        return gap
    check_ergodic(matrix)
    if n == 1:
        return 1.0
    if not is_sparse(matrix) or n <= 500:
        return float(1.0 - np.sort(np.abs(np.linalg.eigvals(as_dense(matrix))))[-2])
    values = eigs(
        matrix, k=2, which="LM", ncv=40, v0=_generic(n), tol=1e-12, maxiter=10000,
        return_eigenvectors=False,
    )  # fmt: skip
    return float(1.0 - np.abs(values).min())


def relaxation_time(P: Any) -> float:
    """Relaxation time ``1 / (1 − |λ₂|)``, in steps.

    Parameters
    ----------
    P : array_like or sparse matrix, shape (n, n)
        Row-stochastic, with one recurrent, aperiodic class.

    Returns
    -------
    float
        At least one.

    Raises
    ------
    ValueError
        As for :func:`spectral_gap`.

    Examples
    --------
    >>> round(relaxation_time([[0.9, 0.1], [0.3, 0.7]]), 12)
    2.5
    """
    return 1.0 / spectral_gap(P)


def implied_timescales(P: Any, *, lag: float = 1, k: int | None = None) -> Array:
    """Implied timescales ``−lag / ln|λ_i|`` of the eigenvalues after the first, longest first.

    Parameters
    ----------
    P : array_like or sparse matrix, shape (n, n)
        Row-stochastic; the kernel over `lag` steps.
    lag : float, optional
        Steps that one application of ``P`` stands for; positive.
    k : int, optional
        How many; all ``n − 1`` by default. For a sparse ``P`` of more than 500 states and
        ``k ≤ n/4``, they are those of the eigenvalues nearest to one.

    Returns
    -------
    ndarray, shape (k,)
        In the unit of `lag`. Infinite for each eigenvalue of modulus one beyond the first (several
        recurrent classes, or a period), zero for an eigenvalue zero.

    Raises
    ------
    ValueError
        If ``P`` is not row-stochastic, `lag` is not positive or `k` is not in [0, n − 1].

    Notes
    -----
    ``|λ|`` is used, so that negative and complex eigenvalues have timescales too.

    Examples
    --------
    >>> implied_timescales([[0.9, 0.1], [0.3, 0.7]], lag=10).round(4).tolist()
    [19.5762]
    """
    matrix = validate.as_transition_matrix(P)
    n = matrix.shape[0]
    lag = validate.as_positive("lag", lag)
    k = n - 1 if k is None else validate.as_int("k", k, minimum=0, maximum=n - 1)
    if not is_sparse(matrix) or n <= 500 or k > n // 4:
        moduli = np.sort(np.abs(np.linalg.eigvals(as_dense(matrix))))[::-1][1 : k + 1]
    else:
        values = eigs(
            sp.csc_array(matrix), k=k + 1, sigma=1 + 1e-8, v0=_generic(n), return_eigenvectors=False
        )
        moduli = np.abs(values[np.argsort(np.abs(1 - values))[1:]])
        moduli = np.sort(moduli)[::-1]
    moduli = np.where(moduli > 1 - 1e-14, 1.0, moduli)
    with np.errstate(divide="ignore"):
        return np.asarray(lag / np.abs(np.log(moduli)))


def mixing_time(P: Any, *, eps: float = 0.25) -> int:
    """Mixing time ``t_mix(eps) = min{t : max_x TV(P^t(x, ·), pi) ≤ eps}``, in steps.

    Parameters
    ----------
    P : array_like or sparse matrix, shape (n, n)
        Row-stochastic, with one recurrent, aperiodic class.
    eps : float, optional
        Distance in total variation, in (0, 1).

    Returns
    -------
    int

    Raises
    ------
    ValueError
        As for :func:`spectral_gap`; if `eps` is not in (0, 1); if a sparse ``P`` has more than 5000
        states, since powers of it are full.

    Notes
    -----
    The distance does not increase with ``t``: powers ``P^(2^j)`` by squaring until it is small
    enough, then bisection, ``O(n³ log t)``.

    References
    ----------
    .. [1] Levin, Peres, "Markov Chains and Mixing Times", 2nd ed., AMS 2017, section 4.5.

    Examples
    --------
    >>> mixing_time([[0.9, 0.1], [0.3, 0.7]], eps=0.25)
    3
    """
    matrix = validate.as_transition_matrix(P)
    eps = validate.as_positive("eps", eps)
    if eps >= 1:
        raise ValueError(f"eps must be below 1; got {eps}. Every law is within 1 of every other.")
    check_ergodic(matrix)
    full = as_dense(matrix)
    pi = stationary_distribution(matrix)

    def distance(power: Array) -> float:
        return float(0.5 * np.abs(power - pi).sum(axis=1).max())

    if distance(np.eye(len(pi))) <= eps:
        return 0
    powers = [full]
    while distance(powers[-1]) > eps:
        square = powers[-1] @ powers[-1]
        powers.append(square / square.sum(axis=1, keepdims=True))
    if len(powers) == 1:
        return 1
    time: int = 2 ** (len(powers) - 2)
    below = powers[-2]
    for j in range(len(powers) - 3, -1, -1):
        trial = below @ powers[j]
        if distance(trial) > eps:
            time, below = time + 2**j, trial
    return time + 1


def _stationary(
    matrix: Any, bandwidths: list[int], threads: int, backend: str
) -> tuple[Array, int]:
    module = kernels(backend)
    if not is_sparse(matrix):
        pi, bad = module.stationary_dense(matrix, threads)
        return pi, int(bad)
    band, order = _as_band(matrix, bandwidths)
    pi, bad = module.stationary_banded(*band, threads)
    if order is None:
        return pi, int(bad)
    moved = np.empty_like(pi)
    moved[order] = pi
    return moved, int(order[bad]) if bad >= 0 else -1


def _as_band(
    matrix: Any, bandwidths: list[int]
) -> tuple[tuple[Any, ...], NDArray[np.int64] | None]:
    """CSR arrays and bandwidths of a sparse chain, and the order of states that has few bands."""
    n = matrix.shape[0]
    order = None
    if min(bandwidths) > 32:
        wanted = csgraph.reverse_cuthill_mckee(sp.csr_matrix(matrix), symmetric_mode=False)
        reordered, *new = validate.checked_transition_matrix(_reordered(matrix, wanted))
        if new[0] * new[1] < bandwidths[0] * bandwidths[1]:
            matrix, order, bandwidths = reordered, wanted.astype(np.int64), new
    if n * (sum(bandwidths) + 129) > MAX_BAND:
        raise MemoryError(
            f"P must have a band of at most {MAX_BAND} entries; got {n} rows of "
            f"{sum(bandwidths) + 1}. Use coarser bins, or lump states first."
        )
    return (matrix.data, matrix.indices, matrix.indptr, *bandwidths), order


def _reordered(matrix: Any, order: NDArray[Any]) -> sp.csr_array:
    """``matrix[order][:, order]``, its columns left unsorted, which takes a third of the time."""
    place = np.empty(len(order), np.int32)
    place[order] = np.arange(len(order), dtype=np.int32)
    lengths = np.diff(matrix.indptr)[order]
    starts = np.concatenate([[0], np.cumsum(lengths)])
    entry = np.repeat(matrix.indptr[order] - starts[:-1], lengths) + np.arange(starts[-1])
    return sp.csr_array(
        (matrix.data[entry], place[matrix.indices[entry]], starts), shape=matrix.shape
    )


def _sparse_gap(matrix: Any, bandwidths: list[int]) -> float | None:
    """Gap of a chain through its group inverse; None if that finds none, or not the right one."""
    band, order = _as_band(matrix, bandwidths)
    gaps: list[float] = []

    def enough(table: Array, steps: int) -> bool:
        gaps.extend(_settled_gap(table, steps))
        return bool(gaps)

    invert, start = kernels("cpp").group_inverse_krylov, _generic(matrix.shape[0])
    table, pi, done = invert(*band, start, MAX_STEPS, enough, 1)
    if done == 0:  # the heaviest state first, the others by their distance from it
        fold = np.argsort(np.abs(np.arange(len(pi)) - np.argmax(pi)), kind="stable")
        order = fold if order is None else order[fold]
        moved, *bandwidths = validate.checked_transition_matrix(_reordered(matrix, order))
        band = (moved.data, moved.indices, moved.indptr, *bandwidths)
        table, pi, done = invert(*band, start, MAX_STEPS, enough, 1)
    if done < 1 or not (gaps or enough(table, done)):
        return None
    gap, diagonal = gaps[0], matrix.diagonal()
    if not (diagonal * (pi if order is None else pi[np.argsort(order)])).any():
        check_ergodic(matrix)
    # Eigenvalues lie in a disc through 1 with its centre at the smallest P_ii: at a distance of FAR
    # from 1 and more, their modulus is at most this.
    least = min(float(diagonal.min()), 0.5)
    if (1 - gap) ** 2 > 1 - least / (1 - least) * FAR**2 or _far_from_one(matrix) < 1 - gap:
        return gap
    return None


def _settled_gap(table: Array, steps: int) -> list[float]:
    """Smallest ``1 − |λ|`` after some steps of Arnoldi's method; empty while it may yet change.

    ``1 / (1 − λ)`` is an eigenvalue of the group inverse of ``I − P``: nothing cancels.
    """
    mu, vectors = np.linalg.eig(table[:steps, :steps])
    error = table[steps, steps - 1] * np.abs(vectors[-1]) / np.abs(mu)
    x = 1.0 / mu
    gaps = (2 * x.real - np.abs(x) ** 2) / (1 + np.abs(1 - x))
    settled = error <= 1e-10
    if not settled[np.argmax(np.abs(mu))]:
        return []
    gap = gaps[settled].min()
    rivals = ~settled & (error < 0.01) & (np.abs(x) < FAR) & (gaps < gap)
    return [] if rivals.any() else [float(gap)]


def _generic(n: int) -> Array:
    return np.asarray(np.cos(np.arange(1.0, n + 1)))


def _far_from_one(matrix: Any) -> float:
    """Largest modulus among the Ritz values of ``P`` that are not near one, after 20 steps."""
    n, steps = matrix.shape[0], 20
    basis = np.empty((steps + 1, n))
    basis[0] = _generic(n) / np.linalg.norm(_generic(n))
    table = np.zeros((steps + 1, steps))
    for m in range(steps):
        x = matrix @ basis[m]
        for _ in range(2):
            h = basis[: m + 1] @ x
            table[: m + 1, m] += h
            x -= h @ basis[: m + 1]
        table[m + 1, m] = np.linalg.norm(x)
        if table[m + 1, m] < 1e-14:
            steps = m + 1
            break
        basis[m + 1] = x / table[m + 1, m]
    values = np.linalg.eigvals(table[:steps, :steps])
    far = np.abs(values)[np.abs(1 - values) > FAR]
    return float(far.max(initial=0.0))
