"""The forecasting benchmark: every method × family × number of observed runs, beside trivial ones.

``skill = 1 − score / best trivial score``, with bootstrap intervals over problems. Tasks are
independent, go through joblib, and each finished one is a file: a killed benchmark resumes.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgdmc._core import validate
from sgdmc.forecasting.baselines import TRIVIAL, trivial_forecasts
from sgdmc.forecasting.families import FAMILIES, Task, make_task
from sgdmc.forecasting.methods import METHODS, Bench
from sgdmc.forecasting.predictive import predictive_draws
from sgdmc.forecasting.scores import score_samples
from sgdmc.sgd.simulate import run_sgd

__all__ = ["METHODS", "Cell", "Plan", "run_benchmark", "run_task", "summarise"]

Array = NDArray[np.float64]

REFERENCE = "SGD itself, other seeds"
# Starts, and chains a start, of the joint kernel, each step of which is a reading.
_JOINT_STARTS, _JOINT_CHAINS = 15, 24


@dataclass(frozen=True)
class Plan:
    """What a benchmark runs.

    Attributes
    ----------
    families : tuple of str
    n_problems, n_starts, n_truth, n_chains : int
        Problems a family, unseen starts a problem, real runs and draws a start.
    n_runs : tuple of int
        Numbers of observed runs.
    methods : tuple of str
        Keys of :data:`METHODS`.
    model : str
        For the methods that read a language model.
    seed : int
    """

    families: tuple[str, ...] = tuple(FAMILIES)
    n_problems: int = 20
    n_starts: int = 60
    n_truth: int = 100
    n_chains: int = 200
    n_runs: tuple[int, ...] = (1, 3, 10)
    methods: tuple[str, ...] = ()
    model: str = "shipped"
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be run.

        Raises
        ------
        TypeError
            If a number is not an integer.
        ValueError
            If a number is below 1, the seed below 0, or a family or method unknown.
        """
        for name in ("n_problems", "n_starts", "n_truth", "n_chains"):
            validate.as_int(name, getattr(self, name), minimum=1)
        for count in self.n_runs:
            validate.as_int("n_runs", count, minimum=1)
        validate.as_int("seed", self.seed, minimum=0)
        for name, known in (("families", FAMILIES), ("methods", METHODS)):
            unknown = [g for g in getattr(self, name) if g not in known]
            if unknown:
                raise ValueError(f"{name} must be among {tuple(known)}; got {unknown}.")

    def jobs(self) -> list[tuple[str, int, int]]:
        """List the tasks: (family, problem, number of observed runs)."""
        return [
            (family, index, m)
            for index in range(self.n_problems)
            for family in self.families
            for m in self.n_runs
        ]

    @property
    def chosen(self) -> tuple[str, ...]:
        """The methods to run, all of them if none was named."""
        return self.methods or tuple(METHODS)


def run_task(plan: Plan, family: str, index: int, n_runs: int) -> list[dict[str, Any]]:
    """Run one task: observe, estimate with every method, forecast, score.

    Returns
    -------
    list of dict
        One record a method and horizon: family, problem, runs, horizon, method and scores.
    """
    task = make_task(family, index, seed=plan.seed)
    rng = np.random.default_rng([plan.seed, list(FAMILIES).index(family), index, n_runs, 1])
    run = run_sgd(
        task.problem,
        task.starts(n_runs, rng),
        step_size=task.step_size,
        batch_size=task.batch_size,
        n_steps=task.observed_steps,
        rng=int(rng.integers(2**32)),
    )
    starts = task.starts(plan.n_starts, rng)
    both = [_outcomes(task, starts, plan.n_truth, int(rng.integers(2**32))) for _ in range(2)]
    scale = np.ptp(np.concatenate([run.values, starts]), axis=0)
    records = []
    for j, horizon in enumerate(task.horizons):
        truth, again = both[0][j], both[1][j]
        drawn: dict[str, Array] = {REFERENCE: again}
        drawn.update(
            trivial_forecasts(run.paths, starts, n_steps=horizon, n_chains=plan.n_chains, rng=rng)
        )
        spread: dict[str, Array] = {}
        bench = Bench(task, run, starts, horizon, plan.model)
        for name in plan.chosen:
            kernel = METHODS[name](bench)
            if kernel is None:
                continue
            joint = name.startswith("LLM joint")
            some = starts[:_JOINT_STARTS] if joint else starts
            drawn[name] = kernel.advance(
                some,
                n_steps=horizon,
                n_chains=min(_JOINT_CHAINS, plan.n_chains) if joint else plan.n_chains,
                rng=np.random.default_rng([plan.seed, index, horizon]),
            )
            spread[name] = predictive_draws(
                kernel, some, drawn[name], n_steps=horizon, seed=plan.seed + index
            )
        for name, draws in drawn.items():
            score = score_samples(
                name,
                draws,
                truth[: len(draws)],
                scale=scale,
                minima=task.minima,
                predictive=spread.get(name),
            )
            records.append(
                {
                    "family": family,
                    "problem": index,
                    "runs": n_runs,
                    "horizon": horizon,
                    "method": name,
                    "w1": score.w1,
                    "crps": score.crps,
                    "cover50": score.coverage50,
                    "cover90": score.coverage90,
                    "width90": score.width90,
                    "interval90": score.interval90,
                    "basin_accuracy": score.basin_accuracy,
                    "brier": score.brier,
                }
            )
    return records


