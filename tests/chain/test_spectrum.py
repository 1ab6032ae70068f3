"""Long-run quantities of finite chains, against hand-worked chains and high precision."""

import mpmath
import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.linalg import eigh_tridiagonal

from sgdmc.chain.absorption import absorption_probabilities
from sgdmc.chain.classes import communicating_classes, period
from sgdmc.chain.spectrum import (
    implied_timescales,
    mixing_time,
    relaxation_time,
    spectral_gap,
    stationary_distribution,
)


def exact_stationary(P):
    """State reduction in 60 digits, on the rows scaled to sum to one."""
    with mpmath.workdps(60):
        n = len(P)
        a = [[mpmath.mpf(float(x)) for x in row] for row in P]
        for k in range(n - 1, 0, -1):
            total = mpmath.fsum(a[k][:k])
            for i in range(k):
                a[i][k] /= total
                for j in range(k):
                    a[i][j] += a[i][k] * a[k][j]
        pi = [mpmath.mpf(1)]
        for k in range(1, n):
            pi.append(mpmath.fsum(pi[i] * a[i][k] for i in range(k)))
        total = mpmath.fsum(pi)
        return np.array([float(x / total) for x in pi])


def nearly_split(n, eps, rng):
    """Two blocks joined by probabilities of the order of `eps`, on a wide range of scales."""
    P = rng.random((n, n)) ** 6
    half = n // 2
    P[:half, half:] *= eps
    P[half:, :half] *= eps * rng.random((n - half, half)) ** 8
    return P / P.sum(axis=1, keepdims=True)


def birth_death(n, up, down):
    P = np.diag(np.full(n - 1, up), 1) + np.diag(np.full(n - 1, down), -1)
    return P + np.diag(1 - P.sum(axis=1))


@pytest.mark.parametrize("n", [2, 7, 40])
@pytest.mark.parametrize("eps", [1e-3, 1e-12, 1e-100, 1e-300])
def test_stationary_is_right_component_by_component(n, eps):
    P = nearly_split(n, eps, np.random.default_rng(n))
    expected = exact_stationary(P)
    for matrix in (P, sp.csr_array(P)):
        pi = stationary_distribution(matrix)
        assert pi.min() >= 0
        np.testing.assert_allclose(pi, expected, rtol=1e-12)


def test_stationary_of_a_steep_birth_death_chain_spans_all_doubles():
    n = 400
    pi = stationary_distribution(sp.csr_array(birth_death(n, 0.1, 0.8)))
    expected = np.array([float(mpmath.mpf(7) / 8 / mpmath.mpf(8) ** k) for k in range(n)])
    normal = expected > 1e-300
    np.testing.assert_allclose(pi[normal], expected[normal], rtol=1e-12)
    assert (pi[~normal] < 1e-299).all()
    up = stationary_distribution(sp.csr_array(birth_death(n, 0.8, 0.1)))
    np.testing.assert_allclose(up[::-1][normal], expected[normal], rtol=1e-12)


@pytest.mark.parametrize("width", [1, 5, 70])
def test_banded_and_dense_routes_agree(width):
    n = 300
    rng = np.random.default_rng(width)
    band = [rng.random(n) for _ in range(2 * width + 1)]
    P = sp.diags_array(band, offsets=range(-width, width + 1), shape=(n, n)).toarray()
    P /= P.sum(axis=1, keepdims=True)
    shuffled = rng.permutation(n)
    pi = stationary_distribution(P)
    np.testing.assert_allclose(stationary_distribution(sp.csr_array(P)), pi, rtol=1e-12)
    moved = sp.csr_array(P[shuffled][:, shuffled])
    np.testing.assert_allclose(stationary_distribution(moved), pi[shuffled], rtol=1e-12)
    np.testing.assert_allclose(pi @ P, pi, rtol=1e-12)


