"""The demonstration: four problems from one observed run each to forecasts and their scores."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sgdmc.chain.kernel import Kernel
from sgdmc.forecasting.estimate import estimate_kernel
from sgdmc.forecasting.exact import exact_kernel
from sgdmc.forecasting.forecast import Forecast, StartOutsideWarning, forecast
from sgdmc.forecasting.held import FieldKernel
from sgdmc.forecasting.scores import ScoreTable, score_forecast
from sgdmc.sgd.problems import (
    LeastSquares,
    Problem,
    make_least_squares,
    make_sine_regression,
)
from sgdmc.sgd.run import Run
from sgdmc.sgd.simulate import run_sgd
from sgdmc.show.plots import plot_forecast, plot_kernel, plot_run, save_figure
from sgdmc.show.report import Report
from sgdmc.show.versions import versions

__all__ = ["DEMO_CASES", "DemoCase", "DemoResult", "diabetes_problem", "run_case", "run_demo"]

_N_STARTS = 60
_N_TRUTH = 200
_N_CHAINS = 1000


@dataclass(frozen=True)
class DemoCase:
    """One problem of the demonstration.

    Attributes
    ----------
    key, title : str
    problem : callable
        Makes the problem.
    step_size : float
    n_steps : int
        Length of the observed run and horizon of the forecasts.
    start : tuple of float
        Where the observed run begins.
    low, high : tuple of float
        Box of the unseen starts.
    """

    key: str
    title: str
    problem: Callable[[], Problem]
    step_size: float
    n_steps: int
    start: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True)
class DemoResult:
    """What one case came to."""

    case: DemoCase
    run: Run
    kernel: Kernel | FieldKernel
    forecast: Forecast
    truth: NDArray[np.float64]
    table: ScoreTable
    seconds: float


def diabetes_problem() -> LeastSquares:
    """Least squares on scikit-learn's diabetes set: standardised bmi and s5 against the target."""
    from sklearn.datasets import load_diabetes

    data = load_diabetes()
    columns = [data.feature_names.index(name) for name in ("bmi", "s5")]
    features = data.data[:, columns]
    features = (features - features.mean(axis=0)) / features.std(axis=0)
    target = (data.target - data.target.mean()) / data.target.std()
    return LeastSquares(features, target)


DEMO_CASES: tuple[DemoCase, ...] = (
    DemoCase(
        "least-squares",
        "Least squares, d = 2, N = 100, noisy targets (under-parameterised)",
        lambda: make_least_squares(n_samples=100, dim=2, noise=0.5, rng=0),
        0.02,
        1000,
        (3.0, -2.5),
        (-4.0, -4.0),
        (4.0, 4.0),
    ),
    DemoCase(
        "least-squares-noiseless",
        "Least squares, d = 2, N = 100, noiseless targets (interpolation)",
        lambda: make_least_squares(n_samples=100, dim=2, noise=0.0, rng=1),
        0.02,
        1000,
        (3.0, -2.5),
        (-4.0, -4.0),
        (4.0, 4.0),
    ),
    DemoCase(
        "sine",
        "Sine regression, ½(θ0 sin(θ1 x) − y)², N = 100 (non-convex)",
        lambda: make_sine_regression(n_samples=100, noise=0.1, rng=0),
        0.02,
        2000,
        (2.0, 2.2),
        (-2.5, -2.5),
        (2.5, 2.5),
    ),
    DemoCase(
        "diabetes",
        "Least squares on scikit-learn's diabetes set, bmi and s5",
        diabetes_problem,
        0.02,
        1000,
        (2.5, -2.0),
        (-3.0, -3.0),
        (3.0, 3.0),
    ),
)


