"""Shallow: lower layers are those of the whole model, and what lies above changes nothing."""

from __future__ import annotations

import threading

import pytest
import torch
from transformers import AutoModel, LlamaConfig, MiniCPM3Config

from qr_core import ModelLoadError, QRScorer
from qr_core.attention.loaded import facts_of
from qr_core.model import verify
from qr_core.model.shallow import lower_layers
from tests.architectures import COMMON
from tests.helpers import DOCUMENTS, QUERY

LATENT = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 12}


def shallow_llama():
    config = LlamaConfig(**COMMON, head_dim=8)
    with lower_layers(config, 2) as built:
        model = AutoModel.from_config(config).eval()
    facts_of(model).depth = built.depth
    return model


def test_layers_made_from_the_number_of_all_layers_are_read_alike(save_tiny):
    """Residuals here are divided by the root of that number."""
    config = MiniCPM3Config(**{**COMMON, "num_key_value_heads": 8}, **LATENT, scale_depth=1.4)
    folder = save_tiny(config)
    shallow = QRScorer.from_pretrained(folder, "1-1,1-6", template="plain", device="cpu", cache_bytes=0)
    alone = shallow.rank(QUERY, DOCUMENTS)
    assert shallow.reader.model.loaded_layers == 2
    QRScorer.from_pretrained(folder, "3-0", template="plain", device="cpu").rank(QUERY, DOCUMENTS)
    assert shallow.reader.model.loaded_layers == 4
    assert [hit.score for hit in shallow.rank(QUERY, DOCUMENTS)] == [hit.score for hit in alone]


def test_the_config_stays_that_of_the_whole_model():
    model = shallow_llama()
    assert len(model.layers) == facts_of(model).depth == 2
    assert model.config.num_hidden_layers == 4


def test_a_model_that_another_thread_builds_is_whole():
    config, made = LlamaConfig(**COMMON, head_dim=8), []
    with lower_layers(config, 2):
        other = threading.Thread(target=lambda: made.append(AutoModel.from_config(config)))
        other.start()
        other.join()
    assert len(made[0].layers) == 4
    assert len(AutoModel.from_config(config).layers) == 4


def test_layers_that_depend_on_those_above_are_refused():
    """A forward pass that counts the layers there are."""
    model = shallow_llama()
    verify.check_readable(model, "tiny")
    model.embed_tokens.register_forward_hook(lambda *call: call[2] * len(model.layers))
    model.layers[0].input_layernorm = torch.nn.Identity()  # or the scale would not be seen
    with pytest.raises(ModelLoadError, match="depends on how many layers are above"):
        verify.check_readable(model, "tiny")
    assert len(model.layers) == 2
