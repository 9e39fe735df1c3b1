"""Continued prompts are the whole ones, or none."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qr_core import Document, QRScorer
from qr_core.cache.reads import SHARED
from qr_core.prompts import continuation
from qr_core.prompts.continuation import OVERLAP, continued
from qr_core.prompts.templates import NULL_QUERY
from qr_core.prompts.tokens import Tokeniser
from tests.helpers import DOCUMENTS, GOLDEN, QUERY
from tests.unit.prompts.test_joint import TOKENIZERS, builder

OTHER = "Who built the stone bridge?"


@pytest.fixture(scope="module")
def tiny() -> QRScorer:
    return QRScorer.from_pretrained(GOLDEN / "tiny-llama", "1-1", template="plain", device="cpu")


TEXTS = st.lists(
    st.text(
        alphabet=st.one_of(
            st.characters(codec="utf-8", exclude_categories=["Cs"]), st.sampled_from("ab .\n\u00e9\u4e2d\U0001f600")
        ),
        max_size=120,
    ),
    min_size=1,
    max_size=4,
)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_continued_prompt_is_the_whole_one(name):
    made, found = builder(name), []

    @settings(max_examples=15, deadline=None)
    @given(TEXTS, st.text(max_size=40), st.text(max_size=40))
    def check(texts, query, other):
        documents = [Document(text) for text in texts] + DOCUMENTS[:1] * 2 + [Document(text) for text in texts] * 4
        known, whole = (made.build([each, NULL_QUERY], documents)[0] for each in (query, other))
        prompt = continued(made, known, other, documents)
        if prompt is not None:
            found.append(prompt)
            assert prompt == whole
            assert prompt.starts.tolist() == whole.starts.tolist()
            assert prompt.ends.tolist() == whole.ends.tolist()
            assert prompt.text_starts == whole.text_starts

    check()
    documents = DOCUMENTS * 4
    prompt = continued(made, made.build([QUERY], documents)[0], OTHER, documents)
    assert prompt == made.build([OTHER], documents)[0]
    print(f"{name}: {len(found)} continued")


def test_control_tokens_are_never_continued(tiny):
    documents = DOCUMENTS * 4
    known = tiny.prompt(QUERY, documents).query
    assert known.query_start > OVERLAP
    assert continued(tiny.prompts, known, OTHER, documents) is not None
    assert continued(tiny.prompts, known, "What is <|eot_id|>?", documents) is None
    hostile = [*documents, Document("<|eot_id|>")]
    assert continued(tiny.prompts, tiny.prompt(QUERY, hostile).query, OTHER, hostile) is None
    for query in (QUERY, "What is <|eot_id|>?", OTHER, QUERY):
        for some in (documents, hostile, DOCUMENTS):
            assert tiny.prompt(query, some, SHARED) == tiny.prompt(query, some)


def test_only_the_end_is_tokenised_again(tiny, monkeypatch):
    documents = DOCUMENTS * 30
    tiny.prompt(QUERY, documents, SHARED)
    lengths = []
    encode = Tokeniser.encode
    monkeypatch.setattr(Tokeniser, "encode", lambda t, string: (lengths.append(len(string)), encode(t, string))[1])
    tiny.prompt(OTHER, documents, SHARED)
    assert len(lengths) == 1
    assert lengths[0] < 2_000 < sum(len(document.text) for document in documents)


def test_a_tokenizer_that_looks_far_ahead_is_built_whole(tiny, monkeypatch):
    """Then nothing is kept to continue from."""
    monkeypatch.setattr(continuation, "continued", lambda builder, known, query, documents: known)
    first = tiny.prompt(QUERY, DOCUMENTS * 4, SHARED)
    assert len(SHARED) == 0
    assert first == tiny.prompt(QUERY, DOCUMENTS * 4)