def test_threads_do_not_change_a_bit():
    P = nearly_split(500, 1e-5, np.random.default_rng(0))
    one = stationary_distribution(P, n_threads=1)
    assert (one == stationary_distribution(P, n_threads=3)).all()


@settings(max_examples=30, deadline=None)
@given(arrays(np.float64, (5, 5), elements=st.floats(0.01, 1)), st.permutations(range(5)))
def test_stationary_follows_a_renaming_of_states(weights, order):
    P = weights / weights.sum(axis=1, keepdims=True)
    pi = stationary_distribution(P)
    order = np.array(order)
    np.testing.assert_allclose(stationary_distribution(P[order][:, order]), pi[order], rtol=1e-13)
    np.testing.assert_allclose(pi @ P, pi, rtol=1e-13)
    assert abs(pi.sum() - 1) < 1e-15


def test_one_state_periodic_and_transient_chains_have_a_stationary_law():
    assert stationary_distribution([[1.0]]).tolist() == [1.0]
    assert stationary_distribution([[0.0, 1.0], [1.0, 0.0]]).tolist() == [0.5, 0.5]
    P = [[0.5, 0.0, 0.5], [0.0, 1.0, 0.0], [0.2, 0.3, 0.5]]
    for matrix in (P, sp.csr_array(P)):
        assert stationary_distribution(matrix).tolist() == [0.0, 1.0, 0.0]


def test_several_recurrent_classes_are_named():
    P = [[1.0, 0, 0, 0], [0, 0.5, 0.5, 0], [0, 0.5, 0.5, 0], [0.1, 0.2, 0.3, 0.4]]
    with pytest.raises(ValueError, match=r"one recurrent class; got 2: \{0\}, \{1, 2\}"):
        stationary_distribution(P)
    with pytest.raises(ValueError, match="one recurrent class; got 2"):
        spectral_gap(P)
    with pytest.raises(ValueError, match="one recurrent class; got 2"):
        period(sp.csr_array(P))


def test_ways_out_that_underflow_are_named():
    P = np.array([[1.0, 5e-324, 0], [0, 1.0, 5e-324], [5e-324, 0.0, 1.0]])
    pi = stationary_distribution(P)
    np.testing.assert_allclose(pi, 1 / 3, rtol=1e-12)
    chain = birth_death(4, 1e-200, 1e-200)
    chain[1, 0] = 0.0
    chain[3, 0] = 1e-200
    assert np.isfinite(stationary_distribution(chain)).all()


def test_not_a_transition_matrix():
    with pytest.raises(ValueError, match=r"rows that sum to 1; got 0.9 at row 1"):
        stationary_distribution([[0.5, 0.5], [0.4, 0.5]])
    with pytest.raises(ValueError, match=r"non-negative; got -0.5 at \(0, 0\)"):
        communicating_classes([[-0.5, 1.5], [0.5, 0.5]])
    with pytest.raises(ValueError, match="finite; got nan"):
        spectral_gap([[np.nan, 1.0], [0.5, 0.5]])


def test_a_band_that_does_not_fit_in_memory(monkeypatch):
    monkeypatch.setattr("sgdmc.chain.spectrum.MAX_BAND", 1000)
    with pytest.raises(MemoryError, match="a band of at most 1000 entries"):
        stationary_distribution(sp.csr_array(birth_death(50, 0.3, 0.3)))


def test_classes_and_period():
    P = np.zeros((6, 6))
    P[0, [1, 2]] = 0.5
    P[1, 2] = P[2, 1] = 1.0
    P[3, 4] = P[4, 5] = P[5, 3] = 1.0
    found = communicating_classes(P)
    assert [c.tolist() for c in found.classes] == [[0], [1, 2], [3, 4, 5]]
    assert found.recurrent.tolist() == [False, True, True]
    assert found.transient_states.tolist() == [0]
    assert not found.is_irreducible
    assert period(P[3:, 3:]) == 3
    assert period(P[:3, :3]) == 2
    assert communicating_classes(sp.eye_array(1)).is_irreducible
    assert communicating_classes(np.eye(2)).transient_states.tolist() == []


