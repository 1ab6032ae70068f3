"""SGD's own kernel on a grid, by Ulam's method: the truth that estimated kernels are judged by."""

from __future__ import annotations

from itertools import combinations_with_replacement
from math import comb, factorial, prod
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from sgdmc._core import backend as kernels
from sgdmc._core import validate
from sgdmc._core.reference.ulam import cell_points
from sgdmc.chain.grid import Grid
from sgdmc.chain.spectrum import stationary_distribution
from sgdmc.sgd.interface import Problem, is_builtin, is_problem
from sgdmc.sgd.simulate import resolve_backend, run_sgd

__all__ = ["lumped_blocks", "ulam_kernel"]

Array = NDArray[np.float64]
BOUNDARIES = ("outside", "reflect", "clip")
MAX_BATCHES = 2000  # distinct batches up to which all of them are gone through
MAX_CELLS = 10**8
CHUNK = 2**20  # images made at a time where they are sampled


def ulam_kernel(
    problem: Problem,
    grid: Grid,
    *,
    step_size: float,
    batch_size: int = 1,
    lag: int = 1,
    points_per_cell: int = 16,
    paths_per_point: int = 32,
    lump: ArrayLike | str | None = None,
    boundary: str = "outside",
    rng: Any = None,
    n_threads: int | None = None,
    backend: str = "auto",
) -> Any:
    """Transition matrix of SGD between the cells of a grid, by Ulam's method.

    ``P_uv = Prob(θ_lag ∈ cell v | θ_0 uniform in cell u)`` for
    ``θ_{t+1} = θ_t − step_size · mean gradient of a batch``, batches drawn with replacement.

    Parameters
    ----------
    problem : Problem
        A built-in problem, or any with ``gradient(theta, indices)``.
    grid : Grid
        Its ``n_states**dim`` cells are the states, the last coordinate running fastest
        (`numpy.ravel_multi_index`).
    step_size : float
        Positive.
    batch_size : int, optional
        Samples a step.
    lag : int, optional
        SGD steps that one application of the kernel stands for. The chain is snapped to the grid
        once in `lag` steps: this is not the `lag`-th power of the kernel for one step, which snaps
        at each.
    points_per_cell : int, optional
        Quasi-random points that stand for a cell.
    paths_per_point : int, optional
        Random batch sequences from each point; not used where all batches can be gone through.
    lump : array_like, shape (n_states**dim,) or (n_states,) * dim, or "stationary", optional
        Instead of the joint matrix, give the blocks of single coordinates, cells being weighted by
        this law (see :func:`lumped_blocks`).
    boundary : {"outside", "reflect", "clip"}, optional
        Where mass beyond the grid goes: to one more state, the last, which is absorbing; folded
        back at the edge that it crossed; or to the last cell before the edge, as by `Grid.encode`.
    rng : int, SeedSequence, Generator or None, optional
        For sampled paths.
    n_threads : int, optional
        Threads; results do not depend on it. All processors by default.
    backend : {"auto", "cpp", "numba", "numpy"}, optional
        Same result, other speed; "auto" takes the quickest that the problem has.

    Returns
    -------
    scipy.sparse.csr_array, shape (N, N)
        Row-stochastic; ``N = n_states**dim``, plus one if `boundary` is "outside".
        With `lump`, an ndarray of shape (dim, n_states, n_states), plus one likewise.

    Raises
    ------
    TypeError
        If `problem` is not a problem or `grid` not a `Grid`.
    ValueError
        If dimensions disagree, the grid has more than 1e8 cells, an option is out of range, or an
        image is not finite and `boundary` is not "outside".
    DivergedError
        If a sampled path diverges.

    Notes
    -----
    *Batches.* For ``lag = 1`` and at most 2000 distinct batches (``N`` of them for
    ``batch_size = 1``), every batch is gone through with its probability, and the only error is
    that of the points: an entry is a volume fraction, right to about ``1 / points_per_cell`` times
    the chance of the batches that put a cell's boundary there. Otherwise
    ``S = points_per_cell · paths_per_point`` paths are simulated from each cell, and an entry ``p``
    has a standard error of at most ``sqrt(p (1 − p) / S)``.

    *Cost.* ``O(cells · points · batches)``, or ``O(cells · S · lag)``; 10⁴ cells, 100 samples and
    16 points take a fraction of a second.

    *Where it fails.* A point is re-drawn uniformly in its cell at each step of the kernel. That
    adds a variance of ``width² / 12`` a step: small only if `lag` steps move by several cells.

    References
    ----------
    .. [1] Ulam, "A Collection of Mathematical Problems", Interscience 1960.
    .. [2] Dieuleveut, Durmus, Bach, "Bridging the gap between constant step size stochastic
       gradient descent and Markov chains", Annals of Statistics 48(3), 2020.

    Examples
    --------
    One sample, ``f = θ²/2``: every step halves ``θ``, and a cell is mapped on half a cell.

    >>> from sgdmc.sgd.problems import LeastSquares
    >>> grid = Grid(low=[0.0], scale=[1.0], digits=1, constant=[False])
    >>> P = ulam_kernel(LeastSquares([[1.0]], [0.0]), grid, step_size=0.5, boundary="reflect")
    >>> P[[6]].toarray()[0].tolist()
    [0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    """
    if not is_problem(problem):
        raise TypeError(
            f"problem must have n_samples, dim, loss and gradient; got {type(problem).__name__}. "
            "Wrap it as a NumbaProblem or a TorchProblem."
        )
    if not isinstance(grid, Grid):
        raise TypeError(f"grid must be a Grid; got {type(grid).__name__}. Use Grid.fit.")
    if grid.dim != problem.dim:
        raise ValueError(
            f"grid must have the dimension of the problem, {problem.dim}; got {grid.dim}. "
            "Fit it to iterates of this problem."
        )
    n_cells = grid.n_states**grid.dim
    if n_cells > MAX_CELLS:
        raise ValueError(
            f"grid must have at most {MAX_CELLS:.0e} cells; got {grid.n_states}**{grid.dim}. "
            "Use fewer digits."
        )
    step_size = validate.as_positive("step_size", step_size)
    batch_size = validate.as_int("batch_size", batch_size, minimum=1)
    lag = validate.as_int("lag", lag, minimum=1)
    n_points = validate.as_int("points_per_cell", points_per_cell, minimum=1)
    n_paths = validate.as_int("paths_per_point", paths_per_point, minimum=1)
    edge = BOUNDARIES.index(validate.as_choice("boundary", boundary, BOUNDARIES))
    name = resolve_backend(problem, backend)
    threads = validate.as_threads(n_threads)
    points = _lattice(n_points, grid.dim)
    where = (grid.low, grid.scale, grid.n_states, edge, threads)
    if lag == 1 and comb(problem.n_samples + batch_size - 1, batch_size) <= MAX_BATCHES:
        batches, weights = _all_batches(problem.n_samples, batch_size)
        if is_builtin(problem):
            rows = kernels(name).ulam_step(
                problem.kind,
                problem.records,
                problem.l2,
                step_size,
                points,
                batches,
                weights,
                *where,
            )
        else:
            rows = _step_with_gradient(problem, step_size, points, batches, weights, name, where)
    else:
        rows = _sampled(problem, step_size, batch_size, lag, points, n_paths, name, where, rng)
    starts, columns, values = rows
    outside = int((columns == n_cells).any()) if boundary != "outside" else 0
    if outside:
        raise ValueError(
            f"step_size must keep images finite; got {step_size:g}. Lower it, or use "
            "boundary='outside'."
        )
    P = _as_csr(starts, columns, values, n_cells, boundary == "outside")
    if lump is None:
        return P
    if isinstance(lump, str):
        validate.as_choice("lump", lump, ("stationary",))
    return lumped_blocks(P, grid, weights=lump)


