"""Pieces: long documents are cut at paragraphs and sentences, with nothing lost and nothing too long."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qr_core import Document, InputError
from qr_core.text.pieces import Piece, cut_long, in_parts, whole_documents

WORDS = st.lists(st.text(alphabet="ab", min_size=1, max_size=4), min_size=1, max_size=12).map(" ".join)
TEXTS = st.lists(WORDS.map(lambda words: f"{words.capitalize()}."), max_size=12).map("\n\n".join)


def words(documents) -> list[int]:
    """A word is a token."""
    return [len(f"{document.title or ''} {document.text}".split()) for document in documents]


def check(documents, pieces) -> None:
    for number, document in enumerate(documents):
        place = 0
        for piece in (piece for piece in pieces if piece.document == number):
            assert place <= piece.start <= piece.end <= len(document.text)
            assert not document.text[place : piece.start].strip()
            place = piece.end
        assert not document.text[place:].strip()


@settings(max_examples=100, deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=4), st.integers(4, 40), st.sampled_from([None, "T", "two words"]))
def test_pieces_of_a_segment_take_a_quarter_of_it_at_most(texts, quarter, title):
    documents = [Document(text, title) for text in texts]
    pieces, lengths = cut_long(documents, whole_documents(documents), 4 * quarter, words)
    check(documents, pieces)
    assert max(words([piece.of(documents) for piece in pieces])) <= quarter
    assert all(length <= quarter for length in lengths)
    assert all(piece.of(documents).title == title for piece in pieces)


@settings(max_examples=100, deadline=None)
@given(TEXTS, st.integers(3, 40))
def test_parts_are_at_most_as_long_as_asked(text, tokens):
    documents = [Document(text, "T")]
    parts = in_parts(documents, whole_documents(documents), tokens, words)
    check(documents, parts)
    assert max(words([part.of(documents) for part in parts])) <= tokens


def test_parts_are_of_about_equal_length():
    text = "\n\n".join(f"Sentence {number} has five words." for number in range(21))
    documents = [Document(text)]
    parts = in_parts(documents, whole_documents(documents), 80, words)
    assert words([part.of(documents) for part in parts]) == [65, 40]  # not 80 and 25


def test_short_documents_stay_whole_and_are_the_same_object():
    documents = [Document("One.", "T", 3), Document("")]
    pieces = in_parts(documents, whole_documents(documents), 10, words)
    assert pieces == [Piece(0, 0, 4), Piece(1, 0, 0)]
    assert pieces[0].of(documents) is documents[0]
    assert Piece(0, 0, 4).covers(Piece(0, 1, 4))
    assert not Piece(0, 0, 3).covers(Piece(0, 1, 4))
    assert not Piece(0, 0, 4).covers(Piece(1, 0, 0))


def test_a_title_that_leaves_no_room_is_named():
    documents = [Document("word " * 50, "long title " * 10)]
    with pytest.raises(InputError, match="document 0: its title takes 20 tokens, too many for segments of 80"):
        cut_long(documents, whole_documents(documents), 80, words)
