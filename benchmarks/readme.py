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


TABLES: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "demo": ("demo.json", demo_table),
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
