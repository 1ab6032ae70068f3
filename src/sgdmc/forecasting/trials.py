"""Zero-shot randomised trials: the final losses of networks that were never trained, forecast.

Inside an affine subspace ``w = w_0 + A z`` of a network's parameters SGD is a Markov chain in
``z``. A few runs are observed, a kernel is estimated from them, and pushed forward from starts that
were never trained; the losses there are compared with those of really training from each start, and
with the answer that needs no kernel: the final losses of the observed runs and of a few more.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgdmc.forecasting.baselines import trivial_forecasts
from sgdmc.forecasting.estimate import estimate_kernel
from sgdmc.forecasting.predictive import predictive_draws
from sgdmc.forecasting.trial_report import (
    MORE_RUNS,
    REFERENCE,
    TrialRecord,
    TrialReport,
    TrialSpec,
)
from sgdmc.sgd.network import AffineSubspaceProblem, MLPProblem
from sgdmc.sgd.run import Run
from sgdmc.sgd.simulate import run_sgd

__all__ = ["make_trial_problem", "run_trials"]

Array = NDArray[np.float64]

NEAREST = "tail of the nearest run"
STAYS = "stays where it starts"
_N_SUBSETS = 400


def make_trial_problem(spec: TrialSpec, dim: int) -> AffineSubspaceProblem:
    """Lay a random subspace through a briefly trained network on scikit-learn's digits.

    Each direction is drawn like an initialisation: normal, a layer's weights with variance one over
    its inputs, biases zero. Pixels are centred and divided by 16.

    Parameters
    ----------
    spec : TrialSpec
    dim : int
        Dimension ``k`` of the subspace.

    Returns
    -------
    AffineSubspaceProblem

    References
    ----------
    .. [LFL18] Li, Farkhoor, Liu, Yosinski (2018). Measuring the intrinsic dimension of objective
       landscapes. ICLR. arXiv:1804.08838.
    .. [AGZ21] Aghajanyan, Gupta, Zettlemoyer (2021). Intrinsic dimensionality explains the
       effectiveness of language model fine-tuning. ACL. arXiv:2012.13255.
    """
    from sklearn.datasets import load_digits

    data = load_digits()
    network = MLPProblem((data.data - data.data.mean(axis=0)) / 16, data.target, hidden=spec.hidden)
    rng = np.random.default_rng([spec.seed, 0])
    origin = network.random_parameters(rng)
    if spec.pretraining:
        origin = run_sgd(
            network,
            origin,
            step_size=0.2,
            batch_size=16,
            n_steps=spec.pretraining,
            thin=spec.pretraining,
            rng=rng,
        ).iterates[0, -1]
    directions = network.random_parameters(np.random.default_rng([spec.seed, 1, dim]), size=dim)
    return AffineSubspaceProblem(network, origin, directions.T)


def run_trials(
    spec: TrialSpec,
    *,
    out: str | Path | None = None,
    on_done: Callable[[int, int], None] | None = None,
) -> TrialReport:
    """Forecast the final losses of training from starts that were never trained, and check them.

    Parameters
    ----------
    spec : TrialSpec
    out : path, optional
        Folder of finished tasks, each a file written atomically: a killed trial resumes there.
    on_done : callable, optional
        Called with (finished, all) tasks.

    Returns
    -------
    TrialReport

    Raises
    ------
    ValueError
        If `out` holds the tasks of another specification.

    Notes
    -----
    Everything but the seconds is a function of `spec` and the model. For each dimension
    ``n_starts + n_pool`` runs are trained, and ``n_starts`` once more with other seeds; the kernel
    sees `n_runs` of the pool's, and none of the starts that it forecasts.
    """
    folder = None if out is None else Path(out)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        _same_spec(spec, folder)
    jobs = spec.jobs()
    evidence: dict[int, _Evidence] = {}
    records: list[TrialRecord] = []
    for done, (dim, runs, repeat) in enumerate(jobs):
        if on_done:
            on_done(done, len(jobs))
        if dim not in evidence:
            evidence[dim] = _Evidence.load_or_make(spec, dim, folder)
        path = None if folder is None else folder / f"k{dim}-m{runs}-r{repeat}.json"
        if path is not None and path.exists():
            found = [TrialRecord(**r) for r in json.loads(path.read_text())["records"]]
        else:
            found = list(_judge(spec, evidence[dim], runs, repeat))
            if path is not None:
                content = {"versions": _versions(), "records": [asdict(r) for r in found]}
                _write(path, json.dumps(content).encode())
        records.extend(found)
    if on_done:
        on_done(len(jobs), len(jobs))
    return TrialReport(
        spec,
        tuple(records),
        {k: e.truth for k, e in evidence.items()},
        {k: e.start_losses for k, e in evidence.items()},
        {k: e.seconds * spec.n_starts / (spec.n_starts + spec.n_pool) for k, e in evidence.items()},
        {k: e.curve for k, e in evidence.items()},
    )


@dataclass(frozen=True)
class _Evidence:
    """Real runs in one subspace: the pool's iterates, and final losses of everything."""

    problem: AffineSubspaceProblem
    starts: Array  # (n_starts, k)
    start_losses: Array  # (n_starts,)
    truth: Array  # (n_starts,)
    again: Array  # (n_starts,)
    pool: Array  # (n_pool, n_steps + 1, k)
    pool_losses: Array  # (n_pool,)
    curve: Array  # (n_pool,)
    seconds: float

    @classmethod
    def load_or_make(cls, spec: TrialSpec, dim: int, folder: Path | None) -> _Evidence:
        problem = make_trial_problem(spec, dim)
        path = None if folder is None else folder / f"k{dim}-runs.npz"
        if path is not None and path.exists():
            with np.load(path, allow_pickle=False) as data:
                arrays = {name: data[name] for name in data}
            return cls(problem, seconds=float(arrays.pop("seconds")), **arrays)
        rng = np.random.default_rng([spec.seed, 2, dim])
        starts = spec.spread * rng.normal(size=(spec.n_starts, dim))
        others = spec.spread * rng.normal(size=(spec.n_pool, dim))
        options: dict[str, Any] = {
            "step_size": spec.step_size,
            "n_steps": spec.n_steps,
            "batch_size": spec.batch_size,
        }
        began = time.perf_counter()
        first = run_sgd(problem, np.concatenate([starts, others]), rng=rng, **options).iterates
        seconds = time.perf_counter() - began
        second = run_sgd(problem, starts, rng=rng, thin=spec.n_steps, **options).iterates
        truth = problem.loss(first[: spec.n_starts, -1])
        pool_losses = problem.loss(first[spec.n_starts :, -1])
        arrays = {
            "starts": starts,
            "start_losses": problem.loss(starts),
            "truth": truth,
            "again": problem.loss(second[:, -1]),
            "pool": first[spec.n_starts :],
            "pool_losses": pool_losses,
            "curve": _learning_curve(pool_losses, truth, rng),
        }
        if path is not None:
            temporary = path.with_name(f"{path.stem}.tmp.npz")
            np.savez(temporary, **arrays, seconds=np.array(seconds))
            os.replace(temporary, path)
        return cls(problem, **arrays, seconds=seconds)


