"""Captured mass equals eager attention on every architecture claimed, and each feature's absence is noticed."""

from __future__ import annotations

import pytest
import torch
from transformers import AttentionInterface, AttentionMaskInterface, MistralConfig
from transformers.masking_utils import causal_mask_function, eager_mask, sdpa_mask
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from qr_core import InputError, ModelLoadError, QRScorer
from qr_core.attention import capture, layers, prefill, query_pass, rope
from qr_core.model import verify
from tests.architectures import COMMON, FAMILIES, WINDOW
from tests.helpers import DOCUMENTS, QUERY, captured_masses, eager_masses, eager_model, every_head


@pytest.fixture
def compared(saved, monkeypatch):
    """A loaded scorer over every head of a family, and a function that compares it with eager attention."""
    monkeypatch.setattr(layers, "check_windows", lambda *_: None)  # masses are compared beyond the window too

    def prepare(family: str, documents=DOCUMENTS):
        tiny = QRScorer.from_pretrained(saved(family), every_head(saved(family)), template="plain", device="cpu")
        prompt = tiny.reader.prompts.build([QUERY], documents)[0]
        expected = eager_masses(eager_model(saved(family)), prompt.ids, prompt.query_start).flatten(0, 1)
        tiny.rank(QUERY, documents)  # loads the weights
        return lambda: (float((captured_masses(tiny, QUERY, documents)[0] - expected).abs().max()), expected, prompt)

    return prepare


def test_every_rope_type_is_tried():
    """Should transformers learn another length-dependent kind, this list must grow."""
    assert set(ROPE_INIT_FUNCTIONS) <= {"linear", "dynamic", "yarn", "longrope", "llama3", "proportional", "default"}


@pytest.mark.parametrize("family", FAMILIES)
def test_captured_mass_equals_eager(compared, family):
    difference, expected, prompt = compared(family)()
    assert difference < 1e-5
    assert len(prompt.ids) > 4 * WINDOW
    assert float(expected.max()) * expected.shape[1] > 3  # far from uniform: agreement means something


@pytest.mark.parametrize("family", FAMILIES)
def test_prefill_in_chunks_reads_the_same(compared, family, monkeypatch):
    """Every mask, window, sink and RoPE kind when a prompt's beginning runs a few tokens at a time."""
    difference = compared(family)
    monkeypatch.setattr(prefill, "chunk_rows", lambda *_: 7)
    assert difference()[0] < 1e-5


@pytest.mark.parametrize("family", FAMILIES)
def test_a_shallow_copy_reads_the_same(saved, family, monkeypatch):
    """Layers above the deepest selected head are not loaded, and change nothing."""
    monkeypatch.setattr(layers, "check_windows", lambda *_: None)
    shallow = QRScorer.from_pretrained(saved(family), "1-1,1-6", template="plain", device="cpu", dtype="float32")
    alone = shallow.rank(QUERY, DOCUMENTS)
    assert shallow.reader.model.loaded_layers == 2
    QRScorer.from_pretrained(
        saved(family), "3-0", template="plain", device="cpu", dtype="float32"
    ).reader.model.at_depth(3)
    assert shallow.reader.model.loaded_layers == 4
    assert [hit.score for hit in shallow.rank(QUERY, DOCUMENTS)] == [hit.score for hit in alone]


def test_longrope_when_only_the_query_crosses_its_limit(saved):
    """The prefix alone is short, prefix and query together are long: both must use the long frequencies."""
    tiny = QRScorer.from_pretrained(saved("phi3-straddling"), "all", template="plain", device="cpu")
    for documents in (DOCUMENTS, DOCUMENTS[:1], DOCUMENTS, DOCUMENTS * 2):  # on both sides, in any order
        found, prompt = captured_masses(tiny, QUERY, documents)
        expected = eager_masses(eager_model(saved("phi3-straddling")), prompt.ids, prompt.query_start)
        assert torch.allclose(found, expected.flatten(0, 1), atol=1e-5)
    prompt = tiny.reader.prompts.build([QUERY], DOCUMENTS)[0]
    assert prompt.query_start < 135 < len(prompt.ids)


def test_dynamic_ntk_forgets_longer_prompts(saved):
    tiny = QRScorer.from_pretrained(saved("llama-dynamic-rope"), "all", template="plain", device="cpu")
    for documents in (DOCUMENTS, DOCUMENTS[:2], DOCUMENTS * 2, DOCUMENTS[:1]):
        found, prompt = captured_masses(tiny, QUERY, documents)
        expected = eager_masses(eager_model(saved("llama-dynamic-rope")), prompt.ids, prompt.query_start)
        assert torch.allclose(found, expected.flatten(0, 1), atol=1e-5)


