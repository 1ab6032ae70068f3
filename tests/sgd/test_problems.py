"""Problems: losses, gradients and generators, known answers and refusals."""

import numpy as np
import pytest
import torch

from sgdmc.sgd.custom import NumbaProblem, TorchProblem
from sgdmc.sgd.interface import is_builtin, is_problem
from sgdmc.sgd.problems import (
    BuiltinProblem,
    LeastSquares,
    LogisticRegression,
    Problem,
    SineRegression,
    make_least_squares,
    make_logistic_regression,
    make_sine_regression,
)


def torch_problem():
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1))
    inputs = torch.as_tensor(rng.normal(size=(12, 2)))
    targets = torch.as_tensor(rng.normal(size=(12, 1)))
    return TorchProblem(module.double(), torch.nn.functional.mse_loss, (inputs, targets))


X0, Y0 = np.random.default_rng(1).normal(size=(7, 3)), np.random.default_rng(2).normal(size=7)


def numba_problem():
    return NumbaProblem(
        lambda theta, i: (X0[i] @ theta - Y0[i]) * X0[i],
        n_samples=7,
        dim=3,
        loss=lambda theta, i: 0.5 * (X0[i] @ theta - Y0[i]) ** 2,
    )


PROBLEMS = {
    "least squares": lambda: make_least_squares(rng=0, dim=3),
    "over-parameterised": lambda: make_least_squares(n_samples=4, dim=6, rng=0),
    "logistic": lambda: make_logistic_regression(rng=0),
    "sine": lambda: make_sine_regression(rng=0),
    "numba": numba_problem,
    "torch": torch_problem,
}


@pytest.mark.parametrize("name", list(PROBLEMS))
def test_the_gradient_is_that_of_the_loss(name):
    problem = PROBLEMS[name]()
    theta = np.random.default_rng(3).normal(size=problem.dim)
    h = 1e-5
    slopes = [
        (problem.loss(theta + h * e) - problem.loss(theta - h * e)) / (2 * h)
        for e in np.eye(problem.dim)
    ]
    assert problem.gradient(theta) == pytest.approx(np.array(slopes), abs=1e-7)


@pytest.mark.parametrize("name", list(PROBLEMS))
def test_shapes_and_batches(name):
    problem = PROBLEMS[name]()
    assert isinstance(problem, Problem)
    theta = np.random.default_rng(3).normal(size=(4, 2, problem.dim))
    assert problem.loss(theta).shape == (4, 2)
    assert problem.loss(theta)[1, 1] == pytest.approx(problem.loss(theta[1, 1]))
    assert problem.gradient(theta).shape == theta.shape
    every = [problem.gradient(theta, [i]) for i in range(problem.n_samples)]
    assert np.mean(every, axis=0) == pytest.approx(problem.gradient(theta), abs=1e-12)
    pairs = np.random.default_rng(4).integers(problem.n_samples, size=(4, 2, 2))
    batched = problem.gradient(theta, pairs)
    assert batched[3, 0] == pytest.approx(problem.gradient(theta[3, 0], pairs[3, 0]))


def test_least_squares_by_hand():
    problem = LeastSquares([[1.0, 0.0], [0.0, 2.0]], [1.0, 2.0])
    assert problem.n_samples == problem.dim == 2
    assert problem.loss([0.0, 0.0]) == pytest.approx(1.25)
    assert problem.gradient([0.0, 0.0]).tolist() == [-0.5, -2.0]
    assert problem.gradient([0.0, 0.0], [1]).tolist() == [0.0, -4.0]
    assert problem.minimiser == pytest.approx([1.0, 1.0])
    assert problem.stable_step_size() == 0.25


def test_interpolation():
    wide = make_least_squares(n_samples=5, dim=9, rng=1)
    assert wide.loss(wide.minimiser) < 1e-25
    assert (
        make_least_squares(noise=0.0, rng=1).loss(make_least_squares(noise=0.0, rng=1).minimiser)
        < 1e-25
    )
    assert make_sine_regression(noise=0.0, theta=(0.5, 3.0), rng=0).loss([0.5, 3.0]) == 0


def test_sine_is_even():
    problem = make_sine_regression(rng=0)
    theta = np.array([0.7, 1.9])
    assert problem.loss(theta) == pytest.approx(problem.loss(-theta))
    assert problem.stable_step_size() is None


def test_covariance_of_the_inputs():
    covariance = np.array([[2.0, 1.0], [1.0, 1.0]])
    X = make_least_squares(n_samples=200_000, covariance=covariance, rng=0).X
    assert np.cov(X.T) == pytest.approx(covariance, abs=0.03)


