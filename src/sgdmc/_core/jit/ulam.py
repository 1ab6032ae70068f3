"""Ulam's method in numba."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgdmc._core.jit.compiler import compiled
from sgdmc._core.jit.sgd import _linear, _sine

__all__ = ["ulam_count", "ulam_step"]

Array = NDArray[np.float64]
Rows = tuple[NDArray[np.int64], NDArray[np.int32], Array]


@compiled
def _cell_of(x: Any, low: Any, scale: Any, n_states: int, boundary: int) -> int:
    cell = 0
    for j in range(len(low)):
        y = (x[j] - low[j]) * scale[j]
        if not (y >= 0 and y < n_states):
            if boundary == 0 or np.isnan(y):
                return int(n_states ** len(low))
            if boundary == 1 and np.isfinite(y):
                y = np.fmod(abs(y), 2.0 * n_states)
                if y >= n_states:
                    y = 2.0 * n_states - y
            y = min(max(y, 0.0), n_states - 1.0)
        cell = cell * n_states + int(y)
    return cell


@compiled
def _row(images: Any, weights: Any, low: Any, scale: Any, n: int, boundary: int) -> Any:
    """Sorted cells of one row's images, and the weight that each received."""
    cells = np.empty(len(images), dtype=np.int64)
    for i in range(len(images)):
        cells[i] = _cell_of(images[i], low, scale, n, boundary)
    order = np.argsort(cells, kind="mergesort")
    columns = np.empty(len(images), dtype=np.int32)
    counts = np.empty(len(images))
    size = 0
    for i in order:
        if size == 0 or columns[size - 1] != cells[i]:
            columns[size] = cells[i]
            counts[size] = 0.0
            size += 1
        counts[size - 1] += weights[i]
    return columns[:size], counts[:size] / weights.sum()


@compiled
def _step(
    kind: int,
    records: Any,
    rate: float,
    decay: float,
    cell: int,
    points: Any,
    batches: Any,
    low: Any,
    scale: Any,
    n_states: int,
    images: Any,
) -> None:
    """Images of the points of one cell, (n_points * n_batches, dim)."""
    dim = len(low)
    theta = np.empty(dim)
    total = np.empty(dim)
    for p in range(len(points)):
        rest = cell
        for j in range(dim - 1, -1, -1):
            theta[j] = low[j] + (rest % n_states + points[p, j]) * (1.0 / scale[j])
            rest //= n_states
        for k in range(len(batches)):
            total[:] = 0.0
            for i in batches[k]:
                if kind == 2:
                    _sine(records[i], theta, total)
                else:
                    _linear(records[i], theta, kind == 1, total)
            for j in range(dim):
                moved = rate * total[j]
                if decay != 0.0:
                    moved = moved + decay * theta[j]
                images[p * len(batches) + k, j] = theta[j] - moved


def _stacked(parts: list[tuple[Any, Any]]) -> Rows:
    starts = np.zeros(len(parts) + 1, dtype=np.int64)
    np.cumsum([len(columns) for columns, _ in parts], out=starts[1:])
    if not parts:
        return starts, np.empty(0, dtype=np.int32), np.empty(0)
    return starts, np.concatenate([c for c, _ in parts]), np.concatenate([v for _, v in parts])


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
    return _stacked([_row(x, weights, low, scale, n_states, boundary) for x in images])


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
    code = {"least_squares": 0, "logistic": 1, "sine": 2}[kind]
    images = np.empty((len(points) * len(batches), len(low)))
    repeated = np.tile(weights, len(points))
    rate, decay = step_size / batches.shape[1], step_size * l2
    parts = []
    for cell in range(n_states ** len(low)):
        _step(
            code, records, rate, decay, cell, points, batches, low, scale, n_states, images
        )  # fmt: skip
        parts.append(_row(images, repeated, low, scale, n_states, boundary))
    return _stacked(parts)
