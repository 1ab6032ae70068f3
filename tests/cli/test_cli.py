"""The command line: what it writes, and one line with exit code 2 for what the user can mend."""

import csv
import json
import subprocess
import sys

import numpy as np
import pytest

from sgdmc import Kernel, forecast, load_kernel
from sgdmc.cli import main
from sgdmc.forecasting.forecast import StartOutsideWarning
from sgdmc.forecasting.held import FieldKernel
from sgdmc.sgd.problems import make_least_squares
from sgdmc.sgd.simulate import run_sgd


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """A training log as a user has it: a CSV file with a header."""
    run = run_sgd(
        make_least_squares(n_samples=50, dim=2, noise=0.3, rng=0),
        np.array([2.0, -2.0]),
        step_size=0.05,
        n_steps=300,
        rng=0,
    )
    path = tmp_path_factory.mktemp("log") / "run.csv"
    rows = "\n".join(f"{t},{a},{b}" for t, (a, b) in enumerate(run.iterates[0]))
    path.write_text(f"step,weight,bias\n{rows}\n")
    return path


def fails(capsys, *arguments):
    """Run a command that must fail; return its one line."""
    assert main([str(a) for a in arguments]) == 2
    captured = capsys.readouterr()
    lines = [x for x in captured.err.splitlines() if not x.startswith("sgdmc: warning")]
    assert len(lines) == 1
    assert lines[0].startswith("sgdmc: error: ")
    assert "Traceback" not in captured.err
    return lines[0]


