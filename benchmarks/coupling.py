"""What if held-out steps chose the coupling? ``python -m benchmarks.coupling``: W1 of that choice.

Rows read off the language model are held to the steps of their own coordinate (``"blocks"``), of
VAR(1) eigen-coordinates (``"rotated"``), or to one field (``"field"``, which ``"auto"`` takes). The
one with the lowest energy score on held-out thirds is set beside each of them, at the first horizon
of problems of another seed than the stored benchmark's. Writes ``results/coupling.json``.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.watched import Watched, write_result
from joblib import Parallel, delayed

from sgdmc import Run, estimate_kernel
from sgdmc.forecasting.lag import choose_lag
from sgdmc.forecasting.select import choose_method

COUPLINGS = ("blocks", "rotated", "field")
CHOSEN = "chosen by held-out steps"
SEED = 5


def one(family: str, index: int, n_runs: int) -> tuple[str, dict[str, float]]:
    """Choose for one problem; return the choice and W1/range of every coupling."""
    import torch

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    seen = Watched.of(family, index, n_runs=n_runs, n_starts=40, seed=SEED, late=False)
    lag = choose_lag(seen.run, digits=3, horizon=seen.horizon)[0]

    def fit(part: Run, coupling: Any) -> Any:
        return estimate_kernel(part, coupling=coupling, lag=lag, cover=seen.starts)

    chosen = choose_method(seen.run, lag, fit, COUPLINGS)[0]
    return chosen, {c: seen.w1(fit(seen.run, c), index) for c in COUPLINGS}


def main() -> None:
    """Print the table and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--families", nargs="+", default=["F2", "F2b", "F3", "F4", "F5", "F7"])
    parser.add_argument("--problems", type=int, default=8)
    parser.add_argument("--runs", type=int, nargs="+", default=[1, 10])
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "results" / "coupling.json"
    )
    options = parser.parse_args()
    began = time.monotonic()
    rows = []
    for family in options.families:
        for m in options.runs:
            jobs = (delayed(one)(family, index, m) for index in range(options.problems))
            found = list(Parallel(n_jobs=-1)(jobs))
            w1 = {c: float(np.mean([scores[c] for _, scores in found])) for c in COUPLINGS}
            w1[CHOSEN] = float(np.mean([scores[name] for name, scores in found]))
            counts = Counter(name for name, _ in found)
            rows.append({"family": family, "runs": m, "W1": w1, "chosen": dict(counts)})
            shown = "  ".join(f"{name} {value:.4f}" for name, value in w1.items())
            print(f"{family:4s} m = {m:2d}  {shown}  {dict(counts)}", flush=True)
    families, runs = " ".join(options.families), " ".join(map(str, options.runs))
    asked = f"--families {families} --problems {options.problems} --runs {runs}"
    write_result(options.out, f"python -m benchmarks.coupling {asked}", began, rows=rows)


if __name__ == "__main__":
    main()
