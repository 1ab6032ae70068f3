"""Kernels of finite chains that stand for SGD, and what they do to a law.

Two immutable models, both with ``advance``: :class:`Kernel` holds one row-stochastic block a
coordinate (the diagonal blocks of a multivariate chain, Ching, Fung and Ng 2002, possibly in
rotated coordinates), :class:`JointKernel` one sparse matrix on the product grid.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from sgdmc._core.words import counted, listed
from sgdmc.chain.grid import Grid

__all__ = ["Coordinates", "JointKernel", "Kernel", "describe_kernel", "lag_schedule"]

# Probabilities that draws do not see: of a row, and of a law. Their products are normal numbers in
# single precision; those that are not take a processor a hundred times as long.
_NO_ROW, _NO_LAW = np.float32(1e-12), np.float32(1e-20)


@dataclass(frozen=True)
class Coordinates:
    """An affine change of coordinates ``theta = offset + basis @ z``.

    Attributes
    ----------
    basis : ndarray, shape (dim, dim)
        Columns are the directions in which the kernel's coordinates are read; invertible.
    offset : ndarray, shape (dim,)
        Parameter at ``z = 0``.

    Examples
    --------
    >>> raw = Coordinates.identity(2)
    >>> raw.forward([[1.0, 2.0]]).tolist()
    [[1.0, 2.0]]
    """

    basis: NDArray[np.float64]
    offset: NDArray[np.float64]

    def __post_init__(self) -> None:
        if np.linalg.cond(self.basis) > 1e12:
            raise ValueError("basis must be invertible; its condition number exceeds 1e12.")

    @classmethod
    def identity(cls, dim: int) -> Coordinates:
        """Coordinates as they are, for ``dim`` of them."""
        return cls(np.eye(dim), np.zeros(dim))

    @property
    def is_identity(self) -> bool:
        """Whether nothing is changed."""
        dim = len(self.offset)
        return bool(np.array_equal(self.basis, np.eye(dim)) and not self.offset.any())

    def forward(self, theta: ArrayLike) -> NDArray[np.float64]:
        """Map parameters (..., dim) to kernel coordinates (..., dim)."""
        values = np.asarray(theta, dtype=np.float64)
        if self.is_identity:
            return values
        return np.asarray((values - self.offset) @ np.linalg.inv(self.basis).T)

    def backward(self, z: ArrayLike) -> NDArray[np.float64]:
        """Map kernel coordinates (..., dim) to parameters (..., dim)."""
        values = np.asarray(z, dtype=np.float64)
        if self.is_identity:
            return values
        return np.asarray(self.offset + values @ self.basis.T)


def npz_path(path: str | Path) -> Path:
    """Add ``.npz`` to a name that does not end so, as NumPy does when it writes."""
    path = Path(path)
    return path if path.suffix == ".npz" else path.with_name(f"{path.name}.npz")


def describe_kernel(kernel: Any) -> str:
    """Put a kernel in a line: of what it is, and how it was made."""
    labels = {"coupling": kernel.coupling, "completion": kernel.completion}
    made = "".join(f", {k} {v}" for k, v in labels.items() if v != "none")
    return (
        f"{type(kernel).__name__}({listed(kernel.names)}, {counted(kernel.lag, 'step')} ahead; "
        f"{kernel.method}{made}, from {counted(len(kernel.paths), 'run')})"
    )


@dataclass(frozen=True)
class Kernel:
    """Diagonal blocks of SGD's kernel: one finite chain a coordinate.

    Attributes
    ----------
    blocks : ndarray, shape (dim, n, n), float64
        Row-stochastic; ``blocks[i, s]`` is the law of coordinate ``i``'s next state, ``lag`` SGD
        steps after state ``s``.
    observed : ndarray, shape (dim, n), bool
        States that the run left at least once; the other rows come from ``completion``.
    off_state_mass : ndarray, shape (dim, n), float64
        Probability that the language model gave to texts that are no state (0 for other methods,
        NaN where no row was read).
    grid : Grid
        Rescaling of the kernel's coordinates.
    lag : int
        SGD steps (recorded steps of the run) that one kernel step stands for.
    method, completion, coupling : str
        How the rows were estimated, filled, and in which coordinates.
    coordinates : Coordinates
        Map between parameters and the kernel's coordinates.
    names : tuple of str
        Names of the parameters.
    paths : tuple of ndarray, each of shape (T_c, dim)
        The observed runs, in parameters: the evidence that the kernel rests on.
    notes : tuple of str
        What was chosen automatically, and why.
    """

    blocks: NDArray[np.float64]
    observed: NDArray[np.bool_]
    off_state_mass: NDArray[np.float64]
    grid: Grid
    lag: int
    method: str
    completion: str
    coupling: str
    coordinates: Coordinates
    names: tuple[str, ...]
    paths: tuple[NDArray[np.float64], ...]
    notes: tuple[str, ...] = ()

    __repr__ = describe_kernel

    @property
    def dim(self) -> int:
        """Number of coordinates."""
        return int(self.blocks.shape[0])

    @property
    def n_states(self) -> int:
        """Number of states a coordinate."""
        return int(self.blocks.shape[1])

    def push(self, laws: NDArray[np.float64], n_steps: int) -> NDArray[np.float64]:
        """Push laws (n_starts, dim, n) forward by ``n_steps`` SGD steps: ``mu P^(n_steps/lag)``.

        A horizon that is no multiple of ``lag`` mixes the two neighbouring multiples linearly.
        """
        whole, share = lag_schedule(n_steps, self.lag)
        out = np.empty_like(laws)
        for i, block in enumerate(self.blocks):
            mu = laws[:, i]
            for _ in range(whole):
                mu = mu @ block
            if share > 0:
                mu = (1 - share) * mu + share * (mu @ block)
            out[:, i] = mu
        return out

    def advance(
        self, starts: NDArray[np.float64], *, n_steps: int, n_chains: int, rng: np.random.Generator
    ) -> NDArray[np.float64]:
        """Draw from the law ``n_steps`` SGD steps after each start.

        Parameters
        ----------
        starts : ndarray, shape (n_starts, dim)
            Parameters; values beyond the grid are clipped to its edge.
        n_steps : int
            SGD steps.
        n_chains : int
            Draws a start.
        rng : Generator
            Covers every draw.

        Returns
        -------
        ndarray, shape (n_starts, n_chains, dim)
            Parameters at the horizon (bin centres in the kernel's coordinates, mapped back).
        """
        # A horizon of zero keeps the start itself rather than its bin's centre.
        if n_steps == 0:
            return np.repeat(starts[:, None], n_chains, axis=1)
        states = self.grid.encode(self.coordinates.forward(starts)).astype(np.int64)
        laws = self._ahead(states, n_steps)
        drawn = np.empty((len(starts), n_chains, self.dim), dtype=np.int64)
        for a in range(len(starts)):
            for i in range(self.dim):
                drawn[a, :, i] = _stratified(laws[a, i], n_chains, rng)
        return self.coordinates.backward(self.grid.decode(drawn))

    @cached_property
    def _single(self) -> NDArray[np.float32]:
        light = self.blocks.astype(np.float32)
        light[light < _NO_ROW] = 0.0
        return light

    def _ahead(self, states: NDArray[np.int64], n_steps: int) -> NDArray[np.float32]:
        """Laws (n_starts, dim, n) after states (n_starts, dim), in single precision.

        As :meth:`push`, to 2e-5 in total variation: draws need no more.
        """
        whole, share = lag_schedule(n_steps, self.lag)
        out = np.empty((len(states), self.dim, self.n_states), dtype=np.float32)
        for i, block in enumerate(self._single):
            # The law of one state is a unit vector, and one step on it is a row.
            mu = (
                block[states[:, i]]
                if whole
                else np.eye(self.n_states, dtype=np.float32)[states[:, i]]
            )
            for _ in range(whole - 1):
                mu = mu @ block
                mu[mu < _NO_LAW] = 0.0
            if share > 0:
                mu = (1 - share) * mu + share * (mu @ block)
            out[:, i] = mu
        return out

    def save(self, path: str | Path) -> None:
        """Write the kernel to an ``.npz`` file that holds arrays and text only.

        ``.npz`` is added to a name that does not end so, here and in :meth:`load`.
        """
        np.savez_compressed(npz_path(path), **self.to_arrays())

    def to_arrays(self) -> dict[str, Any]:
        """All that :meth:`save` writes."""
        return {
            "blocks": self.blocks,
            "observed": self.observed,
            "off_state_mass": self.off_state_mass,
            "low": self.grid.low,
            "scale": self.grid.scale,
            "constant": self.grid.constant,
            "digits": self.grid.digits,
            "lag": self.lag,
            "labels": np.array([self.method, self.completion, self.coupling]),
            "basis": self.coordinates.basis,
            "offset": self.coordinates.offset,
            "names": np.array(self.names),
            "values": np.concatenate(self.paths),
            "lengths": np.array([len(p) for p in self.paths]),
            "notes": np.array(self.notes, dtype=str),
        }

    @classmethod
    def load(cls, path: str | Path) -> Kernel:
        """Read a kernel that :meth:`save` wrote.

        Raises
        ------
        ValueError
            If the rows are held to a field: see :func:`sgdmc.load_kernel`.
        """
        with np.load(npz_path(path), allow_pickle=False) as data:
            if "convex" in data:
                raise ValueError(
                    f"path must hold rows alone; got '{path}', whose means follow a field. "
                    "Use sgdmc.load_kernel."
                )
            return cls.from_arrays(data)

    @classmethod
    def from_arrays(cls, data: Mapping[str, NDArray[Any]]) -> Kernel:
        """Make the kernel whose :meth:`to_arrays` is given."""
        method, completion, coupling = (str(v) for v in data["labels"])
        return cls(
            blocks=data["blocks"],
            observed=data["observed"],
            off_state_mass=data["off_state_mass"],
            grid=Grid(
                low=data["low"],
                scale=data["scale"],
                digits=int(data["digits"]),
                constant=data["constant"],
            ),
            lag=int(data["lag"]),
            method=method,
            completion=completion,
            coupling=coupling,
            coordinates=Coordinates(data["basis"], data["offset"]),
            names=tuple(str(v) for v in data["names"]),
            paths=tuple(np.split(data["values"], np.cumsum(data["lengths"])[:-1])),
            notes=tuple(str(v) for v in data["notes"]),
        )


@dataclass(frozen=True)
class JointKernel:
    """A kernel on the product grid: SGD's own, by Ulam's method.

    Attributes
    ----------
    matrix : CSR array, shape (N, N)
        Row-stochastic with ``N = n**dim`` joint states, the last coordinate running fastest, and
        possibly one more state for what left the grid (absorbing).
    grid : Grid
        Rescaling of each coordinate.
    lag : int
        SGD steps of one kernel step.
    """

    matrix: sp.csr_array
    grid: Grid
    lag: int
    names: tuple[str, ...]
    paths: tuple[NDArray[np.float64], ...] = ()
    method: str = "exact"
    completion: str = "none"
    coupling: str = "joint"
    notes: tuple[str, ...] = ()

    __repr__ = describe_kernel

    def advance(
        self, starts: NDArray[np.float64], *, n_steps: int, n_chains: int, rng: np.random.Generator
    ) -> NDArray[np.float64]:
        """Draw from the law ``n_steps`` SGD steps after each start; as :meth:`Kernel.advance`.

        Raises
        ------
        ValueError
            If a law loses more than 1e-6 of its mass to the outside state.
        """
        if n_steps == 0:
            return np.repeat(starts[:, None], n_chains, axis=1)
        shape = (self.grid.n_states,) * self.grid.dim
        states = self.grid.encode(starts).astype(np.int64)
        flat = np.ravel_multi_index(tuple(states.T), shape)
        laws = np.zeros((len(starts), self.matrix.shape[0]))
        laws[np.arange(len(starts)), flat] = 1.0
        whole, share = lag_schedule(n_steps, self.lag)
        transposed = self.matrix.T.tocsr()
        mu = laws.T
        for _ in range(whole):
            mu = transposed @ mu
        if share > 0:
            mu = (1 - share) * mu + share * (transposed @ mu)
        laws = np.ascontiguousarray(mu.T)
        n_joint = int(np.prod(shape))
        lost = laws[:, n_joint:].sum(axis=1)
        if (lost > 1e-6).any():
            raise ValueError(
                f"kernel must keep the chain on its grid; {lost.max():.2g} of the law of start "
                f"{int(lost.argmax())} left it. Fit the grid on a wider range."
            )
        out = np.empty((len(starts), n_chains, self.grid.dim))
        for a, law in enumerate(laws[:, :n_joint]):
            drawn = rng.permutation(_stratified(law, n_chains, rng))
            out[a] = self.grid.decode(np.stack(np.unravel_index(drawn, shape), axis=1))
        return out


def lag_schedule(n_steps: int, lag: int) -> tuple[int, float]:
    """Return the whole kernel steps in ``n_steps`` and the share of one more.

    Raises
    ------
    ValueError
        If ``n_steps < 0``.

    Examples
    --------
    >>> lag_schedule(25, 10)
    (2, 0.5)
    """
    if n_steps < 0:
        raise ValueError(f"n_steps must be at least 0; got {n_steps}.")
    whole, rest = divmod(n_steps, lag)
    return whole, rest / lag


def _stratified(
    law: NDArray[np.floating], size: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """``size`` stratified draws from a law, in random order; cannot leave its support."""
    edges = np.cumsum(law, dtype=np.float64)
    points = (np.arange(size) + rng.random(size)) / size * edges[-1]
    last = int(np.flatnonzero(law > 0)[-1])
    drawn = np.minimum(np.searchsorted(edges, points, side="right"), last)
    return np.asarray(rng.permutation(drawn), dtype=np.int64)