def test_forecast_writes_everything(log, tmp_path, capsys):
    out = tmp_path / "out"
    code = main(
        ["forecast", str(log), "--start", "1,-1", "--start=-2,2", "--out", str(out), "--seed", "1"]
    )
    assert code == 0
    printed = capsys.readouterr().out
    assert "weight" in printed
    assert "lag" in printed
    for name in ("forecast.csv", "samples.npz", "report.html", "kernel.npz"):
        assert (out / name).stat().st_size > 0
    for name in ("run", "kernel", "forecast"):
        assert (out / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
        assert b"<svg" in (out / f"{name}.svg").read_bytes()[:600]
    page = (out / "report.html").read_text()
    assert "weight" in page
    assert "http" not in page.split("</style>")[1].replace("http://www.w3.org", "")
    with np.load(out / "samples.npz") as saved:
        assert saved["samples"].shape == (2, 1000, 2)
        wide = saved["predictive"]
    with (out / "forecast.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert float(rows[0]["median"]) == np.median(wide[0, :, 0])
    assert all(float(r["low 5%"]) <= float(r["median"]) <= float(r["high 95%"]) for r in rows)
    # What was written down forecasts as the command did.
    kernel = load_kernel(out / "kernel.npz")
    with pytest.warns(StartOutsideWarning):
        again = forecast(kernel, [[1.0, -1.0], [-2.0, 2.0]], n_steps=300, rng=1)
    np.testing.assert_allclose(again.predictive, wide, atol=1e-9)
    header, *rows = (out / "forecast.csv").read_text().splitlines()
    assert header.startswith("start,coordinate,median")
    assert len(rows) == 4


def test_a_log_of_many_coordinates_is_readable(tmp_path, capsys):
    names = [f"w{i}" for i in range(18)]
    path = np.cumsum(np.random.default_rng(0).normal(size=(150, 18)), axis=0)
    log, out = tmp_path / "many.csv", tmp_path / "out"
    np.savetxt(log, path, delimiter=",", header=",".join(names), comments="")
    start = ",".join(["1.25"] * 18)
    code = main(
        ["forecast", str(log), "--start", start, "--out", str(out), "--method", "dirichlet"]
    )
    assert code == 0
    captured = capsys.readouterr()
    assert "constrained_layout" not in captured.err
    table = [line for line in captured.out.splitlines() if "| 1.25, 1.25, 1.25, 1.25, … |" in line]
    assert len(table) == 18
    assert not any("…" in line.split("|", 2)[2] for line in table)  # no number is cut short
    assert start.replace(",", ", ") in (out / "forecast.csv").read_text()


def test_forecast_repeats_with_the_seed(log, tmp_path):
    texts = []
    for name in ("a", "b"):
        arguments = ["forecast", str(log), "--start", "1,-1", "--method", "counts"]
        assert main([*arguments, "--out", str(tmp_path / name)]) == 0
        texts.append((tmp_path / name / "forecast.csv").read_text())
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    ("told", "note"),
    [([], "a parabola"), (["--convex", "yes"], "a parabola"), (["--convex", "no"], "no parabola")],
)
def test_what_is_known_of_the_loss(log, tmp_path, capsys, told, note):
    arguments = ["forecast", str(log), "--start", "1,-1", "--method", "gradient-gp", *told]
    assert main([*arguments, "--out", str(tmp_path)]) == 0
    assert f"one gradient field: {note}" in capsys.readouterr().out


@pytest.mark.parametrize(
    "method", ["dirichlet", "ar1", "ar1-kde", "var1", "knn", "local-linear", "gradient-gp"]
)
def test_other_methods(log, tmp_path, method):
    arguments = ["forecast", str(log), "--start", "1,-1", "--method", method]
    assert main([*arguments, "--out", str(tmp_path)]) == 0
    assert (tmp_path / "forecast.csv").exists()


def test_starts_from_a_file(log, tmp_path, capsys):
    starts = tmp_path / "starts.csv"
    starts.write_text("weight,bias\n1,-1\n0.5,0.5\n")
    arguments = ["forecast", str(log), "--starts", str(starts), "--method", "counts"]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 0
    starts.write_text("1\n2\n")
    line = fails(capsys, *arguments, "--out", tmp_path / "out")
    assert "starts.csv must have one start a row and 2 columns (weight, bias)" in line


def test_start_outside_the_run_warns_and_says_how_far(log, tmp_path, capsys):
    arguments = ["forecast", str(log), "--start", "9,9", "--method", "counts"]
    assert main([*arguments, "--out", str(tmp_path)]) == 0
    err = capsys.readouterr().err
    assert "1 of 1 starts lie outside the observed range" in err
    assert "ranges in" in err


def test_kernel_is_written_down(log, tmp_path, capsys):
    assert main(["kernel", str(log), "--method", "counts", "--out", str(tmp_path)]) == 0
    assert "states visited" in capsys.readouterr().out
    with np.load(tmp_path / "kernel.npz") as saved:
        np.testing.assert_allclose(saved["blocks"].sum(axis=2), 1.0)
    line = fails(capsys, "kernel", log, "--method", "var1", "--out", tmp_path)
    assert "--method must estimate rows" in line
    line = fails(capsys, "kernel", log, "--coupling", "joint", "--out", tmp_path)
    assert "--coupling must be auto, field, blocks or rotated" in line
    assert main(["kernel", str(log), "--out", str(tmp_path)]) == 0
    assert isinstance(load_kernel(tmp_path / "kernel"), FieldKernel)
    with pytest.raises(ValueError, match=r"whose means follow a field. Use sgdmc.load_kernel"):
        Kernel.load(tmp_path / "kernel.npz")


def test_steps_that_were_not_recorded_are_told(tmp_path, capsys):
    path = tmp_path / "thin.csv"
    values = 3 * 0.9 ** np.arange(80)
    path.write_text("step,a\n" + "\n".join(f"{10 * t},{v}" for t, v in enumerate(values)))
    assert main(["forecast", str(path), "--start", "2", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "1 run of 79 recorded steps (each 10 steps of SGD)" in printed
    assert "79 recorded steps (each 10 steps of SGD) ahead" in " ".join(printed.split())
    assert "recorded steps, so that" in printed
    assert "each 10 steps of SGD" in (tmp_path / "report.html").read_text()


def test_a_handful_of_steps_is_warned_of(tmp_path, capsys):
    path = tmp_path / "short.csv"
    path.write_text("a,b\n3,1\n2.5,0.5\n2,0.3\n")
    assert main(["forecast", str(path), "--start", "2,0.4", "--out", str(tmp_path)]) == 0
    assert "run holds 2 steps in all" in capsys.readouterr().err


def test_starts_from_a_table(log, tmp_path):
    starts = tmp_path / "starts.csv"
    starts.write_text("bias,weight\n-1,1\n2,-1\n")
    arguments = ["forecast", str(log), "--starts", str(starts), "--method", "ar1"]
    assert main([*arguments, "--out", str(tmp_path)]) == 0
    with np.load(tmp_path / "samples.npz") as saved:
        np.testing.assert_array_equal(saved["starts"], [[1, -1], [-1, 2]])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--start", "1,x"], "--start must be numbers separated by commas; got '1,x'"),
        (["--start", "1"], r"--start must have 2 numbers (weight, bias); got '1'"),
        ([], "--start must be given at least once"),
        (["--start", "1,nan"], "--start must be finite; got [1.0, nan]"),
        (["--start", "1,1", "--lag", "0"], "lag must be an integer of at least 1"),
        (["--start", "1,1", "--lag", "900"], "lag must be shorter than the longest run"),
        (["--start", "1,1", "--steps", "0"], "--steps must be at least 1"),
        (["--start", "1,1", "--chains", "0"], "--chains must be at least 1"),
        (["--start", "1,1", "--model", "./nowhere"], "name must be a folder that exists"),
        (["--start", "1,1", "--model", "nobody/nothing"], "name must be a Hub id that can be"),
        (["--start", "1,1", "--seed", "-1"], "--seed must be at least 0"),
        (["--start", "1,1", "--device", "foo"], "device must be cpu, cuda or cuda:1, say"),
        (["--start", "1,1", "--dtype", "int4"], "dtype must be"),
        (["--start", "1,1", "--max-context", "8"], "context of"),
        (["--start", "1,1", "--method", "counts", "--completion", "probe"], "completion 'probe'"),
    ],
)
def test_mendable_errors(log, tmp_path, capsys, monkeypatch, arguments, message):
    # Nothing listens there: as without network, but on a machine that may have one.
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://localhost:1")
    line = fails(capsys, "forecast", log, *arguments, "--out", tmp_path)
    assert message in line


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "at least 2 rows"),
        ("a,b\n1,2\n2,inf\n3,3\n", "must be finite; got inf at run 0, row 1, column 'b'"),
        ("a,b\n1,2\n2,red\n", "column 'b' must be numeric; got 'red' at line 3"),
    ],
)
def test_bad_files(tmp_path, capsys, text, message):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    assert message in fails(capsys, "forecast", path, "--start", "1,1", "--out", tmp_path)
    assert not (tmp_path / "forecast.csv").exists()