def without(name):
    """Attention that ignores one of its arguments."""

    def attend(*args, **kwargs):
        kwargs.pop(name, None)
        return capture.capture_attention(*args, **kwargs)

    return attend


def wrong_group(module, query, key, value, *args, **kwargs):
    return capture.capture_attention(module, query, key.roll(1, dims=1), value.roll(1, dims=1), *args, **kwargs)


def no_mask(module, query, key, value, attention_mask, *args, **kwargs):
    return capture.capture_attention(module, query, key, value, None, *args, **kwargs)


ATTENTION_MUTANTS = {
    "softcap": ("gemma2", without("softcap")),
    "sink": ("gpt_oss", without("s_aux")),
    "scaling": ("granite", without("scaling")),
    "key group": ("llama", wrong_group),
    "mask": ("qwen2", no_mask),
}


@pytest.mark.parametrize("feature", ATTENTION_MUTANTS)
def test_attention_without_the_feature_is_noticed(compared, feature):
    family, mutant = ATTENTION_MUTANTS[feature]
    difference = compared(family)
    AttentionInterface.register(capture.ATTENTION_NAME, mutant)
    try:
        assert difference()[0] > 1e-3
    finally:
        AttentionInterface.register(capture.ATTENTION_NAME, capture.capture_attention)
    assert difference()[0] < 1e-5


def causal_only(*args, mask_function=None, **kwargs):
    """A mask that forgets the sliding window."""
    return eager_mask(*args, mask_function=causal_mask_function, **kwargs)


@pytest.mark.parametrize(
    ("feature", "family", "mask"), [("window", "mistral", causal_only), ("kind", "llama", sdpa_mask)]
)
def test_a_wrong_mask_is_noticed(compared, feature, family, mask):
    difference = compared(family)
    AttentionMaskInterface.register(capture.ATTENTION_NAME, mask)
    try:
        assert difference()[0] > 1e-3
    finally:
        AttentionMaskInterface.register(capture.ATTENTION_NAME, capture.capture_mask)
    assert difference()[0] < 1e-5


@pytest.mark.parametrize("family", ["qwen2", "qwen3"])
def test_a_wrong_key_group_is_noticed_on_other_families(compared, family):
    difference = compared(family)
    AttentionInterface.register(capture.ATTENTION_NAME, wrong_group)
    try:
        assert difference()[0] > 1e-3
    finally:
        AttentionInterface.register(capture.ATTENTION_NAME, capture.capture_attention)


def test_another_formula_is_refused_in_half_precision(saved, monkeypatch):
    """Rounding after several layers may hide what a model's own eager function does differently; its input does not."""
    from transformers.models.gemma2 import modeling_gemma2

    eager = modeling_gemma2.eager_attention_forward
    monkeypatch.setattr(modeling_gemma2, "eager_attention_forward", lambda *a, **k: eager(*a, **{**k, "softcap": 1.5}))
    monkeypatch.setattr(verify, "ROUNDED_TOLERANCE", 1.0)
    fresh = QRScorer.from_pretrained(saved("gemma2"), "3-1", template="plain", device="cpu", dtype="bfloat16")
    with pytest.raises(ModelLoadError, match="lies elsewhere"):
        fresh.rank(QUERY, DOCUMENTS)


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "gpt2"])
def test_position_off_by_one_is_noticed(compared, family, monkeypatch):
    difference = compared(family)

    run = query_pass.query_pass

    def shifted(model, prefix, input_ids, captured, position_ids=None):
        positions = torch.arange(input_ids.shape[1])[None] + prefix.length + 1
        return run(model, prefix, input_ids, captured, positions)

    monkeypatch.setattr(query_pass, "query_pass", shifted)
    assert difference()[0] > 1e-3


@pytest.mark.parametrize("family", ["llama-dynamic-rope", "phi3-straddling"])
def test_a_wrong_rope_regime_is_noticed(compared, family, monkeypatch):
    difference = compared(family)
    held_to = rope.held_to
    monkeypatch.setattr(rope, "held_to", lambda model, length: held_to(model, 8))
    assert difference()[0] > 1e-3


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("feature", ["softcap", "sink", "scaling", "key group"])
def test_wrong_attention_is_refused_at_load(saved, feature, dtype):
    """The self-check at load compares with the model's own eager attention."""
    family, mutant = ATTENTION_MUTANTS[feature]
    fresh = QRScorer.from_pretrained(saved(family), "3-1", template="plain", device="cpu", dtype=dtype)
    AttentionInterface.register(capture.ATTENTION_NAME, mutant)
    try:
        with pytest.raises(ModelLoadError, match="not computed as this package does"):
            fresh.rank(QUERY, DOCUMENTS)
    finally:
        AttentionInterface.register(capture.ATTENTION_NAME, capture.capture_attention)


