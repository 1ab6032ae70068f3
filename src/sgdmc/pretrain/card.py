"""Write the model card of a trained model from its training facts and its evaluation."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sgdmc.pretrain.evaluate import SQUEEZE, format_table

__all__ = ["check_targets", "weights_hash", "write_card"]


@dataclass(frozen=True)
class Target:
    """A figure to be reached: below ``must``; ``reach`` leads the field."""

    title: str
    column: str
    must: float
    reach: float


def _targets() -> Iterator[Target]:
    chains = "finite chains, KL of the present row (columns: symbols seen)"
    rows = (
        (chains, ("10", "30", "100", "300", "1000"), (0.31, 0.185, 0.088, 0.042, 0.030),
         (0.27, 0.155, 0.072, 0.031, 0.012)),
        ("common smooth, KL (columns: states shown)", ("30", "100", "200"),
         (0.06, 0.045, 0.035), (0.048, 0.033, 0.024)),
        ("common sgd, KL (columns: states shown)", ("30", "100", "200"),
         (0.40, 0.34, 0.33), (0.36, 0.26, 0.24)),
    )  # fmt: skip
    for title, columns, musts, reaches in rows:
        for column, must, reach in zip(columns, musts, reaches, strict=True):
            yield Target(title, column, must, reach)


#: Of the Bayes-optimal rows on the chains on which the targets were set.
_BAYES = {"10": 0.253, "30": 0.153, "100": 0.069, "300": 0.029, "1000": 0.0107}


def check_targets(result: dict[str, Any]) -> list[tuple[str, str, float, float, float, str]]:
    """Compare an evaluation with the project's targets.

    Parameters
    ----------
    result : dict
        Of :func:`sgdmc.pretrain.evaluate.evaluate`.

    Returns
    -------
    list of (table, column, figure, must, reach, verdict)
        The figure is that of the mirrored and squeezed reading where there is one; verdicts are
        ``"reached"`` (the farther target), ``"met"`` and ``"missed"``.
    """
    out = []
    for target in _targets():
        table = result["tables"].get(target.title)
        if table is None:
            continue
        row = table.get("model, mirrored and squeezed", table["model"])
        bayes = table.get("Bayes over α")
        figure = row[target.column]["mean"]
        verdict = "missed" if figure > target.must else "met"
        verdict = "reached" if figure <= target.reach else verdict
        title = target.title.split(" (")[0]
        out.append((title, target.column, figure, target.must, target.reach, verdict))
        if bayes is not None:
            # The targets were set on other chains, on which Bayes has the figures below.
            excess = figure - bayes[target.column]["mean"]
            must, reach = (
                round(goal - _BAYES[target.column], 4) for goal in (target.must, target.reach)
            )
            verdict = "missed" if excess > must else "met"
            verdict = "reached" if excess <= reach else verdict
            out.append(("finite chains, above Bayes", target.column, excess, must, reach, verdict))
    return out


def weights_hash(folder: str | Path) -> str:
    """Return the SHA-256 of a model folder's weights, in hexadecimal."""
    return hashlib.sha256((Path(folder) / "model.safetensors").read_bytes()).hexdigest()


def _start(facts: dict[str, Any] | None) -> str:
    """Say which weights a run went on from."""
    if not facts:
        return "random weights"
    earlier = f"{facts['steps']:,} steps, {facts['tokens']:,} tokens, {facts['seconds']:.0f} s"
    return f"weights `{facts['sha256'][:16]}…` ({earlier}, seed {facts['seed']})"


def _schedule(facts: dict[str, float]) -> str:
    """Say how step sizes fell."""
    peak = "" if facts["peak"] == 1.0 else f"at first {facts['peak']:g} of the full step sizes, "
    over = "the whole run" if facts["decay"] == 1.0 else f"the last {facts['decay']:.0%}"
    shrink = f"weight decay {facts['weight_decay']:g}" if facts["weight_decay"] else ""
    return f"{peak}linear decay over {over}; {shrink or 'no weight decay'}"