def test_seeds_decide_and_data_cannot_be_changed():
    one, same = make_logistic_regression(rng=5), make_logistic_regression(rng=5)
    assert np.array_equal(one.X, same.X)
    assert np.array_equal(one.y, same.y)
    X = np.ones((2, 2))
    problem = LeastSquares(X, [0.0, 0.0])
    X[0, 0] = 5.0
    assert problem.X[0, 0] == 1.0
    with pytest.raises(ValueError, match="read-only"):
        problem.X[0, 0] = 5.0


def test_builtin_problems_carry_their_data():
    for make in (make_least_squares, make_logistic_regression, make_sine_regression):
        assert isinstance(make(rng=0), BuiltinProblem)
        assert is_builtin(make(rng=0))
    other = numba_problem()
    assert is_problem(other)
    assert not isinstance(other, BuiltinProblem)
    assert not is_builtin(other)
    assert not is_problem(object())


def test_a_zero_feature_has_a_stable_step():
    assert LeastSquares([[0.0]], [0.0]).stable_step_size() == 1.0


def test_torch_parameters_are_flat_and_the_module_is_unchanged():
    problem = torch_problem()
    before = [p.detach().clone() for p in problem.module.parameters()]
    assert problem.start.shape == (13,)
    problem.gradient(problem.start + 1.0)
    assert all(torch.equal(a, b) for a, b in zip(before, problem.module.parameters(), strict=True))
    expected = torch.nn.functional.mse_loss(problem.module(problem._inputs), problem._targets)
    assert problem.loss(problem.start) == pytest.approx(expected.item())


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: LeastSquares([1.0], [1.0]), ValueError, "X must have 2 axes"),
        (lambda: LeastSquares([[1.0]], [[1.0]]), ValueError, "y must have 1 axes"),
        (lambda: LeastSquares([[1.0]], [1.0, 2.0]), ValueError, "y must have one entry a row of X"),
        (lambda: LeastSquares(np.empty((0, 2)), []), ValueError, "X must not be empty"),
        (lambda: LeastSquares([[np.nan]], [1.0]), ValueError, r"X must be finite; got nan"),
        (lambda: LeastSquares([["a"]], [1.0]), TypeError, "X must hold real numbers"),
        (lambda: LogisticRegression([[1.0]], [2.0]), ValueError, "labels in .0, 1.; got 2.0"),
        (lambda: LogisticRegression([[1.0]], [1], l2=-1), ValueError, "l2 must be non-negative"),
        (lambda: LogisticRegression([[1.0]], [1], l2="x"), TypeError, "l2 must be a number"),
        (lambda: SineRegression([], []), ValueError, "x must not be empty"),
        (lambda: SineRegression([1.0], [1.0, 2.0]), ValueError, "y must have one entry an entry"),
        (lambda: make_least_squares(n_samples=0), ValueError, "n_samples must be at least 1"),
        (lambda: make_least_squares(dim=2.5), TypeError, "dim must be an integer"),
        (lambda: make_least_squares(noise=-1.0), ValueError, "noise must be non-negative"),
        (lambda: make_least_squares(noise=np.nan), ValueError, "noise must be finite; got nan"),
        (lambda: make_least_squares(covariance=np.ones((2, 3))), ValueError, "be symmetric"),
        (lambda: make_least_squares(covariance=-np.eye(2)), ValueError, "positive semi-definite"),
        (lambda: make_sine_regression(half_width=0.0), ValueError, "half_width must be positive"),
        (lambda: make_sine_regression(theta=[1.0]), ValueError, "theta must have 2 entries"),
        (lambda: make_logistic_regression(separation=-1.0), ValueError, "separation must be non-n"),
        (lambda: make_least_squares(rng=0).loss([1.0]), ValueError, "theta must have 2 entries"),
        (
            lambda: make_least_squares(rng=0).gradient([1.0, 1.0], [100]),
            ValueError,
            "indices must lie",
        ),
        (
            lambda: make_sine_regression(rng=0).gradient([1.0, 1.0], [0.5]),
            TypeError,
            "indices must be",
        ),
        (lambda: NumbaProblem(3, n_samples=1, dim=1), TypeError, "gradient must be a function"),
        (
            lambda: NumbaProblem(lambda theta, i: np.zeros(3), n_samples=1, dim=2),
            ValueError,
            r"gradient must return shape \(2,\); got \(3,\)",
        ),
        (
            lambda: NumbaProblem(lambda theta, i: theta, n_samples=1, dim=1).loss([0.0]),
            ValueError,
            "loss must be given",
        ),
        (
            lambda: TorchProblem(torch.nn.Linear(1, 1), None, (torch.ones(2, 1), torch.ones(3, 1))),
            ValueError,
            "data must hold as many inputs as targets",
        ),
        (
            lambda: TorchProblem(torch.nn.Tanh(), None, (torch.ones(2, 1), torch.ones(2, 1))),
            ValueError,
            "module must have parameters",
        ),
    ],
)
def test_refusals(make, error, message):
    with pytest.raises(error, match=message):
        make()
