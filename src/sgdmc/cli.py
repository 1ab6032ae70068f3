"""The command line: ``sgdmc demo | forecast | kernel | scaling | benchmark | trials | pretrain |
info``.

Exit code 0 for success, 2 with one line for anything the user can mend (``--debug`` shows the
traceback), 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sgdmc._core import validate
from sgdmc._core.words import counted

if TYPE_CHECKING:
    from sgdmc.chain.kernel import Kernel
    from sgdmc.forecasting.gradient import GradientKernel
    from sgdmc.forecasting.held import FieldKernel
    from sgdmc.forecasting.stepped import SteppedKernel
    from sgdmc.sgd.run import Run

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = _parser()
    options = parser.parse_args(argv)
    command: Callable[[argparse.Namespace], None] = options.command
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default", UserWarning)
            warnings.simplefilter("default", RuntimeWarning)
            warnings.showwarning = _show_warning
            command(options)
    except KeyboardInterrupt:
        print("sgdmc: interrupted.", file=sys.stderr)
        return 130
    except (ValueError, TypeError, OSError, ImportError) as error:
        if options.debug:
            raise
        message = " ".join(str(error).split())
        print(f"sgdmc: error: {message}", file=sys.stderr)
        return 2
    return 0


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"sgdmc: warning: {' '.join(str(message).split())}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    import sgdmc

    parser = argparse.ArgumentParser(
        prog="sgdmc",
        description="SGD as a Markov chain: read its kernel off a language model, "
        "forecast where it ends from starts that were never run.",
    )
    parser.add_argument("--version", action="version", version=f"sgdmc {sgdmc.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    demo = _command(commands, "demo", _demo, "four problems, from one observed run to forecasts")
    demo.add_argument("--out", type=Path, default=Path("sgdmc-demo"), help="folder for the results")
    demo.add_argument("--model", default="shipped", help="'shipped', a folder, or a Hub id")
    demo.add_argument("--seed", type=int, default=0, help="covers every draw")

    forecast = _command(commands, "forecast", _forecast, "forecast from a file of iterates")
    _add_estimation(forecast)
    forecast.add_argument(
        "--start",
        action="append",
        default=[],
        metavar="A,B,...",
        help="an unseen start, one number a coordinate; may be repeated (write --start=-1,2)",
    )
    forecast.add_argument("--starts", type=Path, help="a file of starts, one a row (as FILE)")
    forecast.add_argument("--steps", type=int, help="horizon; the run's length by default")
    forecast.add_argument("--chains", type=int, default=1000, help="draws a start")
    forecast.add_argument("--seed", type=int, default=0, help="covers every draw")

    kernel = _command(commands, "kernel", _kernel, "estimate a kernel and write it down")
    _add_estimation(kernel)

    scaling = _command(commands, "scaling", _scaling, "in-context scaling laws by spectral gap")
    scaling.add_argument("--model", default="shipped", help="'shipped', a folder, or a Hub id")
    scaling.add_argument("--length", type=int, default=1000, help="longest context, in symbols")
    scaling.add_argument("--repeats", type=int, default=64, help="paths a chain")
    scaling.add_argument("--seed", type=int, default=0, help="covers every draw")
    scaling.add_argument("--out", type=Path, default=Path("sgdmc-scaling"), help="output folder")

    benchmark = _command(commands, "benchmark", _benchmark, "every forecast beside trivial ones")
    benchmark.add_argument("--out", type=Path, default=Path("sgdmc-benchmark"), help="resumable")
    benchmark.add_argument("--model", default="shipped", help="'shipped', a folder, or a Hub id")
    benchmark.add_argument("--families", help="comma-separated, all by default")
    benchmark.add_argument("--methods", help="semicolon-separated, all by default")
    benchmark.add_argument("--problems", type=int, default=20, help="problems a family")
    benchmark.add_argument("--jobs", type=int, default=-1, help="processes; -1: one a processor")
    benchmark.add_argument("--dask", metavar="ADDRESS", help="a Dask scheduler to run tasks on")
    benchmark.add_argument("--quick", action="store_true", help="a few seconds' worth, for tests")
    benchmark.add_argument("--seed", type=int, default=0, help="covers every draw")

    trials = _command(commands, "trials", _trials, "final losses of networks never trained")
    trials.add_argument("--out", type=Path, default=Path("sgdmc-trials"), help="resumable")
    trials.add_argument("--model", default="shipped", help="'shipped', a folder, or a Hub id")
    trials.add_argument("--dims", type=_integers, default=(3,), help="subspace dimensions, 1 to 5")
    trials.add_argument("--runs", type=_integers, default=(1, 3, 10), help="observed runs")
    trials.add_argument("--methods", default="llm", help="comma-separated, as for forecast")
    trials.add_argument("--starts", type=int, default=50, help="starts that are never trained")
    trials.add_argument("--steps", type=int, default=400, help="SGD steps of a run")
    trials.add_argument("--repeats", type=int, default=1, help="how often other runs are observed")
    trials.add_argument("--seed", type=int, default=0, help="covers every draw")

    pretrain = _command(commands, "pretrain", _pretrain, "train the shipped model anew")
    pretrain.add_argument("--out", type=Path, required=True, help="folder for model and checkpoint")
    pretrain.add_argument("--minutes", type=float, default=20.0, help="training time")
    pretrain.add_argument("--device", help="cpu or cuda; cuda if there is one by default")
    pretrain.add_argument("--seed", type=int, default=0)
    pretrain.add_argument("--start", type=Path, help="folder of a model to go on from")
    pretrain.add_argument("--resume", action="store_true", help="go on from the checkpoint in OUT")

    _command(commands, "info", _info, "versions, devices, the compiled core, the shipped model")
    return parser


def _command(
    commands: Any, name: str, function: Callable[[argparse.Namespace], None], text: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(command=function)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def _add_estimation(parser: argparse.ArgumentParser) -> None:
    from sgdmc.forecasting.estimate import COMPLETIONS, METHODS

    parser.add_argument("file", type=Path, metavar="FILE", help=".csv, .npy, .npz or .parquet")
    parser.add_argument("--method", default="llm", choices=METHODS)
    parser.add_argument("--model", default="shipped", help="'shipped', a folder, or a Hub id")
    parser.add_argument("--digits", type=int, choices=(1, 2, 3), help="10^digits bins a coordinate")
    parser.add_argument("--lag", type=int, help="steps of one kernel step; chosen by default")
    parser.add_argument(
        "--coupling", default="auto", choices=("auto", "field", "blocks", "rotated", "joint")
    )
    parser.add_argument(
        "--convex",
        choices=("yes", "no"),
        help="whether the loss is, which also narrows intervals; the runs decide by default",
    )
    parser.add_argument(
        "--completion", default="barycenter", choices=[c or "none" for c in COMPLETIONS]
    )
    parser.add_argument("--max-context", type=int, help="tokens of context at most")
    parser.add_argument("--device", help="cpu, cuda, cuda:1; cuda if there is one by default")
    parser.add_argument("--dtype", help="float32, bfloat16 or float16")
    parser.add_argument("--out", type=Path, default=Path("sgdmc-forecast"), help="output folder")


def _demo(options: argparse.Namespace) -> None:
    from sgdmc.show.demo import DEMO_CASES, run_demo
    from sgdmc.show.terminal import Progress, print_table

    with Progress(len(DEMO_CASES), "problems") as progress:

        def show(result: Any) -> None:
            print_table(result.table.rows(), title=result.case.title)
            for note in result.kernel.notes:
                print(f"  {note}")
            print(f"  {result.seconds:.1f} s\n")
            progress.advance()

        run_demo(options.out, model=options.model, seed=options.seed, on_case=show)
    print(f"Figures and report.html are in {options.out}{os.sep}")


def _forecast(options: argparse.Namespace) -> None:
    from sgdmc.chain.kernel import Kernel
    from sgdmc.forecasting.forecast import forecast
    from sgdmc.forecasting.held import FieldKernel
    from sgdmc.sgd.run_file import load_run
    from sgdmc.show.plots import plot_forecast, plot_kernel, plot_run, save_figure
    from sgdmc.show.report import Report
    from sgdmc.show.terminal import forecast_rows, print_table

    run = load_run(options.file)
    starts = _starts(options, run)
    steps = options.steps if options.steps is not None else run.n_steps
    # Before minutes of reading, not after.
    validate.as_int("--steps", steps, minimum=1)
    validate.as_int("--chains", options.chains, minimum=1)
    validate.as_int("--seed", options.seed, minimum=0)
    options.out.mkdir(parents=True, exist_ok=True)
    kernel = _estimate(options, run, starts, steps)
    result = forecast(kernel, starts, n_steps=steps, n_chains=options.chains, rng=options.seed)
    rows = forecast_rows(result)
    recorded = "steps" if run.thin == 1 else f"recorded steps (each {run.thin} steps of SGD)"
    runs = f"{counted(run.n_chains, 'run')} of {run.n_steps} {recorded}"
    print(f"{run.source}: {runs}, {', '.join(run.names)}")
    for note in kernel.notes:
        print(f"  {note}")
    print_table(forecast_rows(result, brief=True), title=f"{steps} {recorded} ahead")

    with (options.out / "forecast.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    np.savez_compressed(
        options.out / "samples.npz",
        samples=result.samples,
        predictive=result.predictive,
        starts=starts,
        names=np.array(run.names),
        n_steps=steps,
    )
    report = Report(f"Forecast from {run.source}")
    report.text(
        f"Observed: {runs}. Where SGD is {steps} {recorded} after "
        f"{counted(len(starts), 'start')} that it was never run from. Intervals hold 90% of the "
        "forecast."
    )
    report.table(rows)
    report.notes(kernel.notes)
    pictures = {"run": (plot_run(run), "The observed run.")}
    if isinstance(kernel, Kernel | FieldKernel):
        kernel.save(options.out / "kernel.npz")
        rows_alone = kernel.rows if isinstance(kernel, FieldKernel) else kernel
        pictures["kernel"] = (plot_kernel(rows_alone), "The kernel; marks: rows never visited.")
    pictures["forecast"] = (plot_forecast(result), "Forecast: medians and 90% intervals.")
    for name, (figure, caption) in pictures.items():
        save_figure(figure, options.out, name)
        report.figure(figure, caption=caption)
    report.write(options.out / "report.html")
    print(f"forecast.csv, samples.npz, figures and report.html are in {options.out}{os.sep}")


def _kernel(options: argparse.Namespace) -> None:
    from sgdmc.chain.kernel import Kernel
    from sgdmc.forecasting.held import FieldKernel
    from sgdmc.sgd.run_file import load_run
    from sgdmc.show.plots import plot_kernel, save_figure

    if options.coupling == "joint":
        raise ValueError(
            "--coupling must be auto, field, blocks or rotated for rows to be written down; a "
            "joint kernel has none, as it is read where its chains go. Use forecast."
        )
    run = load_run(options.file)
    options.out.mkdir(parents=True, exist_ok=True)
    kernel = _estimate(options, run, None, None)
    if not isinstance(kernel, Kernel | FieldKernel):
        raise ValueError(
            f"--method must estimate rows to be written down; {kernel.method} steps parameters "
            "and has none. Use llm, counts, dirichlet, ar1 or ar1-kde."
        )
    kernel.save(options.out / "kernel.npz")
    rows = kernel.rows if isinstance(kernel, FieldKernel) else kernel
    save_figure(plot_kernel(rows), options.out, "kernel")
    for i, name in enumerate(kernel.names):
        seen = int(kernel.observed[i].sum())
        print(
            f"{name}: {seen} of {rows.n_states} states visited, off-state mass at most "
            f"{np.nanmax(kernel.off_state_mass[i]):.2e}"
        )
    for note in kernel.notes:
        print(f"  {note}")
    print(f"kernel.npz and its heat map are in {options.out}{os.sep}")


def _scaling(options: argparse.Namespace) -> None:
    import json

    from sgdmc.show.figures import figure_scaling
    from sgdmc.show.paper_scaling import GAPS, scaling_study
    from sgdmc.show.plots import save_figure
    from sgdmc.show.terminal import Progress, print_table

    with Progress(len(GAPS), "chains") as progress:
        study = scaling_study(
            model=options.model,
            longest=options.length,
            n_repeats=options.repeats,
            rng=options.seed,
            on_done=progress.advance,
        )
    print_table(
        study.rows(), title="loss ≈ a · length^(−β), Bhattacharyya distance to the true row"
    )
    save_figure(figure_scaling(study), options.out, "scaling")
    (options.out / "scaling.json").write_text(json.dumps(study.rows(), indent=1), encoding="utf-8")
    print(f"scaling.json and its figure are in {options.out}{os.sep}")


def _benchmark(options: argparse.Namespace) -> None:
    from sgdmc.forecasting.benchmark import Plan, quick, run_benchmark, summarise
    from sgdmc.forecasting.families import FAMILIES
    from sgdmc.show.plots import save_figure
    from sgdmc.show.skills import benchmark_rows, figure_benchmark
    from sgdmc.show.stored import write_benchmark
    from sgdmc.show.terminal import Progress, print_table

    families = tuple(options.families.split(",")) if options.families else tuple(FAMILIES)
    methods = tuple(m.strip() for m in options.methods.split(";")) if options.methods else ()
    plan = Plan(
        families=families,
        n_problems=options.problems,
        methods=methods,
        model=options.model,
        seed=options.seed,
    )
    if options.quick:
        plan = quick(plan)
    context = _dask(options.dask) if options.dask else nullcontext()
    found: list[int] = []
    began = time.perf_counter()
    with Progress(len(plan.jobs()), "tasks") as progress, context:

        def show(done: int, n_tasks: int) -> None:
            found.append(done)
            progress.show(done, n_tasks)

        records = run_benchmark(plan, options.out, n_jobs=options.jobs, on_done=show)
    seconds = time.perf_counter() - began
    cells = summarise(records)
    write_benchmark(
        options.out / "benchmark.json",
        plan=plan,
        cells=cells,
        seconds=seconds,
        tasks=found[-1] - found[0],
    )
    rows = benchmark_rows(cells)
    print_table(rows, title="skill = 1 − W1 / best trivial W1, mean over problems, 95% intervals")
    with (options.out / "cells.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    save_figure(figure_benchmark(cells), options.out, "benchmark")
    print(f"Records, benchmark.json, cells.csv and the figure are in {options.out}{os.sep}")


@contextmanager
def _dask(address: str) -> Iterator[None]:
    """Send joblib's tasks to a Dask scheduler."""
    import joblib

    try:
        from distributed import Client
    except ImportError as error:
        raise ImportError("--dask needs Dask. Install it: pip install 'sgdmc[dask]'.") from error
    with Client(address) as client, joblib.parallel_config(backend="dask", client=client):
        yield


