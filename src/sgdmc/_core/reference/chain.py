"""Alias tables, chain simulation and transition counts in plain NumPy."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from sgdmc._core.reference.random import bounded, draw_bits, keys_of

__all__ = ["alias_tables", "count_transitions", "simulate"]

ALIAS_BITS = np.uint64(16)
ALIAS_MASK = np.uint64(0xFFFF)
MEAN = 2**48  # 1/n in units of the tables
MAX_ROW = 2**15
MOST = float.fromhex("0x1.fffffffffffffp62")  # the largest share, below 2**63
LANES = 32


def alias_tables(
    p: NDArray[np.float64],
    begin: NDArray[np.int64],
    n_states: int,
    tolerance: float,
    table: NDArray[np.uint64],
    n_threads: int = 1,
) -> bool:
    """Walker's alias tables of the rows of a stochastic matrix, each scaled to the sum it has.

    The upper 48 bits of an entry are the probability of staying with it, the lower 16 the entry of
    the same row to take otherwise. Rows are ``p[begin[i]:begin[i + 1]]``, or have length `n_states`
    if `begin` is empty; `p` and `table` are flat and contiguous. Returns whether rows are
    non-negative and sum to one within the tolerance; `table` is complete only then.
    """
    bounds = begin if len(begin) else np.arange(n_states + 1) * n_states
    for first, last in pairwise(bounds):
        row = p[first:last]
        total = row_sum(row)
        if not (abs(total - 1.0) <= tolerance and row.min() >= 0.0):
            return False
        table[first:last] = _alias_row(row, total)
    return True


def row_sum(row: NDArray[np.float64]) -> float:
    """Sum over each of 32 interleaved lanes, then over the lanes: the order of all backends."""
    padded = np.zeros(-(-len(row) // LANES) * LANES)
    padded[: len(row)] = row
    total = 0.0
    for lane in padded.reshape(-1, LANES).sum(axis=0).tolist():
        total += lane
    return total


def _alias_row(p: NDArray[np.float64], total: float) -> NDArray[np.uint64]:
    n = len(p)
    scaled = p * (float(n) * float(MEAN) / total)
    share = np.minimum(scaled, MOST).astype(np.int64).tolist()  # in units of 2**-48 / n
    keep, alias = np.full(n, MEAN - 1, dtype=np.uint64), np.arange(n, dtype=np.uint64)
    small = iter([i for i in range(n) if share[i] < MEAN])
    large = iter([i for i in range(n) if share[i] >= MEAN])
    current, donor = next(small, None), next(large, None)
    while current is not None and donor is not None:
        keep[current], alias[current] = share[current], donor
        share[donor] += share[current] - MEAN  # what the donor still has to give
        if share[donor] < MEAN:
            current, donor = donor, next(large, None)
        else:
            current = next(small, None)
    return (keep << ALIAS_BITS) | alias


def simulate(
    table: NDArray[np.uint64],
    begin: NDArray[np.int64],
    column: NDArray[np.int32],
    n_states: int,
    seed: int,
    out: NDArray[np.int16] | NDArray[np.int32],
    n_threads: int = 1,
) -> None:
    """Paths from the starts in ``out[:, 0]``, written to `out` (n_chains, n_steps + 1).

    A step draws 64 bits z: the high half of ``z * k`` chooses one of the row's k entries, the low
    half decides between it and its alias.
    """
    offset, twist = keys_of(seed, np.arange(len(out), dtype=np.uint64))
    flat = table.ravel()
    state = out[:, 0].astype(np.int64)
    for step in range(out.shape[1] - 1):
        bits = draw_bits(offset, twist, np.array([step], dtype=np.uint64))
        if len(begin):
            first = begin[state]
            size = (begin[state + 1] - first).astype(np.uint64)
        else:
            first = state * n_states
            size = np.full(len(state), n_states, dtype=np.uint64)
        chosen = bounded(bits, size)
        entry = flat[first + chosen.astype(np.int64)]
        stay = bits * size < (entry & ~ALIAS_MASK)
        local = np.where(stay, chosen, entry & ALIAS_MASK).astype(np.int64)
        state = column[first + local].astype(np.int64) if len(begin) else local
        out[:, step + 1] = state


def count_transitions(
    states: NDArray[np.int16] | NDArray[np.int32] | NDArray[np.int64],
    n_states: int,
    lag: int,
    counts: NDArray[np.int64],
    n_threads: int = 1,
) -> int:
    """Add the transitions of each row of `states` (n_chains, T) at `lag` to `counts` (n, n).

    Returns the flat index of the first state outside 0 .. n_states - 1, or -1; counts are
    meaningful only then.
    """
    bad = (states < 0) | (states >= n_states)
    if bad.any():
        return int(np.argmax(bad))
    if states.shape[1] > lag:
        wide = states.astype(np.int64)
        pairs = wide[:, :-lag] * n_states + wide[:, lag:]
        counts += np.bincount(pairs.ravel(), minlength=n_states**2).reshape(n_states, n_states)
    return -1
