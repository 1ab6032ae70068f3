"""Joint series of the evaluation: exact laws are exact, baselines what they say."""

import numpy as np
import pytest

from sgdmc.pretrain.evaljoint import (
    FLOOR,
    JOINT_FAMILIES,
    _gaussian_laws,
    _var_laws,
    fresh_joint,
    score_joint,
)


@pytest.mark.parametrize("family", JOINT_FAMILIES)
def test_draws_follow_the_kernel_that_made_the_series(family):
    rng = np.random.default_rng(3)
    ranks = []
    for _ in range(6):
        one = fresh_joint(rng, family, 150)
        assert one.states.shape == (150, 2)
        assert one.draws.shape == (150, 8, 2)
        assert one.states.min() >= 0
        assert one.states.max() <= 999
        assert one.surprise.min() >= 0
        following = one.states[1:, None]
        below = (one.draws[:-1] < following).sum(axis=1)
        ties = (one.draws[:-1] == following).sum(axis=1)
        ranks.append((below + rng.integers(ties + 1)) / 8)
    ranks = np.concatenate(ranks)
    # Given the present state, the next ranks uniformly among draws of it: deviation below .33.
    assert abs(ranks.mean() - 0.5) < 4 * 0.33 / np.sqrt(ranks.size)


def test_a_joint_family_must_be_known():
    with pytest.raises(ValueError, match="family must be one of"):
        fresh_joint(np.random.default_rng(0), "cubic", 50)


def test_gaussian_laws_are_the_chain_rule_over_bins():
    cov = np.array([[900.0, 500.0], [500.0, 1600.0]])
    centre = np.array([[480.0, 530.0]])
    bins = np.arange(0, 1000, 10)
    first = np.stack((bins, np.full(100, 500)), axis=1)[None]
    laws = _gaussian_laws(centre, cov, first, np.zeros(2), np.ones(2))
    assert laws[..., 0].sum() == pytest.approx(1.0)
    second = np.stack((np.full(100, 510), bins), axis=1)[None]
    laws = _gaussian_laws(centre, cov, second, np.zeros(2), np.ones(2))[0, :, 1]
    assert laws.sum() == pytest.approx(1.0)
    # E(y | x = 510.5) = 530 + 500/900 · 30.5
    rows = (laws - FLOOR / 100) / (1 - FLOOR)
    assert rows @ (bins + 5.0) == pytest.approx(530 + 500 / 900 * 30.5, abs=0.1)


def test_a_linear_fit_comes_near_the_exact_law_of_a_quadratic():
    rng = np.random.default_rng(1)
    gaps = []
    for _ in range(10):
        one = fresh_joint(rng, "quadratic", 400)
        laws = _var_laws(one.states, one.states[::10], one.draws[::10])
        gaps.append((-np.log(laws).sum(axis=2) - one.surprise[::10]).mean())
    # Nine parameters from 400 states: 9/800 nats, and the snapping.
    assert -0.02 < np.mean(gaps) < 0.06


def test_a_model_is_scored_beside_its_baselines():
    one = fresh_joint(np.random.default_rng(2), "least squares", 60)
    scores = score_joint("shipped", [one], lengths=(30, 50))
    rows = scores["fresh joint SGD"]
    assert set(rows) == {
        "model",
        "model, mirrored",
        "model, one coordinate at a time",
        "VAR(1)",
        "exact law",
    }
    for name, cells in rows.items():
        assert list(cells) == ["30", "50"]
        for values in cells.values():
            # Both coordinates spread evenly would score 2 log 100.
            assert 0 < values[0] < 2 * np.log(100), name