def test_missing_file(tmp_path, capsys):
    assert "not found" in fails(capsys, "forecast", tmp_path / "none.csv", "--start", "1,1")


def test_constant_column_is_legal(tmp_path):
    path = tmp_path / "flat.csv"
    values = 3 * 0.9 ** np.arange(80)
    path.write_text("a,b\n" + "\n".join(f"{v},7.5" for v in values))
    assert main(["forecast", str(path), "--start", "2,7.5", "--out", str(tmp_path)]) == 0
    rows = (tmp_path / "forecast.csv").read_text().splitlines()
    flat = next(r for r in rows if ",b," in r)
    assert float(flat.rsplit(",", 4)[1]) == pytest.approx(7.5, abs=0.05)


def test_debug_shows_the_traceback(tmp_path):
    with pytest.raises(FileNotFoundError):
        main(["forecast", str(tmp_path / "none.csv"), "--start", "1", "--debug"])


def test_info_and_version(capsys):
    assert main(["info"]) == 0
    printed = capsys.readouterr().out
    assert "shipped model" in printed
    assert "torch" in printed
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--problems", "0"], "n_problems must be at least 1"),
        (["--seed", "-1"], "seed must be at least 0"),
        (["--families", "F1,F9"], "families must be among"),
        (["--methods", "magic"], "methods must be among"),
    ],
)
def test_benchmarks_that_cannot_be_run(tmp_path, capsys, arguments, message):
    assert message in fails(capsys, "benchmark", *arguments, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_pretraining_on_a_device_that_is_not_there(tmp_path, capsys):
    line = fails(capsys, "pretrain", "--out", tmp_path / "out", "--device", "foo")
    assert "device must be cpu, cuda or cuda:1, say; got 'foo'" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["demo", "forecast", "kernel", "pretrain", "info"])
def test_help(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert "--debug" in capsys.readouterr().out


def test_import_is_light():
    heavy = ("torch", "transformers", "matplotlib")
    code = f"import sys, sgdmc, json; print(json.dumps([m for m in {heavy} if m in sys.modules]))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(found.stdout) == []
