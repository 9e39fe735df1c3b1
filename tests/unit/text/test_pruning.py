"""Pruning: budgets that hold, spans of the original in order, nothing rewritten."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qr_core import Document, InputError, QRScorer
from qr_core.checks import encodable
from qr_core.text.counting import counter
from qr_core.text.pruning import Budget, Candidate, Rendering, render, select
from qr_core.types import Span
from tests.unit.text.cutting import HANDBOOK, units


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
    st.sampled_from(["given", "reversed"]),
    st.none() | st.integers(1, 5),
    st.booleans(),
)
def test_any_text_within_any_budget(
    embedded, documents, max_tokens, unit, text_format, headings, order, top_k, characters
):
    pruned = embedded.prune(
        "two words", documents, max_tokens=max_tokens, unit=unit, text_format=text_format, headings=headings,
        order=order, top_k=top_k, tokenizer=len if characters else None,
    )  # fmt: skip
    texts = [documents] if isinstance(documents, str) else documents
    tokens = lambda text: len(embedded.tokenizer(encodable(text), add_special_tokens=False)["input_ids"])  # noqa: E731
    check(pruned, texts, len if characters else tokens, max_tokens)
    assert top_k is None or sum(not span.heading for span in pruned.spans) <= top_k
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
    kept = {(span.index, span.start, span.end) for span in spans}
    for unit in ranked:  # nothing that would have fitted is left out
        if (unit.index, unit.start, unit.end) in kept:
            continue
        more = sorted([*spans, Span(unit.index, unit.start, unit.end, 1.0)], key=lambda s: (s.index, s.start))
        longer = "\n\n".join(text for _, text in render(documents, more, rendering))
        assert count(longer) > max_tokens


BOILER = "The boiler stands in the cellar. Turn the red tap a quarter to start it. Glass goes to the church. Yes."


@pytest.mark.parametrize("ellipsis", [None, "[...]"])
def test_more_room_never_keeps_nothing(embedded, ellipsis):
    kept = []
    for max_tokens in range(1, 40):
        pruned = embedded.prune("How do I start the boiler?", BOILER, max_tokens=max_tokens, ellipsis=ellipsis)
        assert pruned.kept_tokens <= max_tokens
        kept.append(bool(pruned.spans))
    assert kept == sorted(kept)
    assert kept.index(True) < 8


def ranked_words(text: str) -> list[Candidate]:
    found = [Candidate(0, u.start, u.end, 1.0, 0.5) for u in units(text, "sentence")]
    return sorted(found, key=lambda unit: -unit.end)


@pytest.mark.parametrize(
    ("count", "max_tokens", "least"),
    [
        (lambda text: 3 + len(text.split()), 43, 10),  # special tokens on every text
        (lambda text: -(-len(text) // 100), 3, 10),
        (lambda text: len(text.split()) ** 2, 400, 5),
        (lambda text: len(set(text.split())), 20, 15),
        (lambda text: len(text) / 4, 40, 6),
    ],
)
def test_counts_that_do_not_add_up_still_fill_the_budget(count, max_tokens, least):
    text = " ".join(f"The number {n} is." for n in range(30))
    exact = counter(count, None)
    spans, rendered, tokens = select([Document(text)], ranked_words(text), Budget(max_tokens), Rendering(), exact)
    assert count(rendered[0][1]) <= tokens <= max_tokens
    assert len(spans) >= least


def test_top_k_and_max_tokens_together(embedded):
    query = "How do I start the boiler?"
    both = embedded.prune(query, HANDBOOK, top_k=3, max_tokens=30)
    three = embedded.prune(query, HANDBOOK, top_k=3)
    assert {(s.start, s.end) for s in both.spans} <= {(s.start, s.end) for s in three.spans}
    assert 0 < len(both.spans) <= 3
    assert both.kept_tokens <= 30


def test_reversed_documents_keep_their_spans(embedded):
    """The prompt's order changes scores, not what spans point at."""
    texts = ["Glass is green. The boiler is in the cellar.", "Paper is white. The attic is dry.", "Yes. No."]
    query = "Where is the boiler?"
    given = embedded.prune(query, texts, top_k=10)
    there = embedded.prune(query, texts[::-1], top_k=10, order="reversed")
    for span in there.spans:
        same = next(s for s in given.spans if (2 - s.index, s.start, s.end) == (span.index, span.start, span.end))
        assert span.score == pytest.approx(same.score, abs=1e-6)
    assert len(there.spans) == len(given.spans) == 6
    small = QRScorer.from_pretrained(max_prompt_tokens=90)
    long = ["Nothing of note happened here that year. " * 8, *texts]
    found = small.prune(query, long, top_k=1, order="reversed")
    assert found.segments > 1
    assert found.text == "The boiler is in the cellar."


