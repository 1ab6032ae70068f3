"""Scores against closed forms, SciPy, and the trivial forecasts beside them."""

import numpy as np
import pytest
from scipy.stats import norm, wasserstein_distance

from sgdmc.forecasting.baselines import TRIVIAL, trivial_forecasts
from sgdmc.forecasting.forecast import StartOutsideWarning, forecast
from sgdmc.forecasting.scores import score_forecast, score_samples
from sgdmc.forecasting.stepped import SteppedKernel

RNG = np.random.default_rng(0)


def test_w1_against_scipy():
    x, y = RNG.normal(size=(3, 50, 2)), RNG.normal(size=(3, 37, 2))
    score = score_samples("x", x, y, scale=[2.0, 4.0])
    expected = [
        np.mean([wasserstein_distance(x[a, :, i], y[a, :, i]) / (2.0, 4.0)[i] for i in range(2)])
        for a in range(3)
    ]
    np.testing.assert_allclose(score.w1_by_start, expected, rtol=1e-12)


def test_crps_of_a_gaussian():
    # CRPS(N(0,1), y) = y (2Φ(y) − 1) + 2φ(y) − 1/√π (Gneiting and Raftery 2007, eq. 21).
    draws = norm.ppf((np.arange(200_000) + 0.5) / 200_000)[None, :, None]
    for y in (-1.0, 0.0, 0.7):
        score = score_samples("x", draws, np.array([[[y]]]), scale=[1.0])
        exact = y * (2 * norm.cdf(y) - 1) + 2 * norm.pdf(y) - 1 / np.sqrt(np.pi)
        assert score.crps == pytest.approx(exact, abs=1e-4)


def test_coverage_counts_outcomes_inside_central_intervals():
    draws = np.linspace(0, 1, 1001)[None, :, None]
    truth = np.array([0.02, 0.1, 0.3, 0.5, 0.7, 0.97])[None, :, None]
    score = score_samples("x", draws, truth, scale=[1.0])
    assert score.coverage50 == pytest.approx(3 / 6)
    assert score.coverage90 == pytest.approx(4 / 6)
    # 20 times the .03 and .02 by which two of six outcomes lie outside.
    wide = score_samples("x", draws, truth, scale=[2.0])
    assert wide.width90 == pytest.approx(0.9 / 2)
    assert wide.interval90 == pytest.approx((0.9 + 20 * 0.05 / 6) / 2)


def test_the_interval_score_is_least_for_the_true_quantiles():
    truth = RNG.normal(size=(1, 20_000, 1))
    unit = norm.ppf((np.arange(20_000) + 0.5) / 20_000)[None, :, None]
    scores = [
        score_samples("x", unit, truth, scale=[1.0], predictive=width * unit).interval90
        for width in (0.8, 1.0, 1.25)
    ]
    assert scores[1] == min(scores)
    # Of a Gaussian: 2z + (2/α)·2(φ(z) − zα/2), z its 95% quantile.
    z = norm.ppf(0.95)
    assert scores[1] == pytest.approx(2 * z + 40 * (norm.pdf(z) - 0.05 * z), rel=0.02)


def test_single_outcomes_are_foretold_by_the_wider_law():
    draws, wide = np.zeros((1, 4, 1)), np.array([0.0, 0, 0, 10])[None, :, None]
    truth = np.array([0.0, 10.0])[None, :, None]
    minima = np.array([[0.0], [10.0]])
    score = score_samples("x", draws, truth, scale=[1.0], minima=minima, predictive=wide)
    alone = score_samples("x", wide, truth, scale=[1.0], minima=minima)
    assert (score.crps, score.brier) == (alone.crps, alone.brier)
    # E|X - Y| is 5 with and without the wide law's E|X - X'|/2 = 15/8, a mean of 2.5 and 7.5.
    assert score.crps == pytest.approx((2.5 + 7.5) / 2 - 15 / 8)
    # Half of the outcomes lie 10 from all draws.
    assert score.w1 == pytest.approx(5.0)


def test_basins_by_hand():
    minima = np.array([[0.0], [10.0]])
    draws = np.array([0, 0, 0, 10])[None, :, None]
    truth = np.array([0, 10])[None, :, None]
    score = score_samples("x", draws, truth, scale=[1.0], minima=minima)
    assert score.basin_accuracy == pytest.approx(0.5)
    # p = (3/4, 1/4): outcome 0 gives 2/16, outcome 1 gives 2·9/16.
    assert score.brier == pytest.approx((2 / 16 + 18 / 16) / 2)


def test_constant_coordinates_are_left_out():
    x = np.zeros((1, 4, 2))
    score = score_samples("x", x, x + np.array([1.0, 99.0]), scale=[2.0, 0.0])
    assert score.w1 == pytest.approx(0.5)
    with pytest.raises(ValueError, match="scale must be positive somewhere"):
        score_samples("x", x, x, scale=[0.0, 0.0])


def test_bad_truth():
    x = np.zeros((2, 4, 1))
    with pytest.raises(ValueError, match=r"truth must have shape \(n_starts, n_truth, dim\)"):
        score_samples("x", x, x[:1], scale=[1.0])
    bad = x.copy()
    bad[1, 0, 0] = np.nan
    with pytest.raises(ValueError, match=r"truth must be finite; got nan at \(1, 0, 0\)"):
        score_samples("x", x, bad, scale=[1.0])


def make_paths():
    decay = 0.9 ** np.arange(60)[:, None]
    return (decay * [4.0, -2.0], decay * [-3.0, 5.0])


