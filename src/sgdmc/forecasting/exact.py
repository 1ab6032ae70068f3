"""The exact kernel as a forecaster: what discretisation alone leaves of a forecast's error.

As a matrix, for two parameters on 100 bins; by its draws for any number of parameters and bins.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sgdmc.chain.grid import Grid
from sgdmc.chain.kernel import JointKernel
from sgdmc.forecasting.paths import covering
from sgdmc.forecasting.stepped import Step, SteppedKernel
from sgdmc.sgd.exact import ulam_kernel
from sgdmc.sgd.problems import LeastSquares, Problem
from sgdmc.sgd.run import Run
from sgdmc.sgd.simulate import run_sgd

__all__ = ["exact_kernel", "kernel_but_for_minimum", "sampled_exact_kernel"]


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
    grid = Grid.fit(covering(run.values, cover), digits=digits)
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


def sampled_exact_kernel(
    problem: Problem,
    run: Run,
    *,
    step_size: float,
    batch_size: int = 1,
    lag: int = 1,
    digits: int = 3,
    cover: ArrayLike | None = None,
) -> SteppedKernel:
    """Draw through SGD's own kernel on the grid that ``run`` spans, whose matrix is never made.

    A kernel step puts a parameter anywhere in its cell, runs SGD for ``lag`` steps from there and
    snaps what comes to the grid: Ulam's method by simulation, for any number of coordinates.

    Parameters
    ----------
    problem, run, step_size, batch_size, lag, digits, cover
        As in :func:`exact_kernel`.

    Returns
    -------
    SteppedKernel
        What leaves the grid is taken at its edge.

    Raises
    ------
    ValueError
        As :func:`sgdmc.run_sgd`.
    """
    grid = Grid.fit(covering(run.values, cover), digits=digits)
    ahead = _sgd(problem, step_size, batch_size, lag)

    def step(theta: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
        cells = grid.decode(grid.encode(theta))
        inside = cells + grid.width * (rng.random(theta.shape) - 0.5)
        return grid.decode(grid.encode(ahead(inside, rng)))

    return SteppedKernel(step, lag, "exact", run.names, tuple(run.paths))


def kernel_but_for_minimum(
    problem: LeastSquares, run: Run, *, step_size: float, batch_size: int = 1, lag: int
) -> SteppedKernel:
    """Run SGD itself around a minimum that is estimated, all else known: what a run can show.

    The minimiser is the generalised least-squares estimate from all steps of the run, with the
    true curvature and the true covariance of the gradients at every iterate (Gauss and Markov: no
    linear unbiased estimate is nearer). Limits cannot be forecast much better than so.

    Parameters
    ----------
    problem : LeastSquares
    run : Run
        Unthinned.
    step_size, batch_size
        Of the run.
    lag : int
        SGD steps of one kernel step.

    Returns
    -------
    SteppedKernel
    """
    x, y = np.asarray(problem.X), np.asarray(problem.y)
    hessian = x.T @ x / len(x)
    information, evidence = np.zeros_like(hessian), np.zeros(len(hessian))
    for path in run.paths:
        before, gradients = path[:-1], np.diff(path, axis=0) / -step_size
        each = (before @ x.T - y)[:, :, None] * x
        centred = each - each.mean(axis=1, keepdims=True)
        spread = np.einsum("tni,tnj->tij", centred, centred) / len(x)
        weighed = np.linalg.solve(spread, np.broadcast_to(hessian, spread.shape))
        information += hessian @ weighed.sum(axis=0)
        evidence += np.einsum("tji,tj->i", weighed, before @ hessian - gradients)
    estimate = np.linalg.solve(information, evidence)
    shifted = LeastSquares(x, y + x @ (estimate - problem.minimiser))

    return SteppedKernel(
        _sgd(shifted, step_size, batch_size, lag), lag, "exact", run.names, tuple(run.paths)
    )


def _sgd(problem: Problem, step_size: float, batch_size: int, lag: int) -> Step:
    """Return SGD itself as a step of a kernel."""

    def step(theta: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
        return run_sgd(
            problem,
            theta,
            step_size=step_size,
            batch_size=batch_size,
            n_steps=lag,
            thin=lag,
            rng=int(rng.integers(2**63)),
        ).iterates[:, -1]

    return step