@pytest.mark.parametrize("family", ["gemma2", "gpt_oss", "cohere2", "ministral", "gemma3-composite"])
def test_heads_that_cannot_see_the_whole_prompt_are_refused(saved, family):
    """Layers 0 and 2 slide over 24 tokens, 1 and 3 see everything."""
    sliding = QRScorer.from_pretrained(saved(family), "2-1", template="plain", device="cpu")
    with pytest.raises(InputError, match=f"layer 2 .* look {WINDOW} tokens back"):
        sliding.rank(QUERY, DOCUMENTS)
    full = QRScorer.from_pretrained(saved(family), "3-1,1-2", template="plain", device="cpu")
    assert len(full.rank(QUERY, DOCUMENTS)) == 3


def test_a_prompt_may_be_as_long_as_the_window_and_no_longer(save_tiny):
    """The longer of the query's prompt and that of `N/A` counts."""
    for query in ("q", QUERY):  # the first makes the shorter prompt of the two, the second the longer
        scorer = QRScorer.from_pretrained(save_tiny(MistralConfig(**COMMON, head_dim=8)), "1-1", template="plain")
        longest = scorer.prompt(query, DOCUMENTS).tokens
        for window, fits in ((longest, True), (longest - 1, False)):
            config = MistralConfig(**COMMON, head_dim=8, sliding_window=window)
            tight = QRScorer.from_pretrained(save_tiny(config), "1-1", template="plain", device="cpu")
            if fits:
                assert len(tight.rank(query, DOCUMENTS)) == 3
            else:
                with pytest.raises(InputError, match=f"look {window} tokens back, and the prompt has {longest}"):
                    tight.rank(query, DOCUMENTS)


def test_softmax_is_float32_whatever_the_weights():
    """Half-precision logits that differ by less than half precision's steps near 1 keep their order and their sum."""
    query = torch.ones(1, 1, 1, 8, dtype=torch.bfloat16)
    key = (torch.linspace(0, 1, 400)[None, None, :, None] * torch.ones(8)).bfloat16()
    found = capture.attention_weights(query, key, None, 1.0)
    assert found.dtype == torch.float32
    logits = torch.matmul(query, key.transpose(2, 3)).float()
    assert torch.equal(found, torch.softmax(logits, dim=-1))
    rounded = torch.softmax(logits.bfloat16(), dim=-1)
    assert float((rounded.float() - found).abs().max()) > 1e-6


def test_only_needed_layers_run_and_prefill_uses_the_models_own_attention(saved):
    """A deeper shared copy is not run deeper than this scorer's heads."""
    options = {"template": "plain", "device": "cpu", "dtype": "float32", "cache_bytes": 0}
    shallow = QRScorer.from_pretrained(saved("llama"), "1-1", **options)
    deep = QRScorer.from_pretrained(saved("llama"), "3-1", **options)
    deep.rank(QUERY, DOCUMENTS)
    model = shallow.reader.model.at_depth(1)
    assert shallow.reader.model.loaded_layers == 4
    ran: list[tuple[int, int, str]] = []
    hooks = [
        layer.mlp.register_forward_hook(
            lambda *call, n=n: ran.append((n, call[2].shape[1], model.config._attn_implementation))
        )
        for n, layer in enumerate(model.layers)
    ]
    try:
        shallow.rank(QUERY, DOCUMENTS)
    finally:
        for hook in hooks:
            hook.remove()
    prompt = shallow.prompt(QUERY, DOCUMENTS).query
    assert {n for n, _, _ in ran} == {0}  # of layer 1 only keys and attention are needed
    assert [kind for _, rows, kind in ran if rows == prompt.query_start] == ["sdpa"]
    assert {kind for _, rows, kind in ran if rows != prompt.query_start} == {capture.ATTENTION_NAME}


def test_only_needed_layers_are_loaded(saved):
    tiny = QRScorer.from_pretrained(saved("llama"), "1-0,2-3", template="plain", device="cpu", dtype="float64")
    tiny.rank(QUERY, DOCUMENTS)
    assert tiny.reader.model.loaded_layers == 3
