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
NEARLY_NORMAL = 1e-8  # smallest over largest stationary mass of a chain taken as it is
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
    matrix = validate.as_transition_matrix(P)
    threads = validate.as_threads(n_threads)
    pi, bad = _stationary(matrix, threads, backend)
    if bad < 0:
        return pi
    states = only_recurrent(communicating_classes(matrix))
    out = np.zeros(matrix.shape[0])
    inner = matrix[states][:, states]
    inner = sp.csr_array(inner) if is_sparse(inner) else np.ascontiguousarray(inner)
    out[states], bad = _stationary(inner, threads, backend)
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
    tiny gaps accurate. Where stationary masses span more than eight decades: ARPACK beside one, on
    the chain made nearly symmetric by them. Should Ritz values of ``P`` elsewhere be as large in
    modulus: the dominant eigenvalues by ARPACK.

    Examples
    --------
    >>> round(spectral_gap([[0.9, 0.1], [0.3, 0.7]]), 12)
    0.4
    """
    matrix = validate.as_transition_matrix(P)
    check_ergodic(matrix)
    return _gap(matrix) if matrix.shape[0] > 1 else 1.0


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


def _stationary(matrix: Any, threads: int, backend: str) -> tuple[Array, int]:
    module = kernels(backend)
    if not is_sparse(matrix):
        pi, bad = module.stationary_dense(matrix, threads)
        return pi, int(bad)
    band, order = _as_band(matrix)
    found, bad = module.stationary_banded(*band, threads)
    pi = np.empty_like(found)
    pi[order] = found
    return pi, int(order[bad]) if bad >= 0 else -1


def _as_band(matrix: Any) -> tuple[tuple[Any, ...], NDArray[np.int64]]:
    """CSR arrays and bandwidths of a sparse chain in an order of few bands, and that order."""
    n = matrix.shape[0]
    order = np.arange(n)
    lower, upper = _bandwidth(matrix)
    if min(lower, upper) > 32:
        wanted = csgraph.reverse_cuthill_mckee(sp.csr_matrix(matrix), symmetric_mode=False)
        reordered = sp.csr_array(matrix[wanted][:, wanted])
        new = _bandwidth(reordered)
        if new[0] * new[1] < lower * upper:
            matrix, order, (lower, upper) = reordered, wanted.astype(np.int64), new
    if n * (lower + upper + 129) > MAX_BAND:
        raise MemoryError(
            f"P must have a band of at most {MAX_BAND} entries; got {n} rows of "
            f"{lower + upper + 1}. Use coarser bins, or lump states first."
        )
    indices = matrix.indices.astype(np.int32, copy=False)
    return (matrix.data, indices, matrix.indptr.astype(np.int32, copy=False), lower, upper), order


def _bandwidth(matrix: Any) -> tuple[int, int]:
    """Largest ``i − j`` and ``j − i`` over the entries."""
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    offset = matrix.indices - rows
    return max(0, int(-offset.min(initial=0))), max(0, int(offset.max(initial=0)))


def _gap(matrix: Any) -> float:
    """One less the largest modulus among the eigenvalues other than the first."""
    n = matrix.shape[0]
    if not is_sparse(matrix) or n <= 500:
        return float(1.0 - np.sort(np.abs(np.linalg.eigvals(as_dense(matrix))))[-2])
    pi, bad = _stationary(matrix, 1, "cpp")
    if bad < 0 and 0 < pi.min() < NEARLY_NORMAL * pi.max():
        matrix = _balanced(matrix, pi)
        near: float | None = _near_one_inverted(matrix)
    else:
        near = _near_one(matrix)
    if near is not None and _far_from_one(matrix) < 1.0 - near:
        return near
    values = eigs(
        matrix, k=2, which="LM", ncv=40, v0=_generic(n), tol=1e-12, maxiter=10000,
        return_eigenvectors=False,
    )  # fmt: skip
    return float(1.0 - np.abs(values).min())


def _balanced(matrix: Any, pi: Array) -> sp.csc_array:
    """``D^½ P D^−½`` with ``D = diag(pi)``: the same eigenvalues, symmetric if P is reversible.

    Where ``pi`` spans many decades P is so far from normal that Krylov spaces of P itself show
    eigenvalues that are none.
    """
    root = np.sqrt(pi)
    return sp.csc_array(sp.diags_array(root) @ matrix @ sp.diags_array(1.0 / root))


def _near_one_inverted(matrix: Any) -> float:
    """As `_near_one`, by inverse iteration beside one."""
    values = eigs(
        matrix, k=2, sigma=1 + 1e-8, v0=_generic(matrix.shape[0]), return_eigenvectors=False
    )
    return float(1.0 - np.abs(values[np.argmax(np.abs(1.0 - values))]))


def _generic(n: int) -> Array:
    return np.asarray(np.cos(np.arange(1.0, n + 1)))


def _near_one(matrix: Any) -> float | None:
    """One less the modulus of the eigenvalue nearest to one, itself left out; None if not found.

    ``1 / (1 - lambda)`` is the largest eigenvalue of the group inverse of ``I - P``: nothing
    cancels.
    """
    band, _ = _as_band(matrix)
    steps = 12
    while steps <= 192:
        table, done = kernels("cpp").group_inverse_krylov(
            *band, _generic(matrix.shape[0]), steps, 1
        )
        if done < 1:
            return None
        mu, vectors = np.linalg.eig(table[:done, :done])
        first = int(np.argmax(np.abs(mu)))
        left = 0.0 if done < steps else table[steps, steps - 1]
        if left * np.abs(vectors[-1, first]) <= 1e-11 * np.abs(mu[first]):
            x = 1.0 / mu[first]  # 1 - lambda
            return float((2 * x.real - abs(x) ** 2) / (1 + abs(1 - x)))
        steps *= 2
    return None


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
    far = np.abs(values)[np.abs(1 - values) > 0.1]
    return float(far.max(initial=0.0))
