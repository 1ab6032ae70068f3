"""Steps that a convex function allows beside those that were seen: its gradient is monotone."""

from __future__ import annotations

import numpy as np
from numba import njit

__all__ = ["project_steps"]

# Half-spaces on which a step is projected, at most.
_PROJECTIONS = 4


@njit(cache=True, fastmath=True, error_model="numpy")
def project_steps(z, points, values, which, metric, pull, steps):  # type: ignore[no-untyped-def]
    """Project steps (m, dim) in turn on the half-space that is violated most.

    Half-space ``q``: ``(step − value_q)·(z − point_q) ≤ −pull |z − point_q|²`` in the parameters'
    own metric; ``points`` are (dim, k), ``values`` (n, dim, k), which of these for each step (m,).
    """
    m, dim = z.shape
    k = points.shape[1]
    rise, square = np.empty(k), np.empty(k)
    for p in range(m):
        value = values[which[p]]
        for _ in range(_PROJECTIONS):
            rise[:] = 0.0
            square[:] = 0.0
            for i in range(dim):
                at, step, unit = z[p, i], steps[p, i], metric[i]
                for q in range(k):
                    gap = unit * (at - points[i, q])
                    rise[q] += (step - value[i, q]) * gap
                    square[q] += gap * (at - points[i, q])
            # By how much a step violates, squared: at least 0.
            by = 0.0
            for q in range(k):
                over = max(rise[q] + pull * square[q], 0.0)
                rise[q] = over
                by = max(by, over * over / (square[q] + 1e-300))
            if by <= 0.0:
                break
            worst = 0
            for q in range(k):
                if rise[q] * rise[q] / (square[q] + 1e-300) >= by:
                    worst = q
            share = rise[worst] / (square[worst] + 1e-300)
            for i in range(dim):
                steps[p, i] -= share * (z[p, i] - points[i, worst])
