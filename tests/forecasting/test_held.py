"""Rows held to a field: means are its flow, spreads those of steps, shapes those of rows."""

import numpy as np
import pytest
from tests.forecasting.wells import STARTS, two_wells

from sgdmc import estimate_kernel, forecast, make_least_squares, run_sgd
from sgdmc.chain.kernel import Kernel
from sgdmc.forecasting.coupling import choose_field
from sgdmc.forecasting.estimate import complete_kernel, recalibrate_kernel
from sgdmc.forecasting.field import GradientField
from sgdmc.forecasting.forecast import StartOutsideWarning
from sgdmc.forecasting.held import FieldKernel, _without_tails, hold_to_field
from sgdmc.sgd.run import Run


@pytest.fixture(scope="module")
def problem():
    return make_least_squares(n_samples=60, dim=2, noise=0.4, rng=3)


@pytest.fixture(scope="module")
def runs(problem):
    starts = np.random.default_rng(1).uniform(-3, 3, size=(3, 2))
    return run_sgd(problem, starts, step_size=0.03, n_steps=400, rng=0)


@pytest.fixture(scope="module")
def read(runs):
    """The kernel read off the shipped model, rows as they are."""
    return estimate_kernel(runs, recalibrate=False, lag=20, completion="quantiles")


@pytest.fixture(scope="module")
def wells():
    run = Run.from_paths(two_wells(STARTS), names=("x", "y"))
    return estimate_kernel(run, method="dirichlet", coupling="field")


def test_a_language_model_is_held_to_a_field_by_default(problem):
    starts = np.random.default_rng(1).uniform(-3, 3, size=(2, 2))
    runs = run_sgd(problem, starts, step_size=0.03, n_steps=60, rng=0)
    options = {"lag": 15, "completion": "quantiles"}
    kernel = estimate_kernel(runs, **options)
    assert isinstance(kernel, FieldKernel)
    assert (kernel.method, kernel.completion, kernel.coupling) == ("llm", "quantiles", "field")
    assert (kernel.lag, kernel.names, kernel.blocks.shape) == (15, runs.names, (2, 1000, 1000))
    assert kernel.field is GradientField.fit(runs.paths)
    assert "means follow one gradient field for all coordinates" in kernel.notes[-1]
    # Without it rows have means of their own, in the same coordinates.
    own = estimate_kernel(runs, coupling=kernel.rows.coupling, **options)
    assert isinstance(own, Kernel)
    assert "rows held to the observed steps" in own.notes[-1]
    assert own.notes[0] == kernel.notes[0]
    # What they were read from is the same.
    read = estimate_kernel(runs, coupling=kernel.rows.coupling, recalibrate=False, **options)
    assert isinstance(read, Kernel)
    seen = read.observed
    np.testing.assert_allclose(kernel.blocks[seen], read.blocks[seen], atol=1e-9)
    # What a kernel of rows shows, one that follows a field shows too.
    np.testing.assert_allclose(kernel.blocks.sum(axis=2), 1.0)
    np.testing.assert_array_equal(kernel.observed, read.observed)
    np.testing.assert_array_equal(kernel.off_state_mass, read.off_state_mass)
    assert kernel.grid.encode(runs.values).shape == runs.values.shape
    assert kernel.coordinates.is_identity == read.coordinates.is_identity


def test_rows_of_one_direction_are_held_to_a_field_too():
    line = [1.0, 2.0] + (5 * 0.97 ** np.arange(60.0))[:, None] * np.array([0.6, 0.8])
    assert isinstance(estimate_kernel(Run.from_array(line), lag=10), FieldKernel)
    assert isinstance(estimate_kernel(Run.from_array(line[:, 0]), lag=10), FieldKernel)


def test_the_rows_of_other_methods_have_means_of_their_own(runs):
    for method in ("dirichlet", "ar1"):
        assert isinstance(estimate_kernel(runs, method=method, lag=20), Kernel)
        assert isinstance(estimate_kernel(runs, method=method, lag=20, coupling="blocks"), Kernel)


def test_recalibration_takes_a_field_or_holds_rows_alone(read, runs):
    alone = recalibrate_kernel(read)
    assert isinstance(alone, Kernel)
    assert "rows held to the observed steps" in alone.notes[-1]
    held = recalibrate_kernel(read, field=choose_field(runs.paths))
    assert isinstance(held, FieldKernel)
    assert held.rows is read
    assert held.notes[:-1] == read.notes
    assert "one gradient field" in held.notes[-1]


