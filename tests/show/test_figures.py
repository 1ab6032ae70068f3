"""The paper's figures: what they show is what the package computes by another route."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import wasserstein_distance

import sgdmc
from sgdmc.forecasting.baselines import TRIVIAL
from sgdmc.forecasting.families import make_task
from sgdmc.forecasting.scaling import SMOOTHING, count_rows, fit_power_law, two_state_chain
from sgdmc.sgd.exact import lumped_blocks, ulam_kernel
from sgdmc.show.figures import (
    figure_convex,
    figure_method,
    figure_nonconvex,
    figure_regimes,
    figure_scaling,
)
from sgdmc.show.paper_scaling import scaling_study
from sgdmc.show.paper_studies import (
    EXACT,
    LLM,
    basin_probability,
    convex_study,
    method_study,
    nonconvex_study,
    regimes_study,
)

SMALL = {"n_starts": 5, "n_truth": 40, "n_chains": 100}


@pytest.fixture(scope="module")
def task():
    return replace(make_task("F2", 0), observed_steps=200)


@pytest.fixture(scope="module")
def method(task):
    return method_study(task, lag=10, horizon=40, n_starts=2, n_truth=300)


@pytest.fixture(scope="module")
def regimes():
    return regimes_study(lag=10)


@pytest.fixture(scope="module")
def convex():
    return convex_study(instances={"quadratic": ("F5", 50)}, **SMALL)


@pytest.fixture(scope="module")
def nonconvex():
    return nonconvex_study(n_runs=2, horizon=200, **SMALL)


@pytest.fixture(scope="module")
def scaling():
    return scaling_study(gaps=(0.2, 1.0), longest=120, n_repeats=12, rng=1)


def texts(figure):
    return " ".join(t.get_text() for t in figure.findobj(lambda o: hasattr(o, "get_text")))


def occupation(run, grid):
    weights = np.zeros((grid.n_states,) * grid.dim)
    for a, b in grid.encode(run.values):
        weights[a, b] += 1
    return weights


def test_method_keeps_every_stage(method):
    run, bare = method.run, method.bare
    grid = sgdmc.Grid.fit(run.iterates[0, :, 0], digits=3)
    states = grid.encode(run.iterates[0, ::10, 0])
    assert method.text == "".join(f"{s:03d}," for s in states)
    row = sgdmc.next_state_laws(states, digits=3)[0][-1]
    first = [sum(row[s] for s in range(1000) if s // 100 == d) for d in range(10)]
    np.testing.assert_allclose(method.digit_laws[0], first, rtol=1e-9)
    likely = int(np.argmax(first))
    second = [sum(row[100 * likely + 10 * d : 100 * likely + 10 * d + 10]) for d in range(10)]
    np.testing.assert_allclose(method.digit_laws[1], np.array(second) / sum(second), rtol=1e-9)
    assert [law.sum() for law in method.digit_laws] == pytest.approx([1, 1, 1])
    assert method.next_law.sum() == pytest.approx(1)
    assert method.next_true.sum() == pytest.approx(1)
    seen = bare.observed[0]
    np.testing.assert_allclose(method.filled.blocks[0, seen], bare.blocks[0, seen], rtol=1e-12)
    assert not np.allclose(method.filled.blocks[0, ~seen], bare.blocks[0, ~seen])


def test_exact_block_is_the_lumped_kernel(method, task):
    grid, lag = method.bare.grid, method.bare.lag
    joint = ulam_kernel(
        task.problem,
        grid,
        step_size=task.step_size,
        lag=lag,
        points_per_cell=4,
        boundary="reflect",
        rng=0,
    )
    other = lumped_blocks(joint, grid, weights=occupation(method.run, grid))[0]
    np.testing.assert_allclose(method.exact, other, atol=1e-12)
    np.testing.assert_allclose(method.exact.sum(axis=1), 1)


def test_law_of_the_next_number_is_near_the_truth(method):
    """The restarted runs and the model agree better than the model and a uniform guess."""
    flat = np.full_like(method.next_law, 1 / len(method.next_law))
    near = sgdmc.wasserstein1(method.next_law, method.next_true)
    assert near < sgdmc.wasserstein1(flat, method.next_true) / 3


def test_method_is_drawn_with_text_kernel_and_laws(method):
    figure = figure_method(method)
    drawn = texts(figure)
    assert method.text[:8] in drawn
    assert f"every {method.bare.lag}th iterate" in drawn
    shown = [axis.images[0].get_array() for axis in figure.axes if axis.images]
    masked = np.isnan(np.ma.filled(shown[0], np.nan)).all(axis=1)
    np.testing.assert_array_equal(masked, ~method.bare.observed[0])
    np.testing.assert_allclose(shown[1] ** 2, method.filled.blocks[0], atol=1e-12)
    np.testing.assert_allclose(shown[2] ** 2, method.exact, atol=1e-12)


def test_regimes_settle_or_keep_moving(regimes):
    under, over = regimes
    assert over.loss[-1] < 1e-6 * over.loss[0]
    assert over.least_loss < 1e-20
    assert under.loss[-200:].mean() > under.least_loss > 0.01
    for study in regimes:
        np.testing.assert_allclose(study.exact.sum(axis=2), 1)
        np.testing.assert_allclose(study.loss[0], study.loss.max(), rtol=0.5)


def test_distance_of_rows_is_that_of_scipy(regimes):
    study, bins = regimes[0], np.arange(100)
    states = study.kernel.grid.encode(study.run.iterates[0])[:-10, 1]
    rows = {s: (study.kernel.blocks[1, s], study.exact[1, s]) for s in set(states.tolist())}
    found = {s: wasserstein_distance(bins, bins, p, q) / 100 for s, (p, q) in rows.items()}
    assert study.w1[1] == pytest.approx(np.mean([found[int(s)] for s in states]), rel=1e-9)
    assert f"{study.w1[1]:.4f}" in texts(figure_regimes(regimes))


def test_convex_titles_are_the_scores(convex):
    (study,) = convex
    table = study.table
    assert study.best_trivial.w1 == min(table[name].w1 for name in TRIVIAL)
    for key in (LLM, EXACT):
        draws, scale = (
            study.forecasts[key].samples,
            np.ptp(np.concatenate([study.run.values, study.forecasts[key].starts]), axis=0),
        )
        by_start = [
            wasserstein_distance(draws[a, :, i], study.truth[a, :, i]) / scale[i]
            for a in range(len(draws))
            for i in range(2)
        ]
        assert table[key].w1 == pytest.approx(np.mean(by_start), rel=1e-9)
        assert f"{table[key].w1:.3f}" in texts(figure_convex(convex))
    assert table[EXACT].w1 < study.best_trivial.w1
    assert study.forecasts[EXACT].kernel.lag == study.forecasts[LLM].kernel.lag


def test_nonconvex_runs_ended_where_they_are_said_to(nonconvex):
    one, both = nonconvex
    ends = [s.run.iterates[:, -1].sum(axis=1) > 0 for s in nonconvex]
    assert ends[0].all()
    assert sorted(ends[1].tolist()) == [False, True]
    np.testing.assert_array_equal(one.truth, both.truth)
    assert one.run.n_chains == both.run.n_chains == 2


def test_brier_score_is_that_of_the_basin_probabilities(nonconvex):
    for study in nonconvex:
        for key in (LLM, EXACT):
            said = basin_probability(study.forecasts[key].samples, study.task)
            real = basin_probability(study.truth, study.task)
            score = real * 2 * (1 - said) ** 2 + (1 - real) * 2 * said**2
            assert study.table[key].brier == pytest.approx(score.mean(), abs=0.02)
            assert f"Brier {study.table[key].brier:.3f}" in texts(figure_nonconvex(nonconvex))
    assert nonconvex[1].table[EXACT].brier < nonconvex[0].table[LLM].brier


def test_what_cannot_be_drawn_is_refused(convex):
    with pytest.raises(ValueError, match="n_runs must be even and at least 2; got 3"):
        nonconvex_study(n_runs=3)
    with pytest.raises(ValueError, match="task must have minima; got None"):
        basin_probability(convex[0].truth, convex[0].task)


def test_scaling_laws_are_those_of_the_curves(scaling):
    assert set(scaling.laws) == {(r, n) for r in (0.2, 1.0) for n in ("llm", *SMOOTHING)}
    for (rho, name), law in scaling.laws.items():
        curve = scaling.curves[rho]
        mean = curve.losses[name].mean(axis=0)
        slope = np.polyfit(np.log(curve.lengths), np.log(mean), 1)[0]
        assert law.beta == pytest.approx(-slope)
        low, high = law.beta_interval
        assert low < law.beta < high
    exact = fit_power_law(scaling.curves[0.2].lengths, scaling.expected[0.2, "Laplace"])
    assert scaling.expected_laws[0.2, "Laplace"].beta == exact.beta
    rows = {(row["rho"], row["estimator"]): row for row in scaling.rows()}
    assert rows["0.2", "Laplace"]["exact beta"] == exact.beta
    assert rows["0.2", "llm"]["exact beta"] is None


def test_exact_losses_are_those_of_simulated_counting(scaling):
    """Within four standard errors of the mean over fresh paths, at every length."""
    for rho in scaling.curves:
        P, lengths = two_state_chain(rho), scaling.curves[rho].lengths
        begins = np.random.default_rng(2).integers(2, size=1000)
        paths = sgdmc.simulate_chain(P, begins, n_steps=int(lengths[-1]) - 1, rng=3)
        for name, alpha in SMOOTHING.items():
            losses = np.array(
                [
                    sgdmc.bhattacharyya(
                        P[path[lengths - 1]],
                        count_rows(path, n_states=2, alpha=alpha)[lengths - 1],
                    )
                    for path in paths
                ]
            )
            error = losses.std(axis=0) / np.sqrt(len(losses))
            off = (losses.mean(axis=0) - scaling.expected[rho, name]) / error
            assert np.abs(off).max() < 4


def test_scaling_figure_draws_the_study(scaling, tmp_path):
    figure = figure_scaling(scaling)
    *panels, exponents = figure.axes
    figure.savefig(tmp_path / "scaling.png", dpi=50)
    for axis in figure.axes:
        assert axis.get_xlabel()
    assert panels[0].get_ylabel()
    assert exponents.get_ylabel()
    for axis, (rho, curve) in zip(panels, scaling.curves.items(), strict=True):
        assert f"ρ = {rho:g}" in axis.get_title(loc="left")
        drawn = [line.get_ydata() for line in axis.lines if len(line.get_ydata()) > 2]
        wanted = [
            1 / (4 * curve.lengths),
            *(losses.mean(axis=0) for losses in curve.losses.values()),
            *(scaling.expected[rho, name] for name in SMOOTHING),
        ]
        for values in wanted:
            assert any(np.allclose(values, line, rtol=1e-12) for line in drawn)
        (bars,) = (c for c in axis.containers if c.has_yerr)
        for segment, mean in zip(
            bars[2][0].get_segments(), curve.losses["llm"].mean(axis=0), strict=True
        ):
            assert 0 < segment[0, 1] < mean < segment[1, 1]
        assert axis.get_ylim() == panels[0].get_ylim()
    found = {bars.get_label(): bars for bars in exponents.containers}
    for name, label in (("llm", LLM), ("counts", "counts"), ("Laplace", "Bayes, uniform prior")):
        laws = [scaling.laws[rho, name] for rho in scaling.curves]
        np.testing.assert_allclose(found[label][0].get_ydata(), [law.beta for law in laws])
        for segment, law in zip(found[label][2][0].get_segments(), laws, strict=True):
            np.testing.assert_allclose(segment[:, 1], law.beta_interval)
    assert {LLM, "counts", "1/(4t)"} <= {t.get_text() for t in figure.legends[0].get_texts()}


def test_axes_are_labelled_and_figures_written(method, regimes, convex, nonconvex, tmp_path):
    for k, (draw, study) in enumerate(
        (
            (figure_method, method),
            (figure_regimes, regimes),
            (figure_convex, convex),
            (figure_nonconvex, nonconvex),
        )
    ):
        figure = draw(study)
        for axis in figure.axes:
            if axis.axison:
                assert axis.get_xlabel()
                assert axis.get_ylabel()
        figure.savefig(tmp_path / f"{k}.png", dpi=50)
        assert (tmp_path / f"{k}.png").stat().st_size > 10_000


def test_studies_are_pure_functions_of_the_seed(convex):
    again = convex_study(instances={"quadratic": ("F5", 50)}, **SMALL)
    for one, other in zip(convex, again, strict=True):
        assert str(one.table) == str(other.table)
        np.testing.assert_array_equal(one.run.iterates, other.run.iterates)
