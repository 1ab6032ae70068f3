"""All benchmarks of the core: ``python -m benchmarks [--full] [--only chain,sgd]``."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

from benchmarks import plot
from benchmarks.common import CLOCKS, RESULTS, Row, clock, machine_limits, show, write


def main() -> None:
    here = Path(__file__).parent
    found = sorted(path.stem[6:] for path in here.glob("bench_*.py") if path.stem != "bench_llm")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="the whole sizes as well")
    parser.add_argument("--only", default=",".join(found), help="parts, separated by commas")
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall", help="see common.py")
    arguments = parser.parse_args()
    clock["name"] = arguments.clock
    command = "python -m benchmarks" + (" --full" if arguments.full else "")
    limits = machine_limits()
    rows: list[Row] = []
    more = {}
    for name in arguments.only.split(","):
        module = importlib.import_module(f"benchmarks.bench_{name}")
        for row in module.rows(full=arguments.full):
            print(f"{row.task} | {row.peer}: {row.ratio:.3g}", flush=True)
            rows.append(row)
        if hasattr(module, "scaling"):
            more[f"{name}_scaling"] = module.scaling()
    show(rows, limits)
    write(RESULTS / "core.json", rows, limits, command=command, **more)
    plot.main()


if __name__ == "__main__":
    main()
