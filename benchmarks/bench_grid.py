"""Discretisation and digit text against NumPy and plain Python."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from benchmarks.common import Row, in_turn, machine_limits, show, workers

from sgdmc._core import backend, native
from sgdmc.chain.grid import Grid


def discretising(n: int) -> Iterator[Row]:
    values = np.random.default_rng(0).normal(size=n)
    grid = Grid.fit(values, digits=3)
    out, copy = np.empty(n, np.int16), np.empty(n)
    part = values[: n // 50]
    edges = grid.edges[0][1:-1]

    def floor() -> np.ndarray:
        scaled = np.floor((values - grid.low) * grid.scale)
        return np.clip(scaled, 0, grid.n_states - 1).astype(np.int16)

    column, threads = values[:, None], workers()
    digitize, floored, copied, reading, ours = in_turn(
        lambda: np.digitize(part, edges),
        floor,
        lambda: np.copyto(copy, values),
        lambda: native.min_max(column, threads),
        lambda: grid.encode(values, out=out, n_threads=threads),
    )
    assert np.array_equal(out, floor())
    apart = np.flatnonzero(out[: len(part)] != np.digitize(part, edges))
    on_edge = np.abs((part[apart] - grid.low) * grid.scale % 1.0 - 0.5)
    assert (on_edge > 0.5 - 1e-9).all()  # they differ on edges alone
    bound = reading * 10 / 8  # eight bytes in, two out, at the rate of reading alone
    task = f"discretising {n:.0e} doubles into int16"
    note = "np.digitize: a fiftieth, scaled"
    limit = "bandwidth of reading"
    yield Row(task, "np.digitize", 50 * digitize, ours, 200, limit, bound, note)
    yield Row(task, "floor arithmetic", floored, ours, 12, limit, bound)
    peer, ours = in_turn(
        lambda: (values.min(), values.max()), lambda: native.min_max(column, threads)
    )
    low, high, bad = native.min_max(column, threads)
    assert (low[0], high[0], bad) == (values.min(), values.max(), -1)
    task = f"minimum and maximum of {n:.0e} doubles, NaN looked for"
    yield Row(task, "NumPy, min and max", peer, ours, 2, "copy bandwidth", copied / 2)


def text(n: int) -> Iterator[Row]:
    grid = Grid.fit([0.0, 1.0], digits=3)
    states = np.random.default_rng(0).integers(0, 1000, size=n).astype(np.int16)
    part = states[: n // 100]
    target = np.empty(3 * n, np.int16)  # four bytes of text a state, two of the state itself
    source = np.ones_like(target)
    # Each peer in turns of its own with a copy of as many bytes: NumPy's temporaries leave nothing
    # of the text in the cache.
    limit, note = "copy of as many bytes", "Python: a hundredth, scaled"

    def compare(task: str, python: Any, array: Any, ours: Any) -> Iterator[Row]:
        for name, peer, scale, target_ratio in (
            ("Python, one by one", python, 100, 1000),
            ("NumPy byte buffer", array, 1, 2),
        ):
            theirs, seconds, bound = in_turn(
                peer, ours, lambda: np.copyto(target, source), repeats=15
            )
            said = note if scale > 1 else ""
            yield Row(task, name, scale * theirs, seconds, target_ratio, limit, bound, said)

    written = grid.to_text(states)
    assert written[: 4 * len(part)] == "".join(f"{s:03d}," for s in part)
    yield from compare(
        f"writing {n:.0e} states as text",
        lambda: "".join(f"{s:03d}," for s in part),
        lambda: backend("numpy").write_digits(states, 3, 1),
        lambda: grid.to_text(states),
    )
    piece, out, theirs = written[: 4 * len(part)], np.empty(n, np.int16), np.empty(n, np.int16)
    yield from compare(
        f"parsing {n:.0e} states from text into a given buffer",
        lambda: np.array([int(s) for s in piece.split(",")[:-1]], dtype=np.int16),
        lambda: backend("numpy").parse_digits(written, 3, 1, theirs),
        lambda: grid.from_text(written, out=out),
    )
    assert np.array_equal(out, states)


def rows(full: bool = False) -> Iterator[Row]:
    """Rows of the table, with `full` the whole size as well."""
    yield from discretising(20_000_000)
    if full:  # 4 GB of memory
        yield from discretising(100_000_000)
    yield from text(100_000)  # half of a megabyte: it fits in a cache of the second level
    yield from text(1_000_000)


def main() -> None:
    show(list(rows()), machine_limits())


if __name__ == "__main__":
    main()
