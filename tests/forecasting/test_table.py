"""Flows that are looked up are those that are followed."""

import numpy as np
import pytest
from tests.forecasting.wells import STARTS, two_wells

from sgdmc import make_least_squares, run_sgd
from sgdmc.forecasting.field import GradientField
from sgdmc.forecasting.table import FlowTable

MANY = 10**6


@pytest.fixture(scope="module")
def wells():
    return GradientField.fit(two_wells(STARTS))


def test_looked_up_ends_are_followed_ones(wells):
    starts = np.random.default_rng(0).uniform(-1.5, 1.5, size=(3000, 2))
    table = FlowTable.of(wells, 10, starts[:50], MANY)
    off = np.abs(table(starts) - wells.flow(starts, 10)) / wells.width
    # A flow is itself right to some thousandths of a range; only next to the ridge it is less.
    assert np.quantile(off, 0.99) < 2e-3
    assert off.mean() < 2e-4
    # A tenth of what the points moved would not do.
    assert np.abs(wells.flow(starts, 10) - starts).mean() > 50 * off.mean()


def test_a_parabola_is_looked_up_exactly():
    problem = make_least_squares(n_samples=60, dim=2, noise=0.4, rng=3)
    starts = np.random.default_rng(1).uniform(-3, 3, size=(4, 2))
    run = run_sgd(problem, starts, step_size=0.03, n_steps=500, rng=0)
    field = GradientField.fit(run.paths)
    table = FlowTable.of(field, 3, starts, MANY)
    points = np.random.default_rng(2).uniform(-3, 3, size=(500, 2))
    np.testing.assert_allclose(table(points), field.flow(points, 3), atol=1e-4 * field.width.min())


def test_points_beyond_the_table_are_followed(wells):
    table = FlowTable.of(wells, 10, STARTS, MANY)
    far = np.array([[0.4, 0.1], [30.0, 1.0], [-1.0, -20.0]])
    found = table(far)
    np.testing.assert_array_equal(found[1:], wells.flow(far[1:], 10))
    np.testing.assert_allclose(found[0], wells.flow(far[:1], 10)[0], atol=5e-3)


def test_no_table_where_following_is_cheaper(wells):
    table = FlowTable.of(wells, 10, STARTS, MANY)
    nodes = table.coefficients[0].size
    assert FlowTable.of(wells, 10, STARTS, 2 * nodes) is not None
    assert FlowTable.of(wells, 10, STARTS, 2 * nodes - 1) is None
    assert FlowTable.of(wells, 10, np.array([[1e12, 1e12]]), MANY) is None
    problem = make_least_squares(n_samples=60, dim=3, noise=0.4, rng=3)
    run = run_sgd(problem, np.ones((2, 3)), step_size=0.03, n_steps=200, rng=0)
    assert FlowTable.of(GradientField.fit(run.paths), 10, np.ones((1, 3)), MANY) is None


def test_tables_of_the_same_starts_are_filled_once(wells):
    table = FlowTable.of(wells, 10, STARTS, MANY)
    assert FlowTable.of(wells, 10, STARTS[::-1].copy(), MANY) is table
    assert FlowTable.of(wells, 11, STARTS, MANY) is not table
    assert FlowTable.of(wells, 10, 3 * STARTS, MANY) is not table


def test_starts_far_from_the_runs_cost_few_nodes(wells):
    far = 40 * STARTS
    near, wide = (FlowTable.of(wells, 10, starts, MANY) for starts in (STARTS, far))
    sides = np.array(wide.coefficients.shape[1:])
    assert (sides > np.array(near.coefficients.shape[1:])).all()
    # Even nodes as far would be thirty times as many on each side.
    assert (sides < 6 * np.array(near.coefficients.shape[1:])).all()
    starts = np.random.default_rng(0).uniform(far.min(axis=0), far.max(axis=0), size=(2000, 2))
    ends = wells.flow(starts, 10)
    np.testing.assert_allclose(wide(starts), ends, atol=5e-3 * np.abs(ends).max())
    with np.errstate(all="raise"):
        assert FlowTable.of(wells, 10, 1e300 * STARTS, 10**9) is None


def test_a_direction_without_steps_stays_as_it_is():
    paths = [np.insert(p, 1, 7.0, axis=1) for p in two_wells(STARTS)]
    field = GradientField.fit(paths)
    starts = np.insert(STARTS, 1, np.arange(len(STARTS)), axis=1)
    table = FlowTable.of(field, 10, starts, MANY)
    ends = table(starts)
    np.testing.assert_array_equal(ends[:, 1], starts[:, 1])
    np.testing.assert_allclose(ends, field.flow(starts, 10), atol=0.01)
    # One line of motion: a table in one direction.
    line = [np.stack([p[:, 0], 2 * p[:, 0]], axis=1) for p in two_wells(STARTS)]
    field = GradientField.fit(line)
    starts = np.stack([STARTS[:, 0], 2 * STARTS[:, 0] + 1], axis=1)
    table = FlowTable.of(field, 10, starts, MANY)
    assert table.coefficients.ndim == 2
    np.testing.assert_allclose(table(starts), field.flow(starts, 10), atol=0.01)
