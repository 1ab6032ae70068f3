"""Distances between laws on a finite state space.

Each function takes laws along the last axis, broadcasts over the others, and returns one number a
pair. Laws are checked: non-negative, finite, sums within 1e-6 of one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["bhattacharyya", "kl_divergence", "total_variation", "wasserstein1"]


def total_variation(p: ArrayLike, q: ArrayLike) -> NDArray[np.float64]:
    """Total variation distance ``TV(p, q) = ½ Σ_s |p_s − q_s|``, in [0, 1].

    Parameters
    ----------
    p, q : array_like, shape (..., n)
        Laws; leading axes broadcast.

    Returns
    -------
    ndarray, shape (...)

    Raises
    ------
    ValueError
        If an entry is NaN or negative, a sum is not one, or the lengths differ.

    Examples
    --------
    >>> float(total_variation([0.5, 0.5], [1.0, 0.0]))
    0.5
    """
    a, b = _laws(p, q)
    return np.asarray(0.5 * np.abs(a - b).sum(axis=-1))


def kl_divergence(p: ArrayLike, q: ArrayLike) -> NDArray[np.float64]:
    """Kullback–Leibler divergence ``KL(p ‖ q) = Σ_s p_s log(p_s / q_s)`` in nats.

    Infinite where ``q`` gives no mass to a state that ``p`` visits.

    Parameters
    ----------
    p, q : array_like, shape (..., n)
        Laws; ``p`` is the truth.

    Returns
    -------
    ndarray, shape (...)

    Raises
    ------
    ValueError
        As for :func:`total_variation`.

    Examples
    --------
    >>> round(float(kl_divergence([1.0, 0.0], [0.5, 0.5])), 6)
    0.693147
    """
    a, b = _laws(p, q)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(a > 0, a * (np.log(a) - np.log(b)), 0.0)
    return np.asarray(terms.sum(axis=-1))


def bhattacharyya(p: ArrayLike, q: ArrayLike) -> NDArray[np.float64]:
    """Bhattacharyya distance ``−log Σ_s sqrt(p_s q_s)`` in nats.

    Parameters
    ----------
    p, q : array_like, shape (..., n)
        Laws.

    Returns
    -------
    ndarray, shape (...)
        Zero for equal laws, infinite for laws of disjoint support.

    Raises
    ------
    ValueError
        As for :func:`total_variation`.

    Examples
    --------
    >>> round(float(bhattacharyya([1.0, 0.0], [0.5, 0.5])), 6)
    0.346574
    """
    a, b = _laws(p, q)
    with np.errstate(divide="ignore"):
        return np.asarray(np.maximum(0.0, -np.log(np.sqrt(a * b).sum(axis=-1))))


def wasserstein1(p: ArrayLike, q: ArrayLike, *, width: float | None = None) -> NDArray[np.float64]:
    """Wasserstein-1 distance of laws on equally spaced states, ``h Σ_s |F_s − G_s|``.

    Parameters
    ----------
    p, q : array_like, shape (..., n)
        Laws on states ``0 .. n−1``.
    width : float, optional
        Distance ``h`` of neighbouring states; ``1/n`` by default, so that the states span [0, 1].

    Returns
    -------
    ndarray, shape (...)

    Raises
    ------
    ValueError
        As for :func:`total_variation`.

    Examples
    --------
    >>> float(wasserstein1([1, 0, 0, 0], [0, 0, 0, 1], width=1.0))
    3.0
    """
    a, b = _laws(p, q)
    h = 1.0 / a.shape[-1] if width is None else width
    return np.asarray(h * np.abs(np.cumsum(a - b, axis=-1)).sum(axis=-1))


def _laws(p: ArrayLike, q: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    a, b = np.asarray(p, dtype=np.float64), np.asarray(q, dtype=np.float64)
    for name, law in (("p", a), ("q", b)):
        if law.ndim == 0 or law.shape[-1] == 0:
            raise ValueError(f"{name} must have at least one state; got shape {law.shape}.")
        if np.isnan(law).any():
            raise ValueError(f"{name} must be finite; got NaN at {_where(np.isnan(law))}.")
        if (law < 0).any():
            raise ValueError(f"{name} must be non-negative; got a value < 0 at {_where(law < 0)}.")
        off = np.abs(law.sum(axis=-1) - 1.0) > 1e-6
        if off.any():
            raise ValueError(
                f"{name} must sum to one; got {float(law.sum(axis=-1)[off].flat[0])} "
                f"at {_where(off)}. Normalise it first."
            )
    if a.shape[-1] != b.shape[-1]:
        raise ValueError(f"q must have as many states as p; got {b.shape[-1]} and {a.shape[-1]}.")
    return a, b


def _where(mask: NDArray[np.bool_]) -> tuple[int, ...]:
    return tuple(int(i) for i in np.argwhere(np.atleast_1d(mask))[0])
