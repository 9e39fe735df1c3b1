"""Independent layout: masses equal one eager pass over all tokens, under an explicit mask and the same positions."""

from __future__ import annotations

import re

import pytest
import torch
from transformers import AutoModel

from qr_core import Document, HeadSetError, InputError, ModelLoadError, QRScorer
from qr_core.attention import layers, prefill, query_pass, rope
from qr_core.attention.loaded import facts_of
from qr_core.cache.documents import DocumentCache
from qr_core.model import verify, verify_independent
from qr_core.reading import documentwise
from tests.architectures import FAMILIES, WINDOW
from tests.helpers import DOCUMENTS, QUERY, captured_masses, eager_model, in_order
from tests.parity.test_all_classes import TABLE, tiny_config

MIXED = {"ministral", "gemma2", "gemma3", "gemma3-composite", "cohere2", "gpt_oss"}  # every other layer has a window
ALLOWED = sorted(FAMILIES.keys() - {"mistral", "mixtral"})  # there every layer has one
OPTIONS = {"template": "plain", "device": "cpu", "dtype": "float32", "layout": "independent", "cache_bytes": 0}
UNEQUAL = [
    *DOCUMENTS,
    Document("Short."),
    Document(""),
    Document(" ".join(f"Room {i} is cold and looks out on the yard." for i in range(9)), "Rooms"),
    DOCUMENTS[0],
]


def scorer_of(folder, heads="all", **options) -> QRScorer:
    return QRScorer.from_pretrained(folder, heads, **OPTIONS | options)


def eager_block_masses(model, prompt) -> torch.Tensor:
    """Mass of heads on the tokens before the query, shape (layers * heads, tokens), written out token by token.

    Windows are of positions. Where layers with and without one are mixed, only the latter's heads are given.
    """
    total, start = len(prompt.ids), prompt.query_start
    positions = torch.zeros(total, dtype=torch.long)
    seen = torch.zeros(total, total, dtype=torch.bool)
    longest = 0
    for place in range(prompt.instruction):
        positions[place] = place
        seen[place, : place + 1] = True
    for first, last in prompt.parts:
        longest = max(longest, last - first)
        for place in range(first, last):
            positions[place] = prompt.instruction + place - first
            seen[place, : prompt.instruction] = True
            seen[place, first : place + 1] = True
    for place in range(start, total):
        positions[place] = prompt.instruction + longest + place - start
        seen[place, : place + 1] = True
    assert positions.tolist() == prompt.positions().tolist()
    assert int(positions.max()) + 1 == prompt.reach
    kinds = layers.layers_of(model.config)
    windows = layers.windows_of(kinds)
    near = seen & (positions[:, None] - positions[None, :] < max(windows.values(), default=total))
    mask, narrow = (
        torch.zeros(total, total).masked_fill(~one, torch.finfo(torch.float32).min)[None, None] for one in (seen, near)
    )
    mixed = 0 < len(windows) < len(kinds)
    with torch.no_grad():
        attentions = model(
            input_ids=torch.tensor([prompt.ids]),
            position_ids=positions[None],
            attention_mask={"full_attention": mask, "sliding_attention": narrow} if mixed else narrow,
            output_attentions=True,
            use_cache=False,
        ).attentions
    chosen = [a for number, a in enumerate(attentions) if not mixed or number not in windows]
    return torch.stack([a[0, :, start:, :start].mean(dim=1) for a in chosen]).flatten(0, 1)


@pytest.mark.parametrize("family", ALLOWED)
def test_masses_equal_eager_attention_under_a_block_mask(saved, family, monkeypatch):
    """Cold, from the cache, in small chunks and batches, and half from the cache; nothing may change."""
    tiny = scorer_of(saved(family))
    found, prompt = captured_masses(tiny, QUERY, UNEQUAL)
    expected = eager_block_masses(eager_model(saved(family)), prompt)
    assert float((found - expected).abs().max()) < 1e-5
    assert float(expected.max()) * expected.shape[1] > 1.5  # far from uniform: agreement means something
    warm, _ = captured_masses(tiny, QUERY, UNEQUAL)
    assert float((warm - expected).abs().max()) < 1e-5

    for module in (prefill, documentwise):
        monkeypatch.setattr(module, "chunk_rows", lambda *_: 7)
    tiny.document_cache.clear()
    captured_masses(tiny, QUERY, UNEQUAL[1:4])
    mixed, _ = captured_masses(tiny, QUERY, UNEQUAL)
    assert float((mixed - expected).abs().max()) < 1e-5


