"""The shipped model: the weights that were evaluated, and answers that are laws."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from sgdmc.llm.model import load_model, shipped_folder
from sgdmc.llm.reader import next_state_laws
from sgdmc.pretrain.card import check_targets, weights_hash
from sgdmc.pretrain.evalsets import load_common
from sgdmc.pretrain.evaluate import fixed_laws, score_chains, score_series, summarise

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "shipped_model.json"


@pytest.fixture(scope="module")
def recorded():
    return json.loads(RESULTS.read_text())


@pytest.fixture(scope="module")
def series():
    return load_common(ROOT / "tests" / "data")[0].states[:120]


def test_the_card_and_the_results_speak_of_these_weights(recorded):
    digest = weights_hash(shipped_folder())
    assert recorded["weights_sha256"] == digest
    card = (shipped_folder() / "README.md").read_text()
    assert digest in card
    for title, column, figure, must, reach, verdict in check_targets(recorded):
        assert f"| {title} | {column} | {figure:.4f} | {must} | {reach} | {verdict} |" in card


def test_size_and_format():
    folder = shipped_folder()
    assert (folder / "model.safetensors").stat().st_size < 2_000_000
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert not {p.name for p in folder.iterdir()} & {"generation_config.json", "pytorch_model.bin"}


def test_laws_after_fixed_series_are_those_recorded(recorded):
    now = fixed_laws("shipped")
    for name, law in recorded["fixed"].items():
        assert np.allclose(now[name], law, atol=2e-4), name


def test_rows_are_laws_and_little_is_lost(series):
    rows, off = next_state_laws(series, digits=3)
    assert rows.shape == (120, 1000)
    assert np.allclose(rows.sum(axis=1), 1.0)
    assert rows.min() >= 0.0
    assert off.max() < 0.02
    rows, off = next_state_laws(np.arange(60) % 4, n_states=4)
    assert np.allclose(rows.sum(axis=1), 1.0)
    # Not told how many states there are, the model rightly expects new ones at first.
    assert off[20:].max() < 0.05


def test_relabelling_the_states_relabels_the_rows():
    rng = np.random.default_rng(0)
    gaps = []
    for _ in range(10):
        P = rng.dirichlet(np.ones(4), size=4)
        path = [0]
        for _ in range(299):
            path.append(int(rng.choice(4, p=P[path[-1]])))
        path, other = np.array(path), rng.permutation(4)
        rows, _ = next_state_laws(path, n_states=4)
        renamed, _ = next_state_laws(other[path], n_states=4)
        gaps.append(np.abs(renamed[100:][:, other] - rows[100:]).sum(axis=1).mean() / 2)
    # Total variation: nothing in the architecture makes labels alike, only the prior does.
    assert np.mean(gaps) < 0.05


def test_batched_equals_single_and_cached_equals_uncached(series):
    model = load_model("shipped").model
    tokens = torch.from_numpy(np.concatenate([[2011], series])).long()
    other = torch.from_numpy(np.concatenate([[2011], 999 - series])).long()
    with torch.no_grad():
        single = model(tokens[None]).logits[0]
        batched = model(torch.stack([other, tokens])).logits[1]
        first = model(tokens[None, :70], use_cache=True)
        second = model(tokens[None, 70:], past_key_values=first.past_key_values).logits[0]
    assert single.dtype == torch.float32
    assert torch.allclose(batched, single, atol=2e-4)
    assert torch.allclose(torch.cat((first.logits[0], second)), single, atol=2e-4)


@pytest.mark.slow
def test_quality_is_what_the_results_say(recorded):
    chains = summarise(score_chains("shipped", n_series=40, seed=77), seed=0)
    for length in ("30", "100", "300", "1000"):
        model, bayes = chains["model"][length]["mean"], chains["Bayes over α"][length]["mean"]
        title = "finite chains, KL of the present row (columns: symbols seen)"
        kept = recorded["tables"][title]
        excess = kept["model"][length]["mean"] - kept["Bayes over α"][length]["mean"]
        assert model - bayes < 2.0 * max(excess, 0.005)
    some = load_common(ROOT / "tests" / "data")[:8]
    scores = score_series("shipped", some, lengths=(100,))["common sgd"]["KL"]
    mine = np.mean(scores["model, mirrored"]["100"])
    assert mine < np.mean(scores["counts + 1"]["100"]) / 2
    title = "common sgd, KL (columns: states shown)"
    whole = recorded["tables"][title]["model, mirrored"]["100"]["mean"]
    assert mine < 2.0 * whole
