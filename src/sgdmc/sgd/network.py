"""A network as a problem, and SGD inside an affine subspace of any problem's parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sgdmc._core import validate
from sgdmc.sgd.interface import Problem

__all__ = ["AffineSubspaceProblem", "MLPProblem"]

Floats = NDArray[np.float64]

_CHUNK = 2**22  # numbers of one intermediate array at most, where all samples are gone through


class MLPProblem:
    """A classifier with one hidden layer: ``tanh``, then softmax and cross-entropy.

    ``f_i(w) = −log softmax(W2 tanh(W1 x_i + b1) + b2)[y_i]``, with ``w`` the concatenation of W1
    (hidden, features), b1, W2 (classes, hidden) and b2, each in C order.

    Parameters
    ----------
    X : array_like, shape (N, features)
        Inputs, finite.
    y : array_like of int, shape (N,)
        Classes 0, 1, ....
    hidden : int
        Width of the hidden layer, at least 1.

    Raises
    ------
    ValueError
        If shapes disagree, an input is not finite or a class is negative.

    Examples
    --------
    >>> problem = MLPProblem([[1.0], [2.0]], [0, 1], hidden=3)
    >>> problem.dim, round(float(problem.loss(np.zeros(problem.dim))), 6)  # log 2
    (14, 0.693147)
    """

    def __init__(self, X: ArrayLike, y: ArrayLike, *, hidden: int) -> None:
        self.X = validate.as_floats("X", X)
        labels = np.asarray(y)
        if self.X.ndim != 2 or labels.shape != (len(self.X),) or len(labels) == 0:
            raise ValueError(
                "X must have shape (N, features) and y shape (N,) with N at least 1; got "
                f"{self.X.shape} and {labels.shape}. Align the two."
            )
        if labels.dtype.kind not in "iub" or labels.min() < 0:
            raise ValueError(
                f"y must hold classes 0, 1, ...; got {labels.dtype} with least {labels.min()}. "
                "Number the classes."
            )
        self.y = labels.astype(np.int64)
        self.hidden = validate.as_int("hidden", hidden, minimum=1)
        features, classes = self.X.shape[1], int(self.y.max()) + 1
        self._shapes = ((self.hidden, features), (self.hidden,), (classes, self.hidden), (classes,))
        self._ends = np.cumsum([int(np.prod(s)) for s in self._shapes])

    @property
    def n_samples(self) -> int:
        """Number of samples N."""
        return len(self.X)

    @property
    def dim(self) -> int:
        """Number of parameters d."""
        return int(self._ends[-1])

    def random_parameters(self, rng: Any = None, *, size: int | None = None) -> Floats:
        """Draw parameters: weights normal with variance 1 / inputs of the layer, biases zero.

        Returns
        -------
        ndarray, shape (dim,), or (size, dim)
        """
        generator = validate.as_generator(rng)
        rows = 1 if size is None else size
        parts = [
            generator.normal(size=(rows, int(np.prod(shape)))) / np.sqrt(shape[1])
            if len(shape) == 2
            else np.zeros((rows, shape[0]))
            for shape in self._shapes
        ]
        drawn = np.concatenate(parts, axis=1)
        return drawn[0] if size is None else drawn

    def loss(self, theta: ArrayLike) -> Floats:
        """Mean cross-entropy in nats over the samples for `theta` (..., dim), shape (...)."""
        values = np.asarray(theta, dtype=np.float64)
        rows = values.reshape(-1, self.dim)
        out = np.empty(len(rows))
        size = max(1, _CHUNK // (self.n_samples * self.hidden))
        at = np.arange(self.n_samples)
        for first in range(0, len(rows), size):
            _, scores, *_ = self._forward(rows[first : first + size], self.X)
            peak = scores.max(axis=-1, keepdims=True)
            norm = np.log(np.exp(scores - peak).sum(axis=-1)) + peak[..., 0]
            out[first : first + size] = (norm - scores[:, at, self.y]).mean(axis=-1)
        return out.reshape(values.shape[:-1])

    def gradient(self, theta: ArrayLike, indices: ArrayLike | None = None) -> Floats:
        """Mean gradient over the samples `indices` (all if None), shape (..., dim)."""
        values = np.asarray(theta, dtype=np.float64)
        batch = np.arange(self.n_samples) if indices is None else np.atleast_1d(indices)
        lead = np.broadcast_shapes(values.shape[:-1], batch.shape[:-1])
        rows = np.broadcast_to(values, (*lead, self.dim)).reshape(-1, self.dim)
        picked = np.broadcast_to(batch, (*lead, batch.shape[-1])).reshape(-1, batch.shape[-1])
        inputs, labels = self.X[picked], self.y[picked]
        hidden, scores, _, W2 = self._forward(rows, inputs)
        slope = np.exp(scores - scores.max(axis=-1, keepdims=True))
        slope /= slope.sum(axis=-1, keepdims=True)
        np.put_along_axis(
            slope, labels[..., None], np.take_along_axis(slope, labels[..., None], -1) - 1.0, -1
        )
        slope /= batch.shape[-1]
        back = (slope @ W2) * (1.0 - hidden**2)
        parts = (
            np.swapaxes(back, 1, 2) @ inputs,
            back.sum(axis=1),
            np.swapaxes(slope, 1, 2) @ hidden,
            slope.sum(axis=1),
        )
        return np.concatenate([p.reshape(len(rows), -1) for p in parts], axis=1).reshape(
            (*lead, self.dim)
        )

    def _forward(self, rows: Floats, inputs: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        """Hidden layer, scores, W1 and W2 of `rows` on inputs (n, features) or one set a row."""
        W1, b1, W2, b2 = (
            part.reshape(len(rows), *shape)
            for part, shape in zip(
                np.split(rows, self._ends[:-1], axis=1), self._shapes, strict=True
            )
        )
        hidden = np.tanh(inputs @ np.swapaxes(W1, 1, 2) + b1[:, None])
        return hidden, hidden @ np.swapaxes(W2, 1, 2) + b2[:, None], W1, W2


class AffineSubspaceProblem:
    """A problem inside an affine subspace of its parameters: ``g(z) = f(origin + directions z)``.

    SGD on ``z`` moves by ``−γ Aᵀ ∇f(w_0 + A z)``: it is exactly a Markov chain in ``R^k``, however
    many parameters the problem has.

    Parameters
    ----------
    problem : Problem
        With ``loss(theta)`` and ``gradient(theta, indices)``.
    origin : array_like, shape (problem.dim,)
        ``w_0``.
    directions : array_like, shape (problem.dim, k)
        ``A``, with linearly independent columns.

    Raises
    ------
    ValueError
        If shapes disagree, a number is not finite or the columns are dependent.

    References
    ----------
    .. [LFL18] Li, Farkhoor, Liu, Yosinski (2018). Measuring the intrinsic dimension of objective
       landscapes. ICLR. arXiv:1804.08838.

    Examples
    --------
    >>> from sgdmc.sgd.problems import LeastSquares
    >>> full = LeastSquares([[1.0, 0.0], [0.0, 1.0]], [2.0, 4.0])
    >>> line = AffineSubspaceProblem(full, [0.0, 0.0], [[1.0], [1.0]])
    >>> line.gradient([3.0]).tolist(), line.parameters([3.0]).tolist()
    ([0.0], [3.0, 3.0])
    """

    def __init__(self, problem: Problem, origin: ArrayLike, directions: ArrayLike) -> None:
        self.problem = problem
        self.origin = validate.as_floats("origin", origin)
        self.directions = validate.as_floats("directions", directions)
        if self.origin.shape != (problem.dim,):
            raise ValueError(
                f"origin must have shape ({problem.dim},); got {self.origin.shape}. "
                "Give one entry a parameter."
            )
        if self.directions.ndim != 2 or len(self.directions) != problem.dim:
            raise ValueError(
                f"directions must have shape ({problem.dim}, k); got {self.directions.shape}. "
                "Give one column a direction."
            )
        rank = int(np.linalg.matrix_rank(self.directions))
        if rank < self.directions.shape[1] or rank == 0:
            raise ValueError(
                f"directions must be linearly independent; got rank {rank} of "
                f"{self.directions.shape[1]} columns. Draw them anew."
            )

    @property
    def n_samples(self) -> int:
        """Number of samples N."""
        return self.problem.n_samples

    @property
    def dim(self) -> int:
        """Dimension k of the subspace."""
        return int(self.directions.shape[1])

    def parameters(self, z: ArrayLike) -> Floats:
        """Parameters ``origin + directions z`` of points (..., k), shape (..., problem.dim)."""
        return np.asarray(self.origin + np.asarray(z, dtype=np.float64) @ self.directions.T)

    def loss(self, theta: ArrayLike) -> Floats:
        """Loss of the full problem at points (..., k), shape (...)."""
        return self.problem.loss(self.parameters(theta))

    def gradient(self, theta: ArrayLike, indices: ArrayLike | None = None) -> Floats:
        """Mean gradient over the samples `indices` in the subspace's coordinates, (..., k)."""
        return np.asarray(self.problem.gradient(self.parameters(theta), indices) @ self.directions)
