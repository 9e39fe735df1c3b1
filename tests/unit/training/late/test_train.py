"""The command, on tiny data: it writes a folder that transformers loads, and learns what it is shown."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer, BertModel

from qr_core.training.late.grow import rotated, with_pooling
from qr_core.training.late.states import States
from qr_core.training.late.texts import Question
from qr_core.training.late.train import Recipe, Scorer, Start, main, ndcg, target, train

TINY = {"read": [{"after": 1, "logit": 6.0}, {"after": 3, "logit": 2.0, "power": 0.5}], "steps": 3, "questions": 2}


def test_the_folder_loads_and_its_states_are_the_pooled_encoders(data, init, tmp_path, capsys):
    (tmp_path / "recipe.json").write_text(json.dumps(TINY))
    out = tmp_path / "model"
    main(data=data, init=init, out=out, evaluation=[], leave_out=["faq"], config=tmp_path / "recipe.json")
    assert "faq: " in capsys.readouterr().out
    model, report = AutoModel.from_pretrained(out, dtype=torch.float32, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    ids = torch.tensor([[2, 17, 30, 41, 3]])
    with torch.no_grad():
        expected = with_pooling(BertModel.from_pretrained(init))(ids).last_hidden_state
        assert torch.allclose(model(ids).last_hidden_state, expected, atol=0.1)  # bfloat16
    heads = json.loads((out / "qrhead_heads.json").read_text())
    assert [pair[:2] for pair in heads["heads"]] == [[1, 0], [1, 1], [4, 0], [4, 1]]
    assert (
        AutoTokenizer.from_pretrained(out)("river").input_ids == AutoTokenizer.from_pretrained(init)("river").input_ids
    )


def test_training_finds_what_the_labels_say(init):
    torch.manual_seed(0)
    tokenizer, encoder = AutoTokenizer.from_pretrained(init), BertModel.from_pretrained(init).eval()
    texts, asked = ["river stone", "lamp bread", "tide oven", "bridge storm"], ["ship", "tower"]
    states, questions = States(encoder, tokenizer, texts, (2,)), States(encoder, tokenizer, asked, (2,))
    none = np.zeros(4, np.float32)
    shown = [
        Question(text, "s", [gold], [0, 1, 2, 3], lexical=none, dense=none)
        for text, gold in zip(asked, (3, 1), strict=True)
    ]
    recipe = Recipe(read=(Start(2, 2.0),), steps=60, questions=2, learning_rate=0.05, stay=0.0, label=1.0)
    scorer = Scorer(states, questions, {"ship": 0, "tower": 1}, heads=2, exponent=0.5)
    reader = train(shown, scorer, {2: rotated(states.sample(2, 99), 2, 2.0, 0.0, seed=0)}, recipe)
    assert reader.distance() > 0
    for question in shown:
        scores = scorer.scores(question.text, question.candidates, reader.projections())
        assert int(scores.argmax()) == question.golds[0]


def test_the_target_mixes_answers_and_teachers():
    scores = np.array([3, 1, 1, -1], np.float32)
    question = Question("q", "s", [7], [5, 7, 8, 9], lexical=scores, dense=scores)
    found = target(question, [0, 1, 3], Recipe(label=0.5))
    assert found.sum().item() == pytest.approx(1.0)
    assert found[1] > 0.5
    assert found[0] > found[2]
    assert target(question, [0, 1, 3], Recipe(label=1.0)).tolist() == [0, 1, 0]


def test_ndcg():
    assert ndcg([3, 2, 1], [True, False, False]) == 1.0
    assert ndcg([1, 2, 3], [True, False, False]) == 0.5
    assert ndcg([1, 1], [False, True]) == pytest.approx(1 / np.log2(3))
