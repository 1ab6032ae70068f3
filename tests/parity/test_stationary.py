"""State reduction: the three backends agree."""

import numpy as np
import pytest
import scipy.sparse as sp

from sgdmc._core import backend

OTHERS = ["cpp", "numba"]


def chain(n, lower, upper, seed=0):
    rng = np.random.default_rng(seed)
    P = np.triu(np.tril(rng.random((n, n)) ** 5, upper), -lower)
    return P / P.sum(axis=1, keepdims=True)


def csr(P):
    matrix = sp.csr_array(P)
    return matrix.data, matrix.indices.astype(np.int32), matrix.indptr.astype(np.int32)


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("n", [1, 2, 63, 64, 65, 129, 200])
def test_dense(name, n):
    P = chain(n, n, n, seed=n)
    expected, bad = backend("numpy").stationary_dense(P, 1)
    found, state = backend(name).stationary_dense(P, 2)
    assert bad == state == -1
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize(("lower", "upper"), [(1, 1), (2, 5), (3, 80), (64, 64), (90, 70)])
def test_banded(name, lower, upper):
    P = chain(230, lower, upper)
    expected, _ = backend("numpy").stationary_banded(*csr(P), lower, upper, 1)
    found, _ = backend(name).stationary_banded(*csr(P), lower, upper, 2)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("name", OTHERS)
def test_subnormal_entries(name):
    P = chain(80, 80, 80)
    P[:40, 40:] *= 1e-310
    P[40:, :40] *= 1e-305
    expected, _ = backend("numpy").stationary_dense(P, 1)
    found, _ = backend(name).stationary_dense(P, 1)
    np.testing.assert_allclose(found, expected, rtol=1e-3)  # a subnormal has few digits


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("keep", [1, 2, 70, 150])
def test_absorption(name, keep):
    P = chain(150, 150, 150)
    P[:keep] = np.eye(150)[:keep]
    expected, _ = backend("numpy").absorption_dense(P, keep, 1)
    found, _ = backend(name).absorption_dense(P, keep, 2)
    np.testing.assert_allclose(found, expected, rtol=1e-11)


@pytest.mark.parametrize("name", ["numpy", *OTHERS])
def test_states_without_a_way_down_are_reported(name):
    P = np.array([[0.5, 0.5, 0.0], [0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
    assert backend(name).stationary_dense(P, 1)[1] == 2
    assert backend(name).stationary_banded(*csr(P), 1, 1, 1)[1] == 2
    assert backend(name).absorption_dense(P, 2, 1)[1] == 2


@pytest.mark.parametrize("steep", [1.0, 1e-280])
def test_krylov_space_of_the_group_inverse(steep):
    P = chain(90, 3, 4) * 0.7 + 0.3 * np.eye(90)
    P[1:50, 0] += 1.0
    P[0, 1:50] *= steep
    P /= P.sum(axis=1, keepdims=True)
    start = np.cos(np.arange(90.0))
    arguments = (*csr(P), 50, 50, start, 12)
    expected, law, steps = backend("numpy").group_inverse_krylov(*arguments, lambda *_: False, 1)
    found, pi, done = backend("cpp").group_inverse_krylov(*arguments, lambda *_: False, 1)
    assert steps == done == 12
    np.testing.assert_allclose(pi, law, rtol=1e-11)
    np.testing.assert_allclose(found, expected, atol=1e-7 * np.abs(expected).max())
    for name in ("numpy", "cpp"):
        asked = []
        backend(name).group_inverse_krylov(*arguments[:-1], 30, lambda _, m: asked.append(m), 1)  # noqa: B023
        assert asked == [8, 12, 16, 24]
        assert backend(name).group_inverse_krylov(*arguments, lambda *_: True, 1)[2] == 8


def test_the_compiled_kernel_refuses_what_it_could_not_read():
    native = backend("cpp")
    data, columns, starts = csr(chain(9, 1, 1))
    with pytest.raises(ValueError, match="square"):
        native.stationary_dense(np.ones((2, 3)), 1)
    with pytest.raises(ValueError, match="no CSR matrix"):
        native.stationary_banded(data[:-1].copy(), columns, starts, 1, 1, 1)
    found, _ = native.stationary_banded(data, columns + 100, starts, 1, 1, 1)
    assert len(found) == 9
