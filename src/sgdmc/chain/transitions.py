"""Transitions of finite chains: counting them along paths, drawing paths from a matrix."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import ArrayLike, NDArray

from sgdmc._core import backend as kernels
from sgdmc._core import validate
from sgdmc._core.reference.chain import MAX_ROW

__all__ = ["count_transitions", "simulate_chain"]


def count_transitions(
    states: ArrayLike,
    *,
    n_states: int,
    lag: int = 1,
    n_threads: int | None = None,
    backend: str = "cpp",
) -> NDArray[np.int64]:
    """Count matrix ``C[u, v] = #{t : s_t = u, s_{t + lag} = v}``, over sliding windows.

    Parameters
    ----------
    states : array_like of int, shape (T,) or (n_chains, T)
        Paths of state indices; int16, int32 and int64 are read without a copy if C-contiguous. No
        transition is counted from one chain to the next.
    n_states : int
        Number of states n, at least 1.
    lag : int, default 1
        Steps between the two states of a pair; paths of at most `lag` states have none.
    n_threads : int, optional
        All processors by default; the result does not depend on it.
    backend : {"cpp", "numba", "numpy"}
        Who computes; the result does not depend on it.

    Returns
    -------
    ndarray, shape (n, n), int64
        Rows index the present state.

    Raises
    ------
    TypeError
        If the states are not integers.
    ValueError
        If a state is not in ``0 .. n_states - 1``, or an argument is out of range.

    Notes
    -----
    Cost O(n_chains T + n^2). Windows overlap, so counts at ``lag > 1`` are not independent: as an
    estimate of the transition matrix they are consistent, as evidence about its error they are not
    [PWS11]_.

    References
    ----------
    .. [PWS11] Prinz et al. (2011). Markov models of molecular kinetics: generation and validation.
       Journal of Chemical Physics 134, 174105.

    Examples
    --------
    >>> count_transitions([0, 1, 1, 0], n_states=2).tolist()
    [[0, 1], [1, 1]]
    """
    paths = validate.as_states("states", states)
    n_states = validate.as_int("n_states", n_states, minimum=1)
    lag = validate.as_int("lag", lag, minimum=1)
    counts = np.zeros((n_states, n_states), dtype=np.int64)
    rows = np.atleast_2d(paths)
    bad = kernels(backend).count_transitions(
        rows, n_states, lag, counts, validate.as_threads(n_threads)
    )
    if bad >= 0:
        where = tuple(int(i) for i in np.unravel_index(bad, paths.shape))
        raise ValueError(
            f"states must lie in 0 .. {n_states - 1}; got {paths[where]} at index "
            f"{where if len(where) > 1 else where[0]}. Raise n_states or check the encoding."
        )
    return counts


def simulate_chain(
    P: Any,
    start_states: ArrayLike,
    *,
    n_steps: int,
    rng: Any = None,
    n_threads: int | None = None,
    backend: str = "cpp",
    out: NDArray[np.int16] | NDArray[np.int32] | None = None,
) -> NDArray[np.int16] | NDArray[np.int32]:
    """Paths of the chain with transition matrix `P`: ``s_{t+1} ~ P[s_t]``.

    Parameters
    ----------
    P : array_like or scipy sparse, shape (n, n)
        Row-stochastic; rows index the present state. A sparse matrix stays sparse.
    start_states : int or array_like of int, shape (n_chains,)
        One start a chain.
    n_steps : int
        Steps of each path, at least 0.
    rng : int, SeedSequence, Generator or None
        Covers every draw: step t of chain c is a pure function of one seed, c and t.
    n_threads : int, optional
        All processors by default; the result does not depend on it.
    backend : {"cpp", "numba", "numpy"}
        Who computes; the result does not depend on it.
    out : ndarray, shape (n_chains, n_steps + 1), optional
        Where to write, of the result's dtype: fresh pages cost more than the draws.

    Returns
    -------
    ndarray, shape (n_chains, n_steps + 1)
        State indices, starts included; int16 up to 32768 states, int32 beyond.

    Raises
    ------
    TypeError
        If `P` does not hold real numbers, or the starts are not integers.
    ValueError
        If `P` is not row-stochastic to 1e-6, a row has more than 32768 entries, a start is not in
        ``0 .. n - 1``, or an argument is out of range.

    Notes
    -----
    Alias tables [Wal77]_: O(nnz) to build, then one lookup a step, whatever n. Probabilities are
    right to 2**-48. One long path is made in pieces from guessed starts, side by side, each put
    right up to where it meets the path before: the result is that of one step after the other.
    Equal matrices in dense and in sparse form have tables of different layout, and so give
    different paths of the same law.

    References
    ----------
    .. [Wal77] Walker (1977). An efficient method for generating discrete random variables with
       general distributions. ACM Transactions on Mathematical Software 3(3).

    Examples
    --------
    >>> simulate_chain([[0.0, 1.0], [1.0, 0.0]], 0, n_steps=4).tolist()
    [[0, 1, 0, 1, 0]]
    """
    sparse = scipy.sparse.issparse(P)
    matrix = validate.checked_transition_matrix(P)[0] if sparse else validate.as_square(P)
    n_states = matrix.shape[0]
    n_steps = validate.as_int("n_steps", n_steps, minimum=0)
    starts = np.atleast_1d(validate.as_states("start_states", start_states, ndim=(0, 1)))
    outside = (starts < 0) | (starts >= n_states)
    if outside.any():
        c = int(np.argmax(outside))
        raise ValueError(
            f"start_states must lie in 0 .. {n_states - 1}; got {starts[c]} at index {c}. "
            "Start inside the chain."
        )
    if sparse:
        begin, column = matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32, copy=False)
        values, longest = matrix.data, int(np.diff(begin).max())
    else:
        begin, column = np.empty(0, np.int64), np.empty(0, np.int32)
        values, longest = matrix.reshape(-1), n_states
    if longest > MAX_ROW:
        raise ValueError(
            f"P must have at most {MAX_ROW} entries a row; got {longest}. Lump states."
        )
    shape = (len(starts), n_steps + 1)
    paths = validate.output_or_new("out", out, shape, validate.state_dtype(n_states))
    paths[:, 0] = starts
    threads = validate.as_threads(n_threads)
    module = kernels(backend)
    table = np.empty(values.shape, np.uint64)
    tolerance = validate.ROW_SUM_TOLERANCE
    if not module.alias_tables(values, begin, n_states, tolerance, table, threads):
        validate.raise_unless_stochastic(matrix)
    module.simulate(table, begin, column, n_states, validate.seed_from(rng), paths, threads)
    return paths
