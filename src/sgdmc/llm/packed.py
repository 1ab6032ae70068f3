"""A context read once, and many continuations of it in few forward passes.

`PackedContext` keeps the keys and values of the context in one buffer and evaluates a
`sgdmc.llm.forest.Forest` in chunks: all tokens of a chunk go through the model as one sequence,
with explicit position ids and a mask that lets each token see the context up to its anchor, its
ancestors and itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers.cache_utils import Cache, DynamicLayer

from sgdmc.llm.attention import Block, Blocks, by_blocks, takes_blocks
from sgdmc.llm.context import BaseContext, Reader
from sgdmc.llm.forest import FloatArray, Forest, IntArray, Questions, Tick
from sgdmc.llm.model import NO_LIMIT


@dataclass
class _Window:
    """Which part of every layer's buffer the coming forward pass writes and sees."""

    capacity: int
    scratch: int
    write: int = 0
    start: int = 0
    stop: int = 0


class _Layer(DynamicLayer):  # type: ignore[misc]
    """Keys and values of one layer: a scratch area for branches, then the context.

    Attention does not depend on the order of keys, so branches are put *before* the context:
    what a chunk sees is then one contiguous view, and nothing is copied or cropped.
    """

    def __init__(self, window: _Window) -> None:
        super().__init__()
        self.window = window
        self.is_initialized = False

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        window = self.window
        if not self.is_initialized:
            length = window.scratch + window.capacity
            self.dtype, self.device = key_states.dtype, key_states.device
            self.keys = key_states.new_zeros((*key_states.shape[:2], length, key_states.shape[-1]))
            self.values = value_states.new_zeros(
                (*value_states.shape[:2], length, value_states.shape[-1])
            )
            self.is_initialized = True
        end = window.write + key_states.shape[-2]
        self.keys[:, :, window.write : end] = key_states
        self.values[:, :, window.write : end] = value_states
        seen = slice(window.start, window.stop)
        return self.keys[:, :, seen], self.values[:, :, seen]

    def get_seq_length(self) -> int:
        return self.window.stop - self.window.start if self.is_initialized else 0


class _Buffer(Cache):  # type: ignore[misc]
    """A cache whose layers share one `_Window`."""

    def __init__(self, window: _Window, n_layers: int) -> None:
        super().__init__(layers=[_Layer(window) for _ in range(n_layers)])


