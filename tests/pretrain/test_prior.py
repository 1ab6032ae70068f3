"""The prior: its targets are draws from the kernel that made the series."""

import numpy as np
import pytest

from sgdmc.pretrain.prior import Mixture, draw_batch
from sgdmc.pretrain.tokenizer import BOS, BREAK, INNER, LABEL, PAD

CHAIN, SMOOTH, DESCENT, JOINT = (Mixture(*row) for row in np.eye(4))


def followed(batch):
    """Positions with a target whose next token is a state, not a break."""
    n, length = batch.tokens.shape
    for i in range(n):
        for t in range(1, length - 1):
            if batch.loss[i, t] > 0 and batch.tokens[i, t + 1] != BREAK:
                yield i, t


def test_batches_are_a_function_of_seed_and_step():
    a = draw_batch(3, 7, n=6, length=64)
    draw_batch(3, 8, n=6, length=64)
    b = draw_batch(3, 7, n=6, length=64)
    other = draw_batch(4, 7, n=6, length=64)
    for name in a.__dataclass_fields__:
        assert np.array_equal(getattr(a, name), getattr(b, name)), name
    assert not np.array_equal(a.tokens, other.tokens)


def test_mean_of_minus_log_p_is_the_entropy_of_the_true_kernel():
    surprise, entropy, variance = [], [], []
    for step in range(4):
        batch = draw_batch(11, step, n=64, length=256, mixture=CHAIN)
        for i, t in followed(batch):
            p = batch.weights[i, t].astype(float)
            p = p[p > 0]
            logs = np.log(p)
            h = -(p * logs).sum()
            hit = (batch.targets[i, t] == batch.tokens[i, t + 1]) & (batch.weights[i, t] > 0)
            surprise.append(-np.log(batch.weights[i, t][hit].sum()))
            entropy.append(h)
            variance.append((p * logs**2).sum() - h**2)
    gap = np.mean(surprise) - np.mean(entropy)
    # Given the present states the surprises are independent: a martingale, so the CLT applies.
    assert abs(gap) < 4 * np.sqrt(np.sum(variance)) / len(variance)


@pytest.mark.parametrize(("mixture", "draws"), [(SMOOTH, 16), (DESCENT, 2), (JOINT, 2)])
def test_the_next_state_ranks_uniformly_among_the_draws(mixture, draws):
    rng = np.random.default_rng(0)
    ranks = []
    for step in range(4):
        batch = draw_batch(12, step, n=48, length=128, mixture=mixture)
        for i, t in followed(batch):
            some = batch.targets[i, t][batch.weights[i, t] > 0]
            if len(some) >= draws:
                nxt = batch.tokens[i, t + 1]
                ties = rng.integers((some == nxt).sum() + 1)
                ranks.append(((some < nxt).sum() + ties) / len(some))
    ranks = np.array(ranks)
    assert len(ranks) > 3000
    # Uniform ranks have a mean of 1/2; series are dependent, so the count is cut tenfold.
    assert abs(ranks.mean() - 0.5) < 4 * ranks.std() / np.sqrt(len(ranks) / 10)
    assert 0.28 < ranks.std() < 0.40


@pytest.mark.parametrize("mixture", [CHAIN, SMOOTH, DESCENT, JOINT])
def test_targets_are_distributions_over_tokens_of_the_right_kind(mixture):
    batch = draw_batch(5, 0, n=24, length=128, mixture=mixture)
    assert (batch.tokens[:, 0] == BOS).all()
    assert (batch.loss[:, 0] == 0).all()
    assert (batch.tokens != PAD).all()
    for weights, loss in ((batch.weights, batch.loss), (batch.q_weights, batch.q_loss)):
        assert np.allclose(weights.sum(-1)[loss > 0], 1.0, atol=1e-5)
        assert (loss > 0).mean() > 0.4
    used = batch.targets[(batch.weights > 0) & (batch.loss > 0)[..., None]]
    if mixture is CHAIN:
        assert used.min() >= LABEL
        assert used.max() < BREAK
    elif mixture is JOINT:
        assert used.max() < LABEL
        assert (used >= INNER).any()
    else:
        assert used.max() < INNER


def test_joint_tokens_alternate_between_inner_and_last_coordinates():
    batch = draw_batch(6, 0, n=24, length=128, mixture=JOINT)
    for row in batch.tokens:
        runs, current = [], []
        for token in row[1:]:
            if token == BREAK:
                runs.append(current)
                current = []
            else:
                current.append(int(token < INNER))
        first = runs[0] if runs else current
        dim = first.index(1) + 1
        assert 2 <= dim <= 4
        for run in runs:
            assert run == [0] * 0 + ([0] * (dim - 1) + [1]) * (len(run) // dim)


def test_queries_see_a_prefix_that_ends_with_a_whole_state():
    batch = draw_batch(7, 0, n=24, length=128)
    assert batch.q_prefix.min() >= 1
    assert batch.q_prefix.max() <= 128
    rows, _ = np.nonzero((batch.family == 3)[:, None] & (batch.q_loss > 0))
    for i, q in zip(*np.nonzero(batch.q_loss > 0), strict=True):
        last = batch.tokens[i, batch.q_prefix[i, q] - 1]
        assert not INNER <= last < LABEL
    assert len(rows) > 0