def test_a_kept_heading_stands_once():
    text = "# Boiler\n\nIt is in the cellar."
    heading, part = units(text, "paragraph", "markdown")
    ranked = [Candidate(0, u.start, u.end, 1.0, 0.5, u.headings) for u in (part, heading)]
    spans, rendered, _ = select([Document(text)], ranked, Budget(top_k=2), Rendering(headings=True), len)
    assert [(span.start, span.end, span.heading) for span in spans] == [(0, 8, False), (10, 30, False)]
    assert rendered == [(0, text)]
    alone, rendered, _ = select([Document(text)], ranked[:1], Budget(max_tokens=25), Rendering(headings=True), len)
    assert alone == []  # not without its heading
    assert rendered == []


@pytest.mark.parametrize(
    ("text", "keep", "expected"),
    [
        ("Para one.\n\n```py\nx = 1\n```\n\nPara two.", "```py", "[...]\n\n```py\nx = 1\n```\n\n[...]"),
        ("One.\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\nTwo.", "| a", "[...]\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n[...]"),
        ("One.\n\n# Head\n\nTwo.", "# Head", "[...]\n\n# Head\n\n[...]"),
        ("One. Two. Three.", "Two.", "[...] Two. [...]"),
    ],
)  # fmt: skip
def test_marks_leave_markdown_blocks_whole(text, keep, expected):
    part = next(u for u in units(text, "sentence", "markdown") if text[u.start :].startswith(keep))
    rendering = Rendering("[...]", markdown=True)
    assert render([Document(text)], [Span(0, part.start, part.end, 1.0)], rendering) == [(0, expected)]


def test_neighbours_of_a_dropped_block_do_not_run_together():
    text = "| a |\n|---|\n| 1 |\n## Gone\nText after."
    parts = [(0, text.index("\n##")), (text.index("Text"), len(text))]
    spans = [Span(0, start, end, 1.0) for start, end in parts]
    assert render([Document(text)], spans, Rendering(markdown=True)) == [(0, "| a |\n|---|\n| 1 |\n\nText after.")]
    text = "a.\n \nX\n \nb."
    spans = [Span(0, 0, 2, 1.0), Span(0, len(text) - 2, len(text), 1.0)]
    assert render([Document(text)], spans, Rendering()) == [(0, "a.\n\nb.")]
    text = "a.\r\n\r\nX.\r\n\r\nb."
    spans = [Span(0, 0, 2, 1.0), Span(0, len(text) - 2, len(text), 1.0)]
    assert render([Document(text)], spans, Rendering("…")) == [(0, "a.\n\n…\n\nb.")]


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


def test_least_relevance_and_least_number(embedded):
    query = "How do I start the boiler?"
    none = embedded.prune(query, HANDBOOK, min_relevance=1.0)
    assert none.spans == ()
    assert (none.text, none.kept_tokens) == ("", 0)
    two = embedded.prune(query, HANDBOOK, min_relevance=1.0, min_keep=2)
    assert len(two.spans) == 2
    least = 1 / 12  # an equal share of the twelve sentences of one passage, which have its mass in common
    some = embedded.prune(query, HANDBOOK, min_relevance=least)
    assert 0 < len(some.spans) < len(embedded.prune(query, HANDBOOK, min_relevance=0.0).spans)
    assert embedded.prune(query, HANDBOOK, min_relevance=least, max_tokens=3, min_keep=1).kept_tokens <= 3


def test_several_segments_prune_as_well():
    scorer = QRScorer.from_pretrained(max_prompt_tokens=300)
    text = "\n\n".join(f"Room {i} has a view of the yard and a bed for {i} guests, no more." for i in range(60))
    text = text.replace("Room 41 has a view", "The bell tower was repaired in 1902. Room 41 has a view")
    pruned = scorer.prune("When was the bell tower repaired?", text, max_tokens=20)
    assert pruned.segments > 3
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
