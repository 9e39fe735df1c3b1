"""Units of pruning: those that ship, and one more that is one entry."""

from __future__ import annotations

import re

import pytest

from qr_core import InputError
from qr_core.text import UNITS, Unit, UnitKind, passages

POEM = "The boiler is red,\nthe lamp is blue,\nthe key hangs behind the stove.\n\nNobody knows\nwho lit the fire."


def lines(text, _text_format):
    return [Unit(*match.span()) for match in re.finditer(r"\S.*\S|\S", text)]


@pytest.fixture
def added():
    UNITS.add("line", UnitKind(lines))
    yield "line"
    UNITS.remove("line")


def test_another_unit_is_one_entry(added, embedded):
    pruned = embedded.prune("Where does the key hang?", POEM, top_k=1, unit=added)
    assert pruned.text == "the key hangs behind the stove."
    everything = embedded.prune("Where does the key hang?", [POEM, POEM], top_k=10, unit=added)
    assert [POEM[span.start : span.end] for span in everything.spans] == 2 * [line for line in POEM.split("\n") if line]


def test_the_command_line_takes_another_unit(added, run, tmp_path):
    file = tmp_path / "poem.txt"
    file.write_text(POEM)
    options = ["--query", "Where does the key hang?", "--file", str(file), "--top-k", "1", "--unit"]
    assert run("prune", *options, added)[:2] == (0, "the key hangs behind the stove.\n")
    status, _, err = run("prune", *options, "chorus")
    assert status == 2
    assert "line" in err


def test_a_unit_that_nobody_added_is_refused(embedded):
    with pytest.raises(InputError, match="unit is 'line': use one of document, paragraph, sentence, turn"):
        embedded.prune("Where does the key hang?", POEM, top_k=1, unit="line")


def test_documents_are_units_only_where_they_are_handed_in(embedded):
    text = "The oven needs cleaning every other week. " * 60
    whole = embedded.prune("oven", [text], top_k=10, unit="document")
    assert [(span.start, span.end) for span in whole.spans] == [(0, len(text))]
    cut = embedded.prune("oven", text, top_k=10, unit="document")
    assert [(span.start, span.end) for span in cut.spans] == [(part.start, part.end) for part in passages(text)]
    assert len(cut.spans) > 1


def test_sessions_are_the_documents_of_a_chat(embedded):
    chat = "Session 1\nAnna: The key hangs in the kitchen.\n\nSession 2\nBen: It rains.\nAnna: Yes."
    pruned = embedded.prune("Where is the key?", chat, unit="document", text_format="chat", top_k=1)
    assert pruned.text == "Session 1\nAnna: The key hangs in the kitchen."


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