def run_case(case: DemoCase, *, model: str = "shipped", seed: int = 0) -> DemoResult:
    """Observe one run, estimate kernels, forecast from unseen starts, compare with real runs.

    Parameters
    ----------
    case : DemoCase
    model : str
        As in :func:`sgdmc.estimate_kernel`.
    seed : int
        Covers every draw.
    """
    began = time.perf_counter()
    problem = case.problem()
    rng = np.random.default_rng([seed, len(case.key)])
    run = run_sgd(
        problem,
        np.array(case.start),
        step_size=case.step_size,
        n_steps=case.n_steps,
        rng=int(rng.integers(2**32)),
    )
    starts = rng.uniform(case.low, case.high, size=(_N_STARTS, problem.dim))
    truth, again = (_ends(problem, starts, case, int(rng.integers(2**32))) for _ in range(2))
    kernels: dict[str, Kernel | FieldKernel] = {}
    for name, method in (
        ("LLM (shipped)", "llm"),
        ("counts", "counts"),
        ("Dirichlet", "dirichlet"),
    ):
        label = name if model == "shipped" or method != "llm" else f"LLM ({model})"
        kernel = estimate_kernel(run, method=method, model=model, cover=starts)
        assert isinstance(kernel, Kernel | FieldKernel)
        kernels[label] = kernel
    forecasts: dict[str, Forecast] = {}
    with warnings.catch_warnings():
        # One run cannot cover a box of starts: the point of the demonstration.
        warnings.simplefilter("ignore", StartOutsideWarning)
        for name, kernel in kernels.items():
            forecasts[name] = forecast(
                kernel, starts, n_steps=case.n_steps, n_chains=_N_CHAINS, rng=seed
            )
        exact = exact_kernel(
            problem,
            run,
            step_size=case.step_size,
            lag=next(iter(kernels.values())).lag,
            cover=starts,
        )
        forecasts["exact kernel, 100 bins"] = forecast(
            exact, starts, n_steps=case.n_steps, n_chains=_N_CHAINS, rng=seed
        )
    table = score_forecast(forecasts, truth, reference=again)
    label = next(iter(kernels))
    return DemoResult(
        case, run, kernels[label], forecasts[label], truth, table, time.perf_counter() - began
    )


def run_demo(
    out: Path,
    *,
    model: str = "shipped",
    seed: int = 0,
    on_case: Callable[[DemoResult], None] | None = None,
) -> list[DemoResult]:
    """Run every case, write figures (PNG, SVG), the report and ``demo.json`` to ``out``.

    Parameters
    ----------
    out : Path
        Folder; made if need be.
    model : str
        As in :func:`sgdmc.estimate_kernel`.
    seed : int
        Covers every draw.
    on_case : callable, optional
        Called with each result as it is ready.
    """
    report = Report("Where does SGD end? Forecasts from one observed run")
    report.text(
        "Each problem: one run of SGD is observed; kernels are read off a language model and "
        f"counted; then {_N_STARTS} starts that were never run are forecast and compared with "
        f"{_N_TRUTH} real runs from each. W1/range: Wasserstein-1 distance of the laws over the "
        "observed range, mean over starts and coordinates; smaller is better. The last rows are "
        "forecasts that need no model at all: they must be read first."
    )
    results = []
    for case in DEMO_CASES:
        result = run_case(case, model=model, seed=seed)
        results.append(result)
        figures = {
            "run": (plot_run(result.run), "The observed run."),
            "kernel": (
                plot_kernel(result.kernel),
                "Kernel read off the language model, one block a coordinate; marks on the left "
                "show rows that no run visited.",
            ),
            "forecast": (
                plot_forecast(result.forecast, truth=result.truth),
                "Forecast from unseen starts (bars: 90% intervals) against real SGD (dots).",
            ),
        }
        report.heading(case.title)
        report.table(result.table.rows(), best=result.table.scores[0].name)
        report.notes(result.kernel.notes)
        for name, (figure, caption) in figures.items():
            save_figure(figure, out, f"{case.key}-{name}")
            report.figure(figure, caption=caption)
        if on_case is not None:
            on_case(result)
    report.write(out / "report.html")
    content = {
        "versions": versions(),
        "model": model,
        "seed": seed,
        "cases": [
            {
                "key": r.case.key,
                "title": r.case.title,
                "seconds": round(r.seconds, 2),
                "notes": r.kernel.notes,
                "scores": r.table.rows(),
            }
            for r in results
        ],
    }
    (out / "demo.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
    return results


def _ends(
    problem: Problem, starts: NDArray[np.float64], case: DemoCase, seed: int
) -> NDArray[np.float64]:
    """Where real runs are at the horizon: (n_starts, _N_TRUTH, dim)."""
    repeated = np.repeat(starts, _N_TRUTH, axis=0)
    run = run_sgd(
        problem,
        repeated,
        step_size=case.step_size,
        n_steps=case.n_steps,
        thin=case.n_steps,
        rng=seed,
    )
    return np.asarray(run.iterates[:, -1].reshape(len(starts), _N_TRUTH, problem.dim))