def test_trivial_forecasts_by_hand():
    paths, starts = make_paths(), np.array([[4.0, -2.0], [0.0, 0.0]])
    found = trivial_forecasts(paths, starts, n_steps=10, n_chains=50, rng=np.random.default_rng(0))
    assert list(found) == list(TRIVIAL)
    for draws in found.values():
        assert draws.shape == (2, 50, 2)
    np.testing.assert_array_equal(found["stays where it starts"][0], np.tile(starts[0], (50, 1)))
    tail = np.abs(found["tail of the run"])
    assert tail.max() <= 5 * 0.9**48
    nearest = found["tail of the nearest run"][0]
    assert (nearest[:, 0] > 0).all()
    assert (nearest[:, 1] < 0).all()
    # The start is an observed iterate: its analogue is the path nine to eleven steps on.
    analogue = found["analogue"][0][:, 0]
    assert analogue.max() <= 4 * 0.9**9 + 1e-12
    assert analogue.min() >= 4 * 0.9**11 - 1e-12
    velocity = sum(p[-1] - p[0] for p in paths) / 118
    np.testing.assert_allclose(found["straight line"][1, 0], 10 * velocity)
    # Noiseless AR(1) data: the fit is exact.
    np.testing.assert_allclose(found["AR(1)"][0, 0], starts[0] * 0.9**10, atol=1e-6)


def test_trivial_forecasts_need_a_run():
    with pytest.raises(ValueError, match="at least one observed run"):
        trivial_forecasts([], np.zeros((1, 1)), n_steps=1, n_chains=1, rng=np.random.default_rng(0))


def make_forecast(n_chains=20):
    kernel = SteppedKernel(lambda theta, rng: 0.9 * theta, 1, "var1", ("a", "b"), make_paths())
    return forecast(kernel, [[4.0, -2.0], [1.0, 1.0]], n_steps=10, n_chains=n_chains, rng=0)


def test_score_table_has_every_baseline():
    result = make_forecast()
    truth = np.repeat(result.starts[:, None] * 0.9**10, 5, axis=1)
    table = score_forecast(result, truth, reference=truth)
    names = [s.name for s in table.scores]
    assert names == ["var1", "SGD itself, other seeds", *TRIVIAL]
    assert table["var1"].w1 == pytest.approx(0.0, abs=1e-12)
    assert table["SGD itself, other seeds"].w1 == 0.0
    assert table["stays where it starts"].w1 > 0.1
    assert str(table).splitlines()[0].startswith("forecast")
    with pytest.raises(KeyError, match="name must be one of"):
        table["nothing"]
    with pytest.raises(ValueError, match="at least one observed run"):
        score_forecast(result, truth, paths=())


def test_forecast_laws_minima_and_intervals():
    result = make_forecast(n_chains=100)
    np.testing.assert_allclose(result.minima, result.starts * 0.9**10)
    low_high = result.interval(0.5)
    assert low_high.shape == (2, 2, 2)
    probabilities, edges = result.law(5, n_bins=10)
    assert probabilities.shape == (2, 2, 10)
    assert edges.shape == (2, 11)
    np.testing.assert_allclose(probabilities.sum(axis=2), 1.0)
    with pytest.raises(ValueError, match=r"level must lie in \(0, 1\)"):
        result.interval(1.0)


def test_bad_starts():
    kernel = SteppedKernel(lambda theta, rng: theta, 1, "var1", ("a", "b"), make_paths())
    with pytest.raises(ValueError, match=r"starts must have 2 coordinates \('a', 'b'\)"):
        forecast(kernel, [1.0, 2.0, 3.0], n_steps=1)
    with pytest.raises(ValueError, match=r"starts must be finite; got nan at \(0, 1\)"):
        forecast(kernel, [1.0, np.nan], n_steps=1)
    with pytest.raises(ValueError, match="n_chains must be at least 1; got 0"):
        forecast(kernel, [1.0, 2.0], n_steps=1, n_chains=0)
    with pytest.warns(StartOutsideWarning, match=r"1 of 2 starts .* 0\.86 ranges in 'a'"):
        forecast(kernel, [[1.0, 2.0], [10.0, 0.0]], n_steps=1)


def test_no_start_and_outcomes_of_other_starts():
    kernel = SteppedKernel(lambda theta, rng: theta, 1, "var1", ("a",), (np.zeros((5, 1)),))
    with pytest.raises(ValueError, match="starts must hold at least one; got none"):
        forecast(kernel, np.empty((0, 1)), n_steps=1)
    cast = forecast(kernel, np.zeros((3, 1)), n_steps=1, n_chains=4)
    with pytest.raises(ValueError, match=r"truth must have shape \(3, n_truth, 1\)"):
        cast.plot(truth=np.zeros((2, 5, 1)))


def test_forecasts_repeat_with_the_seed():
    def noisy(theta, rng):
        return theta + rng.normal(size=theta.shape)

    kernel = SteppedKernel(noisy, 2, "var1", ("a", "b"), make_paths())
    one, two = (forecast(kernel, [1.0, 1.0], n_steps=5, n_chains=8, rng=3) for _ in range(2))
    np.testing.assert_array_equal(one.samples, two.samples)
    np.testing.assert_array_equal(one.at(5), one.samples)
    assert not np.array_equal(
        one.samples, forecast(kernel, [1.0, 1.0], n_steps=5, n_chains=8, rng=4).samples
    )
