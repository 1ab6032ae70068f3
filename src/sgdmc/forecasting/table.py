"""The flow of a field over one lag, looked up: where thousands of chains take the same step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates, spline_filter

from sgdmc.forecasting.field import GradientField

__all__ = ["FlowTable"]

Array = NDArray[np.float64]

# Nodes in a range of the runs, and ranges by which a table reaches beyond starts and runs. Between
# nodes flows are a few ten-thousandths of a range off, their own tolerance being some thousandths.
_NODES, _BEYOND = 32, 0.25
# Directions at most: nodes are as many to the power of them.
_MAX_DIM = 2


@dataclass(frozen=True)
class FlowTable:
    """Cubic splines through the displacements of a flow on a grid of starts.

    Attributes
    ----------
    field : GradientField
    n_steps : float
        Recorded steps that the flow is followed for.
    low : ndarray, shape (dim,)
        First node, in ranges; the others follow at every ``1 / 32``.
    coefficients : ndarray, shape (dim, n_1, ..., n_dim)
        Of the displacements' splines, in ranges.
    """

    field: GradientField
    n_steps: float
    low: Array
    coefficients: Array

    @classmethod
    def of(
        cls, field: GradientField, n_steps: float, starts: Array, n_flows: int
    ) -> FlowTable | None:
        """Tabulate the flow around starts and runs, if that is cheaper than following it.

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
        at = np.concatenate([field.inside(starts), field.posterior.points + field.centre])
        low, high = at.min(axis=0) - _BEYOND, at.max(axis=0) + _BEYOND
        # As floats: starts may lie any number of ranges away.
        sides = np.ceil((high - low) * _NODES) + 1
        if 2 * sides.prod() > n_flows:
            return None
        shape = sides.astype(int)
        nodes = low + np.indices(shape).reshape(dim, -1).T / _NODES
        moved = field.inside(field.flow(field.outside(nodes), n_steps)) - nodes
        grids = moved.T.reshape(dim, *shape)
        return cls(field, n_steps, low, np.stack([spline_filter(g, mode="nearest") for g in grids]))

    def __call__(self, theta: Array) -> Array:
        """Where the flow takes parameters (m, n_parameters): the same shape.

        Those beyond the table are followed.
        """
        at = (self.field.inside(theta) - self.low) * _NODES
        moved = np.stack(
            [map_coordinates(c, at.T, prefilter=False, mode="nearest") for c in self.coefficients],
            axis=1,
        )
        ends = np.asarray(theta + self.field.outside(moved))
        beyond = ((at < 0) | (at > np.array(self.coefficients.shape[1:]) - 1)).any(axis=1)
        if beyond.any():
            ends[beyond] = self.field.flow(theta[beyond], self.n_steps)
        return ends
