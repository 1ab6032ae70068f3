"""The benchmark on a Dask cluster: two real worker processes, one of which is killed at work."""

import json
import os
import signal
import sys

import joblib
import pytest
from distributed import Client, LocalCluster

from sgdmc.cli import main
from sgdmc.forecasting.benchmark import Plan, run_benchmark

PLAN = Plan(
    families=("F1", "F6"),
    n_problems=6,
    n_starts=6,
    n_truth=20,
    n_chains=40,
    n_runs=(1,),
    methods=("ar1", "var1"),
)


@pytest.fixture(scope="module")
def cluster():
    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as made:
        yield made


def test_a_killed_worker_loses_nothing(cluster, tmp_path):
    alone = run_benchmark(PLAN, tmp_path / "alone", n_jobs=1)
    with Client(cluster) as client:
        workers = client.run(os.getpid)
        assert len(set(workers.values())) == 2
        killed = []

        def kill_one(done, n_tasks):
            busy = [name for name, tasks in client.processing().items() if tasks]
            if done and busy and not killed:
                killed.append(workers[busy[0]])
                os.kill(killed[0], signal.SIGKILL)

        with joblib.parallel_config(backend="dask", client=client):
            together = run_benchmark(PLAN, tmp_path / "together", on_done=kill_one)
        assert killed
        client.wait_for_workers(2, timeout=30)
        assert killed[0] not in client.run(os.getpid).values()
    assert json.dumps(together) == json.dumps(alone)
    files = [
        {file.name: file.read_text() for file in (tmp_path / name / "tasks").glob("*.json")}
        for name in ("alone", "together")
    ]
    assert files[0] == files[1]
    assert len(files[0]) == len(PLAN.jobs())


def test_the_command_sends_tasks_to_a_scheduler(cluster, tmp_path, capsys):
    command = ["benchmark", "--quick", "--families", "F6", "--methods", "ar1"]
    address = cluster.scheduler_address
    assert main([*command, "--dask", address, "--out", str(tmp_path / "dask")]) == 0
    assert main([*command, "--jobs", "1", "--out", str(tmp_path / "alone")]) == 0
    cells = [(tmp_path / name / "cells.csv").read_text() for name in ("dask", "alone")]
    assert cells[0] == cells[1]


def test_without_dask_the_command_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "distributed", None)  # as where it is not installed
    assert main(["benchmark", "--quick", "--dask", "tcp://x:1", "--out", str(tmp_path)]) == 2
    assert "error: --dask needs Dask. Install it: pip install 'sgdmc[dask]'" in (
        capsys.readouterr().err
    )
