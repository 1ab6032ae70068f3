"""Is the chosen lag good? ``python -m benchmarks.lag``: W1 with it beside W1 with fixed lags.

For every family the forecast with ``lag="auto"`` is compared with half, a quarter, twice and four
times as many SGD steps a kernel step, on the same problems. Writes ``results/lag.json``.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path

import numpy as np
from benchmarks.watched import Watched, write_result

from sgdmc import estimate_kernel
from sgdmc.forecasting.families import FAMILIES

FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)


def family_errors(family: str, *, n_problems: int, n_runs: int, seed: int) -> dict[float, float]:
    """Mean W1/range of one family at its last horizon, by multiple of the chosen lag."""
    found: dict[float, list[float]] = {factor: [] for factor in FACTORS}
    for index in range(n_problems):
        seen = Watched.of(family, index, n_runs=n_runs, n_starts=30, seed=seed, late=True)
        chosen = None
        for factor in (1.0, *(f for f in FACTORS if f != 1.0)):
            lag = "auto" if chosen is None else max(1, round(factor * chosen))
            if chosen is not None and lag >= min(seen.horizon, seen.run.n_steps):
                continue
            kernel = estimate_kernel(seen.run, lag=lag, cover=seen.starts, horizon=seen.horizon)
            chosen = chosen or kernel.lag
            found[factor].append(seen.w1(kernel, index))
    return {f: float(np.mean(v)) for f, v in found.items() if len(v) == n_problems}


def main() -> None:
    """Print the table and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=8)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "lag.json")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    began = time.monotonic()
    table = {}
    for family in FAMILIES:
        errors = family_errors(family, n_problems=options.problems, n_runs=options.runs, seed=1)
        ratio = errors[1.0] / min(errors.values())
        table[family] = {"W1": {str(f): e for f, e in errors.items()}, "auto over best": ratio}
        shown = "  ".join(f"×{f:g} {e:.4f}" for f, e in errors.items())
        print(f"{family:4s} {shown}  auto / best {ratio:.2f}", flush=True)
    command = f"python -m benchmarks.lag --problems {options.problems} --runs {options.runs}"
    write_result(options.out, command, began, families=table)


if __name__ == "__main__":
    main()
