"""SGD's law by the flow of a gradient's field and the noise of the observed runs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sgdmc.forecasting.field import GradientField
from sgdmc.forecasting.paths import tail_of

__all__ = ["GradientKernel"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class GradientKernel:
    """SGD's law by the flow of a :class:`GradientField` and the noise of the observed runs.

    Attributes
    ----------
    field : GradientField
    tail_spread, tail_rate : ndarray, shape (dim,)
        Standard deviation of the tails, and ``2λ`` of the AR(1) process with the same steps.
    lag, method, names, paths, notes
        As in :class:`sgdmc.Kernel`.
    """

    field: GradientField
    tail_spread: Array
    tail_rate: Array
    lag: int
    names: tuple[str, ...]
    paths: tuple[Array, ...]
    notes: tuple[str, ...] = ()
    method: str = "gradient-gp"
    completion: str = "none"
    coupling: str = "joint"

    @classmethod
    def fit(
        cls,
        paths: tuple[Array, ...],
        *,
        lag: int,
        names: tuple[str, ...],
        notes: tuple[str, ...] = (),
    ) -> GradientKernel:
        """Fit the field, and the noise to the tails of the runs."""
        field = GradientField.fit(paths)
        tails = [tail_of(p) for p in paths]
        spread = np.sqrt(np.mean([t.var(axis=0) for t in tails], axis=0))
        step = np.mean([np.diff(t, axis=0).var(axis=0) for t in tails], axis=0)
        rate = np.minimum(step / np.maximum(spread**2, 1e-300), 1.0)
        return cls(field, spread, rate, lag, names, paths, notes)

    def advance(
        self, starts: Array, *, n_steps: int, n_chains: int, rng: np.random.Generator
    ) -> Array:
        """Draw from the law of the mean field ``n_steps`` after each start, with SGD's noise."""
        ends = self.field.flow(starts, n_steps) if n_steps else starts
        return self._noisy(np.repeat(ends[:, None], n_chains, axis=1), n_steps, rng)

    def hedged(
        self, starts: Array, *, n_steps: int, n_chains: int, rng: np.random.Generator
    ) -> Array:
        """Draw likewise, from fields of the posterior."""
        if not n_steps:
            return np.repeat(starts[:, None], n_chains, axis=1)
        ends = self.field.ends(starts, n_steps, n_draws=n_chains, rng=rng)
        return self._noisy(ends, n_steps, rng)

    def _noisy(self, ends: Array, n_steps: int, rng: np.random.Generator) -> Array:
        """Give chains (n_starts, n_chains, dim) the noise at their ends."""
        width = self.field.width
        there = self.field.mean(ends.reshape(-1, len(width)) / width) * width
        louder = self.field.loudness(there).reshape(*ends.shape[:2], 1)
        grown = -np.expm1(-self.tail_rate * n_steps)
        spread = self.tail_spread * np.sqrt(grown) * louder
        return np.asarray(ends + spread * rng.standard_normal(ends.shape))
