"""Training: deterministic, resumable after any kill, and it learns."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from sgdmc.pretrain.network import DigitNetwork, Shape, read_shape
from sgdmc.pretrain.optimiser import orthogonalise
from sgdmc.pretrain.prior import draw_batch
from sgdmc.pretrain.train import batch_loss, export_checkpoint, plan_step, pretrain, step_factor

TINY = Shape(width=32, n_layers=2, n_heads=2, hidden=32, max_length=512)
PROGRAM = """
import sys, torch
torch.set_num_threads(1)
from sgdmc.pretrain.network import Shape
from sgdmc.pretrain.train import pretrain
shape = Shape(width=32, n_layers=2, n_heads=2, hidden=32, max_length=512)
pretrain(sys.argv[1], n_steps=30, resume=True, seed=4, shape=shape, batch_tokens=512,
         checkpoint_every=0.0, log_every=1)
"""


def start(out):
    environment = dict(os.environ, OMP_NUM_THREADS="1")
    return subprocess.Popen([sys.executable, "-c", PROGRAM, str(out)], env=environment)


def steps_logged(out):
    try:
        return len((out / "log.jsonl").read_text().splitlines())
    except FileNotFoundError:
        return 0


def test_killed_and_resumed_is_the_same_as_uninterrupted(tmp_path):
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    assert start(straight).wait(timeout=300) == 0
    process = start(broken)
    deadline = time.monotonic() + 300
    while steps_logged(broken) < 9:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (broken / "model").exists()
    # What a kill while writing leaves behind does no harm.
    (broken / "checkpoint.partial").write_bytes(b"half a file")
    assert start(broken).wait(timeout=300) == 0
    first = (straight / "model" / "model.safetensors").read_bytes()
    assert (broken / "model" / "model.safetensors").read_bytes() == first
    facts = json.loads((broken / "model" / "training.json").read_text())
    assert facts["steps"] == 30
    assert facts["seed"] == 4


def test_a_checkpoint_can_be_exported_before_the_end(tmp_path):
    pretrain(tmp_path, n_steps=3, seed=1, shape=TINY, batch_tokens=512, log_every=1)
    export_checkpoint(tmp_path, tmp_path / "early")
    assert (tmp_path / "early" / "model.safetensors").stat().st_size > 0


def test_the_loss_goes_down(tmp_path):
    pretrain(tmp_path, n_steps=80, seed=2, shape=TINY, batch_tokens=1024, log_every=20)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [20, 40, 60, 80]
    first, last = (sum(lines[i][k] for k in ("smooth", "descent", "joint")) for i in (0, -1))
    assert last < first - 1.0


def test_gradients_of_the_logits_do_not_feel_a_common_shift_in_half_precision():
    network = DigitNetwork(TINY, seed=3)
    batch = draw_batch(1, 0, n=4, length=64)
    with torch.no_grad():
        # The final norm leaves a direction that all rows share: logits all near -100.
        network.norm.fill_(0.0)
        network.norm[0] = 1.0
        network.norm[1:] = 0.05
        for table in (network.number, network.other):
            table[:, 0] = -100.0

    def gradients(half):
        network.zero_grad()
        mean, _, _ = batch_loss(network.forward, network.losses, batch, device="cpu", half=half)
        torch.autograd.backward(mean)
        return mean.detach(), network.other.grad[:, 1:].flatten().clone()

    (exact, whole), (rounded, half) = gradients(False), gradients(True)
    assert abs(rounded - exact) < 0.01 * abs(exact)
    assert torch.cosine_similarity(half, whole, dim=0) > 0.98


def test_schedule():
    assert step_factor(0.0, 0) == pytest.approx(1 / 50)
    assert step_factor(0.3, 1000) == 1.0
    assert step_factor(0.8, 1000) == pytest.approx(0.5)
    assert step_factor(1.0, 1000) == 0.0
    assert step_factor(0.5, 1000, gentle=True) == pytest.approx(0.1)
    sizes = [
        sum(part.n * part.length for part in plan_step(0, 5, progress, batch_tokens=8192))
        for progress in (0.0, 0.1, 0.3, 0.9)
    ]
    assert sizes == [2048, 4096, 4096, 8192]
    lengths = {plan_step(0, s, 0.3, batch_tokens=8192)[0].length for s in range(200)}
    assert lengths == {256, 512, 1024, 2048}


def test_orthogonalised_updates_have_singular_values_near_one():
    update = torch.randn(3, 16, 40, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalise(update))
    assert float(values.min()) > 0.5
    assert float(values.max()) < 1.4


@pytest.mark.parametrize(("minutes", "n_steps"), [(None, None), (0.0, None), (None, 0)])
def test_budget_must_be_positive(tmp_path, minutes, n_steps):
    with pytest.raises(ValueError, match="must hold one positive budget"):
        pretrain(tmp_path, minutes=minutes, n_steps=n_steps)


def test_initial_weights_are_a_function_of_the_seed():
    a, b = DigitNetwork(TINY, seed=1), DigitNetwork(TINY, seed=1)
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        assert torch.equal(p, q)
    assert not np.array_equal(
        a.number.detach().numpy(), DigitNetwork(TINY, seed=2).number.detach().numpy()
    )


def test_training_goes_on_from_a_model(tmp_path):
    first = pretrain(tmp_path / "a", n_steps=3, seed=1, shape=TINY, batch_tokens=512)
    shape = read_shape(first)
    assert shape == TINY
    network = DigitNetwork(shape, seed=9)
    network.load_folder(first)
    theirs = load_file(first / "model.safetensors")
    mine = network.llama_state()
    assert mine.keys() == theirs.keys()
    for name, value in theirs.items():
        # One table holds the numbers of both kinds: float16 rounds them apart.
        torch.testing.assert_close(mine[name], value.float(), atol=4e-3, rtol=0)
    second = pretrain(tmp_path / "b", n_steps=1, seed=5, start=first, batch_tokens=512)
    facts = json.loads((second / "training.json").read_text())
    assert facts["start"]["seed"] == 1
    assert (
        facts["start"]["sha256"]
        == hashlib.sha256((first / "model.safetensors").read_bytes()).hexdigest()
    )
    moved = load_file(second / "model.safetensors")
    gap = max(float((moved[k].float() - theirs[k].float()).abs().max()) for k in theirs)
    assert 0 < gap < 0.1  # one warm-up step away from where it began
