"""In-context curves and power laws."""

import numpy as np
import pytest

from sgdmc.forecasting.scaling import (
    count_rows,
    fit_power_law,
    in_context_curve,
    two_state_chain,
)


def test_two_state_chains_have_the_gap_they_are_named_by():
    for rho in (0.05, 0.5, 1.0, 1.9):
        P = two_state_chain(rho)
        assert np.linalg.eigvals(P).min() == pytest.approx(1 - rho)
    P = two_state_chain(0.3, ratio=2.0)
    assert P[0, 1] == pytest.approx(0.2)
    assert P[1, 0] == pytest.approx(0.1)
    with pytest.raises(ValueError, match=r"rho must lie in \(0, 2\)"):
        two_state_chain(2.0)
    with pytest.raises(ValueError, match="rho and ratio must give probabilities"):
        two_state_chain(1.9, ratio=3.0)


def test_counted_rows_by_hand():
    rows = count_rows([0, 1, 0, 0], n_states=2, alpha=0.5)
    np.testing.assert_allclose(rows[0], [0.5, 0.5])
    np.testing.assert_allclose(rows[1], [0.5, 0.5])  # state 1 was never left
    np.testing.assert_allclose(rows[2], [0.25, 0.75])  # 0→1 once
    np.testing.assert_allclose(rows[3], [0.5, 0.5])  # 0→1, 0→0


def test_power_laws_are_found():
    t = np.geomspace(10, 1000, 8)
    law = fit_power_law(t, 2.0 * t**-0.7)
    assert (law.a, law.beta, law.floor) == (pytest.approx(2.0), pytest.approx(0.7), 0.0)
    np.testing.assert_allclose(law(t), 2.0 * t**-0.7)
    with_floor = fit_power_law(t, 2.0 * t**-0.9 + 0.01, floor=True)
    assert with_floor.beta == pytest.approx(0.9, rel=1e-3)
    assert with_floor.floor == pytest.approx(0.01, rel=1e-2)
    rng = np.random.default_rng(0)
    noisy = fit_power_law(t, 2.0 * t**-0.7 * np.exp(0.2 * rng.normal(size=(30, 8))))
    low, high = noisy.beta_interval
    assert low < 0.7 < high
    assert high - low < 0.2
    with pytest.raises(ValueError, match="lengths must have at least 3 entries"):
        fit_power_law([1, 2], [1.0, 0.5])
    with pytest.raises(ValueError, match="losses must have positive means"):
        fit_power_law([1, 2, 3], [1.0, 0.5, 0.0])


def test_curves_fall_with_context():
    lengths = [10, 30, 100, 300]
    curve = in_context_curve(
        two_state_chain(0.5), lengths=lengths, n_repeats=12, rng=0, distance="kl"
    )
    assert set(curve.losses) == {"llm", "counts", "Krichevsky–Trofimov", "Laplace"}
    for losses in curve.losses.values():
        assert losses.shape == (12, 4)
    for name in ("llm", "Laplace"):
        mean = curve.losses[name].mean(axis=0)
        assert mean[3] < mean[1] < mean[0]
    # Counting with ½ a cell costs about 1/(2 n_visits) nats a free parameter.
    assert curve.losses["Krichevsky–Trofimov"][:, 3].mean() == pytest.approx(1 / 300, rel=1.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lengths": [0]}, "lengths must be at least 1"),
        ({"lengths": [5], "distance": "l2"}, "distance must be one of"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        in_context_curve(two_state_chain(0.5), **options)
    with pytest.raises(ValueError, match="P must have 2 to 10 states"):
        in_context_curve(np.full((11, 11), 1 / 11), lengths=[5])
