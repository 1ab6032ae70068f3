"""Attention of a packed pass, a block of its queries at a time.

Under one mask every query of a chunk is multiplied with every key that any of them sees, and most
of these products are thrown away. A block of queries needs fewer keys: the context up to its own
last anchor, and the ancestors of its own tokens. `attend` is registered with ``transformers`` as an
attention implementation and does with `Blocks` what ``sdpa`` does with the whole mask, which it is
given too: a model that does not hand the blocks on computes the same.

In single precision, and where every layer sees the whole context, a compiled kernel needs neither
mask nor blocks: which tokens a query sees follows from its anchor and its parents.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from sgdmc._core import backend
from sgdmc.llm.forest import IntArray

NAME = "sgdmc_blocks"
SIZE = 64  # queries a block


@dataclass(frozen=True)
class Block:
    """Some queries of a chunk with the keys that they see.

    Attributes
    ----------
    start, stop : int
        The queries.
    own : slice or (m,) int64 array
        Which of the chunk's branch tokens are among their keys.
    n_own : int
        How many these are.
    seen : int
        How many positions of the context are among their keys: the first ones.
    """

    start: int
    stop: int
    own: slice | IntArray
    n_own: int
    seen: int


@dataclass(frozen=True)
class Blocks:
    """A chunk cut in blocks, and which keys each of its queries sees.

    Attributes
    ----------
    own : int
        Branch tokens that come first among the keys, before the context: those of the queries,
        then those of earlier passes.
    blocks : list of Block
    seen : (n_queries,) int64
        How many positions of the context each query sees.
    parents : (own,) int64
        The branch token above each, which it sees too; -1 where there is none.
    whole : tensor, optional
        The mask that says just this. Another one hides more, as that of layers with a span does.
    cuts : dict
        Parts of masks, one a block.
    """

    own: int
    blocks: list[Block]
    seen: IntArray
    parents: IntArray
    whole: torch.Tensor | None = None
    cuts: dict[tuple[int, int], tuple[torch.Tensor, list[torch.Tensor]]] = field(
        default_factory=dict
    )

    @classmethod
    def of_context(cls, start: int, stop: int, whole: torch.Tensor | None = None) -> Blocks:
        """Cut positions ``start`` to ``stop - 1``, each of which sees what is before it."""
        edges = [*range(start, stop, SIZE), stop]
        pairs = itertools.pairwise(edges)
        blocks = [Block(a - start, b - start, slice(0, 0), 0, b) for a, b in pairs]
        return cls(0, blocks, np.arange(start, stop) + 1, np.zeros(0, dtype=np.int64), whole)

    @classmethod
    def of_branches(
        cls,
        ancestry: npt.NDArray[np.bool_],
        anchors: IntArray,
        parents: IntArray,
        whole: torch.Tensor | None = None,
    ) -> Blocks:
        """Cut a chunk of a forest, in the order of its anchors."""
        blocks = []
        for a in range(0, len(anchors), SIZE):
            b = min(a + SIZE, len(anchors))
            own = np.flatnonzero(ancestry[a:b].any(axis=0))
            low, high = int(own[0]), int(own[-1]) + 1
            which = slice(low, high) if high - low == own.size else own
            blocks.append(Block(a, b, which, own.size, int(anchors[b - 1]) + 1))
        return cls(len(anchors), blocks, anchors + 1, parents, whole)

    def fits(self, query: torch.Tensor, key: torch.Tensor, mask: torch.Tensor) -> bool:
        """Return whether these are the queries, keys and mask of the whole chunk."""
        n_keys = self.own + max(block.seen for block in self.blocks)
        asked = (1, 1, self.blocks[-1].stop, n_keys)
        return mask.shape == asked and (query.shape[2], key.shape[2]) == asked[2:]

    def cut(self, mask: torch.Tensor, groups: int) -> list[torch.Tensor]:
        """Return each block's part of a 4-D mask, repeated for the queries that share a key.

        Layers are given the same mask, which is cut once a pass.
        """
        made = self.cuts.get((id(mask), groups))
        if made is None:
            parts = []
            for block in self.blocks:
                rows = mask[:, :, block.start : block.stop]
                context = rows[..., self.own : self.own + block.seen]
                part = torch.cat((rows[..., block.own], context), dim=-1)
                parts.append(part.repeat(1, 1, groups, 1) if groups > 1 else part)
            made = self.cuts[id(mask), groups] = mask, parts  # held, so that its id stays its own
        return made[1]


def attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    blocks: Blocks | None = None,
    **rest: Any,
) -> tuple[torch.Tensor, None]:
    """Attend by the compiled kernel, or block by block where it does not do.

    Without ``blocks``, or where they do not fit, do what ``sdpa`` does.

    Parameters
    ----------
    query : (1, n_heads, n_queries, head_dim)
    key, value : (1, n_key_heads, n_keys, head_dim)
        Written to for a while, and left as they were.
    attention_mask : (1, 1, n_queries, n_keys)

    Returns
    -------
    output : (1, n_queries, n_heads, head_dim)
    None
        In place of the weights.
    """
    unusual = any(rest.get(name) is not None for name in ("softcap", "position_bias"))
    if (
        blocks is None
        or attention_mask is None
        or unusual
        or not blocks.fits(query, key, attention_mask)
    ):
        out: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **rest
        )
        return out
    n_heads, n_key_heads, width = query.shape[1], key.shape[1], query.shape[3]
    if _suits_kernel(query, value, attention_mask, blocks.whole):
        result = query.new_empty(1, query.shape[2], n_heads, width)
        backend("cpp").attend(
            *(given[0].numpy() for given in (query, key, value)),
            blocks.seen,
            blocks.parents,
            width**-0.5 if scaling is None else scaling,
            result[0].numpy(),
            torch.get_num_threads(),
        )
        return result, None
    groups, own = n_heads // n_key_heads, blocks.own
    keys, values = key[:, :, :own].clone(), value[:, :, :own].clone()
    outputs = []
    for block, mask in zip(blocks.blocks, blocks.cut(attention_mask, groups), strict=True):
        first = own - block.n_own  # their own keys are put right before the context's
        if block.n_own:
            key[:, :, first:own] = keys[:, :, block.own]
            value[:, :, first:own] = values[:, :, block.own]
        some = slice(first, own + block.seen)
        asking = query[:, :, block.start : block.stop]
        if groups > 1:
            asking = asking.reshape(1, n_key_heads, -1, width)
        output = torch.nn.functional.scaled_dot_product_attention(
            asking, key[:, :, some], value[:, :, some], attn_mask=mask, scale=scaling
        )
        if groups > 1:
            output = output.reshape(1, n_heads, -1, output.shape[3])
        outputs.append(output.transpose(1, 2))
    key[:, :, :own], value[:, :, :own] = keys, values
    return torch.cat(outputs, dim=1), None


def _suits_kernel(
    query: torch.Tensor, value: torch.Tensor, mask: torch.Tensor, whole: torch.Tensor | None
) -> bool:
    """Return whether the compiled kernel does what the mask says for such queries and values."""
    width = query.shape[3]
    return (
        whole is not None
        and mask.data_ptr() == whole.data_ptr()
        and (query.dtype, query.device.type) == (torch.float32, "cpu")
        and query.stride(3) == 1
        and width % 8 == 0
        and width == value.shape[3]
    )


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, sdpa_mask)


def takes_blocks(model: Any, config: Any) -> bool:
    """Return whether a model's attention can be replaced by `attend`: on a CPU only, so far."""
    parameters = inspect.signature(model.forward).parameters.values()
    return (
        model.get_input_embeddings().weight.device.type == "cpu"
        and config._attn_implementation == "sdpa"
        and getattr(model, "_supports_attention_backend", False)
        and any(p.kind is p.VAR_KEYWORD for p in parameters)
    )


@contextmanager
def by_blocks(config: Any, blocks: Blocks | None) -> Iterator[dict[str, Any]]:
    """Let a model whose attention is ``sdpa`` use `attend`; yield what its forward is given."""
    if blocks is None:
        yield {}
        return
    before = config._attn_implementation
    mine = before != NAME  # it may be so already, in another thread
    if mine:
        config._attn_implementation = NAME
    try:
        yield {"blocks": blocks}
    finally:
        if mine:
            config._attn_implementation = before
