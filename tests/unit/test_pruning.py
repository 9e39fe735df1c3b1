"""Pruning: budgets that hold, spans of the original in order, nothing rewritten."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from qr_core import Document, InputError, QRScorer
from qr_core.checks import encodable
from qr_core.chunking import units
from qr_core.pruning import Budget, Candidate, Rendering, render, select
from qr_core.types import Span
from tests.helpers import GOLDEN

HANDBOOK = """# Guest handbook

Welcome to the mill house. The miller's family built it in 1867.

## Heating

The boiler stands in the cellar. Turn the red tap a quarter to start it. Let it run for ten minutes before you bathe.

- Wood is in the shed.
- Ash goes into the iron bucket.

## Rubbish

Paper is collected on the first Monday of the month. Glass goes to the container behind the church.
"""


def check(pruned, documents: list[str], count, max_tokens=None):
    """What holds for every pruning without titles and ellipsis."""
    place = (0, 0)
    for span in pruned.spans:
        assert (span.index, span.start) >= place
        assert 0 <= span.start < span.end <= len(documents[span.index])
        place = (span.index, span.end)
    parts = [documents[span.index][span.start : span.end] for span in pruned.spans]
    rest = pruned.text
    for part in parts:  # every kept part stands in the text, in order, with only white space between
        before, found, rest = rest.partition(part)
        assert found
        assert not before.strip()
    assert not rest.strip()
    assert pruned.kept_tokens == (count(pruned.text) if pruned.spans else 0)
    if max_tokens is not None:
        assert pruned.kept_tokens <= max_tokens


PIECES = st.sampled_from(
    ["Word. ", "two words ", "! ", "\n", "\r\n", "\n\n", "# h\n", "- a\n", "é", "e\u0301", "😀", "\0", "\ud800",
     "[SEP]",
     "[2] ", "\u202e", "x" * 300, " " * 50, "Anna: "]
)  # fmt: skip
TEXTS = st.one_of(st.text(max_size=60), st.lists(PIECES, max_size=25).map("".join))


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.one_of(TEXTS, st.lists(TEXTS, max_size=4)),
    st.integers(1, 60),
    st.sampled_from(["document", "paragraph", "sentence", "turn"]),
    st.sampled_from(["text", "markdown", "chat"]),
    st.booleans(),
)
def test_any_text_within_any_budget(embedded, documents, max_tokens, unit, text_format, headings):
    pruned = embedded.prune(
        "two words", documents, max_tokens=max_tokens, unit=unit, text_format=text_format, headings=headings
    )
    texts = [documents] if isinstance(documents, str) else documents
    count = lambda text: len(embedded.tokenizer(encodable(text), add_special_tokens=False)["input_ids"])  # noqa: E731
    check(pruned, texts, count, max_tokens)
    everything = embedded.prune("two words", documents, top_k=10**6, unit=unit, text_format=text_format)
    kept = "".join(texts[s.index][s.start : s.end] for s in everything.spans)
    assert "".join(kept.split()) == "".join("".join(texts).split())


WORDS = st.lists(st.text(alphabet="ab", min_size=1, max_size=3), min_size=1, max_size=4).map(" ".join)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.lists(WORDS, min_size=1, max_size=6).map(". ".join), min_size=1, max_size=4),
    st.randoms(),
    st.integers(1, 30),
    st.sampled_from([None, "[...]"]),
    st.booleans(),
)
def test_the_rendered_text_never_exceeds_the_budget(texts, rng, max_tokens, ellipsis, titles):
    documents = [Document(text, f"Title {number}") for number, text in enumerate(texts)]
    ranked = [
        Candidate(number, unit.start, unit.end, 1.0, 0.5)
        for number, text in enumerate(texts)
        for unit in units(text, "sentence")
    ]
    rng.shuffle(ranked)
    count = lambda text: len(text.split())  # noqa: E731
    rendering = Rendering(ellipsis, titles=titles)
    spans, rendered, tokens = select(documents, ranked, Budget(max_tokens), rendering, count)
    joined = "\n\n".join(text for _, text in rendered)
    assert tokens == count(joined) <= max_tokens
    assert spans == sorted(spans, key=lambda span: (span.index, span.start))
    assert [index for index, _ in rendered] == sorted({span.index for span in spans})
    for index, text in rendered:
        assert text.startswith(f"Title {index}\n") == titles
    best = ranked[0]
    cost = count(texts[best.index][best.start : best.end]) + 2 * titles + 2 * bool(ellipsis)
    if cost <= max_tokens and not ellipsis:
        assert Span(best.index, best.start, best.end, 1.0) in spans


def test_the_answer_is_kept(embedded):
    pruned = embedded.prune("How do I start the boiler?", HANDBOOK, max_tokens=40, text_format="markdown")
    assert "Turn the red tap a quarter to start it." in pruned.text
    assert pruned.kept_tokens <= 40 < pruned.total_tokens
    assert "Glass" not in pruned.text
    assert pruned.to_dict()["spans"][0].keys() == {"index", "start", "end", "score", "heading"}


def test_headings_come_with_what_stands_under_them(embedded):
    options = {"top_k": 1, "text_format": "markdown"}
    query = "What goes to the container behind the church?"
    assert embedded.prune(query, HANDBOOK, **options).text == "Glass goes to the container behind the church."
    with_headings = embedded.prune(query, HANDBOOK, headings=True, **options)
    assert with_headings.text == "# Guest handbook\n\n## Rubbish\n\nGlass goes to the container behind the church."
    assert [span.heading for span in with_headings.spans] == [True, True, False]


def test_ellipsis_and_titles():
    documents = [Document("One. Two. Three.\n\nFour.", "Numbers"), Document("Five.", "More")]
    spans = [Span(0, 5, 9, 1.0), Span(0, 18, 23, 1.0), Span(1, 0, 5, 1.0)]
    assert render(documents, spans, Rendering()) == [(0, "Two.\n\nFour."), (1, "Five.")]
    assert render(documents, spans, Rendering("…", titles=True)) == [
        (0, "Numbers\n… Two.\n\n…\n\nFour."),
        (1, "More\nFive."),
    ]
    assert render(documents, spans[:1], Rendering("…")) == [(0, "… Two. …")]


def test_units_of_documents(embedded):
    documents = [
        "Glass is green. Paper is white.",
        {"title": "Boiler", "text": "The boiler is in the cellar.", "id": "b"},
    ]
    pruned = embedded.prune("Where is the boiler?", documents, top_k=1, unit="document")
    assert [(span.index, span.start, span.end) for span in pruned.spans] == [(1, 0, 28)]
    ranking = embedded.rank("Where is the boiler?", documents)
    assert pruned.spans[0].score == pytest.approx(ranking[0].score, abs=1e-6)
    assert pruned.texts == ((1, "The boiler is in the cellar."),)


def test_turns_of_a_chat(embedded):
    chat = "Anna: I lost my key.\nBen: Which one?\nAnna: The key to the boat house.\nBen: It hangs in the kitchen."
    pruned = embedded.prune("Where does the key hang?", chat, unit="turn", top_k=1)
    assert pruned.text in chat.splitlines()


def test_least_relevance_and_least_number(embedded):
    query = "How do I start the boiler?"
    none = embedded.prune(query, HANDBOOK, min_relevance=1.0)
    assert none.spans == ()
    assert (none.text, none.kept_tokens) == ("", 0)
    two = embedded.prune(query, HANDBOOK, min_relevance=1.0, min_keep=2)
    assert len(two.spans) == 2
    some = embedded.prune(query, HANDBOOK, min_relevance=0.1)
    assert 0 < len(some.spans) < len(embedded.prune(query, HANDBOOK, min_relevance=0.0).spans)
    assert embedded.prune(query, HANDBOOK, min_relevance=0.1, max_tokens=3, min_keep=1).kept_tokens <= 3


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


def test_windows_prune_as_well():
    scorer = QRScorer.from_pretrained(max_prompt_tokens=300)
    text = "\n\n".join(f"Room {i} has a view of the yard and a bed for {i} guests, no more." for i in range(60))
    text = text.replace("Room 41 has a view", "The bell tower was repaired in 1902. Room 41 has a view")
    pruned = scorer.prune("When was the bell tower repaired?", text, max_tokens=20)
    assert pruned.windows > 3
    assert "The bell tower was repaired in 1902." in pruned.text


def test_blank_input_loads_no_weights():
    scorer = QRScorer.from_pretrained(dtype="float16")
    for blank in ("", " \n", [], ["", " "]):
        assert scorer.prune("anything", blank, max_tokens=10).text == ""
    assert scorer.reader.model.loaded_layers == 0


def test_one_character(embedded):
    assert embedded.prune("x", "y", max_tokens=1).text == "y"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "nothing says how much to keep"),
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"top_k": True}, "top_k is True"),
        ({"min_relevance": 2}, "min_relevance is 2"),
        ({"max_tokens": 5, "min_keep": -1}, "min_keep is -1"),
        ({"max_tokens": 5, "unit": "word"}, "unit is 'word'"),
        ({"max_tokens": 5, "text_format": "pdf"}, "text_format is 'pdf'"),
        ({"max_tokens": 5, "order": "up"}, "order is 'up'"),
        ({"max_tokens": 5, "tokenizer": "gpt"}, "tokenizer to count with is of type str"),
    ],
)
def test_unusable_options(embedded, options, words):
    with pytest.raises(InputError, match=words):
        embedded.prune("q", HANDBOOK, **options)


async def _pruned(scorer):
    return await scorer.aprune("How do I start the boiler?", HANDBOOK, max_tokens=30)


def test_async(embedded):
    import asyncio

    assert asyncio.run(_pruned(embedded)) == embedded.prune("How do I start the boiler?", HANDBOOK, max_tokens=30)
