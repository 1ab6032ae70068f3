"""Grids: rescaling, states, centres, digit text, and what they refuse."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sgdmc.chain.grid import Grid

finite = st.floats(-1e100, 1e100, allow_subnormal=False)


@pytest.mark.parametrize(("digits", "states"), [(1, [1, 8]), (2, [15, 85]), (3, [150, 850])])
def test_extremes_lie_at_one_and_a_half_and_eight_and_a_half(digits, states):
    grid = Grid.fit([-2.0, 0.0, 6.0], digits=digits)
    assert grid.n_states == 10**digits
    assert grid.encode([-2.0, 6.0]).tolist() == states


def test_each_coordinate_has_its_own_scale():
    grid = Grid.fit([[[0.0, 100.0], [1.0, 300.0]]])
    assert grid.dim == 2
    assert grid.width == pytest.approx([1 / 70, 200 / 70])
    assert grid.encode([[0.5, 200.0]]).tolist() == [[50, 50]]


def test_values_outside_are_clipped_and_known_as_such():
    grid = Grid.fit([0.0, 7.0], digits=1)  # a unit a state, from -1.5 to 8.5
    values = [-100.0, -1.6, -1.4, 8.4, 8.6, 100.0]
    assert grid.encode(values).tolist() == [0, 0, 0, 9, 9, 9]
    assert grid.contains(values).tolist() == [False, False, True, True, False, False]


@given(
    values=arrays(np.float64, st.tuples(st.integers(1, 20), st.integers(1, 4)), elements=finite),
    digits=st.integers(1, 3),
)
@settings(max_examples=100, deadline=None)
def test_the_centre_is_within_half_a_bin(values, digits):
    grid = Grid.fit(values, digits=digits)
    states = grid.encode(values)
    assert states.dtype == np.int16
    rounding = 1e-12 * np.abs(values).max(axis=0)
    assert (np.abs(grid.decode(states) - values) <= 0.5000001 * grid.width + rounding).all()
    assert grid.contains(values).all()


@given(values=arrays(np.float64, 30, elements=finite), digits=st.integers(1, 3))
@settings(max_examples=100, deadline=None)
def test_states_keep_the_order_of_values(values, digits):
    states = Grid.fit(values, digits=digits).encode(np.sort(values))
    assert (np.diff(states) >= 0).all()


@given(
    states=arrays(np.int16, st.integers(0, 60), elements=st.integers(0, 9)),
    digits=st.integers(1, 3),
    joint=st.integers(1, 3),
)
@settings(max_examples=100, deadline=None)
def test_text_goes_both_ways(states, digits, joint):
    grid = Grid.fit([0.0, 1.0], digits=digits)
    states = states[: len(states) // joint * joint]
    if joint > 1 and len(states):
        states = states.reshape(-1, joint)
    assert np.array_equal(grid.from_text(grid.to_text(states)), states)


def test_text_of_one_and_of_two_coordinates():
    grid = Grid.fit([0.0, 1.0], digits=3)
    assert grid.to_text([523, 519, 7]) == "523,519,007,"
    assert grid.to_text([[523, 187], [519, 190]]) == "523:187,519:190,"
    assert grid.from_text("523:187,519:190,").tolist() == [[523, 187], [519, 190]]
    assert grid.to_text([]) == ""
    assert grid.from_text("").shape == (0,)
    out = np.empty((2, 2), np.int16)
    assert grid.from_text("523:187,519:190,", out=out) is out
    assert out.tolist() == [[523, 187], [519, 190]]


@pytest.mark.parametrize("value", [0.0, 5.0, -1e6, 1e300])
def test_a_constant_coordinate_is_legal(value):
    grid = Grid.fit([[value, 0.0], [value, 1.0]], digits=2)
    assert grid.constant.tolist() == [True, False]
    states = grid.encode([[value, 0.5]])
    assert states.tolist() == [[50, 50]]
    assert grid.decode(states)[0, 0] == pytest.approx(value)


def test_a_range_too_small_to_be_resolved_is_a_constant():
    assert Grid.fit([0.0, 5e-324]).constant.tolist() == [True]


def test_out_is_written_and_returned():
    grid, out = Grid.fit([0.0, 1.0]), np.empty(3, np.int16)
    assert grid.encode([0.0, 0.5, 1.0], out=out) is out
    assert out.tolist() == [15, 50, 85]


def test_equal_grids_are_equal():
    assert Grid.fit([0.0, 1.0]) == Grid.fit([1.0, 0.0, 0.5])
    assert hash(Grid.fit([0.0, 1.0])) == hash(Grid.fit([1.0, 0.0]))
    assert Grid.fit([0.0, 1.0]) != Grid.fit([0.0, 1.0], digits=3)
    assert Grid.fit([0.0, 1.0]) != "a grid"


def test_a_grid_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        Grid.fit([0.0, 1.0]).low[0] = 3.0


def test_edges_enclose_the_bins():
    grid = Grid.fit([0.0, 7.0], digits=1)
    assert grid.edges[0] == pytest.approx(np.arange(11) - 1.5)


@pytest.mark.parametrize(
    ("values", "options", "error", "message"),
    [
        ([0.0, np.nan], {}, ValueError, "values must be finite; got nan at index 1"),
        ([[0.0, 1.0], [np.inf, 1.0]], {}, ValueError, r"finite; got inf at index \(1, 0\)"),
        ([], {}, ValueError, r"values must not be empty; got shape \(0,\)"),
        (np.empty((3, 0)), {}, ValueError, "values must not be empty"),
        ([-1e308, 1e308], {}, ValueError, "values must have a finite range"),
        (["a"], {}, TypeError, "values must hold real numbers"),
        ([1j], {}, TypeError, "values must hold real numbers; got complex128"),
        ([0.0, 1.0], {"digits": 4}, ValueError, "digits must be at most 3; got 4"),
        ([0.0, 1.0], {"digits": 0}, ValueError, "digits must be at least 1; got 0"),
        ([0.0, 1.0], {"digits": 2.0}, TypeError, "digits must be an integer; got 2.0"),
    ],
)
def test_fit_refuses(values, options, error, message):
    with pytest.raises(error, match=message):
        Grid.fit(values, **options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scale": [0.0]}, "scale must be positive; got 0.0 at index 0"),
        ({"scale": [1.0, 2.0]}, "low must have one entry|scale must have one entry"),
        ({"low": [np.nan]}, "low must be finite; got nan at index 0"),
        ({"low": []}, "low must have one entry a coordinate"),
    ],
)
def test_the_constructor_refuses(change, message):
    fields = {"low": [0.0], "scale": [1.0], "digits": 2, "constant": [False], **change}
    with pytest.raises(ValueError, match=message):
        Grid(**fields)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda g: g.encode([[0.0, 1.0, 2.0]]), ValueError, "must have 2 coordinates on the last"),
        (lambda g: g.encode([0.0, 1.0, 2.0]), ValueError, "must have 2 coordinates on the last"),
        (lambda g: g.encode([[0.0, np.nan]]), ValueError, r"finite; got nan at index \(0, 1\)"),
        (lambda g: g.encode([["a", "b"]]), TypeError, "values must hold real numbers"),
        (lambda g: g.encode([[0.0, 0.0]], backend="gpu"), ValueError, "backend must be one of"),
        (lambda g: g.encode([[0.0, 0.0]], n_threads=0), ValueError, "n_threads must be at least 1"),
        (lambda g: g.encode([[0.0, 0.0]], out=np.empty((1, 2))), TypeError, "out must be an array"),
        (
            lambda g: g.encode([[0.0, 0.0]], out=np.empty((2, 2), np.int16)),
            ValueError,
            r"out must have shape \(1, 2\)",
        ),
        (
            lambda g: g.encode([[0.0, 0.0]], out=np.empty((1, 4), np.int16)[:, ::2]),
            ValueError,
            "out must be C-contiguous",
        ),
        (lambda g: g.decode([[0.5, 1.0]]), TypeError, "states must be integers; got float64"),
        (lambda g: g.decode([[0, 100]]), ValueError, r"lie in 0 .. 99; got 100 at index \(0, 1\)"),
        (lambda g: g.contains([[np.inf, 0.0]]), ValueError, "values must be finite"),
        (lambda g: g.to_text([5, -1]), ValueError, r"lie in 0 .. 99; got -1 at index \(1,\)"),
        (lambda g: g.to_text([0.5]), TypeError, "states must be integer state indices"),
        (lambda g: g.to_text(np.zeros((2, 0), int)), ValueError, "at least one coordinate"),
        (lambda g: g.from_text("52,5"), ValueError, "got '52,5' at its end"),
        (lambda g: g.from_text("52,5a,"), ValueError, "got 'a' at index 4"),
        (lambda g: g.from_text("52,5é,"), ValueError, "got 'é' at index 4"),
        (
            lambda g: g.from_text("52,", out=np.empty(2, np.int16)),
            ValueError,
            "out must have shape",
        ),
        (lambda g: g.from_text("52,", out=np.empty(1)), TypeError, "out must be an array of int16"),
        (lambda g: g.from_text(b"52,"), TypeError, "text must be a string; got bytes"),
    ],
)
def test_methods_refuse(call, error, message):
    grid = Grid.fit([[0.0, 0.0], [1.0, 2.0]], digits=2)
    with pytest.raises(error, match=message):
        call(grid)
