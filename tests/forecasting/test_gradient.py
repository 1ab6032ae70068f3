"""The gradient's field: a covariance that is a second derivative, no curl, and doubt far away."""

import numpy as np
import pytest

from sgdmc import estimate_kernel, forecast
from sgdmc.forecasting.gradient import GradientField, GradientKernel, _covariance
from sgdmc.sgd.run import Run

STEP = 0.02


def _gradient(x):
    """Of the tilted double well (x² − 1)²/2 + (y − x/2)²: basins at both signs of x."""
    lean = x[..., 1] - 0.5 * x[..., 0]
    return np.stack([2 * x[..., 0] * (x[..., 0] ** 2 - 1) - lean, 2 * lean], axis=-1)


def _runs(starts, n_steps=400, noise=0.02, seed=0):
    rng = np.random.default_rng(seed)
    paths = np.empty((len(starts), n_steps + 1, 2))
    paths[:, 0] = starts
    for t in range(n_steps):
        paths[:, t + 1] = (
            paths[:, t] - STEP * _gradient(paths[:, t]) + noise * rng.normal(size=(len(starts), 2))
        )
    return tuple(paths)


STARTS = np.random.default_rng(3).uniform(-1.6, 1.6, size=(12, 2))


def test_covariance_is_the_mixed_derivative_of_the_kernel():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(3, 3)), rng.normal(size=(2, 3))
    theta = np.array([0.1, -0.3, 0.4, 0.2, -2.0])
    lengths, amplitude = np.exp(theta[:3]), np.exp(2 * theta[3] + 2 * theta[:3].mean())

    def kernel(x, y):
        return amplitude * np.exp(-0.5 * (((x - y) / lengths) ** 2).sum())

    h, eye = 1e-4, np.eye(3)
    found = _covariance(a, b, theta).reshape(3, 3, 2, 3)
    for p in range(3):
        for q in range(2):
            for i in range(3):
                for j in range(3):
                    sides = [
                        s * t * kernel(a[p] + s * h * eye[i], b[q] + t * h * eye[j])
                        for s in (1, -1)
                        for t in (1, -1)
                    ]
                    assert found[p, i, q, j] == pytest.approx(sum(sides) / (4 * h**2), abs=1e-5)
    whole = _covariance(a, a, theta)
    np.testing.assert_allclose(whole, whole.T, atol=1e-14)
    assert np.linalg.eigvalsh(whole).min() > 0


def test_field_is_the_gradient_where_runs_went_and_has_no_curl():
    paths = _runs(STARTS)
    field = GradientField.fit(paths)
    points = np.concatenate([p[3:60:8] for p in paths])
    mean, spread = field.mean_and_spread(points / field.width)
    truth = -STEP * _gradient(points)
    found = mean * field.width
    error = np.sqrt(((found - truth) ** 2).mean() / (truth**2).mean())
    assert error < 0.25
    covered = np.abs(found - truth) < 3 * spread * field.width
    assert covered.mean() > 0.8
    h = 1e-4

    def step(x, y):
        return field.mean(np.array([[x, y]]) / field.width)[0] * field.width

    for x, y in points[::7]:
        across = (step(x, y + h) - step(x, y - h))[0] - (step(x + h, y) - step(x - h, y))[1]
        assert abs(across) / (2 * h) < 1e-6


def test_nothing_is_known_far_away():
    field = GradientField.fit(_runs(STARTS))
    far = np.array([[40.0, -40.0]])
    mean, spread = field.mean_and_spread(far)
    near_spread = field.mean_and_spread(np.array([[1.0, 0.5]]) / field.width)[1]
    np.testing.assert_allclose(mean, 0.0, atol=1e-12)
    assert (spread > 10 * near_spread).all()
    np.testing.assert_allclose(field.flow(far * field.width, 400), far * field.width, rtol=1e-9)


def test_flow_ends_in_the_minimiser_of_the_basin_without_overshoot():
    paths = _runs(STARTS, noise=0.0)
    field = GradientField.fit(paths)
    starts = np.random.default_rng(5).uniform(-1.2, 1.2, size=(40, 2))
    ends = np.stack(_runs(starts, n_steps=1000, noise=0.0))[:, -1]
    np.testing.assert_allclose(np.abs(ends), [[1.0, 0.5]] * 40, atol=1e-6)
    found = field.flow(starts, 1000)
    right = np.sign(found[:, 0]) == np.sign(ends[:, 0])
    assert right.mean() >= 0.95
    assert np.abs(found - ends)[right].max() < 0.02
    # One long step goes as far as many short ones.
    many = starts
    for _ in range(50):
        many = field.flow(many, 20)
    assert np.abs(many - found)[right].max() < 0.02


