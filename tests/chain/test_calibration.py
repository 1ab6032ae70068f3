"""Rows held to the observed steps: means and spreads."""

import numpy as np
import pytest
from scipy.special import ndtr

from sgdmc.chain.calibration import calibrate_rows

N = 400
POSITIONS = np.arange(N) + 0.5
EVERYWHERE = np.ones(N, dtype=bool)


def _rows(mean, sd):
    rows = np.diff(ndtr((np.arange(N + 1) - mean(POSITIONS)[:, None]) / sd), axis=1)
    return rows / rows.sum(axis=1, keepdims=True)


def _line(slope, centre=200.0):
    return lambda x: centre + slope * (x - centre)


def _paths(mean, n_runs, n_steps, rng, sd=4.0):
    x = np.empty((n_runs, n_steps + 1))
    x[:, 0] = rng.uniform(60, 340, size=n_runs)
    for t in range(n_steps):
        x[:, t + 1] = mean(x[:, t]) + sd * rng.standard_normal(n_runs)
    return list(x)


def _slope(rows, low=100, high=300):
    return np.polyfit(POSITIONS[low:high], (rows @ POSITIONS)[low:high], 1)[0]


def _sd(rows):
    return np.sqrt(rows @ POSITIONS**2 - (rows @ POSITIONS) ** 2)


def test_a_wrong_slope_and_a_wrong_spread_are_mended():
    rng = np.random.default_rng(0)
    errors, spreads = [], []
    for _ in range(40):
        fit = calibrate_rows(_paths(_line(0.9), 6, 60, rng), 1, _rows(_line(0.8), 8.0), EVERYWHERE)
        errors.append(_slope(fit.rows) - 0.9)
        spreads.append(np.median(_sd(fit.rows)[150:250]))
    assert np.sqrt(np.mean(np.square(errors))) < 0.02
    # The row's own spread of 8 counts as four steps beside some tens.
    assert np.median(spreads) == pytest.approx(4.0, rel=0.12)


def test_a_curved_drift_is_kept_and_a_spurious_one_is_straightened():
    rng = np.random.default_rng(1)

    def curved(x):
        return 200 + 0.9 * (x - 200) + 12 * np.sin((x - 200) / 25)

    rows = _rows(curved, 4.0)
    kept = calibrate_rows(_paths(curved, 12, 150, rng), 1, rows, EVERYWHERE)
    straightened = calibrate_rows(_paths(_line(0.9), 12, 150, rng), 1, rows, EVERYWHERE)
    assert kept.bend > 0.8
    assert straightened.bend < 0.2
    inside = slice(120, 280)
    error = (straightened.rows @ POSITIONS - _line(0.9)(POSITIONS))[inside]
    assert np.abs(error).max() < 0.35 * 12


def test_a_curve_that_the_rows_do_not_know_is_learned_from_the_steps():
    rng = np.random.default_rng(6)

    def saturating(x):
        return x - 20 * np.tanh((x - 200) / 40)

    fit = calibrate_rows(_paths(saturating, 12, 60, rng), 1, _rows(_line(0.8), 4.0), EVERYWHERE)
    error = (fit.rows @ POSITIONS - saturating(POSITIONS))[100:301]
    # A line alone misses by 9 at 100 and 300.
    assert np.abs(error).mean() < 2.5
    assert np.abs(error).max() < 6.0


def test_a_line_stays_a_line():
    rng = np.random.default_rng(7)
    bent = []
    for _ in range(20):
        fit = calibrate_rows(_paths(_line(0.9), 6, 60, rng), 1, _rows(_line(0.8), 4.0), EVERYWHERE)
        means = (fit.rows @ POSITIONS)[100:301]
        bent.append(np.abs(np.diff(means, 2)).max() > 1e-3)
    # e² of likelihood is asked for: a spurious curve is rare.
    assert np.mean(bent) <= 0.15


def test_spread_follows_the_state():
    rng = np.random.default_rng(3)
    x = np.empty((8, 200))
    x[:, 0] = rng.uniform(60, 340, size=8)
    for t in range(199):
        noise = 2.0 + 0.05 * np.abs(x[:, t] - 200)
        x[:, t + 1] = 200 + 0.97 * (x[:, t] - 200) + noise * rng.standard_normal(8)
    fit = calibrate_rows(list(x), 1, _rows(_line(0.97), 8.0), EVERYWHERE)
    assert _sd(fit.rows)[200] < 3.5
    assert _sd(fit.rows)[290] > 4.5


def test_the_slope_stays_in_range():
    grows = [200 + sign * 10 * 1.05 ** np.arange(45) for sign in (1, -1)]
    fit = calibrate_rows(grows, 1, _rows(_line(0.99), 4.0), EVERYWHERE)
    assert _slope(fit.rows) <= 1 + 1e-4


@pytest.mark.parametrize("path", [np.full(50, 7.5), np.array([1.5, 2.5, 3.5])])
def test_nothing_is_done_where_nothing_was_seen(path):
    rows = _rows(_line(0.9), 4.0)
    fit = calibrate_rows([path], 1, rows, EVERYWHERE)
    np.testing.assert_array_equal(fit.rows, rows)


def test_rows_stay_histograms_and_empty_rows_stay_empty():
    rng = np.random.default_rng(4)
    rows = _rows(_line(0.9), 4.0)
    rows[350:] = 0.0
    known = EVERYWHERE & (np.arange(N) < 340)
    fit = calibrate_rows(_paths(_line(0.7), 3, 40, rng), 1, rows, known)
    np.testing.assert_allclose(fit.rows[:350].sum(axis=1), 1.0, atol=1e-12)
    assert fit.rows.min() >= 0
    assert not fit.rows[350:].any()
