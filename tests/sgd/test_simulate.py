"""Simulation of SGD: the recursion, its sampling, custom problems, interruption, refusals."""

import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from sgdmc._core import backend
from sgdmc.chain.grid import Grid
from sgdmc.sgd.custom import NumbaProblem, TorchProblem
from sgdmc.sgd.problems import (
    LeastSquares,
    LogisticRegression,
    make_least_squares,
    make_logistic_regression,
    make_sine_regression,
)
from sgdmc.sgd.run import DivergedError, Run
from sgdmc.sgd.simulate import count_sgd_transitions, run_sgd, run_sgd_states


def test_a_run_by_hand():
    run = run_sgd(LeastSquares([[1.0]], [0.0]), 8.0 * np.ones(1), step_size=0.5, n_steps=3)
    assert isinstance(run, Run)
    assert run.iterates.tolist() == [[[8.0], [4.0], [2.0], [1.0]]]
    assert (run.step_size, run.batch_size, run.thin) == (0.5, 1, 1)
    assert run.names == ("theta0",)
    assert run.lengths.tolist() == [4]


@pytest.mark.parametrize(
    "problem",
    [
        make_least_squares(rng=0, dim=2),
        make_least_squares(rng=0, n_samples=3, dim=5),
        make_logistic_regression(rng=0, dim=3),
        make_sine_regression(rng=0),
    ],
)
@pytest.mark.parametrize("batch_size", [1, 4])
def test_each_step_follows_the_gradient_of_a_batch(problem, batch_size):
    rng = np.random.default_rng(0)
    start = rng.normal(size=(3, problem.dim))
    run = run_sgd(problem, start, step_size=0.01, n_steps=1, batch_size=batch_size, rng=7)
    draws = backend("numpy").random_bits
    seed = int(np.random.default_rng(7).integers(0, 2**64, dtype=np.uint64))
    for chain in range(3):
        bits = draws(seed, chain, 0, batch_size)
        batch = [int(b) * problem.n_samples >> 64 for b in bits]
        expected = start[chain] - 0.01 * problem.gradient(start[chain], batch)
        assert run.iterates[chain, 1] == pytest.approx(expected, rel=1e-12)


def test_thinning_keeps_every_kth_iterate():
    problem, start = make_sine_regression(rng=0), [[1.0, 1.0], [0.5, 2.0]]
    every = run_sgd(problem, start, step_size=0.05, n_steps=20, rng=1).iterates
    some = run_sgd(problem, start, step_size=0.05, n_steps=20, thin=6, rng=1)
    assert np.array_equal(some.iterates, every[:, [0, 6, 12, 18]])
    assert some.thin == 6


def test_shuffled_epochs_use_each_sample_once():
    # theta sums the targets of the samples used: one epoch of any order ends in the same place.
    problem = LeastSquares([[1e-6]] * 8, [1e6] * 4 + [2e6] * 4)
    run = run_sgd(problem, [0.0], step_size=1.0, n_steps=8, replacement=False, rng=3)
    assert run.iterates[0, -1, 0] == pytest.approx(12.0)
    steps = np.diff(run.iterates[0, :, 0])
    assert sorted(np.round(steps).tolist()) == [1.0] * 4 + [2.0] * 4
    ends = run_sgd(problem, np.zeros((50, 1)), step_size=1.0, n_steps=8, rng=3).iterates[:, -1, 0]
    assert np.ptp(ends) > 1.0  # with replacement they differ


def test_permutations_are_uniform():
    # The first draw of an epoch is uniform, and so is the last.
    problem = LeastSquares([[1e-6]] * 5, [1e6, 2e6, 3e6, 4e6, 5e6])
    path = run_sgd(
        problem, np.zeros((4000, 1)), step_size=1.0, n_steps=5, replacement=False, rng=0
    ).iterates[:, :, 0]
    steps = np.rint(np.diff(path, axis=1)).astype(int)
    for position in range(5):
        counts = np.bincount(steps[:, position], minlength=6)[1:]
        assert ((counts - 800) ** 2 / 800).sum() < 18.5  # 0.999 quantile, 4 degrees of freedom


def test_the_stationary_mean_and_variance_of_a_quadratic():
    # theta' = (1 - g) theta + g y_i: mean of y, variance g / (2 - g) of its variance.
    y = np.array([-1.0, 0.0, 4.0])
    problem = LeastSquares(np.ones((3, 1)), y)
    g, n_chains = 0.2, 20_000
    ends = run_sgd(problem, np.zeros((n_chains, 1)), step_size=g, n_steps=100, thin=100, rng=0)
    sample = ends.iterates[:, -1, 0]
    variance = g / (2 - g) * y.var()
    assert sample.mean() == pytest.approx(y.mean(), abs=4 * np.sqrt(variance / n_chains))
    assert sample.var() == pytest.approx(variance, rel=0.06)


