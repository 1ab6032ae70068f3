"""Draws of a gradient's field: where they lead, over which scales, and how far they are doubted."""

from dataclasses import replace

import numpy as np
import pytest
from tests.forecasting.test_field import on_a_quadratic
from tests.forecasting.wells import STARTS, two_wells

from sgdmc.forecasting.field import GradientField


def own_scale(field):
    """The field whose draws bend over the runs' own scale alone."""
    return replace(field, drawn=field.belief, _kept={})


def test_draws_of_the_field_end_around_its_flow():
    field = GradientField.fit(on_a_quadratic(0.05, n_runs=2, n_steps=150))
    starts = np.array([[2.0, 1.0], [-1.0, 2.0]])
    rng = np.random.default_rng(0)
    ends = field.ends(starts, 30, n_draws=32, rng=rng)
    assert ends.shape == (2, 32, 2)
    assert (ends.std(axis=1) > 0).all()
    gap = np.abs(ends.mean(axis=1) - field.flow(starts, 30))
    assert (gap < 4 * ends.std(axis=1) / np.sqrt(32) + 0.02 * field.width).all()


def test_every_posterior_has_its_share_of_the_draws():
    field = GradientField.fit(two_wells(STARTS[:1], n_steps=300), convex=False)
    weights = field.drawn.weights
    parts = field.draws(50, np.random.default_rng(0))
    assert sum(len(part) for part in parts) == 50
    np.testing.assert_allclose([len(part) / 50 for part in parts], weights, atol=0.03)
    for part, posterior in zip(parts, field.drawn.posteriors, strict=True):
        # A run of one well fills one place of a long scale, and two or three of its own.
        assert 1 <= posterior.places < 4
        louder = np.exp(part.posterior.prior.theta - posterior.prior.theta)[2]
        assert louder == pytest.approx(1 + 4 / posterior.places**3)
    quiet = field.draws(50, np.random.default_rng(0), louder=False)
    assert [part.posterior for part in quiet] == list(field.drawn.posteriors)


# Over long scales more of them slope away than within the runs' own; larger ones have narrow
# valleys along which some are still on their way.
@pytest.mark.parametrize(
    ("longer", "louder", "rest", "away"),
    [(False, False, 0.9, 0.1), (True, False, 0.9, 0.2), (True, True, 0.8, 0.2)],
)
def test_draws_come_to_rest_in_minima_of_their_own(longer, louder, rest, away):
    alone = two_wells(STARTS[:1], n_steps=300)
    field = GradientField.fit(alone, convex=False)
    if not longer:
        field = own_scale(field)
    starts = np.random.default_rng(1).uniform(-1.5, 1.5, size=(20, 2))
    early, late = (
        field.ends(starts, n_steps, n_draws=32, rng=np.random.default_rng(2), louder=louder)
        for n_steps in (2_000, 20_000)
    )
    assert (np.abs(late - early) / field.width < 0.02).all(axis=2).mean() > rest
    # Some way off, but few as far as a flow may go at all.
    at, seen = starts / field.width, field._seen[0]
    low = np.minimum(at.min(axis=0), seen.min(axis=0)) - 1
    high = np.maximum(at.max(axis=0), seen.max(axis=0)) + 1
    ends = late / field.width
    assert np.median(np.abs(ends - at[:, None]).max(axis=2)) > 0.1
    assert ((ends < low + 1e-9) | (ends > high - 1e-9)).any(axis=2).mean() < away


def test_a_field_that_is_not_convex_may_bend_over_longer_scales_than_the_runs():
    # A run that began beside its minimum.
    alone = two_wells(np.array([[1.05, 0.5]]), n_steps=300)
    field = GradientField.fit(alone, convex=False)
    lengths = np.stack([p.prior.scales[0] for p in field.drawn.posteriors])
    assert (np.diff(lengths, axis=0) > 0).all()
    assert lengths[-1].min() > 5 * lengths[0].max()
    assert field.drawn.weights.max() < 0.6
    # The mean stays where nothing is known; draws over longer scales leave from there, too.
    assert field.belief.posteriors == field.drawn.posteriors[:1]
    far = -alone[0][:1]
    np.testing.assert_allclose(field.flow(far, 300), far, atol=1e-6)

    def spread(each, n_steps, louder):
        rng = np.random.default_rng(0)
        ends = each.ends(far, n_steps, n_draws=200, rng=rng, louder=louder)
        return np.abs(ends - far).max(axis=2).mean()

    assert spread(field, 300, False) > 1.5 * spread(own_scale(field), 300, False)
    # Larger gradients lead sooner to where a draw rests.
    assert spread(field, 3, True) > 1.5 * spread(field, 3, False)
    # A convex one has no other draws.
    convex = GradientField.fit(alone)
    assert convex.drawn is convex.belief
    loud, quiet = (
        convex.ends(far, 300, n_draws=10, rng=np.random.default_rng(0), louder=louder)
        for louder in (True, False)
    )
    np.testing.assert_array_equal(loud, quiet)


def test_runs_that_never_moved_stay_in_every_draw():
    paths = [np.ones((50, 2)), np.full((30, 2), 2.0)]
    starts = np.array([[1.0, 1.0], [-3.0, 8.0]])
    for convex in (None, False):
        field = GradientField.fit(paths, convex=convex)
        ends = field.ends(starts, 500, n_draws=8, rng=np.random.default_rng(0))
        np.testing.assert_array_equal(ends, np.repeat(starts[:, None], 8, axis=1))
        np.testing.assert_array_equal(field.flow(starts, 500), starts)


def test_doubt_grows_with_the_distance_from_the_runs():
    runs = on_a_quadratic(0.05, n_runs=2, n_steps=100)
    field = GradientField.fit(runs)
    at = runs[0][:1]
    away = at + field.width * np.array([[0.0, 0.0], [1.0, 1.0], [3.0, 3.0], [50.0, -80.0]])
    doubt = field.doubt(away)
    assert (np.diff(doubt) > 0).all()
    assert doubt[0] < 0.1
    # However far: an interval of 90% still holds where a convex loss would lead.
    assert doubt[-1] == pytest.approx(0.8)
    # In the parameters' own units, whatever they are.
    units = np.array([1e-6, 1e3])
    other = GradientField.fit([run * units for run in runs])
    np.testing.assert_allclose(other.doubt(away * units), doubt, rtol=0.02)
    for convex in (True, False):
        assert not GradientField.fit(runs, convex=convex).doubt(away).any()
    assert not GradientField.fit(two_wells(STARTS)).doubt(STARTS).any()
