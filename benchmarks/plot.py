"""Figures of the benchmark's results: speed against peers, and scaling."""

from __future__ import annotations

import json
from typing import Any

from benchmarks.common import RESULTS


def bars(rows: list[dict[str, Any]], axes: Any) -> None:
    """How many times faster than each peer; the ratio asked for is a red tick."""
    labels = [f"{row['task']}\nagainst {row['peer']}" for row in rows]
    places = range(len(rows))[::-1]
    axes.barh(places, [row["ratio"] for row in rows], color="#4878a8", height=0.7)
    for place, row in zip(places, rows, strict=True):
        if row["target"] is not None:
            axes.plot([row["target"]] * 2, [place - 0.45, place + 0.45], color="#c44e52", lw=2)
        axes.text(row["ratio"] * 1.1, place, f"{row['ratio']:.3g}", va="center", fontsize=6)
    axes.set_yticks(list(places), labels, fontsize=5.5)
    axes.set_xscale("log")
    axes.set_xlim(0.5, 5 * max(row["ratio"] for row in rows))
    axes.set_xlabel("times faster than the peer (red: asked for)")


def main() -> None:
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.fonttype"] = "none"
    import matplotlib.pyplot as plt

    record = json.loads((RESULTS / "core.json").read_text())
    rows = record["rows"]
    figure, axes = plt.subplots(figsize=(7, 1 + 0.32 * len(rows)), layout="constrained")
    bars(rows, axes)
    figure.savefig(RESULTS / "speed.svg")
    figure.savefig(RESULTS / "speed.png", dpi=150)
    plt.close(figure)
    found = record.get("sgd_scaling", [])
    if not found:
        return
    figure, panels = plt.subplots(1, 3, figsize=(8, 2.6), layout="constrained", sharey=True)
    for axis, panel in zip(("chains", "steps", "threads"), panels, strict=True):
        points = [point for point in found if point["axis"] == axis]
        panel.plot(
            [point["size"] for point in points],
            [1e9 * point["seconds"] / point["steps"] for point in points],
            "o-",
            color="#4878a8",
        )
        panel.set_xscale("log", base=2 if axis == "threads" else 10)
        panel.set_yscale("log")
        panel.set_xlabel(axis)
    panels[0].set_ylabel("ns a step")
    figure.savefig(RESULTS / "scaling.svg")
    figure.savefig(RESULTS / "scaling.png", dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    main()
