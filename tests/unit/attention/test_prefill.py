"""Prefill of models with sliding windows: what each chunk is shown. That the result is exact, `tests/parity` says."""

from __future__ import annotations

import pytest
import torch
from transformers import MinistralConfig, MinistralModel

from qr_core.attention import capture, prefill
from qr_core.attention.query_pass import query_passes
from tests.architectures import ALTERNATING, COMMON

WINDOW = 80
TOKENS = 500


@pytest.fixture
def shown(monkeypatch):
    """(rows, keys) of every call of attention, as it comes."""
    calls = []
    attend = torch.nn.functional.scaled_dot_product_attention

    def recorded(query, key, *args, **kwargs):
        calls.append((query.shape[2], key.shape[2]))
        return attend(query, key, *args, **kwargs)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", recorded)
    return calls


@pytest.fixture
def model():
    torch.manual_seed(0)
    config = MinistralConfig(**COMMON, head_dim=8, sliding_window=WINDOW, layer_types=ALTERNATING)
    return MinistralModel(config).eval()


@torch.inference_mode()
def test_layers_with_a_window_are_shown_what_it_holds(model, shown):
    """Work of such layers grows with the prompt's length, not with its square; all keys are kept for query passes."""
    ids = torch.arange(TOKENS)[None] % 1900
    prefix = prefill.prefill(model, ids, deepest=3)
    assert [keys.shape[2] for keys in prefix.keys] == [TOKENS] * 4
    starts = range(0, TOKENS, WINDOW)  # a chunk has as many rows as the window tokens
    ends = [min(start + WINDOW, TOKENS) for start in starts]
    seen = [end - max(start + 1 - WINDOW, 0) for start, end in zip(starts, ends, strict=True)]
    assert shown[0::3] == shown[2::3] == [(end - start, n) for start, end, n in zip(starts, ends, seen, strict=True)]
    assert shown[1::3] == [(end - start, end) for start, end in zip(starts, ends, strict=True)]


@torch.inference_mode()
def test_a_prompt_within_the_window_is_one_chunk(model, shown):
    prefill.prefill(model, torch.arange(WINDOW)[None], deepest=2)
    assert shown == [(WINDOW, WINDOW)] * 2


@torch.inference_mode()
def test_a_query_pass_is_shown_the_end_that_a_window_holds(model, monkeypatch):
    """Other layers see the whole prefix; masses have a place for every token of it."""
    seen = []
    weights = capture.attention_weights
    monkeypatch.setattr(
        capture, "attention_weights", lambda q, k, *rest: seen.append(k.shape[2]) or weights(q, k, *rest)
    )
    prefix = prefill.prefill(model, torch.arange(TOKENS)[None], deepest=3)
    suffixes = [[5, 6, 7], [8, 9]]
    together = query_passes(model, prefix, suffixes, {2: [0, 1], 3: [1]})
    assert seen == [WINDOW - 1 + 5, TOKENS + 5] * 2
    for suffix, masses in zip(suffixes, together, strict=True):
        assert masses.shape == (3, TOKENS)
        assert not masses[:2, : TOKENS + 1 - WINDOW].any()
        assert masses[:2, -1].all()
        alone = query_passes(model, prefix, [suffix], {2: [0, 1], 3: [1]})[0]
        assert torch.allclose(masses, alone, atol=1e-5)
