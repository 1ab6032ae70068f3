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
    Mixture,
    Posterior,
    Prior,
    Space,
    fit_posterior,
)

# Parabola, process, generalised linear model.
KINDS = [
    (True, True, False),
    (True, False, False),
    (False, True, False),
    (True, False, True),
    (False, False, True),
    (True, True, True),
]


def space_of(dim, rng):
    root = rng.normal(size=(dim, dim))
    zero, stretch = rng.normal(size=dim), rng.uniform(0.5, 1.5, size=dim)
    return Space(root @ root.T / dim + 0.3 * np.eye(dim), zero, stretch)


def prior_of(dim, kind=(True, True, False), seed=0):
    parabola, ripple, ridges = kind
    rng = np.random.default_rng(seed)
    parts = [*rng.uniform(-0.8, 0.5, size=dim + 1)] if ripple else []
    parts += [-0.6, -0.9] if ridges else []
    parts += [-0.4, -0.7] if parabola else []
    return Prior(*kind, space_of(dim, rng), np.array([*parts, -2.0]))


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
    columns.append(_COMMON * z @ prior.space.common)  # the curvature that all directions share
    return np.stack([c.ravel() for c in columns], axis=1)


def test_ripple_is_the_mixed_derivative_of_the_kernel():
    prior = prior_of(3, (False, True, False))
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
    prior = prior_of(dim, (True, False, False))
    a, b = points_of(4, dim), points_of(3, dim, seed=2)
    expected = parabola_by_hand(prior, a) @ parabola_by_hand(prior, b).T
    np.testing.assert_allclose(prior.covariance(a, b), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_covariances_are_symmetric_and_never_negative(dim, kind):
    prior = prior_of(dim, kind)
    z = points_of(8, dim)
    whole = prior.covariance(z, z)
    np.testing.assert_allclose(whole, whole.T, rtol=1e-13, atol=1e-15)
    assert np.linalg.eigvalsh(whole)[0] > -1e-12 * np.trace(whole)


def test_parts_add_up():
    whole, z = prior_of(2, (True, True, True)), points_of(5, 2)
    picks = {
        (False, True, False): [0, 1, 2],
        (False, False, True): [3, 4],
        (True, False, False): [5, 6],
    }
    parts = [Prior(*kind, whole.space, whole.theta[[*at, -1]]) for kind, at in picks.items()]
    expected = sum(part.covariance(z, z) for part in parts)
    np.testing.assert_allclose(whole.covariance(z, z), expected, rtol=1e-12)
    assert whole.error == pytest.approx(np.exp(-4.0))


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_slopes_are_differences_of_the_covariance(dim, kind):
    prior = prior_of(dim, kind)
    z = points_of(5, dim)
    weight = np.random.default_rng(3).normal(size=(5, dim, 5, dim))
    flat, h = weight.reshape(5 * dim, 5 * dim), 1e-5
    expected = []
    for row in h * np.eye(len(prior.theta))[:-1]:  # the error is no part of the covariance
        up, down = (
            Prior(*kind, prior.space, prior.theta + s * row).covariance(z, z) for s in (1, -1)
        )
        expected.append((flat * (up - down)).sum() / (2 * h))
    np.testing.assert_allclose(prior.slopes(z, weight), expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_mean_is_the_covariance_with_what_was_solved(dim, kind):
    prior = prior_of(dim, kind)
    seen, z = points_of(6, dim), points_of(9, dim, seed=2)
    solved = np.random.default_rng(4).normal(size=seen.shape)
    posterior = Posterior(prior, seen, np.eye(seen.size), solved, np.ones_like(seen), 0.0)
    expected = (prior.covariance(z, seen) @ solved.ravel()).reshape(z.shape)
    np.testing.assert_allclose(posterior.mean(z), expected, rtol=1e-10, atol=1e-12)


def test_posteriors_are_mixed_by_their_evidence():
    z, prior = points_of(4, 2), prior_of(2)
    solved = np.random.default_rng(4).normal(size=(4, *z.shape))
    evidence = [3.0, 3.0 + np.log(2), -9.0, 3.0]
    made = [
        Posterior(prior, z, np.eye(z.size), part, np.ones_like(z), value)
        for part, value in zip(solved, evidence, strict=True)
    ]
    mixture = Mixture.of(made, np.zeros(4))
    # One of e⁻¹² times the others' density is left out.
    assert mixture.posteriors == (made[0], made[1], made[3])
    np.testing.assert_allclose(mixture.weights, [0.25, 0.5, 0.25])
    at = points_of(3, 2, seed=8)
    parts = [made[k].mean(at) for k in (0, 1, 3)]
    np.testing.assert_allclose(mixture.mean(at), (parts[0] + 2 * parts[1] + parts[2]) / 4)
    # Odds beforehand count as much as evidence does.
    np.testing.assert_allclose(
        Mixture.of(made, [np.log(2), 0, 12, 0]).weights, [2 / 6, 2 / 6, 1 / 6, 1 / 6], rtol=1e-12
    )
    halved = Mixture.of(made, np.zeros(4), trust=0.5).weights
    np.testing.assert_allclose(halved, np.array([1, 2**0.5, 1]) / (2 + 2**0.5))
    assert mixture.points is z
    assert mixture.shares(8) == [2, 4, 2]
    for n in (1, 2, 3, 26):
        assert sum(mixture.shares(n)) == n


HESSIAN, SHIFT = np.array([[1.2, 0.7], [0.7, 1.5]]), np.array([0.3, -0.2])


def quadratic(z):
    return z @ HESSIAN + SHIFT


def curved(z):
    """Of a double well along the first coordinate."""
    return np.stack([4 * z[:, 0] * (z[:, 0] ** 2 - 0.25), z[:, 1]], axis=1)


ROUND = Space(np.eye(2), np.zeros(2), np.ones(2) / np.sqrt(1.28))


def fitted(gradient, *, parabola=True, ripple=True, ridges=False, noise=1e-6, n=40, reach=0.8):
    z = np.random.default_rng(5).uniform(-reach, reach, size=(n, 2))
    rng = np.random.default_rng(6)
    values = gradient(z) + np.sqrt(noise) * rng.normal(size=z.shape)
    unit = np.sqrt((values**2).mean())
    noise = np.full(z.shape, noise / unit**2)
    found = fit_posterior(
        z, values / unit, noise, ROUND, parabola=parabola, ripple=ripple, ridges=ridges
    )
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
        prior = Prior(True, True, False, ROUND, theta)
        whole = prior.covariance(z, z) + (1e-3 / unit**2 + prior.error) * np.eye(z.size)
        value = multivariate_normal.logpdf(observed, cov=whole) + z.size / 2 * np.log(2 * np.pi)
        return value - 0.5 * (((theta - beliefs[:, 0]) / beliefs[:, 1]) ** 2).sum()

    best = posterior.prior.theta
    assert posterior.evidence == pytest.approx(density(best), rel=1e-6)
    for row in 0.1 * np.eye(len(best)):
        assert density(best + row) < posterior.evidence + 0.05
        assert density(best - row) < posterior.evidence + 0.05
