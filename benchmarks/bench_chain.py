"""Finite chains against quantecon, deeptime and NumPy."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from benchmarks.common import (
    Row,
    in_turn,
    increment_seconds,
    load_seconds,
    machine_limits,
    show,
    timed,
    workers,
)

from sgdmc.chain.transitions import count_transitions, simulate_chain


def random_chain(n: int) -> np.ndarray:
    return np.random.default_rng(0).dirichlet(np.full(n, 0.5), size=n)


def check_frequencies(P: np.ndarray, paths: np.ndarray) -> None:
    """Counts along the paths agree with P, row by row, to six standard errors."""
    counts = count_transitions(paths, n_states=len(P))
    visits = counts.sum(axis=1, keepdims=True)
    error = np.abs(counts - visits * P) / np.sqrt(visits * P * (1 - P) + 1)
    assert error.max() < 8, error.max()


def short_entry_bytes(n: int) -> int:
    """Bytes of the table that steps look into: rows of a power of two entries."""
    return n * (1 << (n - 1).bit_length()) * (2 if n <= 256 else 3 if n <= 4096 else 4)


def build_seconds(P: np.ndarray) -> float:
    """Least for tables: the matrix read and its table of the same size written, once each."""
    table = np.empty_like(P)
    return min(timed(lambda: np.copyto(table, P)) for _ in range(5))


def one_chain(n: int, n_steps: int, target: float) -> Row:
    import quantecon

    P = random_chain(n)
    out = np.empty((1, n_steps + 1), np.int16)
    quantecon.MarkovChain(P).simulate_indices(10)
    peer, ours = in_turn(
        lambda: quantecon.MarkovChain(P).simulate_indices(n_steps + 1, init=0, random_state=0),
        lambda: simulate_chain(P, 0, n_steps=n_steps, rng=0, out=out),
    )
    check_frequencies(P, out)
    # Pieces of the path are made side by side, so that loads need not wait for one another.
    bound = n_steps * load_seconds(short_entry_bytes(n), lanes=16) + build_seconds(P)
    task = f"one chain, {n_steps:.0e} steps, n = {n}, tables included"
    return Row(task, "quantecon", peer, ours, target, "independent loads, copy of P", bound)


def many_chains(n: int, size: int, target: float) -> Row:
    import quantecon

    P = random_chain(n)
    starts = np.zeros(size, dtype=int)
    out = np.empty((size, size + 1), np.int16)
    chain = quantecon.MarkovChain(P)
    peer, ours = in_turn(
        lambda: chain.simulate_indices(size + 1, init=starts, random_state=0),
        lambda: simulate_chain(P, starts, n_steps=size, rng=0, out=out),
    )
    check_frequencies(P, out)
    loads = size * size * load_seconds(short_entry_bytes(n), lanes=16)
    bound = loads / workers() + build_seconds(P)
    task = f"{size} chains of {size} steps, n = {n}, tables included"
    return Row(task, "quantecon", peer, ours, target, "independent loads, copy of P", bound)


def many_chains_deeptime(n: int, size: int, target: float) -> Row:
    from deeptime.markov.msm import MarkovStateModel

    P = random_chain(n)
    starts = np.zeros(size, dtype=int)
    out = np.empty((size, size + 1), np.int16)
    model = MarkovStateModel(P)
    part = 20  # deeptime takes seconds for all of them
    peer, ours = in_turn(
        lambda: [model.simulate(size + 1, start=0, seed=k) for k in range(1, part + 1)],
        lambda: simulate_chain(P, starts, n_steps=size, rng=0, out=out),
    )
    note = f"deeptime: {part} chains, scaled"
    task = f"{size} chains of {size} steps, n = {n}, tables included"
    return Row(task, "deeptime", peer * size / part, ours, target, note=note)


def counting(n: int, n_steps: int, dtype: Any) -> Iterator[Row]:
    import quantecon
    from deeptime.markov.tools.estimation import count_matrix

    states = simulate_chain(random_chain(n), 0, n_steps=n_steps, rng=0)[0].astype(dtype)
    wide, plain = states.astype(np.int64), states.astype(np.int32)

    def bincount() -> np.ndarray:
        pairs = wide[:-1] * n + wide[1:]
        return np.bincount(pairs, minlength=n * n).reshape(n, n)

    def dense() -> np.ndarray:
        return count_matrix(plain, 1, sliding=True, sparse_return=False)

    part = wide[: n_steps // 20]

    def estimated() -> np.ndarray:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return quantecon.estimate_mc(part)

    counts = count_transitions(states, n_states=n)
    assert np.array_equal(counts, bincount())
    assert np.array_equal(counts, dense())
    some = wide[:1_000_001]
    bound = n_steps * increment_seconds(some[:-1] * n + some[1:], n * n)
    limit = "increments alone"  # of bytes, at the path's cells, which are known beforehand
    task = f"counting {n_steps:.0e} transitions, n = {n}, {np.dtype(dtype).name}"
    peers = [("np.bincount", bincount, 1, 3), ("deeptime, dense", dense, 1, 7)]
    if dtype == np.int16:
        peers.append(("quantecon estimate_mc", estimated, 20, 100))
    for name, peer, scale, target in peers:
        theirs, ours = in_turn(peer, lambda: count_transitions(states, n_states=n), repeats=9)
        note = "quantecon: a twentieth of the path, scaled" if scale > 1 else ""
        yield Row(task, name, scale * theirs, ours, target, limit, bound, note)


def rows(full: bool = False) -> Iterator[Row]:
    """Rows of the table, the whole sizes with `full`."""
    for n, target in ((10, 3), (100, 4), (1000, 7)):
        yield one_chain(n, 1_000_000, target)
    for n, target in ((10, 10), (100, 15), (1000, 25)):
        yield many_chains(n, 1000, target)
    yield many_chains_deeptime(1000, 1000, 200)
    for dtype in (np.int16, np.int32):
        yield from counting(1000, 10_000_000, dtype)


def main() -> None:
    show(list(rows()), machine_limits())


if __name__ == "__main__":
    main()
