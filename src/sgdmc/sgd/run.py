"""Runs: what SGD left behind."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sgdmc._core.words import counted, listed

__all__ = ["DivergedError", "Run"]


class DivergedError(ValueError):
    """SGD left every bound: the step size is too large for the problem."""


@dataclass(frozen=True)
class Run:
    """Iterates of one or several SGD runs on one problem.

    Attributes
    ----------
    iterates : ndarray, shape (n_chains, n_steps + 1, dim), float64
        Row ``t`` is the parameter after ``t`` recorded steps. Where runs differ in length, the
        shorter ones are padded with NaN beyond ``lengths``.
    names : tuple of str, length dim
        One name a coordinate.
    lengths : ndarray, shape (n_chains,), int64
        Number of iterates of each run (at least 2).
    step_size, batch_size : float, int or None
        How the run was made, where that is known.
    thin : int
        SGD steps between two recorded iterates.
    source : str
        Where the run came from, for reports.

    Examples
    --------
    >>> run = Run.from_array([[0.0, 1.0], [0.5, 0.5], [0.75, 0.25]])
    >>> run.iterates.shape, run.names
    ((1, 3, 2), ('theta0', 'theta1'))
    """

    iterates: NDArray[np.float64]
    names: tuple[str, ...]
    lengths: NDArray[np.int64]
    step_size: float | None = None
    batch_size: int | None = None
    thin: int = 1
    source: str = "array"
    meta: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        shortest, longest = int(self.lengths.min()), int(self.lengths.max())
        length = f"{longest}" if shortest == longest else f"{shortest} to {longest}"
        known = {"step_size": self.step_size, "batch_size": self.batch_size}
        made = "".join(f", {k}={v}" for k, v in known.items() if v is not None)
        return (
            f"Run({counted(len(self.lengths), 'run')} of {length} iterates of "
            f"{listed(self.names)}{made}; from {self.source})"
        )

    @classmethod
    def from_array(
        cls,
        iterates: ArrayLike,
        *,
        names: tuple[str, ...] | None = None,
        step_size: float | None = None,
        batch_size: int | None = None,
        thin: int = 1,
        source: str = "array",
    ) -> Run:
        """Check an array of iterates and wrap it.

        Parameters
        ----------
        iterates : array_like, shape (T,), (T, dim) or (n_chains, T, dim)
            Finite numbers; ``T >= 2``.
        names : tuple of str, optional
            Names of the coordinates; ``theta0, theta1, ...`` by default.
        step_size, batch_size, thin, source
            Stored as they are.

        Raises
        ------
        TypeError
            If the values are not numbers.
        ValueError
            If the shape is none of the above, ``T < 2``, or a value is NaN or infinite.
        """
        values = np.asarray(iterates)
        if values.dtype.kind not in "fiub":
            raise TypeError(f"iterates must be real numbers; got dtype {values.dtype}.")
        if values.ndim not in (1, 2, 3):
            raise ValueError(
                "iterates must have shape (T,), (T, dim) or (n_chains, T, dim); "
                f"got {values.shape}."
            )
        if values.ndim == 1:
            values = values[None, :, None]
        elif values.ndim == 2:
            values = values[None]
        n_chains, _, dim = values.shape
        return cls.from_paths(
            [values[c] for c in range(n_chains)],
            names=names if names is not None else tuple(f"theta{i}" for i in range(dim)),
            step_size=step_size,
            batch_size=batch_size,
            thin=thin,
            source=source,
        )

    @classmethod
    def from_paths(
        cls,
        paths: list[NDArray[Any]],
        *,
        names: tuple[str, ...],
        step_size: float | None = None,
        batch_size: int | None = None,
        thin: int = 1,
        source: str = "array",
    ) -> Run:
        """Wrap a list of ``(T_c, dim)`` arrays, which may differ in length.

        Raises
        ------
        ValueError
            If there is no run, a run has fewer than two iterates, or a value is not finite.
        """
        if not paths or paths[0].shape[-1] == 0:
            raise ValueError("iterates must hold at least one run of one coordinate; got none.")
        dim = paths[0].shape[-1]
        if len(names) != dim:
            raise ValueError(f"names must have one entry a coordinate ({dim}); got {len(names)}.")
        lengths = np.array([len(p) for p in paths], dtype=np.int64)
        for c, path in enumerate(paths):
            if len(path) < 2:
                raise ValueError(
                    f"iterates must have at least 2 rows a run; got {len(path)} in run {c}. "
                    "A chain needs a step to be seen."
                )
            bad = np.argwhere(~np.isfinite(np.asarray(path, dtype=np.float64)))
            if len(bad):
                t, i = (int(v) for v in bad[0])
                raise ValueError(
                    f"iterates must be finite; got {path[t, i]} at run {c}, row {t}, "
                    f"column '{names[i]}' ({len(bad)} such values in this run). "
                    "Drop the rows from there on, or use a smaller step size."
                )
        iterates = np.full((len(paths), int(lengths.max()), dim), np.nan)
        for c, path in enumerate(paths):
            iterates[c, : len(path)] = path
        return cls(iterates, tuple(names), lengths, step_size, batch_size, thin, source)

    @property
    def n_chains(self) -> int:
        """Number of runs."""
        return int(self.iterates.shape[0])

    @property
    def n_steps(self) -> int:
        """Recorded steps of the longest run."""
        return int(self.iterates.shape[1]) - 1

    @property
    def dim(self) -> int:
        """Number of coordinates."""
        return int(self.iterates.shape[2])

    @property
    def paths(self) -> list[NDArray[np.float64]]:
        """The runs without padding: a list of views of shape (T_c, dim)."""
        return [self.iterates[c, : int(n)] for c, n in enumerate(self.lengths)]

    @property
    def values(self) -> NDArray[np.float64]:
        """All iterates of all runs, shape (sum of lengths, dim)."""
        return np.concatenate(self.paths)

    @property
    def range(self) -> NDArray[np.float64]:
        """Largest minus smallest observed value of each coordinate, shape (dim,)."""
        return np.asarray(np.ptp(self.values, axis=0))

    def tail(self, share: float = 0.2) -> list[NDArray[np.float64]]:
        """Return the last ``share`` of each run (at least one iterate), a list of (m_c, dim)."""
        return [p[len(p) - max(1, round(share * len(p))) :] for p in self.paths]

    def head(self, n_steps: int) -> Run:
        """Return the same runs cut off after ``n_steps`` recorded steps."""
        return Run.from_paths(
            [p[: n_steps + 1] for p in self.paths],
            names=self.names,
            step_size=self.step_size,
            batch_size=self.batch_size,
            thin=self.thin,
            source=self.source,
        )
