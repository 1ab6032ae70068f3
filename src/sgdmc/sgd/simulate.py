"""Constant-step SGD: many chains at once, reproducible whatever computes them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sgdmc._core import backend as kernels
from sgdmc._core import validate
from sgdmc._core.reference.sgd import DIVERGED, run_with_gradient
from sgdmc.sgd.custom import NumbaProblem
from sgdmc.sgd.interface import BuiltinProblem, Problem
from sgdmc.sgd.run import DivergedError, Run

__all__ = ["run_sgd"]

Floats = NDArray[np.float64]


def run_sgd(
    problem: Problem,
    start: ArrayLike,
    *,
    step_size: float,
    n_steps: int,
    batch_size: int = 1,
    replacement: bool = True,
    rng: Any = None,
    thin: int = 1,
    n_threads: int | None = None,
    backend: str = "auto",
    out: Floats | None = None,
) -> Run:
    """Run SGD, ``theta <- theta - step_size * mean gradient of a batch``, from one or many starts.

    Parameters
    ----------
    problem : Problem
        A built-in problem, a `NumbaProblem`, a `TorchProblem`, or any object like them.
    start : array_like, shape (dim,) or (n_chains, dim)
        Finite starts, one a chain.
    step_size : float
        Constant step size, positive.
    n_steps : int
        Steps of each chain, at least 1.
    batch_size : int, default 1
        Samples of a mini-batch, at least 1.
    replacement : bool, default True
        Draw samples independently. Otherwise each chain goes through a fresh random permutation of
        the samples in each epoch (a batch may straddle two epochs), and is no longer a homogeneous
        Markov chain in ``theta`` alone.
    rng : int, SeedSequence, Generator or None
        Covers every draw: sample number t of chain c is a pure function of one seed, c and t.
    thin : int, default 1
        Record every `thin`-th iterate; the last ``n_steps % thin`` steps are then not taken.
    n_threads : int, optional
        All processors by default; the result does not depend on it.
    backend : {"auto", "cpp", "numba", "numpy"}
        Who computes. Built-in problems have all three, a `NumbaProblem` "numba" and "numpy", others
        "numpy" alone; "auto" takes the first.
    out : ndarray, shape (n_chains, n_steps // thin + 1, dim), float64, optional
        Where to write the iterates: fresh pages cost more than the arithmetic.

    Returns
    -------
    Run
        With ``iterates`` of shape (n_chains, n_steps // thin + 1, dim), the starts included.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind.
    ValueError
        If an argument is out of range, or the problem does not have the backend.
    DivergedError
        If an iterate is NaN or a coordinate exceeds 1e12; the message says in which chain, at which
        step, and which step size to try.

    Notes
    -----
    Built-in problems give the same bits on every backend: additions have a fixed order, sine and
    exponential are the library's own. Samples are uniform up to a relative error of
    ``n_samples * 2**-64``. Cost O(n_chains n_steps batch_size dim).

    References
    ----------
    .. [DDB20] Dieuleveut, Durmus, Bach (2020). Bridging the gap between constant step size
       stochastic gradient descent and Markov chains. Annals of Statistics 48(3).

    Examples
    --------
    >>> from sgdmc.sgd.problems import LeastSquares
    >>> run = run_sgd(LeastSquares([[1.0]], [0.0]), [8.0], step_size=0.5, n_steps=3)
    >>> run.iterates[0, :, 0].tolist()
    [8.0, 4.0, 2.0, 1.0]
    """
    if not isinstance(problem, Problem):
        raise TypeError(
            f"problem must have n_samples, dim, loss and gradient; got {type(problem).__name__}. "
            "Wrap it as a NumbaProblem or a TorchProblem."
        )
    starts = _starts(start, problem.dim)
    step_size = validate.as_positive("step_size", step_size)
    n_steps = validate.as_int("n_steps", n_steps, minimum=1)
    thin = validate.as_int("thin", thin, minimum=1, maximum=n_steps)
    batch_size = validate.as_int("batch_size", batch_size, minimum=1)
    if not isinstance(replacement, (bool, np.bool_)):
        raise TypeError(f"replacement must be True or False; got {replacement!r}. Pass a bool.")
    name = resolve_backend(problem, backend)
    shape = (len(starts), n_steps // thin + 1, problem.dim)
    iterates = validate.output_or_new("out", out, shape, np.float64)
    sampling = (step_size, n_steps, batch_size, bool(replacement), validate.seed_from(rng), thin)
    threads = validate.as_threads(n_threads)
    if isinstance(problem, BuiltinProblem):
        step, chain = kernels(name).run_sgd(
            problem.kind, problem.records, problem.l2, starts, *sampling, iterates, threads
        )
    elif isinstance(problem, NumbaProblem) and name == "numba":
        step, chain = kernels(name).run_sgd_with(
            problem.sample_gradient, problem.n_samples, starts, *sampling, iterates, threads
        )
    else:
        step, chain = run_with_gradient(
            problem.gradient, problem.n_samples, starts, *sampling, iterates
        )
    if step >= 0:
        raise diverged(problem, step_size, int(step), int(chain))
    return Run(
        iterates=iterates,
        names=tuple(f"theta{j}" for j in range(problem.dim)),
        lengths=np.full(len(starts), shape[1], dtype=np.int64),
        step_size=step_size,
        batch_size=batch_size,
        thin=thin,
        source=f"run_sgd({type(problem).__name__})",
    )


def resolve_backend(problem: Problem, backend: str) -> str:
    """Backend that computes `problem`: `backend`, or the fastest one it has if that is "auto".

    Raises
    ------
    ValueError
        If there is no such backend, or the problem does not have it.
    """
    backend = validate.as_choice("backend", backend, ("auto", "cpp", "numba", "numpy"))
    available: tuple[str, ...] = ("numpy",)
    if isinstance(problem, BuiltinProblem):
        available = ("cpp", "numba", "numpy")
    elif isinstance(problem, NumbaProblem):
        available = ("numba", "numpy")
    if backend == "auto":
        return available[0]
    if backend not in available:
        raise ValueError(
            f"backend must be one of {', '.join(map(repr, available))} for a "
            f"{type(problem).__name__}; got {backend!r}. Leave it at 'auto'."
        )
    return backend


def diverged(problem: Problem, step_size: float, step: int, chain: int) -> DivergedError:
    """Describe a divergence, with a step size to try instead."""
    advice = 0.5 * step_size
    if isinstance(problem, BuiltinProblem):
        stable = problem.stable_step_size()
        advice = min(advice, stable) if stable is not None else advice
    return DivergedError(
        f"step_size must keep SGD bounded; got {step_size:g}, with which chain {chain} left "
        f"|theta| <= {DIVERGED:g} at step {step}. Try step_size={advice:.3g}."
    )


def _starts(start: ArrayLike, dim: int) -> Floats:
    values = np.atleast_2d(validate.as_floats("start", start))
    if values.ndim != 2 or values.shape[1] != dim:
        raise ValueError(
            f"start must have shape ({dim},) or (n_chains, {dim}); got {np.shape(start)}. "
            "Give one row a chain."
        )
    if len(values) == 0:
        raise ValueError("start must hold at least one chain; got none. Add a row.")
    if np.abs(values).max() > DIVERGED:
        raise ValueError(
            f"start must lie within +-{DIVERGED:g}; got {np.abs(values).max():g}. Rescale it."
        )
    return values
