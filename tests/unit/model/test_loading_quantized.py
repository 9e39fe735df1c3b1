"""Quantised models: weights in eight bits, and keys and values kept in a quantised cache."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    LlamaConfig,
)
from transformers.cache_utils import Fp8QuantizedLayer

from qr_core import InputError, QRScorer
from qr_core.attention import prefill
from qr_core.attention.quantized import quantized
from qr_core.cache.reads import ReadCache
from tests.architectures import COMMON, FAMILIES
from tests.helpers import DOCUMENTS, GOLDEN, QUERY, captured_masses

HEADS = "2-1,3-3,1-7"


def tiny(folder, heads=HEADS, **options) -> QRScorer:
    return QRScorer.from_pretrained(folder, heads, template="plain", device="cpu", **options)


@pytest.mark.filterwarnings("ignore")
def test_int8_folder(tmp_path, save_tiny):
    source = save_tiny(LlamaConfig(**COMMON, head_dim=8))
    config = BitsAndBytesConfig(load_in_8bit=True)
    model = AutoModelForCausalLM.from_pretrained(source, quantization_config=config, device_map="cpu")
    model.save_pretrained(tmp_path / "int8")
    AutoTokenizer.from_pretrained(source).save_pretrained(tmp_path / "int8")
    full = captured_masses(tiny(source), QUERY, DOCUMENTS)[0]
    scorer = tiny(tmp_path / "int8")
    small = captured_masses(scorer, QUERY, DOCUMENTS)[0]
    assert type(scorer.reader.model.at_depth(0).layers[0].self_attn.q_proj).__name__ == "Linear8bitLt"
    assert 0 < float((full - small).abs().max()) < 0.1


def test_keys_and_values_kept_in_a_quantised_cache():
    options = {"backend": "fp8"}  # the one that needs no further package
    folder, documents = GOLDEN / "tiny-llama", DOCUMENTS * 4
    exact, small = tiny(folder), tiny(folder, quantized_cache=options)
    full = captured_masses(exact, QUERY, documents)[0]
    cache = ReadCache()
    asked = small.prompt(QUERY, documents)
    first = small.masses([asked], cache)[0].raw
    assert not torch.equal(full, first)
    assert float(torch.corrcoef(torch.stack([full.flatten(), first.flatten()]))[0, 1]) > 0.95
    assert torch.equal(small.masses([asked], cache)[0].raw, first)  # query passes leave what is kept alone
    kept = small.model.at_depth(3).config, asked.query.before
    whole = prefill.prefill(small.model.at_depth(3), torch.tensor([kept[1]]), 3)
    assert quantized(whole, kept[0], options).bytes < 0.26 * whole.bytes
    # Who asks for exact scores does not get what was kept quantised.
    assert torch.equal(exact.masses([asked], cache)[0].raw, exact.masses([asked])[0].raw)


def test_a_quantised_cache_of_a_model_with_sliding_windows(save_tiny):
    """Which transformers' own quantised caches refuse: here all keys are kept, and windows live in the mask."""
    folder = save_tiny(FAMILIES["ministral"]())
    exact, small = tiny(folder, "1-1,3-3"), tiny(folder, "1-1,3-3", quantized_cache={"backend": "fp8"})
    full, kept = (captured_masses(one, QUERY, DOCUMENTS)[0] for one in (exact, small))
    assert not torch.equal(full, kept)
    assert float(torch.corrcoef(torch.stack([full.flatten(), kept.flatten()]))[0, 1]) > 0.95


@pytest.mark.parametrize("options", [{"backend": "zip"}, {"backend": "fp8", "nbits": 4}, {"bits": 4}])
def test_a_strange_quantised_cache_is_refused(options):
    with pytest.raises(InputError, match="quantized_cache="):
        tiny(GOLDEN / "tiny-llama", quantized_cache=options)


def test_a_quantised_cache_that_the_shape_does_not_go_with(monkeypatch):
    def refuse(*_):
        raise ValueError("Group size (64) must be a divisor of (7136)")

    monkeypatch.setattr(Fp8QuantizedLayer, "update", refuse)
    with pytest.raises(InputError, match="does not go with this model: Group size"):
        tiny(GOLDEN / "tiny-llama", quantized_cache={"backend": "fp8"}).rank(QUERY, DOCUMENTS)


def test_a_quantised_cache_is_for_the_joint_layout():
    with pytest.raises(InputError, match="layout='joint'"):
        tiny(GOLDEN / "tiny-llama", quantized_cache={"backend": "fp8"}, layout="independent")
