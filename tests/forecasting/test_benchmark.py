"""The benchmark: deterministic, resumable, honest about its arithmetic."""

import json

import numpy as np
import pytest

from sgdmc.forecasting.baselines import TRIVIAL
from sgdmc.forecasting.benchmark import REFERENCE, Plan, run_benchmark, run_task, summarise
from sgdmc.forecasting.families import FAMILIES, make_task

SMALL = Plan(
    families=("F1", "F6"),
    n_problems=2,
    n_starts=6,
    n_truth=20,
    n_chains=40,
    n_runs=(1,),
    methods=("var1", "ar1", "exact kernel"),
)


@pytest.mark.parametrize("family", FAMILIES)
def test_tasks_are_functions_of_their_names(family):
    one, two = make_task(family, 3), make_task(family, 3)
    theta = np.ones(one.problem.dim)
    np.testing.assert_array_equal(one.problem.gradient(theta), two.problem.gradient(theta))
    other = make_task(family, 4)
    assert other.problem.dim != one.problem.dim or not np.array_equal(
        one.problem.gradient(theta), other.problem.gradient(theta)
    )
    assert max(one.horizons) <= one.n_steps
    starts = one.starts(5, np.random.default_rng(0))
    assert ((starts >= one.low) & (starts <= one.high)).all()


def test_bad_tasks():
    with pytest.raises(ValueError, match="family must be one of"):
        make_task("F9", 0)
    with pytest.raises(ValueError, match="index must be at least 0"):
        make_task("F1", -1)


def test_records_hold_every_forecast():
    records = run_task(SMALL, "F1", 0, 1)
    assert {r["method"] for r in records} == {REFERENCE, *TRIVIAL, *SMALL.methods}
    by_name = {r["method"]: r for r in records}
    assert by_name[REFERENCE]["w1"] < by_name["stays where it starts"]["w1"]
    assert all(np.isfinite(r["w1"]) and 0 <= r["cover90"] <= 1 for r in records)
    assert records == run_task(SMALL, "F1", 0, 1)


def test_what_is_known_of_the_loss_helps_where_there_are_basins():
    plan = Plan(n_starts=20, n_truth=20, n_chains=40, methods=("LLM", "LLM, told whether convex"))
    by_name = {r["method"]: r for r in run_task(plan, "F4", 0, 1) if r["horizon"] == 200}
    told, untold = (by_name[name] for name in reversed(plan.methods))
    # One run, one basin: a parabola throws every start to its minimum.
    assert untold["w1"] > 1.2 * by_name["stays where it starts"]["w1"]
    assert told["w1"] < 0.8 * untold["w1"]
    assert told["interval90"] < untold["interval90"]
    assert plan.methods[1] not in {r["method"] for r in run_task(plan, "F6", 0, 1)}


def test_what_is_known_of_the_loss_narrows_intervals_where_it_is_convex():
    plan = Plan(n_starts=10, n_truth=20, n_chains=64, methods=("LLM", "LLM, told whether convex"))
    by_name = {r["method"]: r for r in run_task(plan, "F1", 0, 1)}
    told, untold = (by_name[name] for name in reversed(plan.methods))
    assert told["w1"] == untold["w1"]
    assert told["width90"] < 0.5 * untold["width90"]


def test_a_killed_benchmark_resumes(tmp_path):
    seen = []
    whole = run_benchmark(SMALL, tmp_path, n_jobs=1, on_done=lambda *a: seen.append(a))
    assert seen[0] == (0, 4)
    assert seen[-1] == (4, 4)
    (tmp_path / "tasks" / "F6-001-m1.json").unlink()
    (tmp_path / "tasks" / "F6-000-m1.tmp").write_text("[{")  # killed while writing
    seen.clear()
    again = run_benchmark(SMALL, tmp_path, n_jobs=1, on_done=lambda *a: seen.append(a))
    assert again == whole
    assert seen == [(3, 4), (4, 4)]
    other = Plan(**{**SMALL.__dict__, "n_starts": 7})
    with pytest.raises(ValueError, match=r"tasks of the same plan; got others in \['n_starts'\]"):
        run_benchmark(other, tmp_path, n_jobs=1)


def test_two_processes_give_the_same(tmp_path):
    plan = Plan(**{**SMALL.__dict__, "families": ("F6",)})
    one = run_benchmark(plan, tmp_path / "one", n_jobs=1)
    two = run_benchmark(plan, tmp_path / "two", n_jobs=2)
    assert json.dumps(one) == json.dumps(two)


def test_skill_by_hand():
    def record(problem, method, w1, crps=0.1):
        return {
            "family": "F1",
            "problem": problem,
            "runs": 1,
            "horizon": 10,
            "method": method,
            "w1": w1,
            "crps": crps,
            "cover50": 0.5,
            "cover90": 0.9,
            "width90": 0.2,
            "interval90": 0.3,
            "basin_accuracy": None,
            "brier": None,
        }

    records = []
    for problem in range(4):
        records += [
            record(problem, "stays where it starts", 0.4),
            record(problem, "tail of the run", 0.2, 0.16),
            record(problem, "LLM", 0.05, 0.08),
        ]
    cells = {c.method: c for c in summarise(records)}
    assert cells["LLM"].skill == pytest.approx(0.75)
    assert cells["LLM"].skill_interval == (pytest.approx(0.75), pytest.approx(0.75))
    assert cells["tail of the run"].skill == 0.0
    assert cells["stays where it starts"].skill == pytest.approx(-1.0)
    assert cells["LLM"].best_trivial == "tail of the run"
    # By the CRPS another trivial forecast is best.
    assert cells["LLM"].crps_skill == pytest.approx(0.2)
    assert cells["LLM"].crps_skill_interval == (pytest.approx(0.2), pytest.approx(0.2))
    assert cells["stays where it starts"].crps_skill == 0.0


def test_the_best_trivial_forecast_has_no_skill_to_the_last_bit():
    rng = np.random.default_rng(0)
    same = dict.fromkeys(("cover50", "cover90", "width90", "interval90"), 0.5)
    none = dict.fromkeys(("basin_accuracy", "brier"))
    where = {"family": "F1", "runs": 1, "horizon": 10}
    for _ in range(20):
        records = [
            {**where, **same, **none, "problem": k, "method": method, "w1": w, "crps": w}
            for method in ("tail of the run", "analogue")
            for k, w in enumerate(rng.random(20))
        ]
        best = max(summarise(records, n_bootstrap=2), key=lambda c: c.skill)
        assert (best.method, best.skill, best.crps_skill) == (best.best_trivial, 0.0, 0.0)