def test_periodic_chains_have_no_gap_and_say_why():
    cycle = np.roll(np.eye(3), 1, axis=1)
    with pytest.raises(ValueError, match=r"aperiodic; got period 3, with cyclic classes \{0\}, "):
        spectral_gap(cycle)
    with pytest.raises(ValueError, match="aperiodic; got period 2"):
        mixing_time([[0.0, 1.0], [1.0, 0.0]])
    with pytest.raises(ValueError, match="aperiodic"):
        relaxation_time(sp.csr_array(cycle))


@pytest.mark.parametrize("rho", [1e-6, 0.2, 1.0, 1.5, 1.9])
def test_two_state_chains(rho):
    p, q = 0.3 * rho, 0.7 * rho
    if p > 1 or q > 1:
        p = q = rho / 2
    P = np.array([[1 - p, p], [q, 1 - q]])
    gap = 1 - abs(1 - p - q)
    assert spectral_gap(P) == pytest.approx(gap, rel=1e-9, abs=1e-15)
    assert relaxation_time(P) == pytest.approx(1 / gap, rel=1e-9)
    timescale = 0.0 if rho == 1 else -5 / np.log(abs(1 - p - q))
    assert implied_timescales(P, lag=5)[0] == pytest.approx(timescale, rel=1e-8, abs=0.2)
    pi = stationary_distribution(P)
    steps = next(
        t for t in range(10**7) if max(1 - pi) * abs(1 - p - q) ** t <= 0.25
    ) if rho > 1e-3 else None  # fmt: skip
    if steps is not None:
        assert mixing_time(P) == steps


def lazy_cycle(n):
    i = np.arange(n)
    rows, columns = np.tile(i, 3), np.concatenate([i, (i + 1) % n, (i - 1) % n])
    return sp.csr_array((np.repeat([0.5, 0.25, 0.25], n), (rows, columns)), shape=(n, n))


@pytest.mark.parametrize("n", [100, 600, 5000])
def test_gap_of_the_lazy_walk_on_a_cycle(n):
    P = lazy_cycle(n)
    expected = np.sin(np.pi / n) ** 2
    assert spectral_gap(P) == pytest.approx(expected, rel=1e-9)
    if n == 100:
        assert spectral_gap(P.toarray()) == pytest.approx(expected, rel=1e-9)
    slowest = implied_timescales(P, k=4)
    assert slowest.shape == (4,)
    assert slowest[0] == pytest.approx(slowest[1], rel=1e-6)
    assert slowest[0] == pytest.approx(-1 / np.log1p(-expected), rel=1e-6)


def test_sparse_gap_is_right_where_it_is_tiny_and_where_minus_one_decides():
    n = 1000
    P = sp.csr_array(birth_death(n, 0.3, 0.3))
    P = sp.lil_array(P)
    P[499, 500], P[499, 499] = 1e-14, P[499, 499] + 0.3 - 1e-14
    P[500, 499], P[500, 500] = 1e-14, P[500, 500] + 0.3 - 1e-14
    assert spectral_gap(P) == pytest.approx(2 * 1e-14 / 500, rel=1e-6)
    flip = sp.csr_array(np.kron(np.eye(300), [[0.0, 1.0], [1.0, 0.0]]) * 0.999)
    mixed = sp.lil_array(flip)
    mixed[:, 0] = mixed[:, [0]].toarray() + 0.001
    assert spectral_gap(mixed) == pytest.approx(0.001, rel=1e-6)


def test_implied_timescales_of_classes_and_zeros():
    P = np.kron(np.eye(2), np.full((2, 2), 0.5))
    assert implied_timescales(P)[0] == np.inf
    assert implied_timescales(P)[1:] == pytest.approx([0.0, 0.0], abs=0.1)
    assert implied_timescales([[1.0]]).shape == (0,)
    with pytest.raises(ValueError, match="lag must be positive"):
        implied_timescales(P, lag=0)
    with pytest.raises(ValueError, match="k must be at most 3"):
        implied_timescales(P, k=4)


