"""Rows moved along the line: means move exactly, mass stays, ends hold what passes them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sgdmc.chain.moves import interpolate_rows, move_rows, overlaps, rescale_rows


def _moved_by_hand(row, shift):
    n, whole = len(row), int(np.floor(shift))
    out = np.zeros(n)
    for move, share in ((whole, 1 - (shift - whole)), (whole + 1, shift - whole)):
        np.add.at(out, np.clip(np.arange(n) + move, 0, n - 1), share * np.asarray(row))
    return out


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.floats(-60, 60))
def test_moves_are_those_made_by_hand(seed, shift):
    rows = np.random.default_rng(seed).dirichlet(np.full(25, 0.3), size=3)
    shifts = np.array([shift, -shift, 0.0])
    expected = np.stack([_moved_by_hand(r, s) for r, s in zip(rows, shifts, strict=True)])
    np.testing.assert_allclose(move_rows(rows, shifts), expected, atol=1e-14)


def test_inside_the_line_the_mean_moves_exactly():
    rows = np.zeros((1, 100))
    rows[0, 40:60] = np.random.default_rng(0).dirichlet(np.ones(20))
    states = np.arange(100)
    moved = move_rows(rows, [7.3])
    assert (moved @ states - rows @ states).item() == pytest.approx(7.3, abs=1e-12)
    variance = (moved @ states**2 - (moved @ states) ** 2).item()
    before = (rows @ states**2 - (rows @ states) ** 2).item()
    assert 0 < variance - before <= 0.25 + 1e-9


def test_rows_between_known_ones_have_means_on_the_line_between():
    n = 200
    states = np.arange(n)
    at = np.array([20, 60, 150])
    rows = np.zeros((3, n))
    for row, s in zip(rows, at, strict=True):
        centre = 100 + (s - 100) // 2
        row[centre - 3 : centre + 4] = 1 / 7
    filled = interpolate_rows(rows, at)
    np.testing.assert_allclose(filled[at], rows, atol=1e-15)
    inside = np.arange(20, 151)
    expected = np.interp(inside, at, rows @ states)
    np.testing.assert_allclose((filled @ states)[inside], expected, atol=1e-9)
    np.testing.assert_allclose(filled.sum(axis=1), 1.0, atol=1e-12)


@pytest.mark.parametrize("factor", [0.3, 0.8, 1.0, 1.7])
def test_stretched_rows_keep_their_mean_and_scale_their_spread(factor):
    rows = np.zeros((1, 300))
    rows[0, 120:180] = np.random.default_rng(5).dirichlet(np.full(60, 5.0))
    positions = np.arange(300) + 0.5

    def moments(r):
        mean = (r @ positions).item()
        return mean, (r @ positions**2).item() - mean**2 + 1 / 12

    mean, variance = moments(rows)
    scaled_mean, scaled = moments(rescale_rows(rows, [factor]))
    assert scaled_mean == pytest.approx(mean, abs=0.02)
    assert scaled == pytest.approx(factor**2 * variance, rel=0.02)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 12))
def test_overlaps_are_those_of_the_intervals(seed, m, n):
    rng = np.random.default_rng(seed)
    edges, targets = np.cumsum(rng.uniform(0.1, 1, m + 1)), np.cumsum(rng.uniform(0.1, 1, n + 1))
    share = overlaps(edges, targets).toarray()
    ends = targets.copy()
    ends[0], ends[-1] = min(edges[0], targets[0]), max(edges[-1], targets[-1])
    for i in range(m):
        for j in range(n):
            length = min(edges[i + 1], ends[j + 1]) - max(edges[i], ends[j])
            assert share[i, j] == pytest.approx(max(length, 0) / (edges[i + 1] - edges[i]))
    np.testing.assert_allclose(share.sum(axis=1), 1.0, atol=1e-12)
