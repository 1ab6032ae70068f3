"""A double well whose two coordinates are coupled, and runs in it."""

import numpy as np

STEP = 0.02
STARTS = np.random.default_rng(3).uniform(-1.6, 1.6, size=(12, 2))


def gradient(x):
    """Of the tilted double well (x² − 1)²/2 + (y − x/2)²: minima at ±(1, 1/2)."""
    lean = x[..., 1] - 0.5 * x[..., 0]
    return np.stack([2 * x[..., 0] * (x[..., 0] ** 2 - 1) - lean, 2 * lean], axis=-1)


def two_wells(starts, n_steps=400, noise=0.02, seed=0):
    rng = np.random.default_rng(seed)
    paths = np.empty((len(starts), n_steps + 1, 2))
    paths[:, 0] = starts
    for t in range(n_steps):
        kick = noise * rng.normal(size=(len(starts), 2))
        paths[:, t + 1] = paths[:, t] - STEP * gradient(paths[:, t]) + kick
    return tuple(paths)
