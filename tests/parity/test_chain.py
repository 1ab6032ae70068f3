"""Finite chains: the three backends agree exactly."""

import numpy as np
import pytest
import scipy.sparse

from sgdmc._core import BACKENDS, backend
from sgdmc.chain.transitions import count_transitions, simulate_chain

OTHERS = ["cpp", "numba"]


def random_chain(n, seed=0, concentration=0.3):
    return np.random.default_rng(seed).dirichlet(np.full(n, concentration), size=n)


def banded_chain(n):
    rng = np.random.default_rng(n)
    P = scipy.sparse.diags_array(
        [rng.random(n - 1), 0.1 + rng.random(n), rng.random(n - 1)], offsets=[-1, 0, 1]
    ).tocsr()
    return scipy.sparse.diags_array(1 / np.asarray(P.sum(axis=1)).ravel()) @ P


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("n", [1, 2, 5, 64, 301])
def test_alias_tables_are_equal(name, n):
    rng = np.random.default_rng(n)
    none = np.empty(0, np.int64)
    for P in (random_chain(n), np.eye(n), np.full((n, n), 1 / n), rng.permutation(np.eye(n))):
        expected, table = np.zeros((2, n * n), np.uint64)
        assert backend("numpy").alias_tables(P.ravel(), none, n, 1e-6, expected)
        assert backend(name).alias_tables(P.ravel(), none, n, 1e-6, table, 2)
        assert np.array_equal(table, expected)


@pytest.mark.parametrize("name", list(BACKENDS))
@pytest.mark.parametrize("n", [2, 5, 70])
@pytest.mark.parametrize("fault", [np.nan, np.inf, -0.25, 0.25])
def test_rows_that_are_no_laws_have_no_tables(name, n, fault):
    P = random_chain(n)
    P[n // 2, -1] = fault if fault != 0.25 else P[n // 2, -1] + 2e-6
    if fault < 0:
        P[n // 2, 0] += 1 - P[n // 2].sum()
    none, table = np.empty(0, np.int64), np.zeros(n * n, np.uint64)
    assert not backend(name).alias_tables(P.ravel(), none, n, 1e-6, table)


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("n", [1, 2, 5, 64, 301, 1030])
@pytest.mark.parametrize("n_chains", [1, 6, 33, 100])
def test_paths_are_equal(name, n, n_chains):
    P = random_chain(n)
    starts = np.arange(n_chains) % n
    expected = simulate_chain(P, starts, n_steps=150, rng=3, backend="numpy")
    paths = simulate_chain(P, starts, n_steps=150, rng=3, backend=name)
    assert paths.dtype == np.int16
    assert np.array_equal(paths, expected)


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("n", [2, 40_000])
def test_sparse_paths_are_equal(name, n):
    P = banded_chain(n)
    starts = np.linspace(0, n - 1, 37).astype(int)
    expected = simulate_chain(P, starts, n_steps=60, rng=3, backend="numpy")
    paths = simulate_chain(P, starts, n_steps=60, rng=3, backend=name)
    assert paths.dtype == (np.int16 if n == 2 else np.int32)
    assert np.array_equal(paths, expected)


@pytest.mark.parametrize("name", list(BACKENDS))
def test_paths_do_not_depend_on_threads_or_neighbours(name):
    P, starts = random_chain(9), np.arange(70) % 9
    many = simulate_chain(P, starts, n_steps=40, rng=1, backend=name, n_threads=1)
    assert np.array_equal(many, simulate_chain(P, starts, n_steps=40, rng=1, n_threads=3))
    few = simulate_chain(P, starts[:1], n_steps=40, rng=1, backend=name)
    assert np.array_equal(few, many[:1])


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.int32, np.int64])
@pytest.mark.parametrize(
    ("shape", "lag"), [((0,), 1), ((1,), 1), ((5000,), 3), ((7, 40), 1), ((2, 3), 5), ((0, 4), 1)]
)
@pytest.mark.parametrize("n", [1, 10, 100])
def test_counts_are_equal(name, dtype, shape, lag, n):
    states = np.random.default_rng(0).integers(0, n, size=shape).astype(dtype)
    expected = count_transitions(states, n_states=n, lag=lag, backend="numpy")
    assert np.array_equal(count_transitions(states, n_states=n, lag=lag, backend=name), expected)


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("n", [3, 40, 200])
@pytest.mark.parametrize(("length", "lag"), [(70_000, 1), (33_000, 20_000), (16_384, 16_383)])
def test_counts_of_long_paths_are_equal(name, n, length, lag):
    states = np.random.default_rng(0).integers(0, n, size=(3, length)).astype(np.int16)
    expected = count_transitions(states, n_states=n, lag=lag, backend="numpy")
    counts = count_transitions(states, n_states=n, lag=lag, backend=name, n_threads=2)
    assert np.array_equal(counts, expected)


@pytest.mark.parametrize("name", list(BACKENDS))
def test_strided_states(name):
    states = np.random.default_rng(0).integers(0, 5, size=(6, 200)).astype(np.int16)
    expected = count_transitions(states[::2, ::3].copy(), n_states=5)
    assert np.array_equal(count_transitions(states[::2, ::3], n_states=5, backend=name), expected)


@pytest.mark.parametrize("name", list(BACKENDS))
@pytest.mark.parametrize("where", [0, 16_383, 16_384, 49_999])
@pytest.mark.parametrize("value", [-1, 7])
def test_the_first_state_out_of_range_is_named(name, where, value):
    states = np.zeros(50_000, dtype=np.int32)
    states[[where, 49_999]] = value
    with pytest.raises(
        ValueError, match=rf"states must lie in 0 .. 6; got {value} at index {where}"
    ):
        count_transitions(states, n_states=7, backend=name, n_threads=2)
