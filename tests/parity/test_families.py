"""Captured mass equals eager attention on every architecture claimed, and the comparison can fail."""

from __future__ import annotations

import pytest
import torch
from transformers import AttentionInterface, LlamaConfig, Qwen2Config, Qwen3Config

from qr_core import ModelLoadError, QRScorer, capture, prefill, scorer
from tests.helpers import DOCUMENTS, QUERY, captured_masses, eager_masses, eager_model, flat_heads

COMMON = {
    "vocab_size": 1920,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 5,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "initializer_range": 0.4,
    "max_position_embeddings": 4096,
}
CONFIGS = {
    "llama": LlamaConfig(**COMMON, head_dim=8),
    "qwen2": Qwen2Config(**COMMON),
    "qwen3": Qwen3Config(**COMMON, head_dim=16),
}
HEADS = "1-3,3-0,3-1,3-5,2-7,0-2"


@pytest.fixture(scope="module", params=sorted(CONFIGS))
def loaded(request, save_tiny):
    """A scorer loaded from disk, its masses' eager equals, and the folder."""
    folder = save_tiny(CONFIGS[request.param])
    tiny = QRScorer.from_pretrained(folder, HEADS, template="plain", device="cpu")
    prompt = tiny._prompts.build([QUERY], DOCUMENTS)[0]
    expected = eager_masses(eager_model(folder), prompt.ids, prompt.query_start)
    tiny.rank(QUERY, DOCUMENTS)  # loads the weights
    return tiny, torch.stack([expected[layer, head] for layer, head in flat_heads(tiny)]), folder


def difference(tiny: QRScorer, expected: torch.Tensor) -> float:
    return float((captured_masses(tiny, QUERY, DOCUMENTS)[0] - expected).abs().max())


def test_captured_mass_equals_eager(loaded):
    tiny, expected, _ = loaded
    assert difference(tiny, expected) < 1e-5
    uniform = 1 / expected.shape[1]
    assert float(expected.max()) > 3 * uniform  # attention is sharp: agreement means something


def test_only_needed_layers_are_loaded(loaded):
    tiny, _, _ = loaded
    assert tiny._model.loaded_layers == 4


def test_position_off_by_one_is_noticed(loaded, monkeypatch):
    tiny, expected, _ = loaded

    def shifted(model, prefix, input_ids, captured, position_ids=None):
        positions = torch.arange(input_ids.shape[1])[None] + prefix.length + 1
        return prefill.probe(model, prefix, input_ids, captured, positions)

    monkeypatch.setattr(scorer, "probe", shifted)
    assert difference(tiny, expected) > 1e-3


def _wrong_group(module, query, key, value, *args, **kwargs):
    """Each query head reads its neighbour's key head."""
    return capture.capture_attention(module, query, key.roll(1, dims=1), value.roll(1, dims=1), *args, **kwargs)


@pytest.fixture
def wrong_group():
    AttentionInterface.register(capture.ATTENTION_NAME, _wrong_group)
    yield
    AttentionInterface.register(capture.ATTENTION_NAME, capture.capture_attention)


def test_wrong_key_group_is_noticed(loaded, wrong_group):
    tiny, expected, _ = loaded
    assert difference(tiny, expected) > 1e-3


def test_wrong_attention_is_refused_at_load(loaded, wrong_group):
    """The trial at load compares with the model's own eager attention."""
    _, _, folder = loaded
    fresh = QRScorer.from_pretrained(folder, "4-1", template="plain", device="cpu", dtype="float32")
    with pytest.raises(ModelLoadError, match="not computed as this package does"):
        fresh.rank(QUERY, DOCUMENTS)
