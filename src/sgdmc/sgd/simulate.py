"""Constant-step SGD: many chains at once, reproducible whatever computes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sgdmc._core import backend as kernels
from sgdmc._core import validate
from sgdmc._core.reference.sgd import DIVERGED, run_with_gradient
from sgdmc.chain.grid import Grid
from sgdmc.sgd.custom import NumbaProblem
from sgdmc.sgd.interface import Problem, is_builtin, is_problem
from sgdmc.sgd.run import DivergedError, Run

__all__ = ["count_sgd_transitions", "run_sgd", "run_sgd_states"]

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
    setup = _Setup.of(
        problem, start, step_size, n_steps, batch_size, replacement, rng, n_threads, backend
    )
    thin = validate.as_int("thin", thin, minimum=1, maximum=setup.n_steps)
    shape = (len(setup.start), setup.n_steps // thin + 1, problem.dim)
    iterates = validate.output_or_new("out", out, shape, np.float64)
    setup.check(setup.simulate(thin, iterates))
    return Run(
        iterates=iterates,
        names=tuple(f"theta{j}" for j in range(problem.dim)),
        lengths=np.full(shape[0], shape[1], dtype=np.int64),
        step_size=setup.step_size,
        batch_size=setup.batch_size,
        thin=thin,
        source=f"run_sgd({type(problem).__name__})",
    )


def run_sgd_states(
    problem: Problem,
    start: ArrayLike,
    grid: Grid,
    *,
    step_size: float,
    n_steps: int,
    batch_size: int = 1,
    replacement: bool = True,
    rng: Any = None,
    thin: int = 1,
    n_threads: int | None = None,
    backend: str = "auto",
    out: NDArray[np.int16] | None = None,
) -> NDArray[np.int16]:
    """Run SGD and keep only the states of its iterates on a grid, a quarter of their size.

    Equal to ``grid.encode(run_sgd(...).iterates)``; where the compiled kernels do the work, the
    iterates are never stored.

    Parameters
    ----------
    problem, start, step_size, n_steps, batch_size, replacement, rng, thin, n_threads, backend
        As in :func:`run_sgd`.
    grid : Grid
        With as many coordinates as the problem.
    out : ndarray, shape (n_chains, n_steps // thin + 1, dim), int16, optional
        Where to write.

    Returns
    -------
    ndarray, shape (n_chains, n_steps // thin + 1, dim), int16

    Raises
    ------
    TypeError, ValueError, DivergedError
        As :func:`run_sgd`; also if the grid has another number of coordinates.

    Examples
    --------
    >>> from sgdmc.sgd.problems import LeastSquares
    >>> problem, grid = LeastSquares([[1.0]], [0.0]), Grid.fit([0.0, 8.0], digits=1)
    >>> run_sgd_states(problem, [8.0], grid, step_size=0.5, n_steps=3)[0, :, 0].tolist()
    [8, 5, 3, 2]
    """
    setup = _Setup.of(
        problem, start, step_size, n_steps, batch_size, replacement, rng, n_threads, backend
    )
    _fitting(grid, problem)
    thin = validate.as_int("thin", thin, minimum=1, maximum=setup.n_steps)
    shape = (len(setup.start), setup.n_steps // thin + 1, problem.dim)
    states = validate.output_or_new("out", out, shape, np.int16)
    if setup.backend == "cpp":
        cells = (grid.low, grid.scale, grid.n_states)
        setup.check(
            kernels("cpp").run_sgd_states(*setup.builtin(), thin, *cells, states, setup.n_threads)
        )
        return states
    iterates = np.empty(shape)
    setup.check(setup.simulate(thin, iterates))
    return grid.encode(iterates, out=states, n_threads=setup.n_threads, backend=setup.backend)


def count_sgd_transitions(
    problem: Problem,
    start: ArrayLike,
    grid: Grid,
    *,
    step_size: float,
    n_steps: int,
    lag: int = 1,
    batch_size: int = 1,
    replacement: bool = True,
    rng: Any = None,
    n_threads: int | None = None,
    backend: str = "auto",
) -> NDArray[np.int64]:
    """Run SGD and count the transitions of each coordinate's states, and store nothing else.

    Equal to :func:`sgdmc.count_transitions` of each coordinate of
    ``grid.encode(run_sgd(...).iterates)``.

    Parameters
    ----------
    problem, start, step_size, n_steps, batch_size, replacement, rng, n_threads, backend
        As in :func:`run_sgd`.
    grid : Grid
        With as many coordinates as the problem.
    lag : int, default 1
        SGD steps between the two states of a pair, over sliding windows.

    Returns
    -------
    ndarray, shape (dim, n_states, n_states), int64
        Rows index the present state.

    Raises
    ------
    TypeError, ValueError, DivergedError
        As :func:`run_sgd`; also if the grid has another number of coordinates.

    Notes
    -----
    Memory O(n_threads dim n_states^2), whatever the number of chains and steps. Iterates outside
    the grid count as the state at its end.

    Examples
    --------
    >>> from sgdmc.sgd.problems import LeastSquares
    >>> problem, grid = LeastSquares([[1.0]], [0.0]), Grid.fit([0.0, 8.0], digits=1)
    >>> counts = count_sgd_transitions(problem, [8.0], grid, step_size=0.5, n_steps=3)
    >>> [(int(u), int(v)) for _, u, v in zip(*counts.nonzero())]
    [(3, 2), (5, 3), (8, 5)]
    """
    setup = _Setup.of(
        problem, start, step_size, n_steps, batch_size, replacement, rng, n_threads, backend
    )
    _fitting(grid, problem)
    lag = validate.as_int("lag", lag, minimum=1)
    counts = np.zeros((problem.dim, grid.n_states, grid.n_states), dtype=np.int64)
    if setup.backend == "cpp":
        cells = (grid.low, grid.scale, grid.n_states)
        setup.check(
            kernels("cpp").count_sgd(*setup.builtin(), lag, *cells, counts, setup.n_threads)
        )
        return counts
    iterates = np.empty((len(setup.start), setup.n_steps + 1, problem.dim))
    setup.check(setup.simulate(1, iterates))
    states = grid.encode(iterates, n_threads=setup.n_threads, backend=setup.backend)
    for j in range(problem.dim):
        path = np.ascontiguousarray(states[:, :, j])
        kernels(setup.backend).count_transitions(
            path, grid.n_states, lag, counts[j], setup.n_threads
        )
    return counts


@dataclass(frozen=True)
class _Setup:
    """Checked arguments of a simulation, and how it is computed."""

    problem: Problem
    start: Floats
    step_size: float
    n_steps: int
    batch_size: int
    replacement: bool
    seed: int
    n_threads: int
    backend: str

    @classmethod
    def of(
        cls,
        problem: Problem,
        start: ArrayLike,
        step_size: float,
        n_steps: int,
        batch_size: int,
        replacement: bool,
        rng: Any,
        n_threads: int | None,
        backend: str,
    ) -> _Setup:
        if not is_problem(problem):
            raise TypeError(
                "problem must have n_samples, dim, loss and gradient; got "
                f"{type(problem).__name__}. Wrap it as a NumbaProblem or a TorchProblem."
            )
        if not isinstance(replacement, (bool, np.bool_)):
            raise TypeError(f"replacement must be True or False; got {replacement!r}. Pass a bool.")
        return cls(
            problem=problem,
            start=_starts(start, problem.dim),
            step_size=validate.as_positive("step_size", step_size),
            n_steps=validate.as_int("n_steps", n_steps, minimum=1),
            batch_size=validate.as_int("batch_size", batch_size, minimum=1),
            replacement=bool(replacement),
            n_threads=validate.as_threads(n_threads),
            backend=resolve_backend(problem, backend),
            seed=validate.seed_from(rng),
        )

    def builtin(self) -> tuple[Any, ...]:
        """Leading arguments of the kernels of built-in problems."""
        assert is_builtin(self.problem)
        data = (self.problem.kind, self.problem.records, self.problem.l2)
        return (*data, self.start, *self._sampling())

    def _sampling(self) -> tuple[Any, ...]:
        return (self.step_size, self.n_steps, self.batch_size, self.replacement, self.seed)

    def simulate(self, thin: int, iterates: Floats) -> tuple[int, int]:
        """Write the iterates; step and chain of the first divergence, or (-1, -1)."""
        module, problem = kernels(self.backend), self.problem
        found: tuple[int, int]
        if is_builtin(problem):
            found = module.run_sgd(*self.builtin(), thin, iterates, self.n_threads)
            return found
        sampling = (problem.n_samples, self.start, *self._sampling(), thin, iterates)
        if isinstance(problem, NumbaProblem) and self.backend == "numba":
            found = module.run_sgd_with(problem.sample_gradient, *sampling, self.n_threads)
            return found
        return run_with_gradient(problem.gradient, *sampling)

    def check(self, divergence: tuple[int, int]) -> None:
        """Raise `DivergedError`, with a step size to try instead, if there was a divergence."""
        step, chain = divergence
        if step < 0:
            return
        advice = 0.5 * self.step_size
        if is_builtin(self.problem):
            stable = self.problem.stable_step_size()
            advice = min(advice, stable) if stable is not None else advice
        raise DivergedError(
            f"step_size must keep SGD bounded; got {self.step_size:g}, with which chain {chain} "
            f"left |theta| <= {DIVERGED:g} at step {step}. Try step_size={advice:.3g}."
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
    if is_builtin(problem):
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


def _fitting(grid: Grid, problem: Problem) -> None:
    if grid.dim != problem.dim:
        raise ValueError(
            f"grid must have {problem.dim} coordinates; got {grid.dim}. Fit it to such iterates."
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
