"""Continuations in batches, for models whose attention takes no tree mask; and which do.

`BatchedContext` answers what `sgdmc.llm.packed.PackedContext` answers, with one batch of branches
an anchor, and is slower.
"""

from __future__ import annotations

import copy
import inspect
import itertools
from typing import Any

import numpy as np
import torch
from transformers.cache_utils import DynamicCache

from sgdmc.llm.context import BaseContext, Reader, model_device, text_config
from sgdmc.llm.forest import FloatArray, Forest, IntArray, Questions, Tick, node_reference
from sgdmc.llm.packed import PackedContext

_CHECK_LENGTH = 64


class BatchedContext(BaseContext):
    """A context whose continuations are evaluated in batches, one an anchor.

    The model's own cache is walked along the context; at each anchor a copy of it is repeated for
    the branches that hang there.
    """

    def __init__(self, model: Any, *, chunk: int | None = None) -> None:
        super().__init__(model, chunk=chunk)
        self.tokens: IntArray = np.zeros(0, dtype=np.int64)
        self.cache: Any = None
        self.open_cache: Any = None

    def _forward(self, tokens: IntArray, cache: Any) -> torch.Tensor:
        with torch.inference_mode():
            out = self.model(input_ids=self._tensor(tokens), past_key_values=cache, use_cache=True)
        logits: torch.Tensor = out.logits
        return logits

    def read(self, tokens: IntArray, questions: Questions, tick: Tick) -> FloatArray:
        """Append ``tokens`` to the context; answer questions whose places are its positions."""
        reader = Reader(questions, self.device)
        first = self.length
        self.cache = DynamicCache(config=self.config) if self.cache is None else self.cache
        for start in range(first, first + len(tokens), self.chunk):
            piece = tokens[start - first : start - first + self.chunk]
            logits = self._forward(piece[None], self.cache)[0]
            asked = reader.within(start, start + len(piece))
            reader.take(asked, logits[torch.as_tensor(questions.places[asked] - start)])
            tick(len(piece))
        self.tokens = np.concatenate((self.tokens, tokens))
        self.length = len(self.tokens)
        return reader.answers()

    def ask(self, forest: Forest, questions: Questions, tick: Tick) -> FloatArray:
        """Evaluate a forest; answer questions whose places are its nodes."""
        reader = Reader(questions, self.device)
        walk = DynamicCache(config=self.config)
        walked = 0
        edges = np.flatnonzero(np.diff(forest.anchors)) + 1
        bounds = [0, *edges.tolist(), len(forest)]
        for a, b in itertools.pairwise(bounds):
            anchor = int(forest.anchors[a]) + 1
            if anchor > walked:
                self._forward(self.tokens[None, walked:anchor], walk)
                walked = anchor
            leaves = np.setdiff1d(np.arange(a, b), node_reference(forest.parents[a:b]))
            depth = int(forest.depths[a:b].max())
            for some in np.array_split(leaves, -(-leaves.size * depth // self.chunk)):
                self._batch(forest, some, depth, walk, reader)
            tick(b - a)
        return reader.answers()

    def _batch(
        self, forest: Forest, leaves: IntArray, depth: int, walk: Any, reader: Reader
    ) -> None:
        paths = np.zeros((leaves.size, depth), dtype=np.int64)
        nodes = np.full((leaves.size, depth), -1)
        row, at = np.arange(leaves.size), leaves
        while row.size:
            paths[row, forest.depths[at] - 1] = forest.tokens[at]
            nodes[row, forest.depths[at] - 1] = at
            keep = forest.parents[at] < 0
            row, at = row[keep], node_reference(forest.parents[at[keep]])
        logits = self._forward(paths, self._repeated(walk, leaves.size)).flatten(0, 1)
        order = np.argsort(nodes.reshape(-1), kind="stable")
        ranked = nodes.reshape(-1)[order]
        for node in np.unique(ranked[ranked >= 0]):
            asked = reader.within(int(node), int(node) + 1)
            if asked.size:
                place = int(order[np.searchsorted(ranked, node)])
                reader.take(asked, logits[place : place + 1].expand(asked.size, -1))

    def _repeated(self, cache: Any, times: int) -> Any:
        """Return a copy of a cache, repeated as a batch."""
        out = copy.deepcopy(cache)
        out.reorder_cache(torch.zeros(times, dtype=torch.long, device=self.device))
        return out

    def open(self, n_tokens: int) -> None:
        """Begin continuations of the whole context: one line, empty so far."""
        self.open_cache = self._repeated(self.cache, 1)

    def append(self, tokens: IntArray, lines: IntArray) -> torch.Tensor:
        """Continue open lines, some of them several times; what results are the open lines.

        Takes (n, c) tokens and the line (n,) that each row continues. Returns the (n, vocabulary)
        logits after each row's last token.
        """
        self.open_cache.reorder_cache(self._tensor(lines))
        return self._forward(tokens, self.open_cache)[:, -1]


Context = PackedContext | BatchedContext


def takes_tree_mask(model: Any) -> bool:
    """Check on a few tokens that a packed pass gives what plain passes give.

    Any exception counts as a refusal: attention implementations reject such masks in many ways.
    """
    kinds = set(getattr(text_config(model), "layer_types", None) or [])
    if "position_ids" not in inspect.signature(model.forward).parameters:
        return False
    if not kinds <= {"full_attention", "sliding_attention"}:
        return False
    try:
        return _agrees(model, PackedContext(model, capacity=_CHECK_LENGTH, chunk=16))
    except Exception:
        return False


def takes_batches(model: Any) -> bool:
    """Check the same of a batch of branches on a copied cache."""
    return _agrees(model, BatchedContext(model, chunk=16))


def _agrees(model: Any, context: Context) -> bool:
    """Compare four branches on a text that is longer than a short sliding window."""
    config = text_config(model)
    span = getattr(config, "sliding_window", None) or 16
    limit = getattr(config, "max_position_embeddings", None) or _CHECK_LENGTH
    length = min(span + 4, limit - 4, _CHECK_LENGTH)
    text = np.arange(3, 3 + length) % config.vocab_size
    tokens = np.array([5, 6, 7, 8], dtype=np.int64) % config.vocab_size
    forest, place = Forest.build(tokens, np.array([length - 1, length - 3, -1, -1]))
    table = np.arange(min(config.vocab_size, 64))[None, :]
    none = np.zeros(0, dtype=np.int64)
    leaves = Questions([table], place[2:], np.zeros(2, np.int64), np.zeros(2, np.int64))
    context.read(text, Questions([table], none, none, none), lambda _: None)
    laws = context.ask(forest, leaves, lambda _: None)
    single = context.dtype == torch.float32
    for law, leaf in zip(laws, tokens[2:], strict=True):
        ids = torch.as_tensor([[*text, tokens[0], leaf]], device=model_device(model))
        with torch.inference_mode():
            plain = torch.log_softmax(model(input_ids=ids).logits[0, -1].float(), dim=-1)
        gap = np.abs(np.exp(law) - plain[: table.size].exp().cpu().numpy()).max()
        if not gap < (1e-4 if single else 3e-2):
            return False
    return True
