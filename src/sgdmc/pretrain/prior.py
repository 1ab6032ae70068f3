"""The prior over series on which the shipped model is trained, drawn on the fly.

Every batch is a pure function of ``(seed, step)``. A batch holds sequences of tokens, and for each
position not the token that happened to follow but several independent draws of the next state
from the true kernel (the whole row, for finite chains): the same expected loss with much less
variance. Beside each sequence stand *queries*: branches that ask for the law after a present state
that the series need not have visited, given only a prefix of the series.
"""

# ruff: noqa: NPY002 (numba offers this generator alone inside compiled functions)
# mypy: disable-error-code="no-untyped-def, no-untyped-call"
from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from sgdmc.pretrain.chains import fill_chain
from sgdmc.pretrain.descent import simulate_descent
from sgdmc.pretrain.smooth import simulate_smooth
from sgdmc.pretrain.tokenizer import BOS, BREAK, INNER

__all__ = ["N_DRAWS", "Batch", "Mixture", "draw_batch"]

N_DRAWS = 16


@dataclass(frozen=True)
class Mixture:
    """Shares of the families among the sequences of a batch; they sum to one."""

    chain: float = 0.16
    smooth: float = 0.36
    descent: float = 0.37
    joint: float = 0.11

    def as_array(self) -> NDArray[np.float64]:
        """Return the shares as an array (4,)."""
        return np.array([self.chain, self.smooth, self.descent, self.joint])


@dataclass(frozen=True)
class Batch:
    """A batch of the prior.

    Attributes
    ----------
    tokens : ndarray (n, length) of int64
        Token ids; the first is the start of the text.
    targets : ndarray (n, length, 16) of int64
        Draws of the token that comes after each position.
    weights : ndarray (n, length, 16) of float32
        Their probabilities; rows sum to one where ``loss > 0``.
    loss : ndarray (n, length) of float32
        Weight of each position in the loss; 0 where nothing can be predicted.
    q_tokens, q_prefix, q_step : ndarray (n, n_query) of int64
        Tokens of the branches; how many tokens of the sequence they see; and which token of its
        own branch each is.
    q_targets, q_weights, q_loss : ndarray
        As above, for the branches.
    family : ndarray (n,) of int64
        0 chain, 1 smooth, 2 descent, 3 joint.
    """

    tokens: NDArray[np.int64]
    targets: NDArray[np.int64]
    weights: NDArray[np.float32]
    loss: NDArray[np.float32]
    q_tokens: NDArray[np.int64]
    q_prefix: NDArray[np.int64]
    q_step: NDArray[np.int64]
    q_targets: NDArray[np.int64]
    q_weights: NDArray[np.float32]
    q_loss: NDArray[np.float32]
    family: NDArray[np.int64]


@njit(cache=True)
def _window(low, high):
    """Return the position of the left edge and the scale of a grid of 1000 states."""
    a, b = 1.5, 8.5
    u = np.random.random()
    if u < 0.25:
        # The grid was fitted on more than is shown.
        width = np.random.uniform(0.5, 8.0)
        a = np.random.uniform(1.0, 9.0 - width)
        b = a + width
    elif u < 0.35:
        a, b = np.random.uniform(0.0, 3.0), np.random.uniform(7.0, 10.0)
    elif u < 0.68:
        # Hardly a margin: much of a row is clipped to the first and last states.
        a, b = np.random.uniform(0.0, 1.0), np.random.uniform(9.0, 10.0)
    span = high - low
    if not span > 1e-12 * max(abs(low), abs(high), 1e-300):
        scale = 1.0
        return low - np.random.uniform(100.0, 900.0), scale
    scale = 100.0 * (b - a) / span
    return low - 100.0 * a / scale, scale


@njit(cache=True)
def _encode(value, low, scale):
    at = (value - low) * scale
    return int(min(max(math.floor(at), 0.0), 999.0)) if math.isfinite(at) else 0


@njit(cache=True)
def _on_grid(value, low, scale):
    return 0.0 <= (value - low) * scale < 1000.0


@njit(cache=True)
def _run_starts(n_states, shortest, longest):
    """Return where runs start among ``n_states`` states: runs of log-uniform lengths."""
    starts = np.zeros(n_states, np.bool_)
    at = 0
    while at < n_states:
        starts[at] = True
        at += int(math.exp(np.random.uniform(math.log(shortest), math.log(longest + 1.0))))
    return starts


