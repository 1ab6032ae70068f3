"""The counter-based generator and the elementary functions in numba, bit for bit."""

from __future__ import annotations

from math import ldexp
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgdmc._core.jit.compiler import compiled
from sgdmc._core.reference.random import (
    COSINE,
    HALF_PI,
    LN_2,
    LOG2_E,
    MIX1,
    MIX2,
    ROUND,
    SINE,
    TAYLOR,
    TWO_OVER_PI,
    WEYL,
    keys_of,
)

__all__ = [
    "bounded",
    "draw",
    "logistic",
    "logistic_of",
    "random_bits",
    "sine_cosine",
    "sine_cosine_of",
]

ONE, TWO = np.uint64(1), np.uint64(2)
S27, S30, S31, S32 = np.uint64(27), np.uint64(30), np.uint64(31), np.uint64(32)
LOW = np.uint64(0xFFFFFFFF)


@compiled
def draw(offset: Any, twist: Any, counter: Any) -> Any:
    """64 uniform bits; all arguments are uint64."""
    z = offset + counter * WEYL
    z = (z ^ (z >> S30)) * MIX1 ^ twist
    z = (z ^ (z >> S27)) * MIX2
    return z ^ (z >> S31)


@compiled
def bounded(bits: Any, bound: Any) -> Any:
    """Uniform uint64 in [0, bound), the high half of ``bits * bound``, for bound <= 2**32."""
    return ((bits >> S32) * bound + (((bits & LOW) * bound) >> S32)) >> S32


@compiled
def _fill(offset: Any, twist: Any, first: Any, out: Any) -> None:
    for i in range(len(out)):
        out[i] = draw(offset, twist, first + np.uint64(i))


def random_bits(seed: int, chain: int, first: int, n: int) -> NDArray[np.uint64]:
    """Draws ``first .. first + n - 1`` of one chain, uint64."""
    offset, twist = keys_of(seed, np.array([chain], dtype=np.uint64))
    out = np.empty(n, dtype=np.uint64)
    _fill(offset[0], twist[0], np.uint64(first), out)
    return out


@compiled
def sine_cosine_of(x: float) -> tuple[float, float]:
    """Sine and cosine of one number."""
    if not abs(x) <= 2.0**50:
        return np.nan, np.nan
    n = (x * TWO_OVER_PI + ROUND) - ROUND
    quadrant = int(n) & 3
    r = ((x - n * HALF_PI[0]) - n * HALF_PI[1]) - n * HALF_PI[2]
    z = r * r
    odd, even = SINE[0], COSINE[0]
    for k in range(1, 6):
        odd = SINE[k] + z * odd
        even = COSINE[k] + z * even
    sine = r + (z * r) * odd
    half = 0.5 * z
    w = 1.0 - half
    cosine = w + (((1.0 - w) - half) + z * (z * even))
    if quadrant == 0:
        return sine, cosine
    if quadrant == 1:
        return cosine, -sine
    if quadrant == 2:
        return -sine, -cosine
    return -cosine, sine


@compiled
def logistic_of(x: float) -> float:
    """``1 / (1 + exp(-x))`` of one number, clamped to [-708, 708]."""
    if x != x:
        return x
    t = -min(max(x, -708.0), 708.0)
    n = (t * LOG2_E + ROUND) - ROUND
    r = (t - n * LN_2[0]) - n * LN_2[1]
    q = TAYLOR[0]
    for k in range(1, 12):
        q = TAYLOR[k] + r * q
    e = 1.0 + (r + (r * r) * q)
    return 1.0 / (1.0 + ldexp(e, int(n)))


@compiled
def _sine_cosine(x: Any, s: Any, c: Any) -> None:
    for i in range(len(x)):
        s[i], c[i] = sine_cosine_of(x[i])


@compiled
def _logistic(x: Any, out: Any) -> None:
    for i in range(len(x)):
        out[i] = logistic_of(x[i])


def sine_cosine(x: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sine and cosine of each entry of a vector."""
    s, c = np.empty_like(x), np.empty_like(x)
    _sine_cosine(x, s, c)
    return s, c


def logistic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """``1 / (1 + exp(-x))`` of each entry of a vector."""
    out = np.empty_like(x)
    _logistic(x, out)
    return out
