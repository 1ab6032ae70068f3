"""SGD against a numba loop, vectorised NumPy and a loop over torch.optim.SGD."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numba
import numpy as np
from benchmarks.common import Row, in_turn, machine_limits, show

from sgdmc._core import validate
from sgdmc.chain.grid import Grid
from sgdmc.chain.transitions import count_transitions
from sgdmc.sgd.problems import LeastSquares, make_least_squares, make_sine_regression
from sgdmc.sgd.simulate import count_sgd_transitions, run_sgd, run_sgd_states

STEP = 0.02


@numba.njit(nogil=True)
def numba_least_squares(X: Any, y: Any, start: Any, n_steps: int, out: Any) -> None:
    for c in range(len(start)):
        a, b = start[c]
        out[c, 0] = start[c]
        for t in range(n_steps):
            i = np.random.randint(len(X))  # noqa: NPY002
            r = X[i, 0] * a + X[i, 1] * b - y[i]
            a -= STEP * r * X[i, 0]
            b -= STEP * r * X[i, 1]
            out[c, t + 1, 0] = a
            out[c, t + 1, 1] = b


@numba.njit(nogil=True)
def numba_sine(x: Any, y: Any, start: Any, n_steps: int, out: Any) -> None:
    for c in range(len(start)):
        a, b = start[c]
        out[c, 0] = start[c]
        for t in range(n_steps):
            i = np.random.randint(len(x))  # noqa: NPY002
            s, k = np.sin(b * x[i]), np.cos(b * x[i])
            r = a * s - y[i]
            a, b = a - STEP * r * s, b - STEP * r * a * x[i] * k
            out[c, t + 1, 0] = a
            out[c, t + 1, 1] = b


def numpy_loop(problem: Any, start: np.ndarray, n_steps: int, out: np.ndarray) -> None:
    """All chains at once, one step after the other."""
    rng = np.random.default_rng(0)
    theta = out[:, 0] = start
    for t in range(n_steps):
        i = rng.integers(problem.n_samples, size=len(start))
        if isinstance(problem, LeastSquares):
            x = problem.X[i]
            gradient = ((x * theta).sum(axis=1) - problem.y[i])[:, None] * x
        else:
            a, b, x = theta[:, 0], theta[:, 1], problem.x[i]
            s, c = np.sin(b * x), np.cos(b * x)
            r = a * s - problem.y[i]
            gradient = np.stack([r * s, r * a * x * c], axis=1)
        theta = out[:, t + 1] = theta - STEP * gradient


def torch_loop(problem: Any, start: np.ndarray, n_steps: int) -> None:
    """One chain as it is written in torch."""
    import torch

    theta = torch.tensor(start, requires_grad=True)
    optimiser = torch.optim.SGD([theta], lr=STEP)
    linear = isinstance(problem, LeastSquares)
    inputs = torch.as_tensor(np.array(problem.X if linear else problem.x))
    targets = torch.as_tensor(np.array(problem.y))
    path = [theta.detach().clone()]
    for _ in range(n_steps):
        i = torch.randint(problem.n_samples, ())
        optimiser.zero_grad()
        output = inputs[i] @ theta if linear else theta[0] * torch.sin(theta[1] * inputs[i])
        (0.5 * (output - targets[i]) ** 2).backward()
        optimiser.step()
        path.append(theta.detach().clone())


def stored(
    name: str, problem: Any, loop: Callable[..., None], data: tuple[Any, ...], targets: Any
) -> Iterator[Row]:
    size = 1000
    start = np.random.default_rng(0).normal(size=(size, 2))
    out, other = np.empty((size, size + 1, 2)), np.empty((size, size + 1, 2))
    loop(*data, start, 2, other[:, :3])
    peer, vectorised, ours, copied = in_turn(
        lambda: loop(*data, start, size, other),
        lambda: numpy_loop(problem, start, size, other),
        lambda: run_sgd(problem, start, step_size=STEP, n_steps=size, rng=0, out=out),
        lambda: np.copyto(other, out),
    )
    expected = run_sgd(problem, start[:9], step_size=STEP, n_steps=size, rng=0, backend="numpy")
    assert np.array_equal(out[:9], expected.iterates)
    loop(*data, start, size, other)
    spread = np.sqrt((out[:, -1].var(axis=0) + other[:, -1].var(axis=0)) / size)
    assert (np.abs(out[:, -1].mean(axis=0) - other[:, -1].mean(axis=0)) < 5 * spread + 1e-3).all()
    (loop_seconds,) = in_turn(lambda: torch_loop(problem, start[0], 500), repeats=5)
    task = f"{name}, {size} starts of {size} steps, stored"
    bound = ("copy of the result", copied)
    yield Row(task, "numba loop", peer, ours, targets[0], *bound)
    yield Row(task, "vectorised NumPy", vectorised, ours, targets[1], *bound)
    note = "torch: 500 steps, scaled"
    seconds = loop_seconds * size * size / 500
    yield Row(task, "torch.optim.SGD loop", seconds, ours, targets[2], *bound, note)


def fused() -> Iterator[Row]:
    """Simulate, discretise and count at once, against one after the other."""
    problem = make_least_squares(rng=0)
    start = np.random.default_rng(0).normal(size=(1000, 2))
    options = {"step_size": STEP, "n_steps": 1000, "rng": 0}
    grid = Grid.fit(run_sgd(problem, start, **options).iterates)
    states = np.empty((1000, 1001, 2), np.int16)

    def apart() -> np.ndarray:
        path = grid.encode(run_sgd(problem, start, **options).iterates)
        return np.stack(
            [count_transitions(path[:, :, j], n_states=grid.n_states) for j in range(2)]
        )

    peer, counted, encoded, kept = in_turn(
        apart,
        lambda: count_sgd_transitions(problem, start, grid, **options),
        lambda: grid.encode(run_sgd(problem, start, **options).iterates),
        lambda: run_sgd_states(problem, start, grid, out=states, **options),
    )
    assert np.array_equal(apart(), count_sgd_transitions(problem, start, grid, **options))
    assert np.array_equal(states, grid.encode(run_sgd(problem, start, **options).iterates))
    task = "least squares, 10^6 steps, transition counts only"
    yield Row(task, "sgdmc, one after the other", peer, counted)
    task = "least squares, 10^6 steps, int16 states only"
    yield Row(task, "sgdmc, one after the other", encoded, kept)


def scaling() -> list[dict[str, Any]]:
    """Seconds against chains, steps and threads, iterates stored."""
    problem = make_least_squares(rng=0)
    rng, found = np.random.default_rng(0), []
    threads = validate.as_threads(None)
    cases = [("chains", k, 1000, threads) for k in (1, 8, 32, 128, 512, 2048)]
    cases += [("steps", 256, k, threads) for k in (10, 100, 1000, 4000)]
    cases += [("threads", 2048, 500, k) for k in range(1, threads + 1)]
    for axis, n_chains, n_steps, n_threads in cases:
        start, out = rng.normal(size=(n_chains, 2)), np.empty((n_chains, n_steps + 1, 2))
        options = {"step_size": STEP, "n_steps": n_steps, "rng": 0, "n_threads": n_threads}
        (seconds,) = in_turn(lambda s=start, o=out, kw=options: run_sgd(problem, s, out=o, **kw))
        size = {"chains": n_chains, "steps": n_steps, "threads": n_threads}[axis]
        total = n_chains * n_steps
        found.append({"axis": axis, "size": size, "seconds": seconds, "steps": total})
    return found


def rows(full: bool = False) -> Iterator[Row]:
    """Rows of the table."""
    quadratic, sine = make_least_squares(rng=0), make_sine_regression(rng=0)
    data = (np.array(quadratic.X), np.array(quadratic.y))
    yield from stored("least squares", quadratic, numba_least_squares, data, (6, 15, 60_000))
    data = (np.array(sine.x), np.array(sine.y))
    yield from stored("sine regression", sine, numba_sine, data, (4, 6, 15_000))
    yield from fused()


def main() -> None:
    show(list(rows()), machine_limits())


if __name__ == "__main__":
    main()
