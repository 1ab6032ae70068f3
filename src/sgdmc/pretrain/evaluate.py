"""Evaluate how well a model reads kernels: ``python -m sgdmc.pretrain.evaluate MODEL``.

Any model will do: the shipped one, a folder, or a Hub id. Each row of the table is a mean over
series with a bootstrap interval of 95%, beside classical estimators on the same series.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from sgdmc.chain.distances import bhattacharyya, kl_divergence
from sgdmc.chain.smoothing import ar1_kde_kernel, ar1_kernel, kernel_smoothed_kernel
from sgdmc.pretrain.evaljoint import JOINT_FAMILIES, fresh_joint, score_joint
from sgdmc.pretrain.evalsets import (
    FAMILIES,
    HELD_OUT,
    N_BINS,
    Series,
    fresh_chain,
    fresh_series,
    load_common,
    uniform_chain,
)

__all__ = [
    "evaluate",
    "fixed_laws",
    "format_table",
    "main",
    "score_chains",
    "score_recorded",
    "score_series",
]

Array = NDArray[np.float64]
Cells = dict[str, dict[str, list[float]]]

CHAIN_LENGTHS = (10, 30, 100, 300, 1000)
RECORDED_BINS = ((1, 9), (10, 31), (32, 99), (100, 315), (316, 999), (1000, 1500))
#: LLaMA-2-13b's mean Bhattacharyya distance on four-state chains, recorded by Liu et al. (2024).
RECORDED_LLAMA = (0.0862, 0.0753, 0.0330, 0.0208, 0.0134, 0.0111)
OFFSETS = np.array([1, 3, 5, 7, 9])
#: Size of the squeezed mirror image: the best on fresh series that fill their grids.
SQUEEZE = 0.6


def score_chains(model: Any, *, n_series: int, seed: int) -> Cells:
    """Score the present state's row of fresh finite chains.

    Parameters
    ----------
    model : str or LanguageModel
    n_series : int
    seed : int

    Returns
    -------
    dict of estimator to dict of length to list of float
        ``KL(true row ‖ estimate)`` in nats of each chain, after so many symbols.
    """
    from sgdmc.llm.reader import next_state_laws

    rng = np.random.default_rng([seed, 1])
    cells: Cells = {}
    for _ in range(n_series):
        P, path = fresh_chain(rng, max(CHAIN_LENGTHS))
        n = len(P)
        rows, _ = next_state_laws(path, model=model, n_states=n)
        for length in CHAIN_LENGTHS:
            counts = np.zeros((n, n))
            np.add.at(counts, (path[: length - 1], path[1:length]), 1.0)
            state = path[length - 1]
            seen = counts[state]
            estimates = {
                "model": rows[length - 1],
                "Bayes over α": _bayes_row(counts, state),
                "counts + ½": (seen + 0.5) / (seen.sum() + n / 2),
                "counts + 1": (seen + 1.0) / (seen.sum() + n),
                "counts": seen / seen.sum() if seen.sum() else np.full(n, 1.0 / n),
            }
            for name, q in estimates.items():
                if name == "counts":
                    q = 0.999 * q + 0.001 / n
                loss = float(kl_divergence(P[state], q / q.sum()))
                cells.setdefault(name, {}).setdefault(str(length), []).append(loss)
    return cells


def _bayes_row(counts: Array, state: int) -> Array:
    """Return the posterior mean of a row with α log-uniform in [.05, 3] and the states known."""
    n = len(counts)
    alpha = np.exp(np.linspace(np.log(0.05), np.log(3.0), 40))[:, None, None]
    inner = (gammaln(counts + alpha) - gammaln(alpha)).sum(axis=(1, 2))
    total = n * alpha[:, 0]
    outer = (gammaln(total) - gammaln(counts.sum(axis=1) + total)).sum(axis=1)
    evidence = inner + outer
    weight = np.exp(evidence - evidence.max())
    weight /= weight.sum()
    rows = counts[state] + alpha[:, 0]
    rows = rows / rows.sum(axis=1, keepdims=True)
    return np.asarray(weight @ rows)


def score_recorded(model: Any, *, n_series: int = 10) -> Cells:
    """Score four-state chains regenerated from published seeds, beside LLaMA-2-13b as recorded.

    Parameters
    ----------
    model : str or LanguageModel
    n_series : int, default 10
        Seeds 1 to ``n_series``.

    Returns
    -------
    dict of estimator to dict of bin to list of float
        Mean Bhattacharyya distance in nats of each chain, over the positions in the bin of
        symbols seen.
    """
    from sgdmc.llm.reader import next_state_laws

    cells: Cells = {}
    for seed in range(1, n_series + 1):
        P, path = uniform_chain(seed, 4, 1500)
        rows, _ = next_state_laws(path, model=model, n_states=4)
        before = np.zeros((1500, 4))
        counts = np.zeros((4, 4))
        for t in range(1500):
            if t:
                counts[path[t - 1], path[t]] += 1.0
            before[t] = counts[path[t]]
        visits = before.sum(axis=1, keepdims=True)
        estimates = {
            "model": rows,
            "counts + ½": (before + 0.5) / (visits + 2.0),
            "counts + 1": (before + 1.0) / (visits + 4.0),
        }
        for name, q in estimates.items():
            distance = bhattacharyya(P[path], q / q.sum(axis=1, keepdims=True))
            for low, high in RECORDED_BINS:
                mean = float(distance[low - 1 : high].mean())
                cells.setdefault(name, {}).setdefault(f"{low}–{high}", []).append(mean)
    for (low, high), value in zip(RECORDED_BINS, RECORDED_LLAMA, strict=True):
        cells.setdefault("LLaMA-2-13b, recorded", {})[f"{low}–{high}"] = [value]
    return cells


def model_kernel(model: Any, states: NDArray[np.int64], **options: Any) -> Array:
    """Read all 100 rows off a model: each bin probed at five states, pooled by tens.

    Parameters
    ----------
    model : str or LanguageModel
    states : ndarray (T,) of int
        On 1000 bins.
    **options
        Of :func:`sgdmc.next_state_laws`.

    Returns
    -------
    ndarray (100, 100)
    """
    from sgdmc.llm.reader import next_state_laws

    probe = (np.arange(N_BINS)[:, None] * 10 + OFFSETS).ravel()
    rows, _ = next_state_laws(states, model=model, digits=3, probe=probe, **options)
    rows = rows.reshape(N_BINS, len(OFFSETS), N_BINS, 10).sum(axis=3).mean(axis=1)
    return np.asarray(rows / rows.sum(axis=1, keepdims=True))


def laplace_kernel(states: NDArray[np.int64], *, n_states: int) -> Array:
    """Return rows of counts plus one."""
    counts = np.ones((n_states, n_states))
    np.add.at(counts, (states[:-1], states[1:]), 1.0)
    return np.asarray(counts / counts.sum(axis=1, keepdims=True))


def score_series(
    model: Any,
    series: Sequence[Series],
    *,
    lengths: Sequence[int],
    cache: str | Path | None = None,
) -> dict[str, dict[str, Cells]]:
    """Score all rows of one-coordinate series on 100 bins.

    Parameters
    ----------
    model : str or LanguageModel
    series : sequence of Series
    lengths : sequence of int
        How many states are shown.
    cache : path, optional
        Folder in which the classical estimators' kernels are kept for the next model.

    Returns
    -------
    dict of group to dict of measure to cells
        Measures ``KL``, ``TV``, ``W1`` and ``CRPS`` (excess) of visited rows weighted by visits,
        ``KL inside`` and ``KL outside`` of unvisited rows. Cells as in :func:`score_chains`.
    """
    from joblib import Memory

    keep: Callable[[Any], Any] = Memory(cache, verbose=0).cache
    classical: dict[str, Callable[..., Array]] = {
        "AR + residual KDE": keep(ar1_kde_kernel),
        "AR(1)": ar1_kernel,
        "kernel smoothing": keep(kernel_smoothed_kernel),
        "counts + 1": laplace_kernel,
    }
    result: dict[str, dict[str, Cells]] = {}
    for one in series:
        groups = _groups(one.family)
        for length in lengths:
            if length > len(one.states):
                continue
            shown = one.states[:length]
            visits = np.bincount(shown[:-1] // 10, minlength=N_BINS) / (length - 1)
            where = np.flatnonzero(visits)
            bins = np.arange(N_BINS)
            between = (bins > where[0]) & (bins < where[-1])
            inside = (visits == 0) & between
            outside = (visits == 0) & ~between
            kernels = {
                "model": model_kernel(model, shown),
                "model, mirrored": model_kernel(model, shown, mirror=True),
                "model, mirrored and squeezed": model_kernel(
                    model, shown, mirror=True, squeeze=SQUEEZE
                ),
            }
            for name, estimate in classical.items():
                kernels[name] = estimate(shown // 10, n_states=N_BINS)
            for name, rows in kernels.items():
                kl = kl_divergence(one.truth, rows)
                gap = np.cumsum(one.truth - rows, axis=1)
                measures = {
                    "KL": float(visits @ kl),
                    "TV": float(visits @ np.abs(one.truth - rows).sum(axis=1)) / 2,
                    "W1": float(visits @ np.abs(gap).sum(axis=1)) / N_BINS,
                    "CRPS": float(visits @ (gap**2).sum(axis=1)) / N_BINS,
                }
                if inside.any():
                    measures["KL inside"] = float(kl[inside].mean())
                if outside.any():
                    measures["KL outside"] = float(kl[outside].mean())
                for group in groups:
                    for measure, value in measures.items():
                        cells = result.setdefault(group, {}).setdefault(measure, {})
                        cells.setdefault(name, {}).setdefault(str(length), []).append(value)
    return result


def _groups(family: str) -> list[str]:
    if "/" in family:
        return ["common " + family.split("/")[0]]
    if family in HELD_OUT:
        return ["fresh held-out families"]
    return ["fresh smooth"] if family in FAMILIES[:2] else ["fresh SGD, families of the prior"]


def summarise(cells: Cells, *, seed: int) -> dict[str, dict[str, dict[str, float]]]:
    """Replace each list of values by its mean and a 95% bootstrap interval over series."""
    rng = np.random.default_rng([seed, 9])
    out: dict[str, dict[str, dict[str, float]]] = {}
    for name, row in cells.items():
        for column, values in row.items():
            x = np.array(values)
            means = x[rng.integers(len(x), size=(1000, len(x)))].mean(axis=1)
            low, high = np.quantile(means, [0.025, 0.975])
            out.setdefault(name, {})[column] = {
                "mean": float(f"{x.mean():.5g}"),
                "low": float(f"{low:.5g}"),
                "high": float(f"{high:.5g}"),
                "n": len(x),
            }
    return out


def fixed_laws(model: Any) -> dict[str, list[float]]:
    """Return laws of the next state after fixed series, to notice when a model's answers change.

    Parameters
    ----------
    model : str or LanguageModel

    Returns
    -------
    dict of name to list of float
        ``numbers``: mass of each ten of the thousand states after 60 numbers on a damped wave;
        ``labels``: the law after ``"0120120…"``, 40 symbols of three states.
    """
    from sgdmc.llm.reader import next_state_laws

    t = np.arange(60)
    wave = (500 + 300 * np.exp(-t / 30) * np.cos(t / 4)).astype(np.int64)
    numbers, _ = next_state_laws(wave, model=model, digits=3)
    labels, _ = next_state_laws(np.arange(40) % 3, model=model, n_states=3)
    tens = numbers[-1].reshape(100, 10).sum(axis=1)
    return {
        "numbers": [float(f"{p:.6g}") for p in tens],
        "labels": [float(f"{p:.6g}") for p in labels[-1]],
    }


def evaluate(
    model: Any = "shipped",
    *,
    n_chains: int = 200,
    n_series: int = 100,
    common: str | Path | None = "tests/data",
    cache: str | Path | None = None,
    seed: int = 2026,
) -> dict[str, Any]:
    """Evaluate a model on fresh chains and series and on the common sets.

    Parameters
    ----------
    model : str or LanguageModel, default "shipped"
    n_chains : int, default 200
        Fresh finite chains.
    n_series : int, default 100
        Fresh series of each of the six families, and of each of the four of two coordinates.
    common : path, optional
        Folder of the common sets; left out where there is none.
    cache : path, optional
        See :func:`score_series`.
    seed : int

    Returns
    -------
    dict
        ``tables``: title to estimator to column to ``mean``, ``low``, ``high`` and ``n``;
        ``fixed``: see :func:`fixed_laws`.
    """
    from sgdmc.llm.model import load_model

    model = load_model(model) if isinstance(model, (str, Path)) else model
    tables: dict[str, Any] = {}
    title = "finite chains, KL of the present row (columns: symbols seen)"
    tables[title] = summarise(score_chains(model, n_series=n_chains, seed=seed), seed=seed)
    title = "four states, regenerated seeds, Bhattacharyya distance (columns: symbols seen)"
    tables[title] = summarise(score_recorded(model), seed=seed)
    rng = np.random.default_rng([seed, 2])
    series = [fresh_series(rng, family, 501) for family in FAMILIES for _ in range(n_series)]
    lengths = (30, 100, 200)
    scores = score_series(model, series, lengths=lengths, cache=cache)
    held_out = [one for one in series if one.family in HELD_OUT]
    for group, measures in score_series(model, held_out, lengths=(500,), cache=cache).items():
        for measure, cells in measures.items():
            for name, row in cells.items():
                scores[group][measure][name] |= row
    if common is not None and Path(common, "real_sgd_24.npz").exists():
        scores |= score_series(model, load_common(common), lengths=lengths, cache=cache)
    for group, measures in scores.items():
        for measure, cells in measures.items():
            title = f"{group}, {measure} (columns: states shown)"
            tables[title] = summarise(cells, seed=seed)
    rng = np.random.default_rng([seed, 3])
    pairs = [fresh_joint(rng, family, 201) for family in JOINT_FAMILIES for _ in range(n_series)]
    for group, cells in score_joint(model, pairs, lengths=lengths).items():
        title = f"{group}, −log likelihood of the next state (columns: states shown)"
        tables[title] = summarise(cells, seed=seed)
    fixed = fixed_laws(model)
    return {"model": str(model.name), "seed": seed, "fixed": fixed, "tables": tables}


def format_table(result: dict[str, Any], *, everything: bool = True) -> str:
    """Return the tables of :func:`evaluate` as Markdown.

    Parameters
    ----------
    result : dict
    everything : bool, default True
        Also the tables of total variation, W₁ and CRPS.

    Returns
    -------
    str
    """
    lines = []
    for title, rows in result["tables"].items():
        if not everything and any(word in title for word in (", TV", ", W1", ", CRPS")):
            continue
        columns = list(rows["model"])
        lines += [f"**{title}**", "", "| | " + " | ".join(columns) + " |"]
        lines.append("|---" * (len(columns) + 1) + "|")
        for name, row in rows.items():
            entries = []
            for column in columns:
                cell = row[column]
                entry = f"{cell['mean']:.4f}"
                if cell["n"] > 1:
                    entry += f" [{cell['low']:.4f}, {cell['high']:.4f}]"
                entries.append(entry)
            lines.append(f"| {name} | " + " | ".join(entries) + " |")
        lines.append("")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the evaluation from the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments; by default those of the process.

    Returns
    -------
    int
        0.
    """
    parser = argparse.ArgumentParser(
        prog="python -m sgdmc.pretrain.evaluate",
        description="Evaluate a model on fresh chains and series and on the common sets.",
    )
    parser.add_argument("model", nargs="?", default="shipped", help="shipped, a folder or a Hub id")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--chains", type=int, default=200, help="fresh chains (default 200)")
    parser.add_argument(
        "--series", type=int, default=100, help="fresh series a family (default 100)"
    )
    parser.add_argument("--common", type=Path, default=Path("tests/data"), help="common sets")
    parser.add_argument("--cache", type=Path, help="folder to keep the classical kernels in")
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--card", type=Path, help="model folder to write the card and hash of")
    parser.add_argument("--command", default="", help="what trained the model, for the card")
    parser.add_argument("--commit", default="", help="commit that trained the model, for the card")
    parser.add_argument("--all", action="store_true", help="print TV, W1 and CRPS too")
    options = parser.parse_args(argv)
    result = evaluate(
        options.model,
        n_chains=options.chains,
        n_series=options.series,
        common=options.common,
        cache=options.cache,
        seed=options.seed,
    )
    if options.card is not None:
        from sgdmc.pretrain.card import weights_hash, write_card

        result["weights_sha256"] = weights_hash(options.card)
        write_card(options.card, result, command=options.command, commit=options.commit)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    print(format_table(result, everything=options.all))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
