"""Exact kernels against brute-force simulation, with tolerances from the laws of the statistics."""

import numpy as np
import pytest
from scipy.stats import chi2

from sgdmc.chain.grid import Grid
from sgdmc.sgd.exact import ulam_kernel
from sgdmc.sgd.problems import make_least_squares, make_sine_regression
from sgdmc.sgd.simulate import run_sgd


@pytest.mark.parametrize("make", [make_least_squares, make_sine_regression])
@pytest.mark.parametrize(("lag", "batch_size"), [(1, 1), (1, 2), (6, 1)])
def test_chi_square_of_simulated_steps(make, lag, batch_size):
    problem = make(n_samples=15, rng=0)
    values = np.random.default_rng(0).normal(size=(60, 2))
    grid = Grid.fit(values, digits=1)
    P = ulam_kernel(
        problem, grid, step_size=0.2, lag=lag, batch_size=batch_size, boundary="clip",
        points_per_cell=1024, paths_per_point=100, rng=1,
    )  # fmt: skip
    rng = np.random.default_rng(2)
    n_draws, statistic, freedom = 20000, 0.0, 0
    for cell in (33, 47, 55, 72):
        bins = np.array(np.unravel_index(cell, (10, 10)))
        starts = grid.low + (bins + rng.random((n_draws, 2))) / grid.scale
        run = run_sgd(
            problem, starts, step_size=0.2, n_steps=lag, batch_size=batch_size, rng=rng, thin=lag
        )
        ends = np.ravel_multi_index(tuple(grid.encode(run.iterates[:, -1]).T), (10, 10))
        counts = np.bincount(ends, minlength=100)
        row = P[[cell]].toarray()[0]
        expected = n_draws * row
        large = expected >= 10
        # The kernel's own error: points at their 1024 places, and the noise of sampled paths.
        error = (0.0 if lag == 1 else expected[large] * n_draws / (1024 * 100)) + (
            2.0 * n_draws / 1024 * np.sqrt(row[large] / 15)
        ) ** 2 / 4
        statistic += float((((counts - expected)[large]) ** 2 / (expected[large] + error)).sum())
        freedom += int(large.sum()) - 1
        assert counts[~large].sum() <= expected[~large].sum() + 6 * np.sqrt(n_draws * 1e-3) + 20
    assert statistic < chi2.ppf(1 - 1e-4, freedom)
