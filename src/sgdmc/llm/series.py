"""A series of states as a text: checks, windows that fit the context, where laws are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from sgdmc._core.validate import as_int, as_states
from sgdmc.llm.forest import IntArray, node_reference
from sgdmc.llm.model import NO_LIMIT, LanguageModel
from sgdmc.llm.tokens import Layout, TokenMap
from sgdmc.llm.tree import Rows

States = npt.ArrayLike | Sequence[npt.ArrayLike]


def check_runs(states: States, *, joint: bool) -> list[IntArray]:
    """Return one or several runs as a list of non-empty (T, dim) int64 arrays of one dim."""
    axes = 2 if joint else 1
    listed = isinstance(states, list | tuple)
    several = listed and any(np.ndim(cast(Any, run)) == axes for run in cast(Any, states))
    runs = []
    for number, run in enumerate(cast(Any, states) if several else [states]):
        array = as_states("states", run, ndim=(axes,)).astype(np.int64)
        if not array.size:
            raise ValueError(
                f"states must hold at least one state a run; got none at run {number}. "
                "Leave empty runs out."
            )
        runs.append(array if joint else array[:, None])
    if not runs:
        raise ValueError("states must hold at least one run; got an empty list. Give a series.")
    dims = {run.shape[1] for run in runs}
    if len(dims) > 1:
        raise ValueError(
            f"states must have one number of coordinates; got {sorted(dims)}. Make runs alike."
        )
    return runs


def count_states(n_states: int | None, digits: int | None) -> int:
    """Return the number of states that ``n_states`` or ``digits`` asks for."""
    if (n_states is None) == (digits is None):
        raise ValueError(
            f"exactly one of n_states and digits must be given; got n_states={n_states} and "
            f"digits={digits}. Use n_states for 2 to 10 labels, digits for numbers."
        )
    if digits is not None:
        return int(10 ** as_int("digits", digits, minimum=1, maximum=3))
    if as_int("n_states", n_states, minimum=2) > 10:
        raise ValueError(
            f"n_states must be at most 10, one symbol each; got {n_states}. Use digits=2 or 3."
        )
    return int(cast(int, n_states))


def check_range(runs: Sequence[IntArray], n: int, name: str) -> None:
    """Raise at the first state outside 0..n-1."""
    for number, run in enumerate(runs):
        bad = np.argwhere((run < 0) | (run >= n))
        if bad.size:
            where = str(int(bad[0][0])) + (f" of run {number}" if len(runs) > 1 else "")
            raise ValueError(
                f"{name} must lie in 0..{n - 1}; got {int(run[tuple(bad[0])])} at {where}. "
                "Check digits or n_states, or clip."
            )


@dataclass(frozen=True)
class Window:
    """Runs that are read together; of their rows, ``first`` to ``stop - 1`` are kept."""

    runs: list[IntArray]
    first: int
    stop: int


def windows(
    lm: LanguageModel, tm: TokenMap, runs: list[IntArray], *, limit: int | None, reserve: int
) -> list[Window]:
    """Cut runs into windows that fit the context, each row kept in exactly one of them.

    ``reserve`` tokens are left free for branches. A window ends one state after its last row, so
    that the state that follows is part of the text.
    """
    block = sum(slot.width for slot in tm.slots)
    extra = len(tm.run_tail or ()) - len(tm.slots[-1].tail)
    counts = np.cumsum([len(run) for run in runs])
    total = int(counts[-1])
    cost = np.full(total, block)
    cost[counts[:-1] - 1] += extra
    at = np.concatenate(([0], np.cumsum(cost)))
    needed = len(tm.prefix) + int(at[-1]) + reserve
    smallest = len(tm.prefix) + 4 * (block + max(extra, 0)) + reserve
    if limit is not None and not smallest <= limit <= lm.max_context:
        reach = "any length" if lm.max_context == NO_LIMIT else f"up to {lm.max_context} tokens"
        raise ValueError(
            f"max_context must be at least {smallest} tokens and within the model's context; got "
            f"{limit}, and {lm.name} reads {reach}. Choose a length in between."
        )
    if needed <= (lm.max_context if limit is None else limit):
        return [Window(runs, 0, total)]
    if limit is None:
        raise ValueError(
            f"states must fit the context of {lm.name}, {lm.max_context} tokens; got {total} "
            f"states, which take {needed}. Use max_context={lm.max_context} to slide a window "
            "over them, fewer states, or a larger lag."
        )
    room = limit - len(tm.prefix) - reserve
    flat, breaks = np.concatenate(runs), counts[:-1]
    out, done = [], 0
    while done < total:
        budget = room // 2 if done else room
        ahead = int(np.searchsorted(at, at[done] + budget, side="right")) - 1
        stop = total if ahead >= total else max(ahead - 1, done + 1)
        end = min(stop + 1, total)
        start = int(np.searchsorted(at, at[end] - room, side="left"))
        inside = breaks[(breaks > start) & (breaks < end)] - start
        out.append(Window(np.split(flat[start:end], inside), done - start, stop - start))
        done = stop
    return out


def series_rows(
    tm: TokenMap, text: Layout, states: IntArray, window: Window, coordinate: int
) -> Rows:
    """Return where the law of one coordinate of the next joint state is read.

    The first coordinate's law follows every state. A later one's is read after the earlier
    coordinates of the next state, so there is none where no next state follows.
    """
    slot, last_slot = tm.slots[coordinate], tm.slots[-1]
    last = len(text.path_at) - 1
    following = ~text.run_end
    following[last] = False
    kept = np.zeros(last + 1, dtype=bool)
    kept[window.first : window.stop] = True
    follow = np.minimum(np.arange(last + 1) + 1, last)
    begin = text.path_at[follow, coordinate]
    observed = np.where(following[:, None], begin[:, None] + np.arange(slot.depth), 0)
    centre = np.where(following, states[follow, coordinate], states[:, coordinate])
    if coordinate:
        kept &= following
        none = np.zeros(0, dtype=np.int64)
        return Rows(begin[kept] - 1, observed[kept], centre[kept], none, none)
    end = text.path_at[:, -1] + last_slot.depth - 1  # where the last path of each state ends
    root = np.where(following, begin - 1, end + len(last_slot.tail))
    root[last] += len(slot.lead)  # written after the last block
    # where a newline merges with the tail, the text that stops at the tail is a branch of its own
    stem = np.array([*last_slot.tail, *slot.lead], dtype=np.int64)
    tail = last_slot.tail
    plain = not slot.lead and tm.run_tail is not None and tm.run_tail[: len(tail)] == tail
    ends = np.flatnonzero(text.run_end & kept & (not plain))
    tokens, parents, root[ends] = chains(end[ends], np.tile(stem, (len(ends), 1)))
    return Rows(root[kept], observed[kept], centre[kept], tokens, parents)


def probe_rows(tm: TokenMap, text: Layout, probes: IntArray, *, fresh: bool) -> Rows:
    """Return where the law after each hypothetical present state (one coordinate) is read."""
    slot = tm.slots[0]
    after, bridge = hinge(tm, text, fresh=fresh)
    m = len(probes)
    ends = [np.tile(np.array(p, dtype=np.int64), (m, 1)) for p in (bridge, slot.tail + slot.lead)]
    chain = np.concatenate((ends[0], slot.paths[probes], ends[1]), axis=1)
    tokens, parents, tips = chains(np.full(m, after), chain)
    return Rows(tips, np.zeros((m, slot.depth), dtype=np.int64), probes, tokens, parents)


def hinge(tm: TokenMap, text: Layout, *, fresh: bool) -> tuple[int, tuple[int, ...]]:
    """Return after which position a further state hangs, and the tokens before its path.

    The text is taken to end with the lead of a further state.
    """
    first, last = tm.slots[0], tm.slots[-1]
    end = int(text.path_at[-1, -1]) + last.depth - 1
    if not fresh:
        return end + len(last.tail) + len(first.lead), ()
    if tm.run_tail is None:
        raise ValueError(
            "probe_as must be 'continuation' where the tokenizer has no newline; got 'run'. "
            "Use another model for runs of their own."
        )
    return end, (*tm.run_tail, *first.lead)


def chains(after: IntArray, tokens: IntArray) -> tuple[IntArray, IntArray, IntArray]:
    """Return tokens, parents and last references of (m, c) chains after positions ``after``."""
    m, c = tokens.shape
    index = np.arange(m * c).reshape(m, c)
    parents = node_reference(index - 1)
    parents[:, :1] = after[:, None]
    return tokens.reshape(-1), parents.reshape(-1), node_reference(index[:, c - 1 :].sum(axis=1))
