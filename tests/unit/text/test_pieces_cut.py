"""Pieces measured as a prompt holds them: where long documents are cut, with nothing lost and titles counted."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qr_core import Document, InputError
from qr_core.text.pieces import PIECE_SHARE, Piece, cut_long, in_parts, whole_documents


def words(documents) -> list[int]:
    """Measure by blanks: number, title and text, as a prompt would hold them."""
    return [1 + len((document.title or "").split()) + len(document.text.split()) for document in documents]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(alphabet="ab .\n", max_size=400), max_size=5), st.integers(60, 400))
def test_long_documents_are_cut_without_loss(texts, capacity):
    documents = [Document(text, "A title") for text in texts]
    pieces, lengths = cut_long(documents, whole_documents(documents), capacity, words)
    assert [piece.document for piece in pieces] == sorted(piece.document for piece in pieces)
    assert {piece.document for piece in pieces} == set(range(len(documents)))
    for number, document in enumerate(documents):
        place = 0
        for piece in (piece for piece in pieces if piece.document == number):
            assert not document.text[place : piece.start].strip()
            place = piece.end
        assert not document.text[place:].strip()
    assert all(length <= capacity * PIECE_SHARE for length in lengths)
    assert all(n <= m for n, m in zip(words([p.of(documents) for p in pieces]), lengths, strict=True))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(alphabet="ab .\n", max_size=400), max_size=5), st.integers(4, 100), st.integers(0, 12))
def test_parts_lose_nothing_and_keep_short_documents_whole(texts, most, title):
    documents = [Document(text, "t " * title or None) for text in texts]
    parts = in_parts(documents, whole_documents(documents), most, words)
    assert [part.document for part in parts] == sorted(part.document for part in parts)
    for number, document in enumerate(documents):
        own = [part for part in parts if part.document == number]
        if words([document])[0] <= most:
            assert own == [Piece(number, 0, len(document.text))]
        place = 0
        for part in own:
            assert not document.text[place : part.start].strip()
            place = part.end
        assert own
        assert not document.text[place:].strip()
        assert len(own) == 1 or all(n <= max(most, most // 2 + title) for n in words([p.of(documents) for p in own]))


def test_parts_are_about_equally_long():
    document = Document(" ".join(f"Sentence {n} has five words." for n in range(21)))
    parts = in_parts([document], whole_documents([document]), 100, words)
    assert [words([part.of([document])])[0] for part in parts] == [56, 51]


def test_cuts_prefer_paragraphs_then_sentences():
    text = "One two three. Four five six.\n\n" + "Seven eight nine ten. " * 4 + "\n\nEleven."
    pieces, _ = cut_long([Document(text)], whole_documents([Document(text)]), 40, words)
    assert [text[p.start : p.end] for p in pieces] == [
        "One two three. Four five six.",
        "Seven eight nine ten. Seven eight nine ten.",
        "Seven eight nine ten. Seven eight nine ten.",
        "Eleven.",
    ]


def test_a_title_longer_than_a_window_is_an_error():
    documents = [Document("short"), Document("text " * 100, "word " * 60)]
    with pytest.raises(InputError, match="document 1: its title takes 60 tokens"):
        cut_long(documents, whole_documents(documents), 100, words)
