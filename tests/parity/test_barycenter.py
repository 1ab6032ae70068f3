"""Barycenters: the three backends agree."""

import numpy as np
import pytest

from sgdmc._core import BACKENDS, backend

OTHERS = ["cpp", "numba"]


def problems(n, seed):
    rng = np.random.default_rng(seed)
    states = np.arange(n)
    rows = [np.exp(-((states - m * n) ** 2) / (2 * (0.06 * n) ** 2)) for m in (0.3, 0.5, 0.7)]
    rows += [rng.dirichlet(np.ones(n)), np.full(n, 1.0)]
    rows = np.array(rows)
    rows /= rows.sum(axis=1, keepdims=True)
    members = rng.integers(0, 5, (11, 3))
    weights = rng.dirichlet(np.ones(3), 11)
    weights[0] = [0.5, 0.5, 0]
    return rows, members, weights


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("n", [1, 3, 50, 97])
@pytest.mark.parametrize("debiased", [True, False])
@pytest.mark.parametrize("reg", [1e-1, 1e-2])
def test_iterates_are_equal(name, n, debiased, reg):
    rows, members, weights = problems(n, n)
    expected = backend("numpy").sinkhorn_barycenters(
        rows, members, weights, reg, debiased, 1e-300, 25, 1
    )
    found = backend(name).sinkhorn_barycenters(rows, members, weights, reg, debiased, 1e-300, 25, 2)
    np.testing.assert_allclose(found[0], expected[0], atol=1e-11)
    np.testing.assert_allclose(found[2], expected[2], atol=1e-10)


@pytest.mark.parametrize("name", OTHERS)
def test_a_narrow_gibbs_kernel_and_its_tails(name):
    rows, members, weights = problems(60, 0)
    rows[0] = np.eye(60)[2]
    arguments = (rows, members[:4], weights[:4], 1e-4, True, 1e-300, 10)
    expected = backend("numpy").sinkhorn_barycenters(*arguments, 1)
    found = backend(name).sinkhorn_barycenters(*arguments, 1)
    np.testing.assert_allclose(found[0], expected[0], atol=1e-5)


@pytest.mark.parametrize("name", BACKENDS)
def test_stops_at_the_same_iteration(name):
    rows, members, weights = problems(64, 1)
    arguments = (rows, members, weights, 1e-2, True, 1e-3, 500)
    expected = backend("numpy").sinkhorn_barycenters(*arguments, 1)
    found = backend(name).sinkhorn_barycenters(*arguments, 1)
    assert (found[1] == expected[1]).all()


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("n", [1, 2, 50, 333])
def test_quantile_barycenters_are_equal(name, n):
    rows, members, weights = problems(n, 2)
    rows[0] = np.eye(n)[n // 2]
    expected = backend("numpy").quantile_barycenters(rows, members, weights)
    found = backend(name).quantile_barycenters(rows, members, weights)
    np.testing.assert_allclose(found, expected, atol=1e-13)


def test_the_compiled_kernel_refuses_what_it_could_not_read():
    rows, members, weights = problems(5, 0)
    native = backend("cpp")
    with pytest.raises(ValueError, match="a member is no histogram"):
        native.sinkhorn_barycenters(rows, members + 9, weights, 0.1, True, 1e-3, 5, 1)
    with pytest.raises(ValueError, match="shapes do not fit"):
        native.quantile_barycenters(rows, members, weights[:2])
