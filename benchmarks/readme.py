"""Rewrite the README's tables from the JSON files of committed commands.

``python -m benchmarks.readme``. The JSON comes from ``sgdmc demo --out DIR`` and the benchmark
programs; ``--demo DIR`` takes over a demo's results and its picture first.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PICTURE = "least-squares-forecast.png"


def demo_table(content: dict[str, Any]) -> str:
    """One row a forecast, one column a problem: W1/range."""
    cases = content["cases"]
    names = [row["forecast"] for row in cases[0]["scores"]]
    lines = [
        "| W1/range, 60 unseen starts | " + " | ".join(c["key"] for c in cases) + " |",
        "| --- |" + " --- |" * len(cases),
    ]
    for k, name in enumerate(names):
        cells = " | ".join(f"{c['scores'][k]['W1/range']:.4f}" for c in cases)
        lines.append(f"| {name} | {cells} |")
    made = content["versions"]
    seconds = " + ".join(f"{c['seconds']:.0f}" for c in cases)
    lines.append("")
    lines.append(
        f"`sgdmc demo`, {seconds} s; Python {made['python']}, torch {made['torch']}, "
        f"{made['processor']}."
    )
    return "\n".join(lines)


def core_table(content: dict[str, Any]) -> str:
    """One row a task of the compiled core: ratio, the ratio aimed at, share of the bound."""
    lines = ["| the compiled core | peer | times faster | aim | of the bound |", "|" + " --- |" * 5]
    for row in content["rows"]:
        if row["target"] is None:
            continue
        share = "" if row["share"] is None else f"{row['share']:.0%} of {row['bound']}"
        lines.append(
            f"| {row['task']} | {row['peer']} | {row['ratio']:.3g} | {row['target']:g} | {share} |"
        )
    made = content["environment"]
    command = content.get("command", "python -m benchmarks")
    lines += ["", f"`{command}`; {made.get('cpu', made.get('processor', ''))}, medians."]
    return "\n".join(lines)


def llm_table(content: dict[str, Any]) -> str:
    """One row a case of packed reading."""
    lines = [
        "| a kernel off a language model, packed | one branch at a time | packed | times | aim "
        "| of GEMM |",
        "|" + " --- |" * 6,
    ]
    for device, part in content.items():
        for case in part["cases"]:
            if case.get("one_at_a_time_s") is None:
                continue
            lines.append(
                f"| {case['model']}, depth {case['depth']}, {case['refine']}, {device} "
                f"| {case['one_at_a_time_s']:.3g} s | {case['packed_s']:.3g} s "
                f"| {case['ratio']:.1f} | {case['wanted_ratio']:g} | {case['gemm_share']:.0%} |"
            )
    made = content["cpu"]["machine"]
    lines += [
        "",
        f"`python benchmarks/bench_llm.py`; {made['threads']} thread, {made['device']}, torch "
        f"{made['torch']}, transformers {made['transformers']}.",
    ]
    return "\n".join(lines)


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
    lines = [
        "| family | runs | steps ahead | best trivial | its W1/range "
        "| 90% interval of LLM: coverage, width/range | of LLM, told: coverage, width/range | "
        + " | ".join(f"skill: {name}" for name in shown)
        + " |",
        "|" + " --- |" * (7 + len(shown)),
    ]
    cells = content["cells"]
    keys = sorted({(c["family"], c["runs"], c["horizon"]) for c in cells})
    for family, runs, horizon in keys:
        here = {
            c["method"]: c
            for c in cells
            if (c["family"], c["runs"], c["horizon"]) == (family, runs, horizon)
        }
        best = here[next(iter(here.values()))["best_trivial"]]
        skills = " | ".join(
            f"{here[n]['skill']:+.2f} [{here[n]['skill_interval'][0]:+.2f}, "
            f"{here[n]['skill_interval'][1]:+.2f}]"
            if n in here
            else ""
            for n in shown
        )
        intervals = " | ".join(
            f"{here[n]['cover90']:.2f}, {here[n]['width90']:.3f}" if n in here else ""
            for n in shown[:2]
        )
        lines.append(
            f"| {family} | {runs} | {horizon} | {best['method']} | {best['score']:.4f} "
            f"| {intervals} | {skills} |"
        )
    plan = content["plan"]
    lines += [
        "",
        f"`sgdmc benchmark`: {plan['n_problems']} problems a family × {plan['n_starts']} unseen "
        "starts, skill = 1 − W1 / best trivial W1, 95% bootstrap intervals over problems; "
        f"{content['seconds'] / 60:.0f} minutes, {content['versions']['processor']}.",
    ]
    return "\n".join(lines)


def ladder_table(content: dict[str, Any]) -> str:
    """One row a family, number of runs and horizon: W1 of each rung."""
    names = list(content["rungs"][0]["W1"])
    lines = [
        "| W1/range | runs | steps ahead | " + " | ".join(names) + " |",
        "|" + " --- |" * (3 + len(names)),
    ]
    for row in content["rungs"]:
        cells = " | ".join(f"{row['W1'][n]:.4f}" if n in row["W1"] else "" for n in names)
        lines.append(f"| {row['family']} | {row['runs']} | {row['horizon']} | {cells} |")
    return "\n".join([*lines, "", f"`{content['command']}`; means over problems."])


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
    lines = [
        "| several basins (F4): in the most probable one, Brier score, skill by the CRPS | "
        + " | ".join(f"{m} run{'s' * (m > 1)}, {h} steps" for m, h in columns)
        + " |",
        "| --- |" + " --- |" * len(columns),
    ]
    for name in shown:
        made = " | ".join(
            f"{c['basin_accuracy']:.2f}, {c['brier']:.2f}, {c['crps_skill']:+.2f}"
            for c in (cells[name, *column] for column in columns)
        )
        lines.append(f"| {name} | {made} |")
    return "\n".join(lines)


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
    lines = [
        "| limits, W1/range | "
        + " | ".join(f"{f}, {m} run{'s' * (m > 1)}" for f, m in columns)
        + " |",
        "| --- |" + " --- |" * len(columns),
    ]
    for name in shown:
        made = []
        for column in columns:
            best = cells[*column, "LLM"]["best_trivial"]
            cell = cells.get((*column, best if name == shown[-1] else name))
            made.append(f"{cell['score']:.4f}" if cell else "")
        lines.append(f"| {name} | {' | '.join(made)} |")
    return "\n".join(lines)


def coupling_table(content: dict[str, Any]) -> str:
    """One row a family and number of runs: W1 of each coupling and of the choice."""
    names = list(content["rows"][0]["W1"])
    lines = [
        "| W1/range | runs | " + " | ".join(names) + " | how often each |",
        "|" + " --- |" * (3 + len(names)),
    ]
    for row in content["rows"]:
        cells = " | ".join(f"{row['W1'][n]:.4f}" for n in names)
        counts = ", ".join(f"{name} {n}" for name, n in sorted(row["chosen"].items()))
        lines.append(f"| {row['family']} | {row['runs']} | {cells} | {counts} |")
    return "\n".join([*lines, "", f"`{content['command']}`; means over problems."])


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
    for name, (file, table) in TABLES.items():
        begin, end = f"<!-- begin:{name} -->", f"<!-- end:{name} -->"
        before, _, rest = text.partition(begin)
        _, _, after = rest.partition(end)
        made = table(json.loads((RESULTS / file).read_text(encoding="utf-8")))
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
