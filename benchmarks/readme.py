"""Rewrite the README's tables from the JSON files of committed commands.

``python -m benchmarks.readme``. The JSON comes from ``sgdmc demo --out DIR`` and the benchmark
programs; ``--demo DIR`` takes over a demo's results and its picture first.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PICTURE = "least-squares-forecast.png"


def table(header: Sequence[str], rows: Iterable[Sequence[str]], under: str = "") -> str:
    """Write a Markdown table, and a line under it."""
    lines = [f"| {' | '.join(cells)} |" for cells in (header, *rows)]
    lines.insert(1, "|" + " --- |" * len(header))
    return "\n".join([*lines, "", under] if under else lines)


def demo_table(content: dict[str, Any]) -> str:
    """One row a forecast, one column a problem: W1/range."""
    cases = content["cases"]
    names = [row["forecast"] for row in cases[0]["scores"]]
    rows = [
        [name, *(f"{c['scores'][k]['W1/range']:.4f}" for c in cases)]
        for k, name in enumerate(names)
    ]
    made = content["versions"]
    seconds = " + ".join(f"{c['seconds']:.0f}" for c in cases)
    return table(
        ["W1/range, 60 unseen starts", *(c["key"] for c in cases)],
        rows,
        f"`sgdmc demo`, {seconds} s; Python {made['python']}, torch {made['torch']}, "
        f"{made['processor']}.",
    )


def core_table(content: dict[str, Any]) -> str:
    """One row a task of the compiled core: ratio, the ratio aimed at, share of the bound."""
    rows = []
    for row in content["rows"]:
        if row["target"] is None:
            continue
        share = "" if row["share"] is None else f"{row['share']:.0%} of {row['bound']}"
        ratio, aim = f"{row['ratio']:.3g}", f"{row['target']:g}"
        rows.append([row["task"], row["peer"], ratio, aim, share])
    made = content["environment"]
    command = content.get("command", "python -m benchmarks")
    return table(
        ["the compiled core", "peer", "times faster", "aim", "of the bound"],
        rows,
        f"`{command}`; {made.get('cpu', made.get('processor', ''))}, medians.",
    )


def llm_table(content: dict[str, Any]) -> str:
    """One row a case of packed reading."""
    rows = []
    for device, part in content.items():
        for case in part["cases"]:
            if case.get("one_at_a_time_s") is None:
                continue
            rows.append(
                [
                    f"{case['model']}, depth {case['depth']}, {case['refine']}, {device}",
                    f"{case['one_at_a_time_s']:.3g} s",
                    f"{case['packed_s']:.3g} s",
                    f"{case['ratio']:.1f}",
                    f"{case['wanted_ratio']:g}",
                    f"{case['gemm_share']:.0%}",
                ]
            )
    made = content["cpu"]["machine"]
    return table(
        [
            "a kernel off a language model, packed",
            *("one branch at a time", "packed", "times", "aim", "of GEMM"),
        ],
        rows,
        f"`python benchmarks/bench_llm.py`; {made['threads']} thread, {made['device']}, torch "
        f"{made['torch']}, transformers {made['transformers']}.",
    )


def skill_table(content: dict[str, Any]) -> str:
    """One row a family and number of runs: skills at the last horizon, best trivial forecast."""
    shown = (
        "LLM",
        "LLM, told whether convex",
        "LLM, a coordinate at a time",
        "LLM, as read",
        "dirichlet, barycenter",
        "var1",
        "gradient-gp",
    )
    rows = []
    cells = content["cells"]
    keys = sorted({(c["family"], c["runs"], c["horizon"]) for c in cells})
    for family, runs, horizon in keys:
        here = {
            c["method"]: c
            for c in cells
            if (c["family"], c["runs"], c["horizon"]) == (family, runs, horizon)
        }
        best = here[next(iter(here.values()))["best_trivial"]]
        skills = [
            f"{here[n]['skill']:+.2f} [{here[n]['skill_interval'][0]:+.2f}, "
            f"{here[n]['skill_interval'][1]:+.2f}]"
            if n in here
            else ""
            for n in shown
        ]
        intervals = [
            f"{here[n]['cover90']:.2f}, {here[n]['width90']:.3f}" if n in here else ""
            for n in shown[:2]
        ]
        trivial = [best["method"], f"{best['score']:.4f}"]
        rows.append([family, str(runs), str(horizon), *trivial, *intervals, *skills])
    plan = content["plan"]
    return table(
        [
            *("family", "runs", "steps ahead", "best trivial", "its W1/range"),
            "90% interval of LLM: coverage, width/range",
            "of LLM, told: coverage, width/range",
            *(f"skill: {name}" for name in shown),
        ],
        rows,
        f"`sgdmc benchmark`: {plan['n_problems']} problems a family × {plan['n_starts']} unseen "
        "starts, skill = 1 − W1 / best trivial W1, 95% bootstrap intervals over problems; "
        f"{content['seconds'] / 60:.0f} minutes, {content['versions']['processor']}.",
    )


def ladder_table(content: dict[str, Any]) -> str:
    """One row a family, number of runs and horizon: W1 of each rung."""
    names = list(content["rungs"][0]["W1"])
    rows = []
    for row in content["rungs"]:
        cells = [f"{row['W1'][n]:.4f}" if n in row["W1"] else "" for n in names]
        rows.append([row["family"], str(row["runs"]), str(row["horizon"]), *cells])
    header = ["W1/range", "runs", "steps ahead", *names]
    return table(header, rows, f"`{content['command']}`; means over problems.")


def basin_table(content: dict[str, Any]) -> str:
    """One row a forecast of basins, one column a number of runs and horizon."""
    shown = (
        "SGD itself, other seeds",
        "stays where it starts",
        "tail of the nearest run",
        "analogue",
        "AR(1)",
        "LLM",
        "LLM, told whether convex",
        "local-linear",
        "knn",
    )
    cells = {
        (c["method"], c["runs"], c["horizon"]): c
        for c in content["cells"]
        if c["brier"] is not None
    }
    columns = sorted({key[1:] for key in cells})
    rows = []
    for name in shown:
        made = [
            f"{c['basin_accuracy']:.2f}, {c['brier']:.2f}, {c['crps_skill']:+.2f}"
            for c in (cells[name, *column] for column in columns)
        ]
        rows.append([name, *made])
    measures = "several basins (F4): in the most probable one, Brier score, skill by the CRPS"
    return table(
        [measures, *(f"{m} run{'s' * (m > 1)}, {h} steps" for m, h in columns)],
        rows,
    )


def limit_table(content: dict[str, Any]) -> str:
    """One row a forecast of limits, one column a family and number of runs: W1/range."""
    shown = (
        "SGD itself, other seeds",
        "exact kernel",
        "exact kernel, 100 bins",
        "all known but the minimum",
        "LLM",
        "counts, on the same field",
        "dirichlet, on the same field",
        "the best trivial forecast",
    )
    cells = {(c["family"], c["runs"], c["method"]): c for c in content["cells"]}
    columns = [(f, m) for f in ("F1", "F3") for m in content["plan"]["n_runs"]]
    rows = []
    for name in shown:
        made = []
        for column in columns:
            best = cells[*column, "LLM"]["best_trivial"]
            cell = cells.get((*column, best if name == shown[-1] else name))
            made.append(f"{cell['score']:.4f}" if cell else "")
        rows.append([name, *made])
    header = ["limits, W1/range", *(f"{f}, {m} run{'s' * (m > 1)}" for f, m in columns)]
    return table(header, rows)


def coupling_table(content: dict[str, Any]) -> str:
    """One row a family and number of runs: W1 of each coupling and of the choice."""
    names = list(content["rows"][0]["W1"])
    rows = []
    for row in content["rows"]:
        cells = [f"{row['W1'][n]:.4f}" for n in names]
        counts = ", ".join(f"{name} {n}" for name, n in sorted(row["chosen"].items()))
        rows.append([row["family"], str(row["runs"]), *cells, counts])
    header = ["W1/range", "runs", *names, "how often each"]
    return table(header, rows, f"`{content['command']}`; means over problems.")


BENCHMARK = "../../src/sgdmc/show/benchmark.json"
TABLES: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "demo": ("demo.json", demo_table),
    "core": ("core.json", core_table),
    "llm": ("llm.json", llm_table),
    "skill": (BENCHMARK, skill_table),
    "basins": (BENCHMARK, basin_table),
    "limits": (BENCHMARK, limit_table),
    "coupling": ("coupling.json", coupling_table),
    "ladder": ("ladder.json", ladder_table),
}


def render(text: str) -> str:
    """Return the README with every marked block made anew."""
    for name, (file, make) in TABLES.items():
        begin, end = f"<!-- begin:{name} -->", f"<!-- end:{name} -->"
        before, _, rest = text.partition(begin)
        _, _, after = rest.partition(end)
        made = make(json.loads((RESULTS / file).read_text(encoding="utf-8")))
        text = f"{before}{begin}\n{made}\n{end}{after}"
    return text


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--demo", type=Path, help="folder that `sgdmc demo` wrote")
    options = parser.parse_args()
    if options.demo:
        for name in ("demo.json", PICTURE):
            shutil.copyfile(options.demo / name, RESULTS / name)
    readme = ROOT / "README.md"
    readme.write_text(render(readme.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
