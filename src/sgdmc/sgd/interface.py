"""What SGD needs of a problem, and what the compiled kernels need."""

from __future__ import annotations

from typing import Any, Protocol, TypeGuard, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["BuiltinProblem", "Problem", "is_builtin", "is_problem"]

Floats = NDArray[np.float64]


@runtime_checkable
class Problem(Protocol):
    """What :func:`sgdmc.run_sgd` needs of a problem.

    ``gradient(theta, indices)`` is the mean gradient over the samples ``indices``: `theta` has
    shape (..., dim) and `indices` shape (b,), one batch for all, or (..., b), one batch a
    parameter; all samples if it is None.
    """

    @property
    def n_samples(self) -> int:
        """Number of samples N."""

    @property
    def dim(self) -> int:
        """Number of parameters d."""

    def loss(self, theta: ArrayLike) -> Floats:
        """``F(theta)`` for `theta` (..., dim), shape (...)."""

    def gradient(self, theta: ArrayLike, indices: ArrayLike | None = None) -> Floats:
        """Mean gradient over the samples `indices`, shape (..., dim)."""


@runtime_checkable
class BuiltinProblem(Problem, Protocol):
    """A problem that has compiled kernels: `kind` names them, `records` are their data."""

    @property
    def kind(self) -> str:
        """Name of the kernel."""

    @property
    def records(self) -> Floats:
        """One row a sample, its inputs and then its target."""

    @property
    def l2(self) -> float:
        """Weight of ``|theta|**2 / 2`` in the loss."""

    def stable_step_size(self) -> float | None:
        """Step size at which SGD is sure to stay bounded, or None where that is not known."""


def is_problem(problem: Any) -> TypeGuard[Problem]:
    """``isinstance(problem, Problem)`` without its search through the protocol's attributes."""
    return all(hasattr(problem, name) for name in ("n_samples", "dim", "loss", "gradient"))


def is_builtin(problem: Any) -> TypeGuard[BuiltinProblem]:
    """``isinstance(problem, BuiltinProblem)`` without that search."""
    names = ("kind", "records", "l2", "stable_step_size")
    return is_problem(problem) and all(hasattr(problem, name) for name in names)
