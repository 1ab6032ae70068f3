"""The gradient's field: no curl, parabolas that go on, ridges between wells, doubt far away."""

import numpy as np
import pytest
from tests.forecasting.wells import STARTS, STEP, gradient, two_wells

from sgdmc import make_least_squares, make_logistic_regression, run_sgd
from sgdmc.forecasting.field import _LOUDEST, GradientField
from sgdmc.forecasting.paths import directions_of
from sgdmc.forecasting.pathwise import draw_fields
from sgdmc.sgd.problems import LeastSquares

TURN = np.array([[0.8, -0.6], [0.6, 0.8]])
MATRIX = TURN @ np.diag([0.99, 0.96]) @ TURN.T


def on_a_quadratic(noise=0.02, growth=0.0, n_runs=4, n_steps=300, seed=0):
    rng = np.random.default_rng(seed)
    paths = np.empty((n_runs, n_steps + 1, 2))
    paths[:, 0] = rng.uniform(-3, 3, size=(n_runs, 2))
    for t in range(n_steps):
        then = paths[:, t] @ MATRIX.T
        drift = ((then - paths[:, t]) ** 2).sum(axis=1, keepdims=True)
        kick = noise * np.sqrt(1 + growth * drift) * rng.normal(size=then.shape)
        paths[:, t + 1] = then + kick
    return tuple(paths)


def curls(steps, points, width):
    """∂(step of y)/∂x less ∂(step of x)/∂y by differences, for ``steps`` of points in ranges."""
    h = 1e-5

    def slope(i, j):
        shift = h * np.eye(2)[j]
        up, down = (steps((points + s * shift) / width)[:, i] * width[i] for s in (1, -1))
        return (up - down) / (2 * h)

    return slope(1, 0) - slope(0, 1), np.abs(slope(0, 0)) + np.abs(slope(1, 1))


def spread_of(field, z, n=2000):
    """Standard deviation of draws of a step at points in ranges, in ranges: (m, dim)."""
    rng = np.random.default_rng(0)
    parts = []
    for posterior, share in zip(field.belief.posteriors, field.belief.shares(n), strict=True):
        draws = draw_fields(posterior, share, freedom=1e9, rng=rng)
        at, which = np.tile(z - field.centre, (share, 1)), np.repeat(np.arange(share), len(z))
        parts.append(draws(at, which).reshape(share, *z.shape) * field.unit)
    return np.concatenate(parts).std(axis=0)


def weight_of_parabola_alone(field):
    pairs = zip(field.belief.weights, field.belief.posteriors, strict=True)
    return sum(w for w, p in pairs if not p.prior.ripple and not p.prior.ridges)


@pytest.fixture(scope="module")
def wells():
    return GradientField.fit(two_wells(STARTS))


def test_field_is_the_gradient_where_runs_went(wells):
    points = np.concatenate([p[3:60:8] for p in two_wells(STARTS)])
    mean, spread = wells.mean(points / wells.width), spread_of(wells, points / wells.width)
    truth = -STEP * gradient(points)
    found = mean * wells.width
    assert np.sqrt(((found - truth) ** 2).mean() / (truth**2).mean()) < 0.15
    assert (np.abs(found - truth) < 3 * spread * wells.width).mean() > 0.95
    # The spread is no more than it has to be: some hundredths of the steps.
    assert np.median(spread * wells.width) < 0.3 * np.sqrt((truth**2).mean())


def test_field_has_no_curl(wells):
    points = np.random.default_rng(0).uniform(-1.5, 1.5, size=(30, 2))
    curl, size = curls(wells.mean, points, wells.width)
    np.testing.assert_array_less(np.abs(curl), 1e-6 * size + 1e-9)
    # Around a parabola, before steps are moved to what a convex function allows.
    problem = make_logistic_regression(n_samples=60, dim=2, rng=2)
    run = run_sgd(problem, STARTS[:4], step_size=0.05, n_steps=300, rng=4)
    field = GradientField.fit(run.paths)
    assert field.convex
    assert any(p.prior.ridges for p in field.belief.posteriors)
    points = run.values[::101]
    curl, size = curls(
        lambda z: field.belief.mean(z - field.centre) * field.unit, points, field.width
    )
    np.testing.assert_array_less(np.abs(curl), 1e-5 * size.mean())


