"""Discretisation and digit text in numba."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgdmc._core.jit.compiler import compiled

__all__ = ["encode", "min_max", "parse_digits", "write_digits"]


@compiled
def _min_max(values: Any, low: Any, high: Any) -> int:
    for i in range(values.shape[0]):
        for j in range(values.shape[1]):
            x = values[i, j]
            if not np.isfinite(x):
                return int(i * values.shape[1] + j)
            low[j] = min(low[j], x)
            high[j] = max(high[j], x)
    return -1


def min_max(
    values: NDArray[np.float64], n_threads: int = 1
) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
    """Column extremes of `values` (m, dim), and the flat index of the first bad entry or -1."""
    low, high = np.full(values.shape[1], np.inf), np.full(values.shape[1], -np.inf)
    return low, high, int(_min_max(values, low, high))


@compiled
def _encode(values: Any, low: Any, scale: Any, last: float, out: Any) -> int:
    bad = -1
    for i in range(values.shape[0]):
        for j in range(values.shape[1]):
            x = values[i, j]
            s = (x - low[j]) * scale[j]
            s = s if s >= 0.0 else 0.0
            s = s if s < last else last
            out[i, j] = np.int16(s)
            if bad < 0 and not np.isfinite(x):
                bad = i * values.shape[1] + j
    return bad


def encode(
    values: NDArray[np.float64],
    low: NDArray[np.float64],
    scale: NDArray[np.float64],
    n_states: int,
    out: NDArray[np.int16],
    n_threads: int = 1,
) -> int:
    """Write the states of `values` (m, dim) to `out`; flat index of the first bad entry or -1."""
    return int(_encode(values, low, scale, float(n_states - 1), out))


@compiled
def _write(states: Any, digits: int, dim: int, text: Any) -> int:
    for i in range(len(states)):
        rest = int(states[i])
        if rest < 0 or rest >= 10**digits:
            return i
        for position in range(digits - 1, -1, -1):
            text[i, position] = 48 + rest % 10
            rest //= 10
        text[i, digits] = 44 if (i + 1) % dim == 0 else 58
    return -1


def write_digits(states: NDArray[np.int16], digits: int, dim: int) -> tuple[str, int]:
    """Text of flat `states` in [0, 10**digits), and the index of the first one outside or -1."""
    text = np.empty((len(states), digits + 1), dtype=np.uint8)
    bad = int(_write(states, digits, dim, text))
    return "" if bad >= 0 else text.tobytes().decode("ascii"), bad


@compiled
def _parse(characters: Any, digits: int, dim: int, states: Any) -> int:
    for i in range(len(states)):
        value = 0
        for position in range(digits):
            digit = int(characters[i, position]) - 48
            if digit < 0 or digit > 9:
                return int(i * (digits + 1) + position)
            value = value * 10 + digit
        if characters[i, digits] != (44 if (i + 1) % dim == 0 else 58):
            return int(i * (digits + 1) + digits)
        states[i] = value
    return -1


def parse_digits(text: str, digits: int, dim: int, out: NDArray[np.int16]) -> int:
    """Flat states into `out`; the index of the first character that does not fit or -1."""
    plain = np.frombuffer(text.encode("ascii", errors="replace"), dtype=np.uint8)
    return int(_parse(plain.reshape(-1, digits + 1), digits, dim, out))
