"""What a console or a notebook shows of a problem, a run, a kernel, a forecast: one line."""

import numpy as np
import pytest

import sgdmc
from sgdmc._core.words import counted, listed
from sgdmc.forecasting.field import GradientField

PROBLEM = sgdmc.make_least_squares(n_samples=50, dim=2, rng=0)


@pytest.fixture(scope="module")
def run():
    return sgdmc.run_sgd(PROBLEM, [[1.0, 2.0], [-1.0, 0.0]], step_size=0.05, n_steps=200, rng=1)


def test_counts_and_names():
    assert [counted(n, "run") for n in (0, 1, 2)] == ["0 runs", "1 run", "2 runs"]
    assert listed(["a", "b", "c", "d"]) == "a, b, c, d"
    assert listed([f"w{i}" for i in range(20)]) == "w0, w1, w2 and 17 more"


def test_problems_and_runs(run):
    assert repr(PROBLEM) == "LeastSquares(50 samples, 2 parameters)"
    assert repr(sgdmc.make_sine_regression(n_samples=9, rng=0)) == (
        "SineRegression(9 samples, 2 parameters)"
    )
    assert repr(sgdmc.make_logistic_regression(n_samples=7, dim=1, l2=0.5, rng=0)) == (
        "LogisticRegression(7 samples, 1 parameter, l2=0.5)"
    )
    assert repr(run) == (
        f"Run(2 runs of 201 iterates of theta0, theta1, step_size=0.05, batch_size=1; from "
        f"{run.source})"
    )
    uneven = sgdmc.Run.from_paths([np.zeros((5, 1)), np.ones((9, 1))], names=("w",))
    assert repr(uneven) == "Run(2 runs of 5 to 9 iterates of w; from array)"


@pytest.mark.parametrize(
    ("method", "made"),
    [
        ("counts", "Kernel({}; counts, coupling blocks, completion barycenter, {})"),
        ("var1", "SteppedKernel({}; var1, coupling joint, {})"),
        ("gradient-gp", "GradientKernel({}; gradient-gp, coupling joint, {})"),
    ],
)
def test_kernels_and_forecasts(run, method, made):
    kernel = sgdmc.estimate_kernel(
        run, method=method, lag=5, **({"coupling": "blocks"} if method == "counts" else {})
    )
    line = made.format("theta0, theta1, 5 steps ahead", "from 2 runs")
    assert repr(kernel) == line
    forecast = sgdmc.forecast(kernel, run.values[:3], n_steps=10, n_chains=7, rng=0)
    assert repr(forecast) == f"Forecast(10 steps from 3 starts, 7 draws each; {line})"


def test_rows_held_to_a_field(run):
    kernel = sgdmc.estimate_kernel(run, method="dirichlet", lag=5, coupling="field")
    assert repr(kernel).startswith("FieldKernel(theta0, theta1, 5 steps ahead; dirichlet, coupling")
    field = GradientField.fit(run.paths)
    assert repr(field).startswith("GradientField(2 directions, ")
    assert field.kind in repr(field)
    exact = sgdmc.JointKernel(None, None, 3, ("a",), (run.values,))
    assert repr(exact) == "JointKernel(a, 3 steps ahead; exact, coupling joint, from 1 run)"