def test_two_wells_are_not_convex_and_every_basin_leads_to_its_minimum(wells):
    assert not wells.convex
    assert wells.ascent > 3
    starts = np.random.default_rng(5).uniform(-1.2, 1.2, size=(40, 2))
    ends = np.stack(two_wells(starts, n_steps=1000, noise=0.0))[:, -1]
    np.testing.assert_allclose(np.abs(ends), [[1.0, 0.5]] * 40, atol=1e-6)
    found = wells.flow(starts, 1000)
    right = np.sign(found[:, 0]) == np.sign(ends[:, 0])
    assert right.mean() >= 0.95
    assert np.abs(found - ends)[right].max() < 0.05


def test_nothing_is_known_far_from_wells(wells):
    far = np.array([[40.0, -40.0]])
    np.testing.assert_allclose(wells.mean(far / wells.width), 0.0, atol=1e-12)
    spread, near = (spread_of(wells, z / wells.width) for z in (far, np.array([[1.0, 0.5]])))
    assert (spread > 10 * near).all()
    np.testing.assert_allclose(wells.flow(far, 400), far, rtol=1e-9)


# The noise of a squared loss grows with the drift; noise that does not might be a saturating one's.
@pytest.mark.parametrize(("noise", "growth"), [(1e-4, 0.0), (0.02, 3e3)])
def test_the_field_of_a_quadratic_is_a_parabola(noise, growth):
    weights = []
    for seed in range(4):
        field = GradientField.fit(on_a_quadratic(noise, growth, seed=seed))
        assert field.convex
        weights.append(weight_of_parabola_alone(field))
        if not field.belief.posteriors[0].prior.ripple:
            # Exactly a line: the middle of two points has the mean of their steps.
            alone = field.belief.posteriors[0]
            a, b = np.random.default_rng(seed).uniform(-5, 5, size=(2, 10, 2))
            halves = (alone.mean(a) + alone.mean(b)) / 2
            np.testing.assert_allclose(alone.mean((a + b) / 2), halves, rtol=1e-9, atol=1e-9)
    # Noise hides what might bend it: more than its share of four, at least.
    assert np.median(weights) > (0.4 if noise < 0.01 else 0.25)


@pytest.mark.parametrize(("noise", "reach", "off"), [(1e-4, 5.0, 0.03), (0.02, 2.0, 0.4)])
def test_flow_on_a_quadratic_is_a_power_from_several_ranges_away(noise, reach, off):
    field = GradientField.fit(on_a_quadratic(noise))
    starts = np.random.default_rng(1).uniform(-reach, reach, size=(20, 2)) * field.width
    for n_steps in (1, 10, 60, 400):
        expected = starts @ np.linalg.matrix_power(MATRIX, n_steps).T
        found = field.flow(starts, n_steps)
        assert (np.abs(found - expected) / field.width).max() < off
    # No time is lost however long the way is: all come to the one minimum.
    ends = field.flow(starts, 4000) / field.width
    assert np.ptp(ends, axis=0).max() < 0.004
    assert np.abs(ends).max() < 0.004 + noise
    np.testing.assert_array_equal(field.flow(starts, 0), starts)


def test_curvature_is_expected_to_have_half_the_shape_of_the_noise():
    rng, paths = np.random.default_rng(0), np.zeros((2, 4000, 2))
    for t in range(3999):
        kick = rng.normal(size=(2, 2)) * np.array([4.0, 1.0]) @ TURN.T
        paths[:, t + 1] = 0.9 * paths[:, t] + kick
    field = GradientField.fit(tuple(paths))
    common = field.belief.posteriors[0].prior.space.common / np.outer(field.width, field.width)
    ratio = np.linalg.inv(TURN) @ common @ TURN
    assert ratio[0, 0] / ratio[1, 1] == pytest.approx(4.0, rel=0.05)
    assert abs(ratio[0, 1]) < 0.05 * ratio[1, 1]


