"""The exact kernel as a forecaster: what discretisation alone leaves of a forecast's error."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from sgdmc.chain.grid import Grid
from sgdmc.chain.kernel import JointKernel
from sgdmc.sgd.exact import ulam_kernel
from sgdmc.sgd.problems import Problem
from sgdmc.sgd.run import Run

__all__ = ["exact_kernel"]


def exact_kernel(
    problem: Problem,
    run: Run,
    *,
    step_size: float,
    batch_size: int = 1,
    lag: int = 1,
    digits: int = 2,
    points_per_cell: int = 16,
    cover: ArrayLike | None = None,
    rng: int | np.random.Generator | None = 0,
) -> JointKernel:
    """Compute SGD's own kernel on the grid that ``run`` spans, by Ulam's method.

    Parameters
    ----------
    problem : Problem
    run : Run
        Its values (and ``cover``, shape (m, dim)) fix the grid; it is kept as the evidence that
        trivial forecasts and scores refer to.
    step_size, batch_size, lag, points_per_cell, rng
        As in :func:`sgdmc.ulam_kernel`.
    digits : int
        ``10**digits`` bins a coordinate.

    Returns
    -------
    JointKernel
        Mass that leaves the grid is reflected at its edge.
    """
    spanned = run.values
    if cover is not None:
        spanned = np.concatenate([spanned, np.atleast_2d(np.asarray(cover, dtype=np.float64))])
    grid = Grid.fit(spanned, digits=digits)
    matrix = ulam_kernel(
        problem,
        grid,
        step_size=step_size,
        batch_size=batch_size,
        lag=lag,
        points_per_cell=points_per_cell,
        boundary="reflect",
        rng=rng,
    )
    return JointKernel(matrix, grid, lag, run.names, tuple(run.paths))
