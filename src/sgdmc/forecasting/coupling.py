"""Coordinates in which one chain a coordinate is right: rotate until they decouple.

For a quadratic, ``E[theta_{t+lag} | theta_t] = A theta_t + c`` with ``A = (I − γH)^lag``; in the
eigen-coordinates of ``A`` the means decouple exactly. Which coordinates to use is decided by how
well a coupled law explains the observed steps.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.linalg
from numpy.typing import ArrayLike, NDArray

from sgdmc.chain.kernel import Coordinates
from sgdmc.forecasting.cells import SHORTEST
from sgdmc.forecasting.field import GradientField
from sgdmc.forecasting.var import lagged_pairs, var1_fit

__all__ = ["choose_coordinates", "choose_field"]

Array = NDArray[np.float64]

_MAX_CONDITION = 50.0


def choose_coordinates(
    paths: Sequence[Array], lag: int, *, coupling: str, basis: ArrayLike | None = None
) -> tuple[Coordinates, str, str]:
    """Choose the coordinates of a kernel of one-coordinate chains.

    Parameters
    ----------
    paths : sequence of ndarray, each (T_c, dim)
    lag : int
    coupling : {"auto", "blocks", "rotated"}
        ``"blocks"`` keeps the coordinates; ``"rotated"`` takes the eigenvectors of a VAR(1) fit
        (its real Schur vectors where eigenvalues are complex or eigenvectors nearly parallel);
        ``"auto"`` takes the latter where a coupled linear law has the better Bayesian information
        criterion on the observed steps.
    basis : array_like, shape (dim, dim), or "pca", optional
        Columns used instead of the VAR(1) eigenvectors.

    Returns
    -------
    coordinates : Coordinates
    chosen : {"blocks", "rotated"}
    reason : str
    """
    dim = paths[0].shape[1]
    values = np.concatenate(list(paths))
    identity = Coordinates.identity(dim)
    if dim == 1 or (coupling == "blocks" and basis is None):
        return identity, "blocks", "coordinates as they are"
    before, after = lagged_pairs(paths, lag)
    given = _basis_of(before, after, values, basis, lag)
    rotated = Coordinates(given, values.mean(axis=0))
    if coupling == "rotated" or basis is not None:
        return rotated, "rotated", "coordinates rotated as asked"
    if _collinear(values):
        return rotated, "rotated", "rotated to VAR(1) eigen-coordinates: the runs lie on a line"
    gain = _evidence(before, after, lag)
    if gain > 0:
        return rotated, "rotated", f"rotated to VAR(1) eigen-coordinates: BIC better by {gain:.1f}"
    return identity, "blocks", f"coordinates as they are: BIC of a coupled law worse by {-gain:.1f}"


def choose_field(paths: Sequence[Array], *, convex: bool | None = None) -> GradientField | None:
    """Fit a field to runs, where there is one to fit.

    Parameters
    ----------
    paths : sequence of ndarray, each (T_c, dim)
    convex : bool, optional
        What is known of the loss, as in :meth:`GradientField.fit`.

    Returns
    -------
    GradientField or None
        None for fewer than four iterates.
    """
    if max(len(p) for p in paths) < SHORTEST:
        return None
    return GradientField.fit(paths, convex=convex)


def _basis_of(
    before: Array, after: Array, values: Array, basis: ArrayLike | None, lag: int
) -> Array:
    dim = values.shape[1]
    if isinstance(basis, str):
        if basis != "pca":
            raise ValueError(f"basis must be 'pca' or an array ({dim}, {dim}); got {basis!r}.")
        return np.linalg.svd(values - values.mean(axis=0), full_matrices=False)[2].T
    if basis is not None:
        given = np.asarray(basis, dtype=np.float64)
        if given.shape != (dim, dim):
            raise ValueError(f"basis must have shape ({dim}, {dim}); got {given.shape}.")
        return given
    return _var1_basis(before, after, lag)


def _var1_basis(before: Array, after: Array, lag: int) -> Array:
    matrix = var1_fit(before, after, lag=lag).matrix
    eigenvalues, vectors = np.linalg.eig(matrix)
    if np.abs(eigenvalues.imag).max() < 1e-12:
        real = np.ascontiguousarray(vectors.real)
        if np.linalg.cond(real) < _MAX_CONDITION:
            return real
    return np.ascontiguousarray(scipy.linalg.schur(matrix, output="real")[1])


def _collinear(values: Array) -> bool:
    """Whether the runs leave some direction untouched, up to a thousandth of their range."""
    width = np.ptp(values, axis=0)
    scaled = (values - values.mean(axis=0)) / np.where(width > 0, width, 1.0)
    spread = np.linalg.svd(scaled[:, width > 0], compute_uv=False)
    return bool(len(spread) > 1 and spread[-1] < 1e-3 * spread[0])


def _evidence(before: Array, after: Array, lag: int) -> float:
    """By how much the Bayesian information criterion prefers a coupled linear law to lines.

    Both are fitted to all pairs, which weigh the inverse of their noise: an early stretch held out
    would be judged by an extrapolation, and decide. Overlapping windows count as ``1/lag`` each.
    """
    moving = np.ptp(before, axis=0) > 0
    x, y = before[:, moving], after[:, moving]
    dim = x.shape[1]
    if dim < 2:
        return -np.inf
    law = var1_fit(x, y, lag=lag)
    w = law.weights
    gap_x, gap_y = x - w @ x, y - w @ y
    slopes = (w @ (gap_x * gap_y)) / np.maximum(w @ gap_x**2, 1e-300)
    # Errors below a thousandth of the range are below the bins: they must not decide.
    floor = (1e-3 * np.ptp(y, axis=0)) ** 2
    alone = np.log(w @ (gap_y - gap_x * slopes) ** 2 + floor).sum()
    coupled = np.log(w @ law.residuals**2 + floor).sum()
    n = max(len(x) / lag, 2.0)
    extra = dim * (dim - 1) / (2 if law.symmetric else 1)
    return float(n * (alone - coupled) - extra * np.log(n))
