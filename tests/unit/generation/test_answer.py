"""Select, then generate: the answer comes from what was kept."""

from __future__ import annotations

import pytest

from qr_core import QRScorer
from qr_core.generation import LocalGenerator, ask
from tests.helpers import GOLDEN

TEXT = "The ferry leaves at seven. " * 3 + "Bread is baked on Fridays. " * 3 + "The ferry is painted blue."
QUERY = "What colour is the ferry?"


def test_scorer_and_generator_share_their_weights():
    scorer = QRScorer.from_pretrained("embedded-fast", dtype="float32")
    before = scorer.rank(QUERY, [TEXT, "Bread."])[0].score
    assert scorer.reader.model.loaded_layers == 3
    generator = LocalGenerator(scorer.source, "mini")
    answer = ask(scorer, QUERY, TEXT, generator, max_tokens=20, max_new_tokens=8)
    assert answer.text
    assert answer.generator == "mini"
    assert answer.pruned.kept_tokens <= 20
    assert generator.model is scorer.reader.model
    assert scorer.reader.model.loaded_layers == 4
    assert scorer.reader.model.at_depth(1) is generator.model.generator().base_model
    assert scorer.rank(QUERY, [TEXT, "Bread."])[0].score == pytest.approx(before, abs=1e-6)
    assert answer.to_dict()["context"]["text"] == answer.pruned.text


def test_an_endpoint_answers_from_the_selected_parts(embedded, stub, endpoint):
    answer = ask(embedded, QUERY, TEXT, endpoint(), max_tokens=12)
    assert answer.text == "Blue."
    assert answer.generator == "stub"
    sent = stub.seen[0]
    assert sent["model"] == "stub"
    content = sent["messages"][0]["content"]
    assert content.index(answer.pruned.text) < content.index(QUERY)
    assert answer.pruned.kept_tokens <= 12


def test_the_budget_is_counted_with_the_generators_tokenizer(embedded):
    generator = LocalGenerator.from_pretrained(GOLDEN / "tiny-llama", device="cpu")
    answer = ask(embedded, QUERY, TEXT, generator, max_tokens=30, max_new_tokens=2)
    count = len(generator.tokenizer(answer.pruned.text, add_special_tokens=False)["input_ids"])
    assert answer.pruned.kept_tokens == count <= 30
    assert answer.pruned.total_tokens == len(generator.tokenizer(TEXT, add_special_tokens=False)["input_ids"])


def test_ask_on_the_command_line_with_an_endpoint(stub, tmp_path, run):
    path = tmp_path / "notes.txt"
    path.write_text(TEXT)
    options = ["--query", QUERY, "--file", str(path), "--max-tokens", "12", "--generator", stub.url]
    status, out, err = run("ask", *options)
    assert (status, out) == (0, "Blue.\n")
    assert "stub answers" in err
    stub.script = [(401, {"error": {"message": "no key"}}, 0)]
    status, out, err = run("ask", *options, "--generator-model", "stub")
    assert (status, out) == (2, "")
    assert err.strip().splitlines()[-1].startswith("qrhead: ")
    status, _, err = run("ask", *options[:-2], "--generator-model", "stub")
    assert status == 2
    assert "name it with --generator" in err
