"""The digit tree: which nodes are evaluated, and how answers become rows.

At each node the model's softmax gives the law of the next token. Restricted to the node's children
and normalised, and multiplied along the path, this is the law of the next state (the hierarchy-PDF
of Liu et al. 2024); what the restriction discards, accumulated along the paths, is the off-state
mass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from sgdmc.llm.forest import FloatArray, Forest, IntArray, Questions, Tick, node_reference
from sgdmc.llm.tokens import Slot

if TYPE_CHECKING:
    from sgdmc.llm.batched import Context

Refine = Literal["observed", "neighbours", "all"]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Rows:
    """Where laws are wanted.

    Attributes
    ----------
    root : (n,) int64
        Reference of the token after which each law is read: a position of the context, or a node of
        ``stems``.
    observed : (n, depth) int64
        Reference of each token of the path that follows in the context; 0 where there is none
        (position 0 never follows a state).
    centre : (n,) int64
        The state around which to refine: the next one where it is known, else the present one.
    stem_tokens, stem_parents : (m,) int64
        Tokens between the context and those roots that hang off it, and their references.
    """

    root: IntArray
    observed: IntArray
    centre: IntArray
    stem_tokens: IntArray
    stem_parents: IntArray


def wanted_nodes(slot: Slot, rows: Rows, *, refine: Refine, depth: int) -> list[BoolArray]:
    """Return for each level 0..depth an (n, n_nodes) array: which nodes are evaluated.

    ``"observed"`` takes the nodes above the centre, ``"neighbours"`` also those next to them in
    the order of states, ``"all"`` every node.
    """
    n_states, n = len(slot.paths), len(rows.root)
    out = []
    for table in slot.tables[: depth + 1]:
        count = len(table)
        if refine == "all":
            out.append(np.ones((n, count), dtype=bool))
        else:
            middle = rows.centre // (n_states // count)
            reach = 0 if refine == "observed" else 1
            out.append(np.abs(np.arange(count) - middle[:, None]) <= reach)
    return out


@dataclass(frozen=True)
class Plan:
    """A forest with the questions that its nodes and the context must answer.

    ``here`` and ``there`` index (row, level, node) for the questions to the context and to the
    forest, in their order.
    """

    forest: Forest
    to_context: Questions
    to_forest: Questions
    here: IntArray
    there: IntArray


def plan(slot: Slot, rows: Rows, wanted: list[BoolArray]) -> Plan:
    """Return what to evaluate so that every wanted node is answered once.

    Nodes on the path that the context itself follows cost nothing: they are read off it.
    """
    n = len(rows.root)
    tokens, parents = [rows.stem_tokens], [rows.stem_parents]
    count = len(rows.stem_tokens)
    above = rows.root[:, None]  # references of the nodes of one level, (n, n_nodes)
    asks: list[tuple[IntArray, IntArray]] = []
    for level, want in enumerate(wanted):
        nodes = want.shape[1]
        if level:
            table = slot.tables[level - 1]
            arity = table.shape[1]
            place = np.zeros((n, nodes), dtype=np.int64)
            on_path = np.arange(nodes) == (rows.centre // (len(slot.paths) // nodes))[:, None]
            on_path &= rows.observed[:, level - 1, None] > 0
            place[on_path] = np.broadcast_to(rows.observed[:, level - 1, None], place.shape)[
                on_path
            ]
            row, node = np.nonzero(want & ~on_path)
            tokens.append(table[node // arity, node % arity])
            parents.append(above[row, node // arity])
            place[row, node] = node_reference(count + np.arange(row.size))
            count += row.size
            above = place
        row, node = np.nonzero(want)
        where = np.stack((row, np.full(row.size, level), node), axis=1)
        asks.append((above[row, node], where))
    forest, moved = Forest.build(np.concatenate(tokens), np.concatenate(parents))
    reference = np.concatenate([a for a, _ in asks])
    where = np.concatenate([w for _, w in asks])
    off = reference < 0
    return Plan(
        forest,
        _questions(slot, reference[~off], where[~off]),
        _questions(slot, moved[node_reference(reference[off])], where[off]),
        where[~off],
        where[off],
    )


def _questions(slot: Slot, places: IntArray, where: IntArray) -> Questions:
    return Questions(list(slot.tables), places, where[:, 1], where[:, 2])


def answer(
    slot: Slot, made: Plan, from_context: FloatArray, context: Context, tick: Tick, n: int
) -> tuple[FloatArray, FloatArray]:
    """Evaluate the forest and return ``(rows (n, n_states), off-state mass (n,))``."""
    logs = [np.full((n, *t.shape), np.nan) for t in slot.tables]
    answers = [(made.here, from_context)]
    if len(made.forest):
        answers.append((made.there, context.ask(made.forest, made.to_forest, tick)))
    for where, values in answers:
        for level, table in enumerate(slot.tables):
            mine = where[:, 1] == level
            row, node = where[mine, 0], where[mine, 2]
            logs[level][row, node] = values[mine, : table.shape[1]]
    return rows_from_logs(logs)


def rows_from_logs(logs: list[FloatArray]) -> tuple[FloatArray, FloatArray]:
    r"""Multiply laws along the tree.

    With :math:`q(c \mid v)` the model's probability of child ``c`` at node ``v``,

    .. math:: P(s) = \prod_v \frac{q(c_v \mid v)}{\sum_c q(c \mid v)}, \qquad
        \text{off} = 1 - \sum_s \prod_v q(c_v \mid v)

    over the evaluated nodes ``v`` above ``s``; below a node that was not evaluated the law is
    uniform, and no mass is off-state.

    Parameters
    ----------
    logs : list of (n, n_nodes, arity) float64
        Natural log-probabilities; NaN at nodes that were not evaluated.

    Returns
    -------
    rows : (n, n_states) float64
    off : (n,) float64

    Examples
    --------
    >>> root = np.log([[[0.5, 0.3]]])
    >>> rows, off = rows_from_logs([root, np.full((1, 2, 2), np.nan)])
    >>> rows
    array([[0.3125, 0.3125, 0.1875, 0.1875]])
    >>> off.round(12)
    array([0.2])
    """
    n = len(logs[0])
    rows, kept = np.ones((n, 1)), np.ones((n, 1))
    for log in logs:
        arity = log.shape[-1]
        known = ~np.isnan(log[..., :1])
        if not known.any():
            rows, kept = (np.repeat(a / arity, arity, axis=1) for a in (rows, kept))
            continue
        if not known.all():
            log = np.where(known, log, -np.log(arity))
        top = log.max(axis=-1, keepdims=True)
        law = log - top  # a million numbers, where rows are of 1000 states
        np.exp(law, out=law)
        share = rows[..., None] / law.sum(axis=-1, keepdims=True)
        kept = (kept[..., None] * np.exp(top) * law).reshape(n, -1)
        law *= share
        rows = law.reshape(n, -1)
    return rows, np.clip(1.0 - kept.sum(axis=1), 0.0, 1.0)