def test_noise_that_grows_with_the_drift_tells_of_a_squared_loss():
    def weight_of_saturation(make, seed):
        problem = make(n_samples=60, dim=2, rng=seed)
        start = np.random.default_rng(seed).uniform(-4, 4, (1, 2))
        run = run_sgd(problem, start, step_size=0.05, n_steps=400, rng=seed)
        belief = GradientField.fit(run.paths).belief
        pairs = zip(belief.weights, belief.posteriors, strict=True)
        return sum(weight for weight, p in pairs if p.prior.ridges)

    squared, logistic = (
        np.mean([weight_of_saturation(make, seed) for seed in range(4)])
        for make in (make_least_squares, make_logistic_regression)
    )
    assert squared < 0.25
    assert logistic > squared + 0.25


def test_the_slowest_pull_is_that_of_the_parabola():
    field = GradientField.fit(on_a_quadratic(1e-4))
    # A part of the rate along the flat direction.
    assert 0.1 * 0.01 < field.pull < 0.01


@pytest.mark.parametrize("make", [make_logistic_regression, make_least_squares])
@pytest.mark.parametrize("seed", range(5))
def test_convex_losses_are_found_convex_and_steps_lead_together(make, seed):
    problem = make(n_samples=60, dim=2, rng=seed)
    rng = np.random.default_rng(seed)
    run = run_sgd(problem, rng.uniform(-3, 3, (4, 2)), step_size=0.05, n_steps=300, rng=seed)
    field = GradientField.fit(run.paths)
    assert field.convex
    assert field.ascent < 3
    # Gradients of convex losses are monotone, seen points against all others.
    z = run.values.min(axis=0) / field.width + rng.uniform(-1, 2, size=(200, 2))
    raw = field.belief.mean(z - field.centre) * field.unit
    before, after = rises(field, z, raw), rises(field, z, field.mean(z))
    assert after.max() <= before.max()
    # Between steps that were seen to lead apart, by chance, nothing can be monotone.
    seen = field.belief.points + field.centre
    own = rises(field, seen, field.belief.mean(field.belief.points) * field.unit)
    # Few half-spaces are tried: nearly, where several are violated at once.
    assert after.max() <= max(1.2 * own.max(), 1e-12)


def rises(field, z, steps):
    """By how much steps lead apart from those seen, beyond the least pull: a rate, (m,)."""
    metric, points = field.width**2, field.belief.points
    seen = field.belief.mean(points) * field.unit
    gaps = z[:, None] - (points + field.centre)
    rise = ((steps[:, None] - seen) * gaps * metric).sum(axis=2)
    squares = (gaps**2 * metric).sum(axis=2)
    rates = np.divide(rise, squares, out=np.full(rise.shape, -np.inf), where=squares > 0)
    return rates.max(axis=1) + field.pull


def test_projected_draws_of_a_convex_loss_lead_together():
    """Draws of the field lead anywhere; those of a convex loss are brought back."""
    field = GradientField.fit(on_a_quadratic(0.05, n_runs=2, n_steps=100))
    assert field.convex
    z = np.random.default_rng(0).uniform(-2, 2, size=(300, 2))
    wild = field.mean(z) + 0.2 * np.random.default_rng(1).normal(size=z.shape)
    which = np.zeros(len(z), dtype=np.int64)
    held = field._allowed(z, wild.copy(), field._seen[1], which)
    before, after = rises(field, z, wild), rises(field, z, held)
    assert (before > 0.01).mean() > 0.3
    assert (after > 0.1 * before.max()).mean() < 0.02
    # Steps that are allowed stay as they are.
    allowed = before <= 0
    assert allowed.any()
    np.testing.assert_array_equal(held[allowed], wild[allowed])


def test_units_common_to_all_coordinates_do_not_matter():
    paths = two_wells(STARTS[:4], n_steps=150)
    small, large = (GradientField.fit([p * s for p in paths]) for s in (1.0, 1e3))
    np.testing.assert_allclose(small.flow(STARTS, 150), large.flow(STARTS * 1e3, 150) / 1e3)
    np.testing.assert_allclose(small.belief.weights, large.belief.weights, rtol=1e-6)
    assert small.ascent == pytest.approx(large.ascent, rel=1e-6)


