"""Train the shipped model: ``sgdmc pretrain --out DIR``.

The run writes ``checkpoint.pt`` (atomically, so that it can be killed at any moment and resumed),
``log.jsonl`` and, at the end, a folder in the Hub's format. Its schedule follows the share of the
budget that is spent: small batches first, then larger ones and longer contexts, a constant step
size, and a linear decay over the last 40%.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sgdmc.llm.model import usable_device
from sgdmc.pretrain.network import DigitNetwork, Shape, read_shape
from sgdmc.pretrain.optimiser import Optimiser
from sgdmc.pretrain.prior import Batch, Mixture, draw_batch
from sgdmc.pretrain.tokenizer import write_tokenizer

__all__ = ["Plan", "export", "export_checkpoint", "pretrain"]

DECAY = 0.4
# Step sizes after `start`, beside those of a run from scratch; they fall to zero from the first
# step, without weight decay: with it matrices shrank by 15%, and attention that counts lost its
# edge.
GENTLE = 0.2
WEIGHT_DECAY = 0.02
QUERY_WEIGHT = 3.0


@dataclass(frozen=True)
class Plan:
    """What one part of a step draws."""

    n: int
    length: int
    mixture: Mixture


def plan_step(
    seed: int, step: int, progress: float, *, batch_tokens: int, longest: int = 2048
) -> list[Plan]:
    """Return the sizes of the parts of the batch of one step; their gradients are averaged.

    Parameters
    ----------
    seed, step : int
    progress : float
        Share of the budget spent, in [0, 1).
    batch_tokens : int
        Tokens a batch in the end; a quarter of it at first, then half.
    longest : int, default 2048
        Largest length of a sequence.

    Returns
    -------
    list of Plan
        One part; two, each of half the batch, after 45% of the budget.
    """
    early = Mixture(chain=0.40, smooth=0.18, descent=0.30, joint=0.12)
    if progress < 0.02:
        length = min(128, batch_tokens // 4, longest)
        return [Plan(batch_tokens // 4 // length, length, early)]
    tokens = batch_tokens // 2
    parts = []
    for part in range(1 if progress < 0.45 else 2):
        u = float(np.random.default_rng([seed, step, part]).random())
        length = 256 if u < 0.54 else (512 if u < 0.76 else (1024 if u < 0.92 else 2048))
        if progress < 0.25:
            length = 256 if progress < 0.08 or u < 0.7 else 512
        length = min(length, tokens, longest)
        mixture = early if progress < 0.15 else Mixture()
        if length >= 1024:
            mixture = Mixture(chain=0.55, smooth=0.13, descent=0.20, joint=0.12)
        parts.append(Plan(tokens // length, length, mixture))
    return parts


def step_factor(progress: float, step: int, *, gentle: bool = False) -> float:
    """Return the factor of the step sizes: warm-up over 50 steps, constant, linear decay.

    Where training goes on from a model (``gentle``) it is smaller, and decays from the first step.
    """
    left = max(1.0 - progress, 0.0)
    return min(1.0, (step + 1) / 50) * (GENTLE * left if gentle else min(1.0, left / DECAY))


def schedule_facts(*, gentle: bool) -> dict[str, float]:
    """Return what the model card says of the schedule of :func:`step_factor`.

    Parameters
    ----------
    gentle : bool
        Whether training goes on from a model.

    Returns
    -------
    dict
        ``peak`` of the factor, the share of the budget at the end over which it falls linearly
        (``decay``), and the ``weight_decay`` of the matrices in units of their step size.
    """
    if gentle:
        return {"peak": GENTLE, "decay": 1.0, "weight_decay": 0.0}
    return {"peak": 1.0, "decay": DECAY, "weight_decay": WEIGHT_DECAY}


def batch_loss(
    network: Any, losses: Any, batch: Batch, *, device: str, half: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the mean loss of a batch and the losses of its positions and of its queries.

    Parameters
    ----------
    network, losses : callable
        ``DigitNetwork.forward`` and ``DigitNetwork.losses``, perhaps compiled.
    batch : Batch
    device : str
    half : bool
        Compute in bfloat16, but for the logits.

    Returns
    -------
    mean : Tensor ()
    dense : Tensor (n, length)
    query : Tensor (n, n_query)
    """

    def put(array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(device)

    n, length = batch.tokens.shape
    n_query = batch.q_tokens.shape[1]
    prefix, order = put(batch.q_prefix), put(batch.q_step)
    mask = torch.zeros((n, 1, n_query, length + n_query), dtype=torch.bool, device=device)
    mask[:, 0, :, :length] = torch.arange(length, device=device) < prefix[:, :, None]
    index = torch.arange(n_query, device=device)
    back = index[:, None] - index
    mask[:, 0, :, length:] = (back >= 0) & (back <= order[:, :, None])
    targets = torch.cat((put(batch.targets), put(batch.q_targets)), dim=1)
    weights = torch.cat((put(batch.weights), put(batch.q_weights)), dim=1)
    with torch.autocast(device.split(":")[0], torch.bfloat16, enabled=half):
        hidden = network(
            put(batch.tokens),
            query_tokens=put(batch.q_tokens),
            query_positions=prefix + order,
            query_mask=mask,
        )
    # Logits may carry a common shift of a hundred, where bfloat16 resolves half a nat: their
    # gradients are then wrong, and the shift grows.
    with torch.autocast(device.split(":")[0], enabled=False):
        flat = hidden.float().reshape(-1, hidden.shape[-1])
        each = losses(flat, targets.flatten(0, 1), weights.flatten(0, 1))
    each = each.view(n, length + n_query)
    dense, query = each[:, :length], each[:, length:]
    w, qw = put(batch.loss), QUERY_WEIGHT * put(batch.q_loss)
    mean = ((w * dense).sum() + (qw * query).sum()) / (w.sum() + qw.sum())
    return mean, dense.detach(), query.detach()


class _Log:
    """Running means of the excess loss of each family, one JSON line now and then."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sums = np.zeros((4, 4))

    def add(self, batch: Batch, dense: Tensor, query: Tensor) -> None:
        parts = ((batch.weights, batch.loss, dense), (batch.q_weights, batch.q_loss, query))
        for column, (weights, use, losses) in enumerate(parts):
            entropy = -(weights * np.log(np.maximum(weights, 1e-30))).sum(-1)
            excess = losses.cpu().numpy() - np.where(batch.family[:, None] == 0, entropy, 0.0)
            for family in range(4):
                rows = batch.family == family
                self.sums[family, 2 * column] += (excess[rows] * use[rows]).sum()
                self.sums[family, 2 * column + 1] += use[rows].sum()

    def write(self, **facts: Any) -> None:
        for family, name in enumerate(("chain", "smooth", "descent", "joint")):
            for column, kind in enumerate(("", "_query")):
                total, count = self.sums[family, 2 * column : 2 * column + 2]
                facts[name + kind] = round(total / max(count, 1.0), 5)
        self.sums[:] = 0.0
        with self.path.open("a") as file:
            file.write(json.dumps(facts) + "\n")


def _save(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint so that at every moment a whole one is on disk."""
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def export(network: DigitNetwork, folder: str | Path) -> None:
    """Write a network as a folder in the Hub's format, weights in float16.

    Parameters
    ----------
    network : DigitNetwork
    folder : path
        Created if it does not exist.
    """
    from safetensors.torch import save_file
    from transformers import LlamaConfig

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = LlamaConfig(**network.shape.llama_config())
    config.architectures = ["LlamaForCausalLM"]
    config.dtype = "float16"
    (folder / "config.json").write_text(config.to_json_string(use_diff=True))
    state = {name: value.to(torch.float16) for name, value in network.llama_state().items()}
    partial = folder / "model.safetensors.partial"
    save_file(state, partial, metadata={"format": "pt"})
    partial.chmod(0o644)
    os.replace(partial, folder / "model.safetensors")
    write_tokenizer(folder, max_length=network.shape.max_length)


def export_checkpoint(out: str | Path, folder: str | Path) -> None:
    """Export the running average of the weights in an unfinished run's checkpoint.

    Parameters
    ----------
    out : path
        The run's folder.
    folder : path
        Where the model goes.
    """
    state = torch.load(Path(out) / "checkpoint.pt", weights_only=True)
    network = DigitNetwork(Shape(**state["shape"]))
    network.load_state_dict(state["average"])
    export(network, folder)


def pretrain(
    out: str | Path,
    *,
    minutes: float | None = 85.0,
    n_steps: int | None = None,
    device: str | None = None,
    resume: bool = False,
    start: str | Path | None = None,
    seed: int = 0,
    shape: Shape | None = None,
    batch_tokens: int = 8192,
    half: bool | None = None,
    compiled: bool | None = None,
    checkpoint_every: float = 60.0,
    log_every: int = 50,
) -> Path:
    """Train a model of digits on the prior of :mod:`sgdmc.pretrain.prior`.

    Parameters
    ----------
    out : path
        Folder of the checkpoint, the log and, at the end, the model (``out/model``).
    minutes : float, optional
        Budget of training time, kept across resumptions; the schedule follows the clock.
    n_steps : int, optional
        Budget in steps, instead: then the result on CPU is a function of the seed.
    device : str, optional
        ``"cpu"`` or ``"cuda"``; by default the latter where there is one.
    resume : bool
        Go on from ``out/checkpoint.pt`` if there is one.
    start : path, optional
        Folder of a model that an earlier run of this function made; training goes on from its
        weights, with the batches and lengths of the later part of the schedule, smaller step
        sizes, which decay from the first step, and no weight decay.
    seed : int
    shape : Shape, optional
        Sizes of the network; those of ``start`` where that is given.
    batch_tokens : int, default 8192
        Tokens a batch.
    half : bool, optional
        Matrix products in bfloat16, but for logits and contexts above 512 tokens; by default on
        GPU, and on CPU when ``compiled``.
    compiled : bool, optional
        Compile the network with ``torch.compile`` (about 40% faster after a minute or two); by
        default where there is a C++ compiler and the budget is ten minutes or more.
    checkpoint_every : float, default 60
        Seconds between checkpoints.
    log_every : int, default 50
        Steps between lines of the log.

    Returns
    -------
    Path
        The model's folder.

    Raises
    ------
    ValueError
        If not exactly one of ``minutes`` and ``n_steps`` is positive, or there is no such device.
    """
    budgets = [b for b in (minutes if n_steps is None else None, n_steps) if b is not None]
    if len(budgets) != 1 or not budgets[0] > 0:
        raise ValueError(
            "minutes and n_steps must hold one positive budget; "
            f"got minutes={minutes} and n_steps={n_steps}. Name one of the two."
        )
    out = Path(out)
    shape = read_shape(start) if start is not None else shape or Shape()
    device = usable_device(device)
    out.mkdir(parents=True, exist_ok=True)
    if compiled is None:
        compiled = n_steps is None and budgets[0] >= 10 and bool(shutil.which("g++"))
    half = (compiled or device != "cpu") if half is None else half
    network = DigitNetwork(shape, seed=seed)
    if start is not None:
        network.load_folder(start)
    network = network.to(device)
    schedule = schedule_facts(gentle=start is not None)
    optimiser = Optimiser(network, half=half, decay=schedule["weight_decay"])
    average = {name: value.clone() for name, value in network.state_dict().items()}
    step, seconds, n_tokens = 0, 0.0, 0
    checkpoint = out / "checkpoint.pt"
    if resume and checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        network.load_state_dict(state["network"])
        optimiser.load_state_dict(state["optimiser"])
        average = state["average"]
        step, seconds, n_tokens = state["step"], state["seconds"], state["tokens"]
    else:
        (out / "log.jsonl").write_text("")
    fast = torch.compile(network.forward, dynamic=False) if compiled else network.forward
    fast_losses = torch.compile(network.losses, dynamic=False) if compiled else network.losses
    log = _Log(out / "log.jsonl")
    mark = saved = time.monotonic()
    while True:
        progress = step / n_steps if n_steps else seconds / (60.0 * (minutes or 1.0))
        if progress >= 1.0:
            break
        plans = plan_step(
            seed,
            step,
            progress if start is None else max(progress, 0.45),
            batch_tokens=batch_tokens,
            longest=shape.max_length,
        )
        for part, plan in enumerate(plans):
            batch = draw_batch(
                seed, 2 * step + part, n=plan.n, length=plan.length, mixture=plan.mixture
            )
            # Compiling takes a minute a shape: the rare long ones are not worth it.
            short = plan.length <= 512
            steady = compiled and len(plans) == 2 and short
            mean, dense, query = batch_loss(
                fast if steady else network.forward,
                fast_losses if steady else network.losses,
                batch,
                device=device,
                # Heads that count over long contexts need more digits than bfloat16 has.
                half=half and short,
            )
            torch.autograd.backward(mean / len(plans))
            log.add(batch, dense, query)
            n_tokens += plan.n * plan.length
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step(step_factor(progress, step, gentle=start is not None))
        network.zero_grad(set_to_none=True)
        keep = min(0.997, 1.0 - 1.0 / (step + 2))
        with torch.no_grad():
            for name, value in network.state_dict().items():
                average[name].lerp_(value, 1.0 - keep)
        step += 1
        now = time.monotonic()
        seconds += now - mark
        mark = now
        if step % log_every == 0:
            log.write(
                step=step,
                tokens=n_tokens,
                seconds=round(seconds, 1),
                progress=round(progress, 4),
                loss=round(float(mean.detach()), 4),
            )
            if not math.isfinite(float(mean.detach())):
                raise FloatingPointError(f"the loss must be finite; got it wrong at step {step}.")
        if now - saved >= checkpoint_every:
            saved = now
            _save(checkpoint, _state(network, optimiser, average, step, seconds, n_tokens, shape))
    _save(checkpoint, _state(network, optimiser, average, step, seconds, n_tokens, shape))
    export(network, out / "model")
    facts = {
        "seed": seed,
        "start": None if start is None else _describe_start(start),
        "minutes": minutes if n_steps is None else None,
        "n_steps": n_steps,
        "device": device,
        "compiled": compiled,
        "half": half,
        "batch_tokens": batch_tokens,
        "schedule": schedule,
        "shape": asdict(shape),
        "steps": step,
        "tokens": n_tokens,
        "seconds": round(seconds, 1),
        "torch": torch.__version__,
    }
    (out / "model" / "training.json").write_text(json.dumps(facts, indent=2) + "\n")
    return out / "model"


def _describe_start(folder: str | Path) -> dict[str, Any]:
    """Return the hash of the weights a run went on from, and how those came about."""
    folder = Path(folder)
    facts: dict[str, Any] = {}
    if (folder / "training.json").exists():
        facts = json.loads((folder / "training.json").read_text())
    weights = (folder / "model.safetensors").read_bytes()
    return facts | {"sha256": hashlib.sha256(weights).hexdigest()}


def _state(
    network: DigitNetwork,
    optimiser: Optimiser,
    average: dict[str, Tensor],
    step: int,
    seconds: float,
    n_tokens: int,
    shape: Shape,
) -> dict[str, Any]:
    return {
        "network": network.state_dict(),
        "optimiser": optimiser.state_dict(),
        "average": average,
        "step": step,
        "seconds": seconds,
        "tokens": n_tokens,
        "shape": shape.as_dict(),
    }
