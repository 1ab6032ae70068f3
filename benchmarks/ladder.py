"""Where does a forecast lose? ``python -m benchmarks.ladder``: W1 down a ladder of kernels.

Each rung gives up one thing more: SGD itself with other seeds; its exact kernel on the product
grid (discretisation); exact rows, one coordinate at a time, in the language model's coordinates
and under the occupation of the forecasts' own paths (coupling); exact rows of the states that were
observed, the others completed (completion and choice of the observed paths); rows read off the
model, each coordinate held to its own observed steps (estimation), and as they were read. Last, the
default, whose means follow one field of all coordinates instead. Writes ``results/ladder.json``.
"""

from __future__ import annotations

import argparse
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.watched import write_result
from numpy.typing import NDArray

from sgdmc import estimate_kernel, run_sgd
from sgdmc.chain.kernel import Kernel
from sgdmc.forecasting.coupling import choose_field
from sgdmc.forecasting.estimate import complete_kernel, recalibrate_kernel
from sgdmc.forecasting.exact import exact_kernel
from sgdmc.forecasting.families import FAMILIES, Task, make_task
from sgdmc.forecasting.scores import score_samples

RUNGS = (
    "SGD itself, other seeds",
    "exact joint kernel, 100 bins",
    "exact rows, a coordinate at a time",
    "exact rows where observed, completed",
    "LLM, a coordinate at a time",
    "LLM, as read",
    "LLM",
)
_TRUTH, _CHAINS, _REPLICAS = 100, 200, 50

Array = NDArray[np.float64]


def _exact_rows(task: Task, kernel: Kernel, at: Array) -> Kernel:
    """Put rows that SGD itself makes from points (m, dim) in the place of a kernel's own."""
    after = run_sgd(
        task.problem,
        np.repeat(at, _REPLICAS, axis=0),
        step_size=task.step_size,
        batch_size=task.batch_size,
        n_steps=kernel.lag,
        thin=kernel.lag,
        rng=17,
    ).iterates[:, -1]
    here = kernel.grid.encode(kernel.coordinates.forward(at))
    there = kernel.grid.encode(kernel.coordinates.forward(after)).reshape(len(at), _REPLICAS, -1)
    n, blocks = kernel.n_states, []
    for i in range(kernel.dim):
        pairs = here[:, None, i].astype(np.int64) * n + there[:, :, i]
        counts = np.bincount(pairs.ravel(), minlength=n * n).reshape(n, n).astype(np.float64)
        blocks.append(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1.0))
    rows = np.stack(blocks)
    filled = replace(kernel, blocks=rows, observed=rows.sum(axis=2) > 0)
    return complete_kernel(filled, completion="barycenter")


def climb(task: Task, *, n_runs: int, n_starts: int, seed: int) -> dict[int, dict[str, float]]:
    """W1/range of every rung at each horizon of one problem."""
    rng = np.random.default_rng([seed, list(FAMILIES).index(task.family), task.index, n_runs, 1])
    options: dict[str, Any] = {"step_size": task.step_size, "batch_size": task.batch_size}
    run = run_sgd(
        task.problem, task.starts(n_runs, rng), n_steps=task.observed_steps, rng=rng, **options
    )
    starts = task.starts(n_starts, rng)
    repeated = np.repeat(starts, _TRUTH, axis=0)
    scale = np.ptp(np.concatenate([run.values, starts]), axis=0)
    found: dict[int, dict[str, float]] = {}
    for horizon in task.horizons:
        real = [
            run_sgd(task.problem, repeated, n_steps=horizon, rng=rng, **options).iterates
            for _ in range(2)
        ]
        truth, again = (r[:, -1].reshape(n_starts, _TRUTH, -1) for r in real)
        read = estimate_kernel(
            run, completion="probe", recalibrate=False, cover=starts, horizon=horizon
        )
        assert isinstance(read, Kernel)  # rows as they are read are not held to a field
        lag = read.lag
        observed = np.concatenate([p[: max(1, len(p) - lag)] for p in run.paths])
        ahead = real[1][:, :: max(1, lag // 2)].reshape(-1, task.problem.dim)
        ahead = ahead[rng.permutation(len(ahead))[:20_000]]
        kernels: dict[str, Any] = {
            RUNGS[2]: _exact_rows(task, read, ahead),
            RUNGS[3]: _exact_rows(task, read, observed[rng.permutation(len(observed))[:20_000]]),
            RUNGS[4]: complete_kernel(recalibrate_kernel(read), completion="barycenter"),
            RUNGS[5]: complete_kernel(read, completion="barycenter"),
            RUNGS[6]: complete_kernel(
                recalibrate_kernel(read, field=choose_field(run.paths)), completion="barycenter"
            ),
        }
        if task.problem.dim == 2:
            kernels[RUNGS[1]] = exact_kernel(
                task.problem, run, lag=lag, points_per_cell=4, cover=starts, **options
            )
        draws = {
            name: kernel.advance(
                starts, n_steps=horizon, n_chains=_CHAINS, rng=np.random.default_rng(task.index)
            )
            for name, kernel in kernels.items()
        }
        draws[RUNGS[0]] = again
        found[horizon] = {
            name: score_samples(name, draw, truth, scale=scale).w1 for name, draw in draws.items()
        }
    return found


def main() -> None:
    """Print the table and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--families", nargs="+", default=["F1", "F2", "F2b", "F3", "F5", "F7"])
    parser.add_argument("--problems", type=int, default=5)
    parser.add_argument("--runs", type=int, nargs="+", default=[1, 3, 10])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results/ladder.json")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    began = time.monotonic()
    table = []
    for family in options.families:
        for n_runs in options.runs:
            problems = [
                climb(make_task(family, index, seed=2), n_runs=n_runs, n_starts=40, seed=2)
                for index in range(options.problems)
            ]
            for horizon in problems[0]:
                rungs = {
                    name: float(np.mean([p[horizon][name] for p in problems if name in p[horizon]]))
                    for name in RUNGS
                    if any(name in p[horizon] for p in problems)
                }
                table.append({"family": family, "runs": n_runs, "horizon": horizon, "W1": rungs})
                shown = "  ".join(f"{v:.4f}" for v in rungs.values())
                print(f"{family:4s} m={n_runs:<3d} T={horizon:<5d} {shown}", flush=True)
    families, runs = " ".join(options.families), " ".join(map(str, options.runs))
    asked = f"--families {families} --problems {options.problems} --runs {runs}"
    write_result(options.out, f"python -m benchmarks.ladder {asked}", began, rungs=table)


if __name__ == "__main__":
    main()
