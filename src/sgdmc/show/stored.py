"""A finished benchmark as one file: its plan, what it was made with, and every cell."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from importlib.resources import files
from pathlib import Path
from typing import Any

from sgdmc.forecasting.benchmark import Cell, Plan
from sgdmc.show.versions import versions

__all__ = ["StoredBenchmark", "read_benchmark", "stored_benchmark", "write_benchmark"]


@dataclass(frozen=True)
class StoredBenchmark:
    """A finished benchmark.

    Attributes
    ----------
    plan : Plan
        What was run.
    versions : dict of str to str
        As from :func:`sgdmc.show.versions.versions`, when it was run.
    seconds : float
        How long the run took that finished it.
    tasks : int
        How many of ``plan.jobs()`` that run did; fewer than all if it took up an unfinished one.
    cells : tuple of Cell
    """

    plan: Plan
    versions: dict[str, str]
    seconds: float
    tasks: int
    cells: tuple[Cell, ...]


def write_benchmark(
    path: Path, *, plan: Plan, cells: Sequence[Cell], seconds: float, tasks: int
) -> None:
    """Write a finished benchmark, with the versions of this moment, as JSON."""
    content = {
        "plan": asdict(plan),
        "versions": versions(),
        "seconds": round(seconds, 1),
        "tasks": tasks,
        "cells": [asdict(cell) for cell in cells],
    }
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_benchmark(path: Path) -> StoredBenchmark:
    """Read what :func:`write_benchmark` wrote.

    Raises
    ------
    ValueError
        If the file holds something else.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    wanted = [field.name for field in fields(StoredBenchmark)]
    missing = [name for name in wanted if name not in content]
    if missing:
        raise ValueError(
            f"path must hold a finished benchmark; got {path.name} without {missing}. "
            "`sgdmc benchmark` writes benchmark.json."
        )
    return StoredBenchmark(
        Plan(**_tuples(content["plan"])),
        content["versions"],
        content["seconds"],
        content["tasks"],
        tuple(Cell(**_tuples(cell)) for cell in content["cells"]),
    )


def stored_benchmark() -> StoredBenchmark:
    """Return the benchmark that the package carries.

    Examples
    --------
    >>> from sgdmc.show.stored import stored_benchmark
    >>> stored_benchmark().plan.model
    'shipped'
    """
    return read_benchmark(Path(str(files("sgdmc.show") / "benchmark.json")))


def _tuples(content: dict[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in content.items()}
