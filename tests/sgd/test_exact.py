"""Exact kernels: hand-worked cells, truths about SGD, and errors."""

import numpy as np
import pytest
from scipy.linalg import solve_discrete_lyapunov

from sgdmc.chain.grid import Grid
from sgdmc.chain.spectrum import stationary_distribution
from sgdmc.sgd.custom import NumbaProblem
from sgdmc.sgd.exact import lumped_blocks, ulam_kernel
from sgdmc.sgd.problems import LeastSquares, make_least_squares, make_sine_regression
from sgdmc.sgd.run import DivergedError


def unit_grid(dim=1, low=0.0, scale=1.0, digits=1):
    return Grid(
        low=np.full(dim, low), scale=np.full(dim, scale), digits=digits, constant=[False] * dim
    )


def stationary_moments(P, grid):
    """Mean and covariance of the stationary law of cells, each mass at its cell's centre."""
    n_cells = grid.n_states**grid.dim
    if grid.dim == 1:
        pi = stationary_distribution(P)[:n_cells]
    else:  # a wide band: powers are quicker, and right to 1e-12 as these chains forget fast
        pi = np.full(n_cells, 1 / n_cells)
        for _ in range(3000):
            pi, before = pi @ P, pi
            if np.abs(pi - before).sum() < 1e-13:
                break
    bins = np.stack(np.unravel_index(np.arange(n_cells), (grid.n_states,) * grid.dim), axis=1)
    theta = grid.low + (bins + 0.5) / grid.scale
    mean = pi @ theta
    return mean, (theta - mean).T @ ((theta - mean) * pi[:, None])


def exact_moments(problem, step_size):
    """Mean and covariance of SGD's stationary law on least squares, for any step size."""
    X, y = problem.X, problem.y
    n, d = X.shape
    A = np.eye(d) - step_size * X[:, :, None] * X[:, None, :]  # theta -> A_i theta + c_i
    c = step_size * X * y[:, None]
    mean = np.linalg.solve(np.eye(d) - A.mean(axis=0), c.mean(axis=0))
    # Second moment: S = E[A S A'] + E[A m c' + c m' A' + c c'], a discrete Lyapunov equation.
    push = np.einsum("nij,nkl->ikjl", A, A).reshape(d * d, d * d) / n
    source = (
        np.einsum("nij,j,nk->ik", A, mean, c)
        + np.einsum("ni,k,njk->ij", c, mean, A)
        + np.einsum("ni,nj->ij", c, c)
    ) / n
    second = np.linalg.solve(np.eye(d * d) - push, source.ravel()).reshape(d, d)
    return mean, second - np.outer(mean, mean)


