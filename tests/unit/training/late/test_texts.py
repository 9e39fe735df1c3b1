"""Sources are read in full, overlapping text is left out, and candidates hold the answer."""

from __future__ import annotations

import numpy as np
import pytest

from qr_core.training.late.texts import add_candidates, read


@pytest.fixture
def texts(data):
    found = read(data, left_out=lambda text: False)
    rng = np.random.default_rng(0)
    unit = lambda n: (v := rng.normal(size=(n, 4)).astype(np.float32)) / np.linalg.norm(v, axis=1, keepdims=True)  # noqa: E731
    asked = [q.text for s in found.sources.values() for q in (*s.training, *s.held_out)]
    add_candidates(found, unit(len(found.texts)), dict(zip(asked, unit(len(asked)), strict=True)))
    return found


def test_every_source_is_there_but_the_one_without_negatives(texts):
    assert sorted(texts.sources) == ["claims", "faq", "hops", "manuals", "nqg"]
    assert len(texts.texts) == len(set(texts.texts))


def test_sentences_that_follow_each_other_are_joined(texts):
    counts = [texts.texts[place].count(".") for place in texts.sources["nqg"].passages]
    assert min(counts[:-1]) >= 2
    assert max(counts) <= 6


def test_held_out_questions_are_not_trained_on(texts):
    for source in texts.sources.values():
        trained = {question.text for question in source.training}
        assert source.held_out
        assert not any(question.text in trained for question in source.held_out)


def test_candidates_hold_the_answers_and_have_scores(texts):
    for source in texts.sources.values():
        for question in (*source.training, *source.held_out):
            assert set(question.golds) <= set(question.candidates)
            assert len(set(question.candidates)) == len(question.candidates) <= 20
            assert question.lexical.shape == question.dense.shape == (len(question.candidates),)
            if question.given:
                assert len(question.candidates) == 7


def test_what_stands_in_evaluation_text_is_left_out(data, texts):
    banned = {texts.texts[place].split("\n")[-1] for place in texts.sources["faq"].passages[:5]}
    banned.add(texts.sources["hops"].training[0].text)
    found = read(data, left_out=lambda text: text in banned)
    questions = [q.text for s in found.sources.values() for q in (*s.training, *s.held_out)]
    assert not banned & {text.split("\n")[-1] for text in found.texts}
    assert not banned & set(questions)
