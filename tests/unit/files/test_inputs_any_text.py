"""Any text as a file of documents, judgements, candidates or heads: it is read, or refused in one clear error."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qr_core.errors import QRHeadError
from qr_core.files.inputs import documents_from_json_lines, documents_from_lines, json_lines
from qr_core.files.trec import read_run
from qr_core.heads.sets import HeadSet
from tests.any_text import any_text

KEYS = st.sampled_from(["text", "title", "id", "heads", "model", "config", "template"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | any_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)
LINES = st.lists(any_text | st.dictionaries(KEYS, VALUES, max_size=4).map(json.dumps), max_size=4).map("\n".join)


def read_or_refused(read, *given_):
    """What was read, or None and one line that says why not; any other exception ends the test."""
    try:
        return read(*given_)
    except QRHeadError as error:
        message = str(error)
    if not message or "\n" in message:
        pytest.fail(f"refused with {message!r}")
    return None


@settings(max_examples=150, deadline=None)
@given(LINES)
def test_any_lines(text):
    assert read_or_refused(HeadSet.from_json, text, "file") is None
    for read in (json_lines, documents_from_json_lines, read_run):
        found = read_or_refused(lambda read=read: list(read(text, "file")))
        assert found is None or isinstance(found, list)
    assert "".join("".join(d.text for d in documents_from_lines(text)).split()) == "".join(text.split())


@settings(max_examples=150, deadline=None)
@given(st.lists(st.fixed_dictionaries({"text": any_text}, optional={"title": any_text, "id": any_text}), max_size=4))
def test_documents_of_any_text_are_read_back(rows):
    text = "\n".join(json.dumps(row, ensure_ascii=True) for row in rows)
    found = read_or_refused(documents_from_json_lines, text, "file")
    if found is not None:
        assert [document.text for document in found] == [json.loads(json.dumps(row["text"])) for row in rows]
