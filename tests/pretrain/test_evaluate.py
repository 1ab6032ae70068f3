"""The evaluation: its truths are true, its baselines what they say."""

import numpy as np
import pytest

from sgdmc.pretrain.card import check_targets
from sgdmc.pretrain.evalsets import FAMILIES, fresh_chain, fresh_series, uniform_chain
from sgdmc.pretrain.evaluate import (
    _bayes_row,
    format_table,
    model_kernel,
    score_recorded,
    summarise,
)


@pytest.mark.parametrize("family", FAMILIES)
def test_truth_predicts_the_series(family):
    rng = np.random.default_rng(5)
    gaps, variances = [], []
    for _ in range(4):
        series = fresh_series(rng, family, 300)
        assert np.allclose(series.truth.sum(axis=1), 1.0)
        assert series.states.min() >= 0
        assert series.states.max() <= 999
        bins = series.states // 10
        rows = series.truth[bins[:-1]]
        cdf = np.cumsum(rows, axis=1)
        nxt = bins[1:]
        at = cdf[np.arange(len(nxt)), nxt]
        rank = at - rng.random(len(nxt)) * rows[np.arange(len(nxt)), nxt]
        gaps.append(rank.mean() - 0.5)
        variances.append(rank.var() / len(rank))
    # Ranks of a Markov chain's next states are uniform. A bin is not a point, so the true law
    # given the bin is an average: the mean rank is right, up to where in the bin the path was.
    assert abs(np.mean(gaps)) < 4 * np.sqrt(np.mean(variances) / 4) + 0.04


def test_a_fresh_family_must_be_known():
    with pytest.raises(ValueError, match="family must be one of"):
        fresh_series(np.random.default_rng(0), "cubic", 100)


def test_regenerated_chains_follow_the_published_recipe():
    P, path = uniform_chain(1, 4, 20)
    assert P.sum(axis=1) == pytest.approx(np.ones(4))
    assert "".join(map(str, path)) == "01311331333000301313"


def test_bayes_beats_fixed_pseudo_counts_on_its_own_prior():
    rng = np.random.default_rng(1)
    losses = np.zeros(3)
    for _ in range(300):
        P, path = fresh_chain(rng, 30)
        n = len(P)
        counts = np.zeros((n, n))
        np.add.at(counts, (path[:-1], path[1:]), 1.0)
        state = path[-1]
        seen = counts[state]
        rows = (
            _bayes_row(counts, state),
            (seen + 0.5) / (seen.sum() + n / 2),
            (seen + 1) / (seen.sum() + n),
        )
        p = np.maximum(P[state], 1e-300)
        losses += [(p * np.log(p / q)).sum() for q in rows]
    assert losses[0] < losses[1] < losses[2]


def test_recorded_figures_of_counting_are_found_again():
    scores = score_recorded("shipped", n_series=10)
    half = [np.mean(v) for v in scores["counts + ½"].values()]
    one = [np.mean(v) for v in scores["counts + 1"].values()]
    assert half == pytest.approx([0.0567, 0.0465, 0.0251, 0.0092, 0.0028, 0.0012], abs=6e-5)
    assert one == pytest.approx([0.0519, 0.0390, 0.0216, 0.0087, 0.0028, 0.0012], abs=6e-5)


def test_summary_and_table():
    cells = {"model": {"10": [1.0, 2.0, 3.0]}, "counts": {"10": [4.0, 4.0, 4.0]}}
    summary = summarise(cells, seed=0)
    assert summary["model"]["10"]["mean"] == 2.0
    assert 1.0 <= summary["model"]["10"]["low"] < 2.0 < summary["model"]["10"]["high"] <= 3.0
    text = format_table({"tables": {"a, KL (columns: x)": summary, "a, TV (columns: x)": summary}})
    assert "| counts | 4.0000 [4.0000, 4.0000] |" in text
    assert "TV" not in format_table({"tables": {"a, TV (columns: x)": summary}}, everything=False)


def test_targets_are_judged():
    def row(figures):
        return {"model": {c: {"mean": v} for c, v in figures.items()}}

    result = {
        "tables": {
            "common sgd, KL (columns: states shown)": row({"30": 0.35, "100": 0.3, "200": 0.5})
        }
    }
    assert [entry[-1] for entry in check_targets(result)] == ["reached", "met", "missed"]
    (table,) = result["tables"].values()
    table |= {"model, mirrored and squeezed": row({"30": 0.1, "100": 0.1, "200": 0.1})["model"]}
    assert {entry[-1] for entry in check_targets(result)} == {"reached"}


def test_squeezed_readings_are_the_same_law_on_the_same_bins():
    rng = np.random.default_rng(4)
    states = np.clip(500 + np.cumsum(rng.normal(0, 30, 120)), 300, 700).astype(np.int64)
    plain = model_kernel("shipped", states)
    squeezed = model_kernel("shipped", states, mirror=True, squeeze=0.75)
    assert plain.shape == squeezed.shape == (100, 100)
    assert np.allclose(squeezed.sum(axis=1), 1.0)
    seen = np.unique(states // 10)
    means = [rows[seen] @ np.arange(100) for rows in (plain, squeezed)]
    # Two readings of one kernel: their means agree to a fraction of a step's width of three bins.
    assert np.abs(means[0] - means[1]).mean() < 1.0
