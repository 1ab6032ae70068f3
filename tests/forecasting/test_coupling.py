"""Lag, coordinates, and the joint estimators on systems whose answer is known."""

import numpy as np
import pytest

from sgdmc.forecasting.coupling import choose_coordinates, choose_field
from sgdmc.forecasting.field import GradientField
from sgdmc.forecasting.lag import choose_lag
from sgdmc.forecasting.stepped import STEPPED, stepped_kernel
from sgdmc.sgd.run import Run

TURN = np.array([[np.cos(0.6), -np.sin(0.6)], [np.sin(0.6), np.cos(0.6)]])
RATES = np.array([0.99, 0.7])


def quadratic_path(n_steps=1500, noise=0.05, start=(3.0, 2.0), seed=0):
    """SGD on a rotated quadratic: theta' = A theta + noise."""
    rng = np.random.default_rng(seed)
    matrix = TURN @ np.diag(RATES) @ TURN.T
    path = np.empty((n_steps + 1, 2))
    path[0] = start
    for t in range(n_steps):
        path[t + 1] = matrix @ path[t] + noise * rng.normal(size=2)
    return path


def test_rotation_is_found_and_preferred():
    path = quadratic_path()
    coordinates, chosen, reason = choose_coordinates([path], 5, coupling="auto")
    assert chosen == "rotated"
    assert "BIC better by" in reason
    directions = coordinates.basis / np.linalg.norm(coordinates.basis, axis=0)
    overlap = np.abs(directions.T @ TURN).max(axis=0)
    assert overlap.min() > 0.98


def test_decoupled_coordinates_are_left_alone():
    rng = np.random.default_rng(3)
    path = np.zeros((2000, 2))
    for t in range(1999):
        path[t + 1] = [0.95, 0.6] * path[t] + rng.normal(size=2)
    coordinates, chosen, _ = choose_coordinates([path], 1, coupling="auto")
    assert chosen == "blocks"
    assert coordinates.is_identity


def test_rotating_means_take_schur_vectors():
    angle = 0.3
    spin = 0.98 * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    rng = np.random.default_rng(0)
    path = np.zeros((500, 2))
    for t in range(499):
        path[t + 1] = spin @ path[t] + rng.normal(size=2)
    coordinates, chosen, _ = choose_coordinates([path], 1, coupling="rotated")
    assert chosen == "rotated"
    np.testing.assert_allclose(coordinates.basis.T @ coordinates.basis, np.eye(2), atol=1e-10)


def test_a_given_basis_is_used():
    path = quadratic_path(200)
    coordinates, chosen, _ = choose_coordinates([path], 1, coupling="auto", basis=TURN)
    np.testing.assert_array_equal(coordinates.basis, TURN)
    assert chosen == "rotated"
    pca, _, _ = choose_coordinates([path], 1, coupling="rotated", basis="pca")
    np.testing.assert_allclose(pca.basis.T @ pca.basis, np.eye(2), atol=1e-10)
    with pytest.raises(ValueError, match="basis must be 'pca' or an array"):
        choose_coordinates([path], 1, coupling="rotated", basis="fourier")
    with pytest.raises(ValueError, match=r"basis must have shape \(2, 2\)"):
        choose_coordinates([path], 1, coupling="rotated", basis=np.eye(3))


def test_lag_reaches_a_few_bins_and_leaves_enough_steps():
    slow = Run.from_array(np.linspace(0, 1, 1001))
    lag, reason = choose_lag(slow, digits=2)
    assert 1001 / 0.7 / 100 * 3 * 0.7 <= lag <= 1000 // 8
    assert f"lag {lag}" in reason
    fast = Run.from_array(np.random.default_rng(0).normal(size=1001))
    assert choose_lag(fast, digits=3)[0] == 100
    assert choose_lag(fast, digits=3, horizon=100)[0] == 10
    assert choose_lag(Run.from_array([1.0, 1.0]), digits=3)[0] == 1


def test_runs_that_came_to_rest_take_longer_steps():
    falling = 3.0 * 0.95 ** np.arange(801)
    noisy = falling + 0.01 * np.random.default_rng(0).normal(size=801)
    assert choose_lag(Run.from_array(falling), digits=3)[0] == 200
    assert choose_lag(Run.from_array(noisy), digits=3)[0] == 80
    # One run that still moves is enough.
    both = Run.from_paths([falling[:, None], noisy[:, None]], names=("x",))
    assert choose_lag(both, digits=3)[0] == 80


@pytest.mark.parametrize("method", list(STEPPED))
def test_stepped_kernels_forecast_a_rotated_quadratic(method):
    paths = tuple(quadratic_path(seed=s, start=p) for s, p in enumerate([(3, 2), (-3, 2), (2, -3)]))
    kernel = stepped_kernel(paths, method=method, lag=10, names=("a", "b"))
    start = np.array([[2.0, 2.5]])
    draws = kernel.advance(start, n_steps=50, n_chains=2000, rng=np.random.default_rng(0))[0]
    power = TURN @ np.diag(RATES**50) @ TURN.T
    error = draws.mean(axis=0) - power @ start[0]
    # A linear fit is right to sampling error; local fits to their bandwidth.
    assert np.abs(error).max() < {"var1": 0.1, "knn": 1.0, "local-linear": 0.35}[method]


def test_remainder_of_the_horizon_is_shared_out():
    paths = (np.arange(100.0)[:, None],)
    kernel = stepped_kernel(paths, method="var1", lag=10, names=("a",))
    draws = kernel.advance(
        np.zeros((1, 1)), n_steps=15, n_chains=4000, rng=np.random.default_rng(0)
    )
    assert set(np.round(draws.ravel(), 6)) == {10.0, 20.0}
    assert draws.mean() == pytest.approx(15.0, abs=5 * 5 / np.sqrt(4000))


def test_runs_on_a_line_are_rotated_and_the_rest_stays():
    direction = np.array([0.6, 0.8])
    path = [1.0, 2.0] + (5 * 0.97 ** np.arange(200.0))[:, None] * direction
    coordinates, chosen, reason = choose_coordinates([path], 5, coupling="auto")
    assert chosen == "rotated"
    assert "on a line" in reason
    units = coordinates.basis / np.linalg.norm(coordinates.basis, axis=0)
    assert np.abs(units.T @ direction).max() == pytest.approx(1.0, abs=1e-6)
    # Across the line nothing was seen: a start there keeps its distance.
    across = np.array([[1.0, 2.0] + 3 * np.array([-0.8, 0.6])])
    kernel = stepped_kernel((path,), method="var1", lag=5, names=("a", "b"))
    end = kernel.advance(across, n_steps=100, n_chains=1, rng=np.random.default_rng(0))[0]
    np.testing.assert_allclose((end - [1.0, 2.0]) @ [-0.8, 0.6], 3.0, atol=0.05)


def test_a_field_needs_four_iterates():
    path = quadratic_path(100)
    field = choose_field([path])
    assert isinstance(field, GradientField)
    assert field is GradientField.fit([path])
    assert choose_field([path[:, :1]]).basis.shape == (1, 1)
    assert choose_field([path[:3], path[50:53]]) is None
    assert choose_field([path[:3], path[50:54]]) is not None
    line = [1.0, 2.0] + (5 * 0.97 ** np.arange(200.0))[:, None] * np.array([0.6, 0.8])
    assert choose_field([line]).basis.shape == (2, 1)
    # Off the line by less than a thousandth of the range.
    across = np.array([-0.8, 0.6]) * np.random.default_rng(0).normal(size=(200, 1))
    assert choose_field([line + 1e-4 * across]).basis.shape == (2, 2)
