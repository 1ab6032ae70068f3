"""Coordinates in which one chain a coordinate is right: rotate until they decouple.

For a quadratic, ``E[theta_{t+lag} | theta_t] = A theta_t + c`` with ``A = (I − γH)^lag``; in the
eigen-coordinates of ``A`` the means decouple exactly. Which coordinates to use is decided by the
likelihood of held-out steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import scipy.linalg
from numpy.typing import ArrayLike, NDArray

from sgdmc.chain.kernel import Coordinates
from sgdmc.forecasting.var import lagged_pairs, var1_fit

__all__ = ["choose_coordinates"]

Array = NDArray[np.float64]

_MAX_CONDITION = 50.0
_N_FOLDS = 5


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
        ``"auto"`` takes the one with the higher held-out likelihood of observed steps.
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
    raw_score, rotated_score = _held_out(before, after, values, lag)
    pair = f"held-out log-likelihood a step {rotated_score:.3f} rotated, {raw_score:.3f} raw"
    if rotated_score > raw_score + 0.01:
        return rotated, "rotated", f"rotated to VAR(1) eigen-coordinates: {pair}"
    return identity, "blocks", f"coordinates as they are: {pair}"


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


def _held_out(before: Array, after: Array, values: Array, lag: int) -> tuple[float, float]:
    """Mean Gaussian log-likelihood of held-out steps: raw coordinates, VAR(1) coordinates.

    Folds are contiguous; pairs within one lag of a fold are dropped from its training set.
    """
    dim = values.shape[1]
    moving = np.ptp(values, axis=0) > 0
    before, after = before[:, moving], after[:, moving]
    if moving.sum() < 2:
        return 0.0, 0.0
    edges = np.linspace(0, len(before), _N_FOLDS + 1).astype(int)
    totals = np.zeros(2)
    for first, last in pairwise(edges):
        keep = np.ones(len(before), dtype=bool)
        keep[max(0, first - lag) : last + lag] = False
        if keep.sum() < 4 * dim:
            keep = np.ones(len(before), dtype=bool)
            keep[first:last] = False
        x, y = before[keep], after[keep]
        for which, basis in enumerate((np.eye(x.shape[1]), _var1_basis(x, y, lag))):
            inverse = np.linalg.inv(basis).T
            score = np.linalg.slogdet(inverse)[1]
            u, v = x @ inverse, y @ inverse
            s, w = before[first:last] @ inverse, after[first:last] @ inverse
            for i in range(u.shape[1]):
                fit = var1_fit(u[:, i : i + 1], v[:, i : i + 1], n_passes=1)
                # Errors below a thousandth of the range are below the bins: they must not decide.
                floor = (1e-3 * float(np.ptp(v[:, i]))) ** 2
                variance = max(float((fit.residuals**2).mean()), floor)
                error = w[:, i] - s[:, i] * fit.matrix[0, 0] - fit.shift[0]
                score = score - 0.5 * (error**2 / variance + np.log(2 * np.pi * variance))
            totals[which] += float(np.sum(score))
    return float(totals[0] / len(before)), float(totals[1] / len(before))
