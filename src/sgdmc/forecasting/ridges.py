"""Gradients of generalised linear models: losses that are sums of functions of ``w·θ``.

A logistic regression's loss is a function of scores ``w·θ``, one for each sample, and its gradient
saturates in each of them. With Gaussian ``w`` and a normal distribution function for the link,
``f(θ) = Σ v_k φ(w_k·θ)``, ``φ' = Φ − ½``, the covariance of gradients is known in closed form: by
Stein's lemma, from that of a network of one layer (C. K. I. Williams: Computing with infinite
networks. NeurIPS 9, 1996). What all ``v_k`` share is the mean of such gradients,
``θ/√(1 + |θ|²)``. Unlike a process around the observed points it goes on beyond them, and it bends
around the parameters' zero, which a shift of the parameters moves.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.polynomial import Chebyshev, Polynomial
from numpy.typing import NDArray
from scipy.special import ndtr

__all__ = ["add_covariance", "add_mean", "add_ridges", "add_slopes", "draw_ridges"]

Array = NDArray[np.float64]

# atan(t)/t for 0 ≤ t ≤ 1 as a polynomial in t²: right to 2e-15.
_ATAN = (
    Chebyshev.interpolate(lambda u: np.arctan(np.sqrt(u)) / np.sqrt(u), 18, domain=[1e-300, 1.0])
    .convert(kind=Polynomial, domain=[-1, 1])
    .coef
)
# (Φ(t) − ½)/t in Chebyshev polynomials of t², 0 ≤ t ≤ 7: right to 2e-14, and 1.3e-12 beyond.
_FAR = 7.0
_LINK = Chebyshev.interpolate(
    lambda u: (ndtr(np.sqrt(u)) - 0.5) / np.sqrt(u), 28, domain=[1e-300, _FAR**2]
).coef
# Directions of a drawn loss.
_DIRECTIONS = 128


def draw_ridges(n: int, dim: int, rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """Draw losses: directions (n, dim, 128), their weights (n, 128), and a share of all's (n,)."""
    return (
        rng.standard_normal((n, dim, _DIRECTIONS)),
        rng.standard_normal((n, _DIRECTIONS)) / np.sqrt(_DIRECTIONS),
        rng.standard_normal(n),
    )


@njit(cache=True, fastmath=True, error_model="numpy")
def add_ridges(x, which, directions, weights, share, stretch, out):  # type: ignore[no-untyped-def]
    """Add the gradients at ``x`` (m, dim) of drawn losses to ``out`` (m, dim).

    ``Σ v_k (Φ(w_k·x) − ½) w_k`` and a share of ``x/√(1 + |x|²)``, times ``stretch`` (dim,); which
    of the draws for each of ``x`` (m,), and these as :func:`draw_ridges` makes them.
    """
    m, dim = x.shape
    n = weights.shape[1]
    link = np.empty(n)
    for p in range(m):
        d = which[p]
        link[:] = 0.0
        square = 1.0
        for i in range(dim):
            square += x[p, i] * x[p, i]
            for k in range(n):
                link[k] += x[p, i] * directions[d, i, k]
        for k in range(n):
            score = min(max(link[k], -_FAR), _FAR)
            turn = 4.0 * score * score / _FAR**2 - 2.0
            # Clenshaw's sum.
            last, before = _LINK[28], 0.0
            for order in range(27, 0, -1):
                last, before = turn * last - before + _LINK[order], last
            link[k] = weights[d, k] * score * (0.5 * turn * last - before + _LINK[0])
        common = share[d] / np.sqrt(square)
        for i in range(dim):
            total = common * x[p, i]
            for k in range(n):
                total += link[k] * directions[d, i, k]
            out[p, i] += stretch[i] * total


@njit(cache=True, error_model="numpy")
def add_covariance(x, y, stretch, own, shared, out):  # type: ignore[no-untyped-def]
    """Add the covariance of gradients at ``x`` (n, dim) and ``y`` (m, dim).

    ``out`` (n, dim, m, dim); ``stretch`` (dim,) the derivative of ``x`` by the coordinates;
    ``own`` and ``shared`` the variances of what each direction has and of what all share.
    """
    n, dim = x.shape
    for p in range(n):
        for q in range(y.shape[0]):
            angle, density, left, right, lengths, _ = _pair(x[p], y[q])
            for i in range(dim):
                for j in range(dim):
                    value = own * density * _bracket(x[p], y[q], i, j, left, right)
                    value += shared * x[p, i] * y[q, j] / lengths
                    if i == j:
                        value += own * angle
                    out[p, i, q, j] += stretch[i] * stretch[j] * value