@njit(cache=True)
def _fill_series(
    tokens, targets, weights, loss, q_tokens, q_prefix, q_step, q_targets, q_weights, q_loss,
    descent,
):  # fmt: skip
    """Write a series of one coordinate into one row of a batch."""
    length = tokens.size
    n_draws = targets.shape[1]
    n_query = q_tokens.size
    several = np.random.random() < (0.45 if descent else 0.25)
    if several:
        starts = _run_starts(length, np.random.uniform(2.0, 30.0), np.random.uniform(40.0, 200.0))
    else:
        starts = np.zeros(length, np.bool_)
        starts[0] = True
    counts = np.full(length, n_draws)
    q_counts = np.full(n_query, n_draws)
    if descent:
        p, d, counts, q, qd, q_counts = simulate_descent(length, n_draws, starts, n_query, 1, False)
        path, draws, query, query_draws = p[:, 0], d[:, :, 0], q[:, 0], qd[:, :, 0]
    else:
        path, draws, query, query_draws = simulate_smooth(length, n_draws, starts, n_query)
    low, scale = _window(path.min(), path.max())
    tokens[0] = BOS
    t = 0
    for at in range(1, length):
        if starts[t] and t > 0 and tokens[at - 1] != BREAK:
            tokens[at] = BREAK
            continue
        tokens[at] = _encode(path[t], low, scale)
        for k in range(counts[t]):
            targets[at, k] = _encode(draws[t, k], low, scale)
            weights[at, k] = 1.0 / counts[t]
        # Short series are what is asked about most often.
        loss[at] = 2.5 if 8 <= t < 64 else 1.0
        t += 1
    i = 0
    for q in range(n_query):
        if i == n_query:
            break
        longest = min(length, 110) if np.random.random() < 0.45 else length
        prefix = np.random.randint(2, longest + 1)
        opens = i + 1 < n_query and tokens[prefix - 1] != BREAK and np.random.random() < 0.5
        if opens:
            # The question stands on a line of its own.
            q_prefix[i] = prefix
            q_tokens[i] = BREAK
            i += 1
            q_step[i] = 1
        q_prefix[i] = prefix
        q_tokens[i] = _encode(query[q], low, scale)
        known = _on_grid(query[q], low, scale)
        for k in range(q_counts[q]):
            known = known and math.isfinite(query_draws[q, k])
            q_targets[i, k] = _encode(query_draws[q, k], low, scale)
            q_weights[i, k] = 1.0 / q_counts[q]
        q_loss[i] = 1.0 if known else 0.0
        i += 1


@njit(cache=True)
def _fill_joint(
    tokens, targets, weights, loss, q_tokens, q_prefix, q_step, q_targets, q_weights, q_loss
):
    """Write interleaved coordinates of SGD, often of many short runs, into one row of a batch."""
    length = tokens.size
    n_draws = targets.shape[1]
    u = np.random.random()
    dim = 2 if u < 0.6 else (3 if u < 0.85 else 4)
    n_states = length // dim
    if np.random.random() < 0.7:
        starts = _run_starts(n_states, 3.0, np.random.uniform(6.0, 40.0))
    else:
        starts = _run_starts(n_states, 30.0, 400.0)
    span = 2 * dim  # an opening, this state, and the next but for its last coordinate
    n_branches = q_tokens.size // span
    path, draws, counts, query, query_draws, q_counts = simulate_descent(
        n_states, n_draws, starts, n_branches, dim, np.random.random() < 0.5
    )
    low = np.empty(dim)
    scale = np.empty(dim)
    for c in range(dim):
        low[c], scale[c] = _window(path[:, c].min(), path[:, c].max())
    tokens[0] = BOS
    at = 1
    ends = np.empty(length, np.int64)
    n_ends = 0
    t = 0
    while at < length and t < n_states:
        if starts[t] and t > 0 and tokens[at - 1] != BREAK:
            tokens[at] = BREAK
            at += 1
            continue
        for c in range(dim):
            if at == length:
                break
            kind = 0 if c == dim - 1 else INNER
            tokens[at] = kind + _encode(path[t, c], low[c], scale[c])
            if c < dim - 1:
                # The next coordinate of this state, given the state before.
                if not starts[t]:
                    kind = 0 if c == dim - 2 else INNER
                    targets[at, 0] = kind + _encode(path[t, c + 1], low[c + 1], scale[c + 1])
                    weights[at, 0] = 1.0
                    loss[at] = 1.0
            else:
                for k in range(counts[t]):
                    targets[at, k] = INNER + _encode(draws[t, k, 0], low[0], scale[0])
                    weights[at, k] = 1.0 / counts[t]
                loss[at] = 1.0
                ends[n_ends] = at + 1
                n_ends += 1
            at += 1
        t += 1
    for b in range(n_branches):
        prefix = ends[np.random.randint(n_ends)]
        pick = np.random.randint(q_counts[b])
        opens = np.random.random() < 0.5
        known = True
        for c in range(dim):
            known = known and _on_grid(query[b, c], low[c], scale[c])
            for k in range(q_counts[b]):
                known = known and math.isfinite(query_draws[b, k, c])
        i = b * span
        for step in range(span):
            q_prefix[i + step] = prefix
            q_step[i + step] = step
            q_tokens[i + step] = BREAK
        if opens:
            i += 1
        for j in range(span - 1):
            c = j % dim
            kind = 0 if c == dim - 1 else INNER
            value = query[b, c] if j < dim else query_draws[b, pick, c]
            q_tokens[i + j] = kind + _encode(value, low[c], scale[c])
            if j == dim - 1:
                for k in range(q_counts[b]):
                    q_targets[i + j, k] = INNER + _encode(query_draws[b, k, 0], low[0], scale[0])
                    q_weights[i + j, k] = 1.0 / q_counts[b]
            elif j >= dim:
                kind = 0 if c == dim - 2 else INNER
                value = query_draws[b, pick, c + 1]
                q_targets[i + j, 0] = kind + _encode(value, low[c + 1], scale[c + 1])
                q_weights[i + j, 0] = 1.0
            q_loss[i + j] = 1.0 if known and j >= dim - 1 else 0.0