def test_interpolation_ends_as_a_dirac():
    problem = make_least_squares(noise=0.0, rng=0)
    run = run_sgd(problem, np.ones((5, 2)), step_size=0.1, n_steps=5000, thin=5000, rng=0)
    assert run.iterates[:, -1] == pytest.approx(np.tile(problem.minimiser, (5, 1)), abs=1e-12)


def test_numba_problems_run_on_both_backends():
    data = make_least_squares(n_samples=9, rng=0)
    X, y = np.array(data.X), np.array(data.y)
    problem = NumbaProblem(lambda theta, i: (X[i] @ theta - y[i]) * X[i], n_samples=9, dim=2)
    options = {"step_size": 0.05, "n_steps": 30, "batch_size": 2, "rng": 1}
    start = np.random.default_rng(0).normal(size=(7, 2))
    expected = run_sgd(data, start, **options).iterates
    for name in ("auto", "numba", "numpy"):
        run = run_sgd(problem, start, backend=name, **options)
        assert run.iterates == pytest.approx(expected, rel=1e-12, abs=1e-12)
    shuffled = {**options, "replacement": False}
    assert run_sgd(problem, start, n_threads=3, **shuffled).iterates == pytest.approx(
        run_sgd(data, start, **shuffled).iterates, rel=1e-12, abs=1e-12
    )


def test_torch_problems_run_like_the_same_built_in_one():
    data = make_least_squares(n_samples=9, rng=0)
    line = torch.nn.Linear(2, 1, bias=False, dtype=torch.float64)
    problem = TorchProblem(
        line,
        lambda output, target: 0.5 * torch.nn.functional.mse_loss(output[..., 0], target),
        (torch.as_tensor(np.array(data.X)), torch.as_tensor(np.array(data.y))),
    )
    options = {"step_size": 0.05, "n_steps": 20, "batch_size": 3, "rng": 1}
    start = np.stack([problem.start, problem.start + 1.0])
    run = run_sgd(problem, start, **options)
    assert run.iterates == pytest.approx(run_sgd(data, start, **options).iterates, rel=1e-12)


def test_any_object_with_a_gradient_will_do():
    class Bowl:
        n_samples, dim = 3, 2

        def loss(self, theta):
            return 0.5 * np.sum(np.square(theta), axis=-1)

        def gradient(self, theta, indices=None):
            return np.asarray(theta)

    run = run_sgd(Bowl(), [1.0, 2.0], step_size=0.5, n_steps=2)
    assert run.iterates[0].tolist() == [[1.0, 2.0], [0.5, 1.0], [0.25, 0.5]]
    grid = Grid.fit(run.iterates, digits=1)
    assert np.array_equal(
        run_sgd_states(Bowl(), [1.0, 2.0], grid, step_size=0.5, n_steps=2),
        grid.encode(run.iterates),
    )
    assert count_sgd_transitions(Bowl(), [1.0, 2.0], grid, step_size=0.5, n_steps=2).sum() == 4


def test_out_is_written_and_wrapped():
    out = np.empty((1, 4, 1))
    run = run_sgd(LeastSquares([[1.0]], [0.0]), [8.0], step_size=0.5, n_steps=3, out=out)
    assert np.shares_memory(run.iterates, out)


@pytest.mark.parametrize("name", ["cpp", "numba", "numpy"])
def test_divergence_is_an_error_that_advises(name):
    problem = LeastSquares([[2.0]], [0.0])  # factor 1 - 4 g = -3 a step
    message = (
        r"step_size must keep SGD bounded; got 1, with which chain 1 left \|theta\| <= 1e\+12 at "
        r"step 26. Try step_size=0.25"
    )
    with pytest.raises(DivergedError, match=message):
        run_sgd(problem, [[0.0], [1.0], [0.5]], step_size=1.0, n_steps=50, backend=name)


def test_divergence_without_a_known_bound_halves_the_step():
    with pytest.raises(DivergedError, match="Try step_size=50"):
        run_sgd(make_sine_regression(rng=0), [5.0, 5.0], step_size=100.0, n_steps=5000)
    problem = NumbaProblem(lambda theta, i: 4.0 * theta, n_samples=1, dim=1)
    with pytest.raises(DivergedError, match=r"at step 26\. Try step_size=0.5"):
        run_sgd(problem, [1.0], step_size=1.0, n_steps=50)


