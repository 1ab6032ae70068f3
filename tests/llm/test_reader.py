"""Packed rows equal brute force: every branch as its own full forward pass."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sgdmc.llm.reader import next_state_laws
from sgdmc.llm.tokens import token_map

FAMILIES = [
    "llama2", "llama2-no-bos", "mistral", "gemma", "gemma3", "qwen", "gpt2", "llama3",
    "shipped-like",
]  # fmt: skip


def softmax_after(lm, ids):
    """Law of the next token after token ids, by one plain forward pass, in double precision."""
    with torch.inference_mode():
        logits = lm.model(input_ids=torch.tensor([list(ids)])).logits[0, -1]
    return torch.softmax(logits.double(), dim=-1).numpy()


def brute_force(lm, text, slot, depth):
    """Row and off-state mass after a text, each node of the tree by a pass of its own."""
    ids = lm.tokenizer(text)["input_ids"] + list(slot.lead)
    n = len(slot.paths)
    nodes = {(): (1.0, 1.0)}  # prefix of a path: restricted and full probability
    for level in range(depth + 1):
        grown = {}
        for prefix, (row, mass) in nodes.items():
            below = slot.paths[(slot.paths[:, :level] == prefix).all(axis=1)]
            law = softmax_after(lm, [*ids, *prefix])
            children = np.unique(below[:, level])
            for child in children:
                share = law[child] / law[children].sum()
                grown[(*prefix, int(child))] = (row * share, mass * law[child])
        nodes = grown
    rows = np.zeros(n)
    for prefix, (row, _) in nodes.items():
        below = (slot.paths[:, : depth + 1] == prefix).all(axis=1)
        rows[below] = row / below.sum()
    return rows, 1.0 - sum(mass for _, mass in nodes.values())


def texts_of(tm, runs):
    """The text that ends with each state in turn."""
    out = []
    for r, run in enumerate(runs):
        before = [np.asarray(x)[:, None] for x in runs[:r]]
        for t in range(len(run)):
            out.append(tm.style.text([*before, np.asarray(run[: t + 1])[:, None]]))
    return out


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("depth", [1, 2])
def test_every_position_equals_brute_force(family, name, depth):
    lm = family(name)
    assert lm.packed
    digits = 3 if name.startswith("shipped") else depth + 1
    states = np.random.default_rng(3).integers(0, 10**digits, 9 if depth == 1 else 3)
    rows, off = next_state_laws(states, model=lm, digits=digits)
    tm = token_map(lm, digits=digits)
    slot = tm.slots[0]
    for t, text in enumerate(texts_of(tm, [states])):
        row, lost = brute_force(lm, text, slot, slot.depth - 1)
        np.testing.assert_allclose(rows[t], row, atol=1e-5, err_msg=f"position {t}")
        assert off[t] == pytest.approx(lost, abs=1e-5)
