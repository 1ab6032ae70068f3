"""Discretisation and digit text: the three backends agree exactly."""

import numpy as np
import pytest

from sgdmc._core import backend
from sgdmc.chain.grid import Grid

OTHERS = ["cpp", "numba"]


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("dim", [1, 2, 3, 5, 40])
@pytest.mark.parametrize("rows", [0, 1, 31, 32, 33, 70_001])
def test_states_are_equal(name, dim, rows):
    rows = min(rows, 140_000 // dim)
    rng = np.random.default_rng(dim)
    values = rng.normal(size=(rows, dim)) * 10.0 ** rng.integers(-3, 4, size=dim)
    grid = Grid.fit(rng.normal(size=(100, dim)), digits=3)
    assert np.array_equal(grid.encode(values, backend=name), grid.encode(values, backend="numpy"))


@pytest.mark.parametrize("name", OTHERS)
def test_edges_go_the_same_way(name):
    grid = Grid.fit([0.0, 0.7], digits=3)
    edges = grid.edges[0]
    near = np.concatenate([np.nextafter(edges, -9), edges, np.nextafter(edges, 9), [1e308, -1e308]])
    assert np.array_equal(grid.encode(near, backend=name), grid.encode(near, backend="numpy"))


@pytest.mark.parametrize("name", OTHERS)
def test_strided_and_float32_values(name):
    values = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32)[::3, ::2]
    grid = Grid.fit(values)
    expected = grid.encode(values.astype(np.float64), backend="numpy")
    assert np.array_equal(grid.encode(values, backend=name), expected)


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("dim", [1, 2, 3, 17])
def test_extremes_are_equal(name, dim):
    values = np.random.default_rng(dim).normal(size=(5001, dim))
    for part in (values, values[:1], values[:0]):
        low, high, bad = backend(name).min_max(part, 2)
        expected = backend("numpy").min_max(part)
        assert np.array_equal(low, expected[0])
        assert np.array_equal(high, expected[1])
        assert bad == expected[2] == -1


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", [0, 5, 40_000, 119_999])
def test_the_first_bad_entry_is_found(name, value, where):
    values = np.random.default_rng(0).normal(size=(60_000, 2))
    values.flat[where] = value
    values.flat[119_999] = value
    assert backend(name).min_max(values, 2)[2] == where
    out = np.empty(values.shape, np.int16)
    low, scale = np.full(2, -5.0), np.full(2, 10.0)
    assert backend(name).encode(values, low, scale, 100, out, 2) == where


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("digits", [1, 2, 3])
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_text_is_equal_both_ways(name, digits, dim):
    states = np.random.default_rng(0).integers(0, 10**digits, size=300).astype(np.int16)
    for part in (states, states[:0], states[:dim]):
        text, outside = backend(name).write_digits(part, digits, dim)
        assert (text, outside) == backend("numpy").write_digits(part, digits, dim)
        assert outside == -1
        back = np.zeros_like(part)
        assert backend(name).parse_digits(text, digits, dim, back) == -1
        assert np.array_equal(back, part)


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize(
    ("text", "where"),
    [("12,3a,", 4), ("12,34:", 5), ("12:34,", 2), ("/2,99,", 0), (":2,", 0), ("12,√4,", 3)],
)
def test_the_first_misfit_is_found(name, text, where):
    out = np.zeros(len(text) // 3, np.int16)
    assert backend("numpy").parse_digits(text, 2, 1, out) == where
    assert backend(name).parse_digits(text, 2, 1, out) == where


@pytest.mark.parametrize("name", ["numpy", *OTHERS])
@pytest.mark.parametrize("digits", [1, 2, 3])
@pytest.mark.parametrize("wrong", [-1, 10])
def test_the_first_state_outside_is_found(name, digits, wrong):
    states = np.zeros(50, dtype=np.int16)
    states[[31, 40]] = wrong * 10 ** (digits - 1)
    assert backend(name).write_digits(states, digits, 1) == ("", 31)
