"""Problems of the user's own: a jitted gradient, or a torch module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sgdmc._core import validate

__all__ = ["NumbaProblem", "TorchProblem"]

Floats = NDArray[np.float64]


class NumbaProblem:
    """A problem given by the gradient of one sample's loss, compiled by numba.

    Parameters
    ----------
    gradient : callable
        ``gradient(theta, i)`` with `theta` float64 of shape (dim,) and a sample number `i`; returns
        float64 of shape (dim,). A function compiled by `numba.njit`, or a plain one, which is then
        compiled. It must neither change `theta` nor raise.
    n_samples, dim : int
        Number of samples and of parameters, both at least 1.
    loss : callable, optional
        ``loss(theta, i)``, the loss of one sample, likewise.

    Raises
    ------
    TypeError
        If `gradient` is not a function.
    ValueError
        If the gradient at the origin does not have shape (dim,), or a number is below 1.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([1.0, 3.0])
    >>> problem = NumbaProblem(lambda theta, i: theta - x[i], n_samples=2, dim=1)
    >>> problem.gradient([0.0]).tolist()
    [-2.0]
    """

    def __init__(
        self,
        gradient: Callable[[Floats, int], Floats],
        *,
        n_samples: int,
        dim: int,
        loss: Callable[[Floats, int], float] | None = None,
    ) -> None:
        self._n_samples = validate.as_int("n_samples", n_samples, minimum=1)
        self._dim = validate.as_int("dim", dim, minimum=1)
        self.sample_gradient = _jitted("gradient", gradient)
        self.sample_loss = None if loss is None else _jitted("loss", loss)
        shape = np.shape(self.sample_gradient(np.zeros(self._dim), 0))
        if shape != (self._dim,):
            raise ValueError(
                f"gradient must return shape ({self._dim},); got {shape} at the origin. "
                "Return one entry a parameter."
            )

    @property
    def n_samples(self) -> int:
        """Number of samples N."""
        return self._n_samples

    @property
    def dim(self) -> int:
        """Number of parameters d."""
        return self._dim

    def loss(self, theta: ArrayLike) -> Floats:
        """Mean loss over the samples for `theta` (..., dim), shape (...).

        Raises
        ------
        ValueError
            If the problem was made without a loss.
        """
        if self.sample_loss is None:
            raise ValueError(
                "loss must be given to be evaluated; got None. Pass loss=... at first."
            )
        rows = np.asarray(theta, dtype=np.float64).reshape(-1, self._dim)
        means = [
            np.mean([self.sample_loss(row, i) for i in range(self._n_samples)]) for row in rows
        ]
        return np.array(means).reshape(np.shape(theta)[:-1])

    def gradient(self, theta: ArrayLike, indices: ArrayLike | None = None) -> Floats:
        """Mean gradient over the samples `indices` (all if None), shape (..., dim)."""
        values = np.asarray(theta, dtype=np.float64)
        batch = np.arange(self._n_samples) if indices is None else np.atleast_1d(indices)
        lead = np.broadcast_shapes(values.shape[:-1], batch.shape[:-1])
        rows = np.broadcast_to(values, (*lead, self._dim)).reshape(-1, self._dim)
        batches = np.broadcast_to(batch, (*lead, batch.shape[-1])).reshape(-1, batch.shape[-1])
        total = np.zeros(rows.shape)
        for c, row in enumerate(rows):
            for i in batches[c]:
                total[c] += self.sample_gradient(np.ascontiguousarray(row), int(i))
        return (total / batches.shape[-1]).reshape((*lead, self._dim))


class TorchProblem:
    """A problem given by a torch module: its parameters, flattened, are ``theta``.

    Parameters
    ----------
    module : torch.nn.Module
        Called on a batch of inputs; its floating parameters are ``theta``, in the order of
        ``module.named_parameters()``. It is not changed.
    loss : callable
        ``loss(output, target)``, the mean loss of a batch as a scalar tensor.
    data : tuple of tensors (inputs, targets)
        First axes are the samples.

    Raises
    ------
    ValueError
        If the two do not have the same positive number of samples, or the module has no parameters.

    Notes
    -----
    Gradients are taken by `torch.func` for all chains in one call, in the dtype and on the device
    of the parameters; iterates are kept in float64. Buffers (running means and the like) stay as
    they are, and the module should be deterministic: no dropout in training mode.

    Examples
    --------
    >>> import torch
    >>> x = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    >>> line = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
    >>> problem = TorchProblem(line, torch.nn.functional.mse_loss, (x, 3 * x))
    >>> problem.gradient([[3.0], [2.0]]).tolist()
    [[0.0], [-5.0]]
    """

    def __init__(self, module: Any, loss: Callable[[Any, Any], Any], data: tuple[Any, Any]) -> None:
        inputs, targets = data
        if len(inputs) != len(targets) or len(inputs) == 0:
            raise ValueError(
                "data must hold as many inputs as targets, and at least one; got "
                f"{len(inputs)} and {len(targets)}. Align the two."
            )
        self.module, self._loss = module, loss
        self._n_samples = len(inputs)
        self._inputs, self._targets = inputs, targets
        named = {k: v.detach().clone() for k, v in module.named_parameters()}
        if not named:
            raise ValueError("module must have parameters; got none. Pass a trainable module.")
        self._named = named
        self._buffers = {k: v.detach() for k, v in module.named_buffers()}
        self._dim = int(sum(v.numel() for v in named.values()))

    @property
    def n_samples(self) -> int:
        """Number of samples N."""
        return self._n_samples

    @property
    def dim(self) -> int:
        """Number of parameters d."""
        return self._dim

    @property
    def start(self) -> Floats:
        """The module's own parameters, flattened, shape (dim,)."""
        flat = [v.reshape(-1).double().cpu().numpy() for v in self._named.values()]
        return np.concatenate(flat)

    def loss(self, theta: ArrayLike) -> Floats:
        """Mean loss over all samples for `theta` (..., dim), shape (...)."""
        import torch

        flat = self._flat(theta).reshape(-1, self._dim)
        with torch.no_grad():
            losses = [self._mean_loss(row, self._inputs, self._targets) for row in flat]
        values: Floats = torch.stack(losses).double().cpu().numpy()
        return values.reshape(np.shape(theta)[:-1])

    def gradient(self, theta: ArrayLike, indices: ArrayLike | None = None) -> Floats:
        """Mean gradient over the samples `indices` (all if None), shape (..., dim)."""
        import torch

        batch = np.arange(self.n_samples) if indices is None else np.atleast_1d(indices)
        values = np.asarray(theta, dtype=np.float64)
        lead = np.broadcast_shapes(values.shape[:-1], batch.shape[:-1])
        flat = self._flat(np.broadcast_to(values, (*lead, self._dim))).reshape(-1, self._dim)
        grad = torch.func.grad(self._mean_loss)
        if batch.ndim == 1:
            chosen = torch.as_tensor(batch, device=self._inputs.device)
            result = torch.func.vmap(grad, in_dims=(0, None, None))(
                flat, self._inputs[chosen], self._targets[chosen]
            )
        else:
            wide = np.broadcast_to(batch, (*lead, batch.shape[-1])).reshape(len(flat), -1)
            chosen = torch.as_tensor(wide.copy(), device=self._inputs.device)
            result = torch.func.vmap(grad)(flat, self._inputs[chosen], self._targets[chosen])
        gradients: Floats = result.double().cpu().numpy()
        return gradients.reshape((*lead, self._dim))

    def _flat(self, theta: ArrayLike) -> Any:
        import torch

        first = next(iter(self._named.values()))
        return torch.as_tensor(np.array(theta, dtype=np.float64)).to(first.device, first.dtype)

    def _mean_loss(self, flat: Any, inputs: Any, targets: Any) -> Any:
        import torch

        parameters, used = {}, 0
        for name, value in self._named.items():
            parameters[name] = flat[used : used + value.numel()].reshape(value.shape)
            used += value.numel()
        output = torch.func.functional_call(self.module, (parameters, self._buffers), (inputs,))
        return self._loss(output, targets)


def _jitted(name: str, function: Any) -> Any:
    import numba
    from numba.extending import is_jitted

    if is_jitted(function):
        return function
    if not callable(function):
        raise TypeError(f"{name} must be a function; got {type(function).__name__}. Pass one.")
    return numba.njit(nogil=True, error_model="numpy")(function)
