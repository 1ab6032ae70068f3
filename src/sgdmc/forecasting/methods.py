"""What the benchmark compares: every method as a function of one task's evidence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from sgdmc.chain.kernel import Kernel
from sgdmc.forecasting.coupling import choose_field
from sgdmc.forecasting.estimate import complete_kernel, estimate_kernel, recalibrate_kernel
from sgdmc.forecasting.exact import exact_kernel, kernel_but_for_minimum, sampled_exact_kernel
from sgdmc.forecasting.families import Task
from sgdmc.forecasting.forecast import Forecaster
from sgdmc.forecasting.lag import choose_lag
from sgdmc.sgd.problems import LeastSquares
from sgdmc.sgd.run import Run

__all__ = ["METHODS", "Bench"]

Array = NDArray[np.float64]

# Families in which couplings are compared: a reading of each costs as much as all other methods.
_COUPLED = ("F4", "F5")
# Families in which the default is also told whether the loss is convex: a limit law, that of a run
# cut off early, and several basins.
_TOLD = ("F1", "F3", "F4")
# Families in which another estimator's rows are held to the same field: means are alike then, and
# limit laws tell whose shape of the noise is nearer.
_SHAPED = ("F1",)
# Families of limits, in which a ceiling knows all but the minimum.
_LIMITS = ("F1", "F3")
# Of rows read off a language model.
_DIGITS = 3


@dataclass
class Bench:
    """One task's evidence, and the kernels that several methods share."""

    task: Task
    run: Run
    starts: Array
    horizon: int
    model: str
    kernels: dict[tuple[Any, str], Any] = field(default_factory=dict)

    def estimate(self, method: str, coupling: str = "auto") -> Any:
        """Estimate a kernel, rows as they are, once for each method and coupling."""
        key = (method, coupling)
        if key not in self.kernels:
            kernel = estimate_kernel(
                self.run,
                method=method,
                model=self.model,
                coupling=coupling,  # type: ignore[arg-type]
                completion="probe" if method == "llm" else None,
                recalibrate=False,
                cover=self.starts,
                horizon=self.horizon,
            )
            # "auto" is often one of the others, and need not be read again under that name.
            self.kernels[key] = self.kernels[method, kernel.coupling] = kernel
        return self.kernels[key]

    def filled(
        self, method: str, coupling: str, completion: str, *, held: str = "field"
    ) -> Forecaster:
        """Return the same kernel held to the observed steps, its unvisited rows filled.

        ``held``, for a language model: to a ``"field"`` where the coupling is "auto", to each
        coordinate ``"alone"``, or ``"not"`` at all.
        """
        kernel = self.estimate(method, coupling)
        together = method == "llm" and held == "field" and coupling == "auto"
        if method == "llm" and held != "not" and not together:
            kernel = self._once((id(kernel), "held alone"), partial(recalibrate_kernel, kernel))
        if completion != "probe":
            make = partial(complete_kernel, kernel, completion=completion)
            kernel = self._once((id(kernel), completion), make)
        if together:
            kernel = recalibrate_kernel(kernel, field=choose_field(self.run.paths))
        return cast(Forecaster, kernel)

    def _once(self, key: tuple[Any, str], make: Callable[[], Any]) -> Any:
        """Make a kernel that several methods share; estimates live as long as this does."""
        if key not in self.kernels:
            self.kernels[key] = make()
        return self.kernels[key]


def _blocks(method: str, coupling: str, completion: str) -> Callable[[Bench], Forecaster]:
    return lambda bench: bench.filled(method, coupling, completion)


def _coupled(coupling: str, completion: str) -> Callable[[Bench], Forecaster | None]:
    """Make another coupling than "auto", in the families where couplings are compared."""

    def forecaster(bench: Bench) -> Forecaster | None:
        if bench.task.family not in _COUPLED:
            return None
        return bench.filled("llm", coupling, completion)

    return forecaster


def _turned(basis: Callable[[Task], Any]) -> Callable[[Bench], Forecaster | None]:
    """Make a kernel in given directions, for rotated quadratics."""

    def forecaster(bench: Bench) -> Forecaster | None:
        if bench.task.family != "F5":
            return None
        return estimate_kernel(
            bench.run,
            method="llm",
            model=bench.model,
            basis=basis(bench.task),
            cover=bench.starts,
            horizon=bench.horizon,
        )

    return forecaster