def test_mixing_time_by_definition():
    P = birth_death(12, 0.3, 0.2)
    pi = stationary_distribution(P)
    for eps in (0.9, 0.25, 0.01):
        power, t = np.eye(12), 0
        while 0.5 * np.abs(power - pi).sum(axis=1).max() > eps:
            power, t = power @ P, t + 1
        assert mixing_time(P, eps=eps) == t
    assert mixing_time([[1.0]]) == 0
    with pytest.raises(ValueError, match="eps must be below 1"):
        mixing_time(P, eps=1.5)
    with pytest.raises(ValueError, match="at most 5000 states"):
        mixing_time(
            sp.csr_array(
                sp.diags_array([0.5, 0.5], offsets=[0, 1], shape=(5001, 5001))
                + sp.coo_array(([0.5], ([5000], [0])), shape=(5001, 5001))
            )
        )


@pytest.mark.parametrize("p", [0.5, 0.3])
def test_gamblers_ruin(p):
    n = 12
    P = np.zeros((n, n))
    P[0, 0] = P[-1, -1] = 1
    for k in range(1, n - 1):
        P[k, k + 1], P[k, k - 1] = p, 1 - p
    r = (1 - p) / p
    k = np.arange(n)
    win = k / (n - 1) if p == 0.5 else (1 - r**k) / (1 - r ** (n - 1))
    for matrix in (P, sp.csr_array(P)):
        h = absorption_probabilities(matrix)
        np.testing.assert_allclose(h[:, 1], win, rtol=1e-12)
        np.testing.assert_allclose(h.sum(axis=1), 1, rtol=1e-14)


def test_absorption_in_chosen_sets():
    P = birth_death(5, 0.25, 0.25)
    h = absorption_probabilities(P, targets=[[0, 1], [4]])
    np.testing.assert_allclose(h[:, 0], [1, 1, 2 / 3, 1 / 3, 0], rtol=1e-13)
    assert absorption_probabilities(P, targets=[range(5)]).tolist() == [[1.0]] * 5


def test_absorption_keeps_tiny_probabilities():
    P = nearly_split(40, 1e-60, np.random.default_rng(3))
    h = absorption_probabilities(P, targets=[[0], [39]])
    with mpmath.workdps(200):
        A = mpmath.matrix(39 - 1, 38)
        b = mpmath.matrix(38, 1)
        exact = [[mpmath.mpf(float(x)) for x in row] for row in P]
        for i in range(38):
            total = mpmath.fsum(exact[i + 1])
            for j in range(38):
                A[i, j] = (i == j) - exact[i + 1][j + 1] / total
            b[i] = exact[i + 1][39] / total
        solved = mpmath.lu_solve(A, b)
        expected = np.array([float(x) for x in solved])
    np.testing.assert_allclose(h[1:39, 1], expected, rtol=1e-11)


def test_bad_targets():
    P = np.eye(4)
    P[3] = [0.25, 0.25, 0.5, 0]
    with pytest.raises(ValueError, match=r"reachable from every state; got none from \{2\}"):
        absorption_probabilities(P, targets=[[0], [1]])
    with pytest.raises(ValueError, match="disjoint; got state 1 in targets 0 and 1"):
        absorption_probabilities(P, targets=[[0, 1], [1]])
    with pytest.raises(ValueError, match=r"lie in \[0, 4\); got 9 in target 0"):
        absorption_probabilities(P, targets=[[9]])
    with pytest.raises(ValueError, match="no state in target 1"):
        absorption_probabilities(P, targets=[[0], []])
    with pytest.raises(ValueError, match="at least one set"):
        absorption_probabilities(P, targets=[])