def test_units_common_to_all_coordinates_do_not_matter():
    paths = _runs(STARTS[:4], n_steps=150)
    small, large = (GradientField.fit([p * s for p in paths]) for s in (1.0, 1e3))
    ends = [f.flow(STARTS * s, 150) / s for f, s in ((small, 1.0), (large, 1e3))]
    np.testing.assert_allclose(ends[0], ends[1], atol=0.01)


def test_kernel_forecasts_with_the_noise_of_the_runs_and_hedges_where_it_must():
    run = Run.from_paths(_runs(STARTS), names=("x", "y"))
    kernel = estimate_kernel(run, method="gradient-gp")
    assert isinstance(kernel, GradientKernel)
    starts = np.array([[1.0, -0.2], [-1.1, 0.3]])
    real = np.stack(_runs(np.repeat(starts, 400, axis=0), n_steps=300, seed=9))[:, -1]
    real = real.reshape(2, 400, 2)
    cast = forecast(kernel, starts, n_steps=300, n_chains=400, rng=0)
    np.testing.assert_allclose(cast.samples.mean(1), real.mean(1), atol=0.03)
    np.testing.assert_allclose(cast.samples.std(1), real.std(1), rtol=0.5)
    # On the ridge the side is unknown: the intervals span both basins.
    ridge = forecast(kernel, np.array([[0.0, 0.0]]), n_steps=300, n_chains=240, rng=0)
    low, high = ridge.interval(0.9)[0, :, 0]
    assert low < -0.9
    assert high > 0.9
    still = forecast(kernel, starts, n_steps=0, n_chains=3)
    np.testing.assert_array_equal(still.samples, np.repeat(starts[:, None], 3, axis=1))
    np.testing.assert_array_equal(still.predictive, still.samples)


def test_runs_of_three_iterates_are_too_short():
    short = np.zeros((3, 2))
    with pytest.raises(ValueError, match="at least 4 iterates; the longest has 3"):
        GradientField.fit([short])
    longer = np.cumsum(np.ones((9, 2)), axis=0)
    assert np.isfinite(GradientField.fit([short, longer]).mean(longer)).all()


def test_fields_and_flows_of_the_same_runs_are_found_once():
    paths = _runs(STARTS[:4], n_steps=100)
    field = GradientField.fit(paths)
    assert GradientField.fit(tuple(p.copy() for p in paths)) is field
    assert GradientField.fit([p + 1e-9 for p in paths]) is not field
    errors = np.random.default_rng(0).normal(size=STARTS.shape)
    first = field.flow(STARTS, 100, errors=errors)
    kept = first.copy()
    first[:] = np.nan  # what a caller does with it is its own affair
    np.testing.assert_array_equal(field.flow(STARTS, 100, errors=errors), kept)
    for other in (field.flow(STARTS, 99, errors=errors), field.flow(STARTS, 100, errors=-errors)):
        assert not np.array_equal(other, kept)
    for n_steps in range(1, 40):
        field.flow(STARTS[:1], n_steps)
    assert len(field._flows) <= 16
    np.testing.assert_array_equal(field.flow(STARTS, 100, errors=errors), kept)


def test_spread_of_the_field_is_the_posterior_standard_deviation():
    field = GradientField.fit(_runs(STARTS[:4], n_steps=100))
    z = STARTS / field.width
    across = _covariance(z, field.seen.points, field.parameters)
    covariance = field.factor @ field.factor.T
    prior = _covariance(z, z, field.parameters)
    posterior = prior - across @ np.linalg.solve(covariance, across.T)
    mean, spread = field.mean_and_spread(z)
    unit = field.scale / field.width**2
    expected = np.sqrt(np.maximum(np.diag(posterior), 0.0)).reshape(z.shape) * unit
    np.testing.assert_allclose(spread, expected, rtol=1e-5, atol=1e-9 * unit.max())
    np.testing.assert_allclose(mean, field.mean(z), rtol=1e-12, atol=0)
