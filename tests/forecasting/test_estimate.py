"""Kernels from runs: each estimator against what is known of the process."""

import pickle

import numpy as np
import pytest

from sgdmc.chain.kernel import Kernel
from sgdmc.forecasting.estimate import (
    METHODS,
    FewStepsWarning,
    complete_kernel,
    estimate_kernel,
    recalibrate_kernel,
)
from sgdmc.forecasting.exact import exact_kernel
from sgdmc.forecasting.forecast import forecast
from sgdmc.forecasting.gradient import GradientKernel
from sgdmc.forecasting.held import FieldKernel
from sgdmc.forecasting.rows import ROW_ESTIMATORS, phases
from sgdmc.forecasting.select import choose_method, energy_score
from sgdmc.forecasting.stepped import STEPPED, SteppedKernel
from sgdmc.forecasting.var import lagged_pairs, var1_fit
from sgdmc.sgd.problems import make_least_squares
from sgdmc.sgd.run import Run
from sgdmc.sgd.simulate import run_sgd

STEP = 0.03


@pytest.fixture(scope="module")
def problem():
    return make_least_squares(n_samples=60, dim=2, noise=0.4, rng=3)


@pytest.fixture(scope="module")
def run(problem):
    return run_sgd(problem, np.array([3.0, -2.0]), step_size=STEP, n_steps=600, rng=0)


@pytest.fixture(scope="module")
def read(run):
    """The kernel read off the shipped model, every row probed, rows held to the steps alone."""
    as_read = estimate_kernel(
        run, completion="probe", cover=[[-3.0, -3.0], [3.5, 3.5]], recalibrate=False
    )
    return recalibrate_kernel(as_read)


def test_rows_by_hand():
    # 0→1, 1→0, 0→1, 1→1, 1→0
    series = [np.array([0, 1, 0, 1, 1, 0], dtype=np.int16)]
    counted = ROW_ESTIMATORS["counts"](series, 3, 1)
    np.testing.assert_allclose(counted.rows[:2], [[0, 1, 0], [2 / 3, 1 / 3, 0]])
    assert counted.known.tolist() == [True, True, False]
    posterior = ROW_ESTIMATORS["dirichlet"](series, 3, 1)
    np.testing.assert_allclose(posterior.rows.sum(axis=1), 1.0)
    assert 0 < posterior.rows[0, 0] < 0.5  # shrunk towards the states within reach
    assert posterior.rows[0, 2] == 0


