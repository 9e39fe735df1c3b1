"""Every unit of every format cuts any text: in order, without overlap, and with nothing but white space left out."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from qr_core import Document
from qr_core.text.chunking import TextFormat
from qr_core.text.pieces import in_parts, whole_documents
from qr_core.text.units import UNITS
from tests.any_text import any_text

CUTS = [(unit, text_format) for unit in UNITS for text_format in get_args(TextFormat)]


@pytest.mark.parametrize(("unit", "text_format"), CUTS)
@settings(max_examples=40, deadline=None)
@given(text=any_text)
@example(text="vitamin C\u00a0. Then more.")
@example(text="\ud800\u3000.\u2028\u2029\x85")
@example(text="")
def test_units_cover_any_text(unit, text_format, text):
    found = UNITS[unit].cut(text, text_format)
    place = 0
    for one in found:
        assert place <= one.start < one.end <= len(text)
        assert not text[place : one.start].strip()
        assert text[one.start : one.end].strip()
        place = one.end
    assert not text[place:].strip()


@settings(max_examples=60, deadline=None)
@given(st.lists(any_text, min_size=1, max_size=3), st.integers(4, 60))
def test_parts_of_any_documents_cover_them(texts, tokens):
    documents = [Document(text) for text in texts]
    parts = in_parts(documents, whole_documents(documents), tokens, lambda some: [len(one.text) for one in some])
    for number, document in enumerate(documents):
        place = 0
        for part in (one for one in parts if one.document == number):
            assert place <= part.start <= part.end <= len(document.text)
            assert not document.text[place : part.start].strip()
            place = part.end
        assert not document.text[place:].strip()
