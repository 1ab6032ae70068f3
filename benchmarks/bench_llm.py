"""Reading a digit tree packed, against one branch at a time, and against this machine's limit.

    python benchmarks/bench_llm.py                    # CPU, one thread: models A and B, minutes
    python benchmarks/bench_llm.py --device cuda      # Llama-2-7B-shaped random weights, bfloat16

Both algorithms read the same rows off the same random model, and the rows are compared. Seconds on
a CPU are those of the thread, so that other processes count for little; on a GPU, of the clock.
At depth 2 one branch at a time takes many minutes: it reads the whole series, then evaluates the
branches of every 16th position, and the time of its branches is multiplied accordingly.

Printed and stored: medians of repeats, the ratio, the share of this machine's rate of float32
matrix products (1024 x 1024, measured between the repeats), the ratio that a reader at the whole of
that rate would reach, and at which rates the model's own products and its attention ran.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, processors
from transformers.cache_utils import DynamicCache

from sgdmc.llm.attention import NAME, attend
from sgdmc.llm.model import LanguageModel
from sgdmc.llm.reader import next_state_laws
from sgdmc.llm.series import Window, series_rows
from sgdmc.llm.tokens import TokenMap, token_map
from sgdmc.llm.tree import Plan, Rows, plan, rows_from_logs, wanted_nodes

RESULTS = Path(__file__).parent / "results" / "llm.json"
SMALL, LLAMA_2 = 512, 32000  # sizes of the vocabulary
H200_PEAK = 989e12  # dense bfloat16 operations a second, as its maker states
EVERY = 16  # positions of which one is evaluated one branch at a time, at depth 2
SHAPES = {
    "A": {"hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 6, "heads": 4},
    "B": {"hidden_size": 512, "intermediate_size": 1376, "num_hidden_layers": 8, "heads": 8},
    "7B": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "heads": 32},
}
CASES = [("A", 1, "neighbours"), ("A", 1, "all"), ("A", 2, "all"), ("B", 1, "neighbours"),
         ("B", 1, "all"), ("B", 2, "all")]  # fmt: skip
WANTED = {(1, "neighbours"): 10, (1, "all"): 18, ("A", 2): 30, ("B", 2): 20}


def llama_2_tokenizer() -> transformers.PreTrainedTokenizerFast:
    """One token a digit, a word mark in front: what Llama-2 makes of numbers."""
    pieces = ["<unk>", "<s>", "</s>", "<0x0A>", "▁", *"0123456789", ",", ":"]
    core = Tokenizer(
        models.BPE({p: i for i, p in enumerate(pieces)}, [], unk_token="<unk>", byte_fallback=True)
    )
    core.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    core.decoder = decoders.Replace("▁", " ")
    core.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def random_llama(name: str, vocabulary: int, device: str, dtype: torch.dtype) -> LanguageModel:
    """Return a Llama of one of the shapes with random weights."""
    shape = dict(SHAPES[name])
    config = transformers.LlamaConfig(
        vocab_size=vocabulary,
        num_attention_heads=shape.pop("heads"),
        max_position_embeddings=8192,
        **shape,
    )
    torch.manual_seed(0)
    with torch.device(device):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype)
    return LanguageModel.wrap(model, llama_2_tokenizer(), name=name)


def seconds(device: str, task: Callable[[], Any], repeats: int = 1) -> float:
    """Return the least time of a task: of the thread on a CPU, of the clock on a GPU."""
    clock = time.perf_counter if device == "cuda" else time.thread_time
    best = float("inf")
    for _ in range(repeats):
        if device == "cuda":
            torch.cuda.synchronize()
        begun = clock()
        task()
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, clock() - begun)
    return best


def matmul_rate(device: str, dtype: torch.dtype) -> float:
    """Return the best rate of a dense matrix product, in operations a second."""
    size = 8192 if device == "cuda" else 1024
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return 2 * size**3 / seconds(device, lambda: a @ b, repeats=20)


def what_is_read(
    lm: LanguageModel, tm: TokenMap, states: np.ndarray, depth: int, refine: Any
) -> tuple[np.ndarray, Rows, Plan]:
    """Return the tokens, the rows and the forest that the reader evaluates."""
    slot, runs = tm.slots[0], [states[:, None].astype(np.int64)]
    text = tm.layout(runs)
    rows = series_rows(tm, text, runs[0], Window(runs, 0, len(states)), 0)
    wanted = wanted_nodes(slot, rows, refine=refine, depth=depth)
    return text.tokens, rows, plan(slot, rows, wanted)


def operations(lm: LanguageModel, n_tokens: int, made: Plan) -> tuple[float, float]:
    """Return the multiplications and additions of the model on what is read.

    First products with weights, with projections on the vocabulary where logits are wanted; then
    attention to the tokens that are visible. No mask, norm or softmax is counted.
    """
    config = lm.model.config
    body = sum(
        p.numel()
        for name, p in lm.model.named_parameters()
        if "embed_tokens" not in name and "lm_head" not in name
    )
    questions = len(np.unique(made.to_context.places)) + len(np.unique(made.to_forest.places))
    visible = n_tokens * (n_tokens + 1) / 2 + (made.forest.anchors + 1 + made.forest.depths).sum()
    total = n_tokens + len(made.forest)
    return (
        float(2 * body * total + 2 * config.hidden_size * config.vocab_size * questions),
        float(4 * config.hidden_size * config.num_hidden_layers * visible),
    )


def split(task: Callable[[], Any]) -> tuple[float, float]:
    """Return the seconds that a task spends in products with weights and in attention."""
    spent = {"products": 0.0, "attention": 0.0}

    def timed(name: str, plain: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            begun = time.thread_time()
            out = plain(*args, **kwargs)
            spent[name] += time.thread_time() - begun
            return out

        return call

    linear = torch.nn.functional.linear
    torch.nn.functional.linear = timed("products", linear)
    transformers.AttentionInterface.register(NAME, timed("attention", attend))
    try:
        task()
    finally:
        torch.nn.functional.linear = linear
        transformers.AttentionInterface.register(NAME, attend)
    return spent["products"], spent["attention"]


class OneAtATime:
    """The hierarchy-PDF of Liu et al. as they evaluate it: one forward pass a branch token.

    The cache of the series is kept, and cut back from the end position by position, rather than
    rebuilt; the tree is walked depth first.
    """

    def __init__(self, lm: LanguageModel, tm: TokenMap, tokens: np.ndarray) -> None:
        self.model, self.slot, self.tokens = lm.model, tm.slots[0], tokens
        self.device = lm.device
        self.passes = 0

    def run(self, rows: Rows, depth: int, refine: Any, every: int) -> tuple[np.ndarray, np.ndarray]:
        """Return rows and off-state masses of every so many-th position, from the last one back."""
        wanted = wanted_nodes(self.slot, rows, refine=refine, depth=depth)
        self.logs = [np.full((len(rows.root), *t.shape), np.nan) for t in self.slot.tables]
        self.cache = DynamicCache(config=self.model.config)
        begun = time.thread_time()
        logits = self._forward(self.tokens)
        self.reading_s = time.thread_time() - begun
        for row in range(len(rows.root) - 1, -1, -every):
            for level in range(depth, -1, -1):  # read off the series where it follows the path
                seen = rows.root[row] if level == 0 else rows.observed[row, level - 1]
                if level and not seen:
                    continue
                node = int(rows.centre[row]) // (1000 // len(self.slot.tables[level]))
                self._note(row, level, node, logits[int(seen)])
            for level in range(
                depth, 0, -1
            ):  # and beside it, deepest first: the cache only shrinks
                if not rows.observed[row, level - 1]:
                    continue
                above = rows.root[row] if level == 1 else rows.observed[row, level - 2]
                self._cut(int(above) + 1)
                parent = int(rows.centre[row]) // (1000 // len(self.slot.tables[level - 1]))
                on = int(rows.centre[row]) // (1000 // len(self.slot.tables[level]))
                self._branches(row, level, parent, wanted, depth, skip=on)
            if not rows.observed[row, 0] and depth:
                self._cut(int(rows.root[row]) + 1)
                self._branches(row, 1, 0, wanted, depth, skip=-1)
        self.branches_s = time.thread_time() - begun - self.reading_s
        return rows_from_logs([log[len(rows.root) - 1 :: -every] for log in self.logs])

    def _branches(
        self, row: int, level: int, parent: int, wanted: Any, depth: int, *, skip: int
    ) -> None:
        table = self.slot.tables[level - 1]
        for child in range(table.shape[1]):
            node = parent * table.shape[1] + child
            if node == skip or not wanted[level][row, node]:
                continue
            self._note(row, level, node, self._forward(table[parent, child : child + 1])[0])
            if level < depth:
                self._branches(row, level + 1, node, wanted, depth, skip=-1)
            self.cache.crop(-1)

    def _forward(self, tokens: np.ndarray) -> torch.Tensor:
        self.passes += 1
        with torch.inference_mode():
            out = self.model(
                input_ids=torch.as_tensor(tokens, device=self.device)[None],
                past_key_values=self.cache,
                use_cache=True,
            )
        return out.logits[0]

    def _note(self, row: int, level: int, node: int, logits: torch.Tensor) -> None:
        law = torch.log_softmax(logits.float(), dim=0)
        self.logs[level][row, node] = law[torch.as_tensor(self.slot.tables[level][node])].cpu()

    def _cut(self, length: int) -> None:
        self.cache.crop(length - self.cache.get_seq_length())


def compare(name: str, depth: int, refine: Any, n_states: int, vocabulary: int) -> dict[str, Any]:
    """Time both algorithms on one model, check that the rows agree, and return the figures."""
    lm = random_llama(name, vocabulary, "cpu", torch.float32)
    tm = token_map(lm, digits=3)
    states = np.random.default_rng(0).integers(150, 850, n_states)
    tokens, rows, made = what_is_read(lm, tm, states, depth, refine)
    found: list[tuple[np.ndarray, np.ndarray]] = []

    def packed() -> None:
        found.append(next_state_laws(states, model=lm, digits=3, refine=refine, depth=depth))

    packed()
    taken, rates = [], [matmul_rate("cpu", torch.float32)]
    for _ in range(5 if depth == 1 else 3):
        taken.append(seconds("cpu", packed))
        rates.append(matmul_rate("cpu", torch.float32))
    ours, rate = float(np.median(taken)), float(np.median(rates))
    in_products, in_attention = split(packed)
    peer = OneAtATime(lm, tm, tokens)
    every = EVERY if depth == 2 else 1
    wanted, off = peer.run(rows, depth, refine, every)
    np.testing.assert_allclose(found[0][0][::-1][::every], wanted, atol=1e-5)
    np.testing.assert_allclose(found[0][1][::-1][::every], off, atol=1e-5)
    theirs = peer.reading_s + peer.branches_s * len(made.forest) / (peer.passes - 1)
    products, attention = operations(lm, len(tokens), made)
    work = products + attention
    return {
        "model": name,
        "vocabulary": vocabulary,
        "depth": depth,
        "refine": refine,
        "n_states": n_states,
        "context_tokens": len(tokens),
        "branch_tokens": len(made.forest),
        "packed_s": ours,
        "one_at_a_time_s": theirs,
        "one_at_a_time_positions": len(wanted),
        "one_at_a_time_passes": peer.passes,
        "ratio": theirs / ours,
        "wanted_ratio": WANTED.get((depth, refine), 0)
        if depth == 1
        else WANTED.get((name, depth), 0),
        "gflops": work / ours / 1e9,
        "gemm_gflops": rate / 1e9,
        "gemm_share": work / ours / rate,
        "ratio_at_gemm_rate": theirs / (work / rate),
        "products_gflop": products / 1e9,
        "products_s": in_products,
        "attention_gflop": attention / 1e9,
        "attention_s": in_attention,
        "tokens_per_s": (len(tokens) + len(made.forest)) / ours,
    }


def on_gpu(name: str, device: str, dtype: torch.dtype, n_states: int, depth: int) -> dict[str, Any]:
    """Time a full reading of a series with a large random model."""
    lm = random_llama(name, LLAMA_2, device, dtype)
    tm = token_map(lm, digits=3)
    states = np.random.default_rng(0).integers(150, 850, n_states)
    tokens, _, made = what_is_read(lm, tm, states, depth, "all")
    rate = matmul_rate(device, dtype)
    next_state_laws(states[:50], model=lm, digits=3, depth=depth)  # warm up
    taken = seconds(
        device, lambda: next_state_laws(states, model=lm, digits=3, depth=depth), repeats=3
    )
    work = sum(operations(lm, len(tokens), made))
    stated = dtype == torch.bfloat16 and "H200" in torch.cuda.get_device_name()
    return {
        "model": name,
        "vocabulary": LLAMA_2,
        "dtype": str(dtype).removeprefix("torch."),
        "depth": depth,
        "refine": "all",
        "n_states": n_states,
        "context_tokens": len(tokens),
        "branch_tokens": len(made.forest),
        "packed_s": taken,
        "tokens_per_s": (len(tokens) + len(made.forest)) / taken,
        "tflops": work / taken / 1e12,
        "gemm_tflops": rate / 1e12,
        "gemm_share": work / taken / rate,
        "peak_share": work / taken / H200_PEAK if stated else None,
    }


def machine(device: str) -> dict[str, Any]:
    """Say where figures come from."""
    name = torch.cuda.get_device_name() if device == "cuda" else platform.processor()
    for line in Path("/proc/cpuinfo").read_text().splitlines() if device == "cpu" else []:
        if line.startswith("model name"):
            name = line.split(":")[1].strip()
            break
    return {
        "device": name,
        "threads": torch.get_num_threads(),
        "clock": "wall" if device == "cuda" else "CPU time of the thread",
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--states", type=int, help="length of the series (200, on a GPU 1000)")
    parser.add_argument("--models", default="AB", help="which of A and B, on a CPU")
    parser.add_argument(
        "--vocabulary", type=int, default=SMALL, help="of A and B: 512 or 32000, say"
    )
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    figures = []
    if options.device == "cuda":
        for dtype in (torch.bfloat16, torch.float32):
            for depth in (1, 2):
                figures.append(on_gpu("7B", "cuda", dtype, options.states or 1000, depth))
                print(
                    {k: round(v, 3) if isinstance(v, float) else v for k, v in figures[-1].items()}
                )
    else:
        torch.set_num_threads(1)
        print(
            "model depth refine      packed s  one at a time s  ratio (wanted, at GEMM rate)  "
            "share of GEMM rate  at which products / attention run"
        )
        for case in (c for c in CASES if c[0] in options.models):
            f = compare(*case, options.states or 200, options.vocabulary)
            figures.append(f)
            print(
                f"{f['model']:5} {f['depth']:5} {f['refine']:10} {f['packed_s']:9.2f} "
                f"{f['one_at_a_time_s']:16.2f} {f['ratio']:6.1f} ({f['wanted_ratio']}, "
                f"{f['ratio_at_gemm_rate']:.1f}) {f['gemm_share']:18.0%} of "
                f"{f['gemm_gflops']:.0f}   {f['products_gflop'] / f['products_s']:8.0f} / "
                f"{f['attention_gflop'] / f['attention_s']:.0f} GFLOP/s",
                flush=True,
            )
    results = json.loads(options.out.read_text()) if options.out.exists() else {}
    new = {(f["model"], f["vocabulary"]) for f in figures}
    old = results.get(options.device, {}).get("cases", [])
    kept = [f for f in old if (f["model"], f["vocabulary"]) not in new]
    results[options.device] = {"machine": machine(options.device), "cases": kept + figures}
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