def _hessian_basis(task: Task) -> Array:
    features = np.asarray(cast(LeastSquares, task.problem).X)
    return np.asarray(np.linalg.eigh(features.T @ features)[1])


def _told(bench: Bench) -> Forecaster | None:
    """Make the default, told whether the loss is convex."""
    if bench.task.family not in _TOLD:
        return None
    rows = cast(Kernel, bench.filled("llm", "auto", "barycenter", held="not"))
    convex = bench.task.minima is None
    return recalibrate_kernel(rows, field=choose_field(bench.run.paths, convex=convex))


def _on_the_field(method: str) -> Callable[[Bench], Forecaster | None]:
    """Hold another estimator's rows to the field that the default follows."""

    def forecaster(bench: Bench) -> Forecaster | None:
        if bench.task.family not in _SHAPED:
            return None
        rows = cast(Kernel, bench.filled(method, "auto", "barycenter"))
        return recalibrate_kernel(rows, field=choose_field(bench.run.paths))

    return forecaster


def _as_it_is(method: str) -> Callable[[Bench], Forecaster]:
    return lambda bench: bench.estimate(method)


def _joint(held: bool) -> Callable[[Bench], Forecaster | None]:
    def forecaster(bench: Bench) -> Forecaster | None:
        if bench.task.family != "F5" or len(bench.run.paths) == 1:
            return None
        return estimate_kernel(
            bench.run,
            method="llm",
            model=bench.model,
            coupling="joint",
            recalibrate=held,
            cover=bench.starts,
            horizon=bench.horizon,
        )

    return forecaster


def _sgd(bench: Bench) -> dict[str, Any]:
    """How SGD ran, for forecasters that know its problem."""
    return {"step_size": bench.task.step_size, "batch_size": bench.task.batch_size}


def _exact(bench: Bench) -> Forecaster:
    """Draw through SGD's own kernel on the grid and at the lag of rows read off a model."""
    lag = choose_lag(bench.run, digits=_DIGITS, horizon=bench.horizon)[0]
    return sampled_exact_kernel(
        bench.task.problem, bench.run, lag=lag, digits=_DIGITS, cover=bench.starts, **_sgd(bench)
    )


def _exact_matrix(bench: Bench) -> Forecaster | None:
    """Compute that kernel on 100 bins, of two coordinates."""
    if bench.task.problem.dim != 2:
        return None
    lag = choose_lag(bench.run, digits=_DIGITS, horizon=bench.horizon)[0]
    return exact_kernel(
        bench.task.problem, bench.run, lag=lag, points_per_cell=4, cover=bench.starts, **_sgd(bench)
    )


def _but_for_minimum(bench: Bench) -> Forecaster | None:
    """Estimate the minimum alone, for limits of least squares."""
    if bench.task.family not in _LIMITS:
        return None
    problem = cast(LeastSquares, bench.task.problem)
    return kernel_but_for_minimum(problem, bench.run, lag=bench.horizon, **_sgd(bench))


METHODS: dict[str, Callable[[Bench], Forecaster | None]] = {
    "LLM": _blocks("llm", "auto", "barycenter"),
    "LLM, a coordinate at a time": lambda bench: bench.filled(
        "llm", "auto", "barycenter", held="alone"
    ),
    "LLM, as read": lambda bench: bench.filled("llm", "auto", "barycenter", held="not"),
    "LLM, told whether convex": _told,
    **{
        f"LLM blocks, {c}": _coupled("blocks", c)
        for c in ("barycenter", "increments", "quantiles", "nearest", "probe")
    },
    **{f"LLM rotated, {c}": _coupled("rotated", c) for c in ("barycenter", "probe")},
    "LLM rotated by PCA": _turned(lambda task: "pca"),
    "LLM rotated by the true Hessian": _turned(_hessian_basis),
    **{
        f"{m}, {c}": _blocks(m, "auto", c)
        for m, c in (
            ("counts", "barycenter"),
            ("dirichlet", "barycenter"),
            ("dirichlet", "increments"),
        )
    },
    **{f"{m}, on the same field": _on_the_field(m) for m in ("counts", "dirichlet")},
    **{m: _as_it_is(m) for m in ("ar1", "ar1-kde", "var1", "knn", "local-linear", "gradient-gp")},
    "LLM joint": _joint(held=True),
    "LLM joint, as read": _joint(held=False),
    "exact kernel": _exact,
    "exact kernel, 100 bins": _exact_matrix,
    "all known but the minimum": _but_for_minimum,
}
