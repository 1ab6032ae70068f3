"""Ulam's method in plain NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from sgdmc._core.reference.sgd import sample_gradient

__all__ = ["cell_points", "cells_of", "ulam_count", "ulam_step"]

Array = NDArray[np.float64]
Rows = tuple[NDArray[np.int64], NDArray[np.int32], Array]
OUTSIDE, REFLECT, CLIP = range(3)


def cells_of(images: Array, low: Array, scale: Array, n_states: int, boundary: int) -> Array:
    """Cells of images (..., dim), last coordinate fastest; ``n_states**dim`` is outside."""
    y = (images - low) * scale
    lost = np.isnan(y)
    if boundary == OUTSIDE:
        lost |= (y < 0) | (y >= n_states)
    elif boundary == REFLECT:
        with np.errstate(invalid="ignore"):
            beyond = np.isfinite(y) & ((y < 0) | (y >= n_states))
            folded = np.fmod(np.abs(y), 2 * n_states)
        y = np.where(beyond, np.where(folded >= n_states, 2 * n_states - folded, folded), y)
    bins = np.clip(np.where(lost, 0.0, y), 0, n_states - 1).astype(np.int64)
    cells = np.zeros(images.shape[:-1], dtype=np.int64)
    for j in range(images.shape[-1]):
        cells = cells * n_states + bins[..., j]
    return np.where(lost.any(axis=-1), n_states ** images.shape[-1], cells)


def cell_points(cells: NDArray[np.int64], points: Array, low: Array, scale: Array, n: int) -> Array:
    """Parameters (n_cells, n_points, dim) of `points` (n_points, dim), in [0, 1), in each cell."""
    dim = len(low)
    powers = n ** np.arange(dim - 1, -1, -1)
    bins = (cells[:, None] // powers) % n
    return np.asarray(low + (bins[:, None, :] + points) * (1.0 / scale))


def ulam_count(
    images: Array,
    weights: Array,
    low: Array,
    scale: Array,
    n_states: int,
    boundary: int,
    n_threads: int,
) -> Rows:
    """Rows counted from images (n_rows, n_images, dim), each with its weight (n_images,)."""
    n_rows, n_images, dim = images.shape
    cells = cells_of(images, low, scale, n_states, boundary)
    rows = np.repeat(np.arange(n_rows), n_images)
    data: Any = np.tile(weights, n_rows)
    counts = sp.csr_array((data, (rows, cells.ravel())), shape=(n_rows, n_states**dim + 1))
    counts.sum_duplicates()
    return (
        counts.indptr.astype(np.int64),
        counts.indices.astype(np.int32),
        counts.data / weights.sum(),
    )


def ulam_step(
    kind: str,
    records: Array,
    l2: float,
    step_size: float,
    points: Array,
    batches: NDArray[np.uint32],
    weights: Array,
    low: Array,
    scale: Array,
    n_states: int,
    boundary: int,
    n_threads: int,
) -> Rows:
    """Rows counted from one SGD step, each batch from each point of each cell."""
    n_cells = n_states ** len(low)
    theta = cell_points(np.arange(n_cells), points, low, scale, n_states)
    images = np.empty((n_cells, len(points), len(batches), len(low)))
    flat = theta.reshape(-1, len(low))
    for k, batch in enumerate(batches):
        total = np.zeros_like(flat)
        for i in batch:
            total = total + sample_gradient(kind, records, flat, np.full(len(flat), i))
        moved = step_size / len(batch) * total
        image = flat - (moved + step_size * l2 * flat if l2 else moved)
        images[:, :, k] = image.reshape(theta.shape)
    images = images.reshape(n_cells, -1, len(low))
    return ulam_count(
        images, np.tile(weights, len(points)), low, scale, n_states, boundary, n_threads
    )
