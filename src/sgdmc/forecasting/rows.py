"""Rows of one-coordinate kernels: counted, smoothed, fitted, or read by a language model.

Every estimator returns ``rows (n, n)``, row-stochastic where it has an opinion, and
``known (n,)``, the states whose rows need no completion.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from sgdmc.chain.grid import Grid
from sgdmc.chain.moves import interpolate_rows, overlaps
from sgdmc.chain.smoothing import ar1_kde_kernel, ar1_kernel
from sgdmc.chain.transitions import count_transitions

if TYPE_CHECKING:
    from sgdmc.llm.model import LanguageModel

__all__ = ["ROW_ESTIMATORS", "BlockRows", "count_blocks", "llm_block", "llm_blocks", "phases"]

# Present states that a model is asked about; rows between them are moved mixtures of the two.
_KNOTS = 250

Array = NDArray[np.float64]
States = NDArray[np.integer]


@dataclass(frozen=True)
class BlockRows:
    """Rows of one coordinate's kernel.

    Attributes
    ----------
    rows : ndarray, shape (n, n)
    known : ndarray, shape (n,), bool
        Rows that rest on more than completion.
    off_state_mass : ndarray, shape (n,)
    probed : ndarray, shape (n,), bool, or None
        Rows that a language model was asked for, visited or not; the others are zero.
    n_read : int or None
        Lagged series that a language model has read.
    """

    rows: Array
    known: NDArray[np.bool_]
    off_state_mass: Array
    probed: NDArray[np.bool_] | None = None
    n_read: int | None = None


def count_blocks(series: Sequence[States], *, n_states: int, lag: int) -> NDArray[np.int64]:
    """Count lagged transitions of several runs of one coordinate: (n, n), sliding windows."""
    total = np.zeros((n_states, n_states), dtype=np.int64)
    for states in series:
        if len(states) > lag:
            total += count_transitions(states, n_states=n_states, lag=lag)
    return total


def _maximum_likelihood(series: Sequence[States], n: int, lag: int) -> BlockRows:
    counts = count_blocks(series, n_states=n, lag=lag)
    visits = counts.sum(axis=1)
    known = visits > 0
    rows = counts / np.maximum(visits, 1)[:, None]
    return BlockRows(rows, known, np.zeros(n))


def _dirichlet(series: Sequence[States], n: int, lag: int) -> BlockRows:
    """Posterior mean under a symmetric Dirichlet prior; its weight by marginal likelihood.

    The base measure of a row is uniform over the states within the largest observed jump: a chain
    that moves at most ``r`` states a step should not be given mass at the far end of the grid.
    """
    counts = count_blocks(series, n_states=n, lag=lag)
    visits = counts.sum(axis=1)
    known = visits > 0
    present, nxt = np.nonzero(counts)
    reach = max(1, int(np.abs(present - nxt).max())) if len(present) else n
    band = np.abs(np.subtract.outer(np.arange(n), np.arange(n))) <= reach
    base = band / band.sum(axis=1, keepdims=True)
    weights = np.geomspace(1e-2, 1e3, 26)
    evidence = np.array([_log_evidence(counts[known], base[known], w) for w in weights])
    weight = weights[int(evidence.argmax())]
    rows = (counts + weight * base) / (visits[:, None] + weight)
    return BlockRows(rows, known, np.zeros(n))


def _log_evidence(counts: NDArray[np.int64], base: Array, weight: float) -> float:
    alpha = weight * base
    filled = counts > 0
    inner = gammaln(alpha[filled] + counts[filled]) - gammaln(alpha[filled])
    outer = gammaln(weight) - gammaln(weight + counts.sum(axis=1))
    return float(inner.sum() + outer.sum())


def _ar1(series: Sequence[States], n: int, lag: int) -> BlockRows:
    rows = ar1_kernel(list(series), n_states=n, lag=lag)
    return BlockRows(rows, np.ones(n, dtype=bool), np.zeros(n))


def _ar1_kde(series: Sequence[States], n: int, lag: int) -> BlockRows:
    rows = ar1_kde_kernel(list(series), n_states=n, lag=lag)
    return BlockRows(rows, np.ones(n, dtype=bool), np.zeros(n))


ROW_ESTIMATORS = {
    "counts": _maximum_likelihood,
    "dirichlet": _dirichlet,
    "ar1": _ar1,
    "ar1-kde": _ar1_kde,
}


def phases(series: Sequence[States], *, lag: int, budget: int) -> list[States]:
    """Split runs into lagged series ``s_p, s_{p+lag}, ...``, as many phases as ``budget`` holds.

    Phases are spread evenly over ``0 .. lag−1``; every run gets at least one. Where even that is
    too much, runs are left out, evenly.

    Parameters
    ----------
    series : sequence of (T_c,) integer arrays
    lag : int
    budget : int
        Numbers that the model's context holds, a separator for each series included.

    Raises
    ------
    ValueError
        If not even one phase of one run fits.
    """
    long = [s for s in series if len(s) > lag]
    lengths = np.array([len(s) for s in long])[:, None]
    # Numbers of the shortest phase of each run: more phases than that allows do not fit.
    least = lengths // lag
    each = int((least + 1)[least > 1].sum())
    for n_phases in range(min(lag, budget // each) if each else lag, 0, -1):
        picks = np.unique(np.floor(np.arange(n_phases) * lag / n_phases).astype(int))
        counts = -((picks - lengths) // lag)
        if (counts + 1)[counts > 1].sum() <= budget:
            return [s[p::lag] for s in long for p in picks if len(s[p::lag]) > 1]
    numbers = -(-lengths[:, 0] // lag) + 1
    short = np.flatnonzero(numbers <= budget)
    for n_runs in range(len(short), 0, -1):
        picks = short[np.arange(n_runs) * len(short) // n_runs]
        if numbers[picks].sum() <= budget:
            return [long[c][::lag] for c in picks]
    raise ValueError(
        f"run must fit into the model's context of {budget} numbers at lag {lag}; got "
        f"{numbers.min()} and more. Use a larger lag, or max_context=."
    )


def llm_block(
    series: Sequence[States],
    *,
    edges: Array,
    read_edges: Array,
    lag: int,
    model: LanguageModel,
    mirror: bool = True,
    max_context: int | None = None,
    progress: bool = False,
) -> BlockRows:
    """Read the rows of one coordinate's kernel off a language model.

    The model sees the lagged series on a grid of its own, which the runs fill, one line a phase,
    and then each state in turn as a hypothetical present one (a counterfactual probe that opens
    one more line). Its laws are then pooled on the kernel's bins, which may reach further.

    Parameters
    ----------
    series : sequence of (T_c,) integer arrays
        States on the model's grid.
    edges : ndarray, shape (n + 1,)
        Bin edges of the kernel.
    read_edges : ndarray, shape (10**digits + 1,)
        Bin edges of the model's grid; bins no wider than the kernel's.
    lag : int
    model : LanguageModel
    mirror : bool
        Average with the mirrored series, at its full size: on a grid that the runs fill as far as
        a fitted one, forecasts gain nothing by squeezing it.
    max_context : int, optional
        Tokens of context at most.
    progress : bool

    Returns
    -------
    BlockRows
        ``probed`` are the bins whose greater part the model's grid covers.

    Raises
    ------
    ValueError
        If the lagged series does not fit into the model's context.
    """
    from sgdmc.llm.reader import next_state_laws
    from sgdmc.llm.tokens import token_map

    n_read = len(read_edges) - 1
    digits = round(np.log10(n_read))
    tokens = token_map(model, digits=digits)
    width = tokens.slots[0].width
    # The lines of a text keep the probes apart from the series, where the model can read them.
    lines = tokens.run_tail is not None
    limit = min(model.max_context, max_context or model.max_context)
    context = phases(series, lag=lag, budget=(limit - 4) // width - 2)
    if not lines and len(series) == 1:
        context = context[:1]
    probe = np.unique(np.append(np.arange(0, n_read, max(1, n_read // _KNOTS)), n_read - 1))
    laws, off = next_state_laws(
        context,
        model=model,
        digits=digits,
        probe=probe,
        probe_as="run" if lines else "continuation",
        mirror=mirror,
        max_context=max_context,
        progress=progress,
    )
    laws = interpolate_rows(laws, probe)
    off = np.interp(np.arange(n_read), probe, off)
    share = overlaps(read_edges, edges)
    asked: Array = np.asarray(share.sum(axis=0))
    visited = np.concatenate([s[:-lag] for s in series if len(s) > lag])
    seen = share.T @ np.bincount(visited, minlength=n_read) > 0
    covered = asked * (read_edges[1] - read_edges[0]) > 0.5 * np.diff(edges)
    probed = (asked > 0) & (covered | seen)
    weight = np.where(probed, asked, 1.0)
    rows = np.where(probed[:, None], (share.T @ (laws @ share)) / weight[:, None], 0.0)
    rows[probed] /= rows[probed].sum(axis=1, keepdims=True)
    off_state_mass = np.where(probed, share.T @ off / weight, np.nan)
    return BlockRows(rows, seen & probed, off_state_mass, probed, len(context))


def llm_blocks(
    paths: Sequence[Array],
    grid: Grid,
    lag: int,
    model: str | LanguageModel,
    mirror: bool,
    max_context: int | None,
    device: str | None,
    dtype: str | None,
    progress: bool,
) -> tuple[list[BlockRows], str]:
    """Read rows of every coordinate off a model, at the coarsest digits that it can write.

    Parameters
    ----------
    paths : sequence of ndarray, each (T_c, dim)
        Runs in the kernel's coordinates.
    grid : Grid
        Bins of the kernel.
    lag, model, mirror, max_context, device, dtype, progress
        As in :func:`sgdmc.estimate_kernel`.

    Returns
    -------
    blocks : list of BlockRows, one a coordinate
    note : str
        What was read.

    Notes
    -----
    The model's grid spans the runs alone: a series that fills a small part of the digits says
    little of its slope, and a model's guesses far outside of it are those of its prior.
    """
    from sgdmc.llm.model import load_model

    language_model = load_model(model, device=device, dtype=dtype)
    read_digits = next(
        (d for d in range(grid.digits, 4) if language_model.supports(d)), grid.digits
    )
    fine = Grid.fit(np.concatenate(paths), digits=read_digits)
    states = [fine.encode(z) for z in paths]
    found = [
        llm_block(
            [s[:, i] for s in states],
            edges=grid.edges[i],
            read_edges=fine.edges[i],
            lag=lag,
            model=language_model,
            mirror=mirror,
            max_context=max_context,
            progress=progress,
        )
        for i in range(grid.dim)
    ]
    note = f"rows read off {language_model.describe()}"
    n_read, n_runs = found[0].n_read or 0, sum(len(z) > lag for z in paths)
    if n_runs > 1 and n_read < n_runs:
        note += f"; {n_read} of {n_runs} runs fit its context, spread over all of them"
    return found, note
