"""Rows held to a field: it tells where SGD goes, observed steps how far it strays, rows how."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import final

import numpy as np
from numpy.typing import NDArray

from sgdmc.chain.grid import Grid
from sgdmc.chain.kernel import Coordinates, Kernel, describe_kernel, npz_path
from sgdmc.forecasting.field import GradientField
from sgdmc.forecasting.gradient import follow_field, residuals_of, root_covariance

__all__ = ["FieldKernel", "hold_to_field", "load_kernel"]

Array = NDArray[np.float64]

# Robust standard deviations from the median beyond which a row's mass is dropped.
_TAIL = 6.0


@final
@dataclass(frozen=True)
class FieldKernel:
    """A kernel whose means are the flow of a field, and whose scatter has the shape of rows.

    Attributes
    ----------
    rows : Kernel
        One row a state and coordinate: the shape of what a step scatters around its mean.
    field : GradientField
        Of all coordinates together.
    spread : ndarray, shape (dim, dim)
        A square root of the covariance of a kernel step where the field is at rest, in
        ``rows.coordinates``.
    notes : tuple of str
        What was chosen automatically, and why.
    """

    rows: Kernel
    field: GradientField
    spread: Array
    notes: tuple[str, ...] = ()
    coupling: str = "field"

    __repr__ = describe_kernel

    @property
    def blocks(self) -> Array:
        """Rows as the method tells them, (dim, n, n); forecasts take means off the field."""
        return self.rows.blocks

    @property
    def observed(self) -> NDArray[np.bool_]:
        """States that the runs left at least once, (dim, n)."""
        return self.rows.observed

    @property
    def off_state_mass(self) -> Array:
        """Probability of texts that are no state, (dim, n); see :class:`sgdmc.Kernel`."""
        return self.rows.off_state_mass

    @property
    def grid(self) -> Grid:
        """Bins of the rows, in :attr:`coordinates`."""
        return self.rows.grid

    @property
    def coordinates(self) -> Coordinates:
        """Coordinates in which the rows are told."""
        return self.rows.coordinates

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parameters."""
        return self.rows.names

    @property
    def paths(self) -> tuple[Array, ...]:
        """The observed runs."""
        return self.rows.paths

    @property
    def lag(self) -> int:
        """Recorded steps of one kernel step."""
        return self.rows.lag

    @property
    def method(self) -> str:
        """How the rows were estimated."""
        return self.rows.method

    @property
    def completion(self) -> str:
        """How rows were filled that no run visited."""
        return self.rows.completion

    @cached_property
    def _laws(self) -> tuple[Array, Array, Array]:
        """Cumulated rows (dim, n²), each a unit above the last; means and spreads (dim, n)."""
        dim, n = self.rows.dim, self.rows.n_states
        blocks = np.stack([_without_tails(block) for block in self.rows.blocks])
        sums = np.cumsum(blocks, axis=2) + np.arange(n)[:, None]
        bins = np.arange(n) + 0.5
        means = blocks @ bins
        # Draws are spread over their bins.
        variances = np.maximum(blocks @ bins**2 - means**2, 0.0) + 1 / 12
        return sums.reshape(dim, n * n), means, np.sqrt(variances)

    def save(self, path: str | Path) -> None:
        """Write rows, runs and what is known of the loss to an ``.npz`` file.

        The field is fitted to the runs again when :func:`load_kernel` reads it.
        """
        known = int(self.field.convex) if self.field.known else -1
        notes = np.array(self.notes, dtype=str)
        arrays = self.rows.to_arrays()
        np.savez_compressed(npz_path(path), **arrays, convex=known, notes_of_field=notes)

    def advance(
        self, starts: Array, *, n_steps: int, n_chains: int, rng: np.random.Generator
    ) -> Array:
        """Draw from the law ``n_steps`` recorded steps after each start.

        Each kernel step follows the field for a lag and adds a draw from the row of the state,
        less the row's mean and brought to the spread of a step; the last may be a part of one, with
        as large a share of the variance.

        Parameters
        ----------
        starts : ndarray, shape (n_starts, dim)
        n_steps, n_chains : int
        rng : Generator
            Covers every draw.

        Returns
        -------
        ndarray, shape (n_starts, n_chains, dim)
        """
        return follow_field(
            self.field,
            starts,
            self._scatter,
            lag=self.lag,
            n_steps=n_steps,
            n_chains=n_chains,
            rng=rng,
        )

    def _scatter(self, theta: Array, points: Array) -> Array:
        """Draws from the rows of the states, less their means and brought to one spread."""
        coordinates, n = self.rows.coordinates, self.rows.n_states
        states = self.rows.grid.encode(coordinates.forward(theta)).astype(np.int64)
        sums, means, spreads = self._laws
        draws = np.empty_like(theta)
        for i, at in enumerate(states.T):
            sought = at + points[:, i]
            found = np.minimum(np.searchsorted(sums[i], sought), at * n + n - 1)
            # Within its bin a draw lies where its point does.
            below = np.where(found > at * n, sums[i, found - 1], at)
            within = (sought - below) / np.maximum(sums[i, found] - below, 1e-300)
            drawn = found - at * n + np.clip(within, 0.0, 1.0)
            draws[:, i] = (drawn - means[i, at]) / spreads[i, at]
        return coordinates.backward(draws @ self.spread) - coordinates.offset


def _without_tails(rows: Array) -> Array:
    """Drop what lies far from the body of each row: its second moment is to be the body's.

    A language model gives every state a little, which over a thousand states is most of a variance.
    """
    sums, bins = np.cumsum(rows, axis=1), np.arange(rows.shape[1])
    low, middle, high = ((sums < share).sum(axis=1)[:, None] for share in (0.05, 0.5, 0.95))
    # Of a Gaussian these lie 3.29 standard deviations apart.
    reach = _TAIL / 3.29 * np.maximum(high - low, 1)
    kept = np.where(np.abs(bins - middle) <= reach, rows, 0.0)
    return np.asarray(kept / kept.sum(axis=1, keepdims=True))


def hold_to_field(kernel: Kernel, field: GradientField) -> FieldKernel:
    """Hold the rows of a kernel to a field and to the spread that it leaves of observed steps.

    Parameters
    ----------
    kernel : Kernel
        Of the runs that the field was fitted to.
    field : GradientField

    Returns
    -------
    FieldKernel
    """
    left = residuals_of(field, kernel.paths, kernel.lag)
    turned = kernel.coordinates.forward(left + kernel.coordinates.offset)
    note = (
        f"means follow one gradient field for all coordinates ({field.kind}); rows tell how "
        "steps scatter around them"
    )
    return FieldKernel(kernel, field, root_covariance(turned), (*kernel.notes, note))


def load_kernel(path: str | Path) -> Kernel | FieldKernel:
    """Read a kernel that :meth:`Kernel.save` or :meth:`FieldKernel.save` wrote.

    Parameters
    ----------
    path : str or Path
        ``.npz`` is added to a name that does not end so.

    Returns
    -------
    Kernel or FieldKernel
        Forecasts by it are those of the kernel that was saved.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    """
    with np.load(npz_path(path), allow_pickle=False) as data:
        rows = Kernel.from_arrays(data)
        if "convex" not in data:
            return rows
        known = int(data["convex"])
        notes = tuple(str(v) for v in data["notes_of_field"])
    field = GradientField.fit(rows.paths, convex=None if known < 0 else bool(known))
    return replace(hold_to_field(rows, field), notes=notes)