def _learning_curve(losses: Array, truth: Array, rng: np.random.Generator) -> Array:
    """Mean W1 of random subsets of 1, 2, ... of `losses` against `truth`, shape (len(losses),)."""
    sizes = np.arange(1, len(losses) + 1)
    orders = [rng.permutation(losses) for _ in range(_N_SUBSETS)]
    return np.array([np.mean([_w1(order[:n], truth) for order in orders]) for n in sizes])


def _w1(first: Array, second: Array) -> float:
    """Wasserstein-1 distance of two samples, ``∫ |F − G|``."""
    from scipy.stats import wasserstein_distance

    return float(wasserstein_distance(first, second))


def _judge(spec: TrialSpec, evidence: _Evidence, runs: int, repeat: int) -> Iterator[TrialRecord]:
    """Every forecast of one task."""
    dim, problem = evidence.problem.dim, evidence.problem
    rng = np.random.default_rng([spec.seed, 3, dim, runs, repeat])
    order = rng.permutation(spec.n_pool)
    chosen = order[:runs]
    a_run = evidence.seconds / (spec.n_starts + spec.n_pool)
    names = tuple(f"z{j}" for j in range(dim))
    run = Run.from_paths(list(evidence.pool[chosen]), names=names)

    def record(
        name: str,
        losses: Array,
        n_runs: int,
        evaluated: int,
        seconds: float,
        predictive: Array | None = None,
    ) -> TrialRecord:
        return _record(
            spec,
            evidence,
            (dim, runs, repeat),
            name,
            losses,
            n_runs * spec.n_steps * spec.batch_size,
            evaluated * problem.n_samples,
            n_runs * a_run + seconds,
            losses if predictive is None else predictive,
        )

    for method in spec.methods:
        began = time.perf_counter()
        kernel = estimate_kernel(
            run,
            method=method,
            model=spec.model,
            coupling=spec.coupling,
            lag=spec.lag,
            completion="probe" if method == "llm" else "barycenter",
            cover=evidence.starts,
            horizon=spec.n_steps,
        )
        draws = kernel.advance(
            evidence.starts,
            n_steps=spec.n_steps,
            n_chains=spec.n_draws,
            rng=np.random.default_rng([spec.seed, 4, dim, runs, repeat]),
        )
        losses = problem.loss(draws)
        wider = predictive_draws(
            kernel, evidence.starts, draws, n_steps=spec.n_steps, seed=spec.seed
        )
        predictive = problem.loss(wider)
        took = time.perf_counter() - began
        yield record(method, losses, runs, 2 * losses.size, took, predictive)
    for more in MORE_RUNS:
        used = order[: runs + more]
        title = f"{more} more runs" if more else "the observed runs"
        yield record(title, evidence.pool_losses[used], len(used), len(used), 0.0)
    trivial = trivial_forecasts(
        run.paths, evidence.starts, n_steps=spec.n_steps, n_chains=spec.n_draws, rng=rng
    )
    began = time.perf_counter()
    nearest = problem.loss(trivial[NEAREST])
    yield record(NEAREST, nearest, runs, nearest.size, time.perf_counter() - began)
    yield record(STAYS, evidence.start_losses[:, None], 0, spec.n_starts, 0.0)
    yield record(REFERENCE, evidence.again[:, None], spec.n_starts, spec.n_starts, 0.0)


