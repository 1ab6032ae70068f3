"""Ceilings: SGD's own kernel by its draws, and what a run can show of a minimum."""

import numpy as np
import pytest

from sgdmc.forecasting.benchmark import Plan, run_task
from sgdmc.forecasting.exact import exact_kernel, kernel_but_for_minimum, sampled_exact_kernel
from sgdmc.forecasting.families import make_task
from sgdmc.forecasting.predictive import predictive_draws
from sgdmc.forecasting.scores import score_samples
from sgdmc.sgd.problems import make_least_squares
from sgdmc.sgd.simulate import run_sgd

STEP = 0.05


def observe(problem, seed=0, n_steps=400, n_runs=1):
    starts = np.random.default_rng(seed).uniform(-3, 3, size=(n_runs, problem.dim))
    return run_sgd(problem, starts, step_size=STEP, n_steps=n_steps, rng=seed)


def test_draws_are_those_of_the_matrix():
    problem = make_least_squares(n_samples=50, dim=2, noise=0.5, rng=0)
    run, starts = observe(problem), np.array([[2.0, -1.0], [0.0, 1.5]])
    options = {"step_size": STEP, "lag": 10, "digits": 2, "cover": starts}
    kernels = [sampled_exact_kernel(problem, run, **options)]
    kernels.append(exact_kernel(problem, run, points_per_cell=64, **options))
    drawn, exact = (
        k.advance(starts, n_steps=40, n_chains=4000, rng=np.random.default_rng(0)) for k in kernels
    )
    apart = score_samples("draws", drawn, exact, scale=np.ones(2)).w1
    real = run_sgd(problem, np.repeat(starts, 4000, axis=0), step_size=STEP, n_steps=40, rng=1)
    truth = real.iterates[:, -1].reshape(2, 4000, 2)
    # Bins of a hundredth of the range show; two ways of drawing through them do not.
    assert apart < 0.5 * score_samples("SGD", truth, exact, scale=np.ones(2)).w1


def test_any_number_of_coordinates_and_bins():
    problem = make_least_squares(n_samples=50, dim=4, noise=0.5, rng=0)
    starts = np.random.default_rng(1).uniform(-2, 2, size=(3, 4))
    kernel = sampled_exact_kernel(problem, observe(problem), step_size=STEP, lag=20, cover=starts)
    drawn = kernel.advance(starts, n_steps=100, n_chains=2000, rng=np.random.default_rng(0))
    real = run_sgd(problem, np.repeat(starts, 2000, axis=0), step_size=STEP, n_steps=100, rng=1)
    truth = real.iterates[:, -1].reshape(3, 2000, 4)
    again = run_sgd(problem, np.repeat(starts, 2000, axis=0), step_size=STEP, n_steps=100, rng=2)
    other = again.iterates[:, -1].reshape(3, 2000, 4)
    gap = score_samples("exact", drawn, truth, scale=np.ones(4)).w1
    assert gap < 1.5 * score_samples("SGD", other, truth, scale=np.ones(4)).w1


def test_ceilings_leave_nothing_open():
    problem = make_least_squares(n_samples=50, dim=2, noise=0.5, rng=0)
    run, starts = observe(problem), np.zeros((2, 2))
    for kernel in (
        sampled_exact_kernel(problem, run, step_size=STEP, lag=20),
        kernel_but_for_minimum(problem, run, step_size=STEP, lag=20),
    ):
        draws = kernel.advance(starts, n_steps=40, n_chains=8, rng=np.random.default_rng(0))
        np.testing.assert_array_equal(
            predictive_draws(kernel, starts, draws, n_steps=40, seed=0), draws
        )


def test_minima_are_estimated_without_bias_and_better_than_by_means():
    problem = make_least_squares(n_samples=60, dim=2, noise=0.8, rng=3)
    x, y = np.asarray(problem.X), np.asarray(problem.y)
    minimum = np.linalg.lstsq(x, y, rcond=None)[0]
    errors, of_tails = [], []
    for seed in range(60):
        run = observe(problem, seed=seed, n_steps=600)
        kernel = kernel_but_for_minimum(problem, run, step_size=STEP, lag=600)
        ends = kernel.advance(
            np.zeros((1, 2)), n_steps=600, n_chains=2000, rng=np.random.default_rng(seed)
        )
        errors.append(ends.mean(axis=(0, 1)) - minimum)
        of_tails.append(run.paths[0][300:].mean(axis=0) - minimum)
    mean, spread = np.mean(errors, axis=0), np.std(errors, axis=0)
    assert (np.abs(mean) < 3.5 * spread / np.sqrt(len(errors))).all()
    assert (spread < 0.95 * np.std(of_tails, axis=0)).all(), spread / np.std(of_tails, axis=0)


@pytest.mark.parametrize("index", range(3))
def test_basins_are_named_by_where_sgd_without_noise_ends(index):
    task = make_task("F4", index)
    starts = task.starts(200, np.random.default_rng(0))
    ends = run_sgd(
        task.problem, starts, step_size=0.1, batch_size=100, n_steps=4000, thin=4000, rng=0
    ).iterates[:, -1]
    gaps = np.abs(ends[:, None] - task.minima).max(axis=2)
    # Some are still on their way in a long valley.
    assert (gaps.min(axis=1) < 0.05).mean() > 0.9
    assert len(task.minima) > 2
    assert np.abs(task.problem.gradient(task.minima)).max() < 1e-4


def test_ceilings_and_rivals_of_limits_in_the_benchmark():
    names = ("exact kernel", "exact kernel, 100 bins", "all known but the minimum")
    rivals = ("counts, on the same field", "dirichlet, on the same field", "gradient-gp")
    plan = Plan(n_starts=20, n_truth=60, n_chains=60, methods=(*names, *rivals))
    w1 = {r["method"]: r["w1"] for r in run_task(plan, "F1", 0, 1)}
    assert w1["exact kernel"] < 1.2 * w1["SGD itself, other seeds"]
    assert w1["exact kernel, 100 bins"] > 2 * w1["exact kernel"]
    # Means are those of one field: only shapes of the noise differ.
    for name in rivals[:2]:
        assert w1[name] == pytest.approx(w1["gradient-gp"], rel=0.15)
    elsewhere = {r["method"] for r in run_task(plan, "F6", 0, 1)}
    assert not elsewhere & {*rivals[:2], "all known but the minimum"}
