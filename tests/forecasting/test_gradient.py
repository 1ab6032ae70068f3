"""What a field leaves of observed steps, and roots of covariances."""

import numpy as np
import pytest

from sgdmc.forecasting.field import GradientField
from sgdmc.forecasting.gradient import (
    residuals_of,
    root_covariance,
)


def test_roots_square_to_the_covariance_and_may_be_singular():
    rng = np.random.default_rng(0)
    for residuals in (rng.normal(size=(50, 3)), rng.normal(size=(50, 1)) * [1.0, -2.0, 0.0]):
        root = root_covariance(residuals)
        np.testing.assert_allclose(root, root.T, atol=1e-12)
        np.testing.assert_allclose(root @ root, residuals.T @ residuals / 50, atol=1e-12)


def test_residuals_are_over_their_loudness():
    """Noise that grows with the drift is that of rest, once divided."""
    rng = np.random.default_rng(0)
    path = np.empty((4, 301, 2))
    path[:, 0] = [(4.0, 3.0), (-4.0, 2.0), (1.0, -4.0), (-3.0, -3.0)]
    for t in range(300):
        drift = -0.03 * path[:, t]
        loud = 0.02 * np.sqrt(1 + 2000 * (drift**2).sum(axis=1, keepdims=True))
        path[:, t + 1] = path[:, t] + drift + loud * rng.normal(size=drift.shape)
    field = GradientField.fit(list(path))
    left = residuals_of(field, list(path), 1)
    before = np.concatenate([p[:-1] for p in path])
    far = np.linalg.norm(before, axis=1) > 2.0
    raw = (np.concatenate([np.diff(p, axis=0) for p in path]) + 0.03 * before)[far].std()
    assert raw > 2.5 * 0.02
    assert left[far].std() == pytest.approx(0.02, rel=0.3)
    assert left[~far].std() == pytest.approx(0.02, rel=0.3)


def test_residuals_of_long_runs_are_those_of_steps_spread_over_them():
    rng = np.random.default_rng(0)
    path = np.empty((30_001, 1))
    path[0] = 3.0
    for t in range(30_000):
        # Twice as much noise in the second half: a beginning alone would not tell.
        path[t + 1] = 0.95 * path[t] + 0.01 * (1 + (t > 15_000)) * rng.normal(size=1)
    field = GradientField.fit([path])
    left = residuals_of(field, [path], 1)
    assert len(left) == 20_000
    assert (left**2).mean() == pytest.approx((0.01**2 + 0.02**2) / 2, rel=0.05)
