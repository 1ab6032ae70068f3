"""Ulam's method against the same counts in numba and in NumPy."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from benchmarks.common import Row, in_turn, machine_limits, show, timed, workers

from sgdmc.chain.grid import Grid
from sgdmc.sgd.exact import ulam_kernel
from sgdmc.sgd.problems import make_least_squares, make_sine_regression


def kernel(name: str, *, lag: int = 1) -> Row:
    """10^4 cells, 100 samples, 16 points; the target is a second on two processors."""
    make = {"least squares": make_least_squares, "sine": make_sine_regression}[name]
    problem = make(n_samples=100, rng=0)
    grid = Grid.fit(np.random.default_rng(0).normal(size=(200, 2)), digits=2)
    options = {"step_size": 0.05, "lag": lag, "rng": 0}
    P = ulam_kernel(problem, grid, **options)
    np.testing.assert_allclose(P.sum(axis=1), 1, rtol=1e-12)
    if lag == 1:
        small = Grid.fit(np.random.default_rng(0).normal(size=(200, 2)), digits=1)
        part = timed(lambda: ulam_kernel(problem, small, backend="numpy", **options)) * 100
        theirs = timed(lambda: ulam_kernel(problem, grid, backend="numba", **options))
        assert (ulam_kernel(problem, grid, backend="numba", **options) != P).nnz == 0
        peer, note = "numba", f"plain NumPy, scaled from 100 cells: {part:.1f} s"
    else:
        theirs, peer, note = 1.0, "a second", "32 paths a point"
    ours = in_turn(lambda: ulam_kernel(problem, grid, **options))[0]
    evaluations = 1e4 * 16 * (100 if lag == 1 else 32 * lag)
    bound = evaluations * 1e-9 / workers()
    task = f"Ulam kernel, {name}, 10⁴ cells × 16 points, lag {lag}"
    return Row(task, peer, theirs, ours, 1, "one image a nanosecond", bound, note)


def rows(*, full: bool = False) -> Iterator[Row]:
    yield kernel("least squares")
    yield kernel("sine")
    if full:
        yield kernel("least squares", lag=10)


if __name__ == "__main__":
    show(rows(), machine_limits())