def lumped_blocks(P: Any, grid: Grid, *, weights: ArrayLike | str = "stationary") -> Array:
    """Blocks of single coordinates of a kernel on a joint grid.

    ``B^{(i)}_{st} = Prob(s'_i = t | s_i = s)`` when the joint state has law ``w``:
    ``B^{(i)}_{st} = Σ_{u: u_i = s} w_u Σ_{v: v_i = t} P_uv / Σ_{u: u_i = s} w_u``.

    Parameters
    ----------
    P : sparse matrix, shape (N, N)
        Kernel on the ``n_states**dim`` cells of `grid`, possibly with one more state for outside.
    grid : Grid
        The joint grid.
    weights : array_like, shape (n_states**dim,) or (n_states,) * dim, or "stationary"
        Law ``w`` of the joint state, such as the occupation measure of a run: non-negative, with a
        positive sum. By default the stationary distribution of ``P``.

    Returns
    -------
    ndarray, shape (dim, n_states, n_states)
        Row-stochastic; one more state on both axes, absorbing, if ``P`` has an outside.

    Raises
    ------
    ValueError
        If shapes disagree or the weights are not a measure.

    Notes
    -----
    A coordinate of SGD is in general not Markov by itself: a block depends on the law ``w``. States
    ``s`` that ``w`` gives no mass to have the other coordinates drawn uniformly instead.

    Examples
    --------
    >>> grid = Grid(low=[0.0], scale=[1.0], digits=1, constant=[False])
    >>> blocks = lumped_blocks(sp.eye_array(10, format="csr"), grid, weights=np.ones(10))
    >>> blocks.shape, bool((blocks[0] == np.eye(10)).all())
    ((1, 10, 10), True)
    """
    n, dim = grid.n_states, grid.dim
    n_cells = n**dim
    extra = P.shape[0] - n_cells
    if extra not in (0, 1) or P.shape[0] != P.shape[1]:
        raise ValueError(
            f"P must have the {n_cells} cells of grid as its states, and at most one more; "
            f"got shape {P.shape}. Pass the grid that it was made with."
        )
    if isinstance(weights, str):
        validate.as_choice("weights", weights, ("stationary",))
        law = stationary_distribution(P)[:n_cells]
        if extra and law.sum() == 0:
            raise ValueError(
                "weights must have mass on the grid; got a stationary law that is all outside. "
                "Use boundary='reflect', or pass the occupation measure of a run."
            )
    else:
        law = validate.as_floats("weights", weights).ravel()
        if len(law) != n_cells:
            raise ValueError(
                f"weights must have {n_cells} entries; got {len(law)}. Give one a cell of grid."
            )
        if (law < 0).any() or law.sum() <= 0:
            raise ValueError(
                f"weights must be a measure; got {law.min():g} as least entry and {law.sum():g} as "
                "sum. Count visits of cells."
            )
    inner = sp.csr_array(P)[:n_cells]
    blocks = np.zeros((dim, n + extra, n + extra))
    bins = np.unravel_index(np.arange(n_cells), (n,) * dim)
    for i in range(dim):
        mass = np.bincount(bins[i], weights=law, minlength=n)
        share = np.where(mass[bins[i]] > 0, law, 1.0)
        share = share / np.bincount(bins[i], weights=share, minlength=n)[bins[i]]
        gather = sp.csr_array((share, (bins[i], np.arange(n_cells))), shape=(n, n_cells))
        target = np.append(bins[i], np.full(extra, n))
        spread = sp.csr_array(
            (np.ones(len(target)), (np.arange(len(target)), target)), shape=(len(target), n + extra)
        )
        rows = (gather @ inner @ spread).toarray()
        blocks[i, :n] = rows / rows.sum(axis=1, keepdims=True)
        blocks[i, n:, n:] = 1.0
    return blocks


