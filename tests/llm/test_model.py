"""Loading: shipped, folder, Hub id, and what is refused."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from sgdmc.llm import model as module
from sgdmc.llm.model import LanguageModel, load_model
from sgdmc.llm.reader import next_state_laws


@pytest.fixture(scope="module")
def folder(family, tmp_path_factory):
    """A folder with a model in safetensors and its tokenizer, 16-bit on disk."""
    where = tmp_path_factory.mktemp("model")
    lm = family("llama2")
    saved = transformers.LlamaForCausalLM(lm.model.config)
    saved.load_state_dict(lm.model.state_dict())
    saved.half().save_pretrained(where)
    lm.tokenizer.save_pretrained(where)
    return where


def test_a_folder_is_loaded_in_single_precision_and_kept(folder, family):
    lm = load_model(folder)
    assert (lm.device, lm.dtype, lm.max_context, lm.packed) == ("cpu", "float32", 512, True)
    assert not lm.model.training
    assert load_model(str(folder)) is lm
    assert load_model(folder, dtype="bfloat16") is not lm
    assert load_model(lm) is lm
    states = np.arange(20)
    here, there = (next_state_laws(states, model=m, digits=2)[0] for m in (lm, family("llama2")))
    np.testing.assert_allclose(here, there, atol=0.05)  # weights went through 16 bits


def test_a_model_written_anew_is_loaded_anew(folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    lm = load_model(copy)
    lm.model.save_pretrained(copy)
    assert load_model(copy) is not lm


def test_only_the_last_few_models_are_kept(folder, tmp_path):
    first = load_model(folder, local_files_only=True)
    for number in range(module._CACHE_SIZE):
        copy = tmp_path / str(number)
        shutil.copytree(folder, copy)
        load_model(copy)
    assert load_model(folder, local_files_only=True) is not first


def test_description(folder):
    text = load_model(folder).describe()
    assert str(folder) in text
    assert "LlamaForCausalLM, 16.8k parameters" in text
    assert text.endswith("float32 on cpu, context 512 tokens")


def test_bfloat16_rows_are_near_single_precision(folder):
    states = np.arange(30, 50)
    rough = next_state_laws(states, model=load_model(folder, dtype="bfloat16"), digits=2)[0]
    exact = next_state_laws(states, model=load_model(folder), digits=2)[0]
    assert np.abs(rough - exact).sum(axis=1).mean() < 0.2
    np.testing.assert_allclose(rough.sum(axis=1), 1)


def test_the_shipped_model_reads_three_digits_and_labels():
    lm = load_model("shipped")
    assert lm.packed
    assert lm.supports(3)
    assert load_model() is lm
    rows, off = next_state_laws(np.arange(500, 520), digits=3)
    assert rows.shape == (20, 1000)
    assert off.max() < 0.2
    rows, off = next_state_laws([0, 1, 0, 1, 0, 1, 0, 1, 0, 1], n_states=2)
    assert rows[-1].argmax() == 0  # it has seen the alternation


def test_a_folder_without_safetensors(folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    weights = load_model(folder).model.state_dict()
    (copy / "model.safetensors").unlink()
    torch.save(weights, copy / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"a folder with \*\.safetensors weights; got .*copy"):
        load_model(copy)


def test_a_folder_without_a_tokenizer(folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (copy / name).unlink()
    with pytest.raises(
        ValueError, match=r"name must be a causal language model with its tokenizer .*copy"
    ):
        load_model(copy)


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("./no/such", {}, FileNotFoundError, "name must be a folder that exists; got ./no/such"),
        (Path("nothing"), {}, FileNotFoundError, "name must be a folder that exists; got nothing"),
        ("gpt-9", {}, ValueError, "name must be 'shipped', a folder or a Hub id .*; got 'gpt-9'"),
        (7, {}, TypeError, "name must be 'shipped', .*; got int. Use LanguageModel.wrap"),
        (
            "no-such-organisation/model",
            {"local_files_only": True},
            ConnectionError,
            "name must be a Hub id that can be reached or was downloaded before",
        ),
    ],
)
def test_names_that_cannot_be_loaded(name, options, error, message):
    with pytest.raises(error, match=message):
        load_model(name, **options)


def test_types_that_do_not_exist(folder):
    with pytest.raises(ValueError, match="dtype must be 'float32', 'bfloat16' or 'float16'"):
        load_model(folder, dtype="int8")


@pytest.mark.skipif(
    importlib.util.find_spec("accelerate") is not None, reason="accelerate is installed"
)
def test_spreading_a_model_needs_accelerate(folder):
    with pytest.raises(ImportError, match=r"device_map must be left out without .* accelerate"):
        load_model(folder, device_map="auto")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_device_that_is_not_there(folder):
    with pytest.raises(ValueError, match="device must be one that this machine has; got 'cuda'"):
        load_model(folder, device="cuda")


def small(cls, **options):
    none = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    torch.manual_seed(1)
    return transformers.AutoModelForCausalLM.from_config(cls(**options, **none))


def test_attention_without_tree_masks_falls_back_and_says_so(family, brute, texts):
    tokenizer = family("llama2").tokenizer
    model = small(
        transformers.BloomConfig,
        vocab_size=len(tokenizer),
        hidden_size=32,
        n_layer=2,
        n_head=4,
        initializer_range=0.4,
    )
    with pytest.warns(
        RuntimeWarning, match=r"bloom \(BloomForCausalLM, eager\) takes no tree mask"
    ):
        lm = LanguageModel.wrap(model, tokenizer, name="bloom")
    assert not lm.packed
    assert "unlimited" in lm.describe()
    runs = [np.array([52, 51, 3]), np.array([7, 52])]
    rows, off = next_state_laws(runs, model=lm, digits=2)
    from sgdmc.llm.tokens import token_map

    tm = token_map(lm, digits=2)
    for t, text in enumerate(texts(tm, [run[:, None] for run in runs])):
        row, lost = brute(lm, text, tm.slots[0])
        np.testing.assert_allclose(rows[t], row, atol=1e-5)
        assert off[t] == pytest.approx(lost, abs=1e-5)
    probes = next_state_laws(runs, model=lm, digits=2, probe=[5], probe_as="run", chunk=8)
    row, _ = brute(lm, tm.style.text([*(r[:, None] for r in runs), np.array([[5]])]), tm.slots[0])
    np.testing.assert_allclose(probes[0][0], row, atol=1e-5)


def test_both_kinds_of_context_agree_on_joint_steps(family):
    import dataclasses

    from sgdmc.llm.joint import JointReader

    lm = family("qwen")
    slow = dataclasses.replace(lm, packed=False, maps={})
    states = np.random.default_rng(4).integers(0, 100, (6, 2))
    present = np.random.default_rng(5).integers(0, 100, (20, 2))
    drawn = [
        JointReader(states, model=m, digits=2, probe_as="run").step(present, rng=3)
        for m in (lm, slow)
    ]
    np.testing.assert_array_equal(*drawn)


def test_a_recurrent_model_that_forgets_is_refused(family):
    tokenizer = family("llama2").tokenizer
    model = small(
        transformers.MambaConfig, vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2
    )
    with pytest.raises(ValueError, match="model must go on from a copy of its cache"):
        LanguageModel.wrap(model, tokenizer, name="mamba")


def test_import_loads_neither_torch_nor_transformers():
    import subprocess
    import sys

    code = (
        "import sys, sgdmc.llm.reader, sgdmc.llm.joint, sgdmc.llm.model;"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
