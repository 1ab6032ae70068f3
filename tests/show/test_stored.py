"""The finished benchmark as a file: written by the command, read back, carried by the package."""

import json

import pytest

from sgdmc.cli import main
from sgdmc.forecasting.benchmark import METHODS, run_benchmark, summarise
from sgdmc.forecasting.families import FAMILIES
from sgdmc.show.stored import read_benchmark, stored_benchmark
from sgdmc.show.versions import versions


def test_the_command_writes_what_it_ran(tmp_path, capsys):
    command = ["benchmark", "--quick", "--families", "F1,F6", "--methods", "ar1;var1"]
    arguments = [*command, "--jobs", "1", "--out", str(tmp_path)]
    assert main(arguments) == 0
    assert "benchmark.json" in capsys.readouterr().out
    stored = read_benchmark(tmp_path / "benchmark.json")
    records = run_benchmark(stored.plan, tmp_path, n_jobs=1)  # of the same plan: nothing is run
    assert list(stored.cells) == summarise(records)
    assert stored.versions == versions()
    assert stored.tasks == len(stored.plan.jobs())
    assert stored.seconds > 0
    assert main(arguments) == 0
    assert read_benchmark(tmp_path / "benchmark.json").tasks == 0


def test_another_file_is_named(tmp_path):
    (tmp_path / "cells.json").write_text(json.dumps({"cells": [], "plan": {}}))
    with pytest.raises(ValueError, match=r"got cells.json without \['versions'"):
        read_benchmark(tmp_path / "cells.json")


def test_the_package_carries_a_benchmark():
    stored = stored_benchmark()
    assert set(stored.plan.families) <= set(FAMILIES)
    assert set(stored.plan.chosen) <= set(METHODS)
    assert {c.family for c in stored.cells} == set(stored.plan.families)
    assert {c.runs for c in stored.cells} == set(stored.plan.n_runs)
    assert all(c.n_problems <= stored.plan.n_problems for c in stored.cells)
    assert all(c.skill_interval[0] <= c.skill_interval[1] for c in stored.cells)