@pytest.mark.parametrize("drawn", [False, True])
def test_one_long_flow_is_many_short_ones(wells, drawn):
    starts = np.random.default_rng(5).uniform(-1.2, 1.2, size=(20, 2))

    def flow(at, n_steps):
        return wells._drawn_ends(at, n_steps, draw)[:, 0] if drawn else wells.flow(at, n_steps)

    draw = wells.draws(1, np.random.default_rng(3), louder=False)
    long, short = flow(starts, 300), starts
    for _ in range(20):
        short = flow(short, 15)
    # All but those on the ridge, where the smallest error decides.
    off = np.abs(long - short).max(axis=1)
    assert (off < 0.03).mean() >= 0.9
    assert np.median(off) < 0.01


def test_what_is_known_of_the_loss_decides_over_the_runs():
    # One run in one well: it looks like any parabola's.
    alone = two_wells(STARTS[:1], n_steps=300)
    open_, told = GradientField.fit(alone), GradientField.fit(alone, convex=False)
    assert open_.convex
    assert "a parabola" in open_.kind
    assert not told.convex
    assert told.kind == "no parabola, as the loss is known not to be convex"
    well = np.sign(STARTS[0, 0]) * np.array([1.0, 0.5])
    far = -4 * well[None]
    np.testing.assert_allclose(open_.flow(far, 1000)[0], well, atol=0.3)
    np.testing.assert_allclose(told.flow(far, 1000), far, rtol=1e-6)
    # Where the run went both say the same.
    at = alone[0][5:40:5] / told.width
    np.testing.assert_allclose(told.mean(at), open_.mean(at), atol=0.02)
    # Two wells that are said to be one: every mean step obeys convexity beside those seen.
    wells = two_wells(STARTS)
    bowl = GradientField.fit(wells, convex=True)
    assert bowl.convex
    assert bowl.ascent > 3
    assert "parabola" in bowl.kind
    assert GradientField.fit(wells, convex=False) is not bowl
    np.testing.assert_array_equal(
        GradientField.fit(wells, convex=False).mean(at), GradientField.fit(wells).mean(at)
    )


def test_fields_and_ends_of_the_same_runs_are_found_once():
    paths = two_wells(STARTS[:4], n_steps=100)
    field = GradientField.fit(paths)
    assert GradientField.fit(tuple(p.copy() for p in paths)) is field
    assert GradientField.fit([p + 1e-9 for p in paths]) is not field

    def ends(n_steps=100, seed=0, starts=STARTS):
        return field.ends(starts, n_steps, n_draws=2, rng=np.random.default_rng(seed))

    first = ends()
    kept = first.copy()
    first[:] = np.nan  # what a caller does with it is its own affair
    np.testing.assert_array_equal(ends(), kept)
    for other in (ends(n_steps=99), ends(seed=1), ends(starts=STARTS[::-1].copy())):
        assert not np.array_equal(other, kept)
    for n_steps in range(1, 25):
        ends(n_steps, starts=STARTS[:1])
    assert len(field._kept) <= 16
    np.testing.assert_array_equal(ends(), kept)


@pytest.mark.parametrize("kind", ["wells", "quadratic"])
def test_spread_is_the_posterior_standard_deviation(kind):
    runs = two_wells(STARTS[:4], n_steps=100) if kind == "wells" else on_a_quadratic(0.05)
    field = GradientField.fit(runs)
    z = STARTS / field.width
    variance, mean = np.zeros(z.shape), field.belief.mean(z - field.centre)
    for weight, posterior in zip(field.belief.weights, field.belief.posteriors, strict=True):
        prior = posterior.prior
        across = prior.covariance(z - field.centre, posterior.points)
        left = prior.covariance(z - field.centre, z - field.centre)
        left -= across @ np.linalg.solve(posterior.factor @ posterior.factor.T, across.T)
        off = posterior.mean(z - field.centre) - mean
        variance += weight * (np.diag(left).reshape(z.shape) + off**2)
    expected = np.sqrt(np.maximum(variance, 0.0)) * field.unit
    # A standard deviation of 4000 draws is off by 1.1%.
    np.testing.assert_allclose(spread_of(field, z, n=4000), expected, rtol=0.05)


