"""The linear law of a lagged run: exact where it is exact, efficient, and honest of its spread."""

import numpy as np
import pytest

from sgdmc import make_least_squares, run_sgd
from sgdmc.forecasting.var import lagged_pairs, law_deviations, var1_fit


def test_a_linear_map_is_found_exactly():
    rng = np.random.default_rng(0)
    matrix = np.array([[0.9, 0.1], [-0.2, 0.7]])
    x = rng.normal(size=(50, 2))
    law = var1_fit(x, x @ matrix.T + [1.0, -2.0])
    np.testing.assert_allclose(law.matrix, matrix, atol=1e-7)
    np.testing.assert_allclose(law.residuals, 0, atol=1e-6)
    np.testing.assert_allclose(
        law.push(x[:3], 2), (x[:3] @ matrix.T + [1, -2]) @ matrix.T + [1, -2]
    )


def test_weights_beat_ordinary_least_squares_on_sgd():
    errors = {1: [], 3: []}
    for seed in range(20):
        problem = make_least_squares(n_samples=100, dim=2, noise=0.5, rng=seed)
        run = run_sgd(problem, [4.0, -3.0], step_size=0.02, n_steps=400, rng=seed)
        truth = np.eye(2) - 0.02 * np.asarray(problem.X).T @ np.asarray(problem.X) / 100
        pairs = lagged_pairs(run.paths, 1)
        for n, found in errors.items():
            found.append(np.abs(var1_fit(*pairs, n_passes=n).matrix - truth).max())
    assert np.mean(errors[3]) < 0.85 * np.mean(errors[1])


def test_constant_coordinates_are_harmless():
    x = np.stack([np.linspace(5, 1, 30), np.full(30, 2.0)], axis=1)
    law = var1_fit(x[:-1], x[1:])
    assert np.isfinite(law.matrix).all()
    np.testing.assert_allclose(law.weights.sum(), 1.0)
    rng = np.random.default_rng(0)
    off, factor, spread = law_deviations([x], 1, x[:2], n_steps=5, n_draws=20, rng=rng)
    assert np.isfinite(off).all()
    assert np.isfinite(factor).all()
    assert np.isfinite(spread).all()


def test_pairs_stay_within_runs():
    before, after = lagged_pairs([np.arange(4.0)[:, None], np.arange(10.0, 13.0)[:, None]], 2)
    np.testing.assert_array_equal(before[:, 0], [0, 1, 10])
    np.testing.assert_array_equal(after[:, 0], [2, 3, 12])
    with pytest.raises(ValueError, match="lag must be shorter than the longest run; got 9"):
        lagged_pairs([np.zeros((4, 1))], 9)


def test_deviations_are_as_large_as_the_errors_of_the_law():
    matrix = np.array([[0.95, 0.03], [0.0, 0.9]])
    starts = np.array([[6.0, -5.0]])
    truth, variance, inside, narrow, total = starts.copy(), np.zeros((2, 2)), 0, 0, 0
    for _ in range(20):
        truth = truth @ matrix.T
        variance = matrix @ variance @ matrix.T + 0.09 * np.eye(2)
    for seed in range(60):
        rng = np.random.default_rng(seed)
        x = np.empty((2, 61, 2))
        x[:, 0] = rng.normal(size=(2, 2)) * 4
        for t in range(60):
            x[:, t + 1] = x[:, t] @ matrix.T + 0.3 * rng.normal(size=(2, 2))
        law = var1_fit(*lagged_pairs(list(x), 1))
        off, factor, spread = law_deviations(list(x), 1, starts, n_steps=20, n_draws=400, rng=rng)
        low, high = np.quantile(law.push(starts, 20) + off[0], [0.05, 0.95], axis=0)
        inside += ((truth[0] >= low) & (truth[0] <= high)).sum()
        fitted = np.zeros((2, 2))
        for _ in range(20):
            fitted = law.matrix @ fitted @ law.matrix.T + np.cov(law.residuals.T)
        low, high = np.quantile(np.sqrt(np.diag(fitted)) * factor, [0.05, 0.95], axis=0)
        right = np.sqrt(np.diag(variance))
        np.testing.assert_allclose(spread[0], right, rtol=0.5)
        narrow += ((right >= low) & (right <= high)).sum()
        total += 2
    assert 0.8 < inside / total < 0.98
    assert 0.8 < narrow / total < 0.98


def test_spread_grows_with_the_noise_of_far_starts():
    # Least squares: the noise of a step is proportional to the distance from the minimiser.
    rng = np.random.default_rng(1)
    paths = np.empty((20, 81, 2))
    paths[:, 0] = rng.uniform(-4, 4, size=(20, 2))
    for t in range(80):
        size = np.sqrt(0.01**2 + (0.2 * np.linalg.norm(paths[:, t], axis=1, keepdims=True)) ** 2)
        paths[:, t + 1] = 0.9 * paths[:, t] + 0.3 * size * rng.normal(size=(20, 2))
    starts = np.array([[4.0, 4.0], [0.0, 0.0]])
    spread = law_deviations(list(paths), 1, starts, n_steps=10, n_draws=2, rng=rng)[2]
    x = np.repeat(starts, 4000, axis=0)
    for _ in range(10):
        size = np.sqrt(0.01**2 + (0.2 * np.linalg.norm(x, axis=1, keepdims=True)) ** 2)
        x = 0.9 * x + 0.3 * size * rng.normal(size=x.shape)
    right = x.reshape(2, 4000, 2).std(axis=1)
    np.testing.assert_allclose(spread[0], right[0], rtol=0.5)
    assert spread[0].min() > 5 * spread[1].max()


def test_a_fit_that_grows_is_no_farther_from_its_draws_than_one_that_does_not():
    # An iterate that leaves a saddle: the fit grows, SGD does not for long.
    rng = np.random.default_rng(0)
    path = 0.01 * 1.02 ** np.arange(200.0)[:, None] + 1e-4 * rng.normal(size=(200, 1))
    assert var1_fit(*lagged_pairs([path], 10), lag=10).matrix[0, 0] > 1.1
    off, _, spread = law_deviations(
        [path], 10, path[:3], n_steps=2000, n_draws=50, rng=np.random.default_rng(1)
    )
    # Two hundred kernel steps, none longer than the longest that was seen.
    longest = np.diff(path[::10], axis=0).max()
    assert np.abs(off).max() < 400 * longest
    assert spread.max() < 200 * longest