def _outcomes(task: Task, starts: Array, n_truth: int, seed: int) -> list[Array]:
    """Real runs at each horizon: a list of (n_starts, n_truth, dim)."""
    repeated = np.repeat(starts, n_truth, axis=0)
    found, at = [], repeated
    rng = np.random.default_rng(seed)
    done = 0
    for horizon in task.horizons:
        at = run_sgd(
            task.problem,
            at,
            step_size=task.step_size,
            batch_size=task.batch_size,
            n_steps=horizon - done,
            thin=horizon - done,
            rng=int(rng.integers(2**32)),
        ).iterates[:, -1]
        done = horizon
        found.append(at.reshape(len(starts), n_truth, -1))
    return found


def run_benchmark(
    plan: Plan,
    out: Path,
    *,
    n_jobs: int = -1,
    on_done: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Run every task of a plan that ``out`` does not hold yet; return all records.

    Parameters
    ----------
    plan : Plan
    out : Path
        Folder of finished tasks, one JSON file each, written atomically.
    n_jobs : int
        For joblib; a ``joblib.parallel_config`` around the call chooses another backend.
    on_done : callable, optional
        Called with (finished, all) tasks.

    Raises
    ------
    ValueError
        If ``out`` holds tasks of another plan.
    """
    from joblib import Parallel, delayed

    folder = out / "tasks"
    folder.mkdir(parents=True, exist_ok=True)
    _same_plan(plan, out)
    jobs = plan.jobs()
    files = {job: folder / "{}-{:03d}-m{}.json".format(*job) for job in jobs}
    missing = [job for job in jobs if not files[job].exists()]
    done = len(jobs) - len(missing)
    if on_done:
        on_done(done, len(jobs))
    work = Parallel(n_jobs=n_jobs, return_as="generator_unordered")
    for job, records in work(delayed(_worker)(plan, job) for job in missing):
        _write(files[job], records)
        done += 1
        if on_done:
            on_done(done, len(jobs))
    return [record for job in jobs for record in json.loads(files[job].read_text())]


def _worker(plan: Plan, job: tuple[str, int, int]) -> tuple[Any, list[dict[str, Any]]]:
    """Run one task with one thread of each library: the tasks are the parallelism."""
    import torch

    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return job, run_task(plan, *job)


def _write(path: Path, content: Any) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content), encoding="utf-8")
    os.replace(temporary, path)


def _same_plan(plan: Plan, out: Path) -> None:
    """Let ``out`` hold tasks of one plan; more problems, families or runs may join them later."""
    path = out / "plan.json"
    mine = json.loads(json.dumps(plan.__dict__))
    if path.exists():
        theirs = json.loads(path.read_text())
        names = [k for k in mine if k not in ("families", "n_problems", "n_runs")]
        different = sorted(k for k in names if theirs.get(k) != mine[k])
        if different:
            raise ValueError(
                f"out must hold tasks of the same plan; got others in {different}. "
                "Choose another folder."
            )
    _write(path, mine)


@dataclass(frozen=True)
class Cell:
    """One method in one family, number of runs and horizon: means over problems.

    Attributes
    ----------
    score, skill : float
        ``W1/range`` and ``1 − score / best trivial score``.
    crps, crps_skill : float
        Likewise of the CRPS, that of the trivial forecast with the lowest.
    cover50, cover90, width90, interval90 : float
        As in :class:`sgdmc.forecasting.scores.Score`.
    skill_interval, crps_skill_interval : tuple of float
        95% bootstrap intervals over problems.
    best_trivial : str
        The trivial forecast with the lowest mean score in this cell.
    """

    family: str
    runs: int
    horizon: int
    method: str
    n_problems: int
    score: float
    crps: float
    cover50: float
    cover90: float
    width90: float
    interval90: float
    basin_accuracy: float | None
    brier: float | None
    skill: float
    skill_interval: tuple[float, float]
    best_trivial: str
    crps_skill: float
    crps_skill_interval: tuple[float, float]


def summarise(
    records: Iterable[Mapping[str, Any]], *, n_bootstrap: int = 1000, rng: int = 0
) -> list[Cell]:
    """Average records over problems, with skills and bootstrap intervals.

    The bootstrap resamples problems and chooses the best trivial forecast anew each time.
    """
    cells: dict[tuple[str, int, int], dict[str, list[Mapping[str, Any]]]] = {}
    for record in records:
        key = (record["family"], record["runs"], record["horizon"])
        cells.setdefault(key, {}).setdefault(record["method"], []).append(record)
    found = []
    for (family, runs, horizon), by_method in cells.items():
        trivial = [name for name in TRIVIAL if name in by_method]
        scores = {name: _column(rows, "w1") for name, rows in by_method.items()}
        crps = {name: _column(rows, "crps") for name, rows in by_method.items()}
        best = min(trivial, key=lambda name: float(scores[name].mean()))
        for name, rows in by_method.items():
            # A method that does not apply to every problem is compared on those where it does.
            pairs = [int(r["problem"]) for r in rows]
            where = {int(r["problem"]): k for k, r in enumerate(by_method[best])}
            picks = np.array([where[p] for p in pairs])
            (skill, interval), (crps_skill, crps_interval) = (
                _skill(of[name], np.stack([of[t][picks] for t in trivial]), n_bootstrap, rng)
                for of in (scores, crps)
            )
            found.append(
                Cell(
                    family,
                    runs,
                    horizon,
                    name,
                    len(rows),
                    float(scores[name].mean()),
                    float(crps[name].mean()),
                    float(_column(rows, "cover50").mean()),
                    float(_column(rows, "cover90").mean()),
                    float(_column(rows, "width90").mean()),
                    float(_column(rows, "interval90").mean()),
                    _maybe_mean(rows, "basin_accuracy"),
                    _maybe_mean(rows, "brier"),
                    skill,
                    interval,
                    best,
                    crps_skill,
                    crps_interval,
                )
            )
    return found


def _skill(
    score: Array, trivial: Array, n_bootstrap: int, seed: int
) -> tuple[float, tuple[float, float]]:
    rng = np.random.default_rng(seed)
    n = len(score)
    picks = np.concatenate([np.arange(n)[None], rng.integers(n, size=(n_bootstrap, n))])
    mine, *base = np.concatenate([score[None], trivial])[:, picks].mean(axis=2)
    best = np.min(base, axis=0)
    skill = 1 - np.divide(mine, best, out=np.ones_like(mine), where=best > 0)
    low, high = np.quantile(skill[1:], [0.025, 0.975])
    return float(skill[0]), (float(low), float(high))


def _column(rows: Sequence[Mapping[str, Any]], key: str) -> Array:
    return np.array([row[key] for row in rows], dtype=np.float64)


def _maybe_mean(rows: Sequence[Mapping[str, Any]], key: str) -> float | None:
    return None if rows[0][key] is None else float(_column(rows, key).mean())


def quick(plan: Plan) -> Plan:
    """Shrink a plan to seconds: two problems a family, few starts, one observed run."""
    return replace(plan, n_problems=2, n_starts=8, n_truth=20, n_chains=50, n_runs=(1,))
