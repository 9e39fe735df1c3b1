"""The embedded model: what ships, and that it is useful."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

from qr_core import Document, QRScorer
from qr_core.chain import ChainOptions
from qr_core.generation.choose import generator_of
from qr_core.mini import EMBEDDED, embedded_model, named_model
from tests.helpers import captured_masses, eager_masses, flat_heads


@pytest.mark.parametrize("model", EMBEDDED)
def test_it_is_small_and_carries_its_card(model):
    folder = embedded_model(model)
    assert max(file.stat().st_size for file in folder.iterdir()) < 48e6
    assert not list(folder.glob("*.bin"))
    card = (folder / "README.md").read_text()
    for words in ("all-MiniLM-L6-v2", "Apache-2.0", "CC BY-SA", "sha256"):
        assert words in card


def test_every_name_is_resolved_in_one_place():
    for key, one in EMBEDDED.items():
        found = named_model(key)
        assert named_model(one.name) == found  # reports and head sets say that one
        assert (found.name, found.embedded, Path(found.place).name) == (one.name, True, one.folder)
        assert (Path(found.place) / "config.json").is_file()
    assert named_model(None) == named_model("embedded")
    assert len({one.name for one in EMBEDDED.values()}) == len(EMBEDDED)
    for other in ("org/embedded", "./embedded", "gpt2", Path("embedded")):
        found = named_model(other)
        assert (found.name, found.place, found.embedded) == (str(other), str(other), False)


@pytest.mark.parametrize("key", EMBEDDED)
def test_every_place_that_names_a_model_knows_the_embedded_ones(key):
    """Of those without a test of their own: the scorer, the adapters and the generators."""
    shown = EMBEDDED[key].name
    scorer = QRScorer.from_pretrained(key, device="cpu")
    assert scorer.model_name == scorer.heads.model == shown
    assert scorer.rank("How many arches?", ["Rye bread.", "The bridge has six arches."])[0].index == 1
    again = QRScorer.from_pretrained(key, heads=scorer.heads, device="cpu")
    assert again.heads == scorer.heads
    assert ChainOptions(model=key).model_name == shown
    assert ChainOptions(model=key, device="cpu").scorer.model_name == shown
    if EMBEDDED[key].writes:
        assert generator_of(key, device="cpu").name == shown
    assert scorer.model is QRScorer.from_pretrained(shown, device="cpu").model  # one copy of the weights


def test_the_commands_take_the_names(run):
    asked = ["rank", "--query", "q", "--docs", "-", "--format", "json", "--device", "cpu", "--model"]
    for key in EMBEDDED:
        status, out, _ = run(*asked, key, stdin=b"a document\n")
        assert status == 0
        assert f'"model": "{EMBEDDED[key].name}"' in out


def test_the_fast_one_loads_as_an_ordinary_causal_model():
    folder = embedded_model("embedded-fast")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert type(model).__name__ == "MinistralForCausalLM"
    made = model.generate(**tokenizer("Here are some", return_tensors="pt", add_special_tokens=False), max_new_tokens=5)
    assert made.shape[1] <= 8


def test_it_is_read_as_an_ordinary_encoder():
    """Queries and keys of its read layers, by torch's own means from each text alone, give the masses that count."""
    scorer = QRScorer.from_pretrained(device="cpu", dtype="float32")
    texts = ["The bridge has six arches.", "Rye bread at five."]
    masses = scorer.token_masses("How many arches?", [Document(text) for text in texts])
    model, report = AutoModel.from_pretrained(embedded_model(), dtype=torch.float32, output_loading_info=True)
    assert type(model).__name__ == "BertModel"
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    tokenizer = AutoTokenizer.from_pretrained(embedded_model())
    states = []
    for text in [*texts, "How many arches?"]:
        with torch.no_grad():
            given = model.eval()(**tokenizer(text, return_tensors="pt"), output_hidden_states=True).hidden_states
        states.append([state[0, 1:-1] for state in given])  # without what the tokenizer puts around a text
    rows = []
    for layer, head in flat_heads(scorer):
        own, part = model.encoder.layer[layer].attention.self, slice(32 * head, 32 * head + 32)
        keys = torch.cat([own.key(state[layer])[:, part] for state in states[:-1]])
        logits = own.query(states[-1][layer])[:, part] @ keys.T / 32**0.5
        rows.append(logits.softmax(dim=-1).mean(dim=0))
    assert torch.allclose(masses.raw[:, 1:], torch.stack(rows), atol=1e-5)  # the first is the begin token's


def test_the_fast_one_takes_the_code_path_of_a_big_model():
    """Its captured mass equals eager attention, as for any other model, also beyond the window of its first layers."""
    folder = embedded_model("embedded-fast")
    scorer = QRScorer.from_pretrained("embedded-fast", device="cpu", dtype="float32", layout="joint")
    texts = ["The bridge has six arches.", "Rye bread at five. " * 120]
    found, prompt = captured_masses(scorer, "How many arches?", [Document(text) for text in texts])
    assert len(prompt.ids) > scorer.reader.windows[0]
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32)
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
