"""What the observed steps leave open is one for all kernels of the same runs."""

import numpy as np

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
