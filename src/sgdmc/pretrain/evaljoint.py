"""Fresh series of two coupled coordinates, and how well a model reads their joint kernel.

What is scored is the negative log-likelihood of independent draws of the true next state from
states that the series visited, ``−log q(b₁' | s) − log q(b₂' | s, s₁')``, on 100 bins a
coordinate. Written apart from the prior, as :mod:`sgdmc.pretrain.evalsets` is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

__all__ = ["JOINT_FAMILIES", "JointSeries", "fresh_joint", "score_joint"]

Array = NDArray[np.float64]
States = NDArray[np.int64]

JOINT_FAMILIES = ("quadratic", "least squares", "logistic", "phase retrieval")
#: Mass of each coordinate's law that every estimator and the truth spread evenly.
FLOOR = 0.005
N_DRAWS = 8
N_PRESENT = 24


@dataclass(frozen=True)
class JointSeries:
    """A series of two coordinates, and draws of what the true kernel does next.

    Attributes
    ----------
    family : str
    states : ndarray (T, 2) of int
        On 1000 bins a coordinate.
    draws : ndarray (T, 8, 2) of int
        Independent draws of the next state after each.
    surprise : ndarray (T, 8)
        ``−log`` of the true probability of each draw's pair of bins (100 a coordinate), floored.
    """

    family: str
    states: States
    draws: States
    surprise: Array


def fresh_joint(rng: np.random.Generator, family: str, n_steps: int) -> JointSeries:
    """Draw a series of one of :data:`JOINT_FAMILIES`.

    ``"quadratic"`` is a rotated quadratic with Gaussian gradient noise; the others are
    finite-sample SGD with correlated features, 40 points and batches of one or two, whose next
    state has finitely many values, all of them enumerated.

    Parameters
    ----------
    rng : Generator
    family : str
    n_steps : int

    Returns
    -------
    JointSeries

    Raises
    ------
    ValueError
        If the family is not one of :data:`JOINT_FAMILIES`.
    """
    if family not in JOINT_FAMILIES:
        raise ValueError(
            f"family must be one of {JOINT_FAMILIES}; got {family!r}. Choose one of them."
        )
    draw = _quadratic if family == "quadratic" else _descent
    while True:
        series = draw(rng, family, n_steps)
        if series is not None:
            return series


def _grid(path: Array) -> tuple[Array, Array] | None:
    """Return left edges and states per unit of the grids fitted to a path."""
    low, span = path.min(axis=0), np.ptp(path, axis=0)
    if not np.isfinite(path).all() or span.min() < 1e-9:
        return None
    scale = 700.0 / span
    return low - 150.0 / scale, scale


def _encode(values: Array, low: Array, scale: Array) -> States:
    return np.clip(np.floor((values - low) * scale), 0, 999).astype(np.int64)


def _quadratic(rng: np.random.Generator, family: str, n_steps: int) -> JointSeries | None:
    angle = rng.uniform(0.0, np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    keep = 1.0 - np.exp(rng.uniform(np.log(0.02), np.log(0.8), size=2))
    A = turn @ np.diag(keep) @ turn.T
    mix = rng.normal(size=(2, 2))
    cov = np.exp(rng.uniform(np.log(0.02), np.log(0.3))) ** 2 * (mix @ mix.T + 0.05 * np.eye(2))
    root = np.linalg.cholesky(cov)
    path = np.empty((n_steps, 2))
    path[0] = rng.normal(size=2)
    for t in range(n_steps - 1):
        path[t + 1] = A @ path[t] + root @ rng.normal(size=2)
    grid = _grid(path)
    if grid is None:
        return None
    centre = path @ A.T
    following = centre[:, None] + rng.normal(size=(n_steps, N_DRAWS, 2)) @ root.T
    draws = _encode(following, *grid)
    laws = _gaussian_laws(centre, cov, draws, *grid)
    return JointSeries(family, _encode(path, *grid), draws, -np.log(laws).sum(axis=2))


def _gaussian_laws(centre: Array, cov: Array, draws: States, low: Array, scale: Array) -> Array:
    """Return (T, m, 2) probabilities of the bins of draws: of the first, of the second given it.

    Parameters
    ----------
    centre : ndarray (T, 2)
        Means, in units of the values.
    cov : ndarray (2, 2)
    draws : ndarray (T, m, 2) of int
        States, on 1000 bins.
    low, scale : ndarray (2,)
        The grid.
    """
    value = low[0] + (draws[..., 0] + 0.5) / scale[0]
    slope = cov[0, 1] / cov[0, 0]
    first = np.broadcast_to(centre[:, None, 0], value.shape)
    second = centre[:, None, 1] + slope * (value - first)
    widths = np.sqrt([cov[0, 0], max(cov[1, 1] - slope * cov[0, 1], 1e-12 * cov[1, 1])])
    out = np.empty(draws.shape)
    for c, mean in enumerate((first, second)):
        left = draws[..., c] // 10 * 10
        edges = [np.where(left == 0, -np.inf, low[c] + left / scale[c]),
                 np.where(left == 990, np.inf, low[c] + (left + 10) / scale[c])]  # fmt: skip
        cdf = [ndtr((edge - mean) / widths[c]) for edge in edges]
        out[..., c] = cdf[1] - cdf[0]
    return (1.0 - FLOOR) * out + FLOOR / 100


def _gradient(family: str, x: Array, y: Array, theta: Array) -> Array:
    """Return gradients (n, 2) of the samples' losses at one point."""
    along = x @ theta
    if family == "least squares":
        return np.asarray((along - y)[:, None] * x)
    if family == "logistic":
        return np.asarray(
            (1.0 / (1.0 + np.exp(-np.clip(along, -40, 40))) - y)[:, None] * x + 0.05 * theta
        )
    return np.asarray(((along**2 - y) * along)[:, None] * x)


