"""What kernels that follow a field have in common, whatever the scatter around it."""

import numpy as np
import pytest
from tests.forecasting.wells import STARTS, two_wells

from sgdmc import estimate_kernel, forecast, make_least_squares, run_sgd
from sgdmc.forecasting.field import GradientField
from sgdmc.forecasting.gradient import GradientKernel, follow_field, residuals_of
from sgdmc.forecasting.held import FieldKernel, hold_to_field
from sgdmc.forecasting.scores import score_forecast
from sgdmc.sgd.problems import LogisticRegression
from sgdmc.sgd.run import Run


@pytest.fixture(scope="module")
def problem():
    return make_least_squares(n_samples=60, dim=2, noise=0.4, rng=3)


@pytest.fixture(scope="module")
def runs(problem):
    starts = np.random.default_rng(1).uniform(-3, 3, size=(4, 2))
    return run_sgd(problem, starts, step_size=0.03, n_steps=500, rng=0)


@pytest.fixture(scope="module", params=["gradient-gp", "dirichlet"])
def wells(request):
    run = Run.from_paths(two_wells(STARTS), names=("x", "y"))
    kernel = estimate_kernel(run, method=request.param, coupling="field")
    assert isinstance(kernel, GradientKernel if request.param == "gradient-gp" else FieldKernel)
    assert kernel.notes[0].startswith("lag ")
    return kernel


def test_wells_are_forecast_as_a_whole(wells):
    starts = np.array([[1.0, -0.2], [-1.1, 0.3]])
    real = np.stack(two_wells(np.repeat(starts, 400, axis=0), n_steps=300, seed=9))[:, -1]
    real = real.reshape(2, 400, 2)
    cast = forecast(wells, starts, n_steps=300, n_chains=400, rng=0)
    np.testing.assert_allclose(cast.samples.mean(1), real.mean(1), atol=0.04)
    np.testing.assert_allclose(cast.samples.std(1), real.std(1), rtol=0.4)


def test_no_draw_has_one_coordinate_in_each_well(wells):
    across = np.linspace(-0.4, 0.4, 17)[:, None] * [1.0, 0.0]
    ends = forecast(wells, across, n_steps=300, n_chains=100, rng=0).samples.reshape(-1, 2)
    assert 0.2 < (ends[:, 0] > 0).mean() < 0.8
    settled = np.abs(ends[:, 0]) > 0.7
    assert settled.mean() > 0.9
    assert (np.sign(ends[settled, 0]) == np.sign(ends[settled, 1])).mean() > 0.99


@pytest.mark.parametrize("method", ["gradient-gp", "dirichlet"])
def test_a_loss_that_is_known_not_to_be_convex_leaves_far_starts_alone(method):
    alone = Run.from_paths(two_wells(STARTS[:1], n_steps=300), names=("x", "y"))
    far = -4 * np.sign(STARTS[:1, :1]) * np.array([[1.0, 0.5]])
    medians = {}
    for convex in (None, False):
        kernel = estimate_kernel(alone, method=method, coupling="field", convex=convex, lag=10)
        draws = kernel.advance(far, n_steps=300, n_chains=100, rng=np.random.default_rng(0))
        medians[convex] = np.median(draws[0], axis=0)
        assert ("known not to be convex" in kernel.notes[-1]) == (convex is False)
    assert np.abs(medians[False] - far).max() < 0.3
    assert np.abs(medians[None] - far).max() > 2.0


def test_intervals_on_the_ridge_span_both_basins(wells):
    ridge = forecast(wells, [[0.0, 0.0]], n_steps=300, n_chains=240, rng=0)
    low, high = ridge.interval(0.9)[0, :, 0]
    assert low < -0.9
    assert high > 0.9
    sure = forecast(wells, [[1.0, 0.5]], n_steps=300, n_chains=240, rng=0)
    assert sure.interval(0.9)[0, 0, 0] > 0.5


def test_no_steps_keep_the_starts(wells):
    still = forecast(wells, STARTS[:2], n_steps=0, n_chains=3)
    np.testing.assert_array_equal(still.samples, np.repeat(STARTS[:2, None], 3, axis=1))
    np.testing.assert_array_equal(still.predictive, still.samples)


def test_forecasts_are_those_of_their_seed(wells):
    one, two, other = (
        forecast(wells, STARTS[:2], n_steps=90, n_chains=20, rng=r).predictive for r in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, other)


