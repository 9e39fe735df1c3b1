"""Any text: strategies that draw from every class of characters, above all from those that parsers stumble over."""

from __future__ import annotations

from hypothesis import strategies as st

BLANKS = "".join(c for c in map(chr, range(0x3001)) if c.isspace()) + "\u200b\u200d\u2060\ufeff"
MARKS = ".!?:;,\u2026\u3002\uff01\uff1f\uff0e\u0589\u06d4\u0964\u203d'\"`\u2018\u2019\u201c\u201d\u00ab\u00bb()[]{}<>"
_PARTS = [
    *BLANKS, *MARKS, "C", "I", "x", "1", "\u00e9", "e\u0301", "\u0130", "\ufb01", "\U0001f468\u200d\U0001f469",
    "\u202e", "\ud800", "\udfff", "\0", "\x1b", "\x7f", "\\", "vitamin ", "Dr.", "e.g.", "3.5", "![[", "<?", "<!--",
    "```", "~~~", "\n\n", "\r\n", "- ", "# ", "> ", "|", "1. ", "---\n", "Anna: ", "[10:32] ", "Session 2\n", "\\x{20}",
    "<|im_end|>",
]  # fmt: skip
_CHARACTERS = st.one_of(
    *(st.characters(categories=[kind]) for kind in ("Z", "P", "S", "M", "L", "N", "Cc", "Cf", "Cs", "Co"))
)
any_text = st.lists(st.one_of(st.sampled_from(_PARTS), st.sampled_from(_PARTS), _CHARACTERS), max_size=24).map("".join)
"""Short texts of parts that parsers know, mixed with characters of all classes, lone surrogates among them."""

RUNS = {
    "quotes": '"', "curly quotes": "\u201c", "ticks": "`", "fences": "```\n", "tildes": "~~~\n", "images": "![[",
    "instructions": "<?", "comments": "<!--", "brackets": "[", "tags": "<a\n", "stars": "*a ", "rules": "---\n",
    "quotations": "> ", "items": "- a\n", "cells": "|a|\n", "definitions": "[a]: b '\n", "dots": ". ", "stops": ".",
    "capitals": "A. ", "speakers": "Anna: hi\n", "stamps": "[10:32", "blanks": " ", "letters": "x", "stars alone": "*",
    "sessions": "session ", "parens": "(1) (", "wide blanks": "\u3000.",
}  # fmt: skip
"""What a text may be made of by the million, by name."""
