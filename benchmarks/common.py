"""Timing, this machine's limits, and the table: what all benchmarks share.

A case runs peer and package in turn, at least five times each, in one process; its ratio is that of
the medians, and its answer is checked in the same function. Ratios are what to read: seconds depend
on what else the machine does, which is why the limits are measured in the same run.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numba
import numpy as np

from sgdmc._core import native, validate

RESULTS = Path(__file__).parent / "results"


@dataclass
class Row:
    """One line of the table."""

    task: str
    peer: str
    peer_seconds: float
    seconds: float
    target: float | None = None  # ratio asked for
    bound: str = ""  # what limits the task on this machine
    bound_seconds: float | None = None
    note: str = ""
    ratio: float = field(init=False)

    def __post_init__(self) -> None:
        self.ratio = self.peer_seconds / self.seconds

    @property
    def share(self) -> float | None:
        """Share of the machine's limit that is reached."""
        return None if self.bound_seconds is None else self.bound_seconds / self.seconds


# "wall": seconds on the clock. "processor": seconds of all threads of this process added, for a
# machine that is busy with other things; ratios are then those of one thread against one thread.
CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}
clock = {"name": "wall"}


def timed(task: Callable[[], Any]) -> float:
    now = CLOCKS[clock["name"]]
    start = now()
    task()
    return now() - start


def workers() -> int:
    """Threads whose work runs side by side, as far as the clock can tell."""
    return validate.as_threads(None) if clock["name"] == "wall" else 1


def in_turn(*tasks: Callable[[], Any], repeats: int = 5) -> list[float]:
    """Median seconds of each task; the tasks take turns, after one warm-up each."""
    for task in tasks:
        task()
    samples = [[timed(task) for task in tasks] for _ in range(repeats)]
    return [statistics.median(column) for column in zip(*samples, strict=True)]


@numba.njit
def _chase(follow: np.ndarray, steps: int, lanes: int) -> int:
    at = np.arange(lanes) * (len(follow) // lanes)
    for _ in range(steps):
        for lane in range(lanes):
            at[lane] = follow[at[lane]]
    return at.sum()


@numba.njit
def _triad(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> None:
    for i in range(len(a)):
        a[i] = b[i] + 3.0 * c[i]


@numba.njit
def _divide(x: float, steps: int) -> float:
    for _ in range(steps):
        x = 1.0 / (x + 1.0)
    return x


def division_seconds() -> float:
    """Seconds of an addition and a division that wait for each other."""
    _divide(0.5, 10)
    return min(timed(lambda: _divide(0.5, 100_000)) for _ in range(5)) / 100_000


@numba.njit(nogil=True)
def _increment(table: np.ndarray, cells: np.ndarray, passes: int) -> None:
    for _ in range(passes):
        for i in range(len(cells)):
            table[cells[i]] += 1


def increment_seconds(cells: np.ndarray, n_cells: int) -> float:
    """Seconds of one increment of a byte, the cells known beforehand and nothing else to do.

    All processors work side by side, each on a table of its own: they may share a cache.
    """
    tables = [np.zeros(n_cells, np.uint8) for _ in range(workers())]
    known, passes = cells.astype(np.uint32), 3
    with ThreadPoolExecutor(len(tables)) as pool:

        def all_of_them() -> None:
            list(pool.map(lambda table: _increment(table, known, passes), tables))

        all_of_them()
        return min(timed(all_of_them) for _ in range(9)) / (passes * len(known) * len(tables))


def flop_seconds(flops: float) -> float:
    """Seconds of so many additions and multiplications at the rate of BLAS's matrix product.

    The product runs on as many threads as BLAS takes by itself.
    """
    a = np.random.default_rng(0).random((768, 768))
    out = np.empty_like(a)
    np.dot(a, a, out=out)
    return flops * min(timed(lambda: np.dot(a, a, out=out)) for _ in range(5)) / (2 * 768**3)


def load_seconds(n_bytes: float, *, lanes: int = 1) -> float:
    """Seconds of one random load from a table of this size, on `lanes` independent chains."""
    n = max(int(n_bytes) // 8, 64)
    order = np.random.default_rng(0).permutation(n)
    follow = np.empty(n, dtype=np.int64)
    follow[order] = np.roll(order, -1)
    steps = 200_000 // lanes
    _chase(follow, 10, lanes)
    return min(timed(lambda: _chase(follow, steps, lanes)) for _ in range(5)) / (steps * lanes)


def machine_limits() -> dict[str, float]:
    """Bandwidths (bytes/s), load latencies (s) and generator rate (draws/s) of this machine."""
    a, b, c = (np.ones(8_000_000) for _ in range(3))
    _triad(a, b, c)
    copy, triad, fill = in_turn(
        lambda: np.copyto(a, b), lambda: _triad(a, b, c), lambda: a.fill(1.0), repeats=9
    )
    draws = min(timed(lambda: native.random_bits(0, 0, 0, 1 << 15)) for _ in range(50))
    limits = {
        "copy": 16 * a.size / copy,
        "triad": 24 * a.size / triad,
        "fill": 8 * a.size / fill,
        "draws": (1 << 15) / draws,
        "flops": 1 / flop_seconds(1.0),
    }
    for kib in (16, 256, 2048, 8192):
        limits[f"dependent load, {kib} KiB"] = load_seconds(kib * 1024)
        limits[f"independent loads, {kib} KiB"] = load_seconds(kib * 1024, lanes=16)
    return limits


def environment() -> dict[str, Any]:
    """Processor, flags, versions: what a figure means."""
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    lines = dict(line.split(":", 1) for line in info.splitlines() if ":" in line)
    fields = {key.strip(): value.strip() for key, value in lines.items()}
    packages = ("sgdmc", "numpy", "scipy", "numba", "torch", "quantecon", "deeptime", "POT")
    versions = {}
    for name in packages:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "absent"
    wanted = {"avx2", "avx512f", "avx512dq", "fma", "bmi2"}
    return {
        "processor": fields.get("model name", platform.processor()),
        "flags": sorted(wanted & set(fields.get("flags", "").split())),
        "processors": len(os.sched_getaffinity(0)),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "versions": versions,
    }


def show(rows: Iterable[Row], limits: dict[str, float]) -> None:
    """Print the table, with the limits above it."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=150)
    for name, value in limits.items():
        unit = f"{1e9 * value:.1f} ns" if value < 1 else f"{value / 1e9:.2f} G/s"
        console.print(f"{name}: {unit}", highlight=False)
    table = Table("task", "peer", "peer ms", "ms", "ratio", "wanted", "of the limit", "limit")
    for row in rows:
        wanted = "" if row.target is None else f"{row.target:g}"
        met = row.target is None or row.ratio >= row.target
        share = "" if row.share is None else f"{row.share:.0%}"
        table.add_row(
            row.task,
            row.peer,
            f"{1e3 * row.peer_seconds:.4g}",
            f"{1e3 * row.seconds:.4g}",
            f"{row.ratio:.3g}" if met else f"[bold]{row.ratio:.3g}[/bold]",
            wanted,
            share,
            row.bound,
        )
    console.print(table)


def write(path: Path, rows: Iterable[Row], limits: dict[str, float], **more: Any) -> None:
    """Write rows, limits and environment as JSON."""
    record = {
        "environment": {**environment(), "clock": clock["name"]},
        "limits": limits,
        "rows": [{**asdict(row), "share": row.share} for row in rows],
        **more,
    }
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n")
