"""Observed steps gathered in small cells of space: what a field of mean steps is fitted to.

Cells are of space, not of time: which steps a cell holds is decided by where they start, before
their noise is drawn, so that means over a cell are unbiased.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sgdmc.forecasting.var import noise_at, noise_line

__all__ = ["CellMeans", "Cells"]

Array = NDArray[np.float64]

# Extent of a cell in ranges, its growth while there are too many, and how many values of all
# coordinates together are not.
_EXTENT, _GROWTH, _MAX_VALUES = 0.035, 1.15, 300
# Iterates of the longest run, at least.
SHORTEST = 4


@dataclass(frozen=True)
class CellMeans:
    """Mean starts and steps of cells, in ranges.

    ``points`` and ``steps`` (k, dim); ``noise`` (k, dim) the variance of each mean step.
    """

    points: Array
    steps: Array
    noise: Array


@dataclass(frozen=True)
class Cells:
    """Single steps of all runs and the cells in which they start.

    Attributes
    ----------
    width : ndarray, shape (dim,)
        Ranges of the runs: points and steps are divided by them.
    points, steps : ndarray, shape (n, dim)
    cell : ndarray of int, shape (n,)
        Cell of each step.
    """

    width: Array
    points: Array
    steps: Array
    cell: NDArray[np.int64]

    @classmethod
    def of(cls, paths: Sequence[Array], width: Array) -> Cells:
        """Gather the steps of runs.

        Raises
        ------
        ValueError
            If no run has four iterates.
        """
        longest = max(len(p) for p in paths)
        if longest < SHORTEST:
            raise ValueError(
                f"paths must hold a run of at least {SHORTEST} iterates; the longest has "
                f"{longest}. Observe more steps."
            )
        scaled = [p / width for p in paths if len(p) > 1]
        points = np.concatenate([z[:-1] for z in scaled])
        steps = np.concatenate([np.diff(z, axis=0) for z in scaled])
        extent = _EXTENT
        parts = _split(points, extent)
        while len(parts) * len(width) > _MAX_VALUES:
            extent *= _GROWTH
            parts = _split(points, extent)
        cell = np.empty(len(points), dtype=np.int64)
        for k, part in enumerate(parts):
            cell[part] = k
        return cls(width, points, steps, cell)

    def means(self, drift: Array) -> CellMeans:
        """Average each cell, steps weighing the inverse of their noise.

        Parameters
        ----------
        drift : ndarray, shape (n, dim)
            What the mean of each step is taken to be, in ranges: the noise is what is left, its
            variance a line in the squared drift (:func:`sgdmc.forecasting.var.noise_line`).
        """
        left, push = (self.steps - drift) * self.width, drift * self.width
        variance = noise_at(push, noise_line(push, left))
        share = (left**2 / variance[:, None]).mean(axis=0)
        total = share.sum()
        share = share / total if total > 0 else np.full(len(share), 1.0 / len(share))
        weight = 1.0 / variance
        mass = np.bincount(self.cell, weight)
        noise = share / mass[:, None] / self.width**2
        return CellMeans(
            self._mean(self.points, weight) / mass[:, None],
            self._mean(self.steps, weight) / mass[:, None],
            noise,
        )

    def _mean(self, values: Array, weight: Array) -> Array:
        return np.stack([np.bincount(self.cell, weight * v) for v in values.T], axis=1)


def _split(points: Array, extent: float) -> list[NDArray[np.int64]]:
    """Halve boxes along their longest side until none is longer than ``extent``."""
    done, left = [], [np.arange(len(points))]
    while left:
        part = left.pop()
        low, high = points[part].min(axis=0), points[part].max(axis=0)
        side = int((high - low).argmax())
        if high[side] - low[side] <= extent:
            done.append(part)
            continue
        lower = points[part, side] <= (low[side] + high[side]) / 2
        left += [part[lower], part[~lower]]
    return done
