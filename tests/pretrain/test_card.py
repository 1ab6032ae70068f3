"""The model card says what the training facts say."""

import json

import pytest

from sgdmc.llm.model import shipped_folder
from sgdmc.pretrain.card import write_card
from sgdmc.pretrain.train import schedule_facts


@pytest.mark.parametrize(
    ("gentle", "said"),
    [
        (False, "linear decay over the last 40%; weight decay 0.02 |"),
        (True, "at first 0.2 of the full step sizes, linear decay over the whole run; no weight"),
    ],
)
def test_the_schedule_on_the_card_is_that_of_the_run(tmp_path, gentle, said):
    (tmp_path / "model.safetensors").write_bytes(
        (shipped_folder() / "model.safetensors").read_bytes()
    )
    facts = json.loads((shipped_folder() / "training.json").read_text())
    facts["schedule"] = schedule_facts(gentle=gentle)
    (tmp_path / "training.json").write_text(json.dumps(facts))
    write_card(tmp_path, {"tables": {}}, command="sgdmc pretrain --out DIR", commit="abc")
    card = (tmp_path / "README.md").read_text()
    assert f"Muon on matrices, AdamW elsewhere; {said}" in card
    assert "| command | `sgdmc pretrain --out DIR` |" in card