@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt2", "deepseek_v3", "phi3-straddling", "llama-dynamic-rope"])
def test_n_a_is_subtracted_at_its_own_place(saved, family):
    tiny = scorer_of(saved(family))
    asked = tiny.prompt(QUERY, UNEQUAL)
    found = tiny.token_masses(QUERY, UNEQUAL)
    model = eager_model(saved(family))
    with rope.held_to(model, asked.reach):
        expected = eager_block_masses(model, asked.query) - eager_block_masses(model, asked.references[0])
    assert found.calibrated
    assert torch.allclose(found.mass, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "gpt2", "deepseek_v3", "llama-yarn"])
def test_one_document_is_a_joint_prompt_without_its_number(saved, family):
    """With one document nothing is independent: the same ids in one causal pass give the same masses."""
    tiny = scorer_of(saved(family))
    found, prompt = captured_masses(tiny, QUERY, DOCUMENTS[:1])
    assert prompt.positions().tolist() == list(range(len(prompt.ids)))
    with torch.no_grad():
        attentions = eager_model(saved(family))(
            input_ids=torch.tensor([prompt.ids]), output_attentions=True, use_cache=False
        ).attentions
    start = prompt.query_start
    expected = torch.stack([a[0, :, start:, :start].mean(dim=1) for a in attentions]).flatten(0, 1)
    assert torch.allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", ALLOWED)
