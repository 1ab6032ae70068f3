"""Gradients of generalised linear models: covariances by quadrature, and what they extrapolate."""

from itertools import product

import numpy as np
import pytest
from numpy.polynomial.hermite_e import hermegauss
from scipy.special import erf, ndtr
from tests.forecasting.test_curlfree import ROUND, fitted

from sgdmc.forecasting.ridges import _arctangents, add_covariance, add_ridges, draw_ridges


def covariance(x, y, *, own=1.0, shared=0.0, stretch=None):
    dim = x.shape[1]
    out = np.zeros((len(x), dim, len(y), dim))
    add_covariance(x, y, np.ones(dim) if stretch is None else stretch, own, shared, out)
    return out


def points_of(n, dim, seed, scale=1.0):
    return np.random.default_rng(seed).normal(scale=scale, size=(n, dim))


@pytest.mark.parametrize("dim", [1, 2])
def test_covariance_is_the_mean_over_gaussian_directions(dim):
    x, y = points_of(3, dim, 1), points_of(2, dim, 2)
    nodes, weights = hermegauss(80)
    w = np.array(list(product(nodes, repeat=dim)))
    mass = np.array([np.prod(m) for m in product(weights / weights.sum(), repeat=dim)])
    left, right = (ndtr(z @ w.T) - 0.5 for z in (x, y))
    expected = np.einsum("k,pk,qk,ki,kj->piqj", mass, left, right, w, w)
    np.testing.assert_allclose(covariance(x, y), expected, atol=1e-10)


def test_small_parameters_have_the_covariance_of_a_parabola_and_large_ones_saturate():
    x, y = points_of(3, 2, 1), points_of(2, 2, 2)
    # (Φ(w·x) − ½) ≈ w·x / √(2π): fourth moments of Gaussians.
    linear = np.einsum("pq,ij->piqj", x @ y.T, np.eye(2)) + np.einsum("pi,qj->piqj", x, y)
    linear += np.einsum("qi,pj->piqj", y, x)
    small = covariance(1e-4 * x, 1e-4 * y) / 1e-8
    np.testing.assert_allclose(small, linear / (2 * np.pi), rtol=1e-6)
    # Far away a gradient is that of its direction alone.
    np.testing.assert_allclose(
        covariance(1e6 * x, 1e6 * y), covariance(1e7 * x, 1e7 * y), rtol=1e-5
    )
    assert np.isfinite(covariance(1e6 * x, 1e6 * x)).all()


def drawn_gradients(x, directions, weights, share=(0.0,), *, which=None, stretch=None):
    out = np.zeros_like(x)
    which = np.zeros(len(x), dtype=np.int64) if which is None else which
    stretch = np.ones(x.shape[1]) if stretch is None else stretch
    share = np.resize(np.array(share), len(weights))
    add_ridges(x, which, np.array(directions), np.array(weights), share, stretch, out)
    return out


def test_what_is_shared_is_the_mean_gradient():
    x, y, stretch = points_of(3, 2, 1), points_of(2, 2, 2), np.array([2.0, 0.5])
    # E[w (Φ(w·x) − ½)] = E[φ(w·x)] x = x / √(2π (1 + |x|²)).
    w = np.random.default_rng(0).normal(size=(400_000, 2))
    mean = ((ndtr(x @ w.T) - 0.5) @ w) / len(w) * np.sqrt(2 * np.pi)
    np.testing.assert_allclose(
        drawn_gradients(x, w[:1].T[None], [[1.0]]), (ndtr(x @ w[:1].T) - 0.5) @ w[:1]
    )
    found, other = (drawn_gradients(z, w[:1].T[None], [[0.0]], [1.0]) for z in (x, y))
    np.testing.assert_allclose(found, mean, atol=0.01)
    only = covariance(x, y, own=0.0, shared=3.0, stretch=stretch)
    np.testing.assert_allclose(
        only, 3.0 * np.einsum("pi,qj->piqj", found * stretch, other * stretch), rtol=1e-12
    )


def test_covariances_belong_to_gradients():
    x, y, h = points_of(1, 3, 1), points_of(1, 3, 2), 1e-5
    slopes = np.stack(
        [
            (covariance(x + h * e, y, shared=0.7) - covariance(x - h * e, y, shared=0.7))[0, :, 0]
            for e in np.eye(3)
        ]
    ) / (2 * h)
    np.testing.assert_allclose(slopes, slopes.swapaxes(0, 1), atol=1e-9)


def test_drawn_losses_have_the_covariance():
    x, n = points_of(2, 2, 5), 6000
    directions, weights, share = draw_ridges(n, 2, np.random.default_rng(3))
    at, which = np.tile(x, (n, 1)), np.repeat(np.arange(n), 2)
    draws = drawn_gradients(at, directions, weights, which=which).reshape(n, 4)
    whole = covariance(x, x).reshape(4, 4)
    unit = np.sqrt(np.diag(whole))
    np.testing.assert_allclose(
        np.cov(draws.T) / np.outer(unit, unit), whole / np.outer(unit, unit), atol=0.09
    )
    assert share.var() == pytest.approx(1.0, abs=0.1)


def test_links_side_by_side():
    x = np.concatenate([-np.logspace(-9, 9, 50), [0.0], np.logspace(-9, 9, 50)])[:, None]
    weights = np.random.default_rng(0).normal(size=128)
    found = drawn_gradients(x, np.ones((1, 1, 128)), [weights])
    # What of Φ lies beyond 7 is left out.
    link = 0.5 * erf(x / np.sqrt(2))
    np.testing.assert_allclose(found, link * weights.sum(), rtol=1e-10, atol=1e-20)


def test_arctangents_side_by_side():
    over = np.concatenate([-np.logspace(-9, 9, 200), [0.0], np.logspace(-9, 9, 200)])
    found, room = np.empty_like(over), np.empty_like(over)
    _arctangents(over, room, found)
    np.testing.assert_allclose(found, np.arctan(over), rtol=1e-14, atol=1e-300)


def logistic(z, mixing=((1.0, 0.4), (0.4, 0.8)), slope=4.0, shift=(0.3, -0.5)):
    """Mean gradient of a logistic regression with 4000 Gaussian samples."""
    w = np.random.default_rng(9).normal(size=(4000, 2)) @ np.linalg.cholesky(mixing).T
    return (1 / (1 + np.exp(-slope * z @ w.T)) - 0.5) @ w / len(w) + np.array(shift) * 0.2


def test_a_logistic_gradient_is_known_far_beyond_the_points():
    far = np.random.default_rng(7).uniform(-3, 3, size=(40, 2))
    truth = logistic(far)
    errors, evidence = [], []
    for kind in ({"ripple": False, "ridges": True}, {"ripple": True}, {"ripple": False}):
        posterior, unit = fitted(logistic, noise=1e-5, **kind)
        errors.append(
            np.sqrt(((posterior.mean(far) * unit - truth) ** 2).mean() / (truth**2).mean())
        )
        evidence.append(posterior.evidence)
    # A process around a parabola ends where points end, and a parabola never does.
    assert errors[0] < 0.1
    assert min(errors[1:]) > 3 * errors[0]
    assert evidence[0] > max(evidence[1:]) + 5


def test_zero_is_where_the_model_bends():
    def moved(z):
        return logistic(z - ROUND.zero + 0.6)

    ends = [fitted(f, ripple=False, ridges=True, noise=1e-5)[0].evidence for f in (logistic, moved)]
    assert ends[0] > ends[1] + 5
