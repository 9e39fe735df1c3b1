"""Retrieval heads and the causal check, on a model that can do nothing but copy."""

from __future__ import annotations

import pytest
import torch

from qr_core import ContextLengthError, InputError
from qr_core.detection.copying import _ask, causal_check, copy_scores, needle_test, retrieval_heads
from qr_core.detection.needles import Needle, hide
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


def test_the_retrieval_head_is_found(copier):
    whole, broken, case = copier
    scores = copy_scores(whole, [case, case])
    assert float(scores[COPIER]) == 1.0
    scores[COPIER] = 0
    assert float(scores.max()) < 0.5
    found = retrieval_heads(whole, copy_scores(whole, [case]), 2, 1)
    assert found.heads[0] == (*COPIER, 1.0)
    assert found.criterion == "copy-paste"
    assert len(found.provenance.scores) == 8
    with pytest.raises(InputError, match="only 8 heads"):
        retrieval_heads(whole, scores, 9, 1)
    assert float(copy_scores(broken, [case])[COPIER]) < 0.5


def test_ablating_the_retrieval_head_breaks_retrieval_and_random_ones_do_not(copier):
    whole, _, case = copier
    results = causal_check(whole, [case], {"copier": [COPIER]}, draws=4)
    assert results["none"][0].recall == 1.0
    assert results["copier"][0].recall == 0.0
    assert [r.recall for r in results["random, as many as copier"]] == [1.0] * 4
    assert results["copier"][0].log_probability < results["none"][0].log_probability - 5
    assert needle_test(whole, [case]) == results["none"][0]  # no head stays ablated


def test_a_haystack_over_the_context(copier):
    long = hide(HAYSTACK, NEEDLE, 0.5, 5000, lambda text: len(text.split()))
    with pytest.raises(ContextLengthError):
        copy_scores(copier[0], [long])


def test_scores_do_not_depend_on_the_number_of_threads(copier):
    whole, _, case = copier
    one = copy_scores(whole, [case])
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert torch.equal(copy_scores(whole, [case]), one)
    finally:
        torch.set_num_threads(before)
