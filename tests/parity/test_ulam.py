"""Ulam's method: the three backends agree exactly."""

import numpy as np
import pytest

from sgdmc._core import backend
from sgdmc.chain.grid import Grid
from sgdmc.sgd.exact import ulam_kernel
from sgdmc.sgd.problems import (
    make_least_squares,
    make_logistic_regression,
    make_sine_regression,
)

OTHERS = ["cpp", "numba"]


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("boundary", [0, 1, 2])
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_counts_are_equal(name, boundary, dim):
    rng = np.random.default_rng(dim)
    images = rng.normal(0.5, 0.6, (70, 37, dim))
    images[3, 4, 0] = np.inf
    images[5, 6, -1] = np.nan
    images[7, 8] = [[0.0, 1.0, -40.0]][0][:dim]
    weights = rng.integers(1, 5, 37).astype(float)
    low, scale = np.zeros(dim), np.full(dim, 10.0)
    arguments = (images, weights, low, scale, 10, boundary)
    expected = backend("numpy").ulam_count(*arguments, 1)
    found = backend(name).ulam_count(*arguments, 2)
    for a, b in zip(found, expected, strict=True):
        assert np.array_equal(a, b)


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("batch_size", [1, 2])
@pytest.mark.parametrize(
    "problem",
    [
        make_least_squares(n_samples=9, dim=2, rng=0),
        make_least_squares(n_samples=7, dim=1, rng=0),
        make_logistic_regression(n_samples=8, dim=2, l2=0.1, rng=1),
        make_sine_regression(n_samples=9, rng=2),
    ],
    ids=["least_squares", "line", "logistic", "sine"],
)
@pytest.mark.parametrize("boundary", ["outside", "reflect", "clip"])
def test_kernels_are_equal(name, batch_size, problem, boundary):
    values = np.random.default_rng(0).normal(size=(20, problem.dim))
    grid = Grid.fit(values, digits=1)
    options = {"step_size": 0.3, "batch_size": batch_size, "points_per_cell": 5}
    expected = ulam_kernel(problem, grid, backend="numpy", boundary=boundary, **options)
    found = ulam_kernel(problem, grid, backend=name, boundary=boundary, **options)
    assert np.array_equal(found.indptr, expected.indptr)
    assert np.array_equal(found.indices, expected.indices)
    assert np.array_equal(found.data, expected.data)


@pytest.mark.parametrize("name", OTHERS)
def test_sampled_paths_are_equal(name):
    problem = make_least_squares(n_samples=9, dim=2, rng=0)
    grid = Grid.fit(np.random.default_rng(0).normal(size=(20, 2)), digits=1)
    options = {"step_size": 0.1, "lag": 4, "paths_per_point": 3, "rng": 5}
    expected = ulam_kernel(problem, grid, backend="numpy", **options)
    found = ulam_kernel(problem, grid, backend=name, **options)
    assert (found != expected).nnz == 0


def test_the_compiled_kernel_refuses_what_it_could_not_read():
    native = backend("cpp")
    one = np.ones(1)
    with pytest.raises(ValueError, match="shapes do not fit"):
        native.ulam_count(np.ones((2, 3, 1)), np.ones(2), one, one, 10, 0, 1)
    with pytest.raises(ValueError, match="more than 2e9 cells"):
        native.ulam_count(np.ones((2, 3, 4)), np.ones(3), np.ones(4), np.ones(4), 1000, 0, 1)
    with pytest.raises(ValueError, match="names no sample"):
        native.ulam_step(
            "least_squares", np.ones((1, 2)), 0.0, 0.1, np.ones((1, 1)),
            np.array([[3]], dtype=np.uint32), one, one, one, 10, 0, 1,
        )  # fmt: skip