def test_notes_tell_parabolas_from_what_is_around_them_and_from_wells(runs, wells):
    assert "no parabola, as some steps lead apart by" in wells.notes[-1]
    assert f"{wells.field.ascent:.1f} standard deviations" in wells.notes[-1]
    rows = estimate_kernel(runs, method="ar1", lag=20, coupling="blocks")
    field = GradientField.fit(runs.paths)
    note = hold_to_field(rows, field).notes[-1]
    assert f"(a parabola, by evidence {field.belief.weights[0]:.0%} alone, " in note
    # A valley that is steep on one side: convex, and no parabola.
    rng = np.random.default_rng(0)
    paths = np.empty((6, 301, 2))
    paths[:, 0] = rng.uniform(-3, 3, size=(6, 2))
    for t in range(300):
        x = paths[:, t]
        push = 0.03 * np.stack([np.where(x[:, 0] > 0, 2.0, 0.3) * x[:, 0], 0.7 * x[:, 1]], axis=1)
        paths[:, t + 1] = x - push + 0.01 * rng.normal(size=x.shape)
    bent = Run.from_paths(tuple(paths), names=("x", "y"))
    kernel = estimate_kernel(bent, method="ar1", coupling="field", lag=10)
    assert kernel.field.convex
    assert "% with a process" in kernel.notes[-1]
    assert "% alone" not in kernel.notes[-1]


def test_the_shape_of_the_scatter_is_that_of_the_rows(runs, problem):
    rows = estimate_kernel(runs, method="ar1", coupling="blocks", lag=5)
    n = rows.n_states
    skewed = np.zeros((n, n))
    # Nine steps in ten go down one bin, the tenth goes up nine: a skewness of 8/3.
    at = np.arange(n)
    skewed[at, np.clip(at - 10, 0, n - 1)] += 0.9
    skewed[at, np.clip(at + 90, 0, n - 1)] += 0.1
    even = np.zeros((n, n))
    even[at, np.clip(at - 30, 0, n - 1)] += 0.5
    even[at, np.clip(at + 30, 0, n - 1)] += 0.5
    blocks = np.stack([skewed, even])
    field = GradientField.fit(runs.paths)
    kernel = FieldKernel(type(rows)(**{**rows.__dict__, "blocks": blocks}), field, np.eye(2))
    rest = field.flow(problem.minimiser[None], 4000)
    draws = kernel.advance(rest, n_steps=5, n_chains=8000, rng=np.random.default_rng(0))[0]
    z = (draws - draws.mean(axis=0)) / draws.std(axis=0)
    skew = (z**3).mean(axis=0)
    assert skew[0] == pytest.approx(8 / 3, abs=0.2)
    assert abs(skew[1]) < 0.1
    assert (z[:, 1] ** 4).mean() < 1.2  # two points, not a bell
    np.testing.assert_allclose(draws.std(axis=0), 1.0, rtol=0.05)


def test_completion_fills_the_rows_of_a_held_kernel(runs):
    kernel = estimate_kernel(runs, method="counts", coupling="field", completion=None, lag=20)
    missing = np.flatnonzero(~kernel.rows.observed[0])
    assert len(missing)
    np.testing.assert_array_equal(kernel.rows.blocks[0, missing, missing], 1.0)
    filled = complete_kernel(kernel, completion="nearest")
    assert isinstance(filled, FieldKernel)
    assert filled.completion == "nearest"
    seen = kernel.rows.observed
    np.testing.assert_allclose(filled.rows.blocks[seen], kernel.rows.blocks[seen], atol=1e-12)
    assert (filled.rows.blocks[0, missing, missing] < 1.0).any()
    np.testing.assert_allclose(filled.rows.blocks.sum(axis=2), 1.0, atol=1e-9)
    np.testing.assert_array_equal(filled.spread, kernel.spread)
    assert filled.field is kernel.field


def test_held_kernels_can_be_asked_beyond_the_grid(runs):
    kernel = estimate_kernel(runs, method="ar1", coupling="field", lag=20)
    far = runs.values.max(axis=0) + 5 * runs.range
    with pytest.warns(StartOutsideWarning, match="by 5 ranges .* on steps that were seen"):
        cast = forecast(kernel, far, n_steps=100, n_chains=50, rng=0)
    assert np.isfinite(cast.samples).all()
    assert (cast.samples.mean(axis=1) < far).all()
    with pytest.warns(StartOutsideWarning, match="beyond the grid begin at its edge"):
        forecast(kernel.rows, far, n_steps=100, n_chains=50, rng=0)


def test_far_tails_of_a_row_do_not_narrow_its_body():
    bins = np.arange(1000)
    body = np.exp(-0.5 * ((bins - 500.2) / 5.0) ** 2)
    rows = np.stack([body / body.sum(), np.eye(1000)[3]])
    tailed = 0.99 * rows + 0.01 / 1000
    kept = _without_tails(tailed)
    np.testing.assert_allclose(kept.sum(axis=1), 1.0)
    spread = np.sqrt(kept @ bins**2 - (kept @ bins) ** 2)
    assert np.sqrt(tailed[0] @ bins**2 - (tailed[0] @ bins) ** 2) > 25
    assert spread[0] == pytest.approx(5.0, rel=0.03)
    assert kept[1, 3] > 0.99
