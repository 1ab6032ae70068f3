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

from sgdmc.chain.smoothing import ar1_kde_kernel, ar1_kernel
from sgdmc.chain.transitions import count_transitions

if TYPE_CHECKING:
    from sgdmc.llm.model import LanguageModel

__all__ = ["ROW_ESTIMATORS", "BlockRows", "count_blocks", "llm_block", "phases"]

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
    """

    rows: Array
    known: NDArray[np.bool_]
    off_state_mass: Array


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

    Phases are spread evenly over ``0 .. lag−1``; every run gets at least one.

    Parameters
    ----------
    series : sequence of (T_c,) integer arrays
    lag : int
    budget : int
        Numbers that the model's context holds, a separator for each series included.

    Raises
    ------
    ValueError
        If not even one phase a run fits.
    """
    long = [s for s in series if len(s) > lag]
    for n_phases in range(lag, 0, -1):
        picks = np.unique(np.floor(np.arange(n_phases) * lag / n_phases).astype(int))
        split = [s[p::lag] for s in long for p in picks if len(s[p::lag]) > 1]
        if sum(len(s) + 1 for s in split) <= budget:
            return split
    raise ValueError(
        f"run must fit into the model's context of {budget} numbers at lag {lag}; got "
        f"{sum(-(-len(s) // lag) + 1 for s in long)}. Use a larger lag, or max_context=."
    )


def llm_block(
    series: Sequence[States],
    *,
    n_states: int,
    lag: int,
    model: LanguageModel,
    read_digits: int,
    mirror: bool = True,
    max_context: int | None = None,
    progress: bool = False,
) -> BlockRows:
    """Read every row of one coordinate's kernel off a language model.

    The model sees the lagged series, one line a phase, and then each state in turn as a
    hypothetical present one (a counterfactual probe that opens one more line).

    Parameters
    ----------
    series : sequence of (T_c,) integer arrays
        States on ``10**read_digits`` bins.
    n_states : int
        States of the kernel; a divisor of ``10**read_digits``. Rows are averaged over the finer
        present states, and finer next states pooled.
    lag : int
    model : LanguageModel
    read_digits : int
        Digits of the numbers that the model reads.
    mirror : bool
        Average with the law read off the mirrored series.
    """
    from sgdmc.llm.reader import next_state_laws
    from sgdmc.llm.tokens import token_map

    fine = 10**read_digits
    pool = fine // n_states
    tokens = token_map(model, digits=read_digits)
    slot = tokens.slots[0]
    # Without a newline among the tokens neither phases nor probes can stand on lines of their own.
    lines = tokens.run_tail is not None
    width = len(slot.lead) + slot.depth + len(slot.tail)
    limit = min(model.max_context, max_context or model.max_context)
    # Room is left for the prefix and for the number that a probe appends.
    budget = (limit - 4) // width - 1
    context = phases(series, lag=lag, budget=budget)
    if not lines and len(series) == 1:
        context = context[:1]
    offsets = np.arange(pool) if pool <= 5 else np.arange(pool // 10, pool, 2 * pool // 10)
    probe = (np.arange(n_states)[:, None] * pool + offsets).ravel()
    rows, off = next_state_laws(
        context,
        model=model,
        digits=read_digits,
        probe=probe,
        probe_as="run" if lines else "continuation",
        mirror=mirror,
        max_context=max_context,
        progress=progress,
    )
    rows = rows.reshape(n_states, len(offsets), n_states, pool).sum(axis=3).mean(axis=1)
    rows = rows / rows.sum(axis=1, keepdims=True)
    known = count_blocks([s // pool for s in series], n_states=n_states, lag=lag).sum(axis=1) > 0
    return BlockRows(rows, known, off.reshape(n_states, len(offsets)).mean(axis=1))