@njit(cache=True, error_model="numpy")
def add_slopes(x, stretch, own, shared, weight, out):  # type: ignore[no-untyped-def]
    """Add ``weight`` (n, dim, n, dim) times derivatives of the covariance to ``out`` (3,).

    By the logarithms of a common factor of ``x``, of ``own`` and of ``shared``.
    """
    n, dim = x.shape
    for p in range(n):
        for q in range(n):
            angle, density, left, right, lengths, inverse = _pair(x[p], x[q])
            a, b, c = (x[p] * x[p]).sum(), (x[p] * x[q]).sum(), (x[q] * x[q]).sum()
            square = (1.0 + a) * (1.0 + c) - b * b
            turned = b / np.sqrt(square) * inverse / (2.0 * np.pi)
            thinner = -(a + c + 2.0 * (a * c - b * b)) / square
            for i in range(dim):
                for j in range(dim):
                    w = weight[p, i, q, j] * stretch[i] * stretch[j]
                    bracket = _bracket(x[p], x[q], i, j, left, right)
                    value = density * bracket
                    slope = density * (
                        (2.0 + thinner) * bracket
                        - 2.0 * left / (1.0 + a) * x[p, i] * x[p, j]
                        - 2.0 * right / (1.0 + c) * x[q, i] * x[q, j]
                    )
                    if i == j:
                        value += angle
                        slope += turned
                    common = shared * x[p, i] * x[q, j] / lengths
                    out[0] += w * (own * slope + common * inverse)
                    out[1] += w * own * value
                    out[2] += w * common


@njit(cache=True, error_model="numpy")
def _pair(x, y):  # type: ignore[no-untyped-def]
    """What the covariance at two points is made of.

    ``E[(Φ(w·x) − ½)(Φ(w·y) − ½)]``, the mean of both densities, ``x·y`` over ``1 + |x|²`` and over
    ``1 + |y|²``, the root of their product, and the sum of their inverses.
    """
    a, b, c = 1.0 + (x * x).sum(), (x * y).sum(), 1.0 + (y * y).sum()
    root = np.sqrt(a * c - b * b)
    angle, density = np.arctan(b / root) / (2.0 * np.pi), 1.0 / (2.0 * np.pi * root)
    return angle, density, b / a, b / c, np.sqrt(a * c), 1.0 / a + 1.0 / c


@njit(cache=True, error_model="numpy")
def _bracket(x, y, i, j, left, right):  # type: ignore[no-untyped-def]
    return x[i] * y[j] + y[i] * x[j] - left * x[i] * x[j] - right * y[i] * y[j]


@njit(cache=True, fastmath=True, error_model="numpy")
def add_mean(x, points, weights, which, stretch, own, shared, out):  # type: ignore[no-untyped-def]
    """Add what weights of points make at ``x`` (m, dim) to ``out`` (m, dim).

    ``points`` (dim, k); ``weights`` (n, dim, k), and which of them for each of ``x`` (m,), equal
    ones beside each other.
    """
    dim, k = points.shape
    length, known, solved = np.ones(k), np.empty(k), np.empty((dim, k))
    for i in range(dim):
        for q in range(k):
            length[q] += points[i, q] * points[i, q]
    shorter, scale = 1.0 / length, own / (2.0 * np.pi)
    last, total = -1, 0.0
    dot, here, tangent, small = np.empty(k), np.empty(k), np.empty(k), np.empty(k)
    angle, along, aside = np.empty(k), np.empty(k), np.empty(k)
    for p in range(x.shape[0]):
        if which[p] != last:
            last, total = which[p], 0.0
            known[:] = 0.0
            for i in range(dim):
                for q in range(k):
                    solved[i, q] = weights[last, i, q] * stretch[i]
                    known[q] += points[i, q] * solved[i, q]
            for q in range(k):
                total += known[q] / np.sqrt(length[q])
        a = 1.0
        dot[:] = 0.0
        here[:] = 0.0
        for i in range(dim):
            at = x[p, i]
            a += at * at
            for q in range(k):
                dot[q] += at * points[i, q]
                here[q] += at * solved[i, q]
        for q in range(k):
            b = dot[q]
            inverse = 1.0 / np.sqrt(a * length[q] - b * b)
            tangent[q] = b * inverse
            density = scale * inverse
            along[q] = density * (known[q] - b / a * here[q])
            aside[q] = density * (here[q] - b * shorter[q] * known[q])
        _arctangents(tangent, small, angle)
        share = shared * total / np.sqrt(a)
        for q in range(k):
            share += along[q]
        for i in range(dim):
            value = x[p, i] * share
            for q in range(k):
                value += scale * angle[q] * solved[i, q] + aside[q] * points[i, q]
            out[p, i] += stretch[i] * value


@njit(cache=True, fastmath=True, error_model="numpy")
def _arctangents(tangent, small, out):  # type: ignore[no-untyped-def]
    """Fill ``out`` (k,) with arctangents; ``small`` (k,) is room."""
    k = len(tangent)
    for q in range(k):
        size = abs(tangent[q])
        small[q] = min(size, 1.0 / max(size, 1.0))
        out[q] = _ATAN[-1]
    # A few coefficients at a time, so that points are done side by side.
    for c in range(len(_ATAN) - 2, -1, -6):
        c0, c1, c2 = _ATAN[c], _ATAN[c - 1], _ATAN[c - 2]
        c3, c4, c5 = _ATAN[c - 3], _ATAN[c - 4], _ATAN[c - 5]
        for q in range(k):
            u = small[q] * small[q]
            value = ((out[q] * u + c0) * u + c1) * u + c2
            out[q] = ((value * u + c3) * u + c4) * u + c5
    for q in range(k):
        found = out[q] * small[q]
        found = found if abs(tangent[q]) <= 1.0 else 0.5 * np.pi - found
        out[q] = found if tangent[q] >= 0.0 else -found
