"""Where a field of mean steps leads, many recorded steps at once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__all__ = ["follow"]

Array = NDArray[np.float64]

# Farthest move of a step of the flow, its largest error, and most steps.
_FARTHEST, _TOLERANCE, _MAX_STEPS = 0.15, 0.002, 400


def follow(
    starts: Array,
    n_steps: float,
    step_at: Callable[[Array, NDArray[np.int64]], Array],
    *,
    low: Array,
    high: Array,
    coarser: float = 1.0,
) -> Array:
    """Follow a field from each start for ``n_steps`` recorded steps.

    Parameters
    ----------
    starts : ndarray, shape (m, dim)
        Of the order of one.
    n_steps : float
    step_at : callable
        Mean steps at points (k, dim), and of which starts they come, in order (k,).
    low, high : ndarray, shape (dim,)
        Bounds of the ends.
    coarser : float
        How many times the usual moves and errors are allowed.

    Returns
    -------
    ndarray, shape (m, dim)

    Notes
    -----
    Many recorded steps at once, as many as the error allows: the rate along them is that between
    the field at both of their ends, so that they end in a minimum and do not overshoot, unless
    single steps do.
    """
    z = starts.copy()
    left = np.full(len(z), float(n_steps))
    length = left.copy()
    for count in range(_MAX_STEPS):
        which = np.flatnonzero(left > 0)
        if not len(which):
            break
        at, steps = z[which], np.minimum(length[which], left[which])[:, None]
        push = step_at(at, which)
        reach = np.abs(push).max(axis=1, keepdims=True)
        # Recorded steps are taken whole, however far one goes.
        single = np.minimum(steps, 1.0)
        steps = np.minimum(steps, coarser * _FARTHEST / np.maximum(reach, 1e-300))
        steps = np.maximum(steps, single)
        move = steps * push
        then = steps * step_at(at + move, which)
        square = np.maximum((move**2).sum(axis=1, keepdims=True), 1e-300)
        along = (move * then).sum(axis=1, keepdims=True) / square
        aside = then - along * move
        shrunk, whole = _shrunk(1.0 - along, steps)
        # Of the change across a step the first single step has seen nothing.
        off = 0.5 * shrunk * aside * np.maximum(1.0 - 1.0 / steps, 0.0)
        error = np.abs(off).max(axis=1)
        good = (error <= coarser * _TOLERANCE) & (whole[:, 0] | (reach * steps < 1e-6)[:, 0])
        # Single steps are exact, and the last ones are taken as they are.
        good |= (steps[:, 0] <= 1.0) | (count > _MAX_STEPS // 2)
        taken = which[good]
        z[taken] = np.clip((at + shrunk * move + off)[good], low, high)
        left[taken] -= steps[good, 0]
        left[left < 1e-9 * n_steps] = 0.0
        # As many whole steps as fit.
        length[which] = np.maximum(np.floor(np.where(good, 2.0, 0.4) * steps[:, 0]), 1.0)
    return z


def _shrunk(rate: Array, steps: Array) -> tuple[Array, NDArray[np.bool_]]:
    """Length of ``steps`` steps that shrink by ``rate / steps`` each, over that of equal ones.

    And whether the formula holds: steps that shrink by more than nine tenths are taken singly.
    """
    each = np.clip(rate / np.maximum(steps, 1.0), -1.0, None)
    whole = each < 0.9
    each = np.minimum(each, 0.9)
    total = each * steps
    grown = -np.expm1(steps * np.log1p(-each))
    found = np.where(np.abs(total) < 1e-6, 1.0, grown / np.where(total == 0.0, 1.0, total))
    return np.where(steps <= 1.0, 1.0, found), whole
