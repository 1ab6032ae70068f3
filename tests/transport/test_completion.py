"""Filling rows: what each method gets right, and what it is biased by."""

import numpy as np
import pytest

from sgdmc.transport.completion import COMPLETIONS, complete


def quadratic_rows(n, slope, width):
    """Rows of SGD on a quadratic: mean ``c + slope (s - c)``, equal width."""
    states = np.arange(n)
    means = n / 2 + slope * (states - n / 2)
    rows = np.exp(-((states - means[:, None]) ** 2) / (2 * width**2))
    return rows / rows.sum(axis=1, keepdims=True)


def distance(rows, truth):
    """Mean W1, in bins."""
    return np.abs(np.cumsum(rows - truth, axis=1)).sum(axis=1).mean()


N = 100
TRUTH = quadratic_rows(N, 0.8, 3.0)
INSIDE = np.zeros(N, bool)
INSIDE[20:81:6] = True


@pytest.mark.parametrize("method", COMPLETIONS)
def test_rows_are_laws_and_observed_rows_stay(method):
    filled = complete(TRUTH, INSIDE, method=method)
    np.testing.assert_allclose(filled.sum(axis=1), 1, rtol=1e-12)
    assert (filled >= 0).all()
    np.testing.assert_allclose(filled[INSIDE], TRUTH[INSIDE], rtol=1e-14)
    same = complete(filled, np.ones(N, bool), method=method)
    np.testing.assert_allclose(same, filled, rtol=1e-14)


def test_between_visited_states_the_means_are_exact_and_the_width_is_kept():
    gaps = ~INSIDE & (np.arange(N) > 20) & (np.arange(N) < 80)
    error = {m: distance(complete(TRUTH, INSIDE, method=m)[gaps], TRUTH[gaps]) for m in COMPLETIONS}
    assert error["barycenter"] < 0.02
    assert error["increments"] < 0.02
    assert error["quantiles"] < 0.06
    assert error["entropic"] > 10 * error["barycenter"]
    assert error["nearest"] > 1.0


def test_outside_the_visited_range_the_line_of_means_goes_on():
    outside = (np.arange(N) < 20) | (np.arange(N) > 80)
    linear = distance(complete(TRUTH, INSIDE)[outside], TRUTH[outside])
    shifted = distance(complete(TRUTH, INSIDE, method="increments")[outside], TRUTH[outside])
    held = distance(complete(TRUTH, INSIDE, extrapolation="hold")[outside], TRUTH[outside])
    assert linear < 0.2
    assert linear < shifted < held
    same = complete(TRUTH, INSIDE, extrapolation="shift")
    np.testing.assert_allclose(same, complete(TRUTH, INSIDE, method="increments"))


def test_mass_beyond_the_grid_stays_on_its_edge():
    observed = np.zeros(N, bool)
    observed[80] = True
    filled = complete(quadratic_rows(N, 1.0, 5.0), observed, method="increments")
    assert filled[99, 99] == pytest.approx(0.5, abs=0.05)
    np.testing.assert_allclose(filled.sum(axis=1), 1, rtol=1e-12)


@pytest.mark.parametrize("method", COMPLETIONS)
def test_a_single_observed_row(method):
    observed = np.zeros(N, bool)
    observed[40] = True
    filled = complete(TRUTH, observed, method=method)
    assert np.isfinite(filled).all()
    if method == "nearest":
        assert (filled == filled[40]).all()
    if method in ("barycenter", "increments"):
        assert np.argmax(filled[60]) == np.argmax(filled[40]) + 20


def test_diracs_stay_diracs():
    rows = np.eye(50)
    observed = np.zeros(50, bool)
    observed[[5, 20, 40]] = True
    filled = complete(rows, observed, n_neighbours=1)
    between = np.arange(5, 41)
    assert (filled[between, between] > 0.999).all()


def test_visits_weigh():
    rows = np.zeros((30, 30))
    rows[[5, 10, 20, 25], [6, 11, 12, 17]] = 1.0
    observed = rows.sum(axis=1) > 0
    visits = np.where(observed, 1.0, 0.0)
    visits[5] = 1e9  # nearly all of the left side is state 5, though 10 is nearer
    filled = complete(rows, observed, visits=visits, method="quantiles")
    weights = np.array([1 / 8, 1 / 13])
    weights /= weights.sum()
    centre, mean = weights @ [20, 25], weights @ [12, 17]
    share = (centre - 12) / (centre - 5)
    assert filled[12] @ np.arange(30) == pytest.approx(share * 6 + (1 - share) * mean, abs=0.3)


