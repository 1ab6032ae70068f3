"""The benchmark's problems: seven families in which forecasting means different things.

Each task is a pure function of its family, index and seed: a problem, how SGD runs on it, where the
observed runs and the unseen starts begin, and at which horizons forecasts are judged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import solve_ivp
from scipy.optimize import minimize

from sgdmc.sgd.problems import (
    LeastSquares,
    LogisticRegression,
    Problem,
    SineRegression,
)

__all__ = ["FAMILIES", "Task", "make_task"]

Array = NDArray[np.float64]

# Time that gradients flow before a minimum is looked for, and how near two ends are the same.
_FLOW, _SAME = 400.0, 0.05


@dataclass(frozen=True)
class Task:
    """One problem of the benchmark.

    Attributes
    ----------
    family : str
        Key of :data:`FAMILIES`.
    index, seed : int
        Which problem of the family; covers every draw.
    problem : Problem
    step_size : float
    batch_size : int
    n_steps : int
        Full length ``T`` of a run.
    observed_steps : int
        Steps of the observed runs that a forecast may use.
    horizons : tuple of int
        Steps ahead at which forecasts are judged.
    low, high : ndarray, shape (dim,)
        Box from which starts are drawn, for observed runs and forecasts alike.
    minima : ndarray, shape (k, dim), or None
        Points that name the basins, where there are several.
    """

    family: str
    index: int
    seed: int
    problem: Problem
    step_size: float
    batch_size: int
    n_steps: int
    observed_steps: int
    horizons: tuple[int, ...]
    low: Array
    high: Array
    minima: Array | None = None

    def starts(self, n: int, rng: np.random.Generator) -> Array:
        """Draw ``n`` starts uniformly from the box."""
        return rng.uniform(self.low, self.high, size=(n, len(self.low)))


def _rotation(dim: int, rng: np.random.Generator) -> Array:
    q, r = np.linalg.qr(rng.normal(size=(dim, dim)))
    return np.asarray(q * np.sign(np.diag(r)))


def _linear(
    rng: np.random.Generator, *, scales: Array, rotate: bool, noise: float, n: int = 100
) -> LeastSquares:
    dim = len(scales)
    features = rng.normal(size=(n, dim)) * scales
    if rotate:
        features = features @ _rotation(dim, rng).T
    truth = rng.normal(size=dim)
    return LeastSquares(features, features @ truth + noise * rng.normal(size=n))


def _step_for(problem: LeastSquares, horizon: int, rate: float) -> float:
    """Step size at which the slowest direction decays by ``exp(-rate)`` over ``horizon``.

    Bounded so that SGD with single samples stays stable: ``γ ≤ 0.5 / max |x|²``.
    """
    features = np.asarray(problem.X)
    slowest = float(np.linalg.eigvalsh(features.T @ features / len(features))[0])
    bound = 0.5 / float((features**2).sum(axis=1).max())
    return min(bound, rate / (horizon * max(slowest, 1e-12)))


def _box(centre: Array, half: float) -> dict[str, Array]:
    return {"low": centre - half, "high": centre + half}


def _least_squares(rng: np.random.Generator, n_steps: int) -> dict[str, Any]:
    problem = _linear(
        rng, scales=rng.uniform(0.6, 1.4, size=2), rotate=False, noise=rng.uniform(0.2, 1.0)
    )
    return {
        "problem": problem,
        "step_size": _step_for(problem, n_steps, 8.0),
        "n_steps": n_steps,
        **_box(problem.minimiser, 4.0),
    }


def _limit(rng: np.random.Generator) -> dict[str, Any]:
    fields = _least_squares(rng, 1000)
    return {**fields, "horizons": (1000,)}


def _transient(rng: np.random.Generator) -> dict[str, Any]:
    fields = _least_squares(rng, 1000)
    return {**fields, "horizons": (50, 100, 250)}


def _cut_early(rng: np.random.Generator) -> dict[str, Any]:
    fields = _least_squares(rng, 1000)
    return {**fields, "observed_steps": 200, "horizons": (1000,)}


def _basins(rng: np.random.Generator) -> dict[str, Any]:
    x = rng.uniform(-1.5, 1.5, size=100)
    scale, frequency = rng.uniform(1.0, 1.8), rng.uniform(1.0, 1.8)
    y = scale * np.sin(frequency * x) + 0.1 * rng.normal(size=100)
    problem = SineRegression(x, y)
    low, high = np.full(2, -2.5), np.full(2, 2.5)
    return {
        "problem": problem,
        "step_size": 0.02,
        "n_steps": 2000,
        "horizons": (200, 2000),
        "low": low,
        "high": high,
        "minima": _minima(problem, low, high),
    }


def _minima(problem: SineRegression, low: Array, high: Array, *, n_side: int = 8) -> Array:
    """Where gradient flow ends from the box: (k, dim), those of most starts first."""

    def loss(theta: Array) -> float:
        return float(problem.loss(theta))

    sides = [np.linspace(a, b, 2 * n_side + 1)[1::2] for a, b in zip(low, high, strict=True)]
    found: list[Array] = []
    reached: list[int] = []
    for start in np.stack(np.meshgrid(*sides), axis=-1).reshape(-1, len(low)):
        slow = solve_ivp(
            lambda _, theta: -problem.gradient(theta), (0.0, _FLOW), start, method="LSODA"
        ).y[:, -1]
        end = minimize(loss, slow, jac=problem.gradient).x
        near = [k for k, known in enumerate(found) if np.abs(known - end).max() < _SAME]
        if near:
            reached[near[0]] += 1
        else:
            found.append(end)
            reached.append(1)
    return np.array(found)[np.argsort(-np.array(reached), kind="stable")]


def _rotated(rng: np.random.Generator) -> dict[str, Any]:
    condition = rng.uniform(4.0, 10.0)
    problem = _linear(rng, scales=np.array([1.0, 1 / np.sqrt(condition)]), rotate=True, noise=0.3)
    return {
        "problem": problem,
        "step_size": _step_for(problem, 1000, 4.0),
        "n_steps": 1000,
        "horizons": (50, 100, 250),
        **_box(problem.minimiser, 4.0),
    }


def _line(rng: np.random.Generator) -> dict[str, Any]:
    direction = rng.normal(size=2)
    direction /= np.linalg.norm(direction)
    features = rng.normal(size=(100, 1)) * direction
    problem = LeastSquares(features, features @ rng.normal(size=2))
    return {
        "problem": problem,
        "step_size": 0.02,
        "n_steps": 1000,
        "horizons": (1000,),
        **_box(problem.minimiser, 4.0),
    }


def _logistic(rng: np.random.Generator) -> dict[str, Any]:
    features = rng.normal(size=(100, 2)) * rng.uniform(0.7, 1.5, size=2)
    score = features @ rng.normal(size=2) + 0.5 * rng.logistic(size=100)
    return {
        "problem": LogisticRegression(features, (score > 0).astype(float), l2=0.02),
        "step_size": 0.1,
        "n_steps": 1000,
        "horizons": (50, 100, 250),
        "low": np.full(2, -4.0),
        "high": np.full(2, 4.0),
    }


@cache
def _real_data(name: str) -> tuple[Array, Array]:
    from sklearn import datasets

    data = getattr(datasets, f"load_{name}")()
    features = (data.data - data.data.mean(axis=0)) / data.data.std(axis=0)
    target = np.asarray(data.target, dtype=np.float64)
    return features, target


def _real(rng: np.random.Generator) -> dict[str, Any]:
    name = str(rng.choice(["diabetes", "breast_cancer", "wine", "iris"]))
    features, target = _real_data(name)
    dim = int(rng.integers(2, 6))
    columns = rng.choice(features.shape[1], size=min(dim, features.shape[1]), replace=False)
    chosen = features[:, columns]
    problem: Problem
    if name == "diabetes":
        problem = LeastSquares(chosen, (target - target.mean()) / target.std())
        step_size = _step_for(problem, 1000, 6.0)
        box = _box(problem.minimiser, 3.0)
    else:
        problem = LogisticRegression(chosen, (target == 0).astype(float), l2=0.02)
        step_size = 0.05
        box = _box(np.zeros(chosen.shape[1]), 3.0)
    return {
        "problem": problem,
        "step_size": step_size,
        "n_steps": 1000,
        "horizons": (100, 1000),
        **box,
    }


FAMILIES: dict[str, tuple[str, Callable[[np.random.Generator], dict[str, Any]]]] = {
    "F1": ("least squares, limit law", _limit),
    "F2": ("least squares, transients", _transient),
    "F2b": ("logistic regression, transients", _logistic),
    "F3": ("least squares, run cut off at T/5", _cut_early),
    "F4": ("sine regression, several basins", _basins),
    "F5": ("rotated quadratics, transients", _rotated),
    "F6": ("over-parameterised, a line of minimisers", _line),
    "F7": ("real data, 2 to 5 dimensions", _real),
}


def make_task(family: str, index: int, *, seed: int = 0) -> Task:
    """Make problem ``index`` of a family; the same for the same three arguments.

    Raises
    ------
    ValueError
        If the family is unknown or the index negative.
    """
    if family not in FAMILIES:
        raise ValueError(f"family must be one of {tuple(FAMILIES)}; got {family!r}.")
    if index < 0:
        raise ValueError(f"index must be at least 0; got {index}.")
    number = list(FAMILIES).index(family)
    fields = FAMILIES[family][1](np.random.default_rng([seed, number, index]))
    fields.setdefault("batch_size", 1)
    fields.setdefault("observed_steps", fields["n_steps"])
    return Task(family=family, index=index, seed=seed, **fields)
