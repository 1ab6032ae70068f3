"""What several forecasts ask of observed paths: their tails, ranges and directions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["covering", "directions_of", "ranges_of", "tail_of"]

Array = NDArray[np.float64]

_TAIL_SHARE = 0.2
# Spread of steps, of that in other directions, below which there are none.
_STILL = 1e-6


def tail_of(path: Array, *, at_least: int = 2) -> Array:
    """Return the last fifth of a path, ``at_least`` so many iterates."""
    return path[len(path) - max(at_least, round(_TAIL_SHARE * len(path))) :]


def ranges_of(paths: Sequence[Array]) -> Array:
    """Range of each coordinate over all paths, 1 where it is constant."""
    width = np.ptp(np.concatenate(list(paths)), axis=0)
    return np.where(width > 0, width, 1.0)


def covering(values: Array, cover: ArrayLike | None) -> Array:
    """Values (n, dim) and the points (m, dim) that a grid has to span beside them, if any."""
    if cover is None:
        return values
    return np.concatenate([values, np.atleast_2d(np.asarray(cover, dtype=np.float64))])


def directions_of(paths: Sequence[Array]) -> Array:
    """Orthonormal directions in which the runs took steps: (dim, r), at least one.

    Those of the coordinates, but where the steps of several lie in fewer directions.
    """
    steps = np.concatenate([np.diff(p, axis=0) for p in paths])
    size = np.sqrt((steps**2).mean(axis=0))
    unit = np.eye(steps.shape[1])
    moving = np.flatnonzero(size > 0)
    if not len(moving):
        return unit[:, :1]
    # Each coordinate in its own size: units do not matter.
    spread, rows = np.linalg.svd(steps[:, moving] / size[moving], full_matrices=False)[1:]
    rank = int((spread > _STILL * spread[0]).sum())
    if rank == len(moving):
        return unit[:, moving]
    return np.asarray(unit[:, moving] @ np.linalg.qr((rows[:rank] * size[moving]).T)[0])
