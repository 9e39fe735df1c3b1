"""A model with more layers than the one it starts from."""

from __future__ import annotations

import torch
from transformers import AutoModelForCausalLM

from qr_core.mini import embedded_model
from qr_core.training import recipe as recipe_module
from qr_core.training import train


def test_added_layers_change_nothing_at_first():
    before = AutoModelForCausalLM.from_pretrained(embedded_model("embedded-fast"), dtype=torch.float32)
    layers = before.config.num_hidden_layers
    after = recipe_module.grown(
        embedded_model("embedded-fast"), train.Recipe(layers=layers + 1, read_layers=(layers - 1,))
    )
    ids = torch.arange(2000, 2040)[None]
    with torch.no_grad():
        assert torch.allclose(before(ids).logits, after(ids).logits, atol=1e-5)
    assert after.config.num_hidden_layers == layers + 1
