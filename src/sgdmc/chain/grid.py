"""Grids: values rescaled per coordinate, cut into states, written as digits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sgdmc._core import backend as kernels
from sgdmc._core import validate

__all__ = ["Grid"]

_LOWEST, _HIGHEST = 1.5, 8.5  # where the observed minimum and maximum lie on [0, 10)


@dataclass(frozen=True, eq=False)
class Grid:
    """An affine grid of ``n_states = 10**digits`` bins on each of ``dim`` coordinates.

    The state of a value ``x`` is ``clip(floor((x - low) * scale), 0, n_states - 1)``. This
    arithmetic is the definition, in every backend: on a bin's edge it may differ from
    `numpy.digitize`, which compares with rounded edges.

    Attributes
    ----------
    low : ndarray, shape (dim,), float64
        Value at the left edge of state 0.
    scale : ndarray, shape (dim,), float64
        States per unit of value, positive.
    digits : {1, 2, 3}
        Digits of a state.
    constant : ndarray, shape (dim,), bool
        Coordinates that did not move when the grid was fitted: their value is the centre of state
        ``n_states // 2``, and their bins are narrow.

    Examples
    --------
    >>> grid = Grid.fit([0.0, 0.5, 1.0], digits=2)
    >>> grid.encode([0.0, 0.5, 1.0]).tolist()
    [15, 50, 85]
    >>> grid.to_text(grid.encode([0.0, 0.5, 1.0]))
    '15,50,85,'
    """

    low: NDArray[np.float64]
    scale: NDArray[np.float64]
    digits: int
    constant: NDArray[np.bool_]

    def __post_init__(self) -> None:
        validate.as_int("digits", self.digits, minimum=1, maximum=3)
        for name, kind in (("low", np.float64), ("scale", np.float64), ("constant", np.bool_)):
            values = np.array(getattr(self, name), dtype=kind)
            if values.ndim != 1 or len(values) != np.size(self.low) or len(values) == 0:
                raise ValueError(
                    f"{name} must have one entry a coordinate; got shape {values.shape}. "
                    "Reshape it."
                )
            values.setflags(write=False)
            object.__setattr__(self, name, values)
        validate.finite_or_raise("low", self.low)
        validate.finite_or_raise("scale", self.scale)
        if (self.scale <= 0).any():
            coordinate = int(np.argmax(self.scale <= 0))
            raise ValueError(
                f"scale must be positive; got {self.scale[coordinate]} at index {coordinate}. "
                "Fit the grid with Grid.fit."
            )

    @classmethod
    def fit(cls, values: ArrayLike, *, digits: int = 2) -> Grid:
        """Grid on which each coordinate's minimum is 1.5 and its maximum 8.5 of [0, 10).

        Parameters
        ----------
        values : array_like, shape (..., dim) or (T,)
            Finite values, at least one a coordinate; the extremes are taken over all axes but the
            last. One axis means one coordinate.
        digits : {1, 2, 3}
            Digits of a state: 10, 100 or 1000 bins.

        Returns
        -------
        Grid

        Raises
        ------
        TypeError
            If the values are not real numbers, or `digits` is not an integer.
        ValueError
            If there are no values, one is NaN or infinite, a range overflows, or `digits` is not 1
            to 3.

        Notes
        -----
        A coordinate that does not move is legal (SGD that interpolates ends as a Dirac): its bins
        are ``1e-9 max(|x|, 1)`` wide and `decode` returns its value. The headroom on both sides,
        15% of the ten units, and the absence of leading zeros follow [Liu24]_.

        References
        ----------
        .. [Liu24] Liu, Boullé, Sarfati, Earls (2024). LLMs learn governing principles of dynamical
           systems, revealing an in-context neural scaling law. arXiv 2402.00795.
        """
        digits = validate.as_int("digits", digits, minimum=1, maximum=3)
        array = validate.as_floats("values", values, finite=False)
        if array.size == 0:
            raise ValueError(f"values must not be empty; got shape {array.shape}. Pass iterates.")
        rows = _rows(array)
        low, high, bad = kernels("cpp").min_max(rows, validate.as_threads(None))
        if bad >= 0:
            validate.finite_or_raise("values", array)
        with np.errstate(over="ignore"):
            span = high - low
        if not np.isfinite(span).all():
            column = int(np.argmax(~np.isfinite(span)))
            raise ValueError(
                f"values must have a finite range; got {low[column]} to {high[column]} at "
                f"coordinate {column}. Rescale them."
            )
        n_states = 10**digits
        unit = span / (_HIGHEST - _LOWEST)  # value of one of the ten units
        with np.errstate(divide="ignore", over="ignore"):
            scale = (n_states / 10) / unit
        constant = ~np.isfinite(scale)
        width = 1e-9 * np.maximum(np.abs(low), 1.0)
        return cls(
            low=np.where(constant, low - (n_states // 2 + 0.5) * width, low - _LOWEST * unit),
            scale=np.where(constant, 1.0 / width, scale),
            digits=digits,
            constant=constant,
        )

    @property
    def dim(self) -> int:
        """Number of coordinates."""
        return len(self.low)

    @property
    def n_states(self) -> int:
        """Number of states on each coordinate, ``10**digits``."""
        return int(10**self.digits)

    @property
    def width(self) -> NDArray[np.float64]:
        """Width of a bin on each coordinate, in units of value, shape (dim,)."""
        return 1.0 / self.scale

    @property
    def edges(self) -> NDArray[np.float64]:
        """Edges of the bins up to rounding, shape (dim, n_states + 1)."""
        return np.asarray(self.low[:, None] + np.arange(self.n_states + 1) * self.width[:, None])

    def __eq__(self, other: object) -> bool:
        """Whether `other` is a grid with the same bins."""
        return (
            isinstance(other, Grid)
            and self.digits == other.digits
            and np.array_equal(self.low, other.low)
            and np.array_equal(self.scale, other.scale)
            and np.array_equal(self.constant, other.constant)
        )

    def __hash__(self) -> int:
        return hash((self.digits, self.low.tobytes(), self.scale.tobytes()))

    def encode(
        self,
        values: ArrayLike,
        *,
        out: NDArray[np.int16] | None = None,
        n_threads: int | None = None,
        backend: str = "cpp",
    ) -> NDArray[np.int16]:
        """States of `values`; those outside the grid take the state at its end.

        Parameters
        ----------
        values : array_like, shape (..., dim), or (T,) if dim is 1
            Finite values.
        out : ndarray, same shape, int16, optional
            Where to write, which spares a large result its fresh pages.
        n_threads : int, optional
            All processors by default; the result does not depend on it.
        backend : {"cpp", "numba", "numpy"}
            Who computes; the result does not depend on it.

        Returns
        -------
        ndarray, same shape, int16
            State indices in ``0 .. n_states - 1``.

        Raises
        ------
        TypeError
            If the values are not real numbers or `out` is not int16.
        ValueError
            If the last axis is not dim, or a value is NaN or infinite.
        """
        array = validate.as_floats("values", values, finite=False)
        rows = self._checked(array)
        result = validate.output_or_new("out", out, array.shape, np.int16)
        bad = kernels(backend).encode(
            rows,
            self.low,
            self.scale,
            self.n_states,
            result.reshape(rows.shape),
            validate.as_threads(n_threads),
        )
        if bad >= 0:
            validate.finite_or_raise("values", array)
        return result

    def decode(self, states: ArrayLike) -> NDArray[np.float64]:
        """Centres of the bins of `states`, shape (..., dim), or (T,) if dim is 1.

        The value that was encoded lies within half a bin of it, if it was inside the grid.

        Raises
        ------
        TypeError
            If the states are not integers.
        ValueError
            If the last axis is not dim, or a state is not in ``0 .. n_states - 1``.
        """
        array = np.asarray(states)
        if array.dtype.kind not in "iu" and array.size:
            raise TypeError(f"states must be integers; got {array.dtype}. Use encode first.")
        rows = self._checked(array)
        self._in_range(array)
        return np.asarray(self.low + (rows + 0.5) * self.width).reshape(array.shape)

    def contains(self, values: ArrayLike) -> NDArray[np.bool_]:
        """Whether each value lies inside the grid, before any clipping; same shape as `values`."""
        array = validate.as_floats("values", values)
        scaled = (self._checked(array) - self.low) * self.scale
        inside: NDArray[np.bool_] = (scaled >= 0) & (scaled < self.n_states)
        return inside.reshape(array.shape)

    def to_text(self, states: ArrayLike, *, backend: str = "cpp") -> str:
        """Digit text of one series.

        Parameters
        ----------
        states : array_like of int, shape (T,) or (T, k)
            One coordinate, or k >= 2 coordinates that are written jointly.
        backend : {"cpp", "numba", "numpy"}
            Who computes; the result does not depend on it.

        Returns
        -------
        str
            ``"523,519,"`` for one coordinate, ``"523:187,519:190,"`` for two.

        Raises
        ------
        TypeError
            If the states are not integers.
        ValueError
            If there are more than two axes, or a state is not in ``0 .. n_states - 1``.
        """
        array = validate.as_states("states", states)
        if array.dtype != np.int16:
            self._in_range(array)
        flat = np.ascontiguousarray(array, dtype=np.int16).ravel()
        width = array.shape[1] if array.ndim == 2 else 1
        if width == 0:
            raise ValueError("states must have at least one coordinate; got none. Reshape them.")
        text, bad = kernels(backend).write_digits(flat, self.digits, width)
        if bad >= 0:
            self._in_range(array)
        return str(text)

    def from_text(
        self, text: str, *, out: NDArray[np.int16] | None = None, backend: str = "cpp"
    ) -> NDArray[np.int16]:
        """States read back from `to_text`.

        Parameters
        ----------
        text : str
            ``"523,519,"`` for one coordinate, ``"523:187,519:190,"`` for two.
        out : ndarray of int16, shape (T,) or (T, k), optional
            Where to write: fresh pages cost as much as the reading.
        backend : {"cpp", "numba", "numpy"}
            Who computes; the result does not depend on it.

        Returns
        -------
        ndarray of int16, shape (T,), or (T, k) if the text is joint
            `out`, if it was given.

        Raises
        ------
        TypeError
            If `text` is not a string, or `out` not an array of int16.
        ValueError
            If a character does not fit, the text ends inside a number, or `out` has another shape.
        """
        if not isinstance(text, str):
            raise TypeError(f"text must be a string; got {type(text).__name__}. Decode it first.")
        stride = self.digits + 1
        joint = text.count(":", 0, max(text.find(","), 0)) + 1
        if len(text) % (stride * joint) != 0:
            raise ValueError(
                f"text must consist of {self.digits}-digit numbers, each with its separator; got "
                f"{text[-2 * stride :]!r} at its end. Complete the last number."
            )
        n = len(text) // stride
        shape = (n,) if joint == 1 else (n // joint, joint)
        states = validate.output_or_new("out", out, shape, np.int16)
        bad = kernels(backend).parse_digits(text, self.digits, joint, states.reshape(-1))
        if bad >= 0:
            raise ValueError(
                f"text must consist of {self.digits}-digit numbers, each with its separator; got "
                f"{text[bad]!r} at index {bad}. Write it with Grid.to_text."
            )
        return states

    def _checked(self, array: NDArray[Any]) -> NDArray[Any]:
        if array.ndim == 1 and self.dim == 1:
            return array.reshape(-1, 1)
        if array.ndim == 0 or array.shape[-1] != self.dim:
            raise ValueError(
                f"values must have {self.dim} coordinates on the last axis; got shape "
                f"{array.shape}. "
                "Use a grid that was fitted to such values."
            )
        return array.reshape(-1, self.dim)

    def _in_range(self, array: NDArray[Any]) -> None:
        bad = (array < 0) | (array >= self.n_states)
        if bad.any():
            where = tuple(int(i) for i in np.argwhere(bad)[0])
            raise ValueError(
                f"states must lie in 0 .. {self.n_states - 1}; got {array[where]} at index "
                f"{where}. "
                "Use the grid that made them."
            )


def _rows(array: NDArray[np.float64]) -> NDArray[np.float64]:
    if array.ndim <= 1:
        return array.reshape(-1, 1)
    return array.reshape(-1, array.shape[-1])
