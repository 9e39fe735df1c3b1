"""Borders: ends of sentences for any text, with bounded work for each call of the splitter."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
import sentencex
from hypothesis import example, given, settings

from qr_core.text import borders
from qr_core.text.borders import LONGEST_UNIT, SLICE, sentence_ends
from tests.any_text import BLANKS, RUNS, any_text
from tests.unit.text.cutting import units


def parts(text):
    places = [0, *sentence_ends(text)]
    return [text[a:b].strip() for a, b in pairwise(places)]


@pytest.fixture
def given_to_splitter(monkeypatch):
    """Every text that the splitter gets."""
    seen = []
    own = sentencex.get_sentence_boundaries

    def watched(language, text):
        seen.append(text)
        return own(language, text)

    monkeypatch.setattr(sentencex, "get_sentence_boundaries", watched)
    return seen


@settings(max_examples=300, deadline=None)
@given(any_text)
@example("vitamin C\u00a0.")
@example("")
def test_ends_ascend_to_the_end_of_any_text(text):
    ends = sentence_ends(text)
    assert ends == sorted(set(ends))
    assert all(0 < end <= len(text) for end in ends)
    assert ends[-1:] == [len(text)] * bool(text)


@pytest.mark.parametrize("blank", [c for c in BLANKS if c > "\x7f" and c.isspace()], ids=lambda c: f"{ord(c):04x}")
def test_blanks_of_any_width_are_blanks(blank):
    text = "Take vitamin C . Sleep well. No. 5 is A. Orr's?  Yes!"
    assert len(sentence_ends(text)) > 2
    assert sentence_ends(text.replace(" ", blank)) == sentence_ends(text)


def test_what_the_splitter_cannot_split_is_split_at_marks(monkeypatch):
    """With the library's own panic, which is no `Exception`."""
    own = sentencex.get_sentence_boundaries
    monkeypatch.setattr(sentencex, "get_sentence_boundaries", lambda language, _text: own(language, "C\u00a0."))
    with pytest.raises(BaseException, match="char boundary") as caught:
        sentencex.get_sentence_boundaries("en", "")
    assert not isinstance(caught.value, Exception)
    assert parts('He left. "Why?" It is 3.5 miles. 好。') == ["He left.", '"Why?"', "It is 3.5 miles.", "好。"]


def test_an_interrupt_is_no_panic(monkeypatch):
    def interrupted(_language, _text):
        raise KeyboardInterrupt

    monkeypatch.setattr(sentencex, "get_sentence_boundaries", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sentence_ends("One. Two.")


def test_long_texts_are_split_as_short_ones_are(given_to_splitter):
    sentences = [f"Dr. Orr saw number {i}, e.g. \u201con Monday\u201d, by the river Ellin." for i in range(700)]
    assert parts(" ".join(sentences)) == sentences
    assert max(map(len, given_to_splitter)) <= SLICE


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_the_splitter_gets_bounded_slices_and_no_more_than_thrice_the_text(run, given_to_splitter):
    text = (run * 20_000)[:20_000]
    for text_format in ("text", "markdown", "chat"):
        given_to_splitter.clear()
        units(text, "sentence", text_format)
        assert max(map(len, given_to_splitter), default=0) <= SLICE
        assert sum(map(len, given_to_splitter)) <= 3 * len(text)


def test_forced_cuts_move_on():
    """The largest overlap leaves more than half a slice's progress, so that work is linear."""
    assert SLICE - borders._REACH - LONGEST_UNIT > SLICE / 3


@pytest.mark.slow
@pytest.mark.parametrize("unit", ["sentence", "paragraph", "turn"])
@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_time_grows_with_the_length_and_not_with_its_square(run, unit):
    """Eight times the text takes far less than the 64 times that quadratic work would."""

    def seconds(length):
        text = (run * length)[:length]
        start = time.process_time()
        for text_format in ("text", "markdown", "chat"):
            units(text, unit, text_format)
        return time.process_time() - start

    seconds(1000)
    assert seconds(400_000) < 24 * max(seconds(50_000), 0.02)