class PackedContext(BaseContext):
    """A context whose continuations are evaluated packed, under a tree mask.

    Parameters
    ----------
    model : transformers.PreTrainedModel
    capacity : int
        Largest number of tokens that the context will hold.
    scratch : int, optional
        Largest number of branch tokens kept at once: the chunk, unless a component is larger.
    chunk : int, optional
        Tokens a forward pass. By default 512 on a CPU; on a GPU by free memory.
    """

    def __init__(
        self, model: Any, *, capacity: int, chunk: int | None = None, scratch: int = 0
    ) -> None:
        super().__init__(model, chunk=chunk)
        self.window = _Window(capacity=capacity, scratch=max(scratch, self.chunk))
        self.cache = _Buffer(self.window, self.config.num_hidden_layers)
        # Scratch tokens count from 1, backwards from the end of the area; 0 is the context.
        self.paths = np.zeros((1, 0), dtype=np.int64)  # tokens of each open line
        self.above = np.zeros(1, dtype=np.int64)  # the token before each
        self.depths = np.zeros(1, dtype=np.int64)  # how far after the context each lies
        self.low = torch.finfo(self.dtype).min
        self.zero = torch.zeros((), dtype=self.dtype, device=self.device)
        self.blocks = takes_blocks(model, self.config)
        self.span: int = getattr(self.config, "sliding_window", None) or NO_LIMIT
        self.kinds = set(getattr(self.config, "layer_types", None) or [])
        if self.span == NO_LIMIT or self.kinds == {"full_attention"}:
            self.span, self.kinds = NO_LIMIT, {"full_attention"}
        elif not self.kinds:
            self.kinds = {"sliding_attention"}

    def _mask(self, visible: torch.Tensor, ages: Callable[[], torch.Tensor], longest: int) -> Any:
        """Return the additive 4-D mask, one a kind of layer where kinds see different spans.

        ``visible`` is (queries, keys) bool, ``ages`` gives how far back each key lies, ``longest``
        the largest of these.
        """

        def additive(seen: torch.Tensor) -> torch.Tensor:
            return torch.where(seen, self.zero, self.low)[None, None]

        if longest < self.span:
            return additive(visible)
        near = visible & (ages() < self.span)
        if self.kinds == {"sliding_attention"}:
            return additive(near)
        return {"full_attention": additive(visible), "sliding_attention": additive(near)}

    def _forward(
        self,
        tokens: IntArray,
        positions: IntArray,
        mask: Any,
        keep: IntArray,
        blocks: Blocks | None = None,
    ) -> torch.Tensor:
        """Run the model on one packed row and return the (len(keep), vocabulary) logits."""
        options: dict[str, Any] = {}
        if self.keeps_logits:
            options["logits_to_keep"] = self._tensor(keep)
        with torch.inference_mode(), by_blocks(self.config, blocks) as more:
            out = self.model(
                input_ids=self._tensor(tokens)[None],
                position_ids=self._tensor(positions)[None],
                attention_mask=mask,
                past_key_values=self.cache,
                use_cache=True,
                **options,
                **more,
            )
        logits: torch.Tensor = out.logits[0]
        return logits if self.keeps_logits else logits[torch.as_tensor(keep)]

    def read(self, tokens: IntArray, questions: Questions, tick: Tick) -> FloatArray:
        """Append ``tokens`` to the context; answer questions whose places are its positions."""
        reader = Reader(questions, self.device)
        first, total = self.length, self.length + len(tokens)
        while self.length < total:
            start, stop = self.length, self.length + self.share(total - self.length)
            with self.spare_memory():
                asked = reader.within(start, stop)
                logits = self._extend(tokens[start - first : stop - first], reader, asked)
                reader.take(asked, logits)
                self.length = stop
                tick(stop - start)
        return reader.answers()

    def _extend(self, tokens: IntArray, reader: Reader, asked: IntArray) -> torch.Tensor:
        start, stop = self.length, self.length + len(tokens)
        scratch, window = self.window.scratch, self.window
        window.write, window.start, window.stop = scratch + start, scratch, scratch + stop
        rows = torch.arange(start, stop, device=self.device)[:, None]
        columns = torch.arange(stop, device=self.device)[None, :]
        mask = self._mask(columns <= rows, lambda: rows - columns, stop)
        places = reader.questions.places[asked] - start
        if not places.size:  # nothing to project on the vocabulary but one row
            places = np.zeros(1, dtype=np.int64)
        blocks = None
        if self.blocks:
            blocks = Blocks.of_context(start, stop, mask if stop < self.span else None)
        logits = self._forward(tokens, np.arange(start, stop), mask, places, blocks)
        return logits[: len(asked)]

    def ask(self, forest: Forest, questions: Questions, tick: Tick) -> FloatArray:
        """Evaluate a forest; answer questions whose places are its nodes.

        Cost: one pass through the model a node, attention to the context up to the chunk's last
        anchor. Memory: one chunk, whatever the size of the forest.
        """
        reader = Reader(questions, self.device)
        self.floor = forest.largest_component
        self._need_scratch(self.floor)
        start = 0
        while start < len(forest):
            part = forest.chunk(start, self.share(len(forest) - start))
            with self.spare_memory():
                asked = reader.within(part.start, part.stop)
                reader.take(asked, self._branches(forest, part, questions.places[asked]))
                start = part.stop
                tick(part.stop - part.start)
        return reader.answers()

    def _branches(self, forest: Forest, part: slice, places: IntArray) -> torch.Tensor:
        anchors, depths = forest.anchors[part], forest.depths[part]
        seen, count = int(anchors[-1]) + 1, part.stop - part.start
        scratch, window = self.window.scratch, self.window
        window.write = window.start = scratch - count
        window.stop = scratch + seen
        positions = anchors + depths
        above = forest.ancestry(part)
        ancestry = self._tensor(above)
        columns = torch.arange(seen, device=self.device)[None, :]
        visible = torch.cat((ancestry, columns <= self._tensor(anchors)[:, None]), dim=1)

        def ages() -> torch.Tensor:
            where = self._tensor(np.concatenate((positions, np.arange(seen))))
            return self._tensor(positions)[:, None] - where[None, :]

        longest = int(positions.max()) + 1
        mask = self._mask(visible, ages, longest)
        keep = places - part.start if places.size else np.zeros(1, dtype=np.int64)
        blocks = None
        if self.blocks:
            parents = forest.local_parents(part)
            whole = mask if longest < self.span else None
            blocks = Blocks.of_branches(above, anchors, parents, whole)
        return self._forward(forest.tokens[part], positions, mask, keep, blocks)[: len(places)]

    def _need_scratch(self, count: int) -> None:
        """Make the scratch area at least ``count`` tokens long."""
        missing = count - self.window.scratch
        if missing > 0:
            for layer in self.cache.layers:
                if layer.is_initialized:
                    layer.keys = torch.nn.functional.pad(layer.keys, (0, 0, missing, 0))
                    layer.values = torch.nn.functional.pad(layer.values, (0, 0, missing, 0))
            self.window.scratch = count

    def open(self, n_tokens: int) -> None:
        """Begin continuations of the context, of ``n_tokens`` in all: one line, empty so far."""
        self.paths = np.zeros((1, 0), dtype=np.int64)
        self.above, self.depths = np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64)
        self._need_scratch(n_tokens)

    def append(self, tokens: IntArray, lines: IntArray) -> torch.Tensor:
        """Continue open lines, some of them several times; what results are the open lines.

        Takes (n, c) tokens and the line (n,) that each row continues. Returns the (n, vocabulary)
        logits after each row's last token.
        """
        n_lines, count = tokens.shape
        size = len(self.above) - 1 + tokens.size
        added = (size - np.arange(tokens.size)).reshape(tokens.shape)
        self.paths = np.concatenate((self.paths[lines], added), axis=1)
        done = self.paths.shape[1] - count
        before = self.paths[:, done - 1 : -1] if done else np.pad(added[:, :-1], ((0, 0), (1, 0)))
        # Tokens of one pass lie in order, so that the newest has the lowest number of them.
        self.above = np.concatenate((self.above, before.ravel()[::-1]))
        depths = np.tile(np.arange(1, count + 1) + done, n_lines)
        self.depths = np.concatenate((self.depths, depths[::-1]))
        window = self.window
        window.write = window.start = window.scratch - size
        window.stop = window.scratch + self.length
        own = np.zeros((tokens.size, size), dtype=bool)
        row = np.arange(tokens.size).reshape(tokens.shape)
        for k in range(self.paths.shape[1]):
            sees = row[:, max(k - done, 0) :]
            own[sees, size - self.paths[:, k, None]] = True
        visible = torch.nn.functional.pad(self._tensor(own), (0, self.length), value=True)
        positions = self.length - 1 + depths

        def ages() -> torch.Tensor:
            where = np.concatenate((self.length - 1 + self.depths[:0:-1], np.arange(self.length)))
            return self._tensor(positions)[:, None] - self._tensor(where)[None, :]

        longest = self.length + done + count
        mask = self._mask(visible, ages, longest)
        blocks = None
        if self.blocks:
            block = Block(0, tokens.size, slice(0, size), size, self.length)
            above = self.above[:0:-1]
            parents = np.where(above > 0, size - above, -1)
            seen = np.full(tokens.size, self.length)
            blocks = Blocks(size, [block], seen, parents, mask if longest < self.span else None)
        keep = np.arange(1, n_lines + 1) * count - 1
        return self._forward(tokens.reshape(-1), positions, mask, keep, blocks)
