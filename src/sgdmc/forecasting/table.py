"""The flow of a field over one lag, looked up: where thousands of chains take the same step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates, spline_filter

from sgdmc.forecasting.field import GradientField

__all__ = ["FlowTable"]

Array = NDArray[np.float64]

# Nodes in a range of the runs, and ranges by which even ones reach beyond the runs and all of them
# beyond the starts. Between nodes flows are a few ten-thousandths of a range off, their own
# tolerance being some thousandths.
_NODES, _BEYOND = 32, 0.25
# Widest table, in ranges between even nodes: farther out is no use, and would overflow.
_WIDEST = 64.0
# Directions at most: nodes are as many to the power of them.
_MAX_DIM = 2


@dataclass(frozen=True)
class FlowTable:
    """Cubic splines through the displacements of a flow on a grid of starts.

    Nodes are even around the runs; farther out, where a field has no detail, the distance from
    there is the hyperbolic sine of an even one, which has the same slope and curvature at first.

    Attributes
    ----------
    field : GradientField
    n_steps : float
        Recorded steps that the flow is followed for.
    inner : ndarray, shape (2, dim)
        Where even nodes begin and end, in ranges.
    low : ndarray, shape (dim,)
        First node, in even ranges; the others follow at every ``1 / 32``.
    coefficients : ndarray, shape (dim, n_1, ..., n_dim)
        Of the displacements' splines, in ranges.
    """

    field: GradientField
    n_steps: float
    inner: Array
    low: Array
    coefficients: Array

    @classmethod
    def of(
        cls, field: GradientField, n_steps: float, starts: Array, n_flows: int
    ) -> FlowTable | None:
        """Tabulate the flow around starts and runs, if that is cheaper than following it.

        The last few tables of a field are kept.

        Parameters
        ----------
        field : GradientField
        n_steps : float
        starts : ndarray, shape (m, n_parameters)
        n_flows : int
            How many points are to be followed.

        Returns
        -------
        FlowTable or None
            None in more than two directions, and where the table has half as many nodes or more.
        """
        dim = len(field.width)
        if dim > _MAX_DIM:
            return None
        seen = field.belief.points + field.centre
        inner = np.stack([seen.min(axis=0) - _BEYOND, seen.max(axis=0) + _BEYOND])
        at = np.concatenate([_even(field.inside(starts), inner), inner])
        low, high = at.min(axis=0) - _BEYOND, at.max(axis=0) + _BEYOND
        sides = np.ceil((high - low) * _NODES) + 1
        if (high - low).max() > _WIDEST or 2 * sides.prod() > n_flows:
            return None
        corners = np.stack([low, sides])
        key = (corners, np.array(n_steps))
        found: FlowTable = field.keep(lambda: cls._filled(field, n_steps, inner, *corners), *key)
        return found

    @classmethod
    def _filled(
        cls, field: GradientField, n_steps: float, inner: Array, low: Array, sides: Array
    ) -> FlowTable:
        dim, shape = len(low), tuple(int(side) for side in sides)
        nodes = _graded(low + np.indices(shape).reshape(dim, -1).T / _NODES, inner)
        moved = field.inside(field.flow(field.outside(nodes), n_steps)) - nodes
        grids = moved.T.reshape(dim, *shape)
        return cls(
            field, n_steps, inner, low, np.stack([spline_filter(g, mode="nearest") for g in grids])
        )

    def __call__(self, theta: Array) -> Array:
        """Where the flow takes parameters (m, n_parameters): the same shape.

        Those beyond the table are followed.
        """
        at = (_even(self.field.inside(theta), self.inner) - self.low) * _NODES
        moved = np.stack(
            [map_coordinates(c, at.T, prefilter=False, mode="nearest") for c in self.coefficients],
            axis=1,
        )
        ends = np.asarray(theta + self.field.outside(moved))
        beyond = ((at < 0) | (at > np.array(self.coefficients.shape[1:]) - 1)).any(axis=1)
        if beyond.any():
            ends[beyond] = self.field.flow(theta[beyond], self.n_steps)
        return ends


def _even(z: Array, inner: Array) -> Array:
    """Points in ranges (m, dim) in coordinates in which nodes are even."""
    near = np.clip(z, *inner)
    return np.asarray(near + np.arcsinh(z - near))


def _graded(u: Array, inner: Array) -> Array:
    """Invert :func:`_even`."""
    near = np.clip(u, *inner)
    return np.asarray(near + np.sinh(u - near))
