"""Constant-step SGD in numba, one chain after the other, for built-in and for users' problems."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from sgdmc._core.jit.compiler import compiled
from sgdmc._core.jit.random import bounded, draw, logistic_of, sine_cosine_of
from sgdmc._core.reference.random import keys_of
from sgdmc._core.reference.sgd import DIVERGED

__all__ = ["run_sgd", "run_sgd_with"]

Floats = NDArray[np.float64]


@compiled
def _next_sample(offset: Any, twist: Any, number: int, order: Any, n_samples: int) -> Any:
    """Sample number `number` of a chain; `order` is empty when drawing with replacement."""
    bits = draw(offset, twist, np.uint64(number))
    if len(order) == 0:
        return np.int64(bounded(bits, np.uint64(n_samples)))
    position = number % n_samples
    if position == 0:
        for k in range(n_samples):
            order[k] = k
    other = position + np.int64(bounded(bits, np.uint64(n_samples - position)))
    chosen = order[other]
    order[other] = order[position]
    order[position] = chosen
    return np.int64(chosen)


@compiled
def _linear(record: Any, theta: Any, logistic: bool, total: Any) -> None:
    dim = len(theta)
    margin = record[0] * theta[0]
    for j in range(1, dim):
        margin = margin + record[j] * theta[j]
    if logistic:
        margin = logistic_of(margin)
    r = margin - record[dim]
    for j in range(dim):
        total[j] = total[j] + r * record[j]


@compiled
def _sine(record: Any, theta: Any, total: Any) -> None:
    s, c = sine_cosine_of(theta[1] * record[0])
    r = theta[0] * s - record[1]
    total[0] = total[0] + r * s
    total[1] = total[1] + (r * theta[0]) * (record[0] * c)


@compiled
def _builtin_chain(
    kind: int,
    records: Any,
    scale: float,
    decay: float,
    n_steps: int,
    batch_size: int,
    order: Any,
    offset: Any,
    twist: Any,
    thin: int,
    out: Any,
) -> int:
    theta = out[0].copy()
    total = np.empty_like(theta)
    for step in range(1, n_steps + 1):
        total[:] = 0.0
        for k in range(batch_size):
            number = (step - 1) * batch_size + k
            i = _next_sample(offset, twist, number, order, len(records))
            if kind == 2:
                _sine(records[i], theta, total)
            else:
                _linear(records[i], theta, kind == 1, total)
        for j in range(len(theta)):
            moved = scale * total[j]
            if decay != 0.0:
                moved = moved + decay * theta[j]
            theta[j] = theta[j] - moved
        for j in range(len(theta)):
            if not abs(theta[j]) <= DIVERGED:
                return step
        if step % thin == 0:
            out[step // thin] = theta
    return -1


@numba.njit(nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _custom_chain(
    gradient: Any,
    n_samples: int,
    step_size: float,
    n_steps: int,
    batch_size: int,
    order: Any,
    offset: Any,
    twist: Any,
    thin: int,
    out: Any,
) -> int:
    theta = out[0].copy()
    for step in range(1, n_steps + 1):
        total = np.zeros_like(theta)
        for k in range(batch_size):
            number = (step - 1) * batch_size + k
            total += gradient(theta, _next_sample(offset, twist, number, order, n_samples))
        theta = theta - (step_size / batch_size) * total
        for j in range(len(theta)):
            if not abs(theta[j]) <= DIVERGED:
                return step
        if step % thin == 0:
            out[step // thin] = theta
    return -1


def _each_chain(
    run: Callable[[Any, Any, Any, Any], int],
    seed: int,
    n_samples: int,
    replacement: bool,
    start: Floats,
    out: Floats,
    n_threads: int,
) -> tuple[int, int]:
    """Call ``run(order, offset, twist, out[chain])`` on threads; earliest step and lowest chain."""
    out[:, 0] = start
    offsets, twists = keys_of(seed, np.arange(len(start), dtype=np.uint64))

    def block(first: int) -> list[tuple[int, int]]:
        found = []
        order = np.empty(0 if replacement else n_samples, dtype=np.int64)
        for chain in range(first, len(start), n_threads):
            step = int(run(order, offsets[chain], twists[chain], out[chain]))
            if step >= 0:
                found.append((step, chain))
        return found

    n_threads = min(n_threads, len(start))
    if n_threads <= 1:
        failures = block(0)
    else:
        with ThreadPoolExecutor(n_threads) as pool:
            failures = [pair for pairs in pool.map(block, range(n_threads)) for pair in pairs]
    return min(failures, default=(-1, -1))


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

    Returns step and chain of the first divergence, or (-1, -1).
    """
    code = {"least_squares": 0, "logistic": 1, "sine": 2}[kind]
    scale, decay, steps = step_size / batch_size, step_size * l2, n_steps // thin * thin

    def run(order: Any, offset: Any, twist: Any, path: Any) -> int:
        return _builtin_chain(
            code, records, scale, decay, steps, batch_size, order, offset, twist, thin, path
        )

    return _each_chain(run, seed, len(records), replacement, start, out, n_threads)


def run_sgd_with(
    gradient: Any,
    n_samples: int,
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
    """Run SGD with a jitted ``gradient(theta, i)``; as `run_sgd` otherwise."""
    steps = n_steps // thin * thin

    def run(order: Any, offset: Any, twist: Any, path: Any) -> int:
        return int(
            _custom_chain(
                gradient, n_samples, step_size, steps, batch_size, order, offset, twist, thin, path
            )
        )

    return _each_chain(run, seed, n_samples, replacement, start, out, n_threads)
