"""What the observed steps leave open is one for all kernels of the same runs."""

import numpy as np
import pytest

from sgdmc import estimate_kernel, make_least_squares, run_sgd
from sgdmc.forecasting.predictive import _deviations, predictive_draws


def test_kernels_of_the_same_runs_share_the_deviations_of_their_linear_law():
    problem = make_least_squares(n_samples=50, dim=2, noise=0.5, rng=0)
    starts = np.random.default_rng(1).normal(size=(3, 2))
    run = run_sgd(problem, starts, step_size=0.05, n_steps=200, rng=2)
    _deviations.cache_clear()
    drawn = []
    for method in ("var1", "knn", "var1"):
        kernel = estimate_kernel(run, method=method, lag=10)
        samples = kernel.advance(starts, n_steps=50, n_chains=40, rng=np.random.default_rng(3))
        before = samples.copy()
        drawn.append(predictive_draws(kernel, starts, samples, n_steps=50, seed=4))
        np.testing.assert_array_equal(samples, before)
    assert _deviations.cache_info().misses == 1
    np.testing.assert_array_equal(drawn[0], drawn[2])
    predictive_draws(kernel, starts, samples, n_steps=50, seed=5)
    assert _deviations.cache_info().misses == 2


@pytest.mark.parametrize("options", [{"method": "gradient-gp"}, {"coupling": "field"}])
def test_draws_along_a_field_are_moved_by_what_the_field_leaves_open(options):
    problem = make_least_squares(n_samples=50, dim=2, noise=0.5, rng=0)
    starts = np.random.default_rng(1).normal(size=(3, 2))
    run = run_sgd(problem, starts, step_size=0.05, n_steps=60, rng=2)
    kernel = estimate_kernel(run, lag=5, **{"method": "dirichlet", **options})
    still = np.zeros((3, 64, 2))
    moved = predictive_draws(kernel, starts, still, n_steps=20, seed=4)
    # They differ by where draws of the field lead, as kernels of the same field do.
    ends = moved + kernel.field.flow(starts, 20)[:, None]
    np.testing.assert_allclose(ends[:, :32], ends[:, 32:], rtol=1e-12)
    gap = np.abs(moved[:, :32].mean(axis=1))
    assert (moved.std(axis=1) > 0).all()
    assert (gap < 4 * moved.std(axis=1) / np.sqrt(32) + 0.02 * run.range).all()
    shifted = predictive_draws(kernel, starts, still + 1.0, n_steps=20, seed=4)
    np.testing.assert_allclose(shifted, moved + 1.0, rtol=1e-12)
    other = predictive_draws(kernel, starts, still, n_steps=20, seed=5)
    assert not np.array_equal(moved, other)
    assert predictive_draws(kernel, starts, still, n_steps=0, seed=4) is still


def test_longer_runs_leave_less_open():
    problem = make_least_squares(n_samples=50, dim=2, noise=0.5, rng=0)
    starts = np.random.default_rng(1).normal(size=(3, 2))
    spreads = []
    for n_steps in (40, 800):
        run = run_sgd(problem, starts, step_size=0.02, n_steps=n_steps, rng=2)
        kernel = estimate_kernel(run, method="gradient-gp", lag=5)
        moved = predictive_draws(kernel, starts, np.zeros((3, 32, 2)), n_steps=200, seed=4)
        spreads.append(moved.std(axis=1).mean())
    assert spreads[1] < 0.5 * spreads[0]
