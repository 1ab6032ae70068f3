"""Counts and paths of finite chains: known answers, laws, and what they refuse."""

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sgdmc.chain.transitions import count_transitions, simulate_chain

paths = arrays(
    np.int16, st.tuples(st.integers(1, 4), st.integers(1, 50)), elements=st.integers(0, 6)
)


def test_counts_by_hand():
    assert count_transitions([0, 1, 0, 2, 2, 2], n_states=3).tolist() == [
        [0, 1, 1],
        [1, 0, 0],
        [0, 0, 2],
    ]


def test_windows_slide_at_the_lag():
    assert count_transitions([0, 1, 0, 1, 1], n_states=2, lag=2).tolist() == [[1, 1], [0, 1]]


def test_nothing_is_counted_across_chains():
    assert count_transitions([[0, 0], [1, 1]], n_states=2).tolist() == [[1, 0], [0, 1]]


@given(states=paths, lag=st.integers(1, 5))
@settings(max_examples=100, deadline=None)
def test_counts_sum_to_the_number_of_windows(states, lag):
    counts = count_transitions(states, n_states=7, lag=lag)
    assert counts.sum() == states.shape[0] * max(states.shape[1] - lag, 0)
    assert (counts >= 0).all()


@given(states=paths, permutation=st.permutations(range(7)))
@settings(max_examples=100, deadline=None)
def test_counts_follow_a_relabelling(states, permutation):
    order = np.array(permutation)
    counts = count_transitions(states, n_states=7)
    renamed = count_transitions(order[states], n_states=7)
    assert np.array_equal(renamed[np.ix_(order, order)], counts)


def test_a_deterministic_cycle():
    P = np.roll(np.eye(5), 1, axis=1)
    assert simulate_chain(P, [0, 3], n_steps=6).tolist() == [
        [0, 1, 2, 3, 4, 0, 1],
        [3, 4, 0, 1, 2, 3, 4],
    ]


def test_one_state():
    assert simulate_chain([[1.0]], 0, n_steps=3, rng=0).tolist() == [[0, 0, 0, 0]]


def test_no_steps_gives_the_starts():
    assert simulate_chain(np.eye(3), [2, 0], n_steps=0).tolist() == [[2], [0]]


@pytest.mark.parametrize("n", [2, 10, 300])
@pytest.mark.parametrize("sparse", [False, True])
def test_frequencies_are_the_probabilities(n, sparse):
    rng = np.random.default_rng(n)
    row = rng.dirichlet(np.full(n, 0.5))
    row[rng.random(n) < 0.3] = 0
    row /= row.sum()
    P = np.tile(row, (n, 1))  # independent draws, so that the chi-square test applies as it is
    path = simulate_chain(scipy.sparse.csr_array(P) if sparse else P, 0, n_steps=200_000, rng=1)
    counts = np.bincount(path[0, 1:], minlength=n)
    assert counts[row == 0].sum() == 0
    expected = row * 200_000
    big = expected > 5
    chi2 = ((counts - expected)[big] ** 2 / expected[big]).sum()
    df = big.sum() - 1
    assert abs(chi2 - df) < 4 * np.sqrt(2 * df) + 8


def test_successive_draws_and_neighbouring_chains_are_independent():
    P = np.full((4, 4), 0.25)
    path = simulate_chain(P, np.zeros(500, int), n_steps=2000, rng=5)[:, 1:]
    for a, b in [(path[:, :-1], path[:, 1:]), (path[:-1], path[1:])]:
        table = np.bincount((4 * a.astype(int) + b).ravel(), minlength=16)
        expected = a.size / 16
        assert ((table - expected) ** 2 / expected).sum() < 37.7  # 0.999 quantile, 15 degrees


