"""Alias tables, chain simulation and transition counts in numba."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgdmc._core.jit.compiler import compiled
from sgdmc._core.jit.random import bounded, draw
from sgdmc._core.reference.chain import ALIAS_BITS, ALIAS_MASK, LANES, MEAN, MOST
from sgdmc._core.reference.random import keys_of

__all__ = ["alias_tables", "count_transitions", "simulate"]


@compiled
def _row_sum(row: Any) -> float:
    lanes = np.zeros(LANES)
    for i in range(len(row)):
        lanes[i % LANES] += row[i]
    total = 0.0
    for lane in lanes:
        total += lane
    return total


@compiled
def _alias_row(p: Any, total: float, table: Any) -> None:
    n = len(p)
    scaled = p * (n * float(MEAN) / total)
    share = np.minimum(scaled, MOST).astype(np.int64)  # in units of 2**-48 / n
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
def _alias_tables(p: Any, begin: Any, tolerance: float, table: Any) -> bool:
    for i in range(len(begin) - 1):
        row = p[begin[i] : begin[i + 1]]
        total = _row_sum(row)
        if not (abs(total - 1.0) <= tolerance and row.min() >= 0.0):
            return False
        _alias_row(row, total, table[begin[i] : begin[i + 1]])
    return True


def alias_tables(
    p: NDArray[np.float64],
    begin: NDArray[np.int64],
    n_states: int,
    tolerance: float,
    table: NDArray[np.uint64],
    n_threads: int = 1,
) -> bool:
    """Alias tables of the rows; whether rows are non-negative and sum to one."""
    bounds = begin if len(begin) else np.arange(n_states + 1, dtype=np.int64) * n_states
    return bool(_alias_tables(p, bounds, tolerance, table))


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
