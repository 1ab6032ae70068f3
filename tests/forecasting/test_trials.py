"""Zero-shot randomised trials: deterministic, resumable, and honest about what they cost."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest

import sgdmc
from sgdmc.cli import main
from sgdmc.forecasting.trial_report import REFERENCE
from sgdmc.forecasting.trials import NEAREST, STAYS, make_trial_problem

SMALL = sgdmc.TrialSpec(
    dims=(2,),
    n_runs=(1, 3),
    hidden=4,
    pretraining=50,
    n_starts=12,
    n_pool=14,
    n_steps=60,
    n_draws=5,
    methods=("var1",),
)


@pytest.fixture(scope="module")
def report():
    return sgdmc.run_trials(SMALL)


def untimed(report):
    return [{k: v for k, v in asdict(r).items() if k != "seconds"} for r in report.records]


def test_records_hold_every_answer(report):
    names = ["var1", "the observed runs", "5 more runs", "10 more runs", NEAREST, STAYS, REFERENCE]
    assert [r.forecast for r in report.records] == 2 * names
    assert [r.runs for r in report.records] == [1] * 7 + [3] * 7
    by_name = {r.forecast: r for r in report.select(runs=3)}
    cost = SMALL.n_steps * SMALL.batch_size
    assert by_name["var1"].gradients == 3 * cost
    assert by_name["10 more runs"].gradients == 13 * cost
    assert by_name[STAYS].gradients == 0
    assert by_name[REFERENCE].gradients == 12 * cost
    assert by_name["var1"].evaluations == 2 * 12 * 5 * 1797
    assert by_name[REFERENCE].w1 < by_name[STAYS].w1
    assert by_name[REFERENCE].rank_correlation > 0.9
    assert 0 <= by_name["var1"].coverage90 <= 1
    assert by_name["5 more runs"].coverage90 is None
    assert {r["forecast"]: r["W1"] for r in report.rows() if r["observed"] == "3"} == {
        name: record.w1 for name, record in by_name.items()
    }


def test_scores_by_hand(report):
    truth = report.truth[2]
    for record in report.records:
        pooled = np.ravel(record.losses)
        assert record.mean_error == pytest.approx(pooled.mean() - truth.mean())
        points = np.sort(np.concatenate([pooled, truth]))
        gap = np.abs(
            np.searchsorted(np.sort(pooled), points[:-1], side="right") / len(pooled)
            - np.searchsorted(np.sort(truth), points[:-1], side="right") / len(truth)
        )
        assert record.w1 == pytest.approx(gap @ np.diff(points))
        if record.worth_runs < SMALL.n_pool:
            assert report.curve[2][record.worth_runs - 1] <= record.w1
    assert (np.diff(report.curve[2]) < 0).mean() > 0.7


def test_intervals_carry_what_the_kernel_leaves_open():
    spec = replace(
        SMALL, n_runs=(1,), n_starts=40, n_steps=150, n_draws=20, methods=("gradient-gp",)
    )
    report = sgdmc.run_trials(spec)
    record = report.records[0]
    # SGD's own noise is little of what one run leaves open.
    low, high = np.min(record.losses, axis=1), np.max(record.losses, axis=1)
    narrow = ((report.truth[2] >= low) & (report.truth[2] <= high)).mean()
    assert record.coverage90 >= 0.7
    assert narrow <= record.coverage90 - 0.2


def test_a_forecast_that_tells_no_start_apart():
    # With no spread worth the name, every start is the same, and staying there ranks nothing.
    spec = replace(SMALL, spread=1e-300, n_runs=(1,), methods=())
    [stays] = sgdmc.run_trials(spec).select(forecast=STAYS)
    assert stays.rank_correlation == 0.0


def test_the_truth_is_what_sgd_does(report):
    problem = make_trial_problem(SMALL, 2)
    assert problem.dim == 2
    starts = SMALL.spread * np.random.default_rng([SMALL.seed, 2, 2]).normal(size=(12, 2))
    np.testing.assert_allclose(problem.loss(starts), report.start_losses[2])
    runs = sgdmc.run_sgd(problem, starts, step_size=0.01, n_steps=60, batch_size=8, rng=9)
    assert np.corrcoef(problem.loss(runs.iterates[:, -1]), report.truth[2])[0, 1] > 0.9


def test_killed_trials_resume(report, tmp_path):
    seen = []
    whole = sgdmc.run_trials(SMALL, out=tmp_path, on_done=lambda *a: seen.append(a))
    assert seen == [(0, 2), (1, 2), (2, 2)]
    assert untimed(whole) == untimed(report)
    written = json.loads((tmp_path / "k2-m3-r0.json").read_text())
    assert written["versions"]["sgdmc"] == sgdmc.__version__
    (tmp_path / "k2-m3-r0.json").unlink()
    (tmp_path / "k2-m3-r0.tmp").write_text("{")  # killed while writing
    again = sgdmc.run_trials(SMALL, out=tmp_path)
    assert untimed(again) == untimed(whole)
    assert again.records[0] == whole.records[0]  # read, not computed: seconds included
    with pytest.raises(ValueError, match=r"tasks of the same spec; got others in \['n_steps'\]"):
        sgdmc.run_trials(replace(SMALL, n_steps=61), out=tmp_path)


def test_language_model():
    spec = replace(SMALL, dims=(1,), n_runs=(3,), methods=("llm",), n_steps=40)
    record = sgdmc.run_trials(spec).records[0]
    assert record.forecast == "llm"
    assert np.shape(record.losses) == (12, 5)
    assert np.isfinite(record.w1)


@pytest.mark.parametrize(
    ("field", "value"),
    [("dims", (6,)), ("n_runs", (11,)), ("n_pool", 12), ("methods", ("oracle",)), ("spread", 0.0)],
)
def test_bad_specifications(field, value):
    with pytest.raises(ValueError, match=f"{field} must"):
        replace(SMALL, **{field: value})


def test_command_line(tmp_path, capsys):
    arguments = ["trials", "--out", str(tmp_path), "--dims", "2", "--runs", "3"]
    arguments += ["--starts", "6", "--steps", "40", "--methods", "var1,knn"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "training them all, other seeds" in printed
    header, *rows = (tmp_path / "trials.csv").read_text().splitlines()
    assert header.startswith("k,observed,forecast,W1")
    assert len(rows) == 8
    assert main([*arguments, "--seed", "1"]) == 2
    assert "tasks of the same spec; got others in ['seed']" in capsys.readouterr().err
