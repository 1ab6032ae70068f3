"""SGD and what it is made of: the three backends give the same bits."""

import numpy as np
import pytest

from sgdmc._core import BACKENDS, backend
from sgdmc.chain.grid import Grid
from sgdmc.chain.transitions import count_transitions
from sgdmc.sgd.problems import LeastSquares, LogisticRegression, SineRegression
from sgdmc.sgd.simulate import count_sgd_transitions, run_sgd, run_sgd_states

OTHERS = ["cpp", "numba"]


def problem_of(kind, n_samples, dim):
    rng = np.random.default_rng(n_samples + dim)
    X = rng.normal(size=(n_samples, dim))
    if kind == "sine":
        return SineRegression(X[:, 0], rng.normal(size=n_samples))
    if kind == "logistic":
        return LogisticRegression(X, rng.random(n_samples) < 0.5, l2=0.1)
    return LeastSquares(X, rng.normal(size=n_samples))


@pytest.mark.parametrize("name", OTHERS)
def test_random_bits_are_equal(name):
    for seed, chain, first in [(0, 0, 0), (2**64 - 1, 5, 2**40), (12345, 2**33, 7)]:
        expected = backend("numpy").random_bits(seed, chain, first, 1000)
        assert np.array_equal(backend(name).random_bits(seed, chain, first, 1000), expected)


@pytest.mark.parametrize("name", OTHERS)
def test_elementary_functions_are_equal(name):
    rng = np.random.default_rng(0)
    x = np.concatenate(
        [
            np.linspace(-30, 30, 10001),
            rng.normal(size=1000) * 1e6,
            [0.0, -0.0, 2.0**50, -(2.0**49), 2.0**51, 1e300, np.inf, -np.inf, np.nan, 5e-324],
        ]
    )
    for mine, expected in zip(
        backend(name).sine_cosine(x), backend("numpy").sine_cosine(x), strict=True
    ):
        assert np.array_equal(mine, expected, equal_nan=True)
    assert np.array_equal(backend(name).logistic(x), backend("numpy").logistic(x), equal_nan=True)


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize(
    ("kind", "dim"),
    [("least_squares", d) for d in (1, 2, 3, 9)]
    + [("logistic", d) for d in (1, 2, 5)]
    + [("sine", 2)],
)
@pytest.mark.parametrize("n_chains", [1, 7, 45])
@pytest.mark.parametrize(
    ("batch_size", "replacement", "thin"), [(1, True, 1), (3, True, 2), (4, False, 5)]
)
def test_iterates_are_equal(name, kind, dim, n_chains, batch_size, replacement, thin):
    problem = problem_of(kind, 11, dim)
    start = np.random.default_rng(1).normal(size=(n_chains, dim))
    options = {
        "step_size": 0.02,
        "n_steps": 83,
        "batch_size": batch_size,
        "replacement": replacement,
        "thin": thin,
        "rng": 4,
    }
    expected = run_sgd(problem, start, backend="numpy", **options).iterates
    assert expected.shape == (n_chains, 83 // thin + 1, dim)
    assert np.array_equal(run_sgd(problem, start, backend=name, **options).iterates, expected)


@pytest.mark.parametrize("name", OTHERS)
def test_one_sample_and_a_batch_larger_than_the_segment(name):
    problem = problem_of("least_squares", 1, 2)
    options = {"step_size": 0.01, "n_steps": 5, "batch_size": 300, "rng": 0}
    expected = run_sgd(problem, [1.0, 2.0], backend="numpy", **options).iterates
    assert np.array_equal(run_sgd(problem, [1.0, 2.0], backend=name, **options).iterates, expected)


@pytest.mark.parametrize("name", OTHERS)
def test_divergence_is_reported_alike(name):
    problem = problem_of("least_squares", 11, 2)
    start = np.random.default_rng(1).normal(size=(45, 2))
    messages = []
    for each in (name, "numpy"):
        with pytest.raises(ValueError, match="step_size must keep SGD bounded") as caught:
            run_sgd(problem, start, step_size=3.0, n_steps=500, rng=0, backend=each)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


@pytest.mark.parametrize("name", list(BACKENDS))
def test_results_do_not_depend_on_the_number_of_threads(name):
    problem = problem_of("sine", 11, 2)
    start = np.random.default_rng(1).normal(size=(70, 2))
    runs = [
        run_sgd(
            problem, start, step_size=0.02, n_steps=50, rng=2, backend=name, n_threads=k
        ).iterates
        for k in (1, 2, 5)
    ]
    assert np.array_equal(runs[0], runs[1])
    assert np.array_equal(runs[0], runs[2])


def test_a_chain_does_not_depend_on_its_neighbours():
    problem = problem_of("logistic", 11, 2)
    start = np.random.default_rng(1).normal(size=(70, 2))
    many = run_sgd(problem, start, step_size=0.1, n_steps=50, rng=2).iterates
    few = run_sgd(problem, start[:3], step_size=0.1, n_steps=50, rng=2).iterates
    assert np.array_equal(many[:3], few)


def test_strided_and_float32_starts():
    problem = problem_of("least_squares", 11, 2)
    start = np.random.default_rng(1).normal(size=(10, 4)).astype(np.float32)
    view = start[::2, ::2]
    expected = run_sgd(problem, view.astype(np.float64), step_size=0.1, n_steps=9, rng=2).iterates
    assert np.array_equal(
        run_sgd(problem, view, step_size=0.1, n_steps=9, rng=2).iterates, expected
    )


@pytest.mark.parametrize("name", list(BACKENDS))
@pytest.mark.parametrize(("kind", "dim"), [("least_squares", 3), ("sine", 2)])
@pytest.mark.parametrize(("n_chains", "lag", "thin"), [(1, 1, 1), (6, 3, 2), (45, 100, 7)])
def test_states_and_counts_are_those_of_the_iterates(name, kind, dim, n_chains, lag, thin):
    problem = problem_of(kind, 11, dim)
    start = np.random.default_rng(1).normal(size=(n_chains, dim))
    options = {"step_size": 0.02, "n_steps": 120, "rng": 4}
    iterates = run_sgd(problem, start, **options).iterates
    grid = Grid.fit(iterates[:, 20:], digits=1)  # so that some iterates lie outside
    states = run_sgd_states(problem, start, grid, thin=thin, backend=name, **options)
    assert np.array_equal(states, grid.encode(iterates[:, ::thin]))
    counts = count_sgd_transitions(problem, start, grid, lag=lag, backend=name, **options)
    for j in range(dim):
        path = grid.encode(iterates)[:, :, j]
        assert np.array_equal(counts[j], count_transitions(path, n_states=10, lag=lag))
