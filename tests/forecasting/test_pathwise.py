"""Draws of a field have the posterior's mean and covariance, and are functions."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import kurtosis
from tests.forecasting.test_curlfree import KINDS, points_of, prior_of

from sgdmc.forecasting.curlfree import Posterior
from sgdmc.forecasting.pathwise import _add_slopes, draw_fields

GAUSSIAN = 1e9  # degrees of freedom


def posterior_of(dim, kind, k=5):
    prior = prior_of(dim, kind)
    rng = np.random.default_rng(7)
    points = points_of(k, dim)
    observed, noise = rng.normal(size=(2, k, dim))
    noise = 0.05 + 0.1 * noise**2
    factor = np.linalg.cholesky(prior.covariance(points, points) + np.diag(noise.ravel()))
    solved = np.linalg.solve(factor @ factor.T, observed.ravel()).reshape(k, dim)
    return Posterior(prior, points, factor, solved, noise, 0.0)


def gradients(draws, z):
    """Of every draw at every point: (n, m, dim)."""
    n, m = len(draws), len(z)
    found = draws(np.tile(z, (n, 1)), np.repeat(np.arange(n), m))
    return found.reshape(n, *z.shape)


def moments(posterior, z):
    across = posterior.prior.covariance(z, posterior.points)
    known = np.linalg.solve(posterior.factor @ posterior.factor.T, across.T)
    return posterior.mean(z).ravel(), posterior.prior.covariance(z, z) - across @ known


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_draws_have_the_mean_and_the_covariance_of_the_posterior(dim, kind):
    posterior = posterior_of(dim, kind)
    # At a point that was seen, near it, and far away.
    z = np.concatenate([posterior.points[:1], points_of(1, dim, seed=3), np.full((1, dim), 5.0)])
    n = 8000
    draws = draw_fields(posterior, n, freedom=GAUSSIAN, rng=np.random.default_rng(1))
    values = gradients(draws, z).reshape(n, -1)
    mean, covariance = moments(posterior, z)
    unit = np.sqrt(np.diag(covariance))
    np.testing.assert_array_less(np.abs(values.mean(axis=0) - mean), 4.5 * unit / np.sqrt(n))
    found = np.cov(values.T).reshape(covariance.shape) / np.outer(unit, unit)
    # A correlation of n Gaussian pairs is off by 1/√n, a variance by √2/√n.
    np.testing.assert_allclose(found, covariance / np.outer(unit, unit), atol=4.5 * np.sqrt(2 / n))


def test_tails_are_heavier_with_few_degrees_of_freedom():
    posterior = posterior_of(1, (True, False, False))
    z, n = np.array([[2.0]]), 20_000
    mean, covariance = moments(posterior, z)
    off = []
    for freedom in (GAUSSIAN, 8.0):
        draws = draw_fields(posterior, n, freedom=freedom, rng=np.random.default_rng(2))
        off.append(gradients(draws, z)[:, 0, 0] - mean[0])
    assert off[0].var() == pytest.approx(covariance[0, 0], rel=0.05)
    assert off[1].var() == pytest.approx(covariance[0, 0] * 8 / 6, rel=0.08)
    assert abs(kurtosis(off[0])) < 0.2
    assert kurtosis(off[1]) > 0.7  # 6/(8 − 4) of Student's t


@pytest.mark.parametrize("dim", [2, 3])
def test_each_draw_is_a_gradient(dim):
    posterior = posterior_of(dim, (True, True, True))
    draws = draw_fields(posterior, 3, freedom=5.0, rng=np.random.default_rng(3))
    z, h = points_of(4, dim, seed=9), 1e-5
    slopes = np.stack(
        [(gradients(draws, z + h * e) - gradients(draws, z - h * e)) / (2 * h) for e in np.eye(dim)]
    )
    np.testing.assert_allclose(slopes, slopes.transpose(3, 1, 2, 0), rtol=1e-6, atol=1e-6)
    # Whichever other points, and other draws, are asked for beside it.
    whole = gradients(draws, z)
    which = np.array([2, 0, 2, 1])
    np.testing.assert_allclose(draws(z, which), whole[which, np.arange(4)], rtol=1e-12)


def test_waves_side_by_side():
    rng = np.random.default_rng(0)
    z = np.concatenate([rng.normal(size=(5, 2)), [[0.0, 0.0], [300.0, -700.0]]])
    frequencies, amplitudes = rng.normal(size=(2, 128)), rng.normal(size=128)
    phases = np.concatenate([[0.0, 0.25, 0.5, 0.75, 1.0], rng.random(123)])
    found = np.ones_like(z)
    which = np.array([0, 0, 1, 1, 0, 1, 1])
    both = (np.stack([a, 2 * a]) for a in (frequencies, phases, amplitudes))
    _add_slopes(z, which, *both, found)
    by = 1.0 + which[:, None]
    slopes = by**2 * amplitudes * np.cos(2 * np.pi * by * (z @ frequencies + phases))
    np.testing.assert_allclose(found, 1.0 + 2 * np.pi * slopes @ frequencies.T, atol=1e-9)


def test_draws_of_a_seed_are_the_same():
    posterior = posterior_of(2, (True, True, True))
    z = points_of(3, 2, seed=9)
    first, same, other = (
        gradients(draw_fields(posterior, 2, freedom=5.0, rng=np.random.default_rng(s)), z)
        for s in (4, 4, 5)
    )
    np.testing.assert_array_equal(first, same)
    assert not np.allclose(first, other)


@pytest.mark.parametrize("dim", [1, 3])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind[1]])
def test_a_louder_process_is_larger_beyond_the_same_gradients(dim, kind):
    posterior = posterior_of(dim, kind)
    # The process has three times the deviation, and all else is as it was.
    prior, louder = posterior.prior, posterior.louder(3.0).prior
    (lengths, variance, parts), (same, larger, rest) = prior.scales, louder.scales
    np.testing.assert_array_equal(same, lengths)
    np.testing.assert_allclose(larger, 9.0 * variance)
    np.testing.assert_array_equal(rest, parts)
    # Moments are those that the observed gradients make of that prior.
    points, k = posterior.points, len(posterior.points)
    observed = (posterior.factor @ posterior.factor.T) @ posterior.solved.ravel()
    z = points_of(4, dim, seed=3)
    across = louder.covariance(z, points)
    noisy = louder.covariance(points, points) + np.diag(posterior.noise.ravel())
    mean, covariance = moments(posterior.louder(3.0), z)
    np.testing.assert_allclose(mean, across @ np.linalg.solve(noisy, observed), rtol=1e-8)
    left = louder.covariance(z, z) - across @ np.linalg.solve(noisy, across.T)
    np.testing.assert_allclose(covariance, left, atol=1e-8 * np.diag(left).max())
    again = posterior.louder(3.0).louder(1 / 3)
    np.testing.assert_allclose(again.solved, posterior.solved, rtol=1e-6)
    assert again.solved.shape == (k, dim)


def test_places_are_counted_in_length_scales():
    posterior = posterior_of(2, (False, True, False))
    lengths = posterior.prior.scales[0]
    spots = 100.0 * lengths * np.arange(4)[:, None]
    for points, places in ((spots, 4.0), (np.repeat(spots[:2], 30, axis=0), 2.0), (spots[:1], 1.0)):
        assert replace(posterior, points=points).places == pytest.approx(places)
    # Nine of ten points at one spot count little more than that one.
    uneven = np.concatenate([np.repeat(spots[:1], 9, axis=0), spots[1:2]])
    assert replace(posterior, points=uneven).places == pytest.approx(100 / 82)