def test_steps_at_rest_have_loudness_one_and_drift_is_louder_up_to_ten():
    field = GradientField.fit(on_a_quadratic(0.02, growth=3e3))
    drifts = np.linspace(0.0, 0.1, 6)[:, None] * np.array([0.6, -0.8])
    loud = field.loudness(drifts)
    assert loud[0] == 1.0
    assert (np.diff(loud) > 0).all()
    np.testing.assert_allclose(loud[-1], np.sqrt(1 + 3e3 * 0.01), rtol=0.3)
    assert field.loudness(np.array([[1e3, 0.0]]))[0] == _LOUDEST == 10.0
    even = GradientField.fit(on_a_quadratic(0.02))
    assert even.loudness(drifts)[-1] < 2


def test_runs_of_three_iterates_are_too_short():
    short = np.zeros((3, 2))
    with pytest.raises(ValueError, match="at least 4 iterates; the longest has 3"):
        GradientField.fit([short])
    longer = np.cumsum(np.ones((9, 2)), axis=0)
    assert np.isfinite(GradientField.fit([short, longer]).flow(longer, 5)).all()


@pytest.mark.parametrize("dim", [1, 3])
def test_fields_of_one_and_of_three_coordinates(dim):
    problem = make_least_squares(n_samples=80, dim=dim, noise=0.2, rng=1)
    starts = np.random.default_rng(2).uniform(-3, 3, size=(4, dim))
    run = run_sgd(problem, starts, step_size=0.02, n_steps=400, rng=3)
    field = GradientField.fit(run.paths)
    assert field.convex
    ends = field.flow(starts, 2000)
    assert (np.abs(ends - problem.minimiser) / field.width).max() < 0.05


@pytest.mark.parametrize("shrinks", [0.9, 0.5, 0.1, -0.5])
def test_recorded_steps_are_steps_and_not_a_rate(shrinks):
    rng = np.random.default_rng(0)
    paths = np.zeros((4, 60, 2))
    paths[:, 0] = rng.uniform(-3, 3, size=(4, 2))
    for t in range(59):
        paths[:, t + 1] = shrinks * paths[:, t] + 0.01 * rng.normal(size=(4, 2))
    field = GradientField.fit(list(paths))
    start = np.array([[2.0, -1.0]])
    for n_steps in (1, 3):
        found = field.flow(start, n_steps)
        np.testing.assert_allclose(found, shrinks**n_steps * start, atol=0.02)


def test_a_coordinate_that_never_moved_rests_and_changes_nothing_else():
    problem = make_least_squares(n_samples=80, dim=2, noise=0.2, rng=1)
    starts = np.random.default_rng(2).uniform(-3, 3, size=(4, 2))
    paths = run_sgd(problem, starts, step_size=0.02, n_steps=400, rng=3).paths
    still = [np.insert(p, 1, 7.0, axis=1) for p in paths]
    alone, field = GradientField.fit(paths), GradientField.fit(still)
    points = np.random.default_rng(4).uniform(-5, 5, size=(30, 3))
    ends = field.ends(points, 100, n_draws=8, rng=np.random.default_rng(5))
    same = alone.ends(points[:, [0, 2]], 100, n_draws=8, rng=np.random.default_rng(5))
    np.testing.assert_array_equal(ends[..., 1], np.repeat(points[:, 1:2], 8, axis=1))
    np.testing.assert_allclose(ends[..., [0, 2]], same, rtol=1e-9)
    drift = points / 100
    np.testing.assert_allclose(field.loudness(drift), alone.loudness(drift[:, [0, 2]]))


