"""Short continuations of one text, as a forest of tokens.

Words used in this room. The *context* is the text that every continuation shares, one token a
*position*, counted from 0. A *node* of the forest is one more token; its parent is another node or
a position of the context, so that a node stands for the text "the context up to some position,
then the tokens from its root down to itself". A *reference* names either kind of place in one
integer: ``p >= 0`` is position ``p`` of the context, ``-(i + 1)`` is node ``i``. A *component* is
one root with all below it: what has to be evaluated together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
Tick = Callable[[int], None]


def node_reference(index: IntArray) -> IntArray:
    """Return the references ``-(i + 1)`` of nodes ``i``; the same map takes references back."""
    return -(index + 1)


@dataclass(frozen=True)
class Forest:
    """Tokens to be read after a shared context, grouped in components.

    Attributes
    ----------
    tokens : (n,) int64
        Token of each node. Parents come before their children, components lie one after another.
    parents : (n,) int64
        Reference of each node's parent.
    anchors : (n,) int64
        The position of the context from which the node's component hangs.
    depths : (n,) int64
        1 for a root, one more for each generation: a node's position in its text is
        ``anchors + depths``.
    starts : (n_components + 1,) int64
        First node of each component, then ``n``.
    """

    tokens: IntArray
    parents: IntArray
    anchors: IntArray
    depths: IntArray
    starts: IntArray

    @classmethod
    def build(cls, tokens: IntArray, parents: IntArray) -> tuple[Forest, IntArray]:
        """Sort nodes into components by anchor, and say where each went.

        Parameters
        ----------
        tokens, parents : (n,) int64
            As above, in any order in which a parent comes before its children.

        Returns
        -------
        forest : Forest
        place : (n,) int64
            ``place[i]`` is the index in the forest of the node given as ``i``.
        """
        n = len(tokens)
        root = np.arange(n)
        depths = np.ones(n, dtype=np.int64)
        anchors = parents.copy()
        pending = np.flatnonzero(parents < 0)
        while pending.size:  # one generation a turn
            up = node_reference(anchors[pending])
            root[pending] = root[up]
            anchors[pending] = anchors[up]
            depths[pending] += depths[up]
            pending = pending[anchors[pending] < 0]
        order = np.lexsort((np.arange(n), root, anchors[root]))
        place = np.empty(n, dtype=np.int64)
        place[order] = np.arange(n)
        moved = parents.copy()
        inner = parents < 0
        moved[inner] = node_reference(place[node_reference(parents[inner])])
        changes = np.flatnonzero(np.diff(root[order])) + 1
        starts = np.concatenate(([0], changes, [n])) if n else np.zeros(1, dtype=np.int64)
        forest = cls(tokens[order], moved[order], anchors[order], depths[order], starts)
        return forest, place

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def largest_component(self) -> int:
        """Number of nodes of the largest component, 0 if there is none."""
        return int(np.diff(self.starts).max(initial=0))

    def chunk(self, start: int, limit: int) -> slice:
        """Return components from node ``start`` on: ``limit`` nodes at most, or one component."""
        first = int(np.searchsorted(self.starts, start))
        last = int(np.searchsorted(self.starts, start + limit, side="right")) - 1
        return slice(start, int(self.starts[max(last, first + 1)]))

    def local_parents(self, part: slice) -> IntArray:
        """Return each node's parent, counted from the chunk's first node; -1 for roots."""
        parents = self.parents[part]
        return np.where(parents < 0, node_reference(parents) - part.start, -1)

    def ancestry(self, part: slice) -> npt.NDArray[np.bool_]:
        """Return the (m, m) matrix of a chunk: entry ``(i, j)`` if ``j`` is ``i`` or above it."""
        m = part.stop - part.start
        above = np.eye(m, dtype=bool)
        rows = np.arange(m)
        local = self.local_parents(part)
        at = local
        while rows.size:
            keep = at >= 0
            rows, at = rows[keep], at[keep]
            above[rows, at] = True
            at = local[at]
        return above


@dataclass(frozen=True)
class Questions:
    """At which places the law of the next token is wanted, and among which tokens.

    Attributes
    ----------
    tables : list of (n_nodes, arity) int64
        Candidate tokens; the number of candidates may differ between tables.
    places : (m,) int64
        Position of the context or index in the forest of the token *after* which to look.
    table, row : (m,) int64
        Which row of which table holds the candidates.
    """

    tables: list[IntArray]
    places: IntArray
    table: IntArray
    row: IntArray

    @property
    def width(self) -> int:
        """Largest number of candidates."""
        return max(int(t.shape[1]) for t in self.tables)

    @classmethod
    def merge(cls, several: Sequence[Questions]) -> Questions:
        """Put several sets of questions one after another, with all their tables."""
        offsets = np.cumsum([0, *(len(q.tables) for q in several)])
        return cls(
            [table for q in several for table in q.tables],
            np.concatenate([q.places for q in several]),
            np.concatenate([q.table + o for q, o in zip(several, offsets[:-1], strict=True)]),
            np.concatenate([q.row for q in several]),
        )