def test_phases_cover_the_run_or_say_why_not():
    series = [np.arange(20), np.arange(100, 115)]
    split = phases(series, lag=5, budget=1000)
    assert sorted(np.concatenate(split).tolist()) == [*range(20), *range(100, 115)]
    few = phases(series, lag=5, budget=12)
    assert sum(len(s) + 1 for s in few) <= 12
    assert {int(s[0]) // 100 for s in few} == {0, 1}  # every run has a phase
    # Four numbers of the first run and three of the second, with a separator each.
    one = phases(series, lag=5, budget=5)
    np.testing.assert_array_equal(one, [[0, 5, 10, 15]])
    with pytest.raises(ValueError, match="must fit into the model's context of 3 numbers at lag 5"):
        phases(series, lag=5, budget=3)


@pytest.mark.parametrize("lengths", [[400], [400, 37, 250], [90] * 12, [21, 22, 400]])
@pytest.mark.parametrize("lag", [1, 7, 20])
@pytest.mark.parametrize("budget", [150, 500, 10_000])
def test_phases_are_as_many_as_fit(lengths, lag, budget):
    series = [np.arange(n) for n in lengths]

    def of(n_phases):
        picks = [k * lag // n_phases for k in range(n_phases)]
        return [s[p::lag] for s in series for p in picks if len(s[p::lag]) > 1]

    parts = map(of, range(1, lag + 1))
    fitting = [part for part in parts if sum(len(s) + 1 for s in part) <= budget]
    if min(-(-n // lag) for n in lengths) + 1 > budget:
        with pytest.raises(ValueError, match="must fit into the model's context"):
            phases(series, lag=lag, budget=budget)
        return
    found = phases(series, lag=lag, budget=budget)
    if fitting:
        assert [s.tolist() for s in found] == [s.tolist() for s in fitting[-1]]
    else:
        assert 0 < sum(len(s) + 1 for s in found) <= budget


def test_runs_that_do_not_all_fit_are_left_out_evenly():
    rng = np.random.default_rng(0)
    paths = rng.normal(size=(400, 101, 1)).cumsum(axis=1) * 0.1
    series = [np.full(101, c) for c in range(400)]
    found = phases(series, lag=10, budget=1200)
    assert len(found) == 100
    assert [int(s[0]) for s in found] == list(range(0, 400, 4))
    kernel = estimate_kernel(Run.from_array(paths), lag=2, coupling="blocks", max_context=2000)
    assert "of 400 runs fit its context" in " ".join(kernel.notes)


def test_a_handful_of_steps_is_warned_of():
    with pytest.warns(FewStepsWarning, match="run holds 5 steps in all"):
        estimate_kernel(Run.from_array(np.linspace(0, 1, 6)), method="ar1", lag=1)
    # Parts that are held out of a run that is long enough are not: warnings are errors here.
    path = np.random.default_rng(0).normal(size=(25, 2)).cumsum(axis=0)
    assert estimate_kernel(Run.from_array(path), method="auto", lag=1).notes


def test_kernels_without_rows_are_not_filled():
    kernel = estimate_kernel(Run.from_array(np.linspace(0, 1, 60)), method="var1")
    with pytest.raises(TypeError, match="kernel must have rows to fill; got a SteppedKernel"):
        complete_kernel(kernel, completion="nearest")


@pytest.mark.parametrize("method", ["var1", "knn", "local-linear"])
def test_stepped_kernels_are_pickled(method):
    path = np.random.default_rng(0).normal(size=(200, 2)).cumsum(axis=0)
    kernel = estimate_kernel(Run.from_array(path), method=method)
    again = pickle.loads(pickle.dumps(kernel))
    assert again.notes == kernel.notes
    one, two = (
        k.advance(path[:3], n_steps=50, n_chains=5, rng=np.random.default_rng(0))
        for k in (kernel, again)
    )
    np.testing.assert_array_equal(one, two)


def test_llm_rows_are_laws(read):
    assert isinstance(read, Kernel)
    assert read.blocks.shape == (2, 1000, 1000)
    np.testing.assert_allclose(read.blocks.sum(axis=2), 1.0, atol=1e-9)
    assert (read.blocks >= 0).all()
    assert 0 < read.observed.sum() < read.observed.size
    assert np.nanmax(read.off_state_mass) < 0.2
    assert any("rows read off shipped" in note for note in read.notes)
    assert any(note.startswith("lag ") for note in read.notes)


def test_llm_rows_know_the_drift(read, run):
    """Where the run was, the mean row is that of the fitted line, within the noise."""
    states = [read.grid.encode(read.coordinates.forward(p)) for p in run.paths]
    before, after = states[0][: -read.lag], states[0][read.lag :]
    for i in range(2):
        seen = np.flatnonzero(read.observed[i])
        mean = read.blocks[i, seen] @ np.arange(read.n_states)
        slope, shift = np.polyfit(before[:, i], after[:, i], 1)
        noise = np.std(after[:, i] - slope * before[:, i] - shift)
        span = np.ptp(before[:, i])
        assert np.median(np.abs(mean - slope * seen - shift)) < noise + 0.05 * span


def test_coarser_digits_pool_the_same_reading(run):
    coarse = estimate_kernel(run, completion="probe", digits=2, lag=20, coupling="blocks")
    assert coarse.blocks.shape == (2, 100, 100)
    np.testing.assert_allclose(coarse.blocks.sum(axis=2), 1.0, atol=1e-9)


@pytest.mark.parametrize("completion", ["barycenter", "increments", "quantiles", "nearest"])
def test_completions_keep_visited_rows(read, completion):
    filled = complete_kernel(read, completion=completion)
    np.testing.assert_allclose(filled.blocks[read.observed], read.blocks[read.observed], atol=1e-9)
    np.testing.assert_allclose(filled.blocks.sum(axis=2), 1.0, atol=1e-9)
    assert filled.completion == completion


def test_no_completion_stays_put(run):
    kernel = estimate_kernel(run, method="counts", completion=None, coupling="blocks")
    missing = np.flatnonzero(~kernel.observed[0])
    np.testing.assert_array_equal(kernel.blocks[0, missing, missing], 1.0)


@pytest.mark.parametrize("method", [m for m in METHODS if m != "auto"])
def test_every_method_forecasts_the_limit(run, problem, method):
    kernel = estimate_kernel(run, method=method)
    minimiser = np.linalg.lstsq(problem.X, problem.y, rcond=None)[0]
    result = forecast(kernel, run.paths[0][0], n_steps=600, n_chains=200, rng=0)
    error = np.abs(np.median(result.samples[0], axis=0) - minimiser) / run.range
    assert error.max() < 0.08
    kinds = {**dict.fromkeys(STEPPED, SteppedKernel), "gradient-gp": GradientKernel}
    kinds["llm"] = FieldKernel
    assert isinstance(kernel, kinds.get(method, Kernel))


def test_joint_kernel_steps_towards_the_minimiser(run, problem):
    kernel = estimate_kernel(run, coupling="joint", lag=50)
    assert isinstance(kernel, SteppedKernel)
    start = run.paths[0][0]
    result = forecast(kernel, start, n_steps=300, n_chains=64, rng=0)
    before = np.abs(start - problem.minimiser) / run.range
    after = np.abs(np.median(result.samples[0], axis=0) - problem.minimiser) / run.range
    assert (after < 0.3 * before).all()
    again = forecast(kernel, start, n_steps=300, n_chains=64, rng=0)
    np.testing.assert_array_equal(result.samples, again.samples)


def test_joint_draws_are_held_to_the_line_and_the_spread_of_the_observed_steps(run):
    held, as_read = (
        estimate_kernel(run, coupling="joint", lag=50, recalibrate=r) for r in (True, False)
    )
    assert "held to the observed steps" in held.notes[-1]
    before, after = lagged_pairs(run.paths, 50)
    law = var1_fit(before, after, lag=50)
    at = before[:1]
    drawn = held.step(np.repeat(at, 300, axis=0), np.random.default_rng(0))
    spread = np.sqrt(law.weights @ law.residuals**2)
    gap = np.abs(drawn.mean(axis=0) - law.push(at, 1)[0])
    far = np.abs(as_read.step(np.repeat(at, 300, axis=0), np.random.default_rng(0)) - at).max()
    assert (gap < 0.1 * far).all()
    ends = held.step(np.repeat(run.paths[0][-1:], 300, axis=0), np.random.default_rng(0))
    assert (ends.std(axis=0) < 3 * spread).all()


def test_joint_runs_beyond_the_context_are_cut_to_their_beginnings(problem):
    starts = np.random.default_rng(0).uniform(-3, 3, size=(6, 2))
    run = run_sgd(problem, starts, step_size=STEP, n_steps=600, rng=0)
    kernel = estimate_kernel(run, coupling="joint", lag=2, recalibrate=False, max_context=1000)
    assert "cut to their first" in kernel.notes[-1]
    assert np.isfinite(kernel.step(starts, np.random.default_rng(0))).all()


def test_exact_kernel_matches_real_sgd(problem, run):
    starts = np.array([[2.0, -1.0], [0.0, 1.0]])
    exact = exact_kernel(problem, run, step_size=STEP, lag=20, cover=starts)
    result = forecast(exact, starts, n_steps=100, n_chains=4000, rng=0)
    real = run_sgd(problem, np.repeat(starts, 4000, axis=0), step_size=STEP, n_steps=100, rng=1)
    truth = real.iterates[:, -1].reshape(2, 4000, 2)
    gap = np.abs(result.samples.mean(axis=1) - truth.mean(axis=1))
    spread = truth.std(axis=1)
    width = exact.grid.width
    assert (gap < width + 5 * spread / np.sqrt(4000)).all()


def test_exact_kernel_needs_no_run_to_forecast(problem, run):
    exact = exact_kernel(problem, run, step_size=STEP, lag=20)
    assert exact.coupling == "joint"
    assert exact.matrix.shape[0] >= 10_000


def test_energy_score_is_proper():
    rng = np.random.default_rng(0)
    outcomes = rng.normal(size=(4000, 2))
    right, wide, off = (
        energy_score(loc + scale * rng.normal(size=(4000, 64, 2)), outcomes).mean()
        for loc, scale in ((0, 1), (0, 2), (0.7, 1))
    )
    assert right < wide
    assert right < off


def test_auto_takes_the_right_model():
    """A linear chain: the linear model foretells it better than one that stays."""
    rng = np.random.default_rng(0)
    path = np.zeros((400, 1))
    path[0] = 8.0
    for t in range(399):
        path[t + 1] = 0.9 * path[t] + 0.1 * rng.normal(size=1)
    run = Run.from_array(path)

    def fit(part, name):
        if name == "stays":
            return SteppedKernel(lambda theta, rng: theta, 5, name, part.names, tuple(part.paths))
        return estimate_kernel(part, method=name, lag=5)

    method, reason = choose_method(run, 5, fit, ["stays", "var1"])
    assert method == "var1"
    assert "held-out energy score" in reason
    short = Run.from_array(path[:9])
    assert choose_method(short, 5, fit, ["stays", "var1"])[0] == "stays"


def test_method_auto_reports_its_choice(run):
    kernel = estimate_kernel(run.head(300), method="auto", lag=20)
    assert any(note.startswith("method ") for note in kernel.notes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "magic"}, "method must be one of"),
        ({"completion": "magic"}, "completion must be one of"),
        ({"method": "counts", "completion": "probe"}, "completion 'probe' asks a language model"),
        ({"coupling": "magic"}, "coupling must be one of"),
        ({"coupling": "joint", "method": "counts"}, "coupling 'joint' asks a language model"),
        ({"digits": 4}, "digits must be 1, 2, 3 or 'auto'"),
        ({"lag": 0}, "lag must be an integer of at least 1"),
        ({"lag": 2.5}, "lag must be an integer of at least 1"),
        ({"lag": 700}, "lag must be shorter than the longest run"),
        ({"max_context": 30, "lag": 20}, "must fit into the model's context"),
    ],
)
def test_bad_options(run, options, message):
    with pytest.raises(ValueError, match=message):
        estimate_kernel(run, **options)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"convex": "no"}, TypeError, "convex must be True, False or None; got 'no'"),
        ({"convex": 1}, TypeError, "convex must be True, False or None"),
        ({"coupling": "sideways"}, ValueError, "coupling must be one of"),
    ],
)
def test_options_that_would_be_misread(run, options, error, match):
    with pytest.raises(error, match=match):
        estimate_kernel(run, **options)


def test_a_run_is_asked_for():
    with pytest.raises(TypeError, match="run must be a Run; got ndarray"):
        estimate_kernel(np.zeros((10, 2)))


@pytest.mark.parametrize("method", ["llm", "gradient-gp", "var1"])
def test_counts_of_numpy_are_counts(run, method):
    kernel = estimate_kernel(run, method=method)
    start = run.paths[0][-1:]
    one = forecast(kernel, start, n_steps=np.int64(40), n_chains=np.int32(8), rng=0)
    np.testing.assert_array_equal(
        one.samples, forecast(kernel, start, n_steps=40, n_chains=8, rng=0).samples
    )
    for bad, error in ((10.0, TypeError), ("10", TypeError), (-1, ValueError)):
        with pytest.raises(error, match="n_steps must be"):
            forecast(kernel, start, n_steps=bad)
