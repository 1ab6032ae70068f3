"""Data of the figures of Zekri, Benechehab and Redko (2024), with the exact truth to each.

Everything is deterministic for a seed, and takes seconds; :mod:`sgdmc.show.figures` draws it.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgdmc.chain.distances import wasserstein1
from sgdmc.chain.grid import Grid
from sgdmc.chain.kernel import Kernel
from sgdmc.forecasting.baselines import TRIVIAL
from sgdmc.forecasting.estimate import complete_kernel, estimate_kernel
from sgdmc.forecasting.exact import exact_kernel
from sgdmc.forecasting.families import Task, make_task
from sgdmc.forecasting.forecast import Forecast, StartOutsideWarning, forecast
from sgdmc.forecasting.scores import Score, ScoreTable, score_forecast
from sgdmc.sgd.exact import ulam_kernel
from sgdmc.sgd.problems import LeastSquares, make_least_squares, make_sine_regression
from sgdmc.sgd.run import Run
from sgdmc.sgd.simulate import run_sgd

__all__ = [
    "CONVEX",
    "EXACT",
    "LLM",
    "ForecastStudy",
    "MethodStudy",
    "RegimeStudy",
    "basin_probability",
    "convex_study",
    "forecast_study",
    "method_study",
    "nonconvex_study",
    "regimes_study",
]

Array = NDArray[np.float64]

CONVEX = {
    "least squares": ("F2", 100),
    "logistic regression": ("F2b", 100),
    "rotated quadratic": ("F5", 100),
    "a line of minimisers": ("F6", 1000),
}
_POINTS = 4  # quasi-random points a cell of exact kernels
LLM, EXACT = "language model", "exact kernel"


@dataclass(frozen=True)
class MethodStudy:
    """What flows through the method, for one coordinate of one run.

    Attributes
    ----------
    run : Run
    coordinate : int
    text : str
        The lagged series of that coordinate as the model reads it.
    digit_laws : tuple of ndarray, each of shape (10,)
        Laws of the first, second and third digit of the next number, each given the likeliest
        digits before it.
    next_law, next_true : ndarray, shape (n,)
        Law of the next state on the kernel's grid: the model's, and that of SGD itself.
    bare, filled : Kernel
        Rows of visited states alone, and completed.
    exact : ndarray, shape (n, n)
        SGD's own block on the same grid and lag, weighted by the run's occupation.
    ahead : Forecast
        Through the completed kernel.
    truth : ndarray, shape (n_starts, n_truth, dim)
        Real runs at the horizon.
    """

    run: Run
    coordinate: int
    text: str
    digit_laws: tuple[Array, ...]
    next_law: Array
    next_true: Array
    bare: Kernel
    filled: Kernel
    exact: Array
    ahead: Forecast
    truth: Array


@dataclass(frozen=True)
class RegimeStudy:
    """A run, its kernel off the language model, and SGD's own kernel seen by the same run.

    Attributes
    ----------
    name : str
    run : Run
    loss, least_loss : ndarray of shape (n_steps + 1,), float
        Along the run, and the least possible.
    kernel : Kernel
        Visited rows alone.
    exact : ndarray, shape (dim, n, n)
        Lumped blocks of Ulam's matrix on the same grid and lag, weighted by the run's occupation.
    w1 : ndarray, shape (dim,)
        Wasserstein-1 distance of the rows in units of the grid, mean over visits.
    """

    name: str
    run: Run
    loss: Array
    least_loss: float
    kernel: Kernel
    exact: Array
    w1: Array


@dataclass(frozen=True)
class ForecastStudy:
    """Forecasts of one task from unseen starts, beside the exact kernel and real SGD.

    Attributes
    ----------
    name : str
    task : Task
    horizon : int
    run : Run
        The observed runs.
    forecasts : dict of str to Forecast
        ``"language model"`` and ``"exact kernel"``.
    truth : ndarray, shape (n_starts, n_truth, dim)
    table : ScoreTable
        With SGD itself and the trivial forecasts.
    """

    name: str
    task: Task
    horizon: int
    run: Run
    forecasts: dict[str, Forecast]
    truth: Array
    table: ScoreTable

    @property
    def best_trivial(self) -> Score:
        """The trivial forecast with the least ``W1/range``."""
        return min((self.table[name] for name in TRIVIAL), key=lambda score: score.w1)


def method_study(
    task: Task,
    *,
    horizon: int = 100,
    lag: int = 20,
    coordinate: int = 0,
    completion: str = "barycenter",
    n_starts: int = 3,
    n_truth: int = 2000,
    model: str = "shipped",
    rng: int = 0,
) -> MethodStudy:
    """Run the method on one observed run of a task, and keep every stage of it.

    Parameters
    ----------
    task : Task
        With two parameters.
    horizon, lag : int
        Steps ahead of the forecasts, and of one kernel step.
    coordinate : int
        Which coordinate is shown.
    completion : str
        As in :func:`sgdmc.forecasting.estimate.complete_kernel`.
    n_starts, n_truth : int
        Unseen starts, in the box that the run spans, and real runs from each.
    model : str
        As in :func:`sgdmc.estimate_kernel`; it must be able to write numbers of three digits.
    rng : int
        Covers every draw.
    """
    from sgdmc.llm.reader import next_state_laws

    draws = np.random.default_rng(rng)
    run = _observe(task, draws)
    bounds = run.values.min(axis=0), run.values.max(axis=0)
    starts = draws.uniform(*bounds, size=(n_starts, run.dim))
    bare = estimate_kernel(run, model=model, digits=2, lag=lag, coupling="blocks", completion=None)
    assert isinstance(bare, Kernel)
    filled = complete_kernel(bare, completion=completion)
    fine = Grid.fit(run.values[:, [coordinate]], digits=3)
    path = run.paths[0][::lag]
    states = fine.encode(path[:, [coordinate]])[:, 0]
    law = next_state_laws(states, model=model, digits=3)[0][-1]
    after = _ends(task, path[-1:], lag, n_truth, draws)[0, :, coordinate]
    edges = bare.grid.edges[coordinate]
    spread = fine.decode(np.arange(fine.n_states)[:, None])[:, 0]
    seen = np.histogram(np.clip(after, edges[0], edges[-1]), bins=edges)[0] / n_truth
    return MethodStudy(
        run=run,
        coordinate=coordinate,
        text=fine.to_text(states),
        digit_laws=_digit_laws(law),
        next_law=np.histogram(np.clip(spread, edges[0], edges[-1]), bins=edges, weights=law)[0],
        next_true=seen,
        bare=bare,
        filled=filled,
        exact=_exact_blocks(task, run, bare, rng)[coordinate],
        ahead=_forecast(filled, starts, horizon, rng),
        truth=_ends(task, starts, horizon, n_truth, draws),
    )


def regimes_study(
    *, lag: int = 20, model: str = "shipped", rng: int = 0
) -> tuple[RegimeStudy, ...]:
    """Read the kernels of one run in each regime, and compute SGD's own.

    Least squares with two parameters and a hundred samples: with noisy targets, where SGD keeps
    moving; and with inputs on a line, where two parameters are more than the data determine, every
    sample can be fitted, and SGD comes to rest.

    Parameters
    ----------
    lag : int
        Steps of one kernel step.
    model : str
        As in :func:`sgdmc.estimate_kernel`.
    rng : int
        Covers every draw.
    """
    found: list[RegimeStudy] = []
    noisy = make_least_squares(n_samples=100, dim=2, noise=0.5, rng=rng)
    under = Task(
        family="least squares",
        index=0,
        seed=rng,
        problem=noisy,
        step_size=0.05,
        batch_size=1,
        n_steps=1000,
        observed_steps=1000,
        horizons=(1000,),
        low=noisy.minimiser - 4.0,
        high=noisy.minimiser + 4.0,
    )
    over = make_task("F6", 0, seed=rng)
    for name, task in (("under-parameterised", under), ("over-parameterised", over)):
        run = _observe(task, np.random.default_rng([rng, len(found)]))
        kernel = estimate_kernel(
            run, model=model, digits=2, lag=lag, coupling="blocks", completion=None
        )
        assert isinstance(kernel, Kernel)
        exact = _exact_blocks(task, run, kernel, rng)
        states = kernel.grid.encode(run.values[: -kernel.lag])
        apart = [
            float(wasserstein1(read[s], true[s]).mean())
            for read, true, s in zip(kernel.blocks, exact, states.T, strict=True)
        ]
        assert isinstance(task.problem, LeastSquares)
        found.append(
            RegimeStudy(
                name=name,
                run=run,
                loss=np.asarray(task.problem.loss(run.iterates[0])),
                least_loss=float(task.problem.loss(task.problem.minimiser)),
                kernel=kernel,
                exact=exact,
                w1=np.array(apart),
            )
        )
    return tuple(found)


def forecast_study(
    task: Task,
    *,
    name: str = "",
    horizon: int,
    run: Run | None = None,
    n_starts: int = 30,
    n_truth: int = 200,
    n_chains: int = 1000,
    model: str = "shipped",
    coupling: Any = "auto",
    completion: str = "probe",
    rng: int = 0,
) -> ForecastStudy:
    """Forecast a task from unseen starts and compare with real SGD and with the exact kernel.

    Parameters
    ----------
    task : Task
        With two parameters, so that the exact kernel can be computed.
    name : str
        For titles; the task's family by default.
    horizon : int
        Steps ahead.
    run : Run, optional
        The observed runs; one from a random start by default.
    n_starts, n_truth, n_chains : int
        Unseen starts, real runs from each, draws of each forecast.
    model, coupling, completion
        As in :func:`sgdmc.estimate_kernel`.
    rng : int
        Covers every draw; the starts and the real runs depend on nothing else.
    """
    draws = np.random.default_rng(rng)
    starts = task.starts(n_starts, draws)
    truth, again = (_ends(task, starts, horizon, n_truth, draws) for _ in range(2))
    run = run or _observe(task, draws)
    kernel = estimate_kernel(
        run, model=model, cover=starts, horizon=horizon, coupling=coupling, completion=completion
    )
    exact = exact_kernel(
        task.problem,
        run,
        step_size=task.step_size,
        batch_size=task.batch_size,
        lag=kernel.lag,
        points_per_cell=_POINTS,
        cover=starts,
        rng=rng,
    )
    kernels = {LLM: kernel, EXACT: exact}
    forecasts = {
        key: _forecast(one, starts, horizon, rng, n_chains=n_chains) for key, one in kernels.items()
    }
    table = score_forecast(forecasts, truth, reference=again, minima=task.minima)
    return ForecastStudy(name or task.family, task, horizon, run, forecasts, truth, table)


def convex_study(
    *, instances: Mapping[str, tuple[str, int]] = CONVEX, rng: int = 0, **options: Any
) -> tuple[ForecastStudy, ...]:
    """Study several convex problems, from one observed run each.

    Parameters
    ----------
    instances : mapping of names to (family, horizon)
        Families as in :func:`sgdmc.forecasting.families.make_task`.
    rng : int
        Covers every draw.
    **options
        For :func:`forecast_study`.
    """
    return tuple(
        forecast_study(make_task(family, 0, seed=rng), name=name, horizon=far, rng=rng, **options)
        for name, (family, far) in instances.items()
    )


def nonconvex_study(
    *, n_runs: int = 4, horizon: int = 400, coupling: Any = "rotated", rng: int = 0, **options: Any
) -> tuple[ForecastStudy, ForecastStudy]:
    """Study sine regression from runs that ended in one basin, and from as many in both.

    Parameters
    ----------
    n_runs : int
        Observed runs, an even number; they are taken from forty random ones by where they end.
    horizon, coupling
        As in :func:`forecast_study`.
    rng : int
        Covers every draw.
    **options
        For :func:`forecast_study`.

    Raises
    ------
    ValueError
        If `n_runs` is odd or below 2.
    """
    if n_runs < 2 or n_runs % 2:
        raise ValueError(f"n_runs must be even and at least 2; got {n_runs}. Half end in each.")
    minima = np.array([[1.2, 1.2], [-1.2, -1.2]])
    problem = make_sine_regression(theta=(1.2, 1.2), half_width=1.5, noise=0.5, rng=rng)
    task = Task(
        family="sine",
        index=0,
        seed=rng,
        problem=problem,
        step_size=0.1,
        batch_size=1,
        n_steps=400,
        observed_steps=400,
        horizons=(horizon,),
        low=np.full(2, -1.5),
        high=np.full(2, 1.5),
        minima=minima,
    )
    tried = _observe(task, np.random.default_rng([rng, 1]), n_runs=40)
    ends = _basin(tried.iterates[:, -1], minima)
    of = [np.flatnonzero(ends == k) for k in (0, 1)]
    half = n_runs // 2
    chosen = {
        "one basin seen": of[0][:n_runs],
        "both basins seen": np.concatenate([of[0][:half], of[1][:half]]),
    }
    one, both = (
        forecast_study(
            task,
            name=name,
            horizon=horizon,
            run=Run.from_array(tried.iterates[rows], names=tried.names),
            coupling=coupling,
            rng=rng,
            **options,
        )
        for name, rows in chosen.items()
    )
    return one, both


def basin_probability(draws: Array, task: Task) -> Array:
    """Return the share of draws (n_starts, m, dim) that are nearest to the first minimum.

    Raises
    ------
    ValueError
        If the task names no minima.
    """
    if task.minima is None:
        raise ValueError("task must have minima; got None. Basins are named by their minima.")
    return np.asarray((_basin(draws, task.minima) == 0).mean(axis=1))


def _basin(values: Array, minima: Array) -> NDArray[np.int64]:
    return np.asarray(((values[..., None, :] - minima) ** 2).sum(axis=-1).argmin(axis=-1))


def _observe(task: Task, draws: np.random.Generator, *, n_runs: int = 1) -> Run:
    return run_sgd(
        task.problem,
        task.starts(n_runs, draws),
        step_size=task.step_size,
        batch_size=task.batch_size,
        n_steps=task.observed_steps,
        rng=draws,
    )


def _ends(task: Task, starts: Array, n_steps: int, n: int, draws: np.random.Generator) -> Array:
    """Where real runs are after ``n_steps``: (n_starts, n, dim)."""
    run = run_sgd(
        task.problem,
        np.repeat(starts, n, axis=0),
        step_size=task.step_size,
        batch_size=task.batch_size,
        n_steps=n_steps,
        thin=n_steps,
        rng=draws,
    )
    return np.asarray(run.iterates[:, -1].reshape(len(starts), n, -1))


def _forecast(
    kernel: Any, starts: Array, horizon: int, rng: int, *, n_chains: int = 2000
) -> Forecast:
    with warnings.catch_warnings():
        # One run cannot cover a box of starts: that is what the figures show.
        warnings.simplefilter("ignore", StartOutsideWarning)
        return forecast(kernel, starts, n_steps=horizon, n_chains=n_chains, rng=rng)


def _exact_blocks(task: Task, run: Run, kernel: Kernel, rng: int) -> Array:
    """SGD's own blocks on a kernel's grid and lag, weighted by where the run was."""
    shape = (kernel.n_states,) * kernel.dim
    cells = np.ravel_multi_index(tuple(kernel.grid.encode(run.values).T.astype(int)), shape)
    blocks = ulam_kernel(
        task.problem,
        kernel.grid,
        step_size=task.step_size,
        batch_size=task.batch_size,
        lag=kernel.lag,
        points_per_cell=_POINTS,
        lump=np.bincount(cells, minlength=int(np.prod(shape))),
        boundary="reflect",
        rng=rng,
    )
    return np.asarray(blocks)


def _digit_laws(law: Array) -> tuple[Array, ...]:
    """Laws (10,) of the three digits of a number, each given the likeliest ones before it."""
    tree, found = law.reshape(10, 10, 10), []
    while tree.ndim:
        digit = tree.reshape(10, -1).sum(axis=1)
        found.append(digit / digit.sum())
        tree = tree[int(digit.argmax())]
    return tuple(found)
