"""Cells of steps: small, of space, unbiased, as noisy as they say, and not too many."""

import numpy as np
import pytest

from sgdmc.forecasting.cells import _EXTENT, _MAX_VALUES, Cells
from sgdmc.forecasting.paths import ranges_of
from sgdmc.forecasting.var import noise_at, noise_line

SLOPE = np.array([[-0.05, 0.02], [0.02, -0.1]])


def runs(n_runs=3, n_steps=150, noise=0.05, seed=0, growth=0.0):
    """θ' = θ + SLOPE θ + noise, whose variance is noise² (1 + growth |SLOPE θ|²)."""
    rng = np.random.default_rng(seed)
    paths = np.empty((n_runs, n_steps + 1, 2))
    paths[:, 0] = rng.uniform(-3, 3, size=(n_runs, 2))
    for t in range(n_steps):
        push = paths[:, t] @ SLOPE
        loud = noise * np.sqrt(1 + growth * (push**2).sum(axis=1, keepdims=True))
        paths[:, t + 1] = paths[:, t] + push + loud * rng.normal(size=push.shape)
    return list(paths)


def drift_of(cells):
    return (cells.points * cells.width) @ SLOPE / cells.width


def extents(cells):
    parts = [cells.points[cells.cell == k] for k in range(cells.cell.max() + 1)]
    return np.array([np.ptp(part, axis=0).max() for part in parts])


def test_every_step_is_in_one_small_cell_and_no_step_leads_from_run_to_run():
    paths = runs(n_runs=2, n_steps=60)
    cells = Cells.of(paths, ranges_of(paths))
    assert cells.points.shape == cells.steps.shape == (120, 2)
    assert cells.cell.shape == (120,)
    assert set(cells.cell) == set(range(cells.cell.max() + 1))
    assert extents(cells).max() <= _EXTENT
    starts = np.concatenate([p[:-1] for p in paths])
    np.testing.assert_allclose(cells.points * cells.width, starts)
    ends = np.concatenate([p[1:] for p in paths])
    np.testing.assert_allclose((cells.points + cells.steps) * cells.width, ends)


def test_cells_grow_until_there_are_few_enough():
    paths = runs(n_runs=10, n_steps=300, noise=0.3)
    cells = Cells.of(paths, ranges_of(paths))
    n_values = 2 * (cells.cell.max() + 1)
    assert _MAX_VALUES / 2 < n_values <= _MAX_VALUES
    assert extents(cells).max() > _EXTENT
    three = [np.random.default_rng(0).normal(size=(500, 3))]
    many = Cells.of(three, ranges_of(three))
    assert 3 * (many.cell.max() + 1) <= _MAX_VALUES


def test_means_by_hand():
    # Two cells; steps of one are twice those of the other.
    path = np.array([[0.0], [0.01], [1.0], [1.01], [0.0]])
    cells = Cells.of([path], np.ones(1))
    assert cells.cell[0] == cells.cell[1] != cells.cell[2] == cells.cell[3]
    steps = np.diff(path[:, 0])
    found = cells.means(np.zeros((4, 1)))  # at rest all steps are as noisy
    order = [cells.cell[0], cells.cell[2]]
    np.testing.assert_allclose(found.points[order, 0], [0.005, 1.005])
    np.testing.assert_allclose(found.steps[order, 0], [steps[:2].mean(), steps[2:].mean()])
    np.testing.assert_allclose(found.noise, (steps**2).mean() / 2)


def test_means_weigh_the_inverse_of_the_noise():
    paths = runs(growth=400.0)
    cells = Cells.of(paths, ranges_of(paths))
    drift = drift_of(cells)
    found = cells.means(drift)
    push, left = drift * cells.width, (cells.steps - drift) * cells.width
    variance = noise_at(push, noise_line(push, left))
    assert variance.max() > 4 * variance.min()
    for k in range(0, len(found.points), 7):
        inside = cells.cell == k
        weights = 1 / variance[inside]
        for values, means in ((cells.points, found.points), (cells.steps, found.steps)):
            expected = np.average(values[inside], axis=0, weights=weights)
            np.testing.assert_allclose(means[k], expected, rtol=1e-10, atol=1e-14)
    counts = np.bincount(cells.cell)
    assert np.corrcoef(np.log(counts), np.log(found.noise[:, 0]))[0, 1] < -0.5


@pytest.mark.parametrize("growth", [0.0, 400.0])
def test_means_are_unbiased_and_as_noisy_as_they_say(growth):
    scores, along = [], []
    for seed in range(12):
        paths = runs(seed=seed, growth=growth)
        cells = Cells.of(paths, ranges_of(paths))
        found = cells.means(drift_of(cells))
        # The drift is linear: its mean over a cell is its value at the mean point.
        truth = (found.points * cells.width) @ SLOPE / cells.width
        score = (found.steps - truth) / np.sqrt(found.noise)
        scores.append(score.ravel())
        along.append((score * np.sign(truth)).ravel())
    whole = np.concatenate(scores)
    # χ² of about 3000 scores has a relative deviation of √(2/n); heavy-tailed sums a little more.
    assert (whole**2).mean() == pytest.approx(1.0, abs=5 * np.sqrt(2 / len(whole)))
    assert abs(np.concatenate(along).mean()) < 4 / np.sqrt(len(whole))


def test_coordinates_have_noise_of_their_own():
    rng = np.random.default_rng(0)
    path = rng.normal(size=(2000, 2))
    path[:, 1] *= 5
    cells = Cells.of([path], np.ones(2))
    found = cells.means(-cells.points)  # steps are white around zero
    ratio = found.noise[:, 1] / found.noise[:, 0]
    np.testing.assert_allclose(ratio, 25.0, rtol=0.15)


def test_runs_that_never_moved_have_no_noise():
    cells = Cells.of([np.ones((6, 2))], np.ones(2))
    found = cells.means(np.zeros((5, 2)))
    assert len(found.points) == 1
    assert np.isfinite(found.noise).all()
    np.testing.assert_array_equal(found.steps, 0.0)


def test_runs_that_are_too_short():
    with pytest.raises(ValueError, match="at least 4 iterates; the longest has 3"):
        Cells.of([np.zeros((3, 2)), np.zeros((2, 2))], np.ones(2))
    # A long one is enough, and a run of one iterate has no step.
    cells = Cells.of([np.zeros((1, 2)), np.arange(8.0).reshape(4, 2)], np.ones(2))
    assert len(cells.points) == 3
