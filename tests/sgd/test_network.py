"""A network's gradient against differences, and subspaces against the chain rule."""

import numpy as np
import pytest
import torch

from sgdmc.sgd.network import AffineSubspaceProblem, MLPProblem
from sgdmc.sgd.problems import make_least_squares
from sgdmc.sgd.simulate import run_sgd


@pytest.fixture
def network():
    rng = np.random.default_rng(0)
    return MLPProblem(rng.normal(size=(12, 4)), rng.integers(3, size=12), hidden=5)


def test_gradient_is_that_of_the_loss(network):
    theta = network.random_parameters(1, size=2)
    exact = network.gradient(theta)
    step = 1e-6 * np.eye(network.dim)
    differences = (network.loss(theta[:, None] + step) - network.loss(theta[:, None] - step)) / 2e-6
    np.testing.assert_allclose(exact, differences, atol=1e-8)


def test_gradient_agrees_with_torch(network):
    theta = network.random_parameters(2)
    w = torch.tensor(theta, requires_grad=True)
    h, f, c = network.hidden, network.X.shape[1], 3
    W1, b1, W2, b2 = torch.split(w, [h * f, h, c * h, c])
    hidden = torch.tanh(torch.tensor(network.X) @ W1.reshape(h, f).T + b1)
    scores = hidden @ W2.reshape(c, h).T + b2
    loss = torch.nn.functional.cross_entropy(scores, torch.tensor(network.y))
    loss.backward()
    np.testing.assert_allclose(network.loss(theta), loss.item(), rtol=1e-12)
    np.testing.assert_allclose(network.gradient(theta), w.grad.numpy(), atol=1e-14)


def test_batches_average_samples(network):
    theta = network.random_parameters(3, size=2)
    batches = np.array([[0, 5, 5], [7, 1, 2]])
    by_sample = np.stack([network.gradient(theta, [i]) for i in range(network.n_samples)], axis=1)
    expected = np.stack([by_sample[c, batch].mean(axis=0) for c, batch in enumerate(batches)])
    np.testing.assert_allclose(network.gradient(theta, batches), expected, atol=1e-14)
    np.testing.assert_allclose(network.gradient(theta), by_sample.mean(axis=1), atol=1e-14)
    one = network.gradient(theta[0], batches[0])
    assert one.shape == (network.dim,)
    np.testing.assert_allclose(one, expected[0], atol=1e-14)


def test_loss_in_chunks(network, monkeypatch):
    theta = network.random_parameters(4, size=7).reshape(7, 1, -1)
    whole = network.loss(theta)
    monkeypatch.setattr("sgdmc.sgd.network._CHUNK", 1)
    assert whole.shape == (7, 1)
    np.testing.assert_allclose(network.loss(theta), whole, rtol=1e-14)


def test_subspace_is_the_chain_rule(network):
    rng = np.random.default_rng(5)
    A = rng.normal(size=(network.dim, 2))
    problem = AffineSubspaceProblem(network, network.random_parameters(6), A)
    z = rng.normal(size=(3, 2))
    w = problem.parameters(z)
    np.testing.assert_allclose(w, problem.origin + np.array([A @ row for row in z]), atol=1e-14)
    np.testing.assert_array_equal(problem.loss(z), network.loss(w))
    batch = np.array([[0, 1], [2, 3], [4, 4]])
    np.testing.assert_allclose(
        problem.gradient(z, batch), network.gradient(w, batch) @ A, atol=1e-14
    )


def test_sgd_in_the_subspace_is_projected_sgd():
    full = make_least_squares(n_samples=20, dim=4, noise=0.1, rng=0)
    A = np.linalg.qr(np.random.default_rng(1).normal(size=(4, 2)))[0]
    problem = AffineSubspaceProblem(full, np.ones(4), A)
    run = run_sgd(problem, [0.5, -0.5], step_size=0.05, n_steps=1, rng=3)
    z0, z1 = run.iterates[0]
    moves = [z0 - 0.05 * A.T @ full.gradient(1 + A @ z0, [i]) for i in range(20)]
    assert np.abs(np.array(moves) - z1).max(axis=1).min() < 1e-14


def test_what_is_refused(network):
    with pytest.raises(ValueError, match=r"X must have shape \(N, features\) and y shape"):
        MLPProblem(np.ones((3, 2)), [0, 1], hidden=2)
    with pytest.raises(ValueError, match="y must hold classes"):
        MLPProblem(np.ones((2, 2)), [0, -1], hidden=2)
    with pytest.raises(ValueError, match="y must hold classes"):
        MLPProblem(np.ones((2, 2)), [0.0, 1.0], hidden=2)
    with pytest.raises(ValueError, match="hidden must be"):
        MLPProblem(np.ones((2, 2)), [0, 1], hidden=0)
    origin = np.zeros(network.dim)
    with pytest.raises(ValueError, match="origin must have shape"):
        AffineSubspaceProblem(network, origin[1:], np.ones((network.dim, 1)))
    with pytest.raises(ValueError, match="directions must have shape"):
        AffineSubspaceProblem(network, origin, np.ones((3, 1)))
    with pytest.raises(ValueError, match="linearly independent; got rank 1 of 2"):
        AffineSubspaceProblem(network, origin, np.ones((network.dim, 2)))
