"""The prior of gradients: covariances by hand, slopes by differences, evidence for what is true."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from sgdmc.forecasting.curlfree import (
    _COMMON,
    _CROSSED,
    _CURVATURE,
    _LENGTH,
    _RIPPLE,
    _SHIFT,
    Posterior,
    Prior,
    _slopes,
    fit_posterior,
)

KINDS = [(True, True), (True, False), (False, True)]


def prior_of(dim, *, parabola=True, ripple=True, seed=0):
    rng = np.random.default_rng(seed)
    parts = [*rng.uniform(-0.8, 0.5, size=dim + 1)] if ripple else []
    parts += [-0.4, -0.7] if parabola else []
    return Prior(parabola, ripple, rng.uniform(0.5, 1.5, size=dim), np.array([*parts, -2.0]))


def points_of(n, dim, seed=1):
    return np.random.default_rng(seed).normal(scale=0.6, size=(n, dim))


def parabola_by_hand(prior, z):
    """Maps independent Gaussians to ``H z + b``: (n dim, number of Gaussians)."""
    n, dim = z.shape
    on, crossed = np.exp(prior.theta[-3]), np.exp(prior.theta[-3] + prior.theta[-2])
    columns = []
    for i in range(dim):
        columns.append(np.zeros((n, dim)))  # b_i
        columns[-1][:, i] = _SHIFT
        columns.append(np.zeros((n, dim)))  # H_ii
        columns[-1][:, i] = on * z[:, i]
        for j in range(i):  # H_ij = H_ji
            columns.append(np.zeros((n, dim)))
            columns[-1][:, i] = crossed / np.sqrt(2) * z[:, j]
            columns[-1][:, j] = crossed / np.sqrt(2) * z[:, i]
    columns.append(_COMMON * prior.common * z)  # the curvature that all parameters share
    return np.stack([c.ravel() for c in columns], axis=1)


def test_ripple_is_the_mixed_derivative_of_the_kernel():
    prior = prior_of(3, parabola=False)
    a, b = points_of(3, 3), points_of(2, 3, seed=2)
    lengths = np.exp(prior.theta[:3])
    variance = np.exp(2 * prior.theta[3] + 2 * prior.theta[:3].mean())

    def kernel(x, y):
        return variance * np.exp(-0.5 * (((x - y) / lengths) ** 2).sum())

    h, eye = 1e-4, np.eye(3)
    found = prior.covariance(a, b).reshape(3, 3, 2, 3)
    for p, i, q, j in np.ndindex(found.shape):
        sides = [
            s * t * kernel(a[p] + s * h * eye[i], b[q] + t * h * eye[j])
            for s in (1, -1)
            for t in (1, -1)
        ]
        assert found[p, i, q, j] == pytest.approx(sum(sides) / (4 * h**2), abs=1e-5)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_parabola_is_a_symmetric_matrix_of_gaussians_and_a_shift(dim):
    prior = prior_of(dim, ripple=False)
    a, b = points_of(4, dim), points_of(3, dim, seed=2)
    expected = parabola_by_hand(prior, a) @ parabola_by_hand(prior, b).T
    np.testing.assert_allclose(prior.covariance(a, b), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize(("parabola", "ripple"), KINDS)
def test_covariances_are_symmetric_and_never_negative(dim, parabola, ripple):
    prior = prior_of(dim, parabola=parabola, ripple=ripple)
    z = points_of(8, dim)
    whole = prior.covariance(z, z)
    np.testing.assert_allclose(whole, whole.T, rtol=1e-13, atol=1e-15)
    assert np.linalg.eigvalsh(whole)[0] > -1e-12 * np.trace(whole)


def test_parabola_and_ripple_add_up():
    both, z = prior_of(2), points_of(5, 2)
    ripple = Prior(False, True, both.common, both.theta[[0, 1, 2, -1]])
    parabola = Prior(True, False, both.common, both.theta[3:])
    expected = ripple.covariance(z, z) + parabola.covariance(z, z)
    np.testing.assert_allclose(both.covariance(z, z), expected, rtol=1e-12)
    assert both.error == pytest.approx(np.exp(-4.0))


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize(("parabola", "ripple"), KINDS)
def test_slopes_are_differences_of_the_covariance(dim, parabola, ripple):
    prior = prior_of(dim, parabola=parabola, ripple=ripple)
    z = points_of(5, dim)
    weight = np.random.default_rng(3).normal(size=(5, dim, 5, dim))
    found = np.zeros(dim + 3)
    _slopes(z, prior.common, *prior.scales, weight, found)
    flat, h = weight.reshape(5 * dim, 5 * dim), 1e-5
    expected = []
    for row in h * np.eye(len(prior.theta))[:-1]:  # the error is no part of the covariance
        up, down = (
            Prior(parabola, ripple, prior.common, prior.theta + s * row).covariance(z, z)
            for s in (1, -1)
        )
        expected.append((flat * (up - down)).sum() / (2 * h))
    named = [*found[: dim + 1]] * ripple + [*found[dim + 1 :]] * parabola
    np.testing.assert_allclose(named, expected, rtol=1e-6, atol=1e-8)
    if not ripple:
        assert (found[: dim + 1] == 0).all()
    if not parabola:
        assert (found[dim + 1 :] == 0).all()


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize(("parabola", "ripple"), KINDS)
def test_mean_is_the_covariance_with_what_was_solved(dim, parabola, ripple):
    prior = prior_of(dim, parabola=parabola, ripple=ripple)
    seen, z = points_of(6, dim), points_of(9, dim, seed=2)
    solved = np.random.default_rng(4).normal(size=seen.shape)
    posterior = Posterior(prior, seen, np.eye(seen.size), solved, np.ones_like(seen), 0.0)
    expected = (prior.covariance(z, seen) @ solved.ravel()).reshape(z.shape)
    np.testing.assert_allclose(posterior.mean(z), expected, rtol=1e-10, atol=1e-12)


HESSIAN, SHIFT = np.array([[1.2, 0.7], [0.7, 1.5]]), np.array([0.3, -0.2])


def quadratic(z):
    return z @ HESSIAN + SHIFT


def curved(z):
    """Of a double well along the first coordinate."""
    return np.stack([4 * z[:, 0] * (z[:, 0] ** 2 - 0.25), z[:, 1]], axis=1)


def fitted(gradient, *, parabola=True, ripple=True, noise=1e-6, n=40):
    z = np.random.default_rng(5).uniform(-0.8, 0.8, size=(n, 2))
    rng = np.random.default_rng(6)
    values = gradient(z) + np.sqrt(noise) * rng.normal(size=z.shape)
    unit = np.sqrt((values**2).mean())
    noise = np.full(z.shape, noise / unit**2)
    found = fit_posterior(z, values / unit, noise, np.ones(2), parabola=parabola, ripple=ripple)
    return found, unit


def test_an_exact_parabola_is_recovered_and_goes_on_beyond_the_points():
    posterior, unit = fitted(quadratic, ripple=False, n=10)
    far = np.random.default_rng(7).uniform(-5, 5, size=(20, 2))
    np.testing.assert_allclose(posterior.mean(far) * unit, quadratic(far), atol=0.05)
    assert posterior.prior.error < 1e-4


def test_a_process_alone_interpolates_a_curved_gradient_and_ends():
    posterior, unit = fitted(curved, parabola=False)
    near = np.random.default_rng(7).uniform(-0.6, 0.6, size=(20, 2))
    np.testing.assert_allclose(posterior.mean(near) * unit, curved(near), atol=0.1)
    np.testing.assert_allclose(posterior.mean(np.full((1, 2), 100.0)), 0.0, atol=1e-10)


def test_evidence_is_for_the_parabola_of_a_quadratic_and_against_it_where_the_gradient_curves():
    for gradient, sign in ((quadratic, 1), (curved, -1)):
        alone = fitted(gradient, ripple=False, noise=1e-3)[0].evidence
        around = fitted(gradient, noise=1e-3)[0].evidence
        assert sign * (alone - around) > 0
    # The curved one by far: no number of its size is luck.
    assert around - alone > 20


def test_evidence_is_the_density_of_the_gradients_and_largest_where_it_was_found():
    posterior, unit = fitted(curved, noise=1e-3)
    z = posterior.points
    covariance = posterior.factor @ posterior.factor.T
    observed = covariance @ posterior.solved.ravel()
    beliefs = np.array([_LENGTH, _LENGTH, _RIPPLE, _CURVATURE, _CROSSED, (0.0, np.inf)])

    def density(theta):
        prior = Prior(True, True, np.ones(2), theta)
        whole = prior.covariance(z, z) + (1e-3 / unit**2 + prior.error) * np.eye(z.size)
        value = multivariate_normal.logpdf(observed, cov=whole) + z.size / 2 * np.log(2 * np.pi)
        return value - 0.5 * (((theta - beliefs[:, 0]) / beliefs[:, 1]) ** 2).sum()

    best = posterior.prior.theta
    assert posterior.evidence == pytest.approx(density(best), rel=1e-6)
    for row in 0.1 * np.eye(len(best)):
        assert density(best + row) < posterior.evidence + 0.05
        assert density(best - row) < posterior.evidence + 0.05
