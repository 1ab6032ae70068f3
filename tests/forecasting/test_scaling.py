"""In-context curves and power laws."""

from itertools import pairwise, product

import numpy as np
import pytest

from sgdmc.chain.distances import bhattacharyya, kl_divergence
from sgdmc.forecasting.scaling import (
    SMOOTHING,
    count_rows,
    expected_counting_loss,
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


@pytest.mark.parametrize("name", SMOOTHING)
def test_expected_loss_of_counting_is_the_sum_over_all_paths(name):
    P, pi = np.array([[0.9, 0.1], [0.3, 0.7]]), np.array([0.75, 0.25])
    alpha = SMOOTHING[name]
    for distance, measure in (("bhattacharyya", bhattacharyya), ("kl", kl_divergence)):
        for t in (1, 2, 3, 8):
            total = 0.0
            for path in product((0, 1), repeat=t):
                chance = pi[path[0]] * np.prod([P[a, b] for a, b in pairwise(path)])
                row = count_rows(path, n_states=2, alpha=alpha)[-1]
                total += chance * measure(P[path[-1]], row)
            found = expected_counting_loss(P, lengths=[t], alpha=alpha, distance=distance)
            np.testing.assert_allclose(found, [total], rtol=1e-12)


@pytest.mark.parametrize(("distance", "constant"), [("bhattacharyya", 1 / 4), ("kl", 1)])
def test_expected_loss_of_counting_tends_to_its_limit(distance, constant):
    for rho, ratio in ((0.5, 1.0), (1.0, 1.0), (0.9, 2.0), (1.9, 1.0)):
        P = two_state_chain(rho, ratio=ratio)
        losses = expected_counting_loss(P, lengths=[300, 1200], alpha=0.5, distance=distance)
        off = np.abs([300, 1200] * losses / constant - 1)
        assert off[1] < 0.02
        assert off[1] < off[0] / 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"P": np.eye(2)}, "P must have two states and no zero"),
        ({"P": np.full((3, 3), 1 / 3)}, "P must have two states and no zero"),
        ({"lengths": [0, 3]}, "lengths must be at least 1"),
        ({"alpha": 0.0}, "alpha must be positive; got 0.0"),
        ({"distance": "l2"}, "distance must be one of"),
    ],
)
def test_bad_expected_losses(given, message):
    options = {"P": two_state_chain(0.5), "lengths": [5], "alpha": 0.5, **given}
    with pytest.raises(ValueError, match=message):
        expected_counting_loss(options.pop("P"), **options)


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