def test_backends_agree_and_threads_do_not_matter():
    rows, observed = quadratic_rows(40, 0.8, 3.0), INSIDE[5:45]
    filled = complete(rows, observed)
    assert (filled == complete(rows, observed, n_threads=1)).all()
    for backend in ("numpy", "numba"):
        other = complete(rows, observed, backend=backend)
        np.testing.assert_allclose(filled, other, atol=1e-9)


def test_rows_between_those_solved_for_are_nearly_the_same():
    n = 200
    truth, observed = quadratic_rows(n, 0.8, 6.0), np.zeros(n, bool)
    observed[30:171:14] = True
    every, coarse = (complete(truth, observed, stride=s) for s in (1, 4))
    np.testing.assert_allclose(coarse.sum(axis=1), 1, rtol=1e-12)
    assert (coarse >= 0).all()
    np.testing.assert_array_equal(coarse[observed], every[observed])
    states = np.arange(n)
    later = ~observed & (states > 30) & (states < 170) & (states % 4 != 0)
    np.testing.assert_array_equal(coarse[~later], every[~later])
    assert not np.array_equal(coarse[later], every[later])
    assert distance(coarse[later], every[later]) < 0.05
    means = [rows[later] @ states for rows in (coarse, every, truth)]
    np.testing.assert_allclose(means[0], means[1], atol=0.02)
    np.testing.assert_allclose(means[0], means[2], atol=0.05)
    widths = [
        np.sqrt(rows[later] @ states**2 - (rows[later] @ states) ** 2) for rows in (coarse, every)
    ]
    np.testing.assert_allclose(widths[0], widths[1], rtol=0.02)
    np.testing.assert_allclose(widths[0], 6.0, rtol=0.03)


def test_below_five_hundred_states_every_row_is_solved_for():
    for n, stride in ((499, 1), (500, 2)):
        truth, observed = quadratic_rows(n, 0.8, 12.0), np.zeros(n, bool)
        observed[n // 2 - 30 : n // 2 + 31 : 20] = True
        default = complete(truth, observed)
        np.testing.assert_array_equal(default, complete(truth, observed, stride=stride))
        assert not np.array_equal(default, complete(truth, observed, stride=stride + 1))


def test_other_methods_have_no_stride():
    for method in ("quantiles", "nearest"):
        one, four = (complete(TRUTH, INSIDE, method=method, stride=s) for s in (1, 4))
        np.testing.assert_array_equal(one, four)


def test_bad_stride():
    with pytest.raises(ValueError, match="stride must be at least 1; got 0"):
        complete(TRUTH, INSIDE, stride=0)
    with pytest.raises(TypeError, match=r"stride must be an integer; got 1\.5"):
        complete(TRUTH, INSIDE, stride=1.5)


def test_bad_input():
    none = np.zeros(N, bool)
    with pytest.raises(ValueError, match="at least one visited row; got none"):
        complete(TRUTH, none)
    with pytest.raises(TypeError, match="observed must be an array of bool; got int64"):
        complete(TRUTH, INSIDE.astype(np.int64))
    with pytest.raises(ValueError, match=r"observed must have shape \(100,\)"):
        complete(TRUTH, INSIDE[:5])
    with pytest.raises(ValueError, match="square matrix"):
        complete(TRUTH[:5], INSIDE)
    bad = TRUTH.copy()
    bad[26, 3] = np.nan
    with pytest.raises(ValueError, match=r"finite and non-negative; got nan at \(26, 3\)"):
        complete(bad, INSIDE)
    bad[26] = TRUTH[26] * 0.5
    with pytest.raises(ValueError, match=r"sum to 1 where observed; got 0\.5 at row 26"):
        complete(bad, INSIDE)
    bad[26], bad[27] = TRUTH[26], np.nan
    assert np.isfinite(complete(bad, INSIDE)).all()
    with pytest.raises(ValueError, match="method must be one of"):
        complete(TRUTH, INSIDE, method="kriging")
    with pytest.raises(ValueError, match="extrapolation must be one of"):
        complete(TRUTH, INSIDE, extrapolation="guess")
    with pytest.raises(ValueError, match="visits must have length 100; got 3"):
        complete(TRUTH, INSIDE, visits=[1, 2, 3])
    with pytest.raises(
        ValueError, match=r"visits must be positive where observed; got 0\.0 at index 20"
    ):
        complete(TRUTH, INSIDE, visits=np.zeros(N))
