"""What a zero-shot randomised trial runs, and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sgdmc._core import validate
from sgdmc.forecasting.estimate import METHODS

__all__ = ["MORE_RUNS", "REFERENCE", "TrialRecord", "TrialReport", "TrialSpec"]

Array = NDArray[np.float64]

REFERENCE = "training them all, other seeds"
MORE_RUNS = (0, 5, 10)


@dataclass(frozen=True)
class TrialSpec:
    """What a trial runs.

    Attributes
    ----------
    dims : tuple of int
        Dimensions ``k`` of the subspace, 1 to 5.
    n_runs : tuple of int
        Numbers of observed runs, 1 to 10.
    n_repeats : int
        How often other runs are observed, for each of these.
    hidden : int
        Width of the network's hidden layer.
    pretraining : int
        Steps of SGD on all parameters before the subspace is laid through where they end.
    spread : float
        Standard deviation of the starts in each coordinate of ``z``.
    n_starts : int
        Starts that are forecast and, to judge the forecast, also trained.
    n_pool : int
        Further runs, among them the observed ones: what "training a few more" draws from. At least
        10 more than the largest number of observed runs.
    n_steps, step_size, batch_size
        SGD in the subspace.
    n_draws : int
        Draws of each forecast a start.
    methods : tuple of str
        Of :func:`sgdmc.estimate_kernel`.
    model, coupling, lag
        As in :func:`sgdmc.estimate_kernel`.
    seed : int
        Covers every draw.

    Raises
    ------
    ValueError
        If a number is out of range or a method unknown.
    """

    dims: tuple[int, ...] = (3,)
    n_runs: tuple[int, ...] = (1, 3, 10)
    n_repeats: int = 1
    hidden: int = 16
    pretraining: int = 200
    spread: float = 3.0
    n_starts: int = 50
    n_pool: int = 50
    n_steps: int = 400
    step_size: float = 0.01
    batch_size: int = 8
    n_draws: int = 20
    methods: tuple[str, ...] = ("llm",)
    model: str = "shipped"
    coupling: Literal["auto", "blocks", "rotated", "joint"] = "auto"
    lag: int | Literal["auto"] = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        for k in self.dims:
            validate.as_int("dims", k, minimum=1, maximum=5)
        for m in self.n_runs:
            validate.as_int("n_runs", m, minimum=1, maximum=10)
        for name in ("n_repeats", "hidden", "n_steps", "batch_size", "n_draws"):
            validate.as_int(name, getattr(self, name), minimum=1)
        validate.as_int("pretraining", self.pretraining, minimum=0)
        validate.as_int("n_starts", self.n_starts, minimum=2)
        validate.as_int("n_pool", self.n_pool, minimum=max(self.n_runs) + MORE_RUNS[-1])
        validate.as_positive("spread", self.spread)
        validate.as_positive("step_size", self.step_size)
        for method in self.methods:
            validate.as_choice("methods", method, METHODS)

    def jobs(self) -> list[tuple[int, int, int]]:
        """List the tasks: (dimension, number of observed runs, repeat)."""
        return [(k, m, r) for k in self.dims for m in self.n_runs for r in range(self.n_repeats)]


@dataclass(frozen=True)
class TrialRecord:
    """One forecast of the distribution of final losses, against that of training every start.

    Attributes
    ----------
    dim, runs, repeat : int
        Dimension of the subspace, number of observed runs, which ones.
    forecast : str
        A method's name, ``"the observed runs"``, ``"5 more runs"``, a trivial forecast's name, or
        :data:`REFERENCE`.
    w1 : float
        Wasserstein-1 distance of the two distributions over starts, in nats.
    mean_error, q10_error, q90_error : float
        Forecast minus truth: mean and quantiles of the final loss, in nats.
    coverage90 : float or None
        Share of starts whose real final loss lies in the central 90% of that start's draws, which
        carry what the kernel leaves open (a kernel's as in :meth:`sgdmc.Forecast.interval`); None
        for answers that are not about single starts.
    rank_correlation : float or None
        Spearman's, between each start's median forecast and its real final loss; 0 where the
        forecast does not tell starts apart.
    worth_runs : int
        Least number of runs whose own final losses come as close in expectation; ``n_pool`` stands
        for "that many or more".
    gradients, evaluations : int
        Gradients and losses of single samples that were computed to get the answer.
    seconds : float
        Likewise, on the machine it ran on: training (all runs in one batch, so much less than one
        after another), estimation, forecast and losses.
    losses : list
        What was forecast: a list over starts of lists of draws, or one list of final losses.
    """

    dim: int
    runs: int
    repeat: int
    forecast: str
    w1: float
    mean_error: float
    q10_error: float
    q90_error: float
    coverage90: float | None
    rank_correlation: float | None
    worth_runs: int
    gradients: int
    evaluations: int
    seconds: float
    losses: list[Any]


@dataclass(frozen=True)
class TrialReport:
    """What came out of a trial.

    Attributes
    ----------
    spec : TrialSpec
    records : tuple of TrialRecord
        In the order of ``spec.jobs()``, for each task every forecast.
    truth : dict of int to ndarray, shape (n_starts,)
        Final losses of training every start, by dimension.
    start_losses : dict of int to ndarray, shape (n_starts,)
        Losses at the starts.
    seconds_of_training : dict of int to float
        Of the ``n_starts`` runs.
    curve : dict of int to ndarray, shape (n_pool,)
        Expected W1 of the final losses of 1, 2, ..., ``n_pool`` further runs against the truth.
    """

    spec: TrialSpec
    records: tuple[TrialRecord, ...]
    truth: dict[int, Array]
    start_losses: dict[int, Array]
    seconds_of_training: dict[int, float]
    curve: dict[int, Array]

    def select(self, **fields: Any) -> list[TrialRecord]:
        """Return the records with these values of their fields, such as ``runs=3``."""
        return [r for r in self.records if all(getattr(r, k) == v for k, v in fields.items())]

    def rows(self) -> list[dict[str, str | float | None]]:
        """Return one dictionary a dimension, number of runs and forecast: means over repeats."""
        found = []
        for dim in self.spec.dims:
            for runs in self.spec.n_runs:
                names = dict.fromkeys(r.forecast for r in self.select(dim=dim, runs=runs))
                for name in names:
                    same = self.select(dim=dim, runs=runs, forecast=name)
                    row: dict[str, str | float | None] = {
                        "k": str(dim),
                        "observed": str(runs),
                        "forecast": name,
                    }
                    for title, key in _COLUMNS.items():
                        values = [getattr(r, key) for r in same]
                        row[title] = None if values[0] is None else float(np.mean(values))
                    found.append(row)
        return found


_COLUMNS = {
    "W1": "w1",
    "mean error": "mean_error",
    "10% error": "q10_error",
    "90% error": "q90_error",
    "cover 90%": "coverage90",
    "rank corr.": "rank_correlation",
    "worth runs": "worth_runs",
    "gradients": "gradients",
    "evaluations": "evaluations",
    "seconds": "seconds",
}
