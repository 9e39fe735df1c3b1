"""Units and passages: what they cut, what they keep whole, and that every span points into the original."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qr_core import chunking
from qr_core.chunking import passages, sessions, units

MARKDOWN = """# Boiler manual

Read this first. Keep it near the boiler.

- Turn the tap. Slowly.
- Wait.

  A paragraph inside the list. With two sentences.

| part | price |
|------|-------|
| valve | 3. Four. |

```sh
reset --all. Now.

echo done
```

## Faults

The lamp blinks twice. Call us.
> A quotation. Of two sentences.

[note]: https://example.org
"""

CHAT = """Session 1, Monday
Anna: Did the parcel come?
It should have been here on Friday.
Ben: Yes: this morning. It was wet.

---
[10:32] Anna: The radio works.
**Carla:** Good. Which radio?
"""


def texts(text, found):
    return [text[unit.start : unit.end] for unit in found]


def test_markdown_blocks_stay_whole():
    found = texts(MARKDOWN, units(MARKDOWN, "sentence", "markdown"))
    assert "# Boiler manual" in found
    assert found[1:3] == ["Read this first.", "Keep it near the boiler."]
    assert found[3].startswith("- Turn")
    assert found[3].endswith("two sentences.")
    assert found[4].startswith("| part")
    assert found[5].startswith("```sh")
    assert found[5].endswith("```")
    assert found[-1] == "[note]: https://example.org"


def test_markdown_headings_are_known():
    found = units(MARKDOWN, "paragraph", "markdown")
    lamp = next(unit for unit in found if MARKDOWN[unit.start :].startswith("The lamp"))
    assert [MARKDOWN[a:b] for a, b in lamp.headings] == ["# Boiler manual", "## Faults"]
    assert found[0].level == 1
    assert found[0].headings == ()


def test_turns_and_sessions():
    assert texts(CHAT, units(CHAT, "turn")) == [
        "Session 1, Monday",
        "Anna: Did the parcel come?\nIt should have been here on Friday.",
        "Ben: Yes: this morning. It was wet.",
        "---",
        "[10:32] Anna: The radio works.",
        "**Carla:** Good. Which radio?",
    ]
    assert [text.splitlines()[0] for text in texts(CHAT, sessions(CHAT))] == ["Session 1, Monday", "---"]
    assert [text.splitlines()[0] for text in texts(CHAT, passages(CHAT, "chat"))] == ["Session 1, Monday", "---"]


def test_sentences_and_paragraphs_of_plain_text():
    text = "Dr. Orr came at 3.5 p.m. on Monday. He left!\r\n\r\nA second paragraph\nover two lines. 这是。那是！"
    assert texts(text, units(text, "sentence")) == [
        "Dr. Orr came at 3.5 p.m. on Monday.",
        "He left!",
        "A second paragraph\nover two lines.",
        "这是。",
        "那是！",
    ]
    assert len(units(text, "paragraph")) == 2
    assert texts(text, units(text, "document")) == [text]


def test_passages_take_in_whole_paragraphs():
    text = "\n\n".join(" ".join([f"word{i}"] * 40) + "." for i in range(10))
    found = texts(text, passages(text))
    assert [len(passage.split()) for passage in found] == [120, 120, 120, 40]
    assert "\n\n".join(found) == text


def test_a_long_paragraph_becomes_several_passages():
    text = "This sentence has six words here. " * 100
    assert all(100 <= len(passage.split()) <= 106 for passage in texts(text, passages(text))[:-1])


def test_a_line_without_borders_is_cut():
    text = "x" * 100_000
    found = units(text, "sentence")
    assert "".join(texts(text, found)) == text
    assert max(unit.end - unit.start for unit in found) <= chunking.LONGEST_UNIT


@pytest.mark.parametrize("blank", ["", " ", "\n\n \r\n\t"])
@pytest.mark.parametrize("unit", ["document", "paragraph", "sentence", "turn"])
def test_blank_text_has_no_units(blank, unit):
    assert units(blank, unit) == []
    assert passages(blank) == []


PIECES = st.sampled_from(
    ["# h", "## h\n", "- a\n", "1. b\n", "|a|b|\n|-|-|\n|1|2|\n", "```\n", "> q\n", "Anna: ", "---\n", "\n\n", "\r\n",
     "\r", ". ", "! ", "word ", "é", "e\u0301", "😀", "\u2028", "\x85", "\x0b", "\0", "\ud800", "    ", "\t", "<b>",
     "</b>\n\n"]
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(st.text(), st.lists(PIECES).map("".join)),
    st.sampled_from(["document", "paragraph", "sentence", "turn"]),
    st.sampled_from(["text", "markdown", "chat"]),
)
def test_nothing_is_lost_or_doubled(text, unit, text_format):
    for found in (units(text, unit, text_format), passages(text, text_format)):
        place = 0
        for part in found:
            assert place <= part.start < part.end <= len(text)
            assert not text[place : part.start].strip()
            assert text[part.start : part.end].strip() == text[part.start : part.end]
            assert all(0 <= a < b <= len(text) for a, b in part.headings)
            place = part.end
        assert not text[place:].strip()