def test_the_seed_decides():
    P = np.full((4, 4), 0.25)
    one, same = (simulate_chain(P, 0, n_steps=50, rng=3) for _ in range(2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, simulate_chain(P, 0, n_steps=50, rng=4))


def test_p_is_left_alone_and_rows_a_little_off_are_legal():
    P = np.full((3, 3), 1 / 3) * (1 - 5e-7)
    before = P.copy()
    path = simulate_chain(P, [0], n_steps=1000, rng=0)
    assert np.array_equal(P, before)
    assert path.max() <= 2
    sparse = scipy.sparse.csr_array(P)
    simulate_chain(sparse, [0], n_steps=10)
    assert np.array_equal(sparse.toarray(), before)


def test_out_is_written_and_returned():
    out = np.empty((1, 5), np.int16)
    assert simulate_chain(np.eye(2), 1, n_steps=4, out=out) is out
    assert out.tolist() == [[1, 1, 1, 1, 1]]


@pytest.mark.parametrize(
    ("states", "options", "error", "message"),
    [
        ([0, 3], {"n_states": 3}, ValueError, "states must lie in 0 .. 2; got 3 at index 1"),
        ([[0], [-1]], {"n_states": 3}, ValueError, r"got -1 at index \(1, 0\)"),
        ([0.0, 1.0], {"n_states": 3}, TypeError, "states must be integer state indices"),
        ([[[0]]], {"n_states": 3}, ValueError, "states must have 1 or 2 axes"),
        ([0, 1], {"n_states": 0}, ValueError, "n_states must be at least 1; got 0"),
        ([0, 1], {"n_states": 2, "lag": 0}, ValueError, "lag must be at least 1; got 0"),
        ([0, 1], {"n_states": 2, "lag": 1.5}, TypeError, "lag must be an integer; got 1.5"),
        ([0, 1], {"n_states": 2, "n_threads": 0}, ValueError, "n_threads must be at least 1"),
        ([0, 1], {"n_states": 2, "backend": "x"}, ValueError, "backend must be one of"),
        (np.array([2**63], np.uint64), {"n_states": 2}, ValueError, "states must fit in int64"),
    ],
)
def test_counting_refuses(states, options, error, message):
    with pytest.raises(error, match=message):
        count_transitions(states, **options)


@pytest.mark.parametrize(
    ("P", "start", "options", "error", "message"),
    [
        ([[0.5, 0.5]], 0, {}, ValueError, r"P must be a square matrix; got shape \(1, 2\)"),
        (np.empty((0, 0)), 0, {}, ValueError, "P must be a square matrix"),
        ([["a"]], 0, {}, TypeError, "P must hold real numbers"),
        ([[0.5, 0.5], [np.nan, 1.0]], 0, {}, ValueError, r"P must be finite; got nan at \(1, 0\)"),
        ([[1.5, -0.5], [0, 1]], 0, {}, ValueError, r"non-negative; got -0.5 at \(0, 1\)"),
        ([[1.0, 0.0], [0.0, 0.9]], 0, {}, ValueError, "sum to 1; got 0.9 at row 1"),
        (
            scipy.sparse.csr_array([[1.0, 0.0], [0.5, -0.5]]),
            0,
            {},
            ValueError,
            r"non-negative; got -0.5 at \(1, 1\)",
        ),
        (scipy.sparse.csr_array((2, 2)), 0, {}, ValueError, "sum to 1; got 0 at row 0"),
        (np.eye(2), 2, {}, ValueError, "start_states must lie in 0 .. 1; got 2 at index 0"),
        (np.eye(2), [0, -1], {}, ValueError, "got -1 at index 1"),
        (np.eye(2), 0.5, {}, TypeError, "start_states must be integer"),
        (np.eye(2), 0, {"n_steps": -1}, ValueError, "n_steps must be at least 0; got -1"),
        (np.eye(2), 0, {"rng": -1}, ValueError, "rng must be a non-negative seed; got -1"),
        (np.eye(2), 0, {"rng": 0.5}, TypeError, "rng must be an int"),
        (np.eye(2), 0, {"out": np.empty((1, 3))}, TypeError, "out must be an array of int16"),
    ],
)
def test_simulation_refuses(P, start, options, error, message):
    with pytest.raises(error, match=message):
        simulate_chain(P, start, **{"n_steps": 2, **options})


def test_rows_too_long_for_the_tables_are_refused():
    n = 2**15 + 1
    dense_row = scipy.sparse.coo_array(
        (np.full(n, 1 / n), (np.zeros(n, int), np.arange(n))), (n, n)
    )
    rest = scipy.sparse.diags_array(np.r_[0.0, np.ones(n - 1)])
    with pytest.raises(ValueError, match="P must have at most 32768 entries a row; got 32769"):
        simulate_chain(dense_row + rest, 0, n_steps=1)