def test_a_deterministic_half_step_maps_two_cells_on_one():
    problem = LeastSquares([[1.0]], [0.0])
    P = ulam_kernel(problem, unit_grid(), step_size=0.5, boundary="reflect").toarray()
    assert (P[np.arange(10), np.arange(10) // 2] == 1).all()


def test_two_atoms_have_half_the_mass_each():
    problem = LeastSquares([[1.0], [1.0]], [0.0, 8.0])  # theta -> theta / 2 or theta / 2 + 4
    P = ulam_kernel(problem, unit_grid(), step_size=0.5).toarray()
    for cell in range(8):
        assert P[cell, cell // 2] == P[cell, cell // 2 + 4] == 0.5


def test_batches_have_multinomial_weights():
    problem = LeastSquares([[1.0], [1.0]], [0.0, 4.0])
    P = ulam_kernel(problem, unit_grid(), step_size=1.0, batch_size=2).toarray()
    assert P[5, [0, 2, 4]].tolist() == [0.25, 0.5, 0.25]  # theta -> mean of two draws


@pytest.mark.parametrize("boundary", ["outside", "reflect", "clip"])
def test_no_mass_is_lost(boundary):
    problem = LeastSquares([[1.0], [1.0]], [-3.0, 12.5])
    P = ulam_kernel(problem, unit_grid(), step_size=1.0, boundary=boundary).toarray()
    np.testing.assert_allclose(P.sum(axis=1), 1, rtol=1e-14)
    if boundary == "outside":
        assert P.shape == (11, 11)
        assert P[10].tolist() == [0] * 10 + [1]
        assert (P[:10, 10] == 1).all()
    else:
        columns = {"reflect": [3, 7], "clip": [0, 9]}[boundary]
        assert (P[:, columns] == 0.5).all()


@pytest.mark.parametrize("step_size", [0.05, 0.2])
def test_stationary_moments_of_least_squares(step_size):
    problem = make_least_squares(n_samples=30, dim=2, noise=0.5, rng=1)
    mean, covariance = exact_moments(problem, step_size)
    spread = 7 * np.sqrt(np.diag(covariance))
    grid = Grid.fit(np.stack([mean - spread, mean + spread]), digits=2)
    P = ulam_kernel(problem, grid, step_size=step_size, boundary="reflect", lag=1)
    found_mean, found = stationary_moments(P, grid)
    # One step of the kernel adds width²/12 to the conditional variance, over the chain's memory.
    X = problem.X
    A = np.eye(2) - step_size * (X.T @ X) / len(X)
    added = solve_discrete_lyapunov(A, np.diag(grid.width**2 / 12))
    np.testing.assert_allclose(found_mean, mean, atol=0.06 * np.sqrt(np.diag(covariance)).min())
    np.testing.assert_allclose(found, covariance + added, rtol=0.06, atol=0.02 * covariance.max())


def test_refining_the_grid_converges_to_the_truth():
    problem = LeastSquares([[1.0], [0.8], [1.2]], [1.0, -0.5, 0.3])
    mean, covariance = exact_moments(problem, 0.3)
    errors = []
    for digits in (1, 2, 3):
        grid = Grid.fit([-1.2, 1.6], digits=digits)
        P = ulam_kernel(problem, grid, step_size=0.3, boundary="reflect", points_per_cell=64)
        found_mean, found = stationary_moments(P, grid)
        errors.append(abs(found[0, 0] / covariance[0, 0] - 1) + abs(found_mean[0] - mean[0]))
    assert errors[0] > 5 * errors[1] > 5 * 5 * errors[2]
    assert errors[2] < 1e-3


def test_bias_is_of_the_order_of_the_step_and_richardson_removes_it():
    """Quartic loss: the stationary mean is off by O(step), its extrapolation by O(step²)."""
    shifts = np.array([-0.4, 0.1, 0.9])

    class Skewed:
        n_samples, dim = 3, 1

        def loss(self, theta):
            t = np.asarray(theta)[..., 0, None] - shifts
            return np.mean(t**2 / 2 + t**3 / 9 + t**4 / 8, axis=-1)

        def gradient(self, theta, indices=None):
            chosen = shifts if indices is None else shifts[np.asarray(indices)]
            t = np.asarray(theta)[..., 0, None] - chosen
            return np.mean(t + t**2 / 3 + t**3 / 2, axis=-1)[..., None]

    roots = np.linspace(-0.5, 1, 200001)[:, None]
    minimiser = roots[np.argmin(Skewed().loss(roots)), 0]
    grid = Grid.fit([-1.0, 1.6], digits=3)
    bias = {}
    variance = {}
    for step_size in (0.05, 0.1, 0.2):
        P = ulam_kernel(Skewed(), grid, step_size=step_size, boundary="reflect", points_per_cell=32)
        mean, covariance = stationary_moments(P, grid)
        bias[step_size], variance[step_size] = mean[0] - minimiser, covariance[0, 0]
    assert bias[0.2] / bias[0.1] == pytest.approx(2, rel=0.2)
    assert variance[0.1] / variance[0.05] == pytest.approx(2, rel=0.1)
    extrapolated = abs(2 * bias[0.05] - bias[0.1])
    assert extrapolated < 0.3 * abs(bias[0.05])


def test_interpolation_ends_in_a_dirac():
    problem = make_least_squares(n_samples=20, dim=2, noise=0.0, rng=0)
    grid = Grid.fit(np.stack([problem.minimiser - 1, problem.minimiser + 1.3]), digits=2)
    P = ulam_kernel(problem, grid, step_size=0.1, lag=40, boundary="reflect", rng=0)
    mean, covariance = stationary_moments(P, grid)
    np.testing.assert_allclose(mean, problem.minimiser, atol=grid.width.max())
    assert np.sqrt(np.diag(covariance)).max() < 1.5 * grid.width.max()


def test_a_lag_is_not_a_power_of_the_snapped_kernel():
    problem = make_least_squares(n_samples=10, dim=1, noise=0.0, rng=0)
    grid = Grid.fit([float(problem.minimiser[0]) - 1, float(problem.minimiser[0]) + 1], digits=2)
    options = {"step_size": 0.01, "boundary": "reflect"}
    power = np.linalg.matrix_power(ulam_kernel(problem, grid, **options).toarray(), 50)
    lagged = ulam_kernel(problem, grid, lag=50, rng=0, **options).toarray()
    states = np.arange(100)

    def spread(P):
        return np.sqrt(P @ states**2 - (P @ states) ** 2)[20:80].mean()

    assert spread(power) > 2 * spread(lagged)
    np.testing.assert_allclose(power[20:80] @ states, lagged[20:80] @ states, atol=1.0)


def test_lumping_follows_the_law_that_it_is_given():
    problem = make_least_squares(n_samples=12, dim=2, rng=3)
    grid = Grid.fit(np.random.default_rng(0).normal(size=(50, 2)), digits=1)
    P = ulam_kernel(problem, grid, step_size=0.1, boundary="reflect")
    weights = np.random.default_rng(1).random((10, 10)) * (np.arange(10) != 4)[:, None]
    blocks = lumped_blocks(P, grid, weights=weights)
    dense = P.toarray().reshape(10, 10, 10, 10)
    for s in range(10):
        w = weights[s] if s != 4 else np.ones(10)
        by_hand = np.einsum("a,atb->t", w / w.sum(), dense[s])
        np.testing.assert_allclose(blocks[0, s], by_hand, atol=1e-14)
        w = weights[:, s]
        by_hand = np.einsum("a,abt->t", w / w.sum(), dense[:, s])
        np.testing.assert_allclose(blocks[1, s], by_hand, atol=1e-14)
    pi = stationary_distribution(P)
    stationary = ulam_kernel(problem, grid, step_size=0.1, boundary="reflect", lump="stationary")
    np.testing.assert_allclose(stationary, lumped_blocks(P, grid, weights=pi), atol=1e-12)
    marginal = pi.reshape(10, 10).sum(axis=1)
    np.testing.assert_allclose(marginal @ stationary[0], marginal, atol=1e-12)


def test_lumping_keeps_the_outside():
    problem = LeastSquares([[1.0], [1.0]], [5.5, 12.5])
    P = ulam_kernel(problem, unit_grid(), step_size=1.0)
    blocks = lumped_blocks(P, unit_grid(), weights=np.ones(10))
    assert blocks.shape == (1, 11, 11)
    np.testing.assert_allclose(blocks[0], P.toarray())
    with pytest.raises(ValueError, match="all outside"):
        lumped_blocks(P, unit_grid())


def test_users_problems_give_the_built_in_kernel():
    built_in = make_sine_regression(n_samples=6, rng=0)
    x, y = built_in.x, built_in.y

    class Plain:
        n_samples, dim = 6, 2
        loss, gradient = built_in.loss, built_in.gradient

    def gradient(theta, i):
        s, c = np.sin(theta[1] * x[i]), np.cos(theta[1] * x[i])
        r = theta[0] * s - y[i]
        return np.array([r * s, r * theta[0] * x[i] * c])

    grid = Grid.fit(np.random.default_rng(0).normal(size=(50, 2)), digits=1)
    expected = ulam_kernel(built_in, grid, step_size=0.1)
    numba_problem = NumbaProblem(gradient, n_samples=6, dim=2)
    for problem in (Plain(), numba_problem):
        found = ulam_kernel(problem, grid, step_size=0.1)
        assert abs(found - expected).max() <= 1 / 16
        assert abs(found - expected).sum() < 0.1


def test_threads_do_not_change_a_bit():
    problem = make_least_squares(n_samples=10, dim=2, rng=0)
    grid = Grid.fit(np.random.default_rng(0).normal(size=(50, 2)), digits=1)
    for options in ({}, {"lag": 3, "rng": 7}):
        one = ulam_kernel(problem, grid, step_size=0.1, n_threads=1, **options)
        three = ulam_kernel(problem, grid, step_size=0.1, n_threads=3, **options)
        assert (one != three).nnz == 0


def test_bad_input():
    problem = make_least_squares(n_samples=5, dim=2, rng=0)
    grid = unit_grid(2)
    with pytest.raises(TypeError, match="problem must have n_samples"):
        ulam_kernel("sine", grid, step_size=0.1)
    with pytest.raises(TypeError, match="grid must be a Grid; got int"):
        ulam_kernel(problem, 3, step_size=0.1)
    with pytest.raises(ValueError, match="dimension of the problem, 2; got 1"):
        ulam_kernel(problem, unit_grid(1), step_size=0.1)
    with pytest.raises(ValueError, match="at most 1e\\+08 cells"):
        ulam_kernel(make_least_squares(dim=3, rng=0), unit_grid(3, digits=3), step_size=0.1)
    with pytest.raises(ValueError, match="step_size must be positive"):
        ulam_kernel(problem, grid, step_size=-1.0)
    with pytest.raises(ValueError, match="lag must be at least 1"):
        ulam_kernel(problem, grid, step_size=0.1, lag=0)
    with pytest.raises(ValueError, match="boundary must be one of"):
        ulam_kernel(problem, grid, step_size=0.1, boundary="torus")
    with pytest.raises(ValueError, match="lump must be one of"):
        ulam_kernel(problem, grid, step_size=0.1, lump="uniform")

    class Broken:
        n_samples, dim = 1, 1

        def loss(self, theta):
            return np.zeros(np.shape(theta)[:-1])

        def gradient(self, theta, indices=None):
            return np.full(np.shape(theta), np.nan)

    with pytest.raises(ValueError, match="keep images finite"):
        ulam_kernel(Broken(), unit_grid(1), step_size=1.0, boundary="clip")
    with pytest.raises(DivergedError, match="keep SGD bounded"):
        ulam_kernel(LeastSquares([[9.0]], [0.0]), unit_grid(1), step_size=9.0, lag=30)


def test_bad_lumps():
    grid = unit_grid(1)
    P = ulam_kernel(LeastSquares([[1.0]], [0.0]), grid, step_size=0.5, boundary="reflect")
    with pytest.raises(ValueError, match="the 100 cells of grid"):
        lumped_blocks(P, unit_grid(2), weights=np.ones(100))
    with pytest.raises(ValueError, match="weights must have 10 entries; got 3"):
        lumped_blocks(P, grid, weights=np.ones(3))
    with pytest.raises(ValueError, match="weights must be a measure"):
        lumped_blocks(P, grid, weights=-np.ones(10))
    with pytest.raises(ValueError, match="weights must be one of"):
        lumped_blocks(P, grid, weights="uniform")
