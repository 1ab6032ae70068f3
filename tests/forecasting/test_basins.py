"""Runs that end in different places: grouped, told apart by the field, honest between them."""

import numpy as np
import pytest

from sgdmc import LeastSquares, estimate_kernel, forecast, run_sgd
from sgdmc.forecasting.basins import BasinKernel, ascent_from_limits, group_by_tail
from sgdmc.sgd.run import Run


def _two_wells(starts, n_steps=300, seed=0):
    """x' = x + .05 (x - x^3) + noise, y relaxes to the sign of x: coordinates are coupled."""
    rng = np.random.default_rng(seed)
    paths = []
    for x, y in starts:
        path = np.empty((n_steps + 1, 2))
        path[0] = x, y
        for t in range(n_steps):
            x, y = path[t]
            drift = [0.05 * (x - x**3), 0.05 * (np.sign(x) - y)]
            path[t + 1] = path[t] + drift + 0.01 * rng.normal(size=2)
        paths.append(path)
    return paths


STARTS = [(-1.5, 1.0), (0.4, -1.2), (1.6, 0.3), (-0.4, 0.9), (0.7, 1.4)]


def test_runs_are_grouped_by_their_limit():
    assert group_by_tail(_two_wells(STARTS)).tolist() == [0, 1, 1, 0, 1]
    assert group_by_tail(_two_wells([(0.5, 0.0), (1.5, 1.0)])).tolist() == [0, 0]


def test_a_line_of_minimisers_is_one_law():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, 1)) * np.array([0.8, -0.6])
    problem = LeastSquares(features, features @ np.array([1.0, 2.0]))
    starts = rng.uniform(-4, 4, size=(5, 2))
    run = run_sgd(problem, starts, step_size=0.05, n_steps=500, rng=1)
    ends = np.stack([p[-1] for p in run.paths])
    assert np.ptp(ends, axis=0).max() > 1.0  # limits differ
    assert group_by_tail(run.paths).tolist() == [0] * 5
    # Three runs that were cut off early are no basins either.
    assert group_by_tail([p[:40] for p in run.paths[:3]]).tolist() == [0] * 3


@pytest.mark.parametrize("seed", range(6))
def test_runs_of_a_convex_loss_never_go_away_from_a_limit(seed):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(60, 2)) * [1.0, 0.3]
    noisy = LeastSquares(features, features @ [1.0, 2.0] + 0.5 * rng.normal(size=60))
    run = run_sgd(noisy, rng.uniform(-4, 4, (4, 2)), step_size=0.02, n_steps=300, rng=seed)
    # As if every run had a limit of its own.
    assert ascent_from_limits(run.paths, np.arange(4)) < 2.5
    wells = _two_wells(STARTS, seed=seed)
    assert ascent_from_limits(wells, np.array([0, 1, 1, 0, 1])) > 5


def test_basins_are_told_apart_from_starts_and_forecast_as_a_whole():
    run = Run.from_paths(_two_wells(STARTS), names=("x", "y"))
    starts = np.array([[1.2, -0.8], [-1.1, 1.3]])
    kernel = estimate_kernel(run, method="dirichlet", cover=starts)
    assert isinstance(kernel, BasinKernel)
    assert "2 groups of runs" in kernel.notes[0]
    chance = kernel.probabilities(starts)
    np.testing.assert_allclose(chance.sum(axis=1), 1.0)
    assert chance[0, 1] > 0.7
    assert chance[1, 0] > 0.7
    cast = forecast(kernel, starts, n_steps=300, n_chains=400, rng=0)
    # No draw has x in one well and y in the other.
    assert (np.sign(cast.samples[..., 0]) == np.sign(cast.samples[..., 1])).mean() > 0.99
    # Draws from the law follow the likeliest basin; those of the intervals the probabilities.
    share = (cast.samples[0, :, 0] > 0).mean()
    assert share == pytest.approx(chance[0, 1] ** 4 / (chance[0] ** 4).sum(), abs=0.01)
    assert (cast.predictive[0, :, 0] > 0).mean() == pytest.approx(chance[0, 1], abs=0.02)


def test_one_group_is_an_ordinary_kernel():
    run = Run.from_paths(_two_wells([(0.5, 0.0), (1.5, 1.0)]), names=("x", "y"))
    kernel = estimate_kernel(run, method="dirichlet")
    assert not isinstance(kernel, BasinKernel)
    blocks = estimate_kernel(
        Run.from_paths(_two_wells(STARTS), names=("x", "y")), method="dirichlet", coupling="blocks"
    )
    assert not isinstance(blocks, BasinKernel)
