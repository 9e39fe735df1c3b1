"""Counting: budgets are counted as the caller counts."""

from __future__ import annotations

import pytest
from transformers import AutoTokenizer

from qr_core import InputError
from tests.helpers import GOLDEN
from tests.unit.text.cutting import HANDBOOK


@pytest.mark.parametrize("value", [None, "3", float("nan"), float("inf"), -1])
def test_a_count_that_is_no_number_is_named(embedded, value):
    with pytest.raises(InputError, match="function to count tokens with gave"):
        embedded.prune("q", HANDBOOK, max_tokens=5, tokenizer=lambda text: value)


def test_parts_of_tokens_are_rounded_up(embedded):
    quarter = lambda text: len(text) / 4  # noqa: E731 - the usual estimate
    assert embedded.prune("x", "a" * 43, max_tokens=10, tokenizer=quarter).text == ""
    assert embedded.prune("x", "a" * 40, max_tokens=10, tokenizer=quarter).kept_tokens == 10


def test_kept_tokens_are_counted_as_the_whole_is(embedded):
    for titles in (False, True):
        documents = [{"text": text, "title": "T"} for text in ("a", "b", "c")]
        pruned = embedded.prune("a", documents, top_k=3, unit="document", tokenizer=len, titles=titles)
        assert pruned.kept_tokens == pruned.total_tokens == len("a\n\nb\n\nc") + 6 * titles


def test_the_budget_is_counted_with_the_callers_tokenizer(embedded):
    golden_tokenizer = AutoTokenizer.from_pretrained(GOLDEN / "tiny-llama")
    query = "How do I start the boiler?"
    for tokenizer, count in (
        (golden_tokenizer, lambda text: len(golden_tokenizer(text, add_special_tokens=False)["input_ids"])),
        (len, len),
    ):
        pruned = embedded.prune(query, HANDBOOK, max_tokens=150, tokenizer=tokenizer)
        assert pruned.kept_tokens == count(pruned.text) <= 150
        assert pruned.total_tokens == count(HANDBOOK)