def test_the_suggested_step_does_not_diverge():
    problem = make_logistic_regression(rng=0, l2=3.0)
    with pytest.raises(DivergedError) as caught:
        run_sgd(problem, [1.0, 1.0], step_size=2.0, n_steps=500, rng=0)
    advice = float(str(caught.value).rsplit("=", 1)[1].rstrip("."))
    run_sgd(problem, [1.0, 1.0], step_size=advice, n_steps=500, rng=0)


def test_the_ridge_shrinks():
    problem = LogisticRegression([[0.0]], [1.0], l2=0.5)
    run = run_sgd(problem, [8.0], step_size=1.0, n_steps=2)
    assert run.iterates[0, :, 0].tolist() == [8.0, 4.0, 2.0]


PROGRAM = """
import signal
import numpy as np
from sgdmc.sgd.problems import make_least_squares
from sgdmc.sgd.simulate import run_sgd
# A process in the background may have been told to ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)
print("ready", flush=True)
try:
    run_sgd(make_least_squares(rng=0), np.zeros((N_CHAINS, 2)), step_size=0.01, n_steps=10**10,
            thin=10**10, n_threads=2)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.parametrize("n_chains", [1, 200])
def test_ctrl_c_stops_the_compiled_kernels(n_chains):
    program = PROGRAM.replace("N_CHAINS", str(n_chains))
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    assert output == "interrupted\n"


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"problem": 3}, TypeError, "problem must have n_samples, dim, loss and gradient; got int"),
        ({"start": [1.0]}, ValueError, r"start must have shape \(2,\) or \(n_chains, 2\)"),
        ({"start": np.zeros((1, 1, 2))}, ValueError, "start must have shape"),
        ({"start": np.zeros((0, 2))}, ValueError, "start must hold at least one chain"),
        ({"start": [np.nan, 0.0]}, ValueError, "start must be finite; got nan at index 0"),
        ({"start": ["a", "b"]}, TypeError, "start must hold real numbers"),
        ({"start": [1e13, 0.0]}, ValueError, r"start must lie within \+-1e\+12; got 1e\+13"),
        ({"step_size": 0.0}, ValueError, "step_size must be positive; got 0.0"),
        ({"step_size": np.nan}, ValueError, "step_size must be finite; got nan"),
        ({"step_size": "x"}, TypeError, "step_size must be a number; got 'x'"),
        ({"n_steps": 0}, ValueError, "n_steps must be at least 1; got 0"),
        ({"n_steps": 1.0}, TypeError, "n_steps must be an integer; got 1.0"),
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1; got 0"),
        ({"replacement": "no"}, TypeError, "replacement must be True or False; got 'no'"),
        ({"thin": 0}, ValueError, "thin must be at least 1; got 0"),
        ({"thin": 6}, ValueError, "thin must be at most 5; got 6"),
        ({"n_threads": -1}, ValueError, "n_threads must be at least 1; got -1"),
        ({"backend": "jax"}, ValueError, "backend must be one of 'auto', 'cpp', 'numba', 'numpy'"),
        ({"rng": "seed"}, TypeError, "rng must be an int, a numpy SeedSequence"),
        ({"out": np.empty((1, 6, 2), np.float32)}, TypeError, "out must be an array of float64"),
        ({"out": np.empty((1, 5, 2))}, ValueError, r"out must have shape \(1, 6, 2\)"),
    ],
)
def test_refusals(change, error, message):
    arguments = {
        "problem": make_least_squares(rng=0),
        "start": [0.0, 0.0],
        "step_size": 0.1,
        "n_steps": 5,
        **change,
    }
    problem, start = arguments.pop("problem"), arguments.pop("start")
    with pytest.raises(error, match=message):
        run_sgd(problem, start, **arguments)


def test_a_custom_problem_has_no_compiled_kernel():
    problem = NumbaProblem(lambda theta, i: theta, n_samples=1, dim=1)
    with pytest.raises(ValueError, match="backend must be one of 'numba', 'numpy' for a NumbaProb"):
        run_sgd(problem, [1.0], step_size=0.1, n_steps=1, backend="cpp")


@pytest.mark.parametrize("function", [run_sgd_states, count_sgd_transitions])
def test_the_grid_must_fit(function):
    with pytest.raises(ValueError, match="grid must have 2 coordinates; got 1"):
        function(
            make_least_squares(rng=0), [0.0, 0.0], Grid.fit([0.0, 1.0]), step_size=0.1, n_steps=2
        )


def test_the_lag_must_be_positive():
    problem, grid = LeastSquares([[1.0]], [0.0]), Grid.fit([0.0, 1.0])
    with pytest.raises(ValueError, match="lag must be at least 1; got 0"):
        count_sgd_transitions(problem, [0.0], grid, step_size=0.1, n_steps=2, lag=0)
