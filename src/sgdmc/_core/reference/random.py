"""The counter-based generator and the elementary functions, in plain NumPy, bit for bit."""

from __future__ import annotations

from math import factorial
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["bounded", "draw_bits", "keys_of", "logistic", "random_bits", "sine_cosine"]

Bits = NDArray[np.uint64]

WEYL = np.uint64(0x9E3779B97F4A7C15)
MIX1 = np.uint64(0xBF58476D1CE4E5B9)
MIX2 = np.uint64(0x94D049BB133111EB)
ROUND = float.fromhex("0x1.8p52")  # x + ROUND - ROUND rounds to an integer
TWO_OVER_PI = float.fromhex("0x1.45f306dc9c883p-1")
HALF_PI = tuple(
    float.fromhex(part) for part in ("0x1.921fb544p+0", "0x1.0b4611a6p-34", "0x1.3198a2e037073p-69")
)
SINE = (
    1.58969099521155010221e-10,
    -2.50507602534068634195e-08,
    2.75573137070700676789e-06,
    -1.98412698298579493134e-04,
    8.33333333332248946124e-03,
    -1.66666666666666324348e-01,
)
COSINE = (
    -1.13596475577881948265e-11,
    2.08757232129817482790e-09,
    -2.75573143513906633035e-07,
    2.48015872894767294178e-05,
    -1.38888888888741095749e-03,
    4.16666666666666019037e-02,
)
LOG2_E = float.fromhex("0x1.71547652b82fep+0")
LN_2 = (float.fromhex("0x1.62e42feep-1"), float.fromhex("0x1.a39ef35793c76p-33"))
TAYLOR = tuple(1.0 / factorial(k) for k in range(13, 1, -1))


def _mix64(z: Any) -> Any:
    z = (z ^ (z >> np.uint64(30))) * MIX1
    z = (z ^ (z >> np.uint64(27))) * MIX2
    return np.asarray(z ^ (z >> np.uint64(31)), dtype=np.uint64)


def keys_of(seed: int, chains: Bits) -> tuple[Bits, Bits]:
    """Offset and twist of each chain's generator, two arrays shaped like `chains`."""
    base = _mix64(np.array([seed], dtype=np.uint64) + WEYL)
    two = np.uint64(2) * chains.astype(np.uint64)
    return _mix64(base + (two + np.uint64(1)) * WEYL), _mix64(base + (two + np.uint64(2)) * WEYL)


def draw_bits(offset: Bits, twist: Bits, counter: Bits) -> Bits:
    """64 uniform bits a chain: splitmix64 with a second key between its multiplications."""
    z = offset + counter * WEYL
    z = (z ^ (z >> np.uint64(30))) * MIX1 ^ twist
    z = (z ^ (z >> np.uint64(27))) * MIX2
    return np.asarray(z ^ (z >> np.uint64(31)), dtype=np.uint64)


def bounded(bits: Bits, bound: int | Bits) -> Bits:
    """Uniform integers in [0, bound), the high half of ``bits * bound``, for bound <= 2**32."""
    limit = np.asarray(bound, dtype=np.uint64)
    low = ((bits & np.uint64(0xFFFFFFFF)) * limit) >> np.uint64(32)
    high: Bits = ((bits >> np.uint64(32)) * limit + low) >> np.uint64(32)
    return high


def random_bits(seed: int, chain: int, first: int, n: int) -> Bits:
    """Draws ``first .. first + n - 1`` of one chain, uint64."""
    offset, twist = keys_of(seed, np.array([chain], dtype=np.uint64))
    return draw_bits(offset, twist, np.uint64(first) + np.arange(n, dtype=np.uint64))


def sine_cosine(x: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sine and cosine by Cody and Waite's reduction and fdlibm's polynomials.

    Within 1.5 units in the last place for ``|x| <= 2**20``; beyond it, the result belongs to an
    argument a few units in the last place away; NaN for ``|x| > 2**50``.
    """
    x = np.where(np.abs(x) <= 2.0**50, x, np.nan)
    shifted = x * TWO_OVER_PI + ROUND
    quadrant = shifted.view(np.uint64)
    n = shifted - ROUND
    r = ((x - n * HALF_PI[0]) - n * HALF_PI[1]) - n * HALF_PI[2]
    z = r * r
    odd, even = np.full_like(z, SINE[0]), np.full_like(z, COSINE[0])
    for a, b in zip(SINE[1:], COSINE[1:], strict=True):
        odd, even = a + z * odd, b + z * even
    sine = r + (z * r) * odd
    half = 0.5 * z
    w = 1.0 - half
    cosine = w + (((1.0 - w) - half) + z * (z * even))
    swap = (quadrant & np.uint64(1)) != 0
    s, c = np.where(swap, cosine, sine), np.where(swap, sine, cosine)
    s = np.where((quadrant & np.uint64(2)) != 0, -s, s)
    c = np.where(((quadrant + np.uint64(1)) & np.uint64(2)) != 0, -c, c)
    return s, c


def logistic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """``1 / (1 + exp(-x))`` with x clamped to [-708, 708]."""
    t = -np.clip(x, -708.0, 708.0)
    shifted = t * LOG2_E + ROUND
    n = shifted - ROUND
    r = (t - n * LN_2[0]) - n * LN_2[1]
    q = np.full_like(r, TAYLOR[0])
    for coefficient in TAYLOR[1:]:
        q = coefficient + r * q
    e = 1.0 + (r + (r * r) * q)
    with np.errstate(invalid="ignore"):
        exponent = np.where(np.isnan(n), 0.0, n).astype(np.int64)
    return np.asarray(1.0 / (1.0 + np.ldexp(e, exponent)))
