"""What the observed steps leave open is one for all kernels of the same runs."""

import numpy as np
import pytest

from sgdmc import estimate_kernel, forecast, make_least_squares, run_sgd
from sgdmc.forecasting.field import GradientField
from sgdmc.forecasting.forecast import StartOutsideWarning
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
    still = np.zeros((3, 200, 2))
    moved = predictive_draws(kernel, starts, still, n_steps=20, seed=4)
    # They differ by where draws of the field lead, as kernels of the same field do.
    ends = moved + kernel.field.flow(starts, 20)[:, None]
    np.testing.assert_allclose(ends[:, ::2], ends[:, 1::2], rtol=1e-12)
    gap = np.abs(moved.mean(axis=1))
    assert (moved.std(axis=1) > 0).all()
    assert (gap < 4 * moved.std(axis=1) / np.sqrt(100) + 0.02 * run.range).all()
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
        kernel = estimate_kernel(run, method="gradient-gp", lag=5, convex=True)
        moved = predictive_draws(kernel, starts, np.zeros((3, 32, 2)), n_steps=200, seed=4)
        spreads.append(moved.std(axis=1).mean())
    assert spreads[1] < 0.5 * spreads[0]


@pytest.mark.parametrize("options", [{"method": "gradient-gp"}, {"coupling": "field"}])
def test_intervals_leave_room_for_basins_that_no_run_saw(options):
    problem = make_least_squares(n_samples=50, dim=2, noise=0.5, rng=0)
    run = run_sgd(problem, [2.0, 1.0], step_size=0.05, n_steps=300, rng=2)
    starts = 2 * problem.minimiser - run.values[:1]  # on the other side
    options = {"method": "dirichlet", "lag": 10, **options}
    still = np.zeros((1, 64, 2))
    moved = {
        convex: predictive_draws(
            estimate_kernel(run, convex=convex, **options), starts, still, n_steps=300, seed=4
        )
        for convex in (None, True, False)
    }
    ends = moved[None] + GradientField.fit(run.paths).flow(starts, 300)[:, None]
    gap = (np.abs(ends - problem.minimiser)[0] / run.range).max(axis=1)
    # As many as the doubt there says may go anywhere, and all others to the one minimum seen.
    doubt = GradientField.fit(run.paths).doubt(starts)[0]
    doubtful = np.arange(64) >= 64 - round(doubt * 64)
    assert 0.1 < doubt < 0.5
    assert np.quantile(gap[~doubtful], 0.95) < 0.2
    assert gap[doubtful].max() > 0.5
    assert 4 * np.ptp(moved[True], axis=1).max() < np.ptp(moved[None], axis=1).min()
    # What is known is not doubted.
    for convex in (True, False):
        kernel = estimate_kernel(run, convex=convex, **options)
        ends = kernel.field.ends(starts, 300, n_draws=64, rng=np.random.default_rng([4, 300, 2]))
        off = ends - kernel.field.flow(starts, 300)[:, None]
        np.testing.assert_allclose(moved[convex], off, atol=1e-12)


@pytest.mark.parametrize("far", [10.0, 100.0])
def test_a_convex_loss_is_held_however_far_the_starts_are(far):
    problem = make_least_squares(n_samples=80, dim=2, noise=0.3, rng=1)
    step_size = 0.2 * problem.stable_step_size()
    run = run_sgd(problem, [problem.minimiser], step_size=step_size, n_steps=500, rng=2)
    away = np.random.default_rng(0).normal(size=(12, 2))
    away *= far / np.linalg.norm(away, axis=1, keepdims=True)
    kernel = estimate_kernel(run, method="gradient-gp", lag=10)
    options = {"step_size": step_size, "n_steps": 300, "thin": 300, "rng": 3}
    starts = problem.minimiser + away * run.range
    truth = run_sgd(problem, starts, **options).iterates[:, -1]
    with pytest.warns(StartOutsideWarning):
        low, high = np.moveaxis(forecast(kernel, starts, n_steps=300, rng=0).interval(), 1, 0)
    assert ((low <= truth) & (truth <= high)).mean() > 0.8


@pytest.mark.parametrize("n_chains", [1, 2])
def test_few_chains_have_draws_of_the_field_near_and_far(n_chains):
    problem = make_least_squares(n_samples=50, dim=2, noise=0.5, rng=0)
    run = run_sgd(problem, [2.0, 1.0], step_size=0.05, n_steps=100, rng=2)
    kernel = estimate_kernel(run, method="gradient-gp", lag=10)
    for starts in (run.values[:4], run.values[:4] + 50 * run.range):
        still = np.zeros((4, n_chains, 2))
        moved = predictive_draws(kernel, starts, still, n_steps=9, seed=1)
        assert moved.shape == still.shape
        assert np.isfinite(moved).all()


def test_draws_of_the_field_are_shared_out_evenly():
    problem = make_least_squares(n_samples=50, dim=2, noise=0.5, rng=0)
    run = run_sgd(problem, [2.0, 1.0], step_size=0.05, n_steps=100, rng=2)
    kernel = estimate_kernel(run, method="gradient-gp", lag=10)
    moved = predictive_draws(kernel, run.values[:1], np.zeros((1, 250, 2)), n_steps=50, seed=1)
    each = np.unique(moved[0, :, 0], return_counts=True)[1]
    assert set(each) == {2, 3}
    assert len(each) == 100
