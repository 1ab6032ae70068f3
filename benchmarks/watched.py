"""One problem of a family, observed, and what came of it: what benchmarks of forecasts share."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgdmc import Run, run_sgd
from sgdmc.forecasting.families import FAMILIES, make_task
from sgdmc.forecasting.forecast import Forecaster
from sgdmc.forecasting.scores import score_samples
from sgdmc.show.versions import versions

_TRUTH, _CHAINS = 60, 200

Array = NDArray[np.float64]


def write_result(path: Path, command: str, began: float, **tables: Any) -> None:
    """Write what a command found since ``began`` (``time.monotonic``), with its versions."""
    content = {
        "command": command,
        "versions": versions(),
        "seconds": round(time.monotonic() - began, 1),
        **tables,
    }
    path.write_text(json.dumps(content, indent=2) + "\n")


@dataclass(frozen=True)
class Watched:
    """Runs that were seen, starts that were not, and where SGD really is from there."""

    run: Run
    starts: Array
    horizon: int
    truth: Array

    @classmethod
    def of(
        cls, family: str, index: int, *, n_runs: int, n_starts: int, seed: int, late: bool
    ) -> Watched:
        """Observe a problem, and run it from other starts to its first or last horizon."""
        task = make_task(family, index, seed=seed)
        rng = np.random.default_rng([seed, list(FAMILIES).index(family), index, n_runs])
        options = {"step_size": task.step_size, "batch_size": task.batch_size}
        run = run_sgd(
            task.problem, task.starts(n_runs, rng), n_steps=task.observed_steps, rng=rng, **options
        )
        starts, horizon = task.starts(n_starts, rng), task.horizons[-1 if late else 0]
        repeated = np.repeat(starts, _TRUTH, axis=0)
        ends = run_sgd(task.problem, repeated, n_steps=horizon, thin=horizon, rng=rng, **options)
        return cls(run, starts, horizon, ends.iterates[:, -1].reshape(n_starts, _TRUTH, -1))

    def w1(self, kernel: Forecaster, seed: int) -> float:
        """W1/range of a kernel's forecasts."""
        scale = np.ptp(np.concatenate([self.run.values, self.starts]), axis=0)
        draws = kernel.advance(
            self.starts, n_steps=self.horizon, n_chains=_CHAINS, rng=np.random.default_rng(seed)
        )
        return score_samples("", draws, self.truth, scale=scale).w1