def _lattice(n_points: int, dim: int) -> Array:
    """Points (n_points, dim) in the unit cube: a Weyl sequence, or midpoints in one dimension.

    They lie symmetrically about the centre: a cell's points must not pull to one side, since a pull
    at each step adds up over the memory of the chain.
    """
    if dim == 1:
        return (np.arange(n_points)[:, None] + 0.5) / n_points
    root = 2.0
    for _ in range(64):
        root = (1.0 + root) ** (1.0 / (dim + 1))
    alpha = root ** -np.arange(1.0, dim + 1)
    half = (0.5 + np.arange(1, n_points // 2 + 1)[:, None] * alpha) % 1.0
    centre = np.full((n_points % 2, dim), 0.5)
    return np.concatenate([half, centre, 1.0 - half])


def _all_batches(n_samples: int, batch_size: int) -> tuple[NDArray[np.uint32], Array]:
    """Every multiset of samples, and the number of ordered draws that give it."""
    batches = np.array(
        list(combinations_with_replacement(range(n_samples), batch_size)), dtype=np.uint32
    )
    weights = (
        [
            factorial(batch_size)
            / prod(factorial(c) for c in np.unique(row, return_counts=True)[1].tolist())
            for row in batches
        ]
        if batch_size > 1
        else [1.0] * n_samples
    )
    return batches, np.array(weights, dtype=np.float64)


def _step_with_gradient(
    problem: Problem,
    step_size: float,
    points: Array,
    batches: NDArray[np.uint32],
    weights: Array,
    backend: str,
    where: tuple[Any, ...],
) -> tuple[Any, Any, Any]:
    """One step through every batch, with the problem's own gradient."""
    low, scale, n_states = where[:3]
    n_cells = n_states ** len(low)
    images_a_cell = len(points) * len(batches)
    parts = []
    for cells in _chunks(n_cells, images_a_cell):
        theta = cell_points(cells, points, low, scale, n_states)
        images = np.empty((len(cells), len(points), len(batches), len(low)))
        for k, batch in enumerate(batches.astype(np.int64)):
            gradient = np.asarray(problem.gradient(theta.reshape(-1, len(low)), batch))
            images[:, :, k] = theta - step_size * gradient.reshape(theta.shape)
        parts.append(
            kernels("cpp" if backend != "numpy" else backend).ulam_count(
                images.reshape(len(cells), images_a_cell, len(low)),
                np.tile(weights, len(points)),
                *where,
            )
        )
    return _stacked(parts)


def _sampled(
    problem: Problem,
    step_size: float,
    batch_size: int,
    lag: int,
    points: Array,
    n_paths: int,
    backend: str,
    where: tuple[Any, ...],
    rng: Any,
) -> tuple[Any, Any, Any]:
    """`lag` steps of SGD on random batches from each point of each cell."""
    low, scale, n_states, _, threads = where
    dim = len(low)
    images_a_cell = len(points) * n_paths
    generator = validate.as_generator(rng)
    parts = []
    for cells in _chunks(n_states**dim, images_a_cell):
        theta = cell_points(cells, points, low, scale, n_states).reshape(-1, dim)
        run = run_sgd(
            problem,
            np.repeat(theta, n_paths, axis=0),
            step_size=step_size,
            n_steps=lag,
            batch_size=batch_size,
            rng=generator,
            thin=lag,
            n_threads=threads,
            backend=backend,
        )
        images = np.ascontiguousarray(run.iterates[:, -1]).reshape(len(cells), images_a_cell, dim)
        parts.append(
            kernels("cpp" if backend != "numpy" else backend).ulam_count(
                images, np.ones(images_a_cell), *where
            )
        )
    return _stacked(parts)


def _chunks(n_cells: int, images_a_cell: int) -> list[NDArray[np.int64]]:
    size = max(1, CHUNK // images_a_cell)
    return [np.arange(c, min(c + size, n_cells)) for c in range(0, n_cells, size)]


def _stacked(parts: list[tuple[Any, Any, Any]]) -> tuple[Any, Any, Any]:
    starts = [parts[0][0]]
    for part in parts[1:]:
        starts.append(part[0][1:] + starts[-1][-1])
    return (
        np.concatenate(starts),
        np.concatenate([p[1] for p in parts]),
        np.concatenate([p[2] for p in parts]),
    )


def _as_csr(starts: Any, columns: Any, values: Any, n_cells: int, outside: bool) -> sp.csr_array:
    if outside:
        starts = np.append(starts, starts[-1] + 1)
        columns = np.append(columns, np.int32(n_cells))
        values = np.append(values, 1.0)
    if starts[-1] < 2**31:
        starts = starts.astype(np.int32)
    n = n_cells + int(outside)
    return sp.csr_array((values, columns, starts), shape=(n, n))
