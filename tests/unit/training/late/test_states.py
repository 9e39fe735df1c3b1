"""States are those of the encoder on each text alone, whatever shares its batch."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoTokenizer, BertModel

from qr_core.training.late import states as module
from qr_core.training.late.states import States, cut


@pytest.mark.parametrize(("length", "sizes"), [(0, [0]), (5, [5]), (10, [10]), (11, [6, 5]), (21, [7, 7, 7])])
def test_parts_are_as_equal_as_can_be(length, sizes):
    parts = cut(list(range(length)), 10)
    assert [len(part) for part in parts] == sizes
    assert [token for part in parts for token in part] == list(range(length))


def test_states_are_the_encoders(init, monkeypatch):
    monkeypatch.setattr(module, "AT_ONCE", 24)
    tokenizer, encoder = AutoTokenizer.from_pretrained(init), BertModel.from_pretrained(init).eval()
    texts = ["river stone", "lamp", "bread tide oven bridge storm " * 3]
    found = States(encoder, tokenizer, texts, layers=(1, 2))
    for number, text in enumerate(texts):
        ids = [tokenizer.cls_token_id, *tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.sep_token_id]
        with torch.no_grad():
            expected = encoder(torch.tensor([ids]), output_hidden_states=True).hidden_states
        for layer in (1, 2):
            assert torch.allclose(found.of(number, layer), expected[layer][0, 1:-1], atol=1e-5)
        mean = torch.nn.functional.normalize(expected[-1][0].mean(dim=0), dim=0)
        assert torch.allclose(found.vectors()[number], mean, atol=1e-5)


def test_only_the_first_parts_are_kept(init):
    tokenizer, encoder = AutoTokenizer.from_pretrained(init), BertModel.from_pretrained(init).eval()
    found = States(encoder, tokenizer, ["river " * 500, "stone"], layers=(2,), most=2)
    assert [len(parts) for parts in found.parts] == [2, 1]
    assert found.of(0, 2).shape[0] == int(found.lengths[:2].sum()) < 500
    assert found.of(1, 2).shape[0] == 1
