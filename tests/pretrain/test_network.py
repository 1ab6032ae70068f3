"""The network is a Llama; the tokenizer loads as any other."""

import numpy as np
import pytest
import torch

from sgdmc.pretrain.network import DigitNetwork, Shape
from sgdmc.pretrain.tokenizer import token_texts
from sgdmc.pretrain.train import export

SMALL = Shape(width=32, n_layers=2, n_heads=2, hidden=48, max_length=128)


@pytest.fixture(scope="module")
def network():
    made = DigitNetwork(SMALL, seed=3)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in made.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator))
            p.copy_(p.half().float())
        # The table is a sum: keep the sum exact in float16 as well.
        made.kind.zero_()
    return made


@pytest.fixture(scope="module")
def folder(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    export(network, path)
    return path


def test_transformers_computes_the_same_logits(network, folder):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokens = torch.randint(0, 2013, (3, 50), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        theirs = model(tokens).logits
        mine = network(tokens) @ network.table().T
    assert float((theirs - mine).abs().max()) < 2e-4


def test_losses_are_cross_entropies_over_the_whole_vocabulary(network):
    tokens = torch.randint(0, 2013, (1, 12), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        hidden = network(tokens)[0]
        logs = torch.log_softmax(hidden @ network.table().T, dim=1)
    target = torch.tensor([[5, 900], [1003, 1999], [2000, 2009]] * 4)
    weight = torch.tensor([[0.25, 0.75]] * 12)
    expected = -(weight * logs.gather(1, target)).sum(dim=1)
    with torch.no_grad():
        assert torch.allclose(network.losses(hidden, target, weight), expected, atol=1e-4)


def test_a_branch_sees_its_prefix_and_nothing_else(network):
    tokens = torch.randint(0, 1000, (1, 20), generator=torch.Generator().manual_seed(3))
    branch = torch.tensor([[1700, 42]])
    prefix = 11
    mask = torch.zeros((1, 1, 2, 22), dtype=torch.bool)
    mask[..., :prefix] = True
    mask[0, 0, 0, 20] = mask[0, 0, 1, 20] = mask[0, 0, 1, 21] = True
    with torch.no_grad():
        together = network(
            tokens,
            query_tokens=branch,
            query_positions=torch.tensor([[prefix, prefix + 1]]),
            query_mask=mask,
        )
        alone = network(torch.cat((tokens[:, :prefix], branch), dim=1))
        plain = network(tokens)
    assert torch.allclose(together[:, 20:], alone[:, prefix:], atol=1e-5)
    assert torch.allclose(together[:, :20], plain, atol=1e-5)


def test_first_layer_heads_look_back_one_to_four_tokens():
    shape = Shape(width=128, n_layers=1)
    block = DigitNetwork(shape).blocks[0]
    bias = block.qkv_bias.detach().numpy()
    half, rate = 16, shape.rope_theta ** (-np.arange(16) / 16)
    for head in range(4):
        q = bias[0, 32 * head : 32 * head + 32]
        k = bias[1, 32 * head : 32 * head + 32]
        score = [
            (q[:half] * k[:half] * np.cos(d * rate) - q[half:] * k[:half] * np.sin(d * rate)).sum()
            for d in range(60)
        ]
        assert int(np.argmax(score)) == head + 1


def test_tokenizer_round_trip(folder):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = "523,519:187,\n000,999,0129"
    ids = tokenizer(text).input_ids
    assert ids == [2011, 523, 1519, 187, 2010, 0, 999, 2000, 2001, 2002, 2009]
    assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert tokenizer.convert_ids_to_tokens(list(range(2013))) == token_texts()
