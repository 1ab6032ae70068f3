"""Completion on its own: exact rows are masked, filled, and held against what they were."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sgdmc.chain.distances import total_variation, wasserstein1
from sgdmc.chain.grid import Grid
from sgdmc.forecasting.families import make_task
from sgdmc.sgd.exact import ulam_kernel
from sgdmc.transport.completion import COMPLETIONS, complete

__all__ = ["completion_errors"]

Array = NDArray[np.float64]


def completion_errors(
    *,
    gaps: Sequence[int] = (1, 3, 7, 15, 31),
    families: Sequence[str] = ("F2", "F4", "F5"),
    n_problems: int = 8,
    lag: int = 20,
    seed: int = 0,
) -> list[dict[str, str | int | float]]:
    """Measure the error of each completion by the width of the gap that it fills.

    The exact kernel of a problem of each family, by Ulam's method on 100 bins a coordinate, is
    lumped to its diagonal blocks under the uniform law. Of every block, stretches of ``gap`` rows
    are masked between stretches of four that stay, in the middle of the grid, and filled.

    Parameters
    ----------
    gaps : sequence of int
        Widths in bins.
    families : sequence of str
        Keys of :data:`sgdmc.forecasting.families.FAMILIES`, of two coordinates each.
    n_problems : int
        Problems a family.
    lag : int
        SGD steps of a kernel step.
    seed : int

    Returns
    -------
    list of dict
        One row a completion and gap: mean ``W1`` in bins, total variation, and the ratio of the
        filled rows' standard deviation to the true one (its median), with 95% bootstrap intervals
        of ``W1`` over blocks.
    """
    blocks = [
        block
        for family in families
        for index in range(n_problems)
        for block in _exact_blocks(family, index, lag, seed)
    ]
    rows: list[dict[str, str | int | float]] = []
    rng = np.random.default_rng(seed)
    for gap in gaps:
        seen = _mask(100, gap)
        for method in COMPLETIONS:
            errors, variations, ratios = [], [], []
            for block in blocks:
                filled = complete(block, seen, method=method)
                missing = np.flatnonzero(~seen)
                errors.append(
                    float(wasserstein1(block[missing], filled[missing], width=1.0).mean())
                )
                variations.append(float(total_variation(block[missing], filled[missing]).mean()))
                ratios.append(float(np.median(_sd(filled[missing]) / _sd(block[missing]))))
            table = np.array(errors)
            draws = table[rng.integers(len(table), size=(1000, len(table)))].mean(axis=1)
            low, high = np.quantile(draws, [0.025, 0.975])
            rows.append(
                {
                    "gap": gap,
                    "completion": method,
                    "W1 in bins": float(table.mean()),
                    "low": float(low),
                    "high": float(high),
                    "total variation": float(np.mean(variations)),
                    "sd ratio": float(np.median(ratios)),
                }
            )
    return rows


def _exact_blocks(family: str, index: int, lag: int, seed: int) -> Array:
    """Diagonal blocks (2, 100, 100) of one problem on the box of its starts."""
    task = make_task(family, index, seed=seed)
    grid = Grid.fit(np.stack([task.low, task.high]), digits=2)
    lumped: Array = ulam_kernel(
        task.problem,
        grid,
        step_size=task.step_size,
        batch_size=task.batch_size,
        lag=lag,
        points_per_cell=4,
        boundary="reflect",
        lump=np.ones(grid.n_states**grid.dim),
    )
    return lumped


def _mask(n: int, gap: int) -> NDArray[np.bool_]:
    """Which of ``n`` rows stay: all but stretches of ``gap`` between stretches of four."""
    states = np.arange(n)
    inside = (states >= 16) & (states < n - 16)
    return ~(inside & ((states - 16) % (gap + 4) < gap))


def _sd(rows: Array) -> Array:
    states = np.arange(rows.shape[1])
    means = rows @ states
    return np.sqrt(np.maximum(rows @ states**2 - means**2, 1e-12))