def _trials(options: argparse.Namespace) -> None:
    from sgdmc.forecasting.trial_report import TrialSpec
    from sgdmc.forecasting.trials import run_trials
    from sgdmc.show.terminal import Progress, print_table

    spec = TrialSpec(
        dims=options.dims,
        n_runs=options.runs,
        n_repeats=options.repeats,
        n_starts=options.starts,
        n_steps=options.steps,
        methods=tuple(m.strip() for m in options.methods.split(",")),
        model=options.model,
        seed=options.seed,
    )
    with Progress(len(spec.jobs()), "tasks") as progress:
        report = run_trials(spec, out=options.out, on_done=progress.show)
    rows = report.rows()
    shown = [
        {k: v for k, v in row.items() if k not in ("10% error", "90% error", "evaluations")}
        for row in rows
    ]
    print_table(shown, title=f"distribution of {spec.n_starts} final losses (nats)")
    with (options.out / "trials.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    print(f"Records and trials.csv are in {options.out}{os.sep}")


def _integers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def _pretrain(options: argparse.Namespace) -> None:
    from sgdmc.pretrain.train import pretrain

    pretrain(
        options.out,
        minutes=options.minutes,
        device=options.device,
        seed=options.seed,
        resume=options.resume,
        start=options.start,
    )


def _info(options: argparse.Namespace) -> None:
    import torch

    from sgdmc.llm.model import load_model
    from sgdmc.show.versions import versions

    for name, number in versions().items():
        print(f"{name} {number}")
    gpu = f", cuda: {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    print(f"devices: cpu{gpu}")
    print(f"shipped model: {load_model('shipped').describe()}")


def _estimate(
    options: argparse.Namespace, run: Run, starts: NDArray[np.float64] | None, horizon: int | None
) -> Kernel | SteppedKernel | GradientKernel | FieldKernel:
    from sgdmc.forecasting.estimate import estimate_kernel

    return estimate_kernel(
        run,
        method=options.method,
        model=options.model,
        digits=options.digits or "auto",
        lag=options.lag if options.lag is not None else "auto",
        coupling=options.coupling,
        convex=None if options.convex is None else options.convex == "yes",
        completion=None if options.completion == "none" else options.completion,
        cover=starts,
        horizon=horizon,
        max_context=options.max_context,
        device=options.device,
        dtype=options.dtype,
        progress=sys.stderr.isatty(),
    )


def _starts(options: argparse.Namespace, run: Run) -> NDArray[np.float64]:
    from sgdmc.sgd.run_file import load_starts

    rows = []
    for text in options.start:
        cells = [c for c in text.replace(";", ",").split(",") if c.strip()]
        try:
            row = [float(c) for c in cells]
        except ValueError:
            raise ValueError(
                f"--start must be numbers separated by commas; got '{text}'."
            ) from None
        if len(row) != run.dim:
            raise ValueError(
                f"--start must have {run.dim} numbers ({', '.join(run.names)}); got '{text}'."
            )
        rows.append(row)
    if options.starts is not None:
        rows.extend(load_starts(options.starts, run.names).tolist())
    if not rows:
        raise ValueError(
            f"--start must be given at least once: {run.dim} number(s) for "
            f"{', '.join(run.names)}, or --starts FILE."
        )
    starts = np.array(rows, dtype=np.float64)
    if not np.isfinite(starts).all():
        a = int(np.argwhere(~np.isfinite(starts))[0, 0])
        raise ValueError(f"--start must be finite; got {starts[a].tolist()} as start {a}.")
    return starts


if __name__ == "__main__":
    sys.exit(main())
