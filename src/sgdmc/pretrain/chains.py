"""Finite chains of the prior: at most ten states, one label token each.

Compiled with numba; random numbers come from numba's own generator, which
:func:`sgdmc.pretrain.prior.draw_batch` seeds.
"""

# ruff: noqa: NPY002 (numba offers this generator alone inside compiled functions)
# mypy: disable-error-code="no-untyped-def, no-untyped-call"
from __future__ import annotations

import math

import numpy as np
from numba import njit

from sgdmc.pretrain.tokenizer import BOS, BREAK, LABEL

__all__ = ["draw_transition_matrix", "fill_chain"]


@njit(cache=True)
def draw_transition_matrix(n_states):
    """Return a random transition matrix (n_states, n_states).

    Three quarters have Dirichlet(α) rows with α log-uniform in [.05, 3]; the others have
    normalised uniform rows, rows of wider α, or a slow diagonal.
    """
    u = np.random.random()
    if u < 0.75:
        alpha = math.exp(np.random.uniform(math.log(0.05), math.log(3.0)))
    else:
        alpha = math.exp(np.random.uniform(math.log(0.02), math.log(10.0)))
    stay = 0.0
    if u > 0.9:
        stay = 1.0 - math.exp(np.random.uniform(math.log(0.01), 0.0))
    P = np.zeros((n_states, n_states))
    for i in range(n_states):
        total = 0.0
        for j in range(n_states):
            if 0.83 < u <= 0.9:
                P[i, j] = np.random.random()
            else:
                P[i, j] = np.random.gamma(alpha, 1.0)
            total += P[i, j]
        if total < 1e-290:
            P[i, np.random.randint(n_states)] = 1.0
            total = 1.0
        for j in range(n_states):
            P[i, j] = (1.0 - stay) * P[i, j] / total
        P[i, i] += stay
    return P


@njit(cache=True)
def _draw(row):
    u = np.random.random()
    total = 0.0
    last = 0
    for j in range(row.size):
        if row[j] > 0.0:
            last = j
            total += row[j]
            if u < total:
                return j
    return last


@njit(cache=True)
def fill_chain(tokens, targets, weights, loss, q_tokens, q_prefix, q_targets, q_weights, q_loss):
    """Write one chain into one row of a batch; targets are the true rows, exactly.

    See :class:`sgdmc.pretrain.prior.Batch` for the arrays.
    """
    length = tokens.size
    n = np.random.randint(2, 11)
    P = draw_transition_matrix(n)
    labels = np.arange(10)
    if np.random.random() < 0.75:
        labels[:n] = np.random.permutation(n)
    else:
        labels = np.random.permutation(10)
    restart = 0.0
    if np.random.random() < 0.15:
        restart = math.exp(np.random.uniform(math.log(0.004), math.log(0.1)))
    tokens[0] = BOS
    state = -1
    for t in range(1, length):
        if state >= 0 and tokens[t - 1] != BREAK and np.random.random() < restart:
            tokens[t] = BREAK
            state = -1
            continue
        state = np.random.randint(n) if state < 0 else _draw(P[state])
        tokens[t] = LABEL + labels[state]
        for j in range(n):
            targets[t, j] = LABEL + labels[j]
            weights[t, j] = P[state, j]
        loss[t] = 1.0
    for q in range(0, q_tokens.size, 2):
        state = np.random.randint(n)
        q_prefix[q] = np.random.randint(1, length + 1)
        q_tokens[q] = LABEL + labels[state]
        for j in range(n):
            q_targets[q, j] = LABEL + labels[j]
            q_weights[q, j] = P[state, j]
        q_loss[q] = 1.0
