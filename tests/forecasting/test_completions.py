"""Completion on its own: exact rows masked and filled."""

import numpy as np

from sgdmc.forecasting.completions import completion_errors


def test_errors_grow_with_the_gap_and_the_entropic_barycenter_blurs():
    table = completion_errors(gaps=(3, 15), families=("F2",), n_problems=1, lag=10)
    assert {(r["gap"], r["completion"]) for r in table} == {
        (g, m)
        for g in (3, 15)
        for m in ("barycenter", "entropic", "increments", "quantiles", "nearest")
    }
    error = {(r["gap"], r["completion"]): r["W1 in bins"] for r in table}
    ratio = {(r["gap"], r["completion"]): r["sd ratio"] for r in table}
    assert error[15, "nearest"] > error[3, "nearest"] > error[3, "barycenter"]
    for gap in (3, 15):
        assert ratio[gap, "entropic"] > 1.2
        assert abs(ratio[gap, "barycenter"] - 1) < 0.05
        assert error[gap, "barycenter"] < 0.5 * error[gap, "entropic"]
    for r in table:
        assert r["low"] <= r["W1 in bins"] <= r["high"]
        assert np.isfinite([v for v in r.values() if not isinstance(v, str)]).all()