@njit(cache=True)
def _fill(seed, shares, tokens, targets, weights, loss, qt, qp, qs, qg, qw, ql, family):
    np.random.seed(seed)
    for i in range(tokens.shape[0]):
        u = np.random.random()
        if u < shares[0]:
            family[i] = 0
            fill_chain(
                tokens[i], targets[i], weights[i], loss[i], qt[i], qp[i], qg[i], qw[i], ql[i]
            )
        elif u < shares[0] + shares[1] + shares[2]:
            descent = u >= shares[0] + shares[1]
            family[i] = 2 if descent else 1
            _fill_series(
                tokens[i], targets[i], weights[i], loss[i],
                qt[i], qp[i], qs[i], qg[i], qw[i], ql[i], descent,
            )  # fmt: skip
        else:
            family[i] = 3
            _fill_joint(
                tokens[i], targets[i], weights[i], loss[i], qt[i], qp[i], qs[i], qg[i], qw[i], ql[i]
            )


def draw_batch(
    seed: int,
    step: int,
    *,
    n: int,
    length: int,
    n_query: int = 32,
    mixture: Mixture | None = None,
) -> Batch:
    """Draw the batch of one training step.

    Parameters
    ----------
    seed, step : int
        The batch is a pure function of the two and of the sizes.
    n : int
        Number of sequences.
    length : int
        Tokens a sequence, the start token included.
    n_query : int, default 32
        Tokens of branches a sequence.
    mixture : Mixture, optional
        Shares of the families.

    Returns
    -------
    Batch

    Examples
    --------
    >>> from sgdmc.pretrain.prior import draw_batch
    >>> draw_batch(0, 0, n=2, length=32).tokens.shape
    (2, 32)
    """
    shares = (mixture or Mixture()).as_array()
    word = np.random.SeedSequence([seed, step]).generate_state(1)[0]
    tokens = np.zeros((n, length), np.int64)
    targets = np.zeros((n, length, N_DRAWS), np.int64)
    weights = np.zeros((n, length, N_DRAWS), np.float32)
    loss = np.zeros((n, length), np.float32)
    q_tokens = np.zeros((n, n_query), np.int64)
    q_prefix = np.ones((n, n_query), np.int64)
    q_step = np.zeros((n, n_query), np.int64)
    q_targets = np.zeros((n, n_query, N_DRAWS), np.int64)
    q_weights = np.zeros((n, n_query, N_DRAWS), np.float32)
    q_loss = np.zeros((n, n_query), np.float32)
    family = np.zeros(n, np.int64)
    _fill(
        word, shares, tokens, targets, weights, loss,
        q_tokens, q_prefix, q_step, q_targets, q_weights, q_loss, family,
    )  # fmt: skip
    return Batch(
        tokens, targets, weights, loss,
        q_tokens, q_prefix, q_step, q_targets, q_weights, q_loss, family,
    )  # fmt: skip