@pytest.mark.parametrize("n", [550, 900])
@pytest.mark.parametrize("up", [0.4, 0.6])
def test_gap_of_a_walk_with_drift(n, up):
    """Eigenvalues 1 and ``2 sqrt(pq) cos(k π / n)``; stationary masses span a hundred decades."""
    p, q = up, 1 - up
    main = np.zeros(n)
    main[0], main[-1] = q, p
    P = sp.diags_array([np.full(n - 1, q), main, np.full(n - 1, p)], offsets=[-1, 0, 1]).tocsr()
    assert stationary_distribution(P).min() < 1e-90
    expected = 1 - 2 * np.sqrt(p * q) * np.cos(np.pi / n)
    assert spectral_gap(0.9 * P + 0.1 * sp.eye_array(n)) == pytest.approx(0.9 * expected, rel=1e-9)


@pytest.mark.parametrize("wells", [1, 2])
def test_gap_of_walks_down_hill(wells):
    """Symmetric after balancing: an eigenvalue solver for symmetric matrices knows the gap."""
    n = 700
    x = np.linspace(-1, 1, n)
    hill = 100 * x**2 if wells == 1 else 60 * (x**2 - 0.4) ** 2
    up = 0.3 * np.minimum(1, np.exp(hill[:-1] - hill[1:]))
    down = 0.3 * np.minimum(1, np.exp(hill[1:] - hill[:-1]))
    stay = 1 - np.append(up, 0) - np.append(0, down)
    P = sp.csr_array(sp.diags_array([down, stay, up], offsets=[-1, 0, 1]))
    assert stationary_distribution(P)[0] < 1e-8
    expected = 1 - eigh_tridiagonal(stay, np.sqrt(up * down), eigvals_only=True)[-2]
    assert spectral_gap(P) == pytest.approx(expected, rel=1e-7)


def test_gap_of_a_slow_rotation_beside_a_nearer_real_eigenvalue():
    """The real eigenvalue 0.995 is nearer to one than the pair of larger modulus."""
    m = 300
    turn = 0.5 * sp.eye_array(m) + 0.5 * sp.csr_array(np.roll(np.eye(m), 1, axis=1))
    swap = np.array([[0.9975, 0.0025], [0.0025, 0.9975]])
    P = sp.csr_array(sp.kron(turn, swap))
    assert spectral_gap(P) == pytest.approx(1 - np.cos(np.pi / m), rel=1e-8)


def test_duplicate_entries_and_64_bit_indices_of_a_sparse_chain():
    P = sp.csr_array(
        (np.array([0.4, 0.3, 0.3, 1.2, -0.2]), np.array([1, 0, 0, 0, 0]), np.array([0, 3, 5])),
        shape=(2, 2),
    )
    assert stationary_distribution(P).round(12).tolist() == [0.714285714286, 0.285714285714]
    wide = sp.csr_array(birth_death(9, 0.3, 0.3))
    wide.indices, wide.indptr = wide.indices.astype(np.int64), wide.indptr.astype(np.int64)
    np.testing.assert_allclose(stationary_distribution(wide), 1 / 9, rtol=1e-13)
    assert P.nnz == 5


def test_a_sparse_matrix_with_duplicates_in_any_order_stays_as_it_is():
    n = 600
    i = np.arange(n)
    columns = np.stack([(i + 1) % n, (i - 1) % n, (i - 1) % n, i], axis=1).ravel()
    parts = np.tile([0.5, 0.15, 0.1, 0.25], n), columns.astype(np.int32), np.arange(0, 4 * n + 1, 4)
    P = sp.csr_array(parts, shape=(n, n))
    before = P.data.copy(), P.indices.copy(), P.indptr.copy()
    assert stationary_distribution(P) == pytest.approx(np.full(n, 1 / n), rel=1e-12)
    spectral_gap(P)
    for old, new in zip(before, (P.data, P.indices, P.indptr), strict=True):
        assert np.array_equal(old, new)
