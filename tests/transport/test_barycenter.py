"""Barycenters on a line, against exact answers and against POT where it converges."""

import numpy as np
import ot
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sgdmc.transport.barycenter import (
    NotConvergedWarning,
    debiased_barycenter,
    debiased_barycenters,
    entropic_barycenter,
    quantile_barycenter,
)


def gaussian(n, mean, width):
    p = np.exp(-((np.arange(n) - mean) ** 2) / (2 * width**2))
    return p / p.sum()


def dirac(n, state):
    return np.eye(n)[state]


def moments(p):
    states = np.arange(p.shape[-1])
    mean = p @ states
    return mean, np.sqrt(np.maximum(p @ states**2 - mean**2, 0))


@pytest.mark.parametrize(
    ("width", "reg"),
    [(4.0, 1e-3), (4.0, 1e-4), (4.0, 1e-5), (12.0, 1e-2), (12.0, 1e-3), (12.0, 1e-4)],
)
@pytest.mark.parametrize("weight", [0.5, 0.3, 0.123])
def test_equal_gaussians_keep_their_width(reg, width, weight):
    n = 400
    rows = [gaussian(n, 120, width), gaussian(n, 280, width)]
    result = debiased_barycenter(rows, weights=[weight, 1 - weight], reg=reg)
    mean, spread = moments(result.histogram)
    assert result.converged
    assert spread == pytest.approx(width, rel=1e-4)
    assert mean == pytest.approx(120 * weight + 280 * (1 - weight), abs=1e-3)


def test_the_entropic_barycenter_is_wider_by_half_of_reg():
    n, reg, width = 400, 1e-3, 12.0
    rows = [gaussian(n, 120, width), gaussian(n, 280, width)]
    result = entropic_barycenter(rows, reg=reg)
    blur = n**2 * reg / 2
    assert result.converged
    assert moments(result.histogram)[1] ** 2 == pytest.approx(width**2 + blur, rel=0.02)


def test_gaussians_of_unequal_width_average_their_widths_as_reg_falls():
    n = 400
    rows = [gaussian(n, 150, 8.0), gaussian(n, 250, 24.0)]
    result = debiased_barycenter(rows, weights=[0.25, 0.75], reg=1e-4, max_iter=5000)
    assert moments(result.histogram) == pytest.approx((225, 20.0), rel=2e-2)


@pytest.mark.parametrize("reg", [1e-1, 1e-3, 1e-4, 1e-5, 1e-7])
@pytest.mark.parametrize("debias", [True, False])
def test_diracs_and_disjoint_supports_give_no_nan(reg, debias):
    n = 100
    split = 0.5 * (gaussian(n, 10, 1.0) + gaussian(n, 85, 1.0))
    box = np.where((np.arange(n) >= 30) & (np.arange(n) < 40), 0.1, 0.0)
    rows = np.array([dirac(n, 0), dirac(n, 99), split, box, np.full(n, 1 / n)])
    pairs = [(i, j) for i in range(5) for j in range(5)]
    result = debiased_barycenters(
        rows, members=pairs, weights=[[0.4, 0.6]] * 25, reg=reg, debiased=debias, max_iter=50
    )
    assert np.isfinite(result.histogram).all()
    assert np.isfinite(result.residual).all()
    assert (result.histogram >= 0).all()
    np.testing.assert_allclose(result.histogram.sum(axis=1), 1, rtol=1e-13)


@pytest.mark.parametrize("reg", [1e-2, 1e-3, 1e-4, 1e-5])
def test_the_barycenter_of_diracs_is_a_dirac(reg):
    result = debiased_barycenter(
        [dirac(101, 10), dirac(101, 50), dirac(101, 90)], weights=[0.25, 0.5, 0.25], reg=reg
    )
    assert result.converged
    assert result.histogram[50] == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("reg", [1e-3, 1e-4])
def test_one_histogram_is_its_own_barycenter(reg):
    row = np.random.default_rng(0).dirichlet(np.ones(80))
    result = debiased_barycenter([row], reg=reg)
    np.testing.assert_allclose(result.histogram, row, atol=2e-6)
    same = debiased_barycenter([row, row, row], weights=[0.2, 0.3, 0.5], reg=reg)
    np.testing.assert_allclose(same.histogram, row, atol=2e-6)


def test_equal_to_pot_where_pot_converges():
    n, reg = 60, 2.5e-3
    rows = np.array([gaussian(n, 20, 4.8), gaussian(n, 36, 4.8)])
    weights = np.array([0.25, 0.75])
    states = np.arange(n)
    cost = ((states[:, None] - states) / n) ** 2
    options = {"weights": weights, "numItermax": 2000, "stopThr": 1e-14, "warn": False}
    ours = debiased_barycenter(rows, weights=weights, reg=reg, tol=1e-6, max_iter=5000)
    theirs = ot.bregman.barycenter_debiased(rows.T, cost, reg, method="sinkhorn", **options)
    assert np.abs(ours.histogram - theirs / theirs.sum()).sum() < 1e-4
    gibbs, b = np.exp(-cost / reg), np.ones((2, n))
    for _ in range(2000):  # the entropic one by its definition: POT's drifts with unequal weights
        plan = (rows / (b @ gibbs)) @ gibbs
        expected = np.exp(weights @ np.log(plan))
        b = expected / plan
    ours = entropic_barycenter(rows, weights=weights, reg=reg, tol=1e-9)
    np.testing.assert_allclose(ours.histogram, expected, atol=1e-10)