def test_queries_that_share_a_pass_are_those_alone(saved, family):
    """Every mask, window and RoPE kind; queries of several lengths, none of which sees another."""
    tiny = scorer_of(saved(family))
    queries = (QUERY, "Who?", f"{QUERY} {QUERY}")
    asked = [tiny.prompt(query, UNEQUAL) for query in queries]
    together = tiny.masses(asked)
    assert facts_of(tiny.model.at_depth(0)).packs_independent
    for one, found in zip(asked, together, strict=True):
        assert torch.allclose(found.raw, tiny.masses([one])[0].raw, rtol=0, atol=1e-6)
        if family not in ("llama-dynamic-rope", "phi3-straddling"):  # there the longer of query and `N/A` decides
            expected = eager_block_masses(eager_model(saved(family)), one.query)
            assert torch.allclose(found.raw, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_wrong_position_is_noticed(saved, family, monkeypatch):
    """Of the query, and of documents one after the other instead of side by side."""
    tiny = scorer_of(saved(family))
    _, prompt = captured_masses(tiny, QUERY, UNEQUAL)
    expected = eager_block_masses(eager_model(saved(family)), prompt)
    run = query_pass.query_pass

    def shifted(model, prefix, input_ids, capture, position_ids):
        return run(model, prefix, input_ids, capture, position_ids + 1)

    monkeypatch.setattr(query_pass, "query_pass", shifted)
    found, _ = captured_masses(tiny, QUERY, UNEQUAL)
    assert float((found - expected).abs().max()) > 1e-3


@pytest.mark.parametrize("family", sorted(MIXED))
def test_windows_count_positions_and_matter(saved, family, monkeypatch):
    """The same prompt without windows, or with those of places in memory, has other masses."""
    tiny = scorer_of(saved(family))
    asked, _ = captured_masses(tiny, QUERY, UNEQUAL)
    for windows in ({}, dict.fromkeys(range(4), 10_000)):
        monkeypatch.setattr(facts_of(tiny.model.at_depth(0)), "windows", windows)
        found, _ = captured_masses(tiny, QUERY, UNEQUAL)
        assert float((found - asked).abs().max()) > 1e-3


def test_heads_with_a_window_read_what_fits_it(save_tiny):
    """As for any prompt: within the window they see everything, wherever it stands in memory; beyond it they refuse."""
    from transformers import MistralConfig

    from tests.architectures import COMMON

    folder = save_tiny(MistralConfig(**COMMON, head_dim=8, sliding_window=200))
    tiny = scorer_of(folder)
    found, prompt = captured_masses(tiny, QUERY, UNEQUAL)
    assert prompt.reach < 200 < prompt.query_start
    assert float((found - eager_block_masses(eager_model(folder), prompt)).abs().max()) < 1e-5
    with pytest.raises(InputError, match=r"layer 0 of .* look 200 tokens back, .* with passage_tokens="):
        tiny.rank(QUERY, [" ".join(["cold"] * 200)])


def test_heads_above_chunks_are_refused_and_those_below_are_not(save_tiny):
    from transformers import Llama4TextConfig

    from tests.architectures import COMMON

    kinds = ["full_attention", "full_attention", "chunked_attention", "full_attention"]
    shape = {"head_dim": 8, "attention_chunk_size": WINDOW, "layer_types": kinds, "moe_layers": []}
    folder = save_tiny(Llama4TextConfig(**COMMON, **shape))
    with pytest.raises(HeadSetError, match=rf"looks {WINDOW} tokens back in chunks, .* choose heads below layer 2"):
        scorer_of(folder, "3-1")
    assert len(scorer_of(folder, "1-1,0-3").rank(QUERY, UNEQUAL)) == len(UNEQUAL)


def test_positions_from_memory_are_refused(saved, monkeypatch):
    """A model that takes a token's position from its place in the cache cannot encode documents apart."""
    from transformers.models.llama import modeling_llama

    forward = modeling_llama.LlamaModel.forward

    def stubborn(self, *args, position_ids=None, **kwargs):
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(modeling_llama.LlamaModel, "forward", stubborn)
    tiny = scorer_of(saved("llama-linear-rope"))
    with pytest.raises(ModelLoadError, match="cannot encode documents independently"):
        tiny.rank(QUERY, DOCUMENTS)


def test_the_self_check_is_made_once(saved, monkeypatch):
    tiny = scorer_of(saved("qwen2"))
    tiny.rank(QUERY, DOCUMENTS)
    monkeypatch.setattr(verify_independent, "compare", lambda *_: pytest.fail("a second self-check"))
    tiny.rank(QUERY, DOCUMENTS[:2])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_any_order_gives_the_very_same_scores(saved, dtype):
    tiny = scorer_of(saved("qwen3"), "1-1,2-6,3-3", dtype=dtype, document_cache=DocumentCache(0))
    given = in_order(tiny.rank(QUERY, UNEQUAL))
    reversed_ = in_order(tiny.rank(QUERY, UNEQUAL[::-1]))
    assert given == reversed_[::-1]
    assert in_order(tiny.rank(QUERY, UNEQUAL, order="reversed")) == given


def test_the_longest_document_decides_the_rope_regime(saved):
    """Not the sum of all tokens; a longer document changes the others' states, and none are mixed."""
    tiny = scorer_of(saved("phi3-straddling"))
    for documents in (DOCUMENTS, UNEQUAL, DOCUMENTS * 3, DOCUMENTS[:1], UNEQUAL):
        found, prompt = captured_masses(tiny, QUERY, documents)
        expected = eager_block_masses(eager_model(saved("phi3-straddling")), prompt)
        assert torch.allclose(found, expected, rtol=0, atol=1e-5)
    assert captured_masses(tiny, QUERY, DOCUMENTS * 3)[1].reach < 135 < captured_masses(tiny, QUERY, UNEQUAL)[1].reach


@pytest.mark.filterwarnings("ignore")
def test_every_class_that_can_be_read_passes_the_self_check_or_has_chunks(monkeypatch):
    """Those that `docs/architectures.md` lists as working, built tiny; none fails for another reason."""
    monkeypatch.setattr(verify, "EXACT_TOLERANCE", 3e-5)
    names = re.findall(r"`(\w+)`", TABLE.read_text(encoding="utf-8").split("## Work")[1].split("\n\n")[1])
    passed = 0
    for name in names:
        config = tiny_config(name)
        kinds = layers.layers_of(config)
        try:
            layers.check_chunks(kinds, len(kinds) - 1, name)
        except HeadSetError:
            continue
        torch.manual_seed(0)
        verify_independent.check_independent(AutoModel.from_config(config).float().eval(), len(kinds) - 1, name)
        passed += 1
    assert passed > 55
