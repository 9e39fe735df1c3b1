"""Units and passages: what they cut, what they keep whole, and that every span points into the original."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qr_core.text import chunking
from qr_core.text.chunking import passages, sessions
from tests.unit.text.cutting import units

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


def test_windows_line_ends_are_no_paragraph_borders():
    text = "The committee met on Monday and\ndecided to close it for\nthe winter. It reopens in May.\n\nNext para."
    for line_end in ("\n", "\r\n", "\r"):
        other = text.replace("\n", line_end)
        for unit in ("sentence", "paragraph"):
            found = [part.replace(line_end, "\n") for part in texts(other, units(other, unit))]
            assert found == texts(text, units(text, unit))
    assert texts(text, units(text, "paragraph"))[1] == "Next para."


def test_long_paragraphs_and_turns_are_cut_at_sentences_only():
    sentences = [f"Sentence number {i} tells about the old bridge over the river Ellin." for i in range(60)]
    text = " ".join(sentences)
    assert len(text) > 2 * chunking.LONGEST_UNIT
    for text_format in ("text", "markdown"):
        assert texts(text, units(text, "sentence", text_format)) == sentences
        assert texts(text, units(text, "paragraph", text_format)) == [text]
    assert texts(f"Anna: {text}", units(f"Anna: {text}", "turn")) == [f"Anna: {text}"]


@pytest.mark.parametrize("cluster", ["e\u0301", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "नि"])
def test_a_forced_cut_keeps_letters_and_emoji_whole(cluster):
    text = cluster * 1500
    for part in texts(text, units(text, "sentence")):
        assert part == cluster * (len(part) // len(cluster))


TURNS = {
    "names": "Anna: Hello there.\nBen Carter: Yes?\nDr. Orr: No.",
    "roles": "user: hi\nassistant: hello\nsystem: be brief",
    "Role with text below": "User:\nhow does it work?\nAssistant:\nlike this",
    "bold": "**anna:** hi\n**ben**: yo",
    "brackets": "[user]: hi\n[bot]: yo",
    "stamps before": "[10:32] anna: hi\n(10:33) ben: yo\n10:34:10 anna: so\n10:35 PM ben: well",
    "dates before": "02/01/2024, 10:32 - Anna: hi\n[2024-01-02 10:33:11] Ben: yo\n2024-01-02T10:34 Anna: so",
    "stamps after": "Anna [10:32]: hi\nBen (10:33): yo",
    "angled": "<anna> hi\n<ben> yo",
    "two people": "Anna & Ben: hi\nMaria de la Cruz: yo\nAnna (Sales): so",
    "no capitals": "小明：你好\n小红：好",
    "devanagari": "नेहा: नमस्ते\nरवि: हाँ",
    "emoji": "🤖: beep\n🦊: yip",
}


@pytest.mark.parametrize("text", TURNS.values(), ids=TURNS)
def test_ways_to_name_a_speaker(text):
    lines = text.splitlines()
    expected = ["\n".join(lines[i : i + 2]) for i in range(0, 4, 2)] if "below" in lines or "User:" in lines else lines
    assert texts(text, units(text, "turn")) == expected


REPLY = """Assistant: Here is how.
def f(x):
    try:
        return x
    else:
        pass
class A:
You need three things: milk, flour and eggs.
Note: let it rest.
http://example.org: a page
- item: one
3 ways: these
Chat soon
Session was great
# Steps
First do this.
---
## Then
And that is all.
```
Ben: printed
# comment
Session 3
```"""


def test_what_stands_in_a_reply_begins_no_turn_and_no_session():
    text = f"User: How?\n{REPLY}\nUser: Thanks."
    assert texts(text, units(text, "turn")) == ["User: How?", REPLY, "User: Thanks."]
    assert len(sessions(text)) == 1


@pytest.mark.parametrize("line", ["Session 2", "Session 2: Monday", "Conversation #3 (10:32 am)", "# Day two", "-----"])
def test_ways_to_begin_a_session(line):
    text = f"Anna: One.\nBen: Two.\n\n{line}\n\nAnna: Three."
    assert texts(text, sessions(text)) == ["Anna: One.\nBen: Two.", f"{line}\n\nAnna: Three."]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Title\n=====\n\nText.", ["Title\n=====", "Text."]),
        ("```\ncode. More.\n\nstill code", ["```\ncode. More.\n\nstill code"]),
        ("| a |  |\n|---|---|\n|   | x. y. |", ["| a |  |\n|---|---|\n|   | x. y. |"]),
        ("> Quoted. Twice.\n> Thrice.\n\nOut.", ["> Quoted. Twice.\n> Thrice.", "Out."]),
        ("- a. b.\n  - c. d.\n\n    e. f.\n- g.", ["- a. b.\n  - c. d.\n\n    e. f.\n- g."]),
    ],
)
def test_blocks_of_markdown_are_whole(text, expected):
    for line_end in ("\n", "\r\n"):
        other = text.replace("\n", line_end)
        assert texts(other, units(other, "sentence", "markdown")) == [e.replace("\n", line_end) for e in expected]


def test_headings_begin_passages():
    text = "# One\n\nShort.\n\n# Two\n\nShort too.\n\n## Deeper\n\nEnd."
    assert texts(text, passages(text, "markdown")) == ["# One\n\nShort.", "# Two\n\nShort too.", "## Deeper\n\nEnd."]
