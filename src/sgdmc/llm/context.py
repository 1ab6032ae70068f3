"""What every kind of context does: logits to answers, chunks, memory."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sgdmc.llm.forest import FloatArray, IntArray, Questions

CPU_CHUNK = 512
GPU_CHUNKS = (512, 2048)
CACHED = 2**17  # logits at a time


class Reader:
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
        device = logits.device  # that of the last layer, where a model is spread over several
        self.candidates = self.candidates.to(device)
        among = self.candidates[torch.as_tensor(self.which[asked], device=device)]
        # on a CPU in pieces that stay in its cache
        step = len(asked) if device.type == "cuda" else max(1, CACHED // logits.shape[1])
        laws = []
        for start in range(0, len(asked), step):
            rows = logits[start : start + step].float()
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


def model_dtype(model: Any) -> torch.dtype:
    """Return the type in which hidden states begin, whatever type weights are stored in."""
    dtype: torch.dtype = model.get_input_embeddings().weight.dtype
    return dtype


def text_config(model: Any) -> Any:
    """Return the part of the configuration that describes the language model."""
    return model.config.get_text_config(decoder=True)


class BaseContext:
    """What both kinds of context share."""

    def __init__(self, model: Any, *, chunk: int | None = None) -> None:
        self.model = model
        self.config = text_config(model)
        self.device = model_device(model)
        self.dtype = model_dtype(model)
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

    def share(self, left: int) -> int:
        """Return how many of the remaining tokens come next: equal parts, at most a chunk."""
        return -(-left // -(-left // self.chunk))

    def _tensor(self, array: npt.NDArray[Any]) -> torch.Tensor:
        return torch.as_tensor(array, device=self.device)


def default_chunk(model: Any) -> int:
    """Return how many tokens a forward pass takes: 512 on a CPU, by free memory on a GPU."""
    device = model_device(model)
    if device.type != "cuda":
        return CPU_CHUNK
    config = text_config(model)
    free, _ = torch.cuda.mem_get_info(device)
    # logits in the model's and in single precision, and some dozens of hidden vectors
    per_token = 10 * config.vocab_size + 200 * config.hidden_size
    low, high = GPU_CHUNKS
    return int(min(max(free // 4 // per_token, low), high))
