"""Attention by blocks of queries equals attention under the whole mask."""

from __future__ import annotations

import types

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

from sgdmc._core import native
from sgdmc.llm.attention import NAME, SIZE, Blocks, attend
from sgdmc.llm.forest import Forest, Questions, node_reference
from sgdmc.llm.packed import PackedContext


def ignore(_: int) -> None:
    """Take no notice of progress."""


def branches(n_positions: int, rng: np.random.Generator) -> Forest:
    """A root at every position, some with two children and a grandchild each."""
    tokens, parents = [], []
    for position in range(n_positions):
        root = len(tokens)
        parents.append(position)
        if rng.random() < 0.5:
            parents += [-(root + 1), -(root + 1), -(root + 2), -(root + 3)]
        tokens += [4] * (len(parents) - len(tokens))
    return Forest.build(np.array(tokens), np.array(parents))[0]


@pytest.mark.parametrize("compiled", [True, False], ids=["compiled", "block by block"])
@pytest.mark.parametrize("n_key_heads", [1, 2, 4])
def test_blocks_of_branches_attend_as_the_whole_chunk(n_key_heads, compiled):
    rng = np.random.default_rng(n_key_heads)
    forest = branches(90, rng)
    n = len(forest)
    assert n > 2 * SIZE
    above = forest.ancestry(slice(0, n))
    visible = np.concatenate((above, np.arange(90) <= forest.anchors[:, None]), axis=1)
    generator = torch.Generator().manual_seed(1)
    query = torch.randn(1, 4, n, 8, generator=generator)
    key, value = (torch.randn(1, n_key_heads, n + 90, 8, generator=generator) for _ in range(2))
    mask = torch.where(torch.as_tensor(visible), 0.0, torch.finfo(torch.float32).min)[None, None]
    module = types.SimpleNamespace(num_key_value_groups=4 // n_key_heads)
    before = key.clone(), value.clone()
    parents = forest.local_parents(slice(0, n))
    blocks = Blocks.of_branches(above, forest.anchors, parents, mask if compiled else None)
    got, weights = attend(module, query, key, value, mask, scaling=0.3, blocks=blocks)
    assert weights is None
    assert torch.equal(key, before[0])
    assert torch.equal(value, before[1])
    wanted, _ = attend(module, query, key, value, mask, scaling=0.3)
    torch.testing.assert_close(got, wanted, atol=1e-6, rtol=0)
    # each sees the context up to its last anchor, itself and the ancestors of at most one cut root
    assert all(b.n_own <= SIZE + 3 for b in blocks.blocks)
    assert [b.seen for b in blocks.blocks] == [
        forest.anchors[min(a + SIZE, n) - 1] + 1 for a in range(0, n, SIZE)
    ]


@pytest.mark.parametrize("compiled", [True, False], ids=["compiled", "block by block"])
@pytest.mark.parametrize("width", [8, 12, 64])
def test_blocks_of_the_context_attend_as_the_whole_chunk(width, compiled):
    """Queries as models make them: transposed views; without a scale, that of the width.

    The kernel takes no rows of 12 numbers.
    """
    generator = torch.Generator().manual_seed(2)
    query = torch.randn(1, 100, 2, width, generator=generator).transpose(1, 2)
    key, value = (torch.randn(1, 2, 150, width, generator=generator) for _ in range(2))
    mask = torch.where(torch.arange(150) <= torch.arange(50, 150)[:, None], 0.0, -torch.inf)[
        None, None
    ]
    module = types.SimpleNamespace(num_key_value_groups=1)
    blocks = Blocks.of_context(50, 150, mask if compiled else None)
    got, _ = attend(module, query, key, value, mask, blocks=blocks)
    wanted, _ = attend(module, query, key, value, mask)
    torch.testing.assert_close(got, wanted, atol=1e-6, rtol=0)


def test_the_compiled_kernel_refuses_what_would_lead_it_astray():
    query, key = np.zeros((2, 3, 8), np.float32), np.zeros((2, 7, 8), np.float32)
    seen, parents, out = np.full(3, 4), np.array([-1, 0, 1]), np.zeros((3, 2, 8), np.float32)
    native.attend(query, key, key, seen, parents, 1.0, out, 1)
    for change in (
        {"query": query[:, :, :7]},
        {"query": query.transpose(0, 2, 1)},
        {"value": key[0]},
    ):
        given = {"query": query, "key": key, "value": key, **change}
        with pytest.raises(ValueError, match="a multiple of 8"):
            native.attend(**given, seen=seen, parents=parents, scale=1.0, out=out, n_threads=1)
    for change in (
        {"value": key[:, 1:]},
        {"seen": seen[1:]},
        {"parents": parents[1:]},
        {"out": out[1:]},
    ):
        given = {"value": key, "seen": seen, "parents": parents, "out": out, **change}
        with pytest.raises(ValueError, match="shapes do not fit"):
            native.attend(query=query, key=key, **given, scale=1.0, n_threads=1)
    for wrong in (seen + 1, seen - 4):
        with pytest.raises(ValueError, match="none or more than the context"):
            native.attend(query, key, key, wrong, parents, 1.0, out, 1)
    native.attend(query, key, key, seen, np.array([1, 2, -1]), 1.0, out, 1)
    for wrong in ([-1, 2, 1], [-1, 3, 0], [-1, -2, 0]):
        with pytest.raises(ValueError, match="parents must lead to a root"):
            native.attend(query, key, key, seen, np.array(wrong), 1.0, out, 1)


def test_the_compiled_kernel_sees_branches_of_earlier_passes():
    rng = np.random.default_rng(0)
    query, key, value = (rng.normal(size=(2, n, 8)).astype(np.float32) for n in (3, 9, 9))
    parents, seen = np.array([3, 4, 3, 4, -1]), np.full(3, 4)  # three new tokens on two old ones
    sees = np.array([[1, 0, 0, 1, 1], [0, 1, 0, 0, 1], [0, 0, 1, 1, 1]], dtype=bool)
    visible = np.concatenate((sees, np.ones((3, 4), dtype=bool)), axis=1)
    scores = np.where(visible, np.einsum("hqw,hkw->hqk", query, key) * 0.3, -np.inf)
    weights = np.exp(scores - scores.max(axis=2, keepdims=True))
    weights /= weights.sum(axis=2, keepdims=True)
    out = np.zeros((3, 2, 8), np.float32)
    native.attend(query, key, value, seen, parents, 0.3, out, 1)
    np.testing.assert_allclose(out, np.einsum("hqk,hkw->qhw", weights, value), atol=1e-6)


def test_blocks_that_do_not_fit_the_mask_are_left_aside():
    query, key = torch.randn(1, 1, 3, 4), torch.randn(1, 1, 5, 4)
    mask = torch.zeros(1, 1, 3, 5)
    module = types.SimpleNamespace(num_key_value_groups=1)
    wanted, _ = attend(module, query, key, key, mask)
    got, _ = attend(module, query, key, key, mask, blocks=Blocks.of_context(0, 3))
    assert torch.equal(got, wanted)


@pytest.mark.parametrize(
    "name", ["llama2", "mistral", "qwen", "gpt2", "gemma3", "llama3", "shipped-like"]
)
def test_the_model_is_asked_by_blocks_and_left_as_it_was(family, name):
    """Seven chunks of several blocks each give what one token after another gives."""
    model = family(name).model
    rng = np.random.default_rng(0)
    tokens = rng.integers(3, 13, 150)
    forest = branches(150, rng)
    tables, none = [np.arange(13)[None]], np.zeros(0, dtype=np.int64)
    places, zeros = np.arange(len(forest)), np.zeros(len(forest), dtype=np.int64)
    laws = []
    for by_blocks in (True, False):
        context = PackedContext(model, capacity=150, chunk=140)
        assert context.blocks  # as found out
        context.blocks = by_blocks
        context.read(tokens, Questions(tables, none, none, none), ignore)
        laws.append(np.exp(context.ask(forest, Questions(tables, places, zeros, zeros), ignore)))
    np.testing.assert_allclose(*laws, atol=2e-6)
    assert model.config._attn_implementation == "sdpa"
    deep = int(np.argmax(forest.depths))
    path = [deep]
    while forest.parents[path[0]] < 0:
        path.insert(0, int(node_reference(forest.parents[path[0]])))
    ids = [*tokens[: forest.anchors[deep] + 1], *forest.tokens[path]]
    with torch.inference_mode():
        plain = torch.softmax(model(input_ids=torch.tensor([ids])).logits[0, -1], dim=-1)
    np.testing.assert_allclose(laws[0][deep], plain[:13].numpy(), atol=1e-5)


class Calls(TorchFunctionMode):
    """Names of the functions of torch that are called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.names.add(func.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("name", "compiled"),
    [("llama2", True), ("qwen", True), ("gpt2", True), ("shipped-like", True), ("mistral", False)],
)
def test_the_kernel_attends_unless_a_span_hides_some_of_the_context(family, name, compiled):
    context = PackedContext(family(name).model, capacity=40)
    tokens, none = np.full(40, 5), np.zeros(0, dtype=np.int64)
    with Calls() as calls:
        context.read(tokens, Questions([tokens[None]], none, none, none), ignore)
    assert ("scaled_dot_product_attention" in calls.names) != compiled


def test_attend_is_sdpa_to_anyone_else(family):
    """Under its name, with padding, a model gives what it gives under ``sdpa``."""
    model = family("llama2").model
    ids = torch.tensor([[1, 4, 5, 6], [1, 7, 8, 9]])
    padding = torch.tensor([[0, 1, 1, 1], [1, 1, 1, 1]])
    with torch.inference_mode():
        wanted = model(input_ids=ids, attention_mask=padding).logits
        model.config._attn_implementation = NAME
        got = model(input_ids=ids, attention_mask=padding).logits
    model.config._attn_implementation = "sdpa"
    torch.testing.assert_close(got, wanted)
