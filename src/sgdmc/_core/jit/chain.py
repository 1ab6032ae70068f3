"""Alias tables, chain simulation and transition counts in numba."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgdmc._core.jit.compiler import compiled
from sgdmc._core.jit.random import bounded, draw
from sgdmc._core.reference.chain import ALIAS_BITS, ALIAS_MASK, MEAN
from sgdmc._core.reference.random import keys_of

__all__ = ["alias_tables", "count_transitions", "simulate"]


@compiled
def _alias_row(p: Any, table: Any) -> None:
    n = len(p)
    share = (p * (n * float(MEAN))).astype(np.int64)  # in units of 2**-48 / n
    small, large = np.flatnonzero(share < MEAN), np.flatnonzero(share >= MEAN)
    for i in range(n):
        table[i] = ~ALIAS_MASK | np.uint64(i)
    if len(small) == 0 or len(large) == 0:
        return
    current, donor, next_small, next_large = small[0], large[0], 1, 1
    while True:
        table[current] = (np.uint64(share[current]) << ALIAS_BITS) | np.uint64(donor)
        share[donor] += share[current] - MEAN
        if share[donor] < MEAN:
            current = donor
            if next_large == len(large):
                return
            donor = large[next_large]
            next_large += 1
        else:
            if next_small == len(small):
                return
            current = small[next_small]
            next_small += 1


@compiled
def _alias_tables(p: Any, begin: Any, table: Any) -> None:
    for i in range(len(begin) - 1):
        _alias_row(p[begin[i] : begin[i + 1]], table[begin[i] : begin[i + 1]])


def alias_tables(
    p: NDArray[np.float64], begin: NDArray[np.int64], n_states: int, n_threads: int = 1
) -> None:
    """Overwrite the rows of a stochastic matrix by alias tables, uint64 in place of float64."""
    bounds = begin if len(begin) else np.arange(n_states + 1, dtype=np.int64) * n_states
    _alias_tables(p, bounds, p.view(np.uint64))


@compiled
def _simulate(
    table: Any, begin: Any, column: Any, n_states: int, offset: Any, twist: Any, out: Any
) -> None:
    for chain in range(out.shape[0]):
        state = np.int64(out[chain, 0])
        for step in range(out.shape[1] - 1):
            bits = draw(offset[chain], twist[chain], np.uint64(step))
            first, size = state * n_states, n_states
            if len(begin) > 0:
                first, size = begin[state], begin[state + 1] - begin[state]
            chosen = bounded(bits, np.uint64(size))
            entry = table[first + np.int64(chosen)]
            if bits * np.uint64(size) >= entry & ~ALIAS_MASK:
                chosen = entry & ALIAS_MASK
            state = np.int64(chosen)
            if len(begin) > 0:
                state = np.int64(column[first + state])
            out[chain, step + 1] = state


def simulate(
    table: NDArray[np.uint64],
    begin: NDArray[np.int64],
    column: NDArray[np.int32],
    n_states: int,
    seed: int,
    out: NDArray[np.int16] | NDArray[np.int32],
    n_threads: int = 1,
) -> None:
    """Paths from the starts in ``out[:, 0]``, written to `out` (n_chains, n_steps + 1)."""
    offset, twist = keys_of(seed, np.arange(len(out), dtype=np.uint64))
    _simulate(table, begin, column, n_states, offset, twist, out)


@compiled
def _count(states: Any, n_states: int, lag: int, counts: Any) -> int:
    for c in range(states.shape[0]):
        for t in range(states.shape[1]):
            if states[c, t] < 0 or states[c, t] >= n_states:
                return int(c * states.shape[1] + t)
            if t >= lag:
                counts[states[c, t - lag], states[c, t]] += 1
    return -1


def count_transitions(
    states: NDArray[np.int16] | NDArray[np.int32] | NDArray[np.int64],
    n_states: int,
    lag: int,
    counts: NDArray[np.int64],
    n_threads: int = 1,
) -> int:
    """Add the transitions of `states` at `lag` to `counts`; first bad flat index or -1."""
    return int(_count(states, n_states, lag, counts))
