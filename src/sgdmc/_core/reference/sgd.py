"""Constant-step SGD on the built-in problems, all chains at once, in plain NumPy.

The order of additions is that of the compiled kernels, so that results agree bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from sgdmc._core.reference.random import bounded, draw_bits, keys_of, logistic, sine_cosine

__all__ = ["batches", "run_sgd", "sample_gradient"]

DIVERGED = 1e12  # |theta| beyond it counts as divergence

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


def batches(
    seed: int, n_chains: int, n_samples: int, n_steps: int, batch_size: int, replacement: bool
) -> Iterator[Indices]:
    """Samples of each step's batches, shape (n_chains, batch_size).

    With replacement, draw number t of a chain is ``bounded(bits(t), n_samples)``. Without, the
    draws of one epoch are an incremental Fisher–Yates shuffle, begun anew at each epoch: draw t
    still uses random number t and no other.
    """
    offset, twist = keys_of(seed, np.arange(n_chains, dtype=np.uint64))
    chains = np.arange(n_chains)
    order = np.empty((n_samples, n_chains), dtype=np.int64)
    for step in range(n_steps):
        chosen = np.empty((batch_size, n_chains), dtype=np.int64)
        for k in range(batch_size):
            draw = step * batch_size + k
            bits = draw_bits(offset, twist, np.array([draw], dtype=np.uint64))
            if replacement:
                chosen[k] = bounded(bits, n_samples)
                continue
            position = draw % n_samples
            if position == 0:
                order[:] = np.arange(n_samples)[:, None]
            other = position + bounded(bits, n_samples - position).astype(np.int64)
            chosen[k] = order[other, chains]
            order[other, chains] = order[position]
            order[position] = chosen[k]
        yield chosen.T


def sample_gradient(kind: str, records: Floats, theta: Floats, index: Indices) -> Floats:
    """Gradients of one sample a chain: `theta` (n_chains, dim), `index` (n_chains,)."""
    chosen = records[index]
    if kind == "sine":
        x, y = chosen[:, 0], chosen[:, 1]
        s, c = sine_cosine(theta[:, 1] * x)
        r = theta[:, 0] * s - y
        return np.stack([r * s, (r * theta[:, 0]) * (x * c)], axis=1)
    dim = theta.shape[1]
    margin = chosen[:, 0] * theta[:, 0]
    for j in range(1, dim):
        margin = margin + chosen[:, j] * theta[:, j]
    if kind == "logistic":
        margin = logistic(margin)
    return (margin - chosen[:, dim])[:, None] * chosen[:, :dim]


def run_sgd(
    kind: str,
    records: Floats,
    l2: float,
    start: Floats,
    step_size: float,
    n_steps: int,
    batch_size: int,
    replacement: bool,
    seed: int,
    thin: int,
    out: Floats,
    n_threads: int = 1,
) -> tuple[int, int]:
    """Run SGD from `start` (n_chains, dim) into `out` (n_chains, n_steps // thin + 1, dim).

    Returns step and chain of the first divergence (NaN, or a coordinate beyond 1e12), or (-1, -1).
    """

    def total(theta: Floats, chosen: Indices) -> Floats:
        result = np.zeros_like(theta)
        for index in chosen.T:
            result = result + sample_gradient(kind, records, theta, index)
        return result

    decay = step_size * l2
    scale = step_size / batch_size

    def update(theta: Floats, chosen: Indices) -> Floats:
        moved = scale * total(theta, chosen)
        return theta - (moved + decay * theta if decay else moved)

    return _run(update, len(records), start, n_steps, batch_size, replacement, seed, thin, out)


def run_with_gradient(
    gradient: Callable[[Floats, Indices], Floats],
    n_samples: int,
    start: Floats,
    step_size: float,
    n_steps: int,
    batch_size: int,
    replacement: bool,
    seed: int,
    thin: int,
    out: Floats,
) -> tuple[int, int]:
    """Run SGD with a mean gradient ``(theta (n_chains, dim), chosen (n_chains, batch_size))``."""

    def update(theta: Floats, chosen: Indices) -> Floats:
        return theta - step_size * gradient(theta, chosen)

    return _run(update, n_samples, start, n_steps, batch_size, replacement, seed, thin, out)


def _run(
    update: Callable[[Floats, Indices], Floats],
    n_samples: int,
    start: Floats,
    n_steps: int,
    batch_size: int,
    replacement: bool,
    seed: int,
    thin: int,
    out: Floats,
) -> tuple[int, int]:
    theta = start.copy()
    out[:, 0] = theta
    draws = batches(seed, len(start), n_samples, n_steps // thin * thin, batch_size, replacement)
    for step, chosen in enumerate(draws, start=1):
        with np.errstate(over="ignore", invalid="ignore"):
            theta = update(theta, chosen)
        bad = ~(np.abs(theta) <= DIVERGED)
        if bad.any():
            return step, int(np.argmax(bad.any(axis=1)))
        if step % thin == 0:
            out[:, step // thin] = theta
    return -1, -1
