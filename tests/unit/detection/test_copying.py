"""Copying heads and the causal check, on a model that can do nothing but copy; needles and haystacks."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qr_core import ContextLengthError, InputError
from qr_core.detection.copying import _ask, causal_check, copy_scores, copying_heads, needle_test
from qr_core.detection.needles import NEEDLES, Needle, default_haystack, hide, read_needles
from qr_core.generation import INSTRUCTION, LocalGenerator
from tests.planted import Planted, tokenizer

HAYSTACK = "The oven is lit at five. Bread is baked on every day of the week. The baker goes home at noon."
COPIER = (1, 2)


def rare_words(count: int) -> list[str]:
    """Words that are one token each and stand nowhere else in the prompt."""
    known = f"{HAYSTACK} {INSTRUCTION} Question: What is it? Answer:"
    pieces = [tokenizer().decode([token]) for token in range(300, 1900)]
    words = [p[1:] for p in pieces if p.startswith(" ") and p[1:].isalpha() and len(p) > 4 and p[1:] not in known]
    return words[:count]


WORDS = rare_words(6)
NEEDLE = Needle(" ".join(WORDS), "What is it?", " ".join(WORDS[2:]))


@pytest.fixture(scope="module")
def copier(tmp_path_factory):
    """Generators over a model that writes the needle, and over one whose copying head has lost its keys; and a case."""
    folder = tmp_path_factory.mktemp("copier")
    model = Planted()
    case = hide(HAYSTACK, NEEDLE, 0.5, None, len)
    asked = _ask(LocalGenerator.from_pretrained(model.save(folder / "blank"), device="cpu"), case)
    start, end = asked.needle
    chain = [asked.ids[-1], *asked.ids[start:end]]
    assert len(set(chain)) == len(chain)
    assert not set(chain[1:]) & set(asked.ids[:start] + asked.ids[end:])
    model.copy_chain(*COPIER, chain)
    whole = LocalGenerator.from_pretrained(model.save(folder / "whole"), device="cpu")
    model.destroy_keys(*COPIER)
    broken = LocalGenerator.from_pretrained(model.save(folder / "broken"), device="cpu")
    return whole, broken, case


def test_the_copying_head_is_found(copier):
    whole, broken, case = copier
    scores = copy_scores(whole, [case, case])
    assert float(scores[COPIER]) == 1.0
    scores[COPIER] = 0
    assert float(scores.max()) < 0.5
    found = copying_heads(whole, copy_scores(whole, [case]), 2, 1)
    assert found.heads[0] == (*COPIER, 1.0)
    assert found.criterion == "copy-paste"
    assert len(found.provenance.scores) == 8
    assert float(copy_scores(broken, [case])[COPIER]) < 0.5


def test_silencing_the_copying_head_breaks_retrieval_and_random_ones_do_not(copier):
    whole, _, case = copier
    results = causal_check(whole, [case], {"copier": [COPIER]}, draws=4)
    assert results["none"][0].recall == 1.0
    assert results["copier"][0].recall == 0.0
    assert [r.recall for r in results["random, as many as copier"]] == [1.0] * 4
    assert results["copier"][0].log_probability < results["none"][0].log_probability - 5
    assert needle_test(whole, [case]) == results["none"][0]  # nothing stays silenced


def test_a_haystack_over_the_context(copier):
    long = hide(HAYSTACK, NEEDLE, 0.5, 5000, lambda text: len(text.split()))
    with pytest.raises(ContextLengthError):
        copy_scores(copier[0], [long])


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([0, 0.1, 0.5, 0.9, 1]), st.none() | st.integers(20, 600), st.sampled_from(NEEDLES))
def test_a_needle_is_hidden_whole_within_its_length(depth, tokens, needle):
    def count(text):
        return len(text.split())

    hidden = hide(HAYSTACK, needle, depth, None if tokens is None else tokens + count(needle.sentence), count)
    assert hidden.text[hidden.start : hidden.end] == needle.sentence
    if tokens is not None:
        assert count(hidden.text) <= tokens + count(needle.sentence)
    if depth == 0:
        assert hidden.start == 0
    if depth == 1:
        assert hidden.end == len(hidden.text)


def test_needles_from_a_file(tmp_path):
    path = tmp_path / "needles.jsonl"
    path.write_text(json.dumps({"needle": "A b c.", "question": "q?", "answer": "b c"}))
    assert read_needles(path) == [Needle("A b c.", "q?", "b c")]
    for row, words in (
        ({"needle": "A."}, "expected the strings"), ({"needle": "A.", "question": "q", "answer": "B"}, "not part"),
    ):  # fmt: skip
        path.write_text(json.dumps(row))
        with pytest.raises(InputError, match=f"line 1: .*{words}"):
            read_needles(path)
    path.write_text("")
    with pytest.raises(InputError, match="holds no needles"):
        read_needles(path)
    with pytest.raises(InputError, match="blank"):
        hide(" \n", NEEDLE, 0.5, None, len)
    with pytest.raises(InputError, match="no room"):
        hide(HAYSTACK, NEEDLE, 0.5, 3, len)
    assert len(default_haystack()) > 2000


def test_scores_do_not_depend_on_the_number_of_threads(copier):
    whole, _, case = copier
    one = copy_scores(whole, [case])
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert torch.equal(copy_scores(whole, [case]), one)
    finally:
        torch.set_num_threads(before)
