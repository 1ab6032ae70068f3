"""The network that is trained: a Llama with one table of numbers for both kinds of number token.

The mathematics is that of ``transformers.LlamaForCausalLM`` with tied embeddings (a test holds the
two to each other); only the bookkeeping differs. The embedding of ``"523,"`` is ``E[523] + k[0]``
and that of ``"523:"`` is ``E[523] + k[1]``, so the log normaliser of the softmax over all 2000
number tokens is ``logsumexp(E h) + logaddexp(k[0]·h, k[1]·h)``: half of the work.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sgdmc.pretrain.tokenizer import BOS, INNER, LABEL, N_NUMBERS, PAD, VOCABULARY

__all__ = ["DigitNetwork", "Shape", "read_shape"]


@dataclass(frozen=True)
class Shape:
    """The sizes of the network."""

    width: int = 96
    n_layers: int = 4
    n_heads: int = 4
    hidden: int = 192
    max_length: int = 2048
    rope_theta: float = 100_000.0

    def llama_config(self) -> dict[str, Any]:
        """Return the arguments of ``transformers.LlamaConfig`` that mean this network."""
        return {
            "vocab_size": VOCABULARY,
            "hidden_size": self.width,
            "intermediate_size": self.hidden,
            "num_hidden_layers": self.n_layers,
            "num_attention_heads": self.n_heads,
            "num_key_value_heads": self.n_heads,
            "max_position_embeddings": self.max_length,
            "rms_norm_eps": 1e-6,
            "rope_theta": self.rope_theta,
            "attention_bias": True,
            "mlp_bias": False,
            "tie_word_embeddings": True,
            "bos_token_id": BOS,
            "pad_token_id": PAD,
            "eos_token_id": None,
            "use_cache": True,
        }

    def as_dict(self) -> dict[str, Any]:
        """Return the sizes as a plain dictionary, for a checkpoint."""
        return asdict(self)


_BLOCK_NAMES = {
    "qkv": tuple(f"self_attn.{name}_proj.weight" for name in "qkv"),
    "qkv_bias": tuple(f"self_attn.{name}_proj.bias" for name in "qkv"),
    "out": ("self_attn.o_proj.weight",),
    "out_bias": ("self_attn.o_proj.bias",),
    "gate_up": ("mlp.gate_proj.weight", "mlp.up_proj.weight"),
    "down": ("mlp.down_proj.weight",),
    "norm_1": ("input_layernorm.weight",),
    "norm_2": ("post_attention_layernorm.weight",),
}


def read_shape(folder: str | Path) -> Shape:
    """Return the sizes of a model in the Hub's format that :class:`DigitNetwork` can hold.

    Parameters
    ----------
    folder : path

    Returns
    -------
    Shape
    """
    config = json.loads((Path(folder) / "config.json").read_text())
    rope = config.get("rope_parameters") or config
    return Shape(
        width=config["hidden_size"],
        hidden=config["intermediate_size"],
        n_layers=config["num_hidden_layers"],
        n_heads=config["num_attention_heads"],
        max_length=config["max_position_embeddings"],
        rope_theta=rope["rope_theta"],
    )


def _fourier_table(width: int, rng: np.random.Generator) -> np.ndarray:
    """Return ``(1000, width)`` features of the numbers: sines of geometric wavelengths."""
    x = (np.arange(N_NUMBERS) + 0.5) / N_NUMBERS
    n_waves = (width * 3) // 8
    frequency = np.geomspace(0.5, 250.0, n_waves)
    phase = 2 * np.pi * np.outer(x, frequency)
    weight = (1.0 + frequency / 8.0) ** -0.35
    waves = np.concatenate([np.sin(phase) * weight, np.cos(phase) * weight], axis=1)
    rest = np.zeros((N_NUMBERS, width - waves.shape[1]))
    table = np.concatenate([waves, rest], axis=1)
    table *= math.sqrt(1.0 / (table**2).mean())
    return (0.5 * table + 0.02 * rng.standard_normal(table.shape)).astype(np.float32)


class Block(nn.Module):
    """One layer: attention with biases and rotary positions, then a SwiGLU."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width, hidden = shape.width, shape.hidden
        self.n_heads = shape.n_heads
        self.norm_1 = nn.Parameter(torch.ones(width))
        self.norm_2 = nn.Parameter(torch.ones(width))
        self.qkv = nn.Parameter(torch.empty(3, width, width))
        self.qkv_bias = nn.Parameter(torch.zeros(3, width))
        self.out = nn.Parameter(torch.zeros(width, width))
        self.out_bias = nn.Parameter(torch.zeros(width))
        self.gate_up = nn.Parameter(torch.empty(2, hidden, width))
        self.down = nn.Parameter(torch.zeros(width, hidden))

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, length: int, query_mask: Tensor | None
    ) -> Tensor:
        """Map ``x`` (n, length + n_query, width) to the same shape."""
        n, total, width = x.shape
        heads = self.n_heads
        y = F.rms_norm(x, (width,), self.norm_1, 1e-6)
        qkv = F.linear(y, self.qkv.reshape(3 * width, width), self.qkv_bias.reshape(-1))
        qkv = qkv.view(n, total, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
        qk = qkv[:2]  # (2, n, heads, total, head_dim)
        half = qk.shape[-1] // 2
        turned = torch.cat((-qk[..., half:], qk[..., :half]), dim=-1)
        q, k = torch.unbind(qk * cos + turned * sin)
        v = qkv[2]
        if query_mask is None:
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            main = F.scaled_dot_product_attention(
                q[:, :, :length], k[:, :, :length], v[:, :, :length], is_causal=True
            )
            side = F.scaled_dot_product_attention(q[:, :, length:], k, v, attn_mask=query_mask)
            mixed = torch.cat((main, side), dim=2)
        mixed = mixed.transpose(1, 2).reshape(n, total, width)
        x = x + F.linear(mixed, self.out, self.out_bias)
        y = F.rms_norm(x, (width,), self.norm_2, 1e-6)
        gate, up = F.linear(y, self.gate_up.reshape(-1, width)).chunk(2, dim=-1)
        return x + F.linear(F.silu(gate) * up, self.down)


class DigitNetwork(nn.Module):
    """A Llama over the vocabulary of :mod:`sgdmc.pretrain.tokenizer`.

    Parameters
    ----------
    shape : Shape
        The sizes.
    seed : int
        Seed of the initial weights.
    """

    def __init__(self, shape: Shape, *, seed: int = 0) -> None:
        super().__init__()
        self.shape = shape
        width = shape.width
        rng = np.random.default_rng(seed)
        self.number = nn.Parameter(torch.from_numpy(_fourier_table(width, rng)))
        self.kind = nn.Parameter(torch.zeros(2, width))
        self.other = nn.Parameter(
            torch.from_numpy(0.5 * rng.standard_normal((VOCABULARY - LABEL, width), np.float32))
        )
        self.norm = nn.Parameter(torch.full((width,), 0.3))
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.n_layers))
        with torch.no_grad():
            spare = width - 2 * ((width * 3) // 8)
            self.kind[:, -spare:] = torch.from_numpy(
                0.5 * rng.standard_normal((2, spare)).astype(np.float32)
            )
            for block in self.blocks:
                for name in ("qkv", "gate_up"):
                    weight = getattr(block, name)
                    draw = rng.standard_normal(tuple(weight.shape), np.float32)
                    weight.copy_(torch.from_numpy(draw / math.sqrt(width)))
            self._look_back(self.blocks[0])
        head_dim = width // shape.n_heads
        rate = shape.rope_theta ** (-np.arange(0, head_dim, 2) / head_dim)
        angle = np.outer(np.arange(shape.max_length + 8), rate)
        angle = np.concatenate([angle, angle], axis=1).astype(np.float32)
        self.register_buffer("cos", torch.from_numpy(np.cos(angle)), persistent=False)
        self.register_buffer("sin", torch.from_numpy(np.sin(angle)), persistent=False)

    def _look_back(self, block: nn.Module, strength: float = 5.0) -> None:
        """Set query and key biases so that head ``j`` attends to the token ``j + 1`` before.

        Under rotary positions, a query bias turned by ``-o`` against the key bias has its largest
        score at distance ``o``; induction then need not be found by chance.
        """
        head_dim = self.shape.width // self.shape.n_heads
        half = head_dim // 2
        rate = self.shape.rope_theta ** (-np.arange(half) * 2 / head_dim)
        for head in range(self.shape.n_heads):
            start = head * head_dim
            angle = torch.from_numpy((rate * (head + 1)).astype(np.float32))
            bias = block.get_parameter("qkv_bias")
            block.get_parameter("qkv")[:2, start : start + head_dim] *= 0.3
            bias[1, start : start + half] = strength
            bias[0, start : start + half] = strength * torch.cos(angle)
            bias[0, start + half : start + head_dim] = -strength * torch.sin(angle)

    def table(self) -> Tensor:
        """Return the embedding of every token, ``(2013, width)``."""
        return torch.cat((self.number + self.kind[0], self.number + self.kind[1], self.other))

    def forward(
        self,
        tokens: Tensor,
        *,
        query_tokens: Tensor | None = None,
        query_positions: Tensor | None = None,
        query_mask: Tensor | None = None,
    ) -> Tensor:
        """Return the last hidden states.

        Parameters
        ----------
        tokens : Tensor (n, length) of int64
        query_tokens, query_positions : Tensor (n, n_query) of int64, optional
            Branches: tokens that see a prefix of the sequence and what went before in their own
            branch; no token of the sequence sees them.
        query_mask : Tensor (n, 1, n_query, length + n_query) of bool, optional
            What each token of a branch sees.

        Returns
        -------
        Tensor (n, length + n_query, width)
        """
        length = tokens.shape[1]
        rotary_cos, rotary_sin = self.get_buffer("cos"), self.get_buffer("sin")
        if query_tokens is None or query_positions is None:
            cos, sin = rotary_cos[:length], rotary_sin[:length]
            everything = tokens
        else:
            everything = torch.cat((tokens, query_tokens), dim=1)
            where = torch.arange(length, device=tokens.device).expand(tokens.shape[0], -1)
            where = torch.cat((where, query_positions), dim=1)
            cos, sin = rotary_cos[where][:, None], rotary_sin[where][:, None]
        x = F.embedding(everything, self.table())
        for block in self.blocks:
            x = block(x, cos, sin, length, query_mask)
        return F.rms_norm(x, (self.shape.width,), self.norm, 1e-6)

    def losses(self, hidden: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """Return the cross-entropy of each position against weighted targets.

        Parameters
        ----------
        hidden : Tensor (m, width)
        target : Tensor (m, k) of int64
            Token ids; either all numbers of one kind or all labels in each row.
        weight : Tensor (m, k)
            Probabilities of the targets; rows sum to one.

        Returns
        -------
        Tensor (m,)
            ``−Σ_k weight_k log p(target_k)`` in nats.
        """
        z = F.linear(hidden, self.number)  # (m, 1000)
        kind = F.linear(hidden, self.kind)  # (m, 2)
        other = F.linear(hidden, self.other)  # (m, 13)
        mass = torch.logsumexp(z, dim=1, keepdim=True) + kind
        total = torch.logsumexp(torch.cat((mass, other), dim=1), dim=1)
        is_label = target[:, :1] >= LABEL
        is_inner = (target[:, :1] >= INNER) & ~is_label
        number = z.gather(1, target % N_NUMBERS) + torch.where(is_inner, kind[:, 1:], kind[:, :1])
        label = other.gather(1, (target - LABEL).clamp(min=0))
        chosen = torch.where(is_label, label, number)
        return total - (weight * chosen).sum(dim=1)

    def load_folder(self, folder: str | Path) -> None:
        """Take the weights of a folder that :func:`sgdmc.pretrain.train.export` wrote.

        Parameters
        ----------
        folder : path
            Its sizes must be this network's (:func:`read_shape`).
        """
        from safetensors.torch import load_file

        state = {k: v.float() for k, v in load_file(Path(folder) / "model.safetensors").items()}
        table = state["model.embed_tokens.weight"]
        with torch.no_grad():
            # The two kinds of number tokens share one table: only their difference matters.
            self.number.copy_(table[:N_NUMBERS])
            self.kind[0] = 0.0
            self.kind[1] = (table[N_NUMBERS : 2 * N_NUMBERS] - table[:N_NUMBERS]).mean(dim=0)
            self.other.copy_(table[2 * N_NUMBERS :])
            self.norm.copy_(state["model.norm.weight"])
            for index, block in enumerate(self.blocks):
                for mine, names in _BLOCK_NAMES.items():
                    parts = [state[f"model.layers.{index}.{name}"] for name in names]
                    block.get_parameter(mine).copy_(
                        torch.stack(parts) if len(parts) > 1 else parts[0]
                    )

    def llama_state(self) -> dict[str, Tensor]:
        """Return the weights under the names of ``transformers.LlamaForCausalLM``."""
        state = {"model.embed_tokens.weight": self.table(), "model.norm.weight": self.norm}
        for index, block in enumerate(self.blocks):
            for mine, names in _BLOCK_NAMES.items():
                weight = block.get_parameter(mine)
                parts = weight if len(names) > 1 else weight[None]
                for name, part in zip(names, parts, strict=True):
                    state[f"model.layers.{index}.{name}"] = part
        return {name: value.detach().contiguous() for name, value in state.items()}
