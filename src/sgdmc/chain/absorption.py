"""Where a finite chain is absorbed."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sgdmc._core import backend as kernels
from sgdmc._core import validate
from sgdmc.chain.classes import (
    as_dense,
    communicating_classes,
    listed,
    positive_entries,
    unreachable,
)

__all__ = ["absorption_probabilities"]

Array = NDArray[np.float64]


def absorption_probabilities(
    P: Any,
    *,
    targets: list[ArrayLike] | None = None,
    n_threads: int | None = None,
    backend: str = "cpp",
) -> Array:
    """Probability, from each state, of reaching each of several target sets before the others.

    ``h_k(x) = Prob(the chain from x hits target k first)``: one on target ``k``, zero on the other
    targets, and ``h_k(x) = Σ_y P(x, y) h_k(y)`` elsewhere.

    Parameters
    ----------
    P : array_like or sparse matrix, shape (n, n)
        Row-stochastic.
    targets : list of array_like of int, optional
        Disjoint, non-empty sets of state indices. By default the recurrent classes, in the order of
        their first states.
    n_threads, backend
        As for :func:`stationary_distribution`.

    Returns
    -------
    ndarray, shape (n, n_targets)
        Rows sum to one.

    Raises
    ------
    ValueError
        If ``P`` is not row-stochastic, a target is empty, out of range or meets another, or some
        state never reaches a target (it is named).

    Notes
    -----
    State reduction, as in :func:`stationary_distribution`: right component by component,
    ``O(n³)``; a sparse ``P`` is made full (at most 5000 states besides the targets).

    Examples
    --------
    The gambler's ruin with 3 coins at stake:

    >>> P = [[1, 0, 0, 0], [0.5, 0, 0.5, 0], [0, 0.5, 0, 0.5], [0, 0, 0, 1]]
    >>> absorption_probabilities(P)[1].round(12).tolist()
    [0.666666666667, 0.333333333333]
    """
    matrix = validate.as_transition_matrix(P)
    n = matrix.shape[0]
    if targets is None:
        sets: list[NDArray[Any]] = list(communicating_classes(matrix).recurrent_classes)
    else:
        sets = _as_targets(targets, n)
    owner = np.full(n, -1)
    for k, states in enumerate(sets):
        owner[states] = k
    outside = np.flatnonzero(owner < 0)
    out = np.zeros((n, len(sets)))
    out[owner >= 0, owner[owner >= 0]] = 1.0
    if not len(outside):
        return out
    merged = np.zeros((len(sets) + len(outside),) * 2)
    merged[range(len(sets)), range(len(sets))] = 1.0
    rows = matrix[outside]
    merged[len(sets) :, len(sets) :] = as_dense(rows[:, outside])
    merged[len(sets) :, : len(sets)] = rows @ out
    result, bad = kernels(backend).absorption_dense(
        merged, len(sets), validate.as_threads(n_threads)
    )
    if bad >= 0:
        found = unreachable(positive_entries(matrix), owner)
        raise ValueError(
            f"targets must be reachable from every state; got none from {listed(found)}. "
            "Add their recurrent class as a target."
        )
    out[outside] = result[len(sets) :]
    return out


def _as_targets(targets: list[ArrayLike], n: int) -> list[NDArray[Any]]:
    sets = [validate.as_states("targets", t, ndim=(1,)) for t in targets]
    seen: dict[int, int] = {}
    for k, states in enumerate(sets):
        if not len(states):
            raise ValueError(f"targets must not be empty; got no state in target {k}. Drop it.")
        for state in states.tolist():
            if not 0 <= state < n:
                raise ValueError(
                    f"targets must lie in [0, {n}); got {state} in target {k}. Check the indices."
                )
            if seen.setdefault(state, k) != k:
                raise ValueError(
                    f"targets must be disjoint; got state {state} in targets {seen[state]} and "
                    f"{k}. Give it to one of them."
                )
    if not sets:
        raise ValueError("targets must hold at least one set; got none. Leave it out.")
    return sets
