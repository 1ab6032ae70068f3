"""Distances between laws, against numbers worked by hand and SciPy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import wasserstein_distance

from sgdmc.chain.distances import bhattacharyya, kl_divergence, total_variation, wasserstein1

DISTANCES = [total_variation, kl_divergence, bhattacharyya, wasserstein1]
laws = arrays(np.float64, 6, elements=st.floats(0.01, 1.0)).map(lambda v: v / v.sum())


def test_by_hand():
    p, q = [0.5, 0.25, 0.25], [0.25, 0.25, 0.5]
    assert total_variation(p, q) == pytest.approx(0.25)
    assert kl_divergence(p, q) == pytest.approx(0.5 * np.log(2) - 0.25 * np.log(2))
    assert bhattacharyya(p, q) == pytest.approx(-np.log(2 * np.sqrt(0.125) + 0.25))
    assert wasserstein1(p, q, width=1.0) == pytest.approx(0.5)


def test_disjoint_supports():
    p, q = [1.0, 0.0], [0.0, 1.0]
    assert kl_divergence(p, q) == np.inf
    assert bhattacharyya(p, q) == np.inf
    assert total_variation(p, q) == 1.0


@given(laws, laws)
def test_against_scipy_and_symmetry(p, q):
    states = np.arange(6)
    assert wasserstein1(p, q, width=1.0) == pytest.approx(
        wasserstein_distance(states, states, p, q), abs=1e-12
    )
    for distance in (total_variation, bhattacharyya, wasserstein1):
        assert distance(p, q) == pytest.approx(float(distance(q, p)), abs=1e-12)
    # Pinsker: TV² ≤ KL / 2; Bhattacharyya: BC ≤ KL / 2.
    assert total_variation(p, q) ** 2 <= kl_divergence(p, q) / 2 + 1e-12
    assert bhattacharyya(p, q) <= kl_divergence(p, q) / 2 + 1e-12


@pytest.mark.parametrize("distance", DISTANCES)
def test_broadcasts_and_vanishes_on_equal_laws(distance):
    p = np.array([[0.2, 0.8], [0.5, 0.5]])
    assert distance(p, p).shape == (2,)
    np.testing.assert_allclose(distance(p, p), 0.0, atol=1e-12)
    assert distance(p[:, None], p).shape == (2, 2)


@pytest.mark.parametrize("distance", DISTANCES)
def test_bad_laws_name_the_fault(distance):
    good = [0.5, 0.5]
    with pytest.raises(ValueError, match=r"p must be finite; got NaN at \(1,\)"):
        distance([1.0, np.nan], good)
    with pytest.raises(ValueError, match=r"q must be non-negative; got a value < 0 at \(0,\)"):
        distance(good, [-0.5, 1.5])
    with pytest.raises(ValueError, match=r"q must sum to one; got 0\.9"):
        distance(good, [0.4, 0.5])
    with pytest.raises(ValueError, match="q must have as many states as p; got 3 and 2"):
        distance(good, [0.2, 0.3, 0.5])
    with pytest.raises(ValueError, match="p must have at least one state"):
        distance([], [])
