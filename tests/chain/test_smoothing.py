"""Classical smoothing: hand-checked rows, invariants, the published figures."""

from pathlib import Path

import numpy as np
import pytest
from scipy.special import ndtr

from sgdmc.chain.distances import kl_divergence
from sgdmc.chain.smoothing import _phi, ar1_kde_kernel, ar1_kernel, kernel_smoothed_kernel

DATA = Path(__file__).parents[1] / "data"
ALL = (kernel_smoothed_kernel, ar1_kernel, ar1_kde_kernel)


@pytest.fixture(scope="module")
def line():
    """An autoregression with exponential noise on 100 bins."""
    rng = np.random.default_rng(0)
    x, path = 50.0, []
    for _ in range(400):
        path.append(int(np.clip(x, 0, 99)))
        x = 10 + 0.8 * x + 4 * (rng.exponential() - 1)
    return np.array(path)


@pytest.mark.parametrize("estimate", ALL)
def test_rows_are_positive_laws(estimate, line):
    P = estimate(line, n_states=100)
    assert P.shape == (100, 100)
    assert np.allclose(P.sum(axis=1), 1.0)
    assert P.min() >= 0.01 / 100 * (1 - 1e-9)


@pytest.mark.parametrize("estimate", ALL)
def test_mirrored_states_give_the_mirrored_kernel(estimate, line):
    P = estimate(line, n_states=100)
    mirrored = estimate(99 - line, n_states=100)
    assert np.allclose(mirrored[::-1, ::-1], P, atol=1e-9)


@pytest.mark.parametrize("estimate", ALL)
def test_no_transition_is_counted_across_runs(estimate, line):
    whole = estimate([line[:200], line[200:]], n_states=100)
    assert not np.allclose(whole, estimate(line, n_states=100), atol=0)
    twice = estimate([line, np.array([3])], n_states=100)
    assert np.array_equal(twice, estimate(line, n_states=100))


def test_ar1_is_the_gaussian_of_the_least_squares_line():
    from scipy.stats import norm

    states = np.array([10, 30, 20, 40, 30, 50, 40])
    x, y = states[:-1] + 0.5, states[1:] + 0.5
    slope, shift = np.polyfit(x, y, 1)
    noise = np.sqrt(((y - shift - slope * x) ** 2).sum() / (len(x) - 2))
    edges = np.r_[-np.inf, 1:60, np.inf]
    cdf = norm.cdf(edges, loc=shift + slope * 25.5, scale=noise)
    expected = 0.99 * np.diff(cdf) + 0.01 / 60
    assert np.allclose(ar1_kernel(states, n_states=60)[25], expected, atol=1e-12)


def test_residual_density_finds_skewness_that_ar1_cannot(line):
    rng = np.random.default_rng(1)
    start = 50.0
    nxt = 10 + 0.8 * start + 4 * (rng.exponential(size=100_000) - 1)
    truth = np.bincount(np.clip(nxt, 0, 99).astype(int), minlength=100) / 100_000
    truth = 0.999 * truth + 0.001 / 100
    gaussian = kl_divergence(truth, ar1_kernel(line, n_states=100)[50])
    density = kl_divergence(truth, ar1_kde_kernel(line, n_states=100)[50])
    assert density < 0.7 * gaussian


def test_figures_of_the_common_set():
    with np.load(DATA / "real_sgd_24.npz") as data:
        states, truth = data["states"] // 10, data["truth"].astype(float)
    truth /= truth.sum(axis=2, keepdims=True)
    scores = np.zeros((3, 24))
    for i in range(24):
        shown = states[i, :100]
        visits = np.bincount(shown[:-1], minlength=100) / 99
        for j, estimate in enumerate(ALL):
            scores[j, i] = visits @ kl_divergence(truth[i], estimate(shown, n_states=100))
    # Recorded before this code was written, by another implementation of the same protocol.
    assert scores.mean(axis=1) == pytest.approx([0.435, 0.465, 0.303], abs=0.004)


def test_a_constant_series_stays():
    for estimate in ALL:
        P = estimate(np.full(20, 7), n_states=20)
        assert P[7].argmax() == 7


def test_refusals():
    with pytest.raises(ValueError, match=r"states must lie in 0 .. 9; got 10 at index 1"):
        ar1_kernel([1, 10, 2], n_states=10)
    with pytest.raises(ValueError, match="at least 2 transitions at lag 3; got 1"):
        kernel_smoothed_kernel([1, 2, 3, 4], n_states=10, lag=3)
    with pytest.raises(TypeError, match="states"):
        ar1_kde_kernel([0.5, 1.5, 2.5], n_states=10)
    with pytest.raises(ValueError, match="n_states"):
        ar1_kernel([0, 0, 0], n_states=1)


def test_the_table_of_the_normal_law_is_within_its_error():
    points = np.concatenate([np.linspace(-9, 9, 20011), [-8.0, 8.0, np.inf, -np.inf]])
    found = np.array([_phi(z) for z in points])
    np.testing.assert_allclose(found, ndtr(points), rtol=0, atol=1e-11)
    inside = np.linspace(-8, 6, 20000)  # beyond, the rounding of numbers near one shows
    assert (np.diff([_phi(z) for z in inside]) > 0).all()