def _descent(rng: np.random.Generator, family: str, n_steps: int) -> JointSeries | None:
    n, batch = 40, int(rng.integers(1, 3))
    z = rng.normal(size=(n, 2)) if rng.random() < 0.5 else rng.standard_t(4, size=(n, 2))
    x = z @ (np.eye(2) + 0.7 * rng.normal(size=(2, 2)))
    solution = rng.normal(size=2) + np.sign(rng.normal(size=2))
    noise = np.exp(rng.uniform(np.log(0.05), np.log(1.0)))
    along = x @ solution
    if family == "least squares":
        y = along + noise * rng.normal(size=n)
    elif family == "logistic":
        y = (rng.random(n) < 1.0 / (1.0 + np.exp(-2 * along))).astype(np.float64)
    else:
        y = along**2 + noise * rng.normal(size=n)
    weight = 2.0 * along**2 if family == "phase retrieval" else np.ones(n)
    curvature = float(np.linalg.eigvalsh((x * weight[:, None]).T @ x / n)[-1])
    curvature *= 0.25 if family == "logistic" else 1.0
    rate = np.exp(rng.uniform(np.log(0.03), np.log(0.4))) / curvature
    path = np.empty((n_steps, 2))
    atoms = np.empty((n_steps, n**batch, 2))
    theta = solution + rng.normal(size=2) * np.exp(rng.uniform(-2.0, 0.7))
    for t in range(n_steps):
        path[t] = theta
        steps = _gradient(family, x, y, theta)
        if batch == 2:
            steps = ((steps[:, None] + steps) / 2).reshape(-1, 2)
        atoms[t] = theta - rate * steps
        theta = atoms[t, rng.integers(n**batch)]
        if not np.abs(theta).max() < 1e3:
            return None
    grid = _grid(path)
    if grid is None:
        return None
    following = _encode(atoms, *grid)
    pick = rng.integers(n**batch, size=(n_steps, N_DRAWS))
    draws = np.take_along_axis(following, pick[..., None], axis=1)
    first, pair = following[..., 0] // 10, following[..., 0] // 10 * 100 + following[..., 1] // 10
    surprise = np.empty((n_steps, N_DRAWS))
    for t in range(n_steps):
        singles = np.bincount(first[t], minlength=100)
        pairs = np.bincount(pair[t], minlength=10_000)
        one, both = singles[first[t, pick[t]]], pairs[pair[t, pick[t]]]
        laws = np.stack((one / n**batch, both / one))
        surprise[t] = -np.log((1.0 - FLOOR) * laws + FLOOR / 100).sum(axis=0)
    return JointSeries(family, _encode(path, *grid), draws, surprise)


