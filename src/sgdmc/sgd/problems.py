"""Problems: finite sums ``F(theta) = (1/N) sum_i f(x_i, theta)`` that SGD is run on.

The built-in ones carry their data in the form the compiled kernels read; users bring their own with
:class:`NumbaProblem`, :class:`TorchProblem`, or any object that satisfies :class:`Problem`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sgdmc._core import validate
from sgdmc._core.words import counted
from sgdmc.sgd.interface import BuiltinProblem, Problem

__all__ = [
    "BuiltinProblem",
    "LeastSquares",
    "LogisticRegression",
    "Problem",
    "SineRegression",
    "make_least_squares",
    "make_logistic_regression",
    "make_sine_regression",
]

Floats = NDArray[np.float64]


def _describe(problem: Any) -> str:
    l2 = f", l2={problem.l2:g}" if problem.l2 else ""
    size = f"{counted(problem.n_samples, 'sample')}, {counted(problem.dim, 'parameter')}"
    return f"{type(problem).__name__}({size}{l2})"


class _Linear:
    """Data, and the part of loss and gradient, of problems in ``<x_i, theta>``."""

    X: Floats
    y: Floats
    kind = ""

    def _set_data(self, **more: Any) -> None:
        X = validate.as_floats("X", self.X, ndim=2)
        y = validate.as_floats("y", self.y, ndim=1)
        if X.shape[0] == 0 or X.shape[1] == 0:
            raise ValueError(f"X must not be empty; got shape {X.shape}. Pass (n_samples, dim).")
        if len(y) != len(X):
            raise ValueError(
                f"y must have one entry a row of X ({len(X)}); got {len(y)}. Align the two."
            )
        width = X.shape[1] + 1
        # Records of four doubles are read as one vector.
        records = np.zeros((len(X), 4 if width == 3 else width))
        records[:, : width - 1] = X
        records[:, width - 1] = y
        for name, value in {"X": _frozen(X), "y": _frozen(y), "_records": _frozen(records)}.items():
            object.__setattr__(self, name, value)

    @property
    def records(self) -> Floats:
        """Rows (x_i, y_i), padded to four columns if dim is 2."""
        return self.__dict__["_records"]  # type: ignore[no-any-return]

    @property
    def n_samples(self) -> int:
        """Number of samples N."""
        return len(self.X)

    @property
    def dim(self) -> int:
        """Number of parameters d."""
        return int(self.X.shape[1])

    def _batch(self, theta: ArrayLike, indices: ArrayLike | None) -> tuple[Floats, Floats, Floats]:
        parameters = _parameters(theta, self.dim)
        if indices is None:
            return parameters, self.X, self.y
        chosen = _indices(indices, self.n_samples)
        return parameters, self.X[chosen], self.y[chosen]


@dataclass(frozen=True, eq=False)
class LeastSquares(_Linear):
    """Linear least squares ``f(x_i, theta) = (<x_i, theta> - y_i)**2 / 2``.

    Parameters
    ----------
    X : array_like, shape (n_samples, dim)
        Finite inputs.
    y : array_like, shape (n_samples,)
        Finite targets.

    Raises
    ------
    TypeError
        If the data are not real numbers.
    ValueError
        If shapes do not fit, the data are empty, or an entry is NaN or infinite.

    Examples
    --------
    >>> problem = LeastSquares([[1.0], [2.0]], [1.0, 0.0])
    >>> float(problem.loss([0.0])), problem.gradient([0.0]).tolist()
    (0.25, [-0.5])
    """

    X: Floats
    y: Floats
    kind = "least_squares"
    l2 = 0.0

    __repr__ = _describe

    def __post_init__(self) -> None:
        self._set_data()

    def loss(self, theta: ArrayLike) -> Floats:
        """Mean of ``(<x_i, theta> - y_i)**2 / 2`` for `theta` (..., dim), shape (...)."""
        residual = _parameters(theta, self.dim) @ self.X.T - self.y
        return np.asarray(0.5 * np.mean(residual**2, axis=-1))

    def gradient(self, theta: ArrayLike, indices: ArrayLike | None = None) -> Floats:
        """Mean gradient over the samples `indices` (all if None), shape (..., dim)."""
        parameters, X, y = self._batch(theta, indices)
        residual = np.einsum("...bd,...d->...b", X, parameters) - y
        return np.asarray(np.einsum("...b,...bd->...d", residual, X) / X.shape[-2])

    @property
    def minimiser(self) -> Floats:
        """Minimiser of the loss (of least norm, if there are several), shape (dim,)."""
        return np.asarray(np.linalg.lstsq(self.X, self.y, rcond=None)[0])

    def stable_step_size(self) -> float:
        """``1 / max_i |x_i|**2``: at most this, no single step moves away from its minimiser."""
        return _inverse(float((self.X**2).sum(axis=1).max()))


@dataclass(frozen=True, eq=False)
class LogisticRegression(_Linear):
    """Logistic regression ``f = log(1 + exp(m)) - y m + l2 |theta|**2 / 2``, ``m = <x_i, theta>``.

    Parameters
    ----------
    X : array_like, shape (n_samples, dim)
        Finite inputs.
    y : array_like, shape (n_samples,)
        Labels in [0, 1], in general 0 or 1.
    l2 : float, default 0
        Weight of the ridge, non-negative.

    Raises
    ------
    TypeError
        If the data are not real numbers.
    ValueError
        If shapes do not fit, the data are empty, an entry is NaN or infinite, a label is outside
        [0, 1], or `l2` is negative.

    Examples
    --------
    >>> problem = LogisticRegression([[1.0], [-1.0]], [1, 0])
    >>> problem.gradient([0.0]).tolist()
    [-0.5]
    """

    X: Floats
    y: Floats
    l2: float = 0.0
    kind = "logistic"

    __repr__ = _describe

    def __post_init__(self) -> None:
        object.__setattr__(self, "l2", validate.as_positive("l2", self.l2, zero=True))
        self._set_data()
        outside = (self.y < 0) | (self.y > 1)
        if outside.any():
            i = int(np.argmax(outside))
            raise ValueError(
                f"y must be labels in [0, 1]; got {self.y[i]} at index {i}. Recode them as 0 and 1."
            )

    def loss(self, theta: ArrayLike) -> Floats:
        """Mean loss, ridge included, for `theta` (..., dim), shape (...)."""
        parameters = _parameters(theta, self.dim)
        margin = parameters @ self.X.T
        data = np.mean(np.logaddexp(0.0, margin) - self.y * margin, axis=-1)
        return np.asarray(data + 0.5 * self.l2 * np.sum(parameters**2, axis=-1))

    def gradient(self, theta: ArrayLike, indices: ArrayLike | None = None) -> Floats:
        """Mean gradient over the samples `indices` (all if None), shape (..., dim)."""
        parameters, X, y = self._batch(theta, indices)
        margin = np.einsum("...bd,...d->...b", X, parameters)
        residual = 0.5 * (1.0 + np.tanh(0.5 * margin)) - y
        mean = np.einsum("...b,...bd->...d", residual, X) / X.shape[-2]
        return np.asarray(mean + self.l2 * parameters)

    def stable_step_size(self) -> float:
        """``1 / (max_i |x_i|**2 / 4 + l2)``, one over the largest curvature of a sample."""
        return _inverse(0.25 * float((self.X**2).sum(axis=1).max()) + self.l2)


@dataclass(frozen=True, eq=False)
class SineRegression:
    """The non-convex problem ``f(x_i, theta) = (theta_0 sin(theta_1 x_i) - y_i)**2 / 2``.

    Parameters
    ----------
    x, y : array_like, shape (n_samples,)
        Finite inputs and targets.

    Raises
    ------
    TypeError
        If the data are not real numbers.
    ValueError
        If the lengths differ, the data are empty, or an entry is NaN or infinite.

    Notes
    -----
    The loss is even under ``theta -> -theta``, and has several basins along ``theta_1``.

    Examples
    --------
    >>> problem = SineRegression([0.0, 1.0], [0.0, 1.0])
    >>> float(problem.loss([0.0, 1.0]))
    0.25
    """

    x: Floats
    y: Floats
    kind = "sine"
    l2 = 0.0

    __repr__ = _describe

    def __post_init__(self) -> None:
        x = validate.as_floats("x", self.x, ndim=1)
        y = validate.as_floats("y", self.y, ndim=1)
        if len(x) == 0:
            raise ValueError("x must not be empty; got no samples. Pass at least one.")
        if len(x) != len(y):
            raise ValueError(
                f"y must have one entry an entry of x ({len(x)}); got {len(y)}. Align the two."
            )
        records = _frozen(np.stack([x, y], axis=1))
        for name, value in {"x": _frozen(x), "y": _frozen(y), "_records": records}.items():
            object.__setattr__(self, name, value)

    @property
    def records(self) -> Floats:
        """Rows (x_i, y_i)."""
        return self.__dict__["_records"]  # type: ignore[no-any-return]

    @property
    def n_samples(self) -> int:
        """Number of samples N."""
        return len(self.x)

    @property
    def dim(self) -> int:
        """Number of parameters, 2."""
        return 2

    def loss(self, theta: ArrayLike) -> Floats:
        """Mean of ``(theta_0 sin(theta_1 x_i) - y_i)**2 / 2``, shape (...)."""
        amplitude, frequency = np.moveaxis(_parameters(theta, 2), -1, 0)
        residual = amplitude[..., None] * np.sin(frequency[..., None] * self.x) - self.y
        return np.asarray(0.5 * np.mean(residual**2, axis=-1))

    def gradient(self, theta: ArrayLike, indices: ArrayLike | None = None) -> Floats:
        """Mean gradient over the samples `indices` (all if None), shape (..., 2)."""
        amplitude, frequency = np.moveaxis(_parameters(theta, 2), -1, 0)[..., None]
        chosen = slice(None) if indices is None else _indices(indices, self.n_samples)
        x, y = self.x[chosen], self.y[chosen]
        sine, cosine = np.sin(frequency * x), np.cos(frequency * x)
        residual = amplitude * sine - y
        parts = (residual * sine, residual * amplitude * x * cosine)
        return np.stack([part.mean(axis=-1) for part in parts], axis=-1)

    def stable_step_size(self) -> None:
        """No bound is known: the curvature grows with ``theta_0``."""
        return


def make_least_squares(
    *,
    n_samples: int = 100,
    dim: int = 2,
    noise: float = 0.5,
    covariance: ArrayLike | None = None,
    rng: Any = None,
) -> LeastSquares:
    """Random least squares: ``x_i ~ N(0, covariance)``, ``y_i = <x_i, theta*> + noise * N(0, 1)``.

    Parameters
    ----------
    n_samples, dim : int
        Both at least 1. With ``dim > n_samples`` (over-parameterised), or without noise, SGD
        interpolates: its limit law is a Dirac at a minimiser.
    noise : float, default 0.5
        Standard deviation of the targets' noise; 0 is allowed.
    covariance : array_like, shape (dim, dim), optional
        Covariance of the (normal) inputs, positive semi-definite; the identity by default.
    rng : int, SeedSequence, Generator or None
        Covers every draw; ``theta* ~ N(0, I)``.

    Returns
    -------
    LeastSquares

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    Examples
    --------
    >>> problem = make_least_squares(n_samples=100, dim=2, noise=0.0, rng=0)
    >>> bool(problem.loss(problem.minimiser) < 1e-20)
    True
    """
    n_samples = validate.as_int("n_samples", n_samples, minimum=1)
    dim = validate.as_int("dim", dim, minimum=1)
    noise = validate.as_positive("noise", noise, zero=True)
    generator = validate.as_generator(rng)
    theta = generator.standard_normal(dim)
    X = generator.standard_normal((n_samples, dim)) @ _root(covariance, dim).T
    return LeastSquares(X, X @ theta + noise * generator.standard_normal(n_samples))


def make_sine_regression(
    *,
    n_samples: int = 100,
    theta: ArrayLike = (1.0, 2.0),
    half_width: float = 2.0,
    noise: float = 0.1,
    rng: Any = None,
) -> SineRegression:
    """Random sine regression, ``y_i = theta_0 sin(theta_1 x_i) + noise * N(0, 1)``.

    Parameters
    ----------
    n_samples : int
        At least 1.
    theta : array_like, shape (2,)
        Amplitude and frequency of the targets.
    half_width : float, default 2
        The inputs are uniform on ``[-half_width, half_width]``; positive.
    noise : float, default 0.1
        Standard deviation of the targets' noise; without noise SGD interpolates.
    rng : int, SeedSequence, Generator or None
        Covers every draw.

    Returns
    -------
    SineRegression

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    Examples
    --------
    >>> float(make_sine_regression(noise=0.0, rng=0).loss([1.0, 2.0]))
    0.0
    """
    n_samples = validate.as_int("n_samples", n_samples, minimum=1)
    half_width = validate.as_positive("half_width", half_width)
    noise = validate.as_positive("noise", noise, zero=True)
    amplitude, frequency = _parameters(theta, 2)
    generator = validate.as_generator(rng)
    x = generator.uniform(-half_width, half_width, n_samples)
    y = amplitude * np.sin(frequency * x) + noise * generator.standard_normal(n_samples)
    return SineRegression(x, y)


def make_logistic_regression(
    *,
    n_samples: int = 100,
    dim: int = 2,
    separation: float = 2.0,
    l2: float = 0.01,
    covariance: ArrayLike | None = None,
    rng: Any = None,
) -> LogisticRegression:
    """Random logistic regression, ``P(y_i = 1) = 1 / (1 + exp(-<x_i, t>))``.

    Parameters
    ----------
    n_samples, dim : int
        Both at least 1.
    separation : float, default 2
        Length of the true parameter ``t``, whose direction is uniform.
    l2 : float, default 0.01
        Weight of the ridge, non-negative.
    covariance : array_like, shape (dim, dim), optional
        Covariance of the (normal) inputs, positive semi-definite; the identity by default.
    rng : int, SeedSequence, Generator or None
        Covers every draw.

    Returns
    -------
    LogisticRegression

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    Examples
    --------
    >>> sorted(set(make_logistic_regression(rng=0).y.tolist()))
    [0.0, 1.0]
    """
    n_samples = validate.as_int("n_samples", n_samples, minimum=1)
    dim = validate.as_int("dim", dim, minimum=1)
    separation = validate.as_positive("separation", separation, zero=True)
    generator = validate.as_generator(rng)
    direction = generator.standard_normal(dim)
    theta = separation * direction / np.linalg.norm(direction)
    X = generator.standard_normal((n_samples, dim)) @ _root(covariance, dim).T
    y = generator.random(n_samples) < 0.5 * (1.0 + np.tanh(0.5 * (X @ theta)))
    return LogisticRegression(X, y.astype(np.float64), l2=l2)


def _frozen(values: Floats) -> Floats:
    copy = np.array(values)
    copy.setflags(write=False)
    return copy


def _inverse(curvature: float) -> float:
    return 1.0 / curvature if curvature > 0 else 1.0


def _root(covariance: ArrayLike | None, dim: int) -> Floats:
    if covariance is None:
        return np.eye(dim)
    matrix = validate.as_floats("covariance", covariance, ndim=2)
    if matrix.shape != (dim, dim) or not np.allclose(matrix, matrix.T):
        raise ValueError(
            f"covariance must be symmetric of shape ({dim}, {dim}); got shape {matrix.shape}. "
            "Pass B @ B.T."
        )
    values, vectors = np.linalg.eigh(matrix)
    if values[0] < -1e-10 * max(values[-1], 0.0):
        raise ValueError(
            f"covariance must be positive semi-definite; got the eigenvalue {values[0]:.3g}. "
            "Pass B @ B.T."
        )
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0)))


def _parameters(theta: ArrayLike, dim: int) -> Floats:
    values = np.asarray(theta, dtype=np.float64)
    if values.ndim == 0 or values.shape[-1] != dim:
        raise ValueError(
            f"theta must have {dim} entries on its last axis; got shape {values.shape}. Reshape it."
        )
    return values


def _indices(indices: ArrayLike, n_samples: int) -> NDArray[np.int64]:
    chosen = np.atleast_1d(np.asarray(indices))
    if chosen.dtype.kind not in "iu":
        raise TypeError(f"indices must be integers; got {chosen.dtype}. Pass sample numbers.")
    if chosen.size and (chosen.min() < 0 or chosen.max() >= n_samples):
        raise ValueError(
            f"indices must lie in 0 .. {n_samples - 1}; got {chosen.min()} to {chosen.max()}. "
            "Pass sample numbers."
        )
    return chosen.astype(np.int64)