def test_many_problems_are_the_single_ones():
    rng = np.random.default_rng(1)
    rows = np.array([gaussian(150, m, w) for m, w in rng.uniform([40, 4], [110, 9], (9, 2))])
    members = rng.integers(0, 9, (21, 3))
    weights = rng.dirichlet(np.ones(3), 21)
    weights[4] = [1, 0, 0]
    many = debiased_barycenters(
        rows, members=members, weights=weights, reg=1e-3, tol=1e-4, n_threads=2
    )
    again = debiased_barycenters(
        rows, members=members, weights=weights, reg=1e-3, tol=1e-4, n_threads=1
    )
    assert (many.histogram == again.histogram).all()
    for p in range(21):
        one = debiased_barycenter(rows[members[p]], weights=weights[p], reg=1e-3, tol=1e-4)
        np.testing.assert_allclose(many.histogram[p], one.histogram, atol=1e-12)
        assert many.n_iter[p] == one.n_iter
    none = debiased_barycenters(
        rows, members=np.empty((0, 2), int), weights=np.empty((0, 2)), reg=1
    )
    assert none.histogram.shape == (0, 150)


def test_the_residual_says_when_it_has_not_settled():
    rng = np.random.default_rng(2)
    rows = rng.dirichlet(np.full(100, 0.2), 2)
    with pytest.warns(NotConvergedWarning, match="not settled after 3 iterations"):
        result = debiased_barycenter(rows, reg=1e-4, max_iter=3)
    assert not result.converged
    assert result.n_iter == 3
    assert result.residual > 1e-6


@settings(max_examples=25, deadline=None)
@given(arrays(np.float64, (2, 30), elements=st.floats(0.01, 1)), st.floats(0, 1))
def test_shifting_all_rows_shifts_the_barycenter(raw, weight):
    rows = np.zeros((2, 60))
    rows[:, 10:40] = raw / raw.sum(axis=1, keepdims=True)
    exact = quantile_barycenter(rows, weights=[weight, 1 - weight])
    moved = quantile_barycenter(np.roll(rows, 7, axis=1), weights=[weight, 1 - weight])
    np.testing.assert_allclose(np.roll(exact, 7), moved, atol=1e-13)
    assert moments(exact)[0] == pytest.approx(
        weight * moments(rows[0])[0] + (1 - weight) * moments(rows[1])[0], abs=0.1
    )


def test_quantile_barycenter_by_hand():
    assert quantile_barycenter([[1, 0, 0], [0, 0, 1]]).tolist() == [0, 1, 0]
    third = quantile_barycenter([[0.5, 0, 0.5], [0, 1, 0]])  # even on [1/2, 5/4] and [7/4, 5/2]
    assert third == pytest.approx([1 / 3, 1 / 3, 1 / 3])
    assert quantile_barycenter([[1.0]]).tolist() == [1.0]
    assert quantile_barycenter([[0.2, 0.8], [0.2, 0.8]]) == pytest.approx([0.2, 0.8])
    wide = quantile_barycenter([gaussian(300, 100, 10), gaussian(300, 200, 30)])
    assert moments(wide) == pytest.approx((150, 20), rel=5e-3)


@pytest.mark.parametrize("reg", [1e-1, 1e-3])
def test_one_bin(reg):
    assert debiased_barycenter([[1.0], [1.0]], reg=reg).histogram.tolist() == [1.0]


@pytest.mark.parametrize(
    ("histograms", "options", "message"),
    [
        ([[0.5, np.nan]], {}, "histograms must be finite; got nan"),
        ([[1.5, -0.5]], {}, r"histograms must be non-negative; got -0.5 at \(0, 1\)"),
        ([[0.5, 0.5], [0.5, 0.4]], {}, "histograms must sum to 1; got 0.9 at row 1"),
        (np.empty((0, 3)), {}, "histograms must not be empty"),
        ([0.5, 0.5], {}, "histograms must have 2 axes"),
        ([[0.5, 0.5]], {"weights": [0.5, 0.5]}, "weights must have length 1; got 2"),
        ([[0.5, 0.5]] * 2, {"weights": [1.5, -0.5]}, "weights must be non-negative; got -0.5"),
        ([[0.5, 0.5]] * 2, {"weights": [0.5, 0.4]}, "weights must sum to 1; got 0.9"),
        ([[0.5, 0.5]], {"reg": 0.0}, "reg must be positive"),
        ([[0.5, 0.5]], {"tol": -1.0}, "tol must be positive"),
        ([[0.5, 0.5]], {"max_iter": 0}, "max_iter must be at least 1"),
        ([[0.5, 0.5]], {"backend": "gpu"}, "backend must be one of"),
    ],
)
def test_bad_input(histograms, options, message):
    with pytest.raises(ValueError, match=message):
        debiased_barycenter(histograms, **{"reg": 0.01, **options})


def test_bad_members():
    rows = np.eye(3)
    with pytest.raises(ValueError, match=r"members must lie in \[0, 3\); got 3"):
        debiased_barycenters(rows, members=[[0, 3]], weights=[[0.5, 0.5]], reg=0.1)
    with pytest.raises(ValueError, match=r"weights must have the shape of members"):
        debiased_barycenters(rows, members=[[0, 1]], weights=[[1.0]], reg=0.1)
    with pytest.raises(ValueError, match=r"weights of problem 1 must sum to 1"):
        debiased_barycenters(rows, members=[[0], [1]], weights=[[1.0], [0.5]], reg=0.1)
