"""What the noise of steps tells of the gradient's field before its means do.

Samples that pull in a direction scatter there, so that curvature has the noise's shape; and the
noise of a squared loss grows with the drift, where that of a link that saturates does not.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sgdmc.forecasting.cells import Cells
from sgdmc.forecasting.curlfree import Space
from sgdmc.forecasting.var import noise_at

__all__ = ["saturation_odds", "space_of"]

Array = NDArray[np.float64]

# Share, in logarithms, of the noise's shape that the curvature is expected to have: all of it by
# Fisher's identity at the minimum, none where a link saturates. Steps that count as round noise,
# and the least variance of a direction over the largest.
_SHAPED, _ROUND, _FLATTEST = 0.5, 10.0, 0.01
# Logarithm of the odds that scores saturate: a line in that of how much louder steps are where SGD
# moves fastest than at rest, and its least and largest value. The noise of a squared loss grows
# with the residuals, that of a saturating link is bounded (on problems of another seed than the
# benchmark's the middle half of these logarithms is 2.8 to 5, and 0 to 1.6); but noise that does
# not grow may be of another kind.
_LOUD, _STEEP, _LEAST_ODDS, _MOST_ODDS = 2.5, 2.0, -4.0, 1.0


def saturation_odds(drift: Array, line: Array) -> float:
    """Logarithm of the prior odds of links that saturate.

    Parameters
    ----------
    drift : ndarray, shape (k, dim)
        Mean steps along the runs.
    line : ndarray, shape (3,)
        Variance of a step as a line in the squared drift.
    """
    squares = np.sort((drift**2).sum(axis=1))
    most = squares[-max(1, len(squares) // 50) :].mean()
    rest = max(line[0], line[2])
    louder = np.log1p(line[1] * most / rest)
    return float(np.clip(_STEEP * (_LOUD - louder), _LEAST_ODDS, _MOST_ODDS))


def space_of(cells: Cells, drift: Array, line: Array, centre: Array) -> Space:
    """Curvature and zero that a field is expected to have.

    Parameters
    ----------
    cells : Cells
        Steps along the runs.
    drift : ndarray, shape (k, dim)
        Their means in ranges.
    line : ndarray, shape (3,)
        Variance of a step as a line in the squared drift.
    centre : ndarray, shape (dim,)
        What is subtracted from points in ranges.
    """
    width = cells.width
    left, push = (cells.steps - drift) * width, drift * width
    dim = len(width)
    weight = 1.0 / noise_at(push, line)[:, None]
    # Of the noise that comes with the drift a Gaussian's fourth moments put this share along it.
    along = line[1] / (dim + 1)
    scatter = left.T @ (weight * left) - along * push.T @ (weight * push)
    scatter += _ROUND * np.trace(scatter) / (len(left) * dim) * np.eye(dim)
    values, vectors = np.linalg.eigh(scatter)
    shape = np.maximum(values / (values[-1] or 1.0), _FLATTEST) ** _SHAPED
    common = (vectors * shape) @ vectors.T * width[:, None] * width
    unit = width / np.sqrt((width**2).mean())
    reach = np.sqrt(((cells.points * unit) ** 2).sum(axis=1).max())
    return Space(common * dim / (shape.sum() * (width**2).mean()), -centre, unit / (reach or 1.0))