@pytest.mark.parametrize("n_runs", [1, 5])
def test_samples_on_a_line_are_told_from_the_steps(n_runs):
    rng = np.random.default_rng(0)
    along = np.array([0.6, -0.8])
    features = rng.normal(size=(60, 1)) * along
    problem = LeastSquares(features, features @ np.array([1.0, 2.0]))
    paths = run_sgd(problem, rng.uniform(-3, 3, (n_runs, 2)), step_size=0.02, n_steps=900, rng=1)
    field = GradientField.fit(paths.paths)
    np.testing.assert_allclose(np.abs(field.basis[:, 0]), np.abs(along), atol=1e-9)
    starts = rng.uniform(-3, 3, size=(40, 2))
    # Every start has a minimiser of its own: straight across the line of minimisers.
    expected = starts - ((starts - [1.0, 2.0]) @ along)[:, None] * along
    np.testing.assert_allclose(field.flow(starts, 3000), expected, atol=0.02)


def test_runs_that_never_moved_stay():
    field = GradientField.fit([np.ones((20, 2)), np.zeros((9, 2))])
    starts = np.random.default_rng(0).normal(size=(5, 2))
    np.testing.assert_allclose(field.flow(starts, 50), starts, atol=1e-6)


@pytest.mark.parametrize("unit", [1e-9, 1.0, 1e9])
def test_units_do_not_decide_what_moves(unit):
    rng = np.random.default_rng(0)
    steps = rng.normal(size=(50, 3)) * [1.0, unit, 0.0]
    path = 5.0 + np.cumsum(np.concatenate([np.zeros((1, 3)), steps]), axis=0)
    path[:, 1] -= 5.0
    np.testing.assert_array_equal(directions_of([path]), np.eye(3)[:, :2])
    # The first two in step: one direction, in the parameters' own units.
    path[:, 1] = unit * path[:, 0]
    along = directions_of([path])[:, 0]
    np.testing.assert_allclose(along[1] / along[0], unit, rtol=1e-6)
    assert along[2] == 0.0
    assert directions_of([path]).shape == (3, 1)


@pytest.mark.parametrize("n_runs", [1, 4])
def test_units_of_parameters_that_are_far_apart_do_not_matter(n_runs):
    paths = on_a_quadratic(n_runs=n_runs)
    own = GradientField.fit(paths)
    starts = np.random.default_rng(2).uniform(-3, 3, size=(10, 2))
    # The fields differ, as ranges are not quite the units in which there is one step size.
    ends = own.ends(starts, 50, n_draws=100, rng=np.random.default_rng(0))
    for unit in (1e2, 1e6):
        units = np.array([1.0, unit])
        field = GradientField.fit([p * units for p in paths])
        assert "ranges are taken as units" in field.kind
        off = field.flow(starts * units, 50) / units - own.flow(starts, 50)
        assert (np.abs(off) < 3 * ends.std(axis=1)).all()
        found = field.ends(starts * units, 50, n_draws=100, rng=np.random.default_rng(0)) / units
        np.testing.assert_allclose(found.std(axis=1).mean(0), ends.std(axis=1).mean(0), rtol=1.0)
        drift = np.array([[0.1, 0.05]])
        np.testing.assert_allclose(
            field.loudness(drift * units), own.loudness(drift), rtol=0.5, atol=0.5
        )


def test_ranges_that_are_far_apart_though_units_are_not():
    assert (GradientField.fit([on_a_quadratic(n_runs=1)[0] * [1.0, 5.0]]).scale == 1).all()
    # One coordinate began at its minimum. Steps do not tell in which units one step size holds, as
    # coordinates do not turn one another, and whichever is taken they are forecast.
    rng = np.random.default_rng(0)
    far = np.zeros((400, 2))
    far[0, 0] = 50.0
    for t in range(399):
        far[t + 1] = far[t] * [0.98, 0.96] + 0.02 * rng.normal(size=2)
    starts = np.array([[20.0, 0.05], [40.0, -0.05]])
    ends = GradientField.fit([far]).flow(starts, 30)
    np.testing.assert_allclose(ends, starts * np.array([0.98, 0.96]) ** 30, rtol=0.01, atol=0.02)