def score_joint(
    model: Any, series: Sequence[JointSeries], *, lengths: Sequence[int]
) -> dict[str, dict[str, dict[str, list[float]]]]:
    """Score the joint kernel that a model reads off interleaved coordinates.

    Parameters
    ----------
    model : str or LanguageModel
    series : sequence of JointSeries
    lengths : sequence of int
        How many states are shown.

    Returns
    -------
    dict of group to dict of estimator to dict of length to list of float
        Mean negative log-likelihood (nats) of each series, over up to 24 states shown, evenly
        spaced in time, and 8 draws after each.
    """
    groups = {"quadratic": "fresh joint quadratics", "phase retrieval": "fresh joint, held out"}
    result: dict[str, dict[str, dict[str, list[float]]]] = {}
    for one in series:
        group = groups.get(one.family, "fresh joint SGD")
        for length in lengths:
            at = np.unique(np.linspace(0, length - 1, N_PRESENT).astype(np.int64))
            shown, present, draws = one.states[:length], one.states[at], one.draws[at]
            whole = _joint_laws(model, shown, present, draws)
            mirrored = _joint_laws(model, 999 - shown, 999 - present, 999 - draws)
            estimates = {
                "model": whole.prod(axis=2),
                # The two joint laws are mixed, not their factors.
                "model, mirrored": (whole.prod(axis=2) + mirrored.prod(axis=2)) / 2,
                "model, one coordinate at a time": _product_laws(model, shown, present, draws).prod(
                    axis=2
                ),
                "VAR(1)": _var_laws(shown, present, draws).prod(axis=2),
            }
            losses = {name: -np.log(p) for name, p in estimates.items()}
            losses["exact law"] = one.surprise[at]
            for name, loss in losses.items():
                cells = result.setdefault(group, {}).setdefault(name, {})
                cells.setdefault(str(length), []).append(float(loss.mean()))
    return result


def _floored(rows: Array, states: States) -> Array:
    """Return the probabilities of the bins of states, from rows on 1000 states."""
    bins = rows.reshape(len(rows), 100, 10).sum(axis=2)
    picked = np.take_along_axis(bins, states.reshape(len(rows), -1) // 10, axis=1)
    return np.asarray((1.0 - FLOOR) * picked + FLOOR / 100)


def _joint_laws(model: Any, shown: States, present: States, draws: States) -> Array:
    """Return (m, 8, 2) probabilities of the bins of draws, read off interleaved coordinates."""
    from sgdmc.llm.joint import JointReader

    reader = JointReader(shown, model=model, digits=3)
    first, _ = reader.rows(present)
    out = np.empty(draws.shape)
    out[..., 0] = _floored(first, draws[..., 0])
    given = draws[..., 0].reshape(-1, 1)
    second, _ = reader.rows(np.repeat(present, N_DRAWS, axis=0), given)
    out[..., 1] = _floored(second, draws[..., 1].reshape(-1, 1)).reshape(draws.shape[:2])
    return out


def _product_laws(model: Any, shown: States, present: States, draws: States) -> Array:
    """Return the same from two readings of one coordinate each."""
    from sgdmc.llm.reader import next_state_laws

    out = np.empty(draws.shape)
    for c in range(2):
        rows, _ = next_state_laws(shown[:, c], model=model, digits=3, probe=present[:, c])
        out[..., c] = _floored(rows, draws[..., c])
    return out


def _var_laws(shown: States, present: States, draws: States) -> Array:
    """Return the same from ``s' = A s + c + ε`` by least squares, ``ε`` Gaussian."""
    design = np.column_stack((shown[:-1], np.ones(len(shown) - 1)))
    coefficients = np.linalg.lstsq(design, shown[1:].astype(np.float64), rcond=None)[0]
    rest = shown[1:] - design @ coefficients
    cov = rest.T @ rest / max(len(rest) - 3, 1) + np.eye(2)
    centre = np.column_stack((present, np.ones(len(present)))) @ coefficients
    return _gaussian_laws(centre + 0.5, cov, draws, np.zeros(2), np.ones(2))
