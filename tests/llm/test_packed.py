"""Forests, chunks, memory, and the same numbers on a GPU."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
import transformers

from sgdmc.llm.forest import Forest, Questions, node_reference
from sgdmc.llm.model import LanguageModel
from sgdmc.llm.packed import PackedContext
from sgdmc.llm.reader import next_state_laws


def test_a_forest_by_hand():
    # position 4: a -> (b, c); position 2: d; position 4 again: e -> f
    tokens = np.array([10, 11, 12, 13, 14, 15])
    parents = np.array([4, -1, -1, 2, 4, -5])
    forest, place = Forest.build(tokens, parents)
    np.testing.assert_array_equal(forest.tokens, [13, 10, 11, 12, 14, 15])
    np.testing.assert_array_equal(forest.anchors, [2, 4, 4, 4, 4, 4])
    np.testing.assert_array_equal(forest.depths, [1, 1, 2, 2, 1, 2])
    np.testing.assert_array_equal(forest.starts, [0, 1, 4, 6])
    np.testing.assert_array_equal(forest.tokens[place], tokens)
    assert forest.largest_component == 3
    assert forest.chunk(0, 3) == slice(0, 1)
    assert forest.chunk(0, 4) == slice(0, 4)
    assert forest.chunk(1, 1) == slice(1, 4)  # a component is not split
    above = forest.ancestry(slice(1, 6))
    np.testing.assert_array_equal(
        above.astype(int),
        [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 0, 1, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 1, 1]],
    )


def test_long_chains_keep_order_and_depth():
    tokens = np.arange(50)
    parents = node_reference(np.arange(50) - 1)
    parents[0] = 7
    forest, _ = Forest.build(tokens, parents)
    np.testing.assert_array_equal(forest.tokens, tokens)
    np.testing.assert_array_equal(forest.depths, np.arange(1, 51))
    assert np.array_equal(forest.ancestry(slice(0, 50)), np.tri(50, dtype=bool))


def test_an_empty_forest():
    none = np.zeros(0, dtype=np.int64)
    forest, place = Forest.build(none, none)
    assert (len(forest), forest.largest_component, place.size) == (0, 0, 0)


def test_memory_is_that_of_one_chunk(family):
    """The buffer of keys and values holds the context and one chunk, however many branches."""
    lm = family("llama2")
    none = np.zeros(0, dtype=np.int64)
    context = PackedContext(lm.model, capacity=40, chunk=16)
    table = np.arange(10)[None, :]
    context.read(np.arange(40) % 12, Questions([table], none, none, none), lambda _: None)
    forest, place = Forest.build(np.full(2000, 4), np.repeat(np.arange(40), 50))
    zeros = np.zeros(2000, dtype=np.int64)
    answers = context.ask(forest, Questions([table], place, zeros, zeros), lambda _: None)
    assert answers.shape == (2000, 10)
    assert {layer.keys.shape[2] for layer in context.cache.layers} == {40 + 16}


class ShortOfMemory(transformers.LlamaForCausalLM):
    """A model whose device holds at most 24 tokens a pass."""

    passes: list[int]

    def forward(self, input_ids, position_ids=None, **rest):
        self.passes.append(input_ids.shape[1])
        if input_ids.shape[1] > 24:
            raise torch.OutOfMemoryError("out of memory")
        return super().forward(input_ids=input_ids, position_ids=position_ids, **rest)


def test_running_out_of_memory_halves_the_chunk_and_goes_on(family):
    lm = family("llama2")
    model = ShortOfMemory(lm.model.config)
    model.passes = []
    model.load_state_dict(lm.model.state_dict())
    short = LanguageModel.wrap(model, lm.tokenizer, name="short")
    states = np.arange(40, 60)
    model.passes = []
    got = next_state_laws(states, model=short, digits=2, chunk=64)
    wanted = next_state_laws(states, model=lm, digits=2)
    np.testing.assert_allclose(got[0], wanted[0], atol=2e-6)
    assert max(model.passes) > 24
    assert sum(p > 24 for p in model.passes) <= 4
    # one component of 111 tokens cannot be split: the error comes through
    with pytest.raises(torch.OutOfMemoryError):
        next_state_laws(states, model=short, digits=3, probe=[5], chunk=128)


def test_an_interrupt_ends_the_process_at_once():
    code = """
import signal
import numpy as np, torch, transformers
# A process in the background may have been told to ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)
torch.set_num_threads(1)
from sgdmc.llm.packed import PackedContext
from sgdmc.llm.forest import Forest, Questions
config = transformers.LlamaConfig(vocab_size=64, hidden_size=64, intermediate_size=64,
                                  num_hidden_layers=2, num_attention_heads=4)
context = PackedContext(transformers.LlamaForCausalLM(config).eval(), capacity=64)
none = np.zeros(0, dtype=np.int64)
questions = Questions([np.arange(10)[None]], none, none, none)
context.read(np.arange(60), questions, lambda _: None)
forest, _ = Forest.build(np.full(200_000, 4), np.full(200_000, 50))
context.ask(forest, questions, lambda _: print("on", flush=True))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "on\n"
    process.send_signal(signal.SIGINT)
    begun = time.monotonic()
    _, errors = process.communicate(timeout=90)
    assert time.monotonic() - begun < 60
    assert process.returncode != 0
    assert "KeyboardInterrupt" in errors


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", ["llama2", "mistral", "gemma", "gpt2", "llama3", "shipped-like"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_gpu_gives_the_rows_of_the_cpu(family, name, dtype):
    lm = family(name)
    copy = type(lm.model)(lm.model.config)
    copy.load_state_dict(lm.model.state_dict())
    other = LanguageModel.wrap(copy.to("cuda", getattr(torch, dtype)), lm.tokenizer, name=name)
    assert other.packed
    digits = 3 if name == "shipped-like" else 2
    states = np.random.default_rng(3).integers(0, 10**digits, 40)
    exact = next_state_laws(states, model=lm, digits=digits)[0]
    got = next_state_laws(states, model=other, digits=digits)[0]
    if dtype == "float32":
        np.testing.assert_allclose(got, exact, atol=1e-4)
    else:
        assert np.abs(got - exact).sum(axis=1).mean() < 0.2
