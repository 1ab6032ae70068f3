"""Small tokenizers and random models of every family, built here: no network, no files."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, processors
from tokenizers import pre_tokenizers as pre

from sgdmc.llm.model import LanguageModel

DIGITS = "0123456789"
NUMBERS = [f"{i:0{k}d}" for k in (1, 2, 3) for i in range(10**k)]


def _finish(core: Tokenizer, bos: str | None) -> transformers.PreTrainedTokenizerFast:
    special = {"eos_token": "</s>"}
    core.add_special_tokens([AddedToken("</s>", special=True)])
    if bos is not None:
        core.add_special_tokens([AddedToken(bos, special=True)])
        core.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, core.token_to_id(bos))]
        )
        special["bos_token"] = bos
    return transformers.PreTrainedTokenizerFast(tokenizer_object=core, **special)


def sentencepiece_like(bos: str | None, *, prefix: bool) -> transformers.PreTrainedTokenizerFast:
    """One token a digit; Llama-2 puts a word mark in front of the text, Gemma does not."""
    pieces = ["<unk>", "<0x0A>", "▁", *DIGITS, ",", ":"]
    core = Tokenizer(
        models.BPE(
            vocab={p: i for i, p in enumerate(pieces)},
            merges=[],
            unk_token="<unk>",
            byte_fallback=True,
        )
    )
    mark = [normalizers.Prepend("▁")] if prefix else []
    core.normalizer = normalizers.Sequence([*mark, normalizers.Replace(" ", "▁")])
    core.decoder = decoders.Replace("▁", " ")
    out = _finish(core, bos)
    out.unk_token = "<unk>"
    return out


def byte_level(
    pattern: str, merges: list[tuple[str, str]], bos: str | None, *, extra: tuple[str, ...] = ()
) -> transformers.PreTrainedTokenizerFast:
    """Byte-level BPE: Llama-3, Qwen and GPT-2 differ in the pattern and in the merges."""
    pieces = [*sorted(pre.ByteLevel.alphabet()), *(a + b for a, b in merges)]
    vocab = {p: i for i, p in enumerate(dict.fromkeys([*pieces, *extra]))}
    core = Tokenizer(models.BPE(vocab=vocab, merges=merges, ignore_merges=bool(extra)))
    split = pre.Split(Regex(pattern), behavior="isolated")
    core.pre_tokenizer = pre.Sequence(
        [split, pre.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    core.decoder = decoders.ByteLevel()
    return _finish(core, bos)


def one_token_a_number(bos: str | None = "<s>") -> transformers.PreTrainedTokenizerFast:
    """Like the shipped model's: three digits and their separator are one token."""
    pieces = ["<unk>", "<pad>", "\n", *DIGITS]
    pieces += [f"{i:03d}{c}" for c in ",:" for i in range(1000)]
    core = Tokenizer(
        models.WordLevel(vocab={p: i for i, p in enumerate(pieces)}, unk_token="<unk>")
    )
    core.pre_tokenizer = pre.Split(Regex(r"\d{3}[,:]|\d|\n|."), behavior="isolated")
    out = _finish(core, bos)
    out.unk_token = "<unk>"
    return out


WORDS = r"\p{L}+"
SPACES = r"\s+(?!\S)|\s+"
TOKENIZERS = {
    "llama2": lambda: sentencepiece_like("<s>", prefix=True),
    "llama2-no-bos": lambda: sentencepiece_like(None, prefix=True),
    "mistral": lambda: sentencepiece_like("<s>", prefix=True),
    "gemma": lambda: sentencepiece_like("<bos>", prefix=False),
    "gemma3": lambda: sentencepiece_like("<bos>", prefix=False),
    "llama3": lambda: byte_level(
        rf"{WORDS}|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{SPACES}",
        [(",", "Ċ"), (":", "Ċ")],
        "<|begin|>",
        extra=tuple(NUMBERS),
    ),
    "qwen": lambda: byte_level(
        rf"{WORDS}|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{SPACES}", [(",", "Ċ")], None
    ),
    "gpt2": lambda: byte_level(
        rf" ?{WORDS}| ?\p{{N}}+| ?[^\s\p{{L}}\p{{N}}]+|{SPACES}",
        [*(("Ġ", d) for d in DIGITS), ("Ġ", ","), ("Ġ", ":"), ("1", "2"), ("52", "3"), ("5", "2")],
        None,
    ),
    "shipped-like": one_token_a_number,
}