def _record(
    spec: TrialSpec,
    evidence: _Evidence,
    job: tuple[int, int, int],
    name: str,
    losses: Array,
    gradients: int,
    evaluations: int,
    seconds: float,
    predictive: Array,
) -> TrialRecord:
    from scipy.stats import spearmanr

    truth, pooled = evidence.truth, losses.ravel()
    w1 = _w1(pooled, truth)
    reached = np.flatnonzero(evidence.curve <= w1)
    coverage = correlation = None
    if losses.ndim == 2:
        # Of 19 draws the outermost ones are these quantiles, and not inside them.
        low, high = np.quantile(predictive, [0.05, 0.95], axis=1, method="weibull")
        coverage = float(((truth >= low) & (truth <= high)).mean()) if losses.shape[1] > 1 else None
        middle = np.median(losses, axis=1)
        correlation = float(spearmanr(middle, truth).statistic) if np.ptp(middle) > 0 else 0.0
    errors = np.quantile(pooled, [0.1, 0.9]) - np.quantile(truth, [0.1, 0.9])
    return TrialRecord(
        *job,
        forecast=name,
        w1=w1,
        mean_error=float(pooled.mean() - truth.mean()),
        q10_error=float(errors[0]),
        q90_error=float(errors[1]),
        coverage90=coverage,
        rank_correlation=correlation,
        worth_runs=int(reached[0]) + 1 if len(reached) else spec.n_pool,
        gradients=gradients,
        evaluations=evaluations,
        seconds=seconds,
        losses=losses.tolist(),
    )


def _versions() -> dict[str, str]:
    names = ("sgdmc", "numpy", "scipy", "torch", "transformers", "scikit-learn")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def _same_spec(spec: TrialSpec, folder: Path) -> None:
    path = folder / "spec.json"
    mine = json.loads(json.dumps(asdict(spec)))
    if not path.exists():
        _write(path, json.dumps(mine).encode())
        return
    theirs = json.loads(path.read_text())
    if theirs != mine:
        different = sorted(k for k in mine if theirs.get(k) != mine[k])
        raise ValueError(
            f"out must hold tasks of the same spec; got others in {different}. "
            "Choose another folder."
        )


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(content)
    os.replace(temporary, path)
