"""A context read once, and many continuations of it in few forward passes.

`PackedContext` keeps the keys and values of the context in one buffer and evaluates a
`sgdmc.llm.forest.Forest` in chunks: all tokens of a chunk go through the model as one sequence,
with explicit position ids and a mask that lets each token see the context up to its anchor, its
ancestors and itself. `BatchedContext` gives the same numbers for models whose attention does not
take such a mask, one batch of branches an anchor, and is slower.
"""

from __future__ import annotations

import copy
import inspect
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from sgdmc.llm.forest import FloatArray, Forest, IntArray, Questions, Tick, node_reference

CPU_CHUNK = 256
CACHED = 2**17  # logits at a time
GPU_CHUNKS = (512, 4096)


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


class _Reader:
    """Turns logits into log-probabilities of candidates, on the model's device."""

    def __init__(self, questions: Questions, device: torch.device) -> None:
        self.questions = questions
        sizes = [len(table) for table in questions.tables]
        candidates = np.zeros((sum(sizes), questions.width), dtype=np.int64)
        first = np.cumsum([0, *sizes])
        for table, start in zip(questions.tables, first[:-1], strict=True):
            candidates[start : start + len(table), : table.shape[1]] = table
        self.candidates = torch.as_tensor(candidates, device=device)
        self.which = first[questions.table] + questions.row
        self.order = np.argsort(questions.places, kind="stable")
        self.sorted_places = questions.places[self.order]
        self.values: list[tuple[IntArray, torch.Tensor]] = []

    def within(self, start: int, stop: int) -> IntArray:
        """Return the questions whose place lies in [start, stop), by place."""
        a, b = np.searchsorted(self.sorted_places, (start, stop))
        return self.order[a:b]

    def take(self, asked: IntArray, logits: torch.Tensor) -> None:
        """Note the answers to questions ``asked`` from their (n, vocabulary) logits."""
        if not asked.size:
            return
        device = self.candidates.device
        among = self.candidates[torch.as_tensor(self.which[asked], device=device)]
        # on a CPU in pieces that stay in its cache
        step = len(asked) if device.type == "cuda" else max(1, CACHED // logits.shape[1])
        laws = []
        for start in range(0, len(asked), step):
            rows = logits[start : start + step].to(device).float()
            laws.append(torch.log_softmax(rows, dim=1).gather(1, among[start : start + step]))
        self.values.append((asked, torch.cat(laws)))

    def answers(self) -> FloatArray:
        """Return (m, width) natural log-probabilities under the full softmax.

        What lies beyond the number of candidates of a question means nothing.
        """
        out = np.zeros((len(self.order), self.questions.width))
        for asked, law in self.values:
            out[asked] = law.cpu().numpy()
        return out


def model_device(model: Any) -> torch.device:
    """Return the device on which the model takes its token ids."""
    return torch.device(model.get_input_embeddings().weight.device)


def _text_config(model: Any) -> Any:
    return model.config.get_text_config(decoder=True)


class _Context:
    """What both kinds of context share."""

    def __init__(self, model: Any, *, chunk: int | None = None) -> None:
        self.model = model
        self.config = _text_config(model)
        self.device = model_device(model)
        self.length = 0
        self.chunk = default_chunk(model) if chunk is None else chunk
        self.floor = 1
        parameters = inspect.signature(model.forward).parameters
        self.keeps_logits = "logits_to_keep" in parameters

    @contextmanager
    def spare_memory(self) -> Iterator[None]:
        """Halve the chunk where the device runs out of memory; the caller then tries again."""
        try:
            yield
        except torch.OutOfMemoryError:
            if self.chunk <= self.floor:
                raise
            torch.cuda.empty_cache()
            self.chunk = max(self.chunk // 2, self.floor)

    def _tensor(self, array: npt.NDArray[Any]) -> torch.Tensor:
        return torch.as_tensor(array, device=self.device)


class PackedContext(_Context):
    """A context whose continuations are evaluated packed, under a tree mask.

    Parameters
    ----------
    model : transformers.PreTrainedModel
    capacity : int
        Largest number of tokens that the context will hold.
    scratch : int, optional
        Largest number of branch tokens kept at once: the chunk, unless a component is larger.
    chunk : int, optional
        Tokens a forward pass. By default 256 on a CPU; on a GPU by free memory.
    """

    def __init__(
        self, model: Any, *, capacity: int, chunk: int | None = None, scratch: int = 0
    ) -> None:
        super().__init__(model, chunk=chunk)
        self.window = _Window(capacity=capacity, scratch=max(scratch, self.chunk))
        self.cache = _Buffer(self.window, self.config.num_hidden_layers)
        self.lines: list[IntArray] = []  # branch of each scratch token, newest block first
        self.steps: list[IntArray] = []  # how far after the context each of them lies
        dtype = next(model.parameters()).dtype
        self.low = torch.finfo(dtype).min
        self.zero = torch.zeros((), dtype=dtype, device=self.device)
        self.span = getattr(self.config, "sliding_window", None)
        self.kinds = set(getattr(self.config, "layer_types", None) or [])
        if self.span is None or self.kinds == {"full_attention"}:
            self.span, self.kinds = None, {"full_attention"}
        elif not self.kinds:
            self.kinds = {"sliding_attention"}

    def _mask(self, visible: torch.Tensor, ages: Callable[[], torch.Tensor], longest: int) -> Any:
        """Return the additive 4-D mask, one a kind of layer where kinds see different spans.

        ``visible`` is (queries, keys) bool, ``ages`` gives how far back each key lies, ``longest``
        the largest of these.
        """

        def additive(seen: torch.Tensor) -> torch.Tensor:
            return torch.where(seen, self.zero, self.low)[None, None]

        if self.span is None or longest < self.span:
            return additive(visible)
        near = visible & (ages() < self.span)
        if self.kinds == {"sliding_attention"}:
            return additive(near)
        return {"full_attention": additive(visible), "sliding_attention": additive(near)}

    def _forward(
        self, tokens: IntArray, positions: IntArray, mask: Any, keep: IntArray
    ) -> torch.Tensor:
        """Run the model on one packed row and return the (len(keep), vocabulary) logits."""
        options: dict[str, Any] = {}
        if self.keeps_logits:
            options["logits_to_keep"] = self._tensor(keep)
        with torch.inference_mode():
            out = self.model(
                input_ids=self._tensor(tokens)[None],
                position_ids=self._tensor(positions)[None],
                attention_mask=mask,
                past_key_values=self.cache,
                use_cache=True,
                **options,
            )
        logits: torch.Tensor = out.logits[0]
        return logits if self.keeps_logits else logits[torch.as_tensor(keep)]

    def read(self, tokens: IntArray, questions: Questions, tick: Tick) -> FloatArray:
        """Append ``tokens`` to the context; answer questions whose places are its positions."""
        reader = _Reader(questions, self.device)
        first, total = self.length, self.length + len(tokens)
        while self.length < total:
            start, stop = self.length, min(self.length + self.chunk, total)
            with self.spare_memory():
                asked = reader.within(start, stop)
                logits = self._extend(tokens[start - first : stop - first], reader, asked)
                reader.take(asked, logits)
                self.length = stop
                tick(stop - start)
        return reader.answers()

    def _extend(self, tokens: IntArray, reader: _Reader, asked: IntArray) -> torch.Tensor:
        start, stop = self.length, self.length + len(tokens)
        scratch, window = self.window.scratch, self.window
        window.write, window.start, window.stop = scratch + start, scratch, scratch + stop
        rows = torch.arange(start, stop, device=self.device)[:, None]
        columns = torch.arange(stop, device=self.device)[None, :]
        mask = self._mask(columns <= rows, lambda: rows - columns, stop)
        places = reader.questions.places[asked] - start
        if not places.size:  # nothing to project on the vocabulary but one row
            places = np.zeros(1, dtype=np.int64)
        logits = self._forward(tokens, np.arange(start, stop), mask, places)
        return logits[: len(asked)]

    def ask(self, forest: Forest, questions: Questions, tick: Tick) -> FloatArray:
        """Evaluate a forest; answer questions whose places are its nodes.

        Cost: one pass through the model a node, attention to the context up to the chunk's last
        anchor. Memory: one chunk, whatever the size of the forest.
        """
        reader = _Reader(questions, self.device)
        self.floor = forest.largest_component
        self._need_scratch(self.floor)
        start = 0
        while start < len(forest):
            part = forest.chunk(start, self.chunk)
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
        ancestry = self._tensor(forest.ancestry(part))
        columns = torch.arange(seen, device=self.device)[None, :]
        visible = torch.cat((ancestry, columns <= self._tensor(anchors)[:, None]), dim=1)

        def ages() -> torch.Tensor:
            where = self._tensor(np.concatenate((positions, np.arange(seen))))
            return self._tensor(positions)[:, None] - where[None, :]

        mask = self._mask(visible, ages, int(positions.max()) + 1)
        keep = places - part.start if places.size else np.zeros(1, dtype=np.int64)
        return self._forward(forest.tokens[part], positions, mask, keep)[: len(places)]

    def _need_scratch(self, count: int) -> None:
        """Make the scratch area at least ``count`` tokens long."""
        missing = count - self.window.scratch
        if missing > 0:
            for layer in self.cache.layers:
                if layer.is_initialized:
                    layer.keys = torch.nn.functional.pad(layer.keys, (0, 0, missing, 0))
                    layer.values = torch.nn.functional.pad(layer.values, (0, 0, missing, 0))
            self.window.scratch = count

    def open(self, n_lines: int, n_tokens: int) -> None:
        """Begin ``n_lines`` separate continuations of the context, of ``n_tokens`` at most."""
        self.lines, self.steps = [], []
        self._need_scratch(n_lines * n_tokens)

    def append(self, tokens: IntArray) -> torch.Tensor:
        """Append (n_lines, c) tokens to the open continuations.

        Returns the (n_lines, vocabulary) logits after each line's last token.
        """
        n_lines, count = tokens.shape
        done = sum(s.size for s in self.steps) // n_lines
        self.lines.insert(0, np.repeat(np.arange(n_lines), count))
        self.steps.insert(0, np.tile(np.arange(done, done + count), n_lines))
        line, step = np.concatenate(self.lines), np.concatenate(self.steps)
        window = self.window
        window.write = window.start = window.scratch - line.size
        window.stop = window.scratch + self.length
        mine, mine_at = self._tensor(self.lines[0])[:, None], self._tensor(self.steps[0])[:, None]
        own = (mine == self._tensor(line)) & (mine_at >= self._tensor(step))
        visible = torch.nn.functional.pad(own, (0, self.length), value=True)

        def ages() -> torch.Tensor:
            where = self._tensor(np.concatenate((self.length + step, np.arange(self.length))))
            return self.length + mine_at - where[None, :]

        mask = self._mask(visible, ages, self.length + done + count)
        keep = np.arange(1, n_lines + 1) * count - 1
        return self._forward(tokens.reshape(-1), self.length + self.steps[0], mask, keep)


class BatchedContext(_Context):
    """The same questions for models that take no tree mask: one batch of branches an anchor.

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
        reader = _Reader(questions, self.device)
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
        reader = _Reader(questions, self.device)
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
        self, forest: Forest, leaves: IntArray, depth: int, walk: Any, reader: _Reader
    ) -> None:
        paths = np.zeros((leaves.size, depth), dtype=np.int64)
        nodes = np.full((leaves.size, depth), -1)
        row, at = np.arange(leaves.size), leaves
        while row.size:
            paths[row, forest.depths[at] - 1] = forest.tokens[at]
            nodes[row, forest.depths[at] - 1] = at
            keep = forest.parents[at] < 0
            row, at = row[keep], node_reference(forest.parents[at[keep]])
        cache = copy.deepcopy(walk)
        cache.batch_repeat_interleave(leaves.size)
        logits = self._forward(paths, cache).flatten(0, 1)
        order = np.argsort(nodes.reshape(-1), kind="stable")
        ranked = nodes.reshape(-1)[order]
        for node in np.unique(ranked[ranked >= 0]):
            asked = reader.within(int(node), int(node) + 1)
            if asked.size:
                place = int(order[np.searchsorted(ranked, node)])
                reader.take(asked, logits[place : place + 1].expand(asked.size, -1))

    def open(self, n_lines: int, n_tokens: int) -> None:
        """Begin ``n_lines`` separate continuations of the whole context."""
        self.open_cache = copy.deepcopy(self.cache)
        self.open_cache.batch_repeat_interleave(n_lines)

    def append(self, tokens: IntArray) -> torch.Tensor:
        """Append (n_lines, c) tokens; return the (n_lines, vocabulary) logits after them."""
        return self._forward(tokens, self.open_cache)[:, -1]


Context = PackedContext | BatchedContext


def default_chunk(model: Any) -> int:
    """Return how many tokens a forward pass takes: 256 on a CPU, by free memory on a GPU."""
    device = model_device(model)
    if device.type != "cuda":
        return CPU_CHUNK
    config = _text_config(model)
    free, _ = torch.cuda.mem_get_info(device)
    # logits in the model's and in single precision, and some dozens of hidden vectors
    per_token = 10 * config.vocab_size + 200 * config.hidden_size
    low, high = GPU_CHUNKS
    return int(min(max(free // 4 // per_token, low), high))


def takes_tree_mask(model: Any) -> bool:
    """Check on a few tokens that a packed pass gives what separate full passes give.

    Any exception counts as a refusal: attention implementations reject such masks in many ways.
    """
    if "position_ids" not in inspect.signature(model.forward).parameters:
        return False
    kinds = set(getattr(_text_config(model), "layer_types", None) or [])
    if not kinds <= {"full_attention", "sliding_attention"}:
        return False
    span = getattr(_text_config(model), "sliding_window", None) or 16
    vocabulary = _text_config(model).vocab_size
    limit = getattr(_text_config(model), "max_position_embeddings", None) or 64
    text = np.arange(3, 3 + min(span + 4, 40, limit - 4)) % vocabulary
    branches = np.array([5, 6, 7, 8], dtype=np.int64) % vocabulary
    parents = np.array([len(text) - 1, len(text) - 3, -1, -1], dtype=np.int64)
    forest, place = Forest.build(branches, parents)
    table = np.arange(min(vocabulary, 64))[None, :]
    none = np.zeros(0, dtype=np.int64)
    questions = Questions([table], place[2:], np.zeros(2, np.int64), np.zeros(2, np.int64))
    try:
        context = PackedContext(model, capacity=len(text), chunk=16)
        context.read(text, Questions([table], none, none, none), lambda _: None)
        packed = context.ask(forest, questions, lambda _: None)
    except Exception:
        return False
    for row, leaf in enumerate(branches[2:]):
        full = torch.as_tensor(np.append(text, (branches[0], leaf)), device=model_device(model))
        with torch.inference_mode():
            law = torch.log_softmax(model(input_ids=full[None]).logits[0, -1].float(), dim=-1)
        gap = np.abs(np.exp(packed[row]) - law[: table.shape[1]].exp().cpu().numpy()).max()
        if not gap < (1e-4 if next(model.parameters()).dtype == torch.float32 else 3e-2):
            return False
    return True
