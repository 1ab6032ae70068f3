"""How the states of a finite chain fall into communicating classes, and their periods.

Words: state ``j`` is *accessible* from ``i`` if some power of ``P`` has a positive entry there; a
*communicating class* is a largest set of states accessible from each other; it is *recurrent* if
the chain cannot leave it, else *transient*. A chain with one class is *irreducible*. The *period*
of a class is the greatest common divisor of the lengths of its loops.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse import csgraph

from sgdmc._core import validate

__all__ = [
    "CommunicatingClasses",
    "as_dense",
    "check_ergodic",
    "communicating_classes",
    "is_sparse",
    "listed",
    "only_recurrent",
    "period",
    "positive_entries",
    "unreachable",
]


MAX_DENSE = 5000  # states up to which a sparse chain is turned into a full matrix


@dataclass(frozen=True)
class CommunicatingClasses:
    """How the states of a chain fall into communicating classes.

    Attributes
    ----------
    classes : tuple of ndarray of int
        State indices of each class, ascending; classes ordered by their first state.
    recurrent : ndarray of bool, shape (n_classes,)
        Whether the chain cannot leave that class.
    """

    classes: tuple[NDArray[np.int64], ...]
    recurrent: NDArray[np.bool_]

    @property
    def is_irreducible(self) -> bool:
        """Whether all states communicate."""
        return len(self.classes) == 1

    @property
    def recurrent_classes(self) -> tuple[NDArray[np.int64], ...]:
        """The classes that the chain cannot leave."""
        return tuple(c for c, r in zip(self.classes, self.recurrent, strict=True) if r)

    @property
    def transient_states(self) -> NDArray[np.int64]:
        """States that are left for good sooner or later, ascending."""
        left = [c for c, r in zip(self.classes, self.recurrent, strict=True) if not r]
        return np.sort(np.concatenate(left)) if left else np.empty(0, dtype=np.int64)


def communicating_classes(P: Any) -> CommunicatingClasses:
    """Communicating classes of a chain, and which of them are recurrent.

    Parameters
    ----------
    P : array_like or sparse matrix, shape (n, n)
        Row-stochastic.

    Returns
    -------
    CommunicatingClasses

    Raises
    ------
    ValueError
        If ``P`` is not row-stochastic.

    Notes
    -----
    The strongly connected components of the graph of positive entries, ``O(n + nnz)``.

    Examples
    --------
    >>> found = communicating_classes([[0.5, 0.5, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    >>> [c.tolist() for c in found.classes], found.recurrent.tolist()
    ([[0], [1], [2]], [False, True, True])
    """
    return _classes(positive_entries(validate.as_transition_matrix(P)))


def period(P: Any) -> int:
    """Period of an irreducible chain: the greatest common divisor of the lengths of its loops.

    Parameters
    ----------
    P : array_like or sparse matrix, shape (n, n)
        Row-stochastic.

    Returns
    -------
    int
        One for an aperiodic chain.

    Raises
    ------
    ValueError
        If ``P`` is not row-stochastic, or has several recurrent classes (they are named). With
        transient states, the period is that of the recurrent class.

    Notes
    -----
    ``gcd`` over edges of ``level(u) + 1 − level(v)``, levels from a breadth-first search.

    Examples
    --------
    >>> period([[0.0, 1.0], [1.0, 0.0]])
    2
    """
    graph = positive_entries(validate.as_transition_matrix(P))
    return _period(graph, only_recurrent(_classes(graph)))[0]


def positive_entries(matrix: Any) -> sp.csr_array:
    """Pattern of the positive entries, as CSR."""
    graph = sp.csr_array(matrix)
    if (graph.data == 0).any():
        graph = graph.copy()
        graph.eliminate_zeros()
    return graph


def _classes(graph: sp.csr_array) -> CommunicatingClasses:
    count, found = csgraph.connected_components(graph, directed=True, connection="strong")
    first = np.full(count, graph.shape[0])
    np.minimum.at(first, found, np.arange(len(found)))
    rank = np.empty(count, dtype=np.int64)
    rank[np.argsort(first)] = np.arange(count)
    labels = rank[found]
    order = np.argsort(labels, kind="stable")
    classes = tuple(np.split(order, np.cumsum(np.bincount(labels))[:-1]))
    recurrent = np.ones(count, dtype=bool)
    rows = np.repeat(labels, np.diff(graph.indptr))
    recurrent[rows[rows != labels[graph.indices]]] = False
    return CommunicatingClasses(classes, recurrent)


def only_recurrent(found: CommunicatingClasses) -> NDArray[np.int64]:
    """Return the only recurrent class; several raise `ValueError` and are named."""
    classes = found.recurrent_classes
    if len(classes) > 1:
        named = ", ".join(listed(c) for c in classes[:4]) + (", …" if len(classes) > 4 else "")
        raise ValueError(
            f"P must have one recurrent class; got {len(classes)}: {named}. "
            "Restrict P to one of them, or connect them."
        )
    return classes[0]


def check_ergodic(matrix: Any) -> None:
    """Raise `ValueError` for several recurrent classes or a period above one, with the classes."""
    graph = positive_entries(matrix)
    states = only_recurrent(_classes(graph))
    cycle, parts = _period(graph, states)
    if cycle > 1:
        named = ", ".join(listed(part) for part in parts[:4]) + (", …" if cycle > 4 else "")
        raise ValueError(
            f"P must be aperiodic; got period {cycle}, with cyclic classes {named}. "
            "Mix P with the identity, or use P to that power on one class."
        )


def _period(graph: sp.csr_array, states: NDArray[np.int64]) -> tuple[int, list[NDArray[np.int64]]]:
    """Period of a recurrent class, and its cyclic classes in the order of visit."""
    inner = graph[states][:, states] if len(states) < graph.shape[0] else graph
    if inner.diagonal().any():
        return 1, [states]
    level = csgraph.shortest_path(inner, unweighted=True, indices=0).astype(np.int64)
    rows = np.repeat(np.arange(len(states)), np.diff(inner.indptr))
    cycle = int(np.gcd.reduce(level[rows] + 1 - level[inner.indices]))
    return cycle, [states[level % cycle == r] for r in range(cycle)]


def unreachable(graph: sp.csr_array, owner: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the states from which no target can be reached."""
    reached = owner >= 0
    while True:
        grown = reached | (graph @ reached > 0)
        if (grown == reached).all():
            return np.flatnonzero(~reached)
        reached = grown


def is_sparse(matrix: Any) -> bool:
    """Return whether a chain is a sparse matrix."""
    return bool(sp.issparse(matrix))


def as_dense(matrix: Any) -> NDArray[np.float64]:
    """Return a chain as a full matrix; `ValueError` beyond `MAX_DENSE` states."""
    if not is_sparse(matrix):
        return np.asarray(matrix)
    if max(matrix.shape) > MAX_DENSE:
        raise ValueError(
            f"P must have at most {MAX_DENSE} states to be made full; got {matrix.shape[0]}. "
            "Lump states first."
        )
    return np.asarray(matrix.toarray())


def listed(states: NDArray[np.int64]) -> str:
    """Return states as text for messages, at most six of them."""
    shown = ", ".join(str(s) for s in states[:6].tolist())
    return f"{{{shown}{', …' if len(states) > 6 else ''}}}"
