"""The heat map of a benchmark: every number that it should hold, however small or large."""

import numpy as np
import pytest

from sgdmc.forecasting.baselines import TRIVIAL
from sgdmc.show.skills import benchmark_rows, figure_benchmark
from sgdmc.show.stored import stored_benchmark


@pytest.fixture(scope="module")
def cells():
    return stored_benchmark().cells


def overlaps(boxes):
    """Pairs of boxes on the page that share more than a hundredth of a pixel."""
    return [
        (one, other)
        for k, one in enumerate(boxes)
        for other in boxes[:k]
        if min(one.x1, other.x1) - max(one.x0, other.x0) > 0.01
        and min(one.y1, other.y1) - max(one.y0, other.y0) > 0.01
    ]


@pytest.mark.parametrize("families", [("F1",), ("F1", "F6"), None])
@pytest.mark.parametrize("methods", [("ar1",), None])
def test_every_number_of_runs_is_drawn_legibly(cells, families, methods, tmp_path):
    """Warnings are errors here: a layout that collapses is one."""
    chosen = [
        c
        for c in cells
        if (families is None or c.family in families) and (methods is None or c.method in methods)
    ]
    figure = figure_benchmark(chosen)
    figure.savefig(tmp_path / "benchmark.png")
    *panels, bar = figure.axes
    assert [axis.get_title(loc="left") for axis in panels] == [
        "1 observed run",
        "3 observed runs",
        "10 observed runs",
    ]
    for axis, runs in zip(panels, (1, 3, 10), strict=True):
        table = axis.images[0].get_array().filled(np.nan)
        skills = [c.skill for c in chosen if c.runs == runs and c.method not in TRIVIAL]
        np.testing.assert_array_equal(np.sort(table[np.isfinite(table)]), np.sort(skills))
        assert len(axis.texts) == len(skills)
        assert overlaps([text.get_window_extent() for text in axis.texts]) == []
        assert overlaps([label.get_window_extent() for label in axis.get_xticklabels()]) == []
    assert overlaps([axis.get_tightbbox() for axis in figure.axes]) == []
    assert bar.get_position().width < 0.2


def test_one_number_of_runs_can_be_chosen(cells):
    figure = figure_benchmark(cells, n_runs=3)
    assert figure.axes[0].get_title(loc="left") == "3 observed runs"
    assert len(figure.axes) == 2
    for given, runs in ((cells, 7), ([c for c in cells if c.method in TRIVIAL], 1)):
        with pytest.raises(ValueError, match="n_runs must be among those of the cells"):
            figure_benchmark(given, n_runs=runs)


def test_a_row_a_cell(cells):
    rows = benchmark_rows(cells[:3])
    assert [row["skill"] for row in rows] == [c.skill for c in cells[:3]]
    assert [(row["low"], row["high"]) for row in rows] == [c.skill_interval for c in cells[:3]]
