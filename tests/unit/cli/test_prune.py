"""`qrhead prune` and `qrhead ask`: the kept text, and an answer from it."""

from __future__ import annotations

import json

import pytest
from transformers import AutoTokenizer

from qr_core import generation
from tests.helpers import GOLDEN

MANUAL = (
    "# Boiler\n\nTurn the red tap to start the boiler. "
    + "The cellar is cold. " * 40
    + "\n\n## Glass\n\nTo the church."
)


def test_prune_prints_the_kept_text_alone(run, tmp_path):
    path = tmp_path / "manual.md"
    path.write_text(MANUAL)
    options = ["--query", "How do I start the boiler?", "--file", str(path), "--max-tokens", "12"]
    status, out, err = run("prune", *options)
    assert status == 0
    assert "Turn the red tap" in out
    assert "kept " in err
    status, printed, _ = run("prune", *options, "--format", "json")
    answer = json.loads(printed)
    assert answer["text"] + "\n" == out
    assert answer["kept_tokens"] <= 12 < answer["total_tokens"]
    assert all(MANUAL[s["start"] : s["end"]] in answer["text"] for s in answer["spans"])


def test_prune_reads_standard_input_and_chats(run):
    chat = "Anna: The key is lost.\nBen: The key hangs in the boat house.\nAnna: Good.\n"
    status, out, _ = run(
        "prune", "--query", "Where does the key hang?", "--file", "-", "--unit", "turn", "--top-k", "1",
        stdin=chat.encode(),
    )  # fmt: skip
    assert status == 0
    assert out.strip() in chat.splitlines()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([], "nothing says how much to keep"),
        (["--max-tokens", "0"], "max_tokens is 0"),
        (["--max-tokens", "5", "--tokenizer", "/nowhere"], "model folder /nowhere does not exist"),
        (["--max-tokens", "5", "--file", "/nowhere.txt"], "cannot read /nowhere.txt"),
    ],
)
def test_prune_refuses_bad_options(run, args, words):
    status, _, err = run("prune", "--query", "q", "--file", "-", *args, stdin=b"text")
    assert status == 2
    assert words in err


def test_ask_answers_from_the_kept_text(run, tmp_path):
    path = tmp_path / "manual.md"
    path.write_text(MANUAL)
    options = ["--query", "Where does glass go?", "--file", str(path), "--max-tokens", "15", "--max-new-tokens", "4"]
    status, _, err = run("ask", *options)
    assert status == 2
    assert "it does not write sensibly: name a model that answers with --generator" in err
    status, printed, _ = run("ask", *options, "--generator", str(GOLDEN / "tiny-llama"), "--format", "json")
    assert status == 0
    answer = json.loads(printed)
    assert answer["context"]["kept_tokens"] <= 15
    assert isinstance(answer["answer"], str)
    status, _, err = run("ask", *options, "--generator", "http://127.0.0.1:9/v1", "--generator-model", "m")
    assert status == 2
    assert "cannot be reached" in err


def test_prune_options_reach_the_pruner(run, tmp_path):
    path = tmp_path / "manual.md"
    path.write_text(MANUAL)
    options = ["--query", "How do I start the boiler?", "--file", str(path), "--format", "json"]

    def pruned(*more):
        status, out, err = run("prune", *options, *more)
        assert status == 0, err
        return json.loads(out)

    assert pruned("--max-tokens", "20", "--headings")["text"].startswith("# Boiler\n\nTurn the red tap")
    sentence = MANUAL.index("The cellar is cold.")
    under = next(s for s in pruned("--top-k", "50", "--headings")["spans"] if s["start"] == sentence)
    assert not under["heading"]
    as_text = pruned("--max-tokens", "20", "--headings", "--input-format", "text")
    assert not any(span["heading"] for span in as_text["spans"])
    assert "(...)" in pruned("--max-tokens", "20", "--ellipsis", "(...)")["text"]
    assert pruned("--min-relevance", "1")["spans"] == []
    assert len(pruned("--min-relevance", "1", "--min-keep", "2")["spans"]) == 2
    assert len(pruned("--top-k", "3")["spans"]) == 3
    assert pruned("--top-k", "1", "--max-prompt-tokens", "120")["windows"] > 1
    counted = pruned("--max-tokens", "30", "--tokenizer", str(GOLDEN / "tiny-llama"))
    tokenizer = AutoTokenizer.from_pretrained(GOLDEN / "tiny-llama")
    assert counted["kept_tokens"] == len(tokenizer(counted["text"], add_special_tokens=False)["input_ids"]) <= 30


def test_ask_shares_the_scorers_weights(run, tmp_path, monkeypatch):
    made = []
    original = generation.ask
    monkeypatch.setattr(
        generation, "ask", lambda scorer, *a, **k: made.append((scorer, a[2])) or original(scorer, *a, **k)
    )
    path = tmp_path / "manual.md"
    path.write_text(MANUAL)
    model = str(GOLDEN / "tiny-llama")
    status, _, err = run(
        "ask", "--query", "q", "--file", str(path), "--max-tokens", "15", "--max-new-tokens", "2", "--model", model,
        "--heads", "1-1", "--template", "plain", "--device", "cpu",
    )  # fmt: skip
    assert status == 0, err
    ((scorer, generator),) = made
    assert generator.model is scorer.reader.model