_HEAD = """\
---
license: mit
library_name: transformers
tags: [markov-chains, stochastic-gradient-descent, time-series, in-context-learning]
---

# The shipped model of sgdmc

A language model of digits: {parameters:,} parameters, Llama architecture ({n_layers} layers of
width {width}), vocabulary of 2013 tokens, context of {max_length}. It reads a series of states
(`"523,519,487,"`, joint states `"523:187,519:190,"`, or the labels of a finite chain `"0120"`; runs
are separated by newlines) and gives the law of the next state. It writes no text and knows nothing
of language.

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder)
```

Weights: `model.safetensors`, float16, SHA-256
`{digest}`.

## Data

No outside data. Every batch is simulated on the fly by `sgdmc.pretrain.prior`: finite chains of 2
to 10 states; smooth one-coordinate series (linear, double-well and random drift; Gaussian,
heavy-tailed, skewed, bounded and clustered noise); one coordinate or direction of finite-sample SGD
(least squares, logistic, absolute, log-cosh, Huber, Poisson, sine, double well, random waves; 2 to
200 samples, batches of 1 to 16, lags of 1 to 50, one or several runs); and interleaved coordinates
of SGD in 2 to 4 dimensions. Targets are the true rows, or several independent draws of the true
next state; a part of the loss asks for laws after states that the series never visited. The single
tanh neuron and phase retrieval are held out for the evaluation.

## Training

| | |
|---|---|
| command | `{command}` |
| commit | `{commit}` |
| device | {device}, {torch_threads} |
| training time | {seconds:.0f} s of wall clock (shared machine) |
| steps, tokens | {steps:,}, {tokens:,} |
| seed | {seed} |
| went on from | {start} |
| optimiser | Muon on matrices, AdamW elsewhere; {schedule} |

## Evaluation

Targets set beforehand, and what was reached (KL in nats, mean over series; "reached" is the
farther of two targets). Series are judged by the mean of two readings, of the series and of its
mirror image at {squeeze:g} of its size (`next_state_laws(…, mirror=True, squeeze={squeeze:g})`),
which pays where a series fills its grid, as in the common sets. Forecasts fit their grids and read
the mirror image as large as the series ("model, mirrored" below, at the same cost). The targets for
finite chains were set on other chains than those drawn here, so the excess over the Bayes-optimal
rows on the same chains is judged too:

| | column | figure | must | reach for | |
|---|---|---|---|---|---|
{targets}

Figures are means with 95% bootstrap intervals over series that training cannot have seen. All
tables, total variation, W₁ and CRPS among them, are in `benchmarks/results/shipped_model.json`;
they are made by `python -m sgdmc.pretrain.evaluate`.

{tables}
## Limits

* Numbers have three digits; a series has at most {max_length} tokens. Finite chains have at most
  ten states. Longer contexts and other formats were not trained.
* The model was trained for a short time on one processor; where the table says "missed", a
  classical estimator is the better choice, and `sgdmc` offers it.
* Rows far outside the visited range are guesses of the prior, not readings of the series.
"""


def write_card(folder: str | Path, result: dict[str, Any], *, command: str, commit: str) -> None:
    """Write ``README.md`` into a model's folder.

    Parameters
    ----------
    folder : path
        Holds ``model.safetensors``, ``config.json`` and ``training.json``.
    result : dict
        Of :func:`sgdmc.pretrain.evaluate.evaluate`.
    command, commit : str
        What made the weights.
    """
    from safetensors import safe_open

    folder = Path(folder)
    training = json.loads((folder / "training.json").read_text())
    with safe_open(folder / "model.safetensors", framework="np") as weights:
        parameters = sum(weights.get_tensor(name).size for name in weights.keys())  # noqa: SIM118
    lines = [
        f"| {title} | {column} | {figure:.4f} | {must} | {reach} | {verdict} |"
        for title, column, figure, must, reach, verdict in check_targets(result)
    ]
    text = _HEAD.format(
        parameters=parameters,
        n_layers=training["shape"]["n_layers"],
        width=training["shape"]["width"],
        max_length=training["shape"]["max_length"],
        digest=weights_hash(folder),
        command=command,
        commit=commit,
        device=training["device"],
        torch_threads=f"torch {training['torch']}",
        seconds=training["seconds"],
        steps=training["steps"],
        tokens=training["tokens"],
        seed=training["seed"],
        start=_start(training.get("start")),
        schedule=_schedule(training["schedule"]),
        targets="\n".join(lines),
        squeeze=SQUEEZE,
        tables=format_table(result, everything=False),
    )
    (folder / "README.md").write_text(text)
