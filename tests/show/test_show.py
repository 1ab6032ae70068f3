"""Pictures and reports: they hold what they claim to hold, and read offline."""

import re
import struct
from dataclasses import replace

import numpy as np
import pytest

from sgdmc.chain.grid import Grid
from sgdmc.chain.kernel import Coordinates, Kernel
from sgdmc.forecasting.forecast import forecast
from sgdmc.sgd.run import Run
from sgdmc.show.plots import plot_forecast, plot_kernel, plot_run, save_figure
from sgdmc.show.report import Report
from sgdmc.show.style import COLOURS
from sgdmc.show.terminal import Progress, cell_text, print_table


@pytest.fixture(scope="module")
def kernel():
    path = np.column_stack([np.linspace(0, 7, 50), np.linspace(7, 0, 50)])
    observed = np.ones((2, 10), dtype=bool)
    observed[0, :4] = False
    return Kernel(
        blocks=np.random.default_rng(0).dirichlet(np.ones(10), size=(2, 10)),
        observed=observed,
        off_state_mass=np.zeros((2, 10)),
        grid=Grid.fit(path, digits=1),
        lag=2,
        method="llm",
        completion="barycenter",
        coupling="blocks",
        coordinates=Coordinates.identity(2),
        names=("weight", "bias"),
        paths=(path,),
    )


def texts(figure):
    return " ".join(t.get_text() for t in figure.findobj(lambda o: hasattr(o, "get_text")))


def test_run_is_drawn_with_its_names(kernel):
    run = Run.from_paths(list(kernel.paths), names=kernel.names)
    figure = plot_run(run)
    assert "weight" in texts(figure)
    np.testing.assert_array_equal(figure.axes[0].lines[1].get_ydata(), run.paths[0][:, 1])
    assert len(plot_run(Run.from_array([1.0, 2.0])).axes) == 1


def test_many_coordinates_are_drawn_in_lines_and_a_few_are_named(kernel):
    many = Run.from_array(np.random.default_rng(0).normal(size=(20, 11)))
    legend = [t.get_text() for t in plot_run(many).axes[0].get_legend().get_texts()]
    assert legend == [*many.names[:8], "and 3 more"]
    wide = replace(
        kernel,
        blocks=np.repeat(kernel.blocks[:1], 6, axis=0),
        observed=np.ones((6, 10), dtype=bool),
        coordinates=Coordinates.identity(6),
        names=tuple("abcdef"),
    )
    figure = plot_kernel(wide)
    assert [axis.get_visible() for axis in figure.axes] == [True] * 6 + [False] * 2
    assert len({round(axis.get_position().y0, 3) for axis in figure.axes}) == 2


def test_kernel_marks_the_rows_that_were_never_visited(kernel):
    figure = plot_kernel(kernel)
    marks = figure.axes[0].lines[0]
    assert marks.get_ydata().tolist() == [0, 1, 2, 3]
    assert marks.get_color() == COLOURS["run"]
    assert len(figure.axes[1].lines) == 0
    image = figure.axes[0].images[0].get_array()
    np.testing.assert_allclose(image**2, kernel.blocks[0])


def test_forecast_is_drawn_with_truth(kernel):
    result = forecast(kernel, [[1.0, 1.0], [6.0, 6.0]], n_steps=4, n_chains=50, rng=0)
    truth = np.ones((2, 5, 2))
    figure = plot_forecast(result, truth=truth)
    assert len(figure.axes) == 2
    assert "real SGD" in texts(figure)
    assert "real SGD" not in texts(result.plot())


def test_figures_are_written_twice(kernel, tmp_path):
    paths = save_figure(plot_kernel(kernel), tmp_path / "new", "kernel")
    assert [p.suffix for p in paths] == [".png", ".svg"]
    width, height = struct.unpack(">II", paths[0].read_bytes()[16:24])
    assert width > 600
    assert height > 300
    again = save_figure(plot_kernel(kernel), tmp_path / "again", "kernel")
    # Dates and random ids would make every build differ.
    assert paths[1].read_bytes() == again[1].read_bytes()


def test_report_is_one_file(kernel, tmp_path):
    report = Report("A <title>")
    report.heading("Part")
    report.text("5 < 6 & 7")
    report.notes(["one", "two"])
    report.table([{"a": "x", "b": 1.0, "c": None}, {"a": "y", "b": None, "c": None}], best="x")
    report.figure(plot_kernel(kernel), caption="the 'kernel'")
    page = report.write(tmp_path / "deep" / "report.html").read_text()
    assert "<h1>A &lt;title&gt;</h1>" in page
    assert "5 &lt; 6 &amp; 7" in page
    assert "<th>c</th>" not in page  # a column without values is left out
    assert "<b>1.0000</b>" in page
    assert re.search(r'<img alt="the &#x27;kernel&#x27;" src="data:image/png;base64,', page)
    assert not re.search(r'(src|href)="(?!data:)', page)


def test_tables_are_plain_where_there_is_no_terminal(capsys):
    print_table([{"name": "x", "score": 0.5}, {"name": "y", "score": None}], title="Scores")
    printed = capsys.readouterr().out
    assert "Scores" in printed
    assert "0.5000" in printed
    assert "\x1b" not in printed


@pytest.fixture
def wide():
    """Rows of labels, numbers of any size, a column that is empty, and text at the end."""
    values = np.random.default_rng(0).normal(size=(3, 12)) * 10.0 ** np.arange(-9, 3)
    return [
        {
            "family": "F1",
            "method": name,
            **{f"score {k} of the row": float(x) for k, x in enumerate(row)},
            "empty": None,
            "remark": "as it was said before",
        }
        for name, row in zip(
            ("LLM, told whether convex", "an-unbreakable-name-of-more-letters", "x"),
            values,
            strict=True,
        )
    ]


@pytest.mark.parametrize("columns", [30, 60, 80, 140, 1000])
@pytest.mark.parametrize("terminal", [True, False])
def test_numbers_in_tables_are_never_cut(wide, columns, terminal, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    print_table(wide, title="Wide")
    printed = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    words = re.split(r"[\s|]+", printed)
    for row in wide:
        for value in row.values():
            if isinstance(value, float):
                assert cell_text(value) in words
    assert "…" not in printed
    assert "empty" not in printed
    width = max(map(len, printed.splitlines()))
    longest = 1 + sum(3 + len(w) for w in ("family", "an-unbreakable-name-of-more-letters"))
    # One column more: text wraps from 16 letters on.
    assert width <= max(columns if terminal else 140, longest + 3 + 16)
    n_tables = words.count("method")
    assert (n_tables == 1) == (terminal and columns == 1000)
    assert words.count("an-unbreakable-name-of-more-letters") == n_tables
    assert words.count("Wide") == 1


def test_a_table_of_text_alone_is_one_table(capsys):
    print_table([{"a": "x y", "b": "z"}], title="Text")
    assert capsys.readouterr().out.count("| x y | z |") == 1


def test_numbers_too_small_or_large_for_four_digits_keep_their_size():
    cells = [None, "a", 0, 1.23456, -0.00012, 3.2e-12, 123456.7, -4.56789e14]
    written = ["–", "a", "0.0000", "1.2346", "-0.0001", "3.2e-12", "123456.7000", "-4.5679e+14"]
    assert [cell_text(c) for c in cells] == written


def test_progress_says_nothing_where_there_is_no_terminal(capsys):
    with Progress(2, "steps") as bar:
        bar.advance()
    assert capsys.readouterr().err == ""
