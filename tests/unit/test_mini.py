"""The embedded model: what ships, and that it is useful."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from qr_core import Document, QRScorer
from qr_core.mini import embedded_model
from tests.helpers import captured_masses, eager_masses, flat_heads


def test_it_is_small_and_carries_its_card():
    folder = embedded_model()
    assert sum(file.stat().st_size for file in folder.iterdir()) < 45e6
    assert not list(folder.glob("*.bin"))
    card = (folder.parent / "README.md").read_text()
    for words in ("all-MiniLM-L6-v2", "Apache-2.0", "CC BY-SA", "sha256"):
        assert words in card


def test_it_loads_as_an_ordinary_causal_model():
    model = AutoModelForCausalLM.from_pretrained(embedded_model(), dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(embedded_model())
    assert type(model).__name__ == "MinistralForCausalLM"
    made = model.generate(**tokenizer("Here are some", return_tensors="pt", add_special_tokens=False), max_new_tokens=5)
    assert made.shape[1] <= 8


def test_it_takes_the_code_path_of_a_big_model():
    """Its captured mass equals eager attention, as for any other model, also beyond the window of its first layers."""
    scorer = QRScorer.from_pretrained(device="cpu", dtype="float32", layout="joint")
    texts = ["The bridge has six arches.", "Rye bread at five. " * 120]
    found, prompt = captured_masses(scorer, "How many arches?", [Document(text) for text in texts])
    assert len(prompt.ids) > scorer.reader.windows[0]
    model = AutoModelForCausalLM.from_pretrained(embedded_model(), attn_implementation="eager", dtype=torch.float32)
    expected = eager_masses(model, prompt.ids, prompt.query_start)
    for row, (layer, head) in zip(found, flat_heads(scorer), strict=True):
        assert torch.allclose(row, expected[layer, head], atol=1e-5)


@pytest.mark.parametrize(
    ("query", "best"),
    [
        ("how many arches does the bridge have", 0),
        ("At what time does the baker start?", 1),
        ("who painted the portrait of the duke", 3),
    ],
)
def test_it_finds_answers(embedded, query, best):
    documents = [
        "The old stone bridge over the Ellin has six arches.",
        "Every morning at five the baker lights the oven.",
        "Ships wait outside the harbour until the tide comes in.",
        "The duke's portrait was painted by Anna Lindqvist in 1790.",
        "Rain is expected in the north, with strong winds in the evening.",
    ]
    for order in ("given", "reversed"):
        assert embedded.rank(query, documents, order=order)[0].index == best
