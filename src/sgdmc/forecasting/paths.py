"""What several forecasts ask of observed paths: their tails and their ranges."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["ranges_of", "tail_of"]

Array = NDArray[np.float64]

_TAIL_SHARE = 0.2


def tail_of(path: Array, *, at_least: int = 2) -> Array:
    """Return the last fifth of a path, ``at_least`` so many iterates."""
    return path[len(path) - max(at_least, round(_TAIL_SHARE * len(path))) :]


def ranges_of(paths: Sequence[Array]) -> Array:
    """Range of each coordinate over all paths, 1 where it is constant."""
    width = np.ptp(np.concatenate(list(paths)), axis=0)
    return np.where(width > 0, width, 1.0)