# On the way the noise also turns, which one loudness for all directions does not know.
@pytest.mark.parametrize(("n_steps", "off"), [(30, 2.5), (200, 1.35)])
@pytest.mark.parametrize("method", ["gradient-gp", "dirichlet", "llm"])
def test_least_squares_is_forecast_with_its_mean_and_spread(runs, problem, method, n_steps, off):
    kernel = estimate_kernel(runs, method=method, coupling="field", lag=20)
    starts = np.array([[2.0, -1.0], [0.0, 1.5]])
    cast = forecast(kernel, starts, n_steps=n_steps, n_chains=600, rng=0)
    again = np.repeat(starts, 600, axis=0)
    real = run_sgd(problem, again, step_size=0.03, n_steps=n_steps, rng=7).iterates[:, -1]
    real = real.reshape(2, 600, 2)
    gap = np.abs(cast.samples.mean(axis=1) - real.mean(axis=1)) / runs.range
    assert gap.max() < 0.03
    ratio = cast.samples.std(axis=1) / real.std(axis=1)
    assert (ratio < off).all()
    assert (ratio > 1 / off).all()


@pytest.mark.parametrize("method", ["gradient-gp", "ar1"])
def test_a_part_of_a_lag_has_as_large_a_share_of_the_variance(runs, problem, method):
    kernel = estimate_kernel(runs, method=method, coupling="field", lag=4)
    start, found = problem.minimiser[None], []
    for n_steps in (4, 5, 6, 7, 8):
        rng = np.random.default_rng(0)
        draws = kernel.advance(start, n_steps=n_steps, n_chains=4000, rng=rng)[0]
        found.append(draws.var(axis=0).sum())
    assert (np.diff(found) > 0).all()
    share = (found[2] - found[0]) / (found[4] - found[0])
    assert share == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize(
    ("method", "coupling"),
    [
        ("gradient-gp", "field"),
        ("ar1", "blocks"),
        ("ar1", "rotated"),
        ("dirichlet", "blocks"),
        ("dirichlet", "rotated"),
    ],
)
def test_draws_have_the_covariance_of_what_the_field_leaves(runs, problem, coupling, method):
    kernel = estimate_kernel(runs, method=method, coupling=coupling, lag=5)
    if coupling != "field":
        assert kernel.coordinates.is_identity == (coupling == "blocks")
        kernel = hold_to_field(kernel, GradientField.fit(runs.paths))
    left = residuals_of(kernel.field, kernel.paths, 5)
    covariance = left.T @ left / len(left)
    rest = kernel.field.flow(problem.minimiser[None], 4000)
    draws = kernel.advance(rest, n_steps=5, n_chains=20000, rng=np.random.default_rng(0))[0]
    scale = np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)))
    np.testing.assert_allclose(np.cov(draws.T) / scale, covariance / scale, atol=0.08)
    # Their mean is the flow, whatever the rows' own drift.
    gap = np.abs(draws.mean(axis=0) - kernel.field.flow(rest, 5)[0])
    assert (gap < 0.04 * draws.std(axis=0)).all()


def test_uniform_points_are_stratified_over_the_chains_of_a_start(runs):
    field, seen = GradientField.fit(runs.paths), []

    def scatter(theta, points):
        seen.append(points)
        return np.zeros_like(theta)

    starts = runs.paths[0][[0, 40]]
    rng = np.random.default_rng(0)
    ends = follow_field(field, starts, scatter, lag=10, n_steps=25, n_chains=8, rng=rng)
    assert len(seen) == 3
    for points in seen:
        strata = np.sort((points.reshape(2, 8, 2) * 8).astype(int), axis=1)
        np.testing.assert_array_equal(strata, np.arange(8)[None, :, None] + np.zeros((2, 1, 2)))
    np.testing.assert_allclose(ends, np.repeat(field.flow(starts, 25)[:, None], 8, 1), atol=0.02)


def test_one_coordinate_follows_a_field_by_default():
    rng = np.random.default_rng(4)
    x = rng.normal(size=(100, 1))
    labels = (rng.random(100) < 1 / (1 + np.exp(-2 * x[:, 0]))).astype(float)
    problem = LogisticRegression(x, labels, l2=0.02)
    options = {"step_size": 0.05, "n_steps": 400}
    run = run_sgd(problem, [[-4.0], [0.5], [4.0]], rng=1, **options)
    starts = np.linspace(-3.5, 3.5, 12)[:, None]
    real = run_sgd(problem, np.repeat(starts, 100, axis=0), rng=2, **options)
    truth = real.iterates[:, 100].reshape(12, 100, 1)
    kernels = {c: estimate_kernel(run, coupling=c, cover=starts) for c in ("auto", "blocks")}
    assert isinstance(kernels["auto"], FieldKernel)
    casts = {c: forecast(k, starts, n_steps=100, n_chains=200, rng=0) for c, k in kernels.items()}
    table = score_forecast(casts, truth)
    assert table["auto"].w1 < 0.8 * min(table["blocks"].w1, table["AR(1)"].w1)
    assert table["auto"].interval90 < table["blocks"].interval90