def _configuration(family: str, vocab: int) -> transformers.PreTrainedConfig:
    size = {
        "vocab_size": vocab + 3,  # models have more rows than tokens
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "initializer_range": 0.4,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }
    if family == "mistral":
        return transformers.MistralConfig(**size, sliding_window=13)
    if family == "gemma":
        return transformers.Gemma2Config(**size, head_dim=8, sliding_window=11)
    if family == "gemma3":
        return transformers.Gemma3TextConfig(
            **size,
            head_dim=8,
            sliding_window=11,
            layer_types=["sliding_attention", "full_attention"],
        )
    if family == "qwen":
        return transformers.Qwen2Config(**size)
    if family == "gpt2":
        return transformers.GPT2Config(
            vocab_size=vocab,
            n_positions=512,
            n_embd=32,
            n_layer=2,
            n_head=4,
            initializer_range=0.4,
            bos_token_id=None,
            eos_token_id=None,
        )
    return transformers.LlamaConfig(**size)


def softmax_after(lm, ids):
    """Law of the next token after token ids, by one plain forward pass."""
    with torch.inference_mode():
        logits = lm.model(input_ids=torch.tensor([list(ids)])).logits[0, -1]
    return torch.softmax(logits.double(), dim=-1).numpy()


def law_after(lm, text, slot, depth=None):
    """Row and off-state mass after a text, ``depth`` levels below the root."""
    ids = lm.tokenizer(text)["input_ids"] + list(slot.lead)
    paths = slot.paths
    nodes = {(): (1.0, 1.0)}  # beginning of a path: restricted and full probability
    for level in range(slot.depth if depth is None else depth + 1):
        grown = {}
        for start, (row, mass) in nodes.items():
            below = paths[(paths[:, :level] == start).all(axis=1)]
            law = softmax_after(lm, [*ids, *start])
            children = np.unique(below[:, level])
            for child in children:
                share = law[child] / law[children].sum()
                grown[(*start, int(child))] = (row * share, mass * law[child])
        nodes = grown
    rows = np.zeros(len(paths))
    for start, (row, _) in nodes.items():
        below = (paths[:, : len(start)] == start).all(axis=1)
        rows[below] = row / below.sum()
    return rows, 1.0 - sum(mass for _, mass in nodes.values())


def texts_of(tm, runs):
    """The texts that end with each state in turn; runs are (T, dim)."""
    return [
        tm.style.text([*runs[:r], run[: t + 1]])
        for r, run in enumerate(runs)
        for t in range(len(run))
    ]


@pytest.fixture(scope="session")
def brute():
    """Return ``law_after``: what packed rows must equal, by full forward passes."""
    return law_after


@pytest.fixture(scope="session")
def texts():
    """Return ``texts_of``."""
    return texts_of


@pytest.fixture(scope="session")
def family():
    """Return the random model and the tokenizer of a family, made once."""
    made: dict[str, LanguageModel] = {}

    def make(name: str) -> LanguageModel:
        if name not in made:
            tokenizer = TOKENIZERS[name]()
            torch.manual_seed(7)
            config = _configuration(name.split("-")[0], len(tokenizer))
            model = transformers.AutoModelForCausalLM.from_config(config)
            made[name] = LanguageModel.wrap(model, tokenizer, name=name)
        return made[name]

    return make


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
